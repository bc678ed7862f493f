//! With the feature `cuda`: compiles kernels/*.cu to machine code for the cards there are, and to PTX for later ones, and writes the
//! list of images and kernel names that `ops/cuda` includes. Without it: nothing. Knows nvcc; knows no kernel.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

/// Ampere's servers and desktops, Ada, Hopper with its own features; then PTX that drivers compile for what comes later.
const TARGETS: [&str; 5] = [
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_86,code=sm_86",
    "-gencode=arch=compute_89,code=sm_89",
    "-gencode=arch=compute_90a,code=sm_90a",
    "-gencode=arch=compute_80,code=compute_80",
];
/// With `PAIRWRIGHT_CUDA_LITE=1`, for checks on machines without a card: no machine code.
const LITE: &str = "-gencode=arch=compute_80,code=compute_80";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-env-changed=NVCC");
    println!("cargo::rerun-if-env-changed=PAIRWRIGHT_NVCC");
    println!("cargo::rerun-if-env-changed=PAIRWRIGHT_CUDA_LITE");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    if let Err(error) = images() {
        println!("cargo::error=kernels: {error}");
    }
}

/// Compiles all sources side by side.
fn images() -> io::Result<()> {
    let nvcc = env::var("NVCC").unwrap_or_else(|_| "nvcc".to_owned());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?);
    let mut sources: Vec<PathBuf> =
        fs::read_dir("kernels")?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    sources.retain(|source| source.extension().is_some_and(|extension| extension == "cu"));
    sources.sort();
    let lite = env::var("PAIRWRIGHT_CUDA_LITE").is_ok_and(|value| value == "1");
    let targets = if lite { &[LITE][..] } else { &TARGETS[..] };
    let started = sources.iter().map(|source| {
        let image = out.join(source.with_extension("fatbin").file_name().unwrap_or_default());
        let key = key(source, &nvcc, targets)?;
        if image.exists() && fs::read_to_string(image.with_extension("key")).is_ok_and(|made_of| made_of == key) {
            return Ok((source, image, key, None));
        }
        let mut compiler = Command::new(&nvcc);
        compiler.args(["-std=c++17", "-O3", "-Werror", "all-warnings", "-fatbin"]).args(targets);
        compiler.arg("-o").arg(&image).arg(source);
        let started = compiler.spawn().map_err(|error| io::Error::other(format!("{nvcc} does not start: {error}")))?;
        Ok((source, image, key, Some(started)))
    });
    let started: Vec<_> = started.collect::<io::Result<_>>()?;
    let (mut images, mut names) = (String::new(), BTreeSet::new());
    for (source, image, key, compiler) in started {
        if let Some(mut compiler) = compiler {
            if !compiler.wait()?.success() {
                return Err(io::Error::other(format!("{nvcc} refused {}", source.display())));
            }
            fs::write(image.with_extension("key"), key)?;
        }
        names.extend(entries(&nvcc, source)?.into_iter().map(|name| (images.lines().count(), name)));
        let _ = writeln!(images, "    include_bytes!({:?}),", image.display().to_string());
    }
    let mut list = format!("/// Compiled kernels, an image per source.\nstatic IMAGES: &[&[u8]] = &[\n{images}];\n");
    list += "/// Each kernel's image and name.\nstatic KERNELS: &[(usize, &str)] = &[\n";
    names.iter().for_each(|(image, name)| _ = writeln!(list, "    ({image}, {name:?}),"));
    fs::write(out.join("images.rs"), list + "];\n")
}

/// A hash of all that an image is made of.
fn key(source: &Path, nvcc: &str, targets: &[&str]) -> io::Result<String> {
    let mut hasher = DefaultHasher::new();
    (nvcc, targets, fs::read(source)?).hash(&mut hasher);
    let mut headers: Vec<PathBuf> =
        fs::read_dir("kernels")?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    headers.retain(|header| header.extension().is_some_and(|extension| extension == "cuh"));
    headers.sort();
    headers.iter().try_for_each(|header| fs::read(header).map(|text| text.hash(&mut hasher)))?;
    Ok(format!("{:016x}", hasher.finish()))
}

/// The names of a source's kernels, which its preprocessed text declares.
fn entries(nvcc: &str, source: &Path) -> io::Result<Vec<String>> {
    // As the newest target sees it, which has all kernels that any has; what nvcc compiles code for it with it does not define here.
    let arch = ["-arch=compute_90a", "-D__CUDA_ARCH_FEAT_SM90_ALL"];
    let mut preprocessor = Command::new(nvcc);
    let text = preprocessor.args(["-std=c++17", "-E"]).args(arch).arg(source).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&text.stdout);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let declared = text.split("launch_bounds").skip(1).filter_map(|after| {
        let (_, name) = after.split_once("pairwright_")?;
        Some(format!("pairwright_{}", name.split(|c| !is_name(c)).next()?))
    });
    Ok(declared.collect())
}

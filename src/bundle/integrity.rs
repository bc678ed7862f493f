//! Whether a model's folder holds what its commit or its bundle says: no file missing, none cut short, no pointer or dangling link in
//! place of one; with hashes where asked for.
//! Knows lists of files and their sums; nothing of what is in a file, which `generate::verify` looks at.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::BundleError;
use super::digest;
use super::error::{io_error, name_some};
use super::hf_cache::{self, Identity};
use super::manifest::{MANIFEST_FILE, Manifest};
use crate::provenance::folder_of;

/// What a file should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Path in the model's folder.
    pub path: String,
    /// Bytes.
    pub size_bytes: u64,
    /// SHA-256, if the list has it.
    pub sha256: Option<String>,
    /// Git's SHA-1, if the list has it and it is that of the content.
    pub blob_id: Option<String>,
    /// Whether the hub keeps it outside of git.
    pub lfs: bool,
}

/// The list of files that a folder should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Where the list stands, in words.
    pub origin: String,
    /// What the folder is of.
    pub identity: Option<Identity>,
    /// By path.
    pub files: Vec<Expected>,
    /// Whether all of them must be there: true of a bundle, while a snapshot may be a part of its repository.
    pub all: bool,
}

/// What a check found where nothing is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Checked {
    /// Where the list of files stands; `None`: there was none, so links and pointers alone were looked for.
    pub list: Option<String>,
    /// Files whose size is right.
    pub num_files: usize,
    /// Files whose hash is right.
    pub num_hashed: usize,
    /// Files of the commit that are not here and that are not needed.
    pub absent: Vec<String>,
}

/// The list for the folder `dir`: of our manifest in it or around it, or of the Hugging Face cache that it lies in.
///
/// # Errors
/// A list that is damaged.
pub fn expectation(dir: &Path) -> Result<Option<Expectation>, BundleError> {
    if let Some(found) = of_manifest(dir)? {
        return Ok(Some(found));
    }
    let Some((commit, tree)) = hf_cache::tree_of(dir)? else { return Ok(None) };
    let one = |(path, file): (String, hf_cache::TreeFile)| {
        let lfs = file.lfs_sha256.is_some();
        Expected {
            path,
            size_bytes: file.lfs_size.unwrap_or(file.size),
            blob_id: file.blob_id.filter(|_| !lfs),
            sha256: file.lfs_sha256,
            lfs,
        }
    };
    let origin = format!("trees/{}.json", commit.unwrap_or_default());
    let files = tree.files.into_iter().map(one).collect();
    Ok(Some(Expectation { origin, identity: hf_cache::identify(dir), files, all: false }))
}

/// From the manifest of an installed model, or that of the unpacked bundle around it.
fn of_manifest(dir: &Path) -> Result<Option<Expectation>, BundleError> {
    let canonical = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let around = canonical.parent().and_then(Path::parent);
    for place in std::iter::once(canonical.as_path()).chain(around) {
        let path = place.join(MANIFEST_FILE);
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let Ok(manifest) = Manifest::parse(&bytes, &path) else { continue };
        let folder = canonical.strip_prefix(place).unwrap_or(Path::new("")).to_string_lossy().into_owned();
        let own = match (folder.is_empty(), &manifest.items[..]) {
            (true, [only]) => Some((only, manifest.clone())),
            (true, _) => None,
            (false, items) => {
                items.iter().find(|item| item.folder == folder).map(|item| (item, manifest.of_item(item)))
            }
        };
        let Some((item, list)) = own else { continue };
        let identity = item.repo.clone().map(|repo| Identity {
            repo,
            revision: item.revision.clone(),
            commit: item.commit.clone(),
        });
        let one = |file: &super::manifest::Entry| Expected {
            path: file.path.clone(),
            size_bytes: file.size_bytes,
            sha256: Some(file.sha256.clone()),
            blob_id: None,
            lfs: file.lfs,
        };
        let files = list.files.iter().map(one).collect();
        return Ok(Some(Expectation { origin: MANIFEST_FILE.to_owned(), identity, files, all: true }));
    }
    Ok(None)
}

/// The command that fetches what a folder should hold, on a machine with a connection.
pub fn repair(identity: Option<&Identity>) -> String {
    match identity {
        Some(Identity { repo, commit: Some(commit), .. }) => {
            format!("`pairwright pull {repo} --revision {commit}`, then carry it here as files, not as links")
        }
        Some(Identity { repo, .. }) => format!("`pairwright pull {repo}`, then carry it here as files, not as links"),
        None => "fetch the model again, then carry it here as files, not as links (cp -aL)".to_owned(),
    }
}

/// Checks the model in `dir` (a folder, or a GGUF file in one). `progress` is told the bytes hashed since it was last called.
///
/// # Errors
/// [`BundleError::Incomplete`], naming the files and the command that mends them.
pub fn check(path: &Path, deep: bool, progress: &mut dyn FnMut(u64)) -> Result<Checked, BundleError> {
    let dir = if path.is_dir() { path } else { folder_of(path) };
    let expectation = expectation(dir)?;
    let identity = expectation.as_ref().and_then(|list| list.identity.clone()).or_else(|| hf_cache::identify(dir));
    let mut faults = Vec::new();
    let mut checked = Checked::default();
    match &expectation {
        Some(list) => {
            checked.list = Some(list.origin.clone());
            for file in &list.files {
                compare(dir, file, list.all, deep, &mut checked, &mut faults, progress)?;
            }
        }
        None => faults.extend(stand_ins(dir)),
    }
    if faults.is_empty() {
        return Ok(checked);
    }
    let origin = checked.list.map(|list| format!(" (by {list})")).unwrap_or_default();
    let what = format!("not whole{origin}: {}", name_some(&faults));
    Err(BundleError::Incomplete { path: path.to_owned(), what, repair: repair(identity.as_ref()) })
}

/// Bytes that [`check`] would hash.
pub fn bytes_to_hash(path: &Path) -> u64 {
    let dir = if path.is_dir() { path } else { folder_of(path) };
    let list = expectation(dir).ok().flatten().map(|list| list.files).unwrap_or_default();
    list.iter().filter(|file| dir.join(&file.path).is_file()).map(|file| file.size_bytes).sum()
}

fn compare(
    dir: &Path,
    file: &Expected,
    all: bool,
    deep: bool,
    checked: &mut Checked,
    faults: &mut Vec<String>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), BundleError> {
    let path = dir.join(&file.path);
    let Ok(metadata) = std::fs::metadata(&path) else {
        if path.symlink_metadata().is_ok() {
            faults.push(format!("{} is a link to nothing", file.path));
        } else if all || is_needed(&file.path) {
            faults.push(format!("{} is missing", file.path));
        } else {
            checked.absent.push(file.path.clone());
        }
        return Ok(());
    };
    if metadata.len() != file.size_bytes {
        let got = if is_pointer(&path) { "a git-lfs pointer".to_owned() } else { format!("{} bytes", metadata.len()) };
        faults.push(format!("{} is {got}, want {} bytes", file.path, file.size_bytes));
        return Ok(());
    }
    checked.num_files += 1;
    if deep && (file.sha256.is_some() || file.blob_id.is_some()) {
        let mut content = File::open(&path).map_err(io_error("read", &path))?;
        let told = |piece: &[u8]| {
            progress(piece.len() as u64);
            Ok(())
        };
        let got = digest::copy(&mut content, file.size_bytes, file.lfs, told).map_err(io_error("read", &path))?;
        let wrong = |want: &Option<String>, got: &str| want.as_ref().is_some_and(|want| want != got);
        if wrong(&file.sha256, &got.sha256) || wrong(&file.blob_id, &got.blob_id) {
            faults.push(format!("{} has other bytes than its hash says", file.path));
        }
        checked.num_hashed += 1;
    }
    Ok(())
}

/// Whether loading the model here may ask for the file. A repository also has what people leave out: other formats, pictures, sets of
/// weights in one file beside those in parts.
fn is_needed(path: &str) -> bool {
    const NEEDED: [&str; 8] = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "chat_template.json",
        "model.safetensors.index.json",
    ];
    NEEDED.contains(&path) || (path.starts_with("model") && path.ends_with(".safetensors") && !path.contains('/'))
}

/// Whether the file is the small text that Git LFS leaves in place of a large one.
fn is_pointer(path: &Path) -> bool {
    const START: &[u8] = b"version https://git-lfs";
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(START.len() as u64).read_to_end(&mut start));
    read.is_ok() && start == START
}

/// Dangling links and LFS pointers at the top of a folder.
fn stand_ins(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let fault = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match std::fs::metadata(&path) {
            Err(_) => Some(format!("{name} is a link to nothing")),
            Ok(metadata) if metadata.is_file() && metadata.len() < 1024 && is_pointer(&path) => {
                Some(format!("{name} is a git-lfs pointer"))
            }
            Ok(_) => None,
        }
    };
    paths.into_iter().filter_map(fault).collect()
}

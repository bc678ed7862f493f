//! Which GGUF files a path means: a file, a part of a split set, or a directory that holds one or the other.
//! Knows names of files only.

use std::path::{Path, PathBuf};

use super::GgufError;

/// The GGUF files that `path` means, the parts of a set in order; `None` if it means something else: a directory with
/// safetensors, one without any GGUF file, or nothing that exists.
///
/// # Errors
/// A directory with several models, or a set of which parts are missing.
pub fn locate(path: &Path) -> Result<Option<Vec<PathBuf>>, GgufError> {
    if is_gguf(path) && !path.is_dir() {
        return set_of(path).map(Some);
    }
    let Ok(entries) = std::fs::read_dir(path) else { return Ok(None) };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let file = entry.path();
        if file.extension().is_some_and(|extension| extension == "safetensors") {
            return Ok(None);
        }
        // The vision part of a multimodal model lies beside its text part under this name.
        let is_projector = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mmproj"));
        if is_gguf(&file) && !is_projector {
            found.push(file);
        }
    }
    found.sort();
    let Some(first) = found.first() else { return Ok(None) };
    let set = set_of(first)?;
    match found.iter().find(|file| !set.contains(file)) {
        None => Ok(Some(set)),
        Some(other) => Err(GgufError {
            path: path.to_owned(),
            what: format!(
                "the folder holds several models ({} GGUF files, for example {} and {})",
                found.len(),
                name_of(first),
                name_of(other)
            ),
            hint: "give the file itself instead of its folder",
        }),
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A file's name without `.gguf`, and without `-00001-of-00003` if it has that.
pub(super) fn split_name(path: &Path) -> (String, Option<(usize, usize)>) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let digits = |text: &str| {
        let all_digits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<usize>().ok().filter(|_| all_digits)
    };
    let part = stem.rsplit_once("-of-").and_then(|(rest, count)| {
        let (name, number) = rest.rsplit_once('-')?;
        let (number, count) = (digits(number)?, digits(count)?);
        (1..=count).contains(&number).then(|| (name.to_owned(), (number, count)))
    });
    match part {
        Some((name, part)) => (name, Some(part)),
        None => (stem, None),
    }
}

/// The name of the model in `path`: the file's, without the suffix and without the number of the part.
pub fn model_name(path: &Path) -> String {
    split_name(path).0
}

/// All parts of the set that `path` belongs to; itself if it is no part.
fn set_of(path: &Path) -> Result<Vec<PathBuf>, GgufError> {
    let (name, Some((_, count))) = split_name(path) else { return Ok(vec![path.to_owned()]) };
    let part = |number: usize| path.with_file_name(format!("{name}-{number:05}-of-{count:05}.gguf"));
    // Counted before they are listed: a name may claim 99999 parts.
    if let Some(missing) = (1..=count).find(|number| !part(*number).exists()) {
        return Err(GgufError {
            path: path.to_owned(),
            what: format!("it is one of {count} parts, and part {missing} is not beside it"),
            hint: "put all parts into one folder, under the names they were published with",
        });
    }
    Ok((1..=count).map(part).collect())
}

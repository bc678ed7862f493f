//! What goes into a bundle: the files of a model's folder, of a GGUF file, of a dataset, of a program; links resolved, secrets refused,
//! pickles left behind and named.
//! Knows folders and names; copies nothing yet, and leaves what a model is to others.

use std::path::{Path, PathBuf};

use super::BundleError;
use super::error::io_error;
use super::hf_cache::{self, Identity};
use super::integrity::{self, Expected};
use super::manifest::{Item, Kind, MANIFEST_FILE};
use super::paths;
use super::secrets::{self, Secret};

/// Files larger than this are kept outside of git on the hub, whatever their name.
const LFS_BYTES: u64 = 10 << 20;
/// Kinds of files that the hub keeps outside of git, whatever their size.
const LFS_EXTENSIONS: [&str; 8] = ["safetensors", "gguf", "parquet", "arrow", "model", "zst", "gz", "zip"];
/// What file managers leave behind.
const DROPPINGS: [&str; 3] = [".DS_Store", "Thumbs.db", "desktop.ini"];
/// What matters beside a GGUF file.
const BESIDE_GGUF: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "README.md",
];

/// Where a file's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file on this machine.
    File(PathBuf),
    /// A text that the bundle brings along.
    Text(Vec<u8>),
}

/// A file that goes into a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path in the bundle.
    pub path: String,
    /// Its bytes.
    pub content: Content,
    /// How many.
    pub size_bytes: u64,
    /// Whether the hub keeps it outside of git.
    pub lfs: bool,
    /// What its own commit says that it should be.
    pub expected: Option<Expected>,
}

impl SourceFile {
    /// A text under `path`.
    pub fn text(path: &str, text: String) -> Self {
        let size_bytes = text.len() as u64;
        Self {
            path: path.to_owned(),
            content: Content::Text(text.into_bytes()),
            size_bytes,
            lfs: false,
            expected: None,
        }
    }
}

/// A model, dataset or program with its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// What it is.
    pub item: Item,
    /// Its files.
    pub files: Vec<SourceFile>,
}

/// What a folder of a bundle is called: `org--name@0123456789ab` of the hub's, otherwise after the path.
fn folder_name(identity: Option<&Identity>, path: &Path) -> String {
    if let Some(Identity { repo, commit, .. }) = identity {
        let commit = commit.as_ref().and_then(|commit| commit.get(..12)).map(|short| format!("@{short}"));
        return repo.replace('/', "--") + &commit.unwrap_or_default();
    }
    let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = canonical.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let portable = |c: char| if c.is_alphanumeric() || "-_.@".contains(c) { c } else { '-' };
    let name: String = name.chars().map(portable).collect();
    let name = name.trim_matches(['.', '-']);
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

/// The files of a model: of a folder, or of the GGUF files `gguf` (the parts of one model) and what belongs to them.
///
/// # Errors
/// Secrets, links to nothing, names that cannot travel, files that are not what their commit says.
pub fn model(
    path: &Path,
    gguf: &[PathBuf],
    identity: Option<Identity>,
    licence: Option<String>,
) -> Result<Collected, BundleError> {
    let dir = if path.is_dir() { path } else { crate::provenance::folder_of(path) };
    let list = integrity::expectation(dir)?;
    let named = list.as_ref().and_then(|list| list.identity.clone()).or_else(|| hf_cache::identify(dir));
    let identity = identity.or(named);
    let files = match (path.is_dir(), gguf) {
        (true, _) => walk(dir)?,
        (false, gguf) => {
            let beside = BESIDE_GGUF.iter().map(|name| dir.join(name)).chain(licences_in(dir)?);
            gguf.iter().cloned().chain(beside.filter(|file| file.is_file())).collect()
        }
    };
    let name = match (path.is_dir(), gguf) {
        (false, [first, ..]) => folder_name(identity.as_ref(), Path::new(&crate::gguf::model_name(first))),
        _ => folder_name(identity.as_ref(), path),
    };
    let folder = format!("models/{name}");
    let expected = list.map(|list| list.files).unwrap_or_default();
    collect(Kind::Model, folder, dir, files, identity, licence, &expected)
}

/// Files of a dataset, which lie in `root` or below it; `languages`: what they were cut down to.
///
/// # Errors
/// As [`model`].
pub fn dataset(
    root: &Path,
    files: Vec<PathBuf>,
    identity: Option<Identity>,
    name: &Path,
    licence: Option<String>,
    languages: Vec<String>,
) -> Result<Collected, BundleError> {
    let stem = if name.is_dir() { name } else { Path::new(name.file_stem().unwrap_or_default()) };
    let mut name = folder_name(identity.as_ref(), stem);
    // A name has 240 bytes in all; a table may be cut to many languages.
    let short = languages.iter().map(|language| language.split(" (").next().unwrap_or(language));
    let short = short.collect::<Vec<_>>().join("-").replace(' ', "-");
    let cut = short.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect::<String>();
    if !cut.is_empty() {
        name = format!("{name}-{cut}");
    }
    let folder = format!("datasets/{name}");
    let list = if languages.is_empty() { integrity::expectation(root)? } else { None };
    let expected = list.map(|list| list.files).unwrap_or_default();
    let mut collected = collect(Kind::Dataset, folder, root, files, identity, licence, &expected)?;
    collected.item.languages = languages;
    Ok(collected)
}

/// This program, or another build of it.
///
/// # Errors
/// A file that cannot be read.
pub fn binary(path: &Path, target: String) -> Result<Collected, BundleError> {
    let size_bytes = std::fs::metadata(path).map_err(io_error("read", path))?.len();
    let name = if target.contains("windows") { "bin/pairwright.exe" } else { "bin/pairwright" };
    let file = SourceFile {
        path: name.to_owned(),
        content: Content::File(path.to_owned()),
        size_bytes,
        lfs: false,
        expected: None,
    };
    let item = Item {
        kind: Kind::Binary,
        folder: "bin".to_owned(),
        repo: None,
        revision: None,
        commit: None,
        licence: Some(env!("CARGO_PKG_LICENSE").to_owned()),
        languages: Vec::new(),
        target: Some(target),
        left_out: Vec::new(),
    };
    Ok(Collected { item, files: vec![file] })
}

/// Texts of licences and terms at the top of a folder.
pub fn licences_in(dir: &Path) -> Result<Vec<PathBuf>, BundleError> {
    let entries = std::fs::read_dir(dir).map_err(io_error("read", dir))?;
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_uppercase();
        ["LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "COPYING"].iter().any(|start| name.starts_with(start))
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_one).collect();
    found.sort();
    Ok(found)
}

/// Every file below `dir`, but those in folders whose name begins with a dot (`.git`, `.cache`), file managers' own, and our manifest.
pub fn walk(dir: &Path) -> Result<Vec<PathBuf>, BundleError> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(io_error("read", &folder))? {
            let entry = entry.map_err(io_error("read", &folder))?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().map_err(io_error("read", &path))?;
            let is_own = folder == dir && name == MANIFEST_FILE;
            if kind.is_dir() {
                if !name.starts_with('.') {
                    folders.push(path);
                }
            } else if !DROPPINGS.contains(&name.as_str()) && !is_own {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn collect(
    kind: Kind,
    folder: String,
    root: &Path,
    files: Vec<PathBuf>,
    identity: Option<Identity>,
    licence: Option<String>,
    expected: &[Expected],
) -> Result<Collected, BundleError> {
    let (mut taken, mut left_out): (Vec<SourceFile>, Vec<String>) = Default::default();
    let mut found: Vec<Secret> = Vec::new();
    for from in files {
        // Of a file in the current folder the folder is `.`, and no part of the file's path.
        let relative = from.strip_prefix(root).unwrap_or(&from);
        let Some(inside) = Some(relative).filter(|path| path.is_relative()).and_then(Path::to_str) else {
            return Err(unfit(&from, "its name is not UTF-8", "rename it"));
        };
        let inside = inside.replace(std::path::MAIN_SEPARATOR, "/");
        let real = from.canonicalize().map_err(|_| {
            unfit(&from, "it is a link to nothing", &integrity::repair(hf_cache::identify(root).as_ref()))
        })?;
        let metadata = std::fs::metadata(&real).map_err(io_error("read", &from))?;
        if !metadata.is_file() {
            return Err(unfit(&from, "it is no plain file", "take it out of the folder"));
        }
        // Both names count: a link `notes` may lead to somebody's `token`.
        for path in [&from, &real] {
            let secret = secrets::look(path).map_err(io_error("read", path))?;
            if let Some(Secret { what, .. }) = secret {
                found.push(Secret { path: from.clone(), what });
                break;
            }
        }
        if secrets::is_pickle(&from).map_err(io_error("read", &from))? {
            left_out.push(inside);
            continue;
        }
        let path = format!("{folder}/{inside}");
        if let Some(fault) = paths::fault(&path) {
            return Err(unfit(&from, &fault, "rename it: other systems could not take it"));
        }
        let expected = expected.iter().find(|file| file.path == inside).cloned();
        if let Some(wrong) = expected.as_ref().filter(|file| file.size_bytes != metadata.len()) {
            let what = format!("it has {} bytes, its commit says {}", metadata.len(), wrong.size_bytes);
            return Err(unfit(&from, &what, &integrity::repair(identity.as_ref())));
        }
        let lfs = is_lfs(&from, &real, metadata.len(), expected.as_ref());
        taken.push(SourceFile { path, content: Content::File(real), size_bytes: metadata.len(), lfs, expected });
    }
    if !found.is_empty() {
        return Err(BundleError::Secrets { found });
    }
    if taken.is_empty() {
        return Err(unfit(root, "there is no file in it", "give the folder with config.json, weights and tokenizer"));
    }
    let Identity { repo, revision, commit } = match identity {
        Some(identity) => identity,
        None => return Ok(Collected { item: item(kind, folder, licence, left_out), files: taken }),
    };
    let item = Item { repo: Some(repo), revision, commit, ..item(kind, folder, licence, left_out) };
    Ok(Collected { item, files: taken })
}

fn item(kind: Kind, folder: String, licence: Option<String>, left_out: Vec<String>) -> Item {
    let (repo, revision, commit, target) = (None, None, None, None);
    Item { kind, folder, repo, revision, commit, licence, languages: Vec::new(), target, left_out }
}

fn unfit(path: &Path, what: &str, hint: &str) -> BundleError {
    BundleError::Source { path: path.to_owned(), what: what.to_owned(), hint: hint.to_owned() }
}

/// Whether the hub keeps a file outside of git: by its commit's list, by its name in the cache's blobs, or else by kind and size.
fn is_lfs(from: &Path, real: &Path, size_bytes: u64, expected: Option<&Expected>) -> bool {
    if let Some(expected) = expected {
        return expected.lfs;
    }
    let blob = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if paths::is_hex(&blob, 64) || paths::is_hex(&blob, 40) {
        return blob.len() == 64;
    }
    let extension = from.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    size_bytes > LFS_BYTES || LFS_EXTENSIONS.contains(&extension.as_str())
}

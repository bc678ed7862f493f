//! The Hugging Face cache on disk: `models--OWNER--NAME/` with `refs`, `blobs`, `snapshots/COMMIT` and, since huggingface_hub 1.22,
//! `trees/COMMIT.json`, which says what a snapshot should hold. Written here in the same form, so that Python programs find it whole.
//! Knows names and links of that layout; fetches nothing and does not know what a model is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::BundleError;
use super::error::io_error;
use super::manifest::Kind;
use super::paths;

/// Version of the tree files that are read and written.
const TREE_FORMAT: u32 = 1;
/// Most bytes of a tree file or a ref.
const MAX_TREE_BYTES: u64 = 64 << 20;

/// A file as a commit has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeFile {
    /// Bytes.
    pub size: u64,
    /// Git's SHA-1; of a file in LFS that of its pointer.
    #[serde(default)]
    pub blob_id: Option<String>,
    /// SHA-256 of a file in LFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs_sha256: Option<String>,
    /// Bytes of a file in LFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs_size: Option<u64>,
    /// The hub's storage's own hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xet_hash: Option<String>,
}

/// `trees/COMMIT.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Always 1 so far.
    pub format_version: u32,
    /// By path in the repository.
    pub files: BTreeMap<String, TreeFile>,
}

impl Tree {
    /// An empty tree of the present form.
    pub fn new(files: BTreeMap<String, TreeFile>) -> Self {
        Self { format_version: TREE_FORMAT, files }
    }

    /// Reads a tree file; `None` if there is none, or one of another form, which says nothing to us.
    ///
    /// # Errors
    /// A file that cannot be read, or that is cut short.
    pub fn read(path: &Path) -> Result<Option<Self>, BundleError> {
        let Ok(metadata) = std::fs::metadata(path) else { return Ok(None) };
        let repair = || "fetch the model again: its list of files is damaged".to_owned();
        let damaged = |what: String| BundleError::Incomplete { path: path.to_owned(), what, repair: repair() };
        if metadata.len() > MAX_TREE_BYTES {
            return Err(damaged(format!("a list of files of {} bytes", metadata.len())));
        }
        let bytes = std::fs::read(path).map_err(io_error("read", path))?;
        let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if json.get("format_version").and_then(serde_json::Value::as_u64) != Some(TREE_FORMAT.into()) {
            return Ok(None);
        }
        serde_json::from_value(json).map(Some).map_err(|error| damaged(error.to_string()))
    }
}

/// What the hub calls a folder's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `OWNER/NAME`.
    pub repo: String,
    /// The branch or tag that led to the commit, if one did.
    pub revision: Option<String>,
    /// Forty hexadecimal digits, if known.
    pub commit: Option<String>,
}

/// A snapshot in a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is of.
    pub identity: Identity,
    /// Its folder.
    pub dir: PathBuf,
}

/// A cache: the folder that Hugging Face's programs call `HF_HUB_CACHE`.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache at `root`, which need not exist.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a repository.
    pub fn repo_dir(&self, kind: Kind, repo: &str) -> PathBuf {
        let kind = if kind == Kind::Dataset { "datasets" } else { "models" };
        self.root.join(format!("{kind}--{}", repo.replace('/', "--")))
    }

    /// The snapshot of `repo` at a branch, tag or (the beginning of a) commit; without one at `main`, or the only one that there is.
    pub fn find(&self, kind: Kind, repo: &str, revision: Option<&str>) -> Option<Snapshot> {
        let dir = self.repo_dir(kind, repo);
        let read_ref = |name: &str| {
            let text = std::fs::read_to_string(dir.join("refs").join(name)).ok()?;
            Some(text.trim().to_owned()).filter(|commit| paths::is_hex(commit, 40))
        };
        let commits = || subfolders(&dir.join("snapshots"));
        let (name, commit) = match revision {
            Some(name) if name.len() >= 7 && paths::is_hex(name, name.len()) => {
                (None, commits().into_iter().find(|commit| commit.starts_with(name))?)
            }
            Some(name) if paths::fault(name).is_none() => (Some(name), read_ref(name)?),
            Some(_) => return None,
            None => match (read_ref("main"), &commits()[..]) {
                (Some(commit), _) => (Some("main"), commit),
                (None, [only]) => (None, only.clone()),
                (None, _) => return None,
            },
        };
        let place = dir.join("snapshots").join(&commit);
        let identity = Identity { repo: repo.to_owned(), revision: name.map(str::to_owned), commit: Some(commit) };
        place.is_dir().then_some(Snapshot { identity, dir: place })
    }

    /// Every model's snapshot, by name and commit.
    pub fn models(&self) -> Vec<Snapshot> {
        let mut found = Vec::new();
        for folder in subfolders(&self.root) {
            let dir = self.root.join(folder).join("snapshots");
            found.extend(subfolders(&dir).into_iter().filter_map(|commit| {
                let dir = dir.join(commit);
                Some(Snapshot { identity: identify(&dir).filter(|_| is_of(&dir, "models--"))?, dir })
            }));
        }
        found
    }
}

fn is_of(snapshot: &Path, kind: &str) -> bool {
    let repo = snapshot.parent().and_then(Path::parent).and_then(Path::file_name);
    repo.is_some_and(|name| name.to_string_lossy().starts_with(kind))
}

fn subfolders(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// What a folder is of, where its path says so: `…/models--OWNER--NAME/snapshots/COMMIT`.
pub fn identify(dir: &Path) -> Option<Identity> {
    let dir = dir.canonicalize().ok()?;
    let commit = dir.file_name()?.to_str().filter(|name| paths::is_hex(name, 40))?;
    let snapshots = dir.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"))?;
    let repo_dir = snapshots.parent()?;
    let name = repo_dir.file_name()?.to_str()?;
    let name = name.strip_prefix("models--").or_else(|| name.strip_prefix("datasets--"))?;
    let repo = name.replacen("--", "/", 1);
    let is_main = std::fs::read_to_string(repo_dir.join("refs/main")).is_ok_and(|text| text.trim() == commit);
    paths::is_repo(&repo).then(|| Identity {
        repo,
        revision: is_main.then(|| "main".to_owned()),
        commit: Some(commit.to_owned()),
    })
}

/// The list of files of the commit that `dir` holds: of a snapshot, or of a folder that `hf download --local-dir` filled.
///
/// # Errors
/// A list that is damaged.
pub fn tree_of(dir: &Path) -> Result<Option<(Option<String>, Tree)>, BundleError> {
    if let Some(Identity { commit: Some(commit), .. }) = identify(dir) {
        let canonical = dir.canonicalize().map_err(io_error("read", dir))?;
        let Some(repo_dir) = canonical.parent().and_then(Path::parent) else { return Ok(None) };
        let tree = Tree::read(&repo_dir.join("trees").join(format!("{commit}.json")))?;
        return Ok(tree.map(|tree| (Some(commit), tree)));
    }
    let local = dir.join(".cache/huggingface/trees");
    let names = std::fs::read_dir(&local).into_iter().flatten().flatten();
    let commits: Vec<String> = names
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .filter(|commit| paths::is_hex(commit, 40))
        .collect();
    // Of several downloads into one folder nobody knows which commit a file is of.
    let [commit] = &commits[..] else { return Ok(None) };
    let tree = Tree::read(&local.join(format!("{commit}.json")))?;
    Ok(tree.map(|tree| (Some(commit.clone()), tree)))
}

//! The cache on disk in the layout that Python's huggingface_hub has: content by hash, a folder of links per commit, a name per
//! branch, the list of a commit's files. Knows names and links; opens no connection.
//!
//! Content gets its name when it is whole and verified, a snapshot when all of its content is there, a branch after its snapshot:
//! whoever looks at any moment, or after a kill, sees nothing that is half there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use serde::Serialize;

use super::listing::RemoteFile;
use super::{HubError, RepoId, RepoKind};
use crate::provenance::{folder_of, sync_folder, write_atomic};

/// Left free on the disk.
const RESERVE_BYTES: u64 = 64 << 20;

/// One repository's part of the cache.
pub(super) struct RepoCache {
    cache: PathBuf,
    /// `models--OWNER--NAME`
    folder: String,
    root: PathBuf,
    upstream: CacheRepo,
}

/// `trees/<commit>.json`: all files of a commit, also those that were not fetched.
#[derive(Serialize)]
struct Listing<'a> {
    format_version: u32,
    files: BTreeMap<&'a str, Listed<'a>>,
}

#[derive(Serialize)]
struct Listed<'a> {
    size: u64,
    blob_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    xet_hash: Option<&'a str>,
}

impl<'a> Listed<'a> {
    fn of(file: &'a RemoteFile) -> Self {
        Self {
            size: file.size_bytes,
            blob_id: &file.blob_id,
            lfs_sha256: file.sha256.as_deref(),
            lfs_size: file.sha256.as_ref().map(|_| file.size_bytes),
            xet_hash: file.xet_hash.as_deref(),
        }
    }
}

/// Turns a system's error into one of ours.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_owned();
    move |source| HubError::Io { action, path, source }
}

fn create(folder: &Path) -> Result<(), HubError> {
    fs::create_dir_all(folder).map_err(io_error("create", folder))
}

fn written(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    create(folder_of(path))?;
    write_atomic(path, bytes).map_err(|error| io_error("write", path)(io::Error::other(error)))
}

impl RepoCache {
    /// Creates nothing yet.
    pub(super) fn new(cache: &Path, repo: &RepoId) -> Self {
        let kind = match repo.kind {
            RepoKind::Model => RepoType::Model,
            RepoKind::Dataset => RepoType::Dataset,
        };
        let named = Repo::new(repo.id.clone(), kind);
        let folder = named.folder_name();
        let root = cache.join(&folder);
        let upstream = Cache::new(cache.to_owned()).repo(named);
        Self { cache: cache.to_owned(), folder, root, upstream }
    }

    /// Where the content of `file` lies, whole and verified.
    pub(super) fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.root.join("blobs").join(file.etag())
    }

    /// Where it grows.
    pub(super) fn partial(&self, file: &RemoteFile) -> PathBuf {
        self.root.join("blobs").join(format!("{}.incomplete", file.etag()))
    }

    /// Whether the content is here. One of another length was damaged and is none.
    pub(super) fn has(&self, file: &RemoteFile) -> bool {
        fs::metadata(self.blob(file)).is_ok_and(|found| found.is_file() && found.len() == file.size_bytes)
    }

    /// Bytes of `file` that were fetched before; none if they cannot be its beginning.
    pub(super) fn num_bytes_here(&self, file: &RemoteFile) -> u64 {
        let here = fs::metadata(self.partial(file)).map_or(0, |found| found.len());
        if here <= file.size_bytes { here } else { 0 }
    }

    /// The folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.upstream.pointer_path(commit)
    }

    /// The right to fetch `file`, held until it is dropped; huggingface_hub asks for the same. `waits` is called if somebody has it.
    pub(super) fn lock(&self, file: &RemoteFile, waits: impl FnOnce()) -> Result<File, HubError> {
        let folder = self.cache.join(".locks").join(&self.folder);
        create(&folder)?;
        create(&self.root.join("blobs"))?;
        let path = folder.join(format!("{}.lock", file.etag()));
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let lock = open.map_err(io_error("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => {
                waits();
                lock.lock().map_err(io_error("lock", &path))?;
                Ok(lock)
            }
            // Some network file systems have no locks, and two that fetch at once would spoil each other's file.
            Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
        }
    }

    /// Refuses what the disk cannot take. Where room cannot be asked for, writing finds out.
    pub(super) fn check_room(&self, need: u64) -> Result<(), HubError> {
        let Some(free) = crate::provenance::free_bytes(&self.cache) else { return Ok(()) };
        let free = free.saturating_sub(RESERVE_BYTES);
        if need <= free { Ok(()) } else { Err(HubError::NoRoom { path: self.cache.clone(), need, free }) }
    }

    /// Writes the list of all files of `commit`.
    pub(super) fn write_listing(&self, commit: &str, files: &[RemoteFile]) -> Result<(), HubError> {
        let files = files.iter().map(|file| (file.path.as_str(), Listed::of(file))).collect();
        let path = self.root.join("trees").join(format!("{commit}.json"));
        let text = serde_json::to_string(&Listing { format_version: 1, files });
        let text = text.map_err(|error| io_error("write", &path)(error.into()))?;
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        written(&path, text.as_bytes())
    }

    /// Makes the commit's folder of links, all at once where there is none yet. Every content is here.
    pub(super) fn link_all(&self, commit: &str, files: &[RemoteFile]) -> Result<PathBuf, HubError> {
        let snapshot = self.snapshot(commit);
        if !snapshot.exists() {
            let aside = self.root.join("snapshots").join(format!(".{commit}.tmp-{}", std::process::id()));
            let made = files.iter().try_for_each(|file| self.link(&aside, file));
            // Another pull may have made the folder meanwhile: then it is completed below.
            let moved = made.is_ok() && fs::rename(&aside, &snapshot).is_ok();
            if !moved {
                // Best effort: what is left has a name that nobody looks for.
                let _ = fs::remove_dir_all(&aside);
                made?;
            }
        }
        for file in files {
            self.link(&snapshot, file)?;
        }
        let sync = |folder: &Path| sync_folder(folder).map_err(|e| io_error("sync", folder)(io::Error::other(e)));
        sync(&snapshot)?;
        sync(folder_of(&snapshot))?;
        Ok(snapshot)
    }

    /// One link, unless a right one is there.
    fn link(&self, snapshot: &Path, file: &RemoteFile) -> Result<(), HubError> {
        let path = snapshot.join(&file.path);
        let leads_there = fs::read_link(&path).is_ok_and(|to| to.file_name().is_some_and(|name| name == file.etag()));
        // Without links, as on some disks, the content itself lies here.
        let is_right = leads_there || fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
        if is_right && fs::metadata(&path).is_ok_and(|found| found.len() == file.size_bytes) {
            return Ok(());
        }
        let folder = folder_of(&path);
        create(folder)?;
        let up = "../".repeat(2 + file.path.matches('/').count());
        let aside = folder.join(format!(".{}.tmp-{}", file.etag(), std::process::id()));
        symlink_or_copy(Path::new(&format!("{up}blobs/{}", file.etag())), &self.blob(file), &aside)
            .and_then(|()| fs::rename(&aside, &path))
            .map_err(io_error("write", &path))
    }

    /// Lets a branch or tag name the commit; a commit needs no name.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.root.join("refs").join(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|there| there == commit) {
            return Ok(());
        }
        written(&path, commit.as_bytes())
    }
}

#[cfg(unix)]
fn symlink_or_copy(link: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    match std::os::unix::fs::symlink(link, path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
            fs::copy(blob, path).map(drop)
        }
        other => other,
    }
}

#[cfg(not(unix))]
fn symlink_or_copy(_: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    fs::copy(blob, path).map(drop)
}

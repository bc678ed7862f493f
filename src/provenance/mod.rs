//! Provenance of a run: hashes, durable file writes and the room for them, and the lock file that says what a run was made from.
//! Knows no stage: parameters arrive as JSON, models as names and digests.

mod lock;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

pub use lock::{Environment, FileDigest, GENERATORS, ModelRecord, RunLock, WeightsKind};

/// Name of the lock file inside a run's folder.
pub const LOCK_FILE_NAME: &str = "run.lock";

/// Name of the folder of people's votes inside a run's folder. No stage of a run writes there, and a run made anew leaves it as it is.
pub const ANNOTATIONS_FOLDER: &str = "annotations";

/// Version of the lock file's layout; a reader refuses every other one.
pub const LOCK_FORMAT_VERSION: u32 = 2;

/// What went wrong with a file of provenance.
#[derive(Debug, Error)]
pub enum ProvenanceError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is JSON of another kind, or no JSON.
    #[error("{} is not a run lock: {source}\nhint: start the run in another folder with --out", path.display())]
    NotALock {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The lock was written by a version with another layout.
    #[error(
        "{} has lock format {got}, expected {LOCK_FORMAT_VERSION}\nhint: it was written by another version; use that one, or start \
         the run in another folder with --out",
        path.display()
    )]
    OtherFormat {
        /// The file or folder.
        path: PathBuf,
        /// The value found.
        got: u32,
    },
    /// The lock could not be turned into JSON.
    #[error("cannot write the run lock as JSON: {source}")]
    Serialise {
        /// The cause.
        source: serde_json::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProvenanceError {
    let path = path.to_path_buf();
    move |source| ProvenanceError::Io { action, path, source }
}

/// Lower-case hex SHA-256 of `bytes`.
pub fn sha256_hex(bytes: &[u8]) -> String {
    to_hex(&Sha256::digest(bytes))
}

/// Lower-case hex SHA-256 of a file's content, read in pieces of 1 MiB.
pub fn sha256_file(path: &Path) -> Result<String, ProvenanceError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(to_hex(&hasher.finalize())),
            Ok(num_bytes) => hasher.update(buffer.get(..num_bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error("read", path)(error)),
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `bytes` to `path` so that a reader, now or after a power cut, sees the old content or the new, never a part:
/// temporary file in the same folder, fsync, rename, fsync of the folder.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ProvenanceError> {
    let folder = folder_of(path);
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = folder.join(format!(".{file_name}.tmp-{}", std::process::id()));
    let written = write_synced(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path).map_err(io_error("rename a temporary file to", path)));
    if written.is_err() {
        // Best effort: the error that is reported is the one that matters.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_folder(folder)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), ProvenanceError> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(io_error("create", path))?;
    file.write_all(bytes).map_err(io_error("write", path))?;
    file.sync_all().map_err(io_error("sync", path))
}

/// The folder that holds `path`; `.` for a bare file name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes created and renamed names in `folder` durable. Does nothing where folders cannot be opened (Windows).
pub fn sync_folder(folder: &Path) -> Result<(), ProvenanceError> {
    if cfg!(unix) {
        File::open(folder).and_then(|handle| handle.sync_all()).map_err(io_error("sync the folder", folder))?;
    }
    Ok(())
}

/// Bytes that may be written below `path`, which need not exist yet.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists() || ancestor.as_os_str().is_empty())?;
    let place = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    free_bytes_of(place)
}

#[cfg(unix)]
fn free_bytes_of(place: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(place).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes_of(_place: &Path) -> Option<u64> {
    None
}

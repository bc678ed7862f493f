//! One process at a time in a run's folder: who is at work there, and whether that one still is. A lock of the kernel's decides where the
//! file system has them; beyond that a host, a process and a heartbeat do. Knows one file; knows nothing of what is done in the folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::RunError;

/// Name of the file, in the run's folder while somebody is at work.
pub const IN_USE: &str = "in-use.json";

/// How often the file's time is renewed, and from when on a process of another machine counts as gone.
const HEARTBEAT: Duration = Duration::from_secs(20);
const GONE_AFTER: Duration = Duration::from_secs(300);

/// Who is at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Occupant {
    host: String,
    pid: u32,
    /// The folder's own number in its file system: a copy of it has another one, and nobody is at work there.
    folder: Option<u64>,
}

impl Occupant {
    fn here(root: &Path) -> Self {
        Self {
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid: std::process::id(),
            folder: number_of(root),
        }
    }
}

/// A folder that this process has for itself, until it is dropped.
#[derive(Debug)]
pub struct Occupied {
    path: PathBuf,
    /// Holds the kernel's lock.
    _file: File,
    heart: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Occupied {
    /// Takes the folder, which exists.
    ///
    /// # Errors
    /// [`RunError::InUse`] if somebody is at work there, or the file cannot be written.
    pub fn take(root: &Path) -> Result<Self, RunError> {
        let path = root.join(IN_USE);
        let io_error = |source| RunError::Io { path: path.clone(), action: "written", source };
        loop {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io_error)?;
            let has_lock = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => return Err(in_use(root, read(&mut file).as_ref(), "")),
                // A file system without locks.
                Err(TryLockError::Error(_)) => false,
            };
            // Whoever left in the meantime has removed the file that is open here.
            if !is_at(&file, &path) {
                continue;
            }
            let here = Occupant::here(root);
            if let Some(found) = read(&mut file)
                && is_at_work(&found, &here, has_lock, &file)
            {
                let hint = format!("; if it is not, delete {}", path.display());
                return Err(in_use(root, Some(&found), &hint));
            }
            write(&mut file, &here).map_err(io_error)?;
            let heart = file.try_clone().ok().map(beat);
            return Ok(Self { path, _file: file, heart });
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        if let Some((stop, heart)) = self.heart.take() {
            drop(stop);
            // It only renews a time.
            _ = heart.join();
        }
        // Best effort: what stays behind is recognised as stale.
        _ = std::fs::remove_file(&self.path);
    }
}

/// Whether `found`, whose file is `file`, is still at work in this folder.
fn is_at_work(found: &Occupant, here: &Occupant, has_lock: bool, file: &File) -> bool {
    if found.folder != here.folder {
        return false;
    }
    if found.host == here.host {
        // Where there are locks, who has gone has none.
        return !has_lock && found.pid != here.pid && Path::new("/proc").join(found.pid.to_string()).exists();
    }
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let silent = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    silent.is_none_or(|silent| silent < GONE_AFTER)
}

fn in_use(root: &Path, found: Option<&Occupant>, hint: &str) -> RunError {
    let who = match found {
        Some(Occupant { host, pid, .. }) => format!("process {pid} on {host}"),
        None => "another process".to_owned(),
    };
    RunError::InUse { path: root.to_owned(), who, hint: hint.to_owned() }
}

/// The occupant that the file names; none if it is empty or damaged.
fn read(file: &mut File) -> Option<Occupant> {
    let mut text = String::new();
    file.take(1 << 16).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write(file: &mut File, occupant: &Occupant) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all((serde_json::to_string(occupant)? + "\n").as_bytes())?;
    file.sync_all()
}

/// Renews the file's time until the sender is dropped.
fn beat(file: File) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = mpsc::channel::<()>();
    let heart = std::thread::spawn(move || {
        while stopped.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
            // A file system that refuses makes this process look gone to other machines, no more.
            _ = file.set_modified(SystemTime::now());
        }
    });
    (stop, heart)
}

#[cfg(unix)]
fn number_of(root: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(root).ok().map(|metadata| metadata.ino())
}
#[cfg(not(unix))]
fn number_of(_: &Path) -> Option<u64> {
    None
}

/// Whether the open file is the one at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let number = |metadata: io::Result<std::fs::Metadata>| metadata.ok().map(|metadata| metadata.ino());
    number(file.metadata()) == number(std::fs::metadata(path))
}
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave(root: &Path, occupant: &Occupant, silent_s: u64) {
        let mut file = File::create(root.join(IN_USE)).unwrap();
        write(&mut file, occupant).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(silent_s)).unwrap();
    }

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Occupied::take(dir.path()).unwrap();
        let refused = Occupied::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        assert!(!dir.path().join(IN_USE).exists());
        drop(Occupied::take(dir.path()).unwrap());
    }

    #[test]
    fn who_is_gone_is_known_by_lock_heartbeat_or_copy() {
        let dir = tempfile::tempdir().unwrap();
        let here = Occupant::here(dir.path());
        let elsewhere = Occupant { host: "another-machine".to_owned(), ..here.clone() };
        let copied = Occupant { folder: Some(1), ..elsewhere.clone() };
        for (occupant, silent_s, is_free) in [
            (&here, 0, true),
            (&elsewhere, 0, false),
            (&elsewhere, 280, false),
            (&elsewhere, 320, true),
            (&copied, 0, true),
        ] {
            leave(dir.path(), occupant, silent_s);
            let taken = Occupied::take(dir.path());
            assert_eq!(taken.is_ok(), is_free, "{occupant:?}, silent for {silent_s} s");
        }
        std::fs::write(dir.path().join(IN_USE), b"\0\0\0").unwrap();
        assert!(Occupied::take(dir.path()).is_ok(), "a damaged file names nobody");
    }
}

//! Free room on a disk. Knows one system call; where there is none, nothing is known and nothing is refused.

use std::path::Path;

/// Bytes that may be written below `path`, which need not exist yet.
pub fn free(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists() || ancestor.as_os_str().is_empty())?;
    let place = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    of(place)
}

#[cfg(unix)]
fn of(place: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(place).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn of(_place: &Path) -> Option<u64> {
    None
}

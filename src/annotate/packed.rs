//! Which items are out in packs: a file in the run's annotations that only grows, with a line when a pack is made and one when its votes
//! came back. Knows ids and clocks; knows nothing of texts, votes or pages.
//!
//! An item that is out counts as shown to one person until its pack is back, or is so old that nobody waits for it. A line that a kill cut
//! off is skipped: it is written before its pack's page, so no page is out without one.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::store::StoreError;
use crate::provenance::ANNOTATIONS_FOLDER;

/// The file, beside the votes.
pub const PACKS_FILE: &str = "packs.jsonl";
/// Days after which nobody waits for a pack any more, unless told otherwise.
pub const DEFAULT_LEASE_DAYS: u16 = 30;
/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// A line: a pack goes out with items, or comes back without.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    pack: String,
    /// Seconds since 1970.
    at: i64,
    #[serde(default)]
    items: Vec<String>,
}

/// Ids of packs that are out, each with its items; planted ones are not among them. `lease_days`: older packs are waited for no more.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn out(run: &Path, lease_days: u16, now: i64) -> Result<BTreeMap<String, Vec<String>>, StoreError> {
    let path = run.join(ANNOTATIONS_FOLDER).join(PACKS_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(StoreError::Io { action: "read", path, source }),
    };
    let mut found = BTreeMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(Line { pack, at, items }) = serde_json::from_slice(line) else { continue };
        match items.is_empty() {
            true => drop(found.remove(&pack)),
            false if at.saturating_add(i64::from(lease_days) * DAY_S) > now => drop(found.insert(pack, items)),
            false => {}
        }
    }
    Ok(found)
}

/// Bytes of the file, which only grows: whether there is anything new in it.
pub fn size_bytes(run: &Path) -> u64 {
    std::fs::metadata(run.join(ANNOTATIONS_FOLDER).join(PACKS_FILE)).map_or(0, |file| file.len())
}

/// A pack goes out with these items; without any it is back.
///
/// # Errors
/// A file that cannot be written.
pub fn note(run: &Path, pack: &str, items: &[String], now: i64) -> Result<(), StoreError> {
    let folder = run.join(ANNOTATIONS_FOLDER);
    let path = folder.join(PACKS_FILE);
    let line = Line { pack: pack.to_owned(), at: now, items: items.to_vec() };
    // INFALLIBLE: texts and numbers are JSON always.
    let line = serde_json::to_string(&line).expect("plain data");
    // In one piece, and on a line of its own even behind one that was cut off.
    let write = || {
        std::fs::create_dir_all(&folder)?;
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(format!("\n{line}\n").as_bytes())?;
        file.sync_data()
    };
    write().map_err(|source| StoreError::Io { action: "write", path: path.clone(), source })
}

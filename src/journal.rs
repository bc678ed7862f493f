//! Append-only journal of a stage: what was done survives a kill, a full disk and a power cut.
//! Knows JSON lines and checksums, not what the rows mean nor which stage writes them.
//!
//! A line is `{"crc":"<16 hex digits>","row":<JSON>}` with the XXH3-64 of the row's JSON text; the first line's row is the
//! [`JournalHeader`], whose stage and parameter hash are the seed of all other checksums: each line says by itself whose it is,
//! and every line that holds counts, whatever became of the others. A bad last line is a kill's trace and is cut off; a bad line
//! elsewhere is damage, left where it is. Both are reported, and their rows are done again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memchr::memmem;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::provenance::{folder_of, sync_folder};

/// Version of the line layout above.
pub const JOURNAL_FORMAT_VERSION: u32 = 2;

const LINE_START: &str = "{\"crc\":\"";
const CHECKSUM_HEX_DIGITS: usize = 16;
const LINE_MIDDLE: &str = "\",\"row\":";
const LINE_END: &str = "}\n";
/// Room that most lines need.
const USUAL_LINE_BYTES: usize = 8 << 10;

/// The first line of a journal: whose rows these are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalHeader {
    /// [`JOURNAL_FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// The stage whose rows these are.
    pub stage: String,
    /// What the rows depend on, see [`crate::provenance::RunLock::run_hash`].
    pub parameter_hash: String,
    /// Version that created the file; for people, not compared.
    pub tool_version: String,
}

impl JournalHeader {
    /// The seed of the rows' checksums.
    fn seed(&self) -> u64 {
        xxh3_64_with_seed(self.parameter_hash.as_bytes(), xxh3_64(self.stage.as_bytes()))
    }

    /// A header of this version of the tool.
    pub fn new(stage: impl Into<String>, parameter_hash: impl Into<String>) -> Self {
        Self {
            format_version: JOURNAL_FORMAT_VERSION,
            stage: stage.into(),
            parameter_hash: parameter_hash.into(),
            tool_version: env!("CARGO_PKG_VERSION").to_string(),
        }
    }
}

/// When rows are forced to disk without being asked: at the append after either limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncPolicy {
    /// Rows appended since the last sync.
    pub max_unsynced_rows: u64,
    /// Time since the last sync, looked at when a row is appended.
    pub max_unsynced_time: Duration,
}

impl Default for SyncPolicy {
    /// 1,000 rows or 5 seconds: at most that much is computed again after a power cut. A mere kill loses nothing.
    fn default() -> Self {
        Self { max_unsynced_rows: 1000, max_unsynced_time: Duration::from_secs(5) }
    }
}

/// What was cut off the end of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    /// One-based line that was incomplete or damaged.
    pub line: u64,
    /// Bytes cut off.
    pub size_bytes: u64,
}

/// A line that holds no row any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedLine {
    /// One-based.
    pub line: u64,
    /// What is wrong with it.
    pub detail: &'static str,
}

/// What went wrong with a journal.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file or its folder could not be read or written.
    #[error("cannot {action} the journal {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The first line is none of ours: a file of somebody else.
    #[error("{} is not a journal: its first line has another layout\nhint: choose another folder with --out", path.display())]
    NotAJournal {
        /// The file or folder.
        path: PathBuf,
    },
    /// A line whose checksum holds and whose row is of another type.
    #[error(
        "line {line} of the journal {} is intact but is no row of this stage: {source}\n\
         hint: it was written by another version; use that version or another --out", path.display()
    )]
    Row {
        /// The file or folder.
        path: PathBuf,
        /// One-based line.
        line: u64,
        /// The cause.
        source: serde_json::Error,
    },
    /// A header with another stage, parameter hash or format.
    #[error(
        "the journal {} belongs to another run: {field} is {got}, expected {expected}\n\
         hint: use another --out, or the parameters the run was started with", path.display()
    )]
    OtherRun {
        /// The file or folder.
        path: PathBuf,
        /// The field of the header that differs.
        field: &'static str,
        /// The value found.
        got: String,
        /// The value wanted.
        expected: String,
    },
    /// Another process has the journal open for appending.
    #[error("another process is writing the journal {}\nhint: wait for it, or use another --out", path.display())]
    Locked {
        /// The file or folder.
        path: PathBuf,
    },
    /// A row whose JSON would not read back.
    #[error("a row for the journal {} cannot be written so that it can be read back: {source}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
}

/// A journal open for appending rows of type `T`. Holds an exclusive lock on the file while it lives.
#[derive(Debug)]
pub struct Journal<T> {
    file: File,
    path: PathBuf,
    /// Length of the file, where the next line goes.
    size_bytes: u64,
    /// The last line, for its memory.
    line: Vec<u8>,
    policy: SyncPolicy,
    num_rows: u64,
    num_unsynced_rows: u64,
    last_sync: Instant,
    seed: u64,
    torn_tail: Option<TornTail>,
    damaged: Vec<DamagedLine>,
    row_type: PhantomData<fn() -> T>,
}

/// A journal as read: header, rows, and what a kill left at the end.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalContent<T> {
    /// `None` if not even the header was written completely.
    pub header: Option<JournalHeader>,
    /// All intact rows, in the order of writing.
    pub rows: Vec<T>,
    /// The last line, if it is torn.
    pub torn_tail: Option<TornTail>,
    /// Bad lines before the last one.
    pub damaged: Vec<DamagedLine>,
    /// Length without a torn tail.
    kept_size_bytes: u64,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Creates the journal at `path`, or continues it: returns it and the rows it holds. A torn last line is cut off, see
    /// [`Self::torn_tail`]; damaged lines stay where they are, see [`Self::damaged`]. Errors: another stage or parameter hash, a
    /// writer at work, I/O.
    pub fn open(path: &Path, header: &JournalHeader) -> Result<(Self, Vec<T>), JournalError> {
        Self::open_with_policy(path, header, SyncPolicy::default())
    }

    /// [`Self::open`] with an own fsync policy.
    pub fn open_with_policy(
        path: &Path,
        header: &JournalHeader,
        policy: SyncPolicy,
    ) -> Result<(Self, Vec<T>), JournalError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io_error("open", path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked { path: path.to_path_buf() }),
            // Some network file systems have no locks; the checksums still tell if two writers met.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let mut content = read_rows::<T>(&file, path, Some(header))?;
        if content.header.is_none() && content.rows.is_empty() {
            // Nothing to keep: not even whose it was.
            content.kept_size_bytes = 0;
        }
        let mut journal = Self {
            file,
            path: path.to_path_buf(),
            size_bytes: content.kept_size_bytes,
            line: Vec::with_capacity(USUAL_LINE_BYTES),
            policy,
            num_rows: content.rows.len() as u64,
            num_unsynced_rows: 0,
            last_sync: Instant::now(),
            seed: header.seed(),
            torn_tail: content.torn_tail,
            damaged: content.damaged,
            row_type: PhantomData,
        };
        if let Some(found) = &content.header {
            check_header(path, found, header)?;
        }
        journal.truncate_to(content.kept_size_bytes)?;
        if content.kept_size_bytes == 0 {
            journal.encode(header, 0)?;
            journal.write_line()?;
        }
        journal.sync()?;
        sync_folder(folder_of(path)).map_err(|error| io_error("sync the folder of", path)(io::Error::other(error)))?;
        Ok((journal, content.rows))
    }

    /// Adds one row; on disk at the latest when the policy says so. On an error nothing of the row stays in the file.
    /// A row that would not read back equal in kind (a NaN where a number must stand) is refused.
    pub fn append(&mut self, row: &T) -> Result<(), JournalError> {
        self.encode(row, self.seed)?;
        self.write_line()?;
        self.num_rows += 1;
        self.num_unsynced_rows += 1;
        let is_due = self.num_unsynced_rows >= self.policy.max_unsynced_rows
            || self.last_sync.elapsed() >= self.policy.max_unsynced_time;
        if is_due { self.sync() } else { Ok(()) }
    }

    /// Makes the row's line, written once: the checksum is filled in when the text behind it is there.
    fn encode<R: Serialize + DeserializeOwned>(&mut self, row: &R, seed: u64) -> Result<(), JournalError> {
        let unwritable = |source| JournalError::Unwritable { path: self.path.clone(), source };
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(LINE_START.as_bytes());
        line.extend_from_slice(&[b'0'; CHECKSUM_HEX_DIGITS]);
        line.extend_from_slice(LINE_MIDDLE.as_bytes());
        let start = line.len();
        serde_json::to_writer(&mut *line, row).map_err(unwritable)?;
        let text = &line[start..];
        // What JSON cannot hold, a number that is none, is written as null; without one a row reads back as it was.
        if memmem::find(text, b"null").is_some() {
            serde_json::from_slice::<R>(text).map_err(unwritable)?;
        }
        let checksum = format!("{:016x}", xxh3_64_with_seed(text, seed));
        line[LINE_START.len()..][..CHECKSUM_HEX_DIGITS].copy_from_slice(checksum.as_bytes());
        line.extend_from_slice(LINE_END.as_bytes());
        Ok(())
    }
}

impl<T> Journal<T> {
    /// Forces all rows to disk.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(io_error("sync", &self.path))?;
        self.num_unsynced_rows = 0;
        self.last_sync = Instant::now();
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What [`Journal::open`] cut off the end, if anything.
    pub fn torn_tail(&self) -> Option<TornTail> {
        self.torn_tail
    }

    /// Bad lines that [`Journal::open`] found before the last one.
    pub fn damaged(&self) -> &[DamagedLine] {
        &self.damaged
    }

    /// Rows in the file, those found at opening included.
    pub fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// Appends the whole line, or takes back what was written of it (a full disk), so that a later append cannot turn a torn
    /// last line into damage in the middle.
    fn write_line(&mut self) -> Result<(), JournalError> {
        let Err(error) = self.file.write_all(&self.line) else {
            self.size_bytes += self.line.len() as u64;
            return Ok(());
        };
        self.truncate_to(self.size_bytes)?;
        Err(io_error("write", &self.path)(error))
    }

    fn truncate_to(&mut self, size_bytes: u64) -> Result<(), JournalError> {
        self.file.set_len(size_bytes).map_err(io_error("cut the end of", &self.path))?;
        self.file.seek(SeekFrom::Start(size_bytes)).map_err(io_error("seek in", &self.path))?;
        self.size_bytes = size_bytes;
        Ok(())
    }
}

impl<T> Drop for Journal<T> {
    fn drop(&mut self) {
        // Best effort: there is nobody left to tell, and the checksums reveal what did not reach the disk.
        let _ = self.file.sync_data();
    }
}

/// Reads a journal without changing or locking it, also while another process writes it. `expected`: whose it should be, by which rows
/// are known even if the header is damaged. Errors as [`Journal::open`].
pub fn read_journal<T: DeserializeOwned>(
    path: &Path,
    expected: Option<&JournalHeader>,
) -> Result<JournalContent<T>, JournalError> {
    let file = fs::File::open(path).map_err(io_error("open", path))?;
    let content = read_rows(&file, path, expected)?;
    if let (Some(found), Some(expected)) = (&content.header, expected) {
        check_header(path, found, expected)?;
    }
    Ok(content)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_path_buf();
    move |source| JournalError::Io { action, path, source }
}

fn check_header(path: &Path, found: &JournalHeader, expected: &JournalHeader) -> Result<(), JournalError> {
    let fields = [
        ("format version", found.format_version.to_string(), expected.format_version.to_string()),
        ("stage", found.stage.clone(), expected.stage.clone()),
        ("parameter hash", found.parameter_hash.clone(), expected.parameter_hash.clone()),
    ];
    match fields.into_iter().find(|(_, got, expected)| got != expected) {
        Some((field, got, expected)) => Err(JournalError::OtherRun { path: path.to_path_buf(), field, got, expected }),
        None => Ok(()),
    }
}

/// The row's JSON text of one line with its newline, or what is wrong with the line.
fn decode_line(line: &[u8], seed: u64) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    let body = text.strip_suffix(LINE_END).ok_or("its end is missing")?;
    let rest = body.strip_prefix(LINE_START).ok_or("it does not start as a journal line")?;
    let (checksum, rest) = rest.split_at_checked(CHECKSUM_HEX_DIGITS).ok_or("its checksum is missing")?;
    let row_text = rest.strip_prefix(LINE_MIDDLE).ok_or("its row is missing")?;
    if format!("{:016x}", xxh3_64_with_seed(row_text.as_bytes(), seed)) != checksum {
        return Err("its checksum does not match");
    }
    Ok(row_text)
}

fn read_rows<T: DeserializeOwned>(
    file: &File,
    path: &Path,
    expected: Option<&JournalHeader>,
) -> Result<JournalContent<T>, JournalError> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut content =
        JournalContent { header: None, rows: Vec::new(), torn_tail: None, damaged: Vec::new(), kept_size_bytes: 0 };
    let mut seed = expected.map(JournalHeader::seed);
    let (mut line, mut is_stranger) = (Vec::new(), false);
    for line_number in 1u64.. {
        line.clear();
        let size_bytes = reader.read_until(b'\n', &mut line).map_err(io_error("read", path))? as u64;
        if size_bytes == 0 {
            break;
        }
        let shape = |source| JournalError::Row { path: path.to_path_buf(), line: line_number, source };
        let checked = match (line_number, seed) {
            (1, _) => decode_line(&line, 0),
            (_, Some(seed)) => decode_line(&line, seed),
            (_, None) => Err("nobody says whose it is, as the first line is damaged"),
        };
        match checked {
            Ok(text) if line_number == 1 => {
                let header: JournalHeader = serde_json::from_str(text).map_err(shape)?;
                seed = Some(header.seed());
                content.header = Some(header);
            }
            Ok(text) => content.rows.push(serde_json::from_str(text).map_err(shape)?),
            Err(detail) => {
                is_stranger |= line_number == 1 && !could_be_ours(&line);
                if reader.fill_buf().map_err(io_error("read", path))?.is_empty() {
                    content.torn_tail = Some(TornTail { line: line_number, size_bytes });
                    break;
                }
                content.damaged.push(DamagedLine { line: line_number, detail });
            }
        }
        content.kept_size_bytes += size_bytes;
    }
    match is_stranger && content.rows.is_empty() {
        true => Err(JournalError::NotAJournal { path: path.to_path_buf() }),
        false => Ok(content),
    }
}

/// Guards a stranger's file against being emptied: a bad first line must start as ours do, but for one damaged byte, or be the zeros
/// that some file systems leave after a power cut.
fn could_be_ours(line: &[u8]) -> bool {
    let num_wrong = line.iter().zip(LINE_START.as_bytes()).filter(|(got, expected)| got != expected).count();
    num_wrong <= usize::from(line.len() > LINE_START.len()) || line.iter().all(|&byte| byte == 0)
}

//! Votes on disk: a table in SQLite to which rows are only ever added, in the run's folder and apart from everything that a run writes, so
//! that no `make` touches it. Whoever serves or merges holds [`Store`]; everyone else reads with [`read_votes`], also meanwhile.
//! Knows files and SQL; knows nothing of items, queues or pages.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use thiserror::Error;

use super::vote::{Vote, VoteError};
use crate::provenance::ANNOTATIONS_FOLDER;

/// The votes, inside [`ANNOTATIONS_FOLDER`].
pub const VOTES_FILE: &str = "votes.sqlite";
/// Held by whoever writes.
const WRITER_LOCK: &str = "writer.lock";
/// Layout of the tables; a reader refuses every other one.
pub const STORE_FORMAT: i64 = 1;
/// "pwvt": what the file's header says it is.
const APPLICATION_ID: i64 = 0x7077_7674;
/// Pages of 4 KiB in the write-ahead log before a commit moves them on by itself, which takes a tenth of a second: idle moments do it sooner.
const LOG_PAGES: i64 = 8_000;
/// How long one waits for another process that is just writing.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE votes (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  annotator TEXT NOT NULL,
  item TEXT NOT NULL,
  vote TEXT NOT NULL
) STRICT;
CREATE TABLE people (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  pseudonym TEXT NOT NULL,
  name TEXT NOT NULL,
  credit TEXT NOT NULL,
  languages TEXT NOT NULL,
  consent TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE TABLE seals (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  through INTEGER NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE TRIGGER votes_stay BEFORE DELETE ON votes BEGIN SELECT RAISE(ABORT, 'votes are never deleted'); END;
CREATE TRIGGER votes_keep BEFORE UPDATE ON votes BEGIN SELECT RAISE(ABORT, 'votes are never changed'); END;
CREATE TRIGGER people_stay BEFORE DELETE ON people BEGIN SELECT RAISE(ABORT, 'people are never deleted'); END;
CREATE TRIGGER people_keep BEFORE UPDATE ON people BEGIN SELECT RAISE(ABORT, 'people are never changed'); END;
CREATE TRIGGER seals_stay BEFORE DELETE ON seals BEGIN SELECT RAISE(ABORT, 'seals are never deleted'); END;
CREATE TRIGGER seals_keep BEFORE UPDATE ON seals BEGIN SELECT RAISE(ABORT, 'seals are never changed'); END;
";

/// Why votes could not be read or kept.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot {action} the votes in {}: {source}", path.display())]
    Sqlite {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// A file of somebody else, or of another version.
    #[error(
        "{} is no store of votes of this version: {field} is {got}, expected {expected}\n\
         hint: it was written by another version or another program; use that one, or move the file away", path.display()
    )]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Which part of its header.
        field: &'static str,
        /// The value found.
        got: i64,
        /// The value wanted.
        expected: i64,
    },
    /// Another process serves or merges.
    #[error(
        "another process writes the votes in {}\nhint: stop that `annotate serve` or wait for that `annotate merge`; reading is possible meanwhile",
        path.display()
    )]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A row that is no vote.
    #[error("row {sequence} of {} is no vote: {source}\nhint: it was changed by another program; take a copy from a backup", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Its number.
        sequence: i64,
        /// The cause.
        source: serde_json::Error,
    },
    /// A vote that would not be one.
    #[error(transparent)]
    Vote(#[from] VoteError),
}

/// An event with its place in the order of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVote {
    /// Counts from 1 and grows; never used twice.
    pub sequence: i64,
    /// The event.
    pub vote: Vote,
}

/// What became of an event that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is there now.
    New(i64),
    /// It, or another one with its id, was there before; nothing changed.
    Known(i64),
}

/// Somebody who votes, as the store knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// In votes and in all that is published.
    pub pseudonym: String,
    /// What they call themselves; never published unless it is their credit.
    pub name: String,
    /// How they want to be named in the dataset's card; empty: not at all.
    pub credit: String,
    /// Languages that they read, as the run's source spells them; none: all.
    pub languages: Vec<String>,
    /// SHA-256 of the text they agreed to; empty if there was none.
    pub consent: String,
    /// When, in seconds since 1970.
    pub at: i64,
}

/// The store, open for appending; one process at a time.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    /// Released when it goes.
    _lock: File,
}

/// The votes' file of the run in a folder.
pub fn votes_path(run: &Path) -> PathBuf {
    run.join(ANNOTATIONS_FOLDER).join(VOTES_FILE)
}

/// All events of a run in their order, read without changing anything and also while they are written; none if nobody voted.
///
/// # Errors
/// A damaged file, or one of another version.
pub fn read_votes(run: &Path) -> Result<Vec<StoredVote>, StoreError> {
    let path = votes_path(run);
    if !path.exists() {
        return Ok(Vec::new());
    }
    all_votes(&open_for_reading(&path)?, &path)
}

/// Everybody who votes in a run, each as they last described themselves.
///
/// # Errors
/// As [`read_votes`].
pub fn read_people(run: &Path) -> Result<Vec<Person>, StoreError> {
    let path = votes_path(run);
    if !path.exists() {
        return Ok(Vec::new());
    }
    all_people(&open_for_reading(&path)?, &path)
}

/// The last event that an export has sealed, 0 if none: up to there nothing can be undone or changed any more.
///
/// # Errors
/// As [`read_votes`].
pub fn sealed_through(run: &Path) -> Result<i64, StoreError> {
    let path = votes_path(run);
    if !path.exists() {
        return Ok(0);
    }
    last_seal(&open_for_reading(&path)?, &path)
}

/// Seals all events up to `through`, because they were exported; also while a server is at work, which then refuses to undo them.
///
/// # Errors
/// If the store is not there or cannot be written.
pub fn seal(run: &Path, through: i64, reason: &str, at: i64) -> Result<(), StoreError> {
    let path = votes_path(run);
    let connection =
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sql("open", &path))?;
    prepare(&connection, &path)?;
    check_format(&connection, &path)?;
    let add = "INSERT INTO seals (through, reason, at) VALUES (?1, ?2, ?3)";
    connection.execute(add, params![through, reason, at]).map_err(sql("seal", &path))?;
    Ok(())
}

fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sql("open", path))?;
    connection.busy_timeout(BUSY).map_err(sql("open", path))?;
    check_format(&connection, path)?;
    Ok(connection)
}

fn sql(action: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Sqlite { action, path, source }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

fn pragma(connection: &Connection, path: &Path, name: &str) -> Result<i64, StoreError> {
    connection.pragma_query_value(None, name, |row| row.get(0)).map_err(sql("read", path))
}

fn check_format(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    for (field, expected) in [("application_id", APPLICATION_ID), ("user_version", STORE_FORMAT)] {
        let got = pragma(connection, path, field)?;
        if got != expected {
            return Err(StoreError::OtherFormat { path: path.to_owned(), field, got, expected });
        }
    }
    Ok(())
}

/// What every connection that writes is told: a commit is on the disk before it returns.
fn prepare(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY).map_err(sql("open", path))?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(sql("open", path))?;
    connection.pragma_update(None, "foreign_keys", true).map_err(sql("open", path))
}

fn all_votes(connection: &Connection, path: &Path) -> Result<Vec<StoredVote>, StoreError> {
    let mut statement =
        connection.prepare("SELECT sequence, vote FROM votes ORDER BY sequence").map_err(sql("read", path))?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .map_err(sql("read", path))?;
    let mut votes = Vec::new();
    for row in rows {
        let (sequence, text) = row.map_err(sql("read", path))?;
        let vote = serde_json::from_str(&text).map_err(|source| StoreError::Row {
            path: path.to_owned(),
            sequence,
            source,
        })?;
        votes.push(StoredVote { sequence, vote });
    }
    Ok(votes)
}

fn all_people(connection: &Connection, path: &Path) -> Result<Vec<Person>, StoreError> {
    let latest = "SELECT pseudonym, name, credit, consent, at, languages FROM people
                  WHERE sequence IN (SELECT max(sequence) FROM people GROUP BY pseudonym) ORDER BY sequence";
    let mut statement = connection.prepare(latest).map_err(sql("read", path))?;
    let person = |row: &rusqlite::Row<'_>| {
        Ok(Person {
            pseudonym: row.get(0)?,
            name: row.get(1)?,
            credit: row.get(2)?,
            consent: row.get(3)?,
            at: row.get(4)?,
            languages: row.get::<_, String>(5)?.lines().map(str::to_owned).collect(),
        })
    };
    let rows = statement.query_map([], person).map_err(sql("read", path))?;
    rows.collect::<Result<_, _>>().map_err(sql("read", path))
}

fn last_seal(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let found: Option<i64> =
        connection.query_row("SELECT max(through) FROM seals", [], |row| row.get(0)).map_err(sql("read", path))?;
    Ok(found.unwrap_or(0))
}

impl Store {
    /// Opens the store of the run in a folder, and makes it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process writes; a file of another version; files that cannot be written.
    pub fn open(run: &Path) -> Result<Self, StoreError> {
        let folder = run.join(ANNOTATIONS_FOLDER);
        std::fs::create_dir_all(&folder).map_err(io("create", &folder))?;
        let lock_path = folder.join(WRITER_LOCK);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: folder }),
            // Some network file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let path = folder.join(VOTES_FILE);
        let mut connection = Connection::open(&path).map_err(sql("open", &path))?;
        prepare(&connection, &path)?;
        set_journal(&connection, &path)?;
        let num_tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(sql("read", &path))?;
        if num_tables == 0 {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql("create", &path))?;
            transaction.execute_batch(TABLES).map_err(sql("create", &path))?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(sql("create", &path))?;
            transaction.pragma_update(None, "user_version", STORE_FORMAT).map_err(sql("create", &path))?;
            transaction.commit().map_err(sql("create", &path))?;
        }
        check_format(&connection, &path)?;
        Ok(Self { connection, path, _lock: lock })
    }

    /// Adds events in their order, all of them or, on an error, none; when this returns they are on the disk.
    ///
    /// # Errors
    /// A vote that is none ([`Vote::check`]), a full disk.
    pub fn append(&mut self, votes: &[Vote]) -> Result<Vec<Appended>, StoreError> {
        let path = &self.path;
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql("add to", path))?;
        let mut appended = Vec::with_capacity(votes.len());
        {
            let add = "INSERT INTO votes (id, annotator, item, vote) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT (id) DO NOTHING RETURNING sequence";
            let mut add = transaction.prepare(add).map_err(sql("add to", path))?;
            let mut find =
                transaction.prepare("SELECT sequence FROM votes WHERE id = ?1").map_err(sql("read", path))?;
            for vote in votes {
                vote.check()?;
                let text = serde_json::to_string(vote).map_err(|source| StoreError::Row {
                    path: path.clone(),
                    sequence: 0,
                    source,
                })?;
                let values = params![vote.id, vote.annotator, vote.item, text];
                let new: Option<i64> =
                    add.query_row(values, |row| row.get(0)).optional().map_err(sql("add to", path))?;
                appended.push(match new {
                    Some(sequence) => Appended::New(sequence),
                    None => Appended::Known(find.query_row([&vote.id], |row| row.get(0)).map_err(sql("read", path))?),
                });
            }
        }
        transaction.commit().map_err(sql("add to", path))?;
        Ok(appended)
    }

    /// Notes a person, or how an earlier one describes themself now.
    ///
    /// # Errors
    /// A full disk.
    pub fn note_person(&mut self, person: &Person) -> Result<(), StoreError> {
        let add =
            "INSERT INTO people (pseudonym, name, credit, consent, at, languages) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let languages = person.languages.join("\n");
        let values = params![person.pseudonym, person.name, person.credit, person.consent, person.at, languages];
        self.connection.execute(add, values).map_err(sql("add to", &self.path))?;
        Ok(())
    }

    /// Moves what stands in the write-ahead log into the table's file, so that nobody's vote has to wait for it. Nothing depends on it.
    ///
    /// # Errors
    /// A full disk.
    pub fn tidy_up(&self) -> Result<(), StoreError> {
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(sql("tidy up", &self.path))
    }

    /// All events in their order.
    ///
    /// # Errors
    /// A row that is no vote.
    pub fn votes(&self) -> Result<Vec<StoredVote>, StoreError> {
        all_votes(&self.connection, &self.path)
    }

    /// Everybody, each as they last described themselves.
    ///
    /// # Errors
    /// A damaged file.
    pub fn people(&self) -> Result<Vec<Person>, StoreError> {
        all_people(&self.connection, &self.path)
    }

    /// See [`sealed_through`].
    ///
    /// # Errors
    /// A damaged file.
    pub fn sealed_through(&self) -> Result<i64, StoreError> {
        last_seal(&self.connection, &self.path)
    }
}

/// Writes events as JSON lines, in their order, each with its sequence.
///
/// # Errors
/// As writing gives them.
pub fn write_jsonl(votes: &[StoredVote], out: &mut impl Write) -> std::io::Result<()> {
    for stored in votes {
        let mut line = serde_json::to_value(&stored.vote)?;
        line["sequence"] = stored.sequence.into();
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// A write-ahead log where its shared memory works, else a rollback journal: both are safe, the first is faster and lets others read
/// meanwhile.
fn set_journal(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let wanted = if is_on_network(path) { "DELETE" } else { "WAL" };
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES).map_err(sql("open", path))?;
    // SQLite says which mode it is in now, and keeps a rollback journal where it cannot have the log.
    connection
        .pragma_update_and_check(None, "journal_mode", wanted, |row| row.get::<_, String>(0))
        .map_err(sql("open", path))?;
    Ok(())
}

/// File systems of which another machine may have a part: a write-ahead log must not lie there (<https://sqlite.org/wal.html>). Numbers
/// from Linux's `magic.h` and the file systems' own sources.
#[cfg(target_os = "linux")]
fn is_on_network(path: &Path) -> bool {
    // NFS, SMB, SMB2, CIFS, FUSE (sshfs and others), AFS, Ceph, Lustre, GPFS, 9P, Coda.
    const NETWORK: [i64; 11] = [
        0x6969,
        0x517b,
        0xfe53_4d42,
        0xff53_4d42,
        0x6573_5546,
        0x5346_414f,
        0x00c3_6400,
        0x0bd0_0bd0,
        0x4750_4653,
        0x0102_1997,
        0x7375_7245,
    ];
    rustix::fs::statfs(path).is_ok_and(|found| NETWORK.contains(&(found.f_type & 0xffff_ffff)))
}

#[cfg(not(target_os = "linux"))]
fn is_on_network(_path: &Path) -> bool {
    false
}

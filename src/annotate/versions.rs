//! The versions of a run's exported dataset: a file of lines to which lines are only ever added, beside the votes.
//! Knows numbers of a version and how two of them differ; knows nothing of how either came about.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dataset::{DatasetSummary, JudgedPrompt, PairRow};
use crate::judge::Share;
use crate::provenance::{ANNOTATIONS_FOLDER, ProvenanceError, sha256_hex, write_atomic};

/// The versions, inside [`ANNOTATIONS_FOLDER`].
pub const VERSIONS_FILE: &str = "versions.jsonl";
/// Held by whoever exports.
const EXPORT_LOCK: &str = "export.lock";
/// Hexadecimal digits by which a version remembers a row and its chosen answer: enough for a billion rows, and a line stays short.
const KEPT_DIGITS: usize = 16;
/// The reason of rows that a run does not have any more.
const ROW_GONE: &str = "row_not_in_run";

/// Why versions cannot be read or written.
#[derive(Debug, Error)]
pub enum VersionsError {
    /// A file or folder.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line that is no version.
    #[error("line {line} of {} is no version: {source}\nhint: it was changed by another program; take a copy from a backup", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The cause.
        source: serde_json::Error,
    },
    /// Another process exports.
    #[error("another `export` of this run is at work ({})\nhint: wait until it is done", path.display())]
    Busy {
        /// The lock's file.
        path: PathBuf,
    },
    /// Writing.
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
}

/// One version of the dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Counts from 1.
    pub number: u64,
    /// SHA-256 over the hashes of the Parquet files: the same content is the same version.
    pub content: String,
    /// The day, such as `2026-11-27`.
    pub date: String,
    /// Version of this tool.
    pub tool_version: String,
    /// Fewest votes of a label.
    pub min_votes: u64,
    /// Whether the judge has no say.
    pub human_only: bool,
    /// Rows of the run.
    pub num_rows: u64,
    /// Pairs of `default`.
    pub num_pairs: u64,
    /// Those that people decided or wrote.
    pub num_human_pairs: u64,
    /// Those on which they say the opposite of the judge's ratings.
    pub num_turned: u64,
    /// Votes published.
    pub num_votes: u64,
    /// People who gave them.
    pub num_annotators: u64,
    /// Rows without a pair, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Rows with a pair that the version before did not have.
    pub num_added: u64,
    /// Rows whose (first) chosen answer is another one than in the version before.
    pub num_changed: u64,
    /// Rows with a pair in the version before and none in this one, by reason.
    pub left: BTreeMap<String, u64>,
    /// Krippendorff's alpha of people (ordinal).
    pub alpha: Option<f64>,
    /// The judge against people: how many right, of how many.
    pub judge_right: Option<[u64; 2]>,
    /// Whether that is on couples drawn at random alone.
    pub is_audit: bool,
    /// Beginning of each paired row's id to the beginning of its chosen answer's SHA-256.
    pub rows: BTreeMap<String, String>,
}

impl Version {
    /// What the numbers of a dataset say, compared with the version before it; the rest is left to the caller.
    pub fn of(summary: &DatasetSummary, prompts: &[JudgedPrompt<'_>], before: Option<&Self>) -> Self {
        let hashes: Vec<&str> = summary.files.iter().map(|file| file.sha256.as_str()).collect();
        let pairs = || prompts.iter().flat_map(PairRow::all);
        let mut rows = BTreeMap::new();
        for pair in pairs() {
            let chosen = sha256_hex(pair.chosen.candidate.text.as_bytes());
            rows.entry(kept(&pair.judged.record.id)).or_insert_with(|| kept(&chosen));
        }
        let nothing = BTreeMap::new();
        let former = before.map_or(&nothing, |before| &before.rows);
        let mut outcomes: BTreeMap<String, &str> = BTreeMap::new();
        for prompt in prompts {
            outcomes.entry(kept(&prompt.record.id)).or_insert_with(|| prompt.outcome.as_str());
        }
        let mut left: BTreeMap<String, u64> = BTreeMap::new();
        for id in former.keys().filter(|id| !rows.contains_key(*id)) {
            *left.entry(outcomes.get(id).copied().unwrap_or(ROW_GONE).to_owned()).or_default() += 1;
        }
        let is_turned =
            |pair: &PairRow<'_>| pair.pair.people.is_some() && pair.pair.margin.is_some_and(|margin| margin < 0.0);
        Self {
            number: before.map_or(0, |before| before.number) + 1,
            content: sha256_hex(hashes.join("\n").as_bytes()),
            date: String::new(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            min_votes: 0,
            human_only: false,
            num_rows: summary.num_rows_in,
            num_pairs: summary.num_pairs,
            num_human_pairs: pairs().filter(|pair| pair.pair.people.is_some()).count() as u64,
            num_turned: pairs().filter(is_turned).count() as u64,
            num_votes: 0,
            num_annotators: 0,
            drops: summary.drops.clone(),
            num_added: rows.keys().filter(|id| !former.contains_key(*id)).count() as u64,
            num_changed: rows
                .iter()
                .filter(|(id, chosen)| former.get(*id).is_some_and(|other| other != *chosen))
                .count() as u64,
            left,
            alpha: None,
            judge_right: None,
            is_audit: false,
            rows,
        }
    }

    /// The judge's accuracy with its interval.
    pub fn judge_accuracy(&self) -> Option<Share> {
        self.judge_right.and_then(|[right, all]| Share::of(right, all))
    }
}

fn kept(hash: &str) -> String {
    hash.chars().take(KEPT_DIGITS).collect()
}

/// The versions of a run, while nobody else exports it.
#[derive(Debug)]
pub struct Versions {
    path: PathBuf,
    /// The lines as they stand there.
    text: String,
    /// In their order.
    pub all: Vec<Version>,
    /// Released when it goes.
    _lock: File,
}

impl Versions {
    /// Reads the versions of the run in a folder; none if it was never exported.
    ///
    /// # Errors
    /// A damaged file; another process that exports.
    pub fn open(run: &Path) -> Result<Self, VersionsError> {
        let folder = run.join(ANNOTATIONS_FOLDER);
        let io = |action: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| VersionsError::Io { action, path, source }
        };
        std::fs::create_dir_all(&folder).map_err(io("create", &folder))?;
        let lock_path = folder.join(EXPORT_LOCK);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(io("open", &lock_path))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            return Err(VersionsError::Busy { path: lock_path });
        }
        let path = folder.join(VERSIONS_FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(io("read", &path))?,
        };
        let version = |(at, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|source| VersionsError::Line {
                path: path.clone(),
                line: at + 1,
                source,
            })
        };
        let all = text.lines().enumerate().map(version).collect::<Result<_, _>>()?;
        Ok(Self { path, text, all, _lock: lock })
    }

    /// Adds a version; when this returns it is on the disk.
    ///
    /// # Errors
    /// A full disk: then the file is as it was.
    pub fn add(&mut self, version: Version) -> Result<(), VersionsError> {
        let line = serde_json::to_string(&version).map_err(|source| VersionsError::Line {
            path: self.path.clone(),
            line: self.all.len() + 1,
            source,
        })?;
        let text = format!("{}{line}\n", self.text);
        write_atomic(&self.path, text.as_bytes())?;
        self.text = text;
        self.all.push(version);
        Ok(())
    }
}

/// The changelog of a dataset as a Markdown table, the newest version first.
pub fn changelog(versions: &[Version]) -> String {
    let mut text = String::from(
        "| version | made | pairs | by people | against the judge | votes | people | new rows | other answer chosen | rows that left | alpha | \
         judge right |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---|---:|---|\n",
    );
    for version in versions.iter().rev() {
        let left: Vec<String> = version.left.iter().map(|(reason, rows)| format!("{rows} `{reason}`")).collect();
        let left = if left.is_empty() { "none".to_owned() } else { left.join(", ") };
        let alpha = version.alpha.map_or("–".to_owned(), |alpha| format!("{alpha:.2}"));
        let right = version.judge_accuracy().map_or("–".to_owned(), |share| {
            let [low, high] = [share.low, share.high].map(|end| 100.0 * end);
            let of = if version.is_audit { ", drawn at random" } else { "" };
            format!("{:.0} % ({} of {}{of}; {low:.0} to {high:.0})", 100.0 * share.share, share.count, share.total)
        });
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {left} | {alpha} | {right} |\n",
            version.number,
            version.date,
            version.num_pairs,
            version.num_human_pairs,
            version.num_turned,
            version.num_votes,
            version.num_annotators,
            version.num_added,
            version.num_changed
        );
    }
    text
}

//! Prompt records in: what a row of a source file is, and what reading a file yields.
//! Knows file formats and column names; knows nothing of models, tokens or what is done with a record later.
//!
//! [`read_prompts`] is the way in, [`count_languages`] says what a file holds, [`language`] turns what a user types into
//! the languages of a file. Text is never normalised, trimmed or re-encoded here: what the file says is what comes out.

mod columns;
mod csv_file;
mod drops;
mod error;
mod jsonl_file;
pub mod language;
pub(crate) mod nearest;
mod parquet_file;
mod parquet_guard;
pub(crate) mod quiet;
mod read;
mod slice;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use columns::{ColumnMap, Field};
pub use drops::DropReason;
pub use error::DataError;
pub use language::{LanguageCount, LanguageMatch};
pub use parquet_file::batches as parquet_batches;
pub use read::{ReadOptions, count_languages, read_prompts};
pub use slice::{Slice, slice};

/// One prompt with (usually) a human answer, as read from the source file. Text is kept byte for byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptRecord {
    /// Lower-case hex SHA-256 of the prompt's UTF-8 bytes; the row's identity in every later stage.
    pub id: String,
    /// Zero-based row in the source file (line for JSONL, data row for CSV and Parquet). In a directory of Parquet files
    /// the count runs on from one file to the next, in the order of their names.
    pub row_index: u64,
    /// What was asked; never empty or white space alone.
    pub prompt: String,
    /// The human answer, where the source has one. An answer of white space alone counts as none.
    pub response: Option<String>,
    /// Language name as the source spells it, for example `Dutch`; empty if the source has no such column.
    pub language: String,
    /// Language code as the source spells it (Aya: ISO 639-3), for example `nld`; empty if the source has none.
    pub language_code: String,
    /// As the source spells it; `None` if the source has none. Passed on, never looked at.
    pub annotation_type: Option<String>,
    /// The human author's pseudonym, where the source has one; published only if asked for.
    pub user_id: Option<String>,
}

/// Rows that left the pipeline, counted by named reason. Rows in == rows out + the sum of these, at every stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCounts(pub BTreeMap<String, u64>);

/// What reading a source gave. Always `num_rows_read == records.len() + drops.total()`.
#[derive(Debug, Clone)]
pub struct Prompts {
    /// The rows that passed every filter, in the order of the source.
    pub records: Vec<PromptRecord>,
    /// Rows of the source, whatever became of them.
    pub num_rows_read: u64,
    /// The rows that did not pass, by reason.
    pub drops: DropCounts,
    /// What was read.
    pub source: SourceFile,
    /// What the language filter was resolved to; `None` if no language was asked for. It may name several languages of
    /// the file (a macro code such as `ara`), which a caller should say.
    pub language: Option<LanguageMatch>,
}

/// The file that records came from, for the lock file and the card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceFile {
    /// The file, or the directory of Parquet files.
    pub path: PathBuf,
    /// Size of the file; for a directory the sum over the files read.
    pub size_bytes: u64,
    /// Lower-case hex SHA-256 of the file. For a directory: of the text that `sha256sum *.parquet` prints inside it, so
    /// that `sha256sum *.parquet | sha256sum` (with `LC_ALL=C`) checks it.
    pub sha256: String,
}

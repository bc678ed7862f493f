//! Prompt records in: what a row of a source file is, and what reading a file yields.
//! Knows file formats and column names; knows nothing of models, tokens or what is done with a record later.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One prompt with (usually) a human answer, as read from the source file. Text is kept byte for byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptRecord {
    /// Lower-case hex SHA-256 of the prompt's UTF-8 bytes; the row's identity in every later stage.
    pub id: String,
    /// Zero-based row in the source file (line for JSONL, data row for CSV and Parquet).
    pub row_index: u64,
    pub prompt: String,
    /// The human answer, where the source has one.
    pub response: Option<String>,
    /// Language name as the source spells it, for example `Dutch`; empty if the source has no such column.
    pub language: String,
    /// Language code as the source spells it (Aya: ISO 639-3), for example `nld`; empty if the source has none.
    pub language_code: String,
    pub annotation_type: Option<String>,
    pub user_id: Option<String>,
}

/// Rows that left the pipeline, counted by named reason. Rows in == rows out + the sum of these, at every stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCounts(pub BTreeMap<String, u64>);

/// What reading a source gave.
#[derive(Debug, Clone)]
pub struct Prompts {
    pub records: Vec<PromptRecord>,
    pub num_rows_read: u64,
    pub drops: DropCounts,
    pub source: SourceFile,
}

/// The file that records came from, for the lock file and the card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceFile {
    pub path: PathBuf,
    pub size_bytes: u64,
    /// Lower-case hex SHA-256 of the file.
    pub sha256: String,
}

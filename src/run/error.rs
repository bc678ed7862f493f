//! Why a run cannot start or go on. Knows messages; decides nothing.

use std::path::PathBuf;

use crate::data::DataError;
use crate::dataset::DatasetError;
use crate::generate::GenerateError;
use crate::journal::JournalError;
use crate::provenance::ProvenanceError;
use crate::shard::Shard;

/// See the module's text.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder holds something else.
    #[error("{path} is not empty and holds no run\nhint: give another --out, or an empty folder")]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds a run with other inputs or parameters.
    #[error("{path} holds a run with other inputs or parameters:\n{}\nhint: {}", list(.differences), ways_out(*.is_harmless))]
    OtherRun {
        /// The folder.
        path: PathBuf,
        /// In words, "field: there → here".
        differences: Vec<String>,
        /// Whether what is there and what would come are still of one kind.
        is_harmless: bool,
    },
    /// Another process is at work in the folder.
    #[error("{path} is in use by {who}\nhint: wait until it is done{hint}, or give another --out")]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Host and process.
        who: String,
        /// What else can be done.
        hint: String,
    },
    /// The folder holds no run.
    #[error("{path} holds no run: {missing} is missing\nhint: `pairwright make` or `pairwright generate` starts one")]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// The file.
        missing: &'static str,
    },
    /// One shard's folder stands where a whole run is wanted.
    #[error(
        "{path} is shard {shard} of a run, and has a share of the rows only\nhint: `pairwright merge` makes one run of all shards"
    )]
    IsShard {
        /// The folder.
        path: PathBuf,
        /// Which.
        shard: Shard,
    },
    /// Shards that do not make a run.
    #[error("shards are not one run:\n{}\nhint: {hint}", list(.problems))]
    Shards {
        /// In words, one for each shard and what is wrong with it.
        problems: Vec<String>,
        /// What to do.
        hint: &'static str,
    },
    /// A stage's input is not complete.
    #[error("{path}: {done} of {wanted} rows have {what}\nhint: {hint}")]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// Rows that are done.
        done: usize,
        /// Rows there are.
        wanted: usize,
        /// What is missing.
        what: &'static str,
        /// The command that completes it.
        hint: &'static str,
    },
    /// A file cannot be read or written.
    #[error("{path} cannot be {action}: {source}\nhint: check the path and its permissions, or give another --out")]
    Io {
        /// The file.
        path: PathBuf,
        /// `read`, `written`, `created`.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The stored prompts are damaged.
    #[error("{path}, line {line}: {what}\nhint: delete the file, and the same command writes it again from the source")]
    StoredPrompts {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Reading prompts.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A hash or lock file.
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
    /// Weights of aspects that do not fit.
    #[error(transparent)]
    Weights(#[from] crate::judge::AspectWeightsError),
    /// Generation or judging.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The report could not be put together.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    /// Writing the dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

fn ways_out(is_harmless: bool) -> &'static str {
    match is_harmless {
        true => {
            "--accept-changes goes on with these (the card will name them), --fresh starts anew, or give another --out"
        }
        false => "give another --out, the parameters of that run, or --fresh to start anew in this folder",
    }
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

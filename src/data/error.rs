//! Everything that can be wrong with a source of prompts, said so that the user can act.
//! Knows wording only; the readers decide what is an error.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::DropCounts;
use super::columns::Field;
use super::language::UnknownLanguage;
use super::nearest::nearest;

/// Why a source of prompts cannot be read or yields nothing.
#[derive(Debug, Error)]
pub enum DataError {
    #[error("no such file or directory: {}\nhint: paths are relative to the current directory", path.display())]
    Missing { path: PathBuf },
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} is not a readable Parquet file: {problem}\nhint: {}", path.display(), parquet_hint(*is_lfs_pointer))]
    Parquet {
        path: PathBuf,
        /// What the Parquet reader said.
        problem: String,
        /// The file is the small text that Git LFS leaves in place of a large file.
        is_lfs_pointer: bool,
    },
    #[error(
        "{}, line {line}, column {column}: {problem}; expected one JSON object per line, in UTF-8\nhint: an array in \
         FILE.json becomes such lines with `jq -c '.[]' FILE.json > FILE.jsonl`",
        path.display()
    )]
    Json {
        path: PathBuf,
        /// One-based line of the file.
        line: u64,
        /// One-based byte in the line; 0 if the reader cannot tell.
        column: usize,
        problem: String,
    },
    #[error("{}, line {line}: {problem}\nhint: expected a header line, UTF-8, fields apart by `{separator}`, and quotes \
             (\"…\") around texts that hold a separator, a quote or a line break", path.display())]
    Csv {
        path: PathBuf,
        /// One-based line of the file where the bad record starts.
        line: u64,
        problem: String,
        /// The separator that was expected: a comma, or `\t` in a `.tsv` file.
        separator: String,
    },
    #[error("{}: no column {} for `{key}`; the columns are: {}\nhint: {}", path.display(), quoted(wanted, " or "),
            quoted(available, ", "), column_hint(key, closest.as_deref()))]
    MissingColumn {
        path: PathBuf,
        /// The key of the column map, for example `prompt`.
        key: &'static str,
        /// The column the map names, or all the names that were tried.
        wanted: Vec<String>,
        available: Vec<String>,
        /// The column that is spelt most like a wanted one.
        closest: Option<String>,
    },
    #[error("{}{}: column `{column}` (for `{key}`) holds {found}, expected text\nhint: name another column with --map \
             {key}=COLUMN{}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default(),
            leave_out(key))]
    ColumnType {
        path: PathBuf,
        key: &'static str,
        column: String,
        /// The type found, in the words of the format.
        found: String,
        /// One-based line, where types differ by line (JSONL).
        line: Option<u64>,
    },
    #[error("{}: all {num_rows} rows lack a prompt: column `{column}` is null or empty throughout\nhint: name the column \
             that holds the prompts with --map prompt=COLUMN", path.display())]
    NoPrompts { path: PathBuf, column: String, num_rows: u64 },
    #[error("{}: cannot tell the format; known extensions are .parquet, .pq, .jsonl, .ndjson, .json, .csv and .tsv, got \
             {}\nhint: unpack compressed files first; Parquet files are recognised under any name", path.display(),
            extension.as_deref().map_or_else(|| "none".to_owned(), |extension| format!(".{extension}")))]
    UnsupportedFormat { path: PathBuf, extension: Option<String> },
    #[error("{} holds no .parquet file\nhint: give a file, or the directory that holds the Parquet files of one split",
            path.display())]
    EmptyDirectory { path: PathBuf },
    #[error("{} holds Parquet files of several splits ({}), which must not be mixed\nhint: give one file, or move the \
             files of one split into a directory of their own", path.display(), splits.join(", "))]
    MixedSplits { path: PathBuf, splits: Vec<String> },
    #[error(transparent)]
    UnknownLanguage(#[from] Box<UnknownLanguage>),
    #[error("{}: cannot choose `{language}`, because no column says the language of a row; the columns are: {}\nhint: name \
             it with --map language=COLUMN or --map language_code=COLUMN, or drop the language if all rows are of one",
            path.display(), quoted(available, ", "))]
    NoLanguageColumn { path: PathBuf, language: String, available: Vec<String> },
    #[error("{}: no rows left of {num_rows} read{}", path.display(), drop_table(drops))]
    NoRowsLeft { path: PathBuf, num_rows: u64, drops: DropCounts },
    #[error("cannot use the column map `{spec}`: {problem}\nhint: write KEY=COLUMN, apart by commas, for example \
             prompt=question,response=answer; keys are {}", Field::ALL.map(Field::key).join(", "))]
    InvalidMap { spec: String, problem: String },
}

impl DataError {
    /// An I/O error, or [`DataError::Missing`] if that is what it is.
    pub(super) fn io(path: &Path, source: std::io::Error) -> DataError {
        match source.kind() {
            std::io::ErrorKind::NotFound => DataError::Missing { path: path.to_owned() },
            _ => DataError::Io { path: path.to_owned(), source },
        }
    }

    /// No column of the `wanted` names; looks for the one spelt most like them.
    pub(super) fn missing_column(path: &Path, field: Field, wanted: &[&str], available: &[String]) -> DataError {
        let closest = wanted.iter().find_map(|name| {
            nearest(name, available.iter().map(String::as_str), 1).first().map(|name| (*name).to_owned())
        });
        DataError::MissingColumn {
            path: path.to_owned(),
            key: field.key(),
            wanted: wanted.iter().map(|name| (*name).to_owned()).collect(),
            available: available.to_vec(),
            closest,
        }
    }
}

/// At most this many names are listed in one message.
const MAX_LISTED: usize = 40;

fn quoted(names: &[String], separator: &str) -> String {
    if names.is_empty() {
        return "(none)".to_owned();
    }
    let listed: Vec<String> = names.iter().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(MAX_LISTED) {
        0 => listed.join(separator),
        more => format!("{} and {more} more", listed.join(separator)),
    }
}

fn column_hint(key: &str, closest: Option<&str>) -> String {
    match closest {
        Some(closest) => format!("did you mean `{closest}`? Say so with --map {key}={closest}"),
        None => format!("name it with --map {key}=COLUMN"),
    }
}

/// Every field but the prompt can be left out.
fn leave_out(key: &str) -> String {
    if key == Field::Prompt.key() { String::new() } else { format!(", or leave the field out with --map {key}=") }
}

fn parquet_hint(is_lfs_pointer: bool) -> &'static str {
    if is_lfs_pointer {
        "this is a Git LFS pointer, not the data: run `git lfs pull` where it was cloned"
    } else {
        "the download may be incomplete: compare the size and the SHA-256 with the source, and fetch the file again"
    }
}

fn drop_table(drops: &DropCounts) -> String {
    if drops.0.is_empty() {
        return "\nhint: the file has no data rows".to_owned();
    }
    format!(
        "; dropped by reason:\n{drops}\nhint: ask for another language, or loosen the filter with the largest count"
    )
}

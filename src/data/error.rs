//! Everything that can be wrong with a source of prompts, said so that the user can act.
//! Knows wording only; the readers decide what is an error.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::DropCounts;
use super::columns::Field;
use super::language::UnknownLanguage;
use super::nearest::nearest;
use super::source::MAX_ROW_BYTES;

/// Why a source of prompts cannot be read or yields nothing.
#[derive(Debug, Error)]
pub enum DataError {
    /// Nothing is at the path.
    #[error("no such file or directory: {}\nhint: paths are relative to the current directory", path.display())]
    Missing {
        /// As the user gave it.
        path: PathBuf,
    },
    /// The system refused to read it.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not Parquet, or damaged, or a pointer in place of the file.
    #[error("{} is not a readable Parquet file: {problem}\nhint: {}", path.display(), parquet_hint(*is_lfs_pointer))]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the Parquet reader said.
        problem: String,
        /// The file is the small text that Git LFS leaves in place of a large file.
        is_lfs_pointer: bool,
    },
    /// A line of a JSONL file that is no JSON object.
    #[error(
        "{}, line {line}, column {column}: {problem}; expected one JSON object per line, in UTF-8\nhint: an array in \
         FILE.json becomes such lines with `jq -c '.[]' FILE.json > FILE.jsonl`",
        path.display()
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// One-based line of the file.
        line: u64,
        /// One-based byte in the line; 0 if the reader cannot tell.
        column: usize,
        /// What the JSON reader said.
        problem: String,
    },
    /// A record of a CSV file that cannot be read.
    #[error("{}, line {line}: {problem}\nhint: expected a header line, UTF-8, fields apart by `{separator}`, and quotes \
             (\"…\") around texts that hold a separator, a quote or a line break", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// One-based line of the file where the bad record starts.
        line: u64,
        /// What the CSV reader said.
        problem: String,
        /// The separator that was expected: a comma, or `\t` in a `.tsv` file.
        separator: String,
    },
    /// A row of more bytes than any text that people wrote.
    #[error(
        "{}, row {line}: more than {} MiB, expected one prompt and its answer\nhint: look for a missing quote or line end before \
         it, or leave the row out", path.display(), MAX_ROW_BYTES >> 20
    )]
    RowTooLarge {
        /// The file.
        path: PathBuf,
        /// One-based line (JSONL, CSV) or row (Parquet) where it starts, as far as the reader can tell.
        line: u64,
    },
    /// A column that must be there, or that the map names, is not.
    #[error("{}: no column {} for `{key}`; the columns are: {}\nhint: {}", path.display(), quoted(wanted, " or "),
            quoted(available, ", "), column_hint(key, closest.as_deref()))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The key of the column map, for example `prompt`.
        key: &'static str,
        /// The column the map names, or all the names that were tried.
        wanted: Vec<String>,
        /// The columns that the file has.
        available: Vec<String>,
        /// The column that is spelt most like a wanted one.
        closest: Option<String>,
    },
    /// A column holds something else than text.
    #[error("{}{}: column `{column}` (for `{key}`) holds {found}, expected text\nhint: name another column with --map \
             {key}=COLUMN{}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default(),
            leave_out(key))]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The key of the column map, for example `prompt`.
        key: &'static str,
        /// The column's name in the file.
        column: String,
        /// The type found, in the words of the format.
        found: String,
        /// One-based line, where types differ by line (JSONL).
        line: Option<u64>,
    },
    /// The prompt column is there and holds no prompt in any row.
    #[error("{}: all {num_rows} rows lack a prompt: column `{column}` is null or empty throughout\nhint: name the column \
             that holds the prompts with --map prompt=COLUMN", path.display())]
    NoPrompts {
        /// The file.
        path: PathBuf,
        /// The column that was taken for the prompts.
        column: String,
        /// Rows that the file has.
        num_rows: u64,
    },
    /// An extension that stands for no known format.
    #[error("{}: cannot tell the format; known extensions are .parquet, .pq, .jsonl, .ndjson, .json, .csv and .tsv, got \
             {}\nhint: unpack compressed files first; Parquet files are recognised under any name", path.display(),
            extension.as_deref().map_or_else(|| "none".to_owned(), |extension| format!(".{extension}")))]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// Without the dot; `None` if the name has none.
        extension: Option<String>,
    },
    /// A directory in which there is nothing to read.
    #[error("{} holds no .parquet file\nhint: give a file, or the directory that holds the Parquet files of one split",
            path.display())]
    EmptyDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A directory with, for example, train and test files side by side.
    #[error("{} holds Parquet files of several splits ({}), which must not be mixed\nhint: give one file, or move the \
             files of one split into a directory of their own", path.display(), splits.join(", "))]
    MixedSplits {
        /// The directory.
        path: PathBuf,
        /// The splits' names, as the file names have them.
        splits: Vec<String>,
    },
    /// A language that the file does not hold.
    #[error(transparent)]
    UnknownLanguage(#[from] Box<UnknownLanguage>),
    /// A language was asked for, and no column says what language a row is in.
    #[error("{}: cannot choose `{language}`, because no column says the language of a row; the columns are: {}\nhint: name \
             it with --map language=COLUMN or --map language_code=COLUMN, or drop the language if all rows are of one",
            path.display(), quoted(available, ", "))]
    NoLanguageColumn {
        /// The file.
        path: PathBuf,
        /// The language, as the user typed it.
        language: String,
        /// The columns that the file has.
        available: Vec<String>,
    },
    /// Every row was dropped.
    #[error("{}: no rows left of {num_rows} read{}", path.display(), drop_table(drops))]
    NoRowsLeft {
        /// The file.
        path: PathBuf,
        /// Rows that the file has.
        num_rows: u64,
        /// The rows by the reason why each was dropped.
        drops: DropCounts,
    },
    /// The text given with `--map` is no column map.
    #[error("cannot use the column map `{spec}`: {problem}\nhint: write KEY=COLUMN, apart by commas, for example \
             prompt=question,response=answer; keys are {}", Field::ALL.map(Field::key).join(", "))]
    InvalidMap {
        /// The text, as the user typed it.
        spec: String,
        /// What is wrong with it.
        problem: String,
    },
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

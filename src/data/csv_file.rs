//! CSV (and tab-separated) files: a header line, then one record per row, quotes around whatever needs them.
//! Knows the syntax; does not know which rows are wanted. CSV has no null: an absent value is an empty text.

use std::io::{BufReader, ErrorKind as IoErrorKind};
use std::path::Path;

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord};

use super::columns::{Columns, NUM_FIELDS, Row, Visit};
use super::error::DataError;
use super::source::{RowLimit, open_after_bom};

/// The names in the header line; none for an empty file.
pub(super) fn column_names(path: &Path, separator: u8) -> Result<Vec<String>, DataError> {
    let mut reader = open(path, separator)?;
    let header = reader.headers().map_err(|error| csv_error(path, separator, &error))?;
    if let (1, Some(only)) = (header.len(), header.get(0))
        && let Some(other) = [';', '\t', ',', '|'].into_iter().find(|other| only.contains(*other))
    {
        return Err(DataError::Csv {
            path: path.to_owned(),
            line: 1,
            problem: format!("the header is one name, `{only}`, and seems to be separated by {other:?}"),
            separator: separator_name(separator),
        });
    }
    Ok(header.iter().map(str::to_owned).collect())
}

/// Calls `visit` for every record and returns how many there were. Records with more or fewer fields than the header,
/// and text that is not UTF-8, are errors.
pub(super) fn scan(path: &Path, separator: u8, columns: &Columns, visit: &mut Visit<'_>) -> Result<u64, DataError> {
    let mut reader = open(path, separator)?;
    let header = reader.headers().map_err(|error| csv_error(path, separator, &error))?.clone();
    let mut positions: [Option<usize>; NUM_FIELDS] = [None; NUM_FIELDS];
    for (position, (_, column)) in positions.iter_mut().zip(columns.by_field()) {
        *position = column.and_then(|column| header.iter().position(|name| name == column));
    }
    let mut record = StringRecord::new();
    let mut row_index = 0;
    loop {
        reader.get_mut().get_mut().begin_row();
        let line = reader.position().line();
        let said = |error| match csv_error(path, separator, &error) {
            DataError::RowTooLarge { path, .. } => DataError::RowTooLarge { path, line },
            other => other,
        };
        if !reader.read_record(&mut record).map_err(said)? {
            return Ok(row_index);
        }
        let cells = positions.map(|position| position.and_then(|position| record.get(position)));
        visit(&Row { row_index, cells })?;
        row_index += 1;
    }
}

pub(super) fn open(path: &Path, separator: u8) -> Result<Reader<BufReader<RowLimit>>, DataError> {
    Ok(ReaderBuilder::new().delimiter(separator).from_reader(open_after_bom(path)?))
}

pub(super) fn csv_error(path: &Path, separator: u8, error: &csv::Error) -> DataError {
    let line = error.position().map_or(1, csv::Position::line);
    let problem = match error.kind() {
        ErrorKind::Io(cause) if cause.kind() == IoErrorKind::FileTooLarge => {
            return DataError::RowTooLarge { path: path.to_owned(), line };
        }
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("a record of {len} fields, expected {expected_len} as in the header")
        }
        ErrorKind::Utf8 { err, .. } => format!("the text is not UTF-8 (field {})", err.field() + 1),
        _ => error.to_string(),
    };
    DataError::Csv { path: path.to_owned(), line, problem, separator: separator_name(separator) }
}

fn separator_name(separator: u8) -> String {
    char::from(separator).escape_default().to_string()
}

//! JSON lines: one object per line, in UTF-8; blank lines are no rows.
//! Knows the syntax; does not know which rows are wanted. Objects need not all have the same keys.

use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

use serde_json::{Map, Value};

use super::columns::{Columns, Field, NUM_FIELDS, Row, Visit};
use super::error::DataError;
use super::source::{RowLimit, open_after_bom};

/// How many objects are looked at to learn the keys: a key that is absent where it is null still shows up.
const NUM_OBJECTS_FOR_KEYS: usize = 1_000;

/// The keys of the first 1,000 objects, in the order of first appearance; none for a file without objects.
pub(super) fn column_names(path: &Path) -> Result<Vec<String>, DataError> {
    let mut lines = Lines::open(path)?;
    let mut names: Vec<String> = Vec::new();
    for _ in 0..NUM_OBJECTS_FOR_KEYS {
        let Some(object) = lines.next_object()? else { break };
        for key in object.keys() {
            if !names.contains(key) {
                names.push(key.clone());
            }
        }
    }
    Ok(names)
}

/// Calls `visit` for every object and returns how many there were. The row index is the zero-based line, blank ones included.
pub(super) fn scan(path: &Path, columns: &Columns, visit: &mut Visit<'_>) -> Result<u64, DataError> {
    let mut lines = Lines::open(path)?;
    let mut num_rows = 0;
    while let Some(mut object) = lines.next_object()? {
        for (field, column) in columns.by_field() {
            if let Some(value) = column.and_then(|column| object.get_mut(column)) {
                number_to_text(field, value);
            }
        }
        let mut cells: [Option<&str>; NUM_FIELDS] = [None; NUM_FIELDS];
        for (cell, (field, column)) in cells.iter_mut().zip(columns.by_field()) {
            let Some(column) = column else { continue };
            *cell = match object.get(column) {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(text),
                Some(other) => return Err(wrong_type(path, lines.line, field, column, other)),
            };
        }
        visit(&Row { row_index: lines.line.saturating_sub(1), cells })?;
        num_rows += 1;
    }
    Ok(num_rows)
}

fn number_to_text(field: Field, value: &mut Value) {
    if field.takes_numbers() && (value.is_number() || value.is_boolean()) {
        *value = Value::String(value.to_string());
    }
}

fn wrong_type(path: &Path, line: u64, field: Field, column: &str, value: &Value) -> DataError {
    let found = match value {
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
        Value::Bool(_) => "a boolean",
        _ => "a number",
    };
    DataError::ColumnType {
        path: path.to_owned(),
        key: field.key(),
        column: column.to_owned(),
        found: found.to_owned(),
        line: Some(line),
    }
}

/// The objects of a file, one by one, with the line they stand in.
struct Lines<'p> {
    path: &'p Path,
    reader: BufReader<RowLimit>,
    /// One-based line read last; 0 before the first.
    line: u64,
    bytes: Vec<u8>,
}

impl<'p> Lines<'p> {
    fn open(path: &'p Path) -> Result<Lines<'p>, DataError> {
        Ok(Lines { path, reader: open_after_bom(path)?, line: 0, bytes: Vec::new() })
    }

    fn next_object(&mut self) -> Result<Option<Map<String, Value>>, DataError> {
        loop {
            self.bytes.clear();
            self.reader.get_mut().begin_row();
            let read = self.reader.read_until(b'\n', &mut self.bytes).map_err(|error| match error.kind() {
                ErrorKind::FileTooLarge => DataError::RowTooLarge { path: self.path.to_owned(), line: self.line + 1 },
                _ => DataError::io(self.path, error),
            })?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            // Without its line end, so that the parser reports an early end in this line's last column.
            let end = self.bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
            self.bytes.truncate(end);
            if self.bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            // Into a value first: asked for a map at once, the parser would name Rust types in its message.
            return match serde_json::from_slice(&self.bytes) {
                Ok(Value::Object(object)) => Ok(Some(object)),
                Ok(_) => Err(self.error(1, "a value that is not an object".to_owned())),
                Err(error) => Err(self.error(error.column(), parser_message(&error))),
            };
        }
    }

    fn error(&self, column: usize, problem: String) -> DataError {
        DataError::Json { path: self.path.to_owned(), line: self.line, column, problem }
    }
}

/// The parser's message without its own "at line 1 column n", which counts within our line.
fn parser_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

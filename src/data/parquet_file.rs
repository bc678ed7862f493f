//! Parquet files: text columns of any Arrow spelling, read batch by batch, only the columns that are wanted.
//! Knows the format; does not know which rows are wanted. A damaged file is an error, whatever the damage.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringViewArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use super::columns::{Columns, Field, NUM_FIELDS, Row, Visit};
use super::error::DataError;
use super::parquet_guard;
use super::quiet::catch_quietly;
use super::source::MAX_ROW_BYTES;

/// Rows decoded at a time: enough to amortise a batch, few enough that the longest texts stay in the tens of megabytes.
const BATCH_ROWS: usize = 1_024;

/// How a Git LFS pointer file starts.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// The names of the top-level columns.
pub(super) fn column_names(path: &Path) -> Result<Vec<String>, DataError> {
    let builder = open(path)?;
    Ok(builder.schema().fields().iter().map(|field| field.name().clone()).collect())
}

/// Calls `visit` for every row and returns how many there were.
pub(super) fn scan(path: &Path, columns: &Columns, visit: &mut Visit<'_>) -> Result<u64, DataError> {
    let builder = open_as_views(path)?;
    let roots = check_columns(path, builder.schema(), columns)?;
    let file = File::open(path).map_err(|error| DataError::io(path, error))?;
    parquet_guard::check_pages(&file, builder.metadata(), &roots).map_err(|what| parquet_error(path, what))?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let mut reader = guarded(path, || builder.with_batch_size(BATCH_ROWS).with_projection(mask).build())?;
    let mut row_index = 0;
    while let Some(texts) = next_batch(path, &mut reader, columns)? {
        for row in 0..texts.num_rows {
            let mut cells: [Option<&str>; NUM_FIELDS] = [None; NUM_FIELDS];
            for (cell, column) in cells.iter_mut().zip(&texts.columns) {
                *cell = column.as_ref().filter(|column| column.is_valid(row)).map(|column| column.value(row));
                if cell.is_some_and(|text| text.len() > MAX_ROW_BYTES) {
                    return Err(DataError::RowTooLarge { path: path.to_owned(), line: row_index + 1 });
                }
            }
            visit(&Row { row_index, cells })?;
            row_index += 1;
        }
    }
    Ok(row_index)
}

/// All columns of all rows, batch by batch.
///
/// # Errors
/// A file that cannot be read, is damaged, or means to mislead.
pub fn batches(path: &Path) -> Result<impl Iterator<Item = Result<RecordBatch, DataError>>, DataError> {
    let builder = open(path)?;
    let all: Vec<usize> = (0..builder.schema().fields().len()).collect();
    let file = File::open(path).map_err(|error| DataError::io(path, error))?;
    parquet_guard::check_pages(&file, builder.metadata(), &all).map_err(|what| parquet_error(path, what))?;
    let mut reader = guarded(path, || builder.with_batch_size(BATCH_ROWS).build())?;
    Ok(std::iter::from_fn(move || guarded(path, || reader.next().transpose()).transpose()))
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, DataError> {
    let file = File::open(path).map_err(|error| DataError::io(path, error))?;
    parquet_guard::check_footer(&file).map_err(|what| parquet_error(path, what))?;
    guarded(path, || ParquetRecordBatchReaderBuilder::try_new(file))
}

/// The same with its texts as views into the pages: a short file in which one long text stands for thousands of rows (a dictionary)
/// then takes the memory of that one text.
fn open_as_views(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, DataError> {
    let file = File::open(path).map_err(|error| DataError::io(path, error))?;
    parquet_guard::check_footer(&file).map_err(|what| parquet_error(path, what))?;
    guarded(path, || {
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
        let as_view = |field: &Arc<ArrowField>| match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
            _ => field.clone(),
        };
        let fields: Vec<_> = metadata.schema().fields().iter().map(as_view).collect();
        let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
        let metadata = ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)?;
        Ok::<_, parquet::errors::ParquetError>(ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata))
    })
}

/// Runs a piece of the Parquet reader. Its errors become ours, and so do its panics: the reader trusts some lengths and
/// offsets that a damaged file can get wrong, and a bad file must not look like a bug of this program.
pub(super) fn guarded<T, E: std::fmt::Display>(
    path: &Path,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, DataError> {
    match catch_quietly(work) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(parquet_error(path, error.to_string())),
        Err(()) => Err(parquet_error(path, "the reader stumbled over damaged data".to_owned())),
    }
}

fn parquet_error(path: &Path, problem: String) -> DataError {
    let mut start = Vec::new();
    let looked = File::open(path).and_then(|file| file.take(LFS_POINTER.len() as u64).read_to_end(&mut start));
    let is_lfs_pointer = looked.is_ok() && start == LFS_POINTER;
    DataError::Parquet { path: path.to_owned(), problem, is_lfs_pointer }
}

/// Checks presence and type of every wanted column; returns their positions among the top-level columns.
fn check_columns(path: &Path, schema: &Schema, columns: &Columns) -> Result<Vec<usize>, DataError> {
    let mut roots = Vec::new();
    for (field, column) in columns.by_field() {
        let Some(column) = column else { continue };
        let Some((position, found)) = schema.fields().iter().enumerate().find(|(_, known)| known.name() == column)
        else {
            let available: Vec<String> = schema.fields().iter().map(|known| known.name().clone()).collect();
            return Err(DataError::missing_column(path, field, &[column], &available));
        };
        if !is_readable_as_text(field, found.data_type()) {
            return Err(DataError::ColumnType {
                path: path.to_owned(),
                key: field.key(),
                column: column.to_owned(),
                found: found.data_type().to_string(),
                line: None,
            });
        }
        roots.push(position);
    }
    Ok(roots)
}

fn is_readable_as_text(field: Field, data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, values) => is_readable_as_text(field, values),
        DataType::Boolean => field.takes_numbers(),
        other => field.takes_numbers() && other.is_integer(),
    }
}

/// The wanted columns of one batch as text, in the order of [`Field::ALL`].
struct Texts {
    num_rows: usize,
    columns: [Option<StringViewArray>; NUM_FIELDS],
}

fn next_batch(
    path: &Path,
    reader: &mut ParquetRecordBatchReader,
    columns: &Columns,
) -> Result<Option<Texts>, DataError> {
    guarded(path, || match reader.next() {
        Some(batch) => batch.and_then(|batch| texts(&batch, columns)).map(Some),
        None => Ok(None),
    })
}

fn texts(batch: &RecordBatch, columns: &Columns) -> Result<Texts, arrow::error::ArrowError> {
    let mut arrays: [Option<StringViewArray>; NUM_FIELDS] = Default::default();
    for (array, (_, column)) in arrays.iter_mut().zip(columns.by_field()) {
        let Some(values) = column.and_then(|column| batch.column_by_name(column)) else { continue };
        // Every spelling of text becomes a view: one code path below, and no copy of long texts.
        let as_text = match values.data_type() {
            DataType::Null => new_null_array(&DataType::Utf8View, values.len()),
            _ => cast(values, &DataType::Utf8View)?,
        };
        *array = as_text.as_string_view_opt().cloned();
    }
    Ok(Texts { num_rows: batch.num_rows(), columns: arrays })
}

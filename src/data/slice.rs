//! A source cut down to some of its languages: the same rows with all their columns, in the same format, under the same names.
//! Knows which rows stay; changes nothing in a row.

use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use csv::{ByteRecord, WriterBuilder};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::columns::{ColumnMap, Field};
use super::error::DataError;
use super::language::LanguageMatch;
use super::source::{Format, Source, open_after_bom};
use super::{csv_file, parquet_file, read};

const ZSTD_LEVEL: i32 = 9;

/// What a cut left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// What each query was resolved to.
    pub languages: Vec<LanguageMatch>,
    /// Rows of the source.
    pub num_rows_read: u64,
    /// Rows that stayed.
    pub num_rows: u64,
    /// The files written, in `to`.
    pub files: Vec<PathBuf>,
}

/// Writes the rows of `paths` (one source, or several Parquet files of one) that are in one of `languages` into the folder `to`, which
/// must be there. A file without such rows is not written. The same source gives the same bytes.
///
/// # Errors
/// Any [`DataError`]: a source that cannot be read or says no languages, a query that no language fits.
pub fn slice(paths: &[PathBuf], map: Option<&ColumnMap>, languages: &[String], to: &Path) -> Result<Slice, DataError> {
    let source = Source::over(paths)?;
    let available = source.column_names()?;
    let columns = source.resolve(map, &available)?;
    let find = |query: &String| read::find_language(&source, &columns, query, available.clone());
    let languages = languages.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    // By row of the source; rows that are no rows, such as blank lines, stay out.
    let mut keep: Vec<bool> = Vec::new();
    let mut num_rows = 0;
    let columns = columns.only(&[Field::Language, Field::LanguageCode]);
    let num_rows_read = source.scan(&columns, &mut |row| {
        let [_, _, name, code, _, _] = row.cells;
        let wanted =
            languages.iter().any(|language| language.contains(read::named(name, code), code.unwrap_or_default()));
        keep.resize(usize::try_from(row.row_index).unwrap_or(usize::MAX), false);
        keep.push(wanted);
        num_rows += u64::from(wanted);
        Ok(())
    })?;
    let mut files = Vec::new();
    let mut rows = keep.into_iter();
    for file in source.files() {
        let target = to.join(file.file_name().unwrap_or_default());
        let kept = match source.format() {
            Format::Parquet => parquet(file, &mut rows, &target)?,
            Format::JsonLines => json_lines(file, &mut rows, &target)?,
            Format::Separated(separator) => separated(file, separator, &mut rows, &target)?,
        };
        if kept {
            files.push(target);
        }
    }
    Ok(Slice { languages, num_rows_read, num_rows, files })
}

/// Takes the flags of one file's rows from `keep`; whether any row stayed, and so the file was written.
fn parquet(from: &Path, keep: &mut impl Iterator<Item = bool>, to: &Path) -> Result<bool, DataError> {
    let mut writer = None;
    for batch in parquet_file::batches(from)? {
        let batch = batch?;
        let flags: Vec<bool> = keep.take(batch.num_rows()).collect();
        let kept = parquet_file::guarded(from, || filter_record_batch(&batch, &BooleanArray::from(flags)))?;
        if kept.num_rows() == 0 {
            continue;
        }
        if writer.is_none() {
            let file = File::create(to).map_err(|error| DataError::io(to, error))?;
            let level = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
            let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
            let new = parquet_file::guarded(to, || ArrowWriter::try_new(file, batch.schema(), Some(properties)))?;
            writer = Some(new);
        }
        if let Some(writer) = &mut writer {
            parquet_file::guarded(to, || writer.write(&kept))?;
        }
    }
    match writer {
        Some(writer) => parquet_file::guarded(to, || writer.close()).map(|_| true),
        None => Ok(false),
    }
}

fn json_lines(from: &Path, keep: &mut impl Iterator<Item = bool>, to: &Path) -> Result<bool, DataError> {
    let mut reader = open_after_bom(from)?;
    let mut out = BufWriter::new(File::create(to).map_err(|error| DataError::io(to, error))?);
    let mut line = Vec::new();
    let mut any = false;
    while reader.read_until(b'\n', &mut line).map_err(|error| DataError::io(from, error))? > 0 {
        if keep.next() == Some(true) {
            any = true;
            let end = if line.ends_with(b"\n") { &b""[..] } else { b"\n" };
            out.write_all(&line).and_then(|()| out.write_all(end)).map_err(|error| DataError::io(to, error))?;
        }
        line.clear();
    }
    out.flush().map_err(|error| DataError::io(to, error))?;
    Ok(any)
}

fn separated(from: &Path, separator: u8, keep: &mut impl Iterator<Item = bool>, to: &Path) -> Result<bool, DataError> {
    let mut reader = csv_file::open(from, separator)?;
    let file = File::create(to).map_err(|error| DataError::io(to, error))?;
    let mut writer = WriterBuilder::new().delimiter(separator).from_writer(file);
    let failed = |error: csv::Error| csv_file::csv_error(from, separator, &error);
    writer.write_byte_record(reader.byte_headers().map_err(failed)?).map_err(failed)?;
    let mut record = ByteRecord::new();
    let mut any = false;
    while reader.read_byte_record(&mut record).map_err(failed)? {
        if keep.next() == Some(true) {
            any = true;
            writer.write_byte_record(&record).map_err(failed)?;
        }
    }
    writer.flush().map_err(|error| DataError::io(to, error))?;
    Ok(any)
}

//! What a path stands for: which files, in which format, with which hash.
//! Knows names, extensions and first bytes; leaves what is inside to the reader of each format.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::columns::{ColumnMap, Columns, Row, Visit};
use super::error::DataError;
use super::{SourceFile, csv_file, jsonl_file, parquet_file};

/// The first four bytes of every Parquet file.
const PARQUET_MAGIC: &[u8; 4] = b"PAR1";
/// The byte order mark that some programs write before UTF-8 text.
const BOM: &[u8; 3] = b"\xEF\xBB\xBF";
/// Bytes of the longest row taken. The longest of Aya are under a megabyte; what is longer is a quote or a line end that is missing.
pub(super) const MAX_ROW_BYTES: usize = 64 << 20;
/// Bytes hashed at a time.
const HASH_CHUNK_BYTES: usize = 1 << 16;
/// File names that start with one of these words say which split they belong to.
const SPLIT_WORDS: [&str; 7] = ["train", "test", "validation", "valid", "val", "dev", "eval"];

/// How the rows of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Parquet,
    JsonLines,
    Separated(u8),
}

/// The files behind a path, in reading order; never empty.
pub(super) struct Source {
    path: PathBuf,
    format: Format,
    files: Vec<PathBuf>,
}

impl Source {
    /// Looks at the path: a file of a known format, or a directory that holds `*.parquet` files of one split.
    pub(super) fn open(path: &Path) -> Result<Source, DataError> {
        let metadata = std::fs::metadata(path).map_err(|error| DataError::io(path, error))?;
        if metadata.is_dir() {
            let files = parquet_files(path)?;
            return Ok(Source { path: path.to_owned(), format: Format::Parquet, files });
        }
        Ok(Source { path: path.to_owned(), format: format_of(path)?, files: vec![path.to_owned()] })
    }

    /// One path as [`Source::open`] takes it, or several Parquet files that make one table.
    pub(super) fn over(paths: &[PathBuf]) -> Result<Source, DataError> {
        match paths {
            [path] => Self::open(path),
            [first, ..] if paths.iter().all(|path| format_of(path).is_ok_and(|format| format == Format::Parquet)) => {
                Ok(Source { path: first.clone(), format: Format::Parquet, files: paths.to_vec() })
            }
            _ => Err(DataError::EmptyDirectory { path: paths.first().cloned().unwrap_or_default() }),
        }
    }

    /// The columns of the first file; the others must have those that are used.
    pub(super) fn column_names(&self) -> Result<Vec<String>, DataError> {
        let Some(first) = self.files.first() else { return Ok(Vec::new()) };
        match self.format {
            Format::Parquet => parquet_file::column_names(first),
            Format::JsonLines => jsonl_file::column_names(first),
            Format::Separated(separator) => csv_file::column_names(first, separator),
        }
    }

    /// Finds the fields among `available`, which [`Source::column_names`] gave.
    pub(super) fn resolve(&self, map: Option<&ColumnMap>, available: &[String]) -> Result<Columns, DataError> {
        Columns::resolve(&self.path, map, available)
    }

    /// Calls `visit` for every row of every file and returns how many there were.
    pub(super) fn scan(&self, columns: &Columns, visit: &mut Visit<'_>) -> Result<u64, DataError> {
        let mut num_rows = 0;
        for file in &self.files {
            let first_row = num_rows;
            let mut shifted = |row: &Row<'_>| visit(&Row { row_index: first_row + row.row_index, cells: row.cells });
            num_rows += match self.format {
                Format::Parquet => parquet_file::scan(file, columns, &mut shifted),
                Format::JsonLines => jsonl_file::scan(file, columns, &mut shifted),
                Format::Separated(separator) => csv_file::scan(file, separator, columns, &mut shifted),
            }?;
        }
        Ok(num_rows)
    }

    /// Path, size and SHA-256 (see [`SourceFile::sha256`] for a directory), reading each file in small pieces.
    pub(super) fn describe(&self) -> Result<SourceFile, DataError> {
        let mut size_bytes: u64 = 0;
        let mut last = String::new();
        let mut listing = Sha256::new();
        for file in &self.files {
            let (file_size, sha256) = hash_file(file)?;
            size_bytes = size_bytes.saturating_add(file_size);
            listing.update(sha256.as_bytes());
            listing.update(b"  ");
            listing.update(file.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default());
            listing.update(b"\n");
            last = sha256;
        }
        let is_single_file = self.files.first() == Some(&self.path);
        let sha256 = if is_single_file { last } else { hex(&listing.finalize()) };
        Ok(SourceFile { path: self.path.clone(), size_bytes, sha256 })
    }

    /// The files, in reading order.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// How they are written.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// The path as the user gave it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that gives no more than one row's worth of bytes until it is told that a row begins: past that its error is
/// [`ErrorKind::FileTooLarge`], before memory is.
pub(super) struct RowLimit {
    file: File,
    left: usize,
}

impl RowLimit {
    pub(super) fn begin_row(&mut self) {
        self.left = MAX_ROW_BYTES;
    }
}

impl Read for RowLimit {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(self.left);
        let read = self.file.read(buffer.get_mut(..most).unwrap_or_default())?;
        if read == 0 && self.left == 0 && !buffer.is_empty() {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.left -= read;
        Ok(read)
    }
}

/// Opens a text file behind its byte order mark, if it starts with one.
pub(super) fn open_after_bom(path: &Path) -> Result<BufReader<RowLimit>, DataError> {
    let mut file = File::open(path).map_err(|error| DataError::io(path, error))?;
    let start = first_bytes(&mut file, BOM.len()).map_err(|error| DataError::io(path, error))?;
    let skip = if start == BOM { BOM.len() as u64 } else { 0 };
    file.seek(SeekFrom::Start(skip)).map_err(|error| DataError::io(path, error))?;
    Ok(BufReader::new(RowLimit { file, left: MAX_ROW_BYTES }))
}

fn first_bytes(file: &mut File, num_bytes: usize) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(num_bytes);
    file.take(num_bytes as u64).read_to_end(&mut start)?;
    Ok(start)
}

fn format_of(path: &Path) -> Result<Format, DataError> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("parquet" | "pq") => return Ok(Format::Parquet),
        Some("jsonl" | "ndjson" | "json") => return Ok(Format::JsonLines),
        Some("csv") => return Ok(Format::Separated(b',')),
        Some("tsv") => return Ok(Format::Separated(b'\t')),
        _ => {}
    }
    let mut file = File::open(path).map_err(|error| DataError::io(path, error))?;
    let start = first_bytes(&mut file, PARQUET_MAGIC.len()).map_err(|error| DataError::io(path, error))?;
    if start == PARQUET_MAGIC {
        return Ok(Format::Parquet);
    }
    Err(DataError::UnsupportedFormat { path: path.to_owned(), extension })
}

/// The `*.parquet` files of a directory, sorted by name. Files of several splits are refused: a test split that slips into
/// training data is worse than an error.
fn parquet_files(directory: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| DataError::io(directory, error))? {
        let path = entry.map_err(|error| DataError::io(directory, error))?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(DataError::EmptyDirectory { path: directory.to_owned() });
    }
    let mut splits: Vec<String> = files.iter().filter_map(|file| split_of(file)).collect();
    splits.sort();
    splits.dedup();
    if splits.len() > 1 {
        return Err(DataError::MixedSplits { path: directory.to_owned(), splits });
    }
    Ok(files)
}

fn split_of(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_string_lossy().to_lowercase();
    let word: String = name.chars().take_while(char::is_ascii_alphabetic).collect();
    SPLIT_WORDS.contains(&word.as_str()).then_some(word)
}

fn hash_file(path: &Path) -> Result<(u64, String), DataError> {
    let mut file = File::open(path).map_err(|error| DataError::io(path, error))?;
    let mut hasher = Sha256::new();
    let mut size_bytes: u64 = 0;
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    loop {
        let num_bytes = file.read(&mut chunk).map_err(|error| DataError::io(path, error))?;
        let Some(read) = chunk.get(..num_bytes).filter(|read| !read.is_empty()) else { break };
        hasher.update(read);
        size_bytes = size_bytes.saturating_add(num_bytes as u64);
    }
    Ok((size_bytes, hex(&hasher.finalize())))
}

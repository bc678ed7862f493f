//! A look at a Parquet file's own headers before its reader believes them: what would take hours or gigabytes is refused first.
//! Knows Thrift's compact protocol as far as skipping it, and where pages lie; reads no value.
//! (Layout: Apache Parquet, parquet.thrift; Apache Thrift, compact protocol specification.)

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use parquet::file::metadata::ParquetMetaData;

/// A page holds a megabyte or so; one long text makes one larger.
const MAX_PAGE_BYTES: u64 = 512 << 20;
/// Rows that a prompt table has at most: of nulls alone, 20 bytes can stand for billions.
const MAX_ROWS: i64 = 50_000_000;
/// Structures within structures, of which Parquet needs six.
const MAX_DEPTH: usize = 16;
/// Length and magic at a file's end.
const TAIL_BYTES: u64 = 8;

/// Types of the compact protocol.
const STOP: u8 = 0;
const BOOLEANS: [u8; 2] = [1, 2];
const BYTE: u8 = 3;
const VARINTS: [u8; 3] = [4, 5, 6];
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LISTS: [u8; 2] = [9, 10];
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// What the walk ran into; anything but [`Trouble::Hostile`] is left to the reader, whose errors are better.
enum Trouble {
    Hostile(String),
    NotThrift,
}

impl From<std::io::Error> for Trouble {
    fn from(_: std::io::Error) -> Self {
        Self::NotThrift
    }
}

fn hostile<T>(what: &str) -> Result<T, Trouble> {
    Err(Trouble::Hostile(what.to_owned()))
}

/// A structure being skipped.
struct Walk<R> {
    reader: R,
    /// Bytes that the structure may have.
    left: u64,
}

impl<R: BufRead> Walk<R> {
    fn byte(&mut self) -> Result<u8, Trouble> {
        let mut byte = [0];
        self.left = self.left.checked_sub(1).ok_or(Trouble::NotThrift)?;
        self.reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> Result<u64, Trouble> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Trouble::NotThrift)
    }

    fn skip_bytes(&mut self, count: u64) -> Result<(), Trouble> {
        self.left = self.left.checked_sub(count).ok_or(Trouble::NotThrift)?;
        let skipped = std::io::copy(&mut self.reader.by_ref().take(count), &mut std::io::sink())?;
        if skipped == count { Ok(()) } else { Err(Trouble::NotThrift) }
    }

    /// Skips a structure; gives the first fields that are whole numbers, by field number.
    fn structure(&mut self, depth: usize) -> Result<[i64; 4], Trouble> {
        if depth > MAX_DEPTH {
            return hostile("structures lie too deep within one another");
        }
        let (mut number, mut found) = (0i64, [0; 4]);
        loop {
            let head = self.byte()?;
            let kind = head & 0x0f;
            if kind == STOP {
                return Ok(found);
            }
            number = match head >> 4 {
                0 => unzigzag(self.varint()?),
                delta => number.saturating_add(i64::from(delta)),
            };
            if VARINTS.contains(&kind) {
                let value = unzigzag(self.varint()?);
                if let Some(field) = usize::try_from(number).ok().and_then(|at| found.get_mut(at)) {
                    *field = value;
                }
            } else {
                self.value(kind, depth)?;
            }
        }
    }

    /// Skips a value that stands in a field.
    fn value(&mut self, kind: u8, depth: usize) -> Result<(), Trouble> {
        match kind {
            _ if BOOLEANS.contains(&kind) => Ok(()),
            _ if VARINTS.contains(&kind) => self.varint().map(drop),
            BYTE => self.byte().map(drop),
            DOUBLE => self.skip_bytes(8),
            BINARY => {
                let length = self.varint()?;
                self.skip_bytes(length)
            }
            STRUCT => self.structure(depth + 1).map(drop),
            _ if LISTS.contains(&kind) => self.list(depth),
            // The reader skips billions of these where the file has ended already.
            MAP | UUID => hostile("a map or a UUID stands in a header, and Parquet has none such"),
            _ => Err(Trouble::NotThrift),
        }
    }

    fn list(&mut self, depth: usize) -> Result<(), Trouble> {
        let head = self.byte()?;
        let (kind, short) = (head & 0x0f, head >> 4);
        let length = if short == 15 { self.varint()? } else { u64::from(short) };
        // No list of a file's metadata is one of booleans or of nothing, of which billions could take no byte.
        if (kind == STOP || BOOLEANS.contains(&kind)) && length > 0 {
            return hostile("a list stands there whose items take no bytes, and Parquet has none such");
        }
        let least = if kind == DOUBLE { 8 } else { 1 };
        if length > self.left / least {
            return hostile("a list claims more items than there are bytes");
        }
        (0..length).try_for_each(|_| self.value(kind, depth + 1))
    }
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn told<T>(walked: Result<T, Trouble>) -> Result<Option<T>, String> {
    match walked {
        Ok(value) => Ok(Some(value)),
        Err(Trouble::NotThrift) => Ok(None),
        Err(Trouble::Hostile(what)) => Err(what),
    }
}

/// Looks at the metadata at the file's end, before they are parsed.
///
/// # Errors
/// What is wrong, in words. A file that is none of Parquet's is not judged here.
pub(super) fn check_footer(file: &File) -> Result<(), String> {
    told(walk_footer(file)).map(drop)
}

fn walk_footer(mut file: &File) -> Result<(), Trouble> {
    let length = file.metadata()?.len();
    let mut tail = [0; 4];
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    file.read_exact(&mut tail)?;
    let size = u64::from(u32::from_le_bytes(tail));
    let start = length.checked_sub(size + TAIL_BYTES).ok_or(Trouble::NotThrift)?;
    file.seek(SeekFrom::Start(start))?;
    Walk { reader: BufReader::new(file), left: size }.structure(0).map(drop)
}

/// Looks at the headers of all pages of these top-level columns.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn check_pages(file: &File, metadata: &ParquetMetaData, roots: &[usize]) -> Result<(), String> {
    let num_rows = metadata.file_metadata().num_rows();
    let in_groups = metadata.row_groups().iter().fold(0i64, |sum, group| sum.saturating_add(group.num_rows().max(0)));
    if num_rows.max(in_groups) > MAX_ROWS {
        return Err(format!("it claims {} rows, want at most {MAX_ROWS}", num_rows.max(in_groups)));
    }
    let schema = metadata.file_metadata().schema_descr();
    for group in metadata.row_groups() {
        for (at, column) in group.columns().iter().enumerate() {
            if at >= schema.num_columns() || !roots.contains(&schema.get_column_root_idx(at)) {
                continue;
            }
            let first = [column.dictionary_page_offset().unwrap_or(0), column.data_page_offset()];
            let first = first.into_iter().filter(|offset| *offset > 0).min().unwrap_or(0);
            let length = u64::try_from(column.compressed_size()).unwrap_or(0);
            told(walk_pages(file, u64::try_from(first).unwrap_or(0), length))?;
        }
    }
    Ok(())
}

fn walk_pages(mut file: &File, start: u64, length: u64) -> Result<(), Trouble> {
    file.seek(SeekFrom::Start(start))?;
    // The reader follows a header past its column's end, and so does this.
    let behind = file.metadata()?.len().saturating_sub(start);
    let end = behind.saturating_sub(length);
    let mut walk = Walk { reader: BufReader::new(file), left: behind };
    while walk.left > end {
        let [_, _, unpacked, packed] = walk.structure(0)?;
        let [unpacked, packed] = [unpacked, packed].map(u64::try_from);
        let (Ok(unpacked), Ok(packed)) = (unpacked, packed) else { return hostile("a page has a size below 0") };
        if unpacked > MAX_PAGE_BYTES {
            return hostile(&format!("a page claims {unpacked} bytes unpacked, want at most {MAX_PAGE_BYTES}"));
        }
        walk.skip_page(packed)?;
    }
    Ok(())
}

impl Walk<BufReader<&File>> {
    fn skip_page(&mut self, count: u64) -> Result<(), Trouble> {
        self.left = self.left.checked_sub(count).ok_or(Trouble::NotThrift)?;
        self.reader.seek_relative(i64::try_from(count).map_err(|_| Trouble::NotThrift)?)?;
        Ok(())
    }
}

//! A long file cut into parts (`x.tar.000`, `x.tar.001`, …) or whole, read and written as one: `cat x.tar.??? > x.tar` joins them.
//! Knows names and lengths; nothing of what is in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::BundleError;
use super::error::io_error;

/// Most parts: their numbers have three digits.
pub const MAX_PARTS: u64 = 1000;

/// The name of part `index` of `whole`.
pub(super) fn part_path(whole: &Path, index: u64) -> PathBuf {
    let mut name = whole.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{index:03}"));
    whole.with_file_name(name)
}

/// The name of the list of the parts' sums.
pub(super) fn sums_path(whole: &Path) -> PathBuf {
    let mut name = whole.file_name().unwrap_or_default().to_owned();
    name.push(".sha256");
    whole.with_file_name(name)
}

/// The parts of a file in order, with their lengths.
#[derive(Debug)]
pub(super) struct Parts {
    parts: Vec<(PathBuf, u64)>,
    /// Which part is open, and where in it reading goes on.
    open: Option<(usize, File, u64)>,
    at: u64,
}

impl Parts {
    /// The file at `path`, or the set that it is the first part of, or whose name it is without the number.
    pub(super) fn find(path: &Path) -> Result<Self, BundleError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_number = |text: &str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let whole = match name.rsplit_once('.') {
            Some((whole, number)) if is_number(number) => path.with_file_name(whole),
            _ if path.exists() => return Self::over(vec![path.to_owned()]),
            _ => path.to_owned(),
        };
        let parts: Vec<PathBuf> =
            (0..MAX_PARTS).map(|index| part_path(&whole, index)).take_while(|part| part.exists()).collect();
        if parts.is_empty() {
            let (path, what) = (path.to_owned(), "there is no such file or folder, and no part .000 of it".to_owned());
            return Err(BundleError::NotABundle { path, what });
        }
        Self::over(parts)
    }

    fn over(paths: Vec<PathBuf>) -> Result<Self, BundleError> {
        let sized = |path: PathBuf| match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok((path, metadata.len())),
            Ok(_) => Err(BundleError::NotABundle { path, what: "it is no plain file".to_owned() }),
            Err(source) => Err(BundleError::Io { action: "read", path, source }),
        };
        Ok(Self { parts: paths.into_iter().map(sized).collect::<Result<_, _>>()?, open: None, at: 0 })
    }

    /// Bytes of all parts.
    pub(super) fn len(&self) -> u64 {
        self.parts.iter().fold(0, |sum, (_, size)| sum.saturating_add(*size))
    }

    /// Goes on reading at `at`.
    pub(super) fn seek_to(&mut self, at: u64) {
        self.at = at;
    }

    /// The names of the parts that hold bytes `from` to `to`.
    pub(super) fn names(&self, from: u64, to: u64) -> String {
        let mut start = 0;
        let mut names = Vec::new();
        for (path, size) in &self.parts {
            if start < to && start + size > from {
                names.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            }
            start += size;
        }
        names.join(" and ")
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.parts.len()
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut start = 0;
        let holds = |(_, size): &(PathBuf, u64)| {
            let is_here = self.at < start + size;
            start += if is_here { 0 } else { *size };
            is_here
        };
        let Some(index) = self.parts.iter().position(holds) else { return Ok(0) };
        let (path, size) = &self.parts[index];
        let inside = self.at - start;
        if self.open.as_ref().is_none_or(|(open, ..)| *open != index) {
            self.open = Some((index, File::open(path)?, 0));
        }
        let Some((_, file, place)) = &mut self.open else { return Ok(0) };
        if *place != inside {
            *place = file.seek(SeekFrom::Start(inside))?;
        }
        let room = buffer.len().min(usize::try_from(size - inside).unwrap_or(usize::MAX));
        let count = file.read(buffer.get_mut(..room).unwrap_or_default())?;
        *place += count as u64;
        self.at += count as u64;
        Ok(count)
    }
}

/// Writes a file of known length in parts.
pub(super) struct PartWriter {
    whole: PathBuf,
    /// Bytes of each part but the last; `None`: it is not cut.
    part_bytes: Option<u64>,
    open: Option<(u64, File)>,
    at: u64,
}

impl PartWriter {
    /// A writer at the start of `whole`.
    pub(super) fn new(whole: &Path, part_bytes: Option<u64>) -> Self {
        Self { whole: whole.to_owned(), part_bytes, open: None, at: 0 }
    }

    fn path(&self, index: u64) -> PathBuf {
        if self.part_bytes.is_some() { part_path(&self.whole, index) } else { self.whole.clone() }
    }

    /// Goes on writing at `at`.
    pub(super) fn seek_to(&mut self, at: u64) -> Result<(), BundleError> {
        self.close()?;
        self.at = at;
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn close(&mut self) -> Result<(), BundleError> {
        match self.open.take() {
            Some((index, file)) => file.sync_all().map_err(io_error("write", &self.path(index))),
            None => Ok(()),
        }
    }

    /// The parts that `length` bytes make, in order.
    pub(super) fn paths(&self, length: u64) -> Vec<PathBuf> {
        let count = self.part_bytes.map_or(1, |bytes| length.div_ceil(bytes));
        (0..count).map(|index| self.path(index)).collect()
    }
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (index, inside) = self.part_bytes.map_or((0, self.at), |part| (self.at / part, self.at % part));
        if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
            if let Some((_, file)) = self.open.take() {
                file.sync_all()?;
            }
            let path = self.path(index);
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            file.seek(SeekFrom::Start(inside))?;
            self.open = Some((index, file));
        }
        let Some((_, file)) = &mut self.open else { return Ok(0) };
        let room = self.part_bytes.map_or(u64::MAX, |part| part - inside);
        let count = file.write(bytes.get(..usize::try_from(room).unwrap_or(usize::MAX)).unwrap_or(bytes))?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

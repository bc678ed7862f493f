//! A cursor over a file's bytes that never reads past their end and never believes a count before it fits.
//! Knows little-endian numbers and length-prefixed strings.

use super::error::Fault;

/// See the module's text.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| {
            let (at, size) = (self.at, self.bytes.len());
            Fault::damaged(format!("its header ends at byte {size}, in the middle of a field of {len} bytes at {at}"))
        })?;
        self.at += len;
        Ok(taken)
    }

    pub(super) fn skip(&mut self, len: usize) -> Result<(), Fault> {
        self.take(len).map(drop)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least `min_bytes` each, so that more than fit are refused before any is read.
    pub(super) fn count(&mut self, min_bytes: usize, what: &str) -> Result<usize, Fault> {
        let count = self.u64()?;
        let room = self.left() / min_bytes;
        usize::try_from(count).ok().filter(|count| *count <= room).ok_or_else(|| {
            Fault::damaged(format!("it counts {count} {what}, and what is left of the file holds {room} at most"))
        })
    }

    /// Where a length-prefixed string lies: start and length in bytes.
    pub(super) fn string_range(&mut self, what: &str) -> Result<(usize, usize), Fault> {
        let len = self.u64()?;
        let left = self.left();
        let len = usize::try_from(len).ok().filter(|len| *len <= left).ok_or_else(|| {
            Fault::damaged(format!("{what} is a string of {len} bytes, and {left} bytes are left of the file"))
        })?;
        let start = self.at;
        self.skip(len)?;
        Ok((start, len))
    }

    /// A length-prefixed name of at most `max_len` bytes.
    pub(super) fn name(&mut self, max_len: usize, what: &str) -> Result<&'a str, Fault> {
        let (start, len) = self.string_range(what)?;
        if len > max_len {
            return Err(Fault::damaged(format!("{what} has {len} bytes, want at most {max_len}")));
        }
        let bytes = self.bytes.get(start..start + len).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| Fault::damaged(format!("{what} is not UTF-8")))
    }
}

//! The one form that a bundle's tar has. From a manifest alone follow every header, every place and the length: a reader computes them
//! and wants the same bytes, so that nothing else (links, devices, paths that lead elsewhere, a second file of a name, other orders,
//! anything behind the end) can be in it.
//! Knows headers and places, no disk. The `tar` crate reads all that was ever called tar, sparse files and GNU's and POSIX's extensions
//! among it: each would have to be refused by itself, and its headers would have to be compared all the same.

use super::manifest::{MANIFEST_FILE, Manifest, SUMS_FILE};

/// Headers and padding come in such blocks.
pub(super) const BLOCK: u64 = 512;
/// The folder that all paths in the tar begin with, so that unpacking makes one folder.
pub(super) const ROOT: &str = "bundle/";
/// Bytes of the name field, and of the one that holds what stands before it.
const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
/// A size from here on is written in binary, as GNU tar, BSD's and Python read it.
const OCTAL_LIMIT: u64 = 1 << 33;
/// Zero blocks at the end.
const END_BLOCKS: u64 = 2;

/// A file's place in the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Path in the bundle.
    pub(super) path: String,
    /// Where its header begins; the content follows it.
    pub(super) header_at: u64,
    /// Bytes of the content.
    pub(super) size_bytes: u64,
}

impl Place {
    /// Where its content begins.
    pub(super) fn content_at(&self) -> u64 {
        self.header_at + BLOCK
    }

    /// Its header's bytes.
    pub(super) fn header(&self) -> Option<[u8; BLOCK as usize]> {
        header(&self.path, self.size_bytes)
    }

    /// Zeros after its content.
    pub(super) fn padding(&self) -> u64 {
        self.size_bytes.next_multiple_of(BLOCK) - self.size_bytes
    }

    fn end(&self) -> u64 {
        self.content_at() + self.size_bytes + self.padding()
    }
}

/// The place of each file: the manifest, the sums, then the manifest's files in their order. Sums and manifest have the same length
/// whatever the hashes in them are, so that places are known before any file is read.
pub(super) fn places(manifest: &Manifest, manifest_bytes: &[u8]) -> Vec<Place> {
    let sums_bytes = manifest.sums(manifest_bytes).len() as u64;
    let own = [(MANIFEST_FILE, manifest_bytes.len() as u64), (SUMS_FILE, sums_bytes)];
    let files = manifest.files.iter().map(|file| (file.path.as_str(), file.size_bytes));
    let mut at = 0;
    let place = |(path, size_bytes): (&str, u64)| {
        let place = Place { path: path.to_owned(), header_at: at, size_bytes };
        at = place.end();
        place
    };
    own.into_iter().chain(files).map(place).collect()
}

/// Bytes of the whole tar.
pub(super) fn length(places: &[Place]) -> u64 {
    places.last().map_or(0, Place::end) + END_BLOCKS * BLOCK
}

/// The header of a plain file: mode 644 (755 in `bin`), no owner, no time; `None` if the path does not fit.
fn header(path: &str, size_bytes: u64) -> Option<[u8; BLOCK as usize]> {
    let full = format!("{ROOT}{path}");
    let (prefix, name) = split(&full)?;
    let mode: &[u8] = if path.starts_with("bin/") { b"0000755\0" } else { b"0000644\0" };
    let size = match size_bytes {
        small if small < OCTAL_LIMIT => format!("{small:011o}\0").into_bytes(),
        large => [&[0x80, 0, 0, 0][..], &large.to_be_bytes()].concat(),
    };
    let mut block = [0; BLOCK as usize];
    let mut put = |at: usize, field: &[u8]| {
        if let Some(place) = block.get_mut(at..at + field.len()) {
            place.copy_from_slice(field);
        }
    };
    put(0, name.as_bytes());
    put(100, mode);
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, &size);
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    put(345, prefix.as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    block.get_mut(148..156)?.copy_from_slice(sum.as_bytes());
    Some(block)
}

/// Cuts a path into what stands before and in the name field: as far to the right as fits.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= NAME_BYTES {
        return Some(("", path));
    }
    let cuts = path.match_indices('/').map(|(at, _)| at);
    let cut = cuts.rev().find(|at| *at <= PREFIX_BYTES && path.len() - at - 1 <= NAME_BYTES)?;
    Some((path.get(..cut)?, path.get(cut + 1..)?))
}

/// What a header that is not the wanted one says, for the error.
pub(super) fn describe(block: &[u8]) -> String {
    let field = |from: usize, to: usize| {
        let bytes = block.get(from..to).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
    };
    if block.iter().all(|byte| *byte == 0) {
        return "the end".to_owned();
    }
    if field(257, 262) != "ustar" {
        return "no tar header".to_owned();
    }
    let kind = match block.get(156) {
        Some(b'0' | 0) => "the file",
        Some(b'1') => "a hard link",
        Some(b'2') => "a symbolic link",
        Some(b'3' | b'4') => "a device",
        Some(b'5') => "a folder",
        Some(b'6') => "a pipe",
        _ => "an extension",
    };
    let (prefix, name) = (field(345, 500), field(0, 100));
    let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
    format!("{kind} {path:?}")
}

/// The size that a first header states, if it is the manifest's.
pub(super) fn manifest_size(block: &[u8]) -> Option<u64> {
    let size = u64::from_str_radix(std::str::from_utf8(block.get(124..135)?).ok()?, 8).ok()?;
    (header(MANIFEST_FILE, size)?.as_slice() == block).then_some(size)
}

/// Whether a path of a bundle fits into a header.
pub(super) fn fits(path: &str) -> bool {
    header(path, 0).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_and_large_files_have_headers() {
        let long = format!("models/{}/{}", "m".repeat(90), "f".repeat(95));
        let block = header(&long, 5).unwrap();
        assert_eq!(describe(&block), format!("the file {:?}", format!("{ROOT}{long}")));
        assert!(header(&"x".repeat(101), 0).is_none());
        let large = header("a", 40 << 30).unwrap();
        assert_eq!(&large[124..136], [0x80, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0]);
        assert_eq!(manifest_size(&header(MANIFEST_FILE, 1234).unwrap()), Some(1234));
        assert_eq!(manifest_size(&header("other", 1234).unwrap()), None);
    }
}

//! The two hashes that a file has here: SHA-256, and the SHA-1 by which git (and so the hub) names small files.
//! Knows bytes; nothing of which file needs which.

use std::io::{self, Read};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Bytes read at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// What a file's content hashes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Bytes of the content.
    pub size_bytes: u64,
    /// Lower-case hex SHA-256.
    pub sha256: String,
    /// Lower-case hex SHA-1 of git's blob; of what a pointer of Git LFS says where the file is kept so.
    pub blob_id: String,
}

/// Both hashes, as the bytes come.
pub(super) struct Hasher {
    sha256: Sha256,
    git: Option<Sha1>,
    size_bytes: u64,
}

impl Hasher {
    /// For a file of `size_bytes` bytes; `lfs`: git knows its pointer alone.
    pub(super) fn new(size_bytes: u64, lfs: bool) -> Self {
        let git = (!lfs).then(|| Sha1::new_with_prefix(format!("blob {size_bytes}\0")));
        Self { sha256: Sha256::new(), git, size_bytes: 0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
        self.size_bytes += bytes.len() as u64;
    }

    pub(super) fn finish(self) -> Digests {
        let sha256 = hex(&self.sha256.finalize());
        let blob_id = match self.git {
            Some(git) => hex(&git.finalize()),
            None => {
                let size_bytes = self.size_bytes;
                let pointer =
                    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n");
                git_blob(pointer.as_bytes())
            }
        };
        Digests { size_bytes: self.size_bytes, sha256, blob_id }
    }
}

/// Git's name of a blob.
pub(super) fn git_blob(bytes: &[u8]) -> String {
    hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads at most `size_bytes` + 1 bytes of `from`, hashes them, and hands each piece to `write`. A file that is longer than it
/// should be shows in the size.
pub(super) fn copy(
    from: &mut dyn Read,
    size_bytes: u64,
    lfs: bool,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Digests> {
    let mut hasher = Hasher::new(size_bytes, lfs);
    let most = size_bytes.saturating_add(1).min(PIECE_BYTES);
    let mut buffer = vec![0; usize::try_from(most).unwrap_or(1)];
    let mut from = from.take(size_bytes.saturating_add(1));
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => {
                let piece = buffer.get(..count).unwrap_or_default();
                hasher.update(piece);
                write(piece)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two are git's own: `printf 'hello\n' | git hash-object --stdin`, and of the pointer that git-lfs makes of it.
    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        let digests = |lfs| copy(&mut &b"hello\n"[..], 6, lfs, |_| Ok(())).unwrap();
        assert_eq!(digests(false).blob_id, "ce013625030ba8dba906f756967f9e9ca394464a");
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(digests(true).sha256, sha256);
        let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 6\n");
        assert_eq!(digests(true).blob_id, git_blob(pointer.as_bytes()));
        assert_eq!(copy(&mut &b"hello\n"[..], 3, false, |_| Ok(())).unwrap().size_bytes, 4);
    }
}

//! A file's hash as the Hub names it: SHA-256 of what lies in its large-file storage, Git's blob id of all else.
//! Knows bytes; does not know where they come from.

use std::fs::File;
use std::io::{self, Read};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Either hash, as far as bytes have come.
pub(super) enum Hasher {
    /// Of a file in the large-file storage.
    Sha256(Sha256),
    /// Of a file in Git itself.
    GitBlob(Sha1),
}

impl Hasher {
    /// For a large file.
    pub(super) fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }

    /// For a file of `size_bytes` in Git, whose length is part of what is hashed.
    pub(super) fn git_blob(size_bytes: u64) -> Self {
        Self::GitBlob(Sha1::new_with_prefix(format!("blob {size_bytes}\0")))
    }

    /// The next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitBlob(hasher) => hasher.update(bytes),
        }
    }

    /// All that is left in `file`; gives the number of bytes.
    pub(super) fn read(&mut self, file: &mut File) -> io::Result<u64> {
        let mut buffer = vec![0; 1 << 20];
        let mut num_bytes = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(num_bytes),
                Ok(read) => {
                    self.update(buffer.get(..read).unwrap_or_default());
                    num_bytes += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What the hash is called in a message.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "its sha256",
            Self::GitBlob(_) => "its git blob id",
        }
    }

    /// Lower-case hexadecimal digits.
    pub(super) fn finish(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::GitBlob(hasher) => hex(&hasher.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Hasher;

    #[test]
    fn blobs_have_the_ids_that_git_gives_them() {
        // `git hash-object` of an empty file, and of "hello\n".
        assert_eq!(Hasher::git_blob(0).finish(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        let mut hello = Hasher::git_blob(6);
        hello.update(b"hel");
        hello.update(b"lo\n");
        assert_eq!(hello.finish(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}

//! The secret of a run's annotations and what is made from it: links, codes, sessions, tokens of forms, signatures of packs, the seed of
//! sides. Knows bytes and one file; knows nothing of people or requests.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::store::StoreError;
use crate::provenance::{ANNOTATIONS_FOLDER, write_atomic};

/// The secret, inside [`ANNOTATIONS_FOLDER`]. Who has it can read and write as anybody.
const KEY_FILE: &str = "secret.key";
const KEY_BYTES: usize = 32;
/// Digits of a person's code.
pub const CODE_DIGITS: usize = 8;

/// The secret, and which links made from it are valid.
#[derive(Clone)]
pub struct Keys {
    secret: Vec<u8>,
    generation: u32,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the secret of a run, or makes one that only this user can read.
    ///
    /// # Errors
    /// A file that cannot be read or written, or that holds something else.
    pub fn open(run: &Path) -> Result<Self, StoreError> {
        let folder = run.join(ANNOTATIONS_FOLDER);
        std::fs::create_dir_all(&folder).map_err(io("create", &folder))?;
        let path = folder.join(KEY_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).ok_or_else(|| {
                let what = "it holds no key: one line of 64 hexadecimal digits and one with a number";
                io("read", &path)(std::io::Error::new(std::io::ErrorKind::InvalidData, what))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut secret = vec![0u8; KEY_BYTES];
                getrandom::fill(&mut secret).map_err(|error| io("make", &path)(std::io::Error::other(error)))?;
                let keys = Self { secret, generation: 1 };
                create_private(&path, keys.text().as_bytes()).map_err(io("create", &path))?;
                Ok(keys)
            }
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    /// Makes all links, codes and sessions that were given out so far invalid. Packs and sides stay as they are.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn renew_links(&mut self, run: &Path) -> Result<(), StoreError> {
        let path = run.join(ANNOTATIONS_FOLDER).join(KEY_FILE);
        self.generation = self.generation.wrapping_add(1);
        write_atomic(&path, self.text().as_bytes())
            .and_then(|()| make_private(&path))
            .map_err(|error| io("write", &path)(std::io::Error::other(error)))
    }

    fn text(&self) -> String {
        format!("{}\n{}\n", hex(&self.secret), self.generation)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let digits = lines.next().filter(|line| line.len() == 2 * KEY_BYTES && line.is_ascii())?;
        let byte = |at: usize| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok();
        let secret = (0..KEY_BYTES).map(byte).collect::<Option<Vec<u8>>>()?;
        Some(Self { secret, generation: lines.next()?.parse().ok()? })
    }

    /// HMAC-SHA256 (RFC 2104) over the parts, each behind its length, so that no two lists of parts read the same.
    fn mac(&self, parts: &[&str]) -> Vec<u8> {
        // INFALLIBLE: HMAC takes keys of any length (RFC 2104, section 2).
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("a key of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().to_vec()
    }

    /// 32 hexadecimal digits that only who has the secret can make.
    pub fn token(&self, parts: &[&str]) -> String {
        hex(self.mac(parts).get(..16).unwrap_or_default())
    }

    /// 64 of them.
    pub fn signature(&self, parts: &[&str]) -> String {
        hex(&self.mac(parts))
    }

    /// A token of a link, a code or a session, which [`Self::renew_links`] makes invalid.
    pub fn link(&self, parts: &[&str]) -> String {
        let generation = self.generation.to_string();
        self.token(&[&["link", &generation], parts].concat())
    }

    /// A person's code, by which they go on on another device.
    pub fn code(&self, pseudonym: &str) -> String {
        let generation = self.generation.to_string();
        let bytes = self.mac(&["code", &generation, pseudonym]);
        let number = bytes.iter().take(8).fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        format!("{:0width$}", number % 10u64.pow(CODE_DIGITS as u32), width = CODE_DIGITS)
    }

    /// Of which answer stands where, and of all of the queue's draws.
    pub fn seed(&self) -> u64 {
        self.mac(&["seed"]).iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Random hexadecimal digits, two per byte.
///
/// # Errors
/// A system without a source of them.
pub fn random(num_bytes: usize) -> std::io::Result<String> {
    let mut bytes = vec![0u8; num_bytes];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(hex(&bytes))
}

/// Whether two texts are one, in a time that says nothing of where they differ.
pub fn is_same(a: &str, b: &str) -> bool {
    let differs = a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && differs == 0
}

fn create_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn make_private(path: &Path) -> Result<(), crate::provenance::ProvenanceError> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode).map_err(|source| crate::provenance::ProvenanceError::Io {
        action: "protect",
        path: path.to_owned(),
        source,
    })
}

#[cfg(not(unix))]
fn make_private(_path: &Path) -> Result<(), crate::provenance::ProvenanceError> {
    Ok(())
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path: PathBuf = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

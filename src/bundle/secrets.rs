//! What must not travel: files named like keys and tokens, texts that hold something shaped like one, and pickles, which run code.
//! Knows names and shapes; a secret itself is never repeated in a message.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Files that are named so hold secrets.
const NAMES: [&str; 15] = [
    "token",
    "stored_tokens",
    ".netrc",
    "_netrc",
    ".env",
    ".git-credentials",
    "credentials",
    "credentials.json",
    ".pypirc",
    ".npmrc",
    "id_rsa",
    "id_ecdsa",
    "id_ed25519",
    ".htpasswd",
    "kaggle.json",
];
const EXTENSIONS: [&str; 4] = ["pem", "key", "p12", "pfx"];
/// Formats that are, or hold, Python's pickles.
const PICKLES: [&str; 9] = ["bin", "pt", "pth", "pkl", "pickle", "ckpt", "joblib", "npy", "npz"];
/// Formats of numbers, which are not searched for texts.
const NUMBERS: [&str; 4] = ["safetensors", "gguf", "parquet", "pq"];

/// How a token begins, how many letters and digits follow at least, and what it is.
const TOKENS: [(&[u8], usize, &str); 6] = [
    (b"hf_", 30, "a token of the Hugging Face Hub"),
    (b"ghp_", 30, "a token of GitHub"),
    (b"gho_", 30, "a token of GitHub"),
    (b"github_pat_", 22, "a token of GitHub"),
    (b"glpat-", 20, "a token of GitLab"),
    (b"AKIA", 16, "a key of Amazon's cloud"),
];
/// Longest piece that is looked at in one place.
const OVERLAP: usize = 64;

/// Where a secret lies, and what it looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The file.
    pub path: PathBuf,
    /// In words.
    pub what: String,
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.what)
    }
}

/// Whether loading the file can run code: by its name, or by how it begins.
pub(super) fn is_pickle(path: &Path) -> io::Result<bool> {
    if PICKLES.contains(&extension(path).as_str()) {
        return Ok(true);
    }
    let mut start = Vec::new();
    File::open(path)?.take(256).read_to_end(&mut start)?;
    let is_bare = matches!(start.get(..3), Some([0x80, 2..=5, b'}' | b']' | b'c' | 0x95]));
    let is_zipped = start.starts_with(b"PK\x03\x04") && find(&start, b"data.pkl").is_some();
    Ok(is_bare || is_zipped)
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

/// What about the file is secret. Reads texts to their end, weights not at all.
pub(super) fn look(path: &Path) -> io::Result<Option<Secret>> {
    let found = |what: String| Ok(Some(Secret { path: path.to_owned(), what }));
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if NAMES.contains(&name.as_str()) || name.starts_with(".env.") || EXTENSIONS.contains(&extension(path).as_str()) {
        return found("by its name".to_owned());
    }
    if NUMBERS.contains(&extension(path).as_str()) {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    let mut window = vec![b' '];
    let mut piece = vec![0; 1 << 16];
    let mut line = 1;
    loop {
        let count = file.read(&mut piece)?;
        window.extend_from_slice(piece.get(..count).unwrap_or_default());
        if let Some((at, what)) = token_in(&window) {
            let lines = window.get(..at).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
            return found(format!("line {}: {what}", line + lines));
        }
        if count == 0 {
            return Ok(None);
        }
        let keep = window.len().saturating_sub(OVERLAP);
        line += window.drain(..keep).filter(|byte| *byte == b'\n').count();
    }
}

/// Where in `text` a token begins, and what it is. A token that reaches the end is found when more of it is there, or at the end.
fn token_in(text: &[u8]) -> Option<(usize, &'static str)> {
    const KEY: &[u8] = b"-----BEGIN ";
    for at in 1..text.len() {
        if !matches!(text[at], b'h' | b'g' | b'A' | b'-') {
            continue;
        }
        let rest = &text[at..];
        let is_start =
            |(mark, _, _): &&(&[u8], usize, &str)| rest.starts_with(mark) && !text[at - 1].is_ascii_alphanumeric();
        if let Some((mark, count, what)) = TOKENS.iter().find(is_start) {
            let body = rest[mark.len()..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_');
            if body.count() >= *count {
                return Some((at, what));
            }
        }
        if rest.starts_with(KEY) {
            let line = rest.iter().take(OVERLAP - 1).take_while(|byte| **byte != b'\n').copied().collect::<Vec<u8>>();
            if find(&line, b"PRIVATE KEY-----").is_some() {
                return Some((at, "a private key"));
            }
        }
    }
    None
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_keys_are_found_wherever_a_piece_ends() {
        let folder = tempfile::tempdir().unwrap();
        let token = format!("hf_{}", "aB3".repeat(12));
        let look_at = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            look(&path).unwrap().map(|secret| secret.what)
        };
        for before in [0, 1, (1 << 16) - 20, (1 << 16) - 1, 1 << 16, (1 << 17) + 5] {
            let text = format!("{}{token}", "x\n".repeat(before / 2));
            let line = before / 2 + 1;
            let want = format!("line {line}: a token of the Hugging Face Hub");
            assert_eq!(look_at("a.json", &text), Some(want), "{before}");
        }
        let key = "a: |\n  -----BEGIN OPENSSH PRIVATE KEY-----\n";
        assert_eq!(look_at("b.md", key), Some("line 2: a private key".to_owned()));
        assert_eq!(look_at("c.py", "hf_model_name = hf_hub_download(shf_abc)\n-----BEGIN CERTIFICATE-----"), None);
        assert_eq!(look_at("d.txt", &format!("x{token}")), None);
        for name in ["token", ".env", ".env.local", ".netrc", "server.KEY", "id_ed25519"] {
            assert_eq!(look_at(name, ""), Some("by its name".to_owned()), "{name}");
        }
        assert_eq!(look_at("tokenizer.json", "{}"), None);
    }

    #[test]
    fn pickles_are_known_by_name_and_by_content() {
        let folder = tempfile::tempdir().unwrap();
        let pickle = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            is_pickle(&path).unwrap()
        };
        assert!(pickle("pytorch_model.bin", b"") && pickle("a.PTH", b""));
        assert!(pickle("weights", b"\x80\x02}q\x00."));
        assert!(pickle("weights.zip", b"PK\x03\x04 0123456789 archive/data.pkl"));
        assert!(!pickle("config.json", b"{}") && !pickle("a.zip", b"PK\x03\x04 other"));
    }
}

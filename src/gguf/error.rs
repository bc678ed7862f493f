//! What can be wrong with a GGUF file. Knows no recovery.

use std::path::{Path, PathBuf};

/// A GGUF file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{} is not a usable GGUF file: {what}\nhint: {hint}", .path.display())]
pub struct GgufError {
    /// The file.
    pub path: PathBuf,
    /// What was found, and what was expected.
    pub what: String,
    /// What the user can do.
    pub hint: &'static str,
}

/// The hint for damage.
pub(super) const FETCH: &str = "it may be cut short or damaged; copy or download it again";

/// What is wrong, before it is known in which file.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) hint: &'static str,
}

impl Fault {
    /// Damage.
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: FETCH }
    }

    pub(super) fn in_file(self, path: &Path) -> GgufError {
        GgufError { path: path.to_owned(), what: self.what, hint: self.hint }
    }
}

//! The list that a sealed machine writes of what it lacks, and that a connected one reads to make a bundle of it.
//! Knows names; does not look for anything.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::BundleError;
use super::error::io_error;

/// What stands in the field `kind`, so that no other JSON is taken for a list.
const KIND: &str = "pairwright-want";
/// Version of the list's layout.
const FORMAT_VERSION: u32 = 1;
/// Most bytes of a list.
const MAX_BYTES: u64 = 1 << 20;

/// See the module's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Want {
    kind: String,
    format_version: u32,
    /// Version of the tool that wrote it.
    pub tool_version: String,
    /// Hub ids, each perhaps with `@REVISION`.
    pub models: Vec<String>,
    /// Hub ids or names of files.
    pub datasets: Vec<String>,
    /// Languages that datasets may be cut down to; empty: all.
    pub languages: Vec<String>,
    /// The system of the machine that wrote it, for example `x86_64-linux`.
    pub target: String,
    /// Bytes free where it was written, if known: what a bundle may have there.
    pub free_bytes: Option<u64>,
}

impl Want {
    /// A list of these things for a machine of kind `target`.
    pub fn new(models: Vec<String>, datasets: Vec<String>, languages: Vec<String>, target: String) -> Self {
        Self {
            kind: KIND.to_owned(),
            format_version: FORMAT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            models,
            datasets,
            languages,
            target,
            free_bytes: None,
        }
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty() && self.datasets.is_empty()
    }

    /// Reads a list.
    ///
    /// # Errors
    /// A file that is none, or of a newer version.
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let not_one = |what: String| BundleError::NotAWant { path: path.to_owned(), what };
        let size_bytes = std::fs::metadata(path).map_err(io_error("read", path))?.len();
        if size_bytes > MAX_BYTES {
            return Err(not_one(format!("it has {size_bytes} bytes")));
        }
        let bytes = std::fs::read(path).map_err(io_error("read", path))?;
        let want: Self = serde_json::from_slice(&bytes).map_err(|error| not_one(error.to_string()))?;
        if want.kind != KIND || want.format_version != FORMAT_VERSION {
            return Err(not_one(format!("kind {:?}, format {}", want.kind, want.format_version)));
        }
        Ok(want)
    }
}

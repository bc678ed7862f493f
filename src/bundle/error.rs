//! Everything that can be wrong with a bundle or with what shall go into one, said so that the user can act.
//! Knows wording only; the other files decide what is an error.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::manifest::FORMAT_VERSION;
use super::secrets::Secret;

/// Why a bundle cannot be made, read or installed.
#[derive(Debug, Error)]
pub enum BundleError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}\nhint: check that it is there, that you may, and that the disk is not full", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path is no bundle.
    #[error("{} is not a bundle: {what}\nhint: give the folder with BUNDLE.json, the .tar, or its first part (.tar.000)", path.display())]
    NotABundle {
        /// What was given.
        path: PathBuf,
        /// Got and expected.
        what: String,
    },
    /// A bundle of a later version.
    #[error(
        "{} has bundle format {got}, expected at most {FORMAT_VERSION}\nhint: it was made by a newer version; use that one", path.display()
    )]
    NewerFormat {
        /// The bundle.
        path: PathBuf,
        /// The value found.
        got: u32,
    },
    /// The bundle is not what its manifest says: a part of it was lost or changed on the way.
    #[error("{} is damaged: {what}\nhint: copy the bundle again from where it was made; nothing of it was installed", path.display())]
    Damaged {
        /// The bundle, or the file in it.
        path: PathBuf,
        /// Got and expected.
        what: String,
    },
    /// The bundle holds what no bundle of ours holds.
    #[error(
        "{} is refused: {what}\nhint: no bundle that Pairwright makes holds this; ask where it comes from, and install nothing of it", path.display()
    )]
    Unsafe {
        /// The bundle, or the file in it.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// What shall go into a bundle does not fit into one.
    #[error("{} cannot go into a bundle: {what}\nhint: {hint}", path.display())]
    Source {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        what: String,
        /// What to do.
        hint: String,
    },
    /// Files that hold, or are named like, what opens doors.
    #[error(
        "{} of the files would carry a secret: {}\nhint: take it out of the folder; a token that lay there should be revoked, since others may have read it",
        found.len(), list(found)
    )]
    Secrets {
        /// Where, and what it looks like.
        found: Vec<Secret>,
    },
    /// The disk is too small.
    #[error(
        "{} has {} free, and {} are wanted\nhint: make room, or name a folder of another disk",
        path.display(), gigabytes(*free_bytes), gigabytes(*wanted_bytes)
    )]
    NoSpace {
        /// Where it should go.
        path: PathBuf,
        /// Bytes wanted.
        wanted_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// Something else is in the way.
    #[error("{} exists{what}\nhint: move it away, or choose another place", path.display())]
    Exists {
        /// The place.
        path: PathBuf,
        /// More of it, or nothing.
        what: &'static str,
    },
    /// A model or dataset that is nowhere on this machine.
    #[error(
        "`{id}` is neither a path nor in the Hugging Face cache {}\nhint: on a machine with a connection: {command}",
        cache.display()
    )]
    Missing {
        /// What was asked for.
        id: String,
        /// Where it was looked for.
        cache: PathBuf,
        /// What fetches it.
        command: String,
    },
    /// A file is not what its own commit says.
    #[error("{}: {what}\nhint: on a machine with a connection: {repair}", path.display())]
    Incomplete {
        /// The model's folder.
        path: PathBuf,
        /// Files, got and expected.
        what: String,
        /// What mends it.
        repair: String,
    },
    /// A list of wants that cannot be read.
    #[error("{} is not a list of wants: {what}\nhint: `pairwright bundle want > want.json` writes one", path.display())]
    NotAWant {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        what: String,
    },
    /// The prompt table.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// A file could not be hashed or made durable.
    #[error(transparent)]
    Provenance(#[from] crate::provenance::ProvenanceError),
}

impl BundleError {
    /// Whether a second try may succeed with the same input: the disk, not the bundle, was at fault.
    pub fn is_of_the_machine(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::NoSpace { .. })
    }
}

/// Gigabytes of 10⁹ bytes, or megabytes or kilobytes below one.
pub fn gigabytes(bytes: u64) -> String {
    match bytes as f64 {
        few if few < 0.95e6 => format!("{:.1} kB", few / 1e3),
        some if some < 0.95e9 => format!("{:.1} MB", some / 1e6),
        many => format!("{:.1} GB", many / 1e9),
    }
}

/// Files that a message names before it counts the rest.
const NUM_NAMED: usize = 5;

/// The first few, and how many more.
pub(super) fn name_some<T: ToString>(all: &[T]) -> String {
    let named = all.iter().take(NUM_NAMED).map(T::to_string).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NUM_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn list(found: &[Secret]) -> String {
    name_some(found)
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_path_buf();
    move |source| BundleError::Io { action, path, source }
}

//! GGUF files: their metadata, typed, and where their tensors lie. One file or a split set, memory-mapped.
//! Knows bytes only; what a key or a tensor means is decided by `model` (configuration, weights) and `prompt` (tokenizer).
//!
//! Nothing in a file is believed before it fits into it: counts, lengths, offsets and sizes are checked against the file's size
//! first, so a damaged file gives one [`GgufError`] and no allocation that it does not justify. Format: ggml's `gguf.md`.

mod block_type;
mod error;
mod header;
mod locate;
mod metadata;
mod reader;
mod value;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};

pub use block_type::BlockType;
use error::Fault;
pub use error::GgufError;
pub use header::TensorInfo;
pub use locate::{locate, model_name};
use value::Value;

/// An open GGUF file or split set.
#[derive(Debug)]
pub struct Gguf {
    files: Vec<File>,
    /// Of the first file; the others' say only which part they are.
    metadata: HashMap<String, Value>,
    tensors: Vec<TensorInfo>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    map: Mmap,
}

impl Gguf {
    /// Maps `paths`, one file or the parts of a set in order as [`locate`] finds them, and reads their headers.
    ///
    /// # Errors
    /// [`GgufError`] naming the file and what is wrong with it.
    pub fn open(paths: &[PathBuf]) -> Result<Self, GgufError> {
        let mut gguf = Self { files: Vec::new(), metadata: HashMap::new(), tensors: Vec::new() };
        let mut names = HashSet::new();
        for (index, path) in paths.iter().enumerate() {
            let map = map_file(path)?;
            let header = header::parse(&map, index).map_err(|fault| fault.in_file(path))?;
            gguf.files.push(File { path: path.clone(), map });
            for tensor in header.tensors {
                if paths.len() > 1 && !names.insert(tensor.name.clone()) {
                    let what = format!("tensor `{}` is in an earlier part too", tensor.name);
                    return Err(Fault::damaged(what).in_file(path));
                }
                gguf.tensors.push(tensor);
            }
            check_part(&header.metadata, index, paths.len()).map_err(|fault| fault.in_file(path))?;
            if index == 0 {
                gguf.metadata = header.metadata;
            }
        }
        match gguf.metadata.get("split.tensors.count") {
            Some(Value::Unsigned(count)) if *count != gguf.tensors.len() as u64 => {
                Err(gguf.damaged(format!("its set has {} tensors, want {count}", gguf.tensors.len())))
            }
            Some(Value::Signed(count)) if u64::try_from(*count).ok() != Some(gguf.tensors.len() as u64) => {
                Err(gguf.damaged(format!("its set has {} tensors, want {count}", gguf.tensors.len())))
            }
            _ => Ok(gguf),
        }
    }

    /// Whether a tensor is in blocks, and not of plain elements.
    pub fn has_blocks(&self) -> bool {
        self.tensors.iter().any(|tensor| tensor.kind.block_len() > 1)
    }

    /// The first file, which holds the metadata.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |file| &file.path)
    }

    /// All tensors, in the files' order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// How many files the model is split into.
    pub fn num_files(&self) -> usize {
        self.files.len()
    }

    /// The tensor of ggml's name `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// A tensor's bytes: blocks, little-endian, row after row.
    pub fn bytes(&self, tensor: &TensorInfo) -> &[u8] {
        self.files.get(tensor.file).and_then(|file| file.map.get(tensor.range.clone())).unwrap_or_default()
    }

    /// Tells the system that a tensor's pages are not needed any more.
    pub fn release(&self, tensor: &TensorInfo) {
        if let Some(file) = self.files.get(tensor.file) {
            // SAFETY: the mapping is read-only and file-backed: dropped pages are read again if ever touched. Failure only
            // leaves pages in memory, so the result does not matter.
            let _ = unsafe {
                file.map.unchecked_advise_range(UncheckedAdvice::DontNeed, tensor.range.start, tensor.range.len())
            };
        }
    }

    /// The error for something damaged that only a reader of the meaning can see.
    pub fn damaged(&self, what: String) -> GgufError {
        Fault::damaged(what).in_file(self.path())
    }

    /// The error for something this program does not know.
    pub fn unsupported(&self, what: String, hint: &'static str) -> GgufError {
        GgufError { path: self.path().to_owned(), what, hint }
    }
}

/// Whether file `index` of `count` says the same of itself.
fn check_part(metadata: &HashMap<String, Value>, index: usize, count: usize) -> Result<(), Fault> {
    let number = |key: &str| match metadata.get(key) {
        Some(Value::Unsigned(number)) => Some(*number),
        _ => None,
    };
    let (part, parts) = (number("split.no").unwrap_or(0), number("split.count").unwrap_or(1).max(1));
    if (part, parts) == (index as u64, count as u64) {
        return Ok(());
    }
    Err(Fault {
        what: format!(
            "it says that it is part {} of {parts}, and its name makes it part {} of {count}",
            part + 1,
            index + 1
        ),
        hint: "keep the names that the parts were published with, NAME-00001-of-0000N.gguf, and all parts in one folder",
    })
}

fn map_file(path: &Path) -> Result<Mmap, GgufError> {
    let unreadable = |error: std::io::Error| GgufError {
        path: path.to_owned(),
        what: format!("it cannot be read: {error}"),
        hint: "check the path and the file's permissions",
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // SAFETY: the mapping is only read. Another process that truncates the file while it is mapped ends this one with
    // SIGBUS, as with every program that maps model files; ranges are checked against the size before anything is read.
    unsafe { Mmap::map(&file) }.map_err(unreadable)
}

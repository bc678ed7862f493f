//! The memory-mapped safetensors files of a model directory.
//! Knows headers and byte ranges; knows nothing of what a tensor is for or which ones a model needs.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::DType;
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensors};

use crate::model::ModelError;

/// Tensors by the names the files give them.
pub struct SafetensorsFiles {
    maps: Vec<Mmap>,
    tensors: HashMap<String, Entry>,
}

/// Where a tensor lies, and what it is.
pub struct Entry {
    /// Index of the file.
    map: usize,
    /// Byte range in it.
    range: Range<usize>,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<usize>,
}

impl Entry {
    /// The element type as one that weights may have.
    pub fn dense(&self) -> Option<DType> {
        match self.dtype {
            Dtype::F32 => Some(DType::F32),
            Dtype::F16 => Some(DType::F16),
            Dtype::BF16 => Some(DType::BF16),
            _ => None,
        }
    }
}

impl SafetensorsFiles {
    /// Maps the files of directory `dir` and reads their headers.
    ///
    /// # Errors
    /// [`ModelError`] if there are none, one is missing or damaged, or the directory holds only pickle files.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let mut maps = Vec::new();
        let mut tensors = HashMap::new();
        for path in files_of(dir)? {
            let map = map_file(&path)?;
            let corrupt = |what: String| ModelError::Corrupt { path: path.clone(), what, size_bytes: map.len() as u64 };
            if map.starts_with(b"version https://git-lfs") {
                return Err(corrupt("it is a git-lfs pointer, not the file itself".to_owned()));
            }
            let parsed = SafeTensors::deserialize(&map).map_err(|error| corrupt(error.to_string()))?;
            for (name, view) in parsed.tensors() {
                let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
                let entry = Entry {
                    map: maps.len(),
                    range: start..start + view.data().len(),
                    dtype: view.dtype(),
                    shape: view.shape().to_vec(),
                };
                tensors.insert(name, entry);
            }
            maps.push(map);
        }
        Ok(Self { maps, tensors })
    }

    /// Every tensor's name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What the headers say of tensor `name`.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.tensors.get(name)
    }

    /// A tensor's bytes in its file: little-endian, row-major, not necessarily aligned.
    pub fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.maps[entry.map][entry.range.clone()]
    }

    /// Tells the system that a tensor's pages are not needed any more, or those of one of `parts` equal pieces: (index, parts).
    pub fn release(&self, name: &str, part: Option<(usize, usize)>) {
        let Some(entry) = self.tensors.get(name) else { return };
        let (index, parts) = part.unwrap_or((0, 1));
        let len = entry.range.len() / parts.max(1);
        // SAFETY: the mapping is read-only and file-backed: dropped pages are read again if ever touched. Failure only
        // leaves pages in memory, so the result does not matter.
        let _ = unsafe {
            self.maps[entry.map].unchecked_advise_range(UncheckedAdvice::DontNeed, entry.range.start + index * len, len)
        };
    }
}

/// The files to read: those of the index, or else model.safetensors, or else every *.safetensors in the directory. (Some
/// publishers lay the same weights beside them in a format of their own.)
fn files_of(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ModelError::Io { path, source }
    };
    let index = dir.join("model.safetensors.index.json");
    if index.exists() {
        let text = std::fs::read_to_string(&index).map_err(io(&index))?;
        let corrupt = |what: String| ModelError::Corrupt { path: index.clone(), what, size_bytes: text.len() as u64 };
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))?;
        let Some(map) = json.get("weight_map").and_then(|map| map.as_object()) else {
            return Err(corrupt("it has no weight_map".to_owned()));
        };
        let names: BTreeSet<&str> = map.values().filter_map(|name| name.as_str()).collect();
        return Ok(names.into_iter().map(|name| dir.join(name)).collect());
    }
    let single = dir.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let mut files = Vec::new();
    let mut pickle = None;
    for entry in std::fs::read_dir(dir).map_err(io(dir))? {
        let path = entry.map_err(io(dir))?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => files.push(path),
            Some("bin" | "pt" | "pth") => pickle = Some(path),
            _ => {}
        }
    }
    files.sort();
    match (files.is_empty(), pickle) {
        (false, _) => Ok(files),
        (true, Some(path)) => Err(ModelError::Pickle { path }),
        (true, None) => {
            Err(ModelError::NotAModel { path: dir.to_owned(), what: "there is no *.safetensors in it".to_owned() })
        }
    }
}

fn map_file(path: &Path) -> Result<Mmap, ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    // SAFETY: the mapping is only read. Another process that truncates the file while it is mapped ends this one with
    // SIGBUS, as with every program that maps model files; sizes are checked against the header before any tensor is read.
    unsafe { Mmap::map(&file) }.map_err(io)
}

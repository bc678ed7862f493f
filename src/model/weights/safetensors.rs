//! The memory-mapped safetensors files of a model directory.
//! Knows headers and byte ranges; knows nothing of what a tensor is for or which ones a model needs.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::DType;
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::model::ModelError;
use crate::model::config::read_text;

/// More than the index of any model; a larger file is none. Such files have some hundred bytes per tensor.
const MAX_INDEX_BYTES: u64 = 64 << 20;

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
        let mut tensors: HashMap<String, Entry> = HashMap::new();
        let paths = files_of(dir)?;
        for path in &paths {
            let map = map_file(path)?;
            let corrupt = |what: String| ModelError::Corrupt { path: path.clone(), what, size_bytes: map.len() as u64 };
            if map.starts_with(b"version https://git-lfs") {
                return Err(corrupt("it is a git-lfs pointer, not the file itself".to_owned()));
            }
            let parsed = SafeTensors::deserialize(&map).map_err(|error| corrupt(fault(&error, &map)))?;
            for (name, view) in parsed.tensors() {
                let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
                let entry = Entry {
                    map: maps.len(),
                    range: start..start + view.data().len(),
                    dtype: view.dtype(),
                    shape: view.shape().to_vec(),
                };
                if let Some(first) = tensors.get(&name).and_then(|first| paths.get(first.map)) {
                    let (first, second) = (first.clone(), path.clone());
                    return Err(ModelError::StoredTwice { name, first, second });
                }
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

    /// How many files there are.
    pub fn num_files(&self) -> usize {
        self.maps.len()
    }

    /// Every tensor with its name, file after file as they lie on the disk.
    pub fn in_file_order(&self) -> Vec<(&str, &Entry)> {
        let mut all: Vec<_> = self.tensors.iter().map(|(name, entry)| (name.as_str(), entry)).collect();
        all.sort_by_key(|(_, entry)| (entry.map, entry.range.start, entry.range.end));
        all
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
        self.release_part(entry, index * len..(index + 1) * len);
    }

    /// The same for a part of a tensor, in bytes from its start.
    pub fn release_part(&self, entry: &Entry, part: Range<usize>) {
        let (start, end) = (entry.range.start + part.start, (entry.range.start + part.end).min(entry.range.end));
        // SAFETY: the mapping is read-only and file-backed: dropped pages are read again if ever touched. Failure only
        // leaves pages in memory, so the result does not matter.
        let _ = unsafe {
            self.maps[entry.map].unchecked_advise_range(UncheckedAdvice::DontNeed, start, end.saturating_sub(start))
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
        let text = read_text(&index, MAX_INDEX_BYTES)?;
        let corrupt = |what: String| ModelError::Corrupt { path: index.clone(), what, size_bytes: text.len() as u64 };
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))?;
        let Some(map) = json.get("weight_map").and_then(|map| map.as_object()) else {
            return Err(corrupt("it has no weight_map".to_owned()));
        };
        let names: BTreeSet<&str> = map.values().filter_map(|name| name.as_str()).collect();
        // A shard lies beside its index: a path that leads elsewhere would read what nobody pointed at.
        let is_beside = |name: &&&str| Path::new(name).file_name() == Some(std::ffi::OsStr::new(name));
        if let Some(name) = names.iter().find(|name| !is_beside(name)) {
            return Err(corrupt(format!("it names the shard `{name}`, want a file of its own folder")));
        }
        let missing: Vec<&&str> = names.iter().filter(|name| !dir.join(name).is_file()).collect();
        if let Some(first) = missing.first() {
            let (first, count, total) = ((**first).to_owned(), missing.len(), names.len());
            return Err(ModelError::MissingShards { path: dir.to_owned(), first, count, total });
        }
        return Ok(names.into_iter().map(|name| dir.join(name)).collect());
    }
    let single = dir.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let mut files = Vec::new();
    let mut pickles = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io(dir))? {
        let path = entry.map_err(io(dir))?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => files.push(path),
            Some("bin" | "pt" | "pth") => pickles.push(path),
            _ => {}
        }
    }
    files.sort();
    // Weights first: a folder may hold pickles of other things too.
    let is_other =
        |path: &PathBuf| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pytorch_model"));
    pickles.sort_by_key(|path| (is_other(path), path.clone()));
    match (files.is_empty(), pickles.into_iter().next()) {
        (false, _) => Ok(files),
        (true, Some(path)) => Err(ModelError::Pickle { path }),
        (true, None) => {
            Err(ModelError::NotAModel { path: dir.to_owned(), what: "there is no *.safetensors in it".to_owned() })
        }
    }
}

/// What is wrong with the file `map`, in numbers where the parser's words have none.
fn fault(error: &SafeTensorError, map: &[u8]) -> String {
    let claimed = map.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    match error {
        SafeTensorError::HeaderTooLarge => format!("its header claims {claimed} bytes, want at most 100 MB"),
        SafeTensorError::HeaderTooSmall => "it is too short to have a header".to_owned(),
        SafeTensorError::InvalidHeaderLength => format!("its header claims {claimed} bytes, more than there are"),
        SafeTensorError::MetadataIncompleteBuffer => {
            "its header describes more or fewer bytes than follow it, so it is cut short or has something behind it"
                .to_owned()
        }
        SafeTensorError::InvalidOffset(name) => {
            format!("the bytes of tensor `{name}` do not begin where those of the tensor before it end")
        }
        SafeTensorError::TensorInvalidInfo => {
            "a tensor has more or fewer bytes than its shape and type take".to_owned()
        }
        SafeTensorError::ValidationOverflow => "the shape of a tensor is larger than any memory".to_owned(),
        other => other.to_string(),
    }
}

fn map_file(path: &Path) -> Result<Mmap, ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    // SAFETY: the mapping is only read. Another process that truncates the file while it is mapped ends this one with
    // SIGBUS, as with every program that maps model files; sizes are checked against the header before any tensor is read.
    unsafe { Mmap::map(&file) }.map_err(io)
}

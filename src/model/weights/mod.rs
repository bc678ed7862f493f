//! Where a model's numbers come from: a [`WeightSource`] finds tensors by Hugging Face's names in files of any format, or makes
//! random ones for benchmarks and tests; `loader` builds layers of them.
//! Knows names, shapes and bytes; knows nothing of what a tensor is for. Pages are given back once a tensor is packed, so that
//! file and packed form never lie in memory together.

mod dummy;
mod gguf;
mod loader;
mod safetensors;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use candle_core::DType;

use super::ModelError;
use super::spec::DecoderSpec;
use crate::ops::linear::StoredFormat;
use gguf::GgufFiles;
pub use loader::Loader;
use safetensors::SafetensorsFiles;

/// Tensors by Hugging Face's names.
pub struct WeightSource {
    store: Store,
}

enum Store {
    Safetensors(SafetensorsFiles),
    Gguf(GgufFiles),
    Dummy { seed: u64 },
}

/// A tensor's elements, row-major.
pub struct Stored<'a> {
    /// Not necessarily aligned.
    pub bytes: Cow<'a, [u8]>,
    /// Dense elements, or blocks of a matrix's rows.
    pub format: StoredFormat,
}

impl WeightSource {
    /// Random weights of a seed.
    pub fn dummy(seed: u64) -> Self {
        Self { store: Store::Dummy { seed } }
    }

    /// Maps the weights files of a model directory, or the GGUF file that `dir` means, and reads their headers.
    ///
    /// # Errors
    /// [`ModelError`] if there are none, one is missing or damaged, or the directory holds only pickle files.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        if let Some(files) = crate::gguf::locate(dir)? {
            return Ok(Self { store: Store::Gguf(GgufFiles::open(&files)?) });
        }
        Ok(Self { store: Store::Safetensors(SafetensorsFiles::open(dir)?) })
    }

    /// Tensor `name`, which must have `shape`.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>, ModelError> {
        let files = match &self.store {
            Store::Dummy { seed } => {
                let bytes = Cow::Owned(dummy::bytes(*seed, name, shape));
                return Ok(Stored { bytes, format: DType::BF16.into() });
            }
            Store::Gguf(files) => {
                let Some(piece) = files.piece(name) else { return Err(self.missing(name, shape)) };
                if piece.shape != shape {
                    let (got, want) = (piece.shape.clone(), shape.to_vec());
                    return Err(ModelError::WrongShape { name: name.to_owned(), got, want });
                }
                return files.stored(piece);
            }
            Store::Safetensors(files) => files,
        };
        let Some(entry) = files.entry(name) else { return Err(self.missing(name, shape)) };
        if entry.shape != shape {
            let (got, want) = (entry.shape.clone(), shape.to_vec());
            return Err(ModelError::WrongShape { name: name.to_owned(), got, want });
        }
        match entry.dense() {
            Some(dtype) => Ok(Stored { bytes: Cow::Borrowed(files.bytes(entry)), format: dtype.into() }),
            None => Err(ModelError::WrongType { name: name.to_owned(), dtype: format!("{:?}", entry.dtype) }),
        }
    }

    /// The error for a tensor that is not there, with the name that looks most like it.
    fn missing(&self, name: &str, shape: &[usize]) -> ModelError {
        let closest = self
            .names()
            .into_iter()
            .map(|other| (strsim::normalized_levenshtein(name, other), other))
            .filter(|(score, _)| *score > 0.6)
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)));
        ModelError::MissingTensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            closest: closest.map(|(_, other)| format!(" (closest: `{other}`)")).unwrap_or_default(),
        }
    }

    /// Every name in the files; none for random weights.
    fn names(&self) -> Vec<&str> {
        match &self.store {
            Store::Safetensors(files) => files.names().collect(),
            Store::Gguf(files) => files.names().collect(),
            Store::Dummy { .. } => Vec::new(),
        }
    }

    /// Checks, by the files' headers alone, that they hold every tensor of `spec` in its shape and no others: what is left over
    /// belongs to another model. Buffers that old exports carry along, and a tied head's copy, are let pass.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor that is missing, extra, wrongly shaped or of an unsupported type.
    pub fn check(&self, spec: &DecoderSpec) -> Result<(), ModelError> {
        if matches!(self.store, Store::Dummy { .. }) {
            return Ok(());
        }
        let wanted = super::tensors::tensors(spec);
        for (name, shape) in &wanted {
            self.tensor(name, shape)?;
        }
        let wanted: HashSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let harmless =
            |name: &str| name.ends_with("rotary_emb.inv_freq") || (spec.tied_head && name == "lm_head.weight");
        let extra: BTreeSet<&str> =
            self.names().into_iter().filter(|name| !wanted.contains(name) && !harmless(name)).collect();
        match extra.first() {
            None => Ok(()),
            Some(first) => Err(ModelError::ExtraTensors { first: (*first).to_owned(), count: extra.len() }),
        }
    }

    /// Tells the system that a tensor's pages are not needed any more.
    fn release(&self, name: &str) {
        match &self.store {
            Store::Safetensors(files) => files.release(name),
            Store::Gguf(files) => files.release(name),
            Store::Dummy { .. } => {}
        }
    }
}

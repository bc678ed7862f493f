//! Where a model's numbers come from: a [`WeightSource`] finds tensors by Hugging Face's names in files of any format, or makes
//! random ones for benchmarks and tests; `loader` builds layers of them.
//! Knows names, shapes and bytes; knows nothing of what a tensor is for. Pages are given back once a tensor is packed, so that
//! file and packed form never lie in memory together.

mod dummy;
mod gguf;
mod loader;
mod quantised;
mod safetensors;
mod unpack;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use candle_core::DType;

use super::spec::DecoderSpec;
use super::{HfConfig, ModelError};
use crate::model::gguf::Piece;
use crate::ops::linear::StoredFormat;
use gguf::GgufFiles;
pub use loader::{Loader, quantize_note};
use quantised::{Plan, Quantised};
use safetensors::{Entry, SafetensorsFiles};

/// Tensors by Hugging Face's names.
pub struct WeightSource {
    store: Store,
}

enum Store {
    Safetensors(SafetensorsFiles, Option<Quantised>),
    Gguf(GgufFiles),
    Dummy { seed: u64 },
}

/// Where a tensor lies in safetensors files.
enum Found<'a> {
    /// Its elements as they are.
    Dense(&'a Entry, DType),
    /// Codes to be widened.
    Quantised(Plan<'a>),
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

    /// Maps the weights files of a model directory, or the GGUF file that `dir` means, and reads their headers. `config` says whether and how they are quantised.
    ///
    /// # Errors
    /// [`ModelError`] if there are none, one is missing or damaged, the directory holds only pickle files, or the quantisation is
    /// none that can be read.
    pub fn open(dir: &Path, config: &HfConfig) -> Result<Self, ModelError> {
        if let Some(files) = crate::gguf::locate(dir)? {
            return Ok(Self { store: Store::Gguf(GgufFiles::open(&files)?) });
        }
        let quantised = Quantised::of(config)?;
        Ok(Self { store: Store::Safetensors(SafetensorsFiles::open(dir)?, quantised) })
    }

    /// Tensor `name`, which must have `shape`.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>, ModelError> {
        match &self.store {
            Store::Dummy { seed } => {
                let bytes = Cow::Owned(dummy::bytes(*seed, name, shape));
                Ok(Stored { bytes, format: DType::BF16.into() })
            }
            Store::Gguf(files) => files.stored(self.find_piece(files, name, shape)?),
            Store::Safetensors(files, quantised) => match self.find(files, quantised.as_ref(), name, shape)? {
                Found::Dense(entry, dtype) => {
                    Ok(Stored { bytes: Cow::Borrowed(files.bytes(entry)), format: dtype.into() })
                }
                Found::Quantised(plan) => plan.read(files),
            },
        }
    }

    /// Tensor `name` of a GGUF file, by the header alone.
    fn find_piece<'a>(&self, files: &'a GgufFiles, name: &str, shape: &[usize]) -> Result<&'a Piece, ModelError> {
        let Some(piece) = files.piece(name) else { return Err(self.missing(name, shape)) };
        match piece.shape == shape {
            true => Ok(piece),
            false => {
                let (got, want) = (piece.shape.clone(), shape.to_vec());
                Err(ModelError::WrongShape { name: name.to_owned(), got, want })
            }
        }
    }

    /// Where tensor `name` lies in safetensors files, by the headers alone.
    fn find<'a>(
        &self,
        files: &'a SafetensorsFiles,
        quantised: Option<&Quantised>,
        name: &str,
        shape: &[usize],
    ) -> Result<Found<'a>, ModelError> {
        if let Some(quantised) = quantised
            && let Some(plan) = quantised.plan(files, name, shape)?
        {
            return Ok(Found::Quantised(plan));
        }
        let Some(entry) = files.entry(name) else { return Err(self.missing(name, shape)) };
        if entry.shape != shape {
            let (got, want) = (entry.shape.clone(), shape.to_vec());
            return Err(ModelError::WrongShape { name: name.to_owned(), got, want });
        }
        match entry.dense() {
            Some(dtype) => Ok(Found::Dense(entry, dtype)),
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
            Store::Safetensors(files, _) => files.names().collect(),
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
        let mut wanted = HashSet::new();
        for (name, shape) in super::tensors::tensors(spec) {
            match &self.store {
                Store::Dummy { .. } => return Ok(()),
                Store::Gguf(files) => {
                    self.find_piece(files, &name, &shape)?;
                }
                Store::Safetensors(files, quantised) => {
                    if let Found::Quantised(_) = self.find(files, quantised.as_ref(), &name, &shape)? {
                        wanted.extend(Quantised::parts(&name));
                    }
                }
            }
            wanted.insert(name);
        }
        let is_unused = |name: &str| match &self.store {
            Store::Safetensors(_, Some(quantised)) => quantised.is_unused(name),
            _ => false,
        };
        let harmless = |name: &str| {
            name.ends_with("rotary_emb.inv_freq") || (spec.tied_head && name.starts_with("lm_head.")) || is_unused(name)
        };
        let extra: BTreeSet<&str> =
            self.names().into_iter().filter(|&name| !wanted.contains(name) && !harmless(name)).collect();
        match extra.first() {
            None => Ok(()),
            Some(first) => Err(ModelError::ExtraTensors { first: (*first).to_owned(), count: extra.len() }),
        }
    }

    /// Tells the system that a tensor's pages are not needed any more.
    fn release(&self, name: &str) {
        match &self.store {
            Store::Safetensors(files, quantised) => {
                files.release(name);
                if quantised.is_some() {
                    Quantised::parts(name).for_each(|part| files.release(&part));
                }
            }
            Store::Gguf(files) => files.release(name),
            Store::Dummy { .. } => {}
        }
    }
}

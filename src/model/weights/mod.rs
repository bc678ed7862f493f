//! Where a model's numbers come from: a [`WeightSource`] finds tensors by Hugging Face's names in files of any format, or makes
//! random ones for benchmarks and tests; `loader` builds layers of them.
//! Knows names, shapes and bytes; knows nothing of what a tensor is for. Pages are given back once a tensor is packed, so that
//! file and packed form never lie in memory together.

mod dummy;
mod gguf;
mod loader;
mod quantised;
mod rounding;
mod safetensors;
mod unpack;
mod verify;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use candle_core::DType;

use super::spec::{DecoderSpec, Head};
use super::tensors::Stored;
use super::{HfConfig, ModelError};
use crate::model::gguf::Piece;
use crate::ops::linear::StoredFormat;
use gguf::GgufFiles;
pub use loader::Loader;
use quantised::{Plan, Quantised};
pub use rounding::{quantize_note, weight_bytes};
use safetensors::{Entry, SafetensorsFiles};
pub use verify::{Inventory, NonFinite};

/// Tensors by Hugging Face's names.
pub struct WeightSource {
    store: Store,
    trunk: Trunk,
}

/// What the files call the decoder's prefix `model.`: a part of a larger model has another one, and a bare decoder none.
struct Trunk {
    prefix: String,
    /// Prefix of `lm_head`.
    head_prefix: String,
}

impl Trunk {
    /// Finds the decoder by its embedding's name; of several, the one with the shortest name.
    fn find<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        const EMBEDDING: &str = "embed_tokens.weight";
        let whole =
            |name: &&str| name.strip_suffix(EMBEDDING).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'));
        let shortest = names.filter(whole).min_by_key(|name| (name.len(), *name));
        let prefix = shortest.and_then(|name| name.strip_suffix(EMBEDDING)).unwrap_or("model.").to_owned();
        // `language_model.model.` has its head beside `model.`; `model.language_model.` has it at the root.
        let head_prefix =
            prefix.strip_suffix("model.").filter(|rest| rest.ends_with('.')).unwrap_or_default().to_owned();
        Self { prefix, head_prefix }
    }

    /// The files' name of a tensor of ours.
    fn stored_name(&self, name: &str) -> String {
        match name.strip_prefix("model.") {
            Some(rest) => format!("{}{rest}", self.prefix),
            None => format!("{}{name}", self.head_prefix),
        }
    }

    /// Whether a stored tensor belongs to the decoder rather than to another part of a larger model.
    fn owns(&self, stored: &str) -> bool {
        self.prefix == "model." || self.prefix.is_empty() || stored.starts_with(&self.prefix)
    }
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
pub struct Elements<'a> {
    /// Not necessarily aligned.
    pub bytes: Cow<'a, [u8]>,
    /// Dense elements, or blocks of a matrix's rows.
    pub format: StoredFormat,
}

impl WeightSource {
    /// Random weights of a seed.
    pub fn dummy(seed: u64) -> Self {
        Self { store: Store::Dummy { seed }, trunk: Trunk::find(std::iter::empty()) }
    }

    /// Maps the weights files of a model directory, or the GGUF file that `dir` means, and reads their headers. `config`
    /// says whether and how safetensors are quantised.
    ///
    /// # Errors
    /// [`ModelError`] if there are none, one is missing or damaged, the directory holds only pickle files, or the quantisation is
    /// none that can be read.
    pub fn open(dir: &Path, config: &HfConfig) -> Result<Self, ModelError> {
        if let Some(files) = crate::gguf::locate(dir)? {
            let trunk = Trunk::find(std::iter::empty());
            return Ok(Self { store: Store::Gguf(GgufFiles::open(&files)?), trunk });
        }
        let quantised = Quantised::of(config)?;
        let files = SafetensorsFiles::open(dir)?;
        let trunk = Trunk::find(files.names());
        Ok(Self { store: Store::Safetensors(files, quantised), trunk })
    }

    /// Whether the decoder is a part of a larger model.
    pub fn is_part(&self) -> bool {
        self.trunk.prefix != "model." && !self.trunk.prefix.is_empty()
    }

    /// Whether the files hold a head of their own.
    pub fn has_head(&self) -> bool {
        let name = self.trunk.stored_name("lm_head.weight");
        self.names().contains(&name.as_str())
    }

    /// A stored tensor, or the entry of it that is meant.
    fn read(&self, stored: &Stored) -> Result<Elements<'_>, ModelError> {
        let Stored { name, shape, entry, .. } = stored;
        let Elements { bytes, format } = match &self.store {
            Store::Dummy { seed } => {
                Elements { bytes: Cow::Owned(dummy::bytes(*seed, name, shape)), format: DType::BF16.into() }
            }
            Store::Gguf(files) => files.stored(self.find_piece(files, name, shape)?)?,
            Store::Safetensors(files, quantised) => match self.find(files, quantised.as_ref(), name, shape)? {
                Found::Dense(entry, dtype) => {
                    Elements { bytes: Cow::Borrowed(files.bytes(entry)), format: dtype.into() }
                }
                Found::Quantised(plan) => return plan.read(files, *entry),
            },
        };
        let Some(entry) = entry else { return Ok(Elements { bytes, format }) };
        let size = bytes.len() / shape.first().copied().unwrap_or(1).max(1);
        let range = entry * size..(entry + 1) * size;
        let bytes = match bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[range]),
            Cow::Owned(bytes) => Cow::Owned(bytes[range].to_vec()),
        };
        Ok(Elements { bytes, format })
    }

    /// Tensor `name` of a GGUF file, which must have `shape`: by the header alone.
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

    /// Where tensor `name`, which must have `shape`, lies in safetensors files: by the headers alone.
    fn find<'a>(
        &self,
        files: &'a SafetensorsFiles,
        quantised: Option<&Quantised>,
        name: &str,
        shape: &[usize],
    ) -> Result<Found<'a>, ModelError> {
        let stored_name = self.trunk.stored_name(name);
        let name = stored_name.as_str();
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
        let quantised = match &self.store {
            Store::Dummy { .. } => return Ok(()),
            Store::Safetensors(_, quantised) => quantised.as_ref(),
            Store::Gguf(_) => None,
        };
        let mut wanted = HashSet::new();
        for (name, shape) in super::tensors::tensors(spec) {
            let stored_name = self.trunk.stored_name(&name);
            match &self.store {
                Store::Dummy { .. } => {}
                Store::Gguf(files) => {
                    self.find_piece(files, &name, &shape)?;
                }
                Store::Safetensors(files, _) => {
                    let found = self.find(files, quantised, &name, &shape)?;
                    if let (Found::Quantised(_), Some(quantised)) = (found, quantised) {
                        wanted.extend(quantised.parts(&stored_name));
                    }
                }
            }
            wanted.insert(stored_name);
        }
        let other_head = match spec.head {
            Head::Own => None,
            Head::Tied | Head::Scores(_) => Some(self.trunk.stored_name("lm_head.")),
        };
        let harmless = |name: &str| {
            name.ends_with("rotary_emb.inv_freq")
                || other_head.as_deref().is_some_and(|head| name.starts_with(head))
                || quantised.is_some_and(|quantised| quantised.is_unused(name))
                || !self.trunk.owns(name)
                || is_unused_key(spec, name.strip_prefix(&self.trunk.prefix).unwrap_or_default())
        };
        let extra: BTreeSet<&str> =
            self.names().into_iter().filter(|name| !wanted.contains(*name) && !harmless(name)).collect();
        match extra.first() {
            None => Ok(()),
            Some(first) => Err(ModelError::ExtraTensors { first: (*first).to_owned(), count: extra.len() }),
        }
    }

    /// Tells the system that a tensor's pages, or those of the entry that is meant, are not needed any more.
    fn release(&self, stored: &Stored) {
        match &self.store {
            Store::Safetensors(files, quantised) => {
                let part = stored.entry.map(|entry| (entry, stored.shape.first().copied().unwrap_or(1)));
                let name = self.trunk.stored_name(&stored.name);
                files.release(&name, part);
                let parts = quantised.as_ref().map(|quantised| quantised.parts(&name));
                parts.into_iter().flatten().for_each(|name| files.release(&name, part));
            }
            Store::Gguf(files) => files.release(&stored.name),
            Store::Dummy { .. } => {}
        }
    }
}

/// Whether a tensor, named without the trunk's prefix, belongs to the keys and values of a layer that reads another layer's:
/// published files carry them along.
fn is_unused_key(spec: &DecoderSpec, name: &str) -> bool {
    let Some((layer, rest)) = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) else { return false };
    let layer = layer.parse().ok().and_then(|layer: usize| spec.layers.get(layer));
    let unused = ["k_proj.", "v_proj.", "k_norm.", "v_norm."].map(|name| format!("self_attn.{name}"));
    layer.is_some_and(|layer| layer.kv_of.is_some()) && unused.iter().any(|name| rest.starts_with(name))
}

//! Where a model's numbers come from: a [`WeightSource`] finds tensors by Hugging Face's names in files of any format, or makes
//! random ones for benchmarks and tests; `loader` builds layers of them.
//! Knows names, shapes and bytes; knows nothing of what a tensor is for. Pages are given back once a tensor is packed, so that
//! file and packed form never lie in memory together.

mod dummy;
mod loader;
mod safetensors;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use candle_core::DType;

use super::ModelError;
use super::spec::{DecoderSpec, Head};
use super::tensors::Stored;
pub use loader::Loader;
use safetensors::SafetensorsFiles;

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
    Safetensors(SafetensorsFiles),
    Dummy { seed: u64 },
}

/// A tensor's elements, row-major and little-endian.
pub struct Elements<'a> {
    /// Not necessarily aligned.
    pub bytes: Cow<'a, [u8]>,
    /// Element type.
    pub dtype: DType,
}

impl WeightSource {
    /// Random weights of a seed.
    pub fn dummy(seed: u64) -> Self {
        Self { store: Store::Dummy { seed }, trunk: Trunk::find(std::iter::empty()) }
    }

    /// Maps the weights files of a model directory and reads their headers.
    ///
    /// # Errors
    /// [`ModelError`] if there are none, one is missing or damaged, or the directory holds only pickle files.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let files = SafetensorsFiles::open(dir)?;
        let trunk = Trunk::find(files.names());
        Ok(Self { store: Store::Safetensors(files), trunk })
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
        let Elements { bytes, dtype } = self.tensor(&stored.name, &stored.shape)?;
        let Some(entry) = stored.entry else { return Ok(Elements { bytes, dtype }) };
        let size = bytes.len() / stored.shape.first().copied().unwrap_or(1).max(1);
        let range = entry * size..(entry + 1) * size;
        let bytes = match bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[range]),
            Cow::Owned(bytes) => Cow::Owned(bytes[range].to_vec()),
        };
        Ok(Elements { bytes, dtype })
    }

    /// Tensor `name`, which must have `shape`.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Elements<'_>, ModelError> {
        let files = match &self.store {
            Store::Dummy { seed } => {
                let bytes = Cow::Owned(dummy::bytes(*seed, name, shape));
                return Ok(Elements { bytes, dtype: DType::BF16 });
            }
            Store::Safetensors(files) => files,
        };
        let stored_name = self.trunk.stored_name(name);
        let name = stored_name.as_str();
        let Some(entry) = files.entry(name) else { return Err(self.missing(name, shape)) };
        if entry.shape != shape {
            let (got, want) = (entry.shape.clone(), shape.to_vec());
            return Err(ModelError::WrongShape { name: name.to_owned(), got, want });
        }
        match entry.dense() {
            Some(dtype) => Ok(Elements { bytes: Cow::Borrowed(files.bytes(entry)), dtype }),
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
        let wanted: HashSet<String> = wanted.iter().map(|(name, _)| self.trunk.stored_name(name)).collect();
        let other_head = match spec.head {
            Head::Own => None,
            Head::Tied | Head::Scores(_) => Some(self.trunk.stored_name("lm_head.weight")),
        };
        let harmless = |name: &str| {
            name.ends_with("rotary_emb.inv_freq")
                || other_head.as_deref() == Some(name)
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
        if let Store::Safetensors(files) = &self.store {
            let part = stored.entry.map(|entry| (entry, stored.shape.first().copied().unwrap_or(1)));
            files.release(&self.trunk.stored_name(&stored.name), part);
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

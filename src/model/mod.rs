//! Decoder-only language models: a Hugging Face directory or a bare shape in, hidden states and logits out.
//! Knows configurations, weights and operations; knows nothing of sequences, sampling, text or languages.

pub mod arch;
pub mod attention;
pub mod config;
pub mod decoder;
mod layer;
pub mod mlp;
pub mod rope;
pub mod spec;
mod tensors;
pub mod weights;

use std::path::{Path, PathBuf};

pub use config::HfConfig;
pub use decoder::Decoder;
pub use spec::{DecoderSpec, Head};

use crate::ops::Compute;
use weights::WeightSource;

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The path is no model directory.
    #[error(
        "{path} is not a model directory: {what}\nhint: give a folder with config.json, *.safetensors and tokenizer.json"
    )]
    NotAModel {
        /// What was given.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A configuration field is missing or unusable.
    #[error("config.json: {field}: {what}")]
    Config {
        /// The field.
        field: String,
        /// Got and expected.
        what: String,
    },
    /// The family is not one of ours.
    #[error("config.json: {field} `{model_type}` is not supported{closest}\nhint: supported families: {supported}")]
    UnknownFamily {
        /// The field that decided.
        field: &'static str,
        /// What the file says.
        model_type: String,
        /// " (did you mean …?)" or nothing.
        closest: String,
        /// The list.
        supported: String,
    },
    /// A weights file is damaged.
    #[error(
        "{path} is not a readable safetensors file: {what}\nhint: copy or download it again; its size is {size_bytes} bytes"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        what: String,
        /// Size on disk.
        size_bytes: u64,
    },
    /// A format that runs code on load.
    #[error(
        "{path}: weights in pickle format are refused, since loading them can run code\nhint: convert to safetensors"
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A tensor that the configuration asks for is not in the files.
    #[error("tensor `{name}` {shape:?} is missing from the weights{closest}")]
    MissingTensor {
        /// Hugging Face's name.
        name: String,
        /// The shape asked for.
        shape: Vec<usize>,
        /// " (closest: …)" or nothing.
        closest: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error(
        "tensor `{name}` has shape {got:?}, want {want:?}\nhint: config.json and the weights are of different models"
    )]
    WrongShape {
        /// Hugging Face's name.
        name: String,
        /// In the file.
        got: Vec<usize>,
        /// From the configuration.
        want: Vec<usize>,
    },
    /// A tensor's element type is not supported.
    #[error("tensor `{name}` is of type {dtype}, want F32, F16 or BF16")]
    WrongType {
        /// Hugging Face's name.
        name: String,
        /// In the file.
        dtype: String,
    },
    /// The files hold tensors that the configuration has no use for.
    #[error(
        "{count} tensors are in the weights but not in the model, for example `{first}`\nhint: config.json and the weights are of different models"
    )]
    ExtraTensors {
        /// One of them.
        first: String,
        /// How many.
        count: usize,
    },
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Where weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsKind {
    /// The directory's safetensors.
    Files,
    /// Random numbers of this seed, for benchmarks and tests; always labelled as such.
    Dummy {
        /// The seed.
        seed: u64,
    },
}

/// What to load and how.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Device and formats.
    pub compute: Compute,
    /// Weights from files or random.
    pub weights: WeightsKind,
    /// The largest sequence the run admits, in tokens; `None`: the model's own limit. Length-dependent rotary scalings are
    /// fixed by it for the whole run.
    pub max_len: Option<usize>,
}

/// Reads the configuration of directory `dir` and checks, by the headers of its weights, that the two belong together: all that
/// [`load`] can find wrong, without reading a weight.
///
/// # Errors
/// [`ModelError`], naming the file, field or tensor at fault.
pub fn check(dir: &Path, weights: WeightsKind) -> Result<DecoderSpec, ModelError> {
    let (spec, source) = open(dir, weights)?;
    source.check(&spec)?;
    Ok(spec)
}

/// Loads the model of directory `dir`.
///
/// # Errors
/// [`ModelError`], naming the file, field or tensor at fault.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Decoder, ModelError> {
    let (spec, source) = open(dir, options.weights)?;
    let max_len = spec.max_len(options.max_len);
    Decoder::new(&options.compute, spec, max_len, &source)
}

fn open(dir: &Path, weights: WeightsKind) -> Result<(DecoderSpec, WeightSource), ModelError> {
    let mut spec = arch::spec(&HfConfig::read(dir)?)?;
    let source = match weights {
        WeightsKind::Dummy { seed } => WeightSource::dummy(seed),
        WeightsKind::Files => WeightSource::open(dir)?,
    };
    // A larger model's configuration does not tell reliably whether its text part has a head of its own.
    if spec.head == Head::Tied && source.is_part() && source.has_head() {
        spec.head = Head::Own;
    }
    Ok((spec, source))
}

//! Decoder-only language models: a Hugging Face directory, a GGUF file or a bare shape in, hidden states and logits out.
//! Knows configurations, weights and operations; knows nothing of sequences, sampling, text or languages.

pub mod arch;
pub mod attention;
pub mod config;
pub mod decoder;
mod gguf;
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

use crate::gguf::GgufError;
use crate::ops::{Compute, is_out_of_memory};
use weights::WeightSource;

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The path is no model directory.
    #[error(
        "{path} is not a model directory: {what}\nhint: give a folder with config.json, *.safetensors and tokenizer.json, or a GGUF file"
    )]
    NotAModel {
        /// What was given.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A file cannot be read.
    #[error(
        "{path} cannot be read: {source}\nhint: check that it is there, that you may read it, and that the copy is complete"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A text file is larger than any of its kind.
    #[error(
        "{path} has more than {limit_mib} MiB, which no model's has\nhint: it is another file or damaged; copy or download it again"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read, in MiB.
        limit_mib: u64,
    },
    /// A configuration field is missing or unusable.
    #[error(
        "config.json: {field}: {what}\nhint: take the model's own config.json, unchanged and of the same download as its weights"
    )]
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
    /// The index names files that are not there.
    #[error(
        "{path}: {count} of the {total} files that model.safetensors.index.json names are missing, for example {first}\nhint: the download or the copy is not complete; fetch the missing ones, real files and not links"
    )]
    MissingShards {
        /// The directory.
        path: PathBuf,
        /// One of them.
        first: String,
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
    },
    /// Two files hold a tensor of the same name.
    #[error(
        "tensor `{name}` stands in {first} and in {second}\nhint: leave one set of weights in the folder, or the model.safetensors.index.json that says which to read"
    )]
    StoredTwice {
        /// Hugging Face's name.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A format that runs code on load.
    #[error(
        "{path}: weights in pickle format are refused, since loading them can run code\nhint: convert to safetensors, where torch and safetensors are installed: {}",
        convert(path)
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A tensor that the configuration asks for is not in the files.
    #[error(
        "tensor `{name}` {shape:?} is missing from the weights{closest}\nhint: config.json and the weights are of different models, or a file of weights is missing"
    )]
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
    #[error(
        "tensor `{name}` is of type {dtype}, want F32, F16 or BF16\nhint: take the model's publication in bf16 or f16"
    )]
    WrongType {
        /// Hugging Face's name.
        name: String,
        /// In the file.
        dtype: String,
    },
    /// A part of a quantised matrix does not fit the method that config.json names.
    #[error("tensor `{name}`: {what}\nhint: config.json and the weights are of different models, or of a newer format")]
    Quantised {
        /// The part.
        name: String,
        /// Got and expected.
        what: String,
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
    /// A GGUF file is damaged, or of a kind that we do not run.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}\nhint: this is a fault of the program or of the device; please report it")]
    Tensor(candle_core::Error),
    /// What this device has no operation for; with a hint.
    #[error("{0}")]
    NotOffered(String),
    /// Its layers need one another on one device, or there are fewer of them than devices.
    #[error(
        "this model cannot be cut over {devices} devices\nhint: give it one device, or one engine on each: cuda:0,cuda:1"
    )]
    NotCut {
        /// Devices asked for.
        devices: usize,
    },
    /// The device's memory is full.
    #[error(
        "the device has no room for the weights\nhint: see what else runs on it (nvidia-smi), take a smaller model or a shorter --dtype (bf16, f16), or --device cpu"
    )]
    OutOfMemory,
}

impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        match error {
            // Where in the program it came up tells users nothing.
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            error if is_out_of_memory(&error) => Self::OutOfMemory,
            candle_core::Error::Msg(words) if words.contains("\nhint: ") => Self::NotOffered(words),
            error => Self::Tensor(error),
        }
    }
}

/// The command that turns the pickle file `path`, and those of the same set, into safetensors files. `weights_only` loads numbers
/// and no code; each tensor is copied, since the format does not store two that share memory.
fn convert(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let files =
        if name.starts_with("pytorch_model") { path.with_file_name("pytorch_model*.bin") } else { path.to_owned() };
    format!(
        "python3 -c \"import glob, torch, safetensors.torch as s; [s.save_file({{k: v.clone().contiguous() for k, v in \
         torch.load(f, map_location='cpu', weights_only=True).items()}}, f.rsplit('.', 1)[0] + '.safetensors') for f in \
         glob.glob('{}')]\"",
        files.display()
    )
}

/// Where weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsKind {
    /// The directory's safetensors, or a GGUF file.
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

/// Reads the configuration of directory or GGUF file `dir` and checks, by the headers of its weights, that the two belong together: all that
/// [`load`] can find wrong, without reading a weight.
///
/// # Errors
/// [`ModelError`], naming the file, field or tensor at fault.
pub fn check(dir: &Path, weights: WeightsKind) -> Result<DecoderSpec, ModelError> {
    let (spec, source) = open(dir, weights)?;
    source.check(&spec)?;
    Ok(spec)
}

/// What rounding the matrices of the model in `dir` as `compute` says cannot do as asked, in words; `None` if all fit.
///
/// # Errors
/// [`ModelError`] if the configuration cannot be read.
pub fn quantize_note(dir: &Path, compute: &Compute) -> Result<Option<String>, ModelError> {
    match compute.quantize {
        None => Ok(None),
        Some(_) => Ok(weights::quantize_note(&arch::spec(&HfConfig::read(dir)?)?, compute)),
    }
}

/// Loads the model of directory or GGUF file `dir`.
///
/// # Errors
/// [`ModelError`], naming the file, field or tensor at fault.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Decoder, ModelError> {
    let (spec, source) = open(dir, options.weights)?;
    let max_len = spec.max_len(options.max_len);
    Decoder::new(&options.compute, spec, max_len, &source)
}

/// Reads the configuration of directory `dir` and opens its weights, without holding the one against the other.
///
/// # Errors
/// [`ModelError`], naming the file or field at fault.
pub fn open(dir: &Path, weights: WeightsKind) -> Result<(DecoderSpec, WeightSource), ModelError> {
    let config = HfConfig::read(dir)?;
    let mut spec = arch::spec(&config)?;
    let source = match weights {
        WeightsKind::Dummy { seed } => WeightSource::dummy(seed),
        WeightsKind::Files => WeightSource::open(dir, &config)?,
    };
    // A larger model's configuration does not tell reliably whether its text part has a head of its own.
    if spec.head == Head::Tied && source.is_part() && source.has_head() {
        spec.head = Head::Own;
    }
    Ok((spec, source))
}

//! A model that takes text: engine, tokenizer and chat template of one directory, and the record of what was loaded.
//! Knows directories and their files; knows nothing of what is asked of the model.

use std::path::{Path, PathBuf};

use crate::engine::{Engine, EngineError, EngineOptions, Fleet};
use crate::gguf;
use crate::model::spec::Head;
use crate::model::{self, HfConfig, LoadOptions, ModelError, WeightsKind};
use crate::ops::Compute;
use crate::prompt::{ChatTokenizer, PromptError, TemplateOptions};
use crate::provenance::{self, ModelRecord, ProvenanceError};

/// How a model is loaded.
#[derive(Debug, Clone)]
pub struct TextModelOptions {
    /// Device and formats.
    pub compute: Compute,
    /// Further devices, in the same formats, which share the work.
    pub others: Vec<Compute>,
    /// From files or random.
    pub weights: WeightsKind,
    /// Longest sequence admitted, in tokens; `None`: the model's own limit.
    pub max_len: Option<usize>,
    /// Batch and cache.
    pub engine: EngineOptions,
    /// Date and variables for the chat template.
    pub template: TemplateOptions,
    /// Label to store instead of the directory's name: the embedded demonstration model's.
    pub label: Option<String>,
}

/// Why a model directory cannot be used for text.
#[derive(Debug, thiserror::Error)]
pub enum TextModelError {
    /// Configuration or weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Tokenizer or template.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The engine refused its options.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file could not be hashed.
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
    /// Dialogues cannot be put to the model.
    #[error(
        "{path} has no chat template\nhint: use an instruction-tuned model, or give a template with --chat-template FILE"
    )]
    NoChatTemplate {
        /// The directory.
        path: PathBuf,
    },
    /// An end token is none of the model's.
    #[error(
        "{path}: {id} is named as an end token, the model has a vocabulary of {model}\nhint: config.json, generation_config.json and the tokenizer (or those beside a GGUF file) are of different models"
    )]
    EndToken {
        /// The directory.
        path: PathBuf,
        /// The token id.
        id: u32,
        /// Of config.json.
        model: usize,
    },
    /// Tokenizer and weights are of different models.
    #[error(
        "{path}: the tokenizer has {tokenizer} tokens, the model a vocabulary of {model}: a prompt could hold {token:?} \
         (id {id}), for which the model has no row\nhint: tokenizer.json and config.json are of different models"
    )]
    VocabularyMismatch {
        /// The directory.
        path: PathBuf,
        /// Largest token id + 1.
        tokenizer: usize,
        /// Of config.json.
        model: usize,
        /// A token without a row.
        token: String,
        /// Its id.
        id: u32,
    },
}

/// Sequences queued in the engine beyond those that run, per place in the batch.
const QUEUE_PER_PLACE: usize = 8;

/// See the module's text.
pub struct TextModel {
    engine: Fleet,
    tokenizer: ChatTokenizer,
    eos_ids: Vec<u32>,
    max_batch: usize,
    config: HfConfig,
    record: ModelRecord,
    slow_products: Vec<String>,
}

impl TextModel {
    /// What [`Self::load`] would load: name, hashes and formats, for the lock file. Reads the cheap files, the weights' headers
    /// and, for their hashes, their bytes, and checks that all belong together and that the cache's budget holds a block; so
    /// what cannot be loaded is told before any work is done.
    ///
    /// # Errors
    /// [`TextModelError`], naming the file or field at fault.
    pub fn describe(dir: &Path, options: &TextModelOptions) -> Result<ModelRecord, TextModelError> {
        let spec = model::arch::spec(&HfConfig::read(dir)?)?;
        let tokenizer = ChatTokenizer::load(dir, &options.template)?;
        check_vocabulary(dir, &tokenizer, spec.vocab_size)?;
        model::check(dir, options.weights)?;
        options.engine.num_blocks(&spec, &options.compute, spec.max_len(options.max_len))?;
        let gguf_files = gguf::locate(dir).map_err(ModelError::from)?.unwrap_or_default();
        let gguf = (!gguf_files.is_empty()).then(|| gguf::Gguf::open(&gguf_files)).transpose();
        let gguf = gguf.map_err(ModelError::from)?;
        let name = model_name(dir, options.weights)?;
        let (name, weights) = match (&options.label, options.weights) {
            (Some(label), _) => (label.clone(), provenance::WeightsKind::EmbeddedDemo),
            (None, WeightsKind::Dummy { .. }) => (name, provenance::WeightsKind::Dummy),
            (None, WeightsKind::Files) if !gguf_files.is_empty() => (name, provenance::WeightsKind::Gguf),
            (None, WeightsKind::Files) => (name, provenance::WeightsKind::Safetensors),
        };
        Ok(ModelRecord {
            name,
            path: dir.display().to_string(),
            files: hashes(dir, &gguf_files, options.weights == WeightsKind::Files)?,
            template_sha256: tokenizer.template_sha256().map(str::to_owned),
            merges_system: tokenizer.has_chat_template() && !tokenizer.supports_system().unwrap_or(true),
            license: license(dir, &gguf_files)?,
            dtype: options.compute.formats(gguf.is_some_and(|gguf| gguf.has_blocks())),
            weights,
            is_reward: matches!(spec.head, Head::Scores(_)),
        })
    }

    /// Loads `dir`, which `record` describes.
    ///
    /// # Errors
    /// [`TextModelError`], naming the file, field or tensor at fault.
    pub fn load(dir: &Path, options: &TextModelOptions, record: ModelRecord) -> Result<Self, TextModelError> {
        let config = HfConfig::read(dir)?;
        let tokenizer = ChatTokenizer::load(dir, &options.template)?;
        let (mut engines, mut slow_products) = (Vec::new(), Vec::new());
        for compute in std::iter::once(&options.compute).chain(&options.others) {
            let load = LoadOptions { compute: compute.clone(), weights: options.weights, max_len: options.max_len };
            let decoder = model::load(dir, &load)?;
            check_vocabulary(dir, &tokenizer, decoder.spec().vocab_size)?;
            slow_products = decoder.slow_products().to_vec();
            engines.push(Engine::new(decoder, &options.engine)?);
        }
        let engine = Fleet::new(engines)?;
        let mut eos_ids = config.eos_token_ids();
        eos_ids.extend(tokenizer.eos_ids());
        eos_ids.sort_unstable();
        eos_ids.dedup();
        Ok(Self { engine, tokenizer, eos_ids, max_batch: options.engine.max_batch, config, record, slow_products })
    }

    /// Puts the same weights to another use: under another name, and with dialogues put otherwise.
    pub fn serve_as(&mut self, record: ModelRecord, tokenizer: ChatTokenizer) {
        self.record = record;
        self.tokenizer = tokenizer;
    }

    /// Engine and tokenizer, to work with both at once.
    pub fn parts(&mut self) -> (&mut Fleet, &ChatTokenizer) {
        (&mut self.engine, &self.tokenizer)
    }

    /// The engine.
    pub fn engine(&self) -> &Fleet {
        &self.engine
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &ChatTokenizer {
        &self.tokenizer
    }

    /// Tokens that end an answer.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Sequences that a source may have in the engine, running and waiting: enough to choose from, little to hold.
    pub fn queue_len(&self) -> usize {
        self.engine.num_engines() * self.max_batch.max(1) * (QUEUE_PER_PLACE + 1)
    }

    /// A sampling default that the model's authors recommend (generation_config.json), for example `temperature`.
    pub fn recommended(&self, field: &str) -> Option<f64> {
        self.config.generation_number(field)
    }

    /// As [`crate::model::Decoder::slow_products`].
    pub fn slow_products(&self) -> &[String] {
        &self.slow_products
    }

    /// What was loaded.
    pub fn record(&self) -> &ModelRecord {
        &self.record
    }
}

/// What the model in `dir` is called in a run; of random weights the name says so.
///
/// # Errors
/// [`ModelError`] if the folder cannot be read.
pub fn model_name(dir: &Path, weights: WeightsKind) -> Result<String, ModelError> {
    let canonical = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = match gguf::locate(dir)?.unwrap_or_default().first() {
        Some(file) => gguf::model_name(file),
        None => folder_name(&canonical),
    };
    Ok(match weights {
        WeightsKind::Dummy { seed } => format!("{name} (dummy weights, seed {seed})"),
        WeightsKind::Files => name,
    })
}

/// What a model in `dir` is called: the folder's name, but `OWNER/NAME` in the Hub's cache, where the folder is called after a commit.
fn folder_name(dir: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let in_cache = || {
        let snapshots = dir.parent().filter(|folder| name(folder).as_deref() == Some("snapshots"))?;
        Some(name(snapshots.parent()?)?.strip_prefix("models--")?.replacen("--", "/", 1))
    };
    in_cache().or_else(|| name(dir)).unwrap_or_else(|| "model".to_owned())
}

/// Refuses a tokenizer with tokens that a prompt can hold and the model has no row for. Control tokens that neither a text nor
/// the template can bring into a prompt may lie beyond the model's rows: checkpoints whose text part is loaded alone have such,
/// for images. A model with more rows than the tokenizer has tokens is common; rows that pad are hardly ever sampled, and an id
/// without a token shows nothing in an answer.
pub(super) fn check_vocabulary(dir: &Path, tokenizer: &ChatTokenizer, model: usize) -> Result<(), TextModelError> {
    match tokenizer.reachable_token_from(model) {
        Some((id, token)) => Err(TextModelError::VocabularyMismatch {
            path: dir.to_owned(),
            tokenizer: tokenizer.vocab_size(),
            model,
            token,
            id,
        }),
        None => Ok(()),
    }
}

/// SHA-256 of the files that decide what the model computes; `weights`: the safetensors too. Of a GGUF model its files, and what
/// lies beside them and wins over what they say.
fn hashes(
    dir: &Path,
    gguf_files: &[PathBuf],
    weights: bool,
) -> Result<std::collections::BTreeMap<String, String>, TextModelError> {
    use rayon::prelude::*;
    const SMALL: [&str; 6] = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "chat_template.json",
    ];
    let dir = gguf_files.first().map_or(dir, |file| provenance::folder_of(file));
    let has_tokenizer = dir.join("tokenizer.json").exists();
    let is_read = |name: &str| match gguf_files.is_empty() {
        true => SMALL.contains(&name) || (weights && name.ends_with(".safetensors")),
        false => {
            let beside = SMALL.contains(&name) && name != "config.json";
            let is_part = gguf_files.iter().any(|file| file.file_name().is_some_and(|file| file == name));
            is_part || (beside && (has_tokenizer || name == "generation_config.json"))
        }
    };
    let entries = std::fs::read_dir(dir).map_err(|source| ModelError::Io { path: dir.to_owned(), source })?;
    let names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(|name| is_read(name)).collect();
    let hash = |name: String| {
        let hash = provenance::sha256_file(&dir.join(&name))?;
        Ok((name, hash))
    };
    names.into_par_iter().map(hash).collect::<Result<_, ProvenanceError>>().map_err(TextModelError::from)
}

/// The front matter of a card stands in these bytes, however long the card is.
const MAX_FRONT_MATTER: u64 = 256 << 10;

/// The licence that a GGUF file names, or that the model's card does.
pub(super) fn license(dir: &Path, gguf_files: &[PathBuf]) -> Result<Option<String>, TextModelError> {
    let Some(file) = gguf_files.first() else { return Ok(card_license(dir)) };
    let gguf = gguf::Gguf::open(gguf_files).map_err(ModelError::from)?;
    let named = gguf.text("general.license").map_err(ModelError::from)?.map(str::to_owned);
    Ok(named.or_else(|| card_license(provenance::folder_of(file))))
}

/// The licence that the model's card states in its front matter, if there is a card.
pub fn card_license(dir: &Path) -> Option<String> {
    use std::io::Read;
    let mut card = Vec::new();
    std::fs::File::open(dir.join("README.md")).ok()?.take(MAX_FRONT_MATTER).read_to_end(&mut card).ok()?;
    let card = String::from_utf8_lossy(&card);
    let front = card.strip_prefix("---")?.split("\n---").next()?;
    let line = front.lines().find_map(|line| line.strip_prefix("license:"))?;
    let license = line.trim().trim_matches(['"', '\'']);
    (!license.is_empty()).then(|| license.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::folder_name;

    #[test]
    fn a_model_in_the_hubs_cache_is_called_after_its_repository() {
        for (dir, name) in [
            ("/models/writer", "writer"),
            ("/c/models--CohereLabs--aya-expanse-8b/snapshots/0123", "CohereLabs/aya-expanse-8b"),
            ("/c/writer/snapshots/0123", "0123"),
            ("/", "model"),
        ] {
            assert_eq!(folder_name(Path::new(dir)), name);
        }
    }
}

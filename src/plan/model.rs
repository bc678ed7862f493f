//! What a plan knows of a model: from the headers of a folder, or from the list of models alone. Reads no weight.
//! Knows sizes, terms and how texts become tokens; knows no prompts and no card.

use std::path::{Path, PathBuf};

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::generate::{TextModelError, card_license};
use crate::gguf;
use crate::model::weights::weight_bytes;
use crate::model::{self, Head, ModelError, WeightsKind};
use crate::ops::paged::KvFormat;
use crate::prompt::{ChatTokenizer, DialogueEnd, Message, PromptError, TemplateOptions};
use crate::registry::{AyaData, LicenceKind, ModelEntry, PRECISIONS};

/// Bytes of UTF-8 that are counted as a token where there is no tokenizer: about what multilingual tokenizers give over many scripts. A guess.
pub const BYTES_PER_TOKEN: usize = 3;
/// Tokens that a template adds to each message, where there is none.
const TEMPLATE_TOKENS: u32 = 12;

/// Formats of weights and cache, and what a step may hold, as the flags ask for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Formats {
    /// Of dense weights.
    pub dtype: DType,
    /// Blocks that matrices are rounded to.
    pub quantize: Option<GgmlDType>,
    /// Matrices in fp8.
    pub fp8: bool,
    /// Of the cache.
    pub kv: KvFormat,
    /// Most sequences at once.
    pub max_batch: usize,
    /// Most tokens of a step.
    pub step_tokens: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// Size of the cache, where it was given: tokens or bytes.
    pub kv_tokens: Option<usize>,
    /// See `kv_tokens`.
    pub kv_memory: Option<usize>,
    /// Longest sequence asked for.
    pub max_len: Option<usize>,
}

impl Formats {
    /// The weights' format as the command line has it.
    pub fn name(&self) -> String {
        match (self.fp8, self.quantize) {
            (true, _) => "fp8".to_owned(),
            (_, Some(blocks)) => format!("{blocks:?}").to_lowercase(),
            _ => format!("{:?}", self.dtype).to_lowercase(),
        }
    }
}

/// A model's numbers and terms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelFacts {
    /// As the dataset's columns will have it, or the list's name.
    pub name: String,
    /// `folder`, or `registry` for what only the list of models says.
    pub known_from: &'static str,
    /// The weights' format.
    pub format: String,
    /// Bytes of the weights in that format.
    pub weight_bytes: u64,
    /// Bytes of its files.
    pub stored_bytes: u64,
    /// Bytes of cache per token in the cache's format; `None`: the list does not know its shape.
    pub kv_bytes_per_token: Option<u64>,
    /// Parameters that a token passes, the head left out.
    pub token_parameters: u64,
    /// Parameters of the head.
    pub head_parameters: u64,
    /// Longest sequence, in tokens.
    pub max_len: usize,
    /// Rates by a score head.
    pub is_reward: bool,
    /// The weights are random numbers.
    pub is_dummy: bool,
    /// Licence that the card in the folder states, or the list.
    pub licence: Option<String>,
    /// How free it is, by the list.
    pub licence_kind: Option<LicenceKind>,
    /// What it asks for besides, by the list.
    pub terms: Option<String>,
    /// Whether Aya data were in its training, by the list.
    pub aya_data: Option<AyaData>,
    /// Languages that its makers name, by the list.
    pub languages: Option<Vec<String>>,
    /// The list's entry.
    #[serde(skip)]
    pub entry: Option<ModelEntry>,
    /// Whether these are all.
    pub names_all_languages: bool,
}

/// How texts become tokens.
pub enum Encoder {
    /// By the model's own tokenizer and template.
    Exact(Box<ChatTokenizer>),
    /// A token for every [`BYTES_PER_TOKEN`] bytes.
    Estimated,
}

/// A model of a plan.
pub struct PlannedModel {
    /// Its numbers.
    pub facts: ModelFacts,
    /// Its tokenizer.
    pub encoder: Encoder,
    /// Its folder or file, if there is one.
    pub dir: Option<PathBuf>,
}

impl Encoder {
    /// The dialogue's tokens, up to where the answer begins.
    ///
    /// # Errors
    /// [`PromptError`] of the template or tokenizer.
    pub fn dialogue(&self, messages: &[Message]) -> Result<Vec<u32>, PromptError> {
        match self {
            Self::Exact(tokenizer) => tokenizer.encode_chat(messages, DialogueEnd::GenerationPrompt),
            Self::Estimated => Ok(messages.iter().flat_map(|message| estimated(&message.content)).collect()),
        }
    }

    /// A text's tokens alone.
    ///
    /// # Errors
    /// [`PromptError`] of the tokenizer.
    pub fn text(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        match self {
            Self::Exact(tokenizer) => tokenizer.encode_text(text),
            Self::Estimated => Ok(pieces(text)),
        }
    }
}

/// Equal beginnings have equal pieces, as with a tokenizer.
fn pieces(text: &str) -> Vec<u32> {
    text.as_bytes().chunks(BYTES_PER_TOKEN).map(|piece| xxh3_64(piece) as u32).collect()
}

fn estimated(text: &str) -> Vec<u32> {
    (0..TEMPLATE_TOKENS).chain(pieces(text)).collect()
}

impl PlannedModel {
    /// Of a folder or GGUF file: configuration, headers and tokenizer. `entry` is what the list says of it.
    ///
    /// # Errors
    /// [`TextModelError`], naming the file at fault.
    pub fn open(
        dir: &Path,
        name: String,
        weights: WeightsKind,
        formats: &Formats,
        template: &TemplateOptions,
        entry: Option<&ModelEntry>,
    ) -> Result<Self, TextModelError> {
        let (spec, source) = model::open(dir, weights)?;
        source.check(&spec)?;
        let tokenizer = ChatTokenizer::load(dir, template)?;
        let inventory = source.inventory();
        let is_dense = |dtype: &String| ["F32", "F16", "BF16"].contains(&dtype.to_uppercase().as_str());
        let in_blocks = !inventory.dtypes.keys().all(is_dense);
        let computed = weight_bytes(&spec, formats.dtype, formats.quantize, formats.fp8);
        let head = spec.hidden_size * spec.num_logits();
        let licence = match gguf::locate(dir).map_err(ModelError::from)? {
            None => card_license(dir),
            Some(files) => {
                let gguf = gguf::Gguf::open(&files).map_err(ModelError::from)?;
                gguf.text("general.license").map_err(ModelError::from)?.map(str::to_owned)
            }
        };
        let facts = ModelFacts {
            name,
            known_from: "folder",
            format: if in_blocks { "as published".to_owned() } else { formats.name() },
            weight_bytes: if in_blocks { inventory.num_bytes } else { computed },
            stored_bytes: inventory.num_bytes,
            kv_bytes_per_token: Some(spec.kv_bytes_per_token(formats.kv) as u64),
            token_parameters: (spec.num_product_parameters() - head) as u64,
            head_parameters: head as u64,
            max_len: spec.max_len(formats.max_len),
            is_reward: matches!(spec.head, Head::Scores(_)),
            is_dummy: matches!(weights, WeightsKind::Dummy { .. }),
            licence: licence.or_else(|| entry.map(|entry| entry.licence.clone())),
            ..ModelFacts::listed(entry)
        };
        Ok(Self { facts, encoder: Encoder::Exact(Box::new(tokenizer)), dir: Some(dir.to_owned()) })
    }

    /// Of what the list says alone.
    pub fn of_entry(entry: &ModelEntry, formats: &Formats) -> Self {
        let bits = match (formats.fp8, formats.quantize) {
            (true, _) => 8.0,
            (_, Some(blocks)) => 8.0 * blocks.type_size() as f64 / blocks.block_size() as f64,
            _ => 8.0 * formats.dtype.size_in_bytes() as f64,
        };
        let number_bytes = formats.kv.dtype().size_in_bytes() as u64;
        let facts = ModelFacts {
            name: entry.name.clone(),
            known_from: "registry",
            format: formats.name(),
            weight_bytes: (entry.parameters as f64 * bits / 8.0) as u64,
            stored_bytes: PRECISIONS[0].bytes(entry.parameters),
            kv_bytes_per_token: entry.kv_bytes_per_token(number_bytes),
            token_parameters: entry.active_parameters.unwrap_or(entry.parameters),
            max_len: formats.max_len.unwrap_or(usize::MAX).min(entry.context as usize),
            is_reward: entry.roles.iter().all(|role| *role == crate::registry::Role::Reward),
            licence: Some(entry.licence.clone()),
            ..ModelFacts::listed(Some(entry))
        };
        Self { facts, encoder: Encoder::Estimated, dir: None }
    }

    /// Tokenizer, where there is one.
    pub fn tokenizer(&self) -> Option<&ChatTokenizer> {
        match &self.encoder {
            Encoder::Exact(tokenizer) => Some(tokenizer),
            Encoder::Estimated => None,
        }
    }
}

impl ModelFacts {
    /// Whether its makers name this language, given as a source spells it.
    pub(super) fn states(&self, name: &str, code: &str) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.states(name, code))
    }

    /// What the list adds, if it has the model.
    fn listed(entry: Option<&ModelEntry>) -> Self {
        Self {
            name: String::new(),
            known_from: "folder",
            format: String::new(),
            weight_bytes: 0,
            stored_bytes: 0,
            kv_bytes_per_token: None,
            token_parameters: 0,
            head_parameters: 0,
            max_len: 0,
            is_reward: false,
            is_dummy: false,
            licence: None,
            licence_kind: entry.map(|entry| entry.licence_kind),
            terms: entry.and_then(|entry| entry.terms.clone()),
            aya_data: entry.map(|entry| entry.aya_data),
            languages: entry.map(|entry| entry.languages.clone()),
            entry: entry.cloned(),
            names_all_languages: entry.is_none_or(|entry| entry.names_all_languages),
        }
    }
}

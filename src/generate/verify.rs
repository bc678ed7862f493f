//! Whether a model directory is whole: configuration, weights, tokenizer and template of one model.
//! Knows what loading will ask for; runs no model, and reads weights only where it is told to.

use std::path::Path;

use serde::Serialize;

use super::text_model::{TextModelError, check_vocabulary, license};
use crate::gguf;
use crate::model::spec::Head;
use crate::model::weights::{Inventory, NonFinite, WeightSource};
use crate::model::{self, HfConfig, ModelError, WeightsKind};
use crate::prompt::{ChatTokenizer, TemplateOptions};

/// What a directory holds, all of which fits together.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// Hugging Face's `model_type`.
    pub family: String,
    /// Layers of the decoder.
    pub num_layers: usize,
    /// The context the model was made for, in tokens.
    pub context: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Largest token id of the tokenizer + 1. Where it is more than `vocab_size`, no text reaches the tokens without a row.
    pub tokenizer_size: usize,
    /// Scores per text, of a reward model's head; `None` for a model that writes.
    pub num_scores: Option<usize>,
    /// Tokens that end an answer: the configuration's and the tokenizer's.
    pub eos_ids: Vec<u32>,
    /// Whether there is a chat template.
    pub chat_template: bool,
    /// Whether the template takes a system turn; `None` without a template.
    pub system_turn: Option<bool>,
    /// The licence that the model's card states, if there is a card.
    pub license: Option<String>,
    /// What the headers of the weights say in sum.
    pub weights: Inventory,
}

/// A directory whose parts fit together, with its weights open.
pub struct VerifiedModel {
    /// What it holds.
    pub verified: Verified,
    source: WeightSource,
}

/// Checks directory (or GGUF file) `dir`: everything that loading and the first dialogue would find wrong, without reading a weight.
///
/// # Errors
/// [`TextModelError`], naming the file, field or tensor at fault. A missing chat template is none.
pub fn verify(dir: &Path, template: &TemplateOptions) -> Result<VerifiedModel, TextModelError> {
    let config = HfConfig::read(dir)?;
    let (spec, source) = model::open(dir, WeightsKind::Files)?;
    source.check(&spec)?;
    let tokenizer = ChatTokenizer::load(dir, template)?;
    check_vocabulary(dir, &tokenizer, spec.vocab_size)?;
    let mut eos_ids = config.eos_token_ids();
    eos_ids.extend(tokenizer.eos_ids());
    eos_ids.sort_unstable();
    eos_ids.dedup();
    if let Some(id) = eos_ids.iter().copied().find(|id| *id as usize >= spec.vocab_size) {
        return Err(TextModelError::EndToken { path: dir.to_owned(), id, model: spec.vocab_size });
    }
    let chat_template = tokenizer.has_chat_template();
    let verified = Verified {
        family: spec.family.to_owned(),
        num_layers: spec.num_layers(),
        context: spec.max_positions,
        vocab_size: spec.vocab_size,
        tokenizer_size: tokenizer.vocab_size(),
        num_scores: match spec.head {
            Head::Scores(count) => Some(count),
            Head::Own | Head::Tied => None,
        },
        eos_ids,
        chat_template,
        system_turn: chat_template.then(|| tokenizer.supports_system()).transpose()?,
        license: license(dir, &gguf::locate(dir).map_err(ModelError::from)?.unwrap_or_default())?,
        weights: source.inventory(),
    };
    Ok(VerifiedModel { verified, source })
}

impl VerifiedModel {
    /// Reads every weight and gives the tensors that hold NaN or infinities; `progress` is told the bytes read since it was last
    /// called.
    pub fn non_finite(&self, progress: impl FnMut(u64)) -> Vec<NonFinite> {
        self.source.non_finite(progress)
    }
}

//! Text to token ids and back: tokenizer, chat template, incremental detokenisation.
//! Knows nothing of models' weights, of batches or of datasets.
//!
//! [`ChatTokenizer`] is the door: it loads a model directory, renders a dialogue through the model's chat template as
//! Transformers renders it, and encodes it so that the text of a turn never becomes a control token. The files behind it:
//! `files` (what a model directory says), `gguf` (what a GGUF file says), `template` with `python` (Jinja as Transformers sets
//! it up), `rewrite` (a template's source in the form that minijinja reads as Jinja2 does), `controls` (which tokens steer a
//! model, and how text is kept from matching them), `detokenize`, `thinking` and `stop` (ids back to text), `vocabulary` (each
//! id's bytes).

mod chat;
mod controls;
mod detokenize;
mod error;
mod files;
mod gguf;
mod python;
mod rewrite;
mod stop;
mod template;
mod thinking;
mod vocabulary;

pub use chat::ChatTokenizer;
pub use detokenize::Detokenizer;
pub use error::PromptError;
pub use stop::{StopMatch, StopMatcher};
pub use template::{DialogueEnd, TemplateOptions, TemplateSource, fold_system};
pub use thinking::{AnswerEnd, AnswerReader, ThinkingMarkers};
pub use vocabulary::Vocabulary;

use serde::{Deserialize, Serialize};

/// One turn of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or whatever else the model's template knows.
    pub role: String,
    /// The turn's text; never read as control tokens.
    pub content: String,
}

//! Candidates: prompts x sampling parameters in, answers as text out. The place where text meets the engine's token ids.
//! Knows nothing of ratings or of the dataset that is written from its answers.

use serde::{Deserialize, Serialize};

/// Who wrote an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CandidateSource {
    Human,
    Model,
}

/// Why a generated answer ended. `Stop`: an end token or stop string; `Length`: the token limit or the context ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    Stop,
    Length,
}

/// One answer to one prompt record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// [`crate::data::PromptRecord::id`] of the prompt it answers.
    pub record_id: String,
    /// 0 for the human answer; model answers count from 0 per model.
    pub sample_index: u32,
    pub source: CandidateSource,
    /// Model name, or `human`.
    pub model: String,
    pub text: String,
    /// Generated token ids; empty for a human answer.
    pub token_ids: Vec<u32>,
    pub num_prompt_tokens: u32,
    /// `None` for a human answer.
    pub finish_reason: Option<FinishReason>,
    /// Sum of natural-log probabilities of the generated tokens under the model (temperature 1, no penalties).
    pub logprob: Option<f64>,
}

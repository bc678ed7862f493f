//! What generation gives: an answer or the reason why there is none, and the records that the journal keeps.
//! Knows tokens and texts; knows nothing of how they came about.

use serde::{Deserialize, Serialize};

use crate::engine::{self, TokenLogprobs};

/// Who wrote an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CandidateSource {
    /// The source file's answer.
    Human,
    /// A model's.
    Model,
}

/// Why a generated answer ended. `Stop`: an end token or stop string; `Length`: the token limit or the context ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// An end token or stop string.
    Stop,
    /// The token limit or the context.
    Length,
}

impl From<engine::FinishReason> for FinishReason {
    fn from(reason: engine::FinishReason) -> Self {
        match reason {
            engine::FinishReason::Stop => Self::Stop,
            engine::FinishReason::Length => Self::Length,
        }
    }
}

/// One answer to one prompt record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// [`crate::data::PromptRecord::id`] of the prompt it answers.
    pub record_id: String,
    /// 0 for the human answer; model answers count from 0 per model.
    pub sample_index: u32,
    /// Who wrote it.
    pub source: CandidateSource,
    /// Model name, or `human`.
    pub model: String,
    /// The answer, without the thinking before it.
    pub text: String,
    /// What the model thought before its answer, without the markers; never judged and never published as an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// Generated token ids, those of the thinking included; empty for a human answer.
    pub token_ids: Vec<u32>,
    /// Tokens of the prompt as the model saw it; 0 for a human answer.
    pub num_prompt_tokens: u32,
    /// `None` for a human answer.
    pub finish_reason: Option<FinishReason>,
    /// Sum of natural-log probabilities of the generated tokens under the model (temperature 1, no penalties).
    pub logprob: Option<f64>,
}

/// A row that a stage gave up, and why; it is counted, never lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The row.
    pub record_id: String,
    /// Which sample of it.
    pub sample_index: u32,
    /// A stable snake_case word.
    pub reason: String,
    /// The message for people.
    pub detail: String,
}

/// A sample that a model gave no answer for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerateFailure {
    /// Which model.
    pub model: String,
    /// Row, sample and reason.
    #[serde(flatten)]
    pub failure: Failure,
}

/// A line of the generate stage's journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerateRow {
    /// An answer.
    Candidate(Candidate),
    /// None.
    Failure(GenerateFailure),
}

impl GenerateRow {
    /// What the row is about: record, model, sample.
    pub fn key(&self) -> (String, String, u32) {
        (self.record_id().to_owned(), self.model().to_owned(), self.sample_index())
    }

    /// The model that was asked.
    pub fn model(&self) -> &str {
        match self {
            Self::Candidate(candidate) => &candidate.model,
            Self::Failure(failure) => &failure.model,
        }
    }

    /// The row it is about.
    pub fn record_id(&self) -> &str {
        match self {
            Self::Candidate(candidate) => &candidate.record_id,
            Self::Failure(failed) => &failed.failure.record_id,
        }
    }

    /// Which sample of it.
    pub fn sample_index(&self) -> u32 {
        match self {
            Self::Candidate(candidate) => candidate.sample_index,
            Self::Failure(failed) => failed.failure.sample_index,
        }
    }

    /// The row it answers, if it is an answer.
    pub fn answered(&self) -> Option<&str> {
        match self {
            Self::Candidate(candidate) => Some(&candidate.record_id),
            Self::Failure(_) => None,
        }
    }
}

/// A generated text with its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Without end token, stop string and thinking.
    pub text: String,
    /// The thinking, if there was any.
    pub thinking: Option<String>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens of the prompt.
    pub num_prompt_tokens: u32,
    /// Generated tokens with their log-probabilities; those of a stop string are included.
    pub tokens: Vec<TokenLogprobs>,
    /// See [`engine::SequenceOutput::prompt_logprobs`].
    pub prompt_logprobs: Vec<Option<f32>>,
}

/// What became of one sample of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The request's id.
    pub id: String,
    /// Counts from 0.
    pub sample_index: u32,
    /// The text, or why there is none.
    pub result: Result<Generated, Failure>,
}

impl Answer {
    /// The journal's form of it, as written by `model`.
    pub fn into_row(self, model: &str) -> GenerateRow {
        match self.result {
            Err(failure) => GenerateRow::Failure(GenerateFailure { model: model.to_owned(), failure }),
            Ok(generated) => GenerateRow::Candidate(Candidate {
                record_id: self.id,
                sample_index: self.sample_index,
                source: CandidateSource::Model,
                model: model.to_owned(),
                text: generated.text,
                thinking: generated.thinking,
                token_ids: generated.tokens.iter().map(|chosen| chosen.token).collect(),
                num_prompt_tokens: generated.num_prompt_tokens,
                finish_reason: Some(generated.finish_reason),
                logprob: Some(generated.tokens.iter().map(|chosen| f64::from(chosen.logprob)).sum()),
            }),
        }
    }
}

impl Candidate {
    /// The human answer to a record as one more candidate.
    pub fn human(record_id: &str, text: &str) -> Self {
        Self {
            record_id: record_id.to_owned(),
            sample_index: 0,
            source: CandidateSource::Human,
            model: "human".to_owned(),
            text: text.to_owned(),
            thinking: None,
            token_ids: Vec::new(),
            num_prompt_tokens: 0,
            finish_reason: None,
            logprob: None,
        }
    }
}

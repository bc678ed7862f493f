//! How likely a model finds an answer that somebody else wrote: the log-probability of its tokens behind the prompt, without decoding.
//! Knows dialogues and the engine; does not know what the number is for.

use serde::{Deserialize, Serialize};

use super::{Ended, Ending, Failure, GenerateError, Observer, Prepared, Row, Source, TextModel, drive};
use crate::engine::{EngineError, Request, SamplingParams, Task};
use crate::prompt::{ChatTokenizer, DialogueEnd, Message, PromptError};

/// An answer to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LikelihoodItem {
    /// The record's id.
    pub id: String,
    /// The dialogue up to the answer.
    pub messages: Vec<Message>,
    /// The answer.
    pub answer: String,
}

/// What a model says of one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Likelihood {
    /// The record.
    pub record_id: String,
    /// The model that was asked.
    pub model: String,
    /// Sum of natural-log probabilities of the answer's tokens, each given the prompt and the tokens before it (temperature 1).
    pub logprob: f64,
    /// Tokens of the answer; no end token is among them.
    pub num_tokens: u32,
    /// Tokens of the prompt, up to where the answer begins.
    pub num_prompt_tokens: u32,
    /// UTF-8 bytes of the answer.
    pub num_bytes: u64,
}

/// An answer that could not be scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LikelihoodFailure {
    /// Which model.
    pub model: String,
    /// Row and reason.
    #[serde(flatten)]
    pub failure: Failure,
}

/// A line of the stage's journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LikelihoodRow {
    /// A likelihood.
    Likelihood(Likelihood),
    /// None.
    Failure(LikelihoodFailure),
}

impl LikelihoodRow {
    /// The model that was asked.
    pub fn model(&self) -> &str {
        match self {
            Self::Likelihood(row) => &row.model,
            Self::Failure(row) => &row.model,
        }
    }

    /// The record whose answer it is.
    pub fn record_id(&self) -> &str {
        match self {
            Self::Likelihood(row) => &row.record_id,
            Self::Failure(row) => &row.failure.record_id,
        }
    }
}

/// Scores every answer, handing each row to `done` as it is finished. The prompt's tokens are those that generation begins with, the
/// answer's those of its text alone, none of which is a control token. (lm-evaluation-harness encodes both together and takes what is
/// longer than the prompt: the same tokens wherever none reaches across the border.)
///
/// # Errors
/// [`GenerateError`] if no row could be done any more, or `done` fails. What goes wrong with one row is a [`LikelihoodRow::Failure`].
pub fn likelihoods(
    model: &mut TextModel,
    items: impl IntoIterator<Item = LikelihoodItem, IntoIter: Send>,
    observer: &mut dyn Observer,
    done: impl FnMut(LikelihoodRow) -> Result<(), GenerateError> + Send,
) -> Result<Ending, GenerateError> {
    let (queue_len, name) = (model.queue_len(), model.record().name.clone());
    let (engine, tokenizer) = model.parts();
    let name = name.as_str();
    let rows = Source::new(items.into_iter().map(move |item| prepare(tokenizer, name, item)), done);
    drive(engine, queue_len, vec![rows], observer)
}

/// A row that is being scored: all is known but the log-probability.
struct InFlight(Likelihood);

fn prepare(tokenizer: &ChatTokenizer, model: &str, item: LikelihoodItem) -> Result<Prepared<InFlight>, GenerateError> {
    let encoded = tokenizer
        .encode_chat(&item.messages, DialogueEnd::GenerationPrompt)
        .and_then(|prompt| Ok((prompt, tokenizer.encode_text(&item.answer)?)));
    let (prompt, answer) = match encoded {
        Ok(encoded) => encoded,
        Err(error @ PromptError::NoTemplate { .. }) => return Err(error.into()),
        Err(error) => return Ok(Prepared::Done(failed(model, item.id, "prompt_not_encodable", error.to_string()))),
    };
    if answer.is_empty() {
        return Ok(Prepared::Done(failed(model, item.id, "empty_answer", "the answer has no token".to_owned())));
    }
    let row = Likelihood {
        record_id: item.id,
        model: model.to_owned(),
        logprob: 0.0,
        num_tokens: answer.len() as u32,
        num_prompt_tokens: prompt.len() as u32,
        num_bytes: item.answer.len() as u64,
    };
    // Asked for the answer alone: the prompt passes no head, and what prompts share is computed once.
    let prompt_logprobs = Some(prompt.len());
    let params = SamplingParams { temperature: 0.0, max_tokens: 1, prompt_logprobs, ..SamplingParams::default() };
    let request = Request { prompt: [prompt, answer].concat(), task: Task::Generate(params), key: 0 };
    Ok(Prepared::Asks(InFlight(row), vec![request]))
}

fn failed(model: &str, record_id: String, reason: &str, detail: String) -> LikelihoodRow {
    let failure = Failure { record_id, sample_index: 0, reason: reason.to_owned(), detail };
    LikelihoodRow::Failure(LikelihoodFailure { model: model.to_owned(), failure })
}

impl Row for InFlight {
    type Done = LikelihoodRow;

    fn finish(mut self, parts: Vec<Ended>) -> Result<LikelihoodRow, GenerateError> {
        let logprobs = parts.into_iter().next().map(|part| part.output.prompt_logprobs).unwrap_or_default();
        let of_answer = logprobs.iter().skip(self.0.num_prompt_tokens as usize);
        self.0.logprob = of_answer.map(|logprob| f64::from(logprob.unwrap_or(0.0))).sum();
        Ok(LikelihoodRow::Likelihood(self.0))
    }

    fn refused(self, error: EngineError) -> Result<LikelihoodRow, GenerateError> {
        match error {
            EngineError::PromptTooLong { .. } => {
                Ok(failed(&self.0.model, self.0.record_id, "prompt_too_long", error.to_string()))
            }
            error => Err(error.into()),
        }
    }
}

//! Candidates: prompts x sampling parameters in, answers as text out. The place where text meets the engine's token ids.
//! Knows nothing of ratings or of the dataset that is written from its answers.

mod answer;
mod closing;
mod driver;
mod forecast;
mod form;
mod in_flight;
mod lengths;
mod likelihood;
mod lines;
mod requests;
mod source;
mod speed;
mod system;
mod text_model;
pub mod verify;

use std::time::Instant;

use crate::engine::{EngineError, EngineStats, Request, SamplingParams, Task};
use crate::prompt::{AnswerReader, ChatTokenizer, DialogueEnd, Message, PromptError, ThinkingMarkers};
pub use answer::{Answer, Candidate, CandidateSource, Failure, FinishReason, GenerateFailure, GenerateRow, Generated};
pub use driver::drive;
pub use forecast::Forecast;
pub use form::{Closing, FormError, GrammarForm};
pub use in_flight::ONLY_THINKING;
use in_flight::{InFlight, failed};
pub use lengths::{LanguageLength, LengthGuidance, LengthTexts, LengthUnit};
pub use likelihood::{Likelihood, LikelihoodFailure, LikelihoodItem, LikelihoodRow, likelihoods};
pub use lines::{LineError, LineWriter};
pub use requests::{PromptInput, PromptRequest, RequestError, read_lines, read_requests};
pub use source::{Ended, Prepared, Row, Source};
pub use speed::{Meter, StageSpeed};
pub use system::{SystemPromptError, SystemPrompts};
pub use text_model::{TextModel, TextModelError, TextModelOptions, card_license, model_name};

/// How answers are made.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Choice of tokens; the model's end tokens are added to its stop tokens unless `ignore_eos`.
    pub sampling: SamplingParams,
    /// Texts that end an answer and are cut off it.
    pub stop_strings: Vec<String>,
    /// Go on past the model's end tokens.
    pub ignore_eos: bool,
    /// Answers per prompt; they share the prompt's blocks.
    pub num_samples: u32,
}

/// Sees the progress of one or more stages in one queue, and may end it.
pub trait Observer {
    /// `num_rows` rows of each stage were finished since the last call.
    fn progress(&mut self, num_rows: &[u64], stats: &EngineStats);
    /// True to stop as soon as the present step is done; rows in flight are given up, to be done by the next run.
    fn should_stop(&mut self) -> bool;
    /// Something that people should know of.
    fn note(&mut self, _line: &str) {}
    /// When the stage has to be over, if anybody says so: rows that would not be done by then are not begun.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every row is done.
    Completed,
    /// The observer asked to stop.
    Interrupted,
    /// The deadline came near; rows are left.
    OutOfTime,
}

/// Why generation cannot go on. What goes wrong with one row is a [`Failure`] of that row instead.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Rows were left because the KV cache is too small for them; all others are done.
    #[error("{num_rows} rows were left, all others are done: {error}")]
    TooLarge {
        /// How many.
        num_rows: u64,
        /// Why the first was.
        error: EngineError,
    },
    /// The tokenizer or template cannot be used.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// An answer could not be stored.
    #[error(transparent)]
    Store(Box<dyn std::error::Error + Send + Sync>),
}

/// Answers every request, handing each answer to `done` as it is finished (not in the order of the requests).
///
/// # Errors
/// [`GenerateError`] if no row could be done any more, or `done` fails.
pub fn generate(
    model: &mut TextModel,
    requests: impl IntoIterator<Item = PromptRequest, IntoIter: Send>,
    options: &GenerateOptions,
    observer: &mut dyn Observer,
    done: impl FnMut(Answer) -> Result<(), GenerateError> + Send,
) -> Result<Ending, GenerateError> {
    let (queue_len, sampling) = (model.queue_len(), options.sampling(model.eos_ids()));
    let (engine, tokenizer) = model.parts();
    let answers = answers(tokenizer, requests.into_iter(), options, sampling, done);
    drive(engine, queue_len, vec![answers], observer)
}

/// The answers to `requests` as a source of rows for [`drive`]; `sampling` is that of `options` with all stop tokens.
pub fn answers<'a>(
    tokenizer: &'a ChatTokenizer,
    requests: impl Iterator<Item = PromptRequest> + Send + 'a,
    options: &'a GenerateOptions,
    sampling: SamplingParams,
    done: impl FnMut(Answer) -> Result<(), GenerateError> + Send + 'a,
) -> Source<'a> {
    Source::new(requests.flat_map(move |request| samples(tokenizer, &request, options, &sampling)), done)
}

impl GenerateOptions {
    /// The choice of tokens for a model with these end tokens.
    pub fn sampling(&self, eos_ids: &[u32]) -> SamplingParams {
        let mut sampling = self.sampling.clone();
        if !self.ignore_eos {
            sampling.stop_token_ids.extend(eos_ids);
        }
        sampling
    }
}

/// A row's identity for its random numbers.
pub fn sampling_key(id: &str, sample_index: u32) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes()).rotate_left(17)
        ^ u64::from(sample_index).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A request's samples: its prompt is rendered and encoded once for all of them.
fn samples<'t>(
    tokenizer: &'t ChatTokenizer,
    request: &PromptRequest,
    options: &GenerateOptions,
    sampling: &SamplingParams,
) -> Vec<Result<Prepared<InFlight<'t>>, GenerateError>> {
    let encoded = match encode(tokenizer, &request.input) {
        Err(error @ PromptError::NoTemplate { .. }) => return vec![Err(error.into())],
        encoded => encoded.map_err(|error| error.to_string()),
    };
    let sample = |sample_index| match &encoded {
        Err(detail) => {
            let answer = failed(request.id.clone(), sample_index, "prompt_not_encodable", detail.clone());
            Ok(Prepared::Done(answer))
        }
        Ok((prompt, opened)) => {
            let key = sampling_key(&request.id, sample_index);
            let asked = Request { prompt: prompt.clone(), task: Task::Generate(sampling.clone()), key };
            let reader = AnswerReader::new(tokenizer, *opened);
            let row = InFlight::new(request, sample_index, prompt.len() as u32, reader, &options.stop_strings);
            Ok(Prepared::Asks(row, vec![asked]))
        }
    };
    (0..options.num_samples).map(sample).collect()
}

/// Token ids of a request's prompt, and the thinking that it leaves open.
fn encode(tokenizer: &ChatTokenizer, input: &PromptInput) -> Result<(Vec<u32>, Option<ThinkingMarkers>), PromptError> {
    match input {
        PromptInput::TokenIds(ids) => Ok((ids.clone(), tokenizer.opened_thinking_in(ids)?)),
        PromptInput::Messages(messages) => {
            let ids = tokenizer.encode_chat(messages, DialogueEnd::GenerationPrompt)?;
            Ok((ids, tokenizer.opened_thinking(messages)?))
        }
        PromptInput::Continued(messages) => Ok((tokenizer.encode_chat(messages, DialogueEnd::ContinueFinal)?, None)),
        PromptInput::Raw(text) => {
            let mut ids: Vec<u32> = tokenizer.bos_id().into_iter().collect();
            ids.extend(tokenizer.encode_text(text)?);
            Ok((ids, None))
        }
    }
}

/// The dialogue of a prompt with an optional system turn.
pub fn dialogue(system: Option<&str>, prompt: &str) -> Vec<Message> {
    let turn = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
    system.map(|text| turn("system", text)).into_iter().chain([turn("user", prompt)]).collect()
}

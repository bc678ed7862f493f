//! Candidates: prompts x sampling parameters in, answers as text out. The place where text meets the engine's token ids.
//! Knows nothing of ratings or of the dataset that is written from its answers.

mod answer;
mod in_flight;
mod lines;
mod requests;
mod system;
mod text_model;
pub mod verify;

use std::collections::HashMap;

use crate::engine::{Engine, EngineError, EngineStats, Event, Request, SamplingParams, SequenceId, Task};
use crate::prompt::{AnswerReader, ChatTokenizer, DialogueEnd, Message, PromptError, ThinkingMarkers};
pub use answer::{Answer, Candidate, CandidateSource, Failure, FinishReason, GenerateRow, Generated};
use in_flight::InFlight;
pub use in_flight::ONLY_THINKING;
pub use lines::{LineError, LineWriter};
pub use requests::{PromptInput, PromptRequest, RequestError, read_lines, read_requests};
pub use system::{SystemPromptError, SystemPrompts};
pub use text_model::{TextModel, TextModelError, TextModelOptions};

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

/// Sees a stage's progress and may end it.
pub trait Observer {
    /// `num_rows` rows were finished since the last call.
    fn progress(&mut self, num_rows: u64, stats: &EngineStats);
    /// True to stop as soon as the present step is done; rows in flight are given up, to be done by the next run.
    fn should_stop(&mut self) -> bool;
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every row is done.
    Completed,
    /// The observer asked to stop.
    Interrupted,
}

/// Why generation cannot go on. What goes wrong with one row is a [`Failure`] of that row instead.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The tokenizer or template cannot be used.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// An answer could not be stored.
    #[error(transparent)]
    Store(Box<dyn std::error::Error + Send + Sync>),
}

/// Sequences queued in the engine beyond those that run, per place in the batch: enough to choose from, little to hold.
const QUEUE_PER_PLACE: usize = 8;

/// Answers every request, handing each answer to `done` as it is finished (not in the order of the requests).
///
/// # Errors
/// [`GenerateError`] if no row could be done any more, or `done` fails.
pub fn generate(
    model: &mut TextModel,
    requests: impl IntoIterator<Item = PromptRequest>,
    options: &GenerateOptions,
    observer: &mut dyn Observer,
    done: &mut dyn FnMut(Answer) -> Result<(), GenerateError>,
) -> Result<Ending, GenerateError> {
    let mut sampling = options.sampling.clone();
    if !options.ignore_eos {
        sampling.stop_token_ids.extend(model.eos_ids());
    }
    let queue_len = model.max_batch() * (QUEUE_PER_PLACE + 1);
    let (engine, tokenizer) = model.parts();
    let mut requests = requests.into_iter().flat_map(|request| samples(request, options.num_samples));
    let mut in_flight: HashMap<SequenceId, InFlight<'_>> = HashMap::new();
    loop {
        let mut num_rows = 0;
        while engine.num_sequences() < queue_len {
            let Some((request, sample_index)) = requests.next() else { break };
            match admit(engine, tokenizer, &request, sample_index, &sampling, &options.stop_strings)? {
                Ok((id, answer)) => _ = in_flight.insert(id, answer),
                Err(failure) => {
                    num_rows += 1;
                    done(Answer { id: request.id, sample_index, result: Err(failure) })?;
                }
            }
        }
        let events = engine.step()?;
        for event in events {
            let (id, reason, output) = match event {
                Event::Token { id, token } => {
                    let Some(answer) = in_flight.get_mut(&id) else { continue };
                    if !answer.push(token)? {
                        continue;
                    }
                    // A token that reached the limit as well has ended its sequence: then that event follows.
                    let Some(output) = engine.stop(id) else { continue };
                    (id, FinishReason::Stop, output)
                }
                Event::Finished { id, reason, output } => (id, reason.into(), output),
            };
            if let Some(answer) = in_flight.remove(&id) {
                num_rows += 1;
                done(answer.finish(reason, output)?)?;
            }
        }
        observer.progress(num_rows, &engine.stats());
        if engine.num_sequences() == 0 && in_flight.is_empty() && num_rows == 0 {
            return Ok(Ending::Completed);
        }
        if observer.should_stop() {
            in_flight.keys().for_each(|&id| _ = engine.stop(id));
            return Ok(Ending::Interrupted);
        }
    }
}

fn samples(request: PromptRequest, num_samples: u32) -> impl Iterator<Item = (PromptRequest, u32)> {
    (0..num_samples).map(move |sample| (request.clone(), sample))
}

/// A row's identity for its random numbers.
pub fn sampling_key(id: &str, sample_index: u32) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes()).rotate_left(17)
        ^ u64::from(sample_index).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Encodes and queues one sample; the inner error is the row's own.
fn admit<'t>(
    engine: &mut Engine,
    tokenizer: &'t ChatTokenizer,
    request: &PromptRequest,
    sample_index: u32,
    sampling: &SamplingParams,
    stop_strings: &[String],
) -> Result<Result<(SequenceId, InFlight<'t>), Failure>, GenerateError> {
    let failure = |reason: &str, error: &dyn std::error::Error| {
        let detail = error.to_string();
        Ok(Err(Failure { record_id: request.id.clone(), sample_index, reason: reason.to_owned(), detail }))
    };
    let (prompt, opened) = match encode(tokenizer, &request.input) {
        Ok(encoded) => encoded,
        Err(error @ PromptError::NoTemplate { .. }) => return Err(error.into()),
        Err(error) => return failure("prompt_not_encodable", &error),
    };
    let num_prompt_tokens = prompt.len() as u32;
    let key = sampling_key(&request.id, sample_index);
    match engine.add(Request { prompt, task: Task::Generate(sampling.clone()), key }) {
        Ok(id) => {
            let row = (request.id.clone(), sample_index);
            let reader = AnswerReader::new(tokenizer, opened);
            Ok(Ok((id, InFlight::new(row, num_prompt_tokens, reader, stop_strings))))
        }
        Err(error @ EngineError::PromptTooLong { .. }) => failure("prompt_too_long", &error),
        Err(error @ EngineError::EmptyPrompt) => failure("empty_prompt", &error),
        Err(error @ EngineError::UnknownToken { .. }) if matches!(request.input, PromptInput::TokenIds(_)) => {
            failure("unknown_token", &error)
        }
        Err(error) => Err(error.into()),
    }
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

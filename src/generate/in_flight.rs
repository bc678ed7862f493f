//! An answer while it is written: tokens in, text, thinking and stop strings, and in the end an answer or why there is none.
//! Knows one row's answer; knows nothing of the engine's queue or of other rows.

use super::{Answer, Ended, Failure, FinishReason, GenerateError, Generated, PromptInput, PromptRequest, Row};
use crate::engine::EngineError;
use crate::prompt::{AnswerReader, StopMatcher};

/// Reason of a row whose model thought and never answered.
pub const ONLY_THINKING: &str = "only_thinking";

/// An answer that is being written.
pub(super) struct InFlight<'t> {
    id: String,
    sample_index: u32,
    num_prompt_tokens: u32,
    /// The prompt came as tokens, which may be none of the model's.
    is_given_in_tokens: bool,
    /// Tokens read: all there are, or those up to the stop string.
    num_tokens: usize,
    text: String,
    /// Where a stop string cut the text.
    cut: Option<usize>,
    reader: AnswerReader<'t>,
    stops: StopMatcher,
}

impl<'t> InFlight<'t> {
    /// The start of a request's sample.
    pub(super) fn new(
        request: &PromptRequest,
        sample_index: u32,
        num_prompt_tokens: u32,
        reader: AnswerReader<'t>,
        stops: &[String],
    ) -> Self {
        Self {
            id: request.id.clone(),
            sample_index,
            num_prompt_tokens,
            is_given_in_tokens: matches!(request.input, PromptInput::TokenIds(_)),
            num_tokens: 0,
            text: String::new(),
            cut: None,
            reader,
            stops: StopMatcher::new(stops),
        }
    }
}

impl Row for InFlight<'_> {
    type Done = Answer;

    /// Takes a token; true if a stop string is complete. Stop strings are looked for in the answer, not in the thinking.
    fn token(&mut self, token: u32) -> Result<bool, GenerateError> {
        self.num_tokens += 1;
        let Some(piece) = self.reader.push(token)? else { return Ok(false) };
        self.text.push_str(&piece);
        self.cut = self.stops.push(&piece).map(|found| found.cut_bytes);
        Ok(self.cut.is_some())
    }

    /// The row's end: its answer, or a failure if there is nothing but thinking.
    fn finish(mut self, parts: Vec<Ended>) -> Result<Answer, GenerateError> {
        // INFALLIBLE: a sample is one request, and a row is finished when all of its requests have ended.
        let Ended { reason, mut output } = parts.into_iter().next().expect("a sample has one request");
        if let Some(error) = output.constraint_error {
            return Ok(failed(self.id, self.sample_index, "constraint_not_kept", error.to_string()));
        }
        let mut reason = FinishReason::from(reason);
        if output.tokens.len() > self.num_tokens {
            // The engine went on while the stop string was found; the answer ends where it stands.
            output.tokens.truncate(self.num_tokens);
            reason = FinishReason::Stop;
        }
        let end = self.reader.finish()?;
        if self.cut.is_none()
            && let Some(held_back) = end.rest
        {
            self.text.push_str(&held_back);
            self.cut = self.stops.push(&held_back).map(|found| found.cut_bytes);
        }
        if let Some(bytes) = self.cut {
            self.text.truncate(bytes);
        }
        if end.thinking.is_some() && (end.is_open || self.text.trim().is_empty()) {
            let detail = format!(
                "the answer holds nothing but thinking: it ended ({}) after {} tokens {}; hint: --thinking off, or more \
                 --max-tokens",
                if reason == FinishReason::Stop { "end token" } else { "token limit" },
                output.tokens.len(),
                if end.is_open { "inside the thinking" } else { "with no text behind it" },
            );
            return Ok(failed(self.id, self.sample_index, ONLY_THINKING, detail));
        }
        let generated = Generated {
            finish_reason: if self.cut.is_some() { FinishReason::Stop } else { reason },
            text: self.text,
            thinking: end.thinking,
            num_prompt_tokens: self.num_prompt_tokens,
            tokens: output.tokens,
            prompt_logprobs: output.prompt_logprobs,
        };
        Ok(Answer { id: self.id, sample_index: self.sample_index, result: Ok(generated) })
    }

    fn refused(self, error: EngineError) -> Result<Answer, GenerateError> {
        let reason = match &error {
            EngineError::PromptTooLong { .. } => "prompt_too_long",
            EngineError::EmptyPrompt => "empty_prompt",
            EngineError::UnknownToken { .. } if self.is_given_in_tokens => "unknown_token",
            _ => return Err(error.into()),
        };
        Ok(failed(self.id, self.sample_index, reason, error.to_string()))
    }
}

/// What a sample without an answer becomes.
pub(super) fn failed(id: String, sample_index: u32, reason: &str, detail: String) -> Answer {
    let failure = Failure { record_id: id.clone(), sample_index, reason: reason.to_owned(), detail };
    Answer { id, sample_index, result: Err(failure) }
}

//! An answer while it is written: tokens in, text, thinking and stop strings, and in the end an answer or why there is none.
//! Knows one row's answer; knows nothing of the engine's queue or of other rows.

use super::{Answer, Failure, FinishReason, Generated};
use crate::engine::SequenceOutput;
use crate::prompt::{AnswerReader, PromptError, StopMatcher};

/// Reason of a row whose model thought and never answered.
pub const ONLY_THINKING: &str = "only_thinking";

/// An answer that is being written.
pub(super) struct InFlight<'t> {
    id: String,
    sample_index: u32,
    num_prompt_tokens: u32,
    text: String,
    /// Where a stop string cut the text.
    cut: Option<usize>,
    reader: AnswerReader<'t>,
    stops: StopMatcher,
}

impl<'t> InFlight<'t> {
    /// The start of a row, named by record and sample.
    pub(super) fn new(row: (String, u32), num_prompt_tokens: u32, reader: AnswerReader<'t>, stops: &[String]) -> Self {
        let (id, sample_index) = row;
        let stops = StopMatcher::new(stops);
        Self { id, sample_index, num_prompt_tokens, text: String::new(), cut: None, reader, stops }
    }

    /// Takes a token; true if a stop string is complete. Stop strings are looked for in the answer, not in the thinking.
    pub(super) fn push(&mut self, token: u32) -> Result<bool, PromptError> {
        let Some(piece) = self.reader.push(token)? else { return Ok(false) };
        self.text.push_str(&piece);
        self.cut = self.stops.push(&piece).map(|found| found.cut_bytes);
        Ok(self.cut.is_some())
    }

    /// The row's end: its answer, or a failure if there is nothing but thinking.
    pub(super) fn finish(mut self, reason: FinishReason, output: SequenceOutput) -> Result<Answer, PromptError> {
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
        let (id, sample_index) = (self.id, self.sample_index);
        if end.thinking.is_some() && (end.is_open || self.text.trim().is_empty()) {
            let detail = format!(
                "the answer holds nothing but thinking: it ended ({}) after {} tokens {}; hint: --thinking off, or more \
                 --max-tokens",
                if reason == FinishReason::Stop { "end token" } else { "token limit" },
                output.tokens.len(),
                if end.is_open { "inside the thinking" } else { "with no text behind it" },
            );
            let failure = Failure { record_id: id.clone(), sample_index, reason: ONLY_THINKING.to_owned(), detail };
            return Ok(Answer { id, sample_index, result: Err(failure) });
        }
        let generated = Generated {
            finish_reason: if self.cut.is_some() { FinishReason::Stop } else { reason },
            text: self.text,
            thinking: end.thinking,
            num_prompt_tokens: self.num_prompt_tokens,
            tokens: output.tokens,
            prompt_logprobs: output.prompt_logprobs,
        };
        Ok(Answer { id, sample_index, result: Ok(generated) })
    }
}

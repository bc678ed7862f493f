//! Which requests an engine can ever serve. Knows sizes; decides nothing about when.

use super::error::{WRONG_FOR_SCORES, WRONG_FOR_TEXT};
use super::{EngineError, Request, Task};

/// What an engine admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// V, token ids are below it.
    pub vocab_size: usize,
    /// Most tokens of a sequence.
    pub max_len: usize,
    /// Tokens of the whole cache.
    pub capacity: usize,
    /// Whether the head scores instead of predicting.
    pub is_reward: bool,
}

impl Admission {
    /// Most tokens that the request's sequence may come to have.
    ///
    /// # Errors
    /// [`EngineError`] if it can never be served.
    pub fn check(&self, request: &Request) -> Result<usize, EngineError> {
        let Self { vocab_size, max_len, capacity, is_reward } = *self;
        let num_tokens = request.prompt.len();
        if num_tokens == 0 {
            return Err(EngineError::EmptyPrompt);
        }
        let (targets, new_tokens) = match &request.task {
            Task::Classify if !is_reward => return Err(WRONG_FOR_SCORES),
            Task::Generate(_) | Task::Score { .. } if is_reward => return Err(WRONG_FOR_TEXT),
            Task::Generate(params) => (&[][..], params.max_tokens.max(1)),
            Task::Score { targets } => (&targets[..], 0),
            Task::Classify => (&[][..], 0),
        };
        if let Some(&token) = request.prompt.iter().chain(targets).find(|&&token| token as usize >= vocab_size) {
            return Err(EngineError::UnknownToken { token, vocab_size });
        }
        if num_tokens + new_tokens.min(1) > max_len {
            return Err(EngineError::PromptTooLong { num_tokens, max_len });
        }
        let longest = num_tokens.saturating_add(new_tokens).min(max_len);
        match longest > capacity {
            true => Err(EngineError::KvTooSmall { num_tokens: longest, capacity }),
            false => Ok(longest),
        }
    }
}

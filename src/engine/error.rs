//! Why a request or an engine is refused, in words for the user.
//! Knows numbers and hints; decides nothing.

use crate::ops::{DeviceError, is_out_of_memory};

/// Why the engine refuses a request or stops.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Blocks that hold nothing.
    #[error("a block size of 0 tokens: want 16, 32, 64, 128 or 256")]
    EmptyBlocks,
    /// Nothing to compute.
    #[error("the prompt holds no tokens")]
    EmptyPrompt,
    /// It cannot be answered within the context.
    #[error(
        "the prompt has {num_tokens} tokens, the context holds {max_len}\nhint: shorten the prompt, or raise --max-len if the model allows"
    )]
    PromptTooLong {
        /// Of the prompt.
        num_tokens: usize,
        /// Of the run.
        max_len: usize,
    },
    /// It cannot be answered within the cache.
    #[error(
        "a sequence of up to {num_tokens} tokens does not fit the KV cache of {capacity} tokens\nhint: raise --kv-memory or --kv-tokens, or lower --max-tokens"
    )]
    KvTooSmall {
        /// Prompt and answer.
        num_tokens: usize,
        /// Of the cache.
        capacity: usize,
    },
    /// Tokenizer and model do not belong together.
    #[error(
        "token id {token} is outside the model's vocabulary of {vocab_size}\nhint: tokenizer.json and the weights are of different models"
    )]
    UnknownToken {
        /// The id.
        token: u32,
        /// Of the model.
        vocab_size: usize,
    },
    /// The model's head gives something else than what is asked for.
    #[error("the model {has}\nhint: {hint}")]
    WrongHead {
        /// What it has.
        has: &'static str,
        /// What to use instead.
        hint: &'static str,
    },
    /// A fleet of nothing.
    #[error("no device to compute on")]
    NoEngine,
    /// An engine's thread has ended.
    #[error("an engine has stopped working; what it said is above")]
    Gone,
    /// The device's memory is full.
    #[error(
        "the device has no room for the KV cache or a step\nhint: lower --kv-memory, --max-batch or --step-tokens, or see what else runs on the device (nvidia-smi)"
    )]
    OutOfMemory,
    /// The device does not tell what it has.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(candle_core::Error),
}

impl From<candle_core::Error> for EngineError {
    fn from(error: candle_core::Error) -> Self {
        match error {
            // Where in the program it came up tells users nothing.
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            error if is_out_of_memory(&error) => Self::OutOfMemory,
            error => Self::Tensor(error),
        }
    }
}

/// What a reward model answers when it is asked for text.
pub(super) const WRONG_FOR_TEXT: EngineError = EngineError::WrongHead {
    has: "is a reward model: it scores dialogues and cannot write or predict text",
    hint: "score answers with it (`pairwright score`), or give a model whose architecture ends in ForCausalLM",
};
/// What a language model answers when it is asked for scores.
pub(super) const WRONG_FOR_SCORES: EngineError = EngineError::WrongHead {
    has: "has no score head: it predicts text",
    hint: "give a reward model, whose architecture ends in ForSequenceClassification",
};

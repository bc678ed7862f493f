//! What a CUDA device has room for. The largest steps are run before there is a cache, so that all of their buffers are there; the cache takes
//! most of what is left. Where something does not fit, less of it is tried. Knows sizes; knows no sequence.

use super::batch::StepBatch;
use super::runner::Runner;
use super::scheduler::Limits;
use super::{EngineError, EngineOptions};
use crate::model::Decoder;
use crate::ops::is_out_of_memory;

/// Of the free memory, what the cache takes: the rest is for captured steps, other programs, and what nobody thought of.
const CACHE_SHARE: f64 = 0.9;

/// Tokens of a step under which a device without room is not helped by smaller ones.
const LEAST_TOKENS: usize = 64;

/// Blocks of `size` tokens that a cache gets of `free_bytes`, of which a token takes `token_bytes`.
pub fn blocks_in(free_bytes: usize, size: usize, token_bytes: usize) -> usize {
    (free_bytes as f64 * CACHE_SHARE) as usize / (size * token_bytes).max(1)
}

/// Half of the limits, and whether that is less: steps of fewer tokens, and so of no more sequences.
pub fn smaller(limits: Limits) -> (Limits, bool) {
    let max_step_tokens = (limits.max_step_tokens / 2).max(LEAST_TOKENS).min(limits.max_step_tokens);
    let max_batch = limits.max_batch.min(max_step_tokens);
    (Limits { max_batch, max_step_tokens, ..limits }, max_step_tokens < limits.max_step_tokens)
}

/// What was found.
pub struct Fitted {
    /// With its cache.
    pub runner: Runner,
    /// Blocks of the cache.
    pub num_blocks: usize,
    /// Most tokens of a step.
    pub max_step_tokens: usize,
}

/// A runner for steps of `max_step_tokens`, or of the most that fit, and for sequences of `options.max_batch`, with as large a cache as
/// there is room for but not of more than `most_blocks`.
///
/// # Errors
/// If not even a step of one token for each sequence fits, or no block.
pub fn fit(
    mut decoder: Decoder,
    options: &EngineOptions,
    max_step_tokens: usize,
    most_blocks: usize,
) -> Result<Fitted, EngineError> {
    let (size, least) = (options.block_size, options.max_batch.max(1));
    let (mut tokens, longest) = (max_step_tokens.max(least), decoder.max_len().max(1));
    let mut runner = loop {
        let mut runner = Runner::new(decoder, longest.min(tokens).div_ceil(size), options)?;
        // Prompts side by side, and a token of each of as many sequences as there may be.
        let steps = [StepBatch::of_length(tokens, longest, size, least), StepBatch::of_length(least, 1, size, least)];
        match steps.iter().try_for_each(|step| runner.warm_up(step)) {
            Ok(()) => break runner,
            Err(error) if is_out_of_memory(&error) && tokens > least => {
                decoder = runner.into_decoder();
                tokens = (tokens / 2).max(least);
            }
            Err(error) => return Err(error.into()),
        }
    };
    runner.drop_cache();
    let mut num_blocks = most_blocks;
    for (compute, token_bytes) in runner.decoder().devices() {
        let free_bytes = compute.about()?.map_or(0, |about| about.free_bytes);
        num_blocks = num_blocks.min(blocks_in(free_bytes, size, token_bytes));
    }
    while num_blocks > 0 {
        match runner.set_cache(num_blocks, size, least) {
            Ok(()) => return Ok(Fitted { runner, num_blocks, max_step_tokens: tokens }),
            // Memory that is free may lie in pieces, or have gone to somebody else meanwhile.
            Err(error) if is_out_of_memory(&error) => num_blocks = num_blocks * 3 / 4,
            Err(error) => return Err(error.into()),
        }
    }
    Err(EngineError::KvTooSmall { num_tokens: size, capacity: 0 })
}

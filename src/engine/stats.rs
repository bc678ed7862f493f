//! What an engine has done so far, in tokens and seconds. Counts only; decides nothing.

use serde::Serialize;

/// Totals since the engine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct EngineStats {
    /// Steps run.
    pub num_steps: u64,
    /// Sequences in each step, summed over the steps: by `num_steps`, the mean batch; by `max_batch` too, how full it was.
    pub num_sequence_steps: u64,
    /// Prompt tokens computed, recomputed ones after a preemption included.
    pub num_prefill_tokens: u64,
    /// Tokens computed one at a time.
    pub num_decode_tokens: u64,
    /// Tokens whose keys and values steps looked at: of each sequence in a step its length then, summed.
    pub num_context_tokens: u64,
    /// Tokens generated.
    pub num_output_tokens: u64,
    /// Prompt tokens found in the prefix cache.
    pub num_reused_tokens: u64,
    /// Times a sequence gave its blocks back.
    pub num_preemptions: u64,
    /// Seconds in steps that hold prompt tokens.
    pub prefill_s: f64,
    /// Seconds in steps that only decode.
    pub decode_s: f64,
    /// Decode tokens of the steps that `decode_s` counts.
    pub num_pure_decode_tokens: u64,
    /// Steps that `decode_s` counts.
    pub num_pure_decode_steps: u64,
    /// Seconds of planning steps and gathering their input. Most of the planning is done while the device computes, so these
    /// are not all part of `prefill_s` and `decode_s`.
    pub scheduler_s: f64,
    /// Seconds of choosing tokens from logits, a part of `prefill_s` and `decode_s`.
    pub sampler_s: f64,
    /// Seconds in products with weights.
    pub products_s: f64,
    /// Seconds in attention over the cache.
    pub attention_s: f64,
    /// Most sequences in one step.
    pub peak_batch: usize,
    /// Most blocks held at once.
    pub peak_blocks: usize,
    /// Blocks there are.
    pub num_blocks: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// Most tokens of a step; fewer than was asked for where a device had no room for them.
    pub max_step_tokens: usize,
    /// Decode steps that a CUDA device got as a whole.
    pub num_captured_steps: u64,
}

impl EngineStats {
    /// Of this engine and of another one beside it: counts are sums, seconds those of the busier one.
    pub fn beside(&self, other: &Self) -> Self {
        Self {
            num_steps: self.num_steps + other.num_steps,
            num_sequence_steps: self.num_sequence_steps + other.num_sequence_steps,
            num_prefill_tokens: self.num_prefill_tokens + other.num_prefill_tokens,
            num_decode_tokens: self.num_decode_tokens + other.num_decode_tokens,
            num_context_tokens: self.num_context_tokens + other.num_context_tokens,
            num_output_tokens: self.num_output_tokens + other.num_output_tokens,
            num_reused_tokens: self.num_reused_tokens + other.num_reused_tokens,
            num_preemptions: self.num_preemptions + other.num_preemptions,
            prefill_s: self.prefill_s.max(other.prefill_s),
            decode_s: self.decode_s.max(other.decode_s),
            num_pure_decode_tokens: self.num_pure_decode_tokens + other.num_pure_decode_tokens,
            num_pure_decode_steps: self.num_pure_decode_steps + other.num_pure_decode_steps,
            scheduler_s: self.scheduler_s.max(other.scheduler_s),
            sampler_s: self.sampler_s.max(other.sampler_s),
            products_s: self.products_s.max(other.products_s),
            attention_s: self.attention_s.max(other.attention_s),
            peak_batch: self.peak_batch + other.peak_batch,
            peak_blocks: self.peak_blocks + other.peak_blocks,
            num_blocks: self.num_blocks + other.num_blocks,
            block_size: self.block_size,
            max_step_tokens: self.max_step_tokens.min(other.max_step_tokens),
            num_captured_steps: self.num_captured_steps + other.num_captured_steps,
        }
    }

    /// What was added since `earlier`: tokens, steps and seconds; peaks and sizes stay as they are.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            num_steps: self.num_steps - earlier.num_steps,
            num_sequence_steps: self.num_sequence_steps - earlier.num_sequence_steps,
            num_prefill_tokens: self.num_prefill_tokens - earlier.num_prefill_tokens,
            num_decode_tokens: self.num_decode_tokens - earlier.num_decode_tokens,
            num_context_tokens: self.num_context_tokens - earlier.num_context_tokens,
            num_output_tokens: self.num_output_tokens - earlier.num_output_tokens,
            num_reused_tokens: self.num_reused_tokens - earlier.num_reused_tokens,
            num_preemptions: self.num_preemptions - earlier.num_preemptions,
            prefill_s: self.prefill_s - earlier.prefill_s,
            decode_s: self.decode_s - earlier.decode_s,
            num_pure_decode_tokens: self.num_pure_decode_tokens - earlier.num_pure_decode_tokens,
            num_pure_decode_steps: self.num_pure_decode_steps - earlier.num_pure_decode_steps,
            scheduler_s: self.scheduler_s - earlier.scheduler_s,
            sampler_s: self.sampler_s - earlier.sampler_s,
            products_s: self.products_s - earlier.products_s,
            attention_s: self.attention_s - earlier.attention_s,
            num_captured_steps: self.num_captured_steps - earlier.num_captured_steps,
            ..*self
        }
    }
}

//! The packed input of one step, gathered anew from the scheduled sequences: no padding, nothing kept from the last step.
//! Knows sequences and the operations' batch format; computes nothing.

use std::ops::Range;

use super::scheduler::{Scheduled, Scheduler};
use super::sequence::{Sequence, SequenceId};
use crate::ops::paged::PagedBatch;

/// What a row of logits is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The sequence's next token, or its targets' scores.
    Next,
    /// The log-probability of this prompt token, the one after the row's.
    PromptToken(u32),
}

/// A row whose logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogitsRow {
    /// Row in the step's tokens.
    pub row: u32,
    /// Whose.
    pub id: SequenceId,
    /// What for.
    pub purpose: Purpose,
}

/// One step's input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepBatch {
    /// `[T]`
    pub token_ids: Vec<u32>,
    /// Positions, slots, lengths and block tables.
    pub paged: PagedBatch,
    /// Only these rows go through the head.
    pub logits_rows: Vec<LogitsRow>,
    /// Tokens that belong to prompts (or to recomputed sequences).
    pub num_prefill_tokens: usize,
}

impl StepBatch {
    /// A step of no sequences: `tokens` of them, in rows of up to `longest` that all lie in the same first blocks, of which the last
    /// `num_logits` rows' logits are wanted. For finding out what a device has room for.
    pub fn of_length(tokens: usize, longest: usize, block_size: usize, num_logits: usize) -> Self {
        let mut batch = Self { token_ids: vec![0; tokens], ..Self::default() };
        batch.paged = PagedBatch { block_size, cu_seqlens_q: vec![0], cu_blocks: vec![0], ..PagedBatch::default() };
        for first in (0..tokens).step_by(longest) {
            let len = longest.min(tokens - first) as u32;
            batch.paged.positions.extend(0..len);
            batch.paged.slot_mapping.extend(0..len);
            batch.paged.cu_seqlens_q.push(first as u32 + len);
            batch.paged.context_lens.push(len);
            batch.paged.block_tables.extend(0..len.div_ceil(block_size as u32));
            batch.paged.cu_blocks.push(batch.paged.block_tables.len() as u32);
            batch.num_prefill_tokens += if len > 1 { len as usize } else { 0 };
        }
        batch.paged.is_generated = vec![longest == 1; batch.paged.num_sequences()];
        let wanted = tokens.saturating_sub(num_logits)..tokens;
        batch.logits_rows = wanted.map(|row| LogitsRow { row: row as u32, id: 0, purpose: Purpose::Next }).collect();
        batch
    }

    /// Gathers the scheduled parts.
    pub fn new(step: &[Scheduled], scheduler: &Scheduler) -> Self {
        let size = scheduler.blocks().block_size();
        let mut batch = Self { paged: PagedBatch { block_size: size, ..PagedBatch::default() }, ..Self::default() };
        batch.paged.cu_seqlens_q.push(0);
        batch.paged.cu_blocks.push(0);
        for part in step {
            let Some(sequence) = scheduler.sequence(part.id) else { continue };
            let end = part.start + part.num_tokens;
            let first_row = batch.token_ids.len();
            let prompt_end = sequence.prompt_len.clamp(part.start, end);
            batch.push(sequence, part.start..prompt_end, false);
            batch.push(sequence, prompt_end..end, true);
            if part.num_tokens > 1 || part.start < sequence.prompt_len {
                batch.num_prefill_tokens += part.num_tokens;
            }
            if let Some(from) = sequence.prompt_logprobs_from() {
                // After a preemption in mid-prompt, what was reported before is computed again but not reported again.
                let next = sequence.output.prompt_logprobs.len().max(from).saturating_sub(1);
                for position in part.start.max(next)..end.min(sequence.prompt_len - 1) {
                    let row = (first_row + position - part.start) as u32;
                    let purpose = Purpose::PromptToken(sequence.tokens[position + 1]);
                    batch.logits_rows.push(LogitsRow { row, id: part.id, purpose });
                }
            }
            if end == sequence.tokens.len() {
                let row = batch.token_ids.len() as u32 - 1;
                batch.logits_rows.push(LogitsRow { row, id: part.id, purpose: Purpose::Next });
            }
        }
        batch
    }

    /// Appends these of a sequence's tokens, if there are any.
    fn push(&mut self, sequence: &Sequence, range: Range<usize>, is_generated: bool) {
        if range.is_empty() {
            return;
        }
        let (end, size) = (range.end, self.paged.block_size);
        self.token_ids.extend(&sequence.tokens[range.clone()]);
        for position in range {
            let slot = sequence.block_table[position / size] as usize * size + position % size;
            self.paged.positions.push(position as u32);
            self.paged.slot_mapping.push(slot as u32);
        }
        self.paged.cu_seqlens_q.push(self.token_ids.len() as u32);
        self.paged.context_lens.push(end as u32);
        self.paged.block_tables.extend(&sequence.block_table[..end.div_ceil(size)]);
        self.paged.cu_blocks.push(self.paged.block_tables.len() as u32);
        self.paged.is_generated.push(is_generated);
    }
}

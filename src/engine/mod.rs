//! The engine: token ids in, token ids and distributions out, as many sequences at once as fit.
//! `step()` is the whole loop: schedule, gather, run, choose. Knows no text, no language and no file; one thread owns it, and
//! while that one waits for the device another plans the step after.

mod admission;
mod awake;
mod batch;
pub mod block_manager;
mod choice;
mod constraint;
mod device;
mod error;
mod fleet;
mod room;
pub mod runner;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
pub mod stats;
mod survey;
mod waiting;

use std::time::Instant;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::model::{Decoder, DecoderSpec, Head};
use crate::ops::Compute;
use crate::ops::OpTimes;
pub use crate::ops::sampling::TokenSet;
use admission::Admission;
use awake::with_pool_awake;
use batch::{LogitsRow, StepBatch};
use block_manager::BlockManager;
use choice::{Chosen, ask, choose, chosen, record};
pub use constraint::{AnswerForm, Constraint, ConstraintError, Standing, TokenConstraint};
pub use error::EngineError;
pub use fleet::Fleet;
use room::Fitted;
pub use room::blocks_in;
use runner::Runner;
use scheduler::{Counters, Limits, Scheduled, Scheduler};
use sequence::Sequence;
pub use sequence::{FinishReason, Request, SamplingParams, SequenceId, SequenceOutput, Task, TokenLogprobs};
pub use stats::EngineStats;

/// How much the KV cache may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvBudget {
    /// Tokens, rounded up to whole blocks.
    Tokens(usize),
    /// Bytes, rounded down to whole blocks.
    Bytes(usize),
    /// On a CUDA device, what weights and the largest step leave free; elsewhere 2 GiB.
    Free,
}

/// Of a cache whose size nobody gave, on devices that share their memory.
const USUAL_KV_BYTES: usize = 2 << 30;

/// How an engine runs; nothing here changes what it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Most sequences at once.
    pub max_batch: usize,
    /// Most tokens per step.
    pub max_step_tokens: usize,
    /// Tokens per block: 16, 32, 64, 128 or 256.
    pub block_size: usize,
    /// Size of the KV cache.
    pub kv_budget: KvBudget,
    /// Share blocks between equal beginnings.
    pub prefix_cache: bool,
    /// On a CUDA device, capture decode steps and launch them as a whole.
    pub captures: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let kv_budget = KvBudget::Free;
        Self { max_batch: 64, max_step_tokens: 256, block_size: 32, kv_budget, prefix_cache: true, captures: true }
    }
}

impl EngineOptions {
    /// Blocks of the KV cache that the budget gives a model of `spec` with sequences of up to `max_len` tokens; the most that it may give,
    /// if that is for the device to tell.
    ///
    /// # Errors
    /// [`EngineError::KvTooSmall`] if it gives none, [`EngineError::EmptyBlocks`] for a block size of 0.
    pub fn num_blocks(&self, spec: &DecoderSpec, compute: &Compute, max_len: usize) -> Result<usize, EngineError> {
        if self.block_size == 0 {
            return Err(EngineError::EmptyBlocks);
        }
        let per_token = spec.kv_bytes_per_token(compute.kv_format);
        let affordable = match self.kv_budget {
            KvBudget::Tokens(tokens) => tokens.div_ceil(self.block_size),
            KvBudget::Free if compute.kernels.is_some() => usize::MAX,
            KvBudget::Free => USUAL_KV_BYTES / per_token.saturating_mul(self.block_size).max(1),
            KvBudget::Bytes(bytes) => bytes / per_token.saturating_mul(self.block_size).max(1),
        };
        // More than every sequence at its longest is never used.
        let most = self.max_batch.max(1).saturating_mul(max_len.div_ceil(self.block_size));
        match affordable.min(most) {
            0 => Err(EngineError::KvTooSmall { num_tokens: self.block_size, capacity: 0 }),
            blocks => Ok(blocks),
        }
    }
}

/// What happened in a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A sequence got a token (a stop token is not reported).
    Token {
        /// Whose.
        id: SequenceId,
        /// Which.
        token: u32,
    },
    /// A sequence ended.
    Finished {
        /// Which.
        id: SequenceId,
        /// Why.
        reason: FinishReason,
        /// All it gave.
        output: SequenceOutput,
    },
}

/// See the module's text.
pub struct Engine {
    runner: Runner,
    scheduler: Scheduler,
    stats: EngineStats,
}

impl Engine {
    /// An idle engine around `decoder`.
    ///
    /// # Errors
    /// If the budget holds no block, or the device has no room for the cache and the largest step.
    pub fn new(decoder: Decoder, options: &EngineOptions) -> Result<Self, EngineError> {
        let num_blocks = options.num_blocks(decoder.spec(), decoder.compute(), decoder.max_len())?;
        let (max_batch, block_size) = (options.max_batch.max(1), options.block_size);
        let max_step_tokens = options.max_step_tokens.max(max_batch);
        let Fitted { runner, num_blocks, max_step_tokens } = match decoder.compute().kernels {
            Some(_) if options.kv_budget == KvBudget::Free => room::fit(decoder, options, max_step_tokens, num_blocks)?,
            _ => Fitted { runner: Runner::new(decoder, num_blocks, options)?, num_blocks, max_step_tokens },
        };
        let limits = Limits { max_batch, max_step_tokens, prefix_cache: options.prefix_cache };
        let stats = EngineStats { num_blocks, block_size, max_step_tokens, ..EngineStats::default() };
        Ok(Self { runner, scheduler: Scheduler::new(BlockManager::new(num_blocks, block_size), limits), stats })
    }

    /// The model.
    pub fn decoder(&self) -> &Decoder {
        self.runner.decoder()
    }

    /// Gives the model back, for another engine around it.
    pub fn into_decoder(self) -> Decoder {
        self.runner.into_decoder()
    }

    /// Totals so far.
    pub fn stats(&self) -> EngineStats {
        let Counters { num_preemptions, num_reused_tokens, .. } = self.scheduler.counters();
        let OpTimes { products_s, attention_s } = self.runner.times();
        let num_captured_steps = self.runner.num_captured_steps();
        EngineStats { num_preemptions, num_reused_tokens, products_s, attention_s, num_captured_steps, ..self.stats }
    }

    /// Sequences that have not ended.
    pub fn num_sequences(&self) -> usize {
        self.scheduler.num_sequences()
    }

    /// Blocks that no sequence holds; all of them when idle.
    pub fn num_free_blocks(&self) -> usize {
        self.scheduler.blocks().num_free()
    }

    /// Which requests it can serve.
    pub fn admission(&self) -> Admission {
        let (spec, blocks) = (self.decoder().spec(), self.scheduler.blocks());
        Admission {
            vocab_size: spec.vocab_size,
            max_len: self.decoder().max_len(),
            capacity: blocks.num_blocks() * blocks.block_size(),
            is_reward: matches!(spec.head, Head::Scores(_)),
        }
    }

    /// Queues a request.
    ///
    /// # Errors
    /// [`EngineError`] if it can never be served; the engine is unchanged.
    pub fn add(&mut self, request: Request) -> Result<SequenceId, EngineError> {
        let longest = self.admission().check(&request)?;
        Ok(self.scheduler.add(Sequence::new(request, longest, self.scheduler.blocks().block_size())))
    }

    /// Queues several requests, or none of them.
    ///
    /// # Errors
    /// [`EngineError`] of the first that can never be served.
    pub fn add_all(&mut self, requests: impl IntoIterator<Item = Request>) -> Result<Vec<SequenceId>, EngineError> {
        let mut ids = Vec::new();
        for request in requests {
            match self.add(request) {
                Ok(id) => ids.push(id),
                Err(error) => {
                    ids.iter().for_each(|&id| _ = self.stop(id));
                    return Err(error);
                }
            }
        }
        Ok(ids)
    }

    /// Ends a sequence from outside, for example at a stop string; what it gave so far is returned.
    pub fn stop(&mut self, id: SequenceId) -> Option<SequenceOutput> {
        self.scheduler.finish(id).map(|sequence| sequence.output)
    }

    /// One step: schedule, gather, run, choose. No events and no progress only when idle, or when the device had no room: the next
    /// steps are smaller then ([`EngineStats::max_step_tokens`]), and nothing is lost.
    ///
    /// # Errors
    /// [`EngineError::OutOfMemory`] if there is no room for small steps either; with more room the engine goes on.
    /// [`EngineError::Tensor`] if the device fails; what the cache holds is then unknown, and the engine is of no more use.
    pub fn step(&mut self) -> Result<Vec<Event>, EngineError> {
        let started = Instant::now();
        let step = self.scheduler.schedule();
        if step.is_empty() {
            return Ok(Vec::new());
        }
        let batch = StepBatch::new(&step, &self.scheduler);
        self.stats.peak_blocks = self.stats.peak_blocks.max(self.scheduler.blocks().num_held());
        self.stats.scheduler_s += started.elapsed().as_secs_f64();
        let on_cpu = self.decoder().compute().device.is_cpu();
        let mut compute = || {
            let hidden = self.run(&step, &batch)?;
            self.choose(&hidden, &batch)
        };
        // Nobody has to stay awake for a step that another device computes.
        let events = match if on_cpu { with_pool_awake(compute) } else { compute() } {
            Err(error @ EngineError::OutOfMemory) => return self.back_off(error),
            events => events?,
        };
        self.count(&batch, &events, started.elapsed().as_secs_f64());
        Ok(events)
    }

    /// After a step for which the device had no room.
    fn back_off(&mut self, error: EngineError) -> Result<Vec<Event>, EngineError> {
        self.runner.drop_buffers();
        let (limits, is_smaller) = room::smaller(self.scheduler.limits());
        self.scheduler.restart(limits);
        self.stats.max_step_tokens = limits.max_step_tokens;
        if is_smaller { Ok(Vec::new()) } else { Err(error) }
    }

    /// Runs the gathered step on this thread; meanwhile one of the pool's plans the step after, and finds out what constrained answers may go
    /// on with.
    fn run(&mut self, step: &[Scheduled], batch: &StepBatch) -> Result<Tensor, EngineError> {
        let Self { runner, scheduler, stats } = self;
        let vocab_size = runner.decoder().spec().vocab_size;
        let hidden = rayon::in_place_scope(|scope| {
            scope.spawn(|_| {
                let started = Instant::now();
                step.iter().for_each(|&part| scheduler.computed(part));
                scheduler.prepare();
                stats.scheduler_s += started.elapsed().as_secs_f64();
                constraint::prepare(scheduler, &batch.logits_rows, vocab_size);
            });
            runner.hidden_states(batch)
        });
        Ok(hidden?)
    }

    /// Makes tokens and scores of the step's logits; sequences that end give their blocks back.
    fn choose(&mut self, hidden: &Tensor, batch: &StepBatch) -> Result<Vec<Event>, EngineError> {
        let Self { runner, scheduler, stats } = self;
        let width = runner.decoder().spec().num_logits();
        let mut events = Vec::new();
        let ask = |wanted: &LogitsRow| ask(wanted.purpose, scheduler.sequence(wanted.id), width);
        if let Some(found) = runner.found(hidden, batch, ask)? {
            for (wanted, found) in batch.logits_rows.iter().zip(found) {
                let chosen = chosen(found, wanted.purpose, scheduler.sequence(wanted.id));
                record(scheduler, wanted.id, chosen, &mut events);
            }
            return Ok(events);
        }
        runner.each_logits(hidden, batch, |range, logits| {
            let started = Instant::now();
            let wanted = &batch.logits_rows[range];
            let chosen: Vec<Chosen> = logits
                .par_chunks(width)
                .zip(wanted)
                .map(|(row, wanted)| choose(row, wanted.purpose, scheduler.sequence(wanted.id)))
                .collect();
            for (wanted, chosen) in wanted.iter().zip(chosen) {
                record(scheduler, wanted.id, chosen, &mut events);
            }
            stats.sampler_s += started.elapsed().as_secs_f64();
        })?;
        Ok(events)
    }

    fn count(&mut self, batch: &StepBatch, events: &[Event], elapsed_s: f64) {
        let num_decode = batch.token_ids.len() - batch.num_prefill_tokens;
        let stats = &mut self.stats;
        stats.num_steps += 1;
        stats.num_sequence_steps += batch.paged.num_sequences() as u64;
        stats.num_prefill_tokens += batch.num_prefill_tokens as u64;
        stats.num_decode_tokens += num_decode as u64;
        stats.num_context_tokens += batch.paged.context_lens.iter().map(|&len| u64::from(len)).sum::<u64>();
        stats.num_output_tokens += events.iter().filter(|event| matches!(event, Event::Token { .. })).count() as u64;
        if batch.num_prefill_tokens > 0 {
            stats.prefill_s += elapsed_s;
        } else {
            stats.decode_s += elapsed_s;
            stats.num_pure_decode_tokens += num_decode as u64;
            stats.num_pure_decode_steps += 1;
        }
        stats.peak_batch = stats.peak_batch.max(batch.paged.num_sequences());
    }
}

//! Runs the model on a step's batch and hands out the wanted rows of logits, a bounded slice at a time.
//! Owns decoder and cache; knows nothing of why a row is wanted or what is made of it.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::EngineOptions;
use super::batch::{LogitsRow, StepBatch};
use super::device::DeviceRunner;
use crate::model::Decoder;
use crate::ops::paged::KvLayer;
use crate::ops::sampling::{self, Ask, Choice, Found};
use crate::ops::{OpTimes, Workspace};

/// Logits held on the host at once, in elements: 64 MiB of f32.
const LOGITS_AT_ONCE: usize = 16 << 20;

/// The same on a CUDA device: 256 rows of a large vocabulary, and rows of any, which a grid's second side counts.
const LOGITS_AT_ONCE_ON_DEVICE: usize = 64 << 20;
const ROWS_AT_ONCE_ON_DEVICE: usize = 1 << 15;

/// Decoder, cache and buffers.
pub struct Runner {
    decoder: Decoder,
    cache: Vec<KvLayer>,
    workspace: Workspace,
    /// On a CUDA device.
    device: Option<DeviceRunner>,
}

impl Runner {
    /// A runner with an empty cache of `num_blocks` blocks.
    ///
    /// # Errors
    /// If the device has no room for the cache.
    pub fn new(decoder: Decoder, num_blocks: usize, options: &EngineOptions) -> Result<Self> {
        let cache = decoder.new_cache(num_blocks, options.block_size)?;
        let kernels = decoder.compute().kernels.clone();
        let device = kernels.map(|kernels| DeviceRunner::new(kernels, options.captures));
        Ok(Self { decoder, cache, workspace: Workspace::default(), device })
    }

    /// The model.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Gives the model back; the cache is dropped.
    pub fn into_decoder(self) -> Decoder {
        self.decoder
    }

    /// Runs a step of no sequences and chooses its tokens, so that all buffers are there that such a step wants.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn warm_up(&mut self, batch: &StepBatch) -> Result<()> {
        let hidden = self.hidden_states(batch)?;
        self.found(&hidden, batch, |_| Ask { choice: Some(Choice::default()), ..Ask::default() }).map(drop)
    }

    /// Gives the cache's memory back, before another one is made.
    pub fn drop_cache(&mut self) {
        self.cache.clear();
    }

    /// Gives the memory of all buffers and captured steps back; the cache stays.
    pub fn drop_buffers(&mut self) {
        self.workspace.clear();
        if let Some(device) = &mut self.device {
            device.forget();
        }
    }

    /// Another cache, of `num_blocks` blocks, with what attention needs besides for contexts that fill it in `max_batch` sequences.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn set_cache(&mut self, num_blocks: usize, block_size: usize, max_batch: usize) -> Result<()> {
        self.cache.clear();
        self.cache = self.decoder.new_cache(num_blocks, block_size)?;
        let reserved = self.decoder.reserve(&mut self.workspace, num_blocks * block_size, max_batch);
        reserved.inspect_err(|_| self.cache.clear())
    }

    /// Decode steps that were launched as a whole.
    pub fn num_captured_steps(&self) -> u64 {
        self.device.as_ref().map_or(0, DeviceRunner::num_captured_steps)
    }

    /// Computes the batch: normalised hidden states [T, hidden]; keys and values are in the cache afterwards.
    ///
    /// # Errors
    /// If a tensor operation fails; what the cache holds for the batch's tokens is then undefined.
    pub fn hidden_states(&mut self, batch: &StepBatch) -> Result<Tensor> {
        let Self { decoder, cache, workspace, device } = self;
        match device {
            Some(device) => device.hidden_states(decoder, workspace, batch, cache),
            None => decoder.hidden_states(workspace, &batch.token_ids, &batch.paged, cache),
        }
    }

    /// On a CUDA device, what is asked of the wanted rows of logits; `None` elsewhere.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn found(
        &mut self,
        hidden: &Tensor,
        batch: &StepBatch,
        ask: impl Fn(&LogitsRow) -> Ask + Sync,
    ) -> Result<Option<Vec<Found>>> {
        if self.device.is_none() {
            return Ok(None);
        }
        let Self { decoder, workspace, .. } = self;
        let at_once = (LOGITS_AT_ONCE_ON_DEVICE / decoder.spec().num_logits()).clamp(1, ROWS_AT_ONCE_ON_DEVICE);
        let mut all = Vec::with_capacity(batch.logits_rows.len());
        for wanted in batch.logits_rows.chunks(at_once) {
            let rows: Vec<u32> = wanted.iter().map(|wanted| wanted.row).collect();
            // The device has work while penalties are put together.
            let logits = decoder.logits(workspace, hidden, &rows)?;
            let asked: Vec<Ask> = wanted.par_iter().map(&ask).collect();
            let (compute, workspace) = decoder.at_head(workspace);
            all.extend(sampling::choose(compute, workspace, &logits, &asked)?);
        }
        Ok(Some(all))
    }

    /// Seconds spent in products and in attention so far.
    pub fn times(&self) -> OpTimes {
        self.workspace.times()
    }

    /// Calls `each(indices into logits_rows, f32 logits [rows * V])` (V: the head's outputs) until all wanted rows are served.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn each_logits(
        &mut self,
        hidden: &Tensor,
        batch: &StepBatch,
        mut each: impl FnMut(std::ops::Range<usize>, &[f32]),
    ) -> Result<()> {
        let at_once = (LOGITS_AT_ONCE / self.decoder.spec().num_logits()).max(1);
        for start in (0..batch.logits_rows.len()).step_by(at_once) {
            let range = start..(start + at_once).min(batch.logits_rows.len());
            let rows: Vec<u32> = batch.logits_rows[range.clone()].iter().map(|wanted| wanted.row).collect();
            let logits = self.decoder.logits(&mut self.workspace, hidden, &rows)?;
            crate::ops::with_host(&logits, |logits| each(range, logits))?;
        }
        Ok(())
    }
}

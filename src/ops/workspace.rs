//! Memory that operations write their results to, kept from step to step: a decode step allocates no tensor that an earlier one had.
//! Also the seconds that operations took. Knows sizes and names of buffers; knows nothing of what is computed in them.

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Storage, Tensor};

use super::paged::PagedBatch;
use super::product::Inputs;
use super::staged::{Items, OnDevice, Room, StagedStep, Whose};
use super::{Compute, Runs};

/// A buffer's place on the way through a decoder. Two results that are needed at the same time have different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The residual stream and its normalised rows.
    Stream,
    /// Merged queries, keys and values.
    Qkv,
    /// What attention gives for parts of contexts, on a CUDA device.
    AttentionParts,
    /// What attention gives.
    Attended,
    /// The attention block's output.
    Attention,
    /// A product's input in 8 bits on a CUDA device, the scales of its rows, and its sums before they are scaled.
    Rounded,
    /// See [`Self::Rounded`].
    RoundedScales,
    /// See [`Self::Rounded`].
    Sums,
    /// A product's rows where it is run with more than there are, on a CUDA device.
    PaddedInput,
    /// What it gives: see [`Self::PaddedInput`].
    PaddedOutput,
    /// The same in f32.
    PaddedSums,
    /// What goes into the activation.
    GateUp,
    /// What comes out of it.
    Activated,
    /// The feed-forward block's output.
    FeedForward,
    /// Normalised rows that a router scores.
    Scored,
    /// Scores of experts.
    Scores,
    /// Weights of chosen experts, on a CUDA device.
    RouteWeights,
    /// Chosen experts, and which rows are theirs.
    Routes,
    /// Normalised rows that experts take.
    ExpertInput,
    /// The same, grouped by expert.
    Gathered,
    /// What experts give, grouped.
    ExpertRows,
    /// Experts' rows put together again.
    Mixed,
    /// Rows whose logits are wanted. This and what follows is written behind the decoder.
    Wanted,
    /// Logits.
    Logits,
    /// What one reading of logits tells, on a CUDA device.
    Survey,
    /// Logits that penalties change for a while.
    Saved,
    /// Chosen tokens and what goes with them.
    Found,
}

const NUM_SLOTS: usize = Slot::Found as usize + 1;

/// Seconds spent in operations since the workspace was made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OpTimes {
    /// Products with weights, packing and rounding of their inputs included.
    pub products_s: f64,
    /// Attention over the cache.
    pub attention_s: f64,
}

/// See the module's text.
#[derive(Default)]
pub struct Workspace {
    buffers: [Option<Tensor>; NUM_SLOTS],
    /// A product's packed input.
    pub(super) inputs: Inputs,
    /// So far.
    pub(super) times: OpTimes,
    /// How often a buffer was made that a decoder writes to.
    num_moves: usize,
    /// On a CUDA device, the step that is computed.
    on_device: Option<OnDevice>,
    /// Of the devices behind, for a model that is cut.
    further: Vec<Workspace>,
}

impl Workspace {
    /// Drops all buffers; what was counted stays.
    pub fn clear(&mut self) {
        let (times, num_moves) = (self.times(), self.num_moves + 1);
        *self = Self { times, num_moves, ..Self::default() };
    }

    /// Seconds so far, those of further devices included.
    pub fn times(&self) -> OpTimes {
        self.further.iter().map(Self::times).fold(self.times, |sum, times| OpTimes {
            products_s: sum.products_s + times.products_s,
            attention_s: sum.attention_s + times.attention_s,
        })
    }

    /// That of a model's stage: the first one's is this, each device behind has its own.
    pub fn stage(&mut self, index: usize) -> &mut Self {
        if index == 0 {
            return self;
        }
        if self.further.len() < index {
            self.further.resize_with(index, Self::default);
        }
        &mut self.further[index - 1]
    }

    /// Begins a step of `batch` on a CUDA device, with room for more as `room` says; elsewhere there is nothing to do.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn begin_step(&mut self, compute: &Compute, token_ids: &[u32], batch: &PagedBatch, room: &Room) -> Result<()> {
        let Runs::Cuda(kernels) = compute.runs() else { return Ok(()) };
        let mut on_device = match self.on_device.take() {
            Some(on_device) => on_device,
            None => OnDevice::new(&kernels)?,
        };
        on_device.staging.clear()?;
        on_device.step = Some(StagedStep::new(&mut on_device.staging, token_ids, batch, room)?);
        self.on_device = Some(on_device);
        Ok(())
    }

    /// How often memory was found anew that a decoder reads or writes: what was captured before knows addresses that are no longer those
    /// of buffers.
    pub fn num_moves(&self) -> usize {
        self.num_moves + self.on_device.as_ref().map_or(0, |on_device| on_device.staging.num_moves())
    }

    /// The step on the device.
    pub(super) fn step(&self) -> Result<&StagedStep> {
        match self.on_device.as_ref().and_then(|on_device| on_device.step.as_ref()) {
            Some(step) => Ok(step),
            None => candle_core::bail!("no step was begun on the device"),
        }
    }

    /// The step's items of prefill attention, if there are such: see [`StagedStep::prefill`].
    pub(super) fn prefill_items(&mut self, whose: Whose, group: usize, at_once: usize) -> Result<Option<Items>> {
        match self.on_device.as_mut() {
            Some(OnDevice { staging, step: Some(step) }) => step.prefill(staging, whose, group, at_once),
            _ => candle_core::bail!("no step was begun on the device"),
        }
    }

    /// Numbers of the step on the device.
    pub(super) fn upload(&mut self, numbers: &[u32]) -> Result<Tensor> {
        match self.on_device.as_mut() {
            Some(OnDevice { staging, .. }) => {
                let target = staging.push(numbers, numbers.len())?;
                staging.send()?;
                Ok(target)
            }
            None => candle_core::bail!("no step was begun on the device"),
        }
    }

    /// f32 rows [rows, width] in a slot's buffer, which grows when it must. What they hold is left from whoever wrote last.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn rows(&mut self, slot: Slot, device: &Device, rows: usize, width: usize) -> Result<Tensor> {
        self.rows_of(DType::F32, slot, device, rows, width)
    }

    /// The same of another format; a slot keeps one format.
    ///
    /// # Errors
    /// As for [`Self::rows`].
    pub fn rows_of(&mut self, dtype: DType, slot: Slot, device: &Device, rows: usize, width: usize) -> Result<Tensor> {
        let buffer = &mut self.buffers[slot as usize];
        if buffer.as_ref().is_none_or(|buffer| buffer.elem_count() < rows * width || buffer.dtype() != dtype) {
            *buffer = None;
            // What is asked of tokens differs from step to step; its buffers soon stop growing.
            let is_asked = slot as usize > Slot::Logits as usize;
            let count = if is_asked { (rows * width).next_power_of_two() } else { rows * width };
            *buffer = Some(Tensor::zeros(count, dtype, device)?);
            self.num_moves += usize::from((slot as usize) < Slot::Wanted as usize);
        }
        match buffer {
            Some(buffer) => buffer.narrow(0, 0, rows * width)?.reshape((rows, width)),
            None => candle_core::bail!("a buffer that was just made is gone"),
        }
    }
}

/// Calls `read` with the elements of a contiguous f32 CPU tensor.
pub(super) fn with_slice<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(super::f32_slice(storage, layout)?),
        _ => candle_core::bail!("native CPU operations take tensors on the CPU"),
    }
}

/// Calls `write` with the elements of a contiguous f32 CPU tensor, to change. What it reads must not lie in the same storage.
pub(super) fn with_slice_mut(tensor: &Tensor, write: impl Fn(&mut [f32]) -> Result<()>) -> Result<()> {
    with_storage_mut(tensor, |storage, layout| write(super::f32_slice_mut(storage, layout)?))
}

/// Calls `write` with the elements of x, and those of y to change, both contiguous f32 tensors on the CPU in storages of their own.
pub(super) fn with_slices(x: &Tensor, y: &Tensor, write: impl Fn(&[f32], &mut [f32])) -> Result<()> {
    with_slice(x, |x| {
        with_slice_mut(y, |y| {
            write(x, y);
            Ok(())
        })
    })
}

/// Calls `write` with a CPU tensor's storage, to change. What it reads must not lie in the same storage.
pub(super) fn with_storage_mut(tensor: &Tensor, write: impl Fn(&mut CpuStorage, &Layout) -> Result<()>) -> Result<()> {
    struct Write<F>(F);
    impl<F: Fn(&mut CpuStorage, &Layout) -> Result<()>> InplaceOp1 for Write<F> {
        fn name(&self) -> &'static str {
            "write"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
            (self.0)(storage, layout)
        }
    }
    tensor.inplace_op1(&Write(write))
}

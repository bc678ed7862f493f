//! Attention over the paged cache for a ragged batch: causal, optionally windowed, query heads grouped over shared
//! key/value heads. Softmax runs over fixed chunks of 256 keys (Milakov & Gimelshein 2018, arXiv 1805.02867), so a row's bits do
//! not depend on who shares the batch, on chunked prefill or on the block size. Knows rows and blocks; no model.

mod device;

pub(super) use device::GroupShape;
pub use device::{has_kernels, reserve};

use std::sync::Arc;
use std::time::Instant;

use candle_core::{CpuStorage, D, DType, Result, Storage, Tensor};
use rayon::prelude::*;

use super::packing::Fetch;
use super::paged::{HeadGeometry, KvLayer, PagedBatch};
use super::simd::{Isa, Vectorised, dispatch, exp, exp_shifted_sum, max, tanh};
use super::tile::{Element, MAX_ROWS, Start, Tile};
use super::workspace::{Slot, Workspace, with_slice, with_slice_mut};
use super::{Compute, Runs, SharedOut};

/// Keys per softmax chunk; block sizes divide it.
pub const CHUNK: usize = 256;
/// Query rows (tokens x group) that one task takes.
const TASK_ROWS: usize = 4 * MAX_ROWS;

/// One layer's attention.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Head sizes.
    pub geometry: HeadGeometry,
    /// Factor on the scores, usually D^-1/2.
    pub scale: f32,
    /// A key is seen if it is fewer than this many positions back.
    pub window: Option<usize>,
    /// Scores are bent into ± this: cap * tanh(score / cap) (Gemma 2).
    pub soft_cap: Option<f32>,
    /// See [`Self::with_sinks`].
    sinks: Option<Arc<[f32]>>,
    /// The same on a CUDA device.
    device_sinks: Option<Tensor>,
    runs: Runs,
}

impl Attention {
    /// The operation for this device, without soft cap and sinks.
    pub fn new(compute: &Compute, geometry: HeadGeometry, scale: f32, window: Option<usize>) -> Self {
        Self { geometry, scale, window, soft_cap: None, sinks: None, device_sinks: None, runs: compute.runs() }
    }

    /// The same with a score per query head `[H]` that takes its share of the softmax and gives no value (gpt-oss).
    ///
    /// # Errors
    /// If the device has no room.
    pub fn with_sinks(self, compute: &Compute, sinks: Vec<f32>) -> Result<Self> {
        let device_sinks = match self.runs {
            Runs::Cuda(_) => Some(Tensor::from_slice(&sinks, sinks.len(), &compute.device)?),
            Runs::Cpu | Runs::Candle => None,
        };
        Ok(Self { sinks: Some(sinks.into()), device_sinks, ..self })
    }

    /// As [`Self::forward_in`], in memory of its own: not on a CUDA device.
    ///
    /// # Errors
    /// As there.
    pub fn forward(&self, rows: &Tensor, layer: &KvLayer, batch: &PagedBatch) -> Result<Tensor> {
        self.forward_in(&mut Workspace::default(), rows, layer, batch)
    }

    /// Rotated queries, rows [T, H * D] or merged rows [T, (H + 2 Hkv) D] that begin with them, against the cache, which already
    /// holds this step's keys and values: [T, H * D], in a buffer of `workspace` but on the portable path.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward_in(
        &self,
        workspace: &mut Workspace,
        rows: &Tensor,
        layer: &KvLayer,
        batch: &PagedBatch,
    ) -> Result<Tensor> {
        let started = Instant::now();
        let output = self.run(workspace, rows, layer, batch);
        workspace.times.attention_s += started.elapsed().as_secs_f64();
        output
    }

    fn run(&self, workspace: &mut Workspace, rows: &Tensor, layer: &KvLayer, batch: &PagedBatch) -> Result<Tensor> {
        let HeadGeometry { num_heads, num_kv_heads, .. } = self.geometry;
        let (tokens, width) = rows.dims2()?;
        if tokens != batch.num_tokens() || ![self.geometry.q_width(), self.geometry.qkv_width()].contains(&width) {
            let tokens = batch.num_tokens();
            candle_core::bail!("attention: queries {:?} for {tokens} tokens of {:?}", rows.shape(), self.geometry)
        }
        if num_kv_heads == 0 || !num_heads.is_multiple_of(num_kv_heads) {
            candle_core::bail!("attention: {num_heads} query heads over {num_kv_heads} key heads")
        }
        if let Some(sinks) = &self.sinks
            && sinks.len() != num_heads
        {
            candle_core::bail!("attention: {} sinks for {num_heads} query heads", sinks.len())
        }
        layer.validate(self.geometry, batch)?;
        if matches!(self.runs, Runs::Candle) {
            let queries = rows.narrow(1, 0, self.geometry.q_width())?;
            return if tokens == 0 { Ok(queries) } else { self.portable(&queries, layer, batch) };
        }
        let output = workspace.rows_of(rows.dtype(), Slot::Attended, rows.device(), tokens, self.geometry.q_width())?;
        if let Runs::Cuda(kernels) = &self.runs {
            self.launch(kernels, workspace, rows, layer, batch, &output)?;
            return Ok(output);
        }
        with_slice(rows, |rows| {
            with_slice_mut(&output, |output| self.native(&Rows { rows, width }, layer, batch, output))
        })?;
        Ok(output)
    }

    /// Chooses by the cache's format.
    fn native(&self, queries: &Rows<'_>, layer: &KvLayer, batch: &PagedBatch, output: &mut [f32]) -> Result<()> {
        let (keys, values) = (layer.keys.storage_and_layout().0, layer.values.storage_and_layout().0);
        let (Storage::Cpu(keys), Storage::Cpu(values)) = (&*keys, &*values) else {
            candle_core::bail!("native CPU operations take tensors on the CPU")
        };
        let scales = layer.scales.as_ref().map(Tensor::storage_and_layout);
        let scales = match scales.as_ref().map(|(storage, _)| &**storage) {
            Some(Storage::Cpu(CpuStorage::F32(scales))) => &scales[..],
            _ => &[],
        };
        let out = SharedOut(output.as_mut_ptr());
        match (keys, values) {
            (CpuStorage::F32(keys), CpuStorage::F32(values)) => {
                Run { attention: self, batch, queries, keys, values, scales }.all(out);
            }
            (CpuStorage::F16(keys), CpuStorage::F16(values)) => {
                Run { attention: self, batch, queries, keys, values, scales }.all(out);
            }
            (CpuStorage::BF16(keys), CpuStorage::BF16(values)) => {
                Run { attention: self, batch, queries, keys, values, scales }.all(out);
            }
            (CpuStorage::U8(keys), CpuStorage::U8(values)) if !scales.is_empty() => {
                let (keys, values) = (signed(keys), signed(values));
                Run { attention: self, batch, queries, keys, values, scales }.all(out);
            }
            _ => candle_core::bail!("a cache of another format than f32, f16, bf16 and int8"),
        }
        Ok(())
    }

    /// The same in Candle operations, a sequence at a time.
    fn portable(&self, queries: &Tensor, layer: &KvLayer, batch: &PagedBatch) -> Result<Tensor> {
        let HeadGeometry { num_heads, num_kv_heads, head_dim } = self.geometry;
        let device = queries.device();
        let mut outputs = Vec::with_capacity(batch.num_sequences());
        for sequence in 0..batch.num_sequences() {
            let rows = batch.token_range(sequence);
            let context = batch.context_lens[sequence] as usize;
            let table = batch.block_table(sequence);
            let slots: Vec<u32> = (0..context)
                .map(|p| table[p / batch.block_size] * batch.block_size as u32 + (p % batch.block_size) as u32)
                .collect();
            let slots = Tensor::new(slots, device)?;
            let fetch = |cache: &Tensor| -> Result<Tensor> {
                let heads = cache.index_select(&slots, 0)?.reshape((context, num_kv_heads, 1, head_dim))?;
                heads
                    .broadcast_as((context, num_kv_heads, num_heads / num_kv_heads, head_dim))?
                    .reshape((context, num_heads, head_dim))?
                    .transpose(0, 1)?
                    .to_dtype(DType::F32)?
                    .contiguous()
            };
            let q = queries.narrow(0, rows.start, rows.len())?.reshape((rows.len(), num_heads, head_dim))?;
            let q = q.transpose(0, 1)?.to_dtype(DType::F32)?.contiguous()?;
            let mut scores = (q.matmul(&fetch(&layer.keys)?.t()?)? * f64::from(self.scale))?;
            if let Some(cap) = self.soft_cap {
                scores = ((scores / f64::from(cap))?.tanh()? * f64::from(cap))?;
            }
            let mask: Vec<f32> = (context - rows.len()..context)
                .flat_map(|position| (0..context).map(move |key| (position, key)))
                .map(|(position, key)| if self.sees(position, key) { 0.0 } else { f32::NEG_INFINITY })
                .collect();
            scores = scores.broadcast_add(&Tensor::from_vec(mask, (rows.len(), context), device)?)?;
            if let Some(sinks) = &self.sinks {
                let column = Tensor::from_slice(sinks, (num_heads, 1, 1), device)?;
                scores = Tensor::cat(&[&scores, &column.broadcast_as((num_heads, rows.len(), 1))?.contiguous()?], 2)?;
            }
            let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
            let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
            let weights = weights.narrow(2, 0, context)?.contiguous()?;
            let output = weights.matmul(&fetch(&layer.values)?)?.transpose(0, 1)?.contiguous()?;
            outputs.push(output.reshape((rows.len(), num_heads * head_dim))?);
        }
        Tensor::cat(&outputs, 0)?.to_dtype(queries.dtype())
    }

    fn sees(&self, position: usize, key: usize) -> bool {
        key <= position && self.window.is_none_or(|window| position - key < window)
    }

    /// First key that position `position` sees.
    fn first_key(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// Bytes as the signed numbers that they are.
fn signed(bytes: &[u8]) -> &[i8] {
    // SAFETY: the two types have the same size, alignment and valid bits.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

/// Rows that begin with queries.
struct Rows<'a> {
    rows: &'a [f32],
    width: usize,
}

/// One step's attention over a cache of elements T.
struct Run<'a, T> {
    attention: &'a Attention,
    batch: &'a PagedBatch,
    queries: &'a Rows<'a>,
    keys: &'a [T],
    values: &'a [T],
    /// Empty if the elements are the numbers themselves.
    scales: &'a [f32],
}

/// Consecutive query tokens of one sequence, for one key/value head.
#[derive(Debug, Clone, Copy)]
struct Task {
    sequence: usize,
    kv_head: usize,
    /// Row of the first token in the batch.
    token: usize,
    num_tokens: usize,
    /// Position of the first token in its sequence.
    position: usize,
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// Scaled queries, blocks of up to 12 rows, k-major.
    queries: Vec<f32>,
    /// [rows, CHUNK]
    scores: Vec<f32>,
    /// Softmax weights, blocks of up to 12 rows, key-major.
    weights: Vec<f32>,
    /// [rows, D'] unnormalised outputs.
    outputs: Vec<f32>,
    /// [rows] running maxima and sums.
    maxima: Vec<f32>,
    sums: Vec<f32>,
    /// [CHUNK], or empty.
    key_scales: Vec<f32>,
    value_scales: Vec<f32>,
}

impl<T: Element> Run<'_, T> {
    fn all(&self, out: SharedOut) {
        let tasks = self.tasks();
        let at_once = tasks.len().div_ceil(8 * rayon::current_num_threads());
        tasks.par_chunks(at_once.max(1)).for_each(|tasks| {
            let mut scratch = Scratch::default();
            tasks.iter().for_each(|task| self.run(task, &mut scratch, out));
        });
    }

    fn tasks(&self) -> Vec<Task> {
        let geometry = self.attention.geometry;
        let tokens_at_once = (TASK_ROWS / (geometry.num_heads / geometry.num_kv_heads)).max(1);
        let mut tasks = Vec::new();
        for sequence in 0..self.batch.num_sequences() {
            let rows = self.batch.token_range(sequence);
            let start = self.batch.context_lens[sequence] as usize - rows.len();
            for first in (0..rows.len()).step_by(tokens_at_once) {
                tasks.extend((0..geometry.num_kv_heads).map(|kv_head| Task {
                    sequence,
                    kv_head,
                    token: rows.start + first,
                    num_tokens: tokens_at_once.min(rows.len() - first),
                    position: start + first,
                }));
            }
        }
        tasks
    }

    fn run(&self, task: &Task, scratch: &mut Scratch, out: SharedOut) {
        let geometry = self.attention.geometry;
        let group = geometry.num_heads / geometry.num_kv_heads;
        let rows = task.num_tokens * group;
        let stored = geometry.value_dim();
        self.load_queries(task, scratch);
        scratch.scores.resize(rows * CHUNK, 0.0);
        scratch.weights.resize(rows * CHUNK, 0.0);
        scratch.outputs.clear();
        scratch.outputs.resize(rows * stored, 0.0);
        scratch.maxima.clear();
        scratch.sums.clear();
        match &self.attention.sinks {
            None => {
                scratch.maxima.resize(rows, f32::NEG_INFINITY);
                scratch.sums.resize(rows, 0.0);
            }
            // A sink is a first key whose value is zero.
            Some(sinks) => {
                scratch.maxima.extend((0..rows).map(|row| sinks[task.kv_head * group + row % group]));
                scratch.sums.resize(rows, 1.0);
            }
        }
        let end = task.position + task.num_tokens;
        let first_chunk = self.attention.first_key(task.position) / CHUNK * CHUNK;
        for chunk in (first_chunk..end).step_by(CHUNK) {
            let num_keys = CHUNK.min(end - chunk);
            self.scores(task, chunk, num_keys, scratch, rows);
            self.load_scales(task, chunk, num_keys, scratch);
            for row in 0..rows {
                let position = task.position + row / group;
                let visible = self.attention.first_key(position).saturating_sub(chunk).min(num_keys)
                    ..(position + 1).saturating_sub(chunk).min(num_keys);
                let soft_cap = self.attention.soft_cap;
                dispatch(SoftmaxRow { scratch, row, rows, num_keys, visible, stored, soft_cap });
            }
            self.accumulate(task, chunk, num_keys, scratch, rows);
        }
        for row in 0..rows {
            let head = task.kv_head * group + row % group;
            let target = out.at((task.token + row / group) * geometry.q_width() + head * geometry.head_dim);
            let scale = 1.0 / scratch.sums[row];
            for (index, value) in scratch.outputs[row * stored..][..geometry.head_dim].iter().enumerate() {
                // SAFETY: this task alone writes this head of these tokens, within the output's length.
                unsafe { *target.wrapping_add(index) = value * scale };
            }
        }
    }

    /// Gathers the task's query rows (token-major, then group), scaled, in tile blocks.
    fn load_queries(&self, task: &Task, scratch: &mut Scratch) {
        let geometry = self.attention.geometry;
        let dim = geometry.head_dim;
        let group = geometry.num_heads / geometry.num_kv_heads;
        let rows = task.num_tokens * group;
        scratch.queries.resize(rows * dim, 0.0);
        for row in 0..rows {
            let (block, lane) = (row / MAX_ROWS, row % MAX_ROWS);
            let block_rows = MAX_ROWS.min(rows - block * MAX_ROWS);
            let source = (task.token + row / group) * self.queries.width + (task.kv_head * group + row % group) * dim;
            let target = &mut scratch.queries[block * MAX_ROWS * dim + lane..];
            for (k, &value) in self.queries.rows[source..source + dim].iter().enumerate() {
                target[k * block_rows] = value * self.attention.scale;
            }
        }
    }

    /// Scales of the keys and values of one chunk, if there are any.
    fn load_scales(&self, task: &Task, chunk: usize, num_keys: usize, scratch: &mut Scratch) {
        if self.scales.is_empty() {
            return;
        }
        let (heads, size) = (self.attention.geometry.num_kv_heads, self.batch.block_size);
        let table = self.batch.block_table(task.sequence);
        for (part, target) in [&mut scratch.key_scales, &mut scratch.value_scales].into_iter().enumerate() {
            target.resize(CHUNK, 0.0);
            for key in (0..num_keys).step_by(size) {
                let block = table[(chunk + key) / size] as usize;
                let first = ((block * 2 + part) * heads + task.kv_head) * size;
                target[key..key + size].copy_from_slice(&self.scales[first..first + size]);
            }
        }
    }

    /// scores[row, key] for the keys of one chunk.
    fn scores(&self, task: &Task, chunk: usize, num_keys: usize, scratch: &mut Scratch, rows: usize) {
        let geometry = self.attention.geometry;
        let (dim, size) = (geometry.head_dim, self.batch.block_size);
        let table = self.batch.block_table(task.sequence);
        let isa = Isa::detect();
        for key in (0..num_keys).step_by(size) {
            let panel = self.panel(self.keys, table[(chunk + key) / size], task.kv_head, dim * size);
            // Behind the last keys the first values are needed.
            let next = match key + size < num_keys {
                true => self.panel(self.keys, table[(chunk + key) / size + 1], task.kv_head, dim * size),
                false => self.panel(self.values, table[chunk / size], task.kv_head, size * geometry.value_dim()),
            };
            for (index, first) in (0..rows).step_by(MAX_ROWS).enumerate() {
                let block_rows = MAX_ROWS.min(rows - first);
                let tile = Tile {
                    rows: block_rows,
                    columns: size,
                    depth: dim,
                    a: scratch.queries[first * dim..][..block_rows * dim].as_ptr(),
                    a_stride: block_rows,
                    b: panel.as_ptr(),
                    b_stride: size,
                    c: scratch.scores[first * CHUNK + key..].as_mut_ptr(),
                    c_stride: CHUNK,
                    start: Start::Zero,
                    next: Fetch::part(next.as_ptr().cast(), size_of_val(next), index, rows.div_ceil(MAX_ROWS)),
                };
                // SAFETY: `scores` has rows * CHUNK elements and key + size <= CHUNK, as block sizes divide CHUNK.
                unsafe { tile.run(isa) };
            }
        }
    }

    /// A head's part, of `len` elements, of a block.
    fn panel<'a>(&self, cache: &'a [T], block: u32, kv_head: usize, len: usize) -> &'a [T] {
        &cache[(block as usize * self.attention.geometry.num_kv_heads + kv_head) * len..][..len]
    }

    /// outputs[row] += weights[row, key] * values[key] for the keys of one chunk.
    fn accumulate(&self, task: &Task, chunk: usize, num_keys: usize, scratch: &mut Scratch, rows: usize) {
        let geometry = self.attention.geometry;
        let (stored, size) = (geometry.value_dim(), self.batch.block_size);
        let table = self.batch.block_table(task.sequence);
        let isa = Isa::detect();
        for key in (0..num_keys).step_by(size) {
            let panel = self.panel(self.values, table[(chunk + key) / size], task.kv_head, size * stored);
            let next = match table.get((chunk + key) / size + 1) {
                Some(&next) if key + size < num_keys => self.panel(self.values, next, task.kv_head, size * stored),
                _ => &[],
            };
            for (index, first) in (0..rows).step_by(MAX_ROWS).enumerate() {
                let block_rows = MAX_ROWS.min(rows - first);
                let tile = Tile {
                    rows: block_rows,
                    columns: stored,
                    depth: size.min(num_keys - key),
                    a: scratch.weights[first * CHUNK + key * block_rows..].as_ptr(),
                    a_stride: block_rows,
                    b: panel.as_ptr(),
                    b_stride: stored,
                    c: scratch.outputs[first * stored..][..block_rows * stored].as_mut_ptr(),
                    c_stride: stored,
                    start: Start::Accumulate,
                    next: Fetch::part(next.as_ptr().cast(), size_of_val(next), index, rows.div_ceil(MAX_ROWS)),
                };
                // SAFETY: weights hold num_keys * block_rows elements from first * CHUNK on; the rest is sliced above.
                unsafe { tile.run(isa) };
            }
        }
    }
}

/// One row's step of the running softmax: weights of this chunk out of its scores.
struct SoftmaxRow<'a> {
    scratch: &'a mut Scratch,
    row: usize,
    rows: usize,
    num_keys: usize,
    visible: std::ops::Range<usize>,
    stored: usize,
    soft_cap: Option<f32>,
}

impl Vectorised for SoftmaxRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { scratch, row, rows, num_keys, visible, stored, soft_cap } = self;
        let scores = &mut scratch.scores[row * CHUNK..][..num_keys];
        scores.iter_mut().zip(&scratch.key_scales).for_each(|(score, scale)| *score *= scale);
        if let Some(cap) = soft_cap {
            scores.iter_mut().for_each(|score| *score = cap * tanh(*score / cap));
        }
        scores[..visible.start.min(visible.end)].fill(f32::NEG_INFINITY);
        scores[visible.end..].fill(f32::NEG_INFINITY);
        let best = max(scores).max(scratch.maxima[row]);
        if best == f32::NEG_INFINITY {
            scores.fill(0.0); // nothing seen yet: no weight, and nothing to rescale
        } else {
            let rescale = exp(scratch.maxima[row] - best);
            scratch.sums[row] = scratch.sums[row] * rescale + exp_shifted_sum(scores, best);
            scratch.maxima[row] = best;
            if rescale != 1.0 {
                scratch.outputs[row * stored..][..stored].iter_mut().for_each(|value| *value *= rescale);
            }
        }
        scores.iter_mut().zip(&scratch.value_scales).for_each(|(weight, scale)| *weight *= scale);
        let first = row / MAX_ROWS * MAX_ROWS;
        let block_rows = MAX_ROWS.min(rows - first);
        let target = &mut scratch.weights[first * CHUNK + row - first..];
        for (key, &weight) in scores.iter().enumerate() {
            target[key * block_rows] = weight;
        }
    }
}

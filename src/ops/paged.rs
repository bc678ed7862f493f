//! The paged key/value cache as the operations see it: geometry, storage of one layer, and which rows of a step belong where.
//! Knows block numbers and slots; knows nothing of sequences, prompts or who owns a block.

use candle_core::{CpuStorage, DType, Result, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::rounded::RoundHead;
use super::simd::dispatch;
use super::workspace::{with_slice, with_slice_mut, with_storage_mut};
use super::{Compute, Runs, SharedOut};

/// The slot of a row of no sequence.
pub const NO_SLOT: u32 = u32::MAX;

/// Sizes that attention, rotary embedding and cache agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadGeometry {
    /// H, query heads.
    pub num_heads: usize,
    /// Hkv, key/value heads; divides H.
    pub num_kv_heads: usize,
    /// D.
    pub head_dim: usize,
}

impl HeadGeometry {
    /// Width of a merged row [q | k | v].
    pub fn qkv_width(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    /// Width of the query part.
    pub fn q_width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of the key part, and of the value part.
    pub fn kv_width(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// D as stored for values: whole vectors of 16.
    pub(super) fn value_dim(&self) -> usize {
        self.head_dim.next_multiple_of(16)
    }

    /// Bytes of cache that one token takes in one layer.
    pub fn kv_bytes_per_token(&self, format: KvFormat) -> usize {
        let scales = if format == KvFormat::Int8 { 2 * size_of::<f32>() } else { 0 };
        self.num_kv_heads * ((self.head_dim + self.value_dim()) * format.dtype().size_in_bytes() + scales)
    }
}

/// How the cache keeps its numbers; attention computes in f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvFormat {
    /// As they are computed on the CPU.
    F32,
    /// Half the memory.
    F16,
    /// Half the memory, with less precision and a wider range.
    Bf16,
    /// 8 bits, each head of each token against its largest element: a quarter of the memory and a little more.
    Int8,
    /// 8 bits with an exponent (e4m3), on a CUDA device: half the memory of 16 bits.
    Fp8,
}

impl KvFormat {
    /// Type of the stored numbers. Those of 8 bits are signed; Candle has no type of its own for them.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::Int8 => DType::U8,
            Self::Fp8 => DType::F8E4M3,
        }
    }

    /// Short name, as in `--kv-dtype`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
        }
    }
}

/// What a step computes, for every token and sequence in it. Host memory; built anew each step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PagedBatch {
    /// `[T]` position of each token in its sequence.
    pub positions: Vec<u32>,
    /// `[T]` where each token's key and value go: block * block size + offset.
    pub slot_mapping: Vec<u32>,
    /// [B + 1] first token row of each sequence, and T.
    pub cu_seqlens_q: Vec<u32>,
    /// `[B]` tokens of each sequence after this step, those of the cache included.
    pub context_lens: Vec<u32>,
    /// Concatenated block tables.
    pub block_tables: Vec<u32>,
    /// [B + 1] first entry of each sequence in `block_tables`, and its length.
    pub cu_blocks: Vec<u32>,
    /// `[B]` whether a sequence's tokens here were generated, or else are its prompt's: on some devices attention gives the two other bits, and
    /// a token must have the same whenever it is computed.
    pub is_generated: Vec<bool>,
    /// S, tokens per block.
    pub block_size: usize,
    /// Rows at the end that are of no sequence, see [`Self::padded_to`].
    pub num_padding: usize,
}

impl PagedBatch {
    /// The batch with rows of no sequence behind it until there are `rows`: their numbers are computed and go nowhere. For CUDA devices.
    pub fn padded_to(&self, rows: usize) -> Self {
        let num_padding = rows.saturating_sub(self.num_tokens());
        let mut batch = Self { num_padding, ..self.clone() };
        batch.positions.resize(batch.positions.len() + num_padding, 0);
        batch.slot_mapping.resize(batch.positions.len(), NO_SLOT);
        batch
    }

    /// Checks the bounds against each other and against a cache of `num_slots`: what the operations index by is then valid.
    fn validate(&self, num_slots: usize) -> Result<()> {
        let (sequences, size) = (self.num_sequences(), self.block_size);
        let tokens = self.num_tokens().saturating_sub(self.num_padding);
        let ascending = |bounds: &[u32], end: usize| {
            bounds.len() == sequences + 1
                && bounds.first() == Some(&0)
                && bounds.is_sorted()
                && bounds.last().is_some_and(|&last| last as usize == end)
        };
        let fits = |sequence: usize| {
            let context = self.context_lens[sequence] as usize;
            self.token_range(sequence).len() <= context && context.div_ceil(size) <= self.block_table(sequence).len()
        };
        let valid = size > 0
            && self.slot_mapping.len() == self.num_tokens()
            && self.slot_mapping[..tokens].iter().all(|&slot| (slot as usize) < num_slots)
            && self.block_tables.iter().all(|&block| (block as usize) < num_slots / size)
            && ascending(&self.cu_seqlens_q, tokens)
            && ascending(&self.cu_blocks, self.block_tables.len())
            && self.is_generated.len() == sequences
            && (0..sequences).all(fits);
        if !valid {
            candle_core::bail!("a batch of {tokens} tokens in {sequences} sequences does not fit {num_slots} slots")
        }
        Ok(())
    }

    /// T, tokens in the step, padding included.
    pub fn num_tokens(&self) -> usize {
        self.positions.len()
    }

    /// B, sequences in the step.
    pub fn num_sequences(&self) -> usize {
        self.context_lens.len()
    }

    /// Rows of sequence `index`.
    pub fn token_range(&self, index: usize) -> std::ops::Range<usize> {
        self.cu_seqlens_q[index] as usize..self.cu_seqlens_q[index + 1] as usize
    }

    /// Block table of sequence `index`.
    pub fn block_table(&self, index: usize) -> &[u32] {
        &self.block_tables[self.cu_blocks[index] as usize..self.cu_blocks[index + 1] as usize]
    }
}

/// Keys and values of one layer. The processor's form keeps a block's keys as [Hkv, D, S] and its values as [Hkv, S, D'] (D' = D padded
/// to 16), so that both are ready-packed panels of `ops::tile::Tile`; a CUDA device's as [Hkv, S, D] and [Hkv, D, S], so that both are
/// read in pieces of 16 bytes as its tensor cores want them; the portable form is [slots, Hkv * D].
#[derive(Debug, Clone)]
pub struct KvLayer {
    /// Keys.
    pub keys: Tensor,
    /// Values.
    pub values: Tensor,
    /// Of numbers of 8 bits on the native path: f32 scales, a block's as [2, Hkv, S], those of keys first.
    pub scales: Option<Tensor>,
    geometry: HeadGeometry,
    format: KvFormat,
    runs: Runs,
}

impl KvLayer {
    /// Storage for `num_blocks` blocks of `block_size` tokens. Memory is touched when first written.
    ///
    /// # Errors
    /// If the device has no room, or the native path is asked for a block size that is not 16, 32, 64, 128 or 256.
    pub fn new(compute: &Compute, geometry: HeadGeometry, num_blocks: usize, block_size: usize) -> Result<Self> {
        let slots = num_blocks * block_size;
        let zeros = |shape: (usize, usize), dtype| Tensor::zeros(shape, dtype, &compute.device);
        let (format, runs) = (compute.kv_format, compute.runs());
        let (keys, values, scales) = match runs {
            Runs::Candle => {
                // What is rounded to 8 bits is kept in the activations' format: these versions save no memory.
                let in_8_bits = matches!(format, KvFormat::Int8 | KvFormat::Fp8);
                let dtype = if in_8_bits { compute.activation_dtype } else { format.dtype() };
                let shape = (slots, geometry.kv_width());
                (zeros(shape, dtype)?, zeros(shape, dtype)?, None)
            }
            Runs::Cpu if format == KvFormat::Fp8 => candle_core::bail!("a cache of fp8 is for CUDA devices"),
            Runs::Cpu => {
                check_block_size(block_size)?;
                let per_block = |width: usize| (num_blocks, block_size * width);
                let scales =
                    (format == KvFormat::Int8).then(|| zeros(per_block(2 * geometry.num_kv_heads), DType::F32));
                let values = per_block(geometry.num_kv_heads * geometry.value_dim());
                let keys = zeros(per_block(geometry.kv_width()), format.dtype())?;
                (keys, zeros(values, format.dtype())?, scales.transpose()?)
            }
            Runs::Cuda(_) => {
                check_block_size(block_size)?;
                if block_size < 32 || ![compute.activation_dtype, DType::F8E4M3].contains(&format.dtype()) {
                    let (format, wanted) = (format.name(), compute.activation_dtype.as_str());
                    candle_core::bail!(
                        "a cache of {format} in blocks of {block_size}: want {wanted} or fp8 in blocks of at least 32"
                    )
                }
                let shape = (num_blocks, block_size * geometry.kv_width());
                (zeros(shape, format.dtype())?, zeros(shape, format.dtype())?, None)
            }
        };
        Ok(Self { keys, values, scales, geometry, format, runs })
    }

    /// Head sizes.
    pub fn geometry(&self) -> HeadGeometry {
        self.geometry
    }

    /// Checks head sizes against this cache's, and the batch against both.
    pub(super) fn validate(&self, geometry: HeadGeometry, batch: &PagedBatch) -> Result<()> {
        let in_blocks = !matches!(self.runs, Runs::Candle);
        let size = if in_blocks { batch.block_size } else { 1 };
        if in_blocks {
            check_block_size(size)?;
        }
        let (keys, values) = (self.keys.dims2()?, self.values.dims2()?);
        let stored = if matches!(self.runs, Runs::Cpu) { geometry.value_dim() } else { geometry.head_dim };
        let scales = self.scales.as_ref().map_or(Ok((keys.0, 2 * size * geometry.num_kv_heads)), Tensor::dims2)?;
        if keys.1 != size * geometry.kv_width()
            || values != (keys.0, size * geometry.num_kv_heads * stored)
            || scales != (keys.0, 2 * size * geometry.num_kv_heads)
        {
            candle_core::bail!("a cache {keys:?}, {values:?} for {geometry:?} in blocks of {}", batch.block_size)
        }
        batch.validate(keys.0 * size)
    }

    /// Writes the keys (normalised and rotated) and values of merged rows [T, (H + 2 Hkv) D] to their slots.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn write(&self, rows: &Tensor, batch: &PagedBatch) -> Result<()> {
        let geometry = self.geometry;
        if rows.dims2()? != (batch.num_tokens(), geometry.qkv_width()) {
            let tokens = batch.num_tokens();
            candle_core::bail!("cache: merged rows {:?} for {tokens} tokens of {geometry:?}", rows.shape())
        }
        if matches!(self.runs, Runs::Cpu) {
            return with_slice(rows, |rows| {
                self.with_writer(batch, |writer| {
                    // SAFETY: each token once.
                    let write =
                        |(token, row): (usize, &[f32])| unsafe { writer.write(token, &row[geometry.q_width()..]) };
                    match rows.len() < super::PARALLEL_FROM {
                        true => rows.chunks(geometry.qkv_width()).enumerate().for_each(write),
                        false => rows.par_chunks(geometry.qkv_width()).enumerate().with_min_len(8).for_each(write),
                    }
                    Ok(())
                })
            });
        }
        self.validate(geometry, batch)?;
        if batch.num_tokens() == 0 {
            return Ok(());
        }
        let (q_width, kv_width) = (geometry.q_width(), geometry.kv_width());
        let index = Tensor::new(batch.slot_mapping.as_slice(), rows.device())?
            .reshape((batch.num_tokens(), 1))?
            .broadcast_as((batch.num_tokens(), kv_width))?
            .contiguous()?;
        for (target, first) in [(&self.keys, q_width), (&self.values, q_width + kv_width)] {
            let part = self.portable_rounded(&rows.narrow(1, first, kv_width)?.contiguous()?)?;
            target.scatter_set(&index, &part.to_dtype(target.dtype())?.contiguous()?, 0)?;
        }
        Ok(())
    }

    /// Calls `write` with what writes the batch's keys and values, on the native path.
    ///
    /// # Errors
    /// If head sizes or slots do not fit, or what `write` says.
    pub(super) fn with_writer(&self, batch: &PagedBatch, write: impl Fn(&KvWriter<'_>) -> Result<()>) -> Result<()> {
        if !matches!(self.runs, Runs::Cpu) {
            candle_core::bail!("a cache that is not the processor's")
        }
        self.validate(self.geometry, batch)?;
        with_storage_mut(&self.keys, |keys, _| {
            let keys = Target::of(keys)?;
            with_storage_mut(&self.values, |values, _| {
                let values = Target::of(values)?;
                let writer = |scales| KvWriter { geometry: self.geometry, batch, keys, values, scales };
                match &self.scales {
                    None => write(&writer(None)),
                    Some(scales) => {
                        with_slice_mut(scales, |scales| write(&writer(Some(SharedOut(scales.as_mut_ptr())))))
                    }
                }
            })
        })
    }

    /// Heads [T, Hkv * D] as the format keeps them, in Candle operations.
    fn portable_rounded(&self, heads: &Tensor) -> Result<Tensor> {
        if self.format != KvFormat::Int8 {
            return Ok(heads.clone());
        }
        let (tokens, width) = heads.dims2()?;
        let wide = heads.to_dtype(DType::F32)?;
        let wide = wide.reshape((tokens, self.geometry.num_kv_heads, self.geometry.head_dim))?;
        let scale = (wide.abs()?.max_keepdim(2)? / 127.0)?;
        // A head of zeros has no scale.
        let quants = wide.broadcast_div(&scale.maximum(f64::from(f32::MIN_POSITIVE))?)?.round()?;
        quants.broadcast_mul(&scale)?.reshape((tokens, width))
    }
}

/// The native path reads whole vectors of 16 slots, and whole blocks of each softmax chunk.
fn check_block_size(block_size: usize) -> Result<()> {
    if !(block_size.is_power_of_two() && (16..=super::attention::CHUNK).contains(&block_size)) {
        candle_core::bail!("a block size of {block_size}: want 16, 32, 64, 128 or 256")
    }
    Ok(())
}

/// A cache's memory in its format.
#[derive(Clone, Copy)]
enum Target {
    F32(SharedOut<f32>),
    F16(SharedOut<f16>),
    Bf16(SharedOut<bf16>),
    Int8(SharedOut<u8>),
}

impl Target {
    fn of(cache: &mut CpuStorage) -> Result<Self> {
        Ok(match cache {
            CpuStorage::F32(cache) => Self::F32(SharedOut(cache.as_mut_ptr())),
            CpuStorage::F16(cache) => Self::F16(SharedOut(cache.as_mut_ptr())),
            CpuStorage::BF16(cache) => Self::Bf16(SharedOut(cache.as_mut_ptr())),
            CpuStorage::U8(cache) => Self::Int8(SharedOut(cache.as_mut_ptr())),
            _ => candle_core::bail!("a cache of another format than f32, f16, bf16 and int8"),
        })
    }

    /// Puts a head's numbers to `first`, `first + step` and so on; of 8 bits their scale is returned.
    ///
    /// # Safety
    /// These places lie within the cache, and nobody else uses them.
    #[inline(always)]
    // SAFETY: stated above.
    unsafe fn put(self, numbers: &[f32], first: usize, step: usize) -> Option<f32> {
        /// # Safety
        /// As of `put`.
        #[inline(always)]
        // SAFETY: as of `put`.
        unsafe fn each<T>(cache: SharedOut<T>, numbers: &[f32], first: usize, step: usize, convert: impl Fn(f32) -> T) {
            for (index, &value) in numbers.iter().enumerate() {
                // SAFETY: the caller's contract.
                unsafe { *cache.at(first + index * step) = convert(value) };
            }
        }
        // SAFETY: the caller's contract, passed on.
        unsafe {
            match self {
                Self::F32(cache) => each(cache, numbers, first, step, |value| value),
                Self::F16(cache) => each(cache, numbers, first, step, f16::from_f32),
                Self::Bf16(cache) => each(cache, numbers, first, step, bf16::from_f32),
                Self::Int8(cache) => {
                    let put = |index: usize, quant: i8| *cache.at(first + index * step) = quant as u8;
                    return Some(dispatch(RoundHead { numbers, put }));
                }
            }
        }
        None
    }
}

/// Writes a batch's keys and values to a cache, a token at a time: each has a slot of its own.
pub(super) struct KvWriter<'a> {
    geometry: HeadGeometry,
    batch: &'a PagedBatch,
    keys: Target,
    values: Target,
    scales: Option<SharedOut>,
}

impl KvWriter<'_> {
    /// Writes the keys and values [2 Hkv D] of the batch's token `token`.
    ///
    /// # Safety
    /// No two calls for one token at the same time.
    // SAFETY: stated above.
    pub(super) unsafe fn write(&self, token: usize, row: &[f32]) {
        assert_eq!(row.len(), 2 * self.geometry.kv_width(), "a token's keys and values");
        let HeadGeometry { num_kv_heads: heads, head_dim: dim, .. } = self.geometry;
        let size = self.batch.block_size;
        let slot = self.batch.slot_mapping[token] as usize;
        let (block, offset) = (slot / size, slot % size);
        let (keys, values) = row.split_at(self.geometry.kv_width());
        for (part, numbers) in [keys, values].into_iter().enumerate() {
            for (head, numbers) in numbers.chunks(dim).enumerate() {
                let at = block * heads + head;
                // SAFETY: within the cache, which `KvLayer::validate` has held against slots and head sizes; slots are of one
                // token each, which nobody else writes now.
                let scale = unsafe {
                    match part {
                        0 => self.keys.put(numbers, at * dim * size + offset, size),
                        _ => self.values.put(numbers, (at * size + offset) * self.geometry.value_dim(), 1),
                    }
                };
                if let (Some(scales), Some(scale)) = (self.scales, scale) {
                    // SAFETY: as above; [2, Hkv, S] scales of a block.
                    unsafe { *scales.at(((block * 2 + part) * heads + head) * size + offset) = scale };
                }
            }
        }
    }
}

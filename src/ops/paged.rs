//! The paged key/value cache as the operations see it: geometry, storage of one layer, and which rows of a step belong where.
//! Knows block numbers and slots; knows nothing of sequences, prompts or who owns a block.

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor};

use super::rotary::Rotary;
use super::{Compute, OpsPath};

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
    pub fn kv_bytes_per_token(&self, dtype: DType) -> usize {
        self.num_kv_heads * (self.head_dim + self.value_dim()) * dtype.size_in_bytes()
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
    /// S, tokens per block.
    pub block_size: usize,
}

impl PagedBatch {
    /// Checks the bounds against each other and against a cache of `num_slots`: what the operations index by is then valid.
    fn validate(&self, num_slots: usize) -> Result<()> {
        let (tokens, sequences, size) = (self.num_tokens(), self.num_sequences(), self.block_size);
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
            && self.slot_mapping.len() == tokens
            && self.slot_mapping.iter().all(|&slot| (slot as usize) < num_slots)
            && self.block_tables.iter().all(|&block| (block as usize) < num_slots / size)
            && ascending(&self.cu_seqlens_q, tokens)
            && ascending(&self.cu_blocks, self.block_tables.len())
            && (0..sequences).all(fits);
        if !valid {
            candle_core::bail!("a batch of {tokens} tokens in {sequences} sequences does not fit {num_slots} slots")
        }
        Ok(())
    }

    /// T, tokens in the step.
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

/// Keys and values of one layer. The native CPU form keeps a block's keys as [Hkv, D, S] and its values as [Hkv, S, D']
/// (D' = D padded to 16), so that both are ready-packed panels of `ops::tile::Tile`; the portable form is [slots, Hkv * D].
#[derive(Debug, Clone)]
pub struct KvLayer {
    /// Keys.
    pub keys: Tensor,
    /// Values.
    pub values: Tensor,
}

impl KvLayer {
    /// Storage for `num_blocks` blocks of `block_size` tokens. Memory is touched when first written.
    ///
    /// # Errors
    /// If the device has no room, or the native path is asked for a block size that is not 16, 32, 64, 128 or 256.
    pub fn new(compute: &Compute, geometry: HeadGeometry, num_blocks: usize, block_size: usize) -> Result<Self> {
        let slots = num_blocks * block_size;
        let zeros = |shape: (usize, usize)| Tensor::zeros(shape, compute.activation_dtype, &compute.device);
        match compute.path {
            OpsPath::Portable => {
                let shape = (slots, geometry.kv_width());
                Ok(Self { keys: zeros(shape)?, values: zeros(shape)? })
            }
            OpsPath::Native => {
                check_block_size(block_size)?;
                Ok(Self {
                    keys: zeros((num_blocks, block_size * geometry.kv_width()))?,
                    values: zeros((num_blocks, block_size * geometry.num_kv_heads * geometry.value_dim()))?,
                })
            }
        }
    }

    /// Checks this cache's shape against the head sizes, and the batch against this cache.
    pub(super) fn validate(&self, path: OpsPath, geometry: HeadGeometry, batch: &PagedBatch) -> Result<()> {
        let size = if path == OpsPath::Native { batch.block_size } else { 1 };
        if path == OpsPath::Native {
            check_block_size(size)?;
        }
        let (keys, values) = (self.keys.dims2()?, self.values.dims2()?);
        let stored = if path == OpsPath::Native { geometry.value_dim() } else { geometry.head_dim };
        if keys.1 != size * geometry.kv_width() || values != (keys.0, size * geometry.num_kv_heads * stored) {
            candle_core::bail!("a cache {keys:?}, {values:?} for {geometry:?} in blocks of {}", batch.block_size)
        }
        batch.validate(keys.0 * size)
    }

    /// Writes the keys (normalised and rotated) and values of merged rows qkv [T, (H + 2 Hkv) D] to their slots.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn write(&self, qkv: &Tensor, rotary: &Rotary, batch: &PagedBatch) -> Result<()> {
        let geometry = rotary.geometry();
        rotary.validate(qkv, batch)?;
        self.validate(rotary.path(), geometry, batch)?;
        if batch.num_tokens() == 0 {
            return Ok(());
        }
        if rotary.path() == OpsPath::Native {
            self.keys.inplace_op2(qkv, &WriteKeys { rotary, batch })?;
            return self.values.inplace_op2(qkv, &WriteValues { rotary, batch });
        }
        let keys = rotary.portable(&qkv.narrow(1, geometry.q_width(), geometry.kv_width())?, false, batch)?;
        let values = qkv.narrow(1, geometry.q_width() + geometry.kv_width(), geometry.kv_width())?;
        let values = rotary.portable_values(values)?.contiguous()?;
        let index = Tensor::new(batch.slot_mapping.as_slice(), qkv.device())?
            .reshape((batch.num_tokens(), 1))?
            .broadcast_as((batch.num_tokens(), geometry.kv_width()))?
            .contiguous()?;
        self.keys.scatter_set(&index, &keys.contiguous()?, 0)?;
        self.values.scatter_set(&index, &values, 0)
    }
}

/// The native path reads whole vectors of 16 slots, and whole blocks of each softmax chunk.
fn check_block_size(block_size: usize) -> Result<()> {
    if !(block_size.is_power_of_two() && (16..=super::attention::CHUNK).contains(&block_size)) {
        candle_core::bail!("a block size of {block_size}: want 16, 32, 64, 128 or 256")
    }
    Ok(())
}

struct WriteKeys<'a> {
    rotary: &'a Rotary,
    batch: &'a PagedBatch,
}

impl InplaceOp2 for WriteKeys<'_> {
    fn name(&self) -> &'static str {
        "write_keys"
    }

    fn cpu_fwd(&self, cache: &mut CpuStorage, cache_layout: &Layout, x: &CpuStorage, layout: &Layout) -> Result<()> {
        let cache = super::f32_slice_mut(cache, cache_layout)?;
        let x = super::f32_slice(x, layout)?;
        let geometry = self.rotary.geometry();
        let (dim, size) = (geometry.head_dim, self.batch.block_size);
        let mut heads = vec![0f32; geometry.kv_width()];
        for (token, (&slot, &position)) in self.batch.slot_mapping.iter().zip(&self.batch.positions).enumerate() {
            let (block, offset) = (slot as usize / size, slot as usize % size);
            let row = &x[token * geometry.qkv_width() + geometry.q_width()..][..geometry.kv_width()];
            heads.copy_from_slice(row);
            self.rotary.rotate_keys(&mut heads, position as usize);
            for (index, head) in heads.chunks(dim).enumerate() {
                let target = &mut cache[(block * geometry.num_kv_heads + index) * dim * size..][..dim * size];
                for (value, slots) in head.iter().zip(target.chunks_mut(size)) {
                    slots[offset] = *value;
                }
            }
        }
        Ok(())
    }
}

struct WriteValues<'a> {
    rotary: &'a Rotary,
    batch: &'a PagedBatch,
}

impl InplaceOp2 for WriteValues<'_> {
    fn name(&self) -> &'static str {
        "write_values"
    }

    fn cpu_fwd(&self, cache: &mut CpuStorage, cache_layout: &Layout, x: &CpuStorage, layout: &Layout) -> Result<()> {
        let cache = super::f32_slice_mut(cache, cache_layout)?;
        let x = super::f32_slice(x, layout)?;
        let geometry = self.rotary.geometry();
        let mut heads = vec![0f32; geometry.kv_width()];
        let (dim, stored, size) = (geometry.head_dim, geometry.value_dim(), self.batch.block_size);
        for (token, &slot) in self.batch.slot_mapping.iter().enumerate() {
            let (block, offset) = (slot as usize / size, slot as usize % size);
            let row = &x[token * geometry.qkv_width() + geometry.q_width() + geometry.kv_width()..];
            heads.copy_from_slice(&row[..geometry.kv_width()]);
            self.rotary.normalise_values(&mut heads);
            for (index, source) in heads.chunks(dim).enumerate() {
                let start = ((block * geometry.num_kv_heads + index) * size + offset) * stored;
                cache[start..start + dim].copy_from_slice(source);
            }
        }
        Ok(())
    }
}

//! Attention on a CUDA device: what kernels/attention.cu is launched with, over items of work that the step brought along. Whose a row is
//! decides which kernel computes it: a prompt's tokens may get other bits than an answer's, but each the same whenever it is computed.

use candle_core::{DType, Device, Result, Tensor};

use super::super::launch::Launch;
use super::super::paged::{KvLayer, PagedBatch};
use super::super::staged::{SPLIT, Whose};
use super::super::warpgroups::LINES_ALIGNMENT;
use super::super::workspace::Workspace;
use super::super::{Compute, Kernels, Runs, Slot};
use super::{Attention, HeadGeometry};

/// Head sizes that kernels/attention.cu has kernels for.
const HEAD_SIZES: [usize; 8] = [16, 32, 64, 80, 96, 128, 192, 256];
/// Query rows of a tensor core's tile.
const TILE_ROWS: usize = 16;
/// Keys that are on their way through shared memory together.
const TILE: usize = 32;
/// Numbers that a part of a row's attention has beside its values: largest score, sum, and what fills 16 bytes.
const PART_HEAD: usize = 4;

/// How kernels/attention.cu cuts its work, by formats and head size.
struct Shape {
    /// Of a block.
    warps: usize,
    /// Tiles of query rows that a warp has.
    row_tiles: usize,
    /// Bytes of a tile of keys and values in shared memory.
    tile_bytes: usize,
    /// Bytes of queries that wait in shared memory, for a tile of rows: those for which a warp has no registers.
    query_bytes: usize,
    /// Bytes of a tile of rows of outputs.
    output_bytes: usize,
}

impl Shape {
    fn new(rows: DType, cache: DType, head_dim: usize, row_tiles: usize) -> Self {
        let (size, row_bytes) = (rows.size_in_bytes(), head_dim * cache.size_in_bytes());
        let in_registers = if size == 2 && head_dim <= 128 { 4 / row_tiles } else { 0 };
        Self {
            warps: if head_dim * size > 768 { 2 } else { 4 },
            row_tiles,
            tile_bytes: TILE * (row_bytes.next_multiple_of(64) + row_bytes),
            query_bytes: TILE_ROWS * 32 * size * head_dim.div_ceil(32).saturating_sub(in_registers),
            output_bytes: TILE_ROWS * head_dim * size,
        }
    }

    fn decode(rows: DType, cache: DType, head_dim: usize) -> Self {
        Self { warps: 1, ..Self::new(rows, cache, head_dim, 1) }
    }

    fn prefill(rows: DType, cache: DType, head_dim: usize) -> Self {
        let row_tiles = if rows.size_in_bytes() == 2 && head_dim <= 128 { 2 } else { 1 };
        Self::new(rows, cache, head_dim, row_tiles)
    }

    /// Packed rows of a block.
    fn rows(&self) -> usize {
        self.warps * self.row_tiles * TILE_ROWS
    }

    /// Shared memory of a block through which so many tiles are on their way.
    fn shared_bytes(&self, tiles: usize) -> usize {
        (tiles * self.tile_bytes + self.warps * self.row_tiles * self.query_bytes).max(self.warps * self.output_bytes)
    }
}

/// Prefill by Hopper's warpgroups: how kernels/warpgroup_attention.cuh cuts its work.
pub(in crate::ops) struct GroupShape {
    head_dim: usize,
    /// Of a tile.
    num_keys: usize,
}

impl GroupShape {
    /// Packed rows of a block, and its threads.
    pub(in crate::ops) const ROWS: usize = 128;
    pub(in crate::ops) const THREADS: usize = 256;

    /// Of 16 bits.
    pub(in crate::ops) fn of(head_dim: usize) -> Self {
        Self { head_dim, num_keys: if head_dim <= 128 { 128 } else { 64 } }
    }

    /// `None` where the device or the formats have no such kernel.
    fn new(kernels: &Kernels, rows: DType, cache: DType, head_dim: usize) -> Option<Self> {
        let has_kernel = rows == cache && rows.size_in_bytes() == 2 && [64, 128, 256].contains(&head_dim);
        (has_kernel && kernels.has_warpgroups()).then(|| Self::of(head_dim))
    }

    /// Queries, two tiles of keys and two of values.
    pub(in crate::ops) fn shared_bytes(&self) -> usize {
        (Self::ROWS + 4 * self.num_keys) * self.head_dim * 2 + LINES_ALIGNMENT
    }
}

/// Whether there are kernels for these heads.
pub fn has_kernels(geometry: HeadGeometry) -> bool {
    HEAD_SIZES.contains(&geometry.head_dim)
}

/// Finds the memory for parts of attention: of `max_batch` single tokens whose contexts have `num_tokens` together. Elsewhere than on
/// a CUDA device there is nothing to do.
///
/// # Errors
/// If the device has no room.
pub fn reserve(
    compute: &Compute,
    workspace: &mut Workspace,
    geometry: HeadGeometry,
    num_tokens: usize,
    max_batch: usize,
) -> Result<()> {
    if let Runs::Cuda(_) = compute.runs() {
        let items = (num_tokens / SPLIT + max_batch).next_power_of_two();
        parts(workspace, geometry, items, &compute.device)?;
    }
    Ok(())
}

/// Parts of `items` (decoding) or rows (prefill) for all heads, [items * H, 4 + D].
fn parts(workspace: &mut Workspace, geometry: HeadGeometry, items: usize, device: &Device) -> Result<Tensor> {
    let width = PART_HEAD + geometry.head_dim;
    workspace.rows_of(DType::F32, Slot::AttentionParts, device, items * geometry.num_heads, width)
}

impl Attention {
    /// Rotated queries at the beginning of `rows` against the cache, to `out` [T, H * D].
    pub(super) fn launch(
        &self,
        kernels: &Kernels,
        workspace: &mut Workspace,
        rows: &Tensor,
        layer: &KvLayer,
        batch: &PagedBatch,
        out: &Tensor,
    ) -> Result<()> {
        let HeadGeometry { num_heads, num_kv_heads, head_dim } = self.geometry;
        let decode = workspace.step()?.decode.clone();
        for whose in [Whose::Prompt, Whose::Answer] {
            self.launch_prefill(kernels, workspace, (rows, layer, batch), whose, out)?;
        }
        if decode.most == 0 {
            return Ok(());
        }
        let parts = parts(workspace, self.geometry, decode.most, rows.device())?;
        let step = workspace.step()?;
        let shape = Shape::decode(rows.dtype(), layer.keys.dtype(), head_dim);
        // As many tiles on their way as the shared memory holds that a block gets without asking; what queries take comes on top.
        let tiles = ((48 << 10) / shape.tile_bytes).clamp(1, 4);
        let row_parts = (num_heads / num_kv_heads.max(1)).div_ceil(TILE_ROWS);
        self.over_cache(kernels, workspace, "decode", (rows, layer, batch))?
            .over_all([decode.most, num_kv_heads, row_parts], 32)
            .shared(shape.shared_bytes(tiles))
            .tensor(&step.cu_seqlens_q)
            .tensor(&decode.list)
            .tensor(&decode.count)
            .tensor(&parts)
            .int(tiles)
            .run()?;
        Launch::named(kernels, format!("pairwright_attention_merge_{}_{head_dim}", rows.dtype().as_str()))
            .over_all([step.context_lens.dim(0)?, (num_heads * head_dim / 8).div_ceil(128), 1], 128)
            .tensor(&parts)
            .tensor(&step.cu_items)
            .tensor(&step.cu_seqlens_q)
            .optional(self.device_sinks.as_ref())
            .tensor(out)
            .int(num_heads)
            .run()
    }

    /// Of a prompt's tokens, or of several of an answer's at once, which get the bits that they had when they were decoded.
    fn launch_prefill(
        &self,
        kernels: &Kernels,
        workspace: &mut Workspace,
        over @ (rows, layer, _): (&Tensor, &KvLayer, &PagedBatch),
        whose: Whose,
        out: &Tensor,
    ) -> Result<()> {
        let HeadGeometry { num_heads, num_kv_heads, head_dim } = self.geometry;
        let (dtype, cache) = (rows.dtype(), layer.keys.dtype());
        let shape = Shape::prefill(dtype, cache, head_dim);
        let groups = match whose {
            Whose::Prompt => GroupShape::new(kernels, dtype, cache, head_dim),
            Whose::Answer => None,
        };
        let at_once = if groups.is_some() { GroupShape::ROWS } else { shape.rows() };
        let Some(items) = workspace.prefill_items(whose, num_heads / num_kv_heads.max(1), at_once)? else {
            return Ok(());
        };
        // Found with a prompt's first step too, for whom it is nothing: an answer's may come when there is no room any more.
        let records = parts(workspace, self.geometry, rows.dim(0)?, rows.device())?;
        let (what, threads) =
            if groups.is_some() { ("group_prefill", GroupShape::THREADS) } else { ("prefill", 32 * shape.warps) };
        let tiles = if 2 * shape.tile_bytes > 64 << 10 { 1 } else { 2 };
        let shared_bytes = groups.as_ref().map_or_else(|| shape.shared_bytes(tiles), GroupShape::shared_bytes);
        let launch = self
            .over_cache(kernels, workspace, what, over)?
            .over_all([items.most, num_kv_heads, 1], threads)
            .shared(shared_bytes)
            .tensor(&workspace.step()?.cu_seqlens_q)
            .tensor(&items.list)
            .tensor(&items.count)
            .optional(self.device_sinks.as_ref());
        match groups {
            Some(_) => launch.tensor(out).run(),
            None => launch.tensor(&records).tensor(out).int(tiles).run(),
        }
    }

    /// A launch with what all of these kernels begin with.
    fn over_cache<'a>(
        &self,
        kernels: &'a Kernels,
        workspace: &Workspace,
        what: &str,
        (rows, layer, batch): (&Tensor, &KvLayer, &PagedBatch),
    ) -> Result<Launch<'a>> {
        let HeadGeometry { num_heads, num_kv_heads, head_dim } = self.geometry;
        let step = workspace.step()?;
        let cache = if layer.keys.dtype() == DType::F8E4M3 { "_fp8" } else { "" };
        let name = format!("pairwright_attention_{what}_{}{cache}_{head_dim}", rows.dtype().as_str());
        Ok(Launch::named(kernels, name)
            .tensor(rows)
            .int(rows.dim(1)?)
            .tensor(&layer.keys)
            .tensor(&layer.values)
            .tensor(&step.context_lens)
            .tensor(&step.cu_blocks)
            .tensor(&step.block_tables)
            .int(num_heads)
            .int(num_kv_heads)
            .int(batch.block_size)
            .float(self.scale)
            .int(self.window.unwrap_or(0))
            .float(self.soft_cap.unwrap_or(0.0)))
    }
}

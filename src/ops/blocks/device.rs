//! Matrices in quantised blocks on a CUDA device: quants and scales as kernels/block_product.cuh reads them, in units of 32 outputs by 64
//! inputs. Only the order of bits changes; numbers stay as they are stored. Knows stacks of matrices of one format; knows no layer.

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::super::ggml_block::Block;
use super::super::launch::Launch;
use super::super::panels::{Layout, Scales};
use super::super::rounded::GROUP;
use super::super::stored::{MatrixView, StoredFormat};
use super::super::tile::PANEL;
use super::super::{Kernels, Loading};
use super::bytes_in;

/// Inputs of a unit: two groups.
const INPUTS: usize = 2 * GROUP;
/// Tiles that a launch has of the larger kind, 64 outputs, before that is the better one: as many as large cards run at once.
const MANY_TILES: usize = 128;
const GATHER_THREADS: usize = 128;

/// Bytes of a unit's scales, and of those before the factors where there are factors.
const SCALE_BYTES: usize = 256;
const PAIR_BYTES: usize = PANEL * 4;

/// Where a unit's parts begin.
#[derive(Debug, Clone, Copy)]
struct Unit {
    layout: Layout,
    /// What 5 and 6 bits have above the lowest four.
    high: usize,
    scales: usize,
    size_bytes: usize,
}

impl Unit {
    /// `None` for formats without a kernel.
    fn of(format: GgmlDType) -> Option<Self> {
        let layout = Layout::of(format)?;
        let high = PANEL * INPUTS / 8 * if layout.bits == 8 { 8 } else { 4 };
        let scales = high + if layout.bits == 8 { 0 } else { PANEL * INPUTS / 8 * (layout.bits - 4) };
        Some(Self { layout, high, scales, size_bytes: scales + SCALE_BYTES })
    }

    /// As kernels' names have it.
    fn name(&self) -> String {
        let factors = if self.layout.scales == Scales::Products { "k" } else { "" };
        format!("b{}{factors}", self.layout.bits)
    }

    /// Puts group `group` (of the unit) of row `row` in place; it is group `of_block` of `block`.
    fn put(&self, unit: &mut [u8], row: usize, group: usize, block: &Block, of_block: usize) {
        let place = (group * PANEL + row) * 4;
        for (input, &quant) in block.quants[of_block * GROUP..][..GROUP].iter().enumerate() {
            // Inputs 2t, 2t + 1, 2t + 8, 2t + 9 of either half are lane part t's, which tensor cores take together.
            let (half, within) = (input / 16, input % 16);
            let (part, i) = (within % 8 / 2, half * 4 + within / 8 * 2 + within % 2);
            match self.layout.bits {
                8 => unit[((group * 2 + half) * PANEL + row) * 16 + part * 4 + i % 4] = quant,
                bits => {
                    unit[(place + part) * 4 + i / 2] |= (quant & 15) << (i % 2 * 4);
                    match bits {
                        5 => unit[self.high + place + part] |= quant >> 4 << i,
                        6 => unit[self.high + (place + part) * 2 + i / 4] |= quant >> 4 << (i % 4 * 2),
                        _ => {}
                    }
                }
            }
        }
        let scales = &mut unit[self.scales..];
        let pair: Vec<u8> = block.halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        match self.layout.scales {
            Scales::Halves => scales[place..place + 4].copy_from_slice(&pair),
            Scales::Products => {
                scales[row * 4..row * 4 + 4].copy_from_slice(&pair);
                let factors = match self.layout.kind.has_mins {
                    true => [block.scales[of_block], block.mins[of_block]],
                    false => [block.scales[2 * of_block], block.scales[2 * of_block + 1]],
                };
                scales[PAIR_BYTES + row * 4 + group * 2..][..2].copy_from_slice(&factors);
            }
        }
    }

    /// The units of a matrix whose blocks are `bytes`.
    fn pack(&self, format: GgmlDType, bytes: &[u8], rows: usize, columns: usize) -> Result<Vec<u8>> {
        let row_bytes = StoredFormat::Blocks(format).row_bytes(columns)?;
        let panel_bytes = columns.div_ceil(INPUTS) * self.size_bytes;
        let mut units = vec![0u8; rows.div_ceil(PANEL) * panel_bytes];
        units.par_chunks_mut(panel_bytes.max(1)).zip(bytes.par_chunks(PANEL * row_bytes.max(1))).for_each(
            |(panel, rows)| {
                for (row, blocks) in rows.chunks_exact(row_bytes).enumerate() {
                    for (number, block) in blocks.chunks_exact(format.type_size()).enumerate() {
                        let block = Block::read(format, block);
                        let groups = block.len / GROUP;
                        for of_block in 0..groups {
                            let group = number * groups + of_block;
                            let unit = &mut panel[group / 2 * self.size_bytes..][..self.size_bytes];
                            self.put(unit, row, group % 2, &block, of_block);
                        }
                    }
                }
            },
        );
        Ok(units)
    }
}

/// Which rows of x each of several matrices takes, on the device.
pub struct Grouping<'a> {
    /// Rows of x by their numbers, or all as they lie.
    pub rows: Option<&'a Tensor>,
    /// [matrices + 1] first row of each matrix.
    pub bounds: &'a Tensor,
    /// Rows in all.
    pub num_rows: usize,
}

/// Rows, and at most as many columns, of a block's tile of y in products of our own, and its threads (kernels/product_tile.cuh).
pub const PRODUCT_TILE: usize = 64;
pub const PRODUCT_THREADS: usize = 128;

impl Grouping<'_> {
    /// The most tiles that `num_rows` rows take: grouped, the last one of each matrix may have few.
    pub fn most_row_tiles(grouping: Option<&Self>, num_rows: usize, num_matrices: usize) -> usize {
        match grouping {
            None => num_rows.div_ceil(PRODUCT_TILE),
            Some(_) => num_rows / PRODUCT_TILE + num_matrices,
        }
    }
}

/// See the module's text.
#[derive(Clone)]
pub struct DeviceBlocks {
    kernels: Kernels,
    format: GgmlDType,
    unit: Unit,
    /// Bytes of all matrices' units.
    units: Tensor,
    num_matrices: usize,
    rows: usize,
    columns: usize,
    /// f32 [matrices, rows]
    bias: Option<Tensor>,
}

impl DeviceBlocks {
    /// Whether there are kernels for the format.
    pub fn has_kernels(format: GgmlDType) -> bool {
        Unit::of(format).is_some()
    }

    /// Matrices [rows, columns], stacked by rows, in `format`'s blocks: stored ones as they are, dense ones rounded.
    ///
    /// # Errors
    /// If sizes or formats do not fit, or the device has no room.
    pub fn new(
        kernels: Kernels,
        loading: &mut Loading,
        device: &Device,
        format: GgmlDType,
        sources: &[MatrixView<'_>],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let (rows, columns) = (sources.iter().map(|source| source.rows).sum(), sources[0].columns);
        let bias = bias.map(|bias| Tensor::from_slice(bias, bias.len(), device)).transpose()?;
        let unit = unit_of(format)?;
        let units = packed(unit, format, sources)?;
        let units = kernels.upload(loading, &units, DType::U8, &[rows_of_units(unit, rows, columns)])?;
        Ok(Self { kernels, format, unit, units, num_matrices: 1, rows, columns, bias })
    }

    /// Room for `num_matrices` matrices without numbers.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn zeros(
        kernels: Kernels,
        device: &Device,
        format: GgmlDType,
        num_matrices: usize,
        (rows, columns): (usize, usize),
        has_bias: bool,
    ) -> Result<Self> {
        let unit = unit_of(format)?;
        let units = Tensor::zeros(num_matrices * rows_of_units(unit, rows, columns), DType::U8, device)?;
        let bias = has_bias.then(|| Tensor::zeros((num_matrices, rows), DType::F32, device)).transpose()?;
        Ok(Self { kernels, format, unit, units, num_matrices, rows, columns, bias })
    }

    /// Puts matrix `number`, stacked of `sources`, in place.
    ///
    /// # Errors
    /// If sizes or formats do not fit.
    pub fn set(&self, loading: &mut Loading, number: usize, sources: &[MatrixView<'_>]) -> Result<()> {
        let rows: usize = sources.iter().map(|source| source.rows).sum();
        if rows != self.rows || sources.iter().any(|source| source.columns != self.columns) {
            candle_core::bail!("matrix {number} has {rows} rows, others {}", self.rows)
        }
        let units = packed(self.unit, self.format, sources)?;
        let len = units.len();
        self.units.slice_set(&self.kernels.upload(loading, &units, DType::U8, &[len])?, 0, number * len)
    }

    /// Biases of all matrices, f32 [matrices, rows].
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Matrices, rows and columns of each.
    pub fn dims(&self) -> (usize, usize, usize) {
        (self.num_matrices, self.rows, self.columns)
    }

    /// Columns `first..first + rows` of y = x Wᵀ + bias, of x's format or f32: all rows by the one matrix, or by `grouping`.
    ///
    /// # Errors
    /// If sizes do not fit, or the driver refuses.
    pub fn run(&self, x: &Tensor, y: &Tensor, first: usize, grouping: Option<&Grouping<'_>>) -> Result<()> {
        let (y_rows, width) = y.dims2()?;
        let num_rows = grouping.map_or(x.dim(0)?, |grouping| grouping.num_rows);
        let fits = x.dim(1)? == self.columns && first + self.rows <= width && y_rows == num_rows;
        if !fits || (y.dtype() != x.dtype() && y.dtype() != DType::F32) {
            let (x, y) = (x.shape(), y.shape());
            candle_core::bail!("a product of {x:?} with {}x{} to {y:?} from {first}", self.rows, self.columns)
        }
        let row_tiles = Grouping::most_row_tiles(grouping, num_rows, self.num_matrices);
        let outputs = if row_tiles * self.rows.div_ceil(PRODUCT_TILE) < MANY_TILES { 32 } else { PRODUCT_TILE };
        let name = format!("pairwright_block_product_{}_{}_{outputs}", self.unit.name(), x.dtype().as_str());
        Launch::named(&self.kernels, name)
            .over_all([row_tiles, self.rows.div_ceil(outputs), 1], PRODUCT_THREADS)
            .tensor(x)
            .optional(grouping.and_then(|grouping| grouping.rows))
            .optional(grouping.map(|grouping| grouping.bounds))
            .tensor(&self.units)
            .optional(self.bias.as_ref())
            .tensor(y)
            .int(self.num_matrices)
            .int(num_rows)
            .int(self.columns)
            .int(self.rows)
            .int(width)
            .int(first)
            .int(usize::from(y.dtype() == DType::F32))
            .float(f32::from(self.unit.layout.kind.zero))
            .run()
    }

    /// Rows `ids` (u32, on the device) of the one matrix to `target`, in its format.
    ///
    /// # Errors
    /// If sizes do not fit, or the driver refuses.
    pub fn gather(&self, ids: &Tensor, target: &Tensor) -> Result<()> {
        if target.dim(1)? != self.columns {
            candle_core::bail!("rows of {} to {:?}", self.columns, target.shape())
        }
        Launch::new(&self.kernels, &format!("gather_blocks_{}", self.unit.name()), target.dtype())
            .over(target.dim(0)?, GATHER_THREADS)
            .tensor(&self.units)
            .tensor(ids)
            .tensor(target)
            .int(self.columns)
            .float(f32::from(self.unit.layout.kind.zero))
            .run()
    }
}

fn unit_of(format: GgmlDType) -> Result<Unit> {
    match Unit::of(format) {
        Some(unit) => Ok(unit),
        None => candle_core::bail!("there is no kernel for {format:?} blocks"),
    }
}

/// Bytes of a matrix's units.
fn rows_of_units(unit: Unit, rows: usize, columns: usize) -> usize {
    rows.div_ceil(PANEL) * columns.div_ceil(INPUTS) * unit.size_bytes
}

/// The units of matrices that are stacked by rows.
fn packed(unit: Unit, format: GgmlDType, sources: &[MatrixView<'_>]) -> Result<Vec<u8>> {
    let (rows, columns) = (sources.iter().map(|source| source.rows).sum(), sources[0].columns);
    let parts = sources.iter().map(|source| bytes_in(format, source)).collect::<Result<Vec<_>>>()?;
    match &parts[..] {
        [all] => unit.pack(format, all, rows, columns),
        parts => unit.pack(format, &parts.concat(), rows, columns),
    }
}

//! Products of f32 rows with weights that one bf16 number holds exactly, or the sum of two, as those of nearly all published models (bf16
//! and f16). Each input is the sum of three, so that products of bf16 tiles have all of its 24 bits (Henry, Tang & Heinecke 2019, arXiv
//! 1904.06376). Knows layouts of the two sides and the order in which tiles are computed; knows nothing of layers.

use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;
use half::{bf16, f16};
use rayon::prelude::*;

use super::product::{InputForm, Job, WeightMatrix, locate};
use super::simd::{Vectorised, dispatch};
use super::stored::{MatrixView, StoredFormat};
use super::tile::{Element, PANEL};
use super::tile16::{MAX_ROWS, STEP, Sums, THIRDS, TILE_ROWS, Tile16, TileProduct, TileUnit};

/// Panels that share a run of the batch while it is in the first cache.
pub const GROUP: usize = 4;
/// Steps of such a run: with 32 rows 24 KiB of the batch, beside 8 KiB of weights and 16 KiB of sums.
const RUN: usize = 4;

/// x [rows, k] as sums of three bf16 numbers each: its first 8 bits, the next, and the rest. Rows lie in blocks of 32, each [k / 32, 3,
/// row tiles]; only the last block may be of one row tile. What lies behind the last row or the last k of x counts for nothing.
#[derive(Default)]
pub struct Thirds {
    tiles: Vec<Tile16>,
}

impl Thirds {
    /// Splits x in place of what was there.
    pub fn load(&mut self, x: &[f32], k: usize) {
        let rows = x.len() / k.max(1);
        let steps = k.div_ceil(STEP);
        self.tiles.resize(rows.div_ceil(TILE_ROWS) * steps * THIRDS, Tile16::ZERO);
        let mut jobs = Vec::new();
        let mut rest = &mut self.tiles[..];
        for block in blocks(rows) {
            let row_tiles = block.len().div_ceil(TILE_ROWS);
            let (mut tiles, behind) = rest.split_at_mut(row_tiles * steps * THIRDS);
            rest = behind;
            for first in (0..steps).step_by(2 * RUN) {
                let (target, behind) = tiles.split_at_mut((steps - first).min(2 * RUN) * THIRDS * row_tiles);
                tiles = behind;
                jobs.push(Split { x: &x[block.start * k..block.end * k], k, first: first * STEP, row_tiles, target });
            }
        }
        match x.len() < super::PARALLEL_FROM {
            true => jobs.into_iter().for_each(dispatch),
            false => jobs.into_par_iter().for_each(dispatch),
        }
    }

    /// The tiles of a block from step `first` on.
    fn run_of(&self, block: &Range<usize>, steps: usize, run: Range<usize>) -> &[Tile16] {
        let row_tiles = block.len().div_ceil(TILE_ROWS);
        let start = block.start / TILE_ROWS * steps * THIRDS;
        &self.tiles[start + run.start * THIRDS * row_tiles..start + run.end * THIRDS * row_tiles]
    }
}

/// The rows of a batch in blocks of 32.
fn blocks(rows: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    (0..rows).step_by(MAX_ROWS).map(move |first| first..(first + MAX_ROWS).min(rows))
}

/// Columns from `first` on of the rows of a block.
struct Split<'a> {
    x: &'a [f32],
    k: usize,
    first: usize,
    row_tiles: usize,
    target: &'a mut [Tile16],
}

impl Vectorised for Split<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { x, k, first, row_tiles, target } = self;
        for (row, x) in x.chunks_exact(k).enumerate() {
            for (step, x) in x[first..].chunks(STEP).take(target.len() / (THIRDS * row_tiles)).enumerate() {
                let mut line = [0f32; STEP];
                match x.first_chunk() {
                    Some(whole) => line = *whole,
                    None => line[..x.len()].copy_from_slice(x),
                }
                let tile = step * THIRDS * row_tiles + row / TILE_ROWS;
                for (third, line) in thirds(&line).into_iter().enumerate() {
                    target[tile + third * row_tiles].0[row % TILE_ROWS] = line;
                }
            }
        }
    }
}

/// 32 numbers as three lines of pairs of bf16. A number's thirds add up to it exactly, if it is finite and they are not
/// below the smallest normal number; each is cut off, not rounded, so that none is beyond the largest bf16.
#[inline(always)]
fn thirds(line: &[f32; STEP]) -> [[u32; STEP / 2]; THIRDS] {
    let mut parts = [[0u32; STEP]; THIRDS];
    for (index, &value) in line.iter().enumerate() {
        let first = value.to_bits() & HIGH;
        let rest = value - f32::from_bits(first);
        let second = rest.to_bits() & HIGH;
        let third = (rest - f32::from_bits(second)).to_bits();
        (parts[0][index], parts[1][index], parts[2][index]) = (first, second, third);
    }
    parts.map(|part| {
        let mut pairs = [0u32; STEP / 2];
        for (pair, values) in pairs.iter_mut().zip(part.as_chunks::<2>().0) {
            *pair = values[0] >> 16 | values[1] & HIGH;
        }
        pairs
    })
}

/// The half of an f32 that is a bf16.
const HIGH: u32 = 0xffff_0000;

/// W as panels of 32 output features, in the order in which they are read: groups of 4 panels, runs of 4 steps of 32 k, the group's
/// panels, the run's steps, parts of W, two tiles of 16 features. Padded with zeros.
struct Panels {
    tiles: Vec<Tile16>,
    rows: usize,
    columns: usize,
    parts: usize,
    unit: TileUnit,
}

/// Packs matrices stacked by rows, straight from their bytes, as `dtype`; `None` if so many bf16 numbers as there is room for do not hold
/// all of their elements: one for each, or two where `dtype` is f32.
pub fn matrix(dtype: DType, sources: &[MatrixView<'_>]) -> Option<Arc<dyn WeightMatrix>> {
    match dtype {
        DType::BF16 => Some(Arc::new(Panels::new::<bf16>(sources, 1))),
        DType::F16 => fits::<f16>(sources, 1).then(|| Arc::new(Panels::new::<f16>(sources, 1)) as _),
        _ => {
            let parts = [1, 2].into_iter().find(|&parts| fits::<f32>(sources, parts))?;
            Some(Arc::new(Panels::new::<f32>(sources, parts)))
        }
    }
}

/// Whether so many bf16 numbers hold all elements, rounded to T.
fn fits<T: Element>(sources: &[MatrixView<'_>], parts: usize) -> bool {
    sources.iter().all(|source| {
        let is_wide = size_of::<T>() == 4;
        match source.format {
            StoredFormat::Dense(DType::BF16) if is_wide => return true,
            // Eleven bits: eight and three. The smallest f16 is far above the smallest bf16.
            StoredFormat::Dense(DType::F16) if is_wide && parts == 2 => return true,
            _ => {}
        }
        let columns = source.columns;
        let fits = |index| {
            let mut rest = T::from_f32(source.element(index)).to_f32();
            (0..parts).for_each(|_| rest -= f32::from_bits(rest.to_bits() & HIGH));
            rest == 0.0
        };
        (0..source.rows).into_par_iter().all(|row| (row * columns..(row + 1) * columns).all(fits))
    })
}

impl Panels {
    fn new<T: Element>(sources: &[MatrixView<'_>], parts: usize) -> Self {
        let columns = sources.first().map_or(0, |source| source.columns);
        let rows = sources.iter().map(|source| source.rows).sum();
        let num_panels = usize::div_ceil(rows, PANEL);
        let per_group = 2 * parts * GROUP * columns.div_ceil(STEP);
        let tiles = vec![Tile16::ZERO; num_panels * per_group / GROUP];
        let mut this = Self { tiles, rows, columns, parts, unit: TileUnit::detect() };
        let layout = this.layout();
        this.tiles.par_chunks_mut(per_group.max(1)).enumerate().for_each(|(group, tiles)| {
            for row in group * GROUP * PANEL..((group + 1) * GROUP * PANEL).min(rows) {
                let Some((source, source_row)) = locate(sources, row) else { break };
                for k in 0..columns {
                    let mut rest = T::from_f32(source.element(source_row * columns + k)).to_f32();
                    for part in 0..parts {
                        let first = f32::from_bits(rest.to_bits() & HIGH);
                        let (tile, pair, column) = layout.place(row, k, part);
                        tiles[tile - group * per_group].0[pair][column] |= first.to_bits() >> 16 << (k % 2 * 16);
                        rest -= first;
                    }
                }
            }
        });
        this
    }

    fn layout(&self) -> Layout {
        Layout { num_panels: self.rows.div_ceil(PANEL), steps: self.columns.div_ceil(STEP), parts: self.parts }
    }
}

/// Where what lies in [`Panels`].
#[derive(Clone, Copy)]
struct Layout {
    num_panels: usize,
    steps: usize,
    parts: usize,
}

impl Layout {
    /// Tiles of `panel` in the run that begins at step `first`.
    #[inline(always)]
    fn run(&self, panel: usize, first: usize) -> Range<usize> {
        let group = panel / GROUP * GROUP;
        let len = (self.steps - first).min(RUN);
        let start = group * self.steps + first * (self.num_panels - group).min(GROUP) + (panel - group) * len;
        2 * self.parts * start..2 * self.parts * (start + len)
    }

    /// Tile, pair and column of element k of an output feature.
    #[inline(always)]
    fn place(&self, row: usize, k: usize, part: usize) -> (usize, usize, usize) {
        let (lane, step) = (row % PANEL, k / STEP);
        let run = self.run(row / PANEL, step / RUN * RUN);
        let tile = run.start + 2 * (step % RUN * self.parts + part) + lane / TILE_ROWS;
        (tile, k % STEP / 2, lane % TILE_ROWS)
    }
}

impl WeightMatrix for Panels {
    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn input_form(&self) -> InputForm {
        InputForm::Thirds
    }

    /// The panels of a group take turns, a run of k each: so 32 rows of the batch are read from the first cache but for the first panel,
    /// and the weights in the order in which they lie.
    fn run(&self, panels: Range<usize>, job: &Job<'_>) {
        let (ready, layout, x) = (self.unit.ready(), self.layout(), &job.x.thirds);
        let mut sums = [Sums([[0.0; PANEL]; MAX_ROWS]); GROUP];
        let mut first = panels.start;
        while first < panels.end {
            let group = first..(first / GROUP * GROUP + GROUP).min(panels.end);
            for block in blocks(job.x.rows) {
                let (rows, parts) = (block.len(), self.parts);
                // Numbers just written are slow to load into a tile: sums begin with a bias, if there is one, else in the tile.
                let starts = job.bias.is_none();
                if !starts {
                    let sums = group.clone().zip(&mut sums);
                    sums.for_each(|(panel, sums)| sums.0[..rows].fill(job.start_row(panel)));
                }
                for run in (0..layout.steps).step_by(RUN) {
                    let a = x.run_of(&block, layout.steps, run..(run + RUN).min(layout.steps));
                    for (panel, sums) in group.clone().zip(&mut sums) {
                        let b = &self.tiles[layout.run(panel, run)];
                        TileProduct { rows, parts, a, b, starts: starts && run == 0 }.run(&ready, sums);
                    }
                }
                for (panel, sums) in group.clone().zip(&sums) {
                    job.store_rows(panel, self.rows, block.start, &sums.0[..block.len()]);
                }
            }
            first = group.end;
        }
    }

    fn copy_row(&self, row: usize, target: &mut [f32]) {
        let layout = self.layout();
        for (k, value) in target.iter_mut().enumerate() {
            *value = (0..self.parts).fold(0.0, |sum, part| {
                let (tile, pair, column) = layout.place(row, k, part);
                sum + f32::from_bits(self.tiles[tile].0[pair][column] >> (k % 2 * 16) << 16)
            });
        }
    }
}

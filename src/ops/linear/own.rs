//! Products with one matrix by our own kernels on a CUDA device (kernels/dense_product.cuh, kernels/warpgroup_product.cuh), and which tiles they
//! take. All tiles of a kernel give a row the same bits, in any company. Knows shapes; knows no layer.

use candle_core::{DType, Result, Tensor};

use super::super::Kernels;
use super::super::launch::Launch;
use super::super::warpgroups::LINES_ALIGNMENT;
use super::device::product;

/// What inputs in 16 bits come in pieces of: 16 bytes.
const WHOLE_PIECES: usize = 8;
/// Bytes of a row or column in a step along k, which are in shared memory.
const STEP_BYTES: usize = 128;

/// A block's part of y, and how many steps it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tile {
    rows: usize,
    columns: usize,
    steps: usize,
}

const fn tile(rows: usize, columns: usize, steps: usize) -> Tile {
    Tile { rows, columns, steps }
}

/// By warps, in 16 bits, from the largest on.
const WARP_TILES: [Tile; 4] = [tile(128, 128, 3), tile(64, 128, 3), tile(64, 64, 4), tile(16, 32, 8)];
const WARP_THREADS: usize = 128;
/// By warpgroups, of which each has 64 rows: in 16 bits, and in fp8.
const WARPGROUP_TILES: [Tile; 4] = [tile(192, 256, 4), tile(128, 256, 4), tile(128, 128, 6), tile(64, 64, 8)];
const FP8_TILES: [Tile; 2] = [tile(128, 128, 6), tile(64, 64, 8)];

/// Whether there is a kernel for W [out, in].
pub(super) fn serves(kernels: &Kernels, weight: &Tensor) -> Result<bool> {
    Ok(match weight.dtype() {
        DType::F8E4M3 => kernels.has_warpgroups(),
        _ => weight.dim(1)?.is_multiple_of(WHOLE_PIECES),
    })
}

/// y [rows, out] = x [rows, in] Wᵀ + bias, results in y's format, x's or f32; the bias in f32 `[out]`.
pub(super) fn dense_product(
    kernels: &Kernels,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    y: &Tensor,
) -> Result<()> {
    let fits = y.dtype() == x.dtype() || y.dtype() == DType::F32;
    let Some([rows, columns, out]) = shape(x, weight, y)?.filter(|_| fits && x.dtype() != DType::F32) else {
        return product(kernels, x, weight, bias, y, None);
    };
    let launch = match kernels.has_warpgroups() {
        true => {
            let tile = best_warpgroup_tile(&WARPGROUP_TILES, rows, out, kernels.multiprocessors());
            by_warpgroups(kernels, "group_product", tile, x.dtype(), [rows, out])
        }
        false => {
            let tile = warp_tile(rows, out, kernels.multiprocessors());
            let launch = Launch::new(kernels, &format!("product_{}x{}", tile.rows, tile.columns), x.dtype());
            launch.over_all(tile.grid([rows, out]), WARP_THREADS).shared(tile.shared_bytes())
        }
    };
    run_dense(launch, x, weight, bias, y, [rows, columns, out])
}

/// The same of x and W in fp8, whose rows stand for so many times as much: f32 `[rows]` and `[out]`. Results in y's format.
pub(super) fn fp8_product(
    kernels: &Kernels,
    (x, row_scales): (&Tensor, &Tensor),
    (weight, column_scales): (&Tensor, &Tensor),
    bias: Option<&Tensor>,
    y: &Tensor,
) -> Result<()> {
    let fits = x.dtype() == DType::F8E4M3;
    let Some([rows, columns, out]) = shape(x, weight, y)?.filter(|_| fits && kernels.has_warpgroups()) else {
        candle_core::bail!("an fp8 product of {:?} with {:?} to {:?}", x.shape(), weight.shape(), y.shape())
    };
    let tile = best_warpgroup_tile(&FP8_TILES, rows, out, kernels.multiprocessors());
    let launch = by_warpgroups(kernels, "fp8_product", tile, y.dtype(), [rows, out]);
    run_fp8(launch, (x, row_scales), (weight, column_scales), bias, y, [rows, columns, out])
}

/// x [rows, in] Wᵀ in f32 [rows, out] by each tile that warpgroups have, x and W both in 16 bits or both in fp8: for a trial.
pub(in crate::ops) fn by_all_warpgroup_tiles(kernels: &Kernels, x: &Tensor, weight: &Tensor) -> Result<Vec<Tensor>> {
    let ([rows, columns], out) = ([x.dim(0)?, x.dim(1)?], weight.dim(0)?);
    let (shape, results) = ([rows, columns, out], || Tensor::zeros((rows, out), DType::F32, x.device()));
    if x.dtype() == DType::F8E4M3 {
        let [row_ones, column_ones] = [rows, out].map(|count| Tensor::ones(count, DType::F32, x.device()));
        let (row_ones, column_ones) = (row_ones?, column_ones?);
        let by_tile = |tile: &Tile| {
            let (y, launch) = (results()?, by_warpgroups(kernels, "fp8_product", *tile, DType::F32, [rows, out]));
            run_fp8(launch, (x, &row_ones), (weight, &column_ones), None, &y, shape).and(Ok(y))
        };
        return FP8_TILES.iter().map(by_tile).collect();
    }
    let by_tile = |tile: &Tile| {
        let (y, launch) = (results()?, by_warpgroups(kernels, "group_product", *tile, x.dtype(), [rows, out]));
        run_dense(launch, x, weight, None, &y, shape).and(Ok(y))
    };
    WARPGROUP_TILES.iter().map(by_tile).collect()
}

/// `shape`: rows, inputs and outputs.
fn run_dense(
    launch: Launch<'_>,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    y: &Tensor,
    shape: [usize; 3],
) -> Result<()> {
    let launch = launch.tensor(x).tensor(weight).optional(bias).tensor(y);
    let is_wide = usize::from(y.dtype() == DType::F32);
    shape.into_iter().fold(launch, Launch::int).int(is_wide).run()
}

/// As [`run_dense`].
fn run_fp8(
    launch: Launch<'_>,
    (x, row_scales): (&Tensor, &Tensor),
    (weight, column_scales): (&Tensor, &Tensor),
    bias: Option<&Tensor>,
    y: &Tensor,
    shape: [usize; 3],
) -> Result<()> {
    let launch = launch.tensor(x).tensor(weight).tensor(row_scales).tensor(column_scales).optional(bias).tensor(y);
    shape.into_iter().fold(launch, Launch::int).run()
}

/// Rows, inputs and outputs, if these fit each other.
fn shape(x: &Tensor, weight: &Tensor, y: &Tensor) -> Result<Option<[usize; 3]>> {
    let ((rows, columns), (out, inputs)) = (x.dims2()?, weight.dims2()?);
    let fits = columns == inputs && x.dtype() == weight.dtype() && y.dims2()? == (rows, out);
    Ok(fits.then_some([rows, columns, out]))
}

fn by_warpgroups<'a>(kernels: &'a Kernels, kernel: &str, tile: Tile, dtype: DType, y: [usize; 2]) -> Launch<'a> {
    let launch = Launch::new(kernels, &format!("{kernel}_{}x{}", tile.rows, tile.columns), dtype);
    launch.over_all(tile.grid(y), 2 * tile.rows).shared(tile.shared_bytes() + LINES_ALIGNMENT)
}

impl Tile {
    fn grid(self, [rows, out]: [usize; 2]) -> [usize; 3] {
        [rows.div_ceil(self.rows), out.div_ceil(self.columns), 1]
    }

    fn num_blocks(self, rows: usize, out: usize) -> usize {
        self.grid([rows, out]).into_iter().product()
    }

    fn shared_bytes(self) -> usize {
        self.steps * (self.rows + self.columns) * STEP_BYTES
    }

    /// What a step of all blocks takes on a Hopper card, in clocks. Tensor cores multiply 64 x 64 numbers of 32 bytes in 32 of them. Inputs come out of the
    /// second cache, at most 64 bytes a clock to a multiprocessor and 4,096 to all (tiles of 64 x 64 were seen to get 7.2 TB/s, H200, 2026-11-28).
    fn step_clocks(self, rows: usize, out: usize, multiprocessors: usize) -> f64 {
        let blocks = self.num_blocks(rows, out);
        let multiply = (self.rows * self.columns) as f64 / 32.0;
        let bytes = (self.rows.min(rows) + self.columns.min(out)) * STEP_BYTES;
        let bytes_a_clock = (4096.0 / blocks.min(multiprocessors) as f64).min(64.0);
        blocks.div_ceil(multiprocessors) as f64 * multiply.max(bytes as f64 / bytes_a_clock)
    }
}

/// The one that is done first.
fn best_warpgroup_tile(tiles: &[Tile], rows: usize, out: usize, multiprocessors: usize) -> Tile {
    let clocks = |tile: &Tile| tile.step_clocks(rows, out, multiprocessors);
    tiles.iter().copied().min_by(|a, b| clocks(a).total_cmp(&clocks(b))).unwrap_or(tiles[0])
}

/// For a few rows the tile that has few; else the largest that has rows for at least half of its own and of which there are enough for every
/// multiprocessor, or the smallest of these.
fn warp_tile(rows: usize, out: usize, multiprocessors: usize) -> Tile {
    let [larger @ .., small, for_few] = WARP_TILES;
    if rows <= for_few.rows {
        return for_few;
    }
    let fills = |tile: &Tile| 2 * rows > tile.rows && tile.num_blocks(rows, out) >= multiprocessors;
    larger.into_iter().find(fills).unwrap_or(small)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_products_take_large_tiles_and_few_rows_small_ones() {
        let of = |rows, out| best_warpgroup_tile(&WARPGROUP_TILES, rows, out, 132);
        assert_eq!(of(2048, 28_672), WARPGROUP_TILES[0]);
        assert_eq!(of(256, 28_672), WARPGROUP_TILES[1]);
        assert_eq!(of(256, 4096), WARPGROUP_TILES[2]);
        assert_eq!(of(1, 4096), WARPGROUP_TILES[3]);
        assert_eq!(of(40, 1000), WARPGROUP_TILES[3]);
        assert_eq!(warp_tile(16, 4096, 132), WARP_TILES[3]);
        assert_eq!(warp_tile(2048, 4096, 132), WARP_TILES[0]);
        assert_eq!(warp_tile(17, 64, 132), WARP_TILES[2]);
    }
}

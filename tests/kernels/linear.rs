//! Dense products, and what surrounds them: rows in 8 bits and sums scaled back, against the definition.

use half::{bf16, f16};

use super::machine::Launch;
use super::numbers::{Format, Random, assert_near, unwritten, wide};
use super::small_float::Fp8;

fn round<T: Format>(x: &[T], width: usize, threads: u32) -> (Vec<Fp8>, Vec<f32>) {
    let rows = x.len() / width;
    let (mut y, mut scales) = (vec![Fp8(0x7f); x.len()], unwritten(rows));
    let name = format!("pairwright_round_rows_fp8_{}", T::NAME);
    let launch = Launch::new(&name, [rows as u32, 1, 1], threads).input(x).output(&mut y).output(&mut scales);
    launch.int(width).run();
    (y, scales)
}

fn check_rounding<T: Format>(random: &mut Random) {
    for (rows, width, threads) in [(2, 1, 32), (3, 640, 64), (2, 333, 96)] {
        let mut x: Vec<T> = random.numbers(rows * width, 5.0);
        x[(rows - 1) * width..].fill(T::rounded(0.0));
        let (y, scales) = round(&x, width, threads);
        for (row, values) in x.chunks(width).enumerate() {
            let largest = values.iter().fold(0f32, |largest, value| largest.max(value.wide().abs()));
            let scale = if largest == 0.0 { 1.0 } else { largest / Fp8::MAX };
            let want: Vec<Fp8> = values.iter().map(|value| Fp8::nearest(value.wide() / scale)).collect();
            assert_eq!((&y[row * width..][..width], scales[row]), (&want[..], scale), "row {row} of width {width}");
        }
        // The maximum has no order: nor have the threads a say.
        assert_eq!(round(&x[..width], width, 32), (y[..width].to_vec(), scales[..1].to_vec()));
    }
}

#[test]
fn rows_in_8_bits_use_the_whole_range() {
    let mut random = Random(71);
    check_rounding::<f32>(&mut random);
    check_rounding::<f16>(&mut random);
    check_rounding::<bf16>(&mut random);
}

fn check_scaling<T: Format>(random: &mut Random) {
    for (rows, width, grid, has_bias) in [(1, 1, [1, 1, 1], true), (4, 72, [1, 2, 1], false), (3, 515, [3, 1, 1], true)]
    {
        let x: Vec<f32> = random.numbers(rows * width, 900.0);
        let row_scales: Vec<f32> = random.numbers(rows, 0.01);
        let column_scales: Vec<f32> = random.numbers(width, 0.5);
        let bias: Vec<f32> = if has_bias { random.numbers(width, 1.0) } else { vec![0.0; width] };
        let name = format!("pairwright_scale_rows_{}", T::NAME);
        let mut y = unwritten::<T>(rows * width);
        let launch = Launch::new(&name, grid, 64).input(&x).output(&mut y).input(&row_scales).input(&column_scales);
        launch.maybe(has_bias.then_some(&bias[..])).int(rows).int(width).run();
        let element = |(index, &x): (usize, &f32)| {
            let (row, column) = (index / width, index % width);
            let scale = f64::from(row_scales[row]) * f64::from(column_scales[column]);
            (f64::from(x) * scale + f64::from(bias[column])) as f32
        };
        let want: Vec<f32> = x.iter().enumerate().map(element).collect();
        assert_near(&y, &want, T::STEP, 1.0, &format!("{rows} rows of {width} scaled"));
        assert!(wide(&y).iter().all(|value| value.is_finite()));
    }
}

#[test]
fn sums_are_scaled_by_row_and_column() {
    let mut random = Random(72);
    check_scaling::<f32>(&mut random);
    check_scaling::<f16>(&mut random);
    check_scaling::<bf16>(&mut random);
}

/// Tiles of a kernel: its name, rows, columns, the steps that are in shared memory, and a block's threads.
type Tiles = (&'static str, usize, usize, usize, u32);

const WARP_TILES: [Tiles; 4] = [
    ("product", 128, 128, 3, 128),
    ("product", 64, 128, 3, 128),
    ("product", 64, 64, 4, 128),
    ("product", 16, 32, 8, 128),
];
const WARPGROUP_TILES: [Tiles; 4] = [
    ("group_product", 192, 256, 4, 384),
    ("group_product", 128, 256, 4, 256),
    ("group_product", 128, 128, 6, 256),
    ("group_product", 64, 64, 8, 128),
];
const FP8_TILES: [Tiles; 2] = [("fp8_product", 128, 128, 6, 256), ("fp8_product", 64, 64, 8, 128)];

fn launch<'a>(name: &'a str, tiles: Tiles, rows: usize, outputs: usize) -> Launch<'a> {
    let (_, tile_rows, tile_columns, steps, threads) = tiles;
    let grid = [rows.div_ceil(tile_rows) as u32, outputs.div_ceil(tile_columns) as u32, 1];
    Launch::new(name, grid, threads).shared(steps * (tile_rows + tile_columns) * 128 + 1024)
}

/// y = x Wᵀ + b.
fn multiply<T: Format, Y: Format>(
    tiles: Tiles,
    x: &[T],
    weights: &[T],
    bias: Option<&[f32]>,
    [rows, inputs, outputs]: [usize; 3],
) -> Vec<Y> {
    let mut y = unwritten(rows * outputs);
    let name = format!("pairwright_{}_{}x{}_{}", tiles.0, tiles.1, tiles.2, T::NAME);
    let launch = launch(&name, tiles, rows, outputs).input(x).input(weights).maybe(bias).output(&mut y);
    launch.int(rows).int(inputs).int(outputs).int(usize::from(Y::NAME == "f32")).run();
    y
}

/// y = x Wᵀ + b of numbers that are known in full.
fn want(x: &[f32], weights: &[f32], bias: Option<&[f32]>, [rows, inputs, outputs]: [usize; 3]) -> Vec<f32> {
    let element = |index: usize| {
        let (row, column) = (&x[index / outputs * inputs..][..inputs], &weights[index % outputs * inputs..][..inputs]);
        let sum: f64 = row.iter().zip(column).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
        (sum + bias.map_or(0.0, |bias| f64::from(bias[index % outputs]))) as f32
    };
    (0..rows * outputs).map(element).collect()
}

fn check_product<T: Format>(random: &mut Random, tiles: &[Tiles], shape: [usize; 3], has_bias: bool) {
    let [rows, inputs, outputs] = shape;
    let (x, weights): (Vec<T>, Vec<T>) = (random.numbers(rows * inputs, 1.0), random.numbers(outputs * inputs, 1.0));
    let bias: Option<Vec<f32>> = has_bias.then(|| random.numbers(outputs, 1.0));
    let want = want(&wide(&x), &wide(&weights), bias.as_deref(), shape);
    let what = format!("{} {shape:?}", T::NAME);
    let first: Vec<f32> = multiply(tiles[0], &x, &weights, bias.as_deref(), shape);
    assert_near(&first, &want, 1e-6, (inputs as f32).sqrt(), &what);
    let narrow: Vec<T> = first.iter().map(|&y| T::rounded(y)).collect();
    for &tile in tiles {
        assert_eq!(multiply::<T, f32>(tile, &x, &weights, bias.as_deref(), shape), first, "{what}: {tile:?}");
        assert_eq!(multiply::<T, T>(tile, &x, &weights, bias.as_deref(), shape), narrow, "{what}: {tile:?}, rounded");
        let last = &x[(rows - 1) * inputs..];
        let alone: Vec<f32> = multiply(tile, last, &weights, bias.as_deref(), [1, inputs, outputs]);
        assert_eq!(alone, first[(rows - 1) * outputs..], "{what}: {tile:?}, a row alone");
    }
}

/// Parts of tiles, one number and one piece over, fewer steps than are held and more, an odd number of outputs.
const SHAPES: [([usize; 3], bool); 5] = [
    ([1, 8, 1], false),
    ([130, 72, 137], true),
    ([17, 640, 34], true),
    ([65, 136, 129], false),
    ([3, 1352, 260], true),
];

#[test]
fn dense_products_have_the_same_bits_in_tiles_of_any_size() {
    let mut random = Random(73);
    for (shape, has_bias) in SHAPES {
        check_product::<f16>(&mut random, &WARP_TILES, shape, has_bias);
        check_product::<bf16>(&mut random, &WARP_TILES, shape, has_bias);
    }
}

#[test]
fn dense_products_by_warpgroups_have_the_same_bits_in_tiles_of_any_size() {
    let mut random = Random(74);
    for (shape, has_bias) in SHAPES {
        check_product::<f16>(&mut random, &WARPGROUP_TILES, shape, has_bias);
        check_product::<bf16>(&mut random, &WARPGROUP_TILES, shape, has_bias);
    }
}

/// An fp8 product: its inputs, and what they and sums are multiplied by.
struct Eights {
    x: Vec<Fp8>,
    weights: Vec<Fp8>,
    row_scales: Vec<f32>,
    column_scales: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Eights {
    fn new(random: &mut Random, [rows, inputs, outputs]: [usize; 3], has_bias: bool) -> Self {
        let mut eights = |count| -> Vec<Fp8> {
            let numbers: Vec<f32> = random.numbers(count, 400.0);
            numbers.into_iter().map(Fp8::nearest).collect()
        };
        let (x, weights) = (eights(rows * inputs), eights(outputs * inputs));
        let (row_scales, column_scales) = (random.numbers(rows, 0.01), random.numbers(outputs, 0.01));
        Self { x, weights, row_scales, column_scales, bias: has_bias.then(|| random.numbers(outputs, 1.0)) }
    }

    /// From row `first` on.
    fn run<Y: Format>(&self, tiles: Tiles, first: usize, [rows, inputs, outputs]: [usize; 3]) -> Vec<Y> {
        let mut y = unwritten((rows - first) * outputs);
        let name = format!("pairwright_{}_{}x{}_{}", tiles.0, tiles.1, tiles.2, Y::NAME);
        let launch = launch(&name, tiles, rows - first, outputs).input(&self.x[first * inputs..]).input(&self.weights);
        let launch = launch.input(&self.row_scales[first..]).input(&self.column_scales).maybe(self.bias.as_deref());
        launch.output(&mut y).int(rows - first).int(inputs).int(outputs).run();
        y
    }

    fn want(&self, shape: [usize; 3]) -> Vec<f32> {
        let scaled = |eights: &[Fp8], scales: &[f32]| -> Vec<f32> {
            let scale = |(index, eight): (usize, &Fp8)| eight.wide() * scales[index / shape[1]];
            eights.iter().enumerate().map(scale).collect()
        };
        let (x, weights) = (scaled(&self.x, &self.row_scales), scaled(&self.weights, &self.column_scales));
        want(&x, &weights, self.bias.as_deref(), shape)
    }
}

#[test]
fn fp8_products_have_the_same_bits_in_tiles_of_any_size() {
    let mut random = Random(75);
    for (shape, has_bias) in
        [([1, 16, 1], false), ([130, 144, 137], true), ([17, 640, 34], true), ([5, 2064, 129], true)]
    {
        let eights = Eights::new(&mut random, shape, has_bias);
        let first: Vec<f32> = eights.run(FP8_TILES[0], 0, shape);
        assert_near(&first, &eights.want(shape), 1e-6, 16.0 * (shape[1] as f32).sqrt(), &format!("{shape:?}"));
        for tiles in FP8_TILES {
            assert_eq!(eights.run::<f32>(tiles, 0, shape), first, "{shape:?}: {tiles:?}");
            let narrow: Vec<bf16> = first.iter().map(|&y| bf16::from_f32(y)).collect();
            assert_eq!(eights.run::<bf16>(tiles, 0, shape), narrow, "{shape:?}: {tiles:?}, rounded");
            let alone: Vec<f32> = eights.run(tiles, shape[0] - 1, shape);
            assert_eq!(alone, first[(shape[0] - 1) * shape[2]..], "{shape:?}: {tiles:?}, a row alone");
        }
    }
}

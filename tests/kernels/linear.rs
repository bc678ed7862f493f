//! A dense product, and what surrounds it: rows of a bias, rows in 8 bits and sums scaled back, against the definition.

use half::{bf16, f16};

use super::machine::Launch;
use super::numbers::{Format, Random, assert_near, unwritten, wide};
use super::small_float::Fp8;

fn fill<T: Format>(bias: &[f32], rows: usize, grid: [u32; 3]) -> Vec<T> {
    let mut y = unwritten(rows * bias.len());
    let name = format!("pairwright_fill_rows_{}", T::NAME);
    Launch::new(&name, grid, 32).output(&mut y).input(bias).int(rows).int(bias.len()).run();
    y
}

fn check_fill<T: Format>(random: &mut Random) {
    for (rows, width, grid) in [(1, 1, [1, 1, 1]), (5, 96, [2, 2, 1]), (3, 1021, [1, 3, 1])] {
        let bias: Vec<f32> = random.numbers(width, 3.0);
        let want: Vec<T> = bias.iter().map(|&value| T::rounded(value)).collect();
        assert!(fill::<T>(&bias, rows, grid).chunks(width).all(|row| row == want), "{rows} rows of {width}");
    }
}

#[test]
fn rows_begin_as_the_bias() {
    let mut random = Random(70);
    check_fill::<f32>(&mut random);
    check_fill::<f16>(&mut random);
    check_fill::<bf16>(&mut random);
}

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

/// y = x Wᵀ + b by tiles of `rows` by `columns`, of which `steps` are in shared memory.
fn multiply<T: Format, Y: Format>(
    (tile_rows, tile_columns, steps): (usize, usize, usize),
    x: &[T],
    weights: &[T],
    bias: Option<&[f32]>,
    [rows, inputs, outputs]: [usize; 3],
) -> Vec<Y> {
    let mut y = unwritten(rows * outputs);
    let name = format!("pairwright_product_{tile_rows}x{tile_columns}_{}", T::NAME);
    let grid = [rows.div_ceil(tile_rows) as u32, outputs.div_ceil(tile_columns) as u32, 1];
    let launch = Launch::new(&name, grid, 128).shared(steps * (tile_rows + tile_columns) * 128);
    let launch = launch.input(x).input(weights).maybe(bias).output(&mut y);
    launch.int(rows).int(inputs).int(outputs).int(usize::from(Y::NAME == "f32")).run();
    y
}

fn check_product<T: Format>(random: &mut Random, shape: [usize; 3], has_bias: bool) {
    const TILES: [(usize, usize, usize); 4] = [(128, 128, 3), (64, 128, 3), (64, 64, 4), (16, 32, 8)];
    let [rows, inputs, outputs] = shape;
    let (x, weights): (Vec<T>, Vec<T>) = (random.numbers(rows * inputs, 1.0), random.numbers(outputs * inputs, 1.0));
    let bias: Option<Vec<f32>> = has_bias.then(|| random.numbers(outputs, 1.0));
    let want: Vec<f32> = (0..rows * outputs)
        .map(|index| {
            let (row, column) =
                (&x[index / outputs * inputs..][..inputs], &weights[index % outputs * inputs..][..inputs]);
            let sum: f64 = row.iter().zip(column).map(|(x, w)| f64::from(x.wide()) * f64::from(w.wide())).sum();
            (sum + bias.as_ref().map_or(0.0, |bias| f64::from(bias[index % outputs]))) as f32
        })
        .collect();
    let what = format!("{} {shape:?}", T::NAME);
    let first: Vec<f32> = multiply(TILES[0], &x, &weights, bias.as_deref(), shape);
    assert_near(&first, &want, 1e-6, (inputs as f32).sqrt(), &what);
    let narrow: Vec<T> = first.iter().map(|&y| T::rounded(y)).collect();
    for tile in TILES {
        assert_eq!(multiply::<T, f32>(tile, &x, &weights, bias.as_deref(), shape), first, "{what}: {tile:?}");
        assert_eq!(multiply::<T, T>(tile, &x, &weights, bias.as_deref(), shape), narrow, "{what}: {tile:?}, rounded");
        let last = &x[(rows - 1) * inputs..];
        let alone: Vec<f32> = multiply(tile, last, &weights, bias.as_deref(), [1, inputs, outputs]);
        assert_eq!(alone, first[(rows - 1) * outputs..], "{what}: {tile:?}, a row alone");
    }
}

#[test]
fn dense_products_have_the_same_bits_in_tiles_of_any_size() {
    let mut random = Random(73);
    // Parts of tiles, one number and one piece over, fewer steps than are held, an odd number of outputs.
    for (shape, has_bias) in
        [([1, 8, 1], false), ([130, 72, 137], true), ([17, 640, 34], true), ([65, 136, 129], false)]
    {
        check_product::<f16>(&mut random, shape, has_bias);
        check_product::<bf16>(&mut random, shape, has_bias);
    }
}

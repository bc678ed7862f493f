//! Products of matrices in blocks with activations rounded to 8 bits: what rounding them by hand and widening the weights gives, and
//! the same bits in any batch and on any number of threads.

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use pairwright::ops::linear::Linear;
use pairwright::ops::{BlockInputs, Compute, to_host};

use super::blocks::{check_rows_alone, formats, in_blocks, view};
use super::{Random, matrix, stored};

fn rounding() -> Compute {
    Compute { block_inputs: BlockInputs::Int8, ..Compute::cpu() }
}

/// Whether a format has an integer product.
fn has_integers(format: GgmlDType) -> bool {
    !matches!(format, GgmlDType::Q8_1 | GgmlDType::Q2K | GgmlDType::Q3K | GgmlDType::Q8K)
}

/// Groups of 32, each against its largest element, in f64.
fn rounded(x: &[f32]) -> Vec<f64> {
    let group = |group: &[f32]| {
        let largest = group.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let quant = |value: &f32| f64::from((value * inverse).round_ties_even()) * f64::from(largest / 127.0);
        group.iter().map(quant).collect::<Vec<f64>>()
    };
    x.chunks(32).flat_map(group).collect()
}

#[test]
fn a_product_is_that_of_the_rounded_rows_with_the_widened_weights() {
    let mut random = Random(60);
    for format in formats().filter(|&format| has_integers(format)) {
        let block = format.block_size();
        for (n, k) in [(1, block), (33, 2 * block), (64, 3 * block), (40, 11 * block)] {
            let (bytes, wide) = in_blocks(&random.numbers(n * k, 1.0), n, k, format);
            let shifted = [&[7u8][..], &bytes].concat();
            for bias in [None, Some(random.numbers(n, 1.0))] {
                let layer = Linear::new(&rounding(), &[view(&shifted[1..], format, n, k)], bias.clone()).unwrap();
                for rows in [1, 12, 13, 40] {
                    // A row with an outlier and one of zeros among them.
                    let mut data = random.numbers(rows * k, 1.0);
                    data[0] = 50.0;
                    data[(rows - 1) * k..].fill(0.0);
                    let got = to_host(&layer.forward(&matrix(&data, rows, k)).unwrap()).unwrap();
                    for (row, x) in data.chunks(k).enumerate() {
                        let x = rounded(x);
                        for output in 0..n {
                            let weights = &wide[output * k..][..k];
                            let products = x.iter().zip(weights).map(|(x, &w)| x * f64::from(w));
                            let (sum, size) = products.fold((0.0, 1.0), |(sum, size), p| (sum + p, size + p.abs()));
                            let want = sum + bias.as_ref().map_or(0.0, |bias| f64::from(bias[output]));
                            let got = f64::from(got[row * n + output]);
                            assert!((got - want).abs() < 1e-5 * size, "{format:?} {rows}x{k}x{n}: {got}, want {want}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_in_a_batch_has_the_bits_of_the_row_alone_on_any_number_of_threads() {
    check_rows_alone(&rounding(), 61);
}

/// Formats without an integer product, and dense matrices in the same stack, take the rows as they are.
#[test]
fn a_stack_rounds_for_those_matrices_alone_that_take_it() {
    let mut random = Random(62);
    let k = 512;
    let data: Vec<Vec<f32>> = (0..3).map(|_| random.numbers(40 * k, 1.0)).collect();
    let (q8, _) = in_blocks(&data[0], 40, k, GgmlDType::Q8_0);
    let (q2, _) = in_blocks(&data[1], 40, k, GgmlDType::Q2K);
    let (f32s, _) = stored(&data[2], DType::F32);
    let views = [view(&q8, GgmlDType::Q8_0, 40, k), view(&q2, GgmlDType::Q2K, 40, k), view(&f32s, DType::F32, 40, k)];
    let x = matrix(&random.numbers(5 * k, 1.0), 5, k);
    let of = |compute: &Compute| to_host(&Linear::new(compute, &views, None).unwrap().forward(&x).unwrap()).unwrap();
    let (exact, fast) = (of(&Compute::cpu()), of(&rounding()));
    for (exact, fast) in exact.chunks(120).zip(fast.chunks(120)) {
        assert_ne!(exact[..40], fast[..40]);
        assert_eq!(exact[40..], fast[40..]);
    }
}

/// A row that holds something that is no number must not look like one that does not.
#[test]
fn what_is_not_finite_stays_so() {
    let mut random = Random(63);
    let (n, k) = (5, 64);
    let (bytes, _) = in_blocks(&random.numbers(n * k, 1.0), n, k, GgmlDType::Q8_0);
    let layer = Linear::new(&rounding(), &[view(&bytes, GgmlDType::Q8_0, n, k)], None).unwrap();
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut data = random.numbers(2 * k, 1.0);
        data[40] = wrong;
        let got = to_host(&layer.forward(&matrix(&data, 2, k)).unwrap()).unwrap();
        assert!(got[..n].iter().all(|value| !value.is_finite()) && got[n..].iter().all(|value| value.is_finite()));
    }
}

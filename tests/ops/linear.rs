//! Linear layers and embeddings: every storage format against plain products of the rounded numbers.

use candle_core::{DType, Tensor};
use pairwright::ops::embedding::Embedding;
use pairwright::ops::linear::{Linear, MatrixView};
use pairwright::ops::{Compute, DenseProducts, to_host};

use super::{Random, assert_close, bits, matrix, on_threads, stored};

const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

fn compute(weight_dtype: DType) -> Compute {
    Compute { weight_dtype, ..Compute::cpu() }
}

/// Both ways to sum products.
fn computes(weight_dtype: DType) -> [Compute; 2] {
    [DenseProducts::Fma, DenseProducts::Bf16x3].map(|products| Compute { products, ..compute(weight_dtype) })
}

fn linear(compute: &Compute, bytes: &[u8], dtype: DType, shape: (usize, usize), bias: Option<Vec<f32>>) -> Linear {
    let view = MatrixView { bytes, format: dtype.into(), rows: shape.0, columns: shape.1 };
    Linear::new(compute, &[view], bias).unwrap()
}

/// Within 2e-6 per summand of the portable product, whose order of summation is another.
#[test]
fn every_format_equals_the_portable_product_of_the_rounded_weights() {
    let mut random = Random(1);
    let shapes = [(1, 1, 1), (1, 64, 32), (2, 33, 31), (7, 48, 100), (12, 17, 33), (13, 5, 320), (64, 96, 65)];
    let sizes = [(70, 100, 257), (25, 1, 40), (36, 512, 96)];
    for (rows, k, n) in shapes.into_iter().chain(sizes) {
        let x = matrix(&random.numbers(rows * k, 1.0), rows, k);
        let weights = random.numbers(n * k, 1.0);
        for dtype in DTYPES {
            let (bytes, rounded) = stored(&weights, dtype);
            let (wide, _) = stored(&rounded, DType::F32);
            let bias = Some(random.numbers(n, 1.0));
            for (compute, bias) in computes(dtype).iter().flat_map(|compute| [(compute, &None), (compute, &bias)]) {
                let native = linear(compute, &bytes, dtype, (n, k), bias.clone());
                let portable = linear(&Compute::cpu().portable(), &wide, DType::F32, (n, k), bias.clone());
                let got = native.forward(&x).unwrap();
                assert_eq!((got.dims(), native.out_features()), (&[rows, n][..], n));
                let want = to_host(&portable.forward(&x).unwrap()).unwrap();
                let what = format!("{rows}x{k}x{n} {dtype:?}");
                assert_close(&to_host(&got).unwrap(), &want, 2e-6 * (k as f32 + 1.0), &what);
            }
        }
    }
}

/// A file's format and the compute format may differ: what counts is the compute format's rounding.
#[test]
fn files_of_any_format_are_rounded_once() {
    let mut random = Random(2);
    let (rows, k, n) = (5, 40, 70);
    let x = matrix(&random.numbers(rows * k, 1.0), rows, k);
    let (file, of_file) = stored(&random.numbers(n * k, 1.0), DType::BF16);
    for dtype in DTYPES {
        let (_, rounded) = stored(&of_file, dtype);
        let (wide, _) = stored(&rounded, DType::F32);
        for (compute, wide_compute) in computes(dtype).iter().zip(&computes(DType::F32)) {
            let got = linear(compute, &file, DType::BF16, (n, k), None).forward(&x).unwrap();
            let want = linear(wide_compute, &wide, DType::F32, (n, k), None).forward(&x).unwrap();
            assert_eq!(bits(&got), bits(&want), "{dtype:?}");
        }
    }
}

#[test]
fn a_row_in_a_batch_has_the_bits_of_the_row_alone() {
    let mut random = Random(3);
    for (k, n) in [(64, 96), (100, 77), (257, 33)] {
        let data = random.numbers(64 * k, 1.0);
        for (file, compute) in DTYPES.iter().flat_map(|&dtype| computes(dtype).map(|compute| (dtype, compute))) {
            let (bytes, _) = stored(&random.numbers(n * k, 1.0), file);
            let layer = linear(&compute, &bytes, file, (n, k), Some(random.numbers(n, 1.0)));
            let alone: Vec<Vec<u32>> =
                data.chunks(k).map(|row| bits(&layer.forward(&matrix(row, 1, k)).unwrap())).collect();
            for rows in [1, 7, 13, 64] {
                let start = random.below(64 - rows + 1);
                let batch = matrix(&data[start * k..(start + rows) * k], rows, k);
                assert_eq!(
                    bits(&layer.forward(&batch).unwrap()),
                    alone[start..start + rows].concat(),
                    "{rows}x{k}x{n}"
                );
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let mut random = Random(4);
    let (rows, k, n) = (70, 300, 1000);
    let x = matrix(&random.numbers(rows * k, 1.0), rows, k);
    let (bytes, _) = stored(&random.numbers(n * k, 1.0), DType::BF16);
    for compute in computes(DType::BF16) {
        let on = |threads| {
            on_threads(threads, || bits(&linear(&compute, &bytes, DType::BF16, (n, k), None).forward(&x).unwrap()))
        };
        assert_eq!(on(1), on(2));
        assert_eq!(on(1), on(5));
        assert_eq!(on(1), on(32));
    }
}

/// Inputs and weights whose products need all of their bits: f16 weights in f32 (two parts each), bf16 weights (one), f32 weights that
/// neither holds (chains), all against sums in f64.
#[test]
fn parts_have_all_bits_of_the_numbers() {
    let mut random = Random(14);
    let split = Compute { products: DenseProducts::Bf16x3, ..Compute::cpu() };
    for (rows, k, n) in [(3, 40, 33), (33, 260, 129), (50, 128, 300)] {
        let data = random.numbers(rows * k, 1.0);
        let x = matrix(&data, rows, k);
        for dtype in DTYPES {
            let (bytes, exact) = stored(&random.numbers(n * k, 1.0), dtype);
            let got = to_host(&linear(&split, &bytes, dtype, (n, k), None).forward(&x).unwrap()).unwrap();
            for (index, &got) in got.iter().enumerate() {
                let (x, w) = (&data[index / n * k..][..k], &exact[index % n * k..][..k]);
                let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
                let size: f64 = products.clone().map(f64::abs).sum();
                let error = (f64::from(got) - products.sum::<f64>()).abs();
                assert!(error < size * f64::from(f32::EPSILON) * 2.0, "{rows}x{k}x{n} {dtype:?}: off by {error}");
            }
        }
    }
}

#[test]
fn stacked_matrices_give_concatenated_outputs() {
    let mut random = Random(5);
    let (rows, k) = (9, 48);
    let x = matrix(&random.numbers(rows * k, 1.0), rows, k);
    let parts: Vec<(usize, Vec<u8>)> =
        [40, 7, 65].map(|n| (n, stored(&random.numbers(n * k, 1.0), DType::F16).0)).into_iter().collect();
    let views: Vec<MatrixView<'_>> = parts
        .iter()
        .map(|(rows, bytes)| MatrixView { bytes, format: DType::F16.into(), rows: *rows, columns: k })
        .collect();
    let [_, split] = computes(DType::F32);
    for compute in [compute(DType::F16), Compute::cpu(), split, Compute::cpu().portable()] {
        let stacked = Linear::new(&compute, &views, None).unwrap().forward(&x).unwrap();
        let single: Vec<Tensor> =
            views.iter().map(|view| Linear::new(&compute, &[*view], None).unwrap().forward(&x).unwrap()).collect();
        let single = to_host(&Tensor::cat(&single, 1).unwrap()).unwrap();
        assert_close(&to_host(&stacked).unwrap(), &single, 1e-5, &compute.describe());
    }
}

#[test]
fn bytes_need_no_alignment() {
    let mut random = Random(6);
    let (k, n) = (33, 40);
    let x = matrix(&random.numbers(3 * k, 1.0), 3, k);
    for dtype in DTYPES {
        let (bytes, _) = stored(&random.numbers(n * k, 1.0), dtype);
        let shifted = [&[7u8][..], &bytes].concat();
        for compute in computes(dtype).into_iter().chain([Compute::cpu().portable()]) {
            let aligned = linear(&compute, &bytes, dtype, (n, k), None).forward(&x).unwrap();
            let unaligned = linear(&compute, &shifted[1..], dtype, (n, k), None).forward(&x).unwrap();
            assert_eq!(bits(&aligned), bits(&unaligned));
        }
    }
}

#[test]
fn embeddings_are_the_rounded_rows_tied_or_not() {
    let mut random = Random(7);
    let (vocab, hidden) = (101, 24);
    let table = random.numbers(vocab * hidden, 1.0);
    for dtype in DTYPES {
        let (bytes, rounded) = stored(&table, dtype);
        let view = MatrixView { bytes: &bytes, format: dtype.into(), rows: vocab, columns: hidden };
        let [_, wide] = computes(DType::F32);
        for compute in computes(dtype).into_iter().chain([wide, Compute::cpu().portable()]) {
            let tied = Embedding::Tied(Linear::new(&compute, &[view], None).unwrap());
            for embedding in [tied, Embedding::table(&compute, &view).unwrap()] {
                let many: Vec<u32> = (0..3000).map(|i| i * 37 % vocab as u32).collect();
                for ids in [&[100u32, 0, 7, 7][..], &many, &[]] {
                    let got = embedding.forward(&compute, ids).unwrap();
                    assert_eq!((got.dims(), got.dtype()), (&[ids.len(), hidden][..], DType::F32));
                    let rows = ids.iter().flat_map(|&id| &rounded[id as usize * hidden..][..hidden]);
                    assert_eq!(to_host(&got).unwrap(), rows.copied().collect::<Vec<_>>());
                }
                let error = embedding.forward(&compute, &[3, 101]).unwrap_err().to_string();
                assert!(error.contains("101") && error.contains("vocabulary"), "{error}");
                assert!(embedding.forward(&compute, &[u32::MAX]).is_err());
            }
        }
    }
}

#[test]
fn no_rows_give_no_rows() {
    let (bytes, _) = stored(&Random(8).numbers(40 * 16, 1.0), DType::F32);
    for compute in [Compute::cpu(), Compute::cpu().portable()] {
        for bias in [None, Some(vec![1.0; 40])] {
            let layer = linear(&compute, &bytes, DType::F32, (40, 16), bias);
            let y = layer.forward(&Tensor::zeros((0, 16), DType::F32, &compute.device).unwrap()).unwrap();
            assert_eq!(y.dims(), [0, 40]);
        }
    }
}

#[test]
fn wrong_shapes_and_formats_are_errors() {
    let (bytes, _) = stored(&Random(9).numbers(40 * 16, 1.0), DType::F32);
    let view = MatrixView { bytes: &bytes, format: DType::F32.into(), rows: 40, columns: 16 };
    for compute in [Compute::cpu(), Compute::cpu().portable()] {
        let refused = |sources: &[MatrixView<'_>], bias: Option<Vec<f32>>, part: &str| {
            let error = Linear::new(&compute, sources, bias).err().expect("it was meant to be refused").to_string();
            assert!(error.contains(part), "{error}");
        };
        refused(&[MatrixView { rows: 41, ..view }], None, "want 2624");
        refused(&[MatrixView { columns: 15, ..view }], None, "want 2400");
        refused(&[MatrixView { rows: usize::MAX, ..view }], None, "bytes");
        refused(&[MatrixView { format: DType::I64.into(), ..view }], None, "I64");
        refused(&[view, MatrixView { rows: 20, columns: 32, ..view }], None, "16 and 32 columns");
        refused(&[view], Some(vec![0.0; 39]), "bias of 39");
        refused(&[], None, "no matrix");
        refused(&[MatrixView { bytes: &[], rows: 4, columns: 0, ..view }], None, "4x0");
        refused(&[MatrixView { bytes: &[], rows: 0, columns: 4, ..view }], None, "0x4");
        let layer = Linear::new(&compute, &[view], None).unwrap();
        let wrong =
            |shape: &[usize]| layer.forward(&Tensor::zeros(shape, DType::F32, &compute.device).unwrap()).is_err();
        assert!(wrong(&[3, 17]) && wrong(&[16]) && wrong(&[0, 17]));
        assert!(layer.forward(&Tensor::zeros((3, 16), DType::I64, &compute.device).unwrap()).is_err());
        let transposed = Tensor::zeros((16, 3), DType::F32, &compute.device).unwrap().t().unwrap();
        if let Ok(y) = layer.forward(&transposed) {
            assert_eq!(y.dims(), [3, 40]);
        }
        assert!(Embedding::table(&compute, &MatrixView { rows: 41, ..view }).is_err());
        assert!(Embedding::table(&compute, &MatrixView { format: DType::I64.into(), rows: 20, ..view }).is_err());
        let short = MatrixView { bytes: &bytes[..bytes.len() - 1], ..view };
        assert!(Embedding::table(&compute, &short).is_err());
    }
}

//! Matrices in quantised blocks: the bits of the dense product with the widened weights, for every block format.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use pairwright::ops::embedding::Embedding;
use pairwright::ops::linear::{Linear, MatrixView, StoredFormat};
use pairwright::ops::{Compute, to_host};

use super::{Random, assert_close, bits, matrix, on_threads, stored};

const SMALL: [GgmlDType; 6] =
    [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q5_0, GgmlDType::Q5_1, GgmlDType::Q8_0, GgmlDType::Q8_1];
const LARGE: [GgmlDType; 6] =
    [GgmlDType::Q2K, GgmlDType::Q3K, GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K, GgmlDType::Q8K];

pub fn formats() -> impl Iterator<Item = GgmlDType> {
    SMALL.into_iter().chain(LARGE)
}

/// Block bytes of a [rows, columns] matrix, as Candle rounds it, and the numbers that they stand for, as Candle widens them.
pub fn in_blocks(data: &[f32], rows: usize, columns: usize, format: GgmlDType) -> (Vec<u8>, Vec<f32>) {
    let quantised = QTensor::quantize(&matrix(data, rows, columns), format).unwrap();
    let wide = to_host(&quantised.dequantize(&Device::Cpu).unwrap()).unwrap();
    (quantised.data().unwrap().into_owned(), wide)
}

pub fn view(bytes: &[u8], format: impl Into<StoredFormat>, rows: usize, columns: usize) -> MatrixView<'_> {
    MatrixView { bytes, format: format.into(), rows, columns }
}

fn dense(compute: &Compute, wide: &[f32], rows: usize, columns: usize, bias: Option<Vec<f32>>) -> Linear {
    let (bytes, _) = stored(wide, DType::F32);
    Linear::new(compute, &[view(&bytes, DType::F32, rows, columns)], bias).unwrap()
}

fn quantising(format: GgmlDType) -> Compute {
    Compute { quantize: Some(format), ..Compute::cpu() }
}

#[test]
fn a_product_has_the_bits_of_the_dense_one_with_the_widened_weights() {
    let mut random = Random(40);
    for format in formats() {
        let block = format.block_size();
        // Rows under, at and over a panel; columns under, at and over the depth that is widened at a time.
        for (n, k) in [(1, block), (33, 2 * block), (64, 3 * block), (40, 11 * block)] {
            let (bytes, wide) = in_blocks(&random.numbers(n * k, 1.0), n, k, format);
            // Shifted by one byte: a file's blocks need no alignment.
            let shifted = [&[7u8][..], &bytes].concat();
            for bias in [None, Some(random.numbers(n, 1.0))] {
                let blocks = Linear::new(&Compute::cpu(), &[view(&shifted[1..], format, n, k)], bias.clone()).unwrap();
                let reference = dense(&Compute::cpu(), &wide, n, k, bias.clone());
                let portable = Compute::cpu().portable();
                let portable = Linear::new(&portable, &[view(&bytes, format, n, k)], bias).unwrap();
                for rows in [1, 12, 13, 40] {
                    let x = matrix(&random.numbers(rows * k, 1.0), rows, k);
                    let (got, want) = (blocks.forward(&x).unwrap(), reference.forward(&x).unwrap());
                    assert_eq!(got.dims(), [rows, n]);
                    assert_eq!(bits(&got), bits(&want), "{format:?} {rows}x{k}x{n}");
                    let portable = to_host(&portable.forward(&x).unwrap()).unwrap();
                    let what = format!("portable {format:?} {rows}x{k}x{n}");
                    assert_close(&to_host(&got).unwrap(), &portable, 2e-6 * (k as f32 + 1.0), &what);
                }
            }
        }
    }
}

/// Asserts for every format that a row in a batch has the bits of the row alone, on any number of threads.
pub fn check_rows_alone(compute: &Compute, seed: u64) {
    let mut random = Random(seed);
    for format in formats() {
        let (n, k) = (200, 512);
        let (bytes, _) = in_blocks(&random.numbers(n * k, 1.0), n, k, format);
        let layer = Linear::new(compute, &[view(&bytes, format, n, k)], None).unwrap();
        let data = random.numbers(70 * k, 1.0);
        let alone: Vec<u32> =
            data.chunks(k).flat_map(|row| bits(&layer.forward(&matrix(row, 1, k)).unwrap())).collect();
        for threads in [1, 3] {
            let batch = on_threads(threads, || bits(&layer.forward(&matrix(&data, 70, k)).unwrap()));
            assert_eq!(batch, alone, "{format:?} on {threads} threads");
        }
    }
}

#[test]
fn a_row_in_a_batch_has_the_bits_of_the_row_alone_on_any_number_of_threads() {
    check_rows_alone(&Compute::cpu(), 41);
}

/// As in GGUF files, where v is stored finer than q, and small matrices are not quantised at all.
#[test]
fn stacked_matrices_keep_their_own_formats() {
    let mut random = Random(42);
    let k = 512;
    let kinds: [StoredFormat; 6] = [
        GgmlDType::Q4K.into(),
        DType::F32.into(),
        DType::BF16.into(),
        GgmlDType::Q6K.into(),
        GgmlDType::Q6K.into(),
        GgmlDType::F16.into(),
    ];
    let parts: Vec<(usize, StoredFormat, Vec<u8>)> = [40, 7, 65, 1, 32, 31]
        .into_iter()
        .zip(kinds)
        .map(|(n, kind)| {
            let data = random.numbers(n * k, 1.0);
            let bytes = match kind {
                StoredFormat::Dense(dtype) => stored(&data, dtype).0,
                StoredFormat::Blocks(format) => in_blocks(&data, n, k, format).0,
            };
            (n, kind, bytes)
        })
        .collect();
    let views: Vec<MatrixView<'_>> = parts.iter().map(|(n, kind, bytes)| view(bytes, *kind, *n, k)).collect();
    let bias = random.numbers(176, 1.0);
    let x = matrix(&random.numbers(14 * k, 1.0), 14, k);
    for compute in [Compute::cpu(), Compute::cpu().portable()] {
        let stack = Linear::new(&compute, &views, Some(bias.clone())).unwrap();
        let mut first = 0;
        let mut single = Vec::new();
        for view in &views {
            let bias = bias[first..first + view.rows].to_vec();
            single.push(Linear::new(&compute, &[*view], Some(bias)).unwrap().forward(&x).unwrap());
            first += view.rows;
        }
        let (got, want) = (stack.forward(&x).unwrap(), Tensor::cat(&single, 1).unwrap());
        match compute.describe().contains("portable") {
            true => assert_close(&to_host(&got).unwrap(), &to_host(&want).unwrap(), 1e-4, "portable"),
            false => assert_eq!(bits(&got), bits(&want)),
        }
        let ids = [0u32, 39, 40, 46, 47, 111, 112, 113, 144, 145, 175];
        let rows = to_host(&stack.gather_rows(&compute, &ids).unwrap()).unwrap();
        let all: Vec<f32> = views.iter().flat_map(|view| view.to_f32().unwrap()).collect();
        let want: Vec<f32> = ids.iter().flat_map(|&id| all[id as usize * k..][..k].to_vec()).collect();
        assert_eq!(rows, want);
    }
}

#[test]
fn embeddings_in_blocks_are_the_widened_rows_tied_or_not() {
    let mut random = Random(43);
    let (vocab, hidden) = (101, 256);
    let data = random.numbers(vocab * hidden, 1.0);
    for format in formats() {
        let (bytes, wide) = in_blocks(&data, vocab, hidden, format);
        let view = view(&bytes, format, vocab, hidden);
        assert_eq!(view.to_f32().unwrap(), wide);
        for compute in [Compute::cpu(), Compute::cpu().portable()] {
            let tied = Embedding::Tied(Linear::new(&compute, &[view], None).unwrap());
            for embedding in [tied, Embedding::table(&compute, &view).unwrap()] {
                let many: Vec<u32> = (0..700).map(|i| i * 37 % vocab as u32).collect();
                for ids in [&[100u32, 0, 7, 7][..], &many, &[]] {
                    let got = embedding.forward(&compute, ids).unwrap();
                    assert_eq!((got.dims(), got.dtype()), (&[ids.len(), hidden][..], DType::F32));
                    let rows = ids.iter().flat_map(|&id| &wide[id as usize * hidden..][..hidden]);
                    assert_eq!(to_host(&got).unwrap(), rows.copied().collect::<Vec<_>>(), "{format:?}");
                }
                let error = embedding.forward(&compute, &[101]).unwrap_err().to_string();
                assert!(error.contains("101") && error.contains("vocabulary"), "{error}");
            }
        }
    }
}

#[test]
fn dense_matrices_are_rounded_as_candle_rounds_them() {
    let mut random = Random(44);
    let (n, k) = (70, 512);
    let x = matrix(&random.numbers(9 * k, 1.0), 9, k);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let (file, numbers) = stored(&random.numbers(n * k, 1.0), dtype);
        for format in formats() {
            let (_, wide) = in_blocks(&numbers, n, k, format);
            let rounded = Linear::new(&quantising(format), &[view(&file, dtype, n, k)], None).unwrap();
            let want = dense(&Compute::cpu(), &wide, n, k, None).forward(&x).unwrap();
            assert_eq!(bits(&rounded.forward(&x).unwrap()), bits(&want), "{dtype:?} to {format:?}");
            let portable = quantising(format).portable();
            let portable = Linear::new(&portable, &[view(&file, dtype, n, k)], None).unwrap();
            let got = to_host(&portable.forward(&x).unwrap()).unwrap();
            assert_close(&got, &to_host(&want).unwrap(), 1e-3, "portable");
        }
    }
}

/// Rows that are not whole blocks of 256 take q8_0; those that are not whole blocks of 32 stay dense.
#[test]
fn what_does_not_fit_takes_smaller_blocks_or_none() {
    let mut random = Random(45);
    for (k, other) in [(96, Some(GgmlDType::Q8_0)), (288, Some(GgmlDType::Q8_0)), (100, None)] {
        let n = 33;
        let data = random.numbers(n * k, 1.0);
        let (file, _) = stored(&data, DType::F32);
        let wide = other.map_or(data.clone(), |format| in_blocks(&data, n, k, format).1);
        let x = matrix(&random.numbers(5 * k, 1.0), 5, k);
        let want = bits(&dense(&Compute::cpu(), &wide, n, k, None).forward(&x).unwrap());
        let fits = |compute: &Compute| Linear::new(compute, &[view(&file, DType::F32, n, k)], None).unwrap();
        assert_eq!(bits(&fits(&quantising(GgmlDType::Q4K)).forward(&x).unwrap()), want, "{k}");
        let kept = bits(&fits(&quantising(GgmlDType::Q4K).unquantized()).forward(&x).unwrap());
        assert_eq!(kept, bits(&dense(&Compute::cpu(), &data, n, k, None).forward(&x).unwrap()));
        let table = Embedding::table(&quantising(GgmlDType::Q4K), &view(&file, DType::F32, n, k)).unwrap();
        let row = to_host(&table.forward(&Compute::cpu(), &[32]).unwrap()).unwrap();
        assert_eq!(row, wide[32 * k..]);
    }
}

#[test]
fn wrong_sizes_are_errors() {
    let (bytes, _) = in_blocks(&Random(46).numbers(4 * 512, 1.0), 4, 512, GgmlDType::Q4K);
    let good = view(&bytes, GgmlDType::Q4K, 4, 512);
    for compute in [Compute::cpu(), Compute::cpu().portable(), quantising(GgmlDType::Q8_0)] {
        let refused = |source: MatrixView<'_>, part: &str| {
            for error in [Linear::new(&compute, &[source], None).err(), Embedding::table(&compute, &source).err()] {
                let error = error.expect("it was meant to be refused").to_string();
                assert!(error.contains(part), "{error}");
            }
        };
        refused(MatrixView { columns: 500, ..good }, "rows of 500 elements are not whole q4k blocks of 256");
        refused(MatrixView { rows: 5, ..good }, "a 5x512 matrix has 1152 bytes, want 1440");
        refused(MatrixView { bytes: &bytes[1..], ..good }, "1151 bytes");
        refused(MatrixView { rows: usize::MAX, ..good }, "bytes");
        refused(MatrixView { columns: usize::MAX / 256 * 256, ..good }, "bytes");
        refused(MatrixView { format: GgmlDType::Q8_0.into(), ..good }, "want 2176");
        refused(MatrixView { bytes: &[], rows: 0, ..good }, "0x512");
        refused(MatrixView { bytes: &[], columns: 0, ..good }, "4x0");
    }
    assert!(good.to_f32().is_ok() && MatrixView { rows: 3, ..good }.to_f32().is_err());
}

#[test]
fn formats_have_the_names_of_the_flags() {
    assert_eq!(Compute::cpu().weight_format(), "f32");
    assert_eq!(quantising(GgmlDType::Q8_0).weight_format(), "q8_0");
    assert!(quantising(GgmlDType::Q4K).describe().ends_with(" q4k"));
    assert_eq!(quantising(GgmlDType::Q8_0).bytes_per_weight(), 1.0625);
    assert_eq!(StoredFormat::from(GgmlDType::BF16), StoredFormat::Dense(DType::BF16));
}

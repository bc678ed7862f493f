//! Operations that work row by row: norm and gated activation.

use candle_core::{DType, Tensor};
use pairwright::ops::Compute;
use pairwright::ops::activation::{Activation, ActivationRows};
use pairwright::ops::norm::Norm;
use pairwright::ops::to_host;

use super::{Random, assert_close, bits, matrix, on_threads};

const SHAPES: [(usize, usize); 9] =
    [(1, 1), (1, 16), (3, 17), (7, 31), (13, 64), (64, 96), (70, 33), (2, 2048), (40, 1030)];

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Compute::cpu().device).unwrap()
}

/// Within 1e-6 of the portable version, relative to numbers of up to 4.
#[test]
fn rms_norm_equals_the_portable_version() {
    let mut random = Random(20);
    for (rows, width) in SHAPES {
        let x = matrix(&random.numbers(rows * width, 3.0), rows, width);
        let weight = random.numbers(width, 2.0);
        let norm = |compute: &Compute| Norm::rms(compute, weight.clone(), 1e-5).unwrap();
        let got = to_host(&norm(&Compute::cpu()).forward(&x).unwrap()).unwrap();
        let want = to_host(&norm(&Compute::cpu().portable()).forward(&x).unwrap()).unwrap();
        assert_close(&got, &want, 4e-6, &format!("{rows}x{width}"));
    }
    let tiny = matrix(&[0.0, 0.0, 1e-30, 1e-30], 2, 2);
    let norm = Norm::rms(&Compute::cpu(), vec![1.0, 1.0], 1e-6).unwrap();
    assert_eq!(to_host(&norm.forward(&tiny).unwrap()).unwrap()[..2], [0.0, 0.0], "epsilon keeps a zero row finite");
}

#[test]
fn gated_activation_equals_the_portable_version() {
    let mut random = Random(21);
    for (rows, width) in SHAPES {
        let mut data = random.numbers(rows * width * 2, 8.0);
        if let [first, second, ..] = &mut data[..] {
            (*first, *second) = (-200.0, 200.0);
        }
        let x = matrix(&data, rows, width * 2);
        let act = |compute: &Compute| ActivationRows::gated(compute, Activation::Silu).forward(&x).unwrap();
        let (got, want) = (act(&Compute::cpu()), act(&Compute::cpu().portable()));
        assert_eq!(got.dims(), [rows, width]);
        let (got, want) = (to_host(&got).unwrap(), to_host(&want).unwrap());
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() <= 2e-6 * want.abs() + 1e-12, "{rows}x{width}: {got}, want {want}");
        }
    }
}

#[test]
fn a_row_in_a_batch_has_the_bits_of_the_row_alone_on_any_threads() {
    let mut random = Random(22);
    let compute = Compute::cpu();
    let (rows, width) = (70, 1030);
    let data = random.numbers(rows * width, 3.0);
    let norm = Norm::rms(&compute, random.numbers(width, 2.0), 1e-6).unwrap();
    let activation = ActivationRows::gated(&compute, Activation::Silu);
    let all = |x: &Tensor| (bits(&norm.forward(x).unwrap()), bits(&activation.forward(x).unwrap()));
    let whole = on_threads(1, || all(&matrix(&data, rows, width)));
    assert_eq!(whole, on_threads(2, || all(&matrix(&data, rows, width))));
    for (row, data) in data.chunks(width).enumerate() {
        let (normed, gated) = all(&matrix(data, 1, width));
        assert_eq!(normed, whole.0[row * width..][..width]);
        assert_eq!(gated, whole.1[row * width / 2..][..width / 2]);
    }
}

#[test]
fn no_rows_give_no_rows_and_wrong_widths_are_errors() {
    for compute in [Compute::cpu(), Compute::cpu().portable()] {
        let norm = Norm::rms(&compute, vec![1.0; 8], 1e-6).unwrap();
        let activation = ActivationRows::gated(&compute, Activation::Silu);
        assert_eq!(norm.forward(&zeros(&[0, 8])).unwrap().dims(), [0, 8]);
        assert_eq!(activation.forward(&zeros(&[0, 8])).unwrap().dims(), [0, 4]);
        for shape in [&[3, 7][..], &[3, 1], &[3, 16], &[0, 7], &[3, 0]] {
            assert!(norm.forward(&zeros(shape)).is_err(), "{shape:?} {}", compute.describe());
        }
        assert!(Norm::rms(&compute, vec![1.0], 1e-6).unwrap().forward(&zeros(&[3, 8])).is_err());
        assert!(Norm::rms(&compute, vec![], 1e-6).unwrap().forward(&zeros(&[3, 0])).is_err());
        for shape in [&[3, 7][..], &[3, 0], &[0, 0], &[8]] {
            assert!(activation.forward(&zeros(shape)).is_err(), "{shape:?} {}", compute.describe());
        }
        let wide = zeros(&[8, 3]).t().unwrap();
        assert!(norm.forward(&wide).map(|y| y.dims().to_vec() == [3, 8]).unwrap_or(true));
    }
    let whole_numbers = Tensor::zeros((3, 8), DType::I64, &Compute::cpu().device).unwrap();
    assert!(Norm::rms(&Compute::cpu(), vec![1.0; 8], 1e-6).unwrap().forward(&whole_numbers).is_err());
    assert!(ActivationRows::gated(&Compute::cpu(), Activation::Silu).forward(&whole_numbers).is_err());
}

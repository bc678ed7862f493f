//! Activations, against the CPU's.

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use pairwright::ops::activation::{Activation, ActivationRows};
use pairwright::ops::{Compute, to_host};

use super::machine::Launch;
use super::numbers::{Format, Random, assert_near, unwritten, wide};

/// Each with its number and its settings as the kernel takes them.
const ALL: [(Activation, [f32; 4]); 5] = [
    (Activation::Silu, [0.0; 4]),
    (Activation::GeluTanh, [0.0; 4]),
    (Activation::SquaredRelu, [0.0; 4]),
    (Activation::Xielu { positive: 0.8, negative: 1.1, beta: 0.5, eps: -1e-6 }, [0.8, 1.1, 0.5, -1e-6]),
    (Activation::ClampedSwiglu { steepness: 1.702, limit: 7.0 }, [1.702, 7.0, 0.0, 0.0]),
];

fn run<T: Format>(kind: usize, is_gated: bool, x: &[T], inner: usize, grid: [u32; 3]) -> Vec<T> {
    let rows = x.len() / inner / (1 + usize::from(is_gated));
    let mut y = unwritten(rows * inner);
    let name = format!("pairwright_activation_{}", T::NAME);
    let launch = Launch::new(&name, grid, 32).input(x).output(&mut y).int(rows).int(inner).int(usize::from(is_gated));
    ALL[kind].1.iter().fold(launch.int(kind), |launch, &setting| launch.float(setting)).run();
    y
}

fn check<T: Format>(random: &mut Random, kind: usize, is_gated: bool) {
    for (rows, inner, grid) in [(1, 1, [1, 1, 1]), (3, 640, [2, 3, 1]), (5, 77, [3, 2, 1]), (2, 1024, [1, 1, 1])] {
        let width = inner * (1 + usize::from(is_gated));
        let x: Vec<T> = random.numbers(rows * width, 12.0);
        let activation = ALL[kind].0;
        let compute = Compute::cpu();
        let operation = match is_gated {
            true => ActivationRows::gated(&compute, activation),
            false => ActivationRows::plain(&compute, activation),
        };
        let tensor = Tensor::from_vec(wide(&x), (rows, width), &Device::Cpu).unwrap();
        let want = to_host(&operation.forward(&tensor).unwrap()).unwrap();
        let y = run(kind, is_gated, &x, inner, grid);
        // Where xIELU's terms cancel, what is left of them is as exact as they were.
        let floor = if T::NAME == "f32" { 0.1 } else { 1e-3 };
        assert_near(&y, &want, T::STEP, floor, &format!("{activation:?} of {rows} rows of {inner}"));
        let last = run(kind, is_gated, &x[(rows - 1) * width..], inner, [1, 1, 1]);
        assert_eq!(last, y[(rows - 1) * inner..], "the last row alone");
    }
}

#[test]
fn every_activation_with_and_without_a_gate() {
    let mut random = Random(10);
    for kind in 0..ALL.len() {
        for is_gated in [true, false] {
            check::<f32>(&mut random, kind, is_gated);
            check::<f16>(&mut random, kind, is_gated);
            check::<bf16>(&mut random, kind, is_gated);
        }
    }
}

#[test]
fn large_numbers_end_at_the_function_s_limits() {
    let x = [-1e4f32, -100.0, 100.0, 1e4];
    assert_eq!(run(0, false, &x, 4, [1, 1, 1]), [0.0, 0.0, 100.0, 1e4]);
    assert_eq!(run(1, false, &x, 4, [1, 1, 1]), [0.0, 0.0, 100.0, 1e4]);
}

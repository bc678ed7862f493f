//! Norms of rows and the residual stream's elementwise steps, against the CPU's.

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use pairwright::ops::norm::Norm;
use pairwright::ops::{Compute, to_host};

use super::machine::Launch;
use super::numbers::{Format, Random, assert_near, unwritten, wide};

const EPS: f32 = 1e-5;

/// Threads as a launch has them: by the width alone.
fn threads(width: usize) -> u32 {
    (width.div_ceil(16).next_multiple_of(32).clamp(32, 1024)) as u32
}

struct Case {
    rows: usize,
    width: usize,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    is_layer: bool,
}

impl Case {
    fn new(random: &mut Random, rows: usize, width: usize, is_layer: bool, with_bias: bool) -> Self {
        let weight = random.numbers(width, 2.0);
        let bias = with_bias.then(|| random.numbers(width, 1.0));
        Self { rows, width, weight, bias, is_layer }
    }

    /// What the CPU makes of rows in f32.
    fn want(&self, x: &[f32]) -> Vec<f32> {
        let (compute, weight) = (Compute::cpu(), self.weight.clone());
        let norm = match self.is_layer {
            true => Norm::layer(&compute, weight, self.bias.clone(), f64::from(EPS)).unwrap(),
            false => Norm::rms(&compute, weight, f64::from(EPS)).unwrap(),
        };
        let x = Tensor::from_slice(x, (x.len() / self.width, self.width), &Device::Cpu).unwrap();
        to_host(&norm.forward(&x).unwrap()).unwrap()
    }

    fn launch<'a>(&'a self, name: &'a str, rows: usize) -> Launch<'a> {
        Launch::new(name, [rows as u32, 1, 1], threads(self.width))
    }

    fn finish<'a>(&'a self, launch: Launch<'a>) {
        let launch = launch.input(&self.weight).maybe(self.bias.as_deref());
        launch.int(self.width).float(EPS).int(usize::from(self.is_layer)).run();
    }

    fn norm<T: Format>(&self, x: &[T]) -> Vec<T> {
        let name = format!("pairwright_norm_{}", T::NAME);
        let mut y = unwritten(x.len());
        self.finish(self.launch(&name, x.len() / self.width).input(x).output(&mut y));
        y
    }

    fn add_norm<T: Format>(&self, residual: &mut [T], delta: &[T]) -> Vec<T> {
        let name = format!("pairwright_add_norm_{}", T::NAME);
        let mut y = unwritten(residual.len());
        let rows = residual.len() / self.width;
        self.finish(self.launch(&name, rows).output(residual).input(delta).output(&mut y));
        y
    }

    fn check<T: Format>(&self, random: &mut Random) {
        let x: Vec<T> = random.numbers(self.rows * self.width, 3.0);
        let y = self.norm(&x);
        let what = format!("norm of {} rows of {}, layer {}", self.rows, self.width, self.is_layer);
        // Relative to numbers of size 1: the mean that is taken away, and the bias, leave smaller ones.
        assert_near(&y, &self.want(&wide(&x)), T::STEP, 1.0, &what);
        for (row, y) in y.chunks(self.width).enumerate() {
            assert_eq!(self.norm(&x[row * self.width..][..self.width]), y, "{what}: row {row} alone");
        }
        self.check_add(random, x);
    }

    fn check_add<T: Format>(&self, random: &mut Random, mut residual: Vec<T>) {
        let delta: Vec<T> = random.numbers(residual.len(), 1.0);
        let before = residual.clone();
        let sums: Vec<T> = before.iter().zip(&delta).map(|(x, d)| T::rounded(x.wide() + d.wide())).collect();
        let y = self.add_norm(&mut residual, &delta);
        assert_eq!(residual, sums);
        // The norm is that of the sums as they are stored, and by the same steps.
        assert_eq!(y, self.norm(&sums));
        let row = (self.rows - 1) * self.width..self.rows * self.width;
        let mut alone = before[row.clone()].to_vec();
        assert_eq!(self.add_norm(&mut alone, &delta[row.clone()]), y[row]);
    }
}

fn each_format(random: &mut Random, case: &Case) {
    case.check::<f32>(random);
    case.check::<f16>(random);
    case.check::<bf16>(random);
}

#[test]
fn root_mean_square_norms_of_any_width() {
    let mut random = Random(1);
    for (rows, width) in [(1, 1), (3, 7), (2, 64), (3, 129), (2, 1000), (2, 2880), (2, 2881)] {
        each_format(&mut random, &Case::new(&mut Random(width as u64), rows, width, false, false));
    }
}

#[test]
fn layer_norms_of_any_width() {
    let mut random = Random(2);
    for (rows, width, with_bias) in [(2, 1, true), (3, 31, false), (2, 520, true), (2, 1027, true)] {
        each_format(&mut random, &Case::new(&mut Random(width as u64), rows, width, true, with_bias));
    }
}

#[test]
fn the_widest_rows_are_kept_whole() {
    let mut random = Random(3);
    for width in [16_384, 16_383] {
        let case = Case::new(&mut random, 1, width, true, true);
        each_format(&mut random, &case);
    }
}

#[test]
fn a_norm_may_write_where_it_reads() {
    let mut random = Random(4);
    for width in [40, 77] {
        let case = Case::new(&mut random, 3, width, false, false);
        let mut x: Vec<bf16> = random.numbers(3 * width, 2.0);
        let want = case.norm(&x);
        let address = x.as_mut_ptr() as u64;
        case.finish(case.launch("pairwright_norm_bf16", 3).word(address).word(address));
        assert_eq!(x, want);
    }
}

#[test]
fn rows_of_zeros_are_normed_to_zeros_and_the_bias() {
    let case = Case { rows: 1, width: 8, weight: vec![2.0; 8], bias: Some(vec![0.5; 8]), is_layer: true };
    assert_eq!(case.norm(&[0f32; 8]), [0.5; 8]);
}

fn elementwise<T: Format>(random: &mut Random) {
    let (blocks, threads) = ([2, 1, 1], 64);
    for (start, count) in [(0, 1), (0, 4096), (0, 1003), (1, 1003)] {
        let x: Vec<T> = random.numbers(start + count, 40.0);
        let delta: Vec<T> = random.numbers(start + count, 1.0);
        let run = |what: &str, arguments: &dyn Fn(Launch<'_>), of: &dyn Fn(f32, f32) -> f32, tolerance: f32| {
            let name = format!("pairwright_{what}_{}", T::NAME);
            let mut y = x.clone();
            let address = y[start..].as_mut_ptr() as u64;
            arguments(Launch::new(&name, blocks, threads).word(address));
            assert_eq!(y[..start], x[..start]);
            let want: Vec<f32> = x[start..].iter().zip(&delta[start..]).map(|(x, d)| of(x.wide(), d.wide())).collect();
            assert_near(&y[start..], &want, tolerance, 0.0, what);
        };
        let exact = if T::NAME == "f32" { 0.0 } else { T::STEP };
        run("add", &|launch| launch.input(&delta[start..]).word(count as u64).run(), &|x, d| x + d, exact);
        run("scale", &|launch| launch.float(1.7).word(count as u64).run(), &|x, _| x * 1.7, exact);
        let cap = 30.0f64;
        let capped = |x: f32, _: f32| (cap * (f64::from(x) / cap).tanh()) as f32;
        run("soft_cap", &|launch| launch.float(cap as f32).word(count as u64).run(), &capped, T::STEP);
    }
}

#[test]
fn elementwise_steps_reach_every_element_and_no_other() {
    let mut random = Random(5);
    elementwise::<f32>(&mut random);
    elementwise::<f16>(&mut random);
    elementwise::<bf16>(&mut random);
}

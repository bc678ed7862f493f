//! Rotary embedding, its norms and the writing of keys and values, against the CPU's and the cache's layout.

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use pairwright::ops::Workspace;
use pairwright::ops::norm::Norm;
use pairwright::ops::paged::{HeadGeometry, PagedBatch};
use pairwright::ops::rotary::{HeadNorms, NormSpan, QueryGrowth, Rotary, RotaryTable};
use pairwright::ops::{Compute, to_host};

use super::machine::Launch;
use super::numbers::{Format, Random, assert_near, wide};
use super::small_float::{Fp8, Stored};

const EPS: f32 = 1e-6;
const POSITIONS: usize = 300;
const FACTOR: f32 = 1.2;
const GROWTH: QueryGrowth = QueryGrowth { beta: 0.1, original: 100.0 };

#[derive(Debug, Clone, Copy)]
struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    pairs: usize,
    span: NormSpan,
    after_rotation: bool,
    is_layer: bool,
    has_norms: bool,
    norms_values: bool,
    grows: bool,
}

/// 4 query heads over 2 of keys, as most families have them.
const PLAIN: Case = Case {
    heads: 4,
    kv_heads: 2,
    dim: 64,
    pairs: 32,
    span: NormSpan::Head,
    after_rotation: false,
    is_layer: false,
    has_norms: false,
    norms_values: false,
    grows: false,
};

const CASES: [Case; 12] = [
    PLAIN,
    Case { has_norms: true, ..PLAIN },
    Case { has_norms: true, dim: 128, pairs: 16, heads: 19, kv_heads: 1, norms_values: true, ..PLAIN },
    Case { has_norms: true, dim: 80, pairs: 20, span: NormSpan::OwnHead, is_layer: true, grows: true, ..PLAIN },
    Case { has_norms: true, dim: 6, pairs: 3, span: NormSpan::Token, ..PLAIN },
    Case { has_norms: true, dim: 32, pairs: 16, heads: 20, span: NormSpan::Token, is_layer: true, ..PLAIN },
    Case { has_norms: true, dim: 48, pairs: 24, span: NormSpan::Token, after_rotation: true, ..PLAIN },
    Case { has_norms: true, after_rotation: true, grows: true, ..PLAIN },
    Case { dim: 512, pairs: 256, heads: 2, kv_heads: 1, norms_values: true, ..PLAIN },
    Case { dim: 40, pairs: 0, kv_heads: 0, has_norms: true, ..PLAIN },
    // More heads of each kind than there are warps: a warp that has written one to the cache goes on to the next.
    Case { heads: 9, kv_heads: 18, ..PLAIN },
    // Not in whole pieces, and turned as they come.
    Case { dim: 10, pairs: 5, ..PLAIN },
];

struct Setting {
    case: Case,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    speeds: Vec<f32>,
    block_size: usize,
}

impl Setting {
    fn new(random: &mut Random, case: Case) -> Self {
        let weights = |heads: usize| if case.span == NormSpan::Head { case.dim } else { heads * case.dim };
        Self {
            case,
            queries: random.numbers(weights(case.heads), 2.0),
            keys: random.numbers(weights(case.kv_heads), 2.0),
            values: random.numbers(case.dim, 2.0),
            speeds: (0..case.pairs).map(|pair| 0.5f32.powi(pair as i32 % 20)).collect(),
            block_size: 5,
        }
    }

    fn width(&self) -> usize {
        (self.case.heads + 2 * self.case.kv_heads) * self.case.dim
    }

    fn cos_sin(&self) -> Vec<f32> {
        let angles = (0..POSITIONS).flat_map(|position| self.speeds.iter().map(move |speed| position as f32 * speed));
        let angles = angles.map(f64::from);
        angles.flat_map(|angle| [angle.cos() as f32 * FACTOR, angle.sin() as f32 * FACTOR]).collect()
    }

    /// The CPU's rows.
    fn want(&self, rows: Vec<f32>, positions: &[u32]) -> Vec<f32> {
        let (case, compute) = (self.case, Compute::cpu());
        let norm = |weight: &[f32]| match case.is_layer {
            true => Norm::layer(&compute, weight.to_vec(), None, f64::from(EPS)).unwrap(),
            false => Norm::rms(&compute, weight.to_vec(), f64::from(EPS)).unwrap(),
        };
        let norms = HeadNorms {
            queries: case.has_norms.then(|| norm(&self.queries)),
            keys: case.has_norms.then(|| norm(&self.keys)),
            values: case.norms_values.then(|| Norm::rms(&compute, self.values.clone(), f64::from(EPS)).unwrap()),
            span: case.span,
            after_rotation: case.after_rotation,
        };
        // Queries alone: the CPU's operation knows them by their width.
        let num_kv_heads = case.kv_heads.max(1);
        let norms = if case.kv_heads == 0 { HeadNorms { keys: None, ..norms } } else { norms };
        let geometry = HeadGeometry { num_heads: case.heads, num_kv_heads, head_dim: case.dim };
        let table = RotaryTable::new(&self.speeds, FACTOR, POSITIONS);
        let rotary = Rotary::new(&compute, table, geometry, norms).with_growth(case.grows.then_some(GROWTH));
        let rows = Tensor::from_vec(rows, (positions.len(), self.width()), &Device::Cpu).unwrap();
        let batch = PagedBatch { positions: positions.to_vec(), ..PagedBatch::default() };
        to_host(&rotary.forward(&Workspace::default(), rows, &batch).unwrap()).unwrap()
    }

    /// Rows in place; the caches, if there are slots.
    fn run<T: Format, KV: Stored>(&self, rows: &mut [T], positions: &[u32], slots: Option<(&[i32], &mut Caches<KV>)>) {
        let case = self.case;
        let name = format!("pairwright_rotary_{}{}", T::NAME, KV::SUFFIX);
        let cos_sin = self.cos_sin();
        let launch = Launch::new(&name, [positions.len() as u32, 1, 1], 512).output(rows).int(self.width());
        let launch = launch.input(positions);
        let launch = match slots {
            Some((slots, caches)) => launch.input(slots).output(&mut caches.keys).output(&mut caches.values),
            None => launch.null().null().null(),
        };
        let launch = launch.input(&cos_sin);
        let launch = launch.maybe(case.has_norms.then_some(&self.queries[..]));
        let launch = launch.maybe(case.has_norms.then_some(&self.keys[..]));
        let launch = launch.maybe(case.norms_values.then_some(&self.values[..]));
        let launch = launch.int(case.heads).int(case.kv_heads).int(case.dim).int(case.pairs).int(self.block_size);
        let span = [NormSpan::Head, NormSpan::OwnHead, NormSpan::Token].iter().position(|span| *span == case.span);
        let launch = launch.int(span.unwrap()).int(usize::from(case.after_rotation)).int(usize::from(case.is_layer));
        let beta = if case.grows { GROWTH.beta as f32 } else { 0.0 };
        launch.float(EPS).float(beta).float(GROWTH.original as f32).run();
    }
}

struct Caches<KV> {
    /// [blocks, Hkv, block size, D]
    keys: Vec<KV>,
    /// [blocks, Hkv, D, block size]
    values: Vec<KV>,
}

impl<KV: Stored> Caches<KV> {
    fn new(count: usize) -> Self {
        Self { keys: vec![KV::of(7.0); count], values: vec![KV::of(7.0); count] }
    }

    /// What the caches hold once the `rows` [q | k | v], in f32, are written to `slots`.
    fn written(setting: &Setting, blocks: usize, rows: &[f32], slots: &[i32]) -> Self {
        let (case, size) = (setting.case, setting.block_size);
        let mut caches = Self::new(blocks * case.kv_heads * size * case.dim);
        for (row, &slot) in rows.chunks(setting.width()).zip(slots).filter(|(_, slot)| **slot >= 0) {
            let (block, offset) = (slot as usize / size, slot as usize % size);
            let rest = &row[case.heads * case.dim..];
            for head in 0..case.kv_heads {
                let first = (block * case.kv_heads + head) * size * case.dim;
                for index in 0..case.dim {
                    let (key, value) = (rest[head * case.dim + index], rest[(case.kv_heads + head) * case.dim + index]);
                    caches.keys[first + offset * case.dim + index] = KV::of(key);
                    caches.values[first + index * size + offset] = KV::of(value);
                }
            }
        }
        caches
    }
}

/// Positions in no order; the third token is padding.
const TOKENS: ([u32; 4], [i32; 4]) = ([7, 299, 0, 130], [3, 14, -1, 5]);

fn check<T: Format + Stored>(random: &mut Random, case: Case) {
    let setting = Setting::new(random, case);
    let (positions, slots) = TOKENS;
    let width = setting.width();
    let before: Vec<T> = random.numbers(4 * width, 2.0);
    let want = setting.want(wide(&before), &positions);
    let mut rows = before.clone();
    setting.run::<T, T>(&mut rows, &positions, None);
    assert_near(&rows, &want, T::STEP, 1.0, &format!("{case:?}"));
    for (token, row) in rows.chunks(width).enumerate() {
        let mut alone = before[token * width..][..width].to_vec();
        setting.run::<T, T>(&mut alone, &positions[token..=token], None);
        assert_eq!(alone, row, "{case:?}: token {token} alone");
    }
    if case.kv_heads == 0 {
        return;
    }
    let mut caches = Caches::<T>::new(3 * case.kv_heads * setting.block_size * case.dim);
    let mut again = before.clone();
    setting.run(&mut again, &positions, Some((&slots, &mut caches)));
    let padding = 2 * width..3 * width;
    assert_eq!(again[padding.clone()], before[padding.clone()], "{case:?}: padding");
    rows[padding.clone()].copy_from_slice(&before[padding]);
    assert_eq!(again, rows, "{case:?}: with a cache");
    let want = Caches::<T>::written(&setting, 3, &wide(&rows), &slots);
    assert_eq!((caches.keys, caches.values), (want.keys, want.values), "{case:?}");
}

#[test]
fn every_norm_and_rotation_in_f32() {
    CASES.iter().enumerate().for_each(|(index, &case)| check::<f32>(&mut Random(30 + index as u64), case));
}

#[test]
fn every_norm_and_rotation_in_f16() {
    CASES.iter().enumerate().for_each(|(index, &case)| check::<f16>(&mut Random(40 + index as u64), case));
}

#[test]
fn every_norm_and_rotation_in_bf16() {
    CASES.iter().enumerate().for_each(|(index, &case)| check::<bf16>(&mut Random(50 + index as u64), case));
}

/// The cache's numbers are those that f32 held, rounded once.
fn check_fp8<T: Format + Stored>(random: &mut Random, case: Case) {
    let setting = Setting::new(random, case);
    let (positions, slots) = TOKENS;
    let before: Vec<T> = random.numbers(4 * setting.width(), 2.0);
    let mut exact = wide(&before);
    setting.run::<f32, f32>(&mut exact, &positions, None);
    let mut caches = Caches::<Fp8>::new(3 * case.kv_heads * setting.block_size * case.dim);
    let mut rows = before.clone();
    setting.run(&mut rows, &positions, Some((&slots, &mut caches)));
    let want = Caches::<Fp8>::written(&setting, 3, &exact, &slots);
    assert_eq!((caches.keys, caches.values), (want.keys, want.values), "{case:?}");
    let mut plain = before.clone();
    let mut unused = Caches::<T>::new(3 * case.kv_heads * setting.block_size * case.dim);
    setting.run(&mut plain, &positions, Some((&slots, &mut unused)));
    assert_eq!(rows, plain, "{case:?}: rows");
}

#[test]
fn keys_and_values_in_8_bits() {
    let mut random = Random(60);
    for case in [CASES[1], CASES[2], CASES[3], CASES[4], CASES[10]] {
        check_fp8::<f32>(&mut random, case);
        check_fp8::<f16>(&mut random, case);
        check_fp8::<bf16>(&mut random, case);
    }
}

#[test]
fn a_row_of_zeros_stays_one() {
    let setting = Setting::new(&mut Random(61), CASES[1]);
    let mut rows = vec![0f32; setting.width()];
    setting.run::<f32, f32>(&mut rows, &[3], None);
    assert_eq!(rows, vec![0.0; setting.width()]);
}

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

const CASES: [Case; 19] = [
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
    // Lanes of a group without numbers; numbers behind the pairs for several lanes, and for the first run of a lane alone.
    Case { dim: 96, pairs: 48, heads: 5, kv_heads: 5, has_norms: true, ..PLAIN },
    Case { dim: 192, pairs: 96, has_norms: true, is_layer: true, ..PLAIN },
    Case { dim: 256, pairs: 32, heads: 3, kv_heads: 1, has_norms: true, norms_values: true, ..PLAIN },
    Case { dim: 80, pairs: 40, has_norms: true, is_layer: true, after_rotation: true, ..PLAIN },
    Case { dim: 40, pairs: 8, has_norms: true, is_layer: true, ..PLAIN },
    Case { dim: 72, pairs: 11, has_norms: true, is_layer: true, norms_values: true, ..PLAIN },
    Case {
        dim: 128,
        pairs: 64,
        heads: 9,
        kv_heads: 3,
        has_norms: true,
        span: NormSpan::Token,
        is_layer: true,
        ..PLAIN
    },
];

/// How a launch deals its work out, which changes no bit.
#[derive(Debug, Clone, Copy)]
struct Dealt {
    /// Warps of a token.
    parts: usize,
    /// Tokens of whose values a block makes pieces.
    at_once: usize,
}

const DEALT: Dealt = Dealt { parts: 2, at_once: 16 };

struct Setting {
    case: Case,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    speeds: Vec<f32>,
    block_size: usize,
    dealt: Dealt,
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
            dealt: DEALT,
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
        self.run_from(0, rows, positions, slots);
    }

    /// The same with values from that element on.
    fn run_from<T: Format, KV: Stored>(
        &self,
        start: usize,
        rows: &mut [T],
        positions: &[u32],
        slots: Option<(&[i32], &mut Caches<KV>)>,
    ) {
        let case = self.case;
        let name = format!("pairwright_rotary_{}{}", T::NAME, KV::SUFFIX);
        let cos_sin = self.cos_sin();
        let group = (case.pairs.div_ceil(8) + (case.dim - 2 * case.pairs).div_ceil(16)).next_power_of_two();
        let parts = if case.span == NormSpan::Token { 8 } else { self.dealt.parts };
        let tokens = positions.len();
        let has_values = slots.is_some() || case.norms_values;
        let at_once = if has_values { self.dealt.at_once } else { 0 };
        let value_blocks = if has_values { tokens.div_ceil(at_once) * case.kv_heads } else { 0 };
        let grid = [(value_blocks + (tokens * parts).div_ceil(8)) as u32, 1, 1];
        let shared = if slots.is_some() { at_once * (case.dim * size_of::<KV>()).next_multiple_of(128) } else { 0 };
        let launch = Launch::new(&name, grid, 256).shared(shared).output(rows).int(self.width());
        let launch = launch.input(positions);
        let launch = match slots {
            Some((slots, caches)) => launch.input(slots).output(&mut caches.keys).output(&mut caches.values[start..]),
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
        let launch = launch.float(EPS).float(beta).float(GROWTH.original as f32);
        launch.int(tokens).int(group).int(parts).int(at_once).run();
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

/// Slots of sequences that begin and end anywhere in blocks of their own, single tokens among them, and padding.
fn ragged_slots(random: &mut Random, tokens: usize, block_size: usize) -> Vec<i32> {
    let mut blocks: Vec<usize> = (0..tokens + 8).collect();
    let mut slots = Vec::new();
    while slots.len() < tokens {
        let len = [1, 1 + random.below(7), 1 + random.below(3 * block_size)][random.below(3)];
        let begin = [0, 8, random.below(block_size)][random.below(3)];
        let (first, mut block) = (slots.len(), 0);
        for place in begin..begin + len {
            if place == begin || place % block_size == 0 {
                block = blocks.swap_remove(random.below(blocks.len()));
            }
            slots.push((block * block_size + place % block_size) as i32);
        }
        if slots.len() - first > 2 && random.below(3) == 0 {
            let index = first + random.below(slots.len() - first);
            slots[index] = -1;
        }
        slots.extend(vec![-1; random.below(3) / 2]);
    }
    slots.truncate(tokens);
    slots
}

/// A large batch, dealt out in several ways: the rows and the cache are those of each token by itself.
fn check_ragged<T: Format, KV: Stored>(random: &mut Random, case: Case, block_size: usize) {
    let mut setting = Setting { block_size, ..Setting::new(random, case) };
    let tokens = 150;
    let slots = ragged_slots(random, tokens, block_size);
    let positions: Vec<u32> = (0..tokens).map(|_| random.below(POSITIONS) as u32).collect();
    let (blocks, width) = (tokens + 8, setting.width());
    let room = blocks * case.kv_heads * block_size * case.dim;
    let before: Vec<T> = random.numbers(tokens * width, 2.0);
    let mut exact = wide(&before);
    setting.run::<f32, f32>(&mut exact, &positions, None);
    let want = Caches::<KV>::written(&setting, blocks, &exact, &slots);
    let mut want_rows: Vec<T> = exact.iter().map(|&value| T::rounded(value)).collect();
    for token in (0..tokens).filter(|&token| slots[token] < 0) {
        let row = token * width..(token + 1) * width;
        want_rows[row.clone()].copy_from_slice(&before[row]);
    }
    for dealt in [Dealt { parts: 1, at_once: 64 }, Dealt { parts: 3, at_once: 8 }, Dealt { parts: 7, at_once: 32 }] {
        setting.dealt = dealt;
        // Where rows and values begin on 16 bytes, and where they do not.
        for start in [0, 1] {
            let mut rows = [vec![T::rounded(5.0); start], before.clone()].concat();
            let mut caches = Caches::<KV>::new(room + start);
            setting.run_from(start, &mut rows[start..], &positions, Some((&slots, &mut caches)));
            assert!(rows[start..] == want_rows, "{case:?} {dealt:?} from {start}: rows");
            assert!(caches.keys[..room] == want.keys, "{case:?} {dealt:?} from {start}: keys");
            assert!(caches.values[start..] == want.values, "{case:?} {dealt:?} from {start}: values");
        }
    }
    for token in (0..tokens).step_by(29) {
        let row = token * width..(token + 1) * width;
        let (slots, mut alone) = (&slots[token..=token], before[row.clone()].to_vec());
        let mut caches = Caches::<KV>::new(room);
        setting.run(&mut alone, &positions[token..=token], Some((slots, &mut caches)));
        assert!(alone == want_rows[row.clone()], "{case:?}: token {token} alone");
        let want = Caches::<KV>::written(&setting, blocks, &exact[row], slots);
        assert!((caches.keys, caches.values) == (want.keys, want.values), "{case:?}: token {token} alone, cached");
    }
}

#[test]
fn large_batches_are_their_tokens_one_by_one() {
    let mut random = Random(62);
    let small = Case { heads: 3, kv_heads: 2, has_norms: true, ..PLAIN };
    check_ragged::<bf16, bf16>(&mut random, Case { dim: 128, pairs: 64, grows: true, ..small }, 32);
    check_ragged::<f16, f16>(&mut random, Case { dim: 80, pairs: 20, ..small }, 16);
    check_ragged::<f32, f32>(&mut random, Case { dim: 64, pairs: 32, norms_values: true, ..small }, 16);
    check_ragged::<bf16, bf16>(&mut random, Case { dim: 96, pairs: 16, norms_values: true, ..small }, 24);
    check_ragged::<bf16, bf16>(&mut random, Case { span: NormSpan::Token, is_layer: true, ..small }, 32);
    check_ragged::<bf16, bf16>(&mut random, Case { dim: 6, pairs: 3, ..small }, 8);
}

#[test]
fn large_batches_in_8_bits_are_their_tokens_one_by_one() {
    let mut random = Random(63);
    let small = Case { heads: 3, kv_heads: 2, has_norms: true, ..PLAIN };
    check_ragged::<bf16, Fp8>(&mut random, Case { dim: 128, pairs: 64, ..small }, 32);
    check_ragged::<f16, Fp8>(&mut random, Case { dim: 40, pairs: 8, norms_values: true, ..small }, 32);
    check_ragged::<f32, Fp8>(&mut random, Case { dim: 10, pairs: 5, ..small }, 16);
}

#[test]
fn a_row_of_zeros_stays_one() {
    let setting = Setting::new(&mut Random(61), CASES[1]);
    let mut rows = vec![0f32; setting.width()];
    setting.run::<f32, f32>(&mut rows, &[3], None);
    assert_eq!(rows, vec![0.0; setting.width()]);
}

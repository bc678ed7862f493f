//! The cache in every format it can be kept in: native against portable, both rounding alike; the same bits however a sequence is
//! cut into steps, batched, laid out or spread over threads; and that no number is seen by who does not own it.

use candle_core::Tensor;
use pairwright::ops::attention::Attention;
use pairwright::ops::paged::{HeadGeometry, KvFormat, KvLayer};
use pairwright::ops::{Compute, to_host};

use super::attention::{Part, Ragged, assert_same_bits, geometry, rotated_queries, store};
use super::{Random, on_threads};

/// Those that round.
const FORMATS: [KvFormat; 3] = [KvFormat::F16, KvFormat::Bf16, KvFormat::Int8];

fn keeping(format: KvFormat) -> Compute {
    Compute { kv_format: format, ..Compute::cpu() }
}

/// Groups 1, 3, 4 and 7; head sizes with and without padding, one longer than any model's.
fn geometries() -> [HeadGeometry; 6] {
    [
        geometry(4, 4, 16),
        geometry(6, 2, 20),
        geometry(7, 1, 80),
        geometry(3, 1, 40),
        geometry(8, 2, 64),
        geometry(2, 1, 600),
    ]
}

const LENS: [usize; 6] = [1, 16, 47, 257, 300, 3];

/// Largest and root mean square difference.
fn differences(got: &[Vec<f32>], want: &[Vec<f32>]) -> (f32, f32) {
    let (mut largest, mut squares, mut count) = (0f32, 0f64, 0);
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        let difference = (got - want).abs();
        assert!(difference.is_finite());
        largest = largest.max(difference);
        squares += f64::from(difference).powi(2);
        count += 1;
    }
    (largest, (squares / f64::from(count)).sqrt() as f32)
}

/// What is asked of a format: the largest difference of native and portable, its root mean square, and both beside a cache in f32.
///
/// Keys and values are within ±2. f16 and bf16 hold the same numbers on both paths: within 1e-5, as f32. To 8 bits portable rounds by
/// another formula, so that now and then a number falls to the other side and is a step of 2/127 away: no output may be further off
/// than that, and the mean must be far below it. Bounds beside f32 are about 1.5 times what was measured.
const WITHIN: [[f32; 4]; 3] =
    [[1e-5, 1e-6, 1.8e-3, 2.6e-4], [1e-5, 1e-6, 1.7e-2, 2e-3], [2.0 / 127.0, 1e-4, 4.7e-2, 5.7e-3]];

#[test]
fn native_equals_portable_and_is_near_f32() {
    let mut random = Random(50);
    let mut worst = [[0f32; 4]; 3];
    for (index, geometry) in geometries().into_iter().enumerate() {
        let block_size = [16, 32, 64, 128, 256][index % 5];
        let mut ragged = Ragged::new(&mut random, geometry, block_size, &LENS);
        for (window, sinks) in [(None, false), (Some(5), true), (Some(270), false), (None, true)] {
            ragged.window = window;
            ragged.sinks = sinks.then(|| random.numbers(geometry.num_heads, 2.0));
            let exact = ragged.run(&Compute::cpu(), &ragged.whole());
            for (format, worst) in FORMATS.into_iter().zip(&mut worst) {
                let native = ragged.run(&keeping(format), &ragged.whole());
                let portable = ragged.run(&keeping(format).portable(), &ragged.whole());
                let (largest, mean) = differences(&native, &portable);
                let (far, from_f32) = differences(&native, &exact);
                assert!(from_f32 > 0.0, "{format:?} is not what is kept");
                for (worst, difference) in worst.iter_mut().zip([largest, mean, far, from_f32]) {
                    *worst = worst.max(difference);
                }
            }
        }
    }
    for ((format, worst), within) in FORMATS.into_iter().zip(worst).zip(WITHIN) {
        println!(
            "{format:?}: native - portable {:.1e} (rms {:.1e}), - f32 {:.1e} (rms {:.1e})",
            worst[0], worst[1], worst[2], worst[3]
        );
        assert!(worst.iter().zip(&within).all(|(got, want)| got <= want), "{format:?}: {worst:?}, want {within:?}");
    }
}

#[test]
fn steps_neighbours_blocks_and_threads_do_not_change_a_bit() {
    let mut random = Random(51);
    for (index, geometry) in geometries().into_iter().enumerate() {
        let mut ragged = Ragged::new(&mut random, geometry, 16, &LENS);
        ragged.window = [None, Some(37)][index % 2];
        ragged.sinks = (index % 3 == 0).then(|| random.numbers(geometry.num_heads, 2.0));
        let whole: Vec<_> = FORMATS.map(|format| ragged.run(&keeping(format), &ragged.whole())).into();
        let same = |ragged: &Ragged, steps: &[Vec<Part>], what: &str| {
            for (format, whole) in FORMATS.into_iter().zip(&whole) {
                let what = format!("{format:?} {geometry:?}, {what}");
                assert_same_bits(&ragged.run(&keeping(format), steps), whole, &what);
            }
        };
        let alone: Vec<Vec<Part>> = (0..LENS.len()).map(|index| vec![(index, 0..ragged.len(index))]).collect();
        same(&ragged, &alone, "alone");
        same(&ragged, &ragged.chunked(&mut random), "chunked");
        for threads in [1, 3] {
            on_threads(threads, || FORMATS.map(|format| ragged.run(&keeping(format), &ragged.whole())))
                .iter()
                .zip(&whole)
                .for_each(|(got, want)| assert_same_bits(got, want, "threads"));
        }
        for block_size in [32, 64, 128, 256] {
            ragged.lay_out(&mut random, block_size);
            same(&ragged, &ragged.chunked(&mut random), "block size");
        }
    }
}

/// A head of zeros has no largest number to be measured against.
#[test]
fn zeros_stay_zeros() {
    let mut random = Random(52);
    let mut ragged = Ragged::new(&mut random, geometry(4, 2, 20), 16, &[40, 40]);
    let (q_width, width) = (ragged.geometry.q_width(), ragged.geometry.qkv_width());
    ragged.sequences[1].chunks_mut(width).for_each(|row| row[q_width..].fill(0.0));
    for format in FORMATS {
        let outputs = ragged.run(&keeping(format), &ragged.whole());
        assert!(outputs[0].iter().all(|value| value.is_finite() && *value != 0.0), "{format:?}");
        assert!(outputs[1].iter().all(|value| *value == 0.0), "{format:?}");
    }
}

/// What is no number stays with its sequence, and stays no number.
#[test]
fn what_is_not_finite_does_not_reach_another_sequence() {
    let mut random = Random(53);
    for format in [KvFormat::F32, KvFormat::F16, KvFormat::Bf16, KvFormat::Int8] {
        let compute = keeping(format);
        let clean = Ragged::new(&mut random, geometry(4, 2, 40), 32, &[45, 70, 9]);
        let want = clean.run(&compute, &clean.whole());
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut ragged = clean.clone();
            ragged.sequences[1].fill(wrong);
            let got = ragged.run(&compute, &ragged.chunked(&mut random));
            assert!(got[1].iter().all(|value| !value.is_finite()), "{format:?} {wrong}");
            assert_same_bits(&[got[0].clone(), got[2].clone()], &[want[0].clone(), want[2].clone()], "beside it");
        }
    }
}

/// Blocks that are given out again hold old numbers and old scales.
#[test]
fn what_a_block_held_before_is_not_seen() {
    let mut random = Random(54);
    for format in FORMATS {
        let compute = keeping(format);
        let ragged = Ragged::new(&mut random, geometry(4, 2, 40), 32, &[45, 70]);
        let clean = ragged.run(&compute, &ragged.whole());
        let cache = KvLayer::new(&compute, ragged.geometry, ragged.num_blocks, ragged.block_size).unwrap();
        let mut dirty = ragged.clone();
        let width = ragged.geometry.qkv_width();
        dirty.sequences = vec![vec![f32::NAN; 64 * width], vec![f32::INFINITY; 96 * width]];
        let rotary = ragged.rotary(&compute);
        store(&cache, &dirty.rows(&dirty.whole()[0]), &rotary, &dirty.batch(&dirty.whole()[0])).unwrap();
        let (batch, qkv): (_, Tensor) = (ragged.batch(&ragged.whole()[0]), ragged.rows(&ragged.whole()[0]));
        store(&cache, &qkv, &rotary, &batch).unwrap();
        let attention = Attention::new(&compute, ragged.geometry, 40f32.sqrt().recip(), None);
        let queries = rotated_queries(&rotary, &qkv, &batch).unwrap();
        let output = to_host(&attention.forward(&queries, &cache, &batch).unwrap()).unwrap();
        assert_same_bits(&[output], &[clean.concat()], &format!("{format:?}"));
    }
}

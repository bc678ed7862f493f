//! Operations: each native CPU path against its portable version in Candle operations on random ragged inputs, and against
//! itself: the same bits in any batch, in any chunks, on any number of threads. Bad shapes are errors and never panics.

#[path = "ops/attention.rs"]
mod attention;
#[path = "ops/blocks.rs"]
mod blocks;
#[path = "ops/experts.rs"]
mod experts;
#[path = "ops/int8.rs"]
mod int8;
#[path = "ops/kv.rs"]
mod kv;
#[path = "ops/linear.rs"]
mod linear;
#[path = "ops/paged.rs"]
mod paged;
#[path = "ops/rows.rs"]
mod rows;
#[path = "ops/variants.rs"]
mod variants;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use pairwright::ops::to_host;

/// A stream of numbers that a seed fixes: SplitMix64 (Steele, Lea & Flood 2014).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// Uniform in (-spread, spread).
    fn number(&mut self, spread: f32) -> f32 {
        spread * ((self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
    }

    fn numbers(&mut self, count: usize, spread: f32) -> Vec<f32> {
        (0..count).map(|_| self.number(spread)).collect()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        (1..items.len()).rev().for_each(|i| items.swap(i, self.below(i + 1)));
    }
}

fn matrix(data: &[f32], rows: usize, columns: usize) -> Tensor {
    Tensor::from_slice(data, (rows, columns), &Device::Cpu).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    to_host(tensor).unwrap().into_iter().map(f32::to_bits).collect()
}

/// Asserts that all elements are within `tolerance` of each other.
fn assert_close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance, "{what}: element {index} is {got}, want {want}");
    }
}

/// Little-endian bytes of `data` in `dtype`, and the numbers that they stand for.
fn stored(data: &[f32], dtype: DType) -> (Vec<u8>, Vec<f32>) {
    match dtype {
        DType::BF16 => {
            let rounded = data.iter().map(|&x| bf16::from_f32(x));
            (rounded.clone().flat_map(bf16::to_le_bytes).collect(), rounded.map(bf16::to_f32).collect())
        }
        DType::F16 => {
            let rounded = data.iter().map(|&x| f16::from_f32(x));
            (rounded.clone().flat_map(f16::to_le_bytes).collect(), rounded.map(f16::to_f32).collect())
        }
        _ => (data.iter().flat_map(|x| x.to_le_bytes()).collect(), data.to_vec()),
    }
}

/// Runs `work` on a pool of this many threads.
fn on_threads<T: Send>(num_threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().unwrap().install(work)
}

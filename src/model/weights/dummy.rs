//! Random weights: a shape can be run and timed without its files. Never mistaken for a model: callers label what they make.
//! Knows names and shapes; knows nothing of layers.

use half::bf16;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// bf16 little-endian bytes of a tensor: norms are 1, biases small, matrices uniform with variance 1 / columns, each element
/// a function of (seed, name, index) alone.
pub fn bytes(seed: u64, name: &str, shape: &[usize]) -> Vec<u8> {
    let key = xxh3_64_with_seed(name.as_bytes(), seed);
    let count: usize = shape.iter().product();
    let (centre, spread) = match shape {
        [_] if name.contains("norm") => (1.0, 0.0),
        [_] => (0.0, 0.02),
        _ => (0.0, (3.0 / *shape.last().unwrap_or(&1) as f32).sqrt()),
    };
    const RUN: usize = 1 << 14;
    let mut bytes = vec![0u8; count * 2];
    bytes.par_chunks_mut(RUN * 2).enumerate().for_each(|(run, chunk)| {
        for (index, target) in chunk.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let uniform = (mix(key, (run * RUN + index) as u64) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            *target = bf16::from_f32(centre + spread * uniform).to_le_bytes();
        }
    });
    bytes
}

/// The output function of SplitMix64 (Steele, Lea & Flood 2014) at step `index` of the stream `key`.
fn mix(key: u64, index: u64) -> u64 {
    let mut z = key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

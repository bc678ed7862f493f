//! Numbers rounded to 8 bits: a batch's rows in groups of 32, as the integer product reads them, and heads of keys and values, as the
//! cache keeps them. Knows layouts; knows nothing of weights.

use rayon::prelude::*;

use super::packing::row_blocks;
use super::simd::{LANES, Vectorised, dispatch};

/// Consecutive k that share an activation's scale.
pub const GROUP: usize = 32;
/// Consecutive k whose activations' sum is kept: the shortest run that shares a weight's scale.
pub const SUB_GROUP: usize = 16;

/// x [rows, k] rounded to 8 bits, each group of 32 against its largest element: x ≈ scale * quant, quant in ±127. Rows lie in the
/// blocks of [`row_blocks`], each element below for a block of R rows that begins at row `first`.
#[derive(Default)]
pub struct Rounded {
    /// [k / 4, R] fours from `first * k / 4` on.
    pub quants: Vec<[i8; 4]>,
    /// [k / 32, R] from `first * k / 32` on.
    pub scales: Vec<f32>,
    /// [k / 16, R] from `first * k / 16` on: sums of quants.
    pub sums: Vec<i32>,
    /// [k / 32, R] from `first * k / 32` on: a group's sum times its scale, which is what mins multiply.
    pub scaled_sums: Vec<f32>,
    /// Rows of the batch.
    pub rows: usize,
}

impl Rounded {
    /// Rounds x in place of what was there; `k` is a multiple of 32.
    pub fn load(&mut self, x: &[f32], k: usize) {
        self.rows = x.len() / k.max(1);
        self.quants.resize(x.len() / 4, [0; 4]);
        self.scales.resize(x.len() / GROUP, 0.0);
        self.sums.resize(x.len() / SUB_GROUP, 0);
        self.scaled_sums.resize(x.len() / GROUP, 0.0);
        let blocks = row_blocks(self.rows);
        let (mut quants, mut scales) = (&mut self.quants[..], &mut self.scales[..]);
        let (mut sums, mut scaled_sums) = (&mut self.sums[..], &mut self.scaled_sums[..]);
        let mut jobs = Vec::new();
        for block in blocks {
            let (head, rest) = quants.split_at_mut(block.len() * k / 4);
            quants = rest;
            let (scale, rest) = scales.split_at_mut(block.len() * k / GROUP);
            scales = rest;
            let (sum, rest) = sums.split_at_mut(block.len() * k / SUB_GROUP);
            sums = rest;
            let (scaled_sum, rest) = scaled_sums.split_at_mut(block.len() * k / GROUP);
            scaled_sums = rest;
            let x = &x[block.start * k..block.end * k];
            jobs.push(Round {
                x,
                rows: block.len(),
                k,
                quants: head,
                scales: scale,
                sums: sum,
                scaled_sums: scaled_sum,
            });
        }
        match x.len() < super::PARALLEL_FROM {
            true => jobs.into_iter().for_each(dispatch),
            false => jobs.into_par_iter().for_each(dispatch),
        }
    }
}

/// Rounds x to 8 bits against its largest element: x ≈ scale * quant, quant in ±127; N is a power of two. The scale is no number if
/// one of x is none (and the quants are then anything): that must not pass for a number.
#[inline(always)]
pub fn round<const N: usize>(x: &[f32; N]) -> ([i32; N], f32) {
    let mut largest = [0f32; N];
    let mut finite = [0f32; N];
    for ((largest, finite), &value) in largest.iter_mut().zip(&mut finite).zip(x) {
        *largest = value.abs();
        *finite = value * 0.0;
    }
    let mut width = N / 2;
    while width > 0 {
        for lane in 0..width {
            largest[lane] = if largest[lane] > largest[lane + width] { largest[lane] } else { largest[lane + width] };
            finite[lane] += finite[lane + width];
        }
        width /= 2;
    }
    let (largest, finite) = (largest[0], finite[0]);
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let mut integers = [0i32; N];
    for (integer, &value) in integers.iter_mut().zip(x) {
        *integer = quant(value, inverse);
    }
    (integers, largest / 127.0 + finite)
}

/// The integer nearest to value * inverse, which is within ±127.
#[inline(always)]
fn quant(value: f32, inverse: f32) -> i32 {
    // Adding 1.5 * 2^23 rounds to the nearest integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    ((value * inverse + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// [`round`] of a head's numbers, however many, for the instruction set at hand: `put` takes each by its index, the scale is
/// returned.
pub struct RoundHead<'a, F> {
    /// x
    pub numbers: &'a [f32],
    /// Takes index and quant.
    pub put: F,
}

impl<F: Fn(usize, i8)> Vectorised for RoundHead<'_, F> {
    type Output = f32;
    #[inline(always)]
    fn run(self) -> f32 {
        let Self { numbers, put } = self;
        let (mut largest, mut finite) = ([0f32; LANES], [0f32; LANES]);
        for chunk in numbers.chunks(LANES) {
            for ((largest, finite), &value) in largest.iter_mut().zip(&mut finite).zip(chunk) {
                *largest = if *largest > value.abs() { *largest } else { value.abs() };
                *finite += value * 0.0;
            }
        }
        let largest = largest.into_iter().fold(0f32, |largest, lane| if largest > lane { largest } else { lane });
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        numbers.iter().enumerate().for_each(|(index, &value)| put(index, quant(value, inverse) as i8));
        largest / 127.0 + finite.into_iter().sum::<f32>()
    }
}

/// The rounding of one block of rows.
struct Round<'a> {
    x: &'a [f32],
    rows: usize,
    k: usize,
    quants: &'a mut [[i8; 4]],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
    scaled_sums: &'a mut [f32],
}

impl Vectorised for Round<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { x, rows, k, quants, scales, sums, scaled_sums } = self;
        for (row, x) in x.chunks_exact(k).enumerate() {
            for (group, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
                let (integers, scale) = round(x);
                scales[group * rows + row] = scale;
                let mut whole = 0;
                for (half, integers) in integers.as_chunks::<SUB_GROUP>().0.iter().enumerate() {
                    let sum: i32 = integers.iter().sum();
                    sums[(2 * group + half) * rows + row] = sum;
                    whole += sum;
                }
                scaled_sums[group * rows + row] = whole as f32 * scale;
                for (four, integers) in integers.as_chunks::<4>().0.iter().enumerate() {
                    for (quant, integer) in quants[(group * GROUP / 4 + four) * rows + row].iter_mut().zip(integers) {
                        *quant = *integer as i8;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The rounded rows of x.
    pub fn rounded(x: &[f32], k: usize) -> Rounded {
        let mut rounded = Rounded::default();
        rounded.load(x, k);
        rounded
    }

    #[test]
    fn rounding_keeps_the_largest_element_and_says_what_is_not_finite() {
        let k = 64;
        let mut x: Vec<f32> = (0..14 * k).map(|i| ((i * 29 % 83) as f32 - 41.0) * 0.3).collect();
        x[3 * k..3 * k + 32].fill(0.0);
        x[5 * k + 7] = f32::NAN;
        x[6 * k + 40] = f32::INFINITY;
        let rounded = rounded(&x, k);
        for block in row_blocks(14) {
            let rows = block.len();
            for row in block.clone() {
                for group in 0..k / GROUP {
                    let scale = rounded.scales[block.start * k / GROUP + group * rows + row - block.start];
                    let source = &x[row * k + group * GROUP..][..GROUP];
                    assert_eq!(scale.is_finite(), source.iter().all(|value| value.is_finite()), "row {row}");
                    let mut sums = [0i32; 2];
                    for (index, &value) in source.iter().enumerate() {
                        let four = group * GROUP / 4 + index / 4;
                        let quant = rounded.quants[block.start * k / 4 + four * rows + row - block.start][index % 4];
                        sums[index / SUB_GROUP] += i32::from(quant);
                        if scale.is_finite() {
                            assert!((f32::from(quant) * scale - value).abs() <= 0.5001 * scale, "row {row}");
                        }
                    }
                    for (half, sum) in sums.into_iter().enumerate() {
                        let at = block.start * k / SUB_GROUP + (2 * group + half) * rows + row - block.start;
                        assert!(!scale.is_finite() || rounded.sums[at] == sum);
                    }
                }
            }
        }
    }
}

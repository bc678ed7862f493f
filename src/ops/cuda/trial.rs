//! Whether a product gives a row the same bits whatever the number of rows: tried, since no library promises it. Knows a product as something
//! that runs.

use candle_core::{DType, Device, Result, Tensor};
use half::{bf16, f16};

use super::Kernels;
use crate::ops::to_host;

/// Numbers of rows: the first are compared with the first and last rows of all others. One tile and many, whole ones and parts, whatever a
/// library might change its way at.
const ROWS: [usize; 9] = [16, 1, 3, 7, 64, 129, 256, 1000, 4096];
/// Bytes of a result that is looked at; larger ones are left out.
const MOST_BYTES: usize = 64 << 20;

/// What is multiplied: rows of k numbers by a matrix of n rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Of rows and matrix.
    pub input: DType,
    /// Of results.
    pub output: DType,
    pub n: usize,
    pub k: usize,
}

/// Runs the product of x [rows, k] to y [rows, n] for several numbers of rows. `false` if it could not, or a row's bits differ.
pub(super) fn is_steady(
    kernels: &Kernels,
    shape: Shape,
    mut run: impl FnMut(&Tensor, &Tensor) -> Result<bool>,
) -> Result<bool> {
    let Shape { input, output, n, k } = shape;
    let device = Device::Cuda(kernels.0.device.clone());
    let compared = ROWS[0];
    let numbers = random_numbers(input, compared * k)?;
    let row_bytes = (n * output.size_in_bytes()).max(k * input.size_in_bytes());
    let mut want: Option<Vec<f32>> = None;
    for rows in ROWS.into_iter().filter(|rows| *rows <= compared || rows * row_bytes <= MOST_BYTES) {
        let (x, y) = (Tensor::zeros((rows, k), input, &device)?, Tensor::zeros((rows, n), output, &device)?);
        let head = rows.min(compared);
        let places = if rows > head { vec![0, rows - head] } else { vec![0] };
        for &first in &places {
            kernels.fill(&x.narrow(0, first, head)?, &numbers[..numbers.len() / compared * head])?;
        }
        if !run(&x, &y)? {
            return Ok(false);
        }
        for first in places {
            let got = to_host(&y.narrow(0, first, head)?)?;
            let want = want.get_or_insert_with(|| got.clone());
            if got.iter().zip(want).any(|(got, want)| got.to_bits() != want.to_bits()) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Numbers of size 1 or so, as bytes.
fn random_numbers(dtype: DType, count: usize) -> Result<Vec<u8>> {
    // Weyl's sequence, mixed (Steele, Lea, Flood 2014: SplitMix64).
    let words = (1..=count as u64).map(|index| {
        let mut word = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (word >> 32) as u32
    });
    let number = |word: u32| word as f32 / 2f32.powi(31) - 1.0;
    Ok(match dtype {
        DType::F32 => words.flat_map(|word| number(word).to_le_bytes()).collect(),
        DType::F16 => words.flat_map(|word| f16::from_f32(number(word)).to_le_bytes()).collect(),
        DType::BF16 => words.flat_map(|word| bf16::from_f32(number(word)).to_le_bytes()).collect(),
        // Any sign and fraction, exponents up to that of 1: under 2, and a number.
        DType::F8E4M3 => words.map(|word| word as u8 & 0xBF).collect(),
        other => candle_core::bail!("products of {other:?}"),
    })
}

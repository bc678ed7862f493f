//! What bits a product gives to rows, whatever the number of rows: tried, since no library promises that they are the same. Knows a product as
//! something that runs.

use candle_core::{DType, Device, Result, Tensor};
use half::{bf16, f16};
use xxhash_rust::xxh3::xxh3_64;

use super::Kernels;

/// Rows that are looked at: the first ones, and the last, which are the same.
const COMPARED: usize = 8;
/// Bytes of inputs or results beyond which nothing is tried.
const MOST_BYTES: usize = 256 << 20;

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

/// Products of one shape, on trial.
pub(super) struct Trial<'a> {
    kernels: &'a Kernels,
    shape: Shape,
    /// Of the rows that are looked at.
    numbers: Vec<u8>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(kernels: &'a Kernels, shape: Shape) -> Result<Self> {
        Ok(Self { kernels, shape, numbers: random_numbers(shape.input, COMPARED * shape.k)? })
    }

    /// Runs the product of x [rows, k] to y [rows, n]: a hash for each of its first rows. `None` if it could not, if there is no room, or if the
    /// same rows have other bits at the end.
    pub(super) fn bits(
        &self,
        rows: usize,
        run: impl FnOnce(&Tensor, &Tensor) -> Result<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let Shape { input, output, n, k } = self.shape;
        if rows * (n * output.size_in_bytes()).max(k * input.size_in_bytes()) > MOST_BYTES {
            return Ok(None);
        }
        let device = Device::Cuda(self.kernels.0.device.clone());
        let made =
            Tensor::zeros((rows, k), input, &device).and_then(|x| Ok((x, Tensor::zeros((rows, n), output, &device)?)));
        let Ok((x, y)) = made else { return Ok(None) };
        let head = rows.min(COMPARED);
        let places = if rows > head { vec![0, rows - head] } else { vec![0] };
        for &first in &places {
            self.kernels.fill(&x.narrow(0, first, head)?, &self.numbers[..self.numbers.len() / COMPARED * head])?;
        }
        if !run(&x, &y)? {
            return Ok(None);
        }
        let mut found = None;
        for first in places {
            let hashes = hashes(&y.narrow(0, first, head)?)?;
            // Rows that overlap were filled twice; the last place has what the first lost.
            let whole = rows >= 2 * COMPARED || first > 0 || rows == head;
            if whole && *found.get_or_insert_with(|| hashes.clone()) != hashes {
                return Ok(None);
            }
        }
        Ok(found)
    }
}

/// A hash of each row's bits, from the device.
fn hashes(rows: &Tensor) -> Result<Vec<u64>> {
    let words = |row: &Tensor| -> Result<Vec<u8>> {
        Ok(match row.dtype() {
            DType::F32 => row.to_vec1::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::F16 => row.to_vec1::<f16>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::BF16 => row.to_vec1::<bf16>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
            other => candle_core::bail!("products to {other:?}"),
        })
    };
    let rows = rows.to_device(&Device::Cpu)?;
    (0..rows.dim(0)?).map(|row| Ok(xxh3_64(&words(&rows.get(row)?)?))).collect()
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

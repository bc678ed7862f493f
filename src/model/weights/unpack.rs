//! From the codes of published quantised weights to numbers: (code - zero) * scale, in f32.
//! Knows bits, bytes and the orders in which they are packed; knows nothing of names, files or configurations.

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

/// In what order small integers lie in 32-bit words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// compressed-tensors: words [rows, columns], a row's elements from the lowest bits up.
    Rows,
    /// GPTQ: words [columns, rows], packed along the columns.
    Gptq,
    /// AWQ's `gemm`: words [columns, rows], packed along the rows, eight to a word in the order 0 2 4 6 1 3 5 7.
    Awq,
}

/// What stands for an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// A byte each, row-major: F8_E4M3, F8_E5M2 or I8.
    Bytes(Dtype),
    /// This many bits in 32-bit words.
    Words(u32, Order),
}

/// The bit position of element `index` of eight in a word that AWQ packed.
const AWQ_SHIFTS: [u32; 8] = [0, 16, 4, 20, 8, 24, 12, 28];

/// Which scale belongs to an element: one per block of rows and group of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Rows that share a scale.
    pub row_block: usize,
    /// Columns that share a scale, where no index says otherwise.
    pub column_block: usize,
    /// Groups of columns.
    pub num_groups: usize,
    /// Distance between the scales of consecutive row blocks, and of consecutive groups.
    pub strides: [usize; 2],
}

impl Grid {
    /// Where the scale of row `row` and group `group` lies.
    pub fn at(&self, row: usize, group: usize) -> usize {
        row / self.row_block * self.strides[0] + group * self.strides[1]
    }
}

/// A matrix [rows, columns] of codes with scales and zeros.
pub struct Packed<'a> {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// What the codes are.
    pub codes: Codes,
    /// Their bytes.
    pub bytes: &'a [u8],
    /// Where a scale lies.
    pub grid: Grid,
    /// Laid out as the grid says.
    pub scales: Vec<f32>,
    /// As the scales, or one for all.
    pub zeros: Vec<f32>,
    /// Group of each column.
    pub groups: Vec<u32>,
}

impl Packed<'_> {
    /// All elements as little-endian f32, row-major.
    pub fn widen(&self) -> Vec<u8> {
        let (rows, columns) = (self.rows, self.columns);
        match self.codes {
            Codes::Bytes(Dtype::I8) => self.widen_with(|row, k| f32::from(self.bytes[row * columns + k].cast_signed())),
            Codes::Bytes(dtype) => {
                let table: Vec<f32> = (0..=255).map(|code| float8(dtype, code)).collect();
                self.widen_with(move |row, k| table[usize::from(self.bytes[row * columns + k])])
            }
            Codes::Words(bits, Order::Rows) => {
                let per_row = (columns * bits as usize).div_ceil(32);
                self.widen_with(move |row, k| bits_at(self.bytes, row * per_row, k, bits))
            }
            Codes::Words(bits, Order::Gptq) => self.widen_with(move |row, k| {
                let per_word = 32 / bits as usize;
                small(word(self.bytes, k / per_word * rows + row) >> (k % per_word * bits as usize), bits)
            }),
            Codes::Words(bits, Order::Awq) => self.widen_with(move |row, k| {
                small(word(self.bytes, k * (rows / 8) + row / 8) >> AWQ_SHIFTS[row % 8], bits)
            }),
        }
    }

    fn widen_with(&self, code: impl Fn(usize, usize) -> f32 + Sync) -> Vec<u8> {
        // Rows are done several at a time: words that are packed across rows are then read once.
        const ROWS: usize = 32;
        let mut wide = vec![0u8; self.rows * self.columns * 4];
        wide.par_chunks_mut(ROWS * self.columns * 4).enumerate().for_each(|(chunk, target)| {
            let num_rows = target.len() / (self.columns * 4);
            for (k, &group) in self.groups.iter().enumerate() {
                for local in 0..num_rows {
                    let row = chunk * ROWS + local;
                    let at = self.grid.at(row, group as usize);
                    let zero = if self.zeros.len() == 1 { self.zeros[0] } else { self.zeros[at] };
                    let value = (code(row, k) - zero) * self.scales[at];
                    target[(local * self.columns + k) * 4..][..4].copy_from_slice(&value.to_le_bytes());
                }
            }
        });
        wide
    }
}

/// Zeros that are packed as the codes are, laid out as `grid` says.
///
/// `add` is what GPTQ's first format took off before it packed: the sum wraps within the bits, as it did there.
pub fn unpack_zeros(bytes: &[u8], rows: usize, grid: &Grid, bits: u32, order: Order, add: u32) -> Vec<f32> {
    let groups = grid.num_groups;
    let mut zeros = vec![0f32; rows * groups];
    for group in 0..groups {
        for row in 0..rows {
            let code = match order {
                Order::Rows => {
                    let per_word = 32 / bits as usize;
                    word(bytes, row / per_word * groups + group) >> (row % per_word * bits as usize)
                }
                Order::Gptq => {
                    let per_word = 32 / bits as usize;
                    word(bytes, group * (rows / per_word) + row / per_word) >> (row % per_word * bits as usize)
                }
                Order::Awq => word(bytes, group * (rows / 8) + row / 8) >> AWQ_SHIFTS[row % 8],
            };
            zeros[grid.at(row, group)] = small(code.wrapping_add(add), bits);
        }
    }
    zeros
}

/// Elements of a small tensor of scales or zeros; `None` if its type is none of those that are used for them.
pub fn to_f32(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], wide: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|bytes| wide(*bytes)).collect()
    }
    Some(match dtype {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => each(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => each(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        Dtype::I8 => each(bytes, |[byte]| f32::from(byte.cast_signed())),
        // Microscaling formats write the exponent of a power of two.
        Dtype::U8 | Dtype::F8_E8M0 => each(bytes, |[byte]| power_of_two(byte)),
        Dtype::F8_E4M3 | Dtype::F8_E5M2 => each(bytes, |[byte]| float8(dtype, byte)),
        _ => return None,
    })
}

/// MXFP4 (OCP Microscaling Formats 1.0): `blocks` [experts, out, groups, 16] of pairs of E2M1 numbers, low half first, and
/// `scales` [experts, out, groups] of E8M0, as bf16 [experts, groups * 32, out]. Exact: two significant bits and a power of two.
pub fn widen_mxfp4(blocks: &[u8], scales: &[u8], out: usize, groups: usize) -> Vec<u8> {
    const E2M1: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
    let mut wide = vec![0u8; blocks.len() * 4];
    wide.par_chunks_mut(32 * out * 2).enumerate().for_each(|(index, target)| {
        let (expert, group) = (index / groups, index % groups);
        for column in 0..out {
            let at = (expert * out + column) * groups + group;
            let scale = power_of_two(scales[at]);
            for (pair, &byte) in blocks[at * 16..][..16].iter().enumerate() {
                for (half, code) in [byte & 15, byte >> 4].into_iter().enumerate() {
                    let value = bf16::from_f32(E2M1[usize::from(code)] * scale);
                    target[((pair * 2 + half) * out + column) * 2..][..2].copy_from_slice(&value.to_le_bytes());
                }
            }
        }
    });
    wide
}

fn word(bytes: &[u8], index: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[index * 4..][..4]);
    u32::from_le_bytes(word)
}

/// Element `k` of a row that starts at word `first`, `bits` each (a divisor of 32).
fn bits_at(bytes: &[u8], first: usize, k: usize, bits: u32) -> f32 {
    let per_word = 32 / bits as usize;
    small(word(bytes, first + k / per_word) >> (k % per_word * bits as usize), bits)
}

/// The lowest `bits` bits.
fn small(word: u32, bits: u32) -> f32 {
    (word & ((1 << bits) - 1)) as f32
}

/// 2^(byte - 127); 255 is no number.
fn power_of_two(byte: u8) -> f32 {
    match byte {
        255 => f32::NAN,
        // Below f32's normal numbers.
        0 => f32::from_bits(1 << 22),
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

/// An 8-bit float (Micikevicius et al. 2022): E5M2 is the upper half of an f16; E4M3 has no infinity and one NaN per sign.
fn float8(dtype: Dtype, code: u8) -> f32 {
    if dtype == Dtype::F8_E5M2 {
        return f16::from_bits(u16::from(code) << 8).to_f32();
    }
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * ((exponent - 7) as f32).exp2(),
    };
    if code >= 128 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats_are_those_of_the_paper() {
        let e4m3 = |code| float8(Dtype::F8_E4M3, code);
        assert_eq!(
            [0x00, 0x01, 0x07, 0x08, 0x38, 0x7E].map(e4m3),
            [0.0, 1.0 / 512.0, 7.0 / 512.0, 1.0 / 64.0, 1.0, 448.0]
        );
        assert_eq!([0xB8, 0xFE].map(e4m3), [-1.0, -448.0]);
        assert!(e4m3(0x7F).is_nan() && e4m3(0xFF).is_nan());
        let e5m2 = |code| float8(Dtype::F8_E5M2, code);
        assert_eq!([0x01, 0x3C, 0x7B, 0xBC].map(e5m2), [2f32.powi(-16), 1.0, 57344.0, -1.0]);
        assert!(e5m2(0x7C).is_infinite() && e5m2(0x7D).is_nan());
        assert_eq!([0, 1, 127, 130].map(power_of_two), [2f32.powi(-127), 2f32.powi(-126), 1.0, 8.0]);
        assert!(power_of_two(255).is_nan());
    }

    /// Against `convert_moe_packed_tensors` of Transformers 5.23: first and last numbers, and a sum that weighs each by its place.
    #[test]
    fn mxfp4_is_that_of_transformers() {
        let blocks: Vec<u8> = (0..2 * 3 * 2 * 16).map(|i| ((i * 37 + 11) % 256) as u8).collect();
        let scales: Vec<u8> = (0..12).map(|i| 121 + i * 5 % 13).collect();
        let bytes = widen_mxfp4(&blocks, &scales, 3, 2);
        let wide = to_f32(&bytes, Dtype::BF16).unwrap();
        assert_eq!(wide.len(), 2 * 64 * 3);
        assert_eq!(wide[..6], [-0.0234375, -24.0, -3.0, 0.0, -16.0, 4.0]);
        assert_eq!(wide[381..], [32.0, 0.0, -0.125]);
        let weighed: f64 = wide.iter().enumerate().map(|(i, &x)| f64::from(x) * (i + 1) as f64).sum();
        assert_eq!(weighed, 186_639.296_875);
    }
}

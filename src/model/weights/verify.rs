//! Reads every weight once and counts what is no number: NaN and infinity spread through a model and make all of it useless.
//! Knows bit patterns and where blocks keep their scales; builds nothing, and does not know what a tensor is for. Pages are given
//! back as the reading goes on.

use std::ops::Range;

use rayon::prelude::*;
use safetensors::Dtype;

use super::{Store, WeightSource};
use crate::gguf::BlockType;

/// Bytes read between two reports of progress, in parallel pieces.
const WINDOW: usize = 64 << 20;
/// Bytes that a thread takes at once.
const PIECE: usize = 1 << 20;

/// A tensor with elements that are no numbers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NonFinite {
    /// The file's name for it.
    pub name: String,
    /// Elements that are NaN; of block formats, scales and minima.
    pub num_nan: u64,
    /// The same that are infinite, of either sign.
    pub num_infinite: u64,
}

/// What the headers of the files say in sum.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Inventory {
    /// Files with weights.
    pub num_files: u64,
    /// Tensors in them.
    pub num_tensors: u64,
    /// Elements of all tensors.
    pub num_elements: u64,
    /// Bytes of all tensors.
    pub num_bytes: u64,
    /// Tensors by element type, as the files name it.
    pub dtypes: std::collections::BTreeMap<String, u64>,
}

impl Inventory {
    fn add(&mut self, num_elements: usize, num_bytes: usize, dtype: String) {
        self.num_tensors += 1;
        self.num_elements += num_elements as u64;
        self.num_bytes += num_bytes as u64;
        *self.dtypes.entry(dtype).or_default() += 1;
    }
}

impl WeightSource {
    /// The sums of the headers; zeros for random weights.
    pub fn inventory(&self) -> Inventory {
        let mut sum = Inventory::default();
        match &self.store {
            Store::Safetensors(files, _) => {
                sum.num_files = files.num_files() as u64;
                for (_, entry) in files.in_file_order() {
                    sum.add(entry.shape.iter().product(), files.bytes(entry).len(), format!("{:?}", entry.dtype));
                }
            }
            Store::Gguf(files) => {
                let gguf = files.gguf();
                sum.num_files = gguf.num_files() as u64;
                for tensor in gguf.tensors() {
                    sum.add(tensor.dims.iter().product(), gguf.bytes(tensor).len(), format!("{:?}", tensor.kind));
                }
            }
            Store::Dummy { .. } => {}
        }
        sum
    }

    /// Every tensor with a NaN or an infinity, in the order of the files. `progress` is told the bytes read since it was last
    /// called. Integers and formats without such values are passed over; random weights have none.
    pub fn non_finite(&self, mut progress: impl FnMut(u64)) -> Vec<NonFinite> {
        let mut found = Vec::new();
        let mut note = |name: &str, (num_nan, num_infinite): (u64, u64)| {
            if num_nan + num_infinite > 0 {
                found.push(NonFinite { name: name.to_owned(), num_nan, num_infinite });
            }
        };
        match &self.store {
            Store::Safetensors(files, _) => {
                for (name, entry) in files.in_file_order() {
                    let release = |part| files.release_part(entry, part);
                    note(name, count_in(files.bytes(entry), dense(entry.dtype), release, &mut progress));
                }
            }
            Store::Gguf(files) => {
                let gguf = files.gguf();
                for tensor in gguf.tensors() {
                    let release = |_| gguf.release(tensor);
                    note(&tensor.name, count_in(gguf.bytes(tensor), Some(blocks(tensor.kind)), release, &mut progress));
                }
            }
            Store::Dummy { .. } => {}
        }
        found
    }
}

/// NaNs and infinities in `bytes`; `release` is told the range that will not be looked at again.
fn count_in(
    bytes: &[u8],
    layout: Option<Layout>,
    release: impl Fn(Range<usize>),
    progress: &mut impl FnMut(u64),
) -> (u64, u64) {
    let unit = layout.map_or(1, |layout| layout.unit);
    let whole = |size: usize| size - size % unit;
    let mut sum = (0, 0);
    let mut start = 0;
    for window in bytes.chunks(whole(WINDOW)) {
        if let Some(layout) = layout {
            sum = add(sum, window.par_chunks(whole(PIECE)).map(|piece| layout.count(piece)).reduce(|| (0, 0), add));
        }
        release(start..start + window.len());
        start += window.len();
        progress(window.len() as u64);
    }
    sum
}

fn add(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 + b.0, a.1 + b.1)
}

/// Where numbers that may not be finite stand.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Bytes from one block to the next; of plain elements their size.
    unit: usize,
    /// Where in a block numbers stand.
    places: &'static [usize],
    number: Number,
}

/// How a number is stored, little-endian.
#[derive(Debug, Clone, Copy)]
enum Number {
    F64,
    F32,
    F16,
    Bf16,
    F8E5M2,
    /// Without infinities; the one NaN per sign has all bits but it set.
    F8E4M3,
}

/// The layout of an element type, where it can hold such values.
fn dense(dtype: Dtype) -> Option<Layout> {
    let (unit, number) = match dtype {
        Dtype::F64 => (8, Number::F64),
        Dtype::F32 => (4, Number::F32),
        Dtype::F16 => (2, Number::F16),
        Dtype::BF16 => (2, Number::Bf16),
        Dtype::F8_E5M2 => (1, Number::F8E5M2),
        Dtype::F8_E4M3 => (1, Number::F8E4M3),
        _ => return None,
    };
    Some(Layout { unit, places: &[0], number })
}

/// The scales of a block format (ggml's `ggml-common.h`), or the elements of a plain one.
fn blocks(kind: BlockType) -> Layout {
    let (places, number): (&'static [usize], Number) = match kind {
        BlockType::F32 | BlockType::Q8K => (&[0], Number::F32),
        BlockType::F16 | BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => (&[0], Number::F16),
        BlockType::BF16 => (&[0], Number::Bf16),
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q8_1 | BlockType::Q4K | BlockType::Q5K => (&[0, 2], Number::F16),
        BlockType::Q2K => (&[80, 82], Number::F16),
        BlockType::Q3K => (&[108], Number::F16),
        BlockType::Q6K => (&[208], Number::F16),
    };
    Layout { unit: kind.block_bytes(), places, number }
}

impl Layout {
    /// NaNs and infinities among the numbers of `bytes`, which begin with a block.
    fn count(&self, bytes: &[u8]) -> (u64, u64) {
        // One loop per format, so that each is plain arithmetic over a slice.
        match self.number {
            Number::F64 => {
                self.count_by(bytes, |b| class(b.first_chunk().map_or(0, |b| u64::from_le_bytes(*b)), 0x7FF << 52))
            }
            Number::F32 => self
                .count_by(bytes, |b| class(b.first_chunk().map_or(0, |b| u32::from_le_bytes(*b)).into(), 0xFF << 23)),
            Number::F16 => self
                .count_by(bytes, |b| class(b.first_chunk().map_or(0, |b| u16::from_le_bytes(*b)).into(), 0x1F << 10)),
            Number::Bf16 => {
                self.count_by(bytes, |b| class(b.first_chunk().map_or(0, |b| u16::from_le_bytes(*b)).into(), 0xFF << 7))
            }
            Number::F8E5M2 => self.count_by(bytes, |b| class(b.first().copied().unwrap_or(0).into(), 0x1F << 2)),
            Number::F8E4M3 => self.count_by(bytes, |b| (b.first().is_some_and(|b| b & 0x7F == 0x7F), false)),
        }
    }

    fn count_by(&self, bytes: &[u8], class: impl Fn(&[u8]) -> (bool, bool)) -> (u64, u64) {
        let numbers = bytes.chunks_exact(self.unit).flat_map(|block| self.places.iter().map(|place| &block[*place..]));
        numbers.map(class).fold((0, 0), |sum, (nan, infinite)| (sum.0 + u64::from(nan), sum.1 + u64::from(infinite)))
    }
}

/// (is NaN, is infinite): an exponent of ones alone, `exponent` being its bits. Below the exponent stands the fraction, above it
/// the sign.
fn class(bits: u64, exponent: u64) -> (bool, bool) {
    let fraction = exponent & exponent.wrapping_neg();
    let special = bits & exponent == exponent;
    let is_nan = bits & (fraction - 1) != 0;
    (special && is_nan, special && !is_nan)
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    /// Values of a type with their bytes, and how many of them are NaN and infinite.
    fn counted<const N: usize>(dtype: Dtype, values: &[[u8; N]]) -> (u64, u64) {
        dense(dtype).unwrap().count(values.as_flattened())
    }

    #[test]
    fn every_float_format_is_classed_as_its_own_arithmetic_does() {
        let wide =
            [0.0, -0.0, 1.5, f32::MAX, f32::MIN_POSITIVE, 1e-45, f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let want = (2, 2);
        assert_eq!(counted(Dtype::F32, &wide.map(f32::to_le_bytes)), want);
        assert_eq!(counted(Dtype::F64, &wide.map(|x| f64::from(x).to_le_bytes())), want);
        let narrow = wide.map(|x| if x == f32::MAX { 65504.0 } else { x });
        assert_eq!(counted(Dtype::F16, &narrow.map(|x| f16::from_f32(x).to_le_bytes())), want);
        let top = wide.map(|x| if x == f32::MAX { bf16::MAX.to_f32() } else { x });
        assert_eq!(counted(Dtype::BF16, &top.map(|x| bf16::from_f32(x).to_le_bytes())), want);
        assert_eq!(counted(Dtype::F8_E4M3, &[[0x7F], [0xFF], [0x7E], [0x78], [0]]), (2, 0));
        assert_eq!(counted(Dtype::F8_E5M2, &[[0x7C], [0xFC], [0x7D], [0xFF], [0x7B], [0]]), (2, 2));
        assert!(dense(Dtype::I64).is_none());
    }

    #[test]
    fn all_two_byte_patterns_agree_with_the_half_crate() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let brain = bf16::from_bits(bits);
            let bytes = [bits.to_le_bytes()];
            assert_eq!(counted(Dtype::F16, &bytes), (half.is_nan().into(), half.is_infinite().into()), "{bits:#x}");
            assert_eq!(counted(Dtype::BF16, &bytes), (brain.is_nan().into(), brain.is_infinite().into()), "{bits:#x}");
        }
    }

    /// A block with one of its bytes pairs set to a half-precision NaN: found where Candle's own block has its scale.
    #[test]
    fn scales_of_blocks_stand_where_candle_reads_them() {
        use candle_core::quantized::GgmlDType::{self, *};
        let kinds = [
            (BlockType::Q4_0, Q4_0),
            (BlockType::Q4_1, Q4_1),
            (BlockType::Q5_0, Q5_0),
            (BlockType::Q5_1, Q5_1),
            (BlockType::Q8_0, Q8_0),
            (BlockType::Q2K, Q2K),
            (BlockType::Q3K, Q3K),
            (BlockType::Q4K, Q4K),
            (BlockType::Q5K, Q5K),
            (BlockType::Q6K, Q6K),
            (BlockType::Q8K, Q8K),
        ];
        // Widens a block of zeros but for a NaN at `place`: with codes that are not zero, since 0 · NaN is NaN anyway.
        let widened = |kind: GgmlDType, bytes: &[u8]| -> Vec<f32> {
            let storage =
                candle_core::quantized::QStorage::from_data(bytes.to_vec().into(), &candle_core::Device::Cpu, kind);
            let tensor = candle_core::quantized::QTensor::new(storage.unwrap(), kind.block_size()).unwrap();
            tensor.dequantize(&candle_core::Device::Cpu).unwrap().to_vec1().unwrap()
        };
        for (kind, candle) in kinds {
            let layout = blocks(kind);
            assert_eq!(layout.unit, candle.type_size(), "{kind:?}");
            for place in (0..layout.unit - 1).step_by(2) {
                let mut block = vec![0; layout.unit];
                // A NaN in half precision, and the upper half of one in single precision.
                block[place..place + 2].copy_from_slice(&0x7FC0_u16.to_le_bytes());
                let ours = layout.count(&block) != (0, 0);
                let theirs = widened(candle, &block).iter().any(|value| value.is_nan());
                assert_eq!(ours, theirs, "{kind:?}: byte {place} of {}", layout.unit);
            }
        }
    }
}

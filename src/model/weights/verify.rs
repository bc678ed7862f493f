//! Reads every weight once and counts what is no number: NaN and infinity spread through a model and make all of it useless.
//! Knows bit patterns; builds nothing, and does not know what a tensor is for. Pages are given back as the reading goes on.

use rayon::prelude::*;
use safetensors::Dtype;

use super::safetensors::{Entry, SafetensorsFiles};
use super::{Store, WeightSource};

/// Bytes read between two reports of progress, in parallel pieces.
const WINDOW: usize = 64 << 20;
/// Bytes that a thread takes at once; a multiple of every element size.
const PIECE: usize = 1 << 20;

/// A tensor with elements that are no numbers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NonFinite {
    /// Hugging Face's name.
    pub name: String,
    /// Elements that are NaN.
    pub num_nan: u64,
    /// Elements that are infinite, of either sign.
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

impl WeightSource {
    /// The sums of the headers; zeros for random weights.
    pub fn inventory(&self) -> Inventory {
        let Store::Safetensors(files) = &self.store else { return Inventory::default() };
        let mut sum = Inventory { num_files: files.num_files() as u64, ..Inventory::default() };
        for (_, entry) in files.in_file_order() {
            sum.num_tensors += 1;
            sum.num_elements += entry.shape.iter().product::<usize>() as u64;
            sum.num_bytes += files.bytes(entry).len() as u64;
            *sum.dtypes.entry(format!("{:?}", entry.dtype)).or_default() += 1;
        }
        sum
    }

    /// Every tensor with a NaN or an infinity, in the order of the files. `progress` is told the bytes read since it was last
    /// called. Integers and formats without such values are passed over; random weights have none.
    pub fn non_finite(&self, mut progress: impl FnMut(u64)) -> Vec<NonFinite> {
        let Store::Safetensors(files) = &self.store else { return Vec::new() };
        let mut found = Vec::new();
        for (name, entry) in files.in_file_order() {
            let (num_nan, num_infinite) = count_in(files, entry, &mut progress);
            if num_nan + num_infinite > 0 {
                found.push(NonFinite { name: name.to_owned(), num_nan, num_infinite });
            }
        }
        found
    }
}

fn count_in(files: &SafetensorsFiles, entry: &Entry, progress: &mut impl FnMut(u64)) -> (u64, u64) {
    let bytes = files.bytes(entry);
    let mut sum = (0, 0);
    for (index, window) in bytes.chunks(WINDOW).enumerate() {
        if let Some(count) = counter(entry.dtype) {
            sum = add(sum, window.par_chunks(PIECE).map(count).reduce(|| (0, 0), add));
        }
        files.release_part(entry, index * WINDOW..index * WINDOW + window.len());
        progress(window.len() as u64);
    }
    sum
}

fn add(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 + b.0, a.1 + b.1)
}

/// NaNs and infinities among the elements of `bytes`.
type Counter = fn(&[u8]) -> (u64, u64);

/// The counter of an element type, where it can hold such values.
fn counter(dtype: Dtype) -> Option<Counter> {
    match dtype {
        Dtype::F64 => Some(|bytes| {
            count(bytes.as_chunks::<8>().0.iter().map(|b| class(u64::from_le_bytes(*b), 0x7FF0_0000_0000_0000)))
        }),
        Dtype::F32 => Some(|bytes| {
            count(bytes.as_chunks::<4>().0.iter().map(|b| class(u32::from_le_bytes(*b).into(), 0x7F80_0000)))
        }),
        Dtype::F16 => {
            Some(|bytes| count(bytes.as_chunks::<2>().0.iter().map(|b| class(u16::from_le_bytes(*b).into(), 0x7C00))))
        }
        Dtype::BF16 => {
            Some(|bytes| count(bytes.as_chunks::<2>().0.iter().map(|b| class(u16::from_le_bytes(*b).into(), 0x7F80))))
        }
        Dtype::F8_E5M2 => Some(|bytes| count(bytes.iter().map(|b| class((*b).into(), 0x7C)))),
        // No infinity; the one NaN per sign has all other bits set.
        Dtype::F8_E4M3 => Some(|bytes| count(bytes.iter().map(|b| (b & 0x7F == 0x7F, false)))),
        _ => None,
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

fn count(classes: impl Iterator<Item = (bool, bool)>) -> (u64, u64) {
    classes.fold((0, 0), |sum, (nan, infinite)| (sum.0 + u64::from(nan), sum.1 + u64::from(infinite)))
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    /// Values of a type with their bytes, and how many of them are NaN and infinite.
    fn counted<const N: usize>(dtype: Dtype, values: &[[u8; N]]) -> (u64, u64) {
        counter(dtype).unwrap()(values.as_flattened())
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
        assert!(counter(Dtype::I64).is_none());
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
}

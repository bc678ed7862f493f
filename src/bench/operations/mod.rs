//! Operations one by one, at shapes of their own: held against a reference first, then timed as shares of what the device can do.
//! Inputs are rows that repeat, so that a reference computes them once, however many the device gets.
//! Knows operations; knows no model.

mod paged;
mod products;
mod rows;
mod sampled;
mod timing;

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use crate::ops::linear::StoredFormat;
use crate::ops::paged::KvFormat;
use crate::ops::{BlockInputs, Compute, OpsPath, to_host};
pub use products::rows_are_alike;
pub use timing::Rate;

/// How large the cases are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// For checks alone: odd sizes and short ones.
    Small,
    /// For a processor's caches and memory.
    Processor,
    /// For a card that hides its launches behind much work, and whose cache should not hold it.
    Card,
}

/// How near to its reference a result has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// The same numbers.
    Exact,
    /// Off by what the formats round, in proportion to the result's largest number.
    Rounded,
}

/// An operation at one shape, for any device.
pub struct Case {
    /// The operation, as its file in `src/ops` is called.
    pub op: &'static str,
    /// Sizes, in the letters of the field.
    pub shape: String,
    /// How near it has to be.
    pub agreement: Agreement,
    /// How often its input repeats itself.
    copies: usize,
    /// What its matrices are rounded to.
    blocks: Option<GgmlDType>,
    build: Box<Build>,
}

/// Builds a case on a device, with its input repeated that often.
type Build = dyn Fn(&Compute, usize) -> Result<Prepared>;

/// An operation with its input on a device, to be run as often as one likes. The first result is the one to compare.
pub struct Prepared {
    /// Bytes read and written once.
    pub bytes: usize,
    /// Multiplications and additions.
    pub operations: usize,
    /// Whether it can be captured on a CUDA device: it copies nothing from the host and back.
    pub captures: bool,
    run: Box<dyn FnMut() -> Result<Tensor>>,
}

/// What a comparison gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// Largest difference, over the reference's largest number; NaN if a number is none or the sizes differ.
    pub error: f32,
    /// Largest one that is taken for rounding.
    pub allowed: f32,
}

impl Compared {
    /// Whether the error is allowed.
    pub fn is_close(&self) -> bool {
        self.error <= self.allowed
    }
}

/// All cases of a size. Matrices are of the compute's weight format.
pub fn cases(scale: Scale) -> Vec<Case> {
    let mut cases = products::cases(scale);
    cases.extend(rows::cases(scale));
    cases.extend(paged::cases(scale));
    cases.extend(sampled::cases(scale));
    cases
}

impl Case {
    fn new(
        op: &'static str,
        shape: String,
        copies: usize,
        build: impl Fn(&Compute, usize) -> Result<Prepared> + 'static,
    ) -> Self {
        Self { op, shape, agreement: Agreement::Rounded, copies, blocks: None, build: Box::new(build) }
    }

    /// The same with matrices in blocks, where a format is named.
    fn with_blocks(self, blocks: Option<GgmlDType>) -> Self {
        let name = blocks.map_or(String::new(), |blocks| format!(" {}", StoredFormat::from(blocks).name()));
        Self { shape: self.shape + &name, blocks, ..self }
    }

    fn exact(self) -> Self {
        Self { agreement: Agreement::Exact, ..self }
    }

    /// Builds the case on `compute` and compares its first result with that of `reference`.
    ///
    /// # Errors
    /// If a tensor operation fails on either.
    pub fn check(&self, compute: &Compute, reference: &Compute) -> Result<(Prepared, Compared)> {
        let in_blocks = |compute: &Compute| Compute { quantize: self.blocks.or(compute.quantize), ..compute.clone() };
        let compute = &in_blocks(compute);
        let want = to_host(&(self.build)(&in_blocks(reference), 1)?.run()?)?;
        let mut prepared = (self.build)(compute, self.copies)?;
        let got = to_host(&prepared.run()?)?;
        let allowed = match self.agreement {
            Agreement::Exact => 0.0,
            Agreement::Rounded => rounding(compute),
        };
        Ok((prepared, Compared { error: difference(&got, &want), allowed }))
    }
}

impl Prepared {
    fn new(bytes: usize, operations: usize, run: impl FnMut() -> Result<Tensor> + 'static) -> Self {
        Self { bytes, operations, captures: true, run: Box::new(run) }
    }

    /// Runs it once.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn run(&mut self) -> Result<Tensor> {
        (self.run)()
    }
}

/// Largest difference over the reference's largest number. `got` repeats `want` as often as it is longer.
fn difference(got: &[f32], want: &[f32]) -> f32 {
    if want.is_empty() || got.is_empty() || !got.len().is_multiple_of(want.len()) {
        return f32::NAN;
    }
    let largest = want.iter().fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
    let of_a_copy = |got: &[f32]| got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32_max);
    let copies = got.par_chunks(want.len()).map(of_a_copy);
    copies.reduce(|| 0.0, f32_max) / largest
}

/// The larger one; what is no number stays so.
fn f32_max(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// What an operation's result may be off by because of the formats: an operation rounds inputs and result by half of the format's
/// last place (2^-9 for bf16, 2^-12 for f16, 2^-4 for fp8) and attention its weights too; sums of f32 grow with the square root of their length.
fn rounding(compute: &Compute) -> f32 {
    let rounds_inputs = compute.path == OpsPath::Native && compute.block_inputs == BlockInputs::Int8;
    match compute.activation_dtype {
        _ if compute.fp8 || compute.kv_format == KvFormat::Fp8 => 0.12,
        DType::BF16 => 1.6e-2,
        DType::F16 => 2e-3,
        _ if compute.quantize.is_some() && rounds_inputs => 1e-2,
        _ => 2e-5,
    }
}

/// Multiples of 1/128 in [-1, 1): all formats of 16 bits hold them.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let number = |i: usize| (xxhash_rust::xxh3::xxh3_64_with_seed(&i.to_le_bytes(), seed) >> 56) as f32 / 128.0 - 1.0;
    (0..count).into_par_iter().map(number).collect()
}

/// The same numbers as `copies` times the same rows [rows, width], in the activations' format.
fn matrix(compute: &Compute, copies: usize, rows: usize, width: usize, seed: u64) -> Result<Tensor> {
    let rows = Tensor::from_vec(numbers(rows * width, seed), (rows, width), &compute.device)?;
    rows.to_dtype(compute.activation_dtype)?.repeat((copies, 1))?.contiguous()
}

/// Little-endian bytes of f32.
fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Bytes of an activation.
fn size(compute: &Compute) -> usize {
    compute.activation_dtype.size_in_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_found_in_any_copy_and_no_number_is_one() {
        assert_eq!(difference(&[1.0, -4.0, 1.0, -4.0], &[1.0, -4.0]), 0.0);
        assert_eq!(difference(&[1.0, -4.0, 1.5, -4.0], &[1.0, -4.0]), 0.125);
        assert!(difference(&[1.0, f32::NAN, 1.0, -4.0], &[1.0, -4.0]).is_nan());
        assert!(difference(&[1.0, 2.0, 3.0], &[1.0, 2.0]).is_nan());
        assert!(!Compared { error: f32::NAN, allowed: 1.0 }.is_close());
    }

    #[test]
    fn every_case_agrees_with_candle_operations_on_this_processor() {
        for case in cases(Scale::Small) {
            let (mut prepared, compared) = case.check(&Compute::cpu(), &Compute::cpu().portable()).unwrap();
            assert!(compared.is_close(), "{} {}: {compared:?}", case.op, case.shape);
            assert!(prepared.bytes > 0 && prepared.run().is_ok(), "{} {}", case.op, case.shape);
        }
    }
}

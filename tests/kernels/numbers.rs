//! The number formats that kernels come in, streams of random numbers, and how near two rows of numbers are.
//! Knows numbers; knows no kernel.

use half::{bf16, f16};

use super::machine::Number;

/// A format that activations have on the device.
pub trait Format: Number + PartialEq + std::fmt::Debug {
    /// As kernels' names end.
    const NAME: &'static str;
    /// Half the distance of neighbours, relative: what one rounding may change; for f32 what the order of a sum may, too.
    const STEP: f32;
    fn rounded(value: f32) -> Self;
    fn wide(self) -> f32;
}
impl Format for f32 {
    const NAME: &'static str = "f32";
    const STEP: f32 = 2e-6;
    fn rounded(value: f32) -> Self {
        value
    }
    fn wide(self) -> f32 {
        self
    }
}
impl Format for f16 {
    const NAME: &'static str = "f16";
    const STEP: f32 = 1.0 / 2048.0 + 2e-6;
    fn rounded(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn wide(self) -> f32 {
        self.to_f32()
    }
}
impl Format for bf16 {
    const NAME: &'static str = "bf16";
    const STEP: f32 = 1.0 / 256.0 + 2e-6;
    fn rounded(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn wide(self) -> f32 {
        self.to_f32()
    }
}

/// In f32.
pub fn wide<T: Format>(values: &[T]) -> Vec<f32> {
    values.iter().map(|value| value.wide()).collect()
}

/// Room for results, filled with what a kernel should not leave there.
pub fn unwritten<T: Format>(count: usize) -> Vec<T> {
    vec![T::rounded(f32::NAN); count]
}

/// A stream of numbers that a seed fixes: SplitMix64 (Steele, Lea & Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// Uniform in (-spread, spread), rounded to the format.
    pub fn numbers<T: Format>(&mut self, count: usize, spread: f32) -> Vec<T> {
        let unit = |bits: u64| (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        (0..count).map(|_| T::rounded(spread * unit(self.bits()))).collect()
    }
}

/// Asserts that each number is within `tolerance` times (its size + `floor`) of what is wanted.
pub fn assert_near<T: Format>(got: &[T], want: &[f32], tolerance: f32, floor: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let error = |(got, want): (&T, &f32)| (got.wide() - want).abs() / (want.abs() + floor);
    let errors: Vec<f32> = got.iter().zip(want).map(error).collect();
    let (worst, error) = errors.iter().enumerate().fold((0, 0.0), |worst: (usize, f32), (index, &error)| {
        if error > worst.1 || error.is_nan() { (index, error) } else { worst }
    });
    if std::env::var_os("PAIRWRIGHT_SHOW_ERRORS").is_some() {
        println!("{what}: {error:e} of {tolerance:e}");
    }
    assert!(
        errors.iter().all(|&error| error <= tolerance),
        "{what} {}: element {worst} is {:?}, want {}, error {error:e}",
        T::NAME,
        got[worst],
        want[worst]
    );
}

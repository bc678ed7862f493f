//! Numbers of 8 bits with 4 of exponent (e4m3; Micikevicius et al. 2022, arXiv 2209.05433), found by trying them all, and what a
//! cache's formats have in common. Knows numbers; knows no kernel.

use half::{bf16, f16};

use super::machine::Number;
use super::numbers::Format;

/// A format of cached keys and values.
pub trait Stored: Number + PartialEq + std::fmt::Debug {
    /// What the names of kernels that write it end with.
    const SUFFIX: &'static str;
    fn of(value: f32) -> Self;
}
impl Stored for f32 {
    const SUFFIX: &'static str = "";
    fn of(value: f32) -> Self {
        value
    }
}
impl Stored for f16 {
    const SUFFIX: &'static str = "";
    fn of(value: f32) -> Self {
        Self::rounded(value)
    }
}
impl Stored for bf16 {
    const SUFFIX: &'static str = "";
    fn of(value: f32) -> Self {
        Self::rounded(value)
    }
}
impl Stored for Fp8 {
    const SUFFIX: &'static str = "_fp8";
    fn of(value: f32) -> Self {
        Self::nearest(value)
    }
}

/// A sign, 4 bits of exponent, 3 of fraction.
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(transparent)]
pub struct Fp8(pub u8);
impl Number for Fp8 {}

impl Fp8 {
    /// The largest number.
    pub const MAX: f32 = 448.0;

    pub fn wide(self) -> f32 {
        let (exponent, fraction) = (i32::from(self.0 >> 3 & 15), f32::from(self.0 & 7));
        let size = match exponent {
            15 if fraction == 7.0 => f32::NAN,
            0 => fraction * 2f32.powi(-9),
            _ => (8.0 + fraction) * 2f32.powi(exponent - 10),
        };
        if self.0 & 0x80 == 0 { size } else { -size }
    }

    /// The nearest number, the even one of two; the largest for what lies beyond.
    pub fn nearest(value: f32) -> Self {
        let sign = if value.is_sign_negative() { 0x80 } else { 0 };
        let size = f64::from(value.abs().min(Self::MAX));
        let distance = |bits: u8| (f64::from(Self(bits).wide()) - size).abs();
        let best = (0..0x7f).min_by(|&a, &b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1))));
        Self(sign | best.unwrap())
    }
}

//! Which vector instructions this processor has, and the arithmetic written once for all of them.
//! Every function here gives the same bits on every instruction set: one fused multiply-add chain per output element,
//! sixteen fixed lanes for reductions. Knows nothing of tensors, models or threads.

/// Instruction sets the CPU kernels are compiled for, chosen at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512F with VL/DQ/BW.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON, which all 64-bit ARM processors but a few have.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Whatever the compilation target has.
    Portable,
}

impl Isa {
    /// The best instruction set of this processor. Cheap: the standard library keeps the answer.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("fma")
            {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                return Self::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            return Self::Neon;
        }
        Self::Portable
    }

    /// Short name for reports, for example `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }
}

/// Code that [`dispatch`] compiles once per instruction set. `run` must be `#[inline(always)]`, as must what it calls.
pub trait Vectorised {
    /// What `run` returns.
    type Output;
    /// The work itself, written as plain loops over fixed-width arrays.
    fn run(self) -> Self::Output;
}

/// Runs `work` compiled for the best instruction set of this processor.
#[inline]
pub fn dispatch<W: Vectorised>(work: W) -> W::Output {
    match Isa::detect() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `detect` found every feature that the callee enables.
        Isa::Avx512 => unsafe { run_avx512(work) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { run_avx2(work) },
        // The compiler uses NEON wherever there is one.
        _ => work.run(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c,bmi2")]
// SAFETY: callers have detected these features.
unsafe fn run_avx512<W: Vectorised>(work: W) -> W::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
// SAFETY: callers have detected these features.
unsafe fn run_avx2<W: Vectorised>(work: W) -> W::Output {
    work.run()
}

/// Lanes of every reduction: fixed, so that a sum has one order on all processors.
pub const LANES: usize = 16;

/// Sum of sixteen partial sums, in a fixed tree order.
#[inline(always)]
pub fn reduce_add(lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    let mut part = lanes;
    while width > 0 {
        for lane in 0..width {
            part[lane] += part[lane + width];
        }
        width /= 2;
    }
    part[0]
}

/// Sum of `x`, lane by lane.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| *lane += value);
    }
    lanes.iter_mut().zip(tail).for_each(|(lane, &value)| *lane += value);
    reduce_add(lanes)
}

/// Sum of squares of `x`, lane by lane.
#[inline(always)]
pub fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = value.mul_add(value, *lane);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(tail) {
        *lane = value.mul_add(value, *lane);
    }
    reduce_add(lanes)
}

/// Largest element, negative infinity for an empty slice. NaN is skipped.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(tail) {
        *lane = if value > *lane { value } else { *lane };
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, |best, lane| if lane > best { lane } else { best })
}

/// Replaces each `x` by `exp(x - shift)` and returns the sum. Negative infinity gives exactly 0.
#[inline(always)]
pub fn exp_shifted_sum(x: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *value = exp(*value - shift);
            *lane += *value;
        }
    }
    for (lane, value) in lanes.iter_mut().zip(tail) {
        *value = exp(*value - shift);
        *lane += *value;
    }
    reduce_add(lanes)
}

/// e^x to about 2 units in the last place; exactly 0 below -87, infinity above 88.7. Polynomial and constants: Cephes `expf`
/// (S. Moshier, public domain), evaluated with fused multiply-adds.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let bounded = x.clamp(-87.0, 88.72);
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let shifted = bounded.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, bounded);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_2e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let y = (r * r).mul_add(p, r) + 1.0;
    // The integer stands in the low bits of the shifted sum. In two steps, since 2^128 is not a number although 2^127 * y may be.
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = exponent >> 1;
    let power = |exponent: i32| f32::from_bits((exponent.wrapping_add(127) as u32) << 23);
    let scaled = y * power(half) * power(exponent.wrapping_sub(half));
    if x < -87.0 {
        0.0
    } else if x > 88.72 {
        f32::INFINITY
    } else {
        scaled
    }
}

/// Hyperbolic tangent, to about 1e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// x * sigmoid(x * steepness).
#[inline(always)]
pub fn swish(x: f32, steepness: f32) -> f32 {
    x / (1.0 + exp(-steepness * x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_over_the_whole_range() {
        let mut x = -87.0f32;
        while x < 88.7 {
            let want = f64::from(x).exp();
            let relative = (f64::from(exp(x)) - want).abs() / want;
            assert!(relative < 3e-7, "exp({x}) off by {relative}");
            x += 0.0137;
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
    }

    struct Sum<'a>(&'a [f32]);
    impl Vectorised for Sum<'_> {
        type Output = (f32, f32);
        #[inline(always)]
        fn run(self) -> (f32, f32) {
            let mut copy = self.0.to_vec();
            (sum_of_squares(self.0), exp_shifted_sum(&mut copy, 1.5))
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let x: Vec<f32> = (0..1003).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.031).collect();
        let plain = Sum(&x).run();
        let fast = dispatch(Sum(&x));
        assert_eq!(plain.0.to_bits(), fast.0.to_bits());
        assert_eq!(plain.1.to_bits(), fast.1.to_bits());
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            // SAFETY: the features were detected on the line above.
            let avx2 = unsafe { run_avx2(Sum(&x)) };
            assert_eq!(plain.0.to_bits(), avx2.0.to_bits());
            assert_eq!(plain.1.to_bits(), avx2.1.to_bits());
        }
    }
}

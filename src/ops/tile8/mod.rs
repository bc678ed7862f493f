//! The product kernel of matrices in blocks whose activations are rounded to 8 bits: a tile of C from unsigned 8-bit weights and
//! signed 8-bit activations. Products of 16 or 32 consecutive k are summed as integers, exactly, and each sum goes into its
//! output by one fused multiply-add in the order of k: the same bits on every instruction set, whatever the batch.
//! Knows raw pointers and layouts; knows nothing of block formats or tensors.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::packing::Fetch;
use super::rounded::{GROUP, SUB_GROUP};
use super::tile::{MAX_ROWS, PANEL};

/// How a chunk's weights come from its quants: weight = scale * (quant - zero) - min.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantKind {
    /// Taken off every quant.
    pub zero: u8,
    /// Consecutive k that share a scale: 16 or 32.
    pub sub_group: usize,
    /// Whether there are mins; only with groups of 32.
    pub has_mins: bool,
}

/// One tile: C[rows, 32] += A B over `groups` groups of 32 k, in scratch of the caller's.
#[derive(Debug, Clone, Copy)]
pub struct Tile8<'a> {
    /// Rows of A and C, 1 to 12.
    pub rows: usize,
    /// Activations [groups * 8, rows], in fours.
    pub a: &'a [[i8; 4]],
    /// [groups, rows]
    pub a_scales: &'a [f32],
    /// [groups * 2, rows] sums of 16 quants.
    pub a_sums: &'a [i32],
    /// [groups, rows] sums of 32 quants times their scale.
    pub a_scaled_sums: &'a [f32],
    /// Weights' quants [groups * 8, 32, 4].
    pub b: &'a [u8],
    /// [groups * 32 / sub_group, 32]
    pub b_scales: &'a [f32],
    /// [groups, 32], or empty.
    pub b_mins: &'a [f32],
    /// How they are meant.
    pub kind: QuantKind,
    /// What is needed next.
    pub next: Fetch,
}

/// The outputs of one tile while groups are added.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Sums(pub [[f32; PANEL]; MAX_ROWS]);

/// Instruction sets of this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegerIsa {
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON with four products at once (ARMv8.2 DotProd).
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    /// NEON without these.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Whatever the compilation target has.
    Portable,
}

impl IntegerIsa {
    /// The best one of this processor. Cheap: the standard library keeps the answer.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512vnni") && super::simd::Isa::detect() == super::simd::Isa::Avx512 {
                return Self::Avx512Vnni;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                return Self::NeonDot;
            }
            if std::arch::is_aarch64_feature_detected!("neon") {
                return Self::Neon;
            }
        }
        Self::Portable
    }
}

impl Tile8<'_> {
    /// Adds the tile to the first `rows` rows of `sums`. `isa` is one that [`IntegerIsa::detect`] would allow.
    pub fn run(self, isa: IntegerIsa, sums: &mut Sums) {
        let groups = self.b.len() / (GROUP * PANEL);
        let Self { rows, kind, .. } = self;
        assert!(
            (1..=MAX_ROWS).contains(&rows)
                && self.b.len() == groups * GROUP * PANEL
                && self.a.len() >= groups * GROUP / 4 * rows
                && self.a_scales.len() >= groups * rows
                && self.a_sums.len() >= 2 * groups * rows
                && self.a_scaled_sums.len() >= groups * rows
                && self.b_scales.len() >= groups * (GROUP / kind.sub_group) * PANEL
                && (kind.sub_group == GROUP || (kind.sub_group == SUB_GROUP && !kind.has_mins))
                && (!kind.has_mins || self.b_mins.len() >= groups * PANEL),
            "a tile whose parts do not fit each other"
        );
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: sizes are checked above; the caller's `isa` is one of this processor's.
            IntegerIsa::Avx512Vnni => unsafe { self.vnni(groups, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            IntegerIsa::Avx2 => unsafe { self.avx2(groups, sums) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            IntegerIsa::NeonDot => unsafe { self.neon::<true>(groups, sums) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            IntegerIsa::Neon => unsafe { self.neon::<false>(groups, sums) },
            _ => self.portable(groups, sums),
        }
    }

    /// Sum of products of a run of k from fours `fours` on, for one row and all columns.
    #[inline(always)]
    fn integer_sums(&self, row: usize, fours: std::ops::Range<usize>) -> [i32; PANEL] {
        let mut acc = [0i32; PANEL];
        for four in fours {
            let a = &self.a[four * self.rows + row];
            let b = &self.b[four * PANEL * 4..][..PANEL * 4];
            for (acc, b) in acc.iter_mut().zip(b.as_chunks::<4>().0) {
                for (&a, &b) in a.iter().zip(b) {
                    *acc += i32::from(a) * i32::from(b);
                }
            }
        }
        acc
    }

    /// The definition of the tile, and its form for every other processor.
    fn portable(self, groups: usize, sums: &mut Sums) {
        let QuantKind { zero, sub_group, has_mins } = self.kind;
        let (rows, subs, fours) = (self.rows, GROUP / sub_group, sub_group / 4);
        for group in 0..groups {
            for row in 0..rows {
                let out = &mut sums.0[row];
                let scale = self.a_scales[group * rows + row];
                for sub in group * subs..(group + 1) * subs {
                    let integers = self.integer_sums(row, sub * fours..(sub + 1) * fours);
                    let taken_off = i32::from(zero) * self.sum_of(sub * sub_group, sub_group, row);
                    let scales = &self.b_scales[sub * PANEL..][..PANEL];
                    for ((out, integer), &b_scale) in out.iter_mut().zip(integers).zip(scales) {
                        *out = ((integer - taken_off) as f32).mul_add(b_scale * scale, *out);
                    }
                }
                if has_mins {
                    let factor = -self.a_scaled_sums[group * rows + row];
                    for (out, &min) in out.iter_mut().zip(&self.b_mins[group * PANEL..][..PANEL]) {
                        *out = factor.mul_add(min, *out);
                    }
                }
            }
        }
    }

    /// Sum of a row's quants of `len` k from `first` on, 16 or 32.
    #[inline(always)]
    fn sum_of(&self, first: usize, len: usize, row: usize) -> i32 {
        let at = |run: usize| self.a_sums[run * self.rows + row];
        let first = first / SUB_GROUP;
        if len == GROUP { at(first) + at(first + 1) } else { at(first) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::rounded::tests::rounded;

    /// Every kind of quants: those of q8_0, q4_0, q4k and q6k.
    const KINDS: [(QuantKind, u8); 4] = [
        (QuantKind { zero: 128, sub_group: 32, has_mins: false }, 255),
        (QuantKind { zero: 8, sub_group: 32, has_mins: false }, 15),
        (QuantKind { zero: 0, sub_group: 32, has_mins: true }, 15),
        (QuantKind { zero: 32, sub_group: 16, has_mins: false }, 63),
    ];

    #[test]
    fn every_kernel_gives_the_bits_of_the_definition() {
        let mut state = 7u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let isas = match IntegerIsa::detect() {
            #[cfg(target_arch = "x86_64")]
            IntegerIsa::Avx512Vnni => vec![IntegerIsa::Avx512Vnni, IntegerIsa::Avx2],
            #[cfg(target_arch = "aarch64")]
            IntegerIsa::NeonDot => vec![IntegerIsa::NeonDot, IntegerIsa::Neon],
            best => vec![best],
        };
        for (kind, most) in KINDS {
            for rows in 1..=MAX_ROWS {
                let (groups, k) = (3, 96);
                // Rows at the ends of the range, where 16 bits would overflow, and rows of everything.
                let x: Vec<f32> = (0..rows * k)
                    .map(|i| if i / k == 0 { 1.0 - 2.0 * (i % 2) as f32 } else { random() as f32 / 1e9 - 1.0 })
                    .collect();
                let x = rounded(&x, k);
                let b: Vec<u8> = (0..groups * GROUP * PANEL)
                    .map(|i| {
                        if i % PANEL == 0 { most * (i % 3 > 0) as u8 } else { (random() % (u64::from(most) + 1)) as u8 }
                    })
                    .collect();
                let mut numbers = |count: usize| (0..count).map(|_| random() as f32 / 1e9).collect::<Vec<f32>>();
                let b_scales = numbers(groups * 2 * PANEL);
                let b_mins = numbers(groups * PANEL);
                let tile = Tile8 {
                    rows,
                    a: &x.quants,
                    a_scales: &x.scales,
                    a_sums: &x.sums,
                    a_scaled_sums: &x.scaled_sums,
                    b: &b,
                    b_scales: &b_scales,
                    b_mins: &b_mins,
                    kind,
                    next: Fetch::part(b.as_ptr(), b.len(), 0, 1),
                };
                let start = Sums([[0.25; PANEL]; MAX_ROWS]);
                let mut want = start.clone();
                tile.run(IntegerIsa::Portable, &mut want);
                for &isa in &isas {
                    let mut got = start.clone();
                    tile.run(isa, &mut got);
                    assert_eq!(got.0, want.0, "{kind:?}, {rows} rows on {isa:?}");
                }
            }
        }
    }
}

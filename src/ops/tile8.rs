//! The product kernel of matrices in blocks whose activations are rounded to 8 bits: a tile of C from unsigned 8-bit weights and
//! signed 8-bit activations. Products of 16 or 32 consecutive k are summed as integers, exactly, and each sum goes into its
//! output by one fused multiply-add in the order of k: the same bits on every instruction set, whatever the batch.
//! Knows raw pointers and layouts; knows nothing of block formats or tensors.

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
    Avx512Vnni,
    /// AVX2 with FMA.
    Avx2,
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

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
impl Tile8<'_> {
    // SAFETY: called by `run`, which has checked all sizes, with the instructions of this processor.
    unsafe fn vnni(self, groups: usize, sums: &mut Sums) {
        macro_rules! by_rows {
            ($($rows:literal)*) => {
                match (self.rows, self.kind.sub_group, self.kind.has_mins) {
                    // SAFETY: as of this function.
                    $(($rows, GROUP, false) => unsafe { kernel_vnni::<$rows, 1, false>(self, groups, sums) },)*
                    // SAFETY: as of this function.
                    $(($rows, GROUP, true) => unsafe { kernel_vnni::<$rows, 1, true>(self, groups, sums) },)*
                    // SAFETY: as of this function.
                    $(($rows, _, _) => unsafe { kernel_vnni::<$rows, 2, false>(self, groups, sums) },)*
                    _ => self.portable(groups, sums),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
    }

    // SAFETY: called by `run`, which has checked all sizes, with the instructions of this processor.
    unsafe fn avx2(self, groups: usize, sums: &mut Sums) {
        // SAFETY: as of this function.
        unsafe {
            match (self.kind.zero == 128, self.kind.sub_group) {
                (true, GROUP) => kernel_avx2::<true, 1>(self, groups, sums),
                (true, _) => kernel_avx2::<true, 2>(self, groups, sums),
                (false, GROUP) => kernel_avx2::<false, 1>(self, groups, sums),
                (false, _) => kernel_avx2::<false, 2>(self, groups, sums),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2,fma")]
// SAFETY: called by `Tile8::vnni` alone; all reads lie within the tile's slices, whose sizes `Tile8::run` has checked.
unsafe fn kernel_vnni<const ROWS: usize, const SUBS: usize, const MINS: bool>(
    tile: Tile8<'_>,
    groups: usize,
    sums: &mut Sums,
) {
    // SAFETY: see above; `sums` has 12 rows of 32.
    unsafe {
        let (mut a, mut b) = (tile.a.as_ptr(), tile.b.as_ptr());
        let zero = i32::from(tile.kind.zero);
        let sums = sums.0.as_mut_ptr().cast::<f32>();
        let lines_per_group = tile.next.lines.div_ceil(groups.max(1));
        for group in 0..groups {
            for line in 0..lines_per_group {
                let at = tile.next.start.wrapping_add(64 * (group * lines_per_group + line));
                _mm_prefetch::<_MM_HINT_T1>(at.cast());
            }
            let a_scales = tile.a_scales.as_ptr().add(group * ROWS);
            let mut halves = [[0i32; ROWS]; 2];
            for (half, values) in halves.iter_mut().enumerate() {
                for (row, value) in values.iter_mut().enumerate() {
                    *value = *tile.a_sums.as_ptr().add((2 * group + half) * ROWS + row);
                }
            }
            for sub in 0..SUBS {
                // Starting below zero by what the quants' zero adds saves a subtraction per output.
                let mut acc = [[_mm512_setzero_si512(); 2]; ROWS];
                for (row, acc) in acc.iter_mut().enumerate() {
                    let sum = if SUBS == 1 { halves[0][row] + halves[1][row] } else { halves[sub][row] };
                    *acc = [_mm512_set1_epi32(-zero * sum); 2];
                }
                for _ in 0..8 / SUBS {
                    let left = _mm512_loadu_si512(b.cast());
                    let right = _mm512_loadu_si512(b.add(64).cast());
                    for (row, acc) in acc.iter_mut().enumerate() {
                        let four = _mm512_set1_epi32(i32::from_le_bytes((*a.add(row)).map(|quant| quant as u8)));
                        acc[0] = _mm512_dpbusd_epi32(acc[0], left, four);
                        acc[1] = _mm512_dpbusd_epi32(acc[1], right, four);
                    }
                    a = a.add(ROWS);
                    b = b.add(4 * PANEL);
                }
                let scales = tile.b_scales.as_ptr().add((group * SUBS + sub) * PANEL);
                let scales = [_mm512_loadu_ps(scales), _mm512_loadu_ps(scales.add(16))];
                let mins = match MINS {
                    true => tile.b_mins.as_ptr().add(group * PANEL),
                    false => tile.b_scales.as_ptr(),
                };
                let mins = [_mm512_loadu_ps(mins), _mm512_loadu_ps(mins.add(16))];
                for (row, acc) in acc.iter().enumerate() {
                    let scale = _mm512_set1_ps(*a_scales.add(row));
                    let sum = _mm512_set1_ps(*tile.a_scaled_sums.as_ptr().add(group * ROWS + row));
                    for (vector, &acc) in acc.iter().enumerate() {
                        let at = sums.add(row * PANEL + 16 * vector);
                        let both = _mm512_mul_ps(scales[vector], scale);
                        let mut out = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc), both, _mm512_loadu_ps(at));
                        if MINS {
                            out = _mm512_fnmadd_ps(sum, mins[vector], out);
                        }
                        _mm512_storeu_ps(at, out);
                    }
                }
            }
        }
    }
}

/// `BYTES`: quants are 8 bits with zero at 128, which as they are would overflow the 16 bits that two products are summed in; they
/// are taken as signed, and each product as that of |weight| and the activation with the weight's sign.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
// SAFETY: called by `Tile8::avx2` alone; all reads lie within the tile's slices, whose sizes `Tile8::run` has checked.
unsafe fn kernel_avx2<const BYTES: bool, const SUBS: usize>(tile: Tile8<'_>, groups: usize, sums: &mut Sums) {
    // SAFETY: see above; `sums` has 12 rows of 32.
    unsafe {
        let rows = tile.rows;
        let zero = if BYTES { 0 } else { i32::from(tile.kind.zero) };
        let (ones, sign_bits) = (_mm256_set1_epi16(1), _mm256_set1_epi8(-128));
        for group in 0..groups {
            for row in 0..rows {
                let scale = _mm256_set1_ps(*tile.a_scales.as_ptr().add(group * rows + row));
                let out = sums.0[row].as_mut_ptr();
                for sub in group * SUBS..(group + 1) * SUBS {
                    let sum = tile.sum_of(sub * GROUP / SUBS, GROUP / SUBS, row);
                    let mut acc = [_mm256_set1_epi32(-zero * sum); 4];
                    for four in sub * 8 / SUBS..(sub + 1) * 8 / SUBS {
                        let a = (*tile.a.as_ptr().add(four * rows + row)).map(|quant| quant as u8);
                        let a = _mm256_set1_epi32(i32::from_le_bytes(a));
                        let b = tile.b.as_ptr().add(four * PANEL * 4);
                        for (vector, acc) in acc.iter_mut().enumerate() {
                            let b = _mm256_loadu_si256(b.add(32 * vector).cast());
                            let pairs = if BYTES {
                                let b = _mm256_xor_si256(b, sign_bits);
                                _mm256_maddubs_epi16(_mm256_abs_epi8(b), _mm256_sign_epi8(a, b))
                            } else {
                                _mm256_maddubs_epi16(b, a)
                            };
                            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(pairs, ones));
                        }
                    }
                    let scales = tile.b_scales.as_ptr().add(sub * PANEL);
                    for (vector, &acc) in acc.iter().enumerate() {
                        let both = _mm256_mul_ps(_mm256_loadu_ps(scales.add(8 * vector)), scale);
                        let out = out.add(8 * vector);
                        _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc), both, _mm256_loadu_ps(out)));
                    }
                }
                if tile.kind.has_mins {
                    let factor = _mm256_set1_ps(-*tile.a_scaled_sums.as_ptr().add(group * rows + row));
                    for vector in 0..4 {
                        let min = _mm256_loadu_ps(tile.b_mins.as_ptr().add(group * PANEL + 8 * vector));
                        let out = out.add(8 * vector);
                        _mm256_storeu_ps(out, _mm256_fmadd_ps(factor, min, _mm256_loadu_ps(out)));
                    }
                }
            }
        }
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
        let best = IntegerIsa::detect();
        let isas: &[IntegerIsa] = match best {
            IntegerIsa::Avx512Vnni => &[IntegerIsa::Avx512Vnni, IntegerIsa::Avx2],
            IntegerIsa::Avx2 => &[IntegerIsa::Avx2],
            IntegerIsa::Portable => &[],
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
                for &isa in isas {
                    let mut got = start.clone();
                    tile.run(isa, &mut got);
                    assert_eq!(got.0, want.0, "{kind:?}, {rows} rows on {isa:?}");
                }
            }
        }
    }
}

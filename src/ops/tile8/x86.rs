//! The 8-bit product kernel on x86-64: AVX-512 with VNNI, and AVX2. Knows registers; what is computed stands in `mod.rs`.

use std::arch::x86_64::*;

use super::super::packing::prefetch;
use super::{GROUP, PANEL, Sums, Tile8};

impl Tile8<'_> {
    // SAFETY: called by `run`, which has checked all sizes, with the instructions of this processor.
    pub(super) unsafe fn vnni(self, groups: usize, sums: &mut Sums) {
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
    pub(super) unsafe fn avx2(self, groups: usize, sums: &mut Sums) {
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
                prefetch(at);
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
                        let four = _mm512_set1_epi32(a.add(row).cast::<i32>().read_unaligned());
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
                        let a = tile.a.as_ptr().add(four * rows + row).cast::<i32>();
                        let a = _mm256_set1_epi32(a.read_unaligned());
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

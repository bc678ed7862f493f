//! The 8-bit product kernel on 64-bit ARM: NEON, with the DotProd instructions or without. Knows registers; what is computed stands
//! in `mod.rs`.

use std::arch::aarch64::*;

use super::super::packing::prefetch;
use super::{GROUP, PANEL, Sums, Tile8};

/// Vectors of four columns in half a panel: with four rows they are 16 registers of sums.
const VECTORS: usize = PANEL / 8;
/// Rows of a pass.
const ROWS: usize = 4;

impl Tile8<'_> {
    // SAFETY: called by `run`, which has checked all sizes, with `DOT` only where this processor has it.
    pub(super) unsafe fn neon<const DOT: bool>(self, groups: usize, sums: &mut Sums) {
        macro_rules! by_rows {
            ($first:expr, $($rows:literal)*) => {
                match ((self.rows - $first).min(ROWS), self.kind.zero == 128) {
                    // SAFETY: as of this function.
                    $(($rows, true) => unsafe { kernel::<DOT, true, $rows>(self, $first, groups, sums) },)*
                    // SAFETY: as of this function.
                    $(($rows, _) => unsafe { kernel::<DOT, false, $rows>(self, $first, groups, sums) },)*
                    _ => {}
                }
            };
        }
        for first in (0..self.rows).step_by(ROWS) {
            by_rows!(first, 1 2 3 4);
        }
    }
}

/// acc + the products of four columns' fours of weights with a row's four, both signed.
#[inline(always)]
// SAFETY: `DOT` only where the processor has these instructions.
unsafe fn dot<const DOT: bool>(acc: int32x4_t, weights: int8x16_t, four: int8x16_t) -> int32x4_t {
    if DOT {
        let mut acc = acc;
        // SAFETY: the caller's contract; the instruction touches nothing else.
        unsafe {
            std::arch::asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc,
                in(vreg) weights, in(vreg) four, options(pure, nomem, nostack, preserves_flags));
        }
        return acc;
    }
    // SAFETY: instructions of every 64-bit ARM processor. Two products of numbers above -128 and -127 fit 16 bits.
    unsafe {
        let low = vmull_s8(vget_low_s8(weights), vget_low_s8(four));
        vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(weights, four)))
    }
}

/// Rows `first..first + COUNT`. `BYTES`: quants are 8 bits with zero at 128 and are taken as signed with zero at 0; others fit 7 bits.
// SAFETY: called by `Tile8::neon` alone; all reads lie within the tile's slices, whose sizes `Tile8::run` has checked.
unsafe fn kernel<const DOT: bool, const BYTES: bool, const COUNT: usize>(
    tile: Tile8<'_>,
    first: usize,
    groups: usize,
    sums: &mut Sums,
) {
    // SAFETY: see above; `sums` has 12 rows of 32.
    unsafe {
        let (rows, subs) = (tile.rows, GROUP / tile.kind.sub_group);
        let zero = if BYTES { 0 } else { i32::from(tile.kind.zero) };
        let sign_bits = vdupq_n_u8(128);
        let fetched_per_group = if first == 0 { tile.next.lines.div_ceil(groups.max(1)) } else { 0 };
        for group in 0..groups {
            for line in group * fetched_per_group..(group + 1) * fetched_per_group {
                prefetch(tile.next.start.wrapping_add(64 * line));
            }
            for sub in group * subs..(group + 1) * subs {
                for half in 0..2 {
                    let mut acc = [[vdupq_n_s32(0); VECTORS]; COUNT];
                    for (row, acc) in acc.iter_mut().enumerate() {
                        // Starting below zero by what the quants' zero adds saves a subtraction per output.
                        let sum = tile.sum_of(sub * tile.kind.sub_group, tile.kind.sub_group, first + row);
                        *acc = [vdupq_n_s32(-zero * sum); VECTORS];
                    }
                    for four in sub * 8 / subs..(sub + 1) * 8 / subs {
                        let a = tile.a.as_ptr().add(four * rows + first).cast::<i32>();
                        let b = tile.b.as_ptr().add((four * 2 + half) * PANEL * 2);
                        let mut weights = [vdupq_n_s8(0); VECTORS];
                        for (vector, weights) in weights.iter_mut().enumerate() {
                            let quants = vld1q_u8(b.add(16 * vector));
                            *weights = vreinterpretq_s8_u8(if BYTES { veorq_u8(quants, sign_bits) } else { quants });
                        }
                        for (row, acc) in acc.iter_mut().enumerate() {
                            let quants = vreinterpretq_s8_s32(vdupq_n_s32(a.add(row).read_unaligned()));
                            for (acc, &weights) in acc.iter_mut().zip(&weights) {
                                *acc = dot::<DOT>(*acc, weights, quants);
                            }
                        }
                    }
                    let scales = tile.b_scales.as_ptr().add(sub * PANEL + half * PANEL / 2);
                    for (row, acc) in acc.iter().enumerate() {
                        let scale = vdupq_n_f32(tile.a_scales[group * rows + first + row]);
                        let out = sums.0[first + row].as_mut_ptr().add(half * PANEL / 2);
                        for (vector, &acc) in acc.iter().enumerate() {
                            let both = vmulq_f32(vld1q_f32(scales.add(4 * vector)), scale);
                            let out = out.add(4 * vector);
                            vst1q_f32(out, vfmaq_f32(vld1q_f32(out), vcvtq_f32_s32(acc), both));
                        }
                    }
                }
            }
            if tile.kind.has_mins {
                for row in first..first + COUNT {
                    let factor = vdupq_n_f32(-tile.a_scaled_sums[group * rows + row]);
                    for vector in 0..PANEL / 4 {
                        let min = vld1q_f32(tile.b_mins.as_ptr().add(group * PANEL + 4 * vector));
                        let out = sums.0[row].as_mut_ptr().add(4 * vector);
                        vst1q_f32(out, vfmaq_f32(vld1q_f32(out), factor, min));
                    }
                }
            }
        }
    }
}

//! The f32 product kernel on 64-bit ARM: NEON. Knows registers; what is computed stands in `mod.rs`.

use std::arch::aarch64::*;

use half::{bf16, f16};

use super::super::packing::{Fetch, prefetch};
use super::{Element, Start, Tile};

/// Columns of a pass: with them six rows fill 24 of 32 registers with sums and four with B.
const COLUMNS: usize = 16;
/// Vectors of four in them.
const VECTORS: usize = COLUMNS / 4;

/// How elements come into registers.
pub trait Load: Sized {
    /// Loads 4 elements as f32.
    /// # Safety
    /// `source` must be readable for 4 elements.
    // SAFETY: stated above.
    unsafe fn load4(source: *const Self) -> float32x4_t;
}

impl Load for f32 {
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load4(source: *const Self) -> float32x4_t {
        // SAFETY: the caller's contract.
        unsafe { vld1q_f32(source) }
    }
}

impl Load for bf16 {
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load4(source: *const Self) -> float32x4_t {
        // SAFETY: the caller's contract.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(source.cast()))) }
    }
}

impl Load for f16 {
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load4(source: *const Self) -> float32x4_t {
        // SAFETY: the caller's contract; the instruction is one of every 64-bit ARM processor and touches nothing else.
        unsafe {
            let widened: float32x4_t;
            std::arch::asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) widened, in(vreg) vld1_u16(source.cast()),
                options(pure, nomem, nostack, preserves_flags));
            widened
        }
    }
}

impl Load for i8 {
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load4(source: *const Self) -> float32x4_t {
        // SAFETY: the caller's contract; four bytes are read as one number, wherever they lie.
        unsafe {
            let four = vreinterpret_s8_u32(vdup_n_u32(source.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(four))))
        }
    }
}

impl<T: Element> Tile<T> {
    #[inline]
    // SAFETY: `run`'s contract.
    pub(super) unsafe fn neon(self) {
        for column in (0..self.columns).step_by(COLUMNS) {
            let mut row = 0;
            while row < self.rows {
                let rows = (self.rows - row).min(6);
                // SAFETY: in bounds by the loops.
                unsafe {
                    let mut part = self.part(row, rows, column, COLUMNS);
                    if row > 0 {
                        part.next = Fetch::NONE;
                    }
                    match rows {
                        1 => kernel::<T, 1>(part),
                        2 => kernel::<T, 2>(part),
                        3 => kernel::<T, 3>(part),
                        4 => kernel::<T, 4>(part),
                        5 => kernel::<T, 5>(part),
                        _ => kernel::<T, 6>(part),
                    }
                }
                row += rows;
            }
        }
    }
}

// SAFETY: called by `Tile::neon` alone, under `Tile::run`'s contract.
unsafe fn kernel<T: Element, const ROWS: usize>(tile: Tile<T>) {
    // SAFETY: `Tile::run`'s contract.
    unsafe {
        let mut acc = [[vdupq_n_f32(0.0); VECTORS]; ROWS];
        for (row, values) in acc.iter_mut().enumerate() {
            for (vector, value) in values.iter_mut().enumerate() {
                *value = match tile.start {
                    Start::Zero => vdupq_n_f32(0.0),
                    Start::Accumulate => vld1q_f32(tile.c.add(row * tile.c_stride + vector * 4)),
                    Start::Row(bias) => vld1q_f32(bias.add(vector * 4)),
                };
            }
        }
        let (mut a, mut b) = (tile.a, tile.b);
        let fetched_per_k = tile.next.lines.div_ceil(tile.depth.max(1));
        for k in 0..tile.depth {
            for line in k * fetched_per_k..(k + 1) * fetched_per_k {
                prefetch(tile.next.start.wrapping_add(64 * line));
            }
            let mut right = [vdupq_n_f32(0.0); VECTORS];
            for (vector, value) in right.iter_mut().enumerate() {
                *value = T::load4(b.add(vector * 4));
            }
            for (row, values) in acc.iter_mut().enumerate() {
                let left = vld1q_dup_f32(a.add(row));
                for (vector, value) in values.iter_mut().enumerate() {
                    *value = vfmaq_f32(*value, left, right[vector]);
                }
            }
            a = a.add(tile.a_stride);
            b = b.add(tile.b_stride);
        }
        for (row, values) in acc.iter().enumerate() {
            for (vector, value) in values.iter().enumerate() {
                vst1q_f32(tile.c.add(row * tile.c_stride + vector * 4), *value);
            }
        }
    }
}

//! The f32 product kernel on x86-64: AVX-512, and AVX2 with FMA. Knows registers; what is computed stands in `mod.rs`.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::super::packing::prefetch;
use super::{Element, PANEL, Start, Tile};

/// How elements come into registers.
pub trait Load: Sized {
    /// Loads 16 elements as f32.
    /// # Safety
    /// `source` must be readable for 16 elements; AVX-512F must be available.
    // SAFETY: stated above.
    unsafe fn load16(source: *const Self) -> __m512;
    /// Loads 8 elements as f32.
    /// # Safety
    /// `source` must be readable for 8 elements; AVX2 and F16C must be available.
    // SAFETY: stated above.
    unsafe fn load8(source: *const Self) -> __m256;
}

impl Load for f32 {
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load16(source: *const Self) -> __m512 {
        // SAFETY: the caller's contract.
        unsafe { _mm512_loadu_ps(source) }
    }
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load8(source: *const Self) -> __m256 {
        // SAFETY: the caller's contract.
        unsafe { _mm256_loadu_ps(source) }
    }
}

impl Load for bf16 {
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load16(source: *const Self) -> __m512 {
        // SAFETY: the caller's contract.
        unsafe {
            let half = _mm256_loadu_si256(source.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        }
    }
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load8(source: *const Self) -> __m256 {
        // SAFETY: the caller's contract.
        unsafe {
            let half = _mm_loadu_si128(source.cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half)))
        }
    }
}

impl Load for f16 {
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load16(source: *const Self) -> __m512 {
        // SAFETY: the caller's contract.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(source.cast())) }
    }
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load8(source: *const Self) -> __m256 {
        // SAFETY: the caller's contract.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(source.cast())) }
    }
}

impl Load for i8 {
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load16(source: *const Self) -> __m512 {
        // SAFETY: the caller's contract.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(source.cast()))) }
    }
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load8(source: *const Self) -> __m256 {
        // SAFETY: the caller's contract.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(source.cast()))) }
    }
}

impl<T: Element> Tile<T> {
    #[inline]
    // SAFETY: `run`'s contract.
    pub(super) unsafe fn avx512(self) {
        let mut column = 0;
        while column < self.columns {
            let width = if self.columns - column >= PANEL { PANEL } else { 16 };
            // SAFETY: in bounds by the loop; AVX-512 by the caller.
            unsafe {
                let part = self.part(0, self.rows, column, width);
                macro_rules! by_rows {
                    ($($rows:literal)*) => {
                        match (part.rows, width, part.next.lines.div_ceil(part.depth.max(1))) {
                            $(($rows, PANEL, 0) => kernel_avx512::<T, $rows, 2, 0>(part),)*
                            $(($rows, PANEL, 1) => kernel_avx512::<T, $rows, 2, 1>(part),)*
                            $(($rows, PANEL, 2) => kernel_avx512::<T, $rows, 2, 2>(part),)*
                            $(($rows, PANEL, _) => kernel_avx512::<T, $rows, 2, 4>(part),)*
                            $(($rows, _, _) => kernel_avx512::<T, $rows, 1, 0>(part),)*
                            _ => part.portable(),
                        }
                    };
                }
                by_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
            }
            column += width;
        }
    }

    #[inline]
    // SAFETY: `run`'s contract.
    pub(super) unsafe fn avx2(self) {
        for column in (0..self.columns).step_by(16) {
            let mut row = 0;
            while row < self.rows {
                let rows = (self.rows - row).min(6);
                // SAFETY: in bounds by the loops; AVX2 by the caller.
                unsafe {
                    let part = self.part(row, rows, column, 16);
                    match rows {
                        1 => kernel_avx2::<T, 1>(part),
                        2 => kernel_avx2::<T, 2>(part),
                        3 => kernel_avx2::<T, 3>(part),
                        4 => kernel_avx2::<T, 4>(part),
                        5 => kernel_avx2::<T, 5>(part),
                        _ => kernel_avx2::<T, 6>(part),
                    }
                }
                row += rows;
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c")]
// SAFETY: called by `Tile::avx512` alone, under `Tile::run`'s contract.
unsafe fn kernel_avx512<T: Element, const ROWS: usize, const VECTORS: usize, const FETCH: usize>(tile: Tile<T>) {
    // SAFETY: `Tile::run`'s contract.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        for (row, values) in acc.iter_mut().enumerate() {
            for (vector, value) in values.iter_mut().enumerate() {
                *value = match tile.start {
                    Start::Zero => _mm512_setzero_ps(),
                    Start::Accumulate => _mm512_loadu_ps(tile.c.add(row * tile.c_stride + vector * 16)),
                    Start::Row(bias) => _mm512_loadu_ps(bias.add(vector * 16)),
                };
            }
        }
        let (mut a, mut b, mut next) = (tile.a, tile.b, tile.next.start);
        let fetching = if FETCH > 0 { tile.next.lines.div_ceil(FETCH).min(tile.depth) } else { 0 };
        macro_rules! steps {
            ($count:expr, $fetch:literal) => {
                for _ in 0..$count {
                    if $fetch {
                        for line in 0..FETCH {
                            prefetch(next.wrapping_add(line * 64));
                        }
                        next = next.wrapping_add(64 * FETCH);
                    }
                    let mut right = [_mm512_setzero_ps(); VECTORS];
                    for (vector, value) in right.iter_mut().enumerate() {
                        *value = T::load16(b.add(vector * 16));
                    }
                    for (row, values) in acc.iter_mut().enumerate() {
                        let left = _mm512_set1_ps(*a.add(row));
                        for (vector, value) in values.iter_mut().enumerate() {
                            *value = _mm512_fmadd_ps(left, right[vector], *value);
                        }
                    }
                    a = a.add(tile.a_stride);
                    b = b.add(tile.b_stride);
                }
            };
        }
        if FETCH > 0 {
            steps!(fetching, true);
        }
        steps!(tile.depth - fetching, false);
        for (row, values) in acc.iter().enumerate() {
            for (vector, value) in values.iter().enumerate() {
                _mm512_storeu_ps(tile.c.add(row * tile.c_stride + vector * 16), *value);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
// SAFETY: called by `Tile::avx2` alone, under `Tile::run`'s contract.
unsafe fn kernel_avx2<T: Element, const ROWS: usize>(tile: Tile<T>) {
    // SAFETY: `Tile::run`'s contract.
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
        for (row, values) in acc.iter_mut().enumerate() {
            for (vector, value) in values.iter_mut().enumerate() {
                *value = match tile.start {
                    Start::Zero => _mm256_setzero_ps(),
                    Start::Accumulate => _mm256_loadu_ps(tile.c.add(row * tile.c_stride + vector * 8)),
                    Start::Row(bias) => _mm256_loadu_ps(bias.add(vector * 8)),
                };
            }
        }
        let (mut a, mut b) = (tile.a, tile.b);
        for _ in 0..tile.depth {
            let right = [T::load8(b), T::load8(b.add(8))];
            for (row, values) in acc.iter_mut().enumerate() {
                let left = _mm256_set1_ps(*a.add(row));
                for (vector, value) in values.iter_mut().enumerate() {
                    *value = _mm256_fmadd_ps(left, right[vector], *value);
                }
            }
            a = a.add(tile.a_stride);
            b = b.add(tile.b_stride);
        }
        for (row, values) in acc.iter().enumerate() {
            for (vector, value) in values.iter().enumerate() {
                _mm256_storeu_ps(tile.c.add(row * tile.c_stride + vector * 8), *value);
            }
        }
    }
}

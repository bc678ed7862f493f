//! The f32 product kernel of the CPU path: a tile C[rows, columns] from k-major rows of A and a k-major panel of B.
//! Linear layers (but those in bf16 parts), attention scores and attention values all call it, so each of their outputs is one chain
//! of fused multiply-adds in the order of k, whatever the batch. Knows raw pointers and strides; knows nothing of tensors.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::packing::Fetch;
use super::simd::Isa;

/// Columns of a packed panel, and the widest tile.
pub const PANEL: usize = 32;
/// Rows of A that one tile takes at most.
pub const MAX_ROWS: usize = 12;

/// One panel row: 32 columns of B at one k, on a cache-line boundary.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct PanelRow<T>(pub [T; PANEL]);

/// Element types that a panel of B may be stored in; arithmetic is always f32.
pub trait Element: Copy + Send + Sync + 'static {
    /// Zero, for padding.
    const ZERO: Self;
    /// Rounds to the nearest representable value.
    fn from_f32(value: f32) -> Self;
    /// Widens, exactly.
    fn to_f32(self) -> f32;
    /// Widens a panel row.
    #[inline(always)]
    fn widen_row(source: &[Self; PANEL], target: &mut [f32; PANEL]) {
        target.iter_mut().zip(source).for_each(|(target, source)| *target = source.to_f32());
    }
    /// Loads 16 elements as f32.
    /// # Safety
    /// `source` must be readable for 16 elements; AVX-512F must be available.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: stated above.
    unsafe fn load16(source: *const Self) -> std::arch::x86_64::__m512;
    /// Loads 8 elements as f32.
    /// # Safety
    /// `source` must be readable for 8 elements; AVX2 and F16C must be available.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: stated above.
    unsafe fn load8(source: *const Self) -> std::arch::x86_64::__m256;
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

impl Element for f32 {
    const ZERO: Self = 0.0;
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load16(source: *const Self) -> __m512 {
        // SAFETY: the caller's contract.
        unsafe { _mm512_loadu_ps(source) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load8(source: *const Self) -> __m256 {
        // SAFETY: the caller's contract.
        unsafe { _mm256_loadu_ps(source) }
    }
}

impl Element for bf16 {
    const ZERO: Self = bf16::ZERO;
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load16(source: *const Self) -> __m512 {
        // SAFETY: the caller's contract.
        unsafe {
            let half = _mm256_loadu_si256(source.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        }
    }
    #[cfg(target_arch = "x86_64")]
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

impl Element for f16 {
    const ZERO: Self = f16::ZERO;
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    #[inline(always)]
    fn widen_row(source: &[Self; PANEL], target: &mut [f32; PANEL]) {
        // The crate finds the instruction at run time.
        source.convert_to_f32_slice(target);
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load16(source: *const Self) -> __m512 {
        // SAFETY: the caller's contract.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(source.cast())) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load8(source: *const Self) -> __m256 {
        // SAFETY: the caller's contract.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(source.cast())) }
    }
}

/// Numbers of 8 bits, whose scale is applied by who knows it.
impl Element for i8 {
    const ZERO: Self = 0;
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value as i8
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load16(source: *const Self) -> __m512 {
        // SAFETY: the caller's contract.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(source.cast()))) }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    // SAFETY: the trait's contract.
    unsafe fn load8(source: *const Self) -> __m256 {
        // SAFETY: the caller's contract.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(source.cast()))) }
    }
}

/// What the tile's accumulators start from.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// Zero: C = A B.
    Zero,
    /// What C holds: C += A B.
    Accumulate,
    /// The same row for every row of C, at this address: C = bias + A B.
    Row(*const f32),
}

/// One tile product. `a` is k-major: element (row i, k) at `a[k * a_stride + i]`; `b` likewise: (k, column j) at
/// `b[k * b_stride + j]`; C is row-major.
#[derive(Debug, Clone, Copy)]
pub struct Tile<T> {
    /// Rows of A and C, 1..=[`MAX_ROWS`].
    pub rows: usize,
    /// Columns of B and C, a multiple of 16.
    pub columns: usize,
    /// Length of the sum.
    pub depth: usize,
    /// First element of A.
    pub a: *const f32,
    /// Distance in elements between consecutive k of A.
    pub a_stride: usize,
    /// First element of B.
    pub b: *const T,
    /// Distance in elements between consecutive k of B.
    pub b_stride: usize,
    /// First element of C.
    pub c: *mut f32,
    /// Distance in elements between consecutive rows of C.
    pub c_stride: usize,
    /// What is added to.
    pub start: Start,
    /// What is needed next, to be fetched into the cache meanwhile.
    pub next: Fetch,
}

impl<T: Element> Tile<T> {
    /// Computes the tile.
    ///
    /// # Safety
    /// All addresses that the strides and sizes imply must be valid, C writable and not aliased; `isa` must be available;
    /// `rows` in 1..=12 and `columns` a multiple of 16.
    #[inline]
    // SAFETY: stated above.
    pub unsafe fn run(self, isa: Isa) {
        debug_assert!((1..=MAX_ROWS).contains(&self.rows) && self.columns.is_multiple_of(16));
        // SAFETY: the caller's contract, passed on.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => self.avx512(),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => self.avx2(),
                _ => self.portable(),
            }
        }
    }

    /// The sub-tile at (row, column) of the given size.
    #[inline(always)]
    // SAFETY: `run`'s contract; the part lies within the tile.
    unsafe fn part(self, row: usize, rows: usize, column: usize, columns: usize) -> Self {
        // SAFETY: within the tile, whose addresses the caller vouches for.
        unsafe {
            Self {
                rows,
                columns,
                a: self.a.add(row),
                b: self.b.add(column),
                c: self.c.add(row * self.c_stride + column),
                next: if column == 0 { self.next } else { Fetch::NONE },
                start: match self.start {
                    Start::Row(bias) => Start::Row(bias.add(column)),
                    other => other,
                },
                ..self
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    // SAFETY: `run`'s contract.
    unsafe fn avx512(self) {
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

    #[cfg(target_arch = "x86_64")]
    #[inline]
    // SAFETY: `run`'s contract.
    unsafe fn avx2(self) {
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

    // SAFETY: `run`'s contract.
    unsafe fn portable(self) {
        for row in 0..self.rows {
            for column in (0..self.columns).step_by(16) {
                // SAFETY: in bounds by the caller's contract.
                unsafe {
                    let out = self.c.add(row * self.c_stride + column);
                    let mut acc = [0f32; 16];
                    for (lane, value) in acc.iter_mut().enumerate() {
                        *value = match self.start {
                            Start::Zero => 0.0,
                            Start::Accumulate => *out.add(lane),
                            Start::Row(bias) => *bias.add(column + lane),
                        };
                    }
                    for k in 0..self.depth {
                        let left = *self.a.add(k * self.a_stride + row);
                        let right = self.b.add(k * self.b_stride + column);
                        for (lane, value) in acc.iter_mut().enumerate() {
                            *value = left.mul_add((*right.add(lane)).to_f32(), *value);
                        }
                    }
                    std::ptr::copy_nonoverlapping(acc.as_ptr(), out, 16);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
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
        let (mut a, mut b, mut next) = (tile.a, tile.b, tile.next.start.cast::<i8>());
        let fetching = if FETCH > 0 { tile.next.lines.div_ceil(FETCH).min(tile.depth) } else { 0 };
        macro_rules! steps {
            ($count:expr, $fetch:literal) => {
                for _ in 0..$count {
                    if $fetch {
                        for line in 0..FETCH {
                            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line * 64));
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

#[cfg(target_arch = "x86_64")]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Element>() {
        for (rows, columns, depth) in [(1, 32, 5), (12, 32, 64), (7, 16, 33), (3, 80, 16), (11, 96, 1)] {
            let a: Vec<f32> = (0..rows * depth).map(|i| ((i * 7 % 13) as f32 - 6.0) * 0.37).collect();
            let b: Vec<T> = (0..depth * columns).map(|i| T::from_f32(((i * 5 % 17) as f32 - 8.0) * 0.21)).collect();
            let bias: Vec<f32> = (0..columns).map(|j| j as f32 * 0.01).collect();
            let mut want = vec![0f32; rows * columns];
            for i in 0..rows {
                for j in 0..columns {
                    let mut acc = bias[j];
                    for k in 0..depth {
                        acc = a[k * rows + i].mul_add(b[k * columns + j].to_f32(), acc);
                    }
                    want[i * columns + j] = acc;
                }
            }
            let mut isas = vec![Isa::Portable];
            if Isa::detect() != Isa::Portable {
                isas.extend([Isa::Avx2, Isa::detect()]);
            }
            for isa in isas {
                let mut c = vec![0f32; rows * columns];
                let tile = Tile {
                    rows,
                    columns,
                    depth,
                    a: a.as_ptr(),
                    a_stride: rows,
                    b: b.as_ptr(),
                    b_stride: columns,
                    c: c.as_mut_ptr(),
                    c_stride: columns,
                    start: Start::Row(bias.as_ptr()),
                    next: Fetch::part(b.as_ptr().cast(), size_of_val(&b[..]), 0, 1),
                };
                // SAFETY: the vectors have the sizes that the tile names, and the processor has the instructions.
                unsafe { tile.run(isa) };
                assert_eq!(c, want, "{rows}x{columns}x{depth} on {isa:?}");
            }
        }
    }

    #[test]
    fn every_kernel_gives_the_bits_of_the_plain_loop() {
        check::<f32>();
        check::<bf16>();
        check::<f16>();
        check::<i8>();
    }
}

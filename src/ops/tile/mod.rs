//! The f32 product kernel of the CPU path: a tile C[rows, columns] from k-major rows of A and a k-major panel of B.
//! Linear layers (but those in bf16 parts), attention scores and attention values all call it, so each of their outputs is one chain
//! of fused multiply-adds in the order of k, whatever the batch. Knows raw pointers and strides; knows nothing of tensors.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::packing::Fetch;
use super::simd::Isa;

#[cfg(target_arch = "aarch64")]
use neon::Load;
#[cfg(target_arch = "x86_64")]
use x86::Load;

/// How elements come into registers: not at all where there are no kernels of ours.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub trait Load {}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl<T> Load for T {}

/// Columns of a packed panel, and the widest tile.
pub const PANEL: usize = 32;
/// Rows of A that one tile takes at most.
pub const MAX_ROWS: usize = 12;

/// One panel row: 32 columns of B at one k, on a cache-line boundary.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct PanelRow<T>(pub [T; PANEL]);

/// Element types that a panel of B may be stored in; arithmetic is always f32.
pub trait Element: Load + Copy + Send + Sync + 'static {
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
}

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
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => self.neon(),
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
            let isas = match Isa::detect() {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => vec![Isa::Avx512, Isa::Avx2, Isa::Portable],
                best => vec![best, Isa::Portable],
            };
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

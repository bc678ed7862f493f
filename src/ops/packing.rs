//! What goes before a tile: a batch's rows in blocks, k-major, and what is fetched into the cache while a tile is computed.
//! Knows layouts and addresses; computes nothing.

use std::ops::Range;

use super::tile::MAX_ROWS;

/// The rows of a batch in blocks of at most 12, as equal as they can be: a short last block would waste a pass over the panel.
pub fn row_blocks(rows: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let count = rows.div_ceil(MAX_ROWS);
    (0..count).map(move |index| index * rows / count..(index + 1) * rows / count)
}

/// Packs `rows` rows of a row-major matrix (`row_stride` elements apart, `depth` long) as a k-major block for [`Tile::a`]:
/// element (i, k) goes to `target[k * rows + i]`. `rows` in 1..=12.
#[inline]
pub fn pack_rows(source: &[f32], row_stride: usize, rows: usize, depth: usize, target: &mut [f32]) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match rows {
                $($rows => pack::<$rows>(source, row_stride, depth, target),)*
                _ => {}
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// With the number of rows known, all of a k are read and written at once.
fn pack<const ROWS: usize>(source: &[f32], row_stride: usize, depth: usize, target: &mut [f32]) {
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &source[row * row_stride..][..depth]);
    for (k, target) in target.as_chunks_mut::<ROWS>().0.iter_mut().enumerate().take(depth) {
        for (value, row) in target.iter_mut().zip(rows) {
            *value = row[k];
        }
    }
}

/// Cache lines that are fetched while a tile is computed, evenly over its k. Only ever prefetched, so that the address may be any.
#[derive(Debug, Clone, Copy)]
pub struct Fetch {
    /// The first line.
    pub start: *const u8,
    /// How many.
    pub lines: usize,
}

impl Fetch {
    /// Nothing.
    pub const NONE: Self = Self { start: std::ptr::null(), lines: 0 };

    /// Part `index` of `count` equal parts of a run of bytes.
    pub fn part(start: *const u8, bytes: usize, index: usize, count: usize) -> Self {
        let lines = bytes.div_ceil(64);
        let first = lines * index / count;
        Self { start: start.wrapping_add(64 * first), lines: lines * (index + 1) / count - first }
    }
}

/// Asks for the cache line at `address`, which may be any, to be brought near.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction; it reads nothing that a program could see.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: every 64-bit ARM processor has the instruction; it reads nothing that a program could see.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

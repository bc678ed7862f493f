//! The product kernel of bf16 numbers summed in f32: by the processor's matrix unit (Intel AMX) where this process may use it, else by
//! vectors with the same bits, slower. Knows tiles of 1 KiB; knows nothing of matrices, nor of what the numbers mean.

use super::simd::{Vectorised, dispatch};
use super::tile::PANEL;

/// Rows of a left tile, and columns of a right one.
pub const TILE_ROWS: usize = 16;
/// Consecutive k that a tile holds.
pub const STEP: usize = 32;
/// Left tiles that meet each right one.
pub const THIRDS: usize = 3;
/// Rows that [`TileProduct::run`] takes at most: two tiles.
pub const MAX_ROWS: usize = 2 * TILE_ROWS;

/// Sixteen lines of sixteen pairs of bf16 numbers, those of the even k in the low halves. A line is a row of the left side, or a pair of
/// k of the right side and then has a pair for each column.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Tile16(pub [[u32; STEP / 2]; TILE_ROWS]);

impl Tile16 {
    /// Zeros.
    pub const ZERO: Self = Self([[0; STEP / 2]; TILE_ROWS]);
}

/// What computes tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileUnit {
    /// The processor's matrix unit. Only [`Self::detect`] makes it, so that who has one may use it.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(Allowed),
    /// Vector instructions.
    Vectors,
}

/// Proof that the operating system lets this process use the matrix unit.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed(());

impl TileUnit {
    /// The matrix unit if this processor has one, and the operating system grants it, which it is asked for here; else vectors. Not
    /// cheap: some microseconds.
    pub fn detect() -> Self {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if amx::is_there() && amx::request() {
            return Self::Amx(Allowed(()));
        }
        Self::Vectors
    }

    /// Makes this thread ready to run products.
    pub fn ready(self) -> ReadyUnit {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self != Self::Vectors {
            // SAFETY: the unit is there and granted.
            unsafe { amx::configure() };
        }
        ReadyUnit { unit: self, on_this_thread: std::marker::PhantomData }
    }
}

/// A unit that is set up on this thread, until it is dropped.
pub struct ReadyUnit {
    unit: TileUnit,
    /// Set-up is a thread's own: this must not go to another.
    on_this_thread: std::marker::PhantomData<*const ()>,
}

impl Drop for ReadyUnit {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.unit != TileUnit::Vectors {
            // SAFETY: the unit is there and granted.
            unsafe { amx::release() };
        }
    }
}

/// C [rows, 32] += Σ over steps, parts of B and thirds of A of A B, or C = that. For each of these an output is the sum of two chains of fused
/// multiply-adds from zero, over the even and over the odd k, added to C; numbers below the smallest normal one are zero throughout
/// (Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS). So its bits depend on its own row and column alone.
#[derive(Clone, Copy)]
pub struct TileProduct<'a> {
    /// Rows of C that count, 1 to 32: in one tile or two of A. What the others hold afterwards is not said.
    pub rows: usize,
    /// Parts of B that each meet all thirds of A: 1 or 2.
    pub parts: usize,
    /// [steps, thirds, row_tiles]
    pub a: &'a [Tile16],
    /// [steps, parts, 2]: columns 0..16 and 16..32
    pub b: &'a [Tile16],
    /// Whether C begins at zero.
    pub starts: bool,
}

/// C.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Sums(pub [[f32; PANEL]; MAX_ROWS]);

impl TileProduct<'_> {
    /// Tiles of A for each step and third.
    fn row_tiles(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }

    /// Computes the first `rows` rows of `sums`, and fetches what lies behind B into the cache meanwhile.
    pub fn run(self, ready: &ReadyUnit, sums: &mut Sums) {
        let steps = self.b.len() / (2 * self.parts.max(1));
        assert!(
            (1..=MAX_ROWS).contains(&self.rows)
                && matches!(self.parts, 1 | 2)
                && steps > 0
                && self.b.len() == 2 * self.parts * steps
                && self.a.len() == steps * THIRDS * self.row_tiles(),
            "a product whose parts do not fit each other"
        );
        match ready.unit {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            // SAFETY: sizes are checked above; the unit is granted and set up on this thread.
            TileUnit::Amx(_) => unsafe { self.amx(steps, sums) },
            _ => dispatch(ByVectors { product: self, sums }),
        }
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    // SAFETY: called by `run`, which has checked sizes and unit.
    unsafe fn amx(self, steps: usize, sums: &mut Sums) {
        // SAFETY: as of this function.
        unsafe {
            match (self.row_tiles(), self.parts) {
                (1, 1) => amx::kernel::<1, 1>(self, steps, sums),
                (1, _) => amx::kernel::<1, 2>(self, steps, sums),
                (_, 1) => amx::kernel::<2, 1>(self, steps, sums),
                _ => amx::kernel::<2, 2>(self, steps, sums),
            }
        }
    }
}

/// The matrix unit itself, in assembly: its intrinsics are not in stable Rust.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid_count, _xgetbv};

    use super::{PANEL, Sums, TILE_ROWS, TileProduct};

    /// Whether the processor has tiles of bf16, and the operating system keeps them when it switches threads.
    pub fn is_there() -> bool {
        // Leaf 7, EDX: bit 22 AMX-BF16, bit 24 AMX-TILE. Leaf 1, ECX: bit 27 OSXSAVE.
        const TILES: u32 = 1 << 22 | 1 << 24;
        const OSXSAVE: u32 = 1 << 27;
        // XCR0: bit 17 tile configuration, bit 18 tile data.
        const STATE: u64 = 0b11 << 17;
        #[target_feature(enable = "xsave")]
        // SAFETY: only called where the operating system has switched XGETBV on.
        unsafe fn enabled_state() -> u64 {
            // SAFETY: as of this function.
            unsafe { _xgetbv(0) }
        }
        is_x86_feature_detected!("avx512f")
            && __cpuid_count(1, 0).ecx & OSXSAVE != 0
            && __cpuid_count(0, 0).eax >= 7
            && __cpuid_count(7, 0).edx & TILES == TILES
            // SAFETY: OSXSAVE was found two lines above.
            && unsafe { enabled_state() } & STATE == STATE
    }

    /// Asks Linux for the tiles' state, for all threads of this process (Documentation/arch/x86/xstate.rst).
    pub fn request() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: a system call that takes numbers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    /// LDTILECFG's operand.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_per_row: [u16; 16],
        rows: [u8; 16],
    }

    /// All eight tiles: 16 rows of 64 bytes.
    const ALL: Configuration = Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        bytes_per_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    /// Sets this thread's tiles up.
    // SAFETY: the caller has the unit granted.
    pub unsafe fn configure() {
        let all = ALL;
        // SAFETY: reads 64 bytes of a configuration that the unit allows.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &all, options(nostack, readonly, preserves_flags)) };
    }

    /// Gives this thread's tiles back, so that switching threads costs nothing more.
    // SAFETY: the caller has the unit granted.
    pub unsafe fn release() {
        // SAFETY: no product runs on this thread.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }

    /// Bytes behind a line of B that are fetched into the first cache, and into the second: two steps, and eight.
    const NEAR: usize = 4096;
    const FAR: usize = 16384;

    /// Tiles 0 to 3 are C, 4 and 5 the rows of A, 6 and 7 the columns of B. ROWS: tiles of rows. PARTS: of B.
    // SAFETY: called by `TileProduct::amx` on a thread that is set up; `a`, `b` and `sums` have the sizes that `run` checks.
    pub unsafe fn kernel<const ROWS: usize, const PARTS: usize>(tile: TileProduct<'_>, steps: usize, sums: &mut Sums) {
        let c = sums.0.as_mut_ptr().cast::<f32>();
        // SAFETY: reads `steps` times 3 ROWS tiles of A and 2 PARTS of B and ROWS times 16 rows of C, which it also writes; prefetching
        // takes any address.
        unsafe {
            asm!(
                "test {starts}, {starts}",
                "jz 3f",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "jmp 2f",
                "3:",
                "tileloadd tmm0, [{c} + {row}]",
                "tileloadd tmm1, [{c} + {row} + 64]",
                ".if {rows} == 2",
                "tileloadd tmm2, [{d} + {row}]",
                "tileloadd tmm3, [{d} + {row} + 64]",
                ".endif",
                ".p2align 6",
                "2:",
                ".rept {parts}",
                "tileloadd tmm6, [{b} + {line}]",
                "tileloadd tmm7, [{b} + {line} + 1024]",
                ".set behind, 0",
                ".rept 3",
                "tileloadd tmm4, [{a} + {line}]",
                ".if {rows} == 2",
                "tileloadd tmm5, [{a} + {line} + 1024]",
                ".endif",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                ".rept 11",
                "prefetcht0 [{b} + behind + {near}]",
                "prefetcht1 [{b} + behind + {far}]",
                ".set behind, behind + 64",
                ".endr",
                ".if {rows} == 2",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                ".endif",
                "add {a}, 1024 * {rows}",
                ".endr",
                "add {b}, 2048",
                "sub {a}, 3072 * {rows}",
                ".endr",
                "add {a}, 3072 * {rows}",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{c} + {row}], tmm0",
                "tilestored [{c} + {row} + 64], tmm1",
                ".if {rows} == 2",
                "tilestored [{d} + {row}], tmm2",
                "tilestored [{d} + {row} + 64], tmm3",
                ".endif",
                rows = const ROWS,
                parts = const PARTS,
                near = const NEAR,
                far = const FAR,
                starts = in(reg) usize::from(tile.starts),
                a = inout(reg) tile.a.as_ptr() => _,
                b = inout(reg) tile.b.as_ptr() => _,
                c = in(reg) c,
                d = in(reg) c.wrapping_add(TILE_ROWS * PANEL),
                steps = inout(reg) steps => _,
                line = in(reg) 64usize,
                row = in(reg) size_of::<[f32; PANEL]>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// The product's definition, in a form that compiles to vectors.
struct ByVectors<'a> {
    product: TileProduct<'a>,
    sums: &'a mut Sums,
}

impl Vectorised for ByVectors<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { product, sums } = self;
        let (rows, row_tiles) = (product.rows, product.row_tiles());
        if product.starts {
            sums.0[..rows].fill([0.0; PANEL]);
        }
        let steps = product.a.chunks(THIRDS * row_tiles).zip(product.b.chunks(2 * product.parts));
        for (a, b) in steps.flat_map(|(a, b)| b.chunks(2).map(move |b| (a, b))) {
            for third in a.chunks(row_tiles) {
                let lines = third.iter().flat_map(|tile| &tile.0);
                for (line, sums) in lines.zip(&mut sums.0[..rows]) {
                    for (half, b) in b.iter().enumerate() {
                        let (mut even, mut odd) = ([0f32; TILE_ROWS], [0f32; TILE_ROWS]);
                        for (&pair, columns) in line.iter().zip(&b.0) {
                            let (left_even, left_odd) = (low(pair), high(pair));
                            for ((even, odd), &pair) in even.iter_mut().zip(&mut odd).zip(columns) {
                                *even = flushed(left_even.mul_add(low(pair), *even));
                                *odd = flushed(left_odd.mul_add(high(pair), *odd));
                            }
                        }
                        for ((sum, even), odd) in sums[half * TILE_ROWS..].iter_mut().zip(even).zip(odd) {
                            *sum = flushed(*sum + flushed(even + odd));
                        }
                    }
                }
            }
        }
    }
}

/// The number of the even k in a pair.
#[inline(always)]
fn low(pair: u32) -> f32 {
    flushed(f32::from_bits(pair << 16))
}

/// The number of the odd k in a pair.
#[inline(always)]
fn high(pair: u32) -> f32 {
    flushed(f32::from_bits(pair & 0xffff_0000))
}

/// Zero for what is smaller than the smallest normal number.
#[inline(always)]
fn flushed(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tiles of random bf16 numbers: sign, and exponents from `lowest` over `range`.
    fn tiles(state: &mut u64, count: usize, lowest: u32, range: u32) -> Vec<Tile16> {
        let mut next = || {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 33) as u32
        };
        let mut number = || (next() & 0x807f) | (lowest + next() % range) << 7;
        let mut tile = || Tile16([[(); STEP / 2]; TILE_ROWS].map(|line| line.map(|()| number() | number() << 16)));
        (0..count).map(|_| tile()).collect()
    }

    fn run(unit: TileUnit, product: TileProduct<'_>) -> Vec<u32> {
        let mut sums = Sums([[0.75; PANEL]; MAX_ROWS]);
        product.run(&unit.ready(), &mut sums);
        sums.0[..product.rows].as_flattened().iter().map(|sum| sum.to_bits()).collect()
    }

    /// Numbers around 1; so small that many products are not normal; and among those that are not normal themselves.
    #[test]
    fn the_matrix_unit_and_vectors_give_the_same_bits() {
        let mut state = 5;
        for (lowest, range) in [(120, 12), (50, 40), (0, 130)] {
            for (rows, parts) in [(1usize, 1), (32, 1), (16, 2), (21, 2)] {
                for steps in [1, 3, 8] {
                    let a = tiles(&mut state, steps * THIRDS * rows.div_ceil(TILE_ROWS), lowest, range);
                    let b = tiles(&mut state, steps * parts * 2, lowest, range);
                    for starts in [true, false] {
                        let product = TileProduct { rows, parts, a: &a, b: &b, starts };
                        let want = run(TileUnit::Vectors, product);
                        let got = run(TileUnit::detect(), product);
                        assert_eq!(got, want, "exponents from {lowest}, {rows} rows, {parts} parts, {steps} steps");
                    }
                }
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_products() {
        let mut state = 9;
        for parts in [1, 2] {
            let (a, b) = (tiles(&mut state, 2 * THIRDS, 120, 12), tiles(&mut state, 4 * parts, 120, 12));
            let got = run(TileUnit::detect(), TileProduct { rows: 16, parts, a: &a, b: &b, starts: true });
            for (row, column) in [(0, 0), (3, 17), (15, 31)] {
                let mut want = 0f64;
                for (a, b) in a.chunks(THIRDS).zip(b.chunks(2 * parts)) {
                    for (a, b) in
                        a.iter().flat_map(|a| b.iter().skip(column / TILE_ROWS).step_by(2).map(move |b| (a, b)))
                    {
                        for (&left, line) in a.0[row].iter().zip(&b.0) {
                            let right = line[column % TILE_ROWS];
                            want += f64::from(low(left)) * f64::from(low(right));
                            want += f64::from(high(left)) * f64::from(high(right));
                        }
                    }
                }
                let got = f64::from(f32::from_bits(got[row * PANEL + column]));
                assert!((got - want).abs() < 1e-3 * want.abs().max(1.0), "({row}, {column}): {got} for {want}");
            }
        }
    }
}

//! Matrices of 4 to 8 bits per weight as the integer product reads them: panels of 32 rows, groups of 32 columns, the bits of ggml's
//! blocks in an order from which a few shifts give a tile's operand. No number changes: scales stay as they are stored.
//! Knows which formats there are and how panels lie; knows nothing of files or batches.

use candle_core::quantized::GgmlDType;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::blocks::DEPTH;
use super::ggml_block::Block;
use super::rounded::GROUP;
use super::simd::{Vectorised, dispatch};
use super::tile::{PANEL, PanelRow};
use super::tile8::QuantKind;

/// Quants of one group of one panel.
const GROUP_QUANTS: usize = GROUP * PANEL;

/// How scales are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scales {
    /// An f16 per group, and with mins another one.
    Halves,
    /// Per 256 columns an f16 and with mins another one; per group, or per half of one, an integer that multiplies it.
    Products,
}

/// What distinguishes the formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// How quants are meant.
    pub kind: QuantKind,
    /// Bits of a quant.
    pub bits: usize,
    /// How scales are stored.
    pub scales: Scales,
}

impl Layout {
    /// `None` for formats that have no integer product here.
    pub fn of(format: GgmlDType) -> Option<Self> {
        let kind = |zero, sub_group, has_mins| QuantKind { zero, sub_group, has_mins };
        let (bits, scales, kind) = match format {
            GgmlDType::Q8_0 => (8, Scales::Halves, kind(128, 32, false)),
            GgmlDType::Q4_0 => (4, Scales::Halves, kind(8, 32, false)),
            GgmlDType::Q4_1 => (4, Scales::Halves, kind(0, 32, true)),
            GgmlDType::Q5_0 => (5, Scales::Halves, kind(16, 32, false)),
            GgmlDType::Q5_1 => (5, Scales::Halves, kind(0, 32, true)),
            GgmlDType::Q4K => (4, Scales::Products, kind(0, 32, true)),
            GgmlDType::Q5K => (5, Scales::Products, kind(0, 32, true)),
            GgmlDType::Q6K => (6, Scales::Products, kind(32, 16, false)),
            _ => return None,
        };
        Some(Self { kind, bits, scales })
    }

    /// Bytes of a group's quants in a panel.
    fn quant_bytes(&self) -> usize {
        GROUP_QUANTS / 8 * self.bits
    }

    /// Scales of a group, per row.
    fn subs(&self) -> usize {
        GROUP / self.kind.sub_group
    }

    /// Columns that share an f16 number.
    fn run(&self) -> usize {
        if self.scales == Scales::Halves { GROUP } else { 256 }
    }

    /// Integer factors of a row's scale per group.
    fn products(&self) -> usize {
        if self.scales == Scales::Halves { 0 } else { self.subs() }
    }
}

/// A cache line of quants.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// See the module's text.
pub struct Panels {
    layout: Layout,
    rows: usize,
    columns: usize,
    /// Per panel and group: the lowest four bits (or all eight) of the quants, then what is above them.
    quants: Vec<Line>,
    scales: Factors,
    /// Empty if there are none.
    mins: Factors,
}

/// Scales, or mins, as they are stored.
struct Factors {
    /// Per panel and run: [32].
    halves: Vec<f16>,
    /// Per panel and group: [products, 32], bytes that multiply the run's number; those of Q6K are signed.
    products: Vec<u8>,
}

impl Factors {
    fn zeros(layout: Layout, num_panels: usize, columns: usize, products: usize) -> Self {
        Self {
            halves: vec![f16::ZERO; num_panels * PANEL * columns / layout.run()],
            products: vec![0; num_panels * PANEL * columns / GROUP * products],
        }
    }

    fn none() -> Self {
        Self { halves: Vec::new(), products: Vec::new() }
    }

    /// Of each panel its own part.
    fn panels(&mut self, num_panels: usize) -> Vec<(&mut [f16], &mut [u8])> {
        let (halves, products) = (self.halves.len() / num_panels.max(1), self.products.len() / num_panels.max(1));
        let (mut all, mut all_products) = (&mut self.halves[..], &mut self.products[..]);
        let mut parts = Vec::with_capacity(num_panels);
        for _ in 0..num_panels {
            let (head, rest) = all.split_at_mut(halves);
            let (head_products, rest_products) = all_products.split_at_mut(products);
            (all, all_products) = (rest, rest_products);
            parts.push((head, head_products));
        }
        parts
    }
}

/// Groups that are put together at a time.
const MOST_GROUPS: usize = DEPTH / GROUP;

/// Room for the operands of some of a panel's columns.
pub struct Operands {
    quants: [Line; MOST_GROUPS * GROUP_QUANTS / 64],
    scales: [f32; 2 * MOST_GROUPS * PANEL],
    mins: [f32; MOST_GROUPS * PANEL],
}

impl Operands {
    /// Room, empty.
    pub fn new() -> Self {
        Self {
            quants: [Line([0; 8]); MOST_GROUPS * GROUP_QUANTS / 64],
            scales: [0.0; 2 * MOST_GROUPS * PANEL],
            mins: [0.0; MOST_GROUPS * PANEL],
        }
    }
}

/// The quants, scales and mins of a panel, as [`super::tile8::Tile8`] takes them.
pub struct Operand<'a> {
    /// [k / 4, 32, 4]
    pub quants: &'a [u8],
    /// [k / sub_group, 32]
    pub scales: &'a [f32],
    /// [k / 32, 32], or empty.
    pub mins: &'a [f32],
}

impl Panels {
    /// The matrix [rows, columns] of `format`'s blocks, row by row, that `bytes` holds; `None` if the format has no integer
    /// product. The caller has checked the size and that rows are whole blocks.
    pub fn new(format: GgmlDType, bytes: &[u8], rows: usize, columns: usize) -> Option<Self> {
        let layout = Layout::of(format)?;
        let (num_panels, groups) = (rows.div_ceil(PANEL), columns / GROUP);
        let lines = layout.quant_bytes() / 64 * groups;
        let has_mins = layout.kind.has_mins;
        let mut this = Self {
            layout,
            rows,
            columns,
            quants: vec![Line([0; 8]); num_panels * lines],
            scales: Factors::zeros(layout, num_panels, columns, layout.products()),
            mins: match has_mins {
                true => Factors::zeros(layout, num_panels, columns, layout.products().min(1)),
                false => Factors::none(),
            },
        };
        let row_bytes = bytes.len() / rows.max(1);
        let scales = this.scales.panels(num_panels).into_par_iter();
        let panels = this.quants.par_chunks_mut(lines.max(1)).zip(scales).zip(this.mins.panels(num_panels));
        panels.enumerate().for_each(|(panel, ((quants, scales), mins))| {
            let mut target = PanelMut { layout, quants, scales, mins };
            for lane in 0..PANEL.min(rows - panel * PANEL) {
                let row = &bytes[(panel * PANEL + lane) * row_bytes..][..row_bytes];
                for (index, block) in row.chunks_exact(format.type_size()).enumerate() {
                    target.store(lane, index * format.block_size(), &Block::read(format, block));
                }
            }
        });
        Some(this)
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How quants are meant.
    pub fn kind(&self) -> QuantKind {
        self.layout.kind
    }

    /// The operands of `depth` columns, at most 256, from `first` on of panel `panel`: put together in `room`, or in place where
    /// nothing has to be. Both numbers are multiples of 32.
    pub fn operand<'a>(&'a self, panel: usize, first: usize, depth: usize, room: &'a mut Operands) -> Operand<'a> {
        let groups = first / GROUP..(first + depth) / GROUP;
        let (num_scales, num_mins) = self.expand_scales(panel, groups.clone(), &mut room.scales, &mut room.mins);
        let lines = groups.len() * GROUP_QUANTS / 64;
        let quants = if self.layout.bits == 8 {
            &self.quants[(panel * self.columns / GROUP + groups.start) * GROUP_QUANTS / 64..][..lines]
        } else {
            for (group, target) in groups.zip(room.quants.chunks_mut(GROUP_QUANTS / 64)) {
                self.expand_quants(panel, group, target);
            }
            &room.quants[..lines]
        };
        Operand { quants: flat(quants), scales: &room.scales[..num_scales], mins: &room.mins[..num_mins] }
    }

    /// The stored quants that lie behind column `end` of panel `panel`, as many as are put together at a time: what is needed next.
    pub fn behind(&self, panel: usize, end: usize) -> &[u8] {
        let lines = self.layout.quant_bytes() / 64;
        let start = ((panel * self.columns + end) / GROUP * lines).min(self.quants.len());
        flat(&self.quants[start..(start + MOST_GROUPS * lines).min(self.quants.len())])
    }

    fn expand_quants(&self, panel: usize, group: usize, target: &mut [Line]) {
        let lines = self.layout.quant_bytes() / 64;
        let source = &self.quants[(panel * self.columns / GROUP + group) * lines..][..lines];
        match self.layout.bits {
            4 => dispatch(Expand::<0> { source, target }),
            5 => dispatch(Expand::<1> { source, target }),
            6 => dispatch(Expand::<2> { source, target }),
            _ => target.copy_from_slice(source),
        }
    }

    /// Scales and mins of a panel's groups as f32; how many of each.
    fn expand_scales(
        &self,
        panel: usize,
        groups: std::ops::Range<usize>,
        scales: &mut [f32],
        mins: &mut [f32],
    ) -> (usize, usize) {
        let (layout, subs) = (self.layout, self.layout.subs());
        let counts = (groups.len() * subs * PANEL, if layout.kind.has_mins { groups.len() * PANEL } else { 0 });
        let (run, first) = (layout.run(), panel * self.columns + groups.start * GROUP);
        let runs = first / run * PANEL..(first + groups.len() * GROUP).div_ceil(run) * PANEL;
        let expand = |factors: &Factors, products: usize, target: &mut [f32]| {
            let halves = &factors.halves[runs.clone()];
            if layout.scales == Scales::Halves {
                return halves.convert_to_f32_slice(target);
            }
            let products = &factors.products[first / GROUP * products * PANEL..][..target.len()];
            match layout.kind.sub_group {
                GROUP => dispatch(Multiply::<false> { halves, products, target }),
                _ => dispatch(Multiply::<true> { halves, products, target }),
            }
        };
        expand(&self.scales, subs, &mut scales[..counts.0]);
        if layout.kind.has_mins {
            expand(&self.mins, 1, &mut mins[..counts.1]);
        }
        counts
    }

    /// Widens `target.len()` columns, at most 256, from `first` on of panel `panel`; both are multiples of 32.
    pub fn widen(&self, panel: usize, first: usize, target: &mut [PanelRow<f32>]) {
        let QuantKind { zero, sub_group, has_mins } = self.layout.kind;
        let (mut scales, mut mins) = ([0f32; 2 * MOST_GROUPS * PANEL], [0f32; MOST_GROUPS * PANEL]);
        let groups = first / GROUP..(first + target.len()) / GROUP;
        self.expand_scales(panel, groups.clone(), &mut scales, &mut mins);
        let mut quants = [Line([0; 8]); GROUP_QUANTS / 64];
        for (index, (group, target)) in groups.zip(target.chunks_mut(GROUP)).enumerate() {
            self.expand_quants(panel, group, &mut quants);
            let quants = flat(&quants);
            for (k, target) in target.iter_mut().enumerate() {
                let scales = &scales[(index * GROUP + k) / sub_group * PANEL..][..PANEL];
                for (lane, (value, scale)) in target.0.iter_mut().zip(scales).enumerate() {
                    let quant = i32::from(quants[k / 4 * 4 * PANEL + lane * 4 + k % 4]) - i32::from(zero);
                    *value = scale * quant as f32;
                    if has_mins {
                        *value -= mins[index * PANEL + lane];
                    }
                }
            }
        }
    }

    /// Widens row `row` to `target` [columns].
    pub fn copy_row(&self, row: usize, target: &mut [f32]) {
        let mut wide = [PanelRow([0f32; PANEL]); GROUP];
        for (group, target) in target.chunks_mut(GROUP).enumerate() {
            self.widen(row / PANEL, group * GROUP, &mut wide);
            target.iter_mut().zip(&wide).for_each(|(value, wide)| *value = wide.0[row % PANEL]);
        }
    }
}

fn flat(lines: &[Line]) -> &[u8] {
    // SAFETY: a line is 64 bytes without padding, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
}

fn flat_mut(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: as of `flat`; the borrow is handed on.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
}

/// Quants of 4 + HIGH bits, eight bytes at once, of which nothing crosses from one to the next: the low four of quants i and
/// 512 + i share byte i; of the high ones, byte i holds those of quants i, i + 1024 HIGH / 8, and so on, the first lowest.
struct Expand<'a, const HIGH: usize> {
    source: &'a [Line],
    target: &'a mut [Line],
}

impl<const HIGH: usize> Vectorised for Expand<'_, HIGH> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        const fn every(byte: u64) -> u64 {
            byte * 0x0101_0101_0101_0101
        }
        let (low, high) = self.source.split_at(GROUP_QUANTS / 2 / 64);
        let (low, high) = (words(low), words(high));
        let target = words_mut(self.target);
        let (first, second) = target.split_at_mut(low.len());
        first.iter_mut().zip(low).for_each(|(target, low)| *target = low & every(15));
        second.iter_mut().zip(low).for_each(|(target, low)| *target = (low >> 4) & every(15));
        if HIGH > 0 {
            for (part, target) in target.chunks_exact_mut(GROUP_QUANTS / 64 * HIGH).enumerate() {
                for (target, high) in target.iter_mut().zip(high) {
                    *target |= ((high >> (part * HIGH)) & every((1 << HIGH) - 1)) << 4;
                }
            }
        }
    }
}

fn words(lines: &[Line]) -> &[u64] {
    // SAFETY: a line is eight words without padding, aligned to more than a word.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 8) }
}

fn words_mut(lines: &mut [Line]) -> &mut [u64] {
    // SAFETY: as of `words`; the borrow is handed on.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 8) }
}

/// A run's number of each row times its integers. `SIGNED`: these are signed.
struct Multiply<'a, const SIGNED: bool> {
    halves: &'a [f16],
    products: &'a [u8],
    target: &'a mut [f32],
}

impl<const SIGNED: bool> Vectorised for Multiply<'_, SIGNED> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        // All of a call's columns lie in one run.
        let Some(halves) = self.halves.first_chunk::<PANEL>() else { return };
        let mut factors = [0f32; PANEL];
        factors.iter_mut().zip(halves).for_each(|(factor, half)| *factor = wide(*half));
        let products = self.products.as_chunks::<PANEL>().0;
        for (target, products) in self.target.as_chunks_mut::<PANEL>().0.iter_mut().zip(products) {
            for ((value, factor), &by) in target.iter_mut().zip(&factors).zip(products) {
                *value = factor * if SIGNED { f32::from(by as i8) } else { f32::from(by) };
            }
        }
    }
}

/// f16 to f32 by integer arithmetic that compilers vectorise; exact. (Rebias by a product: F. Giesen, "half_to_float_fast4", 2012,
/// public domain idea.)
#[inline(always)]
fn wide(half: f16) -> f32 {
    let bits = u32::from(half.to_bits());
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((254 - 15) << 23);
    let special = if bits & 0x7c00 == 0x7c00 { 0xff << 23 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16)
}

/// One panel while rows are stored.
struct PanelMut<'a> {
    layout: Layout,
    quants: &'a mut [Line],
    /// Halves and products.
    scales: (&'a mut [f16], &'a mut [u8]),
    mins: (&'a mut [f16], &'a mut [u8]),
}

impl PanelMut<'_> {
    /// Stores a row's block that begins at column `first`.
    fn store(&mut self, lane: usize, first: usize, block: &Block) {
        let (layout, has_mins) = (self.layout, self.layout.kind.has_mins);
        let at = first / layout.run() * PANEL + lane;
        self.scales.0[at] = block.halves[0];
        if has_mins {
            self.mins.0[at] = block.halves[1];
        }
        for (index, quants) in block.quants[..block.len].chunks_exact(GROUP).enumerate() {
            let group = first / GROUP + index;
            let lines = layout.quant_bytes() / 64;
            let target = flat_mut(&mut self.quants[group * lines..][..lines]);
            for (k, &quant) in quants.iter().enumerate() {
                let at = k / 4 * 4 * PANEL + lane * 4 + k % 4;
                if layout.bits == 8 {
                    target[at] = quant;
                    continue;
                }
                let half = GROUP_QUANTS / 2;
                target[at % half] |= (quant & 15) << (at / half * 4);
                let high = layout.bits - 4;
                if high > 0 {
                    let part = GROUP_QUANTS / 8 * high;
                    target[half + at % part] |= (quant >> 4) << (at / part * high);
                }
            }
            let count = layout.products();
            for which in 0..count {
                let scale = block.scales[index * count + which];
                self.scales.1[(group * count + which) * PANEL + lane] = scale;
            }
            if has_mins && count > 0 {
                self.mins.1[group * PANEL + lane] = block.mins[index];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let (got, want) = (wide(half), half.to_f32());
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#x}: {got} {want}");
        }
    }
}

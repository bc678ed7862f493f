//! Dense matrices as panels that the f32 tile reads in one stream, whatever format they are stored in.
//! Knows one matrix and how its rows lie in memory; knows nothing of what the layer is for.

use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;
use half::{bf16, f16};
use rayon::prelude::*;

use super::blocks::DEPTH;
use super::packing::{Fetch, row_blocks};
use super::product::{InputForm, Job, WeightMatrix, locate};
use super::simd::{Isa, Vectorised, dispatch};
use super::stored::MatrixView;
use super::tile::{Element, PANEL, PanelRow, Start, Tile};

/// Packs matrices stacked by rows, straight from their bytes, as `dtype`.
pub fn matrix(dtype: DType, sources: &[MatrixView<'_>]) -> Arc<dyn WeightMatrix> {
    match dtype {
        DType::BF16 => Arc::new(Packed::<bf16>::new(sources)),
        DType::F16 => Arc::new(Packed::<f16>::new(sources)),
        _ => Arc::new(Packed::<f32>::new(sources)),
    }
}

/// A tile but for its panel.
struct Part {
    rows: usize,
    depth: usize,
    a: *const f32,
    c: *mut f32,
    start: Start,
    next: Fetch,
}

impl Part {
    fn tile<T>(&self, b: *const T) -> Tile<T> {
        let Self { rows, depth, a, c, start, next } = *self;
        Tile { rows, columns: PANEL, depth, a, a_stride: rows, b, b_stride: PANEL, c, c_stride: PANEL, start, next }
    }
}

/// Panel rows as f32.
struct WidenRows<'a, T> {
    source: &'a [PanelRow<T>],
    target: &'a mut [PanelRow<f32>],
}

impl<T: Element> Vectorised for WidenRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (target, source) in self.target.iter_mut().zip(self.source) {
            T::widen_row(&source.0, &mut target.0);
        }
    }
}

/// W as panels of 32 output features, each k-major: what `Tile` reads in one stream. Padded with zero rows.
struct Packed<T> {
    panels: Vec<PanelRow<T>>,
    out_features: usize,
    in_features: usize,
}

impl<T: Element> Packed<T> {
    fn new(sources: &[MatrixView<'_>]) -> Self {
        let in_features = sources.first().map_or(0, |source| source.columns);
        let out_features = sources.iter().map(|source| source.rows).sum();
        let num_panels = usize::div_ceil(out_features, PANEL);
        let mut panels = vec![PanelRow([T::ZERO; PANEL]); num_panels * in_features];
        panels.par_chunks_mut(in_features.max(1)).enumerate().for_each(|(panel, rows)| {
            for lane in 0..PANEL {
                let Some((source, row)) = locate(sources, panel * PANEL + lane) else { break };
                for (k, target) in rows.iter_mut().enumerate() {
                    target.0[lane] = T::from_f32(source.element(row * in_features + k));
                }
            }
        });
        Self { panels, out_features, in_features }
    }
}

impl<T: Element> WeightMatrix for Packed<T> {
    fn rows(&self) -> usize {
        self.out_features
    }

    fn columns(&self) -> usize {
        self.in_features
    }

    fn input_form(&self) -> InputForm {
        InputForm::Dense
    }

    fn run(&self, panels: Range<usize>, job: &Job<'_>) {
        let (isa, k, rows) = (Isa::detect(), self.in_features, job.x.rows);
        let x = &job.x.dense;
        let panel_at = |panel: usize| self.panels[panel * k..].as_ptr().cast::<T>();
        let num_blocks = row_blocks(rows).count();
        // Halves are widened once for all rows, or in the tile if there is but one block of these.
        let widens = size_of::<T>() < size_of::<f32>() && num_blocks > 1;
        let mut wide = if widens { vec![PanelRow([0f32; PANEL]); DEPTH.min(k)] } else { Vec::new() };
        // All rows pass over a part of a panel while it is in the first cache and the next part is fetched. Their sums lie side by
        // side meanwhile, and go on from where they were: the same bits.
        let mut sums = vec![PanelRow([0f32; PANEL]); rows];
        for panel in panels.clone() {
            let width = (self.out_features - panel * PANEL).min(PANEL);
            for first in (0..k).step_by(DEPTH) {
                let depth = DEPTH.min(k - first);
                let part = &self.panels[panel * k + first..][..depth];
                let behind = (panel * k + first + depth)..(panels.end * k).min(panel * k + first + 2 * depth);
                let behind = &self.panels[behind];
                if widens {
                    dispatch(WidenRows { source: part, target: &mut wide });
                }
                for (index, block) in row_blocks(rows).enumerate() {
                    let part = Part {
                        rows: block.len(),
                        depth,
                        a: x[block.start * k + first * block.len()..].as_ptr(),
                        c: sums[block.start..].as_mut_ptr().cast(),
                        start: if first == 0 { job.start(panel) } else { Start::Accumulate },
                        next: Fetch::part(behind.as_ptr().cast(), size_of_val(behind), index, num_blocks),
                    };
                    // SAFETY: the tile lies within x's blocks, this panel's part, and the sums of these rows; the first part
                    // writes what the later ones add to.
                    unsafe {
                        match widens {
                            true => part.tile(wide.as_ptr().cast::<f32>()).run(isa),
                            false => part.tile(panel_at(panel).wrapping_add(first * PANEL)).run(isa),
                        }
                    }
                    if first + depth == k {
                        block.for_each(|row| job.store(panel, width, row, &sums[row].0));
                    }
                }
            }
        }
    }

    fn copy_row(&self, row: usize, target: &mut [f32]) {
        let panel = &self.panels[row / PANEL * self.in_features..][..self.in_features];
        for (value, source) in target.iter_mut().zip(panel) {
            *value = source.0[row % PANEL].to_f32();
        }
    }
}

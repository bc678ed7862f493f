//! What a matrix of weights is in a product, whatever its form: it says how it takes the batch, computes runs of panels, and puts
//! their outputs where the job says. Knows one product; knows nothing of formats of weights, nor of layers.

use std::ops::Range;

use rayon::prelude::*;

use super::SharedOut;
use super::bf16x3::Thirds;
use super::packing::{pack_rows, row_blocks};
use super::rounded::Rounded;
use super::simd::{Vectorised, dispatch};
use super::stored::MatrixView;
use super::tile::{PANEL, Start};

/// A matrix W [rows, columns] in a form that the CPU multiplies with. Its outputs are computed in panels of 32.
pub trait WeightMatrix: Send + Sync {
    /// Output features.
    fn rows(&self) -> usize;

    /// Input features.
    fn columns(&self) -> usize;

    /// The form in which [`Self::run`] takes the batch.
    fn input_form(&self) -> InputForm;

    /// Computes the outputs of `panels` for every row of the batch.
    fn run(&self, panels: Range<usize>, job: &Job<'_>);

    /// Widens row `row` (one token's embedding) to `target` [columns].
    fn copy_row(&self, row: usize, target: &mut [f32]);
}

/// All elements of a matrix, widened, row-major.
pub fn widened(matrix: &dyn WeightMatrix) -> Vec<f32> {
    let columns = matrix.columns();
    let mut wide = vec![0f32; matrix.rows() * columns];
    wide.par_chunks_mut(columns).enumerate().for_each(|(row, target)| matrix.copy_row(row, target));
    wide
}

/// The stacked row `row` of several matrices: which of them, and which row of it.
pub fn locate<'a, 'b>(sources: &'b [MatrixView<'a>], row: usize) -> Option<(&'b MatrixView<'a>, usize)> {
    let mut row = row;
    for source in sources {
        if row < source.rows {
            return Some((source, row));
        }
        row -= source.rows;
    }
    None
}

/// How a batch enters a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputForm {
    /// As f32 in k-major blocks of rows.
    Dense,
    /// Rounded to 8 bits.
    Rounded,
    /// As sums of three bf16 numbers each.
    Thirds,
}

/// x [rows, k] in the forms that a stack's matrices multiply with; kept from product to product for its memory.
#[derive(Default)]
pub struct Inputs {
    /// Consecutive blocks of [`row_blocks`], each k-major; empty if no matrix takes them.
    pub(super) dense: Vec<f32>,
    /// Of no rows if no matrix takes them.
    pub(super) rounded: Rounded,
    /// Of no rows if no matrix takes them.
    pub(super) thirds: Thirds,
    /// Rows of the batch.
    pub(super) rows: usize,
}

impl Inputs {
    /// Takes the batch in the forms that `taken` names.
    pub(super) fn load(&mut self, x: &[f32], k: usize, taken: impl Iterator<Item = InputForm> + Clone) {
        self.rows = x.len() / k;
        let needed = |form| if taken.clone().any(|taken| taken == form) { x } else { &[][..] };
        pack(needed(InputForm::Dense), k, &mut self.dense);
        self.rounded.load(needed(InputForm::Rounded), k);
        self.thirds.load(needed(InputForm::Thirds), k);
    }
}

fn pack(x: &[f32], k: usize, packed: &mut Vec<f32>) {
    packed.resize(x.len(), 0.0);
    let mut rest = &mut packed[..];
    let mut blocks = Vec::new();
    for block in row_blocks(x.len() / k) {
        let (target, behind) = rest.split_at_mut(block.len() * k);
        rest = behind;
        blocks.push((&x[block.start * k..block.end * k], target));
    }
    let pack = |(x, target): (&[f32], &mut [f32])| pack_rows(x, k, target.len() / k, k, target);
    match x.len() < super::PARALLEL_FROM {
        true => blocks.into_iter().for_each(pack),
        false => blocks.into_par_iter().for_each(pack),
    }
}

/// What one matrix of a stack computes in a product: the batch, where its outputs go, what is added.
pub struct Job<'a> {
    /// The batch.
    pub(super) x: &'a Inputs,
    /// This matrix's part of the bias, with room for a whole last panel.
    pub(super) bias: Option<&'a [f32]>,
    /// This matrix's first output of the batch's first row.
    pub(super) out: SharedOut,
    /// Outputs of the whole stack: the distance between rows.
    pub(super) stride: usize,
}

impl Job<'_> {
    /// What a panel's sums start from.
    pub(super) fn start(&self, panel: usize) -> Start {
        self.bias.map_or(Start::Zero, |bias| Start::Row(bias[panel * PANEL..][..PANEL].as_ptr()))
    }

    /// The same as numbers.
    pub(super) fn start_row(&self, panel: usize) -> [f32; PANEL] {
        let bias = self.bias.and_then(|bias| bias[panel * PANEL..].first_chunk());
        bias.copied().unwrap_or([0.0; PANEL])
    }

    /// Copies a panel's `sums` for consecutive rows from `row` on to their places; of a matrix of `out_features`.
    pub(super) fn store_rows(&self, panel: usize, out_features: usize, row: usize, sums: &[[f32; PANEL]]) {
        let width = (out_features - panel * PANEL).min(PANEL);
        dispatch(StoreRows { job: self, panel, width, row, sums });
    }

    /// Copies the first `width` of a panel's sums for one row to their place.
    #[inline(always)]
    pub(super) fn store(&self, panel: usize, width: usize, row: usize, sums: &[f32; PANEL]) {
        let target = self.out.at(row * self.stride + panel * PANEL);
        // SAFETY: `width` outputs of this panel in a row of the batch, which no other task writes.
        unsafe {
            match width {
                // Of a known length: a few moves instead of a call.
                PANEL => target.cast::<[f32; PANEL]>().write_unaligned(*sums),
                _ => std::ptr::copy_nonoverlapping(sums.as_ptr(), target, width),
            }
        }
    }
}

/// [`Job::store_rows`] for the instruction set at hand.
struct StoreRows<'a> {
    job: &'a Job<'a>,
    panel: usize,
    width: usize,
    row: usize,
    sums: &'a [[f32; PANEL]],
}

impl Vectorised for StoreRows<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { job, panel, width, row, sums } = self;
        sums.iter().enumerate().for_each(|(index, sums)| job.store(panel, width, row + index, sums));
    }
}

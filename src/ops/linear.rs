//! Linear layers and embeddings' shared matrix: y = x Wᵀ + b, W packed once at load or kept in quantised blocks.
//! Knows a stack of matrices and how their rows lie in memory; knows nothing of what the layer is for.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Result, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::blocks::{self, BlockMatrix, DEPTH};
use super::packing::{Fetch, pack_rows, row_blocks};
use super::rounded::Rounded;
use super::simd::{Isa, Vectorised, dispatch};
pub use super::stored::{MatrixView, StoredFormat};
use super::tile::{Element, PANEL, PanelRow, Start, Tile};
use super::workspace::{Slot, Workspace, with_slice, with_slice_mut};
use super::{Compute, OpsPath, SharedOut};

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
pub struct Packed<T> {
    panels: Vec<PanelRow<T>>,
    out_features: usize,
    in_features: usize,
}

impl<T: Element> Packed<T> {
    /// Packs matrices stacked by rows, straight from their bytes.
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

    /// Computes the outputs of `panels` for every row of the batch.
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

    /// Copies output-feature row `row` of W (one token's embedding) to `target` [in].
    fn copy_row(&self, row: usize, target: &mut [f32]) {
        let panel = &self.panels[row / PANEL * self.in_features..][..self.in_features];
        for (value, source) in target.iter_mut().zip(panel) {
            *value = source.0[row % PANEL].to_f32();
        }
    }
}

/// The stacked row `row`: which matrix, and which row of it.
fn locate<'a, 'b>(sources: &'b [MatrixView<'a>], row: usize) -> Option<(&'b MatrixView<'a>, usize)> {
    let mut row = row;
    for source in sources {
        if row < source.rows {
            return Some((source, row));
        }
        row -= source.rows;
    }
    None
}

/// x [rows, k] in the forms that a stack's matrices multiply with; kept from product to product for its memory.
#[derive(Default)]
pub struct Inputs {
    /// Consecutive blocks of [`row_blocks`], each k-major; empty if no matrix takes them.
    pub(super) dense: Vec<f32>,
    /// The same rounded to 8 bits; of no rows if no matrix takes them.
    pub(super) rounded: Rounded,
    /// Rows of the batch.
    pub(super) rows: usize,
}

impl Inputs {
    fn load(&mut self, x: &[f32], k: usize, weights: &[Weight]) {
        let rounds = |weight: &Weight| matches!(weight, Weight::Blocks(blocks) if blocks.rounds_inputs());
        self.rows = x.len() / k;
        let dense = if weights.iter().all(rounds) { &[][..] } else { x };
        pack(dense, k, &mut self.dense);
        let rounded = if weights.iter().any(rounds) { x } else { &[][..] };
        self.rounded.load(rounded, k);
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
    bias: Option<&'a [f32]>,
    /// This matrix's first output of the batch's first row.
    out: SharedOut,
    /// Outputs of the whole stack: the distance between rows.
    stride: usize,
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

    /// Copies the first `width` of a panel's sums for one row to their place.
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

/// A matrix in the form that the CPU multiplies with.
#[derive(Clone)]
enum Weight {
    F32(Arc<Packed<f32>>),
    Bf16(Arc<Packed<bf16>>),
    F16(Arc<Packed<f16>>),
    Blocks(Arc<dyn BlockMatrix>),
}

impl Weight {
    fn packed(dtype: DType, sources: &[MatrixView<'_>]) -> Self {
        match dtype {
            DType::BF16 => Self::Bf16(Arc::new(Packed::new(sources))),
            DType::F16 => Self::F16(Arc::new(Packed::new(sources))),
            _ => Self::F32(Arc::new(Packed::new(sources))),
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::F32(packed) => packed.out_features,
            Self::Bf16(packed) => packed.out_features,
            Self::F16(packed) => packed.out_features,
            Self::Blocks(blocks) => blocks.rows(),
        }
    }

    fn run(&self, panels: Range<usize>, job: &Job<'_>) {
        match self {
            Self::F32(packed) => packed.run(panels, job),
            Self::Bf16(packed) => packed.run(panels, job),
            Self::F16(packed) => packed.run(panels, job),
            Self::Blocks(blocks) => blocks.run(panels, job),
        }
    }

    fn copy_row(&self, row: usize, target: &mut [f32]) {
        match self {
            Self::F32(packed) => packed.copy_row(row, target),
            Self::Bf16(packed) => packed.copy_row(row, target),
            Self::F16(packed) => packed.copy_row(row, target),
            Self::Blocks(blocks) => blocks.copy_row(row, target),
        }
    }
}

/// The whole stack.
#[derive(Clone)]
enum Form {
    /// For the native path: dense matrices that follow each other are one, each in blocks stands for itself.
    Native(Vec<Weight>),
    /// [out, in], for the portable path.
    Portable(Tensor),
}

/// y = x Wᵀ + b for one or several matrices stacked by rows. Cloning shares the weights.
#[derive(Clone)]
pub struct Linear {
    form: Form,
    /// With room for a whole last panel.
    bias: Option<Arc<Vec<f32>>>,
    out_features: usize,
    in_features: usize,
}

impl Linear {
    /// Takes `sources` (stacked by rows, all with the same columns, each in its own format) and `bias` [sum of rows]. What is
    /// stored in blocks stays in them; what is dense is kept in the compute's formats.
    ///
    /// # Errors
    /// If sizes or formats do not fit each other.
    pub fn new(compute: &Compute, sources: &[MatrixView<'_>], bias: Option<Vec<f32>>) -> Result<Self> {
        let Some(in_features) = sources.first().map(|source| source.columns) else {
            candle_core::bail!("a linear layer of no matrix")
        };
        for source in sources {
            source.validate()?;
            if source.columns != in_features {
                candle_core::bail!("stacked matrices have {in_features} and {} columns", source.columns)
            }
        }
        let out_features: usize = sources.iter().map(|source| source.rows).sum();
        if let Some(bias) = &bias
            && bias.len() != out_features
        {
            candle_core::bail!("a bias of {} for {out_features} outputs", bias.len())
        }
        let form = match compute.path {
            OpsPath::Portable => Form::Portable(portable(compute, sources)?),
            OpsPath::Native => Form::Native(native(compute, sources)?),
        };
        let bias = bias.map(|mut bias| {
            bias.resize(out_features + PANEL, 0.0);
            Arc::new(bias)
        });
        Ok(Self { form, bias, out_features, in_features })
    }

    /// Output features.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Input features.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// x [rows, in] to y [rows, out], in x's dtype.
    ///
    /// # Errors
    /// If x has another width or lies on another device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = |_: &mut Workspace, rows| Tensor::zeros((rows, self.out_features), DType::F32, x.device());
        self.run(&mut Workspace::default(), x, y)
    }

    /// The same, on the native path into a buffer of `workspace`.
    ///
    /// # Errors
    /// As for [`Self::forward`].
    pub fn forward_in(&self, workspace: &mut Workspace, slot: Slot, x: &Tensor) -> Result<Tensor> {
        self.run(workspace, x, |workspace, rows| workspace.rows(slot, x.device(), rows, self.out_features))
    }

    /// The same, on the native path to `y`, rows [rows, out] of f32 that lie elsewhere than x and are returned.
    ///
    /// # Errors
    /// As for [`Self::forward`], and if y has another shape.
    pub fn forward_to(&self, workspace: &mut Workspace, y: &Tensor, x: &Tensor) -> Result<Tensor> {
        self.run(workspace, x, |_, rows| match y.dims2()? == (rows, self.out_features) {
            true => Ok(y.clone()),
            false => candle_core::bail!("{rows} rows of {} outputs to {:?}", self.out_features, y.shape()),
        })
    }

    fn run(
        &self,
        workspace: &mut Workspace,
        x: &Tensor,
        target: impl FnOnce(&mut Workspace, usize) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let weights = match &self.form {
            Form::Portable(weight) => return self.portable(x, weight),
            Form::Native(weights) => weights,
        };
        let (rows, columns) = x.dims2()?;
        if columns != self.in_features {
            candle_core::bail!("a linear layer of {} inputs got rows of {columns}", self.in_features)
        }
        let started = Instant::now();
        let y = target(workspace, rows)?;
        with_slice(x, |x| {
            workspace.inputs.load(x, columns, weights);
            Ok(())
        })?;
        with_slice_mut(&y, |y| {
            self.native(&workspace.inputs, weights, y);
            Ok(())
        })?;
        workspace.times.products_s += started.elapsed().as_secs_f64();
        Ok(y)
    }

    /// y [rows, out] = x [rows, in] Wᵀ + bias.
    fn native(&self, x: &Inputs, weights: &[Weight], y: &mut [f32]) {
        let n = self.out_features;
        let out = SharedOut(y.as_mut_ptr());
        // Enough pieces to balance, few enough that a thread streams long runs of panels.
        let num_panels: usize = weights.iter().map(|weight| weight.rows().div_ceil(PANEL)).sum();
        let per_task = num_panels.div_ceil(rayon::current_num_threads() * 4).max(1);
        let mut tasks = Vec::new();
        let mut first_row = 0;
        for weight in weights {
            let panels = weight.rows().div_ceil(PANEL);
            let job = Job {
                x,
                bias: self.bias.as_ref().map(|bias| &bias[first_row..]),
                out: SharedOut(out.at(first_row)),
                stride: n,
            };
            let job = Arc::new(job);
            for first in (0..panels).step_by(per_task) {
                tasks.push((weight, first..(first + per_task).min(panels), job.clone()));
            }
            first_row += weight.rows();
        }
        tasks.into_par_iter().for_each(|(weight, panels, job)| weight.run(panels, &job));
    }

    fn portable(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&weight.t()?)?;
        match &self.bias {
            None => Ok(y),
            Some(bias) => {
                let bias = Tensor::from_slice(&bias[..self.out_features], self.out_features, x.device())?;
                y.broadcast_add(&bias.to_dtype(y.dtype())?)
            }
        }
    }

    /// Rows `ids` of W as a [ids.len(), in] tensor: an embedding look-up that shares the head's matrix.
    ///
    /// # Errors
    /// If an id is not a row of W.
    pub fn gather_rows(&self, compute: &Compute, ids: &[u32]) -> Result<Tensor> {
        let rows = Tensor::zeros((ids.len(), self.in_features), DType::F32, &compute.device)?;
        self.gather_rows_to(compute, ids, rows)
    }

    /// The same, on the native path to `rows` [ids.len(), in].
    pub(super) fn gather_rows_to(&self, compute: &Compute, ids: &[u32], rows: Tensor) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.out_features) {
            candle_core::bail!("token id {id} is outside the vocabulary of {}", self.out_features)
        }
        let weights = match &self.form {
            Form::Native(weights) => weights,
            Form::Portable(weight) => {
                let ids = Tensor::new(ids, &compute.device)?;
                return weight.index_select(&ids, 0)?.to_dtype(compute.activation_dtype);
            }
        };
        let k = self.in_features;
        let each = |(&id, target): (&u32, &mut [f32])| {
            let mut row = id as usize;
            for weight in weights {
                if row < weight.rows() {
                    return weight.copy_row(row, target);
                }
                row -= weight.rows();
            }
        };
        with_slice_mut(&rows, |rows| {
            match rows.len() < super::PARALLEL_FROM {
                true => ids.iter().zip(rows.chunks_mut(k)).for_each(each),
                false => ids.par_iter().zip(rows.par_chunks_mut(k)).for_each(each),
            }
            Ok(())
        })?;
        Ok(rows)
    }
}

/// The stacked matrices for the native path.
fn native(compute: &Compute, sources: &[MatrixView<'_>]) -> Result<Vec<Weight>> {
    let mut weights = Vec::new();
    for run in sources.chunk_by(|a, b| compute.blocks_of(a).is_none() && compute.blocks_of(b).is_none()) {
        weights.push(match compute.blocks_of(&run[0]) {
            None => Weight::packed(compute.weight_dtype, run),
            Some(format) => Weight::Blocks(blocks::matrix(format, &run[0], compute.block_inputs)?),
        });
    }
    Ok(weights)
}

/// The stacked matrices as one [out, in] tensor in the compute's weight format.
fn portable(compute: &Compute, sources: &[MatrixView<'_>]) -> Result<Tensor> {
    let parts = sources.iter().map(|source| super::dense(compute, source)).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&parts, 0)?.contiguous()
}

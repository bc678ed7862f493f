//! Linear layers and embeddings' shared matrix: y = x Wᵀ + b, W packed once at load or kept in quantised blocks.
//! Knows a stack of matrices and how their rows lie in memory; knows nothing of what the layer is for.

mod device;
mod own;

use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use device::DeviceMatrix;
pub(super) use device::product;
pub(super) use own::by_all_warpgroup_tiles;

use super::blocks::DeviceBlocks;
use super::embedding::gather;
use super::product::{Inputs, Job, WeightMatrix};
pub use super::stored::{MatrixView, StoredFormat};
use super::tile::PANEL;
use super::tile16::TileUnit;
use super::workspace::{Slot, Workspace, with_slice, with_slice_mut};
use super::{Compute, Kernels, Loading, Runs, SharedOut, bf16x3, blocks, packed};

/// How products with dense weights are summed. In f32 to the last bits or so, and each gives a row the same bits in any batch; but they differ
/// in these last bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseProducts {
    /// One chain of fused multiply-adds for each output.
    Fma,
    /// Inputs in three bf16 parts, for weights that bf16 holds exactly; the others as [`Self::Fma`]. Several times as fast where the
    /// processor has a matrix unit (AMX), and slower elsewhere.
    Bf16x3,
    /// On a CUDA device our own kernels, also where cuBLASLt's would do; on the processor as [`Self::Fma`].
    Own,
}

impl DenseProducts {
    /// The faster one on this processor.
    pub fn detect() -> Self {
        match TileUnit::detect() {
            TileUnit::Vectors => Self::Fma,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            TileUnit::Amx(_) => Self::Bf16x3,
        }
    }
}

/// A matrix of a stack.
type Weight = Arc<dyn WeightMatrix>;

/// The whole stack.
#[derive(Clone)]
enum Form {
    /// For the native path: dense matrices that follow each other are one, each in blocks stands for itself.
    Native(Vec<Weight>),
    /// On a CUDA device.
    Cuda(DeviceMatrix),
    /// On a CUDA device, in blocks: a matrix for each run of sources of one format, and the format of the results.
    CudaBlocks(Vec<DeviceBlocks>, DType),
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
        Self::new_in(compute, &mut Loading::default(), sources, bias)
    }

    /// The same, as one of several on the way to a device.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn new_in(
        compute: &Compute,
        loading: &mut Loading,
        sources: &[MatrixView<'_>],
        bias: Option<Vec<f32>>,
    ) -> Result<Self> {
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
        let form = match compute.runs() {
            Runs::Candle => Form::Portable(stacked(compute, loading, sources)?),
            Runs::Cpu => Form::Native(native(compute, sources)?),
            Runs::Cuda(kernels) => on_device(compute, loading, &kernels, sources, bias.as_deref())?,
        };
        let bias = bias.map(|mut bias| {
            bias.resize(out_features + PANEL, 0.0);
            Arc::new(bias)
        });
        Ok(Self { form, bias, out_features, in_features })
    }

    /// The same with results in f32, whatever x is: for logits.
    ///
    /// # Errors
    /// If the device cannot.
    pub fn with_wide_results(mut self, loading: &mut Loading) -> Result<Self> {
        let bias = self.bias.as_ref().map(|bias| &bias[..self.out_features]);
        self.form = match self.form {
            Form::Cuda(matrix) => Form::Cuda(matrix.with_output(loading, DType::F32, bias)?),
            Form::CudaBlocks(parts, _) => Form::CudaBlocks(parts, DType::F32),
            other => other,
        };
        Ok(self)
    }

    /// Rows `ids` (u32, on the device) of W on a CUDA device, to `target`: a look-up that shares the head's matrix, or a table in blocks.
    pub(super) fn gather_on_device(&self, kernels: &Kernels, ids: &Tensor, target: &Tensor) -> Result<()> {
        match &self.form {
            Form::Cuda(matrix) => gather(kernels, &matrix.weight, ids, target),
            Form::CudaBlocks(parts, _) => match &parts[..] {
                [table] => table.gather(ids, target),
                parts => candle_core::bail!("a table in {} formats", parts.len()),
            },
            Form::Native(_) | Form::Portable(_) => candle_core::bail!("a table that is not on the device"),
        }
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
        let dtype = self.output_dtype();
        let y = |_: &mut Workspace, rows| Tensor::zeros((rows, self.out_features), dtype, x.device());
        self.run(&mut Workspace::default(), x, y)
    }

    /// The same, on the native path into a buffer of `workspace`.
    ///
    /// # Errors
    /// As for [`Self::forward`].
    pub fn forward_in(&self, workspace: &mut Workspace, slot: Slot, x: &Tensor) -> Result<Tensor> {
        let dtype = self.output_dtype();
        self.run(workspace, x, |workspace, rows| workspace.rows_of(dtype, slot, x.device(), rows, self.out_features))
    }

    /// Format of the results, but on the portable path.
    fn output_dtype(&self) -> DType {
        match &self.form {
            Form::Cuda(matrix) => matrix.output,
            Form::CudaBlocks(_, output) => *output,
            Form::Native(_) | Form::Portable(_) => DType::F32,
        }
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
            Form::Cuda(matrix) => {
                let y = target(workspace, x.dim(0)?)?;
                matrix.run(workspace, x, &y)?;
                return Ok(y);
            }
            Form::CudaBlocks(parts, _) => {
                let y = target(workspace, x.dim(0)?)?;
                let mut first = 0;
                for part in parts {
                    part.run(x, &y, first, None)?;
                    first += part.dims().1;
                }
                return Ok(y);
            }
            Form::Native(weights) => weights,
        };
        let (rows, columns) = x.dims2()?;
        if columns != self.in_features {
            candle_core::bail!("a linear layer of {} inputs got rows of {columns}", self.in_features)
        }
        let started = Instant::now();
        let y = target(workspace, rows)?;
        with_slice(x, |x| {
            workspace.inputs.load(x, columns, weights.iter().map(|weight| weight.input_form()));
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
        let num_threads = rayon::current_num_threads();
        let at_least = if num_panels >= bf16x3::GROUP * num_threads { bf16x3::GROUP } else { 1 };
        let per_task = num_panels.div_ceil(num_threads * 4).next_multiple_of(at_least).max(1);
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
            Form::Portable(weight) | Form::Cuda(DeviceMatrix { weight, .. }) => {
                let ids = Tensor::new(ids, &compute.device)?;
                return weight.index_select(&ids, 0)?.to_dtype(compute.activation_dtype);
            }
            Form::CudaBlocks(..) => {
                let rows = rows.to_dtype(compute.activation_dtype)?;
                let Runs::Cuda(kernels) = compute.runs() else { candle_core::bail!("a table on another device") };
                self.gather_on_device(&kernels, &Tensor::new(ids, &compute.device)?, &rows)?;
                return Ok(rows);
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

/// The stacked matrices for a CUDA device: in blocks if all of them are, else as one.
fn on_device(
    compute: &Compute,
    loading: &mut Loading,
    kernels: &Kernels,
    sources: &[MatrixView<'_>],
    bias: Option<&[f32]>,
) -> Result<Form> {
    let output = compute.activation_dtype;
    if sources.iter().any(|source| compute.device_blocks_of(source).is_none()) {
        let weight = stacked(compute, loading, sources)?;
        return Ok(Form::Cuda(DeviceMatrix::new(compute, loading, kernels.clone(), weight, bias, output)?));
    }
    let (mut parts, mut first) = (Vec::new(), 0);
    for run in sources.chunk_by(|a, b| compute.device_blocks_of(a) == compute.device_blocks_of(b)) {
        let Some(format) = compute.device_blocks_of(&run[0]) else { continue };
        let rows: usize = run.iter().map(|source| source.rows).sum();
        let bias = bias.map(|bias| &bias[first..first + rows]);
        parts.push(DeviceBlocks::new(kernels.clone(), loading, &compute.device, format, run, bias)?);
        first += rows;
    }
    Ok(Form::CudaBlocks(parts, output))
}

/// The stacked matrices for the native path.
fn native(compute: &Compute, sources: &[MatrixView<'_>]) -> Result<Vec<Weight>> {
    let mut weights = Vec::new();
    for run in sources.chunk_by(|a, b| compute.blocks_of(a).is_none() && compute.blocks_of(b).is_none()) {
        weights.push(match compute.blocks_of(&run[0]) {
            None => dense(compute, run),
            Some(format) => blocks::matrix(format, &run[0], compute.block_inputs)?,
        });
    }
    Ok(weights)
}

/// Stacked dense matrices as one.
fn dense(compute: &Compute, sources: &[MatrixView<'_>]) -> Weight {
    let thirds = match compute.products {
        DenseProducts::Bf16x3 => bf16x3::matrix(compute.weight_dtype, sources),
        DenseProducts::Fma | DenseProducts::Own => None,
    };
    thirds.unwrap_or_else(|| packed::matrix(compute.weight_dtype, sources))
}

/// The stacked matrices as one [out, in] tensor in the compute's weight format.
pub(super) fn stacked(compute: &Compute, loading: &mut Loading, sources: &[MatrixView<'_>]) -> Result<Tensor> {
    let parts = sources.iter().map(|source| super::dense(compute, loading, source)).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&parts, 0)?.contiguous()
}

//! Token embedding: rows of a table, or of the head's matrix when the two are tied.
//! Knows token ids as row numbers and nothing else about them.

use candle_core::{CpuStorage, DType, Result, Storage, Tensor};

use super::launch::{Launch, row_threads};
use super::linear::{Linear, MatrixView, StoredFormat};
use super::norm::StreamRows;
use super::workspace::{Slot, Workspace, with_slice_mut};
use super::{Compute, Kernels, Loading, Runs};

/// The embedding table [V, hidden].
#[derive(Clone)]
pub enum Embedding {
    /// A table of its own, dense.
    Table(Tensor),
    /// A table of its own, kept in blocks.
    Blocks(Linear),
    /// The head's matrix, stored once for both uses.
    Tied(Linear),
}

impl Embedding {
    /// A table of its own. On the native path 16 bits stay 16 bits where f32 is asked for: rows are widened, exactly, when they are
    /// taken.
    ///
    /// # Errors
    /// If size or format of the bytes do not fit.
    pub fn table(compute: &Compute, source: &MatrixView<'_>) -> Result<Self> {
        Self::table_in(compute, &mut Loading::default(), source)
    }

    /// The same, as one of several matrices on the way to a device.
    ///
    /// # Errors
    /// As for [`Self::table`].
    pub fn table_in(compute: &Compute, loading: &mut Loading, source: &MatrixView<'_>) -> Result<Self> {
        source.validate()?;
        match (compute.runs(), compute.blocks_of(source), source.format) {
            (Runs::Cpu, Some(_), _) => Ok(Self::Blocks(Linear::new_in(compute, loading, &[*source], None)?)),
            (Runs::Cuda(_), ..) if compute.device_blocks_of(source).is_some() => {
                Ok(Self::Blocks(Linear::new_in(compute, loading, &[*source], None)?))
            }
            (Runs::Cpu, None, StoredFormat::Dense(weight_dtype @ (DType::BF16 | DType::F16)))
                if compute.weight_dtype == DType::F32 =>
            {
                Ok(Self::Table(super::dense(&Compute { weight_dtype, ..compute.clone() }, loading, source)?))
            }
            _ => Ok(Self::Table(super::dense(compute, loading, source)?)),
        }
    }

    /// Rows of `ids`, as the residual stream begins: on the native path in a buffer of `workspace`.
    ///
    /// # Errors
    /// If an id is outside the vocabulary.
    pub fn stream(&self, compute: &Compute, workspace: &mut Workspace, ids: &[u32]) -> Result<StreamRows> {
        let runs = compute.runs();
        if matches!(runs, Runs::Candle) {
            return Ok(StreamRows::new(self.forward(compute, ids)?));
        }
        let width = match self {
            Self::Tied(matrix) | Self::Blocks(matrix) => matrix.in_features(),
            Self::Table(table) => table.dim(1)?,
        };
        let stream = StreamRows::in_workspace(workspace, compute, ids.len(), width)?;
        if let Runs::Cuda(kernels) = &runs {
            let (device_ids, target) = (&workspace.step()?.token_ids, stream.residual());
            match self {
                Self::Table(table) => {
                    check_ids(ids, table.dim(0)?)?;
                    gather(kernels, table, device_ids, target)?;
                }
                Self::Tied(matrix) | Self::Blocks(matrix) => {
                    check_ids(ids, matrix.out_features())?;
                    matrix.gather_on_device(kernels, device_ids, target)?;
                }
            }
            return Ok(stream);
        }
        match self {
            Self::Tied(matrix) | Self::Blocks(matrix) => {
                matrix.gather_rows_to(compute, ids, stream.residual().clone())?;
            }
            Self::Table(table) => copy_rows(table, ids, stream.residual())?,
        }
        Ok(stream)
    }

    /// Rows of `ids` as [ids.len(), hidden] in the activations' format.
    ///
    /// # Errors
    /// If an id is outside the vocabulary.
    pub fn forward(&self, compute: &Compute, ids: &[u32]) -> Result<Tensor> {
        match self {
            Self::Tied(matrix) | Self::Blocks(matrix) => matrix.gather_rows(compute, ids),
            Self::Table(table) => {
                let rows = table.dim(0)?;
                check_ids(ids, rows)?;
                let rows = table.index_select(&Tensor::new(ids, &compute.device)?, 0)?;
                if rows.dtype() == DType::F32 { Ok(rows) } else { rows.to_dtype(compute.activation_dtype) }
            }
        }
    }
}

/// Rows `ids` of x [rows, width]: on the native path in the buffer `slot` of `workspace`, and x itself if these are all of its rows.
///
/// # Errors
/// If an id is no row of x.
pub fn select_rows(
    compute: &Compute,
    workspace: &mut Workspace,
    slot: Slot,
    x: &Tensor,
    ids: &[u32],
) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    if ids.len() == rows && ids.iter().enumerate().all(|(row, &id)| id as usize == row) {
        return Ok(x.clone());
    }
    let runs = compute.runs();
    if matches!(runs, Runs::Candle) {
        return x.index_select(&Tensor::new(ids, x.device())?, 0);
    }
    let target = workspace.rows_of(x.dtype(), slot, x.device(), ids.len(), width)?;
    match &runs {
        Runs::Cuda(kernels) => {
            check_ids(ids, rows)?;
            gather(kernels, x, &workspace.upload(ids)?, &target)?;
        }
        _ => copy_rows(x, ids, &target)?,
    }
    Ok(target)
}

/// Rows `ids` of a table on a CUDA device.
pub(super) fn gather(kernels: &Kernels, table: &Tensor, ids: &Tensor, target: &Tensor) -> Result<()> {
    let width = table.dim(1)?;
    Launch::new(kernels, "gather", table.dtype())
        .over(target.dim(0)?, row_threads(width, 512))
        .tensor(table)
        .tensor(ids)
        .tensor(target)
        .int(width)
        .float(1.0)
        .run()
}

/// Rows `ids` of a contiguous CPU table, widened to f32.
fn copy_rows(table: &Tensor, ids: &[u32], target: &Tensor) -> Result<()> {
    let (rows, width) = table.dims2()?;
    check_ids(ids, rows)?;
    let (storage, layout) = table.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, _))) = (&*storage, layout.contiguous_offsets()) else {
        candle_core::bail!("native CPU operations take contiguous tensors on the CPU")
    };
    let copy = |copy: &(dyn Fn(std::ops::Range<usize>, &mut [f32]) + Sync)| {
        with_slice_mut(target, |target| {
            super::for_each_row(target, width.max(1), |row, target| {
                let first = start + ids[row] as usize * width;
                copy(first..first + width, target);
            });
            Ok(())
        })
    };
    match storage {
        CpuStorage::F32(data) => copy(&|range, target| target.copy_from_slice(&data[range])),
        CpuStorage::BF16(data) => copy(&|range, target| widen(&data[range], target, |value| value.to_f32())),
        CpuStorage::F16(data) => copy(&|range, target| widen(&data[range], target, |value| value.to_f32())),
        _ => candle_core::bail!("a table of another format than f32, bf16 and f16"),
    }
}

fn widen<T: Copy>(source: &[T], target: &mut [f32], to_f32: impl Fn(T) -> f32) {
    target.iter_mut().zip(source).for_each(|(value, &source)| *value = to_f32(source));
}

fn check_ids(ids: &[u32], rows: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= rows) {
        Some(id) => candle_core::bail!("token id {id} is outside the vocabulary of {rows}"),
        None => Ok(()),
    }
}

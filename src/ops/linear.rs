//! Linear layers and embeddings' shared matrix: y = x Wᵀ + b, W packed once at load.
//! Knows one matrix at a time and how its rows lie in memory; knows nothing of what the layer is for.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::simd::Isa;
use super::tile::{Element, MAX_ROWS, PANEL, Start, Tile, pack_rows};
use super::{Compute, OpsPath, SharedOut};

/// A row-major matrix as it lies in a weights file: little-endian elements, not necessarily aligned.
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a> {
    /// `rows * columns` elements.
    pub bytes: &'a [u8],
    /// F32, F16 or BF16.
    pub dtype: DType,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
}

impl MatrixView<'_> {
    /// Element `index` of row-major order, widened to f32.
    fn element(&self, index: usize) -> f32 {
        match self.dtype {
            DType::F32 => f32::from_le_bytes(self.array(index)),
            DType::F16 => f16::from_le_bytes(self.array(index)).to_f32(),
            _ => bf16::from_le_bytes(self.array(index)).to_f32(),
        }
    }

    fn array<const N: usize>(&self, index: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[index * N..(index + 1) * N]);
        bytes
    }

    /// Checks size and format.
    pub(super) fn validate(&self) -> Result<()> {
        if !matches!(self.dtype, DType::F32 | DType::F16 | DType::BF16) {
            candle_core::bail!("weights of type {:?}: want F32, F16 or BF16", self.dtype)
        }
        let want = self.rows.checked_mul(self.columns).and_then(|count| count.checked_mul(self.dtype.size_in_bytes()));
        if want != Some(self.bytes.len()) || self.bytes.is_empty() {
            let (rows, columns, got) = (self.rows, self.columns, self.bytes.len());
            candle_core::bail!("a {rows}x{columns} matrix has {got} bytes, want {}", want.unwrap_or(usize::MAX))
        }
        Ok(())
    }
}

/// One panel row: 32 columns of W at one k, on a cache-line boundary.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct PanelRow<T>([T; PANEL]);

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

    /// y [rows, out] = x [rows, in] Wᵀ + bias, `bias` padded to whole panels.
    fn forward(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let (k, n) = (self.in_features, self.out_features);
        let rows = x.len() / k;
        let blocks = pack_activations(x, rows, k);
        let mut y = Vec::<f32>::with_capacity(rows * n);
        let out = SharedOut(y.as_mut_ptr());
        let isa = Isa::detect();
        let num_panels = n.div_ceil(PANEL);
        // Enough pieces to balance, few enough that a thread streams long runs of panels.
        let per_task = num_panels.div_ceil(rayon::current_num_threads() * 4).max(1);
        (0..num_panels.div_ceil(per_task)).into_par_iter().for_each(|task| {
            let mut edge = [0f32; MAX_ROWS * PANEL];
            let end = ((task + 1) * per_task).min(num_panels);
            let panel_at = |panel: usize| self.panels[panel * k..].as_ptr().cast::<T>();
            for panel in task * per_task..end {
                let width = (n - panel * PANEL).min(PANEL);
                for first in (0..rows).step_by(MAX_ROWS) {
                    let block_rows = (rows - first).min(MAX_ROWS);
                    let target = out.at(first * n + panel * PANEL);
                    let whole = width == PANEL;
                    // The last rows over this panel bring the next one in: few rows leave memory idle otherwise.
                    let fetch = first + block_rows == rows && panel + 1 < end;
                    let tile = Tile {
                        rows: block_rows,
                        columns: PANEL,
                        depth: k,
                        a: blocks[first * k..].as_ptr(),
                        a_stride: block_rows,
                        b: panel_at(panel),
                        b_stride: PANEL,
                        c: if whole { target } else { edge.as_mut_ptr() },
                        c_stride: if whole { n } else { PANEL },
                        start: bias.map_or(Start::Zero, |bias| Start::Row(bias[panel * PANEL..].as_ptr())),
                        next: if fetch { panel_at(panel + 1) } else { std::ptr::null() },
                    };
                    // SAFETY: the tile lies within x's blocks, this panel and either `edge` or rows first.. and columns
                    // panel*32.. of y, which no other task writes; `y` has capacity for all of them.
                    unsafe {
                        tile.run(isa);
                        if !whole {
                            for row in 0..block_rows {
                                let source = edge[row * PANEL..].as_ptr();
                                std::ptr::copy_nonoverlapping(source, target.wrapping_add(row * n), width);
                            }
                        }
                    }
                }
            }
        });
        // SAFETY: the loop above wrote every one of the rows * n elements.
        unsafe { y.set_len(rows * n) };
        y
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

/// x [rows, k] as consecutive blocks of up to 12 rows, each k-major.
fn pack_activations(x: &[f32], rows: usize, k: usize) -> Vec<f32> {
    let mut blocks = vec![0f32; rows * k];
    let pack = |(x, block): (&[f32], &mut [f32])| pack_rows(x, k, block.len() / k, k, block);
    if rows * k < super::PARALLEL_FROM {
        x.chunks(MAX_ROWS * k).zip(blocks.chunks_mut(MAX_ROWS * k)).for_each(pack);
    } else {
        x.par_chunks(MAX_ROWS * k).zip(blocks.par_chunks_mut(MAX_ROWS * k)).for_each(pack);
    }
    blocks
}

/// A matrix in the form that the device multiplies with.
#[derive(Clone)]
enum Weight {
    F32(Arc<Packed<f32>>),
    Bf16(Arc<Packed<bf16>>),
    F16(Arc<Packed<f16>>),
    /// [out, in], for the portable path.
    Dense(Tensor),
}

/// y = x Wᵀ + b for one or several matrices stacked by rows. Cloning shares the weights.
#[derive(Clone)]
pub struct Linear {
    weight: Weight,
    /// Padded to whole panels for the packed forms.
    bias: Option<Arc<Vec<f32>>>,
    out_features: usize,
    in_features: usize,
}

impl Linear {
    /// Packs `sources` (stacked by rows, all with the same columns) and `bias` [sum of rows].
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
        let weight = match (compute.path, compute.weight_dtype) {
            (OpsPath::Portable, _) => Weight::Dense(dense(compute, sources)?),
            (OpsPath::Native, DType::BF16) => Weight::Bf16(Arc::new(Packed::new(sources))),
            (OpsPath::Native, DType::F16) => Weight::F16(Arc::new(Packed::new(sources))),
            (OpsPath::Native, _) => Weight::F32(Arc::new(Packed::new(sources))),
        };
        let bias = bias.map(|mut bias| {
            bias.resize(out_features.next_multiple_of(PANEL), 0.0);
            Arc::new(bias)
        });
        Ok(Self { weight, bias, out_features, in_features })
    }

    /// Output features.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// x [rows, in] to y [rows, out], in x's dtype.
    ///
    /// # Errors
    /// If x has another width or lies on another device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if let Weight::Dense(weight) = &self.weight {
            return self.portable(x, weight);
        }
        x.apply_op1_no_bwd(self)
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
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.out_features) {
            candle_core::bail!("token id {id} is outside the vocabulary of {}", self.out_features)
        }
        let k = self.in_features;
        let mut rows = vec![0f32; ids.len() * k];
        let each = |(&id, target): (&u32, &mut [f32])| match &self.weight {
            Weight::F32(packed) => packed.copy_row(id as usize, target),
            Weight::Bf16(packed) => packed.copy_row(id as usize, target),
            Weight::F16(packed) => packed.copy_row(id as usize, target),
            Weight::Dense(_) => {}
        };
        if let Weight::Dense(weight) = &self.weight {
            let ids = Tensor::new(ids, &compute.device)?;
            return weight.index_select(&ids, 0)?.to_dtype(compute.activation_dtype);
        }
        if rows.len() < super::PARALLEL_FROM {
            ids.iter().zip(rows.chunks_mut(k)).for_each(each);
        } else {
            ids.par_iter().zip(rows.par_chunks_mut(k)).for_each(each);
        }
        Tensor::from_vec(rows, (ids.len(), k), &compute.device)
    }
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = super::f32_slice(storage, layout)?;
        let (rows, columns) = layout.shape().dims2()?;
        if columns != self.in_features {
            candle_core::bail!("a linear layer of {} inputs got rows of {columns}", self.in_features)
        }
        let bias = self.bias.as_ref().map(|bias| bias.as_slice());
        let y = match &self.weight {
            Weight::F32(packed) => packed.forward(x, bias),
            Weight::Bf16(packed) => packed.forward(x, bias),
            Weight::F16(packed) => packed.forward(x, bias),
            Weight::Dense(_) => candle_core::bail!("a dense weight has no packed product"),
        };
        Ok((CpuStorage::F32(y), Shape::from((rows, self.out_features))))
    }
}

/// The stacked matrices as one [out, in] tensor in the compute dtype.
fn dense(compute: &Compute, sources: &[MatrixView<'_>]) -> Result<Tensor> {
    let parts = sources
        .iter()
        .map(|source| {
            let shape = (source.rows, source.columns);
            Tensor::from_raw_buffer(source.bytes, source.dtype, &[shape.0, shape.1], &compute.device)?
                .to_dtype(compute.weight_dtype)
        })
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&parts, 0)?.contiguous()
}

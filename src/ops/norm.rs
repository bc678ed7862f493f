//! Normalisation of rows: root mean square (Zhang & Sennrich 2019, arXiv 1910.07467), y = x / sqrt(mean(x²) + eps) * w, and
//! LayerNorm (Ba et al. 2016, arXiv 1607.06450), which takes the mean away first and may add a bias; and the residual step.
//! Knows rows of numbers; knows nothing of where in a model they stand.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, DType, InplaceOp2, Layout, Result, Shape, Tensor};

use super::simd::{Vectorised, dispatch, sum, sum_of_squares};
use super::{Compute, OpsPath};

/// What is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Zero.
    RootMeanSquare,
    /// The row's mean.
    Layer,
}

/// A norm's weight, bias and epsilon.
#[derive(Debug, Clone)]
pub struct Norm {
    kind: NormKind,
    weight: Arc<[f32]>,
    bias: Option<Arc<[f32]>>,
    eps: f32,
    path: OpsPath,
}

impl Norm {
    /// A root-mean-square norm; `weight` has the length of the rows.
    pub fn rms(compute: &Compute, weight: Vec<f32>, eps: f64) -> Self {
        let kind = NormKind::RootMeanSquare;
        Self { kind, weight: weight.into(), bias: None, eps: eps as f32, path: compute.path }
    }

    /// A LayerNorm; `weight` and `bias` have the length of the rows.
    ///
    /// # Errors
    /// If the two differ in length.
    pub fn layer(compute: &Compute, weight: Vec<f32>, bias: Option<Vec<f32>>, eps: f64) -> Result<Self> {
        if let Some(bias) = &bias
            && bias.len() != weight.len()
        {
            candle_core::bail!("a norm of width {} got a bias of {}", weight.len(), bias.len())
        }
        let bias = bias.map(Arc::from);
        Ok(Self { kind: NormKind::Layer, weight: weight.into(), bias, eps: eps as f32, path: compute.path })
    }

    /// Length of the rows.
    pub(super) fn width(&self) -> usize {
        self.weight.len()
    }

    /// Normalises each row of x [rows, weight.len()].
    ///
    /// # Errors
    /// If the rows have another length.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let width = self.weight.len();
        if width == 0 || x.dims().last() != Some(&width) {
            candle_core::bail!("a norm of width {width} got {:?}", x.shape())
        }
        match self.path {
            OpsPath::Native => x.apply_op1_no_bwd(self),
            OpsPath::Portable => self.portable(x),
        }
    }

    /// The residual step and the norm behind it: adds `delta` to `residual` (in place on the native path) and returns both
    /// the sum and its normalised rows.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add_forward(&self, residual: Tensor, delta: &Tensor) -> Result<(Tensor, Tensor)> {
        let sum = add(self.path, residual, delta)?;
        let normed = self.forward(&sum)?;
        Ok((sum, normed))
    }

    /// The same in Candle operations, computed in f32.
    pub(super) fn portable(&self, x: &Tensor) -> Result<Tensor> {
        self.portable_part(x, 0, self.weight.len())
    }

    /// Rows of `len` elements in Candle operations, against the weights from `start` on.
    pub(super) fn portable_part(&self, x: &Tensor, start: usize, len: usize) -> Result<Tensor> {
        let part = |values: &[f32]| Tensor::from_slice(&values[start..start + len], len, x.device());
        let mut wide = x.to_dtype(DType::F32)?;
        if self.kind == NormKind::Layer {
            wide = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
        }
        let mean = wide.sqr()?.mean_keepdim(D::Minus1)?;
        let scale = (mean + f64::from(self.eps))?.sqrt()?;
        let mut y = wide.broadcast_div(&scale)?.broadcast_mul(&part(&self.weight)?)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(&part(bias)?)?;
        }
        y.to_dtype(x.dtype())
    }

    /// Normalises one row in place, against the weights from `start` on. The rotary operation calls it per head.
    #[inline(always)]
    pub(super) fn row_in_place(&self, row: &mut [f32], start: usize) {
        let len = row.len() as f32;
        if self.kind == NormKind::Layer {
            let mean = sum(row) / len;
            row.iter_mut().for_each(|value| *value -= mean);
        }
        let scale = 1.0 / (sum_of_squares(row) / len + self.eps).sqrt();
        for (value, weight) in row.iter_mut().zip(&self.weight[start..]) {
            *value = *value * scale * weight;
        }
        if let Some(bias) = &self.bias {
            row.iter_mut().zip(&bias[start..]).for_each(|(value, bias)| *value += bias);
        }
    }
}

/// residual + delta, in place on the native path.
///
/// # Errors
/// If the shapes differ.
pub fn add(path: OpsPath, residual: Tensor, delta: &Tensor) -> Result<Tensor> {
    match path {
        OpsPath::Native => {
            residual.inplace_op2(delta, &AddRows)?;
            Ok(residual)
        }
        OpsPath::Portable => residual + delta,
    }
}

struct AddRows;

impl InplaceOp2 for AddRows {
    fn name(&self) -> &'static str {
        "add_rows"
    }

    fn cpu_fwd(&self, sum: &mut CpuStorage, layout: &Layout, delta: &CpuStorage, delta_layout: &Layout) -> Result<()> {
        if layout.shape() != delta_layout.shape() {
            candle_core::bail!("residual {:?} and delta {:?} differ", layout.shape(), delta_layout.shape())
        }
        let sum = super::f32_slice_mut(sum, layout)?;
        let delta = super::f32_slice(delta, delta_layout)?;
        let width = layout.dims().last().copied().unwrap_or(1).max(1);
        super::for_each_row(sum, width, |row, target| {
            target.iter_mut().zip(&delta[row * width..]).for_each(|(value, add)| *value += add);
        });
        Ok(())
    }
}

struct Row<'a>(&'a Norm, &'a mut [f32]);
impl Vectorised for Row<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.0.row_in_place(self.1, 0);
    }
}

impl CustomOp1 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = super::f32_slice(storage, layout)?;
        let width = self.weight.len();
        let mut y = x.to_vec();
        super::for_each_row(&mut y, width, |_, row| dispatch(Row(self, row)));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

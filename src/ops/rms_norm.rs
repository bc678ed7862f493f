//! Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv 1910.07467): y = x / sqrt(mean(x²) + eps) * w.
//! Knows rows of numbers; knows nothing of where in a model they stand.

use candle_core::{CpuStorage, CustomOp1, D, DType, InplaceOp2, Layout, Result, Shape, Tensor};

use super::simd::{Vectorised, dispatch, sum_of_squares};
use super::{Compute, OpsPath};

/// A norm's weight and epsilon.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Vec<f32>,
    eps: f32,
    path: OpsPath,
}

impl RmsNorm {
    /// `weight` has the length of the rows.
    pub fn new(compute: &Compute, weight: Vec<f32>, eps: f64) -> Self {
        Self { weight, eps: eps as f32, path: compute.path }
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
        let sum = match self.path {
            OpsPath::Native => {
                residual.inplace_op2(delta, &AddRows)?;
                residual
            }
            OpsPath::Portable => (residual + delta)?,
        };
        let normed = self.forward(&sum)?;
        Ok((sum, normed))
    }

    /// The same in Candle operations, computed in f32.
    pub(super) fn portable(&self, x: &Tensor) -> Result<Tensor> {
        let weight = Tensor::from_slice(&self.weight, self.weight.len(), x.device())?;
        let wide = x.to_dtype(DType::F32)?;
        let mean = wide.sqr()?.mean_keepdim(D::Minus1)?;
        let scale = (mean + f64::from(self.eps))?.sqrt()?;
        wide.broadcast_div(&scale)?.broadcast_mul(&weight)?.to_dtype(x.dtype())
    }

    /// Normalises one row in place. The rotary operation calls it per head.
    #[inline(always)]
    pub(super) fn row_in_place(&self, row: &mut [f32]) {
        let scale = 1.0 / (sum_of_squares(row) / row.len() as f32 + self.eps).sqrt();
        for (value, weight) in row.iter_mut().zip(&self.weight) {
            *value = *value * scale * weight;
        }
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

struct Row<'a>(&'a RmsNorm, &'a mut [f32]);
impl Vectorised for Row<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.0.row_in_place(self.1);
    }
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = super::f32_slice(storage, layout)?;
        let width = self.weight.len();
        let mut y = x.to_vec();
        super::for_each_row(&mut y, width, |_, row| dispatch(Row(self, row)));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

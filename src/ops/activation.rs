//! The gated activation between a feed-forward block's two products: y = act(gate) * up.
//! Knows rows [gate | up]; knows nothing of the products around it.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

use super::simd::{Vectorised, dispatch, exp};
use super::{Compute, OpsPath};

/// The activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x) (Elfwing et al. 2017, arXiv 1702.03118; "swish").
    Silu,
}

/// act(gate) * up on merged rows.
#[derive(Debug, Clone, Copy)]
pub struct GatedActivation {
    activation: Activation,
    path: OpsPath,
}

impl GatedActivation {
    /// The operation for this device.
    pub fn new(compute: &Compute, activation: Activation) -> Self {
        Self { activation, path: compute.path }
    }

    /// Rows [gate | up] of width 2F to rows of width F.
    ///
    /// # Errors
    /// If the width is odd or zero.
    pub fn forward(&self, gate_up: &Tensor) -> Result<Tensor> {
        let width = gate_up.dims2()?.1;
        if width == 0 || !width.is_multiple_of(2) {
            candle_core::bail!("a gated activation takes an even width, got {width}")
        }
        match self.path {
            OpsPath::Native => gate_up.apply_op1_no_bwd(self),
            OpsPath::Portable => self.portable(gate_up),
        }
    }

    /// The same in Candle operations.
    fn portable(&self, gate_up: &Tensor) -> Result<Tensor> {
        let width = gate_up.dim(D::Minus1)? / 2;
        let gate = gate_up.narrow(D::Minus1, 0, width)?;
        let up = gate_up.narrow(D::Minus1, width, width)?;
        match self.activation {
            Activation::Silu => gate.silu()? * up,
        }
    }
}

struct SiluRow<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}
impl Vectorised for SiluRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((value, &gate), &up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            *value = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

impl CustomOp1 for GatedActivation {
    fn name(&self) -> &'static str {
        "gated_activation"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = super::f32_slice(storage, layout)?;
        let (rows, width) = layout.shape().dims2()?;
        let half = width / 2;
        let mut y = vec![0f32; rows * half];
        super::for_each_row(&mut y, half, |row, out| {
            let (gate, up) = x[row * width..(row + 1) * width].split_at(half);
            match self.activation {
                Activation::Silu => dispatch(SiluRow { gate, up, out }),
            }
        });
        Ok((CpuStorage::F32(y), Shape::from((rows, half))))
    }
}

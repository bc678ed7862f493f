//! The activation between a feed-forward block's products: y = act(gate) * up on merged rows, or y = act(x) without a gate.
//! Knows rows; knows nothing of the products around it.

use candle_core::{D, Result, Tensor};

use super::launch::Launch;
use super::simd::{Vectorised, dispatch, exp, swish};
use super::workspace::{Slot, Workspace, with_slices};
use super::{Compute, Kernels, Runs};

/// The activation function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// x * sigmoid(x) (Elfwing et al. 2017, arXiv 1702.03118; "swish").
    Silu,
    /// The tanh form of GELU (Hendrycks & Gimpel 2016, arXiv 1606.08415): x/2 (1 + tanh u) = x sigmoid(2u),
    /// u = sqrt(2/π) (x + 0.044715 x³).
    GeluTanh,
    /// max(x, 0)² (So et al. 2021, arXiv 2109.08668).
    SquaredRelu,
    /// xIELU (Huang & Schlag 2024, arXiv 2411.13010): positive * x² + beta x above 0, negative (e^min(x, eps) - 1 - x) + beta x
    /// below.
    Xielu {
        /// > 0, already through its softplus.
        positive: f32,
        /// > beta, already through its softplus.
        negative: f32,
        /// Slope at 0.
        beta: f32,
        /// Bound just under 0.
        eps: f32,
    },
    /// gpt-oss's gate: (up + 1) * gate * sigmoid(steepness * gate), gate at most `limit`, up within ± `limit`.
    ClampedSwiglu {
        /// Slope inside the sigmoid.
        steepness: f32,
        /// > 0
        limit: f32,
    },
}

impl Activation {
    /// The function of one element; for [`Activation::ClampedSwiglu`], of the gate.
    #[inline(always)]
    fn of(self, x: f32) -> f32 {
        match self {
            Self::Silu => swish(x, 1.0),
            Self::GeluTanh => {
                let inner = 0.044_715_f32.mul_add(x * x * x, x);
                x / (1.0 + exp(-2.0 * SQRT_2_OVER_PI * inner))
            }
            Self::SquaredRelu => x.max(0.0) * x.max(0.0),
            Self::Xielu { positive, negative, beta, eps } => {
                if x > 0.0 {
                    (positive * x).mul_add(x, beta * x)
                } else {
                    negative.mul_add(exp(x.min(eps)) - 1.0 - x, beta * x)
                }
            }
            Self::ClampedSwiglu { steepness, limit } => swish(x.min(limit), steepness),
        }
    }

    /// The other factor, out of `up`.
    #[inline(always)]
    fn factor(self, up: f32) -> f32 {
        match self {
            Self::ClampedSwiglu { limit, .. } => up.clamp(-limit, limit) + 1.0,
            _ => up,
        }
    }

    fn portable(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Silu => x.silu(),
            Self::GeluTanh => x.gelu(),
            Self::SquaredRelu => x.relu()?.sqr(),
            Self::Xielu { positive, negative, beta, eps } => {
                let linear = (x * f64::from(beta))?;
                let above = (x.sqr()? * f64::from(positive))?;
                let below = (((x.minimum(f64::from(eps))?.exp()? - 1.0)? - x)? * f64::from(negative))?;
                x.gt(0.0)?.where_cond(&above, &below)? + linear
            }
            Self::ClampedSwiglu { steepness, limit } => {
                let gate = x.minimum(f64::from(limit))?;
                let sigmoid = ((gate.affine(-f64::from(steepness), 0.0)?.exp()? + 1.0)?).recip()?;
                gate * sigmoid
            }
        }
    }

    fn portable_factor(self, up: Tensor) -> Result<Tensor> {
        match self {
            Self::ClampedSwiglu { limit, .. } => up.clamp(-limit, limit)? + 1.0,
            _ => Ok(up),
        }
    }
}

/// sqrt(2 / π)
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// An activation over rows.
#[derive(Debug, Clone)]
pub struct ActivationRows {
    activation: Activation,
    gated: bool,
    runs: Runs,
}

impl ActivationRows {
    /// act(gate) * up on merged rows [gate | up].
    pub fn gated(compute: &Compute, activation: Activation) -> Self {
        Self { activation, gated: true, runs: compute.runs() }
    }

    /// act(x) on every element.
    pub fn plain(compute: &Compute, activation: Activation) -> Self {
        Self { activation, gated: false, runs: compute.runs() }
    }

    /// Rows [gate | up] of width 2F to rows of width F, or without a gate rows of width F to rows of the same width.
    ///
    /// # Errors
    /// If the width is zero, or odd although there is a gate.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, |rows, width| Tensor::zeros((rows, width), x.dtype(), x.device()))
    }

    /// The same, on the native path into a buffer of `workspace`.
    ///
    /// # Errors
    /// As for [`Self::forward`].
    pub fn forward_in(&self, workspace: &mut Workspace, x: &Tensor) -> Result<Tensor> {
        self.run(x, |rows, width| workspace.rows_of(x.dtype(), Slot::Activated, x.device(), rows, width))
    }

    fn run(&self, x: &Tensor, target: impl FnOnce(usize, usize) -> Result<Tensor>) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        if width == 0 || (self.gated && !width.is_multiple_of(2)) {
            candle_core::bail!("an activation got rows of width {width}, want {}", if self.gated { "2F" } else { "F" })
        }
        let inner = if self.gated { width / 2 } else { width };
        match &self.runs {
            Runs::Candle => self.portable(x),
            Runs::Cpu => {
                let y = target(rows, inner)?;
                with_slices(x, &y, |x, y| self.native(x, width, y))?;
                Ok(y)
            }
            Runs::Cuda(kernels) => {
                let y = target(rows, inner)?;
                self.launch(kernels, x, &y)?;
                Ok(y)
            }
        }
    }

    /// Rows of x to rows of y on a CUDA device.
    fn launch(&self, kernels: &Kernels, x: &Tensor, y: &Tensor) -> Result<()> {
        let (rows, inner) = y.dims2()?;
        let (kind, [a, b, c, d]) = match self.activation {
            Activation::Silu => (0, [0.0; 4]),
            Activation::GeluTanh => (1, [0.0; 4]),
            Activation::SquaredRelu => (2, [0.0; 4]),
            Activation::Xielu { positive, negative, beta, eps } => (3, [positive, negative, beta, eps]),
            Activation::ClampedSwiglu { steepness, limit } => (4, [steepness, limit, 0.0, 0.0]),
        };
        Launch::new(kernels, "activation", x.dtype())
            .over_all([inner.div_ceil(256 * 16), rows.min(65_535), 1], 256)
            .tensor(x)
            .tensor(y)
            .int(rows)
            .int(inner)
            .int(usize::from(self.gated))
            .int(kind)
            .float(a)
            .float(b)
            .float(c)
            .float(d)
            .run()
    }

    /// Rows of `width` in x to rows in y.
    fn native(&self, x: &[f32], width: usize, y: &mut [f32]) {
        let inner = if self.gated { width / 2 } else { width };
        super::for_each_row(y, inner, |row, out| {
            let (gate, up) = x[row * width..(row + 1) * width].split_at(inner);
            let up = self.gated.then_some(up);
            dispatch(Row { activation: self.activation, gate, up, out });
        });
    }

    /// The same in Candle operations.
    fn portable(&self, x: &Tensor) -> Result<Tensor> {
        if !self.gated {
            return self.activation.portable(x);
        }
        let width = x.dim(D::Minus1)? / 2;
        let gate = self.activation.portable(&x.narrow(D::Minus1, 0, width)?)?;
        gate * self.activation.portable_factor(x.narrow(D::Minus1, width, width)?)?
    }
}

struct Row<'a> {
    activation: Activation,
    gate: &'a [f32],
    up: Option<&'a [f32]>,
    out: &'a mut [f32],
}
impl Vectorised for Row<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        // One loop per function, so that each is vectorised.
        match self.activation {
            Activation::Silu => self.each(|x| Activation::Silu.of(x), |up| up),
            Activation::GeluTanh => self.each(|x| Activation::GeluTanh.of(x), |up| up),
            other => self.each(|x| other.of(x), |up| other.factor(up)),
        }
    }
}

impl Row<'_> {
    #[inline(always)]
    fn each(self, of: impl Fn(f32) -> f32, factor: impl Fn(f32) -> f32) {
        match self.up {
            Some(up) => {
                for ((value, &gate), &up) in self.out.iter_mut().zip(self.gate).zip(up) {
                    *value = of(gate) * factor(up);
                }
            }
            None => self.out.iter_mut().zip(self.gate).for_each(|(value, &x)| *value = of(x)),
        }
    }
}

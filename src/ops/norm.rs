//! Normalisation of rows: root mean square (Zhang & Sennrich 2019, arXiv 1910.07467), y = x / sqrt(mean(x²) + eps) * w, and
//! LayerNorm (Ba et al. 2016, arXiv 1607.06450), which takes the mean away first and may add a bias; and the residual step.
//! Knows rows of numbers; knows nothing of where in a model they stand.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Result, Shape, Tensor};

use super::launch::{Launch, row_threads};
use super::simd::{Vectorised, dispatch, sum, sum_of_squares};
use super::workspace::{Slot, Workspace, with_slice_mut, with_slices};
use super::{Compute, Kernels, Runs, SharedOut};

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
    runs: Runs,
    /// Weight and bias on a CUDA device.
    on_device: Option<(Tensor, Option<Tensor>)>,
}

impl Norm {
    /// A root-mean-square norm; `weight` has the length of the rows.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn rms(compute: &Compute, weight: Vec<f32>, eps: f64) -> Result<Self> {
        Self::new(compute, NormKind::RootMeanSquare, weight, None, eps)
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
        Self::new(compute, NormKind::Layer, weight, bias, eps)
    }

    fn new(compute: &Compute, kind: NormKind, weight: Vec<f32>, bias: Option<Vec<f32>>, eps: f64) -> Result<Self> {
        let runs = compute.runs();
        let on_device = match runs {
            Runs::Cuda(_) if weight.len() > Self::MOST_ON_DEVICE => {
                candle_core::bail!("a norm of width {}, want {} at most", weight.len(), Self::MOST_ON_DEVICE)
            }
            Runs::Cuda(_) => {
                let upload = |values: &Vec<f32>| Tensor::from_slice(values, values.len(), &compute.device);
                Some((upload(&weight)?, bias.as_ref().map(upload).transpose()?))
            }
            Runs::Cpu | Runs::Candle => None,
        };
        Ok(Self { kind, weight: weight.into(), bias: bias.map(Arc::from), eps: eps as f32, runs, on_device })
    }

    /// Weight and bias on the device.
    fn on_device(&self) -> Result<(&Tensor, Option<&Tensor>)> {
        match &self.on_device {
            Some((weight, bias)) => Ok((weight, bias.as_ref())),
            None => candle_core::bail!("a norm whose weights are not on the device"),
        }
    }

    /// The weights of rows without bias, on the device: what the rotary operation passes on.
    pub(super) fn device_weight(&self) -> Result<&Tensor> {
        match self.on_device()? {
            (weight, None) => Ok(weight),
            _ => candle_core::bail!("a norm of heads with a bias"),
        }
    }

    /// What is measured against, and epsilon.
    pub(super) fn kind_and_eps(&self) -> (NormKind, f32) {
        (self.kind, self.eps)
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
        match &self.runs {
            Runs::Cpu => x.apply_op1_no_bwd(self),
            Runs::Cuda(kernels) => {
                let y = x.zeros_like()?;
                self.launch(kernels, x, &y)?;
                Ok(y)
            }
            Runs::Candle => self.portable(x),
        }
    }

    /// The widest row that a block's threads hold.
    const MOST_ON_DEVICE: usize = 1 << 14;

    /// The rows of x, normalised to y, which may be x.
    fn launch(&self, kernels: &Kernels, x: &Tensor, y: &Tensor) -> Result<()> {
        let (width, (weight, bias)) = (self.weight.len(), self.on_device()?);
        Launch::new(kernels, "norm", x.dtype())
            .over(x.elem_count() / width.max(1), row_threads(width, 1024))
            .tensor(x)
            .tensor(y)
            .tensor(weight)
            .optional(bias)
            .int(width)
            .float(self.eps)
            .int(usize::from(self.kind == NormKind::Layer))
            .run()
    }

    /// The same in place on the native path.
    ///
    /// # Errors
    /// If the rows have another length.
    pub fn forward_in_place(&self, x: Tensor) -> Result<Tensor> {
        if x.dims().last() != Some(&self.weight.len()) {
            return self.forward(&x);
        }
        match &self.runs {
            Runs::Cpu => with_slice_mut(&x, |x| {
                super::for_each_row(x, self.weight.len().max(1), |_, row| dispatch(Row(self, row)));
                Ok(())
            })?,
            Runs::Cuda(kernels) => self.launch(kernels, &x, &x)?,
            Runs::Candle => return self.forward(&x),
        }
        Ok(x)
    }

    /// The same, on the native path into a buffer of `workspace`, which x must not lie in.
    ///
    /// # Errors
    /// If the rows have another length.
    pub fn forward_in(&self, workspace: &mut Workspace, slot: Slot, x: &Tensor) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        match &self.runs {
            Runs::Cpu => {
                let y = workspace.rows(slot, x.device(), rows, width)?;
                with_slices(x, &y, |x, y| y.copy_from_slice(x))?;
                self.forward_in_place(y)
            }
            Runs::Cuda(kernels) if width == self.weight.len() => {
                let y = workspace.rows_of(x.dtype(), slot, x.device(), rows, width)?;
                self.launch(kernels, x, &y)?;
                Ok(y)
            }
            Runs::Cuda(_) | Runs::Candle => self.forward(x),
        }
    }

    /// The residual step and the norm behind it, in one pass on the native path: adds `delta`, if there is one, to the stream's
    /// rows, and gives the normalised rows of the sum.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add_forward(&self, stream: StreamRows, delta: Option<&Tensor>) -> Result<(StreamRows, Tensor)> {
        let Some(both) = &stream.both else {
            let stream = match delta {
                Some(delta) => stream.plus(delta)?,
                None => stream,
            };
            let normed = self.forward(&stream.residual)?;
            return Ok((stream, normed));
        };
        let (rows, width) = stream.residual.dims2()?;
        if width != self.weight.len() || delta.is_some_and(|delta| delta.dims() != [rows, width]) {
            candle_core::bail!("a norm of width {} got {:?} and {:?}", self.weight.len(), stream.residual, delta)
        }
        let normed = both.narrow(0, rows, rows)?;
        match (&self.runs, delta) {
            (Runs::Cuda(kernels), None) => self.launch(kernels, &stream.residual, &normed)?,
            (Runs::Cuda(kernels), Some(delta)) => self.launch_add(kernels, &stream.residual, delta, &normed)?,
            (_, Some(delta)) => with_slices(delta, both, |delta, both| self.add_rows(both, Some(delta)))?,
            (_, None) => with_slice_mut(both, |both| {
                self.add_rows(both, None);
                Ok(())
            })?,
        }
        Ok((stream, normed))
    }

    /// `delta` added to the rows of `residual`, and the sum normalised to `normed`.
    fn launch_add(&self, kernels: &Kernels, residual: &Tensor, delta: &Tensor, normed: &Tensor) -> Result<()> {
        let (width, (weight, bias)) = (self.weight.len(), self.on_device()?);
        Launch::new(kernels, "add_norm", residual.dtype())
            .over(residual.dim(0)?, row_threads(width, 1024))
            .tensor(residual)
            .tensor(delta)
            .tensor(normed)
            .tensor(weight)
            .optional(bias)
            .int(width)
            .float(self.eps)
            .int(usize::from(self.kind == NormKind::Layer))
            .run()
    }

    /// The rows of the first half, with `delta` added, normalised to the second half.
    fn add_rows(&self, both: &mut [f32], delta: Option<&[f32]>) {
        let width = self.weight.len().max(1);
        let (residual, normed) = both.split_at_mut(both.len() / 2);
        let sums = SharedOut(residual.as_mut_ptr());
        super::for_each_row(normed, width, |row, normed| {
            // SAFETY: this row of the first half, which is read and written by the call for this row alone.
            let residual = unsafe { std::slice::from_raw_parts_mut(sums.at(row * width), width) };
            let delta = delta.map(|delta| &delta[row * width..(row + 1) * width]);
            dispatch(AddRow { norm: self, residual, delta, normed });
        });
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

/// x + delta, in place but in Candle's operations.
///
/// # Errors
/// If the shapes differ.
pub fn add(runs: &Runs, x: Tensor, delta: &Tensor) -> Result<Tensor> {
    if matches!(runs, Runs::Candle) {
        return x + delta;
    }
    if x.shape() != delta.shape() {
        candle_core::bail!("rows {:?} and what is added to them {:?} differ", x.shape(), delta.shape())
    }
    if let Runs::Cuda(kernels) = runs {
        let count = x.elem_count();
        elementwise(kernels, "add", &x).tensor(&x).tensor(delta).long(count).run()?;
        return Ok(x);
    }
    let width = x.dims().last().copied().unwrap_or(1).max(1);
    with_slices(delta, &x, |delta, x| {
        super::for_each_row(x, width, |row, target| {
            target.iter_mut().zip(&delta[row * width..]).for_each(|(value, add)| *value += add);
        });
    })?;
    Ok(x)
}

/// x * factor, in place but in Candle's operations.
///
/// # Errors
/// If x is not what is computed with.
pub fn scale(runs: &Runs, x: Tensor, factor: f64) -> Result<Tensor> {
    match runs {
        Runs::Candle => return x * factor,
        Runs::Cuda(kernels) => {
            elementwise(kernels, "scale", &x).tensor(&x).float(factor as f32).long(x.elem_count()).run()?;
        }
        Runs::Cpu => with_slice_mut(&x, |elements| {
            let (factor, width) = (factor as f32, x.dims().last().copied().unwrap_or(1).max(1));
            super::for_each_row(elements, width, |_, row| row.iter_mut().for_each(|value| *value *= factor));
            Ok(())
        })?,
    }
    Ok(x)
}

/// cap * tanh(x / cap), in place on a CUDA device.
///
/// # Errors
/// If x is not what is computed with.
pub fn soft_cap(runs: &Runs, x: Tensor, cap: f64) -> Result<Tensor> {
    match runs {
        Runs::Cuda(kernels) => {
            elementwise(kernels, "soft_cap", &x).tensor(&x).float(cap as f32).long(x.elem_count()).run()?;
            Ok(x)
        }
        Runs::Cpu | Runs::Candle => (x / cap)?.tanh()? * cap,
    }
}

/// A launch over all elements of x, a few for each thread.
fn elementwise<'a>(kernels: &'a Kernels, what: &str, x: &Tensor) -> Launch<'a> {
    Launch::new(kernels, what, x.dtype()).over(x.elem_count().div_ceil(256 * 8).min(1 << 16), 256)
}

/// The residual stream's rows [T, hidden], in one buffer with room for their normalised form but in Candle's operations.
#[derive(Clone)]
pub struct StreamRows {
    residual: Tensor,
    /// [2 T, hidden]: the residual stream, and what a norm makes of it.
    both: Option<Tensor>,
    runs: Runs,
}

impl StreamRows {
    /// Rows by themselves, for Candle's operations.
    pub fn new(residual: Tensor) -> Self {
        Self { residual, both: None, runs: Runs::Candle }
    }

    /// Rows in a buffer of `workspace`, still to be written.
    pub(super) fn in_workspace(
        workspace: &mut Workspace,
        compute: &Compute,
        rows: usize,
        width: usize,
    ) -> Result<Self> {
        let (dtype, device) = (compute.activation_dtype, &compute.device);
        let both = workspace.rows_of(dtype, Slot::Stream, device, 2 * rows, width)?;
        Ok(Self { residual: both.narrow(0, 0, rows)?, both: Some(both), runs: compute.runs() })
    }

    /// Rows [T, hidden] from elsewhere, in a buffer of `workspace` on the native path.
    ///
    /// # Errors
    /// If the device has no room, or they cannot be brought there.
    pub fn brought(workspace: &mut Workspace, compute: &Compute, rows: &Tensor) -> Result<Self> {
        // Through the host, which waits for them: a copy between devices could still be reading when the next step writes there.
        let rows = rows.to_device(&Device::Cpu)?.to_device(&compute.device)?;
        if matches!(compute.runs(), Runs::Candle) {
            return Ok(Self::new(rows));
        }
        let (count, width) = rows.dims2()?;
        let stream = Self::in_workspace(workspace, compute, count, width)?;
        stream.residual.slice_set(&rows.contiguous()?, 0, 0)?;
        Ok(stream)
    }

    /// The rows.
    pub fn residual(&self) -> &Tensor {
        &self.residual
    }

    /// With `delta` added: in place if they lie in a workspace.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn plus(self, delta: &Tensor) -> Result<Self> {
        Ok(Self { residual: add(&self.runs, self.residual, delta)?, ..self })
    }

    /// Multiplied by a number.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn scale(self, factor: f64) -> Result<Self> {
        Ok(Self { residual: scale(&self.runs, self.residual, factor)?, ..self })
    }
}

struct AddRow<'a> {
    norm: &'a Norm,
    residual: &'a mut [f32],
    delta: Option<&'a [f32]>,
    normed: &'a mut [f32],
}

impl Vectorised for AddRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        if let Some(delta) = self.delta {
            self.residual.iter_mut().zip(delta).for_each(|(value, add)| *value += add);
        }
        self.normed.copy_from_slice(self.residual);
        self.norm.row_in_place(self.normed, 0);
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

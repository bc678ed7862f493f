//! A matrix on a CUDA device, as it is or in fp8 (e4m3): then each output has a scale, and so has each row of the input, which is rounded on
//! the way. A row's scale is its own, so its result depends on no other row. Knows matrices; knows no layer.

use candle_core::{DType, Result, Tensor};

use super::super::cuda::Plan;
use super::super::launch::{Launch, row_threads};
use super::super::workspace::{Slot, Workspace};
use super::super::{Compute, Kernels};

/// What rows and columns of an fp8 product are multiples of (cuBLAS documentation, cublasLtMatmul).
const FP8_MULTIPLE: usize = 16;
/// Threads of a block that scales sums, elements of a thread, and most blocks along the rows.
const SCALE_THREADS: usize = 256;
const SCALED_AT_ONCE: usize = 8;
const MOST_ROWS: usize = 1 << 15;

/// See the module's text.
#[derive(Clone)]
pub struct DeviceMatrix {
    kernels: Kernels,
    /// [out, in], in fp8 if `rounded`.
    pub(super) weight: Tensor,
    rounded: Option<Rounded>,
    plan: Plan,
    /// Format of the results.
    pub(super) output: DType,
}

#[derive(Clone)]
struct Rounded {
    /// f32 `[out]`
    scales: Tensor,
    /// f32 `[out]`, for sums that are scaled behind the product.
    bias: Option<Tensor>,
}

impl DeviceMatrix {
    /// W [out, in] as it lies on the device, or in fp8 if `compute` rounds to it and the sizes allow; results in `output`.
    pub(super) fn new(
        compute: &Compute,
        kernels: Kernels,
        weight: Tensor,
        bias: Option<&[f32]>,
        output: DType,
    ) -> Result<Self> {
        let (out, columns) = weight.dims2()?;
        let bias = bias.map(|bias| Tensor::from_slice(bias, bias.len(), weight.device())).transpose()?;
        let in_output = |bias: &Option<Tensor>| bias.as_ref().map(|bias| bias.to_dtype(output)).transpose();
        if !(compute.fp8 && out.is_multiple_of(FP8_MULTIPLE) && columns.is_multiple_of(FP8_MULTIPLE)) {
            let plan = kernels.plan(&weight, None, in_output(&bias)?.as_ref(), output)?;
            return Ok(Self { kernels, weight, rounded: None, plan, output });
        }
        let (eights, scales) =
            (Tensor::zeros((out, columns), DType::F8E4M3, weight.device())?, zeros_f32(&weight, out)?);
        round_rows(&kernels, &weight, &eights, &scales)?;
        let scales_itself = kernels.scales_fp8_rows();
        let plan = match scales_itself {
            true => kernels.plan(&eights, Some(&scales), in_output(&bias)?.as_ref(), output)?,
            false => kernels.plan(&eights, None, None, DType::F32)?,
        };
        Ok(Self { kernels, weight: eights, rounded: Some(Rounded { scales, bias }), plan, output })
    }

    /// y [rows, out] = x Wᵀ + bias.
    pub(super) fn run(&self, workspace: &mut Workspace, x: &Tensor, y: &Tensor) -> Result<()> {
        let Some(rounded) = &self.rounded else { return self.plan.run(&self.kernels, x, None, y) };
        let ((rows, columns), out, device) = (x.dims2()?, self.weight.dim(0)?, x.device());
        let eights = workspace.rows_of(DType::F8E4M3, Slot::Rounded, device, rows, columns)?;
        let scales = workspace.rows_of(DType::F32, Slot::RoundedScales, device, rows, 1)?;
        round_rows(&self.kernels, x, &eights, &scales)?;
        if self.kernels.scales_fp8_rows() {
            return self.plan.run(&self.kernels, &eights, Some(&scales), y);
        }
        let sums = workspace.rows_of(DType::F32, Slot::Sums, device, rows, out)?;
        self.plan.run(&self.kernels, &eights, None, &sums)?;
        Launch::new(&self.kernels, "scale_rows", y.dtype())
            .over_all([out.div_ceil(SCALE_THREADS * SCALED_AT_ONCE), rows.min(MOST_ROWS), 1], SCALE_THREADS)
            .tensor(&sums)
            .tensor(y)
            .tensor(&scales)
            .tensor(&rounded.scales)
            .optional(rounded.bias.as_ref())
            .int(rows)
            .int(out)
            .run()
    }

    /// The same with results in `output`.
    pub(super) fn with_output(self, output: DType, bias: Option<&[f32]>) -> Result<Self> {
        if self.rounded.is_some() {
            candle_core::bail!("a matrix in fp8 keeps the format of its results")
        }
        let bias = bias.map(|bias| Tensor::from_slice(bias, bias.len(), self.weight.device())?.to_dtype(output));
        let plan = self.kernels.plan(&self.weight, None, bias.transpose()?.as_ref(), output)?;
        Ok(Self { plan, output, ..self })
    }
}

fn zeros_f32(like: &Tensor, len: usize) -> Result<Tensor> {
    Tensor::zeros(len, DType::F32, like.device())
}

/// Rows of x in fp8, and what each was divided by.
fn round_rows(kernels: &Kernels, x: &Tensor, eights: &Tensor, scales: &Tensor) -> Result<()> {
    let (rows, columns) = x.dims2()?;
    Launch::new(kernels, "round_rows_fp8", x.dtype())
        .over(rows, row_threads(columns, 512))
        .tensor(x)
        .tensor(eights)
        .tensor(scales)
        .int(columns)
        .run()
}

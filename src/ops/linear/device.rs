//! A matrix on a CUDA device, as it is or in fp8 (e4m3): then each output has a scale, and so has each row of the input, which is rounded on
//! the way. A row's scale is its own, so its result depends on no other row. Products are cuBLASLt's where that gives a row the same bits in
//! any company, else our own, or ours at once where that is asked for. Knows matrices; knows no layer.

use candle_core::{DType, Result, Tensor};

use super::super::blocks::{Grouping, PRODUCT_THREADS, PRODUCT_TILE};
use super::super::cuda::Plan;
use super::super::launch::{Launch, row_threads};
use super::super::workspace::{Slot, Workspace};
use super::super::{Compute, Kernels, Loading};
use super::{DenseProducts, own};

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
    product: Product,
    /// Format of the results.
    pub(super) output: DType,
}

/// Whose product it is.
#[derive(Clone)]
enum Product {
    /// cuBLASLt's.
    Library(Plan),
    /// Our own, with the bias in f32 `[out]`.
    Own(Option<Tensor>),
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
        loading: &mut Loading,
        kernels: Kernels,
        weight: Tensor,
        bias: Option<&[f32]>,
        output: DType,
    ) -> Result<Self> {
        let (out, columns) = weight.dims2()?;
        let bias = bias.map(|bias| Tensor::from_slice(bias, bias.len(), weight.device())).transpose()?;
        let prefers_own = compute.products == DenseProducts::Own;
        if !(compute.fp8 && out.is_multiple_of(FP8_MULTIPLE) && columns.is_multiple_of(FP8_MULTIPLE)) {
            let product = Product::new(&kernels, loading, (&weight, None), bias, output, prefers_own)?;
            return Ok(Self { kernels, weight, rounded: None, product, output });
        }
        let (eights, scales) =
            (Tensor::zeros((out, columns), DType::F8E4M3, weight.device())?, zeros_f32(&weight, out)?);
        round_rows(&kernels, &weight, &eights, &scales)?;
        let product = Product::new(&kernels, loading, (&eights, Some(&scales)), bias.clone(), output, prefers_own)?;
        Ok(Self { kernels, weight: eights, rounded: Some(Rounded { scales, bias }), product, output })
    }

    /// y [rows, out] = x Wᵀ + bias.
    pub(super) fn run(&self, workspace: &mut Workspace, x: &Tensor, y: &Tensor) -> Result<()> {
        let ((rows, columns), out, device) = (x.dims2()?, self.weight.dim(0)?, x.device());
        let Some(rounded) = &self.rounded else {
            return match &self.product {
                Product::Library(plan) => self.run_parts(workspace, plan, x, None, rows, y),
                Product::Own(bias) => own::dense_product(&self.kernels, x, &self.weight, bias.as_ref(), y),
            };
        };
        // What is read beyond the rows, where a part is run with more than it has, is what is left of another step.
        let most_rows = rows + if let Product::Library(plan) = &self.product { plan.most_padding() } else { 0 };
        let eights = workspace.rows_of(DType::F8E4M3, Slot::Rounded, device, most_rows, columns)?;
        let scales = workspace.rows_of(DType::F32, Slot::RoundedScales, device, most_rows, 1)?;
        round_rows(&self.kernels, x, &eights, &scales)?;
        let plan = match &self.product {
            Product::Library(plan) => plan,
            Product::Own(bias) => {
                let weight = (&self.weight, &rounded.scales);
                return own::fp8_product(&self.kernels, (&eights, &scales), weight, bias.as_ref(), y);
            }
        };
        if self.kernels.scales_fp8_rows() {
            return self.run_parts(workspace, plan, &eights, Some(&scales), rows, y);
        }
        let sums = workspace.rows_of(DType::F32, Slot::Sums, device, rows, out)?;
        self.run_parts(workspace, plan, &eights, None, rows, &sums)?;
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

    /// y [rows, out] = x Wᵀ + bias by the library, in as many parts as its algorithms want. Where x is rounded it has rows for any padding.
    fn run_parts(
        &self,
        workspace: &mut Workspace,
        plan: &Plan,
        x: &Tensor,
        scales: Option<&Tensor>,
        rows: usize,
        y: &Tensor,
    ) -> Result<()> {
        let mut first = 0;
        while first < rows {
            let part = plan.part(&self.kernels, rows - first)?;
            let own = |tensor: &Tensor| tensor.narrow(0, first, part.rows);
            if part.rows == part.padded_rows {
                let scales = scales.map(&own).transpose()?;
                plan.run(&self.kernels, &part, &own(x)?, scales.as_ref(), &own(y)?)?;
            } else {
                let padded = |tensor: &Tensor| tensor.narrow(0, first, part.padded_rows);
                let wide_x = match self.rounded {
                    Some(_) => padded(x)?,
                    None => {
                        let columns = x.dim(1)?;
                        let wide =
                            workspace.rows_of(x.dtype(), Slot::PaddedInput, x.device(), part.padded_rows, columns)?;
                        wide.slice_set(&own(x)?, 0, 0)?;
                        wide
                    }
                };
                let slot = if y.dtype() == DType::F32 { Slot::PaddedSums } else { Slot::PaddedOutput };
                let wide_y = workspace.rows_of(y.dtype(), slot, x.device(), part.padded_rows, y.dim(1)?)?;
                let scales = scales.map(padded).transpose()?;
                plan.run(&self.kernels, &part, &wide_x, scales.as_ref(), &wide_y)?;
                own(y)?.slice_set(&wide_y.narrow(0, 0, part.rows)?, 0, 0)?;
            }
            first += part.rows;
        }
        Ok(())
    }

    /// The same with results in `output`.
    pub(super) fn with_output(self, loading: &mut Loading, output: DType, bias: Option<&[f32]>) -> Result<Self> {
        if self.rounded.is_some() {
            candle_core::bail!("a matrix in fp8 keeps the format of its results")
        }
        let bias = bias.map(|bias| Tensor::from_slice(bias, bias.len(), self.weight.device())).transpose()?;
        let prefers_own = matches!(self.product, Product::Own(_));
        let product = Product::new(&self.kernels, loading, (&self.weight, None), bias, output, prefers_own)?;
        Ok(Self { product, output, ..self })
    }
}

impl Product {
    /// Of W [out, in], if that is in fp8 with its rows' scales, and a bias in f32 `[out]`, with results in `output`.
    fn new(
        kernels: &Kernels,
        loading: &mut Loading,
        (weight, scales): (&Tensor, Option<&Tensor>),
        bias: Option<Tensor>,
        output: DType,
        prefers_own: bool,
    ) -> Result<Self> {
        let serves = own::serves(kernels, weight)?;
        if prefers_own && serves {
            return Ok(Self::Own(bias));
        }
        let plan = if scales.is_some() && !kernels.scales_fp8_rows() {
            kernels.plan(loading, weight, None, None, DType::F32)?
        } else {
            let bias = bias.as_ref().map(|bias| bias.to_dtype(output)).transpose()?;
            kernels.plan(loading, weight, scales, bias.as_ref(), output)?
        };
        match plan {
            Ok(plan) => Ok(Self::Library(plan)),
            Err(_) if serves => Ok(Self::Own(bias)),
            Err(why) => {
                let ((out, columns), format) = (weight.dims2()?, weight.dtype().as_str());
                let hint = if scales.is_some() { "--quantize q8_0, or 16 bits" } else { "--ops portable" };
                candle_core::bail!(
                    "neither cuBLASLt ({why}) nor we have a product in {format} with a matrix of {out}x{columns} that gives a row the same bits in any batch\nhint: {hint}"
                )
            }
        }
    }
}

/// y = x Wᵀ + bias in our own kernel, results in y's format, x's or f32: all rows by the one matrix W [out, in], or by `grouping` each by its
/// own of W [matrices, out, in], with the biases in f32 [matrices, out].
pub fn product(
    kernels: &Kernels,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    y: &Tensor,
    grouping: Option<&Grouping<'_>>,
) -> Result<()> {
    let &[.., out, columns] = weight.dims() else { candle_core::bail!("a matrix of {:?}", weight.shape()) };
    let num_matrices = weight.elem_count() / (out * columns).max(1);
    let num_rows = grouping.map_or(x.dim(0)?, |grouping| grouping.num_rows);
    let fits = x.dim(1)? == columns && x.dtype() == weight.dtype() && y.dims2()? == (num_rows, out);
    if !fits || (y.dtype() != x.dtype() && y.dtype() != DType::F32) || (grouping.is_none() && num_matrices != 1) {
        let (x, y, weight) = ((x.shape(), x.dtype()), (y.shape(), y.dtype()), (weight.shape(), weight.dtype()));
        candle_core::bail!("a product of {x:?} with {weight:?} to {y:?}")
    }
    let row_tiles = Grouping::most_row_tiles(grouping, num_rows, num_matrices);
    Launch::new(kernels, "grouped_product", x.dtype())
        .over_all([row_tiles, out.div_ceil(PRODUCT_TILE), 1], PRODUCT_THREADS)
        .tensor(x)
        .optional(grouping.and_then(|grouping| grouping.rows))
        .optional(grouping.map(|grouping| grouping.bounds))
        .tensor(weight)
        .optional(bias)
        .tensor(y)
        .int(num_matrices)
        .int(num_rows)
        .int(columns)
        .int(out)
        .int(usize::from(y.dtype() == DType::F32))
        .run()
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

//! A mixture of experts on a CUDA device: experts are chosen, rows grouped, multiplied and put together again by kernels/experts.cu, and
//! the host learns no count. Knows row numbers and stacked matrices; knows no layer.

use candle_core::{DType, Result, Tensor};

use super::super::blocks::{DeviceBlocks, Grouping};
use super::super::launch::{Launch, row_threads};
use super::super::linear::{MatrixView, product, stacked};
use super::super::workspace::{Slot, Workspace};
use super::super::{Compute, Kernels, Loading, Runs};
use super::Router;

/// What the kernels can do: experts, and chosen ones of a token.
const MOST_EXPERTS: usize = 512;
const MOST_CHOSEN: usize = 16;
/// Inputs of a product come in pieces of 16 bytes.
const WHOLE_PIECES: usize = 8;
/// Threads of the one block that groups rows.
const GROUP_THREADS: usize = 512;

/// Whether the device can: mixtures of these sizes, with products of rows of these widths.
pub fn has_kernels(compute: &Compute, num_experts: usize, num_chosen: usize, widths: &[usize]) -> bool {
    matches!(compute.runs(), Runs::Cuda(_))
        && (1..=MOST_EXPERTS).contains(&num_experts)
        && (1..=MOST_CHOSEN.min(num_experts)).contains(&num_chosen)
        && widths.iter().all(|width| width.is_multiple_of(WHOLE_PIECES))
}

/// Chooses experts on the device.
pub struct DeviceRouter {
    kernels: Kernels,
    rule: Router,
    /// f32 `[E]`
    expert_scale: Option<Tensor>,
}

/// Which rows go to which expert, on the device.
pub struct DeviceRouting {
    kernels: Kernels,
    tokens: usize,
    num_experts: usize,
    num_chosen: usize,
    /// [T, k] weights, f32.
    weights: Tensor,
    /// [T * k] numbers of tokens, grouped by expert.
    rows: Tensor,
    /// [T, k] entries of `rows` of each token, by ascending expert.
    places: Tensor,
    /// [E + 1] first entry of each expert in `rows`.
    bounds: Tensor,
}

impl DeviceRouter {
    /// A router by `rule`, of a compute for which [`has_kernels`].
    ///
    /// # Errors
    /// If there is no CUDA device, or no room on it.
    pub fn new(compute: &Compute, rule: &Router) -> Result<Self> {
        let Runs::Cuda(kernels) = compute.runs() else { candle_core::bail!("a router without a CUDA device") };
        let scale = rule.expert_scale.as_ref();
        let expert_scale = scale.map(|scale| Tensor::from_slice(scale, scale.len(), &compute.device)).transpose()?;
        Ok(Self { kernels, rule: rule.clone(), expert_scale })
    }

    /// As [`Router::route`], in buffers of `workspace`.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn route(&self, workspace: &mut Workspace, scores: &Tensor) -> Result<DeviceRouting> {
        let ((tokens, num_experts), k, device) = (scores.dims2()?, self.rule.num_chosen, scores.device());
        let entries = tokens * k;
        let weights = workspace.rows_of(DType::F32, Slot::RouteWeights, device, tokens, k)?;
        // Each part begins on 16 bytes.
        let part = entries.next_multiple_of(4);
        let all = workspace.rows_of(DType::U32, Slot::Routes, device, 1, 3 * part + num_experts + 1)?.flatten_all()?;
        let [chosen, rows, places] = [0, part, 2 * part].map(|first| all.narrow(0, first, entries));
        let (chosen, rows, places) = (chosen?, rows?, places?);
        let bounds = all.narrow(0, 3 * part, num_experts + 1)?;
        Launch::new(&self.kernels, "route", scores.dtype())
            .over(tokens, 32)
            .tensor(scores)
            .tensor(&chosen)
            .tensor(&weights)
            .int(num_experts)
            .int(k)
            .int(usize::from(self.rule.normalised))
            .optional(self.expert_scale.as_ref())
            .run()?;
        Launch::named(&self.kernels, "pairwright_group_rows".to_owned())
            .over(1, GROUP_THREADS)
            .tensor(&chosen)
            .tensor(&rows)
            .tensor(&places)
            .tensor(&bounds)
            .int(tokens)
            .int(num_experts)
            .int(k)
            .run()?;
        let kernels = self.kernels.clone();
        Ok(DeviceRouting { kernels, tokens, num_experts, num_chosen: k, weights, rows, places, bounds })
    }
}

impl DeviceRouting {
    /// As [`super::Routing::combine`], in a buffer of `workspace`.
    ///
    /// # Errors
    /// If y has another number of rows.
    pub fn combine(&self, workspace: &mut Workspace, y: &Tensor) -> Result<Tensor> {
        let (rows, width) = y.dims2()?;
        if rows != self.tokens * self.num_chosen {
            candle_core::bail!("{rows} rows of experts, want {}", self.tokens * self.num_chosen)
        }
        let mixed = workspace.rows_of(y.dtype(), Slot::Mixed, y.device(), self.tokens, width)?;
        Launch::new(&self.kernels, "combine", y.dtype())
            .over(self.tokens, row_threads(width, 512))
            .tensor(y)
            .tensor(&self.places)
            .tensor(&self.weights)
            .tensor(&mixed)
            .int(width)
            .int(self.num_chosen)
            .run()?;
        Ok(mixed)
    }
}

/// The matrices of all experts, [E, out, in], and their biases.
pub enum GroupedLinear {
    /// In one format.
    Dense {
        /// Of the device.
        kernels: Kernels,
        /// [E, out, in]
        weight: Tensor,
        /// f32 [E, out]
        bias: Option<Tensor>,
    },
    /// In blocks.
    Blocks(DeviceBlocks),
}

impl GroupedLinear {
    /// Room for `num_experts` matrices [out, in] that are stored as `sources` of one of them, stacked by rows; with biases if `has_bias`.
    /// The compute is one for which [`has_kernels`].
    ///
    /// # Errors
    /// If there is no CUDA device, or no room on it.
    pub fn new(compute: &Compute, num_experts: usize, sources: &[MatrixView<'_>], has_bias: bool) -> Result<Self> {
        let Runs::Cuda(kernels) = compute.runs() else { candle_core::bail!("grouped products without a CUDA device") };
        let Some(columns) = sources.first().map(|source| source.columns) else { candle_core::bail!("no matrix") };
        let (out, device) = (sources.iter().map(|source| source.rows).sum(), &compute.device);
        let format = compute.device_blocks_of(&sources[0]);
        if let Some(format) = format.filter(|_| sources.iter().all(|source| compute.device_blocks_of(source) == format))
        {
            let blocks = DeviceBlocks::zeros(kernels, device, format, num_experts, (out, columns), has_bias)?;
            return Ok(Self::Blocks(blocks));
        }
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, device);
        let weight = zeros(&[num_experts, out, columns], compute.weight_dtype)?;
        let bias = has_bias.then(|| zeros(&[num_experts, out], DType::F32)).transpose()?;
        Ok(Self::Dense { kernels, weight, bias })
    }

    /// Puts an expert's matrix, stacked of `sources`, and bias in place.
    ///
    /// # Errors
    /// If sizes or formats do not fit.
    pub fn set(
        &self,
        compute: &Compute,
        loading: &mut Loading,
        expert: usize,
        sources: &[MatrixView<'_>],
        bias: Option<&[f32]>,
    ) -> Result<()> {
        let all = match self {
            Self::Dense { weight, bias, .. } => {
                weight.slice_set(&stacked(compute, loading, sources)?.unsqueeze(0)?, 0, expert)?;
                bias.as_ref()
            }
            Self::Blocks(blocks) => {
                blocks.set(loading, expert, sources)?;
                blocks.bias()
            }
        };
        match (all, bias) {
            (Some(all), Some(bias)) => {
                all.slice_set(&Tensor::from_slice(bias, (1, bias.len()), all.device())?, 0, expert)
            }
            (None, None) => Ok(()),
            _ => candle_core::bail!("expert {expert} has a bias and others have none, or the other way round"),
        }
    }

    /// Each entry of `routing` through its expert's matrix, to [T * k, out] in a buffer of `workspace`: of x [T, in] the rows that the
    /// entries name if `gathers`, else x [T * k, in] as it lies.
    ///
    /// # Errors
    /// If sizes do not fit.
    pub fn forward(
        &self,
        workspace: &mut Workspace,
        slot: Slot,
        x: &Tensor,
        routing: &DeviceRouting,
        gathers: bool,
    ) -> Result<Tensor> {
        let entries = routing.tokens * routing.num_chosen;
        let (num_experts, out, columns) = match self {
            Self::Dense { weight, .. } => weight.dims3()?,
            Self::Blocks(blocks) => blocks.dims(),
        };
        let want = (if gathers { routing.tokens } else { entries }, columns);
        if x.dims2()? != want || num_experts != routing.num_experts {
            candle_core::bail!("a grouped product of {:?} {:?}, want {want:?}", x.shape(), x.dtype())
        }
        let y = workspace.rows_of(x.dtype(), slot, x.device(), entries, out)?;
        let rows = gathers.then_some(&routing.rows);
        let grouping = Grouping { rows, bounds: &routing.bounds, num_rows: entries };
        match self {
            Self::Blocks(blocks) => blocks.run(x, &y, 0, Some(&grouping))?,
            Self::Dense { kernels, weight, bias } => product(kernels, x, weight, bias.as_ref(), &y, Some(&grouping))?,
        }
        Ok(y)
    }
}

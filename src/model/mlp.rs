//! A layer's feed-forward block: dense (products in, activation, product out), a mixture of experts, or both side by side.
//! Knows its weights only; keeps no state.

use candle_core::{Result, Tensor};

use super::ModelError;
use super::spec::{DecoderSpec, MlpInput};
use super::tensors::{self, BESIDE_NORMS};
use super::weights::Loader;
use crate::ops::Compute;
use crate::ops::activation::{Activation, ActivationRows};
use crate::ops::experts::{DeviceRouter, GroupedLinear, Router, has_kernels};
use crate::ops::linear::Linear;
use crate::ops::norm::{self, Norm};
use crate::ops::{Runs, Slot, Workspace};

/// The feed-forward block of one layer.
pub enum FeedForward {
    /// Every token takes the same way.
    Dense(Box<Mlp>),
    /// Every token takes the ways of a few experts.
    Experts(Box<Experts>),
    /// Both, added.
    Beside(Box<Beside>),
}

impl FeedForward {
    /// Loads layer `layer`.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn new(loader: &mut Loader<'_>, spec: &DecoderSpec, layer: usize) -> std::result::Result<Self, ModelError> {
        let shape = &spec.layers[layer];
        match (shape.mlp_width > 0, shape.experts) {
            (true, true) => Ok(Self::Beside(Box::new(Beside::new(loader, spec, layer)?))),
            (false, true) => Ok(Self::Experts(Box::new(Experts::new(loader, spec, layer)?))),
            _ => Ok(Self::Dense(Box::new(Mlp::new(loader, spec, layer)?))),
        }
    }

    /// Whether the host learns nothing of a step on a CUDA device.
    pub fn is_steady(&self) -> bool {
        match self {
            Self::Dense(_) => true,
            Self::Experts(experts) => experts.is_steady(),
            Self::Beside(both) => both.experts.is_steady(),
        }
    }

    /// Normalised rows x [T, hidden] of `residual` [T, hidden] to [T, hidden].
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, ws: &mut Workspace, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(mlp) => mlp.forward(ws, x),
            Self::Experts(experts) => experts.forward(ws, x, x),
            Self::Beside(both) => both.forward(ws, x, residual),
        }
    }
}

/// A dense block.
pub struct Mlp {
    input: Linear,
    activation: ActivationRows,
    down: Linear,
}

impl Mlp {
    fn new(loader: &mut Loader<'_>, spec: &DecoderSpec, layer: usize) -> std::result::Result<Self, ModelError> {
        let (input, down) = tensors::mlp(spec, layer);
        let (input, down) = (loader.linear(&input)?, loader.linear(&down)?);
        let activation =
            if spec.mlp.stored_activation { stored_xielu(loader, spec, layer)? } else { spec.mlp.activation };
        let activation = match spec.mlp.input {
            MlpInput::Plain(_) => ActivationRows::plain(loader.compute(), activation),
            MlpInput::GateUp | MlpInput::Merged => ActivationRows::gated(loader.compute(), activation),
        };
        Ok(Self { input, activation, down })
    }

    fn forward(&self, ws: &mut Workspace, x: &Tensor) -> Result<Tensor> {
        let hidden = self.input.forward_in(ws, Slot::GateUp, x)?;
        let activated = self.activation.forward_in(ws, &hidden)?;
        self.down.forward_in(ws, Slot::FeedForward, &activated)
    }
}

/// xIELU with its stored constants: the slopes are stored before their softplus.
fn stored_xielu(
    loader: &mut Loader<'_>,
    spec: &DecoderSpec,
    layer: usize,
) -> std::result::Result<Activation, ModelError> {
    let mut numbers = [0f32; 4];
    for (number, stored) in numbers.iter_mut().zip(tensors::stored_activation(spec, layer)) {
        *number = loader.vector(&stored)?.first().copied().unwrap_or_default();
    }
    let [positive, negative, beta, eps] = numbers;
    let softplus = |x: f32| f64::from(x).exp().ln_1p() as f32;
    Ok(Activation::Xielu { positive: softplus(positive), negative: beta + softplus(negative), beta, eps })
}

/// A mixture: a router, and each expert's two products over the rows that chose it.
pub struct Experts {
    router: Linear,
    products: ExpertProducts,
    activation: ActivationRows,
    compute: Compute,
}

/// How rows go through their experts.
enum ExpertProducts {
    /// Experts are chosen on the host, and take their rows one after the other.
    Each(Router, Vec<(Linear, Linear)>),
    /// All on a CUDA device, all experts at once.
    Grouped(Box<(DeviceRouter, GroupedLinear, GroupedLinear)>),
}

impl Experts {
    fn new(loader: &mut Loader<'_>, spec: &DecoderSpec, layer: usize) -> std::result::Result<Self, ModelError> {
        let (Some(stored), Some(kind)) = (tensors::experts(spec, layer), &spec.experts) else {
            let field = "num_experts".to_owned();
            return Err(ModelError::Config { field, what: "missing, want the number of experts".to_owned() });
        };
        let mut rule = kind.router.clone();
        if let Some((_, scale)) = &stored.factors {
            rule.expert_scale = Some(loader.vector(scale)?);
        }
        let compute = loader.compute();
        // Scores in f32: a near tie should not fall as bf16 rounds.
        let router = loader.linear(&stored.router)?.with_wide_results(loader.loading())?;
        let widths = stored.experts.first().map_or([0; 2], |(input, down)| [input.columns, down.columns]);
        let products = if has_kernels(compute, stored.experts.len(), rule.num_chosen, &widths) {
            let (input, down) =
                (stored.experts.iter().map(|(input, _)| input), stored.experts.iter().map(|(_, down)| down));
            let router = DeviceRouter::new(compute, &rule)?;
            ExpertProducts::Grouped(Box::new((router, loader.grouped(input)?, loader.grouped(down)?)))
        } else {
            let mut experts = Vec::with_capacity(stored.experts.len());
            for (input, down) in &stored.experts {
                experts.push((loader.linear(input)?, loader.linear(down)?));
            }
            ExpertProducts::Each(rule, experts)
        };
        let activation = ActivationRows::gated(compute, kind.activation);
        Ok(Self { router, products, activation, compute: compute.clone() })
    }

    /// Whether the host learns nothing of a step, so that one is as the other.
    fn is_steady(&self) -> bool {
        matches!(self.products, ExpertProducts::Grouped(..))
    }

    /// Rows x [T, hidden] by the experts that `scored` [T, hidden] chooses.
    fn forward(&self, ws: &mut Workspace, x: &Tensor, scored: &Tensor) -> Result<Tensor> {
        let scores = self.router.forward_in(ws, Slot::Scores, scored)?;
        let (rule, experts) = match &self.products {
            ExpertProducts::Each(rule, experts) => (rule, experts),
            ExpertProducts::Grouped(all) => {
                let (router, input, down) = &**all;
                let routing = router.route(ws, &scores)?;
                let hidden = input.forward(ws, Slot::GateUp, x, &routing, true)?;
                let activated = self.activation.forward_in(ws, &hidden)?;
                let rows = down.forward(ws, Slot::ExpertRows, &activated, &routing, false)?;
                return routing.combine(ws, &rows);
            }
        };
        let routing = rule.route(&scores)?;
        let (total, width) = (routing.num_rows(), x.dim(1)?);
        if total == 0 {
            return x.zeros_like();
        }
        let in_place = !matches!(self.compute.runs(), Runs::Candle);
        let buffer = in_place.then(|| ws.rows_of(x.dtype(), Slot::ExpertRows, x.device(), total, width)).transpose()?;
        let mut groups = Vec::new();
        for (expert, range, x) in routing.gather(&self.compute, ws, x)? {
            let (input, down) = &experts[expert];
            let hidden = input.forward_in(ws, Slot::GateUp, &x)?;
            let activated = self.activation.forward_in(ws, &hidden)?;
            match &buffer {
                Some(rows) => _ = down.forward_to(ws, &rows.narrow(0, range.start, range.len())?, &activated)?,
                None => groups.push(down.forward(&activated)?),
            }
        }
        let rows = match buffer {
            Some(rows) => rows,
            None => Tensor::cat(&groups, 0)?,
        };
        routing.combine(&self.compute, ws, &rows)
    }
}

/// A dense block and a mixture that read the same residual stream, each with norms of its own (Gemma 4).
pub struct Beside {
    dense: Mlp,
    after_dense: Norm,
    /// A norm without weights but with the router's factors, hidden^-1/2 included.
    router_norm: Norm,
    before_experts: Norm,
    experts: Experts,
    after_experts: Norm,
}

impl Beside {
    fn new(loader: &mut Loader<'_>, spec: &DecoderSpec, layer: usize) -> std::result::Result<Self, ModelError> {
        let hidden = spec.hidden_size;
        let mut norm = |name: &str| loader.norm(&spec.norm, &format!("model.layers.{layer}.{name}"), hidden);
        let [after_dense, before_experts, after_experts] = BESIDE_NORMS;
        let (after_dense, before_experts) = (norm(after_dense)?, norm(before_experts)?);
        let after_experts = norm(after_experts)?;
        let factors = tensors::experts(spec, layer).and_then(|stored| stored.factors);
        let mut factors = match factors {
            Some((factors, _)) => loader.vector(&factors)?,
            None => vec![1.0; hidden],
        };
        let root = (hidden as f32).sqrt().recip();
        factors.iter_mut().for_each(|factor| *factor *= root);
        Ok(Self {
            dense: Mlp::new(loader, spec, layer)?,
            after_dense,
            router_norm: Norm::rms(loader.compute(), factors, spec.norm.eps)?,
            before_experts,
            experts: Experts::new(loader, spec, layer)?,
            after_experts,
        })
    }

    fn forward(&self, ws: &mut Workspace, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let dense = self.after_dense.forward_in_place(self.dense.forward(ws, x)?)?;
        let scored = self.router_norm.forward_in(ws, Slot::Scored, residual)?;
        let x = self.before_experts.forward_in(ws, Slot::ExpertInput, residual)?;
        let experts = self.after_experts.forward_in_place(self.experts.forward(ws, &x, &scored)?)?;
        norm::add(&self.experts.compute.runs(), dense, &experts)
    }
}

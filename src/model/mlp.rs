//! A layer's feed-forward block: one merged product for gate and up, gated activation, down product.
//! Knows its weights only.

use candle_core::{Result, Tensor};

use super::ModelError;
use super::spec::DecoderSpec;
use super::weights::Loader;
use crate::ops::activation::GatedActivation;
use crate::ops::linear::Linear;

/// The feed-forward block of one layer.
pub struct Mlp {
    gate_up: Linear,
    activation: GatedActivation,
    down: Linear,
}

impl Mlp {
    /// Loads the block whose tensors are named `{prefix}.gate_proj` and so on.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn new(loader: &mut Loader<'_>, spec: &DecoderSpec, prefix: &str) -> std::result::Result<Self, ModelError> {
        let width = spec.intermediate_size;
        let parts = [(format!("{prefix}.gate_proj"), width), (format!("{prefix}.up_proj"), width)];
        let gate_up = loader.linear(&parts, spec.hidden_size, spec.mlp_bias)?;
        let down = loader.linear(&[(format!("{prefix}.down_proj"), spec.hidden_size)], width, spec.mlp_bias)?;
        Ok(Self { gate_up, activation: GatedActivation::new(loader.compute(), spec.activation), down })
    }

    /// x [T, hidden] to [T, hidden].
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.activation.forward(&self.gate_up.forward(x)?)?)
    }
}

//! A layer's attention block: one merged product for q, k and v, rotation into the cache, attention, output product.
//! Knows its weights and the step's batch; keeps no state between steps.

use candle_core::{Result, Tensor};

use super::ModelError;
use super::spec::DecoderSpec;
use super::weights::Loader;
use crate::ops::attention::Attention;
use crate::ops::linear::Linear;
use crate::ops::paged::{KvLayer, PagedBatch};
use crate::ops::rotary::{Rotary, RotaryTable};

/// The attention block of one layer.
pub struct AttentionBlock {
    qkv: Linear,
    rotary: Rotary,
    attention: Attention,
    output: Linear,
}

impl AttentionBlock {
    /// Loads layer `layer`, whose tensors are named `{prefix}.q_proj` and so on.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn new(
        loader: &mut Loader<'_>,
        spec: &DecoderSpec,
        table: RotaryTable,
        layer: usize,
        prefix: &str,
    ) -> std::result::Result<Self, ModelError> {
        let geometry = spec.geometry;
        let parts = [
            (format!("{prefix}.q_proj"), geometry.q_width()),
            (format!("{prefix}.k_proj"), geometry.kv_width()),
            (format!("{prefix}.v_proj"), geometry.kv_width()),
        ];
        let qkv = loader.linear(&parts, spec.hidden_size, spec.qkv_bias)?;
        let output = [(format!("{prefix}.o_proj"), spec.hidden_size)];
        let output = loader.linear(&output, geometry.q_width(), spec.output_bias)?;
        let mut head_norm = |name: &str| match spec.qk_norm {
            true => loader.rms_norm(&format!("{prefix}.{name}"), geometry.head_dim, spec.norm_eps).map(Some),
            false => Ok(None),
        };
        let (q_norm, k_norm) = (head_norm("q_norm")?, head_norm("k_norm")?);
        let compute = loader.compute();
        let scale = (geometry.head_dim as f32).sqrt().recip();
        Ok(Self {
            qkv,
            rotary: Rotary::new(compute, table, geometry, q_norm, k_norm),
            attention: Attention::new(compute, geometry, scale, spec.windows[layer]),
            output,
        })
    }

    /// x [T, hidden] to [T, hidden]; this step's keys and values go to `cache`.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, x: &Tensor, cache: &KvLayer, batch: &PagedBatch) -> Result<Tensor> {
        let qkv = self.qkv.forward(x)?;
        let queries = self.rotary.queries(&qkv, batch)?;
        cache.write(&qkv, &self.rotary, batch)?;
        self.output.forward(&self.attention.forward(&queries, cache, batch)?)
    }
}

//! A layer's attention block: one merged product for q, k and v, rotation into the cache, attention, output product.
//! Knows its weights and the step's batch; keeps no state between steps.

use candle_core::{Result, Tensor};

use super::ModelError;
use super::spec::{DecoderSpec, LayerSpec};
use super::tensors;
use super::weights::Loader;
use crate::ops::attention::Attention;
use crate::ops::linear::Linear;
use crate::ops::norm::Norm;
use crate::ops::paged::{KvLayer, PagedBatch};
use crate::ops::rotary::{HeadNorms, Rotary, RotaryTable};
use crate::ops::{Slot, Workspace};

/// The attention block of one layer.
pub struct AttentionBlock {
    qkv: Linear,
    rotary: Rotary,
    attention: Attention,
    output: Linear,
    /// Whether this layer makes keys and values; otherwise it reads those of an earlier one.
    writes: bool,
}

impl AttentionBlock {
    /// Loads layer `layer`, whose positions turn by `table`.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn new(
        loader: &mut Loader<'_>,
        spec: &DecoderSpec,
        table: RotaryTable,
        layer: usize,
    ) -> std::result::Result<Self, ModelError> {
        let LayerSpec { geometry, window, kv_of, .. } = spec.layers[layer];
        let qkv = loader.linear(&tensors::qkv(spec, layer))?;
        let output = loader.linear(&tensors::attention_output(spec, layer))?;
        let compute = loader.compute();
        let mut norms = HeadNorms::none();
        if let Some(qk) = &spec.attention.qk_norm {
            let mut load = |keys| loader.norm_of(&qk.norm, &tensors::head_norm(spec, qk, layer, keys), None);
            norms.queries = Some(load(false)?);
            norms.keys = if kv_of.is_none() { Some(load(true)?) } else { None };
            (norms.span, norms.after_rotation) = (qk.span, qk.after_rotation);
        }
        if spec.attention.value_norm {
            norms.values = Some(Norm::rms(compute, vec![1.0; geometry.head_dim], spec.norm.eps)?);
        }
        let mut attention = Attention::new(compute, geometry, spec.attention.scale, window);
        attention.soft_cap = spec.attention.soft_cap;
        if spec.attention.sinks {
            attention = attention.with_sinks(loader.compute(), loader.vector(&tensors::sinks(spec, layer))?)?;
        }
        let rotary = Rotary::new(compute, table, geometry, norms).with_growth(spec.attention.growth);
        Ok(Self { qkv, rotary, attention, output, writes: kv_of.is_none() })
    }

    /// x [T, hidden] to [T, hidden]; this step's keys and values go to `cache`.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn forward(&self, ws: &mut Workspace, x: &Tensor, cache: &KvLayer, batch: &PagedBatch) -> Result<Tensor> {
        let qkv = self.qkv.forward_in(ws, Slot::Qkv, x)?;
        let qkv = match self.writes {
            true => self.rotary.forward_to(ws, cache, qkv, batch)?,
            false => self.rotary.forward(ws, qkv, batch)?,
        };
        let attended = self.attention.forward_in(ws, &qkv, cache, batch)?;
        self.output.forward_in(ws, Slot::Attention, &attended)
    }
}

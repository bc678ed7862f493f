//! Qwen2 and Qwen2.5 (biases on q, k, v), Qwen3 (per-head norms instead), with their layer-wise window switch, and Qwen3's
//! mixtures of experts.
//! Knows the configuration's fields only.

use serde_json::Value;

use crate::model::config::wrong;
use crate::model::spec::{ExpertLayout, ExpertsSpec};
use crate::model::{DecoderSpec, HfConfig, ModelError};
use crate::ops::experts::Router;
use crate::ops::rotary::NormSpan;

pub(super) fn qwen2(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "qwen2", 10_000.0)?;
    spec.attention.qkv_bias = true;
    windows(config, &mut spec)?;
    Ok(spec)
}

pub(super) fn qwen3(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = third(config, "qwen3")?;
    windows(config, &mut spec)?;
    Ok(spec)
}

pub(super) fn qwen3_moe(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = third(config, "qwen3_moe")?;
    if config.flag("use_sliding_window", false)? {
        let window = config.optional_size("sliding_window")?;
        spec.layers.iter_mut().for_each(|layer| layer.window = window);
    }
    let num_experts = match config.optional_size("num_experts")? {
        Some(count) => count,
        None => config.optional_size("num_local_experts")?.unwrap_or(128),
    };
    let num_chosen = super::num_chosen(config, "num_experts_per_tok", 8, num_experts)?;
    let step = config.optional_size("decoder_sparse_step")?.unwrap_or(1);
    let dense: Vec<u64> = match config.get("mlp_only_layers") {
        None => Vec::new(),
        Some(Value::Array(layers)) => layers.iter().filter_map(Value::as_u64).collect(),
        Some(other) => return Err(wrong("mlp_only_layers", other, "a list of layer numbers")),
    };
    for (index, layer) in spec.layers.iter_mut().enumerate() {
        if (index + 1).is_multiple_of(step) && !dense.contains(&(index as u64)) {
            (layer.mlp_width, layer.experts) = (0, true);
        }
    }
    spec.experts = Some(ExpertsSpec {
        block: "mlp.",
        num_experts,
        width: config.size("moe_intermediate_size")?,
        router: Router { num_chosen, normalised: config.flag("norm_topk_prob", false)?, expert_scale: None },
        router_name: "gate",
        layout: ExpertLayout::Separate(["gate_proj", "up_proj", "down_proj"]),
        activation: spec.mlp.activation,
        beside_dense: false,
    });
    Ok(spec)
}

fn third(config: &HfConfig, family: &'static str) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, family, 10_000.0)?;
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    spec.attention.qk_norm = super::qk_norm(&spec, NormSpan::Head);
    Ok(spec)
}

/// A layer is windowed if `use_sliding_window` is on and `layer_types` says so, or without that list if the layer is at or
/// above `max_window_layers`.
fn windows(config: &HfConfig, spec: &mut DecoderSpec) -> Result<(), ModelError> {
    let window = match config.flag("use_sliding_window", false)? {
        true => config.optional_size("sliding_window")?,
        false => None,
    };
    let first = config.number("max_window_layers", 28.0)? as usize;
    let sliding = match config.get("layer_types") {
        None => (0..spec.num_layers()).map(|layer| layer >= first).collect(),
        Some(_) => super::sliding_layers(config, spec.num_layers(), 0)?,
    };
    super::set_windows(spec, &sliding, window);
    Ok(())
}

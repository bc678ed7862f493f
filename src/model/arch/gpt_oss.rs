//! gpt-oss: experts with a clamped gate, a learned sink per head, alternating windows, YaRN.
//! Knows the configuration's fields only.

use crate::model::spec::{ExpertLayout, ExpertsSpec};
use crate::model::{DecoderSpec, HfConfig, ModelError};
use crate::ops::activation::Activation;
use crate::ops::experts::Router;

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(&config.with_defaults(&[("head_dim", 64)]), "gpt_oss", 150_000.0)?;
    spec.norm.eps = config.number("rms_norm_eps", 1e-5)?;
    spec.attention.sinks = true;
    spec.attention.qkv_bias = config.flag("attention_bias", true)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    let sliding = match config.get("layer_types") {
        None => (0..spec.num_layers()).map(|layer| layer.is_multiple_of(2)).collect(),
        Some(_) => super::sliding_layers(config, spec.num_layers(), 0)?,
    };
    let window = if config.mentions("sliding_window") { config.optional_size("sliding_window")? } else { Some(128) };
    super::set_windows(&mut spec, &sliding, window);
    let num_experts = match config.optional_size("num_local_experts")? {
        Some(count) => count,
        None => config.optional_size("num_experts")?.unwrap_or(128),
    };
    let num_chosen = super::num_chosen(config, "num_experts_per_tok", 4, num_experts)?;
    for layer in &mut spec.layers {
        (layer.mlp_width, layer.experts) = (0, true);
    }
    spec.experts = Some(ExpertsSpec {
        block: "mlp.",
        num_experts,
        width: config.size("intermediate_size")?,
        router: Router { num_chosen, normalised: true, expert_scale: None },
        router_name: "router",
        layout: ExpertLayout::TransposedPairs,
        activation: Activation::ClampedSwiglu {
            steepness: config.number("swiglu_alpha", 1.702)? as f32,
            limit: config.number("swiglu_limit", 7.0)? as f32,
        },
        beside_dense: false,
    });
    Ok(spec)
}

//! Cohere's Command R and Aya models: LayerNorm without bias, attention and feed-forward side by side, neighbours paired by the
//! rotation, scaled logits; in the second generation windows, and layers without rotation between them.
//! Knows the configuration's fields only.

use super::layer_norm;
use crate::model::spec::{Head, Wiring};
use crate::model::{DecoderSpec, HfConfig, ModelError};
use crate::ops::rotary::NormSpan;

pub(super) fn cohere(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = base(config, "cohere")?;
    if config.flag("use_qk_norm", false)? {
        spec.attention.qk_norm = super::qk_norm(&spec, NormSpan::OwnHead);
    }
    Ok(spec)
}

pub(super) fn cohere2(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = base(config, "cohere2")?;
    let pattern = config.optional_size("sliding_window_pattern")?.unwrap_or(4);
    let sliding = super::sliding_layers(config, spec.num_layers(), pattern)?;
    let window = if config.mentions("sliding_window") { config.optional_size("sliding_window")? } else { Some(4096) };
    super::set_windows(&mut spec, &sliding, window);
    for layer in &mut spec.layers {
        layer.rope = layer.window.map(|_| 0);
    }
    Ok(spec)
}

fn base(config: &HfConfig, family: &'static str) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, family, 10_000.0)?;
    spec.norm = layer_norm(config.number("layer_norm_eps", 1e-5)?, false);
    spec.wiring = Wiring {
        before_attention: Some("input_layernorm"),
        after_attention: None,
        before_mlp: None,
        after_mlp: None,
        parallel: true,
    };
    spec.attention.interleaved = true;
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    spec.scales.logits = config.number("logit_scale", 0.0625)?;
    spec.head = if config.flag("tie_word_embeddings", true)? { Head::Tied } else { Head::Own };
    Ok(spec)
}

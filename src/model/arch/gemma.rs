//! Gemma 1, 2 and 3: scaled embeddings, norms whose stored weight is one less, tanh GELU; from 2 on norms on both sides of each
//! block, alternating windows and soft caps; in 3 norms of queries and keys, and two rotary bases.
//! Knows the configuration's fields only.

use serde_json::Value;

use super::{LLAMA_WIRING, Wiring};
use crate::model::rope::RopeSpec;
use crate::model::spec::Head;
use crate::model::{DecoderSpec, HfConfig, ModelError};
use crate::ops::activation::Activation;
use crate::ops::rotary::NormSpan;

/// Norms on both sides of each block.
pub(super) const WIRING: Wiring = Wiring {
    before_attention: Some("input_layernorm"),
    after_attention: Some("post_attention_layernorm"),
    before_mlp: Some("pre_feedforward_layernorm"),
    after_mlp: Some("post_feedforward_layernorm"),
    parallel: false,
};

pub(super) fn gemma(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = base(config, "gemma")?;
    spec.wiring = LLAMA_WIRING;
    Ok(spec)
}

pub(super) fn gemma2(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = base(config, "gemma2")?;
    let scalar = config.number("query_pre_attn_scalar", 256.0)?;
    spec.attention.scale = scalar.sqrt().recip() as f32;
    spec.attention.soft_cap = cap(config, "attn_logit_softcapping", Some(50.0))?.map(|cap| cap as f32);
    spec.scales.logit_cap = cap(config, "final_logit_softcapping", Some(30.0))?;
    let sliding = super::sliding_layers(config, spec.num_layers(), 2)?;
    super::set_windows(&mut spec, &sliding, Some(config.optional_size("sliding_window")?.unwrap_or(4096)));
    Ok(spec)
}

pub(super) fn gemma3_text(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    // The published multimodal configurations leave these out.
    let config = &config.with_defaults(&[
        ("vocab_size", 262_208),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("head_dim", 256),
        ("max_position_embeddings", 131_072),
        ("sliding_window", 4096),
    ]);
    config.refuse("use_bidirectional_attention")?;
    let mut spec = base(config, "gemma3_text")?;
    let scalar = config.number("query_pre_attn_scalar", 256.0)?;
    spec.attention.scale = scalar.sqrt().recip() as f32;
    spec.attention.soft_cap = cap(config, "attn_logit_softcapping", None)?.map(|cap| cap as f32);
    spec.scales.logit_cap = cap(config, "final_logit_softcapping", None)?;
    spec.attention.qk_norm = super::qk_norm(&spec, NormSpan::Head);
    let pattern = config.optional_size("sliding_window_pattern")?.unwrap_or(6);
    let sliding = super::sliding_layers(config, spec.num_layers(), pattern)?;
    super::set_windows(&mut spec, &sliding, config.optional_size("sliding_window")?);
    // One base for layers that see everything, another one, never scaled in the old spelling, for windowed ones.
    let mut local = config.rope_parameters_of("sliding_attention");
    if config.get("rope_parameters").is_none() {
        local.clear();
        local.insert("rope_theta".to_owned(), Value::from(config.number("rope_local_base_freq", 10_000.0)?));
    }
    let (dim, positions) = (spec.layers[0].geometry.head_dim, spec.max_positions);
    let global = config.rope_parameters_of("full_attention");
    spec.ropes = vec![
        RopeSpec::parse(&global, 1_000_000.0, dim, positions)?,
        RopeSpec::parse(&local, 10_000.0, dim, positions)?,
    ];
    spec.layers.iter_mut().zip(&sliding).for_each(|(layer, &sliding)| layer.rope = Some(usize::from(sliding)));
    Ok(spec)
}

fn base(config: &HfConfig, family: &'static str) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(&config.with_defaults(&[("head_dim", 256)]).without_activation(), family, 10_000.0)?;
    spec.norm.plus_one = true;
    spec.wiring = WIRING;
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    // The first Gemma's files say "gelu" and mean the tanh form; so does Transformers.
    let legacy = config.get("hidden_activation").is_none() && config.get("hidden_act").is_some_and(|act| act == "gelu");
    spec.mlp.activation = if legacy { Activation::GeluTanh } else { super::activation(config, "gelu_pytorch_tanh")? };
    spec.scales.embedding = (spec.hidden_size as f64).sqrt();
    spec.head = if config.flag("tie_word_embeddings", true)? { Head::Tied } else { Head::Own };
    Ok(spec)
}

/// A soft cap: the field if it is there, nothing if it is null, else the default.
pub(super) fn cap(config: &HfConfig, field: &str, default: Option<f64>) -> Result<Option<f64>, ModelError> {
    match (config.mentions(field), config.get(field)) {
        (true, None) => Ok(None),
        (false, None) => Ok(default),
        _ => config.number(field, 0.0).map(|cap| Some(cap).filter(|cap| *cap > 0.0)),
    }
}

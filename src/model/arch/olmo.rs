//! OLMo 2 and 3: norms behind each block and none before, norms of all of a token's queries and keys together; in 3 windows in
//! three of four layers, with a rotation of their own.
//! Knows the configuration's fields only.

use super::POST_WIRING;
use crate::model::rope::RopeSpec;
use crate::model::{DecoderSpec, HfConfig, ModelError};
use crate::ops::rotary::NormSpan;

/// Transformers' default base for both generations.
const THETA: f64 = 500_000.0;

pub(super) fn olmo2(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    base(config, "olmo2", 10_000.0)
}

pub(super) fn olmo3(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = base(&config.without_rope(), "olmo3", THETA)?;
    let sliding = super::sliding_layers(config, spec.num_layers(), 4)?;
    let window = if config.mentions("sliding_window") { config.optional_size("sliding_window")? } else { Some(4096) };
    super::set_windows(&mut spec, &sliding, window);
    // In the old spelling the scaling is for layers that see everything; windowed ones keep the plain rotation.
    let mut local = config.rope_parameters_of("sliding_attention");
    if config.get("rope_parameters").is_none() {
        local.retain(|name, _| name == "rope_theta");
    }
    let (dim, positions) = (spec.layers[0].geometry.head_dim, spec.max_positions);
    let global = config.rope_parameters_of("full_attention");
    spec.ropes =
        vec![RopeSpec::parse(&global, THETA, dim, positions)?, RopeSpec::parse(&local, THETA, dim, positions)?];
    spec.layers.iter_mut().zip(&sliding).for_each(|(layer, &sliding)| layer.rope = Some(usize::from(sliding)));
    Ok(spec)
}

fn base(config: &HfConfig, family: &'static str, theta: f64) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, family, theta)?;
    spec.norm.eps = config.number("rms_norm_eps", 1e-5)?;
    spec.wiring = POST_WIRING;
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    spec.attention.qk_norm = super::qk_norm(&spec, NormSpan::Token);
    Ok(spec)
}

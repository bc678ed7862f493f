//! GLM-4 (0414): norms on both sides of each block, half of each head rotated in neighbouring pairs, merged gate and up.
//! Knows the configuration's fields only.

use crate::model::rope::RopeSpec;
use crate::model::spec::{MlpInput, Wiring};
use crate::model::{DecoderSpec, HfConfig, ModelError};

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "glm4", 10_000.0)?;
    spec.norm.eps = config.number("rms_norm_eps", 1.562_5e-7)?;
    spec.wiring = Wiring {
        before_attention: Some("input_layernorm"),
        after_attention: Some("post_self_attn_layernorm"),
        before_mlp: Some("post_attention_layernorm"),
        after_mlp: Some("post_mlp_layernorm"),
        parallel: false,
    };
    let mut rope = config.rope_parameters();
    rope.entry("partial_rotary_factor").or_insert(0.5.into());
    let head_dim = spec.layers[0].geometry.head_dim;
    spec.ropes = vec![RopeSpec::parse(&rope, 10_000.0, head_dim, spec.max_positions)?];
    spec.attention.interleaved = true;
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.mlp.input = MlpInput::Merged;
    Ok(spec)
}

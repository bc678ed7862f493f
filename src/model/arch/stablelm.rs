//! StableLM 2: LayerNorm with bias, a quarter of each head rotated, and by choice norms per head and parallel blocks.
//! Knows the configuration's fields only.

use super::layer_norm;
use crate::model::rope::RopeSpec;
use crate::model::spec::QkNormSpec;
use crate::model::{DecoderSpec, HfConfig, ModelError};
use crate::ops::rotary::NormSpan;

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "stablelm", 10_000.0)?;
    let eps = config.number("layer_norm_eps", 1e-5)?;
    spec.norm = layer_norm(eps, true);
    let mut rope = config.rope_parameters();
    rope.entry("partial_rotary_factor").or_insert(0.25.into());
    let head_dim = spec.layers[0].geometry.head_dim;
    spec.ropes = vec![RopeSpec::parse(&rope, 10_000.0, head_dim, spec.max_positions)?];
    spec.attention.qkv_bias = config.flag("use_qkv_bias", false)?;
    if config.flag("qk_layernorm", false)? {
        spec.attention.qk_norm = Some(QkNormSpec {
            names: ("q_layernorm", "k_layernorm"),
            span: NormSpan::OwnHead,
            per_head_tensors: true,
            after_rotation: false,
            norm: layer_norm(eps, false),
        });
    }
    if config.flag("use_parallel_residual", false)? {
        (spec.wiring.before_mlp, spec.wiring.parallel) = (None, true);
    }
    Ok(spec)
}

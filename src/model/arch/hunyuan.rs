//! Hunyuan's dense models: llama with per-head norms of queries and keys after the rotation, whose base grows by a fixed factor.
//! Knows the configuration's fields only.

use crate::model::spec::QkNormSpec;
use crate::model::{DecoderSpec, HfConfig, ModelError};
use crate::ops::rotary::NormSpan;

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "hunyuan_v1_dense", 10_000.0)?;
    spec.norm.eps = config.number("rms_norm_eps", 1e-5)?;
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    spec.attention.qk_norm = Some(QkNormSpec {
        names: ("query_layernorm", "key_layernorm"),
        span: NormSpan::Head,
        per_head_tensors: false,
        after_rotation: true,
        norm: spec.norm,
    });
    Ok(spec)
}

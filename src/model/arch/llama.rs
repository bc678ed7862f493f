//! Llama 2 and 3, and the many models published under `model_type: llama`.
//! Knows the configuration's fields only.

use crate::model::{DecoderSpec, HfConfig, ModelError};

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "llama", 10_000.0)?;
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    spec.mlp.bias = config.flag("mlp_bias", false)?;
    Ok(spec)
}

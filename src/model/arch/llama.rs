//! Llama 2 and 3, and the many models published under `model_type: llama`.
//! Knows the configuration's fields only.

use crate::model::{DecoderSpec, HfConfig, ModelError};

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "llama")?;
    spec.qkv_bias = config.flag("attention_bias", false)?;
    spec.output_bias = spec.qkv_bias;
    spec.mlp_bias = config.flag("mlp_bias", false)?;
    Ok(spec)
}

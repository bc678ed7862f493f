//! Granite 3: llama with factors on embeddings, scores, residuals and logits.
//! Knows the configuration's fields only.

use crate::model::config::wrong;
use crate::model::{DecoderSpec, HfConfig, ModelError};

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "granite", 10_000.0)?;
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    spec.mlp.bias = config.flag("mlp_bias", false)?;
    spec.attention.scale = config.number("attention_multiplier", 1.0)? as f32;
    spec.scales.embedding = config.number("embedding_multiplier", 1.0)?;
    spec.scales.residual = config.number("residual_multiplier", 1.0)?;
    let divisor = config.number("logits_scaling", 1.0)?;
    if divisor == 0.0 {
        return Err(wrong("logits_scaling", &divisor.into(), "a number other than 0"));
    }
    spec.scales.logits = 1.0 / divisor;
    Ok(spec)
}

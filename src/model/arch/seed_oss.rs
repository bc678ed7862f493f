//! Seed-OSS: llama with biases on queries, keys and values, and on the output by choice.
//! Knows the configuration's fields only.

use crate::model::{DecoderSpec, HfConfig, ModelError};

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(&config.with_defaults(&[("head_dim", 128)]), "seed_oss", 10_000.0)?;
    spec.attention.qkv_bias = config.flag("attention_bias", true)?;
    spec.attention.output_bias = config.flag("attention_out_bias", false)?;
    spec.mlp.bias = config.flag("mlp_bias", false)?;
    Ok(spec)
}

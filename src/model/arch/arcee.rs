//! Arcee's AFM: llama with a feed-forward block of squared ReLU and no gate.
//! Knows the configuration's fields only.

use crate::model::spec::MlpInput;
use crate::model::{DecoderSpec, HfConfig, ModelError};

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "arcee", 10_000.0)?;
    spec.norm.eps = config.number("rms_norm_eps", 1e-5)?;
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    spec.mlp.bias = config.flag("mlp_bias", false)?;
    spec.mlp.input = MlpInput::Plain("up_proj");
    spec.mlp.activation = super::activation(config, "relu2")?;
    Ok(spec)
}

//! StarCoder 2: LayerNorm with bias, biases everywhere, a feed-forward block without a gate.
//! Knows the configuration's fields only.

use super::layer_norm;
use crate::model::spec::{Head, MlpInput};
use crate::model::{DecoderSpec, HfConfig, ModelError};

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(&config.without_activation(), "starcoder2", 10_000.0)?;
    spec.norm = layer_norm(config.number("norm_epsilon", 1e-5)?, true);
    let bias = config.flag("use_bias", true)?;
    (spec.attention.qkv_bias, spec.attention.output_bias, spec.mlp.bias) = (bias, bias, bias);
    spec.mlp.input = MlpInput::Plain("c_fc");
    spec.mlp.down = "c_proj";
    spec.mlp.activation = super::activation(config, "gelu_pytorch_tanh")?;
    let window = config.optional_size("sliding_window")?;
    spec.layers.iter_mut().for_each(|layer| layer.window = window);
    spec.head = if config.flag("tie_word_embeddings", true)? { Head::Tied } else { Head::Own };
    Ok(spec)
}

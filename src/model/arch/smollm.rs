//! SmolLM3: llama with some layers that have no rotation.
//! Knows the configuration's fields only.

use serde_json::Value;

use crate::model::config::wrong;
use crate::model::spec::Head;
use crate::model::{DecoderSpec, HfConfig, ModelError};

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "smollm3", 2_000_000.0)?;
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    spec.mlp.bias = config.flag("mlp_bias", false)?;
    spec.head = if config.flag("tie_word_embeddings", true)? { Head::Tied } else { Head::Own };
    let num_layers = spec.num_layers();
    let rotated: Vec<bool> = match config.get("no_rope_layers") {
        None => {
            let interval = config.optional_size("no_rope_layer_interval")?.unwrap_or(4);
            (1..=num_layers).map(|layer| !layer.is_multiple_of(interval)).collect()
        }
        // Despite its name, 1 marks a layer with rotation.
        Some(Value::Array(list)) if list.len() == num_layers => list.iter().map(|flag| flag != 0).collect(),
        Some(other) => return Err(wrong("no_rope_layers", other, &format!("a list of {num_layers} numbers"))),
    };
    if config.flag("use_sliding_window", false)? {
        let sliding = match config.get("layer_types") {
            None => rotated.iter().map(|rotated| !rotated).collect(),
            Some(_) => super::sliding_layers(config, num_layers, 0)?,
        };
        super::set_windows(&mut spec, &sliding, config.optional_size("sliding_window")?);
    }
    spec.layers.iter_mut().zip(rotated).for_each(|(layer, rotated)| layer.rope = rotated.then_some(0));
    Ok(spec)
}

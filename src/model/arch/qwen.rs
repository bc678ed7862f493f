//! Qwen2 and Qwen2.5 (biases on q, k, v) and Qwen3 (per-head norms instead), with their layer-wise window switch.
//! Knows the configuration's fields only.

use serde_json::Value;

use crate::model::config::wrong;
use crate::model::{DecoderSpec, HfConfig, ModelError};

pub(super) fn qwen2(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "qwen2")?;
    spec.qkv_bias = true;
    windows(config, &mut spec)?;
    Ok(spec)
}

pub(super) fn qwen3(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "qwen3")?;
    spec.qkv_bias = config.flag("attention_bias", false)?;
    spec.output_bias = spec.qkv_bias;
    spec.qk_norm = true;
    windows(config, &mut spec)?;
    Ok(spec)
}

/// A layer is windowed if `use_sliding_window` is on and `layer_types` says so, or without that list if the layer is at or
/// above `max_window_layers`.
fn windows(config: &HfConfig, spec: &mut DecoderSpec) -> Result<(), ModelError> {
    let window = match config.flag("use_sliding_window", false)? {
        true => config.optional_size("sliding_window")?,
        false => None,
    };
    let first_windowed = config.number("max_window_layers", 28.0)? as usize;
    let num_layers = spec.num_layers();
    match config.get("layer_types") {
        None => {
            for (layer, slot) in spec.windows.iter_mut().enumerate() {
                *slot = window.filter(|_| layer >= first_windowed);
            }
        }
        Some(Value::Array(types)) if types.len() == num_layers => {
            for (kind, slot) in types.iter().zip(&mut spec.windows) {
                *slot = match kind.as_str() {
                    Some("sliding_attention") => window,
                    Some("full_attention") => None,
                    _ => return Err(wrong("layer_types", kind, "\"full_attention\" or \"sliding_attention\"")),
                };
            }
        }
        Some(other) => return Err(wrong("layer_types", other, &format!("a list of {num_layers} layer types"))),
    }
    Ok(())
}

//! Apertus: llama with per-head norms of queries and keys, and the xIELU activation, whose constants are stored.
//! Knows the configuration's fields only.

use serde_json::Value;

use crate::model::config::wrong;
use crate::model::spec::{MlpInput, Wiring};
use crate::model::{DecoderSpec, HfConfig, ModelError};
use crate::ops::rotary::NormSpan;

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    if let Some(other) = config.get("hidden_act").filter(|act| act.as_str() != Some("xielu")) {
        return Err(wrong("hidden_act", other, "\"xielu\""));
    }
    let mut spec = super::base(&config.without_activation(), "apertus", 12_000_000.0)?;
    spec.norm.eps = config.number("rms_norm_eps", 1e-5)?;
    spec.wiring = Wiring {
        before_attention: Some("attention_layernorm"),
        before_mlp: Some("feedforward_layernorm"),
        ..spec.wiring
    };
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    spec.attention.qk_norm = super::qk_norm(&spec, NormSpan::Head);
    spec.mlp.input = MlpInput::Plain("up_proj");
    spec.mlp.stored_activation = true;
    if config.get("rope_parameters").or(config.get("rope_scaling")) == Some(&Value::Null) {
        return Err(wrong("rope_parameters", &Value::Null, "an object"));
    }
    Ok(spec)
}

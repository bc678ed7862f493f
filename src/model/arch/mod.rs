//! One file per family: config.json to [`DecoderSpec`], pure data. This file finds the family.
//! Knows names and fields; knows nothing of tensors.

mod llama;
mod mistral;
mod qwen;

use super::ModelError;
use super::config::{HfConfig, wrong};
use super::rope::RopeSpec;
use super::spec::DecoderSpec;
use crate::ops::activation::Activation;
use crate::ops::paged::HeadGeometry;

type Family = fn(&HfConfig) -> Result<DecoderSpec, ModelError>;

/// `model_type` and its reader.
const FAMILIES: [(&str, Family); 4] =
    [("llama", llama::spec), ("mistral", mistral::spec), ("qwen2", qwen::qwen2), ("qwen3", qwen::qwen3)];

/// The `model_type`s that this engine runs.
pub fn families() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(name, _)| *name)
}

/// The spec of a configuration.
///
/// # Errors
/// [`ModelError::UnknownFamily`], or [`ModelError::Config`] naming the field.
pub fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let model_type = config.model_type()?;
    if let Some((_, read)) = FAMILIES.iter().find(|(name, _)| *name == model_type) {
        return read(config);
    }
    let closest = families()
        .map(|name| (strsim::jaro_winkler(name, model_type), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Err(ModelError::UnknownFamily {
        model_type: model_type.to_owned(),
        closest: closest.map(|(_, name)| format!(" (closest: {name})")).unwrap_or_default(),
        supported: families().collect::<Vec<_>>().join(", "),
    })
}

/// More layers than any model has; a larger number is a damaged file.
const MAX_LAYERS: usize = 4096;

/// What the llama-like families share; each family changes its own fields.
fn base(config: &HfConfig, family: &'static str) -> Result<DecoderSpec, ModelError> {
    config.require("hidden_act", "silu")?;
    let hidden_size = config.size("hidden_size")?;
    let num_heads = config.size("num_attention_heads")?;
    let num_kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(num_heads);
    let head_dim = config.optional_size("head_dim")?.unwrap_or(hidden_size / num_heads);
    if head_dim == 0 {
        let got = hidden_size.into();
        return Err(wrong("hidden_size", &got, &format!("at least num_attention_heads ({num_heads}), or a head_dim")));
    }
    if !num_heads.is_multiple_of(num_kv_heads) {
        let got = num_kv_heads.into();
        return Err(wrong("num_key_value_heads", &got, &format!("a divisor of num_attention_heads ({num_heads})")));
    }
    let max_positions = config.size("max_position_embeddings")?;
    let num_layers = config.size("num_hidden_layers")?;
    if num_layers > MAX_LAYERS {
        return Err(wrong("num_hidden_layers", &num_layers.into(), &format!("no more than {MAX_LAYERS}")));
    }
    Ok(DecoderSpec {
        family,
        hidden_size,
        intermediate_size: config.size("intermediate_size")?,
        vocab_size: config.size("vocab_size")?,
        geometry: HeadGeometry { num_heads, num_kv_heads, head_dim },
        windows: vec![None; num_layers],
        norm_eps: config.number("rms_norm_eps", 1e-6)?,
        qk_norm: false,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        activation: Activation::Silu,
        rope: RopeSpec::parse(&config.rope_parameters(), 10_000.0, head_dim, max_positions)?,
        max_positions,
        tied_head: config.flag("tie_word_embeddings", false)?,
    })
}

//! Rotary settings: keys, and the factor per pair that some models carry as a tensor, to Transformers' fields.
//! Knows fields; the frequencies themselves are computed in `model::rope`.

use serde_json::{Map, Value, json};

use super::config::Config;
use crate::gguf::{BlockType, Gguf, GgufError};

/// Sets `rope_theta`, `rope_scaling`, `partial_rotary_factor` and what goes with them.
pub(super) fn settings(config: &mut Config<'_>) -> Result<(), GgufError> {
    let head_dim = config.size_of("head_dim");
    if let Some(theta) = config.number("rope.freq_base")? {
        config.set("rope_theta", theta);
    }
    let local = config.number("rope.freq_base_swa")?;
    config.set("rope_local_base_freq", local.unwrap_or(10_000.0));
    if let Some(rotated) = config.count("rope.dimension_count")?.filter(|rotated| *rotated != head_dim) {
        if rotated == 0 || rotated > head_dim {
            let what = format!("metadata for the rotary dimension is {rotated}, want 1 to the head size {head_dim}");
            return Err(config.gguf.damaged(what));
        }
        config.set("partial_rotary_factor", rotated as f64 / head_dim as f64);
    }
    let original = config.count("rope.scaling.original_context_length")?;
    if let Some(original) = original {
        config.set("original_max_position_embeddings", original);
    }
    let factor = config.number("rope.scaling.factor")?.filter(|factor| *factor > 0.0);
    let kind = config.word("rope.scaling.type")?.map(str::to_owned);
    let short = factors(config.gguf, "rope_factors_short.weight")?;
    let long = factors(config.gguf, "rope_factors_long.weight")?;
    let single = factors(config.gguf, "rope_freqs.weight")?;
    let mut scaling = Map::new();
    if let Some((short, long)) = short.zip(long) {
        scaling.insert("rope_type".to_owned(), "longrope".into());
        scaling.insert("short_factor".to_owned(), short.into());
        scaling.insert("long_factor".to_owned(), long.into());
        if let Some(attention) = config.number("rope.scaling.attn_factor")? {
            scaling.insert("attention_factor".to_owned(), attention.into());
        }
    } else if let Some(single) = single {
        scaling = of_factors(&single, config.number("rope.freq_base")?.unwrap_or(10_000.0));
    } else {
        match (kind.as_deref(), factor) {
            // llama.cpp takes a factor without a type as linear, and a type without a factor as none.
            (Some("linear") | None, Some(factor)) if factor != 1.0 => {
                scaling.insert("rope_type".to_owned(), "linear".into());
                scaling.insert("factor".to_owned(), factor.into());
            }
            (Some("yarn"), Some(factor)) => yarn(config, factor, &mut scaling)?,
            (Some("none" | "linear" | "longrope") | None, _) | (Some("yarn"), None) => {}
            (Some(other), _) => {
                let what = format!("the rotary scaling is of type `{other}`, want none, linear, yarn or longrope");
                return Err(config.gguf.unsupported(what, "use the safetensors of the same model"));
            }
        }
    }
    if !scaling.is_empty() {
        if let Some(original) = original {
            scaling.insert("original_max_position_embeddings".to_owned(), original.into());
        }
        config.set("rope_scaling", scaling);
    }
    Ok(())
}

fn yarn(config: &Config<'_>, factor: f64, scaling: &mut Map<String, Value>) -> Result<(), GgufError> {
    scaling.insert("rope_type".to_owned(), "yarn".into());
    scaling.insert("factor".to_owned(), factor.into());
    for (name, field) in [
        ("rope.scaling.yarn_attn_factor", "attention_factor"),
        ("rope.scaling.yarn_beta_fast", "beta_fast"),
        ("rope.scaling.yarn_beta_slow", "beta_slow"),
    ] {
        if let Some(number) = config.number(name)? {
            scaling.insert(field.to_owned(), number.into());
        }
    }
    Ok(())
}

/// A tensor of one factor per rotated pair.
fn factors(gguf: &Gguf, name: &str) -> Result<Option<Vec<f32>>, GgufError> {
    let Some(tensor) = gguf.tensor(name) else { return Ok(None) };
    if tensor.kind != BlockType::F32 || tensor.dims.len() != 1 {
        return Err(gguf.damaged(format!("tensor `{name}` is {:?} {:?}, want a list of F32", tensor.kind, tensor.dims)));
    }
    let (words, _) = gguf.bytes(tensor).as_chunks::<4>();
    let factors: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    match factors.iter().find(|factor| !factor.is_finite() || **factor <= 0.0) {
        Some(bad) => Err(gguf.damaged(format!("tensor `{name}` holds the factor {bad}, want positive numbers"))),
        None => Ok(Some(factors)),
    }
}

/// The scaling that gives these factors: Llama 3.1's formula with the constants every published model uses, if it gives them,
/// so that the model is the one its safetensors describe; else the factors themselves.
fn of_factors(factors: &[f32], theta: f64) -> Map<String, Value> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let wavelength = |pair: usize| 2.0 * std::f64::consts::PI * theta.powf(pair as f64 / factors.len() as f64);
    let llama3 = |original: f64, pair: usize| {
        let turns = original / wavelength(pair);
        match turns {
            turns if turns > HIGH => 1.0,
            turns if turns < LOW => factor,
            turns => {
                let smooth = (turns - LOW) / (HIGH - LOW);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        }
    };
    let originals = (6..=17).map(|power| f64::from(1u32 << power));
    let fits = |original: &f64| {
        let close = |(pair, got): (usize, &f32)| {
            let want = llama3(*original, pair);
            (f64::from(*got) - want).abs() < 1e-4 * want
        };
        factors.iter().enumerate().all(close)
    };
    let fields = match originals.into_iter().find(fits) {
        Some(original) => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": LOW, "high_freq_factor": HIGH,
            "original_max_position_embeddings": original as u64,
        }),
        None => json!({
            "rope_type": "longrope", "short_factor": factors, "long_factor": factors, "attention_factor": 1.0,
        }),
    };
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

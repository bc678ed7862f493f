//! Gemma 4's text decoder: Gemma 3's wiring with heads of two sizes, keys and values shared by the last layers, a small
//! embedding per layer, a stored factor per layer, and in some sizes experts beside the dense block.
//! Knows the configuration's fields only.

use serde_json::Value;

use super::gemma::{WIRING, cap};
use crate::model::config::{missing, wrong};
use crate::model::rope::RopeSpec;
use crate::model::spec::{ExpertLayout, ExpertsSpec, Head, PerLayerSpec};
use crate::model::{DecoderSpec, HfConfig, ModelError};
use crate::ops::experts::Router;
use crate::ops::rotary::NormSpan;

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let config = &config.with_defaults(&[
        ("vocab_size", 262_144),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("head_dim", 256),
        ("max_position_embeddings", 131_072),
        ("sliding_window", 512),
    ]);
    if config.get("use_bidirectional_attention").is_some_and(|value| value == "all") {
        return Err(wrong("use_bidirectional_attention", &"all".into(), "null or \"vision\""));
    }
    let mut spec = super::base(&config.without_activation(), "gemma4_text", 10_000.0)?;
    spec.wiring = WIRING;
    spec.layer_scalar = true;
    spec.attention.scale = 1.0;
    spec.attention.value_norm = true;
    spec.attention.qk_norm = super::qk_norm(&spec, NormSpan::Head);
    spec.attention.qkv_bias = config.flag("attention_bias", false)?;
    spec.attention.output_bias = spec.attention.qkv_bias;
    spec.mlp.activation = super::activation(config, "gelu_pytorch_tanh")?;
    spec.scales.embedding = (spec.hidden_size as f64).sqrt();
    spec.scales.logit_cap = cap(config, "final_logit_softcapping", None)?;
    spec.head = if config.flag("tie_word_embeddings", true)? { Head::Tied } else { Head::Own };
    layers(config, &mut spec)?;
    let width = if config.mentions("hidden_size_per_layer_input") {
        config.number("hidden_size_per_layer_input", 0.0)? as usize
    } else {
        256
    };
    if width > 0 {
        let vocab_size = config.optional_size("vocab_size_per_layer_input")?.unwrap_or(262_144);
        spec.per_layer = Some(PerLayerSpec { width, vocab_size });
    }
    if config.flag("enable_moe_block", false)? {
        spec.layers.iter_mut().for_each(|layer| layer.experts = true);
        let num_experts = config.size("num_experts")?;
        let num_chosen = super::num_chosen(config, "top_k_experts", config.size("top_k_experts")?, num_experts)?;
        spec.experts = Some(ExpertsSpec {
            block: "",
            num_experts,
            width: config.size("moe_intermediate_size")?,
            router: Router { num_chosen, normalised: true, expert_scale: None },
            router_name: "router.proj",
            layout: ExpertLayout::Merged,
            activation: spec.mlp.activation,
            beside_dense: true,
        });
    }
    Ok(spec)
}

/// Windows, head sizes, rotations and shared keys of the layers.
fn layers(config: &HfConfig, spec: &mut DecoderSpec) -> Result<(), ModelError> {
    let num_layers = spec.num_layers();
    let mut sliding = super::sliding_layers(config, num_layers, 6)?;
    if let Some(last) = sliding.last_mut() {
        *last = false;
    }
    super::set_windows(spec, &sliding, config.optional_size("sliding_window")?);
    let local = spec.layers[0].geometry;
    let keys_are_values = config.flag("attention_k_eq_v", false)?;
    let mut global_dim = local.head_dim;
    for (index, &sliding) in sliding.iter().enumerate().filter(|(_, sliding)| !**sliding) {
        let (dim, heads) = global_heads(config, index, keys_are_values)?;
        let layer = &mut spec.layers[index];
        layer.geometry = super::geometry(local.num_heads, heads.unwrap_or(local.num_kv_heads), dim)?;
        layer.values_are_keys = keys_are_values && !sliding;
        global_dim = dim;
    }
    let positions = spec.max_positions;
    let mut global = config.rope_parameters_of("full_attention");
    if config.get("rope_parameters").is_none() {
        global.insert("rope_type".to_owned(), "proportional".into());
        global.insert("partial_rotary_factor".to_owned(), 0.25.into());
    }
    let local_rope = config.rope_parameters_of("sliding_attention");
    spec.ropes = vec![
        RopeSpec::parse(&global, 1_000_000.0, global_dim, positions)?,
        RopeSpec::parse(&local_rope, 10_000.0, local.head_dim, positions)?,
    ];
    spec.layers.iter_mut().zip(&sliding).for_each(|(layer, &sliding)| layer.rope = Some(usize::from(sliding)));
    let shared = config.number("num_kv_shared_layers", 0.0)? as usize;
    if shared > 0 {
        let double = config.flag("use_double_wide_mlp", false)?;
        let first = num_layers.saturating_sub(shared);
        for index in first..num_layers {
            let owner = (0..first).rev().find(|&owner| sliding[owner] == sliding[index]);
            let Some(owner) = owner else {
                let want = "few enough that each kind of layer has one with keys of its own";
                return Err(wrong("num_kv_shared_layers", &shared.into(), want));
            };
            let layer = &mut spec.layers[index];
            layer.kv_of = Some(owner);
            layer.mlp_width *= if double { 2 } else { 1 };
        }
    }
    Ok(())
}

/// Head size and key heads of a layer that sees everything: from `per_layer_config`, or the older fields.
fn global_heads(config: &HfConfig, layer: usize, own_count: bool) -> Result<(usize, Option<usize>), ModelError> {
    let Some(Value::Object(layers)) = config.get("per_layer_config") else {
        let dim = config.optional_size("global_head_dim")?.unwrap_or(512);
        let heads = if own_count { config.optional_size("num_global_key_value_heads")? } else { None };
        return Ok((dim, heads));
    };
    let number = |name: &str| {
        let value = layers.get(&layer.to_string()).and_then(|fields| fields.get(name))?.as_u64()?;
        (1..1 << 31).contains(&value).then_some(value as usize)
    };
    match number("head_dim") {
        Some(dim) => Ok((dim, number("num_key_value_heads"))),
        None => Err(missing(&format!("per_layer_config.{layer}.head_dim"), "a positive integer")),
    }
}

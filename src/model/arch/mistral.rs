//! Mistral 7B and its successors (llama with a sliding window), Mixtral (with experts) and Ministral 3 (with queries that grow).
//! Knows the configuration's fields only.

use crate::model::config::missing;
use crate::model::spec::{ExpertLayout, ExpertsSpec};
use crate::model::{DecoderSpec, HfConfig, ModelError};
use crate::ops::experts::Router;
use crate::ops::rotary::QueryGrowth;

/// Transformers' default where config.json does not mention the window at all; an explicit null means none.
const DEFAULT_WINDOW: usize = 4096;

pub(super) fn mistral(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "mistral", 10_000.0)?;
    let window =
        if config.mentions("sliding_window") { config.optional_size("sliding_window")? } else { Some(DEFAULT_WINDOW) };
    spec.layers.iter_mut().for_each(|layer| layer.window = window);
    Ok(spec)
}

pub(super) fn mixtral(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "mixtral", 1_000_000.0)?;
    let window = config.optional_size("sliding_window")?;
    let num_experts = config.optional_size("num_local_experts")?.unwrap_or(8);
    let num_chosen = super::num_chosen(config, "num_experts_per_tok", 2, num_experts)?;
    let width = config.size("intermediate_size")?;
    for layer in &mut spec.layers {
        (layer.window, layer.mlp_width, layer.experts) = (window, 0, true);
    }
    spec.experts = Some(ExpertsSpec {
        block: "block_sparse_moe.",
        num_experts,
        width,
        router: Router { num_chosen, normalised: true, expert_scale: None },
        router_name: "gate",
        layout: ExpertLayout::Separate(["w1", "w3", "w2"]),
        activation: spec.mlp.activation,
        beside_dense: false,
    });
    Ok(spec)
}

pub(super) fn ministral3(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "ministral3", 1_000_000.0)?;
    let window = config.optional_size("sliding_window")?;
    spec.layers.iter_mut().for_each(|layer| layer.window = window);
    let rope = config.rope_parameters();
    let number = |name: &str| rope.get(name).and_then(serde_json::Value::as_f64).filter(|number| *number > 0.0);
    if let Some(beta) = number("llama_4_scaling_beta") {
        let name = "original_max_position_embeddings";
        let original = number(name).ok_or_else(|| missing(&format!("rope_parameters.{name}"), "a positive number"))?;
        spec.attention.growth = Some(QueryGrowth { beta, original });
    }
    Ok(spec)
}

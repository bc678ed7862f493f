//! One file per family: config.json to [`DecoderSpec`], pure data. This file finds the family.
//! Knows names and fields; knows nothing of tensors.

mod apertus;
mod arcee;
mod cohere;
mod exaone;
mod gemma;
mod gemma4;
mod glm;
mod gpt_oss;
mod granite;
mod hunyuan;
mod llama;
mod mistral;
mod olmo;
mod phi;
mod qwen;
mod seed_oss;
mod smollm;
mod stablelm;
mod starcoder;

use serde_json::Value;

use super::ModelError;
use super::config::{HfConfig, wrong};
use super::rope::RopeSpec;
use super::spec::{
    AttentionSpec, DecoderSpec, Head, LayerSpec, MlpInput, MlpSpec, NormSpec, QkNormSpec, Scales, Wiring,
};
use crate::ops::activation::Activation;
use crate::ops::norm::NormKind;
use crate::ops::paged::HeadGeometry;
use crate::ops::rotary::NormSpan;

type Family = fn(&HfConfig) -> Result<DecoderSpec, ModelError>;

/// `model_type` and its reader.
const FAMILIES: [(&str, Family); 27] = [
    ("apertus", apertus::spec),
    ("arcee", arcee::spec),
    ("cohere", cohere::cohere),
    ("cohere2", cohere::cohere2),
    ("exaone4", exaone::spec),
    ("gemma", gemma::gemma),
    ("gemma2", gemma::gemma2),
    ("gemma3_text", gemma::gemma3_text),
    ("gemma4_text", gemma4::spec),
    ("glm4", glm::spec),
    ("gpt_oss", gpt_oss::spec),
    ("granite", granite::spec),
    ("hunyuan_v1_dense", hunyuan::spec),
    ("llama", llama::spec),
    ("ministral3", mistral::ministral3),
    ("mistral", mistral::mistral),
    ("mixtral", mistral::mixtral),
    ("olmo2", olmo::olmo2),
    ("olmo3", olmo::olmo3),
    ("phi3", phi::spec),
    ("qwen2", qwen::qwen2),
    ("qwen3", qwen::qwen3),
    ("qwen3_moe", qwen::qwen3_moe),
    ("seed_oss", seed_oss::spec),
    ("smollm3", smollm::spec),
    ("stablelm", stablelm::spec),
    ("starcoder2", starcoder::spec),
];

/// The `model_type`s that this engine runs.
pub fn families() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(name, _)| *name)
}

/// The spec of a configuration; of a larger model's, that of its text part.
///
/// # Errors
/// [`ModelError::UnknownFamily`] naming the field that decided, or [`ModelError::Config`] naming the field.
pub fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let of = |name: &str| FAMILIES.iter().find(|(family, _)| *family == name).map(|(_, read)| read);
    let outer = config.model_type()?;
    if let Some(read) = of(outer) {
        return with_head(config, read(config)?);
    }
    let part = config.text_part();
    let (field, model_type) = match part.as_ref().map(HfConfig::model_type) {
        Some(Ok(inner)) => ("text_config.model_type", inner),
        _ => ("model_type", outer),
    };
    if let (Some(read), Some(part)) = (of(model_type), &part) {
        return with_head(config, read(part)?);
    }
    let closest = families()
        .map(|name| (strsim::jaro_winkler(name, model_type), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Err(ModelError::UnknownFamily {
        field,
        model_type: model_type.to_owned(),
        closest: closest.map(|(_, name)| format!(" (closest: {name})")).unwrap_or_default(),
        supported: families().collect::<Vec<_>>().join(", "),
    })
}

/// A reward model has a score head, as many rows as the configuration has labels.
fn with_head(config: &HfConfig, mut spec: DecoderSpec) -> Result<DecoderSpec, ModelError> {
    let Some(Value::Array(architectures)) = config.get("architectures") else { return Ok(spec) };
    let names = || architectures.iter().filter_map(Value::as_str);
    if names().any(|name| name.ends_with("ForSequenceClassification")) {
        let labels = match config.get("id2label") {
            Some(Value::Object(labels)) => labels.len(),
            // Transformers' default.
            _ => config.optional_size("num_labels")?.unwrap_or(2),
        };
        if labels == 0 || labels > MAX_LABELS {
            return Err(wrong("id2label", &labels.into(), &format!("1 to {MAX_LABELS} labels")));
        }
        spec.head = Head::Scores(labels);
    } else if let Some(other) =
        names().find(|name| !name.ends_with("ForCausalLM") && !name.ends_with("ForConditionalGeneration"))
    {
        let want = "one that ends in ForCausalLM, ForConditionalGeneration or ForSequenceClassification";
        return Err(wrong("architectures", &Value::from(other), want));
    }
    Ok(spec)
}

/// More labels than any reward model has.
const MAX_LABELS: usize = 1024;

/// More layers than any model has; a larger number is a damaged file.
const MAX_LAYERS: usize = 4096;

/// More experts than any model has in a layer.
const MAX_EXPERTS: usize = 8192;

/// More heads than any model has in a layer.
const MAX_HEADS: usize = 1 << 14;

/// Norms before each block, under llama's names.
const LLAMA_WIRING: Wiring = Wiring {
    before_attention: Some("input_layernorm"),
    after_attention: None,
    before_mlp: Some("post_attention_layernorm"),
    after_mlp: None,
    parallel: false,
};

/// Norms behind each block and none before.
const POST_WIRING: Wiring = Wiring {
    before_attention: None,
    after_attention: Some("post_attention_layernorm"),
    before_mlp: None,
    after_mlp: Some("post_feedforward_layernorm"),
    parallel: false,
};

/// What the llama-like families share; each family changes its own fields. `theta` is Transformers' default base.
fn base(config: &HfConfig, family: &'static str, theta: f64) -> Result<DecoderSpec, ModelError> {
    let hidden_size = config.size("hidden_size")?;
    let num_heads = config.size("num_attention_heads")?;
    let num_kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(num_heads);
    let head_dim = config.optional_size("head_dim")?.unwrap_or(hidden_size / num_heads);
    if head_dim == 0 {
        let got = hidden_size.into();
        return Err(wrong("hidden_size", &got, &format!("at least num_attention_heads ({num_heads}), or a head_dim")));
    }
    let geometry = geometry(num_heads, num_kv_heads, head_dim)?;
    let max_positions = config.size("max_position_embeddings")?;
    let num_layers = config.size("num_hidden_layers")?;
    if num_layers > MAX_LAYERS {
        return Err(wrong("num_hidden_layers", &num_layers.into(), &format!("no more than {MAX_LAYERS}")));
    }
    let eps = config.number("rms_norm_eps", 1e-6)?;
    let layer = LayerSpec {
        geometry,
        window: None,
        rope: Some(0),
        kv_of: None,
        values_are_keys: false,
        mlp_width: config.size("intermediate_size")?,
        experts: false,
    };
    Ok(DecoderSpec {
        family,
        hidden_size,
        vocab_size: config.size("vocab_size")?,
        layers: vec![layer; num_layers],
        norm: NormSpec { kind: NormKind::RootMeanSquare, eps, bias: false, plus_one: false },
        wiring: LLAMA_WIRING,
        attention: AttentionSpec {
            scale: (head_dim as f32).sqrt().recip(),
            soft_cap: None,
            sinks: false,
            merged: false,
            qkv_bias: false,
            output_bias: false,
            qk_norm: None,
            value_norm: false,
            interleaved: false,
            growth: None,
        },
        mlp: MlpSpec {
            block: "mlp",
            input: MlpInput::GateUp,
            down: "down_proj",
            bias: false,
            activation: activation(config, "silu")?,
            stored_activation: false,
        },
        experts: None,
        ropes: vec![RopeSpec::parse(&config.rope_parameters(), theta, head_dim, max_positions)?],
        scales: Scales { embedding: 1.0, residual: 1.0, logits: 1.0, logit_cap: None },
        per_layer: None,
        layer_scalar: false,
        max_positions,
        head: if config.flag("tie_word_embeddings", false)? { Head::Tied } else { Head::Own },
    })
}

fn geometry(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> Result<HeadGeometry, ModelError> {
    if num_heads > MAX_HEADS {
        return Err(wrong("num_attention_heads", &num_heads.into(), &format!("no more than {MAX_HEADS}")));
    }
    if !num_heads.is_multiple_of(num_kv_heads) {
        let got = num_kv_heads.into();
        return Err(wrong("num_key_value_heads", &got, &format!("a divisor of num_attention_heads ({num_heads})")));
    }
    Ok(HeadGeometry { num_heads, num_kv_heads, head_dim })
}

/// The activation that `hidden_act` or `hidden_activation` names.
fn activation(config: &HfConfig, default: &str) -> Result<Activation, ModelError> {
    let field = if config.get("hidden_activation").is_some() { "hidden_activation" } else { "hidden_act" };
    match config.get(field).map_or(Some(default), Value::as_str) {
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
        Some("relu2") => Ok(Activation::SquaredRelu),
        _ => {
            let got = config.get(field).unwrap_or(&Value::Null);
            Err(wrong(field, got, "\"silu\", \"gelu_pytorch_tanh\" or \"relu2\""))
        }
    }
}

/// Experts per token, from `field`.
fn num_chosen(config: &HfConfig, field: &str, default: usize, num_experts: usize) -> Result<usize, ModelError> {
    if num_experts > MAX_EXPERTS {
        return Err(wrong("num_experts", &num_experts.into(), &format!("no more than {MAX_EXPERTS} experts")));
    }
    match config.optional_size(field)?.unwrap_or(default) {
        chosen if chosen > num_experts => {
            Err(wrong(field, &chosen.into(), &format!("no more than there are experts ({num_experts})")))
        }
        chosen => Ok(chosen),
    }
}

/// Norms of queries and keys under their usual names, of the same kind as the others.
fn qk_norm(spec: &DecoderSpec, span: NormSpan) -> Option<QkNormSpec> {
    let names = ("q_norm", "k_norm");
    Some(QkNormSpec { names, span, per_head_tensors: false, after_rotation: false, norm: spec.norm })
}

/// LayerNorm in place of root mean square.
fn layer_norm(eps: f64, bias: bool) -> NormSpec {
    NormSpec { kind: NormKind::Layer, eps, bias, plus_one: false }
}

/// Whether each layer is windowed: by `layer_types`, or else every one but each `pattern`-th. 0: none is.
fn sliding_layers(config: &HfConfig, num_layers: usize, pattern: usize) -> Result<Vec<bool>, ModelError> {
    match config.get("layer_types") {
        None => Ok((1..=num_layers).map(|layer| pattern > 0 && !layer.is_multiple_of(pattern)).collect()),
        Some(Value::Array(types)) if types.len() == num_layers => {
            let is_sliding = |kind: &Value| match kind.as_str() {
                Some("sliding_attention") => Ok(true),
                Some("full_attention") => Ok(false),
                _ => Err(wrong("layer_types", kind, "\"full_attention\" or \"sliding_attention\"")),
            };
            types.iter().map(is_sliding).collect()
        }
        Some(other) => Err(wrong("layer_types", other, &format!("a list of {num_layers} layer types"))),
    }
}

/// Gives the sliding layers their window.
fn set_windows(spec: &mut DecoderSpec, sliding: &[bool], window: Option<usize>) {
    for (layer, &sliding) in spec.layers.iter_mut().zip(sliding) {
        layer.window = window.filter(|_| sliding);
    }
}

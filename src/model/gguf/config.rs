//! Metadata to the fields of Transformers' config.json. Fields that no converter writes down are what llama.cpp's loaders
//! assume in their place. Knows keys and fields; what they mean is decided in `arch`.

use serde_json::{Map, Value, json};

use super::{family_of, rope};
use crate::gguf::{Gguf, GgufError};

/// What a file's metadata are in Transformers' words.
pub struct Fields {
    /// Of config.json.
    pub config: Map<String, Value>,
    /// Of generation_config.json.
    pub generation: Map<String, Value>,
}

/// The fields that a file's metadata give.
///
/// # Errors
/// [`GgufError`] naming the key that is missing, unusable or unknown.
pub fn fields(gguf: &Gguf) -> Result<Fields, GgufError> {
    let family = family_of(gguf)?;
    let mut config = Config { gguf, arch: family.arch, fields: Map::new() };
    config.set("model_type", family.model_type);
    config.shape()?;
    config.biases();
    config.multipliers()?;
    config.experts(family.model_type)?;
    config.windows(family.model_type)?;
    config.special(family.model_type)?;
    rope::settings(&mut config)?;
    let mut generation = config.tokens()?;
    for (key, field) in [
        ("general.sampling.temp", "temperature"),
        ("general.sampling.top_k", "top_k"),
        ("general.sampling.top_p", "top_p"),
        ("general.sampling.penalty_repeat", "repetition_penalty"),
    ] {
        if let Some(number) = gguf.number(key)? {
            generation.insert(field.to_owned(), number.into());
        }
    }
    Ok(Fields { config: config.fields, generation })
}

/// A configuration that is being filled.
pub(super) struct Config<'a> {
    pub(super) gguf: &'a Gguf,
    arch: &'static str,
    fields: Map<String, Value>,
}

impl Config<'_> {
    pub(super) fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.fields.insert(field.to_owned(), value.into());
    }

    /// A field that was set as a count.
    pub(super) fn size_of(&self, field: &str) -> u64 {
        self.fields.get(field).and_then(Value::as_u64).unwrap_or(0)
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    /// A count; of a list with one per layer, the number they all have.
    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, GgufError> {
        let key = self.key(name);
        if !self.gguf.is_array(&key) {
            return self.gguf.count(&key);
        }
        let numbers = self.gguf.numbers(&key)?.unwrap_or_default();
        match numbers.first() {
            Some(first) if *first >= 0.0 && numbers.iter().all(|number| number == first) => Ok(Some(*first as u64)),
            _ => Err(self.gguf.unsupported(
                format!("metadata `{key}` differs from layer to layer, want the same for all"),
                "models whose layers have different shapes are not supported",
            )),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, GgufError> {
        self.gguf.number(&self.key(name))
    }

    pub(super) fn word(&self, name: &str) -> Result<Option<&str>, GgufError> {
        self.gguf.text(&self.key(name))
    }

    fn need(&mut self, name: &str, field: &str) -> Result<u64, GgufError> {
        match self.count(name)? {
            Some(number) if (1..1 << 31).contains(&number) => {
                self.set(field, number);
                Ok(number)
            }
            Some(other) => {
                Err(self.gguf.damaged(format!("metadata `{}` is {other}, want 1 to 2147483647", self.key(name))))
            }
            None => Err(self.gguf.damaged(format!("metadata `{}` is missing", self.key(name)))),
        }
    }

    fn copy_count(&mut self, name: &str, field: &str) -> Result<(), GgufError> {
        if let Some(number) = self.count(name)? {
            self.set(field, number);
        }
        Ok(())
    }

    fn copy_number(&mut self, name: &str, field: &str) -> Result<(), GgufError> {
        if let Some(number) = self.number(name)? {
            self.set(field, number);
        }
        Ok(())
    }

    /// Whether layer 0 has a tensor.
    fn has(&self, name: &str) -> bool {
        self.gguf.tensor(&format!("blk.0.{name}")).is_some()
    }

    fn shape(&mut self) -> Result<(), GgufError> {
        let layers = self.need("block_count", "num_hidden_layers")?;
        // Heads for the next token but one, which some files carry as last layers, are no part of the decoder.
        let extra = self.count("nextn_predict_layers")?.unwrap_or(0);
        self.set("num_hidden_layers", layers.saturating_sub(extra).max(1));
        self.need("context_length", "max_position_embeddings")?;
        let hidden = self.need("embedding_length", "hidden_size")?;
        self.need("feed_forward_length", "intermediate_size")?;
        let heads = self.need("attention.head_count", "num_attention_heads")?;
        let kv_heads = self.count("attention.head_count_kv")?.filter(|count| *count > 0).unwrap_or(heads);
        self.set("num_key_value_heads", kv_heads);
        let head_dim = self.count("attention.key_length")?.unwrap_or(hidden / heads);
        if let Some(other) = self.count("attention.value_length")?.filter(|length| *length != head_dim) {
            let what = format!("metadata `{}` is {other}, want {head_dim}", self.key("attention.value_length"));
            return Err(self.gguf.unsupported(what, "keys and values of different widths are not supported"));
        }
        self.set("head_dim", head_dim);
        let table = self.gguf.tensor("token_embd.weight");
        let rows = table.and_then(|table| table.dims.get(1)).copied();
        let rows = rows.ok_or_else(|| self.gguf.damaged("tensor `token_embd.weight` is missing".to_owned()))?;
        self.set("vocab_size", rows);
        self.set("tie_word_embeddings", self.gguf.tensor("output.weight").is_none());
        self.copy_number("attention.layer_norm_rms_epsilon", "rms_norm_eps")?;
        for field in ["layer_norm_eps", "norm_epsilon"] {
            self.copy_number("attention.layer_norm_epsilon", field)?;
        }
        Ok(())
    }

    fn biases(&mut self) {
        let qkv = self.has("attn_q.bias") || self.has("attn_qkv.bias");
        let output = self.has("attn_output.bias");
        self.set("attention_bias", qkv);
        self.set("attention_out_bias", output);
        self.set("use_qkv_bias", qkv);
        self.set("mlp_bias", self.has("ffn_up.bias"));
        self.set("use_bias", qkv && output);
    }

    /// Granite's and Cohere's factors, and soft caps.
    fn multipliers(&mut self) -> Result<(), GgufError> {
        for (name, field) in [
            ("embedding_scale", "embedding_multiplier"),
            ("residual_scale", "residual_multiplier"),
            ("attention.scale", "attention_multiplier"),
            ("logit_scale", if self.arch == "granite" { "logits_scaling" } else { "logit_scale" }),
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("final_logit_softcapping", "final_logit_softcapping"),
        ] {
            self.copy_number(name, field)?;
        }
        Ok(())
    }

    fn experts(&mut self, model_type: &str) -> Result<(), GgufError> {
        for field in ["num_experts", "num_local_experts"] {
            self.copy_count("expert_count", field)?;
        }
        self.copy_count("expert_used_count", "num_experts_per_tok")?;
        self.copy_count("expert_feed_forward_length", "moe_intermediate_size")?;
        if model_type == "qwen3_moe" {
            // Every published model of the family; llama.cpp knows no other.
            self.set("norm_topk_prob", true);
            self.set("decoder_sparse_step", 1);
            self.set("mlp_only_layers", json!([]));
        }
        Ok(())
    }

    /// `sliding_window` and `layer_types`: from the file's list or period, or else the family's own period.
    fn windows(&mut self, model_type: &str) -> Result<(), GgufError> {
        let window = self.count("attention.sliding_window")?.filter(|window| *window > 0);
        let default_period = match model_type {
            "gemma2" => Some(2),
            "gemma3_text" => Some(6),
            "cohere2" | "olmo3" | "exaone4" => Some(4),
            _ => None,
        };
        let Some(window) = window.or((model_type == "gemma2").then_some(4096)) else {
            self.set("sliding_window", Value::Null);
            if default_period.is_some() {
                let layers = self.size_of("num_hidden_layers") as usize;
                self.set("layer_types", vec!["full_attention"; layers]);
            }
            return Ok(());
        };
        self.set("sliding_window", window);
        let Some(default_period) = default_period else { return Ok(()) };
        let layers = self.size_of("num_hidden_layers") as usize;
        let key = self.key("attention.sliding_window_pattern");
        let windowed: Vec<bool> = if self.gguf.is_array(&key) {
            let list: Vec<bool> =
                self.gguf.numbers(&key)?.unwrap_or_default().into_iter().map(|number| number != 0.0).collect();
            if list.len() < layers {
                return Err(self.gguf.damaged(format!("metadata `{key}` lists {} layers, want {layers}", list.len())));
            }
            list
        } else {
            let period = self.gguf.count(&key)?.unwrap_or(default_period).max(1) as usize;
            // A period of one has windows in no layer: the last of each period sees all.
            (0..layers).map(|layer| layer % period + 1 < period).collect()
        };
        let kind = |windowed: &bool| if *windowed { "sliding_attention" } else { "full_attention" };
        self.set("layer_types", windowed.iter().take(layers).map(kind).collect::<Vec<_>>());
        Ok(())
    }

    /// Fields that single families read and no converter writes down.
    fn special(&mut self, model_type: &str) -> Result<(), GgufError> {
        let layers = self.size_of("num_hidden_layers");
        let activation = match model_type {
            "gemma" | "gemma2" | "gemma3_text" | "starcoder2" => "gelu_pytorch_tanh",
            "apertus" => "xielu",
            "arcee" => "relu2",
            _ => "silu",
        };
        self.set("hidden_act", activation);
        self.set("hidden_activation", activation);
        match model_type {
            "gemma2" | "gemma3_text" => {
                // Their 27B models divide by the width per head, all others by the head's own.
                let largest = layers == if model_type == "gemma2" { 46 } else { 62 };
                let per_head = self.size_of("hidden_size") / self.size_of("num_attention_heads").max(1);
                let scalar = if largest { per_head } else { self.size_of("head_dim") };
                self.set("query_pre_attn_scalar", scalar);
            }
            "cohere" => self.set("use_qk_norm", self.has("attn_q_norm.weight")),
            "stablelm" => {
                self.set("qk_layernorm", self.has("attn_q_norm.weight"));
                let key = self.key("use_parallel_residual");
                let parallel = self.gguf.flag(&key)?.unwrap_or(!self.has("ffn_norm.weight"));
                self.set("use_parallel_residual", parallel);
            }
            "smollm3" => {
                // Every fourth layer has no rotation; llama.cpp has the number in its loader.
                let rotated: Vec<u8> = (1..=layers).map(|layer| u8::from(layer % 4 != 0)).collect();
                self.set("no_rope_layers", rotated);
            }
            _ => {}
        }
        Ok(())
    }

    /// `eos_token_id` and `bos_token_id`; for generation, every token that ends a turn.
    fn tokens(&mut self) -> Result<Map<String, Value>, GgufError> {
        let id = |name: &str| self.gguf.count(&format!("tokenizer.ggml.{name}_token_id"));
        let (bos, eos) = (id("bos")?, id("eos")?);
        let ends: Vec<u64> = [eos, id("eot")?, id("eom")?].into_iter().flatten().collect();
        for (field, id) in [("bos_token_id", bos), ("eos_token_id", eos)] {
            if let Some(id) = id {
                self.set(field, id);
            }
        }
        let mut generation = Map::new();
        if !ends.is_empty() {
            generation.insert("eos_token_id".to_owned(), ends.into());
        }
        Ok(generation)
    }
}

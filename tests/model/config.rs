//! config.json: every family's fields, both generations of spelling, and errors that name the field.

use std::fs;

use pairwright::model::rope::RopeScaling;
use pairwright::model::{DecoderSpec, HfConfig, ModelError, arch};
use serde_json::{Value, json};

use super::{assert_says, refusal};

/// A small configuration of a family, with `changes` applied; a null there removes the field.
fn config(model_type: &str, changes: Value) -> Value {
    let mut config = json!({
        "model_type": model_type, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96, "vocab_size": 384,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "rope_theta": 20000.0, "tie_word_embeddings": false,
    });
    for (field, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => _ = config.as_object_mut().unwrap().remove(field),
            value => config[field] = value.clone(),
        }
    }
    config
}

/// Families that read the same fields as llama and no others.
const PLAIN: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

fn spec(config: &Value) -> Result<DecoderSpec, ModelError> {
    arch::spec(&HfConfig::parse(&config.to_string())?)
}

#[test]
fn a_path_that_is_no_model_directory_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let refused = |path: &std::path::Path, what: &str| {
        let error = refusal(path);
        assert!(matches!(error, ModelError::NotAModel { .. }), "{error:?}");
        assert_says(&error, &[&path.display().to_string(), what, "hint: "]);
    };
    refused(&temp.path().join("nowhere"), "does not exist");
    refused(temp.path(), "no config.json");
    let file = temp.path().join("model.onnx");
    fs::write(&file, "GGUF").unwrap();
    refused(&file, "it is a file");
    fs::remove_file(&file).unwrap();
    fs::write(temp.path().join("config.json"), config("llama", json!({})).to_string()).unwrap();
    refused(temp.path(), "no *.safetensors");
}

#[test]
fn broken_json_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let refused = |file: &str, text: &[u8], parts: &[&str]| {
        fs::write(temp.path().join("config.json"), config("llama", json!({})).to_string()).unwrap();
        fs::write(temp.path().join(file), text).unwrap();
        assert_says(&refusal(temp.path()), parts);
    };
    refused("config.json", b"{\"model_type\": ", &["config.json", "not valid JSON", "line 1"]);
    refused("config.json", b"[1, 2]", &["config.json", "want a JSON object"]);
    refused("config.json", b"", &["config.json", "not valid JSON"]);
    refused("config.json", b"{\"model_type\": \"\xff\"}", &["config.json", "UTF-8"]);
    refused("generation_config.json", b"nonsense", &["generation_config.json", "not valid JSON"]);
}

#[test]
fn an_unknown_family_names_the_closest() {
    let error = spec(&config("llama4", json!({}))).unwrap_err();
    assert!(matches!(error, ModelError::UnknownFamily { .. }), "{error:?}");
    assert_says(&error, &["`llama4`", "closest: llama", "llama, ministral3, mistral", "hint: "]);
    let error = spec(&config("whisper", json!({}))).unwrap_err();
    assert_says(&error, &["`whisper`", "not supported"]);
    assert!(!error.to_string().contains("closest"), "{error}");
    let error = spec(&config("ラマ", json!({}))).unwrap_err();
    assert_says(&error, &["`ラマ`"]);
    for changes in [json!({"model_type": null}), json!({"model_type": 3})] {
        assert_says(&spec(&config("llama", changes)).unwrap_err(), &["model_type", "want a string"]);
    }
}

#[test]
fn missing_and_unusable_fields_are_named() {
    for family in PLAIN {
        let refused = |changes: Value, parts: &[&str]| {
            let error = spec(&config(family, changes)).expect_err("it was meant to be refused");
            assert!(matches!(error, ModelError::Config { .. }), "{error:?}");
            assert_says(&error, parts);
        };
        for field in ["hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers", "num_attention_heads"] {
            refused(json!({field: null}), &[field, "missing", "positive integer"]);
            refused(json!({field: "64"}), &[field, "\"64\"", "positive integer"]);
            refused(json!({field: 0}), &[field, "got 0"]);
            refused(json!({field: -4}), &[field, "got -4"]);
            refused(json!({field: 1.5}), &[field, "got 1.5"]);
            refused(json!({field: 1u64 << 40}), &[field, "1099511627776"]);
        }
        refused(json!({"max_position_embeddings": null}), &["max_position_embeddings", "missing"]);
        refused(json!({"hidden_act": "gelu"}), &["hidden_act", "\"gelu\"", "\"silu\""]);
        refused(json!({"num_key_value_heads": 3}), &["num_key_value_heads", "3", "divisor of num_attention_heads (4)"]);
        refused(json!({"num_key_value_heads": 8}), &["num_key_value_heads", "8"]);
        refused(json!({"num_attention_heads": 128, "num_key_value_heads": null}), &["hidden_size", "64", "head_dim"]);
        refused(json!({"rms_norm_eps": "small"}), &["rms_norm_eps", "a number"]);
        refused(json!({"tie_word_embeddings": "yes"}), &["tie_word_embeddings", "true or false"]);
        refused(json!({"head_dim": 0}), &["head_dim", "0"]);
        refused(json!({"rope_scaling": {"type": "wavy", "factor": 2.0}}), &["rope_type", "wavy"]);
        let short = json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}});
        refused(short, &["short_factor", "8 positive numbers"]);
    }
    let error = spec(&config("llama", json!({"attention_bias": 1}))).unwrap_err();
    assert_says(&error, &["attention_bias", "got 1", "true or false"]);
}

#[test]
fn both_generations_of_config_give_one_spec() {
    for family in PLAIN {
        let scaling = json!({"factor": 4.0, "original_max_position_embeddings": 128});
        let with = |name: &str, extra: Value| {
            let mut object = scaling.clone();
            object.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            json!({name: object})
        };
        let older = [with("rope_scaling", json!({"type": "yarn"})), with("rope_scaling", json!({"rope_type": "yarn"}))];
        let mut newer = with("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 20000.0}));
        newer["rope_theta"] = Value::Null;
        newer["dtype"] = json!("bfloat16");
        let newer = spec(&config(family, newer)).unwrap();
        assert!(matches!(newer.ropes[0].scaling, RopeScaling::Yarn { factor: 4.0, .. }), "{newer:?}");
        for mut changes in older {
            changes["torch_dtype"] = json!("bfloat16");
            assert_eq!(spec(&config(family, changes)).unwrap(), newer);
        }
        let plain = spec(&config(family, json!({}))).unwrap();
        let nested = json!({"rope_theta": null, "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}});
        assert_eq!(spec(&config(family, nested)).unwrap(), plain);
        assert_eq!(plain.family, family);
    }
}

#[test]
fn families_differ_where_they_should() {
    let of = |family: &str, changes: Value| spec(&config(family, changes)).unwrap();
    let llama = of("llama", json!({"attention_bias": true, "mlp_bias": true}));
    assert!(
        llama.attention.qkv_bias && llama.attention.output_bias && llama.mlp.bias && llama.attention.qk_norm.is_none()
    );
    let qwen2 = of("qwen2", json!({}));
    assert!(qwen2.attention.qkv_bias && !qwen2.attention.output_bias && !qwen2.mlp.bias);
    assert!(qwen2.attention.qk_norm.is_none());
    let qwen3 = of("qwen3", json!({"head_dim": 128}));
    assert!(!qwen3.attention.qkv_bias && qwen3.attention.qk_norm.is_some());
    assert_eq!((qwen3.layers[0].geometry.head_dim, qwen3.layers[0].geometry.q_width()), (128, 512));
    let multi_head = of("llama", json!({"num_key_value_heads": null}));
    assert_eq!(multi_head.layers[0].geometry.num_kv_heads, 4);
    assert_eq!(multi_head.layers[0].geometry.head_dim, 16);
    assert_eq!(of("llama", json!({"rms_norm_eps": null})).norm.eps, 1e-6);
}

fn windows(spec: &DecoderSpec) -> Vec<Option<usize>> {
    spec.layers.iter().map(|layer| layer.window).collect()
}

#[test]
fn mistral_windows() {
    let windows = |changes: Value| windows(&spec(&config("mistral", changes)).unwrap());
    assert_eq!(windows(json!({})), [Some(4096); 4], "not mentioned: Transformers' default");
    assert_eq!(windows(json!({"sliding_window": 128})), [Some(128); 4]);
    let mut none = config("mistral", json!({}));
    none["sliding_window"] = Value::Null;
    assert_eq!(super::config::windows(&spec(&none).unwrap()), [None; 4], "an explicit null");
    let error = spec(&config("mistral", json!({"sliding_window": 0}))).unwrap_err();
    assert_says(&error, &["sliding_window", "0"]);
}

#[test]
fn qwen_windows() {
    for family in ["qwen2", "qwen3"] {
        let windows = |changes: Value| spec(&config(family, changes)).map(|spec| windows(&spec));
        let off = json!({"sliding_window": 32, "max_window_layers": 2});
        assert_eq!(windows(off).unwrap(), [None; 4], "the switch is off unless it is on");
        let on = json!({"use_sliding_window": true, "sliding_window": 32, "max_window_layers": 2});
        assert_eq!(windows(on.clone()).unwrap(), [None, None, Some(32), Some(32)]);
        let mut listed = on.clone();
        listed["layer_types"] = json!(["sliding_attention", "full_attention", "full_attention", "sliding_attention"]);
        assert_eq!(windows(listed).unwrap(), [Some(32), None, None, Some(32)], "the list goes first");
        let mut short = on.clone();
        short["layer_types"] = json!(["full_attention"]);
        assert_says(&windows(short).unwrap_err(), &["layer_types", "a list of 4"]);
        let mut unknown = on;
        unknown["layer_types"] = json!(["full_attention", "full_attention", "full_attention", "chunked_attention"]);
        assert_says(&windows(unknown).unwrap_err(), &["layer_types", "chunked_attention"]);
    }
}

/// By hand: per layer 768 x (768 + 2 x 256) + 768 x 768 for attention and 3 x 768 x 2048 for the feed-forward block.
#[test]
fn product_parameters_of_the_bench_shape() {
    let shape = json!({
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4,
        "intermediate_size": 2048, "vocab_size": 32000, "max_position_embeddings": 4096,
    });
    let spec = spec(&config("llama", shape)).unwrap();
    assert_eq!(spec.num_layers(), 12);
    assert_eq!(spec.num_product_parameters(), 12 * (983_040 + 589_824 + 4_718_592) + 24_576_000);
}

#[test]
fn end_tokens_come_from_either_file() {
    let temp = tempfile::tempdir().unwrap();
    let read = |config: &str, generation: Option<&str>| {
        fs::write(temp.path().join("config.json"), config).unwrap();
        let path = temp.path().join("generation_config.json");
        _ = fs::remove_file(&path);
        generation.iter().for_each(|text| fs::write(&path, text).unwrap());
        HfConfig::read(temp.path()).unwrap()
    };
    assert_eq!(read(r#"{"eos_token_id": 2}"#, None).eos_token_ids(), [2]);
    assert_eq!(read(r#"{"eos_token_id": [2, 7]}"#, Some("{}")).eos_token_ids(), [2, 7]);
    let both = read(r#"{"eos_token_id": 2}"#, Some(r#"{"eos_token_id": [5, 6], "temperature": 0.6, "top_k": null}"#));
    assert_eq!(both.eos_token_ids(), [5, 6], "the generation's own file goes first");
    assert_eq!(both.generation_number("temperature"), Some(0.6));
    assert_eq!(both.generation_number("top_k"), None);
    assert_eq!(
        read(r#"{"text_config": {"eos_token_id": 9}}"#, None).eos_token_ids(),
        [9],
        "a larger model's text part"
    );
    assert!(read(r#"{"eos_token_id": null}"#, None).eos_token_ids().is_empty());
}

/// Every field of every family's configuration, set to values of a wrong kind or size: an error or another valid model, and
/// where it is an error it is about the configuration.
#[test]
fn no_value_of_any_field_panics() {
    let values =
        [json!(null), json!(0), json!(-1), json!(1.5), json!(u64::MAX), json!(1u64 << 30), json!("x"), json!([])];
    let mut refused = 0;
    for entry in fs::read_dir(super::fixture("")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path().join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        let whole = spec(&config).unwrap();
        assert!(
            whole.num_product_parameters() > 0 && whole.kv_bytes_per_token(pairwright::ops::paged::KvFormat::F32) > 0
        );
        for field in config.as_object().unwrap().keys() {
            for value in &values {
                let mut changed = config.clone();
                changed[field] = value.clone();
                match spec(&changed) {
                    Ok(spec) => assert!(spec.num_layers() > 0),
                    Err(ModelError::Config { .. } | ModelError::UnknownFamily { .. }) => refused += 1,
                    Err(other) => panic!("{field} = {value}: {other}"),
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_larger_models_text_part_is_read_and_an_unknown_one_is_named() {
    let inner = config("qwen3", json!({}));
    let outer = json!({"model_type": "wondrous_vl", "architectures": ["WondrousForConditionalGeneration"], "text_config": inner});
    assert_eq!(spec(&outer).unwrap(), spec(&config("qwen3", json!({}))).unwrap());
    let mut unknown = outer.clone();
    unknown["text_config"]["model_type"] = json!("qwen9");
    assert_says(
        &spec(&unknown).unwrap_err(),
        &["text_config.model_type", "qwen9", "closest: qwen", "hunyuan_v1_dense"],
    );
    let mut without = outer;
    without.as_object_mut().unwrap().remove("text_config");
    assert_says(&spec(&without).unwrap_err(), &["config.json: model_type `wondrous_vl`", "supported families"]);
    let encoder = config("llama", json!({"architectures": ["LlamaForTokenClassification"]}));
    assert_says(&spec(&encoder).unwrap_err(), &["architectures", "LlamaForTokenClassification", "ForCausalLM"]);
}

//! Model directories that cannot be used, as generator and as judge of a new run: told before anything is written.

use serde_json::json;

use super::damage::{edit_json, model};
use super::program::{fixture_model, text};
use super::refused;
use super::workshop::{ROWS, Workshop};

/// `make` with `bad` as generator, then as judge, then `generate` both ways; all must refuse alike.
fn refused_everywhere(workshop: &Workshop, bad: &str, said: &[&str]) {
    let prompts = workshop.prompts("p.jsonl", &ROWS[..2]);
    let requests = workshop.write("r.jsonl", "{\"prompt\": \"x\"}\n");
    let good = fixture_model("llama");
    let (out, rubric) = (workshop.arg("out"), workshop.arg("rubric.toml"));
    let make = |generator: &str, judge: &str| {
        let arguments = ["make", "--prompts", text(&prompts), "--generator", generator, "--judge", judge];
        refused(3, &workshop.path("."), &[&arguments[..], &["--rubric", &rubric, "--out", &out]].concat(), said);
    };
    make(bad, text(&good));
    make(text(&good), bad);
    let lines = workshop.arg("o.jsonl");
    refused(3, &workshop.path("."), &["generate", "--model", bad, "--prompts", text(&requests), "--out", &lines], said);
    refused(3, &workshop.path("."), &["generate", "--model", bad, "--prompts", text(&prompts), "--out", &out], said);
}

#[test]
fn a_path_that_is_no_model_directory() {
    let workshop = Workshop::new();
    let file = workshop.write("a_file", "x");
    std::fs::create_dir(workshop.path("empty")).unwrap();
    refused_everywhere(&workshop, &workshop.arg("nowhere"), &["nowhere is not a model directory: it does not exist"]);
    refused_everywhere(&workshop, text(&file), &["a_file is not a model directory: it is a file"]);
    refused_everywhere(&workshop, &workshop.arg("empty"), &["no config.json"]);
}

#[test]
fn an_unsupported_architecture_names_the_supported_ones() {
    let workshop = Workshop::new();
    let model = model(&workshop, "m", "llama");
    edit_json(&model.join("config.json"), "model_type", json!("lama"));
    refused_everywhere(&workshop, text(&model), &["`lama` is not supported", "llama", "qwen3"]);
}

#[test]
fn a_truncated_file_of_weights() {
    let workshop = Workshop::new();
    let model = model(&workshop, "m", "llama");
    let weights = model.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    for keep in [bytes.len() - 1, bytes.len() / 2, 100, 7, 0] {
        std::fs::write(&weights, &bytes[..keep]).unwrap();
        refused_everywhere(&workshop, text(&model), &["model.safetensors is not a readable safetensors file", "again"]);
    }
}

#[test]
fn a_corrupt_file_of_weights_and_a_git_lfs_pointer() {
    let workshop = Workshop::new();
    let model = model(&workshop, "m", "qwen2");
    let weights = model.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&weights, &bytes).unwrap();
    refused_everywhere(&workshop, text(&model), &["model.safetensors is not a readable safetensors file"]);
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 570104\n", "0".repeat(64));
    std::fs::write(&weights, pointer).unwrap();
    refused_everywhere(&workshop, text(&model), &["git-lfs pointer, not the file itself"]);
    std::fs::remove_file(&weights).unwrap();
    refused_everywhere(&workshop, text(&model), &["no *.safetensors"]);
    std::fs::write(model.join("pytorch_model.bin"), "x").unwrap();
    refused_everywhere(&workshop, text(&model), &["pickle", "convert to safetensors"]);
}

#[test]
fn weights_of_another_shape_than_the_configuration() {
    let workshop = Workshop::new();
    let model = model(&workshop, "m", "llama");
    edit_json(&model.join("config.json"), "intermediate_size", json!(128));
    refused_everywhere(&workshop, text(&model), &["mlp", "[128, 64]"]);
    edit_json(&model.join("config.json"), "intermediate_size", json!(96));
    edit_json(&model.join("config.json"), "num_hidden_layers", json!(2));
    refused_everywhere(&workshop, text(&model), &["tensors are in the weights but not in the model", "layers.2"]);
}

#[test]
fn a_tokenizer_of_another_model() {
    let workshop = Workshop::new();
    let model = model(&workshop, "m", "llama");
    let mut tokenizer: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(model.join("tokenizer.json")).unwrap()).unwrap();
    let extra = json!({"id": 384, "content": "one too many", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": false});
    tokenizer["added_tokens"].as_array_mut().unwrap().push(extra);
    std::fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    refused_everywhere(&workshop, text(&model), &["tokenizer has 385 tokens", "vocabulary of 384"]);
}

#[test]
fn no_tokenizer_or_a_damaged_one() {
    let workshop = Workshop::new();
    let model = model(&workshop, "m", "llama");
    std::fs::write(model.join("tokenizer.json"), "{\"model\":").unwrap();
    refused_everywhere(&workshop, text(&model), &["tokenizer.json is not usable"]);
    std::fs::remove_file(model.join("tokenizer.json")).unwrap();
    refused_everywhere(&workshop, text(&model), &["no tokenizer.json in"]);
}

#[test]
fn no_chat_template_or_one_that_does_not_compile() {
    let workshop = Workshop::new();
    let model = model(&workshop, "m", "llama");
    std::fs::write(model.join("chat_template.jinja"), "{% for m in %}").unwrap();
    refused_everywhere(&workshop, text(&model), &["chat template"]);
    std::fs::remove_file(model.join("chat_template.jinja")).unwrap();
    refused_everywhere(&workshop, text(&model), &["no chat template", "--chat-template"]);
}

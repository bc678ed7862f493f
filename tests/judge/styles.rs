//! Tokenizers in the styles that published models have, made of the prompt fixtures, and small models with random weights around them.
//! Knows tokenizer files; makes no claim about what is written with them.

use std::path::Path;

use pairwright::generate::{TextModel, TextModelOptions};
use pairwright::model::WeightsKind;
use pairwright::ops::Compute;
use pairwright::prompt::TemplateOptions;
use serde_json::{Value, json};

use super::loaded::engine_options;

/// Name, fixture, and what is changed in it.
type Style = (&'static str, &'static str, fn(&mut Value));

/// What differs: how digits are split, whether bytes are an alphabet or a fallback, and where a space is put before a text.
pub const STYLES: [Style; 9] = [
    ("byte-level, digits in threes", "bytelevel", |_| ()),
    ("byte-level, each digit alone", "bytelevel", |json| split_digits(json)),
    ("byte-level, a space before a text", "bytelevel", |json| {
        json["pre_tokenizer"] =
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    }),
    ("byte-level, numbers in one piece", "bytelevel", |json| {
        json["pre_tokenizer"] =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    }),
    ("Metaspace and byte fallback, a space before the first text", "metaspace", |_| ()),
    ("Metaspace and byte fallback, a space before every text", "metaspace", |json| {
        json["pre_tokenizer"]["prepend_scheme"] = json!("always");
    }),
    ("Metaspace and byte fallback, never a space", "metaspace", |json| {
        json["pre_tokenizer"]["prepend_scheme"] = json!("never");
    }),
    ("a space prepended by the normaliser, byte fallback", "prepend", |_| ()),
    ("a space prepended by the normaliser, each digit alone", "prepend", |json| {
        json["pre_tokenizer"] = json!({"type": "Digits", "individual_digits": true});
    }),
];

/// Styles of which no part of a text can be told from its tokens alone, or that cannot write a quotation mark.
pub const WITHOUT_FORM: [Style; 2] =
    [("Unigram without bytes", "unigram", |_| ()), ("whole words", "wordlevel", |_| ())];

fn split_digits(json: &mut Value) {
    let steps = json["pre_tokenizer"]["pretokenizers"].as_array_mut().unwrap();
    steps.insert(0, json!({"type": "Digits", "individual_digits": true}));
}

const TEMPLATE: &str = "{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}[assistant]{% endif %}";

/// Writes a model directory without weights: config.json, tokenizer and template.
pub fn write(style: &Style, template: &str, folder: &Path) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/prompt");
    let text = std::fs::read_to_string(fixtures.join(format!("{}.tokenizer.json", style.1))).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    style.2(&mut tokenizer);
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::copy(fixtures.join(format!("{}.config.json", style.1)), folder.join("tokenizer_config.json")).unwrap();
    std::fs::write(folder.join("chat_template.jinja"), template).unwrap();
    let config = json!({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32, "vocab_size": 512,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "tie_word_embeddings": true});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// A model of a style with random weights.
pub fn random_model(style: &Style, folder: &Path, engine: pairwright::engine::EngineOptions) -> TextModel {
    write(style, TEMPLATE, folder);
    let options = TextModelOptions {
        others: Vec::new(),
        compute: Compute::cpu(),
        weights: WeightsKind::Dummy { seed: 3 },
        max_len: None,
        engine,
        template: TemplateOptions::new("2026-11-22".parse().unwrap()),
        label: None,
    };
    let record = TextModel::describe(folder, &options).unwrap();
    TextModel::load(folder, &options, record).unwrap()
}

/// The same with a roomy cache.
pub fn model(style: &Style, folder: &Path) -> TextModel {
    let kv_budget = pairwright::engine::KvBudget::Tokens(65_536);
    random_model(style, folder, pairwright::engine::EngineOptions { kv_budget, ..engine_options() })
}

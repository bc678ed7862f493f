//! The embedded demonstration is what it says it is: prompts in many languages and scripts, a rubric and a system prompt
//! with the agreed fields, and a small, consistent model directory. Does not run the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use pairwright::demo::{MODEL_LABEL, prompts_jsonl, write_model_dir};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use sha2::{Digest, Sha256};

const RUBRIC: &str = include_str!("../src/judge/rubric.toml");
const SYSTEM_PROMPTS: &str = include_str!("../src/system_prompts.toml");
const MODEL_FILES: [&str; 7] = [
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
];

fn rows() -> Vec<BTreeMap<String, String>> {
    prompts_jsonl().lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// A few Unicode scripts by code-point range; `None` for anything else, such as punctuation and digits.
fn script(c: char) -> Option<&'static str> {
    Some(match c {
        'A'..='Z' | 'a'..='z' | '\u{C0}'..='\u{24F}' | '\u{1E00}'..='\u{1EFF}' => "Latin",
        '\u{370}'..='\u{3FF}' | '\u{1F00}'..='\u{1FFF}' => "Greek",
        '\u{400}'..='\u{4FF}' => "Cyrillic",
        '\u{620}'..='\u{64A}' | '\u{671}'..='\u{6D3}' => "Arabic",
        '\u{904}'..='\u{939}' => "Devanagari",
        '\u{B85}'..='\u{BB9}' => "Tamil",
        '\u{E01}'..='\u{E30}' => "Thai",
        '\u{1000}'..='\u{103F}' => "Myanmar",
        '\u{1200}'..='\u{135A}' => "Ethiopic",
        '\u{3041}'..='\u{30FF}' => "Kana",
        '\u{4E00}'..='\u{9FFF}' => "Han",
        _ => return None,
    })
}

#[test]
fn prompts_have_the_columns_of_aya_and_no_empty_text() {
    let rows = rows();
    assert!((40..=60).contains(&rows.len()), "{} rows", rows.len());
    for row in &rows {
        let columns: Vec<&str> = row.keys().map(String::as_str).collect();
        assert_eq!(columns, ["annotation_type", "inputs", "language", "language_code", "targets"]);
        assert!(row.values().all(|text| !text.trim().is_empty()), "empty text in {row:?}");
        assert_eq!(row["annotation_type"], "original-annotations");
        assert_eq!(row["language_code"].len(), 3, "ISO 639-3 code in {row:?}");
        assert_ne!(row["inputs"], row["targets"]);
    }
    let ids: BTreeSet<_> = rows.iter().map(|row| Sha256::digest(row["inputs"].as_bytes()).to_vec()).collect();
    assert_eq!(ids.len(), rows.len(), "two prompts are the same");
}

#[test]
fn prompts_span_many_languages_and_scripts() {
    let mut codes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut scripts = BTreeSet::new();
    for row in rows() {
        scripts.extend(row["inputs"].chars().filter_map(script));
        codes.entry(row["language"].clone()).or_default().insert(row["language_code"].clone());
    }
    assert!(codes.len() >= 10, "languages: {codes:?}");
    assert!(codes.values().all(|of_one| of_one.len() == 1), "one code per language: {codes:?}");
    assert!(scripts.len() >= 5, "scripts: {scripts:?}");
}

#[test]
fn every_prompt_has_its_practice_answers() {
    let practice = include_str!("../src/demo/practice.jsonl");
    let practice: Vec<BTreeMap<String, String>> =
        practice.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let rows = rows();
    assert_eq!(practice.len(), rows.len());
    for (row, other) in rows.iter().zip(&practice) {
        assert_eq!(row["inputs"], other["inputs"]);
        let texts = BTreeSet::from([&row["targets"], &other["good"], &other["poor"]]);
        assert_eq!(texts.len(), 3, "answers must differ: {other:?}");
    }
}

#[test]
fn rubric_has_the_agreed_fields() {
    let rubric: toml::Table = RUBRIC.parse().expect("rubric.toml");
    let text = |key: &str| rubric[key].as_str().expect(key).to_owned();
    assert!(!text("name").is_empty());
    assert!(rubric["version"].as_integer().is_some_and(|version| version >= 1));
    let intro = text("intro");
    assert!(intro.split_whitespace().count() < 180, "every token of the intro costs");
    for step in ["1 =", "2 =", "3 =", "4 =", "5 ="] {
        assert!(intro.contains(step), "the scale must name step {step}");
    }
    for key in ["intro", "prompt_heading", "answer_heading"] {
        assert_eq!(text(key), text(key).trim(), "{key}: blank lines around it are added by the code");
        assert!(!text(key).is_empty());
    }
    let labels: Vec<_> =
        rubric["labels"].as_array().expect("labels").iter().filter_map(|label| label.as_str()).collect();
    assert_eq!(labels, ["1", "2", "3", "4", "5"]);

    let aspects = rubric["aspect"].as_array().expect("aspect");
    let names: Vec<_> = aspects.iter().filter_map(|aspect| aspect["name"].as_str()).collect();
    assert_eq!(names, ["instruction_following", "honesty", "truthfulness", "helpfulness", "overall"]);
    for aspect in aspects {
        assert!(aspect["weight"].as_float().is_some_and(|weight| weight > 0.0), "{aspect}");
        let question = aspect["question"].as_str().expect("question");
        assert_eq!(question, question.trim());
        assert!(question.split_whitespace().count() <= 35, "{question}");
        assert!(question.ends_with("Reply with one digit from 1 to 5 only."), "{question}");
    }
}

#[test]
fn system_prompt_names_the_language_by_placeholder() {
    let prompts: toml::Table = SYSTEM_PROMPTS.parse().expect("system_prompts.toml");
    assert!(prompts["name"].as_str().is_some_and(|name| !name.is_empty()));
    assert!(prompts["version"].as_integer().is_some_and(|version| version >= 1));
    let text = prompts["text"].as_str().expect("text");
    assert!(text.contains("{language}"));
    assert!(!text.replace("{language}", "").contains(['{', '}']), "one kind of placeholder only");
    assert_eq!(text, text.trim());
}

#[test]
fn model_dir_is_written_once_and_repaired_when_a_file_differs() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let dir = folder.path().join("a/ቋንቋ/模型");
    write_model_dir(&dir).expect("first write");
    let mut names: Vec<_> = fs::read_dir(&dir)
        .expect("dir")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
        .collect();
    names.sort();
    assert_eq!(names, MODEL_FILES, "and nothing temporary");
    let total: u64 = names.iter().map(|name| fs::metadata(dir.join(name)).expect("metadata").len()).sum();
    assert!(total < 1_000_000, "{total} bytes");
    let card = fs::read_to_string(dir.join("README.md")).expect("card");
    assert!(card.starts_with("---\nlicense: apache-2.0\n") && card.contains("not a language model"), "{card}");

    let written = |name: &str| fs::metadata(dir.join(name)).and_then(|found| found.modified()).expect("modified");
    let weights_before = written("model.safetensors");
    let config = fs::read(dir.join("config.json")).expect("config");
    fs::write(dir.join("config.json"), "{}").expect("damage");
    fs::write(dir.join("notes.txt"), "mine").expect("a file of someone else");
    write_model_dir(&dir).expect("second write");
    assert_eq!(written("model.safetensors"), weights_before, "identical files are left alone");
    assert_eq!(fs::read(dir.join("config.json")).expect("config"), config);
    assert_eq!(fs::read_to_string(dir.join("notes.txt")).expect("notes"), "mine");
}

#[test]
fn model_dir_over_a_file_is_an_error_that_names_the_path() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let taken = folder.path().join("taken");
    fs::write(&taken, "a file").expect("write");
    let error = write_model_dir(&taken).expect_err("a file is no directory").to_string();
    assert!(error.contains("taken") && error.contains("hint:"), "{error}");

    let blocked = folder.path().join("blocked");
    fs::create_dir_all(blocked.join("tokenizer.json/in-the-way")).expect("create");
    let error = write_model_dir(&blocked).expect_err("a folder is where a file should be").to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    let left: Vec<_> = fs::read_dir(&blocked).expect("dir").map(|entry| entry.expect("entry").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}

fn model_json(name: &str) -> Value {
    let folder = tempfile::tempdir().expect("temporary folder");
    write_model_dir(folder.path()).expect("write");
    serde_json::from_slice(&fs::read(folder.path().join(name)).expect(name)).expect(name)
}

#[test]
fn tensors_have_the_shapes_of_the_config() {
    let config = model_json("config.json");
    let size = |key: &str| config[key].as_u64().unwrap_or_else(|| panic!("{key} in {config}")) as usize;
    let (hidden, inner, vocab) = (size("hidden_size"), size("intermediate_size"), size("vocab_size"));
    let queries = size("num_attention_heads") * size("head_dim");
    let keys = size("num_key_value_heads") * size("head_dim");
    assert_eq!(config["model_type"], "llama");
    assert_eq!(config["tie_word_embeddings"], true);
    assert_eq!(size("max_position_embeddings"), 2048);

    let mut expected = BTreeMap::from([
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ]);
    for layer in 0..size("num_hidden_layers") {
        for (name, shape) in [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![queries, hidden]),
            ("self_attn.k_proj", vec![keys, hidden]),
            ("self_attn.v_proj", vec![keys, hidden]),
            ("self_attn.o_proj", vec![hidden, queries]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![inner, hidden]),
            ("mlp.up_proj", vec![inner, hidden]),
            ("mlp.down_proj", vec![hidden, inner]),
        ] {
            expected.insert(format!("model.layers.{layer}.{name}.weight"), shape);
        }
    }

    let folder = tempfile::tempdir().expect("temporary folder");
    write_model_dir(folder.path()).expect("write");
    let bytes = fs::read(folder.path().join("model.safetensors")).expect("weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors header");
    let found: BTreeMap<_, _> =
        tensors.iter().map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec())).collect();
    assert_eq!(found, expected);
    for (name, tensor) in tensors.iter() {
        assert_eq!(tensor.dtype(), Dtype::BF16, "{name}");
        let finite =
            tensor.data().chunks_exact(2).all(|pair| half::bf16::from_le_bytes([pair[0], pair[1]]).is_finite());
        assert!(finite, "{name} has a value that is not finite");
    }
}

#[test]
fn tokenizer_has_every_byte_the_digits_and_the_special_tokens() {
    let folder = tempfile::tempdir().expect("temporary folder");
    write_model_dir(folder.path()).expect("write");
    let tokenizer = tokenizers::Tokenizer::from_file(folder.path().join("tokenizer.json")).expect("tokenizer");
    let config = model_json("config.json");
    assert_eq!(tokenizer.get_vocab_size(true) as u64, config["vocab_size"].as_u64().expect("vocab_size"));
    for token in ["<|bos|>", "<|eos|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"] {
        let id = tokenizer.token_to_id(token).expect(token);
        assert_eq!(tokenizer.encode(token, false).expect(token).get_ids(), [id], "{token}");
    }
    assert_eq!(tokenizer.token_to_id("<|bos|>").map(u64::from), config["bos_token_id"].as_u64());
    let ends: Vec<_> = ["<|end|>", "<|eos|>"].iter().map(|token| tokenizer.token_to_id(token)).collect();
    for file in ["config.json", "generation_config.json"] {
        let json = model_json(file);
        let found = json["eos_token_id"].as_array().expect(file).iter();
        assert_eq!(found.map(|id| id.as_u64().map(|id| id as u32)).collect::<Vec<_>>(), ends, "{file}");
    }
    for digit in ["1", "2", "3", "4", "5"] {
        assert_eq!(tokenizer.encode(digit, false).expect(digit).len(), 1, "{digit}");
        let after_marker = tokenizer.encode(format!("<|assistant|>\n{digit}"), false).expect(digit);
        assert_eq!(after_marker.get_ids().last().copied(), tokenizer.token_to_id(digit), "{digit}");
    }
    let strange = "𓀀 🏴‍☠️ שלום ქართული \u{0}\u{7f} e\u{301}\r\n\t한국어";
    let ids = tokenizer.encode(strange, false).expect("encode");
    assert_eq!(tokenizer.decode(ids.get_ids(), false).expect("decode"), strange, "any text survives");
}

#[test]
fn template_names_the_roles_and_the_label_is_honest() {
    let folder = tempfile::tempdir().expect("temporary folder");
    write_model_dir(folder.path()).expect("write");
    let source = fs::read_to_string(folder.path().join("chat_template.jinja")).expect("template");
    let mut environment = minijinja::Environment::new();
    environment.add_template("chat", &source).expect("the template parses");
    let render = |messages: Value, add_generation_prompt: bool| {
        let context = serde_json::json!({
            "bos_token": "<|bos|>", "messages": messages, "add_generation_prompt": add_generation_prompt,
        });
        environment.get_template("chat").and_then(|chat| chat.render(minijinja::value::Serde(context)))
    };
    let turns = serde_json::json!([
        {"role": "system", "content": "Answer in Yoruba."}, {"role": "user", "content": " Kí ni?\n"},
    ]);
    assert_eq!(
        render(turns, true).expect("render"),
        "<|bos|><|system|>\nAnswer in Yoruba.<|end|>\n<|user|>\nKí ni?<|end|>\n<|assistant|>\n"
    );
    let dialogue = serde_json::json!([{"role": "user", "content": "ሀ"}, {"role": "assistant", "content": "ለ"}]);
    assert_eq!(render(dialogue, false).expect("render"), "<|bos|><|user|>\nሀ<|end|>\n<|assistant|>\nለ<|end|>\n");
    assert!(render(serde_json::json!([{"role": "tool", "content": "x"}]), true).is_err(), "an unknown role is refused");
    assert!(MODEL_LABEL.starts_with("pairwright-demo-toy") && MODEL_LABEL.contains("not a language model"));
}

#[test]
fn the_largest_languages_of_aya_have_texts_of_their_own() {
    let prompts = pairwright::generate::SystemPrompts::built_in().expect("system_prompts.toml");
    let file: toml::Table = SYSTEM_PROMPTS.parse().expect("system_prompts.toml");
    let texts = |table: &toml::Value| -> BTreeMap<String, String> {
        let entries = table.as_table().expect("a table").iter();
        entries.map(|(code, text)| (code.clone(), text.as_str().expect("a text").to_owned())).collect()
    };
    let own = texts(&file["languages"]);
    let codes: Vec<&str> = own.keys().map(String::as_str).collect();
    assert_eq!(
        codes,
        ["arb", "ary", "jpn", "kir", "pan", "plt", "por", "sin", "som", "tam", "tel", "tur", "vie", "yor", "zsm"]
    );
    for (code, text) in &own {
        assert_eq!(prompts.for_language("", code).as_deref(), Some(text.as_str()));
        assert!(!text.contains(['{', '}']) && text.trim() == text && text.chars().count() < 260, "{code}: {text}");
        let broad = pairwright::data::language::broad_code("", code).expect("a known code");
        let found = pairwright::quality::default_profile().identify(text);
        assert_eq!(found.code.as_deref(), Some(broad), "{code}: {text}");
    }
    let mut lengths = texts(&file["length"]["words"]["languages"]);
    lengths.extend(texts(&file["length"]["characters"]["languages"]));
    assert!(lengths.keys().eq(own.keys()), "{:?}", lengths.keys());
    for (code, text) in &lengths {
        for place in ["{low}", "{middle}", "{high}"] {
            assert_eq!(text.matches(place).count(), 1, "{code}: {place} in {text}");
        }
    }
}

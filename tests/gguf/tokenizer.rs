//! The tokenizer in a GGUF file against tokenizers, SentencePiece and Transformers (`scripts/make_gguf_fixtures.py`).

use std::path::{Path, PathBuf};

use pairwright::prompt::{ChatTokenizer, DialogueEnd, Message, PromptError, TemplateOptions};
use serde_json::Value as Json;

use super::writer::{Meta, Writer};
use super::{expected, fixture};

fn options() -> TemplateOptions {
    TemplateOptions::new("2026-11-22".parse().expect("a date"))
}

fn load(path: &Path) -> ChatTokenizer {
    ChatTokenizer::load(path, &options()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn refusal(writer: &Writer) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, writer.bytes()).unwrap();
    let error = ChatTokenizer::load(&path, &options()).expect_err("it was meant to be refused");
    assert!(matches!(error, PromptError::Gguf(_)), "{error}");
    let message = error.to_string();
    assert!(message.contains("model.gguf") && message.contains("\nhint: "), "{message}");
    message
}

/// Ids of every text as `ids` says; text of every id as it was.
fn assert_ids(tokenizer: &ChatTokenizer, ids: &Json, what: &str) {
    let texts = expected()["texts"].as_object().unwrap().clone();
    assert_eq!(texts.len(), 13, "twelve scripts, and spaces");
    for (name, text) in &texts {
        let want: Vec<u32> = serde_json::from_value(ids[name].clone()).unwrap();
        let text = text.as_str().unwrap();
        assert_eq!(tokenizer.encode_text(text).unwrap(), want, "{what}, {name}");
        let mut grown = String::new();
        let mut detokenizer = tokenizer.detokenizer(true);
        for id in &want {
            grown.extend(detokenizer.push(*id).unwrap());
        }
        grown.extend(detokenizer.finish().unwrap());
        assert_eq!(grown, tokenizer.decode(&want, true).unwrap(), "{what}, {name}");
        // Models that compose characters do not give the two of a decomposed text back.
        if !text.contains('\u{301}') {
            assert_eq!(grown, text, "{what}, {name}");
        }
    }
}

#[test]
fn a_models_file_encodes_and_renders_as_its_tokenizer_json() {
    let expected = expected();
    for (family, model) in expected["models"].as_object().unwrap() {
        let tokenizer = load(&fixture(model["file"].as_str().unwrap()));
        assert_ids(&tokenizer, &model["texts"], family);
        let message =
            Message { role: "user".to_owned(), content: expected["texts"]["arabic"].as_str().unwrap().to_owned() };
        assert_eq!(
            tokenizer.render_chat(std::slice::from_ref(&message), DialogueEnd::GenerationPrompt).unwrap(),
            model["rendered"],
            "{family}"
        );
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(family);
        let published = ChatTokenizer::load(&source, &options()).unwrap();
        assert_eq!(tokenizer.template_source(), published.template_source(), "{family}");
        assert_eq!(tokenizer.template_sha256(), published.template_sha256(), "{family}");
        assert_eq!(
            tokenizer.encode_chat(std::slice::from_ref(&message), DialogueEnd::GenerationPrompt).unwrap(),
            published.encode_chat(&[message], DialogueEnd::GenerationPrompt).unwrap()
        );
        assert_eq!((tokenizer.bos_id(), tokenizer.vocab_size()), (published.bos_id(), published.vocab_size()));
        // `<|end|>` ends this template's turns, and the file says that it is a control token.
        let ends = [published.eos_ids(), &[published.token_id("<|end|>").unwrap()]].concat();
        assert_eq!(tokenizer.eos_ids(), ends);
        for id in 0..published.vocab_size() as u32 {
            assert_eq!(
                (tokenizer.is_special(id), tokenizer.is_control(id)),
                (published.is_special(id), published.is_control(id))
            );
        }
    }
}

/// The byte-level vocabulary of `tests/fixtures/prompt` under the pre-tokenizer `pre`.
fn byte_level(pre: &str) -> Writer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/prompt/bytelevel.tokenizer.json");
    let tokenizer: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let added = tokenizer["added_tokens"].as_array().unwrap();
    let mut tokens: Vec<(u64, String, i32)> = added
        .iter()
        .map(|token| {
            let kind = if token["special"] == true { 3 } else { 4 };
            (token["id"].as_u64().unwrap(), token["content"].as_str().unwrap().to_owned(), kind)
        })
        .collect();
    let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
    tokens.extend(vocab.iter().map(|(text, id)| (id.as_u64().unwrap(), text.clone(), 1)));
    tokens.sort();
    let merges = tokenizer["model"]["merges"].as_array().unwrap();
    let merges = merges.iter().map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
    let mut writer = Writer::default();
    writer.set("general.architecture", Meta::Text("llama".to_owned()));
    writer.set("tokenizer.ggml.model", Meta::Text("gpt2".to_owned()));
    writer.set("tokenizer.ggml.pre", Meta::Text(pre.to_owned()));
    writer.set("tokenizer.ggml.tokens", Meta::Texts(tokens.iter().map(|token| token.1.clone()).collect()));
    writer.set("tokenizer.ggml.token_type", Meta::I32s(tokens.iter().map(|token| token.2).collect()));
    writer.set("tokenizer.ggml.merges", Meta::Texts(merges.collect()));
    writer
}

fn written(dir: &tempfile::TempDir, writer: &Writer) -> PathBuf {
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, writer.bytes()).unwrap();
    path
}

#[test]
fn each_pre_tokenizer_splits_as_the_models_it_is_named_for() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected();
    for (pre, ids) in expected["byte_level"].as_object().unwrap() {
        assert_ids(&load(&written(&dir, &byte_level(pre))), ids, pre);
    }
    // All names that are known build a tokenizer that gives text back.
    for pre in ["default", "tekken", "gpt-4o", "qwen35", "tiny_aya", "seed-coder", "smollm", "glm4", "stablelm2"] {
        let tokenizer = load(&written(&dir, &byte_level(pre)));
        for text in expected["texts"].as_object().unwrap().values().filter_map(Json::as_str) {
            let ids = tokenizer.encode_text(text).unwrap();
            let composed = tokenizer.decode(&ids, true).unwrap();
            assert!(composed == text || text.contains('\u{301}'), "{pre}: {composed:?}");
        }
    }
}

#[test]
fn sentencepiece_scores_give_the_ids_of_sentencepiece() {
    let expected = expected();
    let tokenizer = load(&fixture("spm.gguf"));
    assert_ids(&tokenizer, &expected["spm"]["prefix"], "prefix");
    assert_eq!(tokenizer.bos_id(), tokenizer.token_id("<s>"));
    assert_eq!(tokenizer.eos_ids(), [tokenizer.token_id("</s>").unwrap()]);
    let user = tokenizer.token_id("<|user|>").unwrap();
    assert!(tokenizer.is_special(user) && tokenizer.is_control(user));
    let inst = tokenizer.token_id("[INST]").unwrap();
    assert!(!tokenizer.is_special(inst) && tokenizer.is_control(inst));
    // A text that spells a control token stays text.
    let ids = tokenizer.encode_text("a <|user|> and </s>").unwrap();
    assert!(ids.iter().all(|id| !tokenizer.is_control(*id)), "{ids:?}");
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a <|user|> and </s>");
}

#[test]
fn without_the_space_before_a_text_pieces_are_gemmas() {
    let expected = expected();
    let gguf = pairwright::gguf::Gguf::open(&[fixture("spm.gguf")]).unwrap();
    let texts = |key: &str| gguf.texts(key).unwrap().unwrap().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let numbers = |key: &str| gguf.numbers(key).unwrap().unwrap();
    let mut writer = Writer::default();
    writer.set("general.architecture", Meta::Text("gemma2".to_owned()));
    writer.set("tokenizer.ggml.model", Meta::Text("llama".to_owned()));
    writer.set("tokenizer.ggml.tokens", Meta::Texts(texts("tokenizer.ggml.tokens")));
    let scores = numbers("tokenizer.ggml.scores").iter().map(|score| *score as f32).collect();
    writer.set("tokenizer.ggml.scores", Meta::F32s(scores));
    let kinds = numbers("tokenizer.ggml.token_type").iter().map(|kind| *kind as i32).collect();
    writer.set("tokenizer.ggml.token_type", Meta::I32s(kinds));
    writer.set("tokenizer.ggml.add_space_prefix", Meta::Bool(false));
    let dir = tempfile::tempdir().unwrap();
    assert_ids(&load(&written(&dir, &writer)), &expected["spm"]["no_prefix"], "no prefix");
}

#[test]
fn a_tokenizer_json_beside_the_file_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(&dir, &byte_level("no-such-pre-tokenizer"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/llama");
    std::fs::copy(source.join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let tokenizer = load(&path);
    assert_eq!(tokenizer.tokenizer_sha256(), ChatTokenizer::load(&source, &options()).unwrap().tokenizer_sha256());
    assert!(!tokenizer.has_chat_template());
    std::fs::copy(source.join("chat_template.jinja"), dir.path().join("chat_template.jinja")).unwrap();
    assert!(load(&path).has_chat_template());
}

#[test]
fn what_is_not_known_of_a_tokenizer_is_refused() {
    let with = |key: &str, value: Option<Meta>| {
        let mut writer = byte_level("gpt-2");
        writer.metadata.retain(|(other, _)| other != key);
        writer.metadata.extend(value.map(|value| (key.to_owned(), value)));
        refusal(&writer)
    };
    let word = |word: &str| Some(Meta::Text(word.to_owned()));
    let words = |words: &[&str]| Some(Meta::Texts(words.iter().map(|word| (*word).to_owned()).collect()));
    for (key, value, says) in [
        ("tokenizer.ggml.pre", word("kimi-k2"), "`kimi-k2` (tokenizer.ggml.pre) is not known"),
        ("tokenizer.ggml.pre", None, "`tokenizer.ggml.pre` is missing"),
        ("tokenizer.ggml.model", word("t5"), "`t5` (tokenizer.ggml.model), want `gpt2` or `llama`"),
        ("tokenizer.ggml.model", None, "`tokenizer.ggml.model` is missing"),
        ("tokenizer.ggml.model", Some(Meta::U32(1)), "`tokenizer.ggml.model` is 1, want a string"),
        ("tokenizer.ggml.model", word("llama"), "`tokenizer.ggml.scores` is missing"),
        ("tokenizer.ggml.tokens", None, "`tokenizer.ggml.tokens` is missing"),
        ("tokenizer.ggml.tokens", words(&["a", "a"]), "has 439 numbers for 2 tokens"),
        ("tokenizer.ggml.token_type", Some(Meta::I32s(vec![1, 1])), "has 2 numbers for 439 tokens"),
        ("tokenizer.ggml.token_type", words(&["x"]), "elements of another type, want numbers"),
        ("tokenizer.ggml.merges", words(&["ab"]), "holds \"ab\", want two tokens"),
        ("tokenizer.ggml.merges", words(&["q zzz"]), "joins \"q\" and \"zzz\", which are no tokens"),
        ("tokenizer.ggml.merges", None, "`tokenizer.ggml.merges` is missing"),
        ("tokenizer.ggml.eos_token_id", Some(Meta::U32(439)), "is 439, and there are 439 tokens"),
    ] {
        let message = with(key, value);
        assert!(message.contains(says), "`{message}` does not say `{says}`");
    }
    let unknown = with("tokenizer.ggml.pre", word("kimi-k2"));
    assert!(unknown.contains("tokenizer.json beside the file"), "{unknown}");
    let mut twice = byte_level("gpt-2");
    twice.metadata.retain(|(key, _)| !key.ends_with("token_type"));
    twice.set("tokenizer.ggml.tokens", Meta::Texts(vec!["a".to_owned(), "a".to_owned()]));
    assert!(refusal(&twice).contains("the token \"a\" twice"));
}

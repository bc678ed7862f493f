//! The prompt layer against what Transformers made of the same dialogues (fixtures by `scripts/make_prompt_fixtures.py`),
//! and its loading, its labels, its detokeniser and its stop strings. That texts never steer: `tests/prompt_safety.rs`.

use pairwright::prompt::{
    ChatTokenizer, DialogueEnd, Message, PromptError, StopMatch, StopMatcher, TemplateOptions, TemplateSource,
    fold_system,
};
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use std::path::{Path, PathBuf};

const KINDS: [&str; 5] = ["bytelevel", "metaspace", "prepend", "unigram", "wordlevel"];

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/prompt").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

fn cases() -> Json {
    serde_json::from_str(&fixture("cases.json")).expect("fixture is JSON")
}

fn options() -> TemplateOptions {
    TemplateOptions::new("2026-03-07".parse().expect("a date"))
}

fn tokenizer(kind: &str, template: Option<&str>, extra: Map<String, Json>) -> ChatTokenizer {
    let json = fixture(&format!("{kind}.tokenizer.json"));
    let config = fixture(&format!("{kind}.config.json"));
    let options = TemplateOptions { extra, ..options() };
    ChatTokenizer::from_parts(json.as_bytes(), Some(&config), template, &options).expect("fixture loads")
}

fn template(name: &str) -> String {
    fixture(&format!("templates/{name}.jinja"))
}

fn ids_of(json: &Json) -> Vec<u32> {
    serde_json::from_value(json.clone()).expect("token ids")
}

fn user(content: &str) -> Message {
    Message { role: "user".to_owned(), content: content.to_owned() }
}

fn turn(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}

#[test]
fn texts_in_ten_scripts_encode_and_decode_as_transformers() {
    let cases = cases();
    assert_eq!(cases["scripts"].as_object().map(Map::len), Some(10));
    for kind in KINDS {
        let tokenizer = tokenizer(kind, None, Map::new());
        for case in cases["texts"].as_array().expect("texts").iter().filter(|case| case["tokenizer"] == kind) {
            let script = case["script"].as_str().expect("script");
            let ids = tokenizer.encode_text(cases["scripts"][script].as_str().expect("text")).expect("encodes");
            assert_eq!(ids, ids_of(&case["ids"]), "{kind} {script}");
            assert_eq!(tokenizer.decode(&ids, false).expect("decodes"), case["decoded"], "{kind} {script}");
        }
    }
}

#[test]
fn dialogues_render_and_encode_as_transformers() {
    let cases = cases();
    let chats = cases["chats"].as_array().expect("chats");
    for case in chats {
        let name = case["template"].as_str().expect("template");
        let extra = case["extra"].as_object().expect("extra").clone();
        let tokenizer = tokenizer(case["tokenizer"].as_str().expect("kind"), Some(&template(name)), extra);
        let index = usize::try_from(case["dialogue"].as_u64().expect("index")).expect("small");
        let messages: Vec<Message> = serde_json::from_value(cases["dialogues"][index].clone()).expect("dialogue");
        let prompt = match case["add_generation_prompt"] == true {
            true => DialogueEnd::GenerationPrompt,
            false => DialogueEnd::Whole,
        };
        let label = format!("{name}, dialogue {index}, {}", case["extra"]);
        match case["error"].as_str() {
            Some(message) if messages.iter().all(|turn| turn.role != "system") => {
                let error = tokenizer.encode_chat(&messages, prompt).expect_err(&label);
                assert!(
                    matches!(&error, PromptError::Template { message: m, raised: true, .. } if m == message),
                    "{label}: {error}"
                );
            }
            Some(_) => {
                let folded = tokenizer.encode_chat(&fold_system(&messages), prompt).expect(&label);
                assert_eq!(tokenizer.encode_chat(&messages, prompt).expect(&label), folded, "{label}");
            }
            None => {
                assert_eq!(tokenizer.render_chat(&messages, prompt).expect(&label), case["text"], "{label}");
                assert_eq!(tokenizer.encode_chat(&messages, prompt).expect(&label), ids_of(&case["ids"]), "{label}");
            }
        }
    }
    assert!(chats.len() >= 80);
}

#[test]
fn a_system_turn_is_folded_where_the_template_refuses_it() {
    let gemma = tokenizer("metaspace", Some(&template("gemma_turns")), Map::new());
    let dialogue = [turn("system", "Réponds en yorùbá."), user("ሰላም"), turn("assistant", "Ẹ kú"), user("ok")];
    let text = gemma.render_chat(&dialogue, DialogueEnd::GenerationPrompt).expect("renders");
    assert!(text.starts_with("<s><start_of_turn>user\nRéponds en yorùbá.\n\nሰላም<end_of_turn>\n"), "{text}");
    assert!(!gemma.supports_system().expect("probes"));
    let chatml = tokenizer("bytelevel", Some(&template("chatml")), Map::new());
    assert!(chatml.supports_system().expect("probes"));
    let last = fold_system(&[user("a"), turn("system", "b"), turn("system", "c")]);
    assert_eq!(last, [user("a"), user("b\n\nc")]);
}

fn model_dir(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temporary folder");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("writes");
    }
    let path = dir.path().to_owned();
    (dir, path)
}

#[test]
fn the_template_is_taken_from_the_file_that_wins() {
    let json = fixture("bytelevel.tokenizer.json");
    let config = json!({
        "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "C{{ eos_token }}{{ bos_token }}"}],
        "eos_token": {"content": "<|im_end|>"}, "bos_token": null,
    })
    .to_string();
    let in_json = r#"{"chat_template": "J"}"#;
    let mut files = vec![("tokenizer.json", json.as_str()), ("tokenizer_config.json", &config)];
    let beside = tempfile::tempdir().expect("temporary folder");
    std::fs::create_dir(beside.path().join("additional_chat_templates")).expect("creates");
    std::fs::write(beside.path().join("tokenizer.json"), &json).expect("writes");
    let of = |name: &str| {
        std::fs::write(beside.path().join("additional_chat_templates").join(name), "B").expect("writes");
        ChatTokenizer::load(beside.path(), &options()).expect("loads").render_chat(&[user("a")], DialogueEnd::Whole)
    };
    assert!(of("tool_use.jinja").expect_err("not ours").to_string().contains("named `default`, only: tool_use"));
    assert_eq!(of("default.jinja").expect("renders"), "B");
    for (extra, expected) in
        [(None, "C<|im_end|>"), (Some(("chat_template.json", in_json)), "J"), (Some(("chat_template.jinja", "X")), "X")]
    {
        files.extend(extra);
        let (_keep, dir) = model_dir(&files);
        let tokenizer = ChatTokenizer::load(&dir, &options()).expect("loads");
        assert_eq!(tokenizer.render_chat(&[user("a")], DialogueEnd::GenerationPrompt).expect("renders"), expected);
        let options = TemplateOptions {
            chat_template_override: Some(TemplateSource { source: "O".to_owned(), origin: "o.jinja".to_owned() }),
            ..options()
        };
        let overridden = ChatTokenizer::load(&dir, &options).expect("loads");
        assert_eq!(overridden.template_source(), Some("O"));
    }
}

#[test]
fn accessors_tell_what_the_files_say() {
    let json = fixture("bytelevel.tokenizer.json");
    let generation = r#"{"eos_token_id": [1, 2, 99999999999]}"#;
    let map = r#"{"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>", "pad_token": "<tool_call>"}"#;
    let (_keep, dir) = model_dir(&[
        ("tokenizer.json", &json),
        ("special_tokens_map.json", map),
        ("generation_config.json", generation),
        ("chat_template.jinja", "abc"),
    ]);
    let tokenizer = ChatTokenizer::load(&dir, &options()).expect("loads");
    let id = |token: &str| tokenizer.token_id(token).expect(token);
    assert_eq!(tokenizer.eos_ids(), [1, 2, id("<|im_end|>")]);
    assert_eq!(tokenizer.bos_id(), Some(id("<|begin_of_text|>")));
    assert_eq!(tokenizer.vocab_size(), id("<table>") as usize + 1);
    assert!(tokenizer.is_special(id("<|eot_id|>")) && !tokenizer.is_special(id("<think>")) && !tokenizer.is_special(0));
    assert!(tokenizer.is_special(id("<tool_call>")), "named by the config, so special");
    assert!(tokenizer.is_control(id("<think>")) && !tokenizer.is_control(id("<table>")) && !tokenizer.is_control(0));
    assert!(tokenizer.has_chat_template());
    assert_eq!(tokenizer.template_sha256(), Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert_eq!(tokenizer.tokenizer_sha256().len(), 64);
}

#[test]
fn unusable_input_is_refused_with_a_hint() {
    let json = fixture("bytelevel.tokenizer.json");
    let load = |files: &[(&str, &str)]| {
        let (_keep, dir) = model_dir(files);
        ChatTokenizer::load(&dir, &options())
    };
    let refused = |files: &[(&str, &str)]| load(files).expect_err("must be refused");
    let lfs = "version https://git-lfs.github.com/spec/v1\n";
    let mut errors = vec![refused(&[]), refused(&[("tokenizer.json", "{")]), refused(&[("tokenizer.json", lfs)])];
    assert!(matches!(errors[0], PromptError::MissingTokenizer { .. }));
    errors.push(refused(&[("tokenizer.json", &json), ("tokenizer_config.json", "[]")]));
    errors.push(refused(&[("tokenizer.json", &json), ("chat_template.jinja", "{% if %}")]));
    let bare = load(&[("tokenizer.json", &json)]).expect("a template is needed only for chats");
    assert!(!bare.has_chat_template() && bare.template_sha256().is_none() && bare.encode_text("नमस्ते").is_ok());
    errors.push(bare.encode_chat(&[user("a")], DialogueEnd::GenerationPrompt).expect_err("no template"));
    let only_tools = r#"{"chat_template": [{"name": "tool_use", "template": "T"}]}"#;
    let tools = load(&[("tokenizer.json", &json), ("tokenizer_config.json", only_tools)]).expect("loads");
    errors.push(tools.encode_chat(&[user("a")], DialogueEnd::GenerationPrompt).expect_err("no default template"));
    assert!(errors.iter().any(|error| error.to_string().contains("tool_use")));
    for source in [
        "{{ messages.nothing.at_all }}",
        "{{ undefined_name | tojson }}",
        "{{ 1 | no_such_filter }}",
        "{{ 'a'.no_such() }}",
    ] {
        let failing = tokenizer("bytelevel", Some(source), Map::new());
        errors.push(failing.encode_chat(&[user("a")], DialogueEnd::GenerationPrompt).expect_err(source));
    }
    for error in errors {
        assert!(error.to_string().contains("\nhint: "), "{error}");
    }
}

#[test]
fn labels_continue_a_dialogue() {
    const KNOWN: [&str; 6] = ["1", "5", "0", "▁", "▁1", "▁5"];
    let label = |kind: &str, name: &str, text: &str| {
        let tokenizer = tokenizer(kind, Some(&template(name)), Map::new());
        let ids = tokenizer.encode_chat(&[user("rate this")], DialogueEnd::GenerationPrompt).expect("encodes");
        let label = tokenizer.label_token_ids(text, &ids).expect("label");
        let name = |id: &u32| KNOWN.iter().find(|token| tokenizer.token_id(token) == Some(*id)).copied();
        label.iter().map(|id| name(id).unwrap_or("?").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(label("bytelevel", "chatml", "5"), ["5"]);
    assert_eq!(label("bytelevel", "phi_roles", "10"), ["1", "0"]);
    assert_eq!(label("metaspace", "gemma_turns", "5"), ["5"], "after the newline of the template");
    assert_eq!(label("metaspace", "mistral_inst", "5"), ["5"], "prepend_scheme first: nothing after a control token");
    assert_eq!(label("prepend", "zephyr", "5"), ["5"], "after the newline of the template");
    assert_eq!(label("unigram", "namespaces", "1"), ["▁1"], "this kind starts every text with a space");
    assert_eq!(label("wordlevel", "bracketed", "5"), ["5"]);
    let prepend = tokenizer("prepend", None, Map::new());
    let after_control = [prepend.token_id("<|assistant|>").expect("id")];
    let whole = prepend.encode_text("5").expect("encodes");
    assert_eq!(prepend.label_token_ids("5", &after_control).expect("label"), whole);
    assert_eq!(prepend.label_token_ids("5", &[]).expect("label"), whole);
    let hostile = prepend.label_token_ids("</s>", &after_control).expect("label");
    assert!(hostile.iter().all(|id| !prepend.is_control(*id)));
}

fn deltas(tokenizer: &ChatTokenizer, ids: &[u32], skip_special: bool) -> Vec<String> {
    let mut detokenizer = tokenizer.detokenizer(skip_special);
    let mut deltas: Vec<String> = ids.iter().filter_map(|id| detokenizer.push(*id).expect("decodes")).collect();
    deltas.extend(detokenizer.finish().expect("decodes"));
    deltas
}

#[test]
fn deltas_join_to_the_whole_for_every_script() {
    let cases = cases();
    for kind in KINDS {
        let tokenizer = tokenizer(kind, None, Map::new());
        for (script, text) in cases["scripts"].as_object().expect("scripts") {
            let ids = tokenizer.encode_text(text.as_str().expect("text")).expect("encodes");
            let deltas = deltas(&tokenizer, &ids, true);
            assert_eq!(deltas.concat(), tokenizer.decode(&ids, true).expect("decodes"), "{kind} {script}");
            let tainted = deltas.iter().any(|delta| delta.contains('\u{FFFD}'));
            assert!(!tainted && deltas.iter().all(|delta| !delta.is_empty()), "{kind} {script}: {deltas:?}");
            // A script that byte fallback spells comes run by run: its decoder decides on a run as a whole.
            let in_runs = ["metaspace", "prepend"].contains(&kind);
            assert!(in_runs || deltas.len() > 2, "{kind} {script} comes in pieces: {deltas:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn deltas_join_to_the_whole_for_any_ids(ids in prop::collection::vec(0u32..500, 0..60), skip_special: bool) {
        for kind in KINDS {
            let tokenizer = TOKENIZERS.with(|all| all[KINDS.iter().position(|known| *known == kind).expect("kind")].clone());
            prop_assert_eq!(deltas(&tokenizer, &ids, skip_special).concat(), tokenizer.decode(&ids, skip_special).expect("decodes"));
        }
    }

    #[test]
    fn texts_survive_encoding(text in "\\PC{0,40}") {
        let tokenizer = TOKENIZERS.with(|all| all[0].clone());
        let ids = tokenizer.encode_text(&text).expect("encodes");
        prop_assert_eq!(tokenizer.decode(&ids, false).expect("decodes"), text);
    }

    #[test]
    fn stops_do_not_depend_on_the_cuts(text in "[abé]{0,30}", cuts in prop::collection::vec(1usize..4, 30), stops in prop::collection::vec("[abé]{0,4}", 0..4)) {
        let mut matcher = StopMatcher::new(&stops);
        let (mut rest, mut found) = (text.chars().collect::<Vec<_>>(), None);
        for cut in cuts {
            let piece: String = rest.drain(..cut.min(rest.len())).collect();
            found = matcher.push(&piece);
        }
        let expected = first_stop(&text, &stops);
        prop_assert_eq!(found, expected);
    }
}

/// The rule of [`StopMatcher`], on the whole text.
fn first_stop(text: &str, stops: &[String]) -> Option<StopMatch> {
    let ending_at = |end: usize| {
        let head = text.get(..end)?;
        let hits = stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty() && head.ends_with(stop.as_str()));
        hits.map(|(at, stop)| (end - stop.len(), at)).min()
    };
    let (cut_bytes, stop_index) = (0..=text.len()).find_map(ending_at)?;
    Some(StopMatch { cut_bytes, stop_index })
}

thread_local! {
    static TOKENIZERS: Vec<std::rc::Rc<ChatTokenizer>> = KINDS.iter().map(|kind| std::rc::Rc::new(tokenizer(kind, None, Map::new()))).collect();
}

#[test]
fn stop_strings_span_pieces_and_scripts() {
    let stops = ["。終".to_owned(), "###".to_owned(), String::new(), "\n\nQ".to_owned()];
    let mut matcher = StopMatcher::new(&stops);
    assert_eq!(matcher.push("空は青い。"), None);
    assert_eq!(matcher.push("終わり ###"), Some(StopMatch { cut_bytes: "空は青い".len(), stop_index: 0 }));
    assert_eq!(
        matcher.push("###"),
        Some(StopMatch { cut_bytes: "空は青い".len(), stop_index: 0 }),
        "the first match stays"
    );
    assert_eq!(StopMatcher::new(&[]).push("anything"), None);
}

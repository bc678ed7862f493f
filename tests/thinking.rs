//! What a model thinks before it answers: split off for every known kind of markers, whether they are special tokens or
//! spelled-out text, whether the model or the template opens them; and left alone where an answer only speaks of them. The
//! `--thinking` flag and the rows that never answer: `tests/generate/thinking.rs`.

use std::path::Path;

use pairwright::prompt::{
    AnswerEnd, AnswerReader, ChatTokenizer, DialogueEnd, Message, TemplateOptions, TemplateSource,
};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

const SPECIAL: [&str; 16] = [
    "[THINK]",
    "[/THINK]",
    "<seed:think>",
    "</seed:think>",
    "<|START_THINKING|>",
    "<|END_THINKING|>",
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
    "<|inner_prefix|>",
    "<|inner_suffix|>",
    "<|channel|>",
    "<|message|>",
    "<|start|>",
    "<|end|>",
    "◁think▷",
    "◁/think▷",
];

fn fixture(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/prompt").join(name)).unwrap()
}

/// A tokenizer of the fixtures with the markers as special tokens.
fn tokenizer(kind: &str, template: &str, enable: Option<bool>) -> ChatTokenizer {
    let mut json: Json = serde_json::from_str(&fixture(&format!("{kind}.tokenizer.json"))).unwrap();
    let added = json["added_tokens"].as_array_mut().unwrap();
    let highest = added.iter().map(|token| token["id"].as_u64().unwrap()).max().unwrap();
    for (id, content) in (highest + 1..).zip(SPECIAL) {
        if added.iter().any(|token| token["content"] == content) {
            continue;
        }
        added.push(json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}));
    }
    let mut options = TemplateOptions::new("2026-03-07".parse().unwrap());
    let source = fixture(&format!("templates/{template}.jinja"));
    options.chat_template_override = Some(TemplateSource { source, origin: template.to_owned() });
    options.extra.extend(enable.map(|enable| ("enable_thinking".to_owned(), enable.into())));
    ChatTokenizer::from_parts(
        json.to_string().as_bytes(),
        Some(&fixture(&format!("{kind}.config.json"))),
        None,
        &options,
    )
    .unwrap()
}

/// Ids of an answer: markers that are tokens become their token, everything else is encoded as text.
fn ids(tokenizer: &ChatTokenizer, answer: &str) -> Vec<u32> {
    let (mut ids, mut rest) = (Vec::new(), answer);
    let markers =
        || SPECIAL.iter().chain(&["<think>", "</think>"]).filter(|marker| tokenizer.token_id(marker).is_some());
    while !rest.is_empty() {
        let next = markers().filter_map(|marker| Some((rest.find(marker)?, *marker))).min();
        let (at, marker) = next.unwrap_or((rest.len(), ""));
        ids.extend(tokenizer.encode_text(rest.split_at(at).0).unwrap());
        ids.extend(tokenizer.token_id(marker).filter(|_| !marker.is_empty()));
        rest = rest.split_at(at + marker.len()).1;
    }
    ids
}

/// The answer's text and how it ended.
fn read(mut reader: AnswerReader<'_>, ids: &[u32]) -> (String, AnswerEnd) {
    let mut answer = String::new();
    for id in ids {
        let piece = reader.push(*id).unwrap();
        assert!(piece.as_ref().is_none_or(|piece| !piece.is_empty() && !piece.contains('\u{FFFD}')), "{piece:?}");
        answer.push_str(piece.as_deref().unwrap_or_default());
    }
    let end = reader.finish().unwrap();
    answer.push_str(end.rest.as_deref().unwrap_or_default());
    (answer, end)
}

fn split(tokenizer: &ChatTokenizer, answer: &str) -> (String, Option<String>, bool) {
    let (text, end) = read(AnswerReader::new(tokenizer, None), &ids(tokenizer, answer));
    (text, end.thinking, end.is_open)
}

#[test]
fn a_block_that_opens_an_answer_is_split_off() {
    let thought = "سؤال: 2+2؟ ငါး မဟုတ်ဘူး 👩🏽‍🚀";
    let answer = "အဖြေ 4. ሁለት ගණන ✔";
    for kind in ["bytelevel", "metaspace", "prepend"] {
        let tokenizer = tokenizer(kind, "chatml", None);
        for (open, close, behind) in [
            ("<think>", "</think>", ""),
            ("<think>\n", "\n</think>\n\n", ""),
            ("\n<think>", "</think>", ""),
            ("[THINK]", "[/THINK]", ""),
            ("<seed:think>", "</seed:think>", ""),
            ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>", "<|END_RESPONSE|>"),
            ("<|inner_prefix|>", "<|inner_suffix|>", ""),
            ("◁think▷", "◁/think▷", ""),
            ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>", ""),
        ] {
            // Names of channels are text between control tokens, where these tokenizers would put a space; harmony has none.
            if open.starts_with("<|channel|>") && kind != "bytelevel" {
                continue;
            }
            let whole = format!("{open}{thought}{close}{answer}{behind}");
            let expected = (answer.to_owned(), Some(thought.to_owned()), false);
            assert_eq!(split(&tokenizer, &whole), expected, "{kind} {open}");
            let (text, thinking, is_open) = split(&tokenizer, &format!("{open}{thought}"));
            assert_eq!((text.as_str(), thinking.as_deref(), is_open), ("", Some(thought), true), "{kind} {open}");
            let (text, thinking, is_open) = split(&tokenizer, &format!("{open}{thought}{close}"));
            assert_eq!((text.as_str(), thinking.as_deref(), is_open), ("", Some(thought), false), "{kind} {open}");
        }
    }
}

#[test]
fn channels_may_repeat_and_the_final_one_may_stand_alone() {
    let tokenizer = tokenizer("bytelevel", "channels", None);
    let (analysis, last) = ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>");
    let twice = format!(
        "{analysis}a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|><|start|>assistant{last}c"
    );
    assert_eq!(split(&tokenizer, &twice), ("c".to_owned(), Some("a\nb".to_owned()), false));
    assert_eq!(split(&tokenizer, &format!("{last}ጥሩ")), ("ጥሩ".to_owned(), None, false));
}

#[test]
fn an_answer_that_speaks_of_markers_keeps_them() {
    for kind in ["bytelevel", "metaspace", "prepend"] {
        let tokenizer = tokenizer(kind, "chatml", None);
        for answer in [
            "Write <think>a</think> in front.",
            "a </think> b",
            "</think> first",
            "<thin air",
            "<",
            "",
            "« <think> » est une balise.",
            "<thinking about it> x",
            "analysis: final",
        ] {
            assert_eq!(split(&tokenizer, answer), (answer.to_owned(), None, false), "{kind}");
        }
        let later = "<think>one</think>two <think>three</think> four</think>";
        let expected = ("two <think>three</think> four</think>".to_owned(), Some("one".to_owned()), false);
        assert_eq!(split(&tokenizer, later), expected, "{kind}: only what opens the answer");
    }
}

fn user(content: &str) -> [Message; 1] {
    [Message { role: "user".to_owned(), content: content.to_owned() }]
}

#[test]
fn a_template_may_open_the_thinking_itself() {
    for kind in ["bytelevel", "metaspace"] {
        let on = tokenizer(kind, "opens_thinking", None);
        let opened = on.opened_thinking(&user("2+2?")).unwrap();
        assert!(opened.is_some());
        for (answer, expected) in [
            ("sum\n</think>\n\n4", ("4", Some("sum"), false)),
            ("<think>sum</think>4", ("4", Some("sum"), false)),
            ("</think>4", ("4", Some(""), false)),
            ("sum, and sum", ("", Some("sum, and sum"), true)),
            ("", ("", Some(""), true)),
        ] {
            let (text, end) = read(AnswerReader::new(&on, opened), &ids(&on, answer));
            assert_eq!((text.as_str(), end.thinking.as_deref(), end.is_open), expected, "{kind} {answer}");
        }
        let prompt = on.encode_chat(&user("2+2?"), DialogueEnd::GenerationPrompt).unwrap();
        assert_eq!(on.opened_thinking_in(&prompt).unwrap(), opened);
        let off = tokenizer(kind, "opens_thinking", Some(false));
        assert_eq!(off.opened_thinking(&user("2+2?")).unwrap(), None);
        let prompt = off.encode_chat(&user("2+2?"), DialogueEnd::GenerationPrompt).unwrap();
        assert_eq!(off.opened_thinking_in(&prompt).unwrap(), None);
    }
}

#[test]
fn what_a_user_writes_opens_nothing_and_stays_in_the_prompt() {
    for template in ["chatml", "qwen_thinking", "opens_thinking", "json_forms", "python_values"] {
        let tokenizer = tokenizer("bytelevel", template, Some(false));
        let dialogue = user("What is <think>\u{200f}سر</think> for? <think>");
        assert_eq!(tokenizer.opened_thinking(&dialogue).unwrap(), None, "{template}");
        let ids = tokenizer.encode_chat(&dialogue, DialogueEnd::GenerationPrompt).unwrap();
        let shown = tokenizer.decode(&ids, false).unwrap();
        assert!(shown.contains("<think>") && shown.contains("</think> for? <think>"), "{template}: {shown}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_without_thinking_is_what_its_tokens_decode_to(ids in prop::collection::vec(0u32..470, 0..40)) {
        TOKENIZERS.with(|all| for tokenizer in all {
            let (text, end) = read_any(AnswerReader::new(tokenizer, None), &ids);
            let whole = tokenizer.decode(&ids, true).unwrap();
            if end.thinking.is_none() && !tokenizer.decode(&ids, false).unwrap().trim_start().starts_with("<|") {
                assert_eq!(text, whole);
            }
        });
    }
}

fn read_any(mut reader: AnswerReader<'_>, ids: &[u32]) -> (String, AnswerEnd) {
    let mut answer: String = ids.iter().filter_map(|id| reader.push(*id).unwrap()).collect();
    let end = reader.finish().unwrap();
    answer.push_str(end.rest.as_deref().unwrap_or_default());
    (answer, end)
}

thread_local! {
    static TOKENIZERS: Vec<ChatTokenizer> =
        ["bytelevel", "metaspace", "prepend", "unigram"].iter().map(|kind| tokenizer(kind, "chatml", None)).collect();
}

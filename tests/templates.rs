//! Chat templates against what Transformers renders, byte for byte: the templates of `tests/fixtures/prompt/templates` (our own,
//! covering what published templates use), and every further folder named by `PAIRWRIGHT_TEMPLATES_DIR`, once
//! `tests/support/compare_templates.py` has left its `expected.jsonl` there. Where Transformers raises, we must refuse.

use std::path::{Path, PathBuf};

use pairwright::prompt::{ChatTokenizer, DialogueEnd, Message, PromptError, TemplateOptions};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

#[derive(Deserialize)]
struct Head {
    date: String,
    tokens: Map<String, Json>,
    conversations: std::collections::BTreeMap<String, Vec<Message>>,
}

#[derive(Deserialize)]
struct Expected {
    template: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    conversation: String,
    end: String,
    variables: Map<String, Json>,
    text: Option<String>,
    error: Option<String>,
    /// What the dialogue gives with its system turns folded, where it was refused with them.
    folded: Option<Rendered>,
}

#[derive(Deserialize)]
struct Rendered {
    text: Option<String>,
}

fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/prompt/templates");
    std::iter::once(own).chain(std::env::var_os("PAIRWRIGHT_TEMPLATES_DIR").map(PathBuf::from)).collect()
}

fn tokenizer(head: &Head, template: &str, variables: &Map<String, Json>) -> Result<ChatTokenizer, PromptError> {
    let vocab: Map<String, Json> =
        head.tokens.values().enumerate().map(|(id, text)| (text.as_str().unwrap().to_owned(), id.into())).collect();
    let tokenizer = json!({"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}});
    let config = serde_json::to_string(&head.tokens).unwrap();
    let mut options = TemplateOptions::new(head.date.parse().unwrap());
    options.extra = variables.clone();
    ChatTokenizer::from_parts(tokenizer.to_string().as_bytes(), Some(&config), Some(template), &options)
}

/// What is wrong with one case; nothing if it is as Transformers has it.
fn difference(head: &Head, template: &str, case: &Case) -> Option<String> {
    let messages = &head.conversations[&case.conversation];
    let end = match case.end.as_str() {
        "generation_prompt" => DialogueEnd::GenerationPrompt,
        "continue" => DialogueEnd::ContinueFinal,
        _ => DialogueEnd::Whole,
    };
    let ours = tokenizer(head, template, &case.variables).and_then(|tokenizer| tokenizer.render_chat(messages, end));
    let folded = case.folded.as_ref().and_then(|rendered| rendered.text.as_ref());
    match (case.text.as_ref(), ours) {
        (Some(want), Ok(got)) if got == *want => None,
        (Some(want), Ok(got)) => Some(first_difference(want, &got)),
        (Some(_), Err(error)) => Some(format!("refused: {error}")),
        (None, Ok(got)) => match folded {
            Some(want) if got == *want => None,
            Some(want) => Some(format!("folded, {}", first_difference(want, &got))),
            None => Some(format!("rendered, want {}: {got:?}", case.error.as_deref().unwrap_or_default())),
        },
        (None, Err(_)) => None,
    }
}

fn first_difference(want: &str, got: &str) -> String {
    let same = want.chars().zip(got.chars()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| text.chars().skip(same.saturating_sub(20)).take(90).collect::<String>();
    format!("at character {same}: want {:?}, got {:?}", around(want), around(got))
}

#[test]
fn templates_render_as_in_transformers() {
    let mut wrong = Vec::new();
    for folder in folders() {
        let text = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
        let mut lines = text.lines();
        let head: Head = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert!(head.conversations.len() >= 8);
        let (mut num_templates, mut num_equal, mut num_cases) = (0, 0, 0);
        for line in lines {
            let expected: Expected = serde_json::from_str(line).unwrap();
            let template = std::fs::read_to_string(folder.join(&expected.template)).unwrap();
            let differences: Vec<String> = expected
                .cases
                .iter()
                .filter_map(|case| {
                    let name = format!("{} {} {:?}", case.conversation, case.end, case.variables);
                    Some(format!("{}: {name}: {}", expected.template, difference(&head, &template, case)?))
                })
                .collect();
            num_templates += 1;
            num_cases += expected.cases.len();
            num_equal += usize::from(differences.is_empty());
            wrong.extend(differences);
        }
        println!("{}: {num_equal} of {num_templates} templates equal, {num_cases} cases", folder.display());
        assert!(num_templates > 0, "{} is empty", folder.display());
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

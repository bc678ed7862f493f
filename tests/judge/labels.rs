//! Labels in tokens: behind the rendered prompt of each style of tokenizer, the ids asked about are those that the tokenizer itself puts
//! there when the label is written on.

use pairwright::prompt::{ChatTokenizer, DialogueEnd, TemplateOptions};

use super::styles::{STYLES, WITHOUT_FORM, write};
use pairwright::generate::dialogue;

/// Templates that end in text, in a space, in a new line, and in a control token of their tokenizer.
const ENDS: [&str; 4] = ["Rating:", "Rating: ", "assistant\n", "CONTROL"];

#[test]
fn labels_are_the_tokens_that_the_tokenizer_itself_would_write() {
    let (mut num_single, mut num_compared) = (0, 0);
    for style in STYLES.iter().chain(&WITHOUT_FORM) {
        let control = match style.1 {
            "bytelevel" => "<|im_end|>",
            "metaspace" => "<end_of_turn>",
            "prepend" => "<|assistant|>",
            "unigram" => "<|bot|>",
            _ => "[BOT]",
        };
        for end in ENDS {
            let folder = tempfile::tempdir().unwrap();
            let end = end.replace("CONTROL", control);
            let template = format!("{{{{ messages[0].content }}}} {end}").replace("\n", "{{ '\\n' }}");
            write(style, &template, folder.path());
            let options = TemplateOptions::new("2026-11-22".parse().unwrap());
            let tokenizer = ChatTokenizer::load(folder.path(), &options).unwrap();
            let turns = dialogue(None, "4 are short");
            let prompt = tokenizer.encode_chat(&turns, DialogueEnd::GenerationPrompt).unwrap();
            let rendered = tokenizer.render_chat(&turns, DialogueEnd::GenerationPrompt).unwrap();
            let mut seen = Vec::new();
            for label in ["1", "2", "3", "4", "5"] {
                let ids = tokenizer.label_token_ids(label, &prompt).unwrap();
                assert!(!ids.is_empty(), "{}: {label:?} behind {end:?}", style.0);
                // The whole written at once, by the tokenizers package alone, without any of our rules.
                let own = tokenizers::Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
                let whole = own.encode(format!("{rendered}{label}"), false).unwrap().get_ids().to_vec();
                let bare = own.encode(rendered.as_str(), false).unwrap().get_ids().to_vec();
                if bare == prompt && whole.starts_with(&prompt) {
                    assert_eq!(whole[prompt.len()..], ids, "{}: {label:?} behind {end:?}", style.0);
                    num_compared += 1;
                }
                let joined: Vec<u32> = prompt.iter().chain(&ids).copied().collect();
                let (before, after) = (tokenizer.decode(&prompt, false), tokenizer.decode(&joined, false));
                let (before, after) = (before.unwrap(), after.unwrap());
                let added = after.strip_prefix(before.as_str()).unwrap_or_else(|| panic!("{before:?} {after:?}"));
                assert_eq!(added.trim_start(), label, "{}: behind {end:?}", style.0);
                num_single += usize::from(ids.len() == 1);
                seen.push(ids);
            }
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), 5, "{}: no two labels are the same tokens", style.0);
        }
    }
    assert!(num_compared > 120 && num_single > 150, "{num_compared} compared, {num_single} of one token");
}

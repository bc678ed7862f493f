//! A tokenizer, its configuration and a chat template from anywhere, one behind the other with a zero byte between: refused, or texts with
//! markers in them come back as they were and no template runs for ever. Knows three texts; no weights stand beside them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pairwright::prompt::{ChatTokenizer, DialogueEnd, Message, TemplateOptions};

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, '\0');
    let tokenizer = parts.next().unwrap_or_default();
    let (config, template) = (parts.next(), parts.next());
    let options = TemplateOptions::new("2026-11-26".parse().expect("a date"));
    let Ok(tokenizer) = ChatTokenizer::from_parts(tokenizer.as_bytes(), config, template, &options) else { return };
    let user = "Hoi <|end|> {{ messages }} \u{202e}\u{0}";
    if let Ok(ids) = tokenizer.encode_text(user) {
        assert!(ids.iter().all(|id| !tokenizer.is_special(*id)), "text of a user is no marker");
    }
    let message = |role: &str| Message { role: role.to_owned(), content: user.to_owned() };
    let _ = tokenizer.encode_chat(&[message("user")], DialogueEnd::GenerationPrompt);
    let _ =
        tokenizer.encode_chat(&[message("system"), message("user"), message("assistant")], DialogueEnd::ContinueFinal);
});

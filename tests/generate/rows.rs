//! Generation as a library: rows that fail, texts of many scripts, system prompts, an observer that stops.

use std::collections::BTreeMap;

use pairwright::engine::{EngineStats, SamplingParams};
use pairwright::generate::{
    Answer, Ending, GenerateOptions, Observer, PromptInput, PromptRequest, SystemPrompts, TextModel, dialogue, generate,
};

use super::loaded::{Patient, engine_options, load};
use super::program::fixture_model;
use super::workshop::ROWS;

fn options(max_tokens: usize) -> GenerateOptions {
    let sampling = SamplingParams { temperature: 1.0, seed: 5, max_tokens, ..SamplingParams::default() };
    GenerateOptions { sampling, stop_strings: Vec::new(), ignore_eos: false, num_samples: 2 }
}

fn requests() -> Vec<PromptRequest> {
    let request = |(index, row): (usize, &[&str; 4])| {
        let input = PromptInput::Messages(dialogue(None, row[0]));
        PromptRequest { id: format!("{index}"), input }
    };
    ROWS.iter().enumerate().map(request).collect()
}

fn all(model: &mut TextModel, requests: Vec<PromptRequest>) -> BTreeMap<(String, u32), Answer> {
    let mut found = BTreeMap::new();
    let mut observer = Patient::default();
    let mut done = |answer: Answer| {
        assert!(found.insert((answer.id.clone(), answer.sample_index), answer).is_none(), "each sample once");
        Ok(())
    };
    let ending = generate(model, requests, &options(20), &mut observer, &mut done).unwrap();
    assert_eq!(ending, Ending::Completed);
    assert_eq!(observer.num_rows, found.len() as u64);
    assert_eq!(model.engine().num_free_blocks(), model.engine().stats().num_blocks);
    found
}

#[test]
fn a_failing_row_changes_no_other() {
    let mut model = load(&fixture_model("qwen2"), engine_options());
    let alone = all(&mut model, requests());
    let mut mixed = requests();
    let too_long = PromptInput::Raw("ก".repeat(700));
    mixed.insert(3, PromptRequest { id: "too long".to_owned(), input: too_long });
    mixed.insert(0, PromptRequest { id: "alien".to_owned(), input: PromptInput::TokenIds(vec![1, 100_000]) });
    let mut together = all(&mut model, mixed);
    for sample in 0..2 {
        let failed = together.remove(&("too long".to_owned(), sample)).unwrap().result.unwrap_err();
        assert_eq!((failed.reason.as_str(), failed.sample_index), ("prompt_too_long", sample));
        assert!(together.remove(&("alien".to_owned(), sample)).unwrap().result.is_err());
    }
    assert_eq!(together, alone);
}

#[test]
fn texts_are_what_the_tokens_decode_to() {
    let mut model = load(&fixture_model("llama"), engine_options());
    let answers = all(&mut model, requests());
    for answer in answers.values() {
        let generated = answer.result.as_ref().unwrap();
        let ids: Vec<u32> = generated.tokens.iter().map(|chosen| chosen.token).collect();
        assert_eq!(generated.text, model.tokenizer().decode(&ids, true).unwrap());
        assert!(ids.iter().all(|id| !model.eos_ids().contains(id)), "the end token is no text");
    }
    for row in ROWS {
        let ids = model.tokenizer().encode_text(row[0]).unwrap();
        assert_eq!(model.tokenizer().decode(&ids, true).unwrap(), row[0], "prompts survive the way in");
    }
}

#[test]
fn system_prompts_go_by_language() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.toml");
    let toml = "name = \"t\"\nversion = 1\ntext = \"Reply in {language}.\"\n[languages]\narb = \"أجب بالعربية.\"\n";
    std::fs::write(&path, toml).unwrap();
    let prompts = SystemPrompts::read(&path).unwrap();
    assert_eq!(prompts.for_language("Arabic", "arb").as_deref(), Some("أجب بالعربية."));
    assert_eq!(prompts.for_language("Thai", "tha").as_deref(), Some("Reply in Thai."));
    assert_eq!(prompts.for_language("", "amh").as_deref(), Some("Reply in amh."));
    let model = load(&fixture_model("llama"), engine_options());
    let shown = |system: Option<&str>| {
        model
            .tokenizer()
            .render_chat(&dialogue(system, "سؤال"), pairwright::prompt::DialogueEnd::GenerationPrompt)
            .unwrap()
    };
    assert!(shown(prompts.for_language("Arabic", "arb").as_deref()).contains("<|system|>\nأجب بالعربية.<|end|>"));
    assert!(!shown(None).contains("system"));
}

/// Stops after a number of steps.
struct Hasty(u32);

impl Observer for Hasty {
    fn progress(&mut self, _: u64, _: &EngineStats) {
        self.0 = self.0.saturating_sub(1);
    }

    fn should_stop(&mut self) -> bool {
        self.0 == 0
    }
}

#[test]
fn an_observer_ends_the_stage_and_the_engine_is_idle() {
    let mut model = load(&fixture_model("llama"), engine_options());
    let whole = all(&mut model, requests());
    let mut answers = Vec::new();
    let mut done = |answer: Answer| {
        answers.push(answer);
        Ok(())
    };
    let ending = generate(&mut model, requests(), &options(20), &mut Hasty(4), &mut done).unwrap();
    assert_eq!(ending, Ending::Interrupted);
    assert!(answers.len() < whole.len());
    assert_eq!(model.engine().num_sequences(), 0);
    assert_eq!(model.engine().num_free_blocks(), model.engine().stats().num_blocks);
    assert_eq!(all(&mut model, requests()), whole, "what is done again is the same");
}

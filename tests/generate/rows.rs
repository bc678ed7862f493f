//! Generation as a library: rows that fail, texts of many scripts, system prompts, an observer that stops.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Sender};

use pairwright::engine::{EngineStats, SamplingParams};
use pairwright::generate::{
    Answer, Ending, GenerateError, GenerateOptions, Observer, PromptInput, PromptRequest, SystemPrompts, TextModel,
    dialogue, generate,
};
use pairwright::prompt::{AnswerReader, PromptError, StopMatcher};

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
    fn progress(&mut self, _: &[u64], _: &EngineStats) {
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

/// Tells of every step.
struct Counting(Sender<()>);

impl Observer for Counting {
    fn progress(&mut self, _: &[u64], _: &EngineStats) {
        // Nobody listens once the late reader has caught up.
        _ = self.0.send(());
    }

    fn should_stop(&mut self) -> bool {
        false
    }
}

/// Answers with stop strings; the reader begins only after the engine has made `num_late` steps. Gives the engine's tokens too.
fn stopped(model: &mut TextModel, stops: &[&str], num_late: usize) -> (BTreeMap<(String, u32), Answer>, u64) {
    let mut found = BTreeMap::new();
    let (sender, steps) = mpsc::channel();
    let all = &mut found;
    let done = move |answer: Answer| {
        if all.is_empty() {
            (0..num_late).for_each(|_| steps.recv().unwrap());
        }
        all.insert((answer.id.clone(), answer.sample_index), answer);
        Ok(())
    };
    // Its failure is the first row to be done, long before any stop string.
    let first = PromptRequest { id: "none".to_owned(), input: PromptInput::TokenIds(Vec::new()) };
    let requests: Vec<_> = [first].into_iter().chain(requests()).collect();
    let stop_strings = stops.iter().map(|&stop| stop.to_owned()).collect();
    let options = GenerateOptions { stop_strings, ignore_eos: true, ..options(60) };
    let before = model.engine().stats();
    assert_eq!(generate(model, requests, &options, &mut Counting(sender), done).unwrap(), Ending::Completed);
    (found, model.engine().stats().since(&before).num_output_tokens)
}

#[test]
fn a_stop_string_cuts_at_the_same_token_however_far_the_engine_has_gone_on() {
    let mut model = load(&fixture_model("llama"), engine_options());
    let (whole, _) = stopped(&mut model, &[], 0);
    let stops = ["a", "e", "i", "o", "n", "r", "s", "t", " ", "1"];
    let (prompt, num_prompt) = stopped(&mut model, &stops, 0);
    let (late, num_late) = stopped(&mut model, &stops, 40);
    assert!(num_late > num_prompt, "the engine was to be ahead: {num_late} tokens, {num_prompt} without delay");
    assert_eq!(late, prompt);
    let mut num_cut = 0;
    for (key, answer) in &late {
        let (Ok(cut), Ok(whole)) = (&answer.result, &whole[key].result) else { continue };
        // What a reader that is never late does: the first token that completes a stop string is the last.
        let mut reader = AnswerReader::new(model.tokenizer(), None);
        let mut matcher = StopMatcher::new(&stops.map(str::to_owned));
        let mut is_cut = |token| reader.push(token).unwrap().is_some_and(|piece| matcher.push(&piece).is_some());
        let wanted = whole.tokens.iter().position(|chosen| is_cut(chosen.token)).map_or(60, |at| at + 1);
        assert_eq!(cut.tokens[..], whole.tokens[..wanted], "{key:?}");
        assert!(
            whole.text.starts_with(&cut.text) && (wanted == 60 || !stops.iter().any(|stop| cut.text.contains(stop)))
        );
        num_cut += usize::from(wanted < 60);
    }
    assert!(num_cut > 8, "{num_cut}");
}

#[test]
fn an_error_in_storing_ends_the_run_and_the_engine_is_idle() {
    let mut model = load(&fixture_model("llama"), engine_options());
    let mut num_stored = 0;
    let done = |_: Answer| match num_stored {
        3 => Err(GenerateError::Store("the disk is full".into())),
        _ => {
            num_stored += 1;
            Ok(())
        }
    };
    let error = generate(&mut model, requests(), &options(20), &mut Patient::default(), done).unwrap_err();
    assert_eq!((error.to_string().as_str(), num_stored), ("the disk is full", 3));
    assert_eq!(model.engine().num_sequences(), 0);
}

#[test]
fn a_dialogue_without_a_template_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture_model("llama").join(file), folder.path().join(file)).unwrap();
    }
    let mut model = load(folder.path(), engine_options());
    let mut mixed = requests();
    let tokens = PromptInput::TokenIds(vec![1, 2, 3]);
    mixed.insert(0, PromptRequest { id: "tokens".to_owned(), input: tokens });
    let error = generate(&mut model, mixed, &options(20), &mut Patient::default(), |_| Ok(())).unwrap_err();
    assert!(matches!(&error, GenerateError::Prompt(PromptError::NoTemplate { .. })), "{error}");
    assert_eq!(model.engine().num_free_blocks(), model.engine().stats().num_blocks);
}

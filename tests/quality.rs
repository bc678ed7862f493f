//! Checks of texts: planted defects are found and clean answers are left alone; profiles are checked; any string is fine.
//! Knows the public functions of `quality`; times nothing.

#[path = "quality/identify.rs"]
mod identify;
#[path = "quality/planted.rs"]
mod planted;
#[path = "quality/strings.rs"]
mod strings;

use pairwright::data::PromptRecord;
use pairwright::generate::{Candidate, CandidateSource, FinishReason};

/// Paragraphs of a language of `fixtures/udhr`.
pub fn paragraphs(code: &str) -> Vec<String> {
    let path = format!("{}/tests/fixtures/udhr/{code}.txt", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// A row in a language.
pub fn record(id: &str, prompt: &str, human: &str, code: &str) -> PromptRecord {
    PromptRecord {
        id: id.to_owned(),
        row_index: 0,
        prompt: prompt.to_owned(),
        response: Some(human.to_owned()),
        language: String::new(),
        language_code: code.to_owned(),
        annotation_type: None,
        user_id: None,
    }
}

/// An answer.
pub fn answer(id: &str, model: &str, text: &str, finish_reason: FinishReason) -> Candidate {
    let human = model == "human";
    Candidate {
        record_id: id.to_owned(),
        sample_index: 0,
        source: if human { CandidateSource::Human } else { CandidateSource::Model },
        model: model.to_owned(),
        text: text.to_owned(),
        thinking: None,
        token_ids: Vec::new(),
        num_prompt_tokens: 0,
        finish_reason: (!human).then_some(finish_reason),
        logprob: None,
    }
}

//! Which rows are shown in full, and how much of them: drawn by the seed, closest ratings, and whatever is odd.
//! Knows judged prompts; knows nothing of pages.

use std::collections::BTreeMap;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::words::drop_in_words;
use crate::data::language::card_code;
use crate::dataset::{DropReason, JudgedPrompt, PairOutcome, PairRow, PairingOptions, RatedAnswer, source_name};
use crate::generate::FinishReason;

const NUM_RANDOM: usize = 8;
const NUM_CONTESTED: usize = 5;
const NUM_FLAGGED: usize = 8;
const MAX_PROMPT_CHARACTERS: usize = 600;
const MAX_ANSWER_CHARACTERS: usize = 1200;
/// Answers shown of a prompt without a pair.
const MAX_ANSWERS: usize = 4;

/// Rows that were chosen for one reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExampleGroup {
    /// `random`, `contested` or `flagged`.
    pub kind: &'static str,
    /// Of how many rows these were chosen.
    pub num_rows: u64,
    /// The rows.
    pub examples: Vec<Example>,
}

/// A prompt with its answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    /// The record.
    pub id: String,
    /// As the source has it.
    pub language: String,
    /// Its code for browsers, if it is known.
    pub language_tag: Option<String>,
    /// The prompt.
    pub prompt: Excerpt,
    /// Chosen and rejected answer, or what there is.
    pub answers: Vec<ExampleAnswer>,
    /// `pair`, or the reason why it is none.
    pub outcome: String,
    /// Difference of best and worst rating, if there is one.
    pub difference: Option<f64>,
    /// What is odd about it, in words.
    pub flags: Vec<String>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExampleAnswer {
    /// `chosen`, `rejected`, or empty where there is no pair.
    pub role: &'static str,
    /// `human` or `model`.
    pub source: &'static str,
    /// As the columns have it.
    pub model: String,
    /// Mean over the judges, 1..=5.
    pub rating: Option<f64>,
    /// Its text.
    pub text: Excerpt,
}

/// The beginning of a text, or all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// As it is, byte for byte.
    pub text: String,
    /// Characters (Unicode scalar values) of the whole.
    pub num_characters: u64,
    /// There is more of it.
    pub is_cut: bool,
}

impl Excerpt {
    /// The first characters of a text; if white space is near, up to there.
    pub fn of(text: &str, max_characters: usize) -> Self {
        let num_characters = text.chars().count();
        let mut shown: String = text.chars().take(max_characters).collect();
        let is_cut = num_characters > max_characters;
        if is_cut
            && let Some((head, tail)) = shown.rsplit_once(char::is_whitespace)
            && tail.chars().count() < 40
            && !head.trim().is_empty()
        {
            shown = head.to_owned();
        }
        Self { text: shown, num_characters: num_characters as u64, is_cut }
    }
}

/// A number for a record that depends on its id and the run's seed alone.
pub fn draw(id: &str, seed: u64) -> u64 {
    xxh3_64_with_seed(id.as_bytes(), seed)
}

/// The groups that have rows, each row in one of them only.
pub fn choose_examples(prompts: &[JudgedPrompt<'_>], seed: u64) -> Vec<ExampleGroup> {
    let mut drawn: Vec<(u64, &JudgedPrompt<'_>)> = prompts.iter().map(|p| (draw(&p.record.id, seed), p)).collect();
    drawn.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.record.row_index.cmp(&b.1.record.row_index)));
    let drawn: Vec<&JudgedPrompt<'_>> = drawn.into_iter().map(|(_, prompt)| prompt).collect();
    let pairs = drawn.iter().copied().filter(|prompt| prompt.outcome.pair().is_some()).collect();
    let mut close: Vec<&JudgedPrompt<'_>> = drawn.iter().copied().filter(|p| p.difference.is_some()).collect();
    close.sort_by(|a, b| a.difference.unwrap_or(0.0).total_cmp(&b.difference.unwrap_or(0.0)));
    let odd = in_turn(drawn.iter().copied().filter_map(|prompt| Some((flags(prompt).into_iter().next()?, prompt))));
    let mut taken: Vec<&JudgedPrompt<'_>> = Vec::new();
    let mut groups = Vec::new();
    for (kind, rows, most) in
        [("random", pairs, NUM_RANDOM), ("contested", close, NUM_CONTESTED), ("flagged", odd, NUM_FLAGGED)]
    {
        let is_new = |prompt: &&&JudgedPrompt<'_>| !taken.iter().any(|other| std::ptr::eq(*other, **prompt));
        let chosen: Vec<&JudgedPrompt<'_>> = rows.iter().filter(is_new).take(most).copied().collect();
        if !chosen.is_empty() {
            let examples = chosen.iter().map(|prompt| example(prompt)).collect();
            groups.push(ExampleGroup { kind, num_rows: rows.len() as u64, examples });
        }
        taken.extend(chosen);
    }
    groups
}

/// One row of each kind, then the next of each, so that a frequent kind does not crowd out the others.
fn in_turn<'p>(rows: impl Iterator<Item = (String, &'p JudgedPrompt<'p>)>) -> Vec<&'p JudgedPrompt<'p>> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut placed: Vec<(usize, String, &JudgedPrompt<'_>)> = Vec::new();
    for (kind, prompt) in rows {
        let turn = seen.entry(kind.clone()).or_default();
        placed.push((*turn, kind, prompt));
        *turn += 1;
    }
    placed.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    placed.into_iter().map(|(_, _, prompt)| prompt).collect()
}

/// What is odd about a row: first why it is no pair, unless its answers are only too close.
fn flags(prompt: &JudgedPrompt<'_>) -> Vec<String> {
    let mut found = Vec::new();
    match &prompt.outcome {
        PairOutcome::Pairs(_) | PairOutcome::Dropped(DropReason::Tie) => {}
        PairOutcome::Dropped(reason) => {
            let meaning = drop_in_words(reason.as_str(), &PairingOptions::default());
            found.push(if meaning.is_empty() { reason.as_str().to_owned() } else { meaning });
        }
    }
    let any = |is_so: fn(&RatedAnswer<'_>) -> bool| prompt.answers.iter().any(is_so);
    let is_told = matches!(prompt.outcome, PairOutcome::Dropped(DropReason::UnreliableVerdict));
    if any(|answer| !answer.reliable) && !is_told {
        found.push("a verdict is unreliable".to_owned());
    }
    if any(|answer| answer.candidate.finish_reason == Some(FinishReason::Length)) {
        found.push("an answer was cut at the token limit".to_owned());
    }
    found
}

fn example(prompt: &JudgedPrompt<'_>) -> Example {
    let answer = |role, rated: &RatedAnswer<'_>| ExampleAnswer {
        role,
        source: source_name(rated.candidate.source),
        model: rated.candidate.model.clone(),
        rating: rated.rating.filter(|rating| rating.is_finite()),
        text: Excerpt::of(&rated.candidate.text, MAX_ANSWER_CHARACTERS),
    };
    let answers = match PairRow::all(prompt).next() {
        Some(pair) => vec![answer("chosen", pair.chosen), answer("rejected", pair.rejected)],
        None => prompt.answers.iter().take(MAX_ANSWERS).map(|rated| answer("", rated)).collect(),
    };
    let record = prompt.record;
    Example {
        id: record.id.clone(),
        language: record.language.clone(),
        language_tag: card_code(&record.language, &record.language_code),
        prompt: Excerpt::of(&record.prompt, MAX_PROMPT_CHARACTERS),
        answers,
        outcome: prompt.outcome.as_str().to_owned(),
        difference: prompt.difference,
        flags: flags(prompt),
    }
}

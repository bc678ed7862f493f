//! Refusals and boilerplate, mined: openings that one model gives to many different prompts, by their counts and in no language's words.
//! Knows the answers of a run; deliberately does not know what an opening means.
//!
//! Answers are grouped by model and language; human ones of the language are the baseline. An opening is the first tokens of the folded
//! answer, with a weight of 8, 12, 16 or 24 (a word weighs 2; in scripts without spaces each character weighs 1). It is common if at
//! least 5 answers to different prompts and 2 % of the group have it, and at least four times the share of the human answers:
//! "once upon a time" is no boilerplate where people begin so too.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::text::folded;
use crate::data::language::is_unspaced;

const WEIGHTS: [usize; 4] = [8, 12, 16, 24];
const MIN_COUNT: u64 = 5;
const MIN_SHARE: f64 = 0.02;
const MIN_LIFT: f64 = 4.0;
/// Openings of a group that are shown to people.
const NUM_SHOWN: usize = 20;

/// An answer, as far as openings go.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// Who wrote it.
    pub model: &'a str,
    /// Whether a person did.
    pub is_human: bool,
    /// The language's code or name.
    pub language: &'a str,
    /// The prompt's id.
    pub prompt: &'a str,
    /// The answer.
    pub text: &'a str,
}

/// An opening that many answers of one model share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommonOpening {
    /// The model.
    pub model: String,
    /// The language.
    pub language: String,
    /// Folded: lower case, without punctuation.
    pub text: String,
    /// Answers to different prompts that begin so.
    pub num_answers: u64,
    /// Answers of that model in that language.
    pub num_of_model: u64,
}

/// The openings of a text, short to long; those longer than the text are left out.
fn openings(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut weight = 0;
    let mut opening = String::new();
    let characters = folded(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default());
    for (at, &character) in characters.iter().enumerate() {
        opening.push(character);
        let ends_word = characters.get(at + 1).is_none_or(|next| *next == ' ');
        weight += if is_unspaced(character) { 1 } else { 2 * usize::from(ends_word && character != ' ') };
        if WEIGHTS.contains(&weight) && (ends_word || is_unspaced(character)) && found.last() != Some(&opening) {
            found.push(opening.clone());
        }
        if weight >= WEIGHTS[WEIGHTS.len() - 1] {
            break;
        }
    }
    found
}

/// Finds common openings: the ones to show, most frequent first, and for each answer whether it has one.
pub fn mine(answers: &[Opening<'_>]) -> (Vec<CommonOpening>, Vec<bool>) {
    type Group<'a> = (&'a str, &'a str);
    let own: Vec<Vec<String>> = answers.iter().map(|answer| openings(answer.text)).collect();
    let mut prompts: BTreeMap<Group<'_>, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    let mut sizes: HashMap<Group<'_>, BTreeSet<&str>> = HashMap::new();
    let mut human: HashMap<(&str, &str), u64> = HashMap::new();
    let mut num_human: HashMap<&str, u64> = HashMap::new();
    for (answer, own) in answers.iter().zip(&own) {
        if answer.is_human {
            *num_human.entry(answer.language).or_default() += 1;
            own.iter().for_each(|opening| *human.entry((answer.language, opening)).or_default() += 1);
            continue;
        }
        let group = (answer.model, answer.language);
        sizes.entry(group).or_default().insert(answer.prompt);
        let counts = prompts.entry(group).or_default();
        own.iter().for_each(|opening| _ = counts.entry(opening).or_default().insert(answer.prompt));
    }
    let is_common = |(model, language): Group<'_>, opening: &str, number: u64| {
        let size = sizes.get(&(model, language)).map_or(1, BTreeSet::len) as f64;
        let base = human.get(&(language, opening)).copied().unwrap_or(0) as f64
            / num_human.get(language).copied().unwrap_or(0).max(1) as f64;
        number >= MIN_COUNT && number as f64 >= MIN_SHARE * size && number as f64 / size >= MIN_LIFT * base
    };
    let count = |group: &Group<'_>, opening: &str| {
        prompts.get(group).and_then(|counts| counts.get(opening)).map_or(0, |prompts| prompts.len() as u64)
    };
    let flags = answers.iter().zip(&own).map(|(answer, own)| {
        let group = (answer.model, answer.language);
        !answer.is_human && own.iter().any(|opening| is_common(group, opening, count(&group, opening)))
    });
    let flags: Vec<bool> = flags.collect();
    let mut shown = Vec::new();
    for (&(model, language), counts) in &prompts {
        let common: Vec<(&str, u64)> = counts
            .iter()
            .map(|(opening, prompts)| (*opening, prompts.len() as u64))
            .filter(|(opening, number)| is_common((model, language), opening, *number))
            .collect();
        // Of openings that go on alike, the longest that as many answers have.
        let is_part = |opening: &str, number: u64| {
            common.iter().any(|(other, of_other)| {
                *of_other == number && other.len() > opening.len() && other.starts_with(opening)
            })
        };
        let mut maximal: Vec<(&str, u64)> =
            common.iter().copied().filter(|(opening, number)| !is_part(opening, *number)).collect();
        maximal.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        shown.extend(maximal.into_iter().take(NUM_SHOWN).map(|(opening, number)| CommonOpening {
            model: model.to_owned(),
            language: language.to_owned(),
            text: opening.to_owned(),
            num_answers: number,
            num_of_model: sizes.get(&(model, language)).map_or(0, |prompts| prompts.len() as u64),
        }));
    }
    (shown, flags)
}

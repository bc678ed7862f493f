//! What is shown to people: prompts of a run with two answers or more, known by their content, with all that judges said of them, which
//! nobody sees before voting. Knows judged prompts; knows nothing of votes, queues or pages.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::vote::{item_id, text_hash};
use crate::data::language::card_code;
use crate::dataset::{
    DatasetInput, DatasetOptions, DropReason, JudgedPrompt, PairOutcome, RatedAnswer, is_blank, judge_records,
    judged_human_answers,
};
use crate::generate::CandidateSource;

/// Answers of one item at most: nobody ranks more with care.
pub const MAX_ANSWERS: usize = 6;
/// One planted item in so many ordinary ones.
const ITEMS_PER_GOLD: usize = 20;

/// Which answers of a prompt are shown together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerChoice {
    /// The two of its pair; without one the best and the worst rated.
    #[default]
    Pair,
    /// All of them, up to [`MAX_ANSWERS`], the best rated first to be kept.
    All,
}

/// One answer of an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemAnswer {
    /// [`text_hash`] of its text.
    pub hash: String,
    /// As it is, byte for byte.
    pub text: String,
    /// Who wrote it.
    pub source: CandidateSource,
    /// Model name, or `human`.
    pub model: String,
    /// Mean over the judges by their weights, 1.0..=5.0.
    pub rating: Option<f64>,
    /// Mean over the judges of each aspect, in the rubric's order.
    pub aspects: Vec<(String, f64)>,
}

/// A prompt and two or more different answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// See [`item_id`].
    pub id: String,
    /// [`crate::data::PromptRecord::id`].
    pub prompt_id: String,
    /// The prompt.
    pub prompt: String,
    /// As the source spells it.
    pub language: String,
    /// Its code for browsers and the Hub, if it is known.
    pub language_tag: Option<String>,
    /// Of different text, in the order of their hashes.
    pub answers: Vec<ItemAnswer>,
    /// Of a planted item: the hash of the right answer.
    pub gold: Option<String>,
}

/// All items of a run, and what has none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Items {
    /// In the order of the rows; no two with one id.
    pub items: Vec<Item>,
    /// Planted ones: an answer of the prompt's own beside one of another prompt.
    pub gold: Vec<Item>,
    /// Rows of the run.
    pub num_rows: u64,
    /// Rows without an item, by reason. Always `num_rows == items.len() + sum of these`.
    pub left_out: BTreeMap<&'static str, u64>,
}

impl Item {
    /// The answer with this hash.
    pub fn answer(&self, hash: &str) -> Option<&ItemAnswer> {
        self.answers.iter().find(|answer| answer.hash == hash)
    }

    /// Rating of the best rated answer minus that of the next: how sure the judge is. `None` unless two are rated.
    pub fn judge_margin(&self) -> Option<f64> {
        let mut ratings: Vec<f64> = self.answers.iter().filter_map(|answer| answer.rating).collect();
        ratings.sort_by(|a, b| b.total_cmp(a));
        Some(ratings.first()? - ratings.get(1)?)
    }

    /// The answer that the judge rates highest; `None` unless one stands alone.
    pub fn judge_choice(&self) -> Option<&ItemAnswer> {
        let best = self.answers.iter().max_by(|a, b| rank(a).total_cmp(&rank(b)))?;
        self.judge_margin().filter(|margin| *margin > 0.0).map(|_| best)
    }
}

fn rank(answer: &ItemAnswer) -> f64 {
    answer.rating.unwrap_or(f64::NEG_INFINITY)
}

impl Items {
    /// The items of a run. `seed` says which planted ones there are.
    pub fn of(input: &DatasetInput<'_>, options: &DatasetOptions, choice: AnswerChoice, seed: u64) -> Self {
        let human_answers = judged_human_answers(input);
        let prompts = judge_records(input, &human_answers, &options.pairing);
        let mut found = Self { num_rows: prompts.len() as u64, ..Self::default() };
        let mut seen = HashSet::new();
        for prompt in &prompts {
            let item = item_of(prompt, choice).and_then(|item| match seen.insert(item.id.clone()) {
                true => Ok(item),
                false => Err("same_item"),
            });
            match item {
                Ok(item) => found.items.push(item),
                Err(reason) => *found.left_out.entry(reason).or_default() += 1,
            }
        }
        found.gold = gold(&found.items, seed);
        found
    }

    /// The item, planted or not, with an id.
    pub fn get(&self, id: &str) -> Option<&Item> {
        self.items.iter().chain(&self.gold).find(|item| item.id == id)
    }
}

/// The item of a prompt, or why there is none.
fn item_of(prompt: &JudgedPrompt<'_>, choice: AnswerChoice) -> Result<Item, &'static str> {
    match &prompt.outcome {
        PairOutcome::Dropped(DropReason::DuplicatePrompt) => return Err("duplicate_prompt"),
        PairOutcome::Dropped(DropReason::ConflictingAnswers) => return Err("conflicting_answers"),
        PairOutcome::Dropped(DropReason::EmptyPrompt) => return Err("empty_prompt"),
        _ => {}
    }
    let mut usable: Vec<ItemAnswer> = Vec::new();
    let mut all: Vec<&RatedAnswer<'_>> = prompt.answers.iter().filter(|a| !is_blank(&a.candidate.text)).collect();
    let rating = |answer: &RatedAnswer<'_>| answer.rating.filter(|rating| rating.is_finite());
    // The best first; the sort is stable, so equal ones stay in their fixed order.
    all.sort_by(|a, b| {
        let [a, b] = [a, b].map(|answer| rating(answer).unwrap_or(f64::NEG_INFINITY));
        b.total_cmp(&a)
    });
    let pair = prompt.outcome.pair().filter(|_| choice == AnswerChoice::Pair);
    if let Some(pair) = pair {
        let two = [pair.chosen_index, pair.rejected_index].map(|index| prompt.answers.get(index));
        all = two.into_iter().flatten().collect();
    }
    for answer in all {
        let own = answer_of(answer, rating(answer));
        if !usable.iter().any(|other| other.hash == own.hash) {
            usable.push(own);
        }
    }
    match (choice, usable.len()) {
        (_, 0 | 1) => return Err("fewer_than_two_different_answers"),
        (AnswerChoice::All, _) => usable.truncate(MAX_ANSWERS),
        (AnswerChoice::Pair, num_answers) => drop(usable.drain(1..num_answers - 1)),
    }
    let record = prompt.record;
    Ok(item(&record.id, &record.prompt, &record.language, card_code(&record.language, &record.language_code), usable))
}

fn item(prompt_id: &str, prompt: &str, language: &str, tag: Option<String>, mut answers: Vec<ItemAnswer>) -> Item {
    answers.sort_by(|a, b| a.hash.cmp(&b.hash));
    Item {
        id: item_id(prompt_id, answers.iter().map(|answer| answer.hash.as_str())),
        prompt_id: prompt_id.to_owned(),
        prompt: prompt.to_owned(),
        language: language.to_owned(),
        language_tag: tag,
        answers,
        gold: None,
    }
}

fn answer_of(answer: &RatedAnswer<'_>, rating: Option<f64>) -> ItemAnswer {
    let mut aspects: Vec<(String, Vec<f64>)> = Vec::new();
    for score in answer.verdicts.iter().flat_map(|verdict| &verdict.aspects) {
        match aspects.iter_mut().find(|(name, _)| *name == score.aspect) {
            Some((_, means)) => means.push(score.mean),
            None => aspects.push((score.aspect.clone(), vec![score.mean])),
        }
    }
    let mean = |means: Vec<f64>| means.iter().sum::<f64>() / means.len() as f64;
    ItemAnswer {
        hash: text_hash(&answer.candidate.text),
        text: answer.candidate.text.clone(),
        source: answer.candidate.source,
        model: answer.candidate.model.clone(),
        rating,
        aspects: aspects.into_iter().map(|(name, means)| (name, mean(means))).collect(),
    }
}

/// One planted item for every twenty, at least one where there can be any: a prompt, its human or else best rated answer, and an answer to
/// another prompt in the same language. Which prompts depends on the seed and on their ids.
fn gold(items: &[Item], seed: u64) -> Vec<Item> {
    let draw = |item: &&Item| (xxh3_64_with_seed(item.id.as_bytes(), seed), item.id.clone());
    let mut drawn: Vec<&Item> = items.iter().collect();
    drawn.sort_by_key(draw);
    let wanted = items.len().div_ceil(ITEMS_PER_GOLD);
    let own = |item: &Item| {
        let human = item.answers.iter().find(|answer| answer.source == CandidateSource::Human);
        human.or_else(|| item.judge_choice()).cloned()
    };
    let mut planted = Vec::new();
    for (at, target) in drawn.iter().enumerate() {
        let others = drawn.iter().cycle().skip(at + 1).take(drawn.len() - 1);
        let mut foreign =
            others.filter(|other| other.language == target.language && other.prompt_id != target.prompt_id);
        let (Some(right), Some(wrong)) = (own(target), foreign.find_map(|other| own(other))) else { continue };
        if target.answers.iter().any(|answer| answer.hash == wrong.hash) {
            continue;
        }
        let hash = right.hash.clone();
        let answers = vec![right, wrong];
        let mut made = item(&target.prompt_id, &target.prompt, &target.language, target.language_tag.clone(), answers);
        made.gold = Some(hash);
        planted.push(made);
        if planted.len() == wanted {
            break;
        }
    }
    planted
}

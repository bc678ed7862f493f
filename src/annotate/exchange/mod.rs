//! Other annotation tools: a run's items as theirs, and their answers as votes. Argilla's files are in `argilla.rs`, Label Studio's in
//! `label_studio.rs`; what both have in common is here. Knows items and votes; opens no connection.
//!
//! A record holds prompt and answers as text, and from these alone follows which item it is: what comes back under changed texts is found.

pub mod argilla;
pub mod label_studio;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use thiserror::Error;

use super::items::{Item, ItemAnswer, MAX_ANSWERS};
use super::label::is_for_dataset;
use super::store::StoredVote;
use super::vote::{Action, Choice, CurrentVote, Flag, ItemKind, Via, Vote, current_votes, item_id, text_hash};

/// Names of the fields and questions in both tools.
pub(super) mod name {
    use crate::annotate::items::MAX_ANSWERS;

    pub(in crate::annotate) const PROMPT: &str = "prompt";
    pub(in crate::annotate) const ANSWERS: [&str; MAX_ANSWERS] =
        ["answer_a", "answer_b", "answer_c", "answer_d", "answer_e", "answer_f"];
    pub(in crate::annotate) const PREFERENCE: &str = "preference";
    pub(in crate::annotate) const RANKING: &str = "ranking";
    pub(in crate::annotate) const RATINGS: [&str; MAX_ANSWERS] =
        ["rating_a", "rating_b", "rating_c", "rating_d", "rating_e", "rating_f"];
    pub(in crate::annotate) const FLAG: &str = "flag";
    pub(in crate::annotate) const EDIT: &str = "edit";
}

/// Values of the preference with their texts.
const PREFERENCES: [(&str, &str); 4] =
    [("a", "A is better"), ("b", "B is better"), ("tie", "Same"), ("both_bad", "Both bad")];
/// What answers are called in values: the first is A.
const LETTERS: [&str; MAX_ANSWERS] = ["a", "b", "c", "d", "e", "f"];
/// Texts of the flags, in the order of [`Flag::ALL`].
const FLAG_TEXTS: [&str; 4] = ["Wrong language", "Offensive", "Broken", "Something else"];
/// What annotators are told.
const GUIDELINES: &str = "Read the prompt and both answers. Say which answer is better for somebody who reads this language, whatever its \
                          length. Flag what nobody should read.";

/// Why nothing was written or read.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// A file or folder.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {what}\nhint: {hint}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Got and expected.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// Writing.
    #[error(transparent)]
    Provenance(#[from] crate::provenance::ProvenanceError),
}

/// Who is who in the other tool: pseudonym here, the user's id there.
pub type Users = BTreeMap<String, String>;

/// What is handed to another tool.
#[derive(Debug, Clone, Default)]
pub struct Handover {
    /// What the judge thinks is suggested; without it people vote blind.
    pub with_suggestions: bool,
    /// Responses that a record wants.
    pub min_votes: u64,
    /// The people whose votes go along; the others' stay here.
    pub users: Users,
}

/// An item's answers in the order in which they are shown, which its content decides: nobody has to remember it.
pub(super) fn sides(item: &Item) -> Vec<&ItemAnswer> {
    let mut sides: Vec<&ItemAnswer> = item.answers.iter().collect();
    if item.id.bytes().fold(0u8, |odd, byte| odd ^ byte) & 1 == 1 {
        sides.reverse();
    }
    sides
}

/// The judge's suggestion for two answers shown so: a value of the preference, and how sure it is, 0 to 1: the difference of the ratings
/// over the largest that there can be.
pub(super) fn suggestion(sides: &[&ItemAnswer]) -> Option<(&'static str, f64)> {
    let [a, b] = sides else { return None };
    let [a, b] = [a.rating?, b.rating?];
    let value = match a.total_cmp(&b) {
        std::cmp::Ordering::Greater => "a",
        std::cmp::Ordering::Less => "b",
        std::cmp::Ordering::Equal => "tie",
    };
    Some((value, ((a - b).abs() / crate::dataset::MAX_MARGIN).clamp(0.0, 1.0)))
}

/// Votes on an item by people who have a user there, as answers to the questions. Those that the questions cannot hold (skips) are left
/// out.
pub(super) fn answers_of<'u>(
    item: &Item,
    sides: &[&ItemAnswer],
    votes: &[&CurrentVote<'_>],
    users: &'u Users,
) -> Vec<(&'u str, Answers)> {
    let answers = |vote: &&&CurrentVote<'_>| {
        let user = users.get(&vote.vote.annotator)?;
        let is_side = |hash: &String| sides.iter().any(|side| side.hash == *hash);
        let first = |hash: &String| sides.iter().map(|side| if side.hash == *hash { 1 } else { 2 }).collect();
        let mut found = Answers::default();
        match vote.choice {
            Choice::Better { answer } if is_side(answer) => found.ranks = Some(first(answer)),
            Choice::Edit { answer, text } if is_side(answer) => {
                found.ranks = Some(first(answer));
                found.edit = Some(text.clone());
            }
            Choice::Same => found.ranks = Some(vec![1; sides.len()]),
            Choice::BothBad => found.is_all_bad = true,
            Choice::Flag { flag, .. } => found.flag = Some(flag.as_str().to_owned()),
            Choice::Ranking { groups } => {
                let rank = |side: &&ItemAnswer| {
                    groups.iter().position(|group| group.contains(&side.hash)).map(|at| at as i64 + 1)
                };
                found.ranks = Some(sides.iter().map(rank).collect::<Option<_>>()?);
            }
            Choice::Skip | Choice::Better { .. } | Choice::Edit { .. } => return None,
        }
        let rating = |side: &&ItemAnswer| {
            let at = vote.vote.shown.iter().position(|hash| *hash == side.hash)?;
            vote.ratings.get(at).copied().flatten().map(i64::from)
        };
        found.ratings = sides.iter().map(rating).collect();
        Some((user.as_str(), found))
    };
    votes
        .iter()
        .filter(|vote| vote.vote.item == item.id && is_for_dataset(vote))
        .filter_map(|vote| answers(&vote))
        .collect()
}

/// What somebody answered in the other tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// The place of each answer, A first: 1 is the best, and equal ones are equally good. What a preference says is a ranking of two.
    pub ranks: Option<Vec<i64>>,
    /// None of them is good enough.
    pub is_all_bad: bool,
    /// A value of the preference that is none.
    pub is_unknown: bool,
    /// A ranking that names answers and no places.
    pub is_without_ranks: bool,
    /// A name of a [`Flag`].
    pub flag: Option<String>,
    /// A better text.
    pub edit: Option<String>,
    /// Of each answer, A first, 1 to 5; empty if there are none.
    pub ratings: Vec<Option<i64>>,
}

impl Answers {
    /// The value of the preference between two answers.
    pub(super) fn preference(&self) -> Option<&'static str> {
        match self.ranks.as_deref() {
            _ if self.is_all_bad => Some("both_bad"),
            Some([a, b]) => Some(match a.cmp(b) {
                std::cmp::Ordering::Less => "a",
                std::cmp::Ordering::Greater => "b",
                std::cmp::Ordering::Equal => "tie",
            }),
            _ => None,
        }
    }

    /// Takes a value of the preference.
    pub(super) fn set_preference(&mut self, value: Option<&str>) {
        match value {
            Some("a") => self.ranks = Some(vec![1, 2]),
            Some("b") => self.ranks = Some(vec![2, 1]),
            Some("tie") => self.ranks = Some(vec![1, 1]),
            Some("both_bad") => self.is_all_bad = true,
            Some(_) => self.is_unknown = true,
            None => {}
        }
    }

    /// Takes the rating that a question asks for; another question is none of ours.
    pub(super) fn set_rating(&mut self, question: &str, value: Option<i64>) {
        let Some(at) = name::RATINGS.iter().position(|name| *name == question) else { return };
        if self.ratings.len() <= at {
            self.ratings.resize(at + 1, None);
        }
        self.ratings[at] = value;
    }
}

/// One person's response to one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The record's own name, which should be the item's id; empty if it has none.
    pub record: String,
    /// The user, as the other tool has them.
    pub user: String,
    /// The prompt's text as it came back.
    pub prompt: String,
    /// The answers' texts as they came back, A first; two or more.
    pub texts: Vec<String>,
    /// What was said.
    pub answers: Answers,
}

/// What a file of another tool says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Responses {
    /// All that were submitted.
    pub responses: Vec<Response>,
    /// Those that were not taken, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
}

impl Responses {
    fn leave_out(&mut self, reason: &'static str) {
        *self.left_out.entry(reason).or_default() += 1;
    }
}

/// Votes that responses became.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// To be appended, in their order.
    pub votes: Vec<Vote>,
    /// Responses that were votes already.
    pub num_known: u64,
    /// Responses that became none, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// Responses as votes. The same response of the same person counts once, however often it comes; a changed one takes the place of the one
/// before, unless an export sealed that. `prompts` are the ids of the run's prompts, `sealed` is the last sealed event, `at` is now.
pub fn to_votes(
    found: Responses,
    events: &[StoredVote],
    prompts: &HashSet<&str>,
    users: &Users,
    (sealed, at): (i64, i64),
) -> Imported {
    let mut imported = Imported { left_out: found.left_out, ..Imported::default() };
    let past: Vec<Vote> = events.iter().map(|stored| stored.vote.clone()).collect();
    let sequences: HashMap<&str, i64> =
        events.iter().map(|stored| (stored.vote.id.as_str(), stored.sequence)).collect();
    let mut current: HashMap<(String, String), Said> = HashMap::new();
    for vote in current_votes(&past).into_iter().filter(|vote| vote.vote.kind != ItemKind::Repeat) {
        let key = (vote.vote.annotator.clone(), vote.vote.item.clone());
        current.insert(key, (vote.vote.id.clone(), plain(vote.choice.clone()), rated(&vote.vote.shown, vote.ratings)));
    }
    let pseudonyms: HashMap<&str, &str> = users.iter().map(|(name, user)| (user.as_str(), name.as_str())).collect();
    for response in found.responses {
        let outcome = vote_of(&response, prompts, &pseudonyms).and_then(|mut vote| {
            let Action::Cast { choice, ratings, supersedes } = &mut vote.action else { return Err("no_answer") };
            let key = (vote.annotator.clone(), vote.item.clone());
            let before = current.get(&key);
            if before.is_some_and(|(_, said, rated)| said == choice && *rated == self::rated(&vote.shown, ratings)) {
                return Ok(None);
            }
            if before.is_some_and(|(id, ..)| sequences.get(id.as_str()).is_some_and(|sequence| *sequence <= sealed)) {
                return Err("vote_is_sealed");
            }
            *supersedes = before.map(|(id, ..)| id.clone());
            let said = serde_json::to_string(&vote.action).map_err(|_| "no_answer")?;
            let identity = ["pairwright import 1", &vote.annotator, &vote.item, &said].join("\n");
            vote.id = text_hash(&identity).chars().take(32).collect();
            vote.at = at;
            vote.check().map_err(|error| error.field)?;
            Ok(Some((key, vote)))
        });
        match outcome {
            Ok(Some((key, vote))) => {
                if let Action::Cast { choice, ratings, .. } = &vote.action {
                    current.insert(key, (vote.id.clone(), choice.clone(), rated(&vote.shown, ratings)));
                }
                imported.votes.push(vote);
            }
            Ok(None) => imported.num_known += 1,
            Err(reason) => *imported.left_out.entry(reason).or_default() += 1,
        }
    }
    imported
}

/// The same whatever the order within a group, and of two answers whether they were ranked or one was preferred.
fn plain(choice: Choice) -> Choice {
    let Choice::Ranking { mut groups } = choice else { return choice };
    groups.iter_mut().for_each(|group| group.sort());
    match groups.as_slice() {
        [best, worst] if best.len() + worst.len() == 2 => Choice::Better { answer: best.concat() },
        [both] if both.len() == 2 => Choice::Same,
        _ => Choice::Ranking { groups },
    }
}

/// A vote's id, what it says and its ratings by answer.
type Said = (String, Choice, BTreeMap<String, u8>);

/// Ratings by the answer's hash: sides differ from tool to tool, and no ratings at all may be written in two ways.
fn rated(shown: &[String], ratings: &[Option<u8>]) -> BTreeMap<String, u8> {
    shown.iter().zip(ratings).filter_map(|(hash, rating)| Some((hash.clone(), (*rating)?))).collect()
}

/// The vote that a response is, without id and time; or why it is none.
fn vote_of(
    response: &Response,
    prompts: &HashSet<&str>,
    pseudonyms: &HashMap<&str, &str>,
) -> Result<Vote, &'static str> {
    if response.user.is_empty() {
        return Err("no_user");
    }
    let prompt = text_hash(&response.prompt);
    let shown: Vec<String> = response.texts.iter().map(|text| text_hash(text)).collect();
    let item = item_id(&prompt, shown.iter().map(String::as_str));
    if !response.record.is_empty() && response.record != item {
        return Err("texts_were_changed");
    }
    if !prompts.contains(prompt.as_str()) {
        return Err("not_of_this_run");
    }
    let annotator = match pseudonyms.get(response.user.as_str()) {
        Some(name) => (*name).to_owned(),
        // An id of another tool may name a person there.
        None => format!("import-{}", text_hash(&response.user).chars().take(12).collect::<String>()),
    };
    let answers = &response.answers;
    let groups = answers.ranks.as_ref().map(|ranks| groups(&shown, ranks)).transpose()?;
    let best =
        groups.as_ref().and_then(|groups| groups.first()).filter(|best| best.len() == 1).map(|best| best.concat());
    let flag = answers.flag.as_ref().map(|flag| Flag::ALL.into_iter().find(|known| known.as_str() == flag));
    let edit = answers.edit.as_ref().filter(|text| !text.trim().is_empty() && !shown.contains(&text_hash(text)));
    let choice = match (flag, groups, best, edit) {
        (Some(None), ..) => return Err("unknown_value"),
        (Some(Some(flag)), ..) => Choice::Flag { flag, answer: None, note: String::new() },
        _ if answers.is_all_bad => Choice::BothBad,
        _ if answers.is_unknown => return Err("unknown_value"),
        (None, _, Some(answer), Some(text)) => Choice::Edit { answer, text: text.clone() },
        (None, Some(groups), ..) => plain(Choice::Ranking { groups }),
        (None, None, ..) => return Err("no_answer"),
    };
    let mut ratings: Vec<Option<u8>> = answers.ratings.iter().map(|rating| u8::try_from((*rating)?).ok()).collect();
    ratings.resize(shown.len(), None);
    let ratings = if ratings.iter().all(Option::is_none) { Vec::new() } else { ratings };
    Ok(Vote {
        id: String::new(),
        item,
        prompt,
        shown,
        kind: ItemKind::Ordinary,
        annotator,
        at: 0,
        via: Via::Import,
        action: Action::Cast { choice, ratings, supersedes: None },
    })
}

/// Answers by their places; an answer without one makes it none.
fn groups(shown: &[String], ranks: &[i64]) -> Result<Vec<Vec<String>>, &'static str> {
    if shown.len() != ranks.len() {
        return Err("ranking_of_other_answers");
    }
    let mut placed: Vec<(i64, &String)> = ranks.iter().copied().zip(shown).collect();
    placed.sort();
    let groups = placed.chunk_by(|a, b| a.0 == b.0);
    Ok(groups.map(|group| group.iter().map(|(_, hash)| (*hash).clone()).collect()).collect())
}

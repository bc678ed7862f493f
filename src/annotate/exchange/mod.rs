//! Other annotation tools: a run's items as theirs, and their answers as votes. Argilla's files are in `argilla.rs`, Label Studio's in
//! `label_studio.rs`; what both have in common is here. Knows items and votes; opens no connection.
//!
//! A record holds prompt and answers as text, and from these alone follows which item it is: what comes back under changed texts is found.

pub mod argilla;
pub mod label_studio;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use thiserror::Error;

use super::items::{Item, ItemAnswer};
use super::label::is_for_dataset;
use super::store::StoredVote;
use super::vote::{Action, Choice, CurrentVote, Flag, ItemKind, Via, Vote, current_votes, item_id, text_hash};

/// Names of the fields and questions in both tools.
pub(super) mod name {
    pub(in crate::annotate) const PROMPT: &str = "prompt";
    pub(in crate::annotate) const ANSWERS: [&str; 2] = ["answer_a", "answer_b"];
    pub(in crate::annotate) const PREFERENCE: &str = "preference";
    pub(in crate::annotate) const RATINGS: [&str; 2] = ["rating_a", "rating_b"];
    pub(in crate::annotate) const FLAG: &str = "flag";
    pub(in crate::annotate) const EDIT: &str = "edit";
}

/// Values of the preference with their texts.
const PREFERENCES: [(&str, &str); 4] =
    [("a", "A is better"), ("b", "B is better"), ("tie", "Same"), ("both_bad", "Both bad")];
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

/// An item of two answers with its sides, which its content decides: nobody has to remember them.
pub(super) fn sides(item: &Item) -> Option<[&ItemAnswer; 2]> {
    let [first, second] = item.answers.as_slice() else { return None };
    let is_turned = item.id.bytes().fold(0u8, |odd, byte| odd ^ byte) & 1 == 1;
    Some(if is_turned { [second, first] } else { [first, second] })
}

/// The judge's suggestion for an item shown with these sides: a value of the preference, and how sure it is, 0 to 1: the difference of the
/// ratings over the largest that there can be.
pub(super) fn suggestion(sides: [&ItemAnswer; 2]) -> Option<(&'static str, f64)> {
    let [a, b] = [sides[0].rating?, sides[1].rating?];
    let value = match a.total_cmp(&b) {
        std::cmp::Ordering::Greater => "a",
        std::cmp::Ordering::Less => "b",
        std::cmp::Ordering::Equal => "tie",
    };
    Some((value, ((a - b).abs() / crate::dataset::MAX_MARGIN).clamp(0.0, 1.0)))
}

/// Votes on an item by people who have a user there, as answers to the questions. Those that the questions cannot hold (rankings of more,
/// skips) are left out.
pub(super) fn answers_of<'u>(
    item: &Item,
    sides: [&ItemAnswer; 2],
    votes: &[&CurrentVote<'_>],
    users: &'u Users,
) -> Vec<(&'u str, Answers)> {
    let answers = |vote: &&&CurrentVote<'_>| {
        let user = users.get(&vote.vote.annotator)?;
        let place = |hash: &str| sides.iter().position(|side| side.hash == hash);
        let mut found = Answers::default();
        match vote.choice {
            Choice::Better { answer } => found.preference = Some(PREFERENCES.get(place(answer)?)?.0.to_owned()),
            Choice::Edit { answer, text } => {
                found.preference = Some(PREFERENCES.get(place(answer)?)?.0.to_owned());
                found.edit = Some(text.clone());
            }
            Choice::Same => found.preference = Some("tie".to_owned()),
            Choice::BothBad => found.preference = Some("both_bad".to_owned()),
            Choice::Flag { flag, .. } => found.flag = Some(flag.as_str().to_owned()),
            Choice::Skip | Choice::Ranking { .. } => return None,
        }
        let rating = |side: &ItemAnswer| {
            let at = vote.vote.shown.iter().position(|hash| *hash == side.hash)?;
            vote.ratings.get(at).copied().flatten().map(i64::from)
        };
        found.ratings = sides.map(rating);
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
    /// One of `a`, `b`, `tie`, `both_bad`.
    pub preference: Option<String>,
    /// A name of a [`Flag`].
    pub flag: Option<String>,
    /// A better text.
    pub edit: Option<String>,
    /// Of A and B, 1 to 5.
    pub ratings: [Option<i64>; 2],
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
    /// The answers' texts as they came back, A first.
    pub texts: [String; 2],
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
        current.insert(key, (vote.vote.id.clone(), vote.choice.clone(), rated(&vote.vote.shown, vote.ratings)));
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
    let preferred = match answers.preference.as_deref() {
        Some("a") => shown.first(),
        Some("b") => shown.get(1),
        _ => None,
    };
    let flag = answers.flag.as_ref().map(|flag| Flag::ALL.into_iter().find(|known| known.as_str() == flag));
    let edit = answers.edit.as_ref().filter(|text| !text.trim().is_empty() && !shown.contains(&text_hash(text)));
    let choice = match (flag, preferred, answers.preference.as_deref(), edit) {
        (Some(None), ..) => return Err("unknown_value"),
        (Some(Some(flag)), ..) => Choice::Flag { flag, answer: None, note: String::new() },
        (None, Some(answer), _, Some(text)) => Choice::Edit { answer: answer.clone(), text: text.clone() },
        (None, Some(answer), ..) => Choice::Better { answer: answer.clone() },
        (None, None, Some("tie"), _) => Choice::Same,
        (None, None, Some("both_bad"), _) => Choice::BothBad,
        (None, None, Some(_), _) => return Err("unknown_value"),
        (None, None, None, _) => return Err("no_answer"),
    };
    let ratings: Vec<Option<u8>> = answers.ratings.iter().map(|rating| u8::try_from((*rating)?).ok()).collect();
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

//! A vote: one thing that a person said of one item, as an event that is only ever appended. Undoing and changing are events too, which
//! name the one that they supersede; [`current_votes`] folds them into what holds now.
//! Knows hashes of texts and what may be said of them; knows nothing of pages, files or runs.
//!
//! An item is known by what it shows ([`item_id`]: prompt and answers, by content), so votes outlive a run that is rated again, made
//! again or given further models. An answer is known by [`text_hash`], so a preference of two answers can be found wherever both are.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::provenance::sha256_hex;

/// Most characters (Unicode scalar values) of a note on a flag.
pub const MAX_NOTE_CHARACTERS: usize = 2_000;
/// Most UTF-8 bytes of an edited answer.
pub const MAX_EDIT_BYTES: usize = 64 << 10;
/// Most characters of an event's id and of a pseudonym.
const MAX_ID_CHARACTERS: usize = 64;
/// Hexadecimal digits of a SHA-256.
const HASH_DIGITS: usize = 64;

/// Lower-case hex SHA-256 of a text's UTF-8 bytes: an answer's identity, as it is a prompt's.
pub fn text_hash(text: &str) -> String {
    sha256_hex(text.as_bytes())
}

/// An item's identity: SHA-256 over the prompt's hash and those of its answers, sorted, so that neither their order nor who wrote or rated
/// them counts.
pub fn item_id<'a>(prompt: &str, answers: impl IntoIterator<Item = &'a str>) -> String {
    let sorted: BTreeSet<&str> = answers.into_iter().collect();
    let lines: Vec<&str> = ["pairwright item 1", prompt].into_iter().chain(sorted).collect();
    sha256_hex(lines.join("\n").as_bytes())
}

/// One event: a vote, or an earlier one taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Made by the client before it sends, and unique: the same event sent twice counts once. Letters, digits, `-` and `_`, 1 to 64.
    pub id: String,
    /// What was shown, see [`item_id`].
    pub item: String,
    /// [`crate::data::PromptRecord::id`] of the prompt.
    pub prompt: String,
    /// [`text_hash`] of each answer in the order in which this person saw them: the first is A, the second B.
    pub shown: Vec<String>,
    /// Why this person saw it.
    pub kind: ItemKind,
    /// Pseudonym of the person.
    pub annotator: String,
    /// When the server took it, in seconds since 1970, UTC. Not for publication: see [`Self::time_bucket`].
    pub at: i64,
    /// Where it was given.
    pub via: Via,
    /// What was done.
    #[serde(flatten)]
    pub action: Action,
}

/// Why an item was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// By the queue, those first of which the judge is unsure.
    Ordinary,
    /// Drawn at random: what estimates of the whole are made from.
    Audit,
    /// Shown to this person a second time: whether somebody agrees with themself.
    Repeat,
    /// Planted, with a known answer ([`super::items::Item::gold`]); never part of the dataset.
    Gold,
}

/// Where a vote was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// On the server's page.
    Page,
    /// In a file made by `annotate pack`.
    Pack,
    /// Brought in from another tool's responses.
    Import,
}

/// What an event does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Says something.
    Cast {
        /// What.
        choice: Choice,
        /// 1 to 5 for each of [`Vote::shown`], where the person gave one; empty if none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ratings: Vec<Option<u8>>,
        /// The id of this person's earlier event on this item in place of which this one stands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        supersedes: Option<String>,
    },
    /// Takes an event of this person on this item back; what that one superseded holds again.
    Undo {
        /// Its id.
        supersedes: String,
    },
}

/// What a person says of an item. Answers are named by their hash, never by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "choice", rename_all = "snake_case")]
pub enum Choice {
    /// One answer is better than the other(s).
    Better {
        /// Its hash.
        answer: String,
    },
    /// Equally good.
    Same,
    /// None is good enough.
    BothBad,
    /// No opinion.
    Skip,
    /// Something is wrong with the item, or with one answer.
    Flag {
        /// What.
        flag: Flag,
        /// The answer that is meant; `None`: all of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<String>,
        /// In the person's words; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// One answer is the better one, and this text is better still: a new candidate, marked as a person's edit.
    Edit {
        /// Hash of the answer that was edited.
        answer: String,
        /// The new text.
        text: String,
    },
    /// All answers, best first; those in one group are equally good.
    Ranking {
        /// Hashes; each answer stands in one group.
        groups: Vec<Vec<String>>,
    },
}

/// What may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// An answer is in another language than asked for.
    WrongLanguage,
    /// It offends or harms.
    Offensive,
    /// It cannot be read: cut off, garbled, empty.
    Broken,
    /// Something else, see the note.
    Other,
}

impl Flag {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 4] = [Self::WrongLanguage, Self::Offensive, Self::Broken, Self::Other];

    /// The name in files and forms.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongLanguage => "wrong_language",
            Self::Offensive => "offensive",
            Self::Broken => "broken",
            Self::Other => "other",
        }
    }
}

/// What a vote says of two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preference {
    /// The first is better.
    First,
    /// The second is better.
    Second,
    /// Neither is better than the other.
    Same,
    /// Neither is good enough.
    BothBad,
}

/// Why an event is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the vote's {field} is {got}, expected {expected}")]
pub struct VoteError {
    /// Which part of it.
    pub field: &'static str,
    /// What stands there.
    pub got: String,
    /// What should.
    pub expected: &'static str,
}

impl Choice {
    /// What this says of the answers with these two hashes; `None` if nothing: skipped, flagged, or they were not all shown.
    pub fn preference(&self, first: &str, second: &str) -> Option<Preference> {
        match self {
            Self::Better { answer } | Self::Edit { answer, .. } if answer == first => Some(Preference::First),
            Self::Better { answer } | Self::Edit { answer, .. } if answer == second => Some(Preference::Second),
            Self::Same => Some(Preference::Same),
            Self::BothBad => Some(Preference::BothBad),
            Self::Ranking { groups } => {
                let place = |hash: &str| groups.iter().position(|group| group.iter().any(|other| other == hash));
                Some(match place(first)?.cmp(&place(second)?) {
                    std::cmp::Ordering::Less => Preference::First,
                    std::cmp::Ordering::Greater => Preference::Second,
                    std::cmp::Ordering::Equal => Preference::Same,
                })
            }
            _ => None,
        }
    }

    /// The name in files and forms.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Better { .. } => "better",
            Self::Same => "same",
            Self::BothBad => "both_bad",
            Self::Skip => "skip",
            Self::Flag { .. } => "flag",
            Self::Edit { .. } => "edit",
            Self::Ranking { .. } => "ranking",
        }
    }

    fn check(&self, shown: &[String]) -> Result<(), VoteError> {
        let known = |answer: &String| match shown.contains(answer) {
            true => Ok(()),
            false => Err(wrong("answer", answer, "the hash of an answer that was shown")),
        };
        match self {
            Self::Better { answer } => known(answer),
            Self::Same | Self::BothBad | Self::Skip => Ok(()),
            Self::Flag { answer, note, .. } => {
                if note.chars().count() > MAX_NOTE_CHARACTERS {
                    return Err(wrong("note", "longer", "at most 2000 characters"));
                }
                answer.as_ref().map_or(Ok(()), known)
            }
            Self::Edit { answer, text } => {
                known(answer)?;
                if text.trim().is_empty() || text.len() > MAX_EDIT_BYTES {
                    return Err(wrong("edited text", &format!("{} bytes", text.len()), "a text of at most 64 KiB"));
                }
                match shown.contains(&text_hash(text)) {
                    true => Err(wrong("edited text", "one of the answers", "a text that was not shown")),
                    false => Ok(()),
                }
            }
            Self::Ranking { groups } => {
                let mut ranked: Vec<&String> = groups.iter().flatten().collect();
                let mut wanted: Vec<&String> = shown.iter().collect();
                ranked.sort();
                wanted.sort();
                match ranked == wanted && groups.iter().all(|group| !group.is_empty()) {
                    true => Ok(()),
                    false => Err(wrong("ranking", &format!("{groups:?}"), "each answer that was shown, once")),
                }
            }
        }
    }
}

impl Vote {
    /// The id of the event in whose place this one stands, if any.
    pub fn supersedes(&self) -> Option<&str> {
        match &self.action {
            Action::Cast { supersedes, .. } => supersedes.as_deref(),
            Action::Undo { supersedes } => Some(supersedes),
        }
    }

    /// The day on which it was given, UTC, such as `2026-11-27`: as exact as anything that is published gets.
    pub fn time_bucket(&self) -> String {
        Timestamp::from_second(self.at).unwrap_or_default().strftime("%Y-%m-%d").to_string()
    }

    /// Whether all of it is as it should be, but for what only its item can tell.
    ///
    /// # Errors
    /// The first part that is not.
    pub fn check(&self) -> Result<(), VoteError> {
        for (field, id) in [("id", Some(self.id.as_str())), ("superseded id", self.supersedes())] {
            if id.is_some_and(|id| !is_id(id)) {
                let got = id.unwrap_or_default();
                return Err(wrong(field, got, "1 to 64 letters, digits, `-` or `_`"));
            }
        }
        if !is_id(&self.annotator) {
            return Err(wrong("annotator", &self.annotator, "a pseudonym of 1 to 64 letters, digits, `-` or `_`"));
        }
        let hashes = [&self.item, &self.prompt].into_iter().chain(&self.shown);
        if let Some(hash) = hashes.into_iter().find(|hash| !is_hash(hash)) {
            return Err(wrong("hash", hash, "64 lower-case hexadecimal digits"));
        }
        let distinct: BTreeSet<&String> = self.shown.iter().collect();
        if distinct.len() != self.shown.len() || distinct.len() < 2 {
            return Err(wrong("shown", &format!("{} answers", distinct.len()), "two or more different answers"));
        }
        if self.item != item_id(&self.prompt, self.shown.iter().map(String::as_str)) {
            return Err(wrong("item", &self.item, "the hash of the prompt and the answers that were shown"));
        }
        let Action::Cast { choice, ratings, supersedes } = &self.action else { return Ok(()) };
        if supersedes.as_ref() == Some(&self.id) {
            return Err(wrong("superseded id", &self.id, "the id of an earlier event"));
        }
        if !ratings.is_empty() && ratings.len() != self.shown.len() {
            return Err(wrong("ratings", &format!("{} of them", ratings.len()), "one per answer, or none"));
        }
        if let Some(rating) = ratings.iter().flatten().find(|rating| !(1..=5).contains(*rating)) {
            return Err(wrong("rating", &rating.to_string(), "1 to 5"));
        }
        choice.check(&self.shown)
    }
}

fn wrong(field: &'static str, got: &str, expected: &'static str) -> VoteError {
    let got: String = got.chars().take(100).collect();
    VoteError { field, got, expected }
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text may be an event's id or a pseudonym.
pub fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_ID_CHARACTERS).contains(&text.len()) && text.bytes().all(is_plain)
}

/// A vote that holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurrentVote<'a> {
    /// The event.
    pub vote: &'a Vote,
    /// What it says.
    pub choice: &'a Choice,
    /// 1 to 5 for each answer shown, or empty.
    pub ratings: &'a [Option<u8>],
}

/// What holds after all of these events, in their order: an event counts unless a later one that counts supersedes it, and of one person's
/// votes on one item the last counts; repeats are counted beside them. Events that come twice, and such as would supersede another person's
/// or another item's, change nothing.
pub fn current_votes(events: &[Vote]) -> Vec<CurrentVote<'_>> {
    let mut first_at: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        first_at.entry(&event.id).or_insert(at);
    }
    let mut is_superseded = vec![false; events.len()];
    let mut is_taken: BTreeSet<(&str, &str, bool)> = BTreeSet::new();
    let mut current = Vec::new();
    for (at, event) in events.iter().enumerate().rev() {
        if is_superseded[at] || first_at.get(event.id.as_str()) != Some(&at) {
            continue;
        }
        if let Some(target) = event.supersedes().and_then(|id| first_at.get(id)).copied() {
            let is_own = events[target].annotator == event.annotator && events[target].item == event.item;
            if target < at && is_own {
                is_superseded[target] = true;
            }
        }
        let Action::Cast { choice, ratings, .. } = &event.action else { continue };
        if is_taken.insert((&event.annotator, &event.item, event.kind == ItemKind::Repeat)) {
            current.push(CurrentVote { vote: event, choice, ratings });
        }
    }
    current.reverse();
    current
}

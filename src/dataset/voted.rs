//! What people's votes make of judged rows: pairs that people decided, rows that leave for a reason, and edited answers.
//! Knows answers by the hash of their text; deliberately does not know how votes are given, kept or counted.

use std::collections::{BTreeMap, HashSet};

use super::pairing::{DropReason, JudgedPrompt, PairOutcome, PreferencePair, is_blank};
use crate::generate::Candidate;
use crate::provenance::sha256_hex;

/// The author of answers that people made from others.
pub const EDITED_MODEL: &str = "human-edited";

/// Why votes keep a prompt out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VotedDrop {
    /// Most people see no difference.
    Tie,
    /// Most people find neither answer good enough.
    BothBad,
    /// Most people flagged an answer as in another language.
    WrongLanguage,
    /// Most people flagged it as offensive.
    Offensive,
    /// Most people flagged it as unreadable.
    Broken,
    /// Most people flagged it for a reason of their own.
    OtherFlag,
    /// No majority, where people alone were to decide.
    Split,
    /// Fewer votes than the rule wants, where people alone were to decide.
    TooFewVotes,
    /// No vote, where people alone were to decide.
    NoVotes,
    /// People decided on answers that the run does not have any more, and were alone to decide.
    AnswersGone,
}

impl VotedDrop {
    /// The name in the `outcome` column and in all counts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tie => "people_tie",
            Self::BothBad => "people_both_bad",
            Self::WrongLanguage => "people_flag_wrong_language",
            Self::Offensive => "people_flag_offensive",
            Self::Broken => "people_flag_broken",
            Self::OtherFlag => "people_flag_other",
            Self::Split => "people_split",
            Self::TooFewVotes => "people_too_few_votes",
            Self::NoVotes => "people_no_votes",
            Self::AnswersGone => "people_answers_gone",
        }
    }
}

/// Opinions on the two answers of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairVotes {
    /// Of all kinds.
    pub num_votes: u64,
    /// For the chosen answer.
    pub for_chosen: u64,
    /// For the rejected answer.
    pub for_rejected: u64,
}

/// What people say of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// One answer is better than another one.
    Prefers {
        /// SHA-256 of the better answer's text.
        chosen: String,
        /// SHA-256 of the other one's.
        rejected: String,
        /// How many say so.
        votes: PairVotes,
    },
    /// The row leaves, whatever a judge says.
    Leaves(VotedDrop),
    /// The judge decides; if people alone are to, the row leaves for this reason.
    Open(VotedDrop),
}

/// A person's edit of an answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edit {
    /// SHA-256 of the text that was edited.
    pub original: String,
    /// The new text.
    pub text: String,
}

/// All that people say of one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowVotes {
    /// Of its answers.
    pub finding: Finding,
    /// Answers that people wrote, sorted.
    pub edits: Vec<Edit>,
}

/// A vote as it is published: no name, no hour, no words that somebody wrote about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedVote {
    /// The prompt.
    pub record_id: String,
    /// What was shown, by its content.
    pub item: String,
    /// Pseudonym.
    pub annotator: String,
    /// Why it was shown: `ordinary`, `audit`, `repeat`, `gold`.
    pub kind: &'static str,
    /// The day, UTC.
    pub day: String,
    /// Where it was given: `page`, `pack`, `import`.
    pub via: &'static str,
    /// SHA-256 of each answer's text in the order in which this person saw them.
    pub shown: Vec<String>,
    /// What was said.
    pub choice: &'static str,
    /// Place in `shown` of the preferred answer.
    pub preferred: Option<usize>,
    /// What is wrong.
    pub flag: Option<&'static str>,
    /// Place in `shown` of the answer that is meant.
    pub flagged: Option<usize>,
    /// The answer that this person wrote.
    pub edit: Option<String>,
    /// Of a ranking: each answer's rank from 1, equal ones the same.
    pub ranks: Vec<i64>,
    /// 1 to 5 for each answer, or empty.
    pub scores: Vec<Option<u8>>,
}

/// What an export adds to a run's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Voted {
    /// By the prompt's id.
    pub rows: BTreeMap<String, RowVotes>,
    /// All that is published, sorted.
    pub votes: Vec<PublishedVote>,
    /// Whether rows that people did not decide leave.
    pub human_only: bool,
}

impl Voted {
    /// Edited answers as candidates, after those that the run has; an edit that gives a text of the row again adds none.
    pub(super) fn candidates(&self, known: &[Candidate]) -> Vec<Candidate> {
        let mut all = known.to_vec();
        let mut texts: HashSet<(&str, &str)> =
            known.iter().map(|candidate| (candidate.record_id.as_str(), candidate.text.as_str())).collect();
        for (record_id, row) in &self.rows {
            let mut sample_index = 0;
            for edit in &row.edits {
                if texts.insert((record_id, &edit.text)) {
                    let edited = Candidate::human(record_id, &edit.text);
                    all.push(Candidate { model: EDITED_MODEL.to_owned(), sample_index, ..edited });
                    sample_index += 1;
                }
            }
        }
        all
    }

    /// Puts what people say in the place of what the judge says.
    pub(super) fn apply(&self, prompts: &mut [JudgedPrompt<'_>]) {
        for judged in prompts {
            let is_row = !matches!(
                judged.outcome,
                PairOutcome::Dropped(
                    DropReason::DuplicatePrompt | DropReason::ConflictingAnswers | DropReason::EmptyPrompt
                )
            );
            if is_row {
                let outcome = self.outcome(judged, self.rows.get(&judged.record.id));
                judged.outcome = outcome.unwrap_or_else(|| judged.outcome.clone());
            }
        }
    }

    /// What becomes of a row; `None`: what the judge said.
    fn outcome(&self, judged: &JudgedPrompt<'_>, row: Option<&RowVotes>) -> Option<PairOutcome> {
        let none = Finding::Open(VotedDrop::NoVotes);
        let mut pairs = Vec::new();
        let mut open = None;
        match row.map_or(&none, |row| &row.finding) {
            Finding::Leaves(why) => return Some(PairOutcome::Dropped(DropReason::Voted(*why))),
            Finding::Open(why) => open = Some(*why),
            Finding::Prefers { chosen, rejected, votes } => match pair_of(judged, chosen, rejected, *votes) {
                Some(pair) => pairs.push(pair),
                None => open = Some(VotedDrop::AnswersGone),
            },
        }
        for edit in row.into_iter().flat_map(|row| &row.edits) {
            let votes = PairVotes { num_votes: 1, for_chosen: 1, for_rejected: 0 };
            pairs.extend(pair_of(judged, &sha256_hex(edit.text.as_bytes()), &edit.original, votes));
        }
        // What the judge said stands first where people left it open.
        if open.is_some() && !self.human_only {
            pairs.splice(0..0, judged.outcome.pairs().iter().copied());
        }
        let is_of_answers = judged.answers.iter().filter(|answer| !is_blank(&answer.candidate.text)).count() >= 2;
        match open {
            _ if !pairs.is_empty() => Some(PairOutcome::Pairs(pairs)),
            Some(why) if self.human_only && is_of_answers => Some(PairOutcome::Dropped(DropReason::Voted(why))),
            _ => None,
        }
    }
}

/// The pair of two answers of a row by their texts' hashes, if it has both and they show something.
fn pair_of(judged: &JudgedPrompt<'_>, chosen: &str, rejected: &str, votes: PairVotes) -> Option<PreferencePair> {
    let place = |hash: &str| {
        let is_it = |text: &str| !is_blank(text) && sha256_hex(text.as_bytes()) == hash;
        judged.answers.iter().position(|answer| is_it(&answer.candidate.text))
    };
    let (chosen_index, rejected_index) = (place(chosen)?, place(rejected)?);
    let [chosen_rating, rejected_rating] = [chosen_index, rejected_index]
        .map(|index| judged.answers.get(index).and_then(|answer| answer.rating).filter(|rating| rating.is_finite()));
    let of_judge = |first: usize, second: usize| {
        judged.outcome.pairs().iter().find(|pair| (pair.chosen_index, pair.rejected_index) == (first, second))
    };
    let (same, turned) = (of_judge(chosen_index, rejected_index), of_judge(rejected_index, chosen_index));
    Some(PreferencePair {
        chosen_index,
        rejected_index,
        chosen_rating,
        rejected_rating,
        margin: chosen_rating.zip(rejected_rating).map(|(chosen, rejected)| chosen - rejected),
        preference: same
            .and_then(|pair| pair.preference)
            .or_else(|| turned.and_then(|pair| pair.preference).map(|preference| -preference)),
        // The judges' mean is against this pair, so at least one of them is.
        judges_agree: same.and_then(|pair| pair.judges_agree).or_else(|| turned?.judges_agree.map(|_| false)),
        people: Some(votes),
    })
}

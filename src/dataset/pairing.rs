//! From the rated answers to one prompt to a preference pair, or to the named reason why there is none.
//! Pure functions of text and ratings; who wrote an answer and in which order answers arrive decide nothing.

use std::cmp::Ordering;

use serde::Serialize;

use crate::data::PromptRecord;
use crate::generate::{Candidate, CandidateSource};
use crate::judge::Verdict;

/// Default smallest rating difference of a pair, on the continuous scale 1..=5: a fortieth of its width. Means of label
/// distributions nearly never tie exactly, so without a margin half of the pairs whose answers are equally good would be
/// noise; the report shows how the number of pairs moves with the margin, so that a user can set their own.
pub const DEFAULT_MARGIN: f64 = 0.1;

/// The largest rating difference there can be: 5 - 1.
pub const MAX_MARGIN: f64 = 4.0;

const RATING_SLACK: f64 = 1e-6;

/// What makes two rated answers a pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairingOptions {
    /// Smallest rating difference, 0.0..=4.0. At 0 every difference above zero counts.
    pub margin: f64,
    /// Leave answers out whose verdict is marked unreliable.
    pub drop_unreliable: bool,
}

impl Default for PairingOptions {
    fn default() -> Self {
        Self { margin: DEFAULT_MARGIN, drop_unreliable: true }
    }
}

/// Why a prompt gave no pair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Best and worst answer are closer than the margin.
    Tie,
    /// The judge did not want to rate one of the answers.
    UnreliableVerdict,
    /// Fewer than two answers.
    MissingCandidate,
    /// An answer that no judge rated.
    MissingVerdict,
    /// A rating that is no number within 1..=5.
    InvalidRating,
    /// Best and worst answer have the same text.
    IdenticalAnswers,
    /// An answer that shows nothing.
    EmptyAnswer,
    /// A prompt that shows nothing.
    EmptyPrompt,
    /// The same prompt stood in an earlier row, which has the answers.
    DuplicatePrompt,
    /// Two different answers claim the same source, model and index.
    ConflictingAnswers,
    /// An earlier stage failed without saying why.
    PromptOrAnswerError,
    /// An earlier stage failed and gave this reason.
    Failed(String),
}

impl DropReason {
    /// The name that stands in the `outcome` column and in the funnel.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tie => "tie",
            Self::UnreliableVerdict => "unreliable_verdict",
            Self::MissingCandidate => "missing_candidate",
            Self::MissingVerdict => "missing_verdict",
            Self::InvalidRating => "invalid_rating",
            Self::IdenticalAnswers => "identical_answers",
            Self::EmptyAnswer => "empty_answer",
            Self::EmptyPrompt => "empty_prompt",
            Self::DuplicatePrompt => "duplicate_prompt",
            Self::ConflictingAnswers => "conflicting_answers",
            Self::PromptOrAnswerError => "prompt_or_answer_error",
            Self::Failed(reason) => reason,
        }
    }

    /// The reason of an earlier stage; one that is blank, or that would read as a pair, gets a name of its own.
    fn of_failure(reason: &str) -> Self {
        match reason.trim() {
            "" | PAIR => Self::PromptOrAnswerError,
            named => Self::Failed(named.to_string()),
        }
    }
}

/// The value of the `outcome` column for a prompt that gave a pair.
pub const PAIR: &str = "pair";

/// Two answers to one prompt and how far apart the judge sees them. Indices point into [`JudgedPrompt::answers`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreferencePair {
    /// The better rated answer.
    pub chosen_index: usize,
    /// The worse rated answer.
    pub rejected_index: usize,
    /// Continuous, 1.0..=5.0.
    pub chosen_rating: f64,
    /// Continuous, 1.0..=5.0.
    pub rejected_rating: f64,
    /// `chosen_rating - rejected_rating`, above zero.
    pub margin: f64,
}

/// What became of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum PairOutcome {
    /// Two answers far enough apart.
    Pair(PreferencePair),
    /// No pair, and why.
    Dropped(DropReason),
}

impl PairOutcome {
    /// `pair`, or the reason's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pair(_) => PAIR,
            Self::Dropped(reason) => reason.as_str(),
        }
    }

    /// The pair, if it is one.
    pub fn pair(&self) -> Option<&PreferencePair> {
        match self {
            Self::Pair(pair) => Some(pair),
            Self::Dropped(_) => None,
        }
    }
}

/// An answer with all that judges said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct RatedAnswer<'a> {
    /// The answer itself.
    pub candidate: &'a Candidate,
    /// Distinct verdicts, by judge name.
    pub verdicts: Vec<&'a Verdict>,
    /// Mean rating over the verdicts, 1.0..=5.0 if they are valid; `None` without a verdict.
    pub rating: Option<f64>,
    /// False if any verdict is marked unreliable.
    pub reliable: bool,
}

impl<'a> RatedAnswer<'a> {
    fn new(candidate: &'a Candidate, verdicts: &[&'a Verdict]) -> Self {
        let mut own: Vec<&Verdict> = verdicts
            .iter()
            .copied()
            .filter(|verdict| {
                verdict.source == candidate.source
                    && verdict.model == candidate.model
                    && verdict.sample_index == candidate.sample_index
            })
            .collect();
        // A fixed order, because the mean of floats depends on it in the last bit.
        own.sort_by(|a, b| a.judge.cmp(&b.judge).then(a.rating.total_cmp(&b.rating)).then(a.reliable.cmp(&b.reliable)));
        own.dedup();
        let rating = match own.len() {
            0 => None,
            num_verdicts => Some(own.iter().map(|verdict| verdict.rating).sum::<f64>() / num_verdicts as f64),
        };
        let reliable = own.iter().all(|verdict| verdict.reliable);
        Self { candidate, verdicts: own, rating, reliable }
    }

    /// The rating if this answer may stand in a pair, else why it may not.
    fn usable_rating(&self, options: &PairingOptions) -> Result<f64, DropReason> {
        if is_blank(&self.candidate.text) {
            return Err(DropReason::EmptyAnswer);
        }
        let rating = self.rating.ok_or(DropReason::MissingVerdict)?;
        // A distribution normalised in floats may sum to one and a last bit.
        if !(1.0 - RATING_SLACK..=5.0 + RATING_SLACK).contains(&rating) {
            return Err(DropReason::InvalidRating);
        }
        if options.drop_unreliable && !self.reliable {
            return Err(DropReason::UnreliableVerdict);
        }
        Ok(rating)
    }
}

/// One prompt, its answers in their fixed order (human first, then by model and index) and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedPrompt<'a> {
    /// The prompt.
    pub record: &'a PromptRecord,
    /// All distinct answers; `generations` in the files has this order.
    pub answers: Vec<RatedAnswer<'a>>,
    /// Rating of the best answer minus the worst, if there are two usable answers of different text; also of ties.
    pub difference: Option<f64>,
    /// Pair, or reason.
    pub outcome: PairOutcome,
}

impl<'a> JudgedPrompt<'a> {
    /// A prompt that never came to be paired.
    pub fn dropped(record: &'a PromptRecord, reason: DropReason) -> Self {
        Self { record, answers: Vec::new(), difference: None, outcome: PairOutcome::Dropped(reason) }
    }
}

/// Pairs the best with the worst of a prompt's answers. `candidates` and `verdicts` are those of this record, in any order;
/// `failure` is what an earlier stage said if it failed, and it counts only if the answers at hand give no pair.
pub fn pair_record<'a>(
    record: &'a PromptRecord,
    candidates: &[&'a Candidate],
    verdicts: &[&'a Verdict],
    failure: Option<&str>,
    options: &PairingOptions,
) -> JudgedPrompt<'a> {
    let mut ordered = candidates.to_vec();
    ordered.sort_by(|a, b| by_identity(a, b).then_with(|| a.text.cmp(&b.text)));
    ordered.dedup();
    let is_conflict = ordered.windows(2).any(|two| matches!(two, [a, b] if by_identity(a, b) == Ordering::Equal));
    let answers: Vec<RatedAnswer<'_>> =
        ordered.into_iter().map(|candidate| RatedAnswer::new(candidate, verdicts)).collect();
    let found = if is_blank(&record.prompt) {
        Err(DropReason::EmptyPrompt)
    } else if is_conflict {
        Err(DropReason::ConflictingAnswers)
    } else {
        extremes(&answers, options).map_err(|reason| failure.map_or(reason, DropReason::of_failure))
    };
    let (difference, outcome) = match found {
        Err(reason) => (None, PairOutcome::Dropped(reason)),
        Ok(pair) => judge_difference(&answers, pair, options),
    };
    JudgedPrompt { record, answers, difference, outcome }
}

fn judge_difference(
    answers: &[RatedAnswer<'_>],
    pair: PreferencePair,
    options: &PairingOptions,
) -> (Option<f64>, PairOutcome) {
    let text = |index: usize| answers.get(index).map(|answer| answer.candidate.text.trim());
    if text(pair.chosen_index) == text(pair.rejected_index) {
        return (None, PairOutcome::Dropped(DropReason::IdenticalAnswers));
    }
    if pair.margin <= 0.0 || pair.margin < options.margin {
        return (Some(pair.margin), PairOutcome::Dropped(DropReason::Tie));
    }
    (Some(pair.margin), PairOutcome::Pair(pair))
}

/// Best and worst usable answer, or the most telling reason why there are not two.
fn extremes(answers: &[RatedAnswer<'_>], options: &PairingOptions) -> Result<PreferencePair, DropReason> {
    if answers.len() < 2 {
        return Err(DropReason::MissingCandidate);
    }
    let mut usable: Vec<(usize, f64, &Candidate)> = Vec::new();
    let mut reasons = Vec::new();
    for (index, answer) in answers.iter().enumerate() {
        match answer.usable_rating(options) {
            Ok(rating) => usable.push((index, rating, answer.candidate)),
            Err(reason) => reasons.push(reason),
        }
    }
    // Equal ratings are ordered by text, so that neither arrival nor authorship picks the answer.
    usable.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| by_content(a.2, b.2)));
    match (usable.first(), usable.last()) {
        (Some(worst), Some(best)) if usable.len() >= 2 => Ok(PreferencePair {
            chosen_index: best.0,
            rejected_index: worst.0,
            chosen_rating: best.1,
            rejected_rating: worst.1,
            margin: best.1 - worst.1,
        }),
        _ => Err(most_telling(&reasons)),
    }
}

/// The earliest stage's trouble first: without text there is no verdict, without a verdict no reliability.
fn most_telling(reasons: &[DropReason]) -> DropReason {
    let order =
        [DropReason::EmptyAnswer, DropReason::MissingVerdict, DropReason::InvalidRating, DropReason::UnreliableVerdict];
    order.into_iter().find(|reason| reasons.contains(reason)).unwrap_or(DropReason::MissingCandidate)
}

/// Human answers first, then by model name and index: the order of the `generations` column.
fn by_identity(a: &Candidate, b: &Candidate) -> Ordering {
    let rank = |candidate: &Candidate| match candidate.source {
        CandidateSource::Human => 0,
        CandidateSource::Model => 1,
    };
    rank(a).cmp(&rank(b)).then_with(|| a.model.cmp(&b.model)).then(a.sample_index.cmp(&b.sample_index))
}

/// An order that looks at the text first and at the source last.
fn by_content(a: &Candidate, b: &Candidate) -> Ordering {
    a.text.cmp(&b.text).then_with(|| a.model.cmp(&b.model)).then(a.sample_index.cmp(&b.sample_index))
}

/// True if a reader would see nothing: only white space, control characters and zero-width characters.
pub fn is_blank(text: &str) -> bool {
    let is_invisible = |character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(character, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
    };
    text.chars().all(is_invisible)
}

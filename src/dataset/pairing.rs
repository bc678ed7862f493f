//! From the rated answers to one prompt to a preference pair, or to the named reason why there is none.
//! Pure functions of text and ratings; who wrote an answer and in which order answers arrive decide nothing. Which answers of a prompt
//! meet is in `choosing.rs`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::choosing::Table;
use super::voted::{PairVotes, VotedDrop};
use crate::data::PromptRecord;
use crate::generate::{Candidate, CandidateSource};
use crate::judge::{Comparison, Verdict};
use crate::quality::{Flag, RowQuality};

/// Default smallest rating difference of a pair, on the continuous scale 1..=5: a fortieth of its width. Means of label
/// distributions nearly never tie exactly, so without a margin half of the pairs whose answers are equally good would be
/// noise; the report shows how the number of pairs moves with the margin, so that a user can set their own.
pub const DEFAULT_MARGIN: f64 = 0.1;

/// The largest rating difference there can be: 5 - 1.
pub const MAX_MARGIN: f64 = 4.0;

const RATING_SLACK: f64 = 1e-6;

/// Which of a prompt's answers are held against each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairChoice {
    /// The best and the worst; further pairs by the size of their difference.
    #[default]
    BestWorst,
    /// The best and another one by lot (a hash of the record, so always the same one).
    BestRandom,
    /// The human answer and the best generated one; the better of the two is chosen.
    HumanBest,
}

/// Who decides which of two answers is the better one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Ratings; comparisons, where there are any, must not speak against them: one that goes the other way or depends on the order makes
    /// the two a tie.
    #[default]
    Both,
    /// Ratings alone.
    Ratings,
    /// Comparisons alone; ratings stand beside them.
    Pairwise,
}

/// How the judges of a panel are weighed against one another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JudgeWeights {
    /// By their accuracy on known answers, where all were tested.
    #[default]
    KnownAnswers,
    /// All the same.
    Equal,
}

/// What makes two rated answers a pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairingOptions {
    /// Smallest rating difference, 0.0..=4.0. At 0 every difference above zero counts.
    pub margin: f64,
    /// Leave answers out whose verdict is marked unreliable.
    pub drop_unreliable: bool,
    /// Which answers meet.
    pub choice: PairChoice,
    /// Most pairs of one prompt, 1 or more.
    pub pairs_per_prompt: usize,
    /// Who decides.
    pub decision: Decision,
    /// Leave pairs out on which judges of a panel disagree.
    pub require_agreement: bool,
}

impl Default for PairingOptions {
    fn default() -> Self {
        Self {
            margin: DEFAULT_MARGIN,
            drop_unreliable: true,
            choice: PairChoice::default(),
            pairs_per_prompt: 1,
            decision: Decision::default(),
            require_agreement: false,
        }
    }
}

/// Why a prompt gave no pair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Best and worst answer are closer than the margin.
    Tie,
    /// Comparisons of the two answers depend on which one is shown first.
    OrderDisagreement,
    /// A comparison prefers the answer with the lower rating.
    PairwiseDisagrees,
    /// Judges of the panel disagree, and agreement was required.
    JudgesDisagree,
    /// The two answers were not compared, and comparisons were to decide.
    MissingComparison,
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
    /// People's votes keep it out.
    Voted(VotedDrop),
    /// A check found something that was required not to be there.
    Flagged(Flag),
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
            Self::OrderDisagreement => "order_disagreement",
            Self::PairwiseDisagrees => "pairwise_disagrees",
            Self::JudgesDisagree => "judges_disagree",
            Self::MissingComparison => "missing_comparison",
            Self::UnreliableVerdict => "unreliable_verdict",
            Self::MissingCandidate => "missing_candidate",
            Self::MissingVerdict => "missing_verdict",
            Self::InvalidRating => "invalid_rating",
            Self::IdenticalAnswers => "identical_answers",
            Self::EmptyAnswer => "empty_answer",
            Self::EmptyPrompt => "empty_prompt",
            Self::DuplicatePrompt => "duplicate_prompt",
            Self::ConflictingAnswers => "conflicting_answers",
            Self::Voted(why) => why.as_str(),
            Self::Flagged(flag) => flag.as_str(),
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
    /// Continuous, 1.0..=5.0; `None` if no judge rated it, as a person's edit.
    pub chosen_rating: Option<f64>,
    /// Continuous, 1.0..=5.0; `None` as above.
    pub rejected_rating: Option<f64>,
    /// `chosen_rating - rejected_rating`; above zero unless comparisons alone, or people, decided.
    pub margin: Option<f64>,
    /// By how much comparisons prefer the chosen answer: mean log-odds over both orders and all judges, in nats; `None` without any.
    pub preference: Option<f64>,
    /// Whether every judge rates the chosen answer higher; `None` with a single judge.
    pub judges_agree: Option<bool>,
    /// What people said of the two, if they and not the judge made this pair.
    pub people: Option<PairVotes>,
}

/// What became of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum PairOutcome {
    /// Two answers far enough apart, or several such twos, the first one first.
    Pairs(Vec<PreferencePair>),
    /// No pair, and why.
    Dropped(DropReason),
}

impl PairOutcome {
    /// `pair`, or the reason's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pairs(_) => PAIR,
            Self::Dropped(reason) => reason.as_str(),
        }
    }

    /// The first pair, if there is one.
    pub fn pair(&self) -> Option<&PreferencePair> {
        self.pairs().first()
    }

    /// All pairs.
    pub fn pairs(&self) -> &[PreferencePair] {
        match self {
            Self::Pairs(pairs) => pairs,
            Self::Dropped(_) => &[],
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
    /// Mean rating over the verdicts by the judges' weights, 1.0..=5.0 if they are valid; `None` without a verdict.
    pub rating: Option<f64>,
    /// False if any verdict is marked unreliable.
    pub reliable: bool,
}

impl<'a> RatedAnswer<'a> {
    fn new(candidate: &'a Candidate, verdicts: &[&'a Verdict], weights: &BTreeMap<String, f64>) -> Self {
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
        let mean = |weight: &dyn Fn(&Verdict) -> f64| {
            let sum: f64 = own.iter().map(|verdict| weight(verdict)).sum();
            (sum > 0.0).then(|| own.iter().map(|verdict| weight(verdict) * verdict.rating).sum::<f64>() / sum)
        };
        // One judge's rating is taken as it is; so are those of judges that nobody weighed.
        let weighed = |verdict: &Verdict| weights.get(&verdict.judge).copied().unwrap_or(1.0);
        let rating = match own.as_slice() {
            [only] => Some(only.rating),
            _ => mean(&weighed).or_else(|| mean(&|_| 1.0)),
        };
        let reliable = own.iter().all(|verdict| verdict.reliable);
        Self { candidate, verdicts: own, rating, reliable }
    }

    /// The rating if this answer may stand in a pair, else why it may not.
    pub(super) fn usable_rating(&self, options: &PairingOptions) -> Result<f64, DropReason> {
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
    /// What judges said of two answers at a time.
    pub comparisons: Vec<&'a Comparison>,
    /// Rating of the first pair's chosen answer minus the rejected one's, if there are two usable answers of different text; also of ties.
    pub difference: Option<f64>,
    /// Pair, or reason.
    pub outcome: PairOutcome,
    /// What checks found, with an item per answer once they were made.
    pub quality: RowQuality,
}

impl<'a> JudgedPrompt<'a> {
    /// A prompt that never came to be paired.
    pub fn dropped(record: &'a PromptRecord, reason: DropReason) -> Self {
        Self {
            record,
            answers: Vec::new(),
            comparisons: Vec::new(),
            difference: None,
            outcome: PairOutcome::Dropped(reason),
            quality: RowQuality::default(),
        }
    }
}

/// All that earlier stages left of one record, in any order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Said<'s, 'a> {
    /// Its answers.
    pub candidates: &'s [&'a Candidate],
    /// Their ratings.
    pub verdicts: &'s [&'a Verdict],
    /// Comparisons of two of them.
    pub comparisons: &'s [&'a Comparison],
    /// What an earlier stage said if it failed; it counts only if the answers at hand give no pair.
    pub failure: Option<&'s str>,
}

/// Pairs a prompt's answers as the options say; `weights` are those of the judges by name, 1 where one is missing.
pub fn pair_record<'a>(
    record: &'a PromptRecord,
    said: Said<'_, 'a>,
    weights: &BTreeMap<String, f64>,
    options: &PairingOptions,
) -> JudgedPrompt<'a> {
    let mut ordered = said.candidates.to_vec();
    ordered.sort_by(|a, b| by_identity(a, b).then_with(|| a.text.cmp(&b.text)));
    ordered.dedup();
    let is_conflict = ordered.windows(2).any(|two| matches!(two, [a, b] if by_identity(a, b) == Ordering::Equal));
    let answers: Vec<RatedAnswer<'_>> =
        ordered.into_iter().map(|candidate| RatedAnswer::new(candidate, said.verdicts, weights)).collect();
    let mut comparisons = said.comparisons.to_vec();
    comparisons.sort_by(|a, b| (&a.judge, &a.answers).cmp(&(&b.judge, &b.answers)));
    comparisons.dedup();
    let table = Table { id: &record.id, answers: &answers, comparisons: &comparisons, weights, options };
    let found = if is_blank(&record.prompt) {
        Err(DropReason::EmptyPrompt)
    } else if is_conflict {
        Err(DropReason::ConflictingAnswers)
    } else {
        table.usable().map_err(|reason| said.failure.map_or(reason, DropReason::of_failure))
    };
    let (difference, outcome) = match found {
        Err(reason) => (None, PairOutcome::Dropped(reason)),
        Ok(usable) => table.pairs(usable),
    };
    JudgedPrompt { record, answers, comparisons, difference, outcome, quality: RowQuality::default() }
}

/// The earliest stage's trouble first: without text there is no verdict, without a verdict no reliability.
pub(super) fn most_telling(reasons: &[DropReason]) -> DropReason {
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
pub(super) fn by_content(a: &Candidate, b: &Candidate) -> Ordering {
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

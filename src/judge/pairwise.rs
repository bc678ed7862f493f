//! Two answers held against each other: asked in both orders, answered by the odds of two labels, without decoding.
//! Knows pairs of answers and the engine; knows nothing of ratings or of who wrote what.

use serde::{Deserialize, Serialize};

use super::labels::LabelPlan;
use super::rubric::RowLanguage;
use super::{Judge, PromptText};
use crate::engine::{EngineError, Request, Task};
use crate::generate::{
    Candidate, CandidateSource, Ended, Ending, Failure, GenerateError, Observer, Prepared, Row, Source, TextModel,
    dialogue, drive,
};
use crate::prompt::{DialogueEnd, PromptError};

/// No odds count for more: what a judge is that sure of it does not get surer of.
const MAX_LOG_ODDS: f64 = 100.0;

/// Names one answer to a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AnswerName {
    /// Who wrote it.
    pub source: CandidateSource,
    /// Model, or `human`.
    pub model: String,
    /// Which of the model's answers.
    pub sample_index: u32,
}

impl AnswerName {
    /// Of a candidate.
    pub fn of(candidate: &Candidate) -> Self {
        Self { source: candidate.source, model: candidate.model.clone(), sample_index: candidate.sample_index }
    }
}

/// Two answers to compare.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareItem {
    /// The prompt that both answer.
    pub prompt: PromptText,
    /// Neither has a privilege: both are shown first once.
    pub answers: [Candidate; 2],
}

/// What a judge says of two answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The prompt record.
    pub record_id: String,
    /// The judge's name.
    pub judge: String,
    /// The two answers; their order here is a name's order and means nothing.
    pub answers: [AnswerName; 2],
    /// ln P(label of answer 0) − ln P(label of answer 1) in nats: first with answer 0 shown first, then with answer 1 shown first.
    pub log_odds: [f64; 2],
    /// Probability that both labels hold together, for each order, 0..=1.
    pub label_mass: [f64; 2],
    /// Mean of `log_odds`: above 0 answer 0 is preferred. Exchanging the answers changes the sign and nothing else.
    pub preference: f64,
    /// The same answer wins in both orders; if not, the place decided and the comparison is a tie.
    pub consistent: bool,
    /// False if a `label_mass` is under the rubric's threshold.
    pub reliable: bool,
}

impl Comparison {
    /// The answer that wins, 0 or 1; `None`: a tie, or not to be relied on.
    pub fn winner(&self) -> Option<usize> {
        (self.consistent && self.reliable).then_some(usize::from(self.preference < 0.0))
    }
}

/// A pair of answers that could not be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareFailure {
    /// Which judge.
    pub judge: String,
    /// The two answers.
    pub answers: [AnswerName; 2],
    /// Row and reason; `sample_index` is that of answer 0.
    #[serde(flatten)]
    pub failure: Failure,
}

/// A line of the journal of comparisons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareRow {
    /// A comparison.
    Comparison(Comparison),
    /// None.
    Failure(CompareFailure),
}

/// Names one comparison: record, the two answers, judge.
pub type CompareKey = (String, [AnswerName; 2], String);

impl CompareRow {
    /// What the row is about.
    pub fn key(&self) -> CompareKey {
        match self {
            Self::Comparison(row) => (row.record_id.clone(), row.answers.clone(), row.judge.clone()),
            Self::Failure(row) => (row.failure.record_id.clone(), row.answers.clone(), row.judge.clone()),
        }
    }
}

impl CompareItem {
    /// The key of the row that `judge` makes of it.
    pub fn key(&self, judge: &str) -> CompareKey {
        let names = self.answers.each_ref().map(AnswerName::of);
        (self.answers[0].record_id.clone(), names, judge.to_owned())
    }
}

/// A pair whose two orders are being asked.
pub(super) struct InFlight<'a> {
    judge: Judge<'a>,
    key: CompareKey,
    sample_index: u32,
    plan: LabelPlan,
}

/// Compares every pair, handing each row to `done` as it is finished.
///
/// # Errors
/// [`GenerateError`] if no row could be done any more, or `done` fails. What goes wrong with one pair is a [`CompareRow::Failure`].
pub fn compare(
    model: &mut TextModel,
    rubric: &super::Rubric,
    items: impl IntoIterator<Item = CompareItem, IntoIter: Send>,
    observer: &mut dyn Observer,
    done: impl FnMut(CompareRow) -> Result<(), GenerateError> + Send,
) -> Result<Ending, GenerateError> {
    let (queue_len, name) = (model.queue_len(), model.record().name.clone());
    let (engine, tokenizer) = model.parts();
    let judge = Judge { tokenizer, name: &name, rubric };
    let rows = Source::new(items.into_iter().map(move |item| prepare(judge, item)), done);
    drive(engine, queue_len, vec![rows], observer)
}

fn failed(key: CompareKey, sample_index: u32, reason: &str, detail: String) -> CompareRow {
    let (record_id, answers, judge) = key;
    let failure = Failure { record_id, sample_index, reason: reason.to_owned(), detail };
    CompareRow::Failure(CompareFailure { judge, answers, failure })
}

/// Encodes the question in both orders.
pub(super) fn prepare(judge: Judge<'_>, item: CompareItem) -> Result<Prepared<InFlight<'_>>, GenerateError> {
    let (key, sample_index) = (item.key(judge.name), item.answers[0].sample_index);
    let language = RowLanguage { name: &item.prompt.language, code: &item.prompt.language_code };
    let [first, second] = item.answers.each_ref().map(|answer| answer.text.as_str());
    let mut requests = Vec::new();
    let mut plan = None;
    for order in [[first, second], [second, first]] {
        let Some((text, labels)) = judge.rubric.comparison(language, &item.prompt.text, order) else {
            let detail = "the rubric has no [pairwise]".to_owned();
            return Ok(Prepared::Done(failed(key, sample_index, "no_pairwise_rubric", detail)));
        };
        let prompt = match judge.tokenizer.encode_chat(&dialogue(None, &text), DialogueEnd::GenerationPrompt) {
            Ok(prompt) => prompt,
            Err(error @ PromptError::NoTemplate { .. }) => return Err(error.into()),
            Err(error) => {
                let row = failed(key, sample_index, "judge_prompt_not_encodable", error.to_string());
                return Ok(Prepared::Done(row));
            }
        };
        if plan.is_none() {
            plan = Some(LabelPlan::new(judge.tokenizer, labels, &prompt)?);
        }
        for (prefix, targets) in plan.iter().flat_map(LabelPlan::queries) {
            let prompt = [&prompt[..], prefix].concat();
            requests.push(Request { prompt, task: Task::Score { targets: targets.to_vec() }, key: 0 });
        }
    }
    match plan {
        Some(plan) => Ok(Prepared::Asks(InFlight { judge, key, sample_index, plan }, requests)),
        None => Ok(Prepared::Done(failed(key, sample_index, "no_pairwise_rubric", String::new()))),
    }
}

impl Row for InFlight<'_> {
    type Done = CompareRow;

    fn finish(self, parts: Vec<Ended>) -> Result<CompareRow, GenerateError> {
        let answers: Vec<Vec<f32>> = parts.into_iter().map(|part| part.output.target_logprobs).collect();
        let mut orders = answers.chunks(self.plan.queries().count().max(1));
        let mut order = || {
            let logprobs = orders.next().map(|answers| self.plan.label_logprobs(answers)).unwrap_or_default();
            let [shown_first, shown_second] = [0, 1].map(|at| logprobs.get(at).copied().unwrap_or(f64::NEG_INFINITY));
            let difference = shown_first - shown_second;
            let odds = if difference.is_nan() { 0.0 } else { difference.clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS) };
            (odds, (shown_first.exp() + shown_second.exp()).min(1.0))
        };
        let ((first, first_mass), (second, second_mass)) = (order(), order());
        let (log_odds, label_mass) = ([first, -second], [first_mass, second_mass]);
        let (record_id, answers, judge) = self.key;
        Ok(CompareRow::Comparison(Comparison {
            record_id,
            judge,
            answers,
            log_odds,
            label_mass,
            preference: (log_odds[0] + log_odds[1]) / 2.0,
            consistent: log_odds.iter().all(|odds| *odds > 0.0) || log_odds.iter().all(|odds| *odds < 0.0),
            reliable: label_mass.iter().all(|mass| *mass >= self.judge.rubric.min_label_mass),
        }))
    }

    fn refused(self, error: EngineError) -> Result<CompareRow, GenerateError> {
        match error {
            EngineError::PromptTooLong { .. } => {
                Ok(failed(self.key, self.sample_index, "judge_prompt_too_long", error.to_string()))
            }
            error => Err(error.into()),
        }
    }
}

//! The records of judging: label distributions, ratings, and the lines that the journal keeps.
//! Knows numbers only; how they were read off a model is decided elsewhere.

use serde::{Deserialize, Serialize};

use super::rubric::NUM_LABELS;
use crate::generate::{Candidate, CandidateSource, Failure};

/// A judge's label distribution for one aspect of one answer. Labels are the ratings 1..=5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AspectScore {
    /// The aspect's name in the rubric.
    pub aspect: String,
    /// Probability of each label 1..=5, normalised to sum 1 over the labels.
    pub distribution: [f64; NUM_LABELS],
    /// Expectation of the label under `distribution`, 1.0..=5.0.
    pub mean: f64,
    /// Shannon entropy of `distribution` in nats, 0..=ln 5.
    pub entropy: f64,
    /// Probability the labels hold together under the judge's full vocabulary, 0..=1. Low: it did not want to rate.
    pub label_mass: f64,
}

impl AspectScore {
    /// From the natural-log probability of each label 1..=5 under the full vocabulary; one that is missing has none. If no label has any probability at all,
    /// the distribution is uniform and the mass 0, so that the verdict counts as unreliable.
    pub fn new(aspect: &str, logprobs: &[f64]) -> Self {
        let mut all = [f64::NEG_INFINITY; NUM_LABELS];
        all.iter_mut().zip(logprobs).for_each(|(own, given)| *own = *given);
        let logprobs = all;
        let best = logprobs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights = logprobs.map(|logprob| if best.is_finite() { (logprob - best).exp() } else { 1.0 });
        let sum: f64 = weights.iter().sum();
        let distribution = weights.map(|weight| weight / sum);
        let mean = distribution.iter().zip(1..).map(|(share, label)| share * f64::from(label)).sum();
        let entropy = -distribution.iter().filter(|&&share| share > 0.0).map(|share| share * share.ln()).sum::<f64>();
        let label_mass = if best.is_finite() { (best.exp() * sum).min(1.0) } else { 0.0 };
        Self { aspect: aspect.to_owned(), distribution, mean, entropy: entropy.max(0.0), label_mass }
    }
}

/// What one judge says of one candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The prompt record.
    pub record_id: String,
    /// Who wrote the answer.
    pub source: CandidateSource,
    /// Model name of the answer, or `human`.
    pub model: String,
    /// Which of the model's answers.
    pub sample_index: u32,
    /// Judge model's name.
    pub judge: String,
    /// One entry per aspect of the rubric, in its order.
    pub aspects: Vec<AspectScore>,
    /// Weighted mean over the aspects' means, 1.0..=5.0; of a reward model the place of its score, see [`verdicts_of`].
    pub rating: f64,
    /// A reward model's score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// False if an aspect's `label_mass` is under the threshold: the rating is then not used for pairs.
    pub reliable: bool,
}

/// What a reward model says of one candidate, in its own unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardScore {
    /// The prompt record.
    pub record_id: String,
    /// Who wrote the answer.
    pub source: CandidateSource,
    /// Model name of the answer, or `human`.
    pub model: String,
    /// Which of the model's answers.
    pub sample_index: u32,
    /// The reward model's name.
    pub judge: String,
    /// Its head's output; higher is better. Without a scale: only differences and order count.
    pub score: f64,
}

/// A line of the judge stage's journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgeRow {
    /// A rating.
    Verdict(Verdict),
    /// A reward model's score.
    Score(RewardScore),
    /// None.
    Failure(JudgeFailure),
}

/// An answer that could not be rated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeFailure {
    /// Which judge.
    pub judge: String,
    /// Who wrote the answer.
    pub source: CandidateSource,
    /// Model name of the answer, or `human`.
    pub model: String,
    /// Row, sample and reason.
    #[serde(flatten)]
    pub failure: Failure,
}

/// Names one answer: record, source, model, sample.
pub type AnswerKey = (String, CandidateSource, String, u32);

/// The answer that a candidate is.
pub fn answer_key(candidate: &Candidate) -> AnswerKey {
    (candidate.record_id.clone(), candidate.source, candidate.model.clone(), candidate.sample_index)
}

impl JudgeRow {
    /// The answer that the row is about.
    pub fn answer(&self) -> AnswerKey {
        match self {
            Self::Verdict(Verdict { record_id, source, model, sample_index, .. })
            | Self::Score(RewardScore { record_id, source, model, sample_index, .. }) => {
                (record_id.clone(), *source, model.clone(), *sample_index)
            }
            Self::Failure(JudgeFailure { source, model, failure, .. }) => {
                (failure.record_id.clone(), *source, model.clone(), failure.sample_index)
            }
        }
    }

    /// Whose row it is.
    pub fn judge(&self) -> &str {
        match self {
            Self::Verdict(verdict) => &verdict.judge,
            Self::Score(score) => &score.judge,
            Self::Failure(failed) => &failed.judge,
        }
    }

    /// The answer and the judge: each such row is there once.
    pub fn key(&self) -> (AnswerKey, String) {
        (self.answer(), self.judge().to_owned())
    }

    /// The row for an answer that `judge` could not rate.
    pub fn failed(judge: &str, candidate: &Candidate, reason: &str, detail: String) -> Self {
        let (record_id, sample_index) = (candidate.record_id.clone(), candidate.sample_index);
        let failure = Failure { record_id, sample_index, reason: reason.to_owned(), detail };
        let judge = judge.to_owned();
        Self::Failure(JudgeFailure { judge, source: candidate.source, model: candidate.model.clone(), failure })
    }
}

/// Ratings and scores as verdicts. A reward model's scores become ratings by their place among all scores of this judge: the share of
/// scores below it, ties in the middle, from 1 to 5. Ranks need no unit and no shape of the distribution, and keep the order.
pub fn verdicts_of(rows: impl IntoIterator<Item = JudgeRow>) -> Vec<Verdict> {
    let (mut verdicts, mut scores) = (Vec::new(), Vec::new());
    for row in rows {
        match row {
            JudgeRow::Verdict(verdict) => verdicts.push(verdict),
            JudgeRow::Score(score) => scores.push(score),
            JudgeRow::Failure(_) => {}
        }
    }
    scores.sort_by(|a, b| a.judge.cmp(&b.judge).then(a.score.total_cmp(&b.score)));
    for same_judge in scores.chunk_by(|a, b| a.judge == b.judge) {
        let mut below = 0;
        for ties in same_judge.chunk_by(|a, b| a.score == b.score) {
            let share = (below as f64 + ties.len() as f64 / 2.0) / same_judge.len() as f64;
            below += ties.len();
            verdicts.extend(ties.iter().map(|score| Verdict {
                record_id: score.record_id.clone(),
                source: score.source,
                model: score.model.clone(),
                sample_index: score.sample_index,
                judge: score.judge.clone(),
                aspects: Vec::new(),
                rating: 1.0 + 4.0 * share,
                score: Some(score.score),
                reliable: true,
            }));
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_has_the_expected_moments() {
        let score = AspectScore::new("overall", &[0.1f64, 0.1, 0.1, 0.1, 0.4].map(f64::ln));
        assert!((score.label_mass - 0.8).abs() < 1e-12);
        assert!((score.mean - (1.0 + 2.0 + 3.0 + 4.0) * 0.125 - 2.5).abs() < 1e-12);
        assert!((score.distribution.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let uniform = AspectScore::new("overall", &[0.2f64.ln(); 5]);
        assert!((uniform.entropy - 5f64.ln()).abs() < 1e-12 && (uniform.mean - 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_judge_without_any_label_is_unreliable_not_a_number() {
        let score = AspectScore::new("overall", &[f64::NEG_INFINITY; 5]);
        assert_eq!(score.label_mass, 0.0);
        assert!((score.mean - 3.0).abs() < 1e-12);
    }
}

//! What a dataset looks like in numbers: funnel, margins, lengths, health of the judge. Knows judged prompts; writes
//! nothing. Every sum runs in a fixed order, so that the same rows give the same digits.

use std::collections::BTreeMap;

use serde::Serialize;

use super::columns::{PairRow, source_name};
use super::pairing::{JudgedPrompt, PairOutcome, PairingOptions};
use super::write::WrittenFile;
use crate::generate::{CandidateSource, FinishReason};
use crate::judge::AspectScore;
use crate::judge::agreement::{Estimate, Scale, krippendorff_alpha};
use crate::judge::known::{KnownResult, KnownShift, KnownTotal};
use crate::quality::QualitySummary;

/// Margins that the summary counts pairs for.
pub const MARGIN_STEPS: [f64; 6] = [0.0, 0.05, 0.1, 0.2, 0.5, 1.0];

/// TRL's default `max_length` (tokens of prompt and answer together).
pub const TRL_MAX_LENGTH: usize = 1024;

/// Longest text of a sample in the report, in characters.
const MAX_SAMPLE_CHARACTERS: usize = 1500;

/// The numbers of a dataset, for `--json`, the card and the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatasetSummary {
    /// Rows the source file had: `num_paired_prompts` plus the sum of `drops`.
    pub num_rows_in: u64,
    /// Rows that reading the source gave: the rows of `raw`.
    pub num_records: u64,
    /// Rows that gave a pair, or several.
    pub num_paired_prompts: u64,
    /// Pairs written, all splits.
    pub num_pairs: u64,
    /// Pairs in the train split.
    pub num_train_pairs: u64,
    /// Pairs in the test split.
    pub num_test_pairs: u64,
    /// Rows that are no pair by reason, those dropped while reading the source included.
    pub drops: BTreeMap<String, u64>,
    /// The options the pairs were made with.
    pub pairing: PairingOptions,
    /// How the number of pairs would move with the margin.
    pub pairs_at_margin: Vec<MarginCount>,
    /// Of the differences between best and worst answer of all rows that have two usable answers, ties included.
    pub margin_quantiles: Option<Quantiles>,
    /// Pairs of a human and a model answer.
    pub num_mixed_pairs: u64,
    /// Share of those in which the human answer is chosen, 0..=1; `None` without any.
    pub chosen_human_share: Option<f64>,
    /// Answers by source (`human`, `model`) and rating, rounded to 1, 2, 3, 4, 5.
    pub rating_histogram: BTreeMap<String, [u64; 5]>,
    /// Answers in pairs that ended at the token limit.
    pub num_truncated_answers: u64,
    /// Prompts in pairs with more than 1024 (TRL's default `max_length`) characters that are not white space.
    pub num_long_prompts: u64,
    /// Pairs in which prompt plus longer answer have more than 1024 such characters.
    pub num_long_pairs: u64,
    /// What checks found in answers and rows.
    pub quality: QualitySummary,
    /// Of the answers in pairs; `None` without pairs.
    pub lengths: Option<LengthStats>,
    /// `None` without verdicts.
    pub judge_health: Option<JudgeHealth>,
    /// Candidates and verdicts whose record is not among the records: a sign of a journal of another run.
    pub num_orphan_candidates: u64,
    /// See `num_orphan_candidates`.
    pub num_orphan_verdicts: u64,
    /// True if generator and judge are one model.
    pub same_model_judge: bool,
    /// What was written, the card excepted.
    pub files: Vec<WrittenFile>,
    /// For the report alone.
    #[serde(skip)]
    pub samples: Vec<SamplePair>,
}

/// How many pairs there would be at a margin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MarginCount {
    /// Smallest rating difference.
    pub margin: f64,
    /// Pairs there would be.
    pub num_pairs: u64,
}

/// Quantiles by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// Smallest value.
    pub min: f64,
    /// Tenth percentile.
    pub p10: f64,
    /// Lower quartile.
    pub p25: f64,
    /// Median.
    pub p50: f64,
    /// Upper quartile.
    pub p75: f64,
    /// Ninetieth percentile.
    pub p90: f64,
    /// Largest value.
    pub max: f64,
}

impl Quantiles {
    /// `None` without values.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            values.get(rank.saturating_sub(1).min(last)).copied()
        };
        Some(Self {
            min: at(0.0)?,
            p10: at(0.1)?,
            p25: at(0.25)?,
            p50: at(0.5)?,
            p75: at(0.75)?,
            p90: at(0.9)?,
            max: at(1.0)?,
        })
    }
}

/// Lengths of the answers in pairs, in characters (Unicode scalar values).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LengthStats {
    /// Of chosen answers.
    pub chosen: Quantiles,
    /// Of rejected answers.
    pub rejected: Quantiles,
    /// Share of pairs whose chosen answer is the longer one, 0..=1.
    pub chosen_longer_share: f64,
}

/// Whether the judge was willing and decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JudgeHealth {
    /// Names, sorted.
    pub judges: Vec<String>,
    /// Verdicts given.
    pub num_verdicts: u64,
    /// Mean over all aspects of all verdicts, 0..=1.
    pub mean_label_mass: f64,
    /// The same in nats, 0..=ln 5.
    pub mean_entropy: f64,
    /// Share of verdicts marked unreliable, 0..=1.
    pub unreliable_share: f64,
    /// Share of comparisons in which the same answer wins whichever is shown first; `None` without comparisons.
    pub order_consistency: Option<Estimate>,
    /// Krippendorff's alpha of the judges' ratings, rounded to 1 to 5, as ordinals; `None` with one judge.
    pub agreement: Option<f64>,
    /// Share of pairs that all judges of a panel see the same way; `None` with one judge.
    pub agreeing_pairs: Option<Estimate>,
    /// Each judge's say.
    pub weights: BTreeMap<String, f64>,
    /// What the judges made of known answers, by test.
    pub known_answers: Vec<KnownResult>,
    /// The same over all tests.
    pub known_totals: Vec<KnownTotal>,
    /// How far an appended demand for the best rating moves each judge.
    pub known_shifts: Vec<KnownShift>,
}

/// A pair to read.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplePair {
    /// The record.
    pub id: String,
    /// Cut if long.
    pub prompt: String,
    /// Cut if long.
    pub chosen: String,
    /// Cut if long.
    pub rejected: String,
    /// Who wrote the chosen answer.
    pub chosen_model: String,
    /// Who wrote the rejected answer.
    pub rejected_model: String,
    /// Continuous, 1.0..=5.0; `None` if no judge rated it.
    pub chosen_rating: Option<f64>,
    /// Continuous, 1.0..=5.0; `None` if no judge rated it.
    pub rejected_rating: Option<f64>,
}

impl DatasetSummary {
    /// Counts the rows. `prompts` is in the order of the files; `source_drops` are the rows that reading the source left out.
    pub fn count(prompts: &[JudgedPrompt<'_>], source_drops: &BTreeMap<String, u64>, pairing: PairingOptions) -> Self {
        let pairs: Vec<PairRow<'_>> = prompts.iter().flat_map(PairRow::all).collect();
        let mut drops = source_drops.clone();
        drops.retain(|_, num_rows| *num_rows > 0);
        for prompt in prompts {
            if let PairOutcome::Dropped(reason) = &prompt.outcome {
                *drops.entry(reason.as_str().to_string()).or_default() += 1;
            }
        }
        let differences: Vec<f64> = prompts.iter().filter_map(|prompt| prompt.difference).collect();
        let is_mixed = |pair: &&PairRow<'_>| pair.chosen.candidate.source != pair.rejected.candidate.source;
        let num_mixed_pairs = count_of(pairs.iter().filter(is_mixed));
        let num_human_chosen = count_of(
            pairs.iter().filter(is_mixed).filter(|pair| pair.chosen.candidate.source == CandidateSource::Human),
        );
        let at_margin = |&margin: &f64| MarginCount {
            margin,
            num_pairs: count_of(differences.iter().filter(|&&difference| difference > 0.0 && difference >= margin)),
        };
        let visible_length = |text: &str| text.chars().filter(|character| !character.is_whitespace()).count();
        let prompt_length = |pair: &PairRow<'_>| visible_length(&pair.judged.record.prompt);
        let pair_length = |pair: &PairRow<'_>| {
            let [chosen, rejected] = [pair.chosen, pair.rejected].map(|answer| visible_length(&answer.candidate.text));
            prompt_length(pair) + chosen.max(rejected)
        };
        let is_cut =
            |answer: &&super::pairing::RatedAnswer<'_>| answer.candidate.finish_reason == Some(FinishReason::Length);
        Self {
            num_rows_in: prompts.len() as u64 + source_drops.values().sum::<u64>(),
            num_records: prompts.len() as u64,
            num_paired_prompts: count_of(prompts.iter().filter(|prompt| prompt.outcome.pair().is_some())),
            num_pairs: pairs.len() as u64,
            num_train_pairs: 0,
            num_test_pairs: 0,
            drops,
            pairing,
            pairs_at_margin: MARGIN_STEPS.iter().map(at_margin).collect(),
            margin_quantiles: Quantiles::of(differences.clone()),
            num_mixed_pairs,
            chosen_human_share: share(num_human_chosen, num_mixed_pairs),
            rating_histogram: rating_histogram(prompts),
            num_truncated_answers: count_of(pairs.iter().flat_map(|pair| [pair.chosen, pair.rejected]).filter(is_cut)),
            num_long_prompts: count_of(pairs.iter().filter(|pair| prompt_length(pair) > TRL_MAX_LENGTH)),
            num_long_pairs: count_of(pairs.iter().filter(|pair| pair_length(pair) > TRL_MAX_LENGTH)),
            lengths: length_stats(&pairs),
            judge_health: judge_health(prompts),
            quality: QualitySummary::default(),
            num_orphan_candidates: 0,
            num_orphan_verdicts: 0,
            same_model_judge: false,
            files: Vec::new(),
            samples: Vec::new(),
        }
    }
}

fn count_of<T>(items: impl Iterator<Item = T>) -> u64 {
    items.count() as u64
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn rating_histogram(prompts: &[JudgedPrompt<'_>]) -> BTreeMap<String, [u64; 5]> {
    let mut histogram: BTreeMap<String, [u64; 5]> = BTreeMap::new();
    for answer in prompts.iter().flat_map(|prompt| &prompt.answers) {
        let Some(rating) = answer.rating.filter(|rating| rating.is_finite()) else { continue };
        let bins = histogram.entry(source_name(answer.candidate.source).to_string()).or_default();
        if let Some(bin) = bins.get_mut((rating.round().clamp(1.0, 5.0) as usize).saturating_sub(1)) {
            *bin += 1;
        }
    }
    histogram
}

fn length_stats(pairs: &[PairRow<'_>]) -> Option<LengthStats> {
    let lengths: Vec<(f64, f64)> = pairs
        .iter()
        .map(|pair| [pair.chosen, pair.rejected].map(|answer| answer.candidate.text.chars().count() as f64))
        .map(|[chosen, rejected]| (chosen, rejected))
        .collect();
    Some(LengthStats {
        chosen: Quantiles::of(lengths.iter().map(|pair| pair.0).collect())?,
        rejected: Quantiles::of(lengths.iter().map(|pair| pair.1).collect())?,
        chosen_longer_share: share(count_of(lengths.iter().filter(|pair| pair.0 > pair.1)), lengths.len() as u64)?,
    })
}

fn judge_health(prompts: &[JudgedPrompt<'_>]) -> Option<JudgeHealth> {
    let verdicts: Vec<_> =
        prompts.iter().flat_map(|prompt| &prompt.answers).flat_map(|answer| &answer.verdicts).collect();
    let scores: Vec<&AspectScore> = verdicts.iter().flat_map(|verdict| &verdict.aspects).collect();
    let mean = |value: fn(&AspectScore) -> f64| {
        if scores.is_empty() { 0.0 } else { scores.iter().map(|score| value(score)).sum::<f64>() / scores.len() as f64 }
    };
    let mut judges: Vec<String> = verdicts.iter().map(|verdict| verdict.judge.clone()).collect();
    judges.sort();
    judges.dedup();
    let num_verdicts = verdicts.len() as u64;
    let comparisons = || prompts.iter().flat_map(|prompt| &prompt.comparisons);
    let num_consistent = count_of(comparisons().filter(|comparison| comparison.consistent));
    let units: Vec<Vec<f64>> = prompts
        .iter()
        .flat_map(|prompt| &prompt.answers)
        .map(|answer| answer.verdicts.iter().map(|verdict| verdict.rating.round().clamp(1.0, 5.0)).collect())
        .collect();
    let agreeing: Vec<bool> =
        prompts.iter().flat_map(|prompt| prompt.outcome.pairs()).filter_map(|pair| pair.judges_agree).collect();
    Some(JudgeHealth {
        order_consistency: Estimate::share(num_consistent, count_of(comparisons())),
        agreement: if judges.len() > 1 { krippendorff_alpha(&units, Scale::Ordinal) } else { None },
        agreeing_pairs: Estimate::share(count_of(agreeing.iter().filter(|agree| **agree)), agreeing.len() as u64),
        weights: BTreeMap::new(),
        known_answers: Vec::new(),
        known_totals: Vec::new(),
        known_shifts: Vec::new(),
        judges,
        num_verdicts,
        mean_label_mass: mean(|score| score.label_mass),
        mean_entropy: mean(|score| score.entropy),
        unreliable_share: share(count_of(verdicts.iter().filter(|verdict| !verdict.reliable)), num_verdicts)?,
    })
}

/// A pair as the report shows it, with long texts cut.
pub fn sample_of(pair: &PairRow<'_>) -> SamplePair {
    let cut = |text: &str| {
        let mut shown: String = text.chars().take(MAX_SAMPLE_CHARACTERS).collect();
        if shown.len() < text.len() {
            shown.push_str(" […]");
        }
        shown
    };
    SamplePair {
        id: pair.judged.record.id.clone(),
        prompt: cut(&pair.judged.record.prompt),
        chosen: cut(&pair.chosen.candidate.text),
        rejected: cut(&pair.rejected.candidate.text),
        chosen_model: pair.chosen.candidate.model.clone(),
        rejected_model: pair.rejected.candidate.model.clone(),
        chosen_rating: pair.pair.chosen_rating,
        rejected_rating: pair.pair.rejected_rating,
    }
}

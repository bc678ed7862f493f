//! The numbers of a report, as the page and the JSON have them. Knows what is counted; counts nothing itself.

use std::collections::BTreeMap;

use serde::Serialize;

use super::examples::ExampleGroup;
use super::predicted::Predicted;
use crate::dataset::{MarginCount, PairingOptions, Quantiles};
use crate::generate::StageSpeed;
use crate::judge::Share;
use crate::judge::agreement::Estimate;
use crate::judge::known::KnownShift;

/// Bins of a side of [`Couples::grid`]: half a step each.
pub const GRID_BINS: usize = 8;

/// Everything that the report says, examples included. Shares come with their count, total and 95 % interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReportData {
    /// What the run was made from.
    pub made: Made,
    /// What became of the rows.
    pub funnel: Funnel,
    /// Of pairs of a human and a model answer: the human one is chosen.
    pub human_chosen: Option<Share>,
    /// Of all pairs: the chosen answer has more characters.
    pub longer_chosen: Option<Share>,
    /// Of all verdicts: marked unreliable.
    pub unreliable: Option<Share>,
    /// Of the answers in pairs: cut at the token limit.
    pub truncated: Option<Share>,
    /// Ratings of human answers.
    pub human_ratings: RatingBins,
    /// Ratings of model answers.
    pub model_ratings: RatingBins,
    /// Each human answer beside each model answer to the same prompt.
    pub couples: Couples,
    /// Differences of ratings.
    pub margins: Margins,
    /// Lengths of the answers in pairs.
    pub lengths: Option<Lengths>,
    /// Whether the judges were willing and decided.
    pub judges: Option<Judges>,
    /// What the judge said by aspect.
    pub aspects: Vec<AspectRow>,
    /// By language, most rows first.
    pub languages: Vec<LanguageRow>,
    /// Languages of the answers, where they were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_checks: Option<Vec<LanguageCheck>>,
    /// Verdicts on two answers in both orders, where a judge was asked so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_consistency: Option<Vec<OrderConsistency>>,
    /// Agreement of judges, where there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<JudgeAgreement>,
    /// Tests of the judge whose answer is known, where they were run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_answers: Option<Vec<KnownAnswer>>,
    /// The same over all tests of a judge and language.
    pub known_totals: Vec<KnownTotal>,
    /// How far an appended demand for the best rating moves each judge, over all languages.
    pub known_shifts: Vec<KnownShift>,
    /// What is left to do, where the report was asked for before the run's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Unfinished>,
    /// How fast this run's machines were, a stage and session each; of them alone, so pages that are compared have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speeds: Option<Vec<StageSpeed>>,
    /// What a plan said that these would take, where one was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Vec<Predicted>>,
    /// Answers and verdicts of no record of this run.
    pub num_orphans: u64,
    /// Rows to read.
    pub examples: Vec<ExampleGroup>,
}

/// What a run was made from: the published part of its lock.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Made {
    /// Version of this tool.
    pub tool_version: String,
    /// The run's pinned date.
    pub created: String,
    /// Seed of all sampling.
    pub seed: u64,
    /// Language, or their number in words; may be empty.
    pub language: String,
    /// Hub name of the source, if it was given.
    pub source: Option<String>,
    /// Licence of the source, if it was given.
    pub source_license: Option<String>,
    /// SHA-256 of the source.
    pub source_sha256: String,
    /// SHA-256 of the rubric.
    pub rubric_sha256: Option<String>,
    /// What makes a pair.
    pub pairing: PairingOptions,
    /// The models, generator first.
    pub models: Vec<MadeModel>,
    /// A judge also wrote answers.
    pub same_model_judge: bool,
    /// What changed on the way and was accepted.
    pub accepted_changes: Vec<String>,
}

/// A model of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MadeModel {
    /// `generator` or `judge`.
    pub role: &'static str,
    /// As the columns have it.
    pub name: String,
    /// Formats of weights, activations and cache.
    pub dtype: String,
    /// Licence as the model's card states it, if known.
    pub license: Option<String>,
    /// Nobody should train on what it says.
    pub is_for_show: bool,
}

/// Rows in, pairs out, and why the others are none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Funnel {
    /// Rows of the source.
    pub num_rows_in: u64,
    /// Rows that passed the filters of reading.
    pub num_records: u64,
    /// Pairs; a row may give several.
    pub num_pairs: u64,
    /// Of the rows in: those with a pair.
    pub paired: Option<Share>,
    /// Of the rows in: dropped, by reason, most first.
    pub drops: Vec<DropRow>,
}

/// Rows dropped for one reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DropRow {
    /// As the columns have it.
    pub reason: String,
    /// In words, where there are some.
    pub meaning: String,
    /// Of the rows in.
    pub rows: Share,
}

/// Counts of ratings from 1 to 5 in bins of equal width, the last one with its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RatingBins {
    /// Rated answers.
    pub num_answers: u64,
    /// Their mean; `None` without any.
    pub mean: Option<f64>,
    /// Counts.
    pub bins: Vec<u64>,
}

/// Human answers beside model answers to the same prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Couples {
    /// Of all couples: the human answer has the higher rating.
    pub human_higher: Option<Share>,
    /// Of all couples: the model's answer has the higher rating.
    pub model_higher: Option<Share>,
    /// Counts in half steps from 1 to 5: row by the human rating, column by the model's.
    pub grid: [[u64; GRID_BINS]; GRID_BINS],
}

/// Differences of the best and worst answer of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Margins {
    /// Prompts with two usable answers of different text.
    pub num_prompts: u64,
    /// Of their differences.
    pub quantiles: Option<Quantiles>,
    /// By difference.
    pub bins: Vec<MarginBin>,
    /// Pairs there would be, over a fine grid of margins.
    pub pairs_at_margin: Vec<MarginCount>,
}

/// Prompts whose difference lies in one bin, by who was chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct MarginBin {
    /// Lower end.
    pub from: f64,
    /// A human answer is chosen.
    pub num_human: u64,
    /// A model's answer is chosen.
    pub num_model: u64,
    /// No pair: closer than the margin.
    pub num_ties: u64,
}

/// Lengths in characters (Unicode scalar values).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lengths {
    /// Of chosen answers.
    pub chosen: Quantiles,
    /// Of rejected answers.
    pub rejected: Quantiles,
    /// Pairs by the chosen length over the rejected one, in the bins of [`Lengths::RATIOS`].
    pub num_by_ratio: [u64; 7],
    /// Chosen and rejected length of pairs, drawn by the seed if there are many.
    pub points: Vec<[u64; 2]>,
}

impl Lengths {
    /// What the bins of `num_by_ratio` hold.
    pub const RATIOS: [&'static str; 7] =
        ["under 1/4", "1/4 to 1/2", "1/2 to 1", "equally long", "1 to 2", "2 to 4", "over 4"];
}

/// Whether the judges were willing and decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judges {
    /// Names, sorted.
    pub names: Vec<String>,
    /// Verdicts given.
    pub num_verdicts: u64,
    /// Mean probability of all labels together over all aspects of all verdicts, 0..=1.
    pub mean_label_mass: f64,
    /// Mean entropy in nats, 0..=ln 5.
    pub mean_entropy: f64,
}

/// What the judge said of one aspect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AspectRow {
    /// Its name in the rubric.
    pub aspect: String,
    /// Scores of human answers.
    pub num_human: u64,
    /// Their mean.
    pub mean_human: Option<f64>,
    /// Scores of model answers.
    pub num_model: u64,
    /// Their mean.
    pub mean_model: Option<f64>,
    /// Mean probability of all labels together, 0..=1.
    pub mean_label_mass: f64,
    /// Mean entropy in nats.
    pub mean_entropy: f64,
}

/// The rows of one language.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LanguageRow {
    /// Name as the source has it.
    pub language: String,
    /// Code as the source has it.
    pub code: String,
    /// Rows that passed the filters of reading.
    pub num_records: u64,
    /// Of these: those with a pair.
    pub paired: Option<Share>,
    /// See [`ReportData::human_chosen`].
    pub human_chosen: Option<Share>,
    /// See [`ReportData::longer_chosen`].
    pub longer_chosen: Option<Share>,
}

/// What language identification said of the answers of one source in one language.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LanguageCheck {
    /// Language that was expected.
    pub language: String,
    /// `human` or `model`.
    pub source: String,
    /// Answers in it.
    pub num_ok: u64,
    /// Answers partly in it.
    pub num_mixed: u64,
    /// Answers in another one.
    pub num_wrong: u64,
    /// Answers that could not be told.
    pub num_unsure: u64,
}

/// A judge that saw two answers in both orders.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OrderConsistency {
    /// Its name.
    pub judge: String,
    /// Of the comparisons: the same answer wins in both orders.
    pub consistent: Share,
    /// Of all single looks: the answer that stood first was preferred. A judge without a bias has one half.
    pub first_preferred: Option<Share>,
}

/// Several judges over the same answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JudgeAgreement {
    /// Krippendorff's alpha of their ratings as ordinals: 1 is perfect agreement, 0 that of chance.
    pub alpha: Option<f64>,
    /// Of the pairs: all judges see them the same way.
    pub same_preference: Option<Share>,
    /// Each judge's say.
    pub weights: BTreeMap<String, f64>,
}

/// One test of a judge in one language: of all tries, those in which it said what is known to be right.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KnownAnswer {
    /// The judge.
    pub judge: String,
    /// `rating`, or `pairwise`.
    pub method: &'static str,
    /// In which language.
    pub language: String,
    /// How the answers were spoilt, as the columns have it.
    pub test: &'static str,
    /// Of the tries: passed. `None` where nothing is right or wrong.
    pub passed: Option<Share>,
    /// How far a demand for the best rating moved the answer.
    pub shift: Option<Estimate>,
}

/// All tests of a judge in one language.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KnownTotal {
    /// The judge.
    pub judge: String,
    /// In which language.
    pub language: String,
    /// Of the tries in which one answer is the better one: passed. Guessing passes one half.
    pub passed: Share,
}

/// Rows that are still to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// Answers that are there.
    pub num_answers: u64,
    /// Answers that will be.
    pub num_answers_wanted: u64,
    /// Ratings that are there.
    pub num_ratings: u64,
}

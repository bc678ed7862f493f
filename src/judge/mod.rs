//! Verdicts: what a judge model thinks of an answer, read from its label distribution without decoding.
//! Knows prompts, candidates and the engine; knows nothing of pairs or files.

use serde::{Deserialize, Serialize};

use crate::generate::CandidateSource;

/// A judge's label distribution for one aspect of one answer. Labels are the ratings 1..=5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AspectScore {
    pub aspect: String,
    /// Probability of each label 1..=5, normalised to sum 1 over the labels.
    pub distribution: [f64; 5],
    /// Expectation of the label under `distribution`, 1.0..=5.0.
    pub mean: f64,
    /// Shannon entropy of `distribution` in nats, 0..=ln 5.
    pub entropy: f64,
    /// Probability the labels hold together under the judge's full vocabulary, 0..=1. Low: it did not want to rate.
    pub label_mass: f64,
}

/// What one judge says of one candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub record_id: String,
    pub source: CandidateSource,
    pub model: String,
    pub sample_index: u32,
    /// Judge model's name.
    pub judge: String,
    pub aspects: Vec<AspectScore>,
    /// Weighted mean over the aspects' means, 1.0..=5.0.
    pub rating: f64,
    /// False if an aspect's `label_mass` is under the threshold: the rating is then not used for pairs.
    pub reliable: bool,
}

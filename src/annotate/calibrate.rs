//! The judge held against people's votes: aspect weights and a margin that fit them better, if any do beyond chance.
//! Knows couples of answers that people decided; writes nothing, and knows nothing of rubrics or models.
//!
//! Weights are those of a logistic regression of people's choices on the differences of aspect means (the model of R. A. Bradley and M. E.
//! Terry 1952 with features), none below 0, and everything that is said of them is said of prompts they were not fitted to.

use serde::Serialize;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::agreement::Decided;
use crate::judge::{AspectWeight, AspectWeights, Share};

/// Parts into which the prompts are cut, unless told otherwise.
pub const DEFAULT_FOLDS: usize = 5;
/// Couples that a fold should have: fewer say nothing of it.
const COUPLES_PER_FOLD: usize = 10;
/// Sweeps over the weights; they stand still long before.
const NUM_SWEEPS: usize = 400;
/// Strength of the penalty on the squares of the weights, against those of unbounded size where couples are separated perfectly.
const RIDGE: f64 = 1.0;
/// Margins are looked for in steps of so much.
const MARGIN_STEP: f64 = 0.05;
/// Up to so many steps.
const NUM_MARGIN_STEPS: u32 = 40;
/// Standard normal quantile of a two-sided 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;

/// Why nothing can be fitted.
#[derive(Debug, Error)]
#[error(
    "people decided {num_couples} couples of answers that the judge rated, and {num_folds} folds want {wanted} or more\n\
     hint: more votes, or fewer --folds (2 or more)"
)]
pub struct TooFewCouples {
    /// Couples there are.
    pub num_couples: usize,
    /// Folds asked for.
    pub num_folds: usize,
    /// Couples that they want.
    pub wanted: usize,
}

/// A difference of two shares of the same couples, with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gain {
    /// After minus before.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A margin under which the judge is no better than a coin, and above which it is clearly better than under it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MarginAdvice {
    /// Smallest difference of ratings.
    pub margin: f64,
    /// How often the judge is right on couples under it.
    pub below: Share,
    /// And on those with it.
    pub above: Share,
}

/// What a calibration found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// Couples that people decided and the judge rated in all aspects.
    pub num_couples: usize,
    /// Parts of the prompts, each of which was left out once.
    pub num_folds: usize,
    /// Weights fitted to all couples, their sum being 1; `None` with one aspect, or if no aspect points where people point.
    pub weights: Option<AspectWeights>,
    /// How often the judge's own rating is higher for what people prefer; equal ratings are no hit.
    pub before: Share,
    /// The same with weights that were fitted to the other folds.
    pub after: Option<Share>,
    /// Their difference on the same couples.
    pub gain: Option<Gain>,
    /// The gain's interval lies above 0: these weights are worth using.
    pub is_advised: bool,
    /// On held-out ratings if the weights are advised, else on the judge's own; `None` if votes show no such margin.
    pub margin: Option<MarginAdvice>,
}

/// One couple: the differences, chosen minus rejected.
struct Case {
    fold: usize,
    rating: f64,
    aspects: Vec<f64>,
}

/// Fits weights and margin to couples that people decided.
///
/// # Errors
/// [`TooFewCouples`].
pub fn calibrate(decided: &[Decided<'_>], num_folds: usize) -> Result<Calibration, TooFewCouples> {
    let num_folds = num_folds.max(2);
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in decided.iter().flat_map(|couple| &couple.chosen.aspects) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let case = |couple: &Decided<'_>| {
        let aspects = names.iter().map(|name| couple.aspect_margin(name)).collect::<Option<Vec<f64>>>()?;
        let fold = (xxh3_64(couple.prompt.as_bytes()) % num_folds as u64) as usize;
        Some(Case { fold, rating: couple.margin()?, aspects })
    };
    let cases: Vec<Case> = decided.iter().filter_map(case).collect();
    let wanted = num_folds * COUPLES_PER_FOLD;
    let too_few = TooFewCouples { num_couples: cases.len(), num_folds, wanted };
    if cases.len() < wanted {
        return Err(too_few);
    }
    let is_before: Vec<bool> = cases.iter().map(|case| case.rating > 0.0).collect();
    let Some(before) = share_of(&is_before) else { return Err(too_few) };
    // With one aspect there is nothing to weigh.
    let weights = if names.len() > 1 { fit(&cases, names.len(), None) } else { None };
    let held_out: Option<Vec<f64>> = weights.as_ref().and_then(|_| {
        let fitted: Vec<Vec<f64>> =
            (0..num_folds).map(|fold| fit(&cases, names.len(), Some(fold))).collect::<Option<_>>()?;
        Some(cases.iter().map(|case| dot(&fitted[case.fold], &case.aspects)).collect())
    });
    let is_after = held_out.as_ref().map(|ratings| ratings.iter().map(|rating| *rating > 0.0).collect::<Vec<bool>>());
    let gain = is_after.as_ref().map(|is_after| gain(&is_before, is_after));
    let is_advised = gain.is_some_and(|gain| gain.low > 0.0);
    let own = || cases.iter().map(|case| case.rating).collect();
    let ratings: Vec<f64> = held_out.filter(|_| is_advised).unwrap_or_else(own);
    let named = |weights: Vec<f64>| {
        let aspects = names.iter().zip(weights).map(|(name, weight)| AspectWeight {
            name: (*name).to_owned(),
            // Four digits: more than votes can tell apart.
            weight: (weight * 10_000.0).round() / 10_000.0,
        });
        AspectWeights { aspects: aspects.collect() }
    };
    Ok(Calibration {
        num_couples: cases.len(),
        num_folds,
        weights: weights.map(named),
        before,
        after: is_after.as_deref().and_then(share_of),
        gain,
        is_advised,
        margin: margin(&ratings),
    })
}

fn dot(weights: &[f64], values: &[f64]) -> f64 {
    weights.iter().zip(values).map(|(weight, value)| weight * value).sum()
}

fn share_of(is_right: &[bool]) -> Option<Share> {
    Share::of(is_right.iter().filter(|right| **right).count() as u64, is_right.len() as u64)
}

/// The weights, of sum 1, under which people's choices in all folds but one are most likely; `None` if that is none at all. Coordinate
/// descent on the penalised logistic loss: each step takes the curvature's upper bound, a quarter, so that the loss never grows, and stops
/// at 0. The order of all sums is fixed, so the same votes give the same digits.
fn fit(cases: &[Case], num_aspects: usize, left_out: Option<usize>) -> Option<Vec<f64>> {
    let used: Vec<&Case> = cases.iter().filter(|case| left_out != Some(case.fold)).collect();
    let mut weights = vec![0.0; num_aspects];
    let mut scores = vec![0.0; used.len()];
    for _ in 0..NUM_SWEEPS {
        for (at, weight) in weights.iter_mut().enumerate() {
            let (mut slope, mut curvature) = (RIDGE * *weight, RIDGE);
            for (case, score) in used.iter().zip(&scores) {
                let value = case.aspects[at];
                let score: f64 = *score;
                slope -= value / (1.0 + score.exp());
                curvature += value * value / 4.0;
            }
            let moved = (*weight - slope / curvature).max(0.0) - *weight;
            *weight += moved;
            for (case, score) in used.iter().zip(&mut scores) {
                *score += moved * case.aspects[at];
            }
        }
    }
    let sum: f64 = weights.iter().sum();
    (sum > 0.0).then(|| weights.into_iter().map(|weight| weight / sum).collect())
}

/// The difference of two shares of the same couples, with the normal interval of paired proportions (A. Agresti 2002, Categorical Data
/// Analysis, section 10.1.1), in which only couples count that one of the two has right.
fn gain(before: &[bool], after: &[bool]) -> Gain {
    let n = before.len() as f64;
    let both = || before.iter().zip(after);
    let won = both().filter(|(before, after)| !**before && **after).count() as f64;
    let lost = both().filter(|(before, after)| **before && !**after).count() as f64;
    let value = (won - lost) / n;
    let half = Z_95 * (won + lost - (won - lost).powi(2) / n).max(0.0).sqrt() / n;
    Gain { value, low: value - half, high: value + half }
}

/// The largest margin under which the judge may as well throw a coin, and is clearly worse than above it.
fn margin(ratings: &[f64]) -> Option<MarginAdvice> {
    let advice = |step: u32| {
        let margin = f64::from(step) * MARGIN_STEP;
        let (below, above): (Vec<f64>, Vec<f64>) = ratings.iter().partition(|rating| rating.abs() < margin);
        let right = |ratings: &[f64]| share_of(&ratings.iter().map(|rating| *rating > 0.0).collect::<Vec<bool>>());
        let (below, above) = (right(&below)?, right(&above)?);
        (below.low <= 0.5 && below.high < above.low).then_some(MarginAdvice { margin, below, above })
    };
    (1..=NUM_MARGIN_STEPS).rev().find_map(advice)
}

impl Calibration {
    /// The weights as a file, with what is known of them in its first lines; `None` without weights.
    pub fn to_toml(&self) -> Option<String> {
        let mut text =
            String::from("# Weights of the judge's aspects, fitted to people's votes by `pairwright calibrate`.\n");
        for line in self.in_words() {
            text += &format!("# {line}\n");
        }
        for AspectWeight { name, weight } in &self.weights.as_ref()?.aspects {
            let name = toml::Value::from(name.as_str());
            text += &format!("\n[[aspect]]\nname = {name}\nweight = {weight}\n");
        }
        Some(text)
    }

    /// What was found, for people: a line each.
    pub fn in_words(&self) -> Vec<String> {
        let share = |share: &Share| {
            let [value, low, high] = [share.share, share.low, share.high].map(|part| 100.0 * part);
            format!("{value:.1} % ({} of {}, 95 %: {low:.1} to {high:.1})", share.count, share.total)
        };
        let mut lines = vec![format!(
            "{} couples of answers that people decided, {} folds; the judge prefers the same answer in {}",
            self.num_couples,
            self.num_folds,
            share(&self.before)
        )];
        lines.push(match (&self.after, self.gain) {
            (Some(after), Some(gain)) => {
                let [value, low, high] = [gain.value, gain.low, gain.high].map(|part| 100.0 * part);
                let verdict = if self.is_advised { "use them" } else { "no more than chance gives: do not use them" };
                format!(
                    "with fitted weights, on prompts left out of the fit: {}; gain {value:+.1} points (95 %: {low:+.1} to {high:+.1}): {verdict}",
                    share(after)
                )
            }
            _ => "no weights to fit: the judge rates one aspect, or none points where people point".to_owned(),
        });
        lines.push(match &self.margin {
            Some(advice) => format!(
                "under a margin of {:.2} the judge is no better than a coin, {}; with it {}: `pair --margin {:.2}`",
                advice.margin,
                share(&advice.below),
                share(&advice.above),
                advice.margin
            ),
            None => {
                "the votes show no margin under which the judge is no better than a coin: leave it as it is".to_owned()
            }
        });
        lines
    }
}

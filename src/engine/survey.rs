//! What one pass over a row of logits tells: for each run of 256 the largest logit, the sum of exp beside it and the sum of
//! weights under the temperature. Runs are summed in fixed lanes and joined in order, so the bits are the same on every
//! instruction set. Knows no parameters but the temperature; chooses nothing.

use crate::ops::simd::{LANES, Vectorised, dispatch, exp, max, reduce_add};

/// Logits per run: short enough that its second reading comes from the nearest cache.
const RUN: usize = 256;

/// Of one run of logits.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The largest; NaN is skipped.
    max: f32,
    /// Of [`weight`]s under the temperature, first beside the run's largest, in the end beside the row's; 0 without one.
    total: f64,
}

/// Of a row of logits.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The largest logit; negative infinity if there is none.
    pub best: f32,
    /// ln Σ exp(logits).
    pub log_sum: f64,
    temperature: f32,
    runs: Vec<Run>,
}

impl Survey {
    /// Reads `logits` once. A `temperature` of 0 leaves the weights out.
    pub fn of(logits: &[f32], temperature: f32) -> Self {
        dispatch(Pass { logits, temperature: temperature.max(0.0) })
    }

    /// The first of the largest logits.
    pub fn argmax(&self, logits: &[f32]) -> u32 {
        let run = self.runs.iter().position(|run| run.max == self.best).unwrap_or(0);
        let start = run * RUN;
        logits[start..].iter().position(|&logit| logit == self.best).map_or(0, |index| (start + index) as u32)
    }

    /// Sum of all weights.
    pub fn total(&self) -> f64 {
        self.runs.iter().map(|run| run.total).sum()
    }

    /// The weights of these logits of the row: 1 for the largest even if it is infinite, none for NaN.
    pub fn weights(&self, logits: &[f32]) -> Vec<f64> {
        dispatch(Weights { logits, best: self.best, temperature: self.temperature })
    }

    /// The token whose share of all weights, summed in order, holds `u` of [0, 1). Reads one run.
    pub fn draw(&self, logits: &[f32], u: f64) -> u32 {
        let mut left = u * self.total();
        let chosen = self.runs.iter().position(|run| {
            let holds = left < run.total;
            left -= if holds { 0.0 } else { run.total };
            holds
        });
        // Only rounding, or a row without weights, leads past the end.
        let last = || self.runs.iter().rposition(|run| run.total > 0.0).unwrap_or(0);
        let start = chosen.unwrap_or_else(last) * RUN;
        let weights = self.weights(&logits[start..logits.len().min(start + RUN)]);
        (start + pick(&weights, left)) as u32
    }

    /// The `count` largest logits with their tokens, largest first, ties by token. NaN counts as negative infinity, and zeros
    /// as equal whatever their sign, as in [`Self::argmax`].
    pub fn likeliest(&self, logits: &[f32], count: usize) -> Vec<(u32, f32)> {
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let ordered = |logit: f32| if logit.is_nan() { f32::NEG_INFINITY } else { logit + 0.0 };
        // As many logits as wanted are no smaller than the largest ones of as many runs: others need not be looked at.
        let mut largest: Vec<f32> = self.runs.iter().map(|run| run.max).collect();
        let floor = match (1..=largest.len()).contains(&count) {
            true => *largest.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1,
            false => f32::NEG_INFINITY,
        };
        let mut all = Vec::new();
        for (index, _) in self.runs.iter().enumerate().filter(|(_, run)| run.max >= floor) {
            let entries = (index * RUN..).zip(&logits[index * RUN..]).take(RUN);
            let high = entries.filter(|&(_, &logit)| logit >= floor || floor == f32::NEG_INFINITY);
            all.extend(high.map(|(id, &logit)| (id as u32, ordered(logit))));
        }
        if count < all.len() {
            all.select_nth_unstable_by(count, order);
            all.truncate(count);
        }
        all.sort_unstable_by(order);
        all
    }
}

/// Index whose share of the weights, summed in order, holds `left` of their sum.
pub fn pick(weights: &[f64], mut left: f64) -> usize {
    for (index, &weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return index;
        }
    }
    weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0)
}

/// exp((logit - best) / temperature), 1 for `best` itself even if it is infinite, 0 for NaN.
#[inline(always)]
fn weight(logit: f32, best: f32, temperature: f32) -> f32 {
    let weight = exp((logit - best) / temperature);
    let weight = if weight > 0.0 { weight } else { 0.0 };
    if logit == best { 1.0 } else { weight }
}

/// Sum of `term(x)`, lane by lane.
#[inline(always)]
fn sum_of(x: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| *lane += term(value));
    }
    lanes.iter_mut().zip(tail).for_each(|(lane, &value)| *lane += term(value));
    f64::from(reduce_add(lanes))
}

struct Pass<'a> {
    logits: &'a [f32],
    temperature: f32,
}

impl Vectorised for Pass<'_> {
    type Output = Survey;
    #[inline(always)]
    fn run(self) -> Survey {
        let Self { logits, temperature } = self;
        let mut sums = Vec::with_capacity(logits.len().div_ceil(RUN));
        let mut runs = Vec::with_capacity(logits.len().div_ceil(RUN));
        for run in logits.chunks(RUN) {
            let max = max(run);
            // Beside negative infinity every difference would be NaN; beside 0 such a run has the sum 0.
            let beside = if max == f32::NEG_INFINITY { 0.0 } else { max };
            sums.push(sum_of(run, |logit| exp(logit - beside)));
            let total = if temperature > 0.0 { sum_of(run, |logit| weight(logit, max, temperature)) } else { 0.0 };
            runs.push(Run { max, total });
        }
        let best = runs.iter().fold(f32::NEG_INFINITY, |best, run| if run.max > best { run.max } else { best });
        // Sums of runs are joined in f64: no loss of small terms over a large vocabulary.
        let mut sum = 0.0;
        for (run, run_sum) in runs.iter_mut().zip(sums) {
            sum += run_sum * f64::from(exp(run.max - best));
            run.total *= f64::from(weight(run.max, best, temperature));
        }
        Survey { best, log_sum: f64::from(best) + sum.ln(), temperature, runs }
    }
}

struct Weights<'a> {
    logits: &'a [f32],
    best: f32,
    temperature: f32,
}

impl Vectorised for Weights<'_> {
    type Output = Vec<f64>;
    #[inline(always)]
    fn run(self) -> Vec<f64> {
        self.logits.iter().map(|&logit| f64::from(weight(logit, self.best, self.temperature))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let logits: Vec<f32> = (0..5003).map(|i| ((i * 37 % 1009) as f32 - 700.0) * 0.017).collect();
        for temperature in [0.0, 0.7, 1.0] {
            let plain = Pass { logits: &logits, temperature }.run();
            let fast = Survey::of(&logits, temperature);
            assert_eq!(plain.log_sum.to_bits(), fast.log_sum.to_bits());
            assert_eq!(plain.total().to_bits(), fast.total().to_bits());
            assert_eq!(plain.weights(&logits), Weights { logits: &logits, best: fast.best, temperature }.run());
        }
    }

    #[test]
    fn runs_without_a_number_weigh_nothing() {
        let mut logits = vec![f32::NEG_INFINITY; 4 * RUN + 3];
        (logits[700], logits[701]) = (2.0, 1.0);
        let survey = Survey::of(&logits, 1.0);
        assert!((survey.log_sum - (2f64.exp() + 1f64.exp()).ln()).abs() < 1e-6, "{}", survey.log_sum);
        assert!((survey.total() - 1.0 - (-1f64).exp()).abs() < 1e-6, "{}", survey.total());
        assert_eq!((survey.argmax(&logits), survey.draw(&logits, 0.0), survey.draw(&logits, 0.99)), (700, 700, 701));
    }
}

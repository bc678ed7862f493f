//! What a step takes: by a card's roofline, as a range, or fitted to steps that were timed on this machine.
//! Knows numbers of tokens and bytes; knows no scheduler and no device.

use serde::Serialize;

use super::simulate::StepShape;
use crate::registry::Card;

/// Of a card's peaks, what is assumed to be reached: products, and reading memory. The better end is what published engines reach (about 60 to
/// 85 % of their rooflines with 8-billion-parameter models on H100 and H200), the worse one is for an engine that has yet to be measured there.
pub const GOOD: Efficiency = Efficiency { compute: 0.60, bandwidth: 0.80, overhead_s: 0.5e-3 };
/// See [`GOOD`].
pub const POOR: Efficiency = Efficiency { compute: 0.30, bandwidth: 0.45, overhead_s: 4e-3 };

/// Shares of peaks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Efficiency {
    /// Of the products' peak.
    pub compute: f64,
    /// Of the memory's bandwidth.
    pub bandwidth: f64,
    /// Seconds of a step that go to neither: launches, sampling, waiting.
    pub overhead_s: f64,
}

/// What a model's tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Work {
    /// Operations of a token, without the head: two for each parameter that it passes.
    pub flops_per_token: f64,
    /// Operations of a row of logits.
    pub flops_per_logits: f64,
    /// Bytes of weights that a step reads.
    pub weight_bytes: f64,
    /// Bytes of cache of a token.
    pub kv_bytes: f64,
    /// Products in fp8.
    pub fp8: bool,
}

/// Seconds of a step on a card: the longer of computing and reading weights (the roofline of Williams, Waterman and Patterson, 2009), then
/// reading keys and values, then what goes to neither. Attention's own operations are left out: with contexts under 2,000 tokens they are
/// under a tenth.
pub fn roofline_s(step: &StepShape, work: &Work, card: &Card, reached: Efficiency) -> f64 {
    let peak = 1e12 * if work.fp8 { card.fp8_tflops.unwrap_or(card.bf16_tflops) } else { card.bf16_tflops };
    let flops = work.flops_per_token * (step.prefill_tokens + step.decode_tokens) as f64
        + work.flops_per_logits * step.num_logits as f64;
    let bandwidth = card.bandwidth_gb_s * 1e9 * reached.bandwidth;
    let products = (flops / (peak * reached.compute)).max(work.weight_bytes / bandwidth);
    products + work.kv_bytes * step.context_tokens as f64 / bandwidth + reached.overhead_s
}

/// Terms of [`Fitted`].
const NUM_TERMS: usize = 4;

/// Seconds of a step as a sum of what it holds, none of it negative: of the step itself, and of each prompt token, decoded token and token
/// of context.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fitted {
    /// In the order above.
    pub seconds: [f64; NUM_TERMS],
}

fn terms(step: &StepShape) -> [f64; NUM_TERMS] {
    [1.0, step.prefill_tokens as f64, step.decode_tokens as f64, step.context_tokens as f64]
}

impl Fitted {
    /// Least squares over timed steps among sums without negative terms: of all subsets of terms, the best whose solution has none (with four
    /// terms these are fifteen small systems). What the fit leaves is spread, so that the steps' sum is kept. `None` without steps.
    pub fn of(timed: &[(StepShape, f64)]) -> Option<Self> {
        let total: f64 = timed.iter().map(|(_, seconds)| seconds).sum();
        let mut best: Option<(f64, [f64; NUM_TERMS])> = None;
        for subset in 1u32..1 << NUM_TERMS {
            let columns: Vec<usize> = (0..NUM_TERMS).filter(|at| subset >> at & 1 == 1).collect();
            let Some(solution) = solve(timed, &columns) else { continue };
            if solution.iter().any(|value| *value < 0.0) {
                continue;
            }
            let mut seconds = [0.0; NUM_TERMS];
            columns.iter().zip(&solution).for_each(|(at, value)| seconds[*at] = *value);
            let fitted = Self { seconds };
            let error: f64 = timed.iter().map(|(step, took)| (fitted.step_s(step) - took).powi(2)).sum();
            if best.is_none_or(|(least, _)| error < least) {
                best = Some((error, seconds));
            }
        }
        let fitted = Self { seconds: best?.1 };
        let sum: f64 = timed.iter().map(|(step, _)| fitted.step_s(step)).sum();
        (sum > 0.0).then(|| Self { seconds: fitted.seconds.map(|value| value * total / sum) })
    }

    /// Seconds of a step.
    pub fn step_s(&self, step: &StepShape) -> f64 {
        terms(step).iter().zip(self.seconds).map(|(term, seconds)| term * seconds).sum()
    }
}

/// The normal equations of these columns by elimination with pivots; `None` if they are singular.
fn solve(timed: &[(StepShape, f64)], columns: &[usize]) -> Option<Vec<f64>> {
    let n = columns.len();
    let scales: Vec<f64> =
        columns.iter().map(|&at| timed.iter().map(|(step, _)| terms(step)[at]).fold(0.0, f64::max)).collect();
    if scales.contains(&0.0) {
        return None;
    }
    let mut matrix = vec![vec![0.0; n + 1]; n];
    for (step, seconds) in timed {
        let row: Vec<f64> = columns.iter().zip(&scales).map(|(&at, scale)| terms(step)[at] / scale).collect();
        for i in 0..n {
            for j in 0..n {
                matrix[i][j] += row[i] * row[j];
            }
            matrix[i][n] += row[i] * seconds;
        }
    }
    for at in 0..n {
        let pivot = (at..n).max_by(|&a, &b| matrix[a][at].abs().total_cmp(&matrix[b][at].abs()))?;
        matrix.swap(at, pivot);
        if matrix[at][at].abs() < 1e-9 * timed.len() as f64 {
            return None;
        }
        let pivot_row = matrix[at].clone();
        for row in matrix.iter_mut().skip(at + 1) {
            let factor = row[at] / pivot_row[at];
            row.iter_mut().zip(&pivot_row).for_each(|(value, above)| *value -= factor * above);
        }
    }
    let mut solution = vec![0.0; n];
    for at in (0..n).rev() {
        let known: f64 = (at + 1..n).map(|later| matrix[at][later] * solution[later]).sum();
        solution[at] = (matrix[at][n] - known) / matrix[at][at];
    }
    Some(solution.iter().zip(&scales).map(|(value, scale)| value / scale).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(prefill_tokens: u64, decode_tokens: u64, context_tokens: u64) -> StepShape {
        StepShape { prefill_tokens, decode_tokens, context_tokens, num_logits: decode_tokens }
    }

    #[test]
    fn a_fit_finds_what_steps_were_made_of() {
        let truth = Fitted { seconds: [2e-3, 1e-5, 5e-4, 1e-7] };
        let steps: Vec<_> = (0..200u64).map(|n| step(n * 37 % 256, n * 11 % 64, n * n % 5000)).collect();
        let timed: Vec<_> = steps.iter().map(|step| (*step, truth.step_s(step))).collect();
        let fitted = Fitted::of(&timed).unwrap();
        for (found, wanted) in fitted.seconds.iter().zip(truth.seconds) {
            assert!((found - wanted).abs() < 1e-6 * wanted.max(1e-6) + 1e-12, "{fitted:?}");
        }
        assert_eq!(Fitted::of(&[]), None);
        // Steps that are all alike say what a step takes and no more.
        let alike = Fitted::of(&[(step(0, 8, 800), 0.01); 5]).unwrap();
        assert!((alike.step_s(&step(0, 8, 800)) - 0.01).abs() < 1e-9);
    }

    #[test]
    fn no_term_is_negative_and_the_sum_is_kept() {
        // Shorter steps that take longer: a plain fit would pay for tokens.
        let timed = [(step(0, 10, 100), 1.0), (step(0, 20, 200), 0.5), (step(0, 30, 300), 0.4)];
        let fitted = Fitted::of(&timed).unwrap();
        assert!(fitted.seconds.iter().all(|value| *value >= 0.0), "{fitted:?}");
        let sum: f64 = timed.iter().map(|(step, _)| fitted.step_s(step)).sum();
        assert!((sum - 1.9).abs() < 1e-9);
    }

    #[test]
    fn a_small_step_reads_weights_and_a_large_one_computes() {
        let text = "format = 1\nmodel = []\n[[card]]\nname = \"c\"\nmemory_gb = 80\nbandwidth_gb_s = 1000\nbf16_tflops = 100\nwatts = 100\n\
                    sources = [{ facts = \"all\", url = \"https://example.org\" }]";
        let registry = crate::registry::Registry::parse(text, "t").unwrap();
        let card = &registry.cards()[0];
        let reached = Efficiency { compute: 0.5, bandwidth: 0.5, overhead_s: 0.0 };
        let work = Work { flops_per_token: 2e9, flops_per_logits: 0.0, weight_bytes: 2e9, kv_bytes: 1e3, fp8: false };
        assert!((roofline_s(&step(0, 1, 0), &work, card, reached) - 0.004).abs() < 1e-12);
        // 2e12 operations at half of 1e14.
        assert!((roofline_s(&step(1000, 0, 0), &work, card, reached) - 0.04).abs() < 1e-12);
        assert!((roofline_s(&step(1000, 0, 500_000), &work, card, reached) - 0.041).abs() < 1e-12);
    }
}

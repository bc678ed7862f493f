//! From a row of logits to a token: penalties, temperature, top-k, top-p, min-p, and a random number that depends on nothing
//! but (seed, key, position). Order of the filters as in Transformers' `generate`. Knows one row at a time; no batch.

use super::sequence::{SamplingParams, TokenLogprobs};
use crate::ops::simd::{LANES, Vectorised, dispatch, exp, max, reduce_add};

/// Chooses the next token of a sequence with these `tokens` (prompt of `prompt_len`, then the answer so far).
pub fn sample(
    logits: &mut [f32],
    params: &SamplingParams,
    key: u64,
    tokens: &[u32],
    prompt_len: usize,
) -> TokenLogprobs {
    let log_sum = log_sum_exp(logits);
    let top = top_logprobs(logits, params.top_logprobs, log_sum);
    let penalised = penalise(logits, params, tokens, prompt_len);
    let token = if params.temperature <= 0.0 {
        argmax(logits)
    } else {
        draw(logits, params, uniform(params.seed, key, (tokens.len() - prompt_len) as u64))
    };
    let raw = penalised.iter().find(|(id, _)| *id == token).map_or(logits[token as usize], |(_, raw)| *raw);
    TokenLogprobs { token, logprob: (f64::from(raw) - log_sum) as f32, top }
}

/// Natural-log probabilities of `targets` under the row's softmax.
pub fn target_logprobs(logits: &[f32], targets: &[u32]) -> Vec<f32> {
    let log_sum = log_sum_exp(logits);
    targets.iter().map(|&target| (f64::from(logits[target as usize]) - log_sum) as f32).collect()
}

/// ln Σ exp(logits).
fn log_sum_exp(logits: &[f32]) -> f64 {
    struct SumExp<'a>(&'a [f32]);
    impl Vectorised for SumExp<'_> {
        type Output = (f32, f64);
        #[inline(always)]
        fn run(self) -> (f32, f64) {
            let best = max(self.0);
            // Short runs in f32, their sums in f64: no loss of small terms over a large vocabulary.
            let mut sum = 0.0;
            for run in self.0.chunks(256) {
                let mut lanes = [0f32; LANES];
                let (whole, tail) = run.as_chunks::<LANES>();
                for chunk in whole {
                    for (lane, &logit) in lanes.iter_mut().zip(chunk) {
                        *lane += exp(logit - best);
                    }
                }
                for (lane, &logit) in lanes.iter_mut().zip(tail) {
                    *lane += exp(logit - best);
                }
                sum += f64::from(reduce_add(lanes));
            }
            (best, sum)
        }
    }
    let (best, sum) = dispatch(SumExp(logits));
    f64::from(best) + sum.ln()
}

fn top_logprobs(logits: &[f32], count: usize, log_sum: f64) -> Vec<(u32, f32)> {
    if count == 0 {
        return Vec::new();
    }
    let top = likeliest(logits, count);
    top.into_iter().map(|(id, logit)| (id, (f64::from(logit) - log_sum) as f32)).collect()
}

/// Changes the logits of tokens seen before; returns these tokens with their raw logits.
fn penalise(logits: &mut [f32], params: &SamplingParams, tokens: &[u32], prompt_len: usize) -> Vec<(u32, f32)> {
    let SamplingParams { repetition_penalty, presence_penalty, frequency_penalty, .. } = *params;
    if repetition_penalty == 1.0 && presence_penalty == 0.0 && frequency_penalty == 0.0 {
        return Vec::new();
    }
    let mut seen = std::collections::BTreeMap::<u32, u32>::new();
    tokens[..prompt_len].iter().for_each(|&token| _ = seen.entry(token).or_default());
    tokens[prompt_len..].iter().for_each(|&token| *seen.entry(token).or_default() += 1);
    let mut raw = Vec::with_capacity(seen.len());
    for (token, count) in seen {
        let Some(logit) = logits.get_mut(token as usize) else { continue };
        raw.push((token, *logit));
        *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
        if count > 0 {
            *logit -= presence_penalty + frequency_penalty * count as f32;
        }
    }
    raw
}

/// The first of the largest logits.
fn argmax(logits: &[f32]) -> u32 {
    let best = max_of(logits);
    logits.iter().position(|&logit| logit == best).unwrap_or(0) as u32
}

fn max_of(logits: &[f32]) -> f32 {
    struct Max<'a>(&'a [f32]);
    impl Vectorised for Max<'_> {
        type Output = f32;
        #[inline(always)]
        fn run(self) -> f32 {
            max(self.0)
        }
    }
    dispatch(Max(logits))
}

/// The `count` largest logits with their tokens, largest first, ties by token. NaN counts as negative infinity, and zeros as
/// equal whatever their sign, as in [`argmax`].
fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let ordered = |logit: f32| if logit.is_nan() { f32::NEG_INFINITY } else { logit + 0.0 };
    let mut all: Vec<(u32, f32)> = logits.iter().enumerate().map(|(id, &logit)| (id as u32, ordered(logit))).collect();
    if count < all.len() {
        all.select_nth_unstable_by(count, order);
        all.truncate(count);
    }
    all.sort_unstable_by(order);
    all
}

/// Draws from the filtered, tempered distribution with the uniform number `u` of [0, 1).
fn draw(logits: &[f32], params: &SamplingParams, u: f64) -> u32 {
    let best = max_of(logits);
    // The likeliest has weight 1 even if it is infinite; NaN has none.
    let weight = |logit: f32| match logit == best {
        true => 1.0,
        false => f64::from(((logit - best) / params.temperature).exp()).max(0.0),
    };
    if params.top_k.is_none() && params.top_p >= 1.0 && params.min_p <= 0.0 {
        let weights: Vec<f64> = logits.iter().map(|&logit| weight(logit)).collect();
        return pick(&weights, u) as u32;
    }
    let most = params.top_k.unwrap_or(logits.len()).clamp(1, logits.len());
    // The nucleus is nearly always small: look at the likeliest few, and at more only if these do not reach it.
    let total: f64 = match most < logits.len() {
        true => likeliest(logits, most).iter().map(|&(_, logit)| weight(logit)).sum(),
        false => logits.iter().map(|&logit| weight(logit)).sum(),
    };
    let mut count = most.min(128);
    loop {
        let kept = likeliest(logits, count);
        let mut weights: Vec<f64> = kept.iter().map(|&(_, logit)| weight(logit)).collect();
        let reach = total * f64::from(params.top_p);
        let mut sum = 0.0;
        let enough = params.top_p < 1.0
            && weights
                .iter()
                .position(|weight| {
                    sum += weight;
                    sum >= reach
                })
                .map(|last| weights.truncate(last + 1))
                .is_some();
        let floor = weights.iter().position(|&weight| weight < f64::from(params.min_p));
        if let Some(first) = floor {
            weights.truncate(first.max(1));
        }
        if enough || floor.is_some() || count == most {
            return kept[pick(&weights, u)].0;
        }
        count = (count * 8).min(most);
    }
}

/// Index whose share of the cumulative weights holds `u`.
fn pick(weights: &[f64], u: f64) -> usize {
    let total: f64 = weights.iter().sum();
    let mut left = u * total;
    for (index, &weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return index;
        }
    }
    weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0)
}

/// A uniform number of [0, 1): a hash of the three numbers, so the same whoever shares the batch.
fn uniform(seed: u64, key: u64, position: u64) -> f64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&key.to_le_bytes());
    bytes[16..].copy_from_slice(&position.to_le_bytes());
    (xxhash_rust::xxh3::xxh3_64(&bytes) >> 11) as f64 / (1u64 << 53) as f64
}

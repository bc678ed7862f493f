//! From a row of logits to a token: penalties, temperature, top-k, top-p, min-p, and a random number that depends on nothing
//! but (seed, key, position). Order of the filters as in Transformers' `generate`. Knows one row at a time; no batch.
//! Greedy and unfiltered choices take one pass over the row (`survey.rs`), a second one if penalties change it; filters look
//! only where the likeliest tokens are.

use std::collections::BTreeMap;

use super::sequence::{SamplingParams, TokenLogprobs};
use super::survey::{Survey, pick};
use crate::ops::sampling::{Ask, Choice, TokenSet};

/// Chooses the next token of a sequence with these `tokens` (prompt of `prompt_len`, then the answer so far).
pub fn sample(logits: &[f32], params: &SamplingParams, key: u64, tokens: &[u32], prompt_len: usize) -> TokenLogprobs {
    sample_among(None, logits, params, key, tokens, prompt_len)
}

/// As [`sample`], of the `allowed` tokens alone: all others count as impossible, before penalties, temperature and filters. Reported
/// log-probabilities are the model's own, among all tokens. If no allowed token has any probability, the choice means nothing.
pub fn sample_among(
    allowed: Option<&TokenSet>,
    logits: &[f32],
    params: &SamplingParams,
    key: u64,
    tokens: &[u32],
    prompt_len: usize,
) -> TokenLogprobs {
    let mut survey = Survey::of(logits, params.temperature);
    let log_sum = survey.log_sum;
    let top = match params.top_logprobs {
        0 => Vec::new(),
        count => survey.likeliest(logits, count),
    };
    let raw_logits = logits;
    let mut changed = penalised(logits, params, tokens, prompt_len);
    if let Some(allowed) = allowed {
        // Behind the penalties, which cannot make an impossible token possible: the same as before them.
        allowed.mask(changed.get_or_insert_with(|| logits.to_vec()));
    }
    let logits = match &changed {
        Some(changed) => {
            survey = Survey::of(changed, params.temperature);
            changed
        }
        None => raw_logits,
    };
    let token = if params.temperature <= 0.0 {
        survey.argmax(logits)
    } else {
        draw(logits, &survey, params, uniform(params.seed, key, (tokens.len() - prompt_len) as u64))
    };
    let logprob = |logit: f32| (f64::from(logit) - log_sum) as f32;
    let top = top.into_iter().map(|(id, logit)| (id, logprob(logit))).collect();
    TokenLogprobs { token, logprob: logprob(raw_logits[token as usize]), top }
}

/// Natural-log probabilities of `targets` under the row's softmax.
pub fn target_logprobs(logits: &[f32], targets: &[u32]) -> Vec<f32> {
    let log_sum = Survey::of(logits, 0.0).log_sum;
    targets.iter().map(|&target| (f64::from(logits[target as usize]) - log_sum) as f32).collect()
}

/// What the device is asked, so that it chooses as [`sample`] does.
pub fn ask(params: &SamplingParams, key: u64, tokens: &[u32], prompt_len: usize) -> Ask {
    let choice = Choice {
        uniform: uniform(params.seed, key, (tokens.len() - prompt_len) as u64),
        temperature: params.temperature,
        top_k: params.top_k,
        top_p: params.top_p,
        min_p: params.min_p,
        repetition_penalty: params.repetition_penalty,
        presence_penalty: params.presence_penalty,
        frequency_penalty: params.frequency_penalty,
        seen: if penalises(params) { seen(tokens, prompt_len).into_iter().collect() } else { Vec::new() },
    };
    Ask { choice: Some(choice), num_top: params.top_logprobs, ..Ask::default() }
}

/// Whether tokens seen before have other logits.
fn penalises(params: &SamplingParams) -> bool {
    params.repetition_penalty != 1.0 || params.presence_penalty != 0.0 || params.frequency_penalty != 0.0
}

/// The tokens of prompt and answer, with how often each stands in the answer.
fn seen(tokens: &[u32], prompt_len: usize) -> BTreeMap<u32, u32> {
    let mut seen = BTreeMap::new();
    tokens[..prompt_len].iter().for_each(|&token| _ = seen.entry(token).or_default());
    tokens[prompt_len..].iter().for_each(|&token| *seen.entry(token).or_default() += 1);
    seen
}

/// The logits with those of tokens seen before changed; `None` if nothing is asked to be.
fn penalised(logits: &[f32], params: &SamplingParams, tokens: &[u32], prompt_len: usize) -> Option<Vec<f32>> {
    let SamplingParams { repetition_penalty, presence_penalty, frequency_penalty, .. } = *params;
    if !penalises(params) {
        return None;
    }
    let mut logits = logits.to_vec();
    for (token, count) in seen(tokens, prompt_len) {
        let Some(logit) = logits.get_mut(token as usize) else { continue };
        *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
        if count > 0 {
            *logit -= presence_penalty + frequency_penalty * count as f32;
        }
    }
    Some(logits)
}

/// Draws from the filtered, tempered distribution with the uniform number `u` of [0, 1).
fn draw(logits: &[f32], survey: &Survey, params: &SamplingParams, u: f64) -> u32 {
    if params.top_k.is_none() && params.top_p >= 1.0 && params.min_p <= 0.0 {
        return survey.draw(logits, u);
    }
    let weighed = |count: usize| {
        let kept = survey.likeliest(logits, count);
        let weights = survey.weights(&kept.iter().map(|&(_, logit)| logit).collect::<Vec<f32>>());
        (kept, weights)
    };
    let most = params.top_k.unwrap_or(logits.len()).clamp(1, logits.len());
    // The nucleus is nearly always small: look at the likeliest few, and at more only if these do not reach it.
    let total = if most < logits.len() { weighed(most).1.iter().sum() } else { survey.total() };
    let mut count = most.min(128);
    loop {
        let (kept, mut weights) = weighed(count);
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
            return kept[pick(&weights, u * weights.iter().sum::<f64>())].0;
        }
        count = (count * 8).min(most);
    }
}

/// A uniform number of [0, 1): a hash of the three numbers, so the same whoever shares the batch.
fn uniform(seed: u64, key: u64, position: u64) -> f64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&key.to_le_bytes());
    bytes[16..].copy_from_slice(&position.to_le_bytes());
    (xxhash_rust::xxh3::xxh3_64(&bytes) >> 11) as f64 / (1u64 << 53) as f64
}

//! The sampler against a plain reference: sort everything, in f64, and follow the documentation word by word.

use std::collections::{BTreeMap, BTreeSet};

use pairwright::engine::SamplingParams;
use pairwright::engine::sampler::{sample, target_logprobs};

const DRAWS: u64 = 20_000;

/// Logits spread over (-spread, spread), the same for the same salt.
fn logits(count: usize, spread: f32, salt: u64) -> Vec<f32> {
    let bits = |i: u64| xxhash_rust::xxh3::xxh3_64_with_seed(&i.to_le_bytes(), salt) >> 40;
    (0..count as u64).map(|i| spread * (bits(i) as f32 / (1u64 << 23) as f32 - 1.0)).collect()
}

fn plain() -> SamplingParams {
    SamplingParams { temperature: 1.0, ..SamplingParams::default() }
}

/// The distribution that the parameters' documentation describes, likeliest first.
fn reference(logits: &[f32], params: &SamplingParams, tokens: &[u32], prompt_len: usize) -> Vec<(u32, f64)> {
    let penalised = logits.iter().enumerate().map(|(id, &logit)| {
        let mut logit = f64::from(logit);
        let count = tokens[prompt_len..].iter().filter(|&&token| token as usize == id).count() as f64;
        if tokens.contains(&(id as u32)) {
            let penalty = f64::from(params.repetition_penalty);
            logit = if logit > 0.0 { logit / penalty } else { logit * penalty };
        }
        if count > 0.0 {
            logit -= f64::from(params.presence_penalty) + count * f64::from(params.frequency_penalty);
        }
        (id as u32, logit / f64::from(params.temperature))
    });
    let mut kept: Vec<(u32, f64)> = penalised.collect();
    kept.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
    kept.truncate(params.top_k.unwrap_or(usize::MAX).max(1));
    let best = kept[0].1;
    let normalise = |kept: &mut Vec<(u32, f64)>| {
        let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
        kept.iter_mut().for_each(|(_, weight)| *weight /= total);
    };
    kept.iter_mut().for_each(|(_, logit)| *logit = (*logit - best).exp());
    normalise(&mut kept);
    if params.top_p < 1.0 {
        let mut sum = 0.0;
        let mut before = |&(_, weight): &(u32, f64)| {
            let enough = sum >= f64::from(params.top_p);
            sum += weight;
            !enough
        };
        let count = kept.iter().copied().take_while(|entry| before(entry)).count();
        kept.truncate(count.max(1));
    }
    let floor = kept[0].1 * f64::from(params.min_p);
    let count = kept.iter().take_while(|(_, weight)| *weight >= floor).count();
    kept.truncate(count.max(1));
    normalise(&mut kept);
    kept
}

/// How often each token is drawn over many seeds.
fn drawn(logits: &[f32], params: &SamplingParams, tokens: &[u32], prompt_len: usize) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    for seed in 0..DRAWS {
        let params = SamplingParams { seed, ..params.clone() };
        *counts.entry(sample(logits, &params, 5, tokens, prompt_len).token).or_default() += 1;
    }
    counts
}

/// Supports are equal and every frequency is within six standard deviations.
fn assert_distribution(logits: &[f32], params: &SamplingParams, tokens: &[u32], prompt_len: usize) {
    let want = reference(logits, params, tokens, prompt_len);
    let got = drawn(logits, params, tokens, prompt_len);
    let support: BTreeSet<u32> = want.iter().map(|(id, _)| *id).collect();
    assert!(got.keys().all(|id| support.contains(id)), "{params:?}: {got:?} beyond {support:?}");
    for (id, share) in want {
        let count = got.get(&id).copied().unwrap_or(0);
        assert!(count > 0 || share * (DRAWS as f64) < 20.0, "{params:?}: {id} of share {share} is never drawn");
        let got = count as f64 / DRAWS as f64;
        let deviation = (share * (1.0 - share) / DRAWS as f64).sqrt();
        assert!((got - share).abs() <= 6.0 * deviation + 1e-4, "{params:?}: {id} has {got}, want {share}");
    }
}

#[test]
fn supports_and_frequencies_are_those_of_the_reference() {
    let filters = [
        plain(),
        SamplingParams { temperature: 0.5, ..plain() },
        SamplingParams { temperature: 1.7, ..plain() },
        SamplingParams { top_k: Some(1), ..plain() },
        SamplingParams { top_k: Some(5), ..plain() },
        SamplingParams { top_k: Some(1000), ..plain() },
        SamplingParams { top_p: 0.8, ..plain() },
        SamplingParams { top_p: 0.05, ..plain() },
        SamplingParams { top_p: 0.0, ..plain() },
        SamplingParams { min_p: 0.2, ..plain() },
        SamplingParams { min_p: 1.0, ..plain() },
        SamplingParams { top_k: Some(9), top_p: 0.7, ..plain() },
        SamplingParams { top_k: Some(12), min_p: 0.15, temperature: 1.3, ..plain() },
        SamplingParams { top_k: Some(15), top_p: 0.9, min_p: 0.1, temperature: 0.9, ..plain() },
    ];
    for (salt, params) in filters.iter().enumerate() {
        assert_distribution(&logits(24, 2.0, salt as u64), params, &[1, 2], 2);
    }
}

/// The sampler first looks at 128 tokens: sets beyond that must be found too.
#[test]
fn wide_supports_are_found() {
    for (salt, params) in [
        SamplingParams { top_p: 0.9, ..plain() },
        SamplingParams { min_p: 0.3, ..plain() },
        SamplingParams { top_k: Some(200), ..plain() },
        SamplingParams { top_k: Some(300), top_p: 0.95, min_p: 0.2, ..plain() },
    ]
    .iter()
    .enumerate()
    {
        let logits = logits(400, 0.7, 40 + salt as u64);
        assert!(reference(&logits, params, &[], 0).len() > 140);
        assert_distribution(&logits, params, &[], 0);
    }
}

#[test]
fn penalties_are_as_documented() {
    let tokens = [3, 3, 4, 5, 6, 6, 6, 5];
    for (salt, params) in [
        SamplingParams { repetition_penalty: 1.4, ..plain() },
        SamplingParams { repetition_penalty: 0.7, ..plain() },
        SamplingParams { presence_penalty: 0.9, ..plain() },
        SamplingParams { frequency_penalty: 0.4, ..plain() },
        SamplingParams { frequency_penalty: -0.3, presence_penalty: -0.2, ..plain() },
        SamplingParams {
            repetition_penalty: 1.2,
            presence_penalty: 0.3,
            frequency_penalty: 0.2,
            top_k: Some(7),
            ..plain()
        },
    ]
    .iter()
    .enumerate()
    {
        assert_distribution(&logits(12, 1.5, 60 + salt as u64), params, &tokens, 4);
    }
    // Only the answer counts for presence and frequency, prompt and answer for repetition.
    let greedy = SamplingParams { temperature: 0.0, ..plain() };
    let choose = |params: SamplingParams, tokens: &[u32], prompt_len| {
        sample(&[2.0, 1.9, -1.0], &params, 0, tokens, prompt_len).token
    };
    assert_eq!(choose(SamplingParams { presence_penalty: 0.5, ..greedy.clone() }, &[0], 1), 0);
    assert_eq!(choose(SamplingParams { presence_penalty: 0.5, ..greedy.clone() }, &[0], 0), 1);
    assert_eq!(choose(SamplingParams { frequency_penalty: 0.06, ..greedy.clone() }, &[0], 0), 0);
    assert_eq!(choose(SamplingParams { frequency_penalty: 0.06, ..greedy.clone() }, &[0, 0], 0), 1);
    assert_eq!(choose(SamplingParams { repetition_penalty: 1.1, ..greedy }, &[0], 1), 1);
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let greedy = SamplingParams { temperature: 0.0, ..plain() };
    let choose = |logits: &[f32], params: &SamplingParams| sample(logits, params, 0, &[], 0).token;
    assert_eq!(choose(&[1.0, 3.0, 3.0, 2.0, 3.0], &greedy), 1);
    assert_eq!(choose(&[-0.0, 0.0, -1.0], &greedy), 0);
    let mut wide = vec![0.5f32; 1000];
    (wide[700], wide[911]) = (1.5, 1.5);
    for params in [greedy, SamplingParams { top_k: Some(1), ..plain() }, SamplingParams { top_p: 0.0, ..plain() }] {
        assert_eq!(choose(&wide, &params), 700);
        assert_eq!(choose(&[-0.0, 0.0, -1.0], &params), 0, "zeros are equal whatever their sign: {params:?}");
    }
}

/// Parameters that reach every path of the sampler.
fn paths() -> Vec<SamplingParams> {
    vec![
        SamplingParams { temperature: 0.0, ..plain() },
        plain(),
        SamplingParams { top_k: Some(1), ..plain() },
        SamplingParams { top_k: Some(3), ..plain() },
        SamplingParams { top_k: Some(0), ..plain() },
        SamplingParams { top_p: 0.9, ..plain() },
        SamplingParams { min_p: 0.01, ..plain() },
        SamplingParams {
            top_k: Some(4),
            top_p: 0.99,
            min_p: 0.001,
            repetition_penalty: 1.2,
            top_logprobs: 5,
            ..plain()
        },
        SamplingParams { temperature: 1e-30, ..plain() },
        SamplingParams { temperature: 1e30, ..plain() },
    ]
}

#[test]
fn tokens_of_no_probability_are_never_drawn() {
    const NONE: f32 = f32::NEG_INFINITY;
    for logits in [
        vec![NONE, 0.5, NONE, 0.1, NONE, NONE],
        vec![f32::NAN, 0.5, NONE, 0.1, f32::NAN, NONE],
        vec![NONE, 90.0, NONE, -90.0, f32::NAN, NONE],
        vec![NONE, f32::INFINITY, 5.0, f32::NAN, NONE, 2.0],
    ] {
        for params in paths() {
            for seed in 0..300 {
                let params = SamplingParams { seed, ..params.clone() };
                let token = sample(&logits, &params, 1, &[0, 1], 1).token as usize;
                assert!(logits[token] > NONE, "{params:?} draws {token} of {logits:?}");
                assert!(logits[1] < f32::INFINITY || token == 1, "{params:?} draws {token} of {logits:?}");
            }
        }
    }
    for logits in [vec![NONE; 5], vec![f32::NAN; 5], vec![f32::INFINITY; 5], vec![f32::NAN, NONE, f32::NAN, NONE]] {
        for params in paths() {
            let token = sample(&logits, &params, 1, &[0], 1).token as usize;
            assert!(token < logits.len());
        }
    }
}

#[test]
fn log_probabilities_are_the_model_s_own() {
    let logits = logits(700, 6.0, 80);
    let log_sum = logits.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
    let want = |id: u32| (f64::from(logits[id as usize]) - log_sum) as f32;
    let targets: Vec<u32> = (0..700).rev().collect();
    for (id, got) in targets.iter().zip(target_logprobs(&logits, &targets)) {
        assert!((got - want(*id)).abs() < 2e-6, "{got}, want {}", want(*id));
    }
    let mut order: Vec<u32> = (0..700).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    for top_logprobs in [0, 1, 20, 700, 5000] {
        let params = SamplingParams {
            temperature: 0.4,
            top_k: Some(3),
            repetition_penalty: 1.5,
            presence_penalty: 2.0,
            top_logprobs,
            ..plain()
        };
        let got = sample(&logits, &params, 9, &order[..6], 3);
        assert!((got.logprob - want(got.token)).abs() < 2e-6, "no penalty, no temperature");
        assert_eq!(got.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), order[..top_logprobs.min(700)]);
        assert!(got.top.iter().all(|&(id, logprob)| (logprob - want(id)).abs() < 2e-6));
    }
}

/// Of a large vocabulary only the parts with the likeliest tokens are looked at: none may be missed.
#[test]
fn the_likeliest_of_many_are_those_of_a_sort() {
    for (spread, steps) in [(9.0, 1e6f32), (9.0, 2.0), (0.0, 1.0)] {
        let mut logits = logits(40_000, spread, 91);
        // Coarse steps make ties; all zeros have one sign.
        logits.iter_mut().for_each(|logit| *logit = (*logit * steps).round() / steps + 0.0);
        (0..40_000).step_by(997).for_each(|index| logits[index] = f32::NEG_INFINITY);
        let mut order: Vec<u32> = (0..40_000).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
        for count in [1, 20, 156, 157, 158, 1000] {
            let params = SamplingParams { temperature: 0.0, top_logprobs: count, ..plain() };
            let got = sample(&logits, &params, 9, &[], 0);
            let ids: Vec<u32> = got.top.iter().map(|(id, _)| *id).collect();
            assert!(logits[order[0] as usize].to_bits() == logits[got.token as usize].to_bits());
            assert_eq!(ids, order[..count], "{count} of {spread} in steps of 1/{steps}");
            let few = SamplingParams { top_k: Some(count), temperature: 3.0, ..plain() };
            for seed in 0..20 {
                let token = sample(&logits, &SamplingParams { seed, ..few.clone() }, 9, &[], 0).token;
                assert!(order[..count].contains(&token), "{token} is none of the {count} likeliest");
            }
        }
    }
}

#[test]
fn seed_key_and_position_each_make_another_stream() {
    let flat = vec![0f32; 1 << 12];
    let draw = |seed, key, position: usize| {
        sample(&flat, &SamplingParams { seed, ..plain() }, key, &vec![0; position + 2], 2).token
    };
    let count = 400;
    let streams: [Vec<u32>; 3] = [
        (0..count).map(|i| draw(i, 0, 0)).collect(),
        (0..count).map(|i| draw(0, i, 0)).collect(),
        (0..count).map(|i| draw(0, 0, i as usize)).collect(),
    ];
    for stream in &streams {
        let distinct: BTreeSet<u32> = stream.iter().copied().collect();
        assert!(distinct.len() > 360, "{} of {count}", distinct.len());
        let mean = stream.iter().map(|&token| f64::from(token)).sum::<f64>() / count as f64;
        assert!((mean / 4096.0 - 0.5).abs() < 0.08, "{mean}");
    }
    assert_ne!(streams[0], streams[1]);
    assert_ne!(streams[1], streams[2]);
    assert_eq!(draw(3, 4, 5), draw(3, 4, 5));
}

//! Choosing experts and putting their rows together, against the definition token by token.

use pairwright::ops::experts::Router;
use pairwright::ops::{Compute, Workspace, to_host};

use super::{Random, assert_close, bits, matrix};

fn router(num_chosen: usize, normalised: bool) -> Router {
    Router { num_chosen, normalised, expert_scale: None }
}

/// What expert `expert` does to a row here: something that tells experts apart.
fn work(expert: usize, x: f32) -> f32 {
    x * (expert as f32 + 1.0) - expert as f32
}

#[test]
fn grouped_rows_come_back_as_token_by_token() {
    let mut random = Random(70);
    let ws = &mut Workspace::default();
    for (tokens, num_experts, k, width) in [(1, 1, 1, 3), (1, 8, 2, 5), (40, 6, 3, 16), (300, 16, 4, 130), (7, 4, 4, 1)]
    {
        let scores = random.numbers(tokens * num_experts, 3.0);
        let x = random.numbers(tokens * width, 2.0);
        let scale = random.numbers(num_experts, 2.0);
        for (normalised, scaled) in [(true, false), (false, false), (true, true)] {
            let rule = Router { expert_scale: scaled.then(|| scale.clone()), ..router(k, normalised) };
            let mut want = vec![0f32; tokens * width];
            for token in 0..tokens {
                let row = &scores[token * num_experts..][..num_experts];
                let mut order: Vec<usize> = (0..num_experts).collect();
                order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
                let exp = |expert: usize| f64::from(row[expert]).exp();
                let among: f64 = if normalised {
                    order[..k].iter().map(|&e| exp(e)).sum()
                } else {
                    order.iter().map(|&e| exp(e)).sum()
                };
                for &expert in &order[..k] {
                    let weight = (exp(expert) / among) as f32 * if scaled { scale[expert] } else { 1.0 };
                    for index in 0..width {
                        want[token * width + index] += weight * work(expert, x[token * width + index]);
                    }
                }
            }
            // What earlier rounds left in the buffers must not show.
            for compute in [Compute::cpu(), Compute::cpu().portable()] {
                let routing = rule.route(&matrix(&scores, tokens, num_experts)).unwrap();
                let mut rows = Vec::new();
                for (expert, _, group) in routing.gather(&compute, ws, &matrix(&x, tokens, width)).unwrap() {
                    rows.extend(to_host(&group).unwrap().into_iter().map(|x| work(expert, x)));
                }
                assert_eq!(rows.len(), tokens * k * width);
                let combined = routing.combine(&compute, ws, &matrix(&rows, tokens * k, width)).unwrap();
                assert_close(&to_host(&combined).unwrap(), &want, 2e-4, &compute.describe());
            }
        }
    }
}

#[test]
fn a_tokens_experts_and_bits_do_not_depend_on_its_neighbours() {
    let mut random = Random(71);
    let (tokens, num_experts, width) = (64, 8, 33);
    let scores = random.numbers(tokens * num_experts, 3.0);
    let x = random.numbers(tokens * width, 2.0);
    let run = |scores: &[f32], x: &[f32]| {
        let ws = &mut Workspace::default();
        let tokens = x.len() / width;
        let routing = router(3, true).route(&matrix(scores, tokens, num_experts)).unwrap();
        let mut rows = Vec::new();
        for (expert, _, group) in routing.gather(&Compute::cpu(), ws, &matrix(x, tokens, width)).unwrap() {
            rows.extend(to_host(&group).unwrap().into_iter().map(|x| work(expert, x)));
        }
        bits(&routing.combine(&Compute::cpu(), ws, &matrix(&rows, tokens * 3, width)).unwrap())
    };
    let whole = run(&scores, &x);
    for token in 0..tokens {
        let alone = run(&scores[token * num_experts..][..num_experts], &x[token * width..][..width]);
        assert_eq!(alone, whole[token * width..][..width]);
    }
}

#[test]
fn ties_and_odd_numbers() {
    let weights = |scores: &[f32], rule: &Router| {
        let ws = &mut Workspace::default();
        let routing = rule.route(&matrix(scores, 1, scores.len())).unwrap();
        let x = matrix(&[1.0], 1, 1);
        routing.gather(&Compute::cpu(), ws, &x).unwrap().into_iter().map(|(expert, _, _)| expert).collect::<Vec<_>>()
    };
    assert_eq!(weights(&[1.0, 2.0, 2.0, 2.0], &router(2, true)), [1, 2], "the lower number first");
    assert_eq!(weights(&[f32::NEG_INFINITY, -5.0, 0.0], &router(2, true)), [1, 2]);
    for (k, experts, scale) in [(0, 4, None), (5, 4, None), (2, 4, Some(vec![1.0; 3]))] {
        let rule = Router { expert_scale: scale, ..router(k, true) };
        assert!(rule.route(&matrix(&vec![0.0; experts], 1, experts)).is_err());
    }
    let ws = &mut Workspace::default();
    let routing = router(1, true).route(&matrix(&[0.0, 1.0], 1, 2)).unwrap();
    assert!(routing.combine(&Compute::cpu(), ws, &matrix(&[1.0, 2.0], 2, 1)).is_err(), "one row too many");
    let none = router(1, true).route(&matrix(&[], 0, 2)).unwrap();
    assert!(none.gather(&Compute::cpu(), ws, &matrix(&[], 0, 3)).unwrap().is_empty());
}

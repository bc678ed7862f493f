//! Choices that families make: kinds of norms and what they span, activations, soft caps, sinks, queries that grow.

use candle_core::Tensor;
use pairwright::ops::activation::{Activation, ActivationRows};
use pairwright::ops::attention::Attention;
use pairwright::ops::norm::Norm;
use pairwright::ops::paged::KvLayer;
use pairwright::ops::rotary::{HeadNorms, NormSpan, QueryGrowth, Rotary, RotaryTable};
use pairwright::ops::{Compute, to_host};

use super::attention::{Ragged, geometry, rotated_queries, store};
use super::{Random, assert_close, bits, matrix};

fn both() -> [Compute; 2] {
    [Compute::cpu(), Compute::cpu().portable()]
}

#[test]
fn layer_norm_by_its_definition() {
    let mut random = Random(60);
    for width in [1, 5, 16, 100, 1030] {
        let data: Vec<f32> = random.numbers(3 * width, 4.0).iter().map(|x| x + 2.0).collect();
        let (weight, bias) = (random.numbers(width, 2.0), random.numbers(width, 1.0));
        let mut want = Vec::new();
        for row in data.chunks(width) {
            let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
            let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / width as f64;
            let one = |(index, &x): (usize, &f32)| {
                ((f64::from(x) - mean) / (variance + 1e-5).sqrt()) as f32 * weight[index] + bias[index]
            };
            want.extend(row.iter().enumerate().map(one));
        }
        for compute in both() {
            let norm = Norm::layer(&compute, weight.clone(), Some(bias.clone()), 1e-5).unwrap();
            let got = to_host(&norm.forward(&matrix(&data, 3, width)).unwrap()).unwrap();
            assert_close(&got, &want, 1e-5, &compute.describe());
        }
    }
    assert!(Norm::layer(&Compute::cpu(), vec![1.0; 4], Some(vec![0.0; 3]), 1e-5).is_err());
}

/// Each function in f64, straight from its definition.
fn by_definition(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Silu => x * sigmoid(x),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::SquaredRelu => x.max(0.0).powi(2),
        Activation::Xielu { positive, negative, beta, eps } => {
            let (positive, negative, beta) = (f64::from(positive), f64::from(negative), f64::from(beta));
            match x > 0.0 {
                true => positive * x * x + beta * x,
                false => (x.min(f64::from(eps)).exp_m1() - x) * negative + beta * x,
            }
        }
        Activation::ClampedSwiglu { steepness, limit } => {
            let gate = x.min(f64::from(limit));
            gate * sigmoid(gate * f64::from(steepness))
        }
    }
}

#[test]
fn activations_by_their_definitions() {
    let mut random = Random(61);
    let activations = [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::SquaredRelu,
        Activation::Xielu { positive: 0.8, negative: 0.9, beta: 0.5, eps: -1e-6 },
        Activation::ClampedSwiglu { steepness: 1.702, limit: 7.0 },
    ];
    for activation in activations {
        let mut x = random.numbers(200, 6.0);
        x.extend([0.0, -0.0, 1e-7, -1e-7, 60.0, -60.0, 12.0, -12.0]);
        let up = random.numbers(x.len(), 9.0);
        let (plain, width) = (matrix(&x, 1, x.len()), x.len());
        let merged = Tensor::cat(&[&plain, &matrix(&up, 1, width)], 1).unwrap();
        for compute in both() {
            let got = to_host(&ActivationRows::plain(&compute, activation).forward(&plain).unwrap()).unwrap();
            let gated = to_host(&ActivationRows::gated(&compute, activation).forward(&merged).unwrap()).unwrap();
            assert_eq!((got.len(), gated.len()), (width, width));
            for (index, &x) in x.iter().enumerate() {
                let want = by_definition(activation, f64::from(x));
                let factor = match activation {
                    Activation::ClampedSwiglu { limit, .. } => up[index].clamp(-limit, limit) + 1.0,
                    _ => up[index],
                };
                let near = |got: f32, want: f64| (f64::from(got) - want).abs() <= 1e-6 * want.abs().max(1.0);
                assert!(near(got[index], want), "{activation:?} of {x}: {}, want {want}", got[index]);
                let (got, want) = (gated[index], want * f64::from(factor));
                assert!((f64::from(got) - want).abs() <= 1e-5 * want.abs().max(1.0), "{activation:?}: {got}, {want}");
            }
        }
    }
}

#[test]
fn spans_of_query_and_key_norms() {
    let mut random = Random(62);
    let ragged = Ragged::new(&mut random, geometry(4, 2, 20), 16, &[70, 3]);
    let (heads, width) = (ragged.geometry, 4 * 20);
    let parts = &ragged.whole()[0];
    let (batch, qkv) = (ragged.batch(parts), ragged.rows(parts));
    let speeds: Vec<f32> = (0..6).map(|i| 0.4f32.powi(i)).collect();
    let weights = |span: NormSpan, heads: usize| match span {
        NormSpan::Head => 20,
        NormSpan::OwnHead | NormSpan::Token => heads * 20,
    };
    for span in [NormSpan::Head, NormSpan::OwnHead, NormSpan::Token] {
        let (of_queries, of_keys) = (random.numbers(weights(span, 4), 2.0), random.numbers(weights(span, 2), 2.0));
        let of_values = random.numbers(20, 2.0);
        for after_rotation in [false, true] {
            let run = |compute: &Compute| {
                let rms = |weight: &[f32]| Some(Norm::rms(compute, weight.to_vec(), 1e-6).unwrap());
                let norms = HeadNorms {
                    queries: rms(&of_queries),
                    keys: rms(&of_keys),
                    values: rms(&of_values),
                    span,
                    after_rotation,
                };
                let table = RotaryTable::new(&speeds, 1.0, 128);
                let growth = Some(QueryGrowth { beta: 0.5, original: 16.0 });
                let rotary = Rotary::new(compute, table, heads, norms).with_growth(growth);
                let cache = KvLayer::new(compute, heads, ragged.num_blocks, 16).unwrap();
                store(&cache, &qkv, &rotary, &batch).unwrap();
                let queries = rotated_queries(&rotary, &qkv, &batch).unwrap();
                let attention = Attention::new(compute, heads, 0.3, None);
                let output = attention.forward(&queries, &cache, &batch).unwrap();
                (to_host(&queries).unwrap(), to_host(&output).unwrap())
            };
            let [(queries, output), (portable_queries, portable_output)] = both().map(|compute| run(&compute));
            let what = format!("{span:?} after {after_rotation}");
            assert_close(&queries, &portable_queries, 1e-5, &what);
            assert_close(&output, &portable_output, 2e-5, &what);
            // Row 60 is at position 60: floor(60 / 16) = 3.
            let alone = |growth| {
                let norms = HeadNorms {
                    queries: Some(Norm::rms(&Compute::cpu(), of_queries.clone(), 1e-6).unwrap()),
                    span,
                    after_rotation,
                    ..HeadNorms::none()
                };
                let rotary = Rotary::new(&Compute::cpu(), RotaryTable::new(&speeds, 1.0, 128), heads, norms);
                to_host(&rotated_queries(&rotary.with_growth(growth), &qkv, &batch).unwrap()).unwrap()
            };
            let (plain, grown) = (alone(None), alone(Some(QueryGrowth { beta: 0.5, original: 16.0 })));
            let factor = 1.0 + 0.5 * 4f32.ln();
            for (plain, grown) in plain[60 * width..61 * width].iter().zip(&grown[60 * width..]) {
                assert!((plain * factor - grown).abs() <= 1e-6 * grown.abs().max(1.0));
            }
            assert_eq!(plain[..16 * width], grown[..16 * width], "the first positions do not grow");
        }
    }
    let wrong = HeadNorms {
        queries: Some(Norm::rms(&Compute::cpu(), vec![1.0; 20], 1e-6).unwrap()),
        span: NormSpan::Token,
        ..HeadNorms::none()
    };
    let rotary = Rotary::new(&Compute::cpu(), RotaryTable::new(&speeds, 1.0, 128), heads, wrong);
    assert!(rotated_queries(&rotary, &qkv, &batch).is_err(), "a norm of one head for all of a token");
}

/// Native against portable in f32, whole and in two steps with the same bits.
#[test]
fn soft_caps_and_sinks() {
    let mut random = Random(63);
    for (heads, lens) in [(geometry(4, 2, 16), [40, 1, 300]), (geometry(6, 1, 24), [17, 270, 5])] {
        let ragged = Ragged::new(&mut random, heads, 16, &lens);
        let sinks = random.numbers(heads.num_heads, 4.0);
        let parts = &ragged.whole()[0];
        let cuts: Vec<_> = parts.iter().map(|(sequence, range)| (*sequence, 0..range.end.div_ceil(2))).collect();
        let rest: Vec<_> = parts
            .iter()
            .map(|(sequence, range)| (*sequence, range.end.div_ceil(2)..range.end))
            .filter(|(_, range)| !range.is_empty())
            .collect();
        for (soft_cap, with_sinks, window) in [(Some(2.0), false, None), (None, true, Some(9)), (Some(5.0), true, None)]
        {
            let run = |compute: &Compute, steps: &[&[(usize, std::ops::Range<usize>)]]| {
                let mut attention = Attention::new(compute, heads, 1.0, window);
                attention.soft_cap = soft_cap;
                if with_sinks {
                    attention = attention.with_sinks(compute, sinks.clone()).unwrap();
                }
                let rotary = ragged.rotary(compute);
                let cache = KvLayer::new(compute, heads, ragged.num_blocks, 16).unwrap();
                let mut last = None;
                for parts in steps {
                    let (batch, qkv) = (ragged.batch(parts), ragged.rows(parts));
                    store(&cache, &qkv, &rotary, &batch).unwrap();
                    let queries = rotated_queries(&rotary, &qkv, &batch).unwrap();
                    last = Some((attention.forward(&queries, &cache, &batch).unwrap(), batch));
                }
                last.unwrap()
            };
            let (native, batch) = run(&Compute::cpu(), &[parts]);
            let (portable, _) = run(&Compute::cpu().portable(), &[parts]);
            let what = format!("cap {soft_cap:?}, sinks {with_sinks}, window {window:?}");
            assert_close(&to_host(&native).unwrap(), &to_host(&portable).unwrap(), 1e-5, &what);
            let (second, second_batch) = run(&Compute::cpu(), &[&cuts, &rest]);
            let (whole, part) = (bits(&native), bits(&second));
            for (index, (sequence, range)) in rest.iter().enumerate() {
                let first = (batch.token_range(*sequence).start + range.start) * heads.q_width();
                let rows = second_batch.token_range(index);
                let part = &part[rows.start * heads.q_width()..rows.end * heads.q_width()];
                assert_eq!(part, &whole[first..first + part.len()], "{what}: not the same bits");
            }
        }
    }
    // With one key, a sink of the same score takes half of the weight.
    let mut ragged = Ragged::new(&mut random, geometry(1, 1, 16), 16, &[1]);
    ragged.sequences[0][..16].fill(0.0);
    let parts = &ragged.whole()[0];
    for compute in both() {
        let (batch, qkv, rotary) = (ragged.batch(parts), ragged.rows(parts), ragged.rotary(&compute));
        let cache = KvLayer::new(&compute, ragged.geometry, ragged.num_blocks, 16).unwrap();
        store(&cache, &qkv, &rotary, &batch).unwrap();
        let mut attention = Attention::new(&compute, ragged.geometry, 1.0, None);
        attention = attention.with_sinks(&compute, vec![0.0]).unwrap();
        let output = attention.forward(&rotated_queries(&rotary, &qkv, &batch).unwrap(), &cache, &batch).unwrap();
        let half: Vec<f32> = ragged.sequences[0][32..].iter().map(|value| value / 2.0).collect();
        assert_close(&to_host(&output).unwrap(), &half, 1e-6, "half");
        attention = attention.with_sinks(&compute, vec![0.0, 0.0]).unwrap();
        assert!(attention.forward(&rotated_queries(&rotary, &qkv, &batch).unwrap(), &cache, &batch).is_err());
    }
}

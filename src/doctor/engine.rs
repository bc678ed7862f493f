//! What must not change an answer: who shares the batch, how a prompt is cut, a cache that is too small, steps that were captured.
//! Knows the engine; knows no operation.

use super::golden::{GoldenError, load, options, run, tokens, with_toy};
use super::{Check, in_one_line};
use crate::engine::{Engine, EngineOptions, KvBudget, Request, SamplingParams, Task};
use crate::model::{Decoder, WeightsKind};
use crate::ops::Compute;

/// A shape with heads and widths as real models have them: what libraries choose for it is what they choose for those.
const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1024,
    "intermediate_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 4, "num_hidden_layers": 4, "vocab_size": 32000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu"}"#;

/// Sequences of the job, and of a quick one.
const SEQUENCES: [u64; 2] = [40, 16];

/// All of it.
pub fn check(compute: &Compute, quick: bool, told: &mut dyn FnMut(Check)) {
    let is_narrow = compute.fp8 || compute.quantize.is_some();
    let format = if is_narrow { format!(" {}", compute.weight_format()) } else { String::new() };
    let mut checks = vec![(format!("toy model{format}"), false)];
    if !quick {
        checks.push((format!("random model{format}"), true));
    }
    for (name, is_dummy) in &checks {
        let checked = with_toy(|dir| {
            if *is_dummy {
                let path = dir.join("config.json");
                std::fs::write(&path, CONFIG)
                    .map_err(|source| GoldenError::Io { path: path.display().to_string(), source })?;
            }
            let weights = if *is_dummy { WeightsKind::Dummy { seed: 1 } } else { WeightsKind::Files };
            independence(name, load(dir, compute, weights, Some(1024))?, SEQUENCES[usize::from(quick)], told)
        });
        if let Err(error) = checked {
            told(Check::judged(format!("{name}: whoever shares the batch"), false, in_one_line(error)));
        }
    }
}

/// The same job in several ways: the same bits, or the check says which way differs.
fn independence(name: &str, decoder: Decoder, sequences: u64, told: &mut dyn FnMut(Check)) -> Result<(), GoldenError> {
    let usual = EngineOptions { max_batch: 64, kv_budget: KvBudget::Tokens(16_384), ..options() };
    let ways = [
        ("each alone", EngineOptions { max_batch: 1, ..usual }),
        ("prompts in small parts", EngineOptions { max_step_tokens: 37, max_batch: 7, ..usual }),
        ("without a prefix cache", EngineOptions { prefix_cache: false, ..usual }),
        ("a cache that is too small", EngineOptions { kv_budget: KvBudget::Tokens(640), ..usual }),
        ("nothing captured", EngineOptions { captures: false, ..usual }),
    ];
    let mut engine = Engine::new(decoder, &usual)?;
    if engine.decoder().compute().kernels.is_some() {
        // Slow, but not wrong.
        let detail = match engine.decoder().slow_products() {
            [] => "all are served by NVIDIA's library".to_owned(),
            without => format!("our own for {}", without.join(", ")),
        };
        told(Check::ok(format!("{name}: products"), detail));
    }
    let vocab = engine.decoder().spec().vocab_size as u32;
    let want = run(&mut engine, requests(vocab, sequences))?;
    let num_captured = engine.stats().num_captured_steps;
    let captures = engine.decoder().is_steady() && engine.decoder().compute().kernels.is_some();
    if captures {
        let detail = format!("{num_captured} of {} steps", engine.stats().num_steps);
        told(Check::judged(format!("{name}: steps that are captured"), num_captured > 0, detail));
    }
    let mut decoder = engine.into_decoder();
    for (way, options) in ways {
        let mut engine = Engine::new(decoder, &options)?;
        let got = run(&mut engine, requests(vocab, sequences))?;
        decoder = engine.into_decoder();
        let differ = want.iter().zip(&got).filter(|(want, got)| want != got).count();
        let detail = match differ {
            0 => format!("{sequences} sequences, the same bits"),
            _ => format!("{differ} of {sequences} sequences differ from those computed together"),
        };
        told(Check::judged(format!("{name}: {way}"), differ == 0 && want.len() == got.len(), detail));
    }
    Ok(())
}

/// Prompts of many lengths, some of which begin alike; drawn and greedy answers, and ratings.
pub(super) fn requests(vocab: u32, sequences: u64) -> impl Iterator<Item = Request> {
    (0..sequences).map(move |index| {
        let mut prompt = tokens(index % 3, 40, vocab);
        prompt.extend(tokens(100 + index, 1 + (index as usize * 37) % 160, vocab));
        let task = match index % 4 {
            0 => Task::Score { targets: tokens(200, 5, vocab) },
            kind => {
                let temperature = if kind == 1 { 0.0 } else { 0.9 };
                let max_tokens = 6 + index as usize % 30;
                Task::Generate(SamplingParams { temperature, max_tokens, seed: 11, ..SamplingParams::default() })
            }
        };
        Request { prompt, task, key: index }
    })
}

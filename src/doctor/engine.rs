//! What must not change an answer: who shares the batch, how a prompt is cut, a cache that is too small, steps that were captured.
//! Knows the engine; knows no operation.

use super::golden::{GoldenError, load, options, run, tokens, with_toy};
use super::{Check, in_one_line};
use crate::engine::{Engine, EngineOptions, KvBudget, Request, SamplingParams, Task};
use crate::model::{Decoder, WeightsKind};
use crate::ops::Compute;

/// Shapes of random models: widths as real models have them, for which libraries choose what they choose for those; and a
/// small one for quick checks. Heads of both are of 64, which on some cards have kernels of their own.
const WIDE: &str = r#""hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 4,
    "num_hidden_layers": 4, "vocab_size": 32000"#;
const SMALL: &str = r#""hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 2, "num_key_value_heads": 1,
    "num_hidden_layers": 2, "vocab_size": 500"#;
const SHARED: &str = r#""architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu""#;

/// Sequences of the job, and of a quick one.
const SEQUENCES: [u64; 2] = [40, 16];

/// A cache in which these have no room beside each other, so that some are computed again.
const SMALL_CACHE: KvBudget = KvBudget::Tokens(320);

/// All of it.
pub fn check(compute: &Compute, quick: bool, told: &mut dyn FnMut(Check)) {
    let is_narrow = compute.fp8 || compute.quantize.is_some();
    let format = if is_narrow { format!(" {}", compute.weight_format()) } else { String::new() };
    let random = if quick { ("small random model", SMALL) } else { ("random model", WIDE) };
    for (name, shape) in [("toy model", None), (random.0, Some(random.1))] {
        let name = &format!("{name}{format}");
        let checked = with_toy(|dir| {
            if let Some(shape) = shape {
                let path = dir.join("config.json");
                std::fs::write(&path, format!("{{{SHARED}, {shape}}}"))
                    .map_err(|source| GoldenError::Io { path: path.display().to_string(), source })?;
            }
            let weights = if shape.is_some() { WeightsKind::Dummy { seed: 1 } } else { WeightsKind::Files };
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
        ("a cache that is too small", EngineOptions { kv_budget: SMALL_CACHE, ..usual }),
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
        let num_preemptions = engine.stats().num_preemptions;
        decoder = engine.into_decoder();
        let differ = want.iter().zip(&got).filter(|(want, got)| want != got).count();
        let is_small = options.kv_budget == SMALL_CACHE;
        let mut detail = match differ {
            0 => format!("{sequences} sequences, the same bits"),
            _ => format!("{differ} of {sequences} sequences differ from those computed together"),
        };
        if is_small {
            detail += &format!(", {num_preemptions} computed again");
        }
        let is_well = differ == 0 && want.len() == got.len() && (num_preemptions > 0 || !is_small);
        told(Check::judged(format!("{name}: {way}"), is_well, detail));
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
                let max_tokens = 8 + index as usize % 7 * 12;
                Task::Generate(SamplingParams { temperature, max_tokens, seed: 11, ..SamplingParams::default() })
            }
        };
        Request { prompt, task, key: index }
    })
}

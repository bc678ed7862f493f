//! What must not change an answer: who shares the batch, how a prompt is cut, a cache that is too small, steps that were captured. And
//! that a device without room says so and goes on. Knows the engine; knows no operation.

use candle_core::{DType, Tensor};

use super::golden::{GoldenError, load, options, run, tokens, with_toy};
use super::{Check, in_one_line};
use crate::engine::{Engine, EngineOptions, KvBudget, Request, SamplingParams, SequenceOutput, Task};
use crate::model::{Decoder, WeightsKind};
use crate::ops::Compute;

/// A shape with heads and widths as real models have them: what libraries choose for it is what they choose for those.
const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1024,
    "intermediate_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 4, "num_hidden_layers": 4, "vocab_size": 32000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu"}"#;

/// Sequences of the job.
const SEQUENCES: u64 = 40;

/// All of it.
pub fn check(compute: &Compute, quick: bool, told: &mut dyn FnMut(Check)) {
    let mut checks = vec![("toy model", false)];
    if !quick {
        checks.push(("random model", true));
    }
    for (name, is_dummy) in checks {
        let checked = with_toy(|dir| {
            if is_dummy {
                let path = dir.join("config.json");
                std::fs::write(&path, CONFIG)
                    .map_err(|source| GoldenError::Io { path: path.display().to_string(), source })?;
            }
            let weights = if is_dummy { WeightsKind::Dummy { seed: 1 } } else { WeightsKind::Files };
            independence(name, load(dir, compute, weights, Some(1024))?, told)
        });
        if let Err(error) = checked {
            told(Check::judged(format!("{name}: whoever shares the batch"), false, in_one_line(error)));
        }
    }
    let name = "a device without room";
    told(match compute.device.is_cpu() {
        true => Check::skipped(name, "the processor's memory is the system's"),
        false => Check::from_result(
            name,
            with_toy(|dir| without_room(name, &|| load(dir, compute, WeightsKind::Files, None))),
        ),
    });
}

/// The same job in several ways: the same bits, or the check says which way differs.
fn independence(name: &str, decoder: Decoder, told: &mut dyn FnMut(Check)) -> Result<(), GoldenError> {
    let usual = EngineOptions { max_batch: 64, kv_budget: KvBudget::Tokens(16_384), ..options() };
    let ways = [
        ("each alone", EngineOptions { max_batch: 1, ..usual }),
        ("prompts in small parts", EngineOptions { max_step_tokens: 37, max_batch: 7, ..usual }),
        ("without a prefix cache", EngineOptions { prefix_cache: false, ..usual }),
        ("a cache that is too small", EngineOptions { kv_budget: KvBudget::Tokens(640), ..usual }),
        ("nothing captured", EngineOptions { captures: false, ..usual }),
    ];
    let job = |decoder: Decoder, options: &EngineOptions| -> Result<(Decoder, Vec<SequenceOutput>), GoldenError> {
        let mut engine = Engine::new(decoder, options)?;
        let vocab = engine.decoder().spec().vocab_size as u32;
        let outputs = run(&mut engine, requests(vocab))?;
        Ok((engine.into_decoder(), outputs))
    };
    let (mut decoder, want) = job(decoder, &usual)?;
    for (way, options) in ways {
        let got;
        (decoder, got) = job(decoder, &options)?;
        let differ = want.iter().zip(&got).filter(|(want, got)| want != got).count();
        let detail = match differ {
            0 => format!("{SEQUENCES} sequences, the same bits"),
            _ => format!("{differ} of {SEQUENCES} sequences differ from those computed together"),
        };
        told(Check::judged(format!("{name}: {way}"), differ == 0 && want.len() == got.len(), detail));
    }
    Ok(())
}

/// Prompts of many lengths, some of which begin alike; drawn and greedy answers, and ratings.
fn requests(vocab: u32) -> impl Iterator<Item = Request> {
    (0..SEQUENCES).map(move |index| {
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

/// Takes all memory of the device, sees that the engine says so, gives it back, and sees that everything goes on.
fn without_room(name: &str, decoder: &dyn Fn() -> Result<Decoder, GoldenError>) -> Result<Check, GoldenError> {
    let mut engine = Engine::new(decoder()?, &options())?;
    let (vocab, device) = (engine.decoder().spec().vocab_size as u32, engine.decoder().compute().device.clone());
    let want = run(&mut engine, requests(vocab))?;
    let (mut fresh, another) = (Engine::new(decoder()?, &options())?, decoder()?);
    let (mut taken, mut size) = (Vec::new(), 1usize << 36);
    while size >= 1 << 16 {
        match Tensor::zeros(size, DType::U8, &device) {
            Ok(tensor) => taken.push(tensor),
            Err(_) => size /= 2,
        }
    }
    // Neither a cache nor a step's buffers have room now.
    let large = EngineOptions { kv_budget: KvBudget::Tokens(1 << 20), max_batch: 1 << 12, ..options() };
    let refused = Engine::new(another, &large).err().map(in_one_line);
    let stopped = run(&mut fresh, requests(vocab)).err().map(in_one_line);
    let num_taken: usize = taken.iter().map(Tensor::elem_count).sum();
    drop((taken, fresh, engine));
    let mut engine = Engine::new(decoder()?, &options())?;
    let same = run(&mut engine, requests(vocab))? == want;
    let told = |said: &Option<String>| said.clone().unwrap_or_else(|| "nothing".to_owned());
    let detail = format!(
        "{} MiB taken; a cache then: {}; a step: {}; afterwards {}",
        num_taken >> 20,
        told(&refused),
        told(&stopped),
        if same { "the same answers" } else { "other answers" }
    );
    Ok(Check::judged(name, refused.is_some() && stopped.is_some() && same, detail))
}

//! Small models through the whole engine, against what Transformers computed for them, or the processor's engine did.
//! Knows token ids; knows no text.

use std::path::Path;

use serde::Deserialize;

use super::{Check, in_one_line};
use crate::demo;
use crate::engine::{
    Engine, EngineError, EngineOptions, Event, KvBudget, Request, SamplingParams, SequenceOutput, Task,
};
use crate::model::{self, Decoder, LoadOptions, ModelError, WeightsKind};
use crate::ops::{Compute, OpsPath};
use candle_core::DType;

/// Longest sequence of reference models: rotary scalings that depend on the length keep to the short form.
pub const MAX_LEN: usize = 256;

/// What a model says to some prompts, as `expected.json` keeps it.
#[derive(Debug, Clone, Deserialize)]
pub struct Expected {
    /// Token ids of each prompt.
    pub prompts: Vec<Vec<u32>>,
    /// Token ids of each greedy answer; none of a reward model, nor margins and log-probabilities.
    #[serde(default)]
    pub greedy: Vec<Vec<u32>>,
    /// How much more likely each token was than the next best, in natural log.
    #[serde(default)]
    pub margins: Vec<Vec<f32>>,
    /// Natural-log probability of each token.
    #[serde(default)]
    pub logprobs: Vec<Vec<f32>>,
    /// Logits behind each prompt.
    #[serde(default)]
    pub last_logits: Vec<Vec<f32>>,
    /// Negative log-likelihood of each prompt's tokens, summed.
    #[serde(default)]
    pub nll: Vec<f64>,
    /// What a reward model's head says of each prompt.
    #[serde(default)]
    pub scores: Vec<Vec<f32>>,
}

/// Why a model could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// It does not load.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// `expected.json` is none.
    #[error("{path}: {source}")]
    Json {
        /// Which.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl Expected {
    /// Reads `expected.json` of a model's folder.
    ///
    /// # Errors
    /// [`GoldenError`] if it is not there, or not one.
    pub fn read(dir: &Path) -> Result<Self, GoldenError> {
        let file = dir.join("expected.json");
        let path = file.display().to_string();
        let text = std::fs::read_to_string(&file).map_err(|source| GoldenError::Io { path: path.clone(), source })?;
        serde_json::from_str(&text).map_err(|source| GoldenError::Json { path, source })
    }

    /// What the engine says on `compute`.
    fn of(decoder: Decoder, prompts: Vec<Vec<u32>>, length: usize) -> Result<Self, GoldenError> {
        let mut engine = Engine::new(decoder, &options())?;
        let outputs = run(&mut engine, prompts.iter().map(|prompt| greedy(prompt, length)))?;
        let of_tokens = |number: fn(&crate::engine::TokenLogprobs) -> f32| {
            outputs.iter().map(|output| output.tokens.iter().map(number).collect()).collect()
        };
        Ok(Self {
            greedy: outputs.iter().map(|output| output.tokens.iter().map(|token| token.token).collect()).collect(),
            margins: of_tokens(|token| match token.top[..] {
                [(_, first), (_, second), ..] => first - second,
                _ => f32::INFINITY,
            }),
            logprobs: of_tokens(|token| token.logprob),
            prompts,
            last_logits: Vec::new(),
            nll: Vec::new(),
            scores: Vec::new(),
        })
    }

    /// Where the two part although they should not, in words; else the largest difference of a token's log-probability.
    fn difference(&self, got: &Self, allowed: f32) -> Result<f32, String> {
        let mut largest = 0f32;
        for (prompt, want) in self.greedy.iter().enumerate() {
            for (at, token) in want.iter().enumerate() {
                let other = got.greedy[prompt].get(at);
                if other != Some(token) {
                    // Behind a choice that was a near tie the two go their own ways.
                    if self.margins[prompt][at] < 2.0 * allowed {
                        break;
                    }
                    return Err(format!("prompt {prompt}, token {at}: {other:?} instead of {token}"));
                }
                let off = (got.logprobs[prompt][at] - self.logprobs[prompt][at]).abs();
                if off.is_nan() || off > allowed {
                    return Err(format!("prompt {prompt}, token {at}: log-probability off by {off:.1e}"));
                }
                largest = largest.max(off);
            }
        }
        Ok(largest)
    }
}

/// What a token's log-probability may be off by in these formats: as much as small random models were seen to be, and some more.
fn allowed(compute: &Compute) -> f32 {
    match compute.activation_dtype {
        DType::BF16 => 0.15,
        DType::F16 => 0.03,
        _ => 2e-3,
    }
}

/// The embedded toy: what it says on the processor is what it must say here.
pub fn check_toy(compute: &Compute, told: &mut dyn FnMut(Check)) {
    let name = format!("toy model {}", compute.weight_format());
    let checked = with_toy(|dir| {
        let reference = load(dir, &Compute::cpu().portable(), WeightsKind::Files, None)?;
        let vocab = reference.spec().vocab_size as u32;
        let prompts = (0..6).map(|prompt| tokens(prompt, 9 + 13 * prompt as usize, vocab)).collect();
        let want = Expected::of(reference, prompts, 24)?;
        compare(&name, load(dir, compute, WeightsKind::Files, None)?, &want)
    });
    told(Check::from_result(&name, checked));
}

/// Each model of a folder against its `expected.json`.
pub fn check_folder(compute: &Compute, folder: &Path, told: &mut dyn FnMut(Check)) {
    let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut dirs: Vec<_> = match entries {
        Ok(dirs) => dirs,
        Err(error) => return told(Check::judged(folder.display().to_string(), false, in_one_line(error))),
    };
    dirs.retain(|dir| dir.join("expected.json").exists());
    dirs.sort();
    if dirs.is_empty() {
        told(Check::judged(folder.display().to_string(), false, "no folder with an expected.json in it"));
    }
    for dir in dirs {
        let model = dir.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
        let name = format!("{model} {}", compute.weight_format());
        let checked = Expected::read(&dir).and_then(|want| {
            let decoder = load(&dir, compute, WeightsKind::Files, Some(MAX_LEN))?;
            match want.scores.is_empty() {
                true => compare(&name, decoder, &want),
                false => compare_scores(&name, decoder, &want),
            }
        });
        told(Check::from_result(&name, checked));
    }
}

fn compare(name: &str, decoder: Decoder, want: &Expected) -> Result<Check, GoldenError> {
    let is_native = decoder.compute().path == OpsPath::Native;
    let (allowed, length) = (allowed(decoder.compute()), want.greedy.first().map_or(0, Vec::len));
    let got = Expected::of(decoder, want.prompts.clone(), length)?;
    let on = if is_native { "" } else { ", on Candle's operations" };
    Ok(match want.difference(&got, allowed) {
        Ok(off) => Check::ok(name, format!("log-probabilities off by {off:.1e} of {allowed:.1e}{on}")),
        Err(what) => Check::judged(name, false, what + on),
    })
}

fn compare_scores(name: &str, decoder: Decoder, want: &Expected) -> Result<Check, GoldenError> {
    let allowed = allowed(decoder.compute());
    let mut engine = Engine::new(decoder, &options())?;
    let classify = |prompt: &Vec<u32>| Request { prompt: prompt.clone(), task: Task::Classify, key: 0 };
    let outputs = run(&mut engine, want.prompts.iter().map(classify))?;
    let got = outputs.iter().flat_map(|output| &output.head_scores);
    let off = |(got, want): (&f32, &f32)| (got - want).abs() / want.abs().max(1.0);
    // What is no number stays so.
    let larger = |a: f32, b: f32| if b.is_nan() || b > a { b } else { a };
    let largest = got.clone().zip(want.scores.iter().flatten()).map(off).fold(0.0, larger);
    let all_there = got.count() == want.scores.iter().flatten().count();
    Ok(Check::judged(name, all_there && largest <= allowed, format!("scores off by {largest:.1e} of {allowed:.1e}")))
}

/// Calls `with` with a folder that holds the embedded toy, for that long.
pub(super) fn with_toy<R>(with: impl FnOnce(&Path) -> Result<R, GoldenError>) -> Result<R, GoldenError> {
    let written = demo::write_temporary();
    let folder = written.map_err(|source| GoldenError::Io { path: "a temporary folder".to_owned(), source })?;
    with(&folder.path().join("model"))
}

pub(super) fn load(
    dir: &Path,
    compute: &Compute,
    weights: WeightsKind,
    max_len: Option<usize>,
) -> Result<Decoder, GoldenError> {
    Ok(model::load(dir, &LoadOptions { compute: compute.clone(), weights, max_len })?)
}

/// A small engine.
pub(super) fn options() -> EngineOptions {
    EngineOptions { kv_budget: KvBudget::Tokens(4096), ..EngineOptions::default() }
}

/// Token ids that look like none, below `vocab`.
pub(super) fn tokens(salt: u64, len: usize, vocab: u32) -> Vec<u32> {
    crate::bench::setup::random_tokens(salt, len, vocab as usize)
}

fn greedy(prompt: &[u32], max_tokens: usize) -> Request {
    let params = SamplingParams { temperature: 0.0, max_tokens, top_logprobs: 2, ..SamplingParams::default() };
    Request { prompt: prompt.to_vec(), task: Task::Generate(params), key: 0 }
}

/// Runs requests to their ends; outputs in the order of the requests.
pub(super) fn run(
    engine: &mut Engine,
    requests: impl IntoIterator<Item = Request>,
) -> Result<Vec<SequenceOutput>, EngineError> {
    let ids = engine.add_all(requests)?;
    let mut outputs = std::collections::BTreeMap::new();
    while engine.num_sequences() > 0 {
        for event in engine.step()? {
            if let Event::Finished { id, output, .. } = event {
                outputs.insert(id, output);
            }
        }
    }
    Ok(ids.iter().filter_map(|id| outputs.remove(id)).collect())
}

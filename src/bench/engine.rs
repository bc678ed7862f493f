//! The engine bench: N sequences of P prompt tokens and G output tokens, all given at once, random token ids.
//! Knows the engine only; prompts have no text, so any shape can be timed without its files.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::machine::{self, MachineCeilings};
use crate::engine::{Engine, EngineError, EngineOptions, Request, SamplingParams, Task};
use crate::model::{self, LoadOptions, ModelError};

/// The workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Requests, all queued before the clock starts.
    pub sequences: usize,
    /// Tokens per prompt.
    pub prompt_len: usize,
    /// Tokens generated per request, greedily; nothing ends earlier.
    pub output_len: usize,
    /// Whole jobs timed; the median is reported. One more warms up.
    pub runs: usize,
}

/// What a bench gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineReport {
    /// Directory as given.
    pub model: String,
    /// `files` or `dummy`.
    pub weights: &'static str,
    /// Device, instruction set and weights format.
    pub device: String,
    /// Threads of the pool.
    pub threads: usize,
    /// Most sequences at once.
    pub max_batch: usize,
    /// The workload.
    #[serde(flatten)]
    pub workload: Workload,
    /// Output tokens / seconds of the whole job, median over the runs.
    pub output_tokens_per_s: f64,
    /// Prompt tokens / seconds of the steps that hold prompts.
    pub prefill_tokens_per_s: f64,
    /// Decoded tokens / seconds of the steps that only decode.
    pub decode_tokens_per_s: f64,
    /// This machine's ceilings, measured just before.
    pub machine: MachineCeilings,
    /// Arithmetic of prefill (weights' products only) over the product ceiling.
    pub prefill_share_of_gemm: f64,
    /// Arithmetic of decoding over the product ceiling.
    pub decode_share_of_gemm: f64,
    /// Bytes of weights read by decode steps per second, over the read ceiling.
    pub decode_share_of_bandwidth: f64,
    /// Times a sequence gave its blocks back, over all runs.
    pub preemptions: u64,
}

/// Why a bench failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine refused the workload.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

struct Timing {
    output: f64,
    prefill: f64,
    decode: f64,
    decode_steps_per_s: f64,
    preemptions: u64,
}

/// Runs the bench.
///
/// # Errors
/// [`BenchError`] if the model cannot be loaded or the workload does not fit it.
pub fn run(
    dir: &Path,
    load: &LoadOptions,
    options: &EngineOptions,
    workload: Workload,
) -> Result<EngineReport, BenchError> {
    let ceilings = machine::ceilings().map_err(EngineError::from)?;
    let mut decoder = Some(model::load(dir, load)?);
    let parameters = decoder.as_ref().map_or(0, |decoder| decoder.spec().num_product_parameters()) as f64;
    let head = decoder.as_ref().map_or(0, |decoder| decoder.spec().hidden_size * decoder.spec().vocab_size) as f64;
    let options = EngineOptions { prefix_cache: false, ..*options };
    let mut timings = Vec::new();
    for run in 0..=workload.runs {
        let Some(loaded) = decoder.take() else { break };
        let mut engine = Engine::new(loaded, &options)?;
        let timing = job(&mut engine, workload)?;
        if run > 0 {
            timings.push(timing);
        }
        decoder = Some(engine.into_decoder());
    }
    let median = |of: fn(&Timing) -> f64| {
        let mut values: Vec<f64> = timings.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let weight_bytes = parameters * load.compute.bytes_per_weight();
    let gemm = ceilings.gemm_gflop_s * 1e9;
    let (prefill, decode) = (median(|timing| timing.prefill), median(|timing| timing.decode));
    Ok(EngineReport {
        model: dir.display().to_string(),
        weights: if load.weights == model::WeightsKind::Files { "files" } else { "dummy" },
        device: load.compute.describe(),
        threads: rayon::current_num_threads(),
        max_batch: options.max_batch,
        workload,
        output_tokens_per_s: median(|timing| timing.output),
        prefill_tokens_per_s: prefill,
        decode_tokens_per_s: decode,
        machine: ceilings,
        prefill_share_of_gemm: prefill * 2.0 * (parameters - head) / gemm,
        decode_share_of_gemm: decode * 2.0 * parameters / gemm,
        decode_share_of_bandwidth: median(|timing| timing.decode_steps_per_s) * weight_bytes
            / (ceilings.read_gb_s * 1e9),
        preemptions: timings.iter().map(|timing| timing.preemptions).sum(),
    })
}

/// One whole job.
fn job(engine: &mut Engine, workload: Workload) -> Result<Timing, EngineError> {
    let vocab = engine.decoder().spec().vocab_size as u64;
    let params = SamplingParams { temperature: 0.0, max_tokens: workload.output_len, ..SamplingParams::default() };
    for sequence in 0..workload.sequences as u64 {
        let id = |index: u64| ((sequence * 7919 + index * 104_729 + 13) % vocab) as u32;
        let prompt = (0..workload.prompt_len as u64).map(id).collect();
        engine.add(Request { prompt, task: Task::Generate(params.clone()), key: sequence })?;
    }
    let started = Instant::now();
    while engine.num_sequences() > 0 {
        engine.step()?;
    }
    let elapsed_s = started.elapsed().as_secs_f64();
    let stats = engine.stats();
    Ok(Timing {
        output: stats.num_output_tokens as f64 / elapsed_s,
        prefill: stats.num_prefill_tokens as f64 / stats.prefill_s,
        decode: stats.num_pure_decode_tokens as f64 / stats.decode_s,
        decode_steps_per_s: stats.num_pure_decode_steps as f64 / stats.decode_s,
        preemptions: stats.num_preemptions,
    })
}

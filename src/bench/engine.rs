//! The engine bench: N sequences of P prompt tokens and G output tokens, all given at once, random token ids.
//! Knows the engine only; prompts have no text, so any shape can be timed without its files.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::figures::Figures;
use super::machine::{self, MachineCeilings};
use super::setup::{Job, Loaded, Setup, median, per, random_tokens};
use super::{BenchError, lengths, memory};
use crate::engine::{EngineError, EngineOptions, Request, SamplingParams, Task};
use crate::model::LoadOptions;

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
    /// Tokens at the beginning that all prompts of a job share; the prefix cache is on if there are any.
    pub shared_prefix: usize,
    /// Also time [`lengths::ragged`] outputs of the same total, in turn.
    pub with_ragged: bool,
}

/// The job of ragged lengths beside the uniform one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ragged {
    /// Shortest output.
    pub least_output_len: usize,
    /// Longest output.
    pub most_output_len: usize,
    /// Medians over its runs.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What a bench gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineReport {
    /// `engine`.
    pub bench: &'static str,
    /// Model and machine.
    #[serde(flatten)]
    pub setup: Setup,
    /// The workload.
    #[serde(flatten)]
    pub workload: Workload,
    /// Medians over the runs.
    #[serde(flatten)]
    pub figures: Figures,
    /// Of ragged lengths, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ragged: Option<Ragged>,
    /// Output tokens per second of the ragged job over the uniform one's beside it, median over the runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ragged_share_of_uniform: Option<f64>,
    /// This machine's ceilings: the best product rate measured beside a run, and the read rate after all.
    pub machine: MachineCeilings,
    /// Seconds from the beginning of loading to the end of the first step.
    pub first_step_s: f64,
    /// Most memory of the process after loading and warming up, in MiB, before any ceiling is measured.
    pub peak_rss_mib: Option<f64>,
}

/// A job and the product rate of the minutes it ran in.
struct Timed {
    job: Job,
    gemm_gflop_s: f64,
}

/// Runs the bench.
///
/// # Errors
/// [`BenchError`] if the model cannot be loaded or the workload does not fit it.
pub fn run(
    path: &Path,
    load: &LoadOptions,
    options: &EngineOptions,
    workload: Workload,
) -> Result<EngineReport, BenchError> {
    let options = EngineOptions { prefix_cache: workload.shared_prefix > 0, ..*options };
    let started = Instant::now();
    let mut loaded = Loaded::new(path, load, &options)?;
    let mut first_step_s = None;
    let mut lengths = vec![vec![workload.output_len; workload.sequences]];
    if workload.with_ragged {
        lengths.push(lengths::ragged(workload.sequences, workload.output_len));
    }
    for (number, lengths) in lengths.iter().enumerate() {
        loaded.engine.add_all(requests(&workload, lengths, number, loaded.vocab()))?;
        loaded.engine.step()?;
        first_step_s.get_or_insert(started.elapsed().as_secs_f64());
        loaded.job([])?;
    }
    let peak_rss_mib = memory::peak_resident_mib();
    // What other programs take comes and goes, so each job is held against the product rate just before and just after it.
    let mut rates = vec![machine::gemm_rate(&load.compute).map_err(EngineError::from)?];
    let mut timed: Vec<Vec<Timed>> = lengths.iter().map(|_| Vec::new()).collect();
    for run in 1..=workload.runs {
        for (number, (lengths, timed)) in lengths.iter().zip(&mut timed).enumerate() {
            let requests = requests(&workload, lengths, 2 * run + number, loaded.vocab());
            let job = loaded.job(requests)?;
            let before = rates[rates.len() - 1];
            let after = machine::gemm_rate(&load.compute).map_err(EngineError::from)?;
            timed.push(Timed { job, gemm_gflop_s: before.max(after) });
            rates.push(after);
        }
    }
    let gemm_gflop_s = rates.into_iter().fold(0.0, f64::max);
    let machine =
        MachineCeilings { gemm_gflop_s, read_gb_s: machine::read_rate(&load.compute).map_err(EngineError::from)? };
    let figures: Vec<Vec<Figures>> = timed
        .iter()
        .map(|runs| {
            runs.iter().map(|run| Figures::new(&run.job, &loaded, run.gemm_gflop_s, machine.read_gb_s)).collect()
        })
        .collect();
    let ragged = figures.get(1).zip(lengths.get(1)).map(|(figures, lengths)| Ragged {
        least_output_len: lengths.iter().copied().min().unwrap_or(0),
        most_output_len: lengths.iter().copied().max().unwrap_or(0),
        figures: Figures::medians(figures),
    });
    let share = |ragged: &Vec<Figures>| {
        let pairs = ragged.iter().zip(&figures[0]);
        median(pairs.map(|(ragged, uniform)| per(ragged.output_tokens_per_s, uniform.output_tokens_per_s)))
    };
    Ok(EngineReport {
        bench: "engine",
        setup: loaded.setup,
        workload,
        figures: Figures::medians(&figures[0]),
        ragged,
        ragged_share_of_uniform: figures.get(1).map(share),
        machine,
        first_step_s: first_step_s.unwrap_or_default(),
        peak_rss_mib,
    })
}

/// One job's requests; `number` makes its prompts its own.
fn requests(workload: &Workload, lengths: &[usize], number: usize, vocab: usize) -> Vec<Request> {
    let salt = (number * (workload.sequences + 1)) as u64;
    let num_shared = workload.shared_prefix.min(workload.prompt_len);
    let shared = random_tokens(salt, num_shared, vocab);
    let request = |(index, &output_len): (usize, &usize)| {
        let key = salt + 1 + index as u64;
        let own = random_tokens(key, workload.prompt_len - num_shared, vocab);
        greedy([&shared[..], &own].concat(), output_len, key)
    };
    lengths.iter().enumerate().map(request).collect()
}

/// A request for exactly `output_len` likeliest tokens.
pub(super) fn greedy(prompt: Vec<u32>, output_len: usize, key: u64) -> Request {
    let params = SamplingParams { temperature: 0.0, max_tokens: output_len, ..SamplingParams::default() };
    Request { prompt, task: Task::Generate(params), key }
}

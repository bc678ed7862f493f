//! A steady job: sequences without end for some minutes, to see that neither memory nor the cost of a sequence grows.
//! Knows the engine and the clock; what a machine can do at best is no matter here.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::engine::{Workload, greedy};
use super::setup::{Job, Loaded, Setup, per, random_tokens};
use super::{BenchError, lengths, memory};
use crate::engine::{EngineError, EngineOptions, EngineStats, Event};
use crate::model::LoadOptions;

/// Parts of the time that are compared.
const PARTS: usize = 10;

/// What a steady job gave. Memory is in MiB, and `None` where the system does not tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SteadyReport {
    /// `engine-steady`.
    pub bench: &'static str,
    /// Model and machine.
    #[serde(flatten)]
    pub setup: Setup,
    /// Tokens per prompt.
    pub prompt_len: usize,
    /// Mean tokens generated per sequence.
    pub output_len: usize,
    /// Whether lengths are [`lengths::ragged`].
    pub ragged: bool,
    /// Minutes timed, after warming up.
    pub minutes: f64,
    /// Sequences that ended in these.
    pub sequences: u64,
    /// Tokens generated in these.
    pub output_tokens: u64,
    /// Tokens per second over all of these.
    pub output_tokens_per_s: f64,
    /// Tokens per second in each tenth of the time.
    pub tenths_tokens_per_s: Vec<f64>,
    /// Of the first tenth.
    pub first_tenth_tokens_per_s: f64,
    /// Of the last.
    pub last_tenth_tokens_per_s: f64,
    /// The last over the first.
    pub last_share_of_first: f64,
    /// Mean number of sequences in a step over the most there may be.
    pub batch_occupancy: f64,
    /// Times a sequence gave its blocks back.
    pub preemptions: u64,
    /// Before the first sequence.
    pub rss_start_mib: Option<f64>,
    /// When twice as many sequences have ended as run at once.
    pub rss_warm_mib: Option<f64>,
    /// At the end of each tenth.
    pub rss_tenths_mib: Vec<f64>,
    /// At the end.
    pub rss_end_mib: Option<f64>,
    /// The end's less that of the first tenth, by whose end every block of the KV cache has been used: before, its pages come in.
    pub rss_growth_mib: Option<f64>,
}

/// An engine that is fed.
struct Feed<'a> {
    loaded: &'a mut Loaded,
    lengths: Vec<usize>,
    prompt_len: usize,
    num_added: u64,
    num_ended: u64,
}

impl Feed<'_> {
    /// Fills the queue up to twice what runs at once, and steps.
    fn step(&mut self) -> Result<(), EngineError> {
        let vocab = self.loaded.vocab();
        while self.loaded.engine.num_sequences() < 2 * self.loaded.setup.max_batch {
            let output_len = self.lengths[self.num_added as usize % self.lengths.len()];
            let prompt = random_tokens(self.num_added, self.prompt_len, vocab);
            self.loaded.engine.add(greedy(prompt, output_len, self.num_added))?;
            self.num_added += 1;
        }
        let events = self.loaded.engine.step()?;
        self.num_ended += events.iter().filter(|event| matches!(event, Event::Finished { .. })).count() as u64;
        Ok(())
    }
}

/// Runs for `minutes` after warming up; of `workload` the lengths count, and whether they are ragged.
///
/// # Errors
/// [`BenchError`] if the model cannot be loaded or a sequence does not fit it.
pub fn run(
    path: &Path,
    load: &LoadOptions,
    options: &EngineOptions,
    workload: Workload,
    minutes: f64,
) -> Result<SteadyReport, BenchError> {
    let mut loaded = Loaded::new(path, load, options)?;
    let rss_start_mib = memory::resident_mib();
    let count = workload.sequences.max(1);
    let lengths = match workload.with_ragged {
        true => lengths::ragged(count, workload.output_len),
        false => vec![workload.output_len; count],
    };
    let mut feed = Feed { loaded: &mut loaded, lengths, prompt_len: workload.prompt_len, num_added: 0, num_ended: 0 };
    while feed.num_ended < 2 * feed.loaded.setup.max_batch as u64 {
        feed.step()?;
    }
    let rss_warm_mib = memory::resident_mib();
    let (before, ended_before) = (feed.loaded.engine.stats(), feed.num_ended);
    let started = Instant::now();
    let mut marks = vec![(0.0, 0)];
    let mut rss_tenths_mib = Vec::new();
    while marks.len() <= PARTS {
        feed.step()?;
        let elapsed_s = started.elapsed().as_secs_f64();
        let num_tokens = feed.loaded.engine.stats().since(&before).num_output_tokens;
        while marks.len() <= PARTS && elapsed_s >= minutes * 60.0 * marks.len() as f64 / PARTS as f64 {
            marks.push((elapsed_s, num_tokens));
            rss_tenths_mib.extend(memory::resident_mib());
        }
    }
    let sequences = feed.num_ended - ended_before;
    let job = Job { stats: loaded.engine.stats().since(&before), elapsed_s: marks[PARTS].0 };
    let rss = [rss_start_mib, rss_warm_mib, memory::resident_mib()];
    Ok(report(loaded.setup, &workload, &job, sequences, &marks, rss, rss_tenths_mib))
}

/// `marks`: seconds and tokens at the end of each part, the beginning first. `rss`: at the start, warm, at the end.
fn report(
    setup: Setup,
    workload: &Workload,
    job: &Job,
    sequences: u64,
    marks: &[(f64, u64)],
    [rss_start_mib, rss_warm_mib, rss_end_mib]: [Option<f64>; 3],
    rss_tenths_mib: Vec<f64>,
) -> SteadyReport {
    let EngineStats { num_output_tokens, num_steps, num_sequence_steps, num_preemptions, .. } = job.stats;
    let rate = |part: &[(f64, u64)]| per((part[1].1 - part[0].1) as f64, part[1].0 - part[0].0);
    let tenths: Vec<f64> = marks.windows(2).map(rate).collect();
    let (first, last) = (tenths[0], tenths[tenths.len() - 1]);
    let mean_batch = per(num_sequence_steps as f64, num_steps as f64);
    SteadyReport {
        bench: "engine-steady",
        batch_occupancy: mean_batch / setup.max_batch.max(1) as f64,
        setup,
        prompt_len: workload.prompt_len,
        output_len: workload.output_len,
        ragged: workload.with_ragged,
        minutes: job.elapsed_s / 60.0,
        sequences,
        output_tokens: num_output_tokens,
        output_tokens_per_s: per(num_output_tokens as f64, job.elapsed_s),
        tenths_tokens_per_s: tenths,
        first_tenth_tokens_per_s: first,
        last_tenth_tokens_per_s: last,
        last_share_of_first: per(last, first),
        preemptions: num_preemptions,
        rss_start_mib,
        rss_warm_mib,
        rss_growth_mib: rss_end_mib.zip(rss_tenths_mib.first()).map(|(end, first)| end - first),
        rss_tenths_mib,
        rss_end_mib,
    }
}

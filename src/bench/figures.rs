//! A job's figures: rates, shares of the machine's peak, and where the time went. Knows the engine's counts; times nothing.

use serde::Serialize;

use super::setup::{Job, Loaded, median, per};
use crate::ops::Runs;

/// Parts of a job's time. They overlap where the engine does two things at once: planning runs beside the device. A CUDA device's work is not
/// waited for part by part, so of it there is only planning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Times {
    /// Planning and gathering steps, most of it beside the rest.
    pub scheduler: f64,
    /// Choosing tokens from logits.
    pub sampler: Option<f64>,
    /// Products with weights.
    pub products: Option<f64>,
    /// Attention over the cache.
    pub attention: Option<f64>,
    /// The job's time without sampler, products and attention: norms, rotary, activations, embedding, and all waiting.
    pub other: Option<f64>,
}

/// Of one job, or the medians over several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Seconds of the whole job.
    pub elapsed_s: f64,
    /// Output tokens / seconds of the whole job.
    pub output_tokens_per_s: f64,
    /// Prompt tokens / seconds of the steps that hold prompts.
    pub prefill_tokens_per_s: f64,
    /// Decoded tokens / seconds of the steps that only decode; 0 if there are none.
    pub decode_tokens_per_s: f64,
    /// Tokens generated.
    pub output_tokens: u64,
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Steps.
    pub steps: u64,
    /// Mean number of sequences in a step.
    pub mean_batch: f64,
    /// That over the most there may be.
    pub batch_occupancy: f64,
    /// Prompt tokens found in the prefix cache.
    pub reused_tokens: u64,
    /// Times a sequence gave its blocks back.
    pub preemptions: u64,
    /// Arithmetic of prefill (weights' products without the head's), in GFLOP/s over all seconds of its steps.
    pub prefill_gflop_s: f64,
    /// Arithmetic of decoding, the head's included.
    pub decode_gflop_s: f64,
    /// Prefill's arithmetic over the product ceiling.
    pub prefill_share_of_gemm: f64,
    /// Decoding's arithmetic over the product ceiling.
    pub decode_share_of_gemm: f64,
    /// Bytes of weights read by decode steps per second, over the read ceiling.
    pub decode_share_of_bandwidth: f64,
    /// Where the time went, in seconds.
    pub seconds: Times,
    /// The same as shares of the job's time.
    pub shares_of_time: Times,
}

impl Times {
    fn of(job: &Job, on_host: bool) -> Self {
        let stats = &job.stats;
        let [sampler, products, attention] =
            [stats.sampler_s, stats.products_s, stats.attention_s].map(|part| on_host.then_some(part));
        let other = on_host.then_some(job.elapsed_s - stats.sampler_s - stats.products_s - stats.attention_s);
        Self { scheduler: stats.scheduler_s, sampler, products, attention, other }
    }

    fn map(&self, of: impl Fn(f64) -> f64) -> Self {
        Self {
            scheduler: of(self.scheduler),
            sampler: self.sampler.map(&of),
            products: self.products.map(&of),
            attention: self.attention.map(&of),
            other: self.other.map(&of),
        }
    }
}

impl Figures {
    /// Of one job on a machine that multiplies at `gemm_gflop_s` and reads at `read_gb_s`.
    pub fn new(job: &Job, loaded: &Loaded, gemm_gflop_s: f64, read_gb_s: f64) -> Self {
        let Job { stats, elapsed_s } = job;
        let prefill = per(stats.num_prefill_tokens as f64, stats.prefill_s);
        let decode = per(stats.num_pure_decode_tokens as f64, stats.decode_s);
        let decode_steps = per(stats.num_pure_decode_steps as f64, stats.decode_s);
        let mean_batch = per(stats.num_sequence_steps as f64, stats.num_steps as f64);
        let prefill_gflop_s = prefill * 2.0 * (loaded.product_parameters - loaded.head_parameters) / 1e9;
        let decode_gflop_s = decode * 2.0 * loaded.product_parameters / 1e9;
        let on_host = !matches!(loaded.engine.decoder().compute().runs(), Runs::Cuda(_));
        let seconds = Times::of(job, on_host);
        Self {
            elapsed_s: *elapsed_s,
            output_tokens_per_s: per(stats.num_output_tokens as f64, *elapsed_s),
            prefill_tokens_per_s: prefill,
            decode_tokens_per_s: decode,
            output_tokens: stats.num_output_tokens,
            prefill_tokens: stats.num_prefill_tokens,
            steps: stats.num_steps,
            mean_batch,
            batch_occupancy: mean_batch / loaded.setup.max_batch.max(1) as f64,
            reused_tokens: stats.num_reused_tokens,
            preemptions: stats.num_preemptions,
            prefill_gflop_s,
            decode_gflop_s,
            prefill_share_of_gemm: per(prefill_gflop_s, gemm_gflop_s),
            decode_share_of_gemm: per(decode_gflop_s, gemm_gflop_s),
            decode_share_of_bandwidth: per(decode_steps * loaded.weight_bytes, read_gb_s * 1e9),
            seconds,
            shares_of_time: seconds.map(|part| per(part, *elapsed_s)),
        }
    }

    /// The median of each figure by itself.
    pub fn medians(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(runs.iter().map(figure));
        let count = |figure: fn(&Self) -> u64| median(runs.iter().map(|run| figure(run) as f64)) as u64;
        let times = |times: fn(&Self) -> Times| {
            let part = |part: fn(&Times) -> Option<f64>| {
                let all: Option<Vec<f64>> = runs.iter().map(|run| part(&times(run))).collect();
                all.map(median)
            };
            Times {
                scheduler: median(runs.iter().map(|run| times(run).scheduler)),
                sampler: part(|times| times.sampler),
                products: part(|times| times.products),
                attention: part(|times| times.attention),
                other: part(|times| times.other),
            }
        };
        Self {
            elapsed_s: of(|run| run.elapsed_s),
            output_tokens_per_s: of(|run| run.output_tokens_per_s),
            prefill_tokens_per_s: of(|run| run.prefill_tokens_per_s),
            decode_tokens_per_s: of(|run| run.decode_tokens_per_s),
            output_tokens: count(|run| run.output_tokens),
            prefill_tokens: count(|run| run.prefill_tokens),
            steps: count(|run| run.steps),
            mean_batch: of(|run| run.mean_batch),
            batch_occupancy: of(|run| run.batch_occupancy),
            reused_tokens: count(|run| run.reused_tokens),
            preemptions: count(|run| run.preemptions),
            prefill_gflop_s: of(|run| run.prefill_gflop_s),
            decode_gflop_s: of(|run| run.decode_gflop_s),
            prefill_share_of_gemm: of(|run| run.prefill_share_of_gemm),
            decode_share_of_gemm: of(|run| run.decode_share_of_gemm),
            decode_share_of_bandwidth: of(|run| run.decode_share_of_bandwidth),
            seconds: times(|run| run.seconds),
            shares_of_time: times(|run| run.shares_of_time),
        }
    }

    /// What a table says: name and text of each figure.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let share = |share: f64| format!("{:.1} %", 100.0 * share);
        let part = |name, part: fn(&Times) -> Option<f64>| {
            let (seconds, of_time) = (part(&self.seconds)?, part(&self.shares_of_time)?);
            Some((name, format!("{seconds:.3} s {:>7}", share(of_time))))
        };
        let parts = [
            part("in products", |times| times.products),
            part("in attention", |times| times.attention),
            part("in sampler", |times| times.sampler),
            part("elsewhere", |times| times.other),
            part("scheduler (beside the rest)", |times| Some(times.scheduler)),
        ];
        let mut rows = vec![
            ("seconds", format!("{:.3}", self.elapsed_s)),
            ("output tokens/s", format!("{:.1}", self.output_tokens_per_s)),
            ("prefill tokens/s", format!("{:.1}", self.prefill_tokens_per_s)),
            ("decode tokens/s", format!("{:.1}", self.decode_tokens_per_s)),
            ("steps", self.steps.to_string()),
            ("sequences per step", format!("{:.1} {:>8}", self.mean_batch, share(self.batch_occupancy))),
            ("tokens from the prefix cache", self.reused_tokens.to_string()),
            ("preemptions", self.preemptions.to_string()),
            ("prefill, of product peak", share(self.prefill_share_of_gemm)),
            ("decode, of product peak", share(self.decode_share_of_gemm)),
            ("decode, of read peak", share(self.decode_share_of_bandwidth)),
        ];
        rows.extend(parts.into_iter().flatten());
        rows
    }
}

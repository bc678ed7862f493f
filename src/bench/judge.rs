//! The judge bench: pairs of answers rated on several aspects as the judge asks for them (rubric, prompt, answer, question),
//! beside the same engine without prefix reuse and beside ratings that are decoded. Random token ids; knows no text and no rubric.
//!
//! All ways use one engine. Where nothing may be reused each request begins with tokens of its own, so that no block of it is
//! anybody else's: the same work as without a prefix cache, and no second cache to fill.

use std::path::Path;

use serde::Serialize;

use super::BenchError;
use super::engine::greedy;
use super::setup::{Job, Loaded, Setup, median, per, random_tokens};
use crate::engine::{EngineOptions, Request, Task};
use crate::model::LoadOptions;

/// Ratings asked about: 1 to 5.
const NUM_LABELS: u32 = 5;
/// Tokens that make a request's beginning its own.
const MARK: usize = 4;

/// The workload, lengths in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct JudgeWorkload {
    /// Pairs of answers, each to a prompt of its own.
    pub pairs: usize,
    /// Questions about each answer.
    pub aspects: usize,
    /// What stands before every prompt.
    pub rubric_len: usize,
    /// Of a prompt.
    pub prompt_len: usize,
    /// Of an answer.
    pub answer_len: usize,
    /// Of an aspect's question.
    pub question_len: usize,
    /// Of a decoded rating.
    pub rating_tokens: usize,
    /// Pairs for the ways without reuse: their time per pair is what is compared.
    pub baseline_pairs: usize,
    /// Times each way is timed, in turn.
    pub runs: usize,
}

/// A way to rate; medians over the runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Way {
    /// Pairs rated in a run.
    pub pairs: usize,
    /// Pairs per second.
    pub pairs_per_s: f64,
    /// Seconds per pair.
    pub s_per_pair: f64,
    /// Prompt tokens computed in a run.
    pub prefill_tokens: u64,
    /// Prompt tokens found in the prefix cache in a run.
    pub reused_tokens: u64,
    /// Tokens computed one at a time in a run; 0: no decode step ran.
    pub decode_tokens: u64,
    /// Times a sequence gave its blocks back in a run.
    pub preemptions: u64,
}

/// What the bench gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JudgeReport {
    /// `judge`.
    pub bench: &'static str,
    /// Model and machine.
    #[serde(flatten)]
    pub setup: Setup,
    /// The workload.
    #[serde(flatten)]
    pub workload: JudgeWorkload,
    /// Ours: prefix cache, scores.
    pub ours: Way,
    /// No reuse, and a rating of `rating_tokens` decoded.
    pub decoded_without_reuse: Way,
    /// No reuse, and a rating of one token decoded.
    pub one_token_without_reuse: Way,
    /// No reuse, scores.
    pub scores_without_reuse: Way,
    /// Time per pair of `decoded_without_reuse` over ours, median over the runs.
    pub ratio_to_decoded: f64,
    /// Of `one_token_without_reuse` over ours.
    pub ratio_to_one_token: f64,
    /// Of `scores_without_reuse` over ours.
    pub ratio_to_scores: f64,
    /// Whether ours ran any decode step.
    pub ours_decoded: bool,
}

/// How a job asks.
#[derive(Debug, Clone, Copy)]
struct Ask {
    reuse: bool,
    /// Decode a rating of this many tokens; `None`: read scores.
    rating_tokens: Option<usize>,
}

/// Runs the bench: one pair our way to warm up, then all ways in turn, `runs` times.
///
/// # Errors
/// [`BenchError`] if the model cannot be loaded or the workload does not fit it.
pub fn run(
    path: &Path,
    load: &LoadOptions,
    options: &EngineOptions,
    workload: JudgeWorkload,
) -> Result<JudgeReport, BenchError> {
    let options = EngineOptions { prefix_cache: true, ..*options };
    let mut loaded = Loaded::new(path, load, &options)?;
    let asks = [
        Ask { reuse: true, rating_tokens: None },
        Ask { reuse: false, rating_tokens: Some(workload.rating_tokens) },
        Ask { reuse: false, rating_tokens: Some(1) },
        Ask { reuse: false, rating_tokens: None },
    ];
    let pairs_of = |ask: Ask| if ask.reuse { workload.pairs } else { workload.baseline_pairs };
    let vocab = loaded.vocab();
    loaded.job(requests(&workload, asks[0], 1, 0, vocab))?;
    let mut jobs: [Vec<Job>; 4] = Default::default();
    for run in 0..workload.runs {
        for (way, (&ask, jobs)) in asks.iter().zip(&mut jobs).enumerate() {
            let number = 1 + run * asks.len() + way;
            jobs.push(loaded.job(requests(&workload, ask, pairs_of(ask), number, vocab))?);
        }
    }
    let s_per_pair = |way: usize, run: usize| per(jobs[way][run].elapsed_s, pairs_of(asks[way]) as f64);
    let ratio = |way: usize| median((0..workload.runs).map(|run| per(s_per_pair(way, run), s_per_pair(0, run))));
    let way = |way: usize| Way::of(&jobs[way], pairs_of(asks[way]));
    Ok(JudgeReport {
        bench: "judge",
        setup: loaded.setup,
        workload,
        ours: way(0),
        decoded_without_reuse: way(1),
        one_token_without_reuse: way(2),
        scores_without_reuse: way(3),
        ratio_to_decoded: ratio(1),
        ratio_to_one_token: ratio(2),
        ratio_to_scores: ratio(3),
        ours_decoded: jobs[0].iter().any(|job| job.stats.num_decode_tokens > 0),
    })
}

impl Way {
    fn of(jobs: &[Job], pairs: usize) -> Self {
        let s_per_pair = per(median(jobs.iter().map(|job| job.elapsed_s)), pairs as f64);
        let count = |of: fn(&Job) -> u64| median(jobs.iter().map(|job| of(job) as f64)) as u64;
        Self {
            pairs,
            pairs_per_s: per(1.0, s_per_pair),
            s_per_pair,
            prefill_tokens: count(|job| job.stats.num_prefill_tokens),
            reused_tokens: count(|job| job.stats.num_reused_tokens),
            decode_tokens: count(|job| job.stats.num_decode_tokens),
            preemptions: count(|job| job.stats.num_preemptions),
        }
    }
}

/// One job's requests in the judge's order: each pair's answers, each answer's aspects. `number` makes all its texts its own, the
/// rubric's too, so that what is reused was computed in the same job.
fn requests(workload: &JudgeWorkload, ask: Ask, pairs: usize, number: usize, vocab: usize) -> Vec<Request> {
    let texts_per_job = 1 + workload.aspects + 3 * workload.pairs.max(workload.baseline_pairs).max(1);
    let text = |index: usize, len: usize| random_tokens((number * texts_per_job + index) as u64, len, vocab);
    let rubric = text(0, workload.rubric_len);
    let questions: Vec<Vec<u32>> =
        (0..workload.aspects).map(|aspect| text(1 + aspect, workload.question_len)).collect();
    let targets: Vec<u32> = (0..NUM_LABELS).map(|label| label % vocab as u32).collect();
    let mut requests = Vec::with_capacity(pairs * 2 * workload.aspects);
    for pair in 0..pairs {
        let first = 1 + workload.aspects + 3 * pair;
        let prompt = text(first, workload.prompt_len);
        for answer in [first + 1, first + 2].map(|index| text(index, workload.answer_len)) {
            for question in &questions {
                let mut tokens = [&rubric[..], &prompt, &answer, question].concat();
                if !ask.reuse {
                    mark(&mut tokens, requests.len(), vocab);
                }
                let key = requests.len() as u64;
                requests.push(match ask.rating_tokens {
                    Some(output_len) => greedy(tokens, output_len, key),
                    None => Request { prompt: tokens, task: Task::Score { targets: targets.clone() }, key },
                });
            }
        }
    }
    requests
}

/// Writes `number` over the beginning, in the base of the vocabulary.
fn mark(tokens: &mut [u32], number: usize, vocab: usize) {
    let mut left = number;
    for token in tokens.iter_mut().take(MARK) {
        *token = (left % vocab) as u32;
        left /= vocab;
    }
}

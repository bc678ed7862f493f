//! The engine timed on a stage's own requests for a while: what its steps take, and how long answers get. Knows an engine and a clock;
//! knows no text and loads no model.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::cost::Fitted;
use super::simulate::{Job, StepShape};
use crate::engine::{EngineError, Event, Fleet, Request, SamplingParams, Task};

/// Steps at the beginning that say little: memory is touched for the first time.
const NUM_FIRST: usize = 3;
/// Quantiles that stand for the lengths of answers; they are taken in an order that mixes them.
const NUM_LENGTHS: usize = 64;
const MIXING: usize = 37;
/// Answers that must have ended before their lengths say anything of all.
const MIN_ENDED: usize = 8;
/// The least that a range is wide to each side: machines are noisy.
const MIN_SPREAD: f64 = 0.10;

/// What was seen.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Seconds of steps by what they hold.
    pub fitted: Fitted,
    /// How far apart the two halves of the time are by the same fit, at least a tenth.
    pub spread: f64,
    /// Tokens of each answer so far, and whether it had ended by itself or its limit.
    pub answers: Vec<(Vec<u32>, bool)>,
    /// Seconds it ran.
    pub elapsed_s: f64,
    /// Steps that were timed.
    pub num_steps: usize,
}

/// Runs `groups`, of which all are queued as in a run, until they are done or `budget` is over. Answers are sampled by `sampling`.
///
/// # Errors
/// [`EngineError`] of the engine. `Ok(None)`: no step was run.
pub fn measure(
    engine: &mut Fleet,
    groups: &[Vec<Job>],
    queue_len: usize,
    sampling: &SamplingParams,
    budget: Duration,
) -> Result<Option<Measured>, EngineError> {
    let stride = stride(groups.len());
    let mut waiting = (0..groups.len()).map(|at| &groups[at * stride % groups.len()]);
    let mut answers: HashMap<u64, (Vec<u32>, bool)> = HashMap::new();
    let (mut timed, mut all_queued) = (Vec::new(), false);
    let started = Instant::now();
    while started.elapsed() < budget {
        while !all_queued && engine.num_sequences() < queue_len {
            let Some(group) = waiting.next() else {
                all_queued = true;
                break;
            };
            // What can never be served is a drop of the run's, and costs it no time.
            let ids = engine.add_all(group.iter().map(|job| request(job, sampling)).collect()).unwrap_or_default();
            answers.extend(ids.into_iter().map(|id| (id, (Vec::new(), false))));
        }
        if engine.num_sequences() == 0 {
            break;
        }
        let (before, at) = (engine.stats(), Instant::now());
        for event in engine.step()? {
            match event {
                Event::Token { id, token } => answers.entry(id).or_default().0.push(token),
                Event::Finished { id, .. } => answers.entry(id).or_default().1 = true,
            }
        }
        let now = engine.stats().since(&before);
        let shape = StepShape {
            prefill_tokens: now.num_prefill_tokens,
            decode_tokens: now.num_decode_tokens,
            context_tokens: now.num_context_tokens,
            num_logits: 0,
        };
        if now.num_steps > 0 {
            timed.push((shape, at.elapsed().as_secs_f64() / now.num_steps as f64));
        }
    }
    let elapsed_s = started.elapsed().as_secs_f64();
    answers.keys().for_each(|id| _ = engine.stop(*id));
    // Several engines hear of it with their next steps.
    while engine.num_sequences() > 0 {
        engine.step()?;
    }
    let usual = if timed.len() > 10 * NUM_FIRST { &timed[NUM_FIRST..] } else { &timed[..] };
    let Some(fitted) = Fitted::of(usual) else { return Ok(None) };
    let (first, second) = usual.split_at(usual.len() / 2);
    let off = |steps: &[(StepShape, f64)]| {
        let (fit, real) = steps.iter().fold((0.0, 0.0), |sum, (step, s)| (sum.0 + fitted.step_s(step), sum.1 + s));
        if fit > 0.0 { (real / fit - 1.0).abs() } else { 0.0 }
    };
    let spread = off(first).max(off(second)).clamp(MIN_SPREAD, 0.9);
    let answers = answers.into_values().filter(|(tokens, ended)| *ended || !tokens.is_empty()).collect();
    Ok(Some(Measured { fitted, spread, answers, elapsed_s, num_steps: timed.len() }))
}

/// A step over the groups that visits all of them in mixed order: coprime to their number.
fn stride(len: usize) -> usize {
    let divides = |a: usize, b: usize| (2..=a.min(b)).any(|d| a.is_multiple_of(d) && b.is_multiple_of(d));
    (MIXING..MIXING + len.max(2)).find(|stride| !divides(*stride, len)).unwrap_or(1)
}

fn request(job: &Job, sampling: &SamplingParams) -> Request {
    let task = match job.max_tokens {
        0 => Task::Score { targets: vec![0] },
        max_tokens => Task::Generate(SamplingParams { max_tokens, constraint: None, ..sampling.clone() }),
    };
    Request { prompt: job.prompt.clone(), task, key: job.prompt.len() as u64 }
}

impl Measured {
    /// Answers that had ended.
    pub fn num_ended(&self) -> usize {
        self.answers.iter().filter(|(_, ended)| *ended).count()
    }

    /// Whether enough had ended to speak of lengths without people's answers.
    pub fn knows_lengths(&self) -> bool {
        self.num_ended() >= MIN_ENDED
    }

    /// Lengths that stand for all answers. If enough have ended, by the product-limit estimate (Kaplan and Meier, 1958), in which answers that
    /// were cut by the clock count for as long as they were seen. Else an answer ends after each token with the same probability: as often as
    /// was seen, and as people's answers do, of which `people` is the mean length, as if eight of those had been seen too.
    pub fn lengths(&self, max_tokens: usize, people: f64) -> Vec<usize> {
        let share = |at: usize| (((at * MIXING) % NUM_LENGTHS) as f64 + 0.5) / NUM_LENGTHS as f64;
        let bounded = |len: usize| len.clamp(1, max_tokens.max(1));
        if self.knows_lengths() {
            let steps = self.product_limit();
            let quantile =
                |share: f64| steps.iter().find(|(_, below)| *below >= share).map_or(max_tokens, |(len, _)| *len);
            return (0..NUM_LENGTHS).map(|at| bounded(quantile(share(at)))).collect();
        }
        let seen: usize = self.answers.iter().map(|(tokens, _)| tokens.len()).sum();
        let prior = MIN_ENDED as f64;
        let ends = (self.num_ended() as f64 + prior) / (seen as f64 + prior * people.max(1.0));
        let quantile = |share: f64| ((1.0 - share).ln() / (1.0 - ends.min(0.999)).ln()).ceil() as usize;
        (0..NUM_LENGTHS).map(|at| bounded(quantile(share(at)))).collect()
    }

    /// Lengths at which answers ended, and the share that is no longer than that.
    fn product_limit(&self) -> Vec<(usize, f64)> {
        let mut seen: Vec<(usize, bool)> = self.answers.iter().map(|(tokens, ended)| (tokens.len(), *ended)).collect();
        seen.sort_unstable();
        let (mut survival, mut steps) = (1.0, Vec::new());
        for (at, (len, ended)) in seen.iter().enumerate() {
            if *ended {
                survival *= 1.0 - 1.0 / (seen.len() - at) as f64;
                steps.push((*len, 1.0 - survival));
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(answers: &[(usize, bool)]) -> Measured {
        let answers = answers.iter().map(|(len, ended)| (vec![0; *len], *ended)).collect();
        Measured { fitted: Fitted { seconds: [0.0; 4] }, spread: 0.1, answers, elapsed_s: 1.0, num_steps: 1 }
    }

    #[test]
    fn answers_cut_by_the_clock_are_not_taken_for_short_ones() {
        let ended: Vec<_> = (1..=20).map(|n| (10 * n, true)).collect();
        let mean = |lengths: Vec<usize>| lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
        assert!((mean(seen(&ended).lengths(512, 50.0)) - 105.0).abs() < 5.0);
        // Half of them are cut when they have 100 tokens: the other half says how it goes on.
        let cut: Vec<_> = ended.iter().chain(&[(100, false); 20]).copied().collect();
        assert!(mean(seen(&cut).lengths(512, 50.0)) > 120.0);
        // Too few have ended: people's answers are believed as long as nothing else was seen.
        let few = |answers: &[(usize, bool)], people| mean(seen(answers).lengths(512, people));
        assert!((few(&[], 50.0) - 50.0).abs() < 3.0 && (few(&[(1, false)], 200.0) - 180.0).abs() < 20.0);
        assert!(few(&[(90, false); 64], 27.0) > 250.0, "64 answers of 90 tokens went on");
        assert_eq!(seen(&[(128, true); 9]).lengths(128, 20.0), [128; NUM_LENGTHS]);
    }

    #[test]
    fn a_stride_visits_every_group() {
        for len in [1, 2, 36, 37, 74, 100] {
            let step = stride(len);
            let visited: std::collections::BTreeSet<usize> = (0..len).map(|at| at * step % len).collect();
            assert_eq!(visited.len(), len, "{len}");
        }
    }
}

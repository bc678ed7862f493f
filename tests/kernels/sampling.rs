//! Choosing tokens: every bit of what the kernels find is the CPU sampler's, over all parameters and over rows with ties, infinities and
//! NaN. Knows the sampler; knows no engine.

use std::collections::BTreeMap;

use pairwright::engine::sampler::{sample_among, target_logprobs};
use pairwright::engine::{SamplingParams, TokenSet};

use super::machine::{Launch, Number};

/// `Ask` of kernels/sampling.cu.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Ask {
    uniform: f64,
    temperature: f32,
    top_p: f32,
    min_p: f32,
    penalties: [f32; 3],
    purpose: i32,
    top_k: i32,
    top_start: i32,
    top_count: i32,
    seen: [i32; 2],
    targets: [i32; 2],
    allowed: i32,
    unused: i32,
}

/// `Answer` of kernels/sampling.cu.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Answer {
    sum: f64,
    best: f32,
    logit: f32,
    token: i32,
    unused: i32,
}

/// `Top` of kernels/sampling.cu.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Top {
    token: i32,
    logit: f32,
}

/// `Run` of kernels/sampling_survey.cuh.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
struct Run([f32; 4]);

impl Number for Ask {}
impl Number for Answer {}
impl Number for Top {}
impl Number for Run {}

/// A row and what is asked of it.
#[derive(Debug, Clone)]
struct Job {
    logits: Vec<f32>,
    /// `None`: targets alone.
    params: Option<SamplingParams>,
    key: u64,
    /// Instead of the random number of sampler.rs.
    uniform: Option<f64>,
    tokens: Vec<u32>,
    prompt_len: usize,
    targets: Vec<u32>,
    /// A bit per token.
    allowed: Option<Vec<u32>>,
}

/// What was found: token, log-probability, likeliest tokens, log-probabilities of targets. NaN has one pattern here, whose sign and
/// payload no standard fixes.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    token: Option<(u32, u32)>,
    top: Vec<(u32, u32)>,
    targets: Vec<u32>,
}

fn pattern(logprob: f32) -> u32 {
    if logprob.is_nan() { f32::NAN.to_bits() } else { logprob.to_bits() }
}

fn allowed(job: &Job) -> Option<TokenSet> {
    let mut allowed = TokenSet::empty(job.logits.len());
    allowed.add(job.allowed.as_ref()?);
    Some(allowed)
}

/// By the CPU.
fn expected(job: &Job) -> Found {
    let targets = target_logprobs(&job.logits, &job.targets).into_iter().map(pattern).collect();
    let Some(params) = &job.params else { return Found { token: None, top: Vec::new(), targets } };
    let chosen = sample_among(allowed(job).as_ref(), &job.logits, params, job.key, &job.tokens, job.prompt_len);
    let top = chosen.top.iter().map(|&(token, logprob)| (token, pattern(logprob))).collect();
    Found { token: Some((chosen.token, pattern(chosen.logprob))), top, targets }
}

/// The random number of sampler.rs.
fn uniform(job: &Job, seed: u64) -> f64 {
    let position = (job.tokens.len() - job.prompt_len) as u64;
    let bytes: Vec<u8> = [seed, job.key, position].into_iter().flat_map(u64::to_le_bytes).collect();
    (xxhash_rust::xxh3::xxh3_64(&bytes) >> 11) as f64 / (1u64 << 53) as f64
}

/// Tokens of a text, and how often each stands in the answer.
fn seen(job: &Job) -> BTreeMap<u32, u32> {
    let mut seen = BTreeMap::new();
    job.tokens[..job.prompt_len].iter().for_each(|&token| _ = seen.entry(token).or_default());
    job.tokens[job.prompt_len..].iter().for_each(|&token| *seen.entry(token).or_default() += 1);
    seen
}

/// Arrays of one step.
#[derive(Default)]
struct Step {
    asks: Vec<Ask>,
    /// Token and count in the answer.
    seen: Vec<[u32; 2]>,
    targets: Vec<u32>,
    masks: Vec<u32>,
    num_tops: usize,
}

impl Number for [u32; 2] {}

impl Step {
    fn push(&mut self, job: &Job) {
        let vocabulary = job.logits.len();
        let mut ask = Ask { purpose: 1, allowed: -1, top_start: self.num_tops as i32, ..Ask::default() };
        ask.targets[0] = self.targets.len() as i32;
        self.targets.extend(&job.targets);
        ask.targets[1] = self.targets.len() as i32;
        if let Some(params) = &job.params {
            ask.purpose = 2;
            ask.uniform = job.uniform.unwrap_or_else(|| uniform(job, params.seed));
            (ask.temperature, ask.top_p, ask.min_p) = (params.temperature, params.top_p, params.min_p);
            ask.penalties = [params.repetition_penalty, params.presence_penalty, params.frequency_penalty];
            ask.top_k = params.top_k.map_or(0, |count| count.max(1) as i32);
            ask.top_count = params.top_logprobs as i32;
            self.num_tops += params.top_logprobs.min(vocabulary);
            ask.seen[0] = self.seen.len() as i32;
            self.seen.extend(seen(job).into_iter().map(|(token, count)| [token, count]));
            ask.seen[1] = self.seen.len() as i32;
            if let Some(allowed) = &job.allowed {
                ask.allowed = (self.masks.len() / allowed.len()) as i32;
                self.masks.extend(allowed);
            }
        }
        self.asks.push(ask);
    }
}

/// What the kernels leave in memory.
struct Left {
    asks: Vec<Ask>,
    runs: Vec<Run>,
    answers: Vec<Answer>,
    tops: Vec<Top>,
    target_logits: Vec<f32>,
}

/// Runs the kernels with `padding` rows behind each job's. The runs are those that the survey leaves.
fn launch(jobs: &[Job], padding: usize) -> Left {
    let vocabulary = jobs[0].logits.len();
    let mut step = Step::default();
    let mut logits = Vec::new();
    for job in jobs {
        step.push(job);
        logits.extend(&job.logits);
        step.asks.extend(vec![Ask::default(); padding]);
        logits.resize(logits.len() + padding * vocabulary, f32::NAN);
    }
    let before: Vec<u32> = logits.iter().map(|logit| logit.to_bits()).collect();
    let (rows, num_runs) = (step.asks.len(), vocabulary.div_ceil(256));
    let mut runs = vec![Run([f32::NAN; 4]); rows * num_runs];
    let mut saved = vec![0f32; step.seen.len()];
    let mut answers = vec![Answer { sum: 0.0, best: 0.0, logit: 0.0, token: -2, unused: 0 }; rows];
    let mut tops = vec![Top { token: -1, logit: 0.0 }; step.num_tops];
    let mut target_logits = vec![0f32; step.targets.len()];
    let tiles = num_runs.div_ceil(16) as u32;
    let survey = Launch::new("pairwright_survey_f32", [tiles, rows as u32, 1], 256).input(&logits).int(vocabulary);
    survey.input(&step.asks).output(&mut runs).input(&step.seen).input(&step.masks).run();
    let surveyed = runs.clone();
    let choose = Launch::new("pairwright_choose_f32", [rows as u32, 1, 1], 256).output(&mut logits).int(vocabulary);
    let choose = choose.input(&step.asks).output(&mut runs).input(&step.seen).output(&mut saved);
    let choose = choose.input(&step.targets).input(&step.masks).output(&mut answers).output(&mut tops);
    choose.output(&mut target_logits).run();
    assert!(logits.iter().map(|logit| logit.to_bits()).eq(before), "the logits have changed");
    let mut rows = step.asks.iter().zip(&answers);
    assert!(rows.all(|(ask, answer)| (ask.purpose == 0) == (answer.token == -2)), "padding was written");
    Left { asks: step.asks, runs: surveyed, answers, tops, target_logits }
}

/// By the kernels; logarithms by the host.
fn found(jobs: &[Job], padding: usize) -> Vec<Found> {
    let left = launch(jobs, padding);
    let finish = |(ask, answer): (&Ask, &Answer)| {
        let log_sum = f64::from(answer.best) + answer.sum.ln();
        let logprob = |logit: f32| pattern((f64::from(logit) - log_sum) as f32);
        let top = &left.tops[ask.top_start as usize..][..(ask.top_count as usize).min(jobs[0].logits.len())];
        let targets = &left.target_logits[ask.targets[0] as usize..ask.targets[1] as usize];
        Found {
            token: (ask.purpose == 2).then(|| (answer.token as u32, logprob(answer.logit))),
            top: top.iter().map(|top| (top.token as u32, logprob(top.logit))).collect(),
            targets: targets.iter().copied().map(logprob).collect(),
        }
    };
    left.asks.iter().zip(&left.answers).filter(|(ask, _)| ask.purpose > 0).map(finish).collect()
}

/// SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// Below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Of [-1, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

const KINDS: usize = 14;

/// A row of the given kind.
fn logits(kind: usize, vocabulary: usize, random: &mut Random) -> Vec<f32> {
    let mut one = |token: usize| {
        let (plain, dice) = ((random.unit() + random.unit() + random.unit()) * 6.0, random.below(100));
        match (kind, dice) {
            (0, _) => plain,
            // Ties, most of all of zeros of either sign.
            (1, _) => plain.round() * 0.5,
            (2, 0..20) => f32::NAN,
            (3, 0..60) => f32::NEG_INFINITY,
            (4, 0) => f32::INFINITY,
            (5, _) => f32::NEG_INFINITY,
            (6, _) => f32::NAN,
            // Nothing but one run in the middle, as where a mask has been.
            (7, _) if token / 256 != vocabulary / 512 => f32::NEG_INFINITY,
            // A nucleus of almost all, and one of almost none.
            (8, _) => plain * 0.01,
            (9, _) => plain * 20.0,
            // Differences beyond the largest number, and beside the smallest.
            (10, _) => plain * 1e37,
            (11, _) => plain * 1e-39,
            (12, 0..50) => f32::NAN,
            (12, 50..) => f32::NEG_INFINITY,
            (13, 0..50) => 0.0,
            (13, 50..) => -0.0,
            _ => plain,
        }
    };
    (0..vocabulary).map(&mut one).collect()
}

/// Parameters and a text, drawn from all that make a difference.
fn job(kind: usize, vocabulary: usize, random: &mut Random) -> Job {
    let penalties = [(1.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.3, 0.0, 0.0), (1.0, 0.5, 0.25), (0.7, -0.3, 1.1)];
    let (repetition_penalty, presence_penalty, frequency_penalty) = random.one_of(&penalties);
    let params = SamplingParams {
        temperature: random.one_of(&[0.0, 0.7, 1.0, 1.0, 0.6, 1.9, 0.013, 1e-30, 1e30, f32::INFINITY, f32::NAN, -1.0]),
        top_k: random.one_of(&[None, None, Some(0), Some(1), Some(20), Some(129), Some(2500), Some(vocabulary + 1)]),
        top_p: random.one_of(&[1.0, 1.0, 0.95, 0.5, 0.99999, 0.0]),
        min_p: random.one_of(&[0.0, 0.0, 0.05, 0.9, 1.5]),
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        seed: random.next(),
        top_logprobs: random.one_of(&[0, 0, 1, 5, 64, 2300]),
        ..SamplingParams::default()
    };
    // Some tokens twice, some that the row does not have.
    let num_tokens = 1 + random.below(60);
    let tokens: Vec<u32> = (0..num_tokens).map(|_| random.below(vocabulary + 3) as u32).collect();
    let logits = logits(kind, vocabulary, random);
    Job {
        logits,
        params: (random.below(8) > 0).then_some(params),
        key: random.next(),
        uniform: None,
        prompt_len: random.below(num_tokens + 1),
        tokens,
        targets: (0..random.below(4)).map(|_| random.below(vocabulary) as u32).collect(),
        allowed: (random.below(6) == 0).then(|| mask(vocabulary, random)),
    }
}

/// A quarter of all tokens, or all but those of 32 at once here and there, or none but such.
fn mask(vocabulary: usize, random: &mut Random) -> Vec<u32> {
    let kind = random.below(3);
    let word = |_| match (kind, random.below(20)) {
        (0, _) => (random.next() & random.next()) as u32,
        (1, 1..) | (2, 0) => u32::MAX,
        _ => 0,
    };
    (0..vocabulary.div_ceil(32)).map(word).collect()
}

/// Rows of every kind, `each` of them.
fn jobs(vocabulary: usize, each: usize, seed: u64) -> Vec<Job> {
    let mut random = Random(seed);
    (0..KINDS * each).map(|number| job(number % KINDS, vocabulary, &mut random)).collect()
}

#[track_caller]
fn hold(jobs: &[Job]) {
    for (number, (job, found)) in jobs.iter().zip(found(jobs, 0)).enumerate() {
        assert_eq!(found, expected(job), "kind {}, {:?}, mask {:x?}", number % KINDS, job.params, job.allowed);
    }
}

#[test]
fn small_vocabularies() {
    for (vocabulary, each) in [(1, 2), (5, 12), (31, 8), (255, 6), (256, 6), (257, 8), (1024, 3)] {
        hold(&jobs(vocabulary, each, vocabulary as u64));
    }
}

#[test]
fn a_vocabulary_of_several_chunks() {
    hold(&jobs(5003, 8, 1));
}

#[test]
fn a_vocabulary_of_many_runs() {
    hold(&jobs(32000, 1, 2));
}

/// More runs than are walked between two barriers.
#[test]
fn a_vocabulary_of_more_runs_than_a_stage() {
    let mut random = Random(3);
    let vocabulary = 1024 * 256 + 300;
    let mut one = job(0, vocabulary, &mut random);
    let params = SamplingParams { temperature: 0.9, top_logprobs: 7, seed: 5, ..SamplingParams::default() };
    one.params = Some(params.clone());
    let filtered = Job { params: Some(SamplingParams { top_p: 0.9, top_k: Some(50), ..params }), ..one.clone() };
    hold(&[one, filtered]);
}

/// The widest nucleus: nearly all tokens, summed in order over many chunks.
#[test]
fn a_nucleus_of_nearly_all_tokens() {
    let mut random = Random(4);
    let mut wide = job(8, 32000, &mut random);
    for (top_k, top_p) in [(None, 0.99), (Some(20000), 0.9)] {
        wide.params = Some(SamplingParams { temperature: 1.3, top_k, top_p, seed: 9, ..SamplingParams::default() });
        hold(std::slice::from_ref(&wide));
    }
}

/// exp of src/ops/simd.rs, up to 0.
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    if x < -87.0 {
        return 0.0;
    }
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let p = [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let p = p.into_iter().fold(1.987_569_1e-4_f32, |p, next| p.mul_add(r, next));
    ((r * r).mul_add(p, r) + 1.0) * n.exp2()
}

/// Largest logit, sum of exp and sum of weights of a run, as src/engine/survey.rs has them.
fn plain_run(run: &[f32], temperature: f32) -> [f32; 3] {
    let best = run.iter().fold(f32::NEG_INFINITY, |best, &logit| best.max(logit));
    let beside = if best == f32::NEG_INFINITY { 0.0 } else { best };
    let weight = |logit: f32| if logit == best { 1.0 } else { exp((logit - best) / temperature).max(0.0) };
    let sum_of = |term: &dyn Fn(f32) -> f32| {
        let mut lanes = [0f32; 16];
        run.iter().enumerate().for_each(|(index, &logit)| lanes[index % 16] += term(logit));
        for width in [8, 4, 2, 1] {
            (0..width).for_each(|lane| lanes[lane] += lanes[lane + width]);
        }
        lanes[0]
    };
    let total = if temperature > 0.0 { sum_of(&weight) } else { 0.0 };
    [best, sum_of(&|logit| exp(logit - beside)), total]
}

/// The logits that a token is chosen from; the row's if none is.
fn changed(job: &Job) -> Vec<f32> {
    let mut logits = job.logits.clone();
    let Some(params) = &job.params else { return logits };
    for (token, count) in seen(job) {
        let Some(logit) = logits.get_mut(token as usize) else { continue };
        *logit = if *logit > 0.0 { *logit / params.repetition_penalty } else { *logit * params.repetition_penalty };
        *logit -= if count > 0 { params.presence_penalty + params.frequency_penalty * count as f32 } else { 0.0 };
    }
    allowed(job).inspect(|allowed| allowed.mask(&mut logits));
    logits
}

#[test]
fn every_number_of_the_survey() {
    let mut random = Random(10);
    for vocabulary in [5, 255, 256, 1027] {
        let mut jobs = jobs(vocabulary, 8, 11);
        for params in jobs.iter_mut().filter_map(|job| job.params.as_mut()) {
            let any = (random.unit() * 30.0).exp2();
            params.temperature = random.one_of(&[0.0, 1.0, 1e-30, 1e30, f32::INFINITY, any, any, any]);
        }
        let left = launch(&jobs, 0);
        let runs_of_rows = left.runs.chunks(vocabulary.div_ceil(256));
        for ((job, runs), answer) in jobs.iter().zip(runs_of_rows).zip(&left.answers) {
            let temperature = job.params.as_ref().map_or(0.0, |params| params.temperature);
            let chosen_from = changed(job);
            let plain: Vec<[f32; 3]> = job.logits.chunks(256).map(|run| plain_run(run, 0.0)).collect();
            for ((run, plain), chosen_from) in runs.iter().zip(&plain).zip(chosen_from.chunks(256)) {
                // A zero may have either sign.
                let ([best, sum, total, chosen_best], chosen_from) = (run.0, plain_run(chosen_from, temperature));
                let found = [best + 0.0, sum, total, chosen_best + 0.0].map(pattern);
                assert_eq!(found, [plain[0] + 0.0, plain[1], chosen_from[2], chosen_from[0] + 0.0].map(pattern));
            }
            let best = plain.iter().fold(f32::NEG_INFINITY, |best, run| best.max(run[0]));
            let sum: f64 = plain.iter().map(|run| f64::from(run[1]) * f64::from(exp(run[0] - best))).sum();
            assert_eq!(pattern(answer.best + 0.0), pattern(best + 0.0));
            assert!(answer.sum.to_bits() == sum.to_bits() || answer.sum.is_nan() && sum.is_nan());
        }
    }
}

/// A number that leads past the end of the row, as one near 1 may by rounding: survey.rs then takes the first token of the last run with a
/// weight, and the last token with a weight if there are filters.
#[test]
fn past_the_end() {
    let mut one = job(0, 2000, &mut Random(12));
    one.logits.fill(0.5);
    one.logits[1200..].fill(f32::NEG_INFINITY);
    one.logits[1100..1164].fill(f32::NAN);
    (one.uniform, one.allowed) = (Some(1.0), None);
    for (top_k, token) in [(None, 1024), (Some(2000), 1199), (Some(1990), 1199), (Some(1000), 999)] {
        one.params = Some(SamplingParams { temperature: 2.0, top_k, ..SamplingParams::default() });
        assert_eq!(found(std::slice::from_ref(&one), 0)[0].token.map(|token| token.0), Some(token));
    }
}

/// The survey divides by multiplying: here beside the CPU's division, for temperatures of all sizes.
#[test]
fn weights_under_every_temperature() {
    let mut random = Random(6);
    let one = job(0, 2050, &mut random);
    let under = |number: u32| {
        let temperature = (random.unit() * 24.0).exp2();
        let top_p = if number.is_multiple_of(2) { 1.0 } else { 0.9999 };
        let params = SamplingParams { temperature, top_p, seed: random.next(), ..SamplingParams::default() };
        Job { params: Some(params), ..one.clone() }
    };
    hold(&(0..120).map(under).collect::<Vec<Job>>());
}

#[test]
fn a_row_knows_no_neighbours() {
    for vocabulary in [257, 2050] {
        let jobs = jobs(vocabulary, 1, 7);
        let together = found(&jobs, 1);
        let backwards = found(&jobs.iter().rev().cloned().collect::<Vec<Job>>(), 0);
        assert!(together.iter().eq(backwards.iter().rev()));
        for (job, together) in jobs.iter().zip(together) {
            assert_eq!(found(std::slice::from_ref(job), 0), [together]);
        }
    }
}

/// A mask that allows one token leaves no choice, and its log-probability is that without a mask.
#[test]
fn one_allowed_token() {
    let mut random = Random(8);
    let mut one = job(0, 1000, &mut random);
    one.params = Some(SamplingParams { top_p: 0.5, top_logprobs: 3, ..SamplingParams::default() });
    for token in [0, 31, 32, 255, 256, 999] {
        one.allowed = Some((0..32).map(|word| u32::from(word == token / 32) << (token % 32)).collect());
        let found = found(std::slice::from_ref(&one), 0).remove(0);
        let logprob = target_logprobs(&one.logits, &[token])[0];
        assert_eq!(found.token, Some((token, logprob.to_bits())));
        assert_eq!(found.top.len(), 3);
    }
}

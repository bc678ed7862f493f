//! Answers that have to keep to a form: only allowed tokens are chosen, by the same rules as all others; neither batch nor memory shows in
//! them, nor they in their neighbours; and a form that leads nowhere ends its own sequence alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pairwright::engine::sampler::{sample, sample_among};
use pairwright::engine::{
    AnswerForm, Constraint, ConstraintError, EngineOptions, FinishReason, KvBudget, Request, SamplingParams, Standing,
    Task, TokenConstraint, TokenSet,
};
use proptest::prelude::*;

use super::batches::{Output, assert_same, requests};
use super::{VOCAB, engine, generate, greedy, options, prompt, run, tokens};

/// A made-up form: what may follow depends on a running number made of all tokens before, and on how many can still follow.
#[derive(Debug, Clone)]
struct Walk {
    salt: u32,
    /// Tokens after which it is closed.
    len: usize,
    /// Tokens after which nothing is allowed.
    dead_at: Option<usize>,
    /// Tokens after which it fails when one more is taken.
    fails_at: Option<usize>,
    starts: Arc<AtomicUsize>,
}

impl Walk {
    fn new(salt: u32, len: usize) -> Self {
        Self { salt, len, dead_at: None, fails_at: None, starts: Arc::default() }
    }

    fn allows(&self, number: u32, token: u32, room: usize) -> bool {
        let is_low = (token + number) % 7 < 2;
        if room == 1 { is_low && token.is_multiple_of(2) } else { is_low }
    }

    fn next(&self, number: u32, token: u32) -> u32 {
        (number * 31 + token + self.salt) % 1009
    }
}

struct State {
    form: Walk,
    number: u32,
    count: usize,
}

impl AnswerForm for Walk {
    fn start(&self) -> Result<Box<dyn TokenConstraint>, ConstraintError> {
        self.starts.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(State { form: self.clone(), number: self.salt, count: 0 }))
    }
}

impl TokenConstraint for State {
    fn allow(&mut self, room: usize, allowed: &mut TokenSet) -> Result<Standing, ConstraintError> {
        assert!(allowed.is_empty());
        if self.form.dead_at != Some(self.count) {
            let tokens = (0..VOCAB).filter(|&token| self.form.allows(self.number, token, room));
            tokens.for_each(|token| allowed.set(token, true));
        }
        Ok(if self.count >= 3 { Standing::MayEnd } else { Standing::Open })
    }

    fn take(&mut self, token: u32) -> Result<Standing, ConstraintError> {
        (self.number, self.count) = (self.form.next(self.number, token), self.count + 1);
        if self.form.fails_at == Some(self.count) {
            return Err(ConstraintError::Failed { reason: "meant to".to_owned() });
        }
        Ok(if self.count >= self.form.len { Standing::Closed } else { Standing::Open })
    }
}

fn constrained(request: &Request, form: &Walk) -> Request {
    let Task::Generate(params) = &request.task else { return request.clone() };
    let params = SamplingParams { constraint: Some(Constraint::new(form.clone())), ..params.clone() };
    Request { task: Task::Generate(params), ..request.clone() }
}

fn form_of(index: usize) -> Walk {
    Walk::new(index as u32, [4, 12, 50, 23][index % 4])
}

/// Two of three are constrained.
fn mixed() -> Vec<Request> {
    let with_form = |(index, request): (usize, &Request)| match index % 3 {
        0 => request.clone(),
        _ => constrained(request, &form_of(index)),
    };
    requests().iter().enumerate().map(with_form).collect()
}

fn alone(requests: &[Request]) -> Vec<Output> {
    let options = EngineOptions { max_batch: 1, prefix_cache: false, max_step_tokens: 4096, ..options() };
    run(&mut engine(&options), requests)
}

#[test]
fn constrained_answers_keep_to_their_form_and_others_do_not_notice() {
    let (plain, outputs) = (alone(&requests()), alone(&mixed()));
    let (mut closed, mut stopped, mut cut) = (0, 0, 0);
    for (index, (request, (reason, output))) in mixed().iter().zip(&outputs).enumerate() {
        let Task::Generate(params) = &request.task else { continue };
        if params.constraint.is_none() {
            assert_eq!((*reason, output), (plain[index].0, &plain[index].1), "request {index}");
            continue;
        }
        let form = form_of(index);
        let room = params.max_tokens.min(160 - request.prompt.len());
        let mut number = form.salt;
        for (at, token) in tokens(output).into_iter().enumerate() {
            assert!(form.allows(number, token, room - at), "request {index}: {token} at {at}");
            number = form.next(number, token);
        }
        let count = output.tokens.len();
        match reason {
            FinishReason::Stop if count == form.len => closed += 1,
            FinishReason::Stop => {
                assert!(count >= 3 && !params.stop_token_ids.is_empty(), "request {index}: {count} tokens");
                stopped += 1;
            }
            FinishReason::Length => {
                assert_eq!(count, room);
                cut += 1;
            }
            FinishReason::Constraint => panic!("request {index}: {:?}", output.constraint_error),
        }
        // Of the first token only: later ones stand behind another answer.
        if let (Some(own), Some(free)) = (output.tokens.first(), plain[index].1.tokens.first()) {
            assert_eq!(own.top, free.top, "the likeliest tokens are the model's own");
        }
    }
    assert!(closed > 3 && stopped > 1 && cut > 1, "{closed} {stopped} {cut}");
}

#[test]
fn neither_batch_nor_memory_changes_a_constrained_answer() {
    let requests = mixed();
    let want = alone(&requests);
    for options in [
        EngineOptions { max_batch: 64, ..options() },
        EngineOptions { max_batch: 7, max_step_tokens: 9, ..options() },
        EngineOptions { max_batch: 64, prefix_cache: false, block_size: 32, ..options() },
    ] {
        assert_same(&run(&mut engine(&options), &requests), &want, &format!("{options:?}"));
    }
    for (max_step_tokens, prefix_cache) in [(512, true), (20, false)] {
        let kv_budget = KvBudget::Tokens(176);
        let options = EngineOptions { max_batch: 7, kv_budget, max_step_tokens, prefix_cache, ..options() };
        let mut engine = engine(&options);
        assert_same(&run(&mut engine, &requests), &want, &format!("{options:?}"));
        assert!(engine.stats().num_preemptions > 0, "{options:?}: the budget was meant to be too small");
    }
    for num_threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().unwrap();
        assert_same(&pool.install(|| run(&mut engine(&options()), &requests)), &want, "threads");
    }
}

#[test]
fn samples_of_a_prompt_share_a_form_and_each_has_its_own_place() {
    let form = Walk::new(5, 20);
    let params = SamplingParams { constraint: Some(Constraint::new(form.clone())), temperature: 1.0, ..greedy(40) };
    let requests: Vec<Request> = (0..8).map(|key| generate(prompt(40, 2), params.clone(), key)).collect();
    let outputs = run(&mut engine(&options()), &requests);
    assert_eq!(form.starts.load(Ordering::Relaxed), 8);
    assert!(outputs.iter().all(|(reason, output)| *reason == FinishReason::Stop && output.tokens.len() == 20));
    assert_ne!(outputs[0], outputs[1]);
    assert_eq!(alone(&requests), outputs);
}

#[test]
fn a_form_that_leads_nowhere_ends_its_own_sequence() {
    let dead = Walk { dead_at: Some(6), ..Walk::new(1, 30) };
    let failing = Walk { fails_at: Some(9), ..Walk::new(2, 30) };
    let base = generate(prompt(20, 1), greedy(25), 1);
    let requests = [constrained(&base, &dead), constrained(&base, &failing), base.clone()];
    let outputs = run(&mut engine(&options()), &requests);
    assert_eq!(outputs[0].0, FinishReason::Constraint);
    assert_eq!(outputs[0].1.tokens.len(), 6);
    assert_eq!(outputs[0].1.constraint_error, Some(ConstraintError::NoToken { num_tokens: 6 }));
    assert_eq!(outputs[1].0, FinishReason::Constraint);
    let error = outputs[1].1.constraint_error.as_ref().unwrap();
    assert_eq!(error.to_string(), "the constraint failed: meant to");
    assert_eq!(outputs[2], alone(&[base])[0]);
}

/// Tokens outside the model's vocabulary can be put into a set without effect.
#[test]
fn a_set_has_the_vocabulary_s_tokens_and_no_others() {
    let mut set = TokenSet::empty(70);
    set.add(&[1, 0, u32::MAX, u32::MAX]);
    set.set(70, true);
    assert_eq!((0..200).filter(|&token| set.contains(token)).collect::<Vec<_>>(), [0, 64, 65, 66, 67, 68, 69]);
    assert_eq!((set.len(), set.is_empty()), (7, false));
    set.set(0, false);
    let mut logits = vec![1.0; 70];
    set.mask(&mut logits);
    assert!(logits[..64].iter().all(|&logit| logit == f32::NEG_INFINITY) && logits[64..] == [1.0; 6]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Choosing among some tokens is choosing where all others are impossible, with the model's own log-probability.
    #[test]
    fn a_choice_among_some_is_one_where_others_are_impossible(
        logits in prop::collection::vec(-9f32..9.0, 300),
        allowed in prop::collection::vec(0u32..300, 1..40),
        seen in prop::collection::vec(0u32..300, 0..12),
        (temperature, top_p, min_p) in (prop::sample::select(vec![0.0f32, 0.7, 1.5]), 0.2f32..=1.0, 0.0f32..0.3),
        (repetition_penalty, presence_penalty) in prop::sample::select(vec![(1.0f32, 0.0f32), (1.3, 0.0), (0.8, 0.5)]),
        top_k in prop::option::of(1usize..50),
        seed in 0u64..1000,
    ) {
        let plain = SamplingParams { temperature, top_p, min_p, top_k, seed, ..SamplingParams::default() };
        let params = SamplingParams { repetition_penalty, presence_penalty, top_logprobs: 3, ..plain };
        let mut set = TokenSet::empty(300);
        allowed.iter().for_each(|&token| set.set(token, true));
        let among = sample_among(Some(&set), &logits, &params, 4, &seen, seen.len() / 2);
        let mut masked = logits.clone();
        set.mask(&mut masked);
        let want = sample(&masked, &params, 4, &seen, seen.len() / 2);
        let free = sample(&logits, &params, 4, &seen, seen.len() / 2);
        prop_assert_eq!(among.token, want.token);
        prop_assert!(set.contains(among.token));
        prop_assert_eq!(&among.top, &free.top);
        let own = pairwright::engine::sampler::target_logprobs(&logits, &[among.token])[0];
        prop_assert_eq!(among.logprob.to_bits(), own.to_bits());
    }
}

//! What a row of logits is asked for, and what becomes of the answer: a token, scores, or the likelihood of a prompt's token. On the host or
//! on a CUDA device, with the same meaning. Knows sequences and the sampler; knows no step.

use std::sync::Arc;

use super::Event;
use super::batch::Purpose;
use super::constraint::{Constrained, Standing};
use super::sampler;
use super::scheduler::Scheduler;
use super::sequence::{FinishReason, Sequence, SequenceId, Task, TokenLogprobs};
use crate::ops::sampling::{Ask, Found};

/// What a row of logits gave.
pub enum Chosen {
    /// The sequence is gone.
    Nothing,
    /// The next token.
    Token(TokenLogprobs),
    /// The targets' log-probabilities.
    Targets(Vec<f32>),
    /// A reward model's scores.
    HeadScores(Vec<f32>),
    /// The log-probability of a prompt's token.
    PromptToken(f32),
}

/// What the host makes of a row of logits.
pub fn choose(logits: &[f32], purpose: Purpose, sequence: Option<&Sequence>) -> Chosen {
    let Some(sequence) = sequence else { return Chosen::Nothing };
    match (purpose, &sequence.task) {
        (Purpose::PromptToken(token), _) => Chosen::PromptToken(sampler::target_logprobs(logits, &[token])[0]),
        (Purpose::Next, Task::Score { targets }) => Chosen::Targets(sampler::target_logprobs(logits, targets)),
        (Purpose::Next, Task::Classify) => Chosen::HeadScores(logits.to_vec()),
        (Purpose::Next, Task::Generate(params)) => {
            let allowed = sequence.constrained.as_ref().and_then(Constrained::allowed).map(Arc::as_ref);
            let (tokens, prompt_len) = (&sequence.tokens, sequence.prompt_len);
            Chosen::Token(sampler::sample_among(allowed, logits, params, sequence.key, tokens, prompt_len))
        }
    }
}

/// What a row of logits on the device is asked for.
pub fn ask(purpose: Purpose, sequence: Option<&Sequence>, width: usize) -> Ask {
    let targets = |targets: &[u32]| Ask { targets: targets.to_vec(), ..Ask::default() };
    match (purpose, sequence.map(|sequence| (sequence, &sequence.task))) {
        (_, None) => Ask::default(),
        (Purpose::PromptToken(token), _) => targets(&[token]),
        (Purpose::Next, Some((_, Task::Score { targets: wanted }))) => targets(wanted),
        // A reward model's few outputs are its scores.
        (Purpose::Next, Some((_, Task::Classify))) => targets(&(0..width as u32).collect::<Vec<_>>()),
        (Purpose::Next, Some((sequence, Task::Generate(params)))) => {
            let allowed = sequence.constrained.as_ref().and_then(Constrained::allowed).cloned();
            Ask { allowed, ..sampler::ask(params, sequence.key, &sequence.tokens, sequence.prompt_len) }
        }
    }
}

/// What the device found, as [`choose`] would have said it.
pub fn chosen(found: Found, purpose: Purpose, sequence: Option<&Sequence>) -> Chosen {
    let logprob = |logit: f32| (f64::from(logit) - found.log_sum) as f32;
    let targets = || found.targets.iter().copied().map(logprob);
    match (purpose, sequence.map(|sequence| &sequence.task)) {
        (_, None) => Chosen::Nothing,
        (Purpose::PromptToken(_), _) => targets().next().map_or(Chosen::Nothing, Chosen::PromptToken),
        (Purpose::Next, Some(Task::Score { .. })) => Chosen::Targets(targets().collect()),
        (Purpose::Next, Some(Task::Classify)) => Chosen::HeadScores(found.targets),
        (Purpose::Next, Some(Task::Generate(_))) => Chosen::Token(TokenLogprobs {
            token: found.token,
            logprob: logprob(found.logit),
            top: found.top.iter().map(|&(token, logit)| (token, logprob(logit))).collect(),
        }),
    }
}

/// What nobody asked for has no log-probability, nor has the first token.
fn begin_prompt_logprobs(sequence: &mut Sequence) {
    let Some(from) = sequence.prompt_logprobs_from() else { return };
    if sequence.output.prompt_logprobs.is_empty() {
        sequence.output.prompt_logprobs.resize(from.clamp(1, sequence.prompt_len), None);
    }
}

/// Adds what was chosen to the sequence, and ends it where it must end.
pub fn record(scheduler: &mut Scheduler, id: SequenceId, chosen: Chosen, events: &mut Vec<Event>) {
    let Some(sequence) = scheduler.sequence_mut(id) else { return };
    let mut reason = None;
    match chosen {
        Chosen::Nothing => {}
        Chosen::PromptToken(logprob) => {
            begin_prompt_logprobs(sequence);
            sequence.output.prompt_logprobs.push(Some(logprob));
        }
        Chosen::Targets(logprobs) => {
            sequence.output.target_logprobs = logprobs;
            reason = Some(FinishReason::Stop);
        }
        Chosen::HeadScores(scores) => {
            sequence.output.head_scores = scores;
            reason = Some(FinishReason::Stop);
        }
        Chosen::Token(chosen) => {
            begin_prompt_logprobs(sequence);
            let Task::Generate(params) = &sequence.task else { return };
            let token = chosen.token;
            let (num_tokens, room) = (sequence.output.tokens.len(), sequence.room());
            let accepted = sequence.constrained.as_ref().map_or(Ok(()), |form| form.accepts(token, num_tokens));
            if params.max_tokens == 0 {
                reason = Some(FinishReason::Length);
            } else if let Err(error) = accepted {
                sequence.output.constraint_error = Some(error);
                reason = Some(FinishReason::Constraint);
            } else if params.stop_token_ids.contains(&token) {
                reason = Some(FinishReason::Stop);
            } else {
                sequence.output.tokens.push(chosen);
                reason = match sequence.constrained.as_mut().map(|form| form.take(token)) {
                    Some(Ok(Standing::Closed)) => Some(FinishReason::Stop),
                    Some(Err(error)) => {
                        sequence.output.constraint_error = Some(error);
                        Some(FinishReason::Constraint)
                    }
                    _ if num_tokens + 1 >= room => Some(FinishReason::Length),
                    _ => None,
                };
                scheduler.push(id, token);
                events.push(Event::Token { id, token });
            }
        }
    }
    if let Some(reason) = reason
        && let Some(sequence) = scheduler.finish(id)
    {
        events.push(Event::Finished { id, reason, output: sequence.output });
    }
}

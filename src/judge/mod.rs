//! Verdicts: what a judge model thinks of an answer, read from its label distribution without decoding; and reward models' scores.
//! Knows prompts, candidates and the engine; knows nothing of pairs or files.

mod labels;
mod reward;
mod rubric;
mod verdict;

use std::collections::HashMap;

use crate::engine::{EngineError, Event, Request, SequenceId, Task};
use crate::generate::{Candidate, Ending, GenerateError, Observer, TextModel, dialogue};
use crate::prompt::{ChatTokenizer, DialogueEnd, PromptError};
use labels::LabelPlan;
pub use reward::{ScoreInput, ScoreRequest, read_score_requests, score};
pub use rubric::{Aspect, NUM_LABELS, Rubric, RubricError};
pub use verdict::{AnswerKey, AspectScore, JudgeFailure, JudgeRow, Verdict};

/// One answer to rate.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeItem {
    /// The prompt's text.
    pub prompt: String,
    /// The answer.
    pub candidate: Candidate,
}

/// An item whose aspects are being scored.
struct InFlight {
    item: JudgeItem,
    plan: LabelPlan,
    /// [aspect][query of the plan]: log-probabilities of the query's targets.
    answers: Vec<Vec<Vec<f32>>>,
    num_pending: usize,
}

/// Which part of which item a sequence computes.
#[derive(Debug, Clone, Copy)]
struct Part {
    item: usize,
    aspect: usize,
    query: usize,
}

/// Rates every item, handing each verdict to `done` as it is finished (not in the order of the items). Each aspect of an
/// answer is one forward pass over the question alone: rubric, prompt and answer come from the prefix cache.
///
/// # Errors
/// [`GenerateError`] if no row could be done any more, or `done` fails. What goes wrong with one answer is a
/// [`JudgeRow::Failure`].
pub fn judge(
    model: &mut TextModel,
    rubric: &Rubric,
    items: impl IntoIterator<Item = JudgeItem>,
    observer: &mut dyn Observer,
    done: &mut dyn FnMut(JudgeRow) -> Result<(), GenerateError>,
) -> Result<Ending, GenerateError> {
    let queue_len = model.max_batch() * 9;
    let judge_name = model.record().name.clone();
    let mut items = items.into_iter();
    let mut in_flight: HashMap<usize, InFlight> = HashMap::new();
    let mut parts: HashMap<SequenceId, Part> = HashMap::new();
    let mut next = 0;
    loop {
        let mut num_rows = 0;
        while parts.len() < queue_len {
            let Some(item) = items.next() else { break };
            match admit(model, rubric, item, next)? {
                Ok((entry, sequences)) => {
                    in_flight.insert(next, entry);
                    parts.extend(sequences);
                }
                Err(failed) => {
                    num_rows += 1;
                    done(failed)?;
                }
            }
            next += 1;
        }
        let (engine, _) = model.parts();
        for event in engine.step()? {
            let Event::Finished { id, output, .. } = event else { continue };
            let Some(part) = parts.remove(&id) else { continue };
            let Some(entry) = in_flight.get_mut(&part.item) else { continue };
            entry.answers[part.aspect][part.query] = output.target_logprobs;
            entry.num_pending -= 1;
            if entry.num_pending == 0
                && let Some(entry) = in_flight.remove(&part.item)
            {
                num_rows += 1;
                done(JudgeRow::Verdict(entry.verdict(rubric, &judge_name)))?;
            }
        }
        observer.progress(num_rows, &engine.stats());
        if parts.is_empty() && num_rows == 0 {
            return Ok(Ending::Completed);
        }
        if observer.should_stop() {
            parts.keys().for_each(|&id| _ = engine.stop(id));
            return Ok(Ending::Interrupted);
        }
    }
}

type Admitted = Result<(InFlight, Vec<(SequenceId, Part)>), JudgeRow>;

/// Queues all aspects of an item; the inner error is the item's own failure.
fn admit(model: &mut TextModel, rubric: &Rubric, item: JudgeItem, index: usize) -> Result<Admitted, GenerateError> {
    let (engine, tokenizer) = model.parts();
    let mut plan = None;
    let mut requests = Vec::new();
    for (aspect, question) in rubric.aspects.iter().enumerate() {
        let text = rubric.message(question, &item.prompt, &item.candidate.text);
        let prompt = match encode(tokenizer, &text) {
            Ok(prompt) => prompt,
            Err(error @ PromptError::NoTemplate { .. }) => return Err(error.into()),
            Err(error) => {
                let reason = "judge_prompt_not_encodable";
                return Ok(Err(JudgeRow::failed(&item.candidate, reason, error.to_string())));
            }
        };
        if plan.is_none() {
            plan = Some(LabelPlan::new(tokenizer, &rubric.labels, &prompt)?);
        }
        for (query, (prefix, targets)) in plan.iter().flat_map(LabelPlan::queries).enumerate() {
            let prompt = [&prompt[..], prefix].concat();
            let task = Task::Score { targets: targets.to_vec() };
            requests.push((Part { item: index, aspect, query }, Request { prompt, task, key: 0 }));
        }
    }
    let Some(plan) = plan else {
        return Ok(Err(JudgeRow::failed(&item.candidate, "empty_rubric", "the rubric has no aspects".to_owned())));
    };
    let (parts, requests): (Vec<Part>, Vec<Request>) = requests.into_iter().unzip();
    let ids = match engine.add_all(requests) {
        Ok(ids) => ids,
        Err(error @ EngineError::PromptTooLong { .. }) => {
            return Ok(Err(JudgeRow::failed(&item.candidate, "judge_prompt_too_long", error.to_string())));
        }
        Err(error) => return Err(error.into()),
    };
    let sequences: Vec<(SequenceId, Part)> = ids.into_iter().zip(parts).collect();
    let answers = vec![vec![Vec::new(); plan.queries().count()]; rubric.aspects.len()];
    Ok(Ok((InFlight { item, plan, answers, num_pending: sequences.len() }, sequences)))
}

fn encode(tokenizer: &ChatTokenizer, text: &str) -> Result<Vec<u32>, PromptError> {
    tokenizer.encode_chat(&dialogue(None, text), DialogueEnd::GenerationPrompt)
}

impl InFlight {
    fn verdict(self, rubric: &Rubric, judge: &str) -> Verdict {
        let aspects = rubric.aspects.iter().zip(&self.answers);
        let aspects: Vec<AspectScore> = aspects
            .map(|(aspect, answers)| AspectScore::new(&aspect.name, self.plan.label_logprobs(answers)))
            .collect();
        let weights: f64 = rubric.aspects.iter().map(|aspect| aspect.weight).sum();
        let weighted = rubric.aspects.iter().zip(&aspects).map(|(aspect, score)| aspect.weight * score.mean);
        let rating = weighted.sum::<f64>() / weights;
        let reliable = aspects.iter().all(|score| score.label_mass >= rubric.min_label_mass);
        let candidate = self.item.candidate;
        Verdict {
            record_id: candidate.record_id,
            source: candidate.source,
            model: candidate.model,
            sample_index: candidate.sample_index,
            judge: judge.to_owned(),
            aspects,
            rating,
            reliable,
        }
    }
}

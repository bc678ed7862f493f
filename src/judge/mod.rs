//! Verdicts: what a judge model thinks of an answer, read from its label distribution without decoding; and reward models' scores.
//! Knows prompts, candidates and the engine; knows nothing of pairs or files.

pub mod agreement;
mod fence;
pub mod known;
mod labels;
mod pairwise;
mod rationale;
mod requests;
mod reward;
mod rubric;
mod statistics;
mod verdict;
mod weights;

use crate::engine::{EngineError, Request, Task};
use crate::generate::{
    Candidate, Ended, Ending, GenerateError, Observer, Prepared, Row, Source, TextModel, dialogue, drive,
};
use crate::prompt::{ChatTokenizer, DialogueEnd, PromptError};
use labels::LabelPlan;
pub use pairwise::{AnswerName, CompareFailure, CompareItem, CompareKey, CompareRow, Comparison, compare};
pub use rationale::{
    AspectRationale, Rationale, RationaleError, RationaleOptions, RationaleRow, RationaleText, RationaleWriter,
    rationale_form,
};
pub use requests::{comparison_requests, rating_requests, rationale_requests, score_requests};
pub use reward::{ScoreInput, ScoreRequest, read_score_requests, score};
pub use rubric::{Aspect, Example, LanguageTexts, NUM_LABELS, PairwiseTexts, RowLanguage, Rubric, RubricError};
pub use statistics::Share;
pub use verdict::{AnswerKey, AspectScore, JudgeFailure, JudgeRow, RewardScore, Verdict, answer_key, verdicts_of};
pub use weights::{AspectWeight, AspectWeights, AspectWeightsError};

/// A prompt as a judge needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptText {
    /// What was asked.
    pub text: String,
    /// Language name as the source spells it.
    pub language: String,
    /// Language code as the source spells it.
    pub language_code: String,
}

/// One answer to rate.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeItem {
    /// What it answers.
    pub prompt: PromptText,
    /// The answer.
    pub candidate: Candidate,
}

/// Who rates, and by what.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// Tokenizer and template of the model.
    pub tokenizer: &'a ChatTokenizer,
    /// Its name in the verdicts.
    pub name: &'a str,
    /// The questions.
    pub rubric: &'a Rubric,
}

/// An answer whose aspects are being scored: one request per aspect and query of the plan, in this order.
struct InFlight<'a> {
    judge: Judge<'a>,
    candidate: Candidate,
    plan: LabelPlan,
}

/// Rates every item, handing each verdict to `done` as it is finished (not in the order of the items). Each aspect of an
/// answer is one forward pass over the question alone: rubric, prompt and answer come from the prefix cache. A reward model is asked
/// for its score instead, and needs no rubric.
///
/// # Errors
/// [`GenerateError`] if no row could be done any more, or `done` fails. What goes wrong with one answer is a
/// [`JudgeRow::Failure`].
pub fn judge(
    model: &mut TextModel,
    rubric: &Rubric,
    items: impl IntoIterator<Item = JudgeItem, IntoIter: Send>,
    observer: &mut dyn Observer,
    done: impl FnMut(JudgeRow) -> Result<(), GenerateError> + Send,
) -> Result<Ending, GenerateError> {
    let (queue_len, name, is_reward) = (model.queue_len(), model.record().name.clone(), model.record().is_reward);
    let (engine, tokenizer) = model.parts();
    if is_reward {
        return drive(engine, queue_len, vec![reward::scores(tokenizer, &name, items.into_iter(), done)], observer);
    }
    let verdicts = Judge { tokenizer, name: &name, rubric }.verdicts(items.into_iter(), done);
    drive(engine, queue_len, vec![verdicts], observer)
}

impl<'a> Judge<'a> {
    /// The ratings of `items` as a source of rows for [`drive`].
    pub fn verdicts(
        self,
        items: impl Iterator<Item = JudgeItem> + Send + 'a,
        done: impl FnMut(JudgeRow) -> Result<(), GenerateError> + Send + 'a,
    ) -> Source<'a> {
        Source::new(items.map(move |item| self.prepare(item)), done)
    }

    /// Encodes all questions about an item.
    fn prepare(self, item: JudgeItem) -> Result<Prepared<InFlight<'a>>, GenerateError> {
        let failed = |reason, detail| Ok(Prepared::Done(JudgeRow::failed(self.name, &item.candidate, reason, detail)));
        let mut plan = None;
        let mut requests = Vec::new();
        let language = RowLanguage { name: &item.prompt.language, code: &item.prompt.language_code };
        for question in &self.rubric.aspects {
            let text = self.rubric.message(question, language, &item.prompt.text, &item.candidate.text);
            let prompt = match self.tokenizer.encode_chat(&dialogue(None, &text), DialogueEnd::GenerationPrompt) {
                Ok(prompt) => prompt,
                Err(error @ PromptError::NoTemplate { .. }) => return Err(error.into()),
                Err(error) => return failed("judge_prompt_not_encodable", error.to_string()),
            };
            if plan.is_none() {
                plan = Some(LabelPlan::new(self.tokenizer, &self.rubric.labels, &prompt)?);
            }
            for (prefix, targets) in plan.iter().flat_map(LabelPlan::queries) {
                let prompt = [&prompt[..], prefix].concat();
                requests.push(Request { prompt, task: Task::Score { targets: targets.to_vec() }, key: 0 });
            }
        }
        match plan {
            None => failed("empty_rubric", "the rubric has no aspects".to_owned()),
            Some(plan) => Ok(Prepared::Asks(InFlight { judge: self, candidate: item.candidate, plan }, requests)),
        }
    }
}

impl Row for InFlight<'_> {
    type Done = JudgeRow;

    fn finish(self, parts: Vec<Ended>) -> Result<JudgeRow, GenerateError> {
        let rubric = self.judge.rubric;
        let answers: Vec<Vec<f32>> = parts.into_iter().map(|part| part.output.target_logprobs).collect();
        let aspects = rubric.aspects.iter().zip(answers.chunks(self.plan.queries().count().max(1)));
        let aspects: Vec<AspectScore> = aspects
            .map(|(aspect, answers)| AspectScore::new(&aspect.name, &self.plan.label_logprobs(answers)))
            .collect();
        let weights: f64 = rubric.aspects.iter().map(|aspect| aspect.weight).sum();
        let weighted = rubric.aspects.iter().zip(&aspects).map(|(aspect, score)| aspect.weight * score.mean);
        let rating = weighted.sum::<f64>() / weights;
        let reliable = aspects.iter().all(|score| score.label_mass >= rubric.min_label_mass);
        let Candidate { record_id, source, model, sample_index, .. } = self.candidate;
        let judge = self.judge.name.to_owned();
        Ok(JudgeRow::Verdict(Verdict {
            record_id,
            source,
            model,
            sample_index,
            judge,
            aspects,
            rating,
            score: None,
            reliable,
        }))
    }

    fn refused(self, error: EngineError) -> Result<JudgeRow, GenerateError> {
        match error {
            EngineError::PromptTooLong { .. } => {
                Ok(JudgeRow::failed(self.judge.name, &self.candidate, "judge_prompt_too_long", error.to_string()))
            }
            error => Err(error.into()),
        }
    }
}

//! A run's stages as requests: which prompts each model gets, in tokens, by the code that the stages themselves use.
//! Knows rows, tokenizers and rubric; knows no memory, no seconds and no card.

use rayon::prelude::*;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::model::{Encoder, PlannedModel};
use super::simulate::Job;
use crate::data::PromptRecord;
use crate::engine::{Request, Task};
use crate::generate::{Candidate, GenerateError};
use crate::judge::known::KnownRow;
use crate::judge::{
    CompareItem, Judge, JudgeItem, PromptText, RationaleOptions, RationaleWriter, RowLanguage, Rubric,
    comparison_requests, rating_requests, rationale_requests, score_requests,
};
use crate::prompt::{Message, PromptError};

/// Rows whose generation is simulated; of more, these stand for all.
pub const MAX_GENERATED_ROWS: usize = 2000;
/// Rows whose judging is encoded and simulated; of more, these stand for all.
pub const MAX_JUDGED_ROWS: usize = 200;

/// A stage of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct StageWork {
    /// As `speed.jsonl` names it: `generate`, `known answers`, `judge`, `compare`, `rationales`.
    pub stage: &'static str,
    /// The model's name.
    pub model: String,
    /// Requests that are queued together, those of the rows that stand for all.
    pub groups: Vec<Vec<Job>>,
    /// All rows over those that stand for them; 1 where all are there.
    pub scale: f64,
    /// What requests' parts are: aspects, orders.
    pub parts: Vec<String>,
}

impl StageWork {
    /// Whose it is: `generator` or `judge`, as [`ModelMemory::role`](super::ModelMemory::role) says it.
    pub fn role(&self) -> &'static str {
        if self.stage == "generate" { "generator" } else { "judge" }
    }
}

/// Quantiles of a count of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TokenQuantiles {
    /// How many texts.
    pub n: usize,
    /// Half have at most this many.
    pub p50: usize,
    /// 95 % have at most this many (nearest rank).
    pub p95: usize,
    /// The longest.
    pub max: usize,
    /// All together.
    pub total: u64,
}

impl TokenQuantiles {
    /// Of these lengths, by nearest rank.
    pub fn of(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut sorted: Vec<usize> = lengths.into_iter().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or(0);
        let total = sorted.iter().map(|&len| len as u64).sum();
        Self { n: sorted.len(), p50: rank(50), p95: rank(95), max: rank(100), total }
    }
}

/// The rows whose hashes are lowest, in the order of the source: the same however the file is sorted.
pub fn sample(records: &[PromptRecord], most: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_key(|&at| (xxh3_64(records[at].id.as_bytes()), at));
    order.truncate(most);
    order.sort_unstable();
    order
}

/// Tokens of each row's prompt as the model gets it, template and system turn included; `None` where it cannot be encoded.
///
/// # Errors
/// [`PromptError::NoTemplate`].
pub fn prompts(encoder: &Encoder, dialogues: &[Vec<Message>]) -> Result<Vec<Option<Vec<u32>>>, PromptError> {
    let one = |messages: &Vec<Message>| match encoder.dialogue(messages) {
        Err(error @ PromptError::NoTemplate { .. }) => Err(error),
        encoded => Ok(encoded.ok()),
    };
    dialogues.par_iter().map(one).collect()
}

/// Tokens of each row's human answer, by number; `None` where there is none.
pub fn answers(encoder: &Encoder, records: &[PromptRecord]) -> Vec<Option<usize>> {
    let one = |record: &PromptRecord| Some(encoder.text(record.response.as_deref()?).ok()?.len());
    records.par_iter().map(one).collect()
}

/// What answers will be like, before there are any.
pub struct Expected<'a> {
    /// Texts that stand for a model's answers: measured ones, or those of people to other rows.
    pub texts: &'a [String],
    /// Their lengths in the generator's tokens, bounded by `max_tokens`.
    pub lengths: &'a [usize],
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Answers per prompt and generator.
    pub num_samples: u32,
}

impl Expected<'_> {
    /// The length that stands for an answer: any of those there are, the same for the same row and sample.
    fn length(&self, row: usize, sample: usize) -> usize {
        match self.lengths {
            [] => self.max_tokens,
            lengths => lengths[(row + 1 + sample * 31) % lengths.len()].clamp(1, self.max_tokens.max(1)),
        }
    }

    /// The text that stands for an answer: never that of the row itself, which the cache would find.
    fn text(&self, row: usize, sample: usize) -> &str {
        match self.texts {
            [] => "",
            texts => &texts[(row + 1 + sample * 31) % texts.len()],
        }
    }
}

/// The generation of one model over its rows' prompts.
pub fn generation(
    model: &PlannedModel,
    prompts: &[Option<Vec<u32>>],
    records: &[PromptRecord],
    expected: &Expected<'_>,
) -> StageWork {
    let rows = sample(records, MAX_GENERATED_ROWS);
    let group = |&row: &usize| -> Option<Vec<Job>> {
        let prompt = prompts[row].as_ref()?;
        let job = |sample: u32| Job {
            prompt: prompt.clone(),
            output_len: expected.length(row, sample as usize),
            max_tokens: expected.max_tokens,
            part: 0,
        };
        Some((0..expected.num_samples).map(job).collect())
    };
    let groups =
        rows.iter().filter_map(group).flat_map(|group: Vec<Job>| group.into_iter().map(|job| vec![job])).collect();
    let scale = records.len() as f64 / rows.len().max(1) as f64;
    StageWork { stage: "generate", model: model.facts.name.clone(), groups, scale, parts: vec!["answers".to_owned()] }
}

/// What judges are asked.
pub struct Judging<'a> {
    /// The questions.
    pub rubric: &'a Rubric,
    /// Compare in both orders too.
    pub pairwise: bool,
    /// Have reasons written.
    pub rationales: Option<&'a RationaleOptions>,
    /// Rows of the test with known answers.
    pub known: &'a [&'a KnownRow],
    /// Generators.
    pub num_generators: usize,
}

/// The stages of one judge.
///
/// # Errors
/// [`GenerateError`] if its tokenizer or template cannot be used.
pub fn judging(
    model: &PlannedModel,
    records: &[PromptRecord],
    expected: &Expected<'_>,
    asked: &Judging<'_>,
) -> Result<Vec<StageWork>, GenerateError> {
    let rows = sample(records, MAX_JUDGED_ROWS);
    let scale = records.len() as f64 / rows.len().max(1) as f64;
    let num_answers = asked.num_generators * expected.num_samples as usize;
    let items: Vec<Vec<JudgeItem>> = rows.iter().map(|&row| items(&records[row], row, num_answers, expected)).collect();
    let known: Vec<JudgeItem> = asked.known.iter().flat_map(|row| row.judge_items()).collect();
    let aspects: Vec<String> = match model.facts.is_reward {
        true => vec!["score".to_owned()],
        false => asked.rubric.aspects.iter().map(|aspect| aspect.name.clone()).collect(),
    };
    let stage = |stage, groups, scale, parts: &[String]| StageWork {
        stage,
        model: model.facts.name.clone(),
        groups,
        scale,
        parts: parts.to_vec(),
    };
    let rate = |items: &[JudgeItem]| {
        items.par_iter().map(|item| ratings(model, asked.rubric, item)).collect::<Result<Vec<_>, _>>()
    };
    let flat: Vec<JudgeItem> = items.iter().flatten().cloned().collect();
    let orders = ["first order".to_owned(), "other order".to_owned()];
    let compares = asked.pairwise && !model.facts.is_reward;
    let mut known_groups = rate(&known)?;
    if compares {
        let pairs: Vec<CompareItem> = asked.known.iter().flat_map(|row| row.compare_items()).collect();
        known_groups.extend(comparisons(model, asked.rubric, &pairs)?);
    }
    let mut stages = Vec::new();
    if !known_groups.is_empty() {
        known_groups.iter_mut().flatten().for_each(|job| job.part = 0);
        stages.push(stage("known answers", known_groups, 1.0, &["test".to_owned()]));
    }
    stages.push(stage("judge", rate(&flat)?, scale, &aspects));
    if compares {
        let pairs: Vec<CompareItem> = items.iter().flat_map(|items| pairs(items)).collect();
        stages.push(stage("compare", comparisons(model, asked.rubric, &pairs)?, scale, &orders));
    }
    if let (Some(options), Some(tokenizer)) = (asked.rationales, model.tokenizer())
        && !model.facts.is_reward
    {
        let judge = Judge { tokenizer, name: &model.facts.name, rubric: asked.rubric };
        let writer = RationaleWriter::new(judge, options).map_err(|error| GenerateError::Store(Box::new(error)))?;
        let ask = |item: &JudgeItem| rationale_requests(&writer, item.clone()).map(jobs);
        let groups = flat.iter().map(ask).collect::<Result<Vec<_>, _>>()?;
        stages.push(stage("rationales", groups, scale, &aspects));
    }
    Ok(stages)
}

/// A row's human answer and what stands for the models'.
fn items(record: &PromptRecord, row: usize, num_answers: usize, expected: &Expected<'_>) -> Vec<JudgeItem> {
    let prompt = PromptText {
        text: record.prompt.clone(),
        language: record.language.clone(),
        language_code: record.language_code.clone(),
    };
    let human = record.response.as_deref().map(|text| Candidate::human(&record.id, text));
    let model = |sample| Candidate::human(&record.id, expected.text(row, sample));
    let all = human.into_iter().chain((0..num_answers).map(model));
    all.map(|candidate| JudgeItem { prompt: prompt.clone(), candidate }).collect()
}

/// Every two answers of a row.
fn pairs(items: &[JudgeItem]) -> Vec<CompareItem> {
    let pair = |(at, first): (usize, &JudgeItem)| {
        let with = |second: &JudgeItem| CompareItem {
            prompt: first.prompt.clone(),
            answers: [first.candidate.clone(), second.candidate.clone()],
        };
        items[at + 1..].iter().map(with).collect::<Vec<_>>()
    };
    items.iter().enumerate().flat_map(pair).collect()
}

/// Requests as jobs; each is a part of its own.
fn jobs(requests: Vec<Request>) -> Vec<Job> {
    let job = |(part, request): (usize, Request)| {
        let max_tokens = match &request.task {
            Task::Generate(params) => params.max_tokens,
            Task::Score { .. } | Task::Classify => 0,
        };
        // How long reasons are is not known before there are some: half of what they may have.
        Job { prompt: request.prompt, output_len: max_tokens.div_ceil(2), max_tokens, part }
    };
    requests.into_iter().enumerate().map(job).collect()
}

/// What rates one answer.
fn ratings(model: &PlannedModel, rubric: &Rubric, item: &JudgeItem) -> Result<Vec<Job>, GenerateError> {
    match model.tokenizer() {
        Some(tokenizer) if model.facts.is_reward => score_requests(tokenizer, item.clone()).map(jobs),
        Some(tokenizer) => {
            let judge = Judge { tokenizer, name: &model.facts.name, rubric };
            let requests = rating_requests(judge, item.clone())?;
            // Labels of several tokens ask more than once about an aspect.
            let per_aspect = (requests.len() / rubric.aspects.len()).max(1);
            Ok(jobs(requests).into_iter().map(|job| Job { part: job.part / per_aspect, ..job }).collect())
        }
        None if model.facts.is_reward => {
            let text = format!("{}{}", item.prompt.text, item.candidate.text);
            Ok(vec![estimated(model, &text, 0)])
        }
        None => {
            let language = RowLanguage { name: &item.prompt.language, code: &item.prompt.language_code };
            let ask = |(part, aspect)| {
                estimated(model, &rubric.message(aspect, language, &item.prompt.text, &item.candidate.text), part)
            };
            Ok(rubric.aspects.iter().enumerate().map(ask).collect())
        }
    }
}

/// What compares each pair, in both orders.
fn comparisons(model: &PlannedModel, rubric: &Rubric, pairs: &[CompareItem]) -> Result<Vec<Vec<Job>>, GenerateError> {
    let one = |pair: &CompareItem| match model.tokenizer() {
        Some(tokenizer) => {
            let judge = Judge { tokenizer, name: &model.facts.name, rubric };
            let requests = comparison_requests(judge, pair.clone())?;
            let per_order = (requests.len() / 2).max(1);
            Ok(jobs(requests).into_iter().map(|job| Job { part: job.part / per_order, ..job }).collect())
        }
        None => {
            let language = RowLanguage { name: &pair.prompt.language, code: &pair.prompt.language_code };
            let [first, second] = pair.answers.each_ref().map(|answer| answer.text.as_str());
            let ask = |(part, order): (usize, [&str; 2])| {
                let (text, _) = rubric.comparison(language, &pair.prompt.text, order)?;
                Some(estimated(model, &text, part))
            };
            Ok([[first, second], [second, first]].into_iter().enumerate().filter_map(ask).collect())
        }
    };
    pairs.par_iter().map(one).collect()
}

/// A message to a model without a tokenizer.
fn estimated(model: &PlannedModel, text: &str, part: usize) -> Job {
    let message = Message { role: "user".to_owned(), content: text.to_owned() };
    let prompt = model.encoder.dialogue(&[message]).unwrap_or_default();
    Job { prompt, output_len: 0, max_tokens: 0, part }
}

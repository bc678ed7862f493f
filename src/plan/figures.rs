//! A plan's figures, as JSON has them and text and Markdown show them. Knows what is counted; counts nothing itself.

use std::collections::BTreeMap;

use serde::Serialize;

use super::people::{Effort, Power};
use super::terms::{Licences, Risk};
use super::{Fit, ModelFacts, StageWork, TokenQuantiles};
use crate::generate::Forecast;

/// Everything that a plan says. Ranges are from the better to the worse end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Of this form: 1.
    pub format: u32,
    /// Version of this tool.
    pub tool_version: String,
    /// The day, as templates are told it.
    pub created: String,
    /// Rows in and out.
    pub rows: Rows,
    /// By generator: tokens of prompts and answers.
    pub tokens: Vec<Tokens>,
    /// Generators, then judges.
    pub models: Vec<ModelMemory>,
    /// Stage by stage: requests and tokens, in the order of the run.
    pub stages: Vec<StageTokens>,
    /// By card: room, speeds, hours.
    pub cards: Vec<CardPlan>,
    /// What was timed on this machine.
    pub measured: Vec<MeasuredStage>,
    /// What `report` holds against what stages took.
    pub forecast: Vec<Forecast>,
    /// Room on the disk.
    pub disk: Disk,
    /// What can be told from so many items.
    pub power: Vec<Power>,
    /// What people would have to do.
    pub annotation: Effort,
    /// What licences allow.
    pub licences: Licences,
    /// What may go wrong.
    pub risks: Vec<Risk>,
    /// What the figures stand on that nobody has measured.
    pub assumptions: Vec<String>,
    /// Whether at least one of the cards holds every model, and tasks end in time.
    pub fits: bool,
    /// If not: what would help.
    pub what_would: Vec<String>,
}

/// Rows of the source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rows {
    /// Rows that the file has.
    pub num_rows_read: u64,
    /// Rows that pass the filters.
    pub num_records: u64,
    /// Of these: rows with a human answer.
    pub num_with_response: u64,
    /// The others, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Rows by language, as the source names it.
    pub languages: BTreeMap<String, u64>,
    /// Most pairs that can come of them.
    pub most_pairs: u64,
}

/// Tokens by one generator's tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tokens {
    /// The generator.
    pub model: String,
    /// `tokenizer`, or `estimate` where there is none.
    pub counted_by: &'static str,
    /// Prompts with template and system turn.
    pub prompts: TokenQuantiles,
    /// Human answers, as they are.
    pub answers: TokenQuantiles,
    /// Answers as they are expected, cut at the limit.
    pub expected: TokenQuantiles,
    /// `people` (as long as human answers), `measured`, or `both` where too few answers ended while the engine was timed.
    pub expected_from: &'static str,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Human answers longer than that.
    pub num_clipped: usize,
    /// Prompts that leave no room for an answer.
    pub num_too_long: usize,
    /// Tokens for 1,000 characters of the rows' texts.
    pub per_1000_characters: f64,
    /// The same of English, by a short text of ours.
    pub english_per_1000_characters: f64,
}

/// A model's room by memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelMemory {
    /// `generator` or `judge`.
    pub role: &'static str,
    /// Its numbers and terms.
    pub facts: ModelFacts,
    /// Tokens of a usual sequence (95 % are no longer) and of the longest.
    pub usual_len: usize,
    /// See `usual_len`.
    pub longest_len: usize,
    /// For memories of 16, 24, 40, 48, 80 and 141 GB; empty if its shape is not known.
    pub fits: Vec<Fit>,
}

impl ModelMemory {
    /// Whether the stage is this model's. A judge may have the name of a generator and be another model.
    pub(super) fn serves(&self, stage: &StageWork) -> bool {
        self.facts.name == stage.model && self.role == stage.role()
    }
}

/// A stage's requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageTokens {
    /// As `speed.jsonl` names it.
    pub stage: &'static str,
    /// The model.
    pub model: String,
    /// Rows: answers, ratings, comparisons.
    pub num_rows: u64,
    /// Requests to the engine.
    pub num_requests: u64,
    /// Tokens of a request's prompt.
    pub prompt: TokenQuantiles,
    /// Prompt tokens of all requests.
    pub num_prompt_tokens: u64,
    /// Of these: computed, by part (aspect, order); the others come from the prefix cache.
    pub computed: BTreeMap<String, u64>,
    /// Tokens that are generated.
    pub num_output_tokens: u64,
    /// Requests that no step can serve.
    pub num_refused: u64,
    /// Share of the rows that stands for all of them.
    pub simulated_share: f64,
}

/// Tokens per second, from the worse to the better end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Of prompts, in full steps.
    pub prefill: [f64; 2],
    /// Of answers, in full batches of the usual context.
    pub decode: [f64; 2],
}

/// A model on a card.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CardModel {
    /// The model.
    pub model: String,
    /// What there is room for.
    pub fit: Fit,
    /// Predicted by the roofline; `None` if it does not fit.
    pub rates: Option<Rates>,
}

/// A stage on a card.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CardStage {
    /// As `speed.jsonl` names it, or `load`.
    pub stage: &'static str,
    /// The model.
    pub model: String,
    /// Seconds on one card, from the better to the worse end.
    pub seconds: [f64; 2],
    /// Seconds by aspect or order, by the share of the tokens computed.
    pub parts: BTreeMap<String, [f64; 2]>,
}

/// So many cards of a kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuPlan {
    /// How many, each with a share of the rows.
    pub num_gpus: u64,
    /// Hours until all is done, the reserve included.
    pub wall_hours: [f64; 2],
    /// Hours of cards, the reserve included.
    pub gpu_hours: [f64; 2],
    /// Kilowatt-hours of the boards at their most.
    pub kwh: [f64; 2],
    /// In the currency that was given, if a price was.
    pub price: Option<[f64; 2]>,
}

/// A card.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CardPlan {
    /// Its name.
    pub card: String,
    /// Its memory.
    pub memory_gb: u64,
    /// Fields of it that no source backs.
    pub unverified: Vec<String>,
    /// Each model.
    pub models: Vec<CardModel>,
    /// Whether all of them fit.
    pub fits: bool,
    /// In the order of the run; empty if they do not fit.
    pub stages: Vec<CardStage>,
    /// For 1, 2, 4 and 8.
    pub gpus: Vec<GpuPlan>,
    /// Tasks of an array that end within the time limit at the worse end; `None` without a limit, or where loading alone takes longer.
    pub num_tasks: Option<u64>,
}

/// A stage that was timed here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasuredStage {
    /// As `speed.jsonl` names it.
    pub stage: &'static str,
    /// The model.
    pub model: String,
    /// The device, in words.
    pub device: String,
    /// Seconds that it was timed.
    pub timed_s: f64,
    /// Seconds of loading the model.
    pub load_s: f64,
    /// Seconds of the whole stage, from the better to the worse end.
    pub seconds: [f64; 2],
    /// Tokens of prompts and of answers per second of the whole stage.
    pub prompt_tokens_per_s: f64,
    /// See `prompt_tokens_per_s`.
    pub output_tokens_per_s: f64,
}

/// Bytes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// All models' files.
    pub models: u64,
    /// The source.
    pub prompts: u64,
    /// The run's folder: rows, journals, dataset. An estimate.
    pub run: u64,
    /// A bundle of models, prompts and this program.
    pub bundle: u64,
}

//! Text models of the fixtures, loaded in this process, and an observer that wants nothing.
//! Knows how to load; makes no claim about answers.

use std::path::Path;

use pairwright::engine::{EngineOptions, EngineStats, KvBudget};
use pairwright::generate::{Observer, TextModel, TextModelOptions};
use pairwright::model::WeightsKind;
use pairwright::ops::Compute;
use pairwright::prompt::TemplateOptions;

/// A cache of 8192 tokens in blocks of 16.
pub fn engine_options() -> EngineOptions {
    EngineOptions { block_size: 16, kv_budget: KvBudget::Tokens(8192), ..EngineOptions::default() }
}

/// The model in `dir`.
pub fn load(dir: &Path, engine: EngineOptions) -> TextModel {
    let options = TextModelOptions {
        others: Vec::new(),
        compute: Compute::cpu(),
        weights: WeightsKind::Files,
        max_len: None,
        engine,
        template: TemplateOptions::new("2026-11-22".parse().expect("a date")),
        label: None,
    };
    let record = TextModel::describe(dir, &options).expect("a model directory");
    TextModel::load(dir, &options, record).expect("a model")
}

/// Lets everything run, and counts rows.
#[derive(Default)]
pub struct Patient {
    pub num_rows: u64,
}

impl Observer for Patient {
    fn progress(&mut self, num_rows: &[u64], _: &EngineStats) {
        self.num_rows += num_rows.iter().sum::<u64>();
    }

    fn should_stop(&mut self) -> bool {
        false
    }
}

//! Which model for which language: prompts with human answers in, a table of figures out. Each language is a run's folder of its own, so that
//! every answer, likelihood and verdict is journaled as those of `make` are; figures are counted from the journals.
//! Knows runs and what they hold; loads no model, and knows nothing of flags.
//!
//! [`metrics`] says what is measured, [`mod@rows`] makes numbers of answers, [`mod@figures`] and [`intervals`] make figures of numbers. Figures
//! that follow from the journals are kept apart from those of the machine and the clock: the first are the same bytes however often
//! a bench was interrupted.

pub mod apart;
pub mod compare;
pub mod figures;
pub mod folder;
pub mod intervals;
mod measured;
pub mod metrics;
mod page;
mod plots;
pub mod report;
pub mod rows;
pub mod texts;

use std::collections::BTreeMap;

use crate::data::{DropReason, PromptRecord, Prompts};
use crate::dataset::{DatasetOptions, Origin};
use crate::judge::agreement::Estimate;
use crate::judge::known;
use crate::provenance::{ModelRecord, RunLock, sha256_hex};
use crate::quality::EnglishWords;
use crate::run::{self, LoadedRun, RunDir};

use self::rows::RowValues;
use super::BenchError;
use super::table::Figure;

pub use measured::{Memory, measured};

/// Rows per language unless told otherwise: a win rate of one half is then known to within some 6 points.
pub const DEFAULT_ROWS: usize = 250;

/// Keeps `num_rows` of the records, drawn by a hash of their ids, in the source's order; the rest is counted as over the limit. Which rows
/// they are depends on nothing but the ids and the seed, so that benches of other days and models have the same ones.
pub fn draw(prompts: &mut Prompts, num_rows: usize, seed: u64) {
    let key = |record: &PromptRecord| xxhash_rust::xxh3::xxh3_64_with_seed(record.id.as_bytes(), seed);
    let mut keys: Vec<u64> = prompts.records.iter().map(key).collect();
    keys.sort_unstable();
    let Some(&first_out) = keys.get(num_rows) else { return };
    let before = prompts.records.len();
    prompts.records.retain(|record| key(record) < first_out);
    for _ in prompts.records.len()..before {
        prompts.drops.add(DropReason::OverLimit.as_str());
    }
}

/// What the source's English rows are needed for: a dictionary, and each model's tokens of English.
#[derive(Debug, Clone, Default)]
pub struct English {
    /// Words of prompts and answers.
    pub words: EnglishWords,
    /// By model, bytes and tokens of the answers.
    pub tokens: BTreeMap<String, Vec<(f64, f64)>>,
}

/// The rows of each model in one language.
///
/// # Errors
/// Damaged files.
pub fn rows(
    run: &RunDir,
    loaded: &LoadedRun,
    words: &EnglishWords,
) -> Result<BTreeMap<String, Vec<RowValues>>, BenchError> {
    let likelihoods = run.read_likelihoods(&loaded.lock)?;
    let rows = run::with_input(run, loaded, Origin::default(), &DatasetOptions::default(), |input| {
        rows::rows_of(input, &likelihoods, words)
    })?;
    Ok(rows)
}

/// The figures of one language that follow from its journals: of each model, and of the judge.
///
/// # Errors
/// Damaged files.
pub fn figures(
    language: &str,
    run: &RunDir,
    loaded: &LoadedRun,
    english: &English,
    machine: &str,
) -> Result<Vec<Figure>, BenchError> {
    let stamp = Stamp::new(language, loaded, machine);
    let rows = rows(run, loaded, &english.words)?;
    let mut found = Vec::new();
    for model in &loaded.lock.generators {
        let own = rows.get(&model.name).map(Vec::as_slice).unwrap_or_default();
        let english = english.tokens.get(&model.name).map(Vec::as_slice).unwrap_or_default();
        let estimates = figures::estimates(own, english);
        found.extend(estimates.into_iter().map(|(metric, estimate)| stamp.figure(model, metric, estimate)));
    }
    let totals = known::totals(&run.known_results(&loaded.lock)?);
    for judge in &loaded.lock.judges {
        let own = totals.iter().filter(|total| total.judge == judge.name);
        let (right, all) = own.fold((0.0, 0), |(right, all), total| {
            (right + total.accuracy.value * total.accuracy.n as f64, all + total.accuracy.n)
        });
        let estimate = Estimate::share(right.round() as u64, all);
        found.extend(estimate.map(|estimate| stamp.figure(judge, "known_answers", estimate)));
    }
    Ok(found)
}

/// What all figures of a language share.
struct Stamp<'a> {
    language: &'a str,
    lock: &'a RunLock,
    bench_id: String,
    machine: &'a str,
    prompts_sha256: String,
}

impl<'a> Stamp<'a> {
    fn new(language: &'a str, loaded: &'a LoadedRun, machine: &'a str) -> Self {
        let ids: String = loaded.records.iter().map(|record| record.id.clone() + "\n").collect();
        let (lock, prompts_sha256) = (&loaded.lock, sha256_hex(ids.as_bytes()));
        Self { language, lock, bench_id: bench_id(lock), machine, prompts_sha256 }
    }

    fn figure(&self, model: &ModelRecord, metric: &str, estimate: Estimate) -> Figure {
        let rests_on_judge = JUDGED.contains(&metric);
        let judge = self.lock.judges.first().filter(|_| rests_on_judge);
        Figure {
            bench_id: self.bench_id.clone(),
            date: self.lock.created.split('T').next().unwrap_or_default().to_owned(),
            pairwright_version: self.lock.tool_version.clone(),
            machine: self.machine.to_owned(),
            device: self.lock.environment.device.clone(),
            model: model.name.clone(),
            model_sha256: model_sha256(model),
            language: self.language.to_owned(),
            metric: metric.to_owned(),
            unit: metrics::metric_of(metric).map_or("", |metric| metric.unit).to_owned(),
            value: estimate.value,
            low: Some(estimate.low),
            high: Some(estimate.high),
            num_rows: i64::try_from(estimate.n).unwrap_or(i64::MAX),
            judge: judge.map(|judge| judge.name.clone()),
            prompts_sha256: self.prompts_sha256.clone(),
        }
    }
}

/// Metrics that rest on the judge.
const JUDGED: [&str; 10] = [
    "win_rate",
    "tie_rate",
    "win_rate_length_controlled",
    "rating_difference",
    "order_consistency",
    "label_mass",
    "judge_entropy",
    "known_answers",
    "ratings_per_hour",
    "comparisons_per_hour",
];

/// Of all that the answers depend on but the models, which figures name: the first 16 digits of a hash.
fn bench_id(lock: &RunLock) -> String {
    let mut lock = lock.clone();
    lock.generators.clear();
    lock.judges.clear();
    if let Some(serde_json::Value::Object(generate)) = lock.parameters.get_mut("generate") {
        generate.remove(crate::provenance::GENERATORS);
    }
    lock.run_hash().chars().take(16).collect()
}

/// One digest of a model's files and the formats that it was run in: the same only where the answers are.
fn model_sha256(model: &ModelRecord) -> String {
    let files: String = model.files.iter().map(|(name, sha256)| format!("{sha256}  {name}\n")).collect();
    sha256_hex(format!("{files}{}\n{}", model.dtype, model.name).as_bytes())
}

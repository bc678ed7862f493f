//! Figures of the machine: how fast stages were and how much memory they took. They differ from call to call, and stand in a table of their
//! own. Knows what sessions noted; measures nothing itself.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::BenchError;
use super::Stamp;
use crate::bench::table::Figure;
use crate::generate::StageSpeed;
use crate::judge::agreement::Estimate;
use crate::provenance::ModelRecord;
use crate::run::{LoadedRun, RunDir};

/// Most memory while the process worked with a model on a language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The language.
    pub language: String,
    /// The model.
    pub model: String,
    /// Resident.
    pub peak_mib: f64,
}

impl Memory {
    /// Adds a line to a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&self, path: &Path) -> Result<(), BenchError> {
        let io = |source| BenchError::Io { path: path.to_owned(), source };
        let line = serde_json::to_string(self).map_err(|error| io(error.into()))? + "\n";
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(io)?;
        file.write_all(line.as_bytes()).map_err(io)
    }

    /// Keeps those lines of a file that `keep` says.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn keep(path: &Path, keep: impl Fn(&Self) -> bool) -> Result<(), BenchError> {
        let rows = Self::read_all(path)?;
        if rows.iter().all(&keep) {
            return Ok(());
        }
        let io = |source| BenchError::Io { path: path.to_owned(), source };
        std::fs::remove_file(path).map_err(io)?;
        rows.iter().filter(|row| keep(row)).try_for_each(|row| row.append(path))
    }

    /// All lines of a file; none if there is none. What a kill left of one is passed over.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, BenchError> {
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(BenchError::Io { path: path.to_owned(), source }),
            Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        }
    }
}

/// The figures of one language: of each model's sessions together, those that were killed left out.
///
/// # Errors
/// Files that cannot be read.
pub fn measured(
    language: &str,
    run: &RunDir,
    loaded: &LoadedRun,
    memory: &[Memory],
    machine: &str,
) -> Result<Vec<Figure>, BenchError> {
    let path = run.speeds();
    let sessions = StageSpeed::read_all(&path).map_err(|source| BenchError::Io { path, source })?;
    let stamp = Stamp::new(language, loaded, machine);
    let mut figures = Vec::new();
    let mut add = |model: &ModelRecord, metric: &str, value: Option<f64>, num_rows: u64| {
        let Some(value) = value.filter(|value| value.is_finite() && num_rows > 0) else { return };
        let figure = stamp.figure(model, metric, Estimate { value, low: value, high: value, n: num_rows });
        figures.push(Figure { low: None, high: None, ..figure });
    };
    for model in &loaded.lock.generators {
        let likelihoods = Together::of(&sessions, &model.name, "likelihoods");
        add(model, "prefill_tokens_per_s", likelihoods.per_s(likelihoods.num_prefill_tokens), likelihoods.num_rows);
        let generate = Together::of(&sessions, &model.name, "generate");
        add(model, "decode_tokens_per_s", generate.per_s(generate.num_output_tokens), generate.num_rows);
        add(model, "rows_per_hour", generate.per_hour(), generate.num_rows);
        let own = memory.iter().filter(|row| row.language == language && row.model == model.name);
        let peak = own.map(|row| row.peak_mib).max_by(f64::total_cmp);
        add(model, "peak_memory", peak, loaded.records.len() as u64);
    }
    for judge in &loaded.lock.judges {
        let [ratings, comparisons] = ["judge", "compare"].map(|stage| Together::of(&sessions, &judge.name, stage));
        add(judge, "ratings_per_hour", ratings.per_hour(), ratings.num_rows);
        add(judge, "comparisons_per_hour", comparisons.per_hour(), comparisons.num_rows);
    }
    Ok(figures)
}

/// Sessions of one stage of one model, added up.
#[derive(Default)]
struct Together {
    num_rows: u64,
    num_prefill_tokens: u64,
    num_output_tokens: u64,
    elapsed_s: f64,
}

impl Together {
    fn of(sessions: &[StageSpeed], model: &str, stage: &str) -> Self {
        let mut all = Self::default();
        for session in sessions.iter().filter(|session| session.model == model && session.rows.len() == 1) {
            let Some(num_rows) = session.rows.get(stage) else { continue };
            all.num_rows += num_rows;
            all.num_prefill_tokens += session.num_prefill_tokens;
            all.num_output_tokens += session.num_output_tokens;
            all.elapsed_s += session.elapsed_s;
        }
        all
    }

    fn per_s(&self, number: u64) -> Option<f64> {
        (self.elapsed_s > 0.0).then(|| number as f64 / self.elapsed_s)
    }

    fn per_hour(&self) -> Option<f64> {
        self.per_s(self.num_rows).map(|per_s| 3_600.0 * per_s)
    }
}

//! What the journals of a run say of its rows, all together: what a dataset and a report are made from.
//! Knows answers, ratings and comparisons; runs no stage and writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::directory::{CANDIDATES, COMPARISONS, RATIONALES, VERDICTS};
use super::rationales::attach;
use super::stages::judge_items;
use super::{LoadedRun, RunDir, RunError};
use crate::data::language;
use crate::dataset::{CardLanguage, DatasetInput, DatasetOptions, JudgeWeights, Origin};
use crate::generate::{Candidate, Failure, Forecast, GenerateRow, StageSpeed};
use crate::judge::known::{self, KnownResult};
use crate::judge::{CompareRow, Comparison, JudgeRow, RationaleRow, Verdict, verdicts_of};
use crate::report::{ReportData, Unfinished, predicted};

/// The rows of the journals, as they stand there.
pub(super) struct JournalRows {
    pub(super) answers: Vec<GenerateRow>,
    pub(super) ratings: Vec<JudgeRow>,
    pub(super) comparisons: Vec<CompareRow>,
    pub(super) rationales: Vec<RationaleRow>,
}

/// The same, sorted into what was said and what failed.
pub(super) struct RunRows {
    candidates: Vec<Candidate>,
    verdicts: Vec<Verdict>,
    comparisons: Vec<Comparison>,
    failures: BTreeMap<String, String>,
    known_answers: Vec<KnownResult>,
    judge_weights: BTreeMap<String, f64>,
}

impl RunRows {
    /// Answers with the human ones beside them, ratings and comparisons, and one failure per row.
    pub(super) fn of(loaded: &LoadedRun, rows: JournalRows, known_answers: Vec<KnownResult>) -> Self {
        let items = judge_items(loaded, &rows.answers);
        let mut failures = BTreeMap::new();
        for row in &rows.answers {
            if let GenerateRow::Failure(failed) = row {
                note(&mut failures, &failed.failure);
            }
        }
        for row in &rows.ratings {
            if let JudgeRow::Failure(failed) = row {
                note(&mut failures, &failed.failure);
            }
        }
        let compared = rows.comparisons.into_iter().filter_map(|row| match row {
            CompareRow::Comparison(comparison) => Some(comparison),
            CompareRow::Failure(_) => None,
        });
        let mut verdicts = verdicts_of(rows.ratings);
        attach(&mut verdicts, rows.rationales);
        Self {
            candidates: items.into_iter().map(|item| item.candidate).collect(),
            verdicts,
            comparisons: compared.collect(),
            failures,
            known_answers,
            judge_weights: BTreeMap::new(),
        }
    }

    /// What a dataset of them is made from, with judges and their aspects weighed so.
    ///
    /// # Errors
    /// Weights for other aspects than the judges'.
    pub(super) fn input<'a>(
        &'a mut self,
        loaded: &'a LoadedRun,
        origin: Origin,
        options: &DatasetOptions,
    ) -> Result<DatasetInput<'a>, RunError> {
        if let Some(weights) = &options.aspect_weights {
            weights.apply(&mut self.verdicts)?;
        }
        let judges: Vec<String> = loaded.lock.judges.iter().map(|judge| judge.name.clone()).collect();
        self.judge_weights = match options.weights {
            JudgeWeights::Equal => judges.into_iter().map(|judge| (judge, 1.0)).collect(),
            JudgeWeights::KnownAnswers => known::weights(&judges, &known::totals(&self.known_answers)),
        };
        Ok(DatasetInput {
            records: &loaded.records,
            candidates: &self.candidates,
            verdicts: &self.verdicts,
            comparisons: &self.comparisons,
            judge_weights: &self.judge_weights,
            known_answers: &self.known_answers,
            failures: &self.failures,
            lock: &loaded.lock,
            source_drops: &loaded.drops,
            language: card_language(loaded),
            origin,
        })
    }
}

/// Reads the journals and hands over what a dataset would be made from so far. Writes nothing, so that it may be called at any time.
///
/// # Errors
/// Damaged files.
pub fn with_input<T>(
    run: &RunDir,
    loaded: &LoadedRun,
    origin: Origin,
    options: &DatasetOptions,
    look: impl FnOnce(&DatasetInput<'_>) -> T,
) -> Result<T, RunError> {
    let rows = JournalRows {
        answers: run.read_stage(CANDIDATES, &loaded.lock)?,
        ratings: run.read_stage(VERDICTS, &loaded.lock)?,
        comparisons: run.read_stage(COMPARISONS, &loaded.lock)?,
        rationales: run.read_stage(RATIONALES, &loaded.lock)?,
    };
    let mut rows = RunRows::of(loaded, rows, run.known_results(&loaded.lock)?);
    Ok(look(&rows.input(loaded, origin, options)?))
}

/// What a run looks like so far, as the report says it. Reads journals and writes nothing, so that it may be called at any time.
///
/// # Errors
/// Damaged files.
pub fn report(
    run: &RunDir,
    loaded: &LoadedRun,
    origin: Origin,
    options: &DatasetOptions,
) -> Result<ReportData, RunError> {
    let mut data = with_input(run, loaded, origin, options, |input| ReportData::of(input, options))?;
    let status = run.status()?;
    data.unfinished = (!status.is_judged()).then_some(Unfinished {
        num_answers: status.candidates.num_done as u64,
        num_answers_wanted: status.candidates.num_wanted as u64,
        num_ratings: status.verdicts.num_done as u64,
    });
    let path = run.speeds();
    let speeds = StageSpeed::read_all(&path).map_err(|source| RunError::Io { path, action: "read", source })?;
    let path = run.plan();
    let forecasts = Forecast::read_all(&path).map_err(|source| RunError::Io { path, action: "read", source })?;
    data.predicted = Some(predicted(&forecasts, &speeds)).filter(|stages| !stages.is_empty());
    data.speeds = Some(speeds).filter(|speeds| !speeds.is_empty());
    Ok(data)
}

/// Keeps one reason per row, the same in whatever order the journal's rows stand.
fn note(failures: &mut BTreeMap<String, String>, failure: &Failure) {
    let kept = failures.entry(failure.record_id.clone()).or_insert_with(|| failure.reason.clone());
    if failure.reason < *kept {
        kept.clone_from(&failure.reason);
    }
}

/// The one language of the rows, or all of them.
fn card_language(loaded: &LoadedRun) -> CardLanguage {
    let languages: BTreeSet<(&str, &str)> =
        loaded.records.iter().map(|record| (record.language.as_str(), record.language_code.as_str())).collect();
    let codes: BTreeSet<String> = languages.iter().filter_map(|(name, code)| language::card_code(name, code)).collect();
    let (name, code) = match languages.first() {
        Some((name, code)) if languages.len() == 1 => ((*name).to_owned(), (*code).to_owned()),
        _ => (format!("{} languages", languages.len()), String::new()),
    };
    CardLanguage { name, code, card_codes: codes.into_iter().collect() }
}

//! The stages over a run's directory: each does the rows that its journal lacks and no others.
//! Knows records, candidates and verdicts; the models are handed in.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{LoadedRun, RunDir, RunError};
use crate::data::language;
use crate::dataset::{
    CardLanguage, DatasetInput, DatasetOptions, DatasetSummary, Origin, render_report, write_dataset,
};
use crate::engine::EngineStats;
use crate::generate::{
    self, Candidate, Ending, GenerateError, GenerateOptions, GenerateRow, Observer, PromptInput, PromptRequest,
    SystemPrompts, TextModel,
};
use crate::judge::{JudgeItem, JudgeRow, Rubric};
use crate::provenance::{RunLock, write_atomic};

/// What the generate stage needs besides the model.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateStage {
    /// Choice of tokens and samples.
    pub options: GenerateOptions,
    /// System turns; `None`: none.
    pub system: Option<SystemPrompts>,
}

/// Samples per prompt that a lock's parameters ask for.
pub(super) fn num_samples(lock: &RunLock) -> u64 {
    let generate = lock.parameters.get("generate");
    generate.and_then(|parameters| parameters.get("num_samples")?.as_u64()).unwrap_or(1)
}

/// Generates the answers that the run still lacks.
///
/// # Errors
/// [`RunError`]; what was done is in the journal.
pub fn generate(
    run: &RunDir,
    loaded: &LoadedRun,
    model: &mut TextModel,
    stage: &GenerateStage,
    observer: &mut dyn Observer,
) -> Result<Ending, RunError> {
    let (mut journal, rows) = run.candidates(&loaded.lock)?;
    let mut done: HashMap<&str, u32> = HashMap::new();
    rows.iter().for_each(|row| *done.entry(row.record_id()).or_default() += 1);
    // A prompt's samples are generated together, so a prompt cut short by a kill is done again as a whole.
    let complete: HashSet<(&str, u32)> = rows.iter().map(|row| (row.record_id(), row.sample_index())).collect();
    let wanted = stage.options.num_samples;
    let todo = loaded.records.iter().filter(|record| done.get(record.id.as_str()).is_none_or(|&count| count < wanted));
    let requests = todo.map(|record| {
        let system = stage.system.as_ref().and_then(|all| all.for_language(&record.language, &record.language_code));
        let messages = generate::dialogue(system.as_deref(), &record.prompt);
        PromptRequest { id: record.id.clone(), input: PromptInput::Messages(messages) }
    });
    observer.progress(rows.len() as u64, &EngineStats::default());
    let name = model.record().name.clone();
    let mut store = |answer: generate::Answer| {
        if complete.contains(&(answer.id.as_str(), answer.sample_index)) {
            return Ok(());
        }
        journal.append(&answer.into_row(&name)).map_err(|error| GenerateError::Store(Box::new(error)))
    };
    let ending = generate::generate(model, requests, &stage.options, observer, &mut store)?;
    journal.sync()?;
    Ok(ending)
}

/// Rates the answers that the run has and the judge has not seen: the generated ones and the human ones beside them.
///
/// # Errors
/// [`RunError`]; what was done is in the journal.
pub fn judge(
    run: &RunDir,
    loaded: &LoadedRun,
    model: &mut TextModel,
    rubric: &Rubric,
    observer: &mut dyn Observer,
) -> Result<Ending, RunError> {
    run.require_candidates()?;
    let (_, candidates) = run.candidates(&loaded.lock)?;
    let (mut journal, rows) = run.verdicts(&loaded.lock)?;
    let done: HashSet<_> = rows.iter().map(JudgeRow::key).collect();
    let items =
        judge_items(loaded, &candidates).into_iter().filter(|item| !done.contains(&JudgeRow::key_of(&item.candidate)));
    observer.progress(rows.len() as u64, &EngineStats::default());
    let mut store = |row: JudgeRow| journal.append(&row).map_err(|error| GenerateError::Store(Box::new(error)));
    let ending = crate::judge::judge(model, rubric, items, observer, &mut store)?;
    journal.sync()?;
    Ok(ending)
}

/// Every answer to be rated, prompt by prompt, so that a prompt's answers share its blocks.
fn judge_items(loaded: &LoadedRun, rows: &[GenerateRow]) -> Vec<JudgeItem> {
    let mut by_record: HashMap<&str, Vec<&Candidate>> = HashMap::new();
    for row in rows {
        if let GenerateRow::Candidate(candidate) = row {
            by_record.entry(&candidate.record_id).or_default().push(candidate);
        }
    }
    let mut items = Vec::new();
    for record in &loaded.records {
        let Some(generated) = by_record.get_mut(record.id.as_str()) else { continue };
        generated.sort_by_key(|candidate| candidate.sample_index);
        let human = record.response.as_deref().map(|text| Candidate::human(&record.id, text));
        let all = human.into_iter().chain(generated.iter().map(|&candidate| candidate.clone()));
        items.extend(all.map(|candidate| JudgeItem { prompt: record.prompt.clone(), candidate }));
    }
    items
}

/// Pairs the rated answers and writes dataset, report and summary.
///
/// # Errors
/// [`RunError`]; an older dataset stays as it was until the new one is complete.
pub fn pair(
    run: &RunDir,
    loaded: &LoadedRun,
    origin: Origin,
    options: &DatasetOptions,
) -> Result<DatasetSummary, RunError> {
    run.require_verdicts()?;
    let (_, rows) = run.candidates(&loaded.lock)?;
    let (_, verdict_rows) = run.verdicts(&loaded.lock)?;
    let items = judge_items(loaded, &rows);
    let mut failures = BTreeMap::new();
    for row in rows {
        if let GenerateRow::Failure(failure) = row {
            note(&mut failures, failure);
        }
    }
    let mut verdicts = Vec::with_capacity(verdict_rows.len());
    for row in verdict_rows {
        match row {
            JudgeRow::Verdict(verdict) => verdicts.push(verdict),
            JudgeRow::Failure(failure) => note(&mut failures, failure.failure),
        }
    }
    let candidates: Vec<Candidate> = items.into_iter().map(|item| item.candidate).collect();
    let input = DatasetInput {
        records: &loaded.records,
        candidates: &candidates,
        verdicts: &verdicts,
        failures: &failures,
        lock: &loaded.lock,
        source_drops: &loaded.drops,
        language: card_language(loaded),
        origin,
    };
    let summary = write_dataset(&run.dataset(), &input, options)?;
    write_atomic(&run.dataset_lock(), loaded.lock.published().as_bytes())?;
    write_atomic(&run.report(), render_report(&summary, &loaded.lock).as_bytes())?;
    let json = serde_json::to_string_pretty(&summary).map_err(|error| RunError::Io {
        path: run.summary(),
        action: "written",
        source: error.into(),
    })?;
    write_atomic(&run.summary(), json.as_bytes())?;
    Ok(summary)
}

/// Keeps one reason per row, the same in whatever order the journal's rows stand.
fn note(failures: &mut BTreeMap<String, String>, failure: generate::Failure) {
    let kept = failures.entry(failure.record_id).or_insert_with(|| failure.reason.clone());
    if failure.reason < *kept {
        *kept = failure.reason;
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

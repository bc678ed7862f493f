//! The stages over a run's directory: each does the rows that its journal lacks and no others.
//! Knows records, candidates and verdicts; the models are handed in.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::mpsc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::directory::{COMPARISONS, RATIONALES, VERDICTS};
use super::rows::{JournalRows, RunRows};
use super::{LoadedRun, RunDir, RunError};
use crate::data::PromptRecord;
use crate::dataset::{DatasetOptions, DatasetSummary, Origin, render_report, write_dataset};
use crate::generate::{
    self, Answer, Candidate, CandidateSource, Ending, GenerateError, GenerateOptions, GenerateRow, LengthGuidance,
    Meter, Observer, PromptInput, PromptRequest, SystemPrompts, TextModel,
};
use crate::journal::{DamagedLine, Journal, TornTail};
use crate::judge::{
    self, AnswerKey, CompareItem, CompareRow, Judge, JudgeItem, JudgeRow, PromptText, Rubric, answer_key,
};
use crate::prompt::Message;
use crate::provenance::{RunLock, write_atomic};
use crate::report::ReportData;

/// What the generate stage needs besides the model.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateStage {
    /// Choice of tokens and samples.
    pub options: GenerateOptions,
    /// System turns; `None`: none.
    pub system: Option<SystemPrompts>,
    /// What the system turn says of lengths; `None`: nothing.
    pub lengths: Option<LengthGuidance>,
}

impl GenerateStage {
    /// The system turn for a row: language and length, each on lines of its own.
    pub fn system_turn(&self, record: &PromptRecord) -> Option<String> {
        let (name, code) = (record.language.as_str(), record.language_code.as_str());
        let language = self.system.as_ref().and_then(|all| all.for_language(name, code));
        let length = self.lengths.as_ref().and_then(|all| all.for_language(name, code));
        match (language, length) {
            (Some(language), Some(length)) => Some(format!("{language}\n{length}")),
            (language, length) => language.or_else(|| length.map(str::to_owned)),
        }
    }

    /// What a row's answer comes behind.
    pub(super) fn dialogue(&self, record: &PromptRecord) -> Vec<Message> {
        generate::dialogue(self.system_turn(record).as_deref(), &record.prompt)
    }
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
    note_damage(&journal, observer);
    let name = model.record().name.clone();
    let answered = Answered::new(&rows, &name, stage.options.num_samples);
    let mut meter = Meter::start(observer, &[answered.num_kept()], model);
    let store = |answer: Answer| answered.store(&mut journal, &answer.into_row(&name));
    let requests = requests(loaded, &answered, stage);
    let ending = generate::generate(model, requests, &stage.options, &mut meter, store)?;
    journal.sync()?;
    note_speed(run, loaded, &mut meter, &["generate"], model);
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
    let name = model.record().name.clone();
    let asked = |rows: &[GenerateRow]| {
        judge_items(loaded, rows).into_iter().map(|item| (answer_key(&item.candidate), item)).collect()
    };
    let done = |row: &JudgeRow| (row.judge() == name).then(|| row.answer());
    over_answers(Place { run, loaded }, model, observer, VERDICTS, (asked, done), |model, items, meter, journal| {
        Ok(judge::judge(model, rubric, items, meter, |row| store(journal, &row))?)
    })
}

/// The run that a stage is one of.
#[derive(Clone, Copy)]
pub(super) struct Place<'r> {
    pub(super) run: &'r RunDir,
    pub(super) loaded: &'r LoadedRun,
}

/// A stage over the answers that are there: of what `asked` makes of them, by keys, `ask` gets what no row of the stage's journal has. `done`
/// says which row is of this model, and its key.
pub(super) fn over_answers<T: Serialize + DeserializeOwned, I, K: Eq + Hash>(
    Place { run, loaded }: Place<'_>,
    model: &mut TextModel,
    observer: &mut dyn Observer,
    stage: &str,
    (asked, done): (impl Fn(&[GenerateRow]) -> Vec<(K, I)>, impl Fn(&T) -> Option<K>),
    ask: impl FnOnce(&mut TextModel, Vec<I>, &mut Meter<'_>, &mut Journal<T>) -> Result<Ending, RunError>,
) -> Result<Ending, RunError> {
    run.require_candidates()?;
    let (_, candidates) = run.candidates(&loaded.lock)?;
    let (mut journal, rows) = run.open_stage::<T>(stage, &loaded.lock)?;
    note_damage(&journal, observer);
    let done: HashSet<K> = rows.iter().filter_map(done).collect();
    let left: Vec<I> =
        asked(&candidates).into_iter().filter(|(key, _)| !done.contains(key)).map(|(_, item)| item).collect();
    let mut meter = Meter::start(observer, &[done.len() as u64], model);
    let ending = ask(model, left, &mut meter, &mut journal)?;
    journal.sync()?;
    note_speed(run, loaded, &mut meter, &[word_of(stage)], model);
    Ok(ending)
}

/// What people call the stage that writes a journal.
fn word_of(stage: &str) -> &str {
    match stage {
        VERDICTS => "judge",
        COMPARISONS => "compare",
        other => other,
    }
}

/// Adds what a session did to the run's file of speeds. That it cannot be written costs nobody anything but figures.
pub(super) fn note_speed(run: &RunDir, loaded: &LoadedRun, meter: &mut Meter<'_>, stages: &[&str], model: &TextModel) {
    let path = run.speeds();
    if let Some(speed) = meter.speed(stages, model, &loaded.lock.environment)
        && let Err(error) = speed.append(&path)
    {
        meter.note(&format!("{}: how fast this was is not noted: {error}", path.display()));
    }
}

/// The answers that `judge` has rated, or failed to.
fn rated_by(judge: &str, rows: &[JudgeRow]) -> HashSet<AnswerKey> {
    rows.iter().filter(|row| row.judge() == judge).map(JudgeRow::answer).collect()
}

/// Compares the answers to each prompt, two by two and each two in both orders, as far as this judge has not.
///
/// # Errors
/// [`RunError`]; what was done is in the journal.
pub fn compare(
    run: &RunDir,
    loaded: &LoadedRun,
    model: &mut TextModel,
    rubric: &Rubric,
    observer: &mut dyn Observer,
) -> Result<Ending, RunError> {
    let name = model.record().name.clone();
    let asked =
        |rows: &[GenerateRow]| compare_items(loaded, rows).into_iter().map(|item| (item.key(&name), item)).collect();
    let done = |row: &CompareRow| Some(row.key()).filter(|key| key.2 == name);
    over_answers(Place { run, loaded }, model, observer, COMPARISONS, (asked, done), |model, items, meter, journal| {
        Ok(judge::compare(model, rubric, items, meter, |row| store(journal, &row))?)
    })
}

/// Does both stages in one queue, by one model: a prompt's answers are rated as soon as all of them are there, while others are
/// still being written. What comes of it is what [`generate()`] and then [`judge()`] give. `tokenizer` is the judge's, which may
/// put dialogues otherwise than the generator's.
///
/// # Errors
/// [`RunError`]; what was done is in the journals.
pub fn generate_and_judge(
    run: &RunDir,
    loaded: &LoadedRun,
    model: &mut TextModel,
    stage: &GenerateStage,
    judge: Judge<'_>,
    observer: &mut dyn Observer,
) -> Result<Ending, RunError> {
    let (mut candidates, rows) = run.candidates(&loaded.lock)?;
    let (mut verdicts, rated) = run.verdicts(&loaded.lock)?;
    note_damage(&candidates, observer);
    note_damage(&verdicts, observer);
    let rated = rated_by(judge.name, &rated);
    let earlier = judge_items(loaded, &rows);
    let answered = Answered::new(&rows, &model.record().name, stage.options.num_samples);
    let mut meter = Meter::start(observer, &[answered.num_kept(), rated.len() as u64], model);
    let earlier = earlier.into_iter().filter(|item| answered.is_complete(&item.candidate.record_id));
    // The sender goes with the answers' source: when that is at its end, no item will follow. The channel has no bound, so that
    // answers never wait for ratings (which wait for the engine, and it for the answers); it holds texts, as `pair` does of all.
    let (sender, items) = mpsc::channel();
    let records: HashMap<&str, &PromptRecord> = loaded.records.iter().map(|r| (r.id.as_str(), r)).collect();
    let mut unrated: HashMap<String, Vec<GenerateRow>> = HashMap::new();
    let (name, journal, num_samples) = (model.record().name.clone(), &mut candidates, stage.options.num_samples);
    let known = &answered;
    let answer = move |answer: Answer| {
        let row = answer.into_row(&name);
        known.store(journal, &row)?;
        let id = row.record_id().to_owned();
        let samples = unrated.entry(id.clone()).or_default();
        samples.push(row);
        if samples.len() == num_samples as usize
            && let (Some(samples), Some(record)) = (unrated.remove(&id), records.get(id.as_str()))
        {
            // If nobody takes it, the run is being given up.
            items_of(record, samples.iter()).into_iter().for_each(|item| _ = sender.send(item));
        }
        Ok(())
    };
    let items = earlier.chain(items).filter(|item| !rated.contains(&answer_key(&item.candidate)));
    let (queue_len, sampling) = (model.queue_len(), stage.options.sampling(model.eos_ids()));
    let (engine, tokenizer) = model.parts();
    let requests = requests(loaded, &answered, stage);
    let answers = generate::answers(tokenizer, requests, &stage.options, sampling, answer);
    let ratings = judge.verdicts(items, |row| store(&mut verdicts, &row));
    let ending = generate::drive(engine, queue_len, vec![answers, ratings], &mut meter)?;
    candidates.sync()?;
    verdicts.sync()?;
    note_speed(run, loaded, &mut meter, &["generate", "judge"], model);
    Ok(ending)
}

/// Says what a kill or a bad disk left in a journal; those rows are done again.
pub(super) fn note_damage<T>(journal: &Journal<T>, observer: &mut dyn Observer) {
    let path = journal.path().display();
    if let Some(TornTail { line, size_bytes }) = journal.torn_tail() {
        observer.note(&format!(
            "{path}: line {line} was not written to its end ({size_bytes} bytes); its row is done again"
        ));
    }
    if let Some(DamagedLine { line, detail }) = journal.damaged().first() {
        let more = match journal.damaged().len() {
            1 => String::new(),
            count => format!(", and {} more are", count - 1),
        };
        observer.note(&format!(
            "warning: {path}: line {line} is damaged: {detail}{more}; such rows are done again, but the disk or the copy that did \
             this may have done more"
        ));
    }
}

/// What an earlier call left of a model's answers.
struct Answered {
    keys: HashSet<(String, u32)>,
    num_samples: HashMap<String, u32>,
    wanted: u32,
}

impl Answered {
    /// Of the rows of one model.
    fn new(rows: &[GenerateRow], model: &str, wanted: u32) -> Self {
        let own = rows.iter().filter(|row| row.model() == model);
        let keys: HashSet<_> = own.map(|row| (row.record_id().to_owned(), row.sample_index())).collect();
        let mut num_samples: HashMap<String, u32> = HashMap::new();
        keys.iter().for_each(|(id, _)| *num_samples.entry(id.clone()).or_default() += 1);
        Self { keys, num_samples, wanted }
    }

    /// Answers that are not written again: those of prompts that have all of theirs.
    fn num_kept(&self) -> u64 {
        self.keys.iter().filter(|(id, _)| self.is_complete(id)).count() as u64
    }

    fn is_complete(&self, record_id: &str) -> bool {
        self.num_samples.get(record_id).is_some_and(|&number| number >= self.wanted)
    }

    /// A prompt cut short by a kill is done again as a whole, and what the journal has of it is left as it is.
    fn store(&self, journal: &mut Journal<GenerateRow>, row: &GenerateRow) -> Result<(), GenerateError> {
        match self.keys.contains(&(row.record_id().to_owned(), row.sample_index())) {
            true => Ok(()),
            false => store(journal, row),
        }
    }
}

pub(super) fn store<T: Serialize + DeserializeOwned>(journal: &mut Journal<T>, row: &T) -> Result<(), GenerateError> {
    journal.append(row).map_err(|error| GenerateError::Store(Box::new(error)))
}

/// The prompts that lack answers, in the source's order.
fn requests<'a>(
    loaded: &'a LoadedRun,
    answered: &'a Answered,
    stage: &'a GenerateStage,
) -> impl Iterator<Item = PromptRequest> + Send + 'a {
    loaded
        .records
        .iter()
        .filter(|record| !answered.is_complete(&record.id))
        .map(|record| PromptRequest { id: record.id.clone(), input: PromptInput::Messages(stage.dialogue(record)) })
}

/// Every answer to be rated, prompt by prompt, so that a prompt's answers share its blocks.
pub(super) fn judge_items(loaded: &LoadedRun, rows: &[GenerateRow]) -> Vec<JudgeItem> {
    let mut by_record: HashMap<&str, Vec<&GenerateRow>> = HashMap::new();
    rows.iter().for_each(|row| by_record.entry(row.record_id()).or_default().push(row));
    let answered = loaded.records.iter().filter_map(|record| Some((record, by_record.remove(record.id.as_str())?)));
    answered.flat_map(|(record, rows)| items_of(record, rows.into_iter())).collect()
}

/// A prompt's human answer and its generated ones by model and number; none if nothing was generated that could be held against it.
fn items_of<'r>(record: &PromptRecord, rows: impl Iterator<Item = &'r GenerateRow>) -> Vec<JudgeItem> {
    let answers = rows.filter_map(|row| match row {
        GenerateRow::Candidate(candidate) => Some(candidate),
        GenerateRow::Failure(_) => None,
    });
    let mut generated: Vec<&Candidate> = answers.collect();
    generated.sort_by(|a, b| a.model.cmp(&b.model).then(a.sample_index.cmp(&b.sample_index)));
    let human = record.response.as_deref().filter(|_| !generated.is_empty());
    let human = human.map(|text| Candidate::human(&record.id, text));
    let all = human.into_iter().chain(generated.into_iter().cloned());
    let prompt = PromptText {
        text: record.prompt.clone(),
        language: record.language.clone(),
        language_code: record.language_code.clone(),
    };
    all.map(|candidate| JudgeItem { prompt: prompt.clone(), candidate }).collect()
}

/// Every two answers to a prompt that differ, prompt by prompt; only those of a person and a model if the lock says that comparisons are
/// with people's answers.
pub(super) fn compare_items(loaded: &LoadedRun, rows: &[GenerateRow]) -> Vec<CompareItem> {
    let items = judge_items(loaded, rows);
    let with_human = loaded.lock.parameters.get("compare").is_some_and(|compare| compare["with"] == "human");
    let mut pairs = Vec::new();
    for same_prompt in items.chunk_by(|a, b| a.candidate.record_id == b.candidate.record_id) {
        let firsts = same_prompt.iter().enumerate();
        for (at, first) in firsts.filter(|(_, item)| !with_human || item.candidate.source == CandidateSource::Human) {
            let others = same_prompt.iter().skip(at + 1);
            for second in others.filter(|second| second.candidate.text.trim() != first.candidate.text.trim()) {
                let answers = [first.candidate.clone(), second.candidate.clone()];
                pairs.push(CompareItem { prompt: first.prompt.clone(), answers });
            }
        }
    }
    pairs
}

/// Pairs the rated answers and writes dataset, reports and summary; last the dataset's lock, which says that all of them are there.
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
    let (_, answers) = run.candidates(&loaded.lock)?;
    let (_, ratings) = run.verdicts(&loaded.lock)?;
    let comparisons: Vec<CompareRow> = run.read_stage(COMPARISONS, &loaded.lock)?;
    let rationales = run.read_stage(RATIONALES, &loaded.lock)?;
    let journals = JournalRows { answers, ratings, comparisons, rationales };
    let mut rows = RunRows::of(loaded, journals, run.known_results(&loaded.lock)?);
    let input = rows.input(loaded, origin, options)?;
    let summary = write_dataset(&run.dataset(), &input, options)?;
    write_atomic(&run.report(), render_report(&summary, &loaded.lock).as_bytes())?;
    write_atomic(&run.report_page(), ReportData::of(&input, options).to_html()?.as_bytes())?;
    let json = serde_json::to_string_pretty(&summary).map_err(|error| RunError::Io {
        path: run.summary(),
        action: "written",
        source: error.into(),
    })?;
    write_atomic(&run.summary(), json.as_bytes())?;
    write_atomic(&run.dataset_lock(), loaded.lock.published().as_bytes())?;
    Ok(summary)
}

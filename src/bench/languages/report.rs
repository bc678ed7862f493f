//! What a bench's report holds: figures by language and model, tests of models against one another, samples, and notes on where the data
//! may have been seen. Knows a bench's folder; the words and drawings are made elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::super::BenchError;
use super::super::table::{self, Figure};
use super::compare::{Contrast, contrasts};
use super::folder::BenchDir;
use super::metrics::{METRICS, Metric};
use crate::data::language::card_code;
use crate::generate::CandidateSource;
use crate::provenance::{ModelRecord, RunLock};
use crate::quality::EnglishWords;
use crate::registry::{AyaData, Registry};
use crate::report::Excerpt;
use crate::run::{self, LoadedRun, RunDir};

/// Prompts of each language that are shown with all answers.
const NUM_SAMPLES: usize = 3;
const MAX_PROMPT_CHARACTERS: usize = 500;
const MAX_ANSWER_CHARACTERS: usize = 900;

/// A bench, ready to be shown.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchReport {
    /// Codes of the languages with their names, in order.
    pub languages: Vec<(String, String)>,
    /// The models that were benched, in order, and the judges.
    pub models: Vec<Model>,
    /// Every figure.
    pub figures: Vec<Figure>,
    /// Two models by one metric in one language, with the models' names.
    pub contrasts: Vec<(String, String, Contrast)>,
    /// Some prompts of each language.
    pub samples: Vec<Sample>,
    /// What it was made from.
    pub made: Made,
}

/// A model of a bench.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// As the figures name it.
    pub name: String,
    /// It judged; if not, it answered.
    pub is_judge: bool,
    /// Its outputs are for show only.
    pub is_for_show: bool,
    /// Whether it may have seen these data.
    pub contamination: String,
}

/// What a bench was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The day.
    pub date: String,
    /// The program's version.
    pub version: String,
    /// The machine, as the figures name it.
    pub machine: String,
    /// The device, as the figures name it.
    pub device: String,
    /// The source's file name, and with it the split where the name says one.
    pub source: String,
    /// Of the source.
    pub source_sha256: String,
    /// The seed.
    pub seed: u64,
    /// Rows left out because a run trains on them, over all languages.
    pub num_kept_apart: u64,
}

/// A prompt with a person's answer and the models'.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name of the language.
    pub language: String,
    /// For browsers.
    pub tag: Option<String>,
    /// What was asked.
    pub prompt: Excerpt,
    /// Who answered, and what; the person first.
    pub answers: Vec<(String, Excerpt)>,
}

impl BenchReport {
    /// Reads a bench's folder.
    ///
    /// # Errors
    /// No bench, or damaged files.
    pub fn read(dir: &BenchDir, registry: &Registry) -> Result<Self, BenchError> {
        let mut figures = table::read(&dir.figures())?;
        figures.extend(table::read(&dir.measured())?);
        let (mut languages, mut samples, mut rows) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut models: Vec<Model> = Vec::new();
        let mut made: Option<Made> = None;
        for (code, run) in dir.runs()? {
            let loaded = run.load()?;
            let name = loaded.records.first().map_or("", |record| record.language.as_str());
            languages.push((code.clone(), if name.is_empty() { code.clone() } else { name.to_owned() }));
            for (record, is_judge) in with_roles(&loaded.lock) {
                if !models.iter().any(|model| model.name == record.name && model.is_judge == is_judge) {
                    models.push(Model::of(record, is_judge, registry));
                }
            }
            samples.extend(samples_of(&run, &loaded)?);
            rows.insert(code, super::rows(&run, &loaded, &EnglishWords::default())?);
            made.get_or_insert_with(|| Made::of(&loaded.lock, &figures)).num_kept_apart +=
                loaded.drops.count(super::apart::TRAINED_ON);
        }
        models.sort_by_key(|model| model.is_judge);
        let made = made.ok_or_else(|| BenchError::NoBench { path: dir.root().to_owned() })?;
        let contrasts = all_contrasts(&models, &rows);
        Ok(Self { languages, models, figures, contrasts, samples, made })
    }

    /// A model's figure in a language, the latest one.
    pub fn figure(&self, metric: &str, language: &str, model: &str) -> Option<&Figure> {
        let is_it = |figure: &&Figure| figure.metric == metric && figure.language == language && figure.model == model;
        self.figures.iter().rev().find(is_it)
    }

    /// The metrics that any model has, in order.
    pub fn metrics(&self) -> impl Iterator<Item = &'static Metric> {
        let there: BTreeSet<&str> = self.figures.iter().map(|figure| figure.metric.as_str()).collect();
        METRICS.iter().filter(move |metric| there.contains(metric.id))
    }

    /// The models that answered.
    pub fn benched(&self) -> impl Iterator<Item = &Model> {
        self.models.iter().filter(|model| !model.is_judge)
    }
}

fn with_roles(lock: &RunLock) -> impl Iterator<Item = (&ModelRecord, bool)> {
    lock.generators.iter().map(|model| (model, false)).chain(lock.judges.iter().map(|model| (model, true)))
}

impl Model {
    fn of(record: &ModelRecord, is_judge: bool, registry: &Registry) -> Self {
        let contamination = match registry.find(&record.name).map(|entry| entry.aya_data) {
            Ok(AyaData::Yes) => "trained on Aya data, as its makers say: figures on Aya's rows flatter it",
            Ok(AyaData::No) => "not trained on Aya data, as its makers say",
            Ok(AyaData::Unknown) => {
                "its makers do not say whether it was trained on Aya data, which is public since February 2024"
            }
            Err(_) => "not in the list of models: nobody knows here whether it was trained on these data",
        };
        let contamination = contamination.to_owned();
        Self { name: record.name.clone(), is_judge, is_for_show: record.weights.is_for_show(), contamination }
    }
}

impl Made {
    fn of(lock: &RunLock, figures: &[Figure]) -> Self {
        let name = |path: &str| path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
        Self {
            date: lock.created.split('T').next().unwrap_or_default().to_owned(),
            version: lock.tool_version.clone(),
            machine: figures.first().map(|figure| figure.machine.clone()).unwrap_or_default(),
            device: lock.environment.device.clone(),
            source: name(&lock.source.path),
            source_sha256: lock.source.sha256.clone(),
            seed: lock.seed,
            num_kept_apart: 0,
        }
    }
}

/// The first prompts by id, which is a hash, that every model answered, or else that any did.
fn samples_of(run: &RunDir, loaded: &LoadedRun) -> Result<Vec<Sample>, BenchError> {
    let mut answers: BTreeMap<String, Vec<(CandidateSource, String, Excerpt)>> = BTreeMap::new();
    run::with_input(run, loaded, Default::default(), &Default::default(), |input| {
        for candidate in input.candidates.iter().filter(|candidate| candidate.sample_index == 0) {
            let text = Excerpt::of(&candidate.text, MAX_ANSWER_CHARACTERS);
            let of_record = answers.entry(candidate.record_id.clone()).or_default();
            of_record.push((candidate.source, candidate.model.clone(), text));
        }
    })?;
    let mut records: Vec<_> = loaded.records.iter().filter(|record| answers.contains_key(&record.id)).collect();
    let num_missing = |id: &str| usize::MAX - answers.get(id).map_or(0, Vec::len);
    records.sort_by(|a, b| num_missing(&a.id).cmp(&num_missing(&b.id)).then(a.id.cmp(&b.id)));
    let sample = |record: &crate::data::PromptRecord| {
        let mut answers = answers.get(&record.id).cloned().unwrap_or_default();
        answers.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let who = |source, model| if source == CandidateSource::Human { "a person".to_owned() } else { model };
        Sample {
            language: record.language.clone(),
            tag: card_code(&record.language, &record.language_code),
            prompt: Excerpt::of(&record.prompt, MAX_PROMPT_CHARACTERS),
            answers: answers.into_iter().map(|(source, model, text)| (who(source, model), text)).collect(),
        }
    };
    Ok(records.into_iter().take(NUM_SAMPLES).map(sample).collect())
}

type Rows = BTreeMap<String, BTreeMap<String, Vec<super::RowValues>>>;

/// Every two models, tested together: the correction is for all of these tests.
fn all_contrasts(models: &[Model], rows: &Rows) -> Vec<(String, String, Contrast)> {
    let of = |model: &Model| -> BTreeMap<String, Vec<super::RowValues>> {
        rows.iter().filter_map(|(code, models)| Some((code.clone(), models.get(&model.name)?.clone()))).collect()
    };
    let benched: Vec<(&Model, _)> =
        models.iter().filter(|model| !model.is_judge).map(|model| (model, of(model))).collect();
    let mut found = Vec::new();
    for (at, (first, own)) in benched.iter().enumerate() {
        for (second, others) in benched.iter().skip(at + 1) {
            let both = contrasts(own, others);
            found.extend(both.into_iter().map(|contrast| (first.name.clone(), second.name.clone(), contrast)));
        }
    }
    let corrected = super::intervals::holm(&found.iter().map(|(_, _, contrast)| contrast.p).collect::<Vec<_>>());
    found.iter_mut().zip(corrected).for_each(|((_, _, contrast), p)| contrast.p_corrected = p);
    found
}

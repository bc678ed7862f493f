//! The stages of a run over several models: one model on the device at a time, each kept as long as the next stage needs it.
//! Knows models by their flags and what is left to do by the run; nothing of what happens in a stage.

use std::path::{Path, PathBuf};

use super::arguments::{EngineArgs, SamplingArgs, Thinking};
use super::exit::UsageError;
use super::progress::{OutputArgs, Progress};
use super::settings::{self, Generator, NamedModel};
use super::stop::Stop;
use crate::engine::EngineStats;
use crate::generate::{Ending, GenerateError, Observer, TextModel};
use crate::judge::known::{self, DEFAULT_ROWS, MAX_ROWS};
use crate::judge::{Judge, RationaleOptions, RationaleText, RationaleWriter, Rubric};
use crate::provenance::RunLock;
use crate::run::{self, LoadedRun, RunDir, RunError, StageStatus};

/// Flags that say how answers are judged.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Judging")]
pub(super) struct JudgingArgs {
    /// Questions to the judge in place of the built-in ones (`pairwright judge --show-rubric` prints these)
    #[arg(long, value_name = "FILE")]
    pub(super) rubric: Option<PathBuf>,
    /// Compare the answers to each prompt two by two as well, in both orders; an outcome that depends on the order is a tie
    #[arg(long)]
    pub(super) pairwise: bool,
    /// Have judges that speak also write why, for each answer and aspect: text and a rating 1 to 5, beside the ratings that count
    #[arg(long)]
    rationales: bool,
    /// Most tokens of a rationale; it is closed in time
    #[arg(long, value_name = "N", default_value_t = 256, requires = "rationales")]
    rationale_tokens: usize,
    /// Most characters of a rationale
    #[arg(long, value_name = "N", default_value_t = 1200, requires = "rationales")]
    rationale_chars: usize,
    /// Of the choice of a rationale's tokens; 0: the likeliest
    #[arg(long, value_name = "T", default_value_t = 0.0, requires = "rationales")]
    rationale_temperature: f32,
    /// How rationales are asked for in place of the built-in text, also to have them in another language: a TOML file with `version` and
    /// `instruction`
    #[arg(long, value_name = "FILE", requires = "rationales")]
    rationale_text: Option<PathBuf>,
    /// Rows per language to test each judge with before it rates: human answers against the same answers spoilt; 0: none
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ROWS, value_parser = known_rows)]
    pub(super) known_answers: usize,
}

fn known_rows(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|rows| *rows <= MAX_ROWS)
        .ok_or_else(|| format!("want a whole number from 0 to {MAX_ROWS}"))
}

/// A stage's work with a model, under the eyes of people.
type Work<'w> = dyn Fn(&mut TextModel, &mut Progress) -> anyhow::Result<Ending> + 'w;

/// The judges of a run, and how they judge.
pub(super) struct Judges {
    pub(super) models: Vec<NamedModel>,
    rubric: Rubric,
    known_answers: usize,
    rationales: Option<RationaleOptions>,
}

impl JudgingArgs {
    /// Has answers compared, whatever the flag says.
    pub(super) fn compare(&mut self) {
        self.pairwise = true;
    }

    /// How rationales are written, if they are wanted.
    pub(super) fn rationale_options(&self, seed: u64) -> anyhow::Result<Option<RationaleOptions>> {
        if !self.rationales {
            return Ok(None);
        }
        if !(self.rationale_temperature >= 0.0 && self.rationale_temperature.is_finite()) {
            let got = self.rationale_temperature;
            return Err(UsageError(format!("--rationale-temperature is {got}\nhint: want 0 or more")).into());
        }
        let text = self.rationale_text.as_deref().map_or_else(RationaleText::built_in, RationaleText::read)?;
        let (max_chars, max_tokens) = (self.rationale_chars, self.rationale_tokens);
        Ok(Some(RationaleOptions { text, max_chars, max_tokens, temperature: self.rationale_temperature, seed }))
    }
}

/// The model that is loaded, if one is.
#[derive(Default)]
pub(super) struct Held {
    model: Option<TextModel>,
    dir: PathBuf,
}

impl Held {
    /// The model that `wanted` names: the one at hand, if its files are the same, put to use as `wanted` says; else it is loaded in the
    /// place of that one.
    fn get(&mut self, wanted: &NamedModel, output: &OutputArgs) -> anyhow::Result<&mut TextModel> {
        let is_same = self.dir == wanted.dir;
        match self.model.take().filter(|_| is_same) {
            Some(mut model) => {
                model.serve_as(wanted.record.clone(), wanted.tokenizer()?);
                Ok(self.model.insert(model))
            }
            None => {
                self.dir.clone_from(&wanted.dir);
                Ok(self.model.insert(wanted.load(output)?))
            }
        }
    }

    /// What the model at hand has done.
    pub(super) fn stats(&self) -> EngineStats {
        self.model.as_ref().map_or_else(EngineStats::default, |model| model.engine().stats())
    }
}

/// The generators that the flags name, each with its own recommended sampling.
pub(super) fn generators(
    dirs: &[PathBuf],
    sampling: &SamplingArgs,
    system: Option<&str>,
    output: &OutputArgs,
    find: impl Fn(&Path) -> anyhow::Result<NamedModel>,
) -> anyhow::Result<Vec<Generator>> {
    let mut generators = Vec::new();
    for dir in dirs {
        let stage = settings::generate_stage(sampling, Some(dir), system)?;
        let model = find(dir)?;
        model.say_note(output);
        model.require_template()?;
        generators.push(Generator { model, stage });
    }
    settings::require_distinct(generators.iter().map(|generator| &generator.model), "generators")?;
    Ok(generators)
}

/// Generates the answers that one model owes.
pub(super) fn answer(
    run: &RunDir,
    loaded: &LoadedRun,
    generator: &Generator,
    held: &mut Held,
    output: &OutputArgs,
    stop: &Stop,
) -> anyhow::Result<Ending> {
    let name = &generator.model.record.name;
    let (_, progress) = run.progress()?;
    let Some(status) = progress.candidates.get(name).filter(|status| !status.is_done()) else {
        return Ok(Ending::Completed);
    };
    announce(output, "generate", name, loaded.lock.generators.len());
    let stages = [("generate", status.num_wanted as u64)];
    watched(held, &generator.model, output, Progress::new(output, stop, &stages), |model, progress| {
        Ok(run::generate(run, loaded, model, &generator.stage, progress)?)
    })
}

/// Asks one model how likely it finds the human answers, as far as it was not.
pub(super) fn likelihoods(
    run: &RunDir,
    loaded: &LoadedRun,
    generator: &Generator,
    held: &mut Held,
    output: &OutputArgs,
    stop: &Stop,
) -> anyhow::Result<Ending> {
    if run.num_likelihoods_left(loaded, &generator.model.record.name)? == 0 {
        return Ok(Ending::Completed);
    }
    let stages = [("likelihoods", loaded.records.len() as u64)];
    watched(held, &generator.model, output, Progress::new(output, stop, &stages), |model, progress| {
        Ok(run::likelihoods(run, loaded, model, &generator.stage, progress)?)
    })
}

/// Does some work with a model while people see how far it is, and leaves a line that says what was done.
fn watched(
    held: &mut Held,
    model: &NamedModel,
    output: &OutputArgs,
    mut progress: Progress,
    work: impl FnOnce(&mut TextModel, &mut Progress) -> anyhow::Result<Ending>,
) -> anyhow::Result<Ending> {
    let ending = work(held.get(model, output)?, &mut progress)?;
    progress.finish();
    Ok(ending)
}

/// Says whose turn it is, where there is more than one.
fn announce(output: &OutputArgs, stage: &str, name: &str, num_models: usize) {
    if num_models > 1 {
        output.say(&format!("{stage}: {name}"));
    }
}

impl Judges {
    /// The judges that the flags name; what is to be said of generators was said.
    pub(super) fn find(
        dirs: &[PathBuf],
        args: &JudgingArgs,
        seed: u64,
        known: &[Generator],
        output: &OutputArgs,
        find: impl Fn(&Path) -> anyhow::Result<NamedModel>,
    ) -> anyhow::Result<Self> {
        let rubric = args.rubric.as_deref().map_or_else(Rubric::built_in, Rubric::read)?;
        let mut models = Vec::new();
        for dir in dirs {
            let model = find(dir)?;
            if known.iter().all(|generator| generator.model.dir != model.dir) {
                model.say_note(output);
            }
            model.require_template()?;
            models.push(model);
        }
        settings::require_distinct(models.iter(), "judges")?;
        let rationales = args.rationale_options(seed)?;
        if let Some(options) = &rationales {
            // Before a night of generating: whether each tokenizer can be held to the form.
            for model in models.iter().filter(|model| !model.record.is_reward) {
                let (tokenizer, name) = (model.tokenizer()?, model.record.name.as_str());
                RationaleWriter::new(Judge { tokenizer: &tokenizer, name, rubric: &rubric }, options)?;
            }
        }
        Ok(Self { models, rubric, known_answers: args.known_answers, rationales })
    }

    /// Writes them into the lock.
    pub(super) fn note(&self, lock: &mut RunLock, args: &JudgingArgs, engine: &EngineArgs, thinking: Thinking) {
        lock.judges = self.models.iter().map(|model| model.record.clone()).collect();
        lock.rubric_sha256 = Some(self.rubric.sha256.clone());
        let parameters = serde_json::json!({
            "rubric": self.rubric.name,
            "rubric_version": self.rubric.version,
            "max_len": engine.max_len(),
            "thinking": thinking.as_str(),
        });
        lock.parameters.insert("judge".to_owned(), parameters);
        if args.pairwise {
            lock.parameters.insert("compare".to_owned(), serde_json::json!({"orders": 2}));
        }
        if let Some(RationaleOptions { text, max_chars, max_tokens, temperature, .. }) = &self.rationales {
            let parameters = serde_json::json!({
                "text_version": text.version,
                "text_sha256": text.sha256,
                "max_chars": max_chars,
                "max_tokens": max_tokens,
                "temperature": temperature,
            });
            lock.parameters.insert("rationales".to_owned(), parameters);
        }
    }

    /// Tests each judge with known answers, as far as it was not, and warns of those at chance.
    pub(super) fn test(
        &self,
        run: &RunDir,
        loaded: &LoadedRun,
        held: &mut Held,
        output: &OutputArgs,
        stop: &Stop,
    ) -> anyhow::Result<Ending> {
        let mut is_new = false;
        for judge in &self.models {
            let record = &judge.record;
            let todo = run.known_answers(&loaded.lock, &record.name, record.is_reward, self.known_answers)?;
            if todo.is_done() {
                continue;
            }
            is_new = true;
            announce(output, "test", &record.name, self.models.len());
            let progress = Progress::new(output, stop, &[("test judge", todo.num_wanted())]);
            let ending = watched(held, judge, output, progress, |model, progress| {
                match run::known_answers(run, loaded, model, &self.rubric, todo, progress) {
                    // The run's own rows will say what does not fit; a test with fewer cases is still one.
                    Err(RunError::Generate(GenerateError::TooLarge { num_rows, .. })) => {
                        progress.note(&format!(
                            "{num_rows} cases of the judge's test do not fit the KV cache and are left out"
                        ));
                        Ok(Ending::Completed)
                    }
                    tested => Ok(tested?),
                }
            })?;
            if ending != Ending::Completed {
                return Ok(ending);
            }
        }
        if is_new {
            let results = run.known_results(&loaded.lock)?;
            let totals = known::totals(&results);
            for same_judge in totals.chunk_by(|a, b| a.judge == b.judge) {
                in_words(same_judge).iter().for_each(|line| output.say(line));
            }
            for shift in known::shifts(&results) {
                output.say(&format!("of {}, {}", shift.judge, shift.in_words()));
            }
        }
        Ok(Ending::Completed)
    }

    /// Rates, and compares where that was asked for, what each judge has not yet.
    pub(super) fn rate(
        &self,
        run: &RunDir,
        loaded: &LoadedRun,
        held: &mut Held,
        output: &OutputArgs,
        stop: &Stop,
    ) -> anyhow::Result<Ending> {
        for judge in &self.models {
            let name = &judge.record.name;
            let (_, done) = run.progress()?;
            let left = |status: Option<&StageStatus>| status.filter(|s| !s.is_done()).map(|s| s.num_wanted as u64);
            let mut stage = |name, num_rows, work: &Work<'_>| {
                watched(held, judge, output, Progress::new(output, stop, &[(name, num_rows)]), |model, seen| {
                    work(model, seen)
                })
            };
            let mut ending = Ending::Completed;
            if let Some(num_rows) = left(done.verdicts.get(name)) {
                announce(output, "judge", name, loaded.lock.judges.len());
                ending =
                    stage("judge", num_rows, &|model, seen| Ok(run::judge(run, loaded, model, &self.rubric, seen)?))?;
            }
            if let (Ending::Completed, Some(num_rows)) = (ending, left(done.comparisons.get(name))) {
                ending = stage("compare", num_rows, &|model, seen| {
                    Ok(run::compare(run, loaded, model, &self.rubric, seen)?)
                })?;
            }
            if let (Ending::Completed, Some(num_rows), Some(options)) =
                (ending, left(done.rationales.get(name)), &self.rationales)
            {
                ending = stage("rationales", num_rows, &|model, seen| {
                    Ok(run::rationales(run, loaded, model, &self.rubric, options, seen)?)
                })?;
            }
            if ending != Ending::Completed {
                return Ok(ending);
            }
        }
        Ok(Ending::Completed)
    }

    /// Answers by `generator`, rated in the same queue by the judge that has its model; `None` if no judge has, or something else comes
    /// first.
    pub(super) fn answer_and_rate(
        &self,
        run: &RunDir,
        loaded: &LoadedRun,
        generator: &Generator,
        held: &mut Held,
        output: &OutputArgs,
        stop: &Stop,
    ) -> anyhow::Result<Option<Ending>> {
        let Some(judge) = self.models.iter().find(|judge| judge.is(&generator.model)) else { return Ok(None) };
        let (_, progress) = run.progress()?;
        let Some(status) = progress.candidates.get(&generator.model.record.name) else { return Ok(None) };
        if status.is_done() || loaded.lock.generators.len() > 1 {
            return Ok(None);
        }
        let answers = ("generate", status.num_wanted as u64);
        let ratings = ("judge", loaded.num_answers(generator.stage.options.num_samples));
        let progress = Progress::new(output, stop, &[answers, ratings]);
        let rater = Judge { tokenizer: &judge.tokenizer()?, name: &judge.record.name, rubric: &self.rubric };
        let ending = watched(held, &generator.model, output, progress, |model, progress| {
            let ending = run::generate_and_judge(run, loaded, model, &generator.stage, rater, progress)?;
            if ending == Ending::Completed {
                let (_, now) = run.progress()?;
                progress.settle(1, now.num_answers);
            }
            Ok(ending)
        })?;
        Ok(Some(ending))
    }
}

/// How a judge did with known answers: a line for the languages in which it tells, a warning for those in which it does not.
fn in_words(totals: &[known::KnownTotal]) -> Vec<String> {
    let judge = totals.first().map_or("", |total| total.judge.as_str());
    let named = |total: &&known::KnownTotal| {
        let language = if total.language.is_empty() { "the rows' language" } else { &total.language };
        format!("{language} {:.0} % of {}", 100.0 * total.accuracy.value, total.accuracy.n)
    };
    let (blind, tells): (Vec<_>, Vec<_>) = totals.iter().partition(|total| total.is_at_chance());
    let list = |totals: &[&known::KnownTotal]| totals.iter().map(named).collect::<Vec<_>>().join(", ");
    let mut lines = Vec::new();
    if !tells.is_empty() {
        lines.push(format!("{judge} tells a person's answer from the same one spoilt: {}", list(&tells)));
    }
    if !blind.is_empty() {
        lines.push(format!(
            "warning: {judge} tells them no better than a coin, so its ratings mean little there: {}",
            list(&blind)
        ));
    }
    lines
}

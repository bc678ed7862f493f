//! What a plan is made of: models by folder or name, rows in tokens, and the engine timed where that is asked for.
//! Knows flags and the order of things; the arithmetic is [`crate::plan`]'s.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Args;
use crate::cli::exit::UsageError;
use crate::cli::make::JUDGE_THINKING;
use crate::cli::settings::{self, NamedModel};
use crate::data::Prompts;
use crate::demo;
use crate::engine::SamplingParams;
use crate::engine::scheduler::Limits;
use crate::generate::{TextModel, dialogue, model_name};
use crate::judge::Rubric;
use crate::judge::known::{self, KnownRow};
use crate::plan::{
    Asked, Expected, Formats, Judging, Measured, Measurement, Plan, PlannedGenerator, PlannedModel, Room, StageWork,
    answers, assemble, generation, judging, measure, prompts, sample,
};
use crate::prompt::{Message, TemplateOptions};
use crate::registry::{ModelEntry, Registry};
use crate::run::GenerateStage;
use crate::shard::Shard;

/// Texts that stand for answers at most.
const MAX_TEXTS: usize = 4096;

/// Where rows go that another shard has.
const OTHER_SHARD: &str = "other_shard";

/// A model that was loaded to be timed.
struct Loaded {
    dir: PathBuf,
    model: TextModel,
    load_s: f64,
    device: String,
    max_batch: usize,
    max_len: usize,
}

/// Everything, from flags to figures.
pub(super) fn plan(args: &Args) -> anyhow::Result<Plan> {
    let job = &args.job;
    let file = settings::required(&job.prompts.prompts, "--prompts", "the file with prompts and human answers")?;
    settings::required(&job.generator.first(), "--generator", "the model that writes the second answer")?;
    settings::required(&job.judge.first(), "--judge", "the model that rates the answers")?;
    let registry = args.registry.read()?;
    let run = args.out.as_ref().map(|out| job.shard.run_dir(out)).transpose()?;
    let earlier = run.map(|run| run.earlier_lock(job.claim.claim())).transpose()?.flatten();
    let date = settings::run_date(earlier)?;
    let template = |thinking| settings::template_options(date, job.dialogue.chat_template.as_deref(), thinking);
    let (writes, rates) = (template(job.dialogue.thinking)?, template(Some(JUDGE_THINKING))?);
    let formats = job.engine.formats();
    let open = |named: &Path, template: &TemplateOptions| open(named, args, &formats, &registry, template);
    let mut stages = Vec::new();
    let mut models = Vec::new();
    for named in &job.generator {
        let model = open(named, &writes)?;
        stages.push(settings::generate_stage(
            &job.sampling,
            model.dir.as_deref(),
            job.dialogue.system_prompt.as_deref(),
        )?);
        models.push(model);
    }
    let judges = job.judge.iter().map(|named| open(named, &rates)).collect::<anyhow::Result<Vec<_>>>()?;
    distinct(models.iter(), "generators")?;
    distinct(judges.iter(), "judges")?;
    let mut rows = settings::read_prompts(&job.prompts, file, true)?;
    if let Some(line) = settings::matched_languages(&rows) {
        args.output.say(&line);
    }
    settings::guide_lengths(job.dialogue.length_guidance, stages.iter_mut(), &rows, &args.output)?;
    let chosen = known::choose(&rows.records);
    let shard = job.shard.shard()?;
    let known = match shard {
        // The first shard tests the judges for all.
        Some(shard) if shard.index() > 0 => Vec::new(),
        _ => known::first_rows(&chosen, job.judging.known_answers),
    };
    if let Some(shard) = shard {
        keep_share(&mut rows, shard);
    }
    let mut gathered = Gathered {
        args,
        rows: &rows,
        known: &known,
        texts: people(&rows),
        loaded: None,
        work: Vec::new(),
        measurements: Vec::new(),
    };
    let mut generators = Vec::new();
    for (model, stage) in models.into_iter().zip(&stages) {
        generators.push(gathered.generator(model, stage, &writes)?);
    }
    gathered.judges(&judges, &generators, &rates)?;
    let Gathered { mut work, measurements, .. } = gathered;
    let cards = match (args.card.is_empty(), job.engine.is_cpu()) {
        (true, true) => Vec::new(),
        (true, false) => registry.cards().iter().collect(),
        (false, _) => args.card.iter().map(|name| registry.card(name)).collect::<Result<Vec<_>, _>>()?,
    };
    let asked = Asked {
        created: date.to_string(),
        formats,
        cards: &cards,
        hours: args.hours.map_or_else(|| job.time.hours(), |hours| Ok(Some(hours)))?,
        reserve: args.reserve,
        watts: args.watts,
        price_per_gpu_hour: args.price_per_gpu_hour,
        price_per_kwh: args.price_per_kwh,
        seconds_per_vote: args.seconds_per_vote,
        overlap: args.overlap,
        num_annotated: args.annotate,
        source: source(args, file),
        pairs_per_prompt: job.pair.pairs_per_prompt as u64,
    };
    // As `make` goes on: judges are tested before anything is written.
    work.sort_by_key(|stage: &StageWork| match stage.stage {
        "known answers" => 0,
        "generate" => 1,
        _ => 2,
    });
    Ok(assemble(&rows, &generators, &judges, &work, &measurements, &asked))
}

/// What is found out model by model.
struct Gathered<'a> {
    args: &'a Args,
    rows: &'a Prompts,
    /// Rows that judges are tested with.
    known: &'a [&'a KnownRow],
    /// What stands for answers.
    texts: Vec<String>,
    loaded: Option<Loaded>,
    work: Vec<StageWork>,
    measurements: Vec<Measurement>,
}

impl Gathered<'_> {
    /// A generator's rows in tokens and its stage, timed if that is wanted.
    fn generator(
        &mut self,
        model: PlannedModel,
        stage: &GenerateStage,
        template: &TemplateOptions,
    ) -> anyhow::Result<PlannedGenerator> {
        let mut generator = generator(model, stage, self.rows)?;
        let mut queued = answers_of(&generator, &self.texts, self.rows);
        if let Some(budget) = self.args.measure {
            let held = load(self.args, &mut self.loaded, &generator.model, template)?;
            let sampling = stage.options.sampling(held.model.eos_ids());
            if let Some(measurement) = timed(held, &queued, &sampling, budget)? {
                let measured = &measurement.measured;
                let people = generator.lengths.iter().sum::<usize>() as f64 / generator.lengths.len().max(1) as f64;
                generator.lengths = measured.lengths(generator.max_tokens, people);
                generator.lengths_from = if measured.knows_lengths() { "measured" } else { "both" };
                if measured.knows_lengths()
                    && let Some(texts) = answered(held, measured)?
                {
                    self.texts = texts;
                }
                self.measurements.push(measurement);
            }
            queued = answers_of(&generator, &self.texts, self.rows);
        }
        self.work.push(queued);
        Ok(generator)
    }

    /// The judges' stages, timed if that is wanted.
    fn judges(
        &mut self,
        judges: &[PlannedModel],
        generators: &[PlannedGenerator],
        template: &TemplateOptions,
    ) -> anyhow::Result<()> {
        let flags = &self.args.job.judging;
        let rubric = flags.rubric.as_deref().map_or_else(Rubric::built_in, Rubric::read)?;
        let rationales = flags.rationale_options(self.args.job.sampling.seed)?;
        let asked = Judging {
            rubric: &rubric,
            pairwise: flags.pairwise,
            rationales: rationales.as_ref(),
            known: self.known,
            num_generators: generators.len(),
        };
        let num_samples = generators.first().map_or(1, |generator| generator.num_samples);
        for judge in judges {
            let expected = Expected { texts: &self.texts, lengths: &[], max_tokens: 0, num_samples };
            let queued = judging(judge, &self.rows.records, &expected, &asked)?;
            if let (Some(budget), Some(rated)) = (self.args.measure, queued.iter().find(|stage| stage.stage == "judge"))
            {
                let held = load(self.args, &mut self.loaded, judge, template)?;
                self.measurements.extend(timed(held, rated, &SamplingParams::default(), budget)?);
            }
            self.work.extend(queued);
        }
        Ok(())
    }
}

/// The prompts' name and licence as the flags have them.
fn source(args: &Args, file: &Path) -> (String, Option<String>) {
    let origin = args.job.pair.origin();
    let name = origin.dataset.unwrap_or_else(|| file.file_name().unwrap_or_default().to_string_lossy().into_owned());
    (name, origin.license)
}

/// A folder or file, or else a name of the list.
fn open(
    named: &Path,
    args: &Args,
    formats: &Formats,
    registry: &Registry,
    template: &TemplateOptions,
) -> anyhow::Result<PlannedModel> {
    let last = named.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_it = |entry: &&ModelEntry| {
        let short = entry.hub_id.rsplit('/').next().unwrap_or_default();
        [entry.name.as_str(), short].iter().any(|name| name.eq_ignore_ascii_case(&last))
    };
    if named.exists() {
        let weights = args.job.engine.weights(args.job.sampling.seed);
        // As a run calls it.
        let name = match demo::is_model_dir(named) {
            true => demo::MODEL_LABEL.to_owned(),
            false => model_name(named, weights).map_err(crate::generate::TextModelError::from)?,
        };
        let entry = registry.models().iter().find(is_it);
        return Ok(PlannedModel::open(named, name, weights, formats, template, entry)?);
    }
    if args.measure.is_some() {
        let message =
            format!("--measure runs models, and {} is not here\nhint: give the model's folder", named.display());
        return Err(UsageError(message).into());
    }
    Ok(PlannedModel::of_entry(registry.find(&named.to_string_lossy())?, formats))
}

fn distinct<'a>(models: impl Iterator<Item = &'a PlannedModel>, role: &str) -> Result<(), UsageError> {
    let mut seen = std::collections::BTreeSet::new();
    for model in models {
        if !seen.insert(&model.facts.name) {
            let name = &model.facts.name;
            return Err(UsageError(format!("two {role} are called `{name}`\nhint: name each model once")));
        }
    }
    Ok(())
}

/// Leaves the share of `shard`; the other rows are counted as its siblings'.
fn keep_share(rows: &mut Prompts, shard: Shard) {
    let Prompts { records, drops, .. } = rows;
    records.retain(|record| {
        let is_own = shard.owns(&record.id);
        if !is_own {
            drops.add(OTHER_SHARD);
        }
        is_own
    });
}

/// Human answers, which stand for a model's before there are any.
fn people(rows: &Prompts) -> Vec<String> {
    let chosen = sample(&rows.records, MAX_TEXTS);
    chosen.into_iter().filter_map(|row| rows.records[row].response.clone()).collect()
}

/// A generator with its rows in tokens.
fn generator(model: PlannedModel, stage: &GenerateStage, rows: &Prompts) -> anyhow::Result<PlannedGenerator> {
    let dialogues: Vec<Vec<Message>> =
        rows.records.iter().map(|record| dialogue(stage.system_turn(record).as_deref(), &record.prompt)).collect();
    let encoded = prompts(&model.encoder, &dialogues).map_err(crate::generate::TextModelError::from)?;
    let human = answers(&model.encoder, &rows.records);
    let (max_tokens, num_samples) = (stage.options.sampling.max_tokens, stage.options.num_samples);
    let lengths = human.iter().flatten().map(|len| (*len).clamp(1, max_tokens.max(1))).collect();
    Ok(PlannedGenerator {
        model,
        prompts: encoded,
        answers: human,
        lengths,
        lengths_from: "people",
        max_tokens,
        num_samples,
    })
}

/// A generator's stage, by what is known of its answers so far.
fn answers_of(generator: &PlannedGenerator, texts: &[String], rows: &Prompts) -> StageWork {
    let PlannedGenerator { lengths, max_tokens, num_samples, .. } = generator;
    let expected = Expected { texts, lengths, max_tokens: *max_tokens, num_samples: *num_samples };
    generation(&generator.model, &generator.prompts, &rows.records, &expected)
}

/// The model that is wanted, loaded; the one at hand if it is the same.
fn load<'l>(
    args: &Args,
    held: &'l mut Option<Loaded>,
    wanted: &PlannedModel,
    template: &TemplateOptions,
) -> anyhow::Result<&'l mut Loaded> {
    let dir = wanted.dir.clone().unwrap_or_default();
    if held.as_ref().is_none_or(|loaded| loaded.dir != dir) {
        *held = None;
        let engine = &args.job.engine;
        let compute = engine.compute()?;
        let named = NamedModel::find(&dir, engine, &compute, args.job.sampling.seed, template)?;
        let started = Instant::now();
        let model = named.load(&args.output)?;
        let load_s = started.elapsed().as_secs_f64();
        let (max_batch, max_len) = (engine.engine_options(&compute).max_batch, wanted.facts.max_len);
        *held = Some(Loaded { dir, model, load_s, device: engine.describe(&compute), max_batch, max_len });
    }
    held.as_mut().ok_or_else(|| UsageError("no model is loaded".to_owned()).into())
}

/// Times the engine on a stage's requests.
fn timed(
    held: &mut Loaded,
    stage: &StageWork,
    sampling: &SamplingParams,
    budget: Duration,
) -> anyhow::Result<Option<Measurement>> {
    let (queue_len, (engine, _)) = (held.model.queue_len(), held.model.parts());
    let Some(measured) = measure(engine, &stage.groups, queue_len, sampling, budget)? else { return Ok(None) };
    let (num_engines, stats) = (engine.num_engines(), engine.stats());
    let limits = Limits { max_batch: held.max_batch, max_step_tokens: stats.max_step_tokens, prefix_cache: true };
    let num_blocks = stats.num_blocks / num_engines.max(1);
    let room = Room { limits, block_size: stats.block_size, num_blocks, max_len: held.max_len };
    Ok(Some(Measurement {
        stage: stage.stage,
        model: stage.model.clone(),
        role: stage.role(),
        device: held.device.clone(),
        measured,
        load_s: held.load_s,
        room,
        num_engines,
    }))
}

/// Answers that ended while the engine was timed, as texts; `None` if there are none.
fn answered(held: &Loaded, measured: &Measured) -> anyhow::Result<Option<Vec<String>>> {
    let tokenizer = held.model.tokenizer();
    let ended = measured.answers.iter().filter(|(tokens, ended)| *ended && !tokens.is_empty()).take(MAX_TEXTS);
    let texts = ended
        .map(|(tokens, _)| tokenizer.decode(tokens, true))
        .collect::<Result<Vec<_>, _>>()
        .map_err(crate::generate::TextModelError::from)?;
    Ok(Some(texts).filter(|texts| !texts.is_empty()))
}

//! What make, generate, judge and pair agree on: which files a run is made from, and its lock.
//! Knows paths and flags; the stages themselves are in [`crate::run`].

use std::path::{Path, PathBuf};

use jiff::civil::Date;
use serde_json::json;

use super::arguments::{EngineArgs, PromptArgs, SamplingArgs, Thinking, generate_parameters, missing};
use super::exit::UsageError;
use super::progress::OutputArgs;
use crate::data::{self, ColumnMap, Prompts, ReadOptions};
use crate::demo;
use crate::generate::{LengthGuidance, SystemPromptError, SystemPrompts, TextModel, TextModelError, TextModelOptions};
use crate::model;
use crate::ops::Compute;
use crate::prompt::{ChatTokenizer, TemplateOptions, TemplateSource};
use crate::provenance::{Environment, FileDigest, ModelRecord, RunLock};
use crate::run::GenerateStage;

/// What templates call the switch for thinking: most the first, DeepSeek's and Granite's the second.
const THINKING_VARIABLES: [&str; 2] = ["enable_thinking", "thinking"];

/// A model as the user named it, and as it was found.
pub(super) struct NamedModel {
    pub(super) dir: PathBuf,
    pub(super) options: TextModelOptions,
    pub(super) record: ModelRecord,
    /// What cannot be quantised as asked.
    note: Option<String>,
}

impl NamedModel {
    /// Reads the cheap files and hashes the weights.
    pub(super) fn find(
        dir: &Path,
        engine: &EngineArgs,
        compute: &Compute,
        seed: u64,
        template: &TemplateOptions,
    ) -> anyhow::Result<Self> {
        let label = demo::is_model_dir(dir).then_some(demo::MODEL_LABEL);
        let options = engine.text_model(compute, seed, template, label)?;
        let mut record = TextModel::describe(dir, &options)?;
        let note = quantize_note(dir, compute)?;
        if options.label.is_some() {
            // The embedded model is part of this package, under its licence.
            record.license = Some(demo::LICENSE.to_owned());
        }
        Ok(Self { dir: dir.to_owned(), options, record, note })
    }

    /// Says what cannot be quantised as asked.
    pub(super) fn say_note(&self, output: &OutputArgs) {
        if let Some(note) = &self.note {
            output.say(note);
        }
    }

    /// What its template is told of thinking: `on`, `off`, or nothing.
    pub(super) fn thinking(&self) -> Option<&'static str> {
        let told = self.options.template.extra.get(THINKING_VARIABLES[0])?.as_bool()?;
        Some(if told { Thinking::On } else { Thinking::Off }.as_str())
    }

    /// Refuses a model that dialogues cannot be put to.
    pub(super) fn require_template(&self) -> anyhow::Result<()> {
        match self.record.template_sha256 {
            Some(_) => Ok(()),
            None => Err(TextModelError::NoChatTemplate { path: self.dir.clone() }.into()),
        }
    }

    /// Loads weights and engine, and says what may be slower than it could be.
    pub(super) fn load(&self, output: &OutputArgs) -> anyhow::Result<TextModel> {
        let TextModelOptions { compute, others, .. } = &self.options;
        if std::iter::once(compute).chain(others).any(Compute::has_wrong_kernels) {
            output.say("warning: kernels of warpgroups are wrong on this card; slower ones are used in their place");
        }
        let model = TextModel::load(&self.dir, &self.options, self.record.clone())?;
        if let without @ [_, ..] = model.slow_products() {
            output.say(&format!(
                "warning: cuBLASLt has no product that gives a row the same bits in any batch for {}; these take our own, which may be slower",
                without.join(", ")
            ));
        }
        Ok(model)
    }

    /// Its tokenizer and template alone, to put dialogues to an engine that has the model already.
    pub(super) fn tokenizer(&self) -> anyhow::Result<ChatTokenizer> {
        Ok(ChatTokenizer::load(&self.dir, &self.options.template).map_err(TextModelError::from)?)
    }

    /// Whether both are the same files, loaded the same way.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.record.files == other.record.files
            && self.record.weights == other.record.weights
            && self.record.template_sha256 == other.record.template_sha256
    }
}

/// A model that answers, and how.
pub(super) struct Generator {
    pub(super) model: NamedModel,
    pub(super) stage: GenerateStage,
}

/// Refuses models that would have one name in the dataset's columns.
pub(super) fn require_distinct<'a>(models: impl Iterator<Item = &'a NamedModel>, role: &str) -> anyhow::Result<()> {
    let mut seen: Vec<&NamedModel> = Vec::new();
    for model in models {
        if let Some(other) = seen.iter().find(|other| other.record.name == model.record.name) {
            let (name, first, second) = (&model.record.name, other.dir.display(), model.dir.display());
            let message = format!(
                "two {role} are called `{name}`: {first} and {second}\n\
                 hint: columns and journals tell models apart by name; rename one, or link it under another name"
            );
            return Err(UsageError(message).into());
        }
        seen.push(model);
    }
    Ok(())
}

/// What `--quantize` cannot do as asked for the model in `dir`.
pub(super) fn quantize_note(dir: &Path, compute: &Compute) -> anyhow::Result<Option<String>> {
    let note = model::quantize_note(dir, compute).map_err(TextModelError::from)?;
    Ok(note.map(|note| format!("{}: {note}", dir.display())))
}

/// The template's date, its switch for thinking and, where the user gave one, the template itself.
pub(super) fn template_options(
    date: Date,
    template: Option<&Path>,
    thinking: Option<Thinking>,
) -> anyhow::Result<TemplateOptions> {
    let mut options = TemplateOptions::new(date);
    if let Some(thinking) = thinking {
        for name in THINKING_VARIABLES {
            options.extra.insert(name.to_owned(), (thinking == Thinking::On).into());
        }
    }
    if let Some(path) = template {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let path = path.display();
            UsageError(format!(
                "--chat-template {path} cannot be read: {error}\nhint: give a file with a Jinja template"
            ))
        })?;
        options.chat_template_override = Some(TemplateSource { source: text, origin: path.display().to_string() });
    }
    Ok(options)
}

/// The run's date: that of the lock that is there, or else [`date`].
pub(super) fn run_date(existing: Option<RunLock>) -> anyhow::Result<Date> {
    date(existing.map(|lock| lock.created))
}

/// The date pinned `earlier`, or PAIRWRIGHT_DATE, or today (UTC).
pub(super) fn date(earlier: Option<String>) -> anyhow::Result<Date> {
    match earlier.or_else(crate::config::pinned_date) {
        None => Ok(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()),
        Some(text) => {
            let day = text.split('T').next().unwrap_or_default();
            day.parse().map_err(|_| {
                UsageError(format!("the date is {text}, want one such as 2026-11-22\nhint: see PAIRWRIGHT_DATE")).into()
            })
        }
    }
}

/// RFC 3339 form of a run's date.
pub(super) fn created(date: Date) -> String {
    format!("{date}T00:00:00Z")
}

/// Reads the prompts that the flags choose.
pub(super) fn read_prompts(args: &PromptArgs, path: &Path, require_response: bool) -> anyhow::Result<Prompts> {
    let options = ReadOptions {
        map: args.map.as_deref().map(ColumnMap::parse).transpose()?,
        language: args.language.clone(),
        limit: args.limit,
        max_prompt_chars: args.max_prompt_chars,
        max_response_chars: args.max_response_chars,
        require_response,
    };
    Ok(data::read_prompts(path, &options)?)
}

/// Says what a language query matched, if it was more than one of the file's languages.
pub(super) fn matched_languages(prompts: &Prompts) -> Option<String> {
    let matched = prompts.language.as_ref()?;
    if matched.languages.len() < 2 {
        return None;
    }
    let names: Vec<String> = matched.languages.iter().map(ToString::to_string).collect();
    Some(format!("`{}` stands for {} languages of this file: {}", matched.query, names.len(), names.join(", ")))
}

/// The generate stage's options for the model in `dir`; without one, no recommendation of a model's counts.
pub(super) fn generate_stage(
    sampling: &SamplingArgs,
    dir: Option<&Path>,
    system_prompt: Option<&str>,
) -> anyhow::Result<GenerateStage> {
    let system = match system_prompt.unwrap_or("auto") {
        "auto" => Some(SystemPrompts::built_in()?),
        "none" => None,
        path if path.ends_with(".toml") => Some(SystemPrompts::read(Path::new(path))?),
        text => Some(SystemPrompts::fixed(text)),
    };
    Ok(GenerateStage { options: sampling.options(dir)?, system, lengths: None })
}

/// Puts into all generators how long people's answers are in the whole source, if that is wanted: in the words of the system prompts' file,
/// or in the built-in ones.
pub(super) fn guide_lengths<'g>(
    wanted: bool,
    stages: impl Iterator<Item = &'g mut GenerateStage>,
    prompts: &Prompts,
    output: &OutputArgs,
) -> anyhow::Result<()> {
    let mut stages: Vec<&mut GenerateStage> = stages.collect();
    for stage in &mut stages {
        let texts = stage.system.as_mut().and_then(|system| system.length.take());
        if wanted {
            let built_in = || Ok::<_, SystemPromptError>(SystemPrompts::built_in()?.length);
            let texts = texts.map_or_else(built_in, |texts| Ok(Some(texts)))?;
            stage.lengths = texts.map(|texts| LengthGuidance::of(&prompts.records, &texts));
        }
    }
    let lengths = stages.first().and_then(|stage| stage.lengths.as_ref());
    if let Some(few) = lengths.map(|lengths| &lengths.too_few).filter(|few| !few.is_empty()) {
        output.say(&format!(
            "--length-guidance says nothing where the source has fewer than 20 answers: {}",
            few.join(", ")
        ));
    }
    Ok(())
}

/// A lock with prompts and generators; judges and pairing are added by who knows them.
pub(super) fn lock(
    args: &PromptArgs,
    prompts: &Prompts,
    created: String,
    seed: u64,
    generators: &[Generator],
    engine: &EngineArgs,
) -> RunLock {
    let source = FileDigest {
        path: prompts.source.path.display().to_string(),
        size_bytes: prompts.source.size_bytes,
        sha256: prompts.source.sha256.clone(),
    };
    let mut lock = RunLock::new(created, seed, source);
    lock.parameters.insert(
        "prompts".to_owned(),
        json!({
            "language": args.language,
            "map": args.map,
            "limit": args.limit,
            "max_prompt_chars": args.max_prompt_chars,
            "max_response_chars": args.max_response_chars,
        }),
    );
    let of = |generator: &Generator| {
        let mut parameters = generate_parameters(&generator.stage.options, engine);
        parameters["system_prompts"] = json!(generator.stage.system);
        parameters["length_guidance"] = json!(generator.stage.lengths);
        parameters["thinking"] = json!(generator.model.thinking());
        (generator.model.record.clone(), parameters)
    };
    lock.set_generators(generators.iter().map(of).collect());
    lock
}

/// Where it runs: stored, never compared.
pub(super) fn environment(engine: &EngineArgs, compute: &Compute) -> Environment {
    Environment {
        device: engine.describe(compute),
        num_threads: Some(rayon::current_num_threads() as u64),
        max_batch_size: Some(engine.engine_options(compute).max_batch as u64),
        ..Environment::default()
    }
}

/// The flag's value, or the usage error that names it.
pub(super) fn required<'a, T>(value: &'a Option<T>, flag: &str, why: &str) -> anyhow::Result<&'a T> {
    value.as_ref().ok_or_else(|| missing(flag, why))
}

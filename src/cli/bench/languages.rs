//! `pairwright bench --languages … --models …`: one model after the other over all languages, then the judge, then the tables and pages.
//! Knows flags and the order of the work; what is done is that of `make`, and what is counted is in [`crate::bench::languages`].

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::arguments::{ClaimArgs, DialogueArgs, EngineArgs, PromptArgs, SamplingArgs, Thinking, missing, positive};
use super::exit::UsageError;
use super::progress::OutputArgs;
use super::settings::{self, Generator, NamedModel};
use super::stages::{self, Held, Judges, JudgingArgs};
use super::stop::{Stop, TimeArgs};
use crate::bench::languages::apart::{keep_apart, trained_on};
use crate::bench::languages::folder::BenchDir;
use crate::bench::languages::{self, DEFAULT_ROWS, English, Memory};
use crate::bench::{memory, table};
use crate::data::language::{LanguageMatch, exact_code};
use crate::data::{DataError, Prompts};
use crate::doctor::machine;
use crate::generate::Ending;
use crate::prompt::TemplateOptions;
use crate::quality::EnglishWords;
use crate::run::{LoadedRun, Occupied, RunDir};

/// A rating is read where the judge would begin to answer, so it must not begin by thinking.
const JUDGE_THINKING: Thinking = Thinking::Off;

/// Arguments of `bench` without a subcommand.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Languages by name or code, apart by commas: nld,yor
    #[arg(long, value_name = "LANGUAGE,…", value_delimiter = ',')]
    languages: Vec<String>,
    /// Models to bench, apart by commas: Hugging Face model directories or GGUF files
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',')]
    models: Vec<PathBuf>,
    /// Prompts with human answers: Parquet (Aya's columns, or --map), JSONL or CSV. Use a split that no model is trained on
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Model that holds the answers against the human ones, in both orders, and rates both; without it no figure says which is better
    #[arg(long, value_name = "MODEL")]
    judge: Option<PathBuf>,
    /// Prompts of each language, drawn by a hash of their texts
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ROWS, value_parser = positive)]
    n: usize,
    /// Folder of the bench: a run for each language, tables and report; call again with the same folder to continue, or to add languages
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A table to which the figures are added as well, to be kept over months and machines
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// A run whose training split is left out of the prompts; may be given several times
    #[arg(long, value_name = "RUN")]
    apart_from: Vec<PathBuf>,
    /// What the tables call this machine [default: its processor and threads]
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Columns by name, for example prompt=question,response=answer,language=lang
    #[arg(long, value_name = "KEY=COLUMN,…")]
    map: Option<String>,
    #[command(flatten)]
    claim: ClaimArgs,
    #[command(flatten)]
    dialogue: DialogueArgs,
    #[command(flatten)]
    judging: JudgingArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A language with the run that is made for it, which is this process's until all is done.
struct Cell {
    language: String,
    run: RunDir,
    loaded: LoadedRun,
    _occupied: Occupied,
}

/// All that is benched, found and described before anything is computed.
struct Plan {
    dir: BenchDir,
    file: PathBuf,
    generators: Vec<Generator>,
    judges: Judges,
    cells: Vec<Cell>,
}

/// Does what is left of the bench, and writes tables and pages.
pub(super) fn run(mut args: Args) -> anyhow::Result<Ending> {
    args.engine.start_threads()?;
    let stop = Stop::install(&args.time)?;
    args.judging.compare();
    let plan = plan(&args)?;
    let ending = compute(&plan, &args.output, &stop)?;
    if ending == Ending::Completed {
        finish(&plan, &args)?;
    }
    Ok(ending)
}

/// The prompts of one language, as if `make` had been asked for it.
fn prompt_args(args: &Args, language: &str) -> PromptArgs {
    PromptArgs {
        prompts: args.prompts.clone(),
        language: Some(language.to_owned()),
        map: args.map.clone(),
        limit: None,
        max_prompt_chars: None,
        max_response_chars: None,
    }
}

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let out = settings::required(&args.out, "--out", "the folder of the bench")?;
    let file = settings::required(&args.prompts, "--prompts", "the file with prompts and human answers")?;
    for (is_there, flag, why) in [
        (!args.languages.is_empty(), "--languages", "the languages to bench in"),
        (!args.models.is_empty(), "--models", "the models to bench"),
    ] {
        if !is_there {
            return Err(missing(flag, why));
        }
    }
    let dir = BenchDir::new(out);
    let first = args.languages.first().map(|language| dir.run(language));
    let earlier = dir.runs().ok().and_then(|runs| Some(runs.into_iter().next()?.1)).or(first);
    let date = settings::run_date(earlier.map(|run| run.earlier_lock(args.claim.claim())).transpose()?.flatten())?;
    let (compute, seed) = (args.engine.compute()?, args.sampling.seed);
    let find = |dir: &Path, template: &TemplateOptions| NamedModel::find(dir, &args.engine, &compute, seed, template);
    let template = |thinking| settings::template_options(date, args.dialogue.chat_template.as_deref(), thinking);
    let (writes, rates) = (template(args.dialogue.thinking)?, template(Some(JUDGE_THINKING))?);
    let system = args.dialogue.system_prompt.as_deref();
    let mut generators =
        stages::generators(&args.models, &args.sampling, system, &args.output, |dir| find(dir, &writes))?;
    if generators.iter().any(|generator| generator.stage.options.num_samples > 1) {
        let message = "a bench looks at one answer per prompt, and --samples asks for more\nhint: leave --samples out";
        return Err(UsageError(message.to_owned()).into());
    }
    let judge: Vec<PathBuf> = args.judge.clone().into_iter().collect();
    let judges = Judges::find(&judge, &args.judging, seed, &generators, &args.output, |dir| find(dir, &rates))?;
    let mut kept_apart = HashSet::new();
    for other in &args.apart_from {
        kept_apart.extend(trained_on(&RunDir::new(other))?);
    }
    let mut cells: Vec<Cell> = Vec::new();
    for query in &args.languages {
        let prompt_args = prompt_args(args, query);
        let mut prompts = settings::read_prompts(&prompt_args, file, true)?;
        let language = prompts.language.as_ref().map_or_else(|| query.clone(), code_of);
        if cells.iter().any(|cell| cell.run == dir.run(&language)) {
            return Err(UsageError(format!("--languages names {language} twice\nhint: name each language once")).into());
        }
        if let Some(line) = settings::matched_languages(&prompts) {
            args.output.say(&line);
        }
        let apart = keep_apart(&mut prompts, &kept_apart);
        languages::draw(&mut prompts, args.n, seed);
        check_rows(&prompts, &language, args)?;
        settings::guide_lengths(
            args.dialogue.length_guidance,
            generators.iter_mut().map(|generator| &mut generator.stage),
            &prompts,
            &args.output,
        )?;
        let mut lock = settings::lock(&prompt_args, &prompts, settings::created(date), seed, &generators, &args.engine);
        if let Some(serde_json::Value::Object(parameters)) = lock.parameters.get_mut("prompts") {
            // However it was spelt: the rows are the same.
            parameters.insert("language".to_owned(), language.clone().into());
            parameters.insert("num_drawn".to_owned(), args.n.into());
            parameters.insert("kept_apart_sha256".to_owned(), apart.into());
        }
        if !judges.models.is_empty() {
            judges.note(&mut lock, &args.judging, &args.engine, JUDGE_THINKING);
            let compare = serde_json::json!({"orders": 2, "with": "human"});
            lock.parameters.insert("compare".to_owned(), compare);
        }
        lock.environment = settings::environment(&args.engine, &compute);
        let run = dir.run(&language);
        let occupied = run.claim(&mut lock, args.claim.claim())?;
        if !run.prompts().exists() {
            run.store_prompts(&prompts.records, prompts.num_rows_read, &prompts.drops, None)?;
        }
        let loaded = run.load()?;
        cells.push(Cell { language, run, loaded, _occupied: occupied });
    }
    if args.claim.fresh {
        let left = |row: &Memory| cells.iter().all(|cell| cell.language != row.language);
        Memory::keep(&dir.memory(), left)?;
    }
    Ok(Plan { dir, file: file.clone(), generators, judges, cells })
}

/// The code of what a query found: of one language its own, of several the query.
fn code_of(found: &LanguageMatch) -> String {
    let exact = match found.languages.as_slice() {
        [one] => exact_code(&one.name, &one.code).map(str::to_owned),
        _ => None,
    };
    exact.unwrap_or_else(|| found.query.clone())
}

/// Refuses a language without rows, and says where there are fewer than were asked for.
fn check_rows(prompts: &Prompts, language: &str, args: &Args) -> anyhow::Result<()> {
    match prompts.records.len() {
        0 => Err(UsageError(format!(
            "no row in {language} is left: all are in the training splits of --apart-from\nhint: give the source's test split"
        ))
        .into()),
        rows if rows < args.n => {
            args.output.say(&format!("{language}: there are {rows} prompts, fewer than {}; intervals are wider", args.n));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// One model on the device at a time: each over all languages, and the judge last.
fn compute(plan: &Plan, output: &OutputArgs, stop: &Stop) -> anyhow::Result<Ending> {
    let mut held = Held::default();
    for generator in &plan.generators {
        for Cell { language, run, loaded, .. } in &plan.cells {
            let name = &generator.model.record.name;
            let (_, progress) = run.progress()?;
            let is_answered = progress.candidates.get(name).is_some_and(|status| status.is_done());
            if is_answered && run.num_likelihoods_left(loaded, name)? == 0 {
                continue;
            }
            output.say(&format!("{language}: {name}"));
            memory::forget_peak();
            let mut ending = stages::likelihoods(run, loaded, generator, &mut held, output, stop)?;
            if ending == Ending::Completed {
                ending = stages::answer(run, loaded, generator, &mut held, output, stop)?;
            }
            if let Some(peak_mib) = memory::peak_resident_mib() {
                let row = Memory { language: language.clone(), model: name.clone(), peak_mib };
                row.append(&plan.dir.memory())?;
            }
            if ending != Ending::Completed {
                return Ok(ending);
            }
        }
    }
    for Cell { language, run, loaded, .. } in &plan.cells {
        if plan.judges.models.is_empty() || run.status()?.is_judged() {
            continue;
        }
        output.say(&format!("{language}: judging"));
        let mut ending = plan.judges.test(run, loaded, &mut held, output, stop)?;
        if ending == Ending::Completed {
            ending = plan.judges.rate(run, loaded, &mut held, output, stop)?;
        }
        if ending != Ending::Completed {
            return Ok(ending);
        }
    }
    Ok(Ending::Completed)
}

/// Counts the figures of these languages; those of languages that an earlier call benched stay as they are.
fn finish(plan: &Plan, args: &Args) -> anyhow::Result<()> {
    let english = english(plan, args)?;
    let machine = args.machine.clone().unwrap_or_else(machine::processor);
    let memory = Memory::read_all(&plan.dir.memory())?;
    let (mut figures, mut measured) = (Vec::new(), Vec::new());
    for Cell { language, run, loaded, .. } in &plan.cells {
        figures.extend(languages::figures(language, run, loaded, &english, &machine)?);
        measured.extend(languages::measured(language, run, loaded, &memory, &machine)?);
    }
    for (path, new) in [(plan.dir.figures(), &figures), (plan.dir.measured(), &measured)] {
        let mut all = table::read(&path)?;
        all.retain(|figure| plan.cells.iter().all(|cell| cell.language != figure.language));
        all.extend(new.iter().cloned());
        // Stable: within a language figures stay in their order.
        all.sort_by(|a, b| a.language.cmp(&b.language));
        table::replace(&path, &all)?;
    }
    if let Some(path) = &args.table {
        table::append(path, &[figures.clone(), measured.clone()].concat())?;
        args.output.say(&format!("table     {}", path.display()));
    }
    super::report::write(&plan.dir, None, &args.output)?;
    if args.output.json {
        let num_figures = figures.len() + measured.len();
        let told = serde_json::json!({"bench": "languages", "figures": num_figures, "out": plan.dir.root()});
        super::print_line(&told.to_string())?;
    }
    Ok(())
}

/// The source's English rows: words for the word-level rate, and how each model's tokenizer cuts them. None where it has no such rows.
fn english(plan: &Plan, args: &Args) -> anyhow::Result<English> {
    let mut prompts = match settings::read_prompts(&prompt_args(args, "eng"), &plan.file, true) {
        Ok(prompts) => prompts,
        Err(error) => {
            return match error.downcast_ref::<DataError>() {
                Some(DataError::UnknownLanguage(_) | DataError::NoRowsLeft { .. }) => Ok(English::default()),
                _ => Err(error),
            };
        }
    };
    let texts = prompts.records.iter().flat_map(|record| [Some(record.prompt.as_str()), record.response.as_deref()]);
    let mut english = English { words: EnglishWords::of(texts.flatten()), ..English::default() };
    languages::draw(&mut prompts, args.n, args.sampling.seed);
    for generator in &plan.generators {
        let tokenizer = generator.model.tokenizer()?;
        let mut counts = Vec::new();
        for text in prompts.records.iter().filter_map(|record| record.response.as_deref()) {
            counts.push((text.len() as f64, tokenizer.encode_text(text)?.len() as f64));
        }
        english.tokens.insert(generator.model.record.name.clone(), counts);
    }
    Ok(english)
}

//! `pairwright generate`: answers alone. With `--out FILE.jsonl` it serves by itself, a line in and a line out; with
//! `--out FOLDER` it is the first stage of a run, which `judge` and `pair` continue.
//! Knows flags and what to say; nothing of how an answer comes about.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::arguments::{ClaimArgs, DialogueArgs, EngineArgs, PromptArgs, SamplingArgs, generate_parameters};
use super::exit::UsageError;
use super::progress::{OutputArgs, Progress};
use super::settings::{self, NamedModel};
use super::shard::{self, ShardArgs};
use super::stages::{self, Held};
use super::stop::{Stop, TimeArgs};
use crate::engine::EngineStats;
use crate::generate::{self, Answer, Ending, GenerateError, LineWriter, PromptInput, PromptRequest};
use crate::provenance::sha256_file;

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Model that answers: a Hugging Face model directory or a GGUF file; of a run several, one after the other
    #[arg(long, visible_alias = "generator", value_name = "MODEL", required = true)]
    model: Vec<PathBuf>,
    /// FILE.jsonl: one line per answer, in the order of the input. Any other name: the folder of a run
    #[arg(long, value_name = "FILE.jsonl|DIR")]
    out: PathBuf,
    #[command(flatten)]
    dialogue: DialogueArgs,
    /// Continue each "prompt" as it stands, without the chat template
    #[arg(long)]
    raw_prompts: bool,
    /// Write each generated token's log-probability, and this many likeliest alternatives
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    /// Write each prompt token's log-probability (natural log; null for the first)
    #[arg(long)]
    prompt_logprobs: bool,
    #[command(flatten)]
    claim: ClaimArgs,
    #[command(flatten)]
    shard: ShardArgs,
    #[command(flatten)]
    prompts: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Generates what is not yet there.
pub(super) fn run(args: Args) -> anyhow::Result<Ending> {
    args.engine.start_threads()?;
    let stop = Stop::install(&args.time)?;
    let file = settings::required(&args.prompts.prompts, "--prompts", "the file with prompts")?;
    let is_file = args.out.extension().is_some_and(|extension| extension == "jsonl");
    if is_file { lines(&args, file, &stop) } else { stage(&args, file, &stop) }
}

/// A line in, a line out.
fn lines(args: &Args, file: &Path, stop: &Stop) -> anyhow::Result<Ending> {
    let chosen = &args.prompts;
    let for_a_run = [
        ("--language", chosen.language.is_some()),
        ("--map", chosen.map.is_some()),
        ("--max-prompt-chars", chosen.max_prompt_chars.is_some()),
        ("--max-response-chars", chosen.max_response_chars.is_some()),
        ("--system-prompt", args.dialogue.system_prompt.is_some()),
        ("--length-guidance", args.dialogue.length_guidance),
        ("--shard", args.shard.shard.is_some()),
    ];
    if let Some((flag, _)) = for_a_run.into_iter().find(|(_, given)| *given) {
        let message = format!(
            "{flag} is for the rows of a run, and --out names a JSONL file\n\
             hint: give a folder as --out, or write what you mean into the lines (\"messages\" may have a system turn)"
        );
        return Err(UsageError(message).into());
    }
    let [model_dir] = args.model.as_slice() else {
        let message = "several --model need a run's folder as --out\nhint: a JSONL file takes one model; call again for the next one";
        return Err(UsageError(message.to_owned()).into());
    };
    let mut requests = generate::read_requests(file, args.raw_prompts)?;
    requests.truncate(args.prompts.limit.unwrap_or(usize::MAX));
    let compute = args.engine.compute()?;
    let seed = args.sampling.seed;
    let earlier = if args.claim.fresh { None } else { LineWriter::parameters(&args.out) };
    let date = settings::date(earlier.and_then(|found| Some(found.get("date")?.as_str()?.to_owned())))?;
    let template = settings::template_options(date, args.dialogue.chat_template.as_deref(), args.dialogue.thinking)?;
    let model = NamedModel::find(model_dir, &args.engine, &compute, seed, &template)?;
    model.say_note(&args.output);
    if requests.iter().any(|request| matches!(request.input, PromptInput::Messages(_) | PromptInput::Continued(_))) {
        model.require_template()?;
    }
    let mut options = args.sampling.options(Some(model_dir))?;
    options.sampling.top_logprobs = args.logprobs.unwrap_or(0);
    options.sampling.prompt_logprobs = args.prompt_logprobs.then_some(0);
    let parameters = serde_json::json!({
        "model": {"name": model.record.name, "files": model.record.files, "dtype": model.record.dtype,
            "template_sha256": model.record.template_sha256},
        "prompts_sha256": sha256_file(file)?,
        "date": date.to_string(),
        "seed": seed,
        "generate": generate_parameters(&options, &args.engine),
        "thinking": model.thinking(),
        "raw_prompts": args.raw_prompts,
        "logprobs": args.logprobs,
        "prompt_logprobs": args.prompt_logprobs,
    });
    let order: Vec<String> = requests.iter().map(|request| request.id.clone()).collect();
    let samples = options.num_samples;
    let mut model = model.load(&args.output)?;
    let mut writer =
        LineWriter::open(&args.out, &order, samples, args.logprobs.is_some(), &parameters, args.claim.fresh)?;
    let todo: Vec<PromptRequest> = requests.into_iter().filter(|request| !writer.is_done(&request.id)).collect();
    let total = order.len() as u64 * u64::from(samples);
    let mut progress = Progress::new(&args.output, stop, &[("generate", total)]);
    generate::Observer::progress(&mut progress, &[writer.num_done() as u64], &EngineStats::default());
    let store = |answer: Answer| writer.write(answer).map_err(|error| GenerateError::Store(Box::new(error)));
    let ending = generate::generate(&mut model, todo, &options, &mut progress, store)?;
    writer.finish()?;
    progress.finish();
    summary(args, &model.engine().stats())?;
    Ok(ending)
}

/// The first stage of a run.
fn stage(args: &Args, file: &Path, stop: &Stop) -> anyhow::Result<Ending> {
    if args.raw_prompts || args.logprobs.is_some() || args.prompt_logprobs {
        let message = "--raw-prompts, --logprobs and --prompt-logprobs need --out FILE.jsonl\n\
                       hint: a folder as --out makes the first stage of a run";
        return Err(UsageError(message.to_owned()).into());
    }
    let run = args.shard.run_dir(&args.out)?;
    shard::refuse_parent(run.root())?;
    let date = settings::run_date(run.earlier_lock(args.claim.claim())?)?;
    let compute = args.engine.compute()?;
    let seed = args.sampling.seed;
    let template = settings::template_options(date, args.dialogue.chat_template.as_deref(), args.dialogue.thinking)?;
    let system = args.dialogue.system_prompt.as_deref();
    let mut generators = stages::generators(&args.model, &args.sampling, system, &args.output, |dir| {
        NamedModel::find(dir, &args.engine, &compute, seed, &template)
    })?;
    let prompts = settings::read_prompts(&args.prompts, file, true)?;
    if let Some(line) = settings::matched_languages(&prompts) {
        args.output.say(&line);
    }
    settings::guide_lengths(
        args.dialogue.length_guidance,
        generators.iter_mut().map(|generator| &mut generator.stage),
        &prompts,
        &args.output,
    )?;
    let mut lock = settings::lock(&args.prompts, &prompts, settings::created(date), seed, &generators, &args.engine);
    lock.environment = settings::environment(&args.engine, &compute);
    args.shard.note(&mut lock, "generate")?;
    let _occupied = run.claim(&mut lock, args.claim.claim())?;
    if !run.prompts().exists() {
        run.store_prompts(&prompts.records, prompts.num_rows_read, &prompts.drops, lock.shard)?;
    }
    let loaded = run.load()?;
    let status = run.status()?;
    if status.candidates.is_done() {
        args.output.say(&format!("nothing to do: every prompt in {} is answered", run.root().display()));
        summary(args, &EngineStats::default())?;
        return Ok(Ending::Completed);
    }
    let mut held = Held::default();
    for generator in &generators {
        let ending = stages::answer(&run, &loaded, generator, &mut held, &args.output, stop)?;
        if ending != Ending::Completed {
            return Ok(ending);
        }
    }
    summary(args, &held.stats())?;
    Ok(Ending::Completed)
}

fn summary(args: &Args, stats: &EngineStats) -> anyhow::Result<()> {
    if args.output.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(stats)?)?;
    }
    Ok(())
}

//! `pairwright make`: prompts → second answers → ratings → dataset, continuing whatever an earlier call left.
//! Knows the order of the stages; nothing of what happens in one.

use std::path::{Path, PathBuf};

use super::arguments::{ClaimArgs, DialogueArgs, EngineArgs, PromptArgs, SamplingArgs, Thinking};
use super::pair::{self, PairArgs};
use super::progress::{OutputArgs, Progress};
use super::settings::{self, NamedModel};
use super::shard::{self, ShardArgs};
use super::stop::{Stop, TimeArgs};
use crate::demo;
use crate::generate::Ending;
use crate::judge::{Judge, Rubric};
use crate::prompt::TemplateOptions;
use crate::run::{self, GenerateStage, LoadedRun, Occupied, RunDir, Status};
use crate::shard::Shard;

/// A rating is read where the judge would begin to answer, so it must not begin by thinking.
const JUDGE_THINKING: Thinking = Thinking::Off;

/// Arguments of `make`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Run on embedded prompts with an embedded toy model: shows every stage, needs no download, and gives nothing to train on
    #[arg(long, conflicts_with_all = ["prompts", "generator", "judge", "language", "map"])]
    demo: bool,
    /// Model that writes the second answer: a Hugging Face model directory or a GGUF file
    #[arg(long, value_name = "MODEL")]
    generator: Option<PathBuf>,
    /// Model that rates the answers; another family than the generator's is better
    #[arg(long, value_name = "MODEL")]
    judge: Option<PathBuf>,
    /// Folder of the run: journals, dataset and report; call again with the same folder to continue
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    claim: ClaimArgs,
    #[command(flatten)]
    dialogue: DialogueArgs,
    /// Questions to the judge in place of the built-in ones (`pairwright judge --show-rubric` prints these)
    #[arg(long, value_name = "FILE")]
    rubric: Option<PathBuf>,
    #[command(flatten)]
    pub(super) shard: ShardArgs,
    #[command(flatten)]
    prompts: PromptArgs,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `make` is made from, found and described before anything is computed.
struct Plan {
    run: RunDir,
    loaded: LoadedRun,
    generator: NamedModel,
    judge: NamedModel,
    stage: GenerateStage,
    rubric: Rubric,
    /// The folder is this process's until all is done.
    _occupied: Occupied,
}

/// Runs what is left of the job.
pub(super) fn run(mut args: Args) -> anyhow::Result<Ending> {
    args.engine.start_threads()?;
    let stop = Stop::install(&args.time)?;
    let run = args.shard.run_dir(&args.out)?;
    shard::refuse_parent(run.root())?;
    run.existing_lock()?;
    args.pair.check()?;
    if args.demo {
        if !args.claim.fresh {
            run.check_demo()?;
        }
        use_demo(&mut args, &run)?;
    }
    let plan = plan(&args, run)?;
    let before = plan.run.status()?;
    if let Some(shard) = plan.loaded.lock.shard {
        return finish_shard(&plan, shard, before, &args.output, &stop);
    }
    let up_to_date = before.candidates.is_done() && before.verdicts.is_done() && before.dataset_written;
    if up_to_date && pair::is_current(&plan.run, &plan.loaded.lock) {
        args.output.say(&format!("nothing to do: {} is complete", plan.run.root().display()));
        return pair::announce(&plan.run, &args.output);
    }
    let ending = compute(&plan, before, &args.output, &stop)?;
    if ending != Ending::Completed {
        return Ok(ending);
    }
    pair::write(&plan.run, &plan.loaded, &args.pair)?;
    pair::announce(&plan.run, &args.output)
}

/// Does what is left of a shard, which ends with its ratings: the dataset is made of all shards together.
fn finish_shard(plan: &Plan, shard: Shard, before: Status, output: &OutputArgs, stop: &Stop) -> anyhow::Result<Ending> {
    if before.candidates.is_done() && before.verdicts.is_done() {
        output.say(&format!("nothing to do in {}", plan.run.root().display()));
    } else {
        let ending = compute(plan, before, output, stop)?;
        if ending != Ending::Completed {
            return Ok(ending);
        }
    }
    shard::announce(&plan.run, shard, output)
}

/// Generates and judges what is not done: in one queue if one model does both, else one stage after the other.
fn compute(plan: &Plan, before: Status, output: &OutputArgs, stop: &Stop) -> anyhow::Result<Ending> {
    let Plan { run, loaded, stage, rubric, .. } = plan;
    if !before.candidates.is_done() {
        let mut model = plan.generator.load()?;
        let answers = ("generate", before.candidates.num_wanted as u64);
        let ending = if plan.judge.is(&plan.generator) {
            let ratings = ("judge", loaded.num_answers(stage.options.num_samples));
            let mut progress = Progress::new(output, stop, &[answers, ratings]);
            let judge = Judge { tokenizer: &plan.judge.tokenizer()?, name: &plan.judge.record.name, rubric };
            let ending = run::generate_and_judge(run, loaded, &mut model, stage, judge, &mut progress)?;
            if ending == Ending::Completed {
                progress.settle(1, run.status()?.verdicts.num_wanted);
            }
            progress.finish(&model.engine().stats());
            ending
        } else {
            let mut progress = Progress::new(output, stop, &[answers]);
            let ending = run::generate(run, loaded, &mut model, stage, &mut progress)?;
            progress.finish(&model.engine().stats());
            ending
        };
        if ending != Ending::Completed {
            return Ok(ending);
        }
    }
    let before = run.status()?;
    if before.verdicts.is_done() {
        return Ok(Ending::Completed);
    }
    let mut progress = Progress::new(output, stop, &[("judge", before.verdicts.num_wanted as u64)]);
    let mut model = plan.judge.load()?;
    let ending = run::judge(run, loaded, &mut model, rubric, &mut progress)?;
    progress.finish(&model.engine().stats());
    Ok(ending)
}

/// Writes the embedded prompts and model into the run's folder and points the arguments at them.
fn use_demo(args: &mut Args, run: &RunDir) -> anyhow::Result<()> {
    let folder = run.demo();
    demo::write(&folder)?;
    args.prompts.prompts = Some(folder.join("prompts.jsonl"));
    args.generator = Some(folder.join("model"));
    args.judge = Some(folder.join("model"));
    args.pair.source_license.get_or_insert_with(|| demo::LICENSE.to_owned());
    args.output.say("demo: embedded prompts and a toy model; the dataset shows the form, not quality");
    Ok(())
}

fn plan(args: &Args, run: RunDir) -> anyhow::Result<Plan> {
    let file = settings::required(&args.prompts.prompts, "--prompts", "the file with prompts and human answers")?;
    let generator = settings::required(&args.generator, "--generator", "the model that writes the second answer")?;
    let judge = settings::required(&args.judge, "--judge", "the model that rates the answers")?;
    let date = settings::run_date(run.earlier_lock(args.claim.claim())?)?;
    let compute = args.engine.compute()?;
    let rubric = args.rubric.as_deref().map_or_else(Rubric::built_in, Rubric::read)?;
    let stage = settings::generate_stage(&args.sampling, generator, args.dialogue.system_prompt.as_deref())?;
    let seed = args.sampling.seed;
    let find = |dir: &Path, template: &TemplateOptions| NamedModel::find(dir, &args.engine, &compute, seed, template);
    let template = |thinking| settings::template_options(date, args.dialogue.chat_template.as_deref(), thinking);
    let generator = find(generator, &template(args.dialogue.thinking)?)?;
    let judge = find(judge, &template(Some(JUDGE_THINKING))?)?;
    generator.say_note(&args.output);
    if judge.dir != generator.dir {
        judge.say_note(&args.output);
    }
    generator.require_template()?;
    judge.require_template()?;
    let prompts = settings::read_prompts(&args.prompts, file, true)?;
    if let Some(line) = settings::matched_languages(&prompts) {
        args.output.say(&line);
    }
    if judge.is(&generator) {
        args.output
            .say("warning: generator and judge are the same model, which favours its own answers; the card says so");
    }
    let mut lock =
        settings::lock(&args.prompts, &prompts, settings::created(date), seed, &generator, &stage, &args.engine);
    lock.judge = Some(judge.record.clone());
    lock.rubric_sha256 = Some(rubric.sha256.clone());
    lock.parameters.insert("judge".to_owned(), settings::judge_parameters(&rubric, &args.engine, JUDGE_THINKING));
    lock.parameters.insert("pair".to_owned(), args.pair.parameters());
    lock.environment = settings::environment(&args.engine, &compute);
    args.shard.note(&mut lock, "make")?;
    let occupied = run.claim(&mut lock, args.claim.claim())?;
    if !run.prompts().exists() {
        run.store_prompts(&prompts.records, prompts.num_rows_read, &prompts.drops, lock.shard)?;
    }
    let loaded = run.load()?;
    Ok(Plan { run, loaded, generator, judge, stage, rubric, _occupied: occupied })
}

//! `pairwright make`: prompts → second answers → ratings → dataset, continuing whatever an earlier call left.
//! Knows the order of the stages; nothing of what happens in one.

use std::path::{Path, PathBuf};

use super::arguments::Thinking;
use super::job::JobArgs;
use super::pair;
use super::progress::OutputArgs;
use super::settings::{self, Generator, NamedModel};
use super::shard;
use super::stages::{self, Held, Judges};
use super::stop::Stop;
use crate::demo;
use crate::generate::Ending;
use crate::prompt::TemplateOptions;
use crate::run::{LoadedRun, Occupied, RunDir, Status};
use crate::shard::Shard;

/// A rating is read where the judge would begin to answer, so it must not begin by thinking.
pub(super) const JUDGE_THINKING: Thinking = Thinking::Off;

/// Arguments of `make`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the run: journals, dataset and report; call again with the same folder to continue
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) job: JobArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `make` is made from, found and described before anything is computed.
struct Plan {
    run: RunDir,
    loaded: LoadedRun,
    generators: Vec<Generator>,
    judges: Judges,
    /// The folder is this process's until all is done.
    _occupied: Occupied,
}

/// Runs what is left of the job.
pub(super) fn run(mut args: Args) -> anyhow::Result<Ending> {
    args.job.engine.start_threads()?;
    let stop = Stop::install(&args.job.time)?;
    let run = args.job.shard.run_dir(&args.out)?;
    shard::refuse_parent(run.root())?;
    run.existing_lock()?;
    args.job.pair.check()?;
    if args.job.demo {
        if !args.job.claim.fresh {
            run.check_demo()?;
        }
        use_demo(&mut args, &run)?;
    }
    let plan = plan(&args, run)?;
    let before = plan.run.status()?;
    if let Some(shard) = plan.loaded.lock.shard {
        return finish_shard(&plan, shard, before, &args.output, &stop);
    }
    let up_to_date = before.is_judged() && before.dataset_written;
    if up_to_date && pair::is_current(&plan.run, &plan.loaded.lock) {
        args.output.say(&format!("nothing to do: {} is complete", plan.run.root().display()));
        return pair::announce(&plan.run, &args.output);
    }
    let ending = compute(&plan, &args.output, &stop)?;
    if ending != Ending::Completed {
        return Ok(ending);
    }
    pair::write(&plan.run, &plan.loaded, &args.job.pair)?;
    pair::announce(&plan.run, &args.output)
}

/// Does what is left of a shard, which ends with its ratings: the dataset is made of all shards together.
fn finish_shard(plan: &Plan, shard: Shard, before: Status, output: &OutputArgs, stop: &Stop) -> anyhow::Result<Ending> {
    if before.is_judged() {
        output.say(&format!("nothing to do in {}", plan.run.root().display()));
    } else {
        let ending = compute(plan, output, stop)?;
        if ending != Ending::Completed {
            return Ok(ending);
        }
    }
    shard::announce(&plan.run, shard, output)
}

/// Tests the judges, generates and judges what is not done: in one queue if one model does both, else one model after the other.
fn compute(plan: &Plan, output: &OutputArgs, stop: &Stop) -> anyhow::Result<Ending> {
    let Plan { run, loaded, generators, judges, .. } = plan;
    let mut held = Held::default();
    let mut ending = judges.test(run, loaded, &mut held, output, stop)?;
    for generator in generators {
        if ending != Ending::Completed {
            return Ok(ending);
        }
        ending = match judges.answer_and_rate(run, loaded, generator, &mut held, output, stop)? {
            Some(ending) => ending,
            None => stages::answer(run, loaded, generator, &mut held, output, stop)?,
        };
    }
    if ending != Ending::Completed {
        return Ok(ending);
    }
    judges.rate(run, loaded, &mut held, output, stop)
}

/// Writes the embedded prompts and model into the run's folder and points the arguments at them.
fn use_demo(args: &mut Args, run: &RunDir) -> anyhow::Result<()> {
    let folder = run.demo();
    demo::write(&folder)?;
    args.job.use_demo(&folder);
    args.output.say("demo: embedded prompts and a toy model; the dataset shows the form, not quality");
    Ok(())
}

fn plan(args: &Args, run: RunDir) -> anyhow::Result<Plan> {
    let file = settings::required(&args.job.prompts.prompts, "--prompts", "the file with prompts and human answers")?;
    for (models, flag, why) in [
        (&args.job.generator, "--generator", "the model that writes the second answer"),
        (&args.job.judge, "--judge", "the model that rates the answers"),
    ] {
        settings::required(&models.first(), flag, why)?;
    }
    let date = settings::run_date(run.earlier_lock(args.job.claim.claim())?)?;
    let compute = args.job.engine.compute()?;
    let seed = args.job.sampling.seed;
    let find =
        |dir: &Path, template: &TemplateOptions| NamedModel::find(dir, &args.job.engine, &compute, seed, template);
    let template = |thinking| settings::template_options(date, args.job.dialogue.chat_template.as_deref(), thinking);
    let (writes, rates) = (template(args.job.dialogue.thinking)?, template(Some(JUDGE_THINKING))?);
    let system = args.job.dialogue.system_prompt.as_deref();
    let mut generators =
        stages::generators(&args.job.generator, &args.job.sampling, system, &args.output, |dir| find(dir, &writes))?;
    let judges =
        Judges::find(&args.job.judge, &args.job.judging, seed, &generators, &args.output, |dir| find(dir, &rates))?;
    let prompts = settings::read_prompts(&args.job.prompts, file, true)?;
    if let Some(line) = settings::matched_languages(&prompts) {
        args.output.say(&line);
    }
    settings::guide_lengths(
        args.job.dialogue.length_guidance,
        generators.iter_mut().map(|generator| &mut generator.stage),
        &prompts,
        &args.output,
    )?;
    if judges.models.iter().any(|judge| generators.iter().any(|generator| judge.is(&generator.model))) {
        args.output.say(
            "warning: a judge is one of the generators too, and models favour their own answers; the card says so",
        );
    }
    let mut lock =
        settings::lock(&args.job.prompts, &prompts, settings::created(date), seed, &generators, &args.job.engine);
    judges.note(&mut lock, &args.job.judging, &args.job.engine, JUDGE_THINKING);
    lock.parameters.insert("pair".to_owned(), args.job.pair.parameters());
    lock.environment = settings::environment(&args.job.engine, &compute);
    args.job.shard.note(&mut lock, "make")?;
    let occupied = run.claim(&mut lock, args.job.claim.claim())?;
    if !run.prompts().exists() {
        run.store_prompts(&prompts.records, prompts.num_rows_read, &prompts.drops, lock.shard)?;
    }
    let loaded = run.load()?;
    Ok(Plan { run, loaded, generators, judges, _occupied: occupied })
}

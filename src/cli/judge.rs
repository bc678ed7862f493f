//! `pairwright judge RUN`: ratings alone, for a run whose answers are there.
//! Knows flags and what to say; nothing of how an answer is rated.

use std::io::Write;
use std::path::PathBuf;

use super::arguments::{ChangeArgs, EngineArgs, Thinking};
use super::progress::OutputArgs;
use super::settings::{self, NamedModel};
use super::shard::{self, ShardArgs};
use super::stages::{Held, Judges, JudgingArgs};
use super::stop::{Stop, TimeArgs};
use crate::generate::Ending;
use crate::judge::Rubric;

/// Arguments of `judge`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run's folder, as `generate` or `make` left it
    #[arg(required_unless_present = "show_rubric")]
    run: Option<PathBuf>,
    /// Model that rates the answers: a Hugging Face model directory, of a reward model too, or a GGUF file; several make a panel
    #[arg(long, value_name = "MODEL", required_unless_present = "show_rubric")]
    judge: Vec<PathBuf>,
    #[command(flatten)]
    judging: JudgingArgs,
    /// Print the built-in questions, to start a file of your own from, and end
    #[arg(long)]
    show_rubric: bool,
    /// Chat template in place of the model's own
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Told to the template as `enable_thinking` (and `thinking`). A rating is read where the answer begins, so a judge that
    /// thinks first is seldom reliable
    #[arg(long, value_name = "on|off", default_value = "off", ignore_case = true)]
    thinking: Thinking,
    #[command(flatten)]
    shard: ShardArgs,
    #[command(flatten)]
    changes: ChangeArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Rates what is not yet rated.
pub(super) fn run(args: Args) -> anyhow::Result<Ending> {
    if args.show_rubric {
        write!(std::io::stdout(), "{}", Rubric::built_in_text())?;
        return Ok(Ending::Completed);
    }
    args.engine.start_threads()?;
    let stop = Stop::install(&args.time)?;
    let run = args.shard.run_dir(settings::required(&args.run, "RUN", "the run's folder")?)?;
    shard::refuse_parent(run.root())?;
    let mut loaded = run.load()?;
    let compute = args.engine.compute()?;
    let date = settings::run_date(Some(loaded.lock.clone()))?;
    let template = settings::template_options(date, args.chat_template.as_deref(), Some(args.thinking))?;
    let seed = loaded.lock.seed;
    let judges = Judges::find(&args.judge, &args.judging, seed, &[], &args.output, |dir| {
        NamedModel::find(dir, &args.engine, &compute, seed, &template)
    })?;
    judges.note(&mut loaded.lock, &args.judging, &args.engine, args.thinking);
    run.require_candidates()?;
    args.shard.note(&mut loaded.lock, "judge")?;
    let _occupied = run.claim(&mut loaded.lock, args.changes.claim())?;
    // The lock in the file names the machine that generated; speeds are of this one.
    loaded.lock.environment = settings::environment(&args.engine, &compute);
    let mut held = Held::default();
    if run.status()?.is_judged() {
        args.output.say(&format!("nothing to do: every answer in {} is rated", run.root().display()));
    } else {
        for stage in [Judges::test, Judges::rate] {
            let ending = stage(&judges, &run, &loaded, &mut held, &args.output, &stop)?;
            if ending != Ending::Completed {
                return Ok(ending);
            }
        }
    }
    if args.output.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&run.status()?)?)?;
    }
    Ok(Ending::Completed)
}

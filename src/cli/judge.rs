//! `pairwright judge RUN`: ratings alone, for a run whose answers are there.
//! Knows flags and what to say; nothing of how an answer is rated.

use std::io::Write;
use std::path::PathBuf;

use super::arguments::{ChangeArgs, EngineArgs, Thinking};
use super::progress::{OutputArgs, Progress};
use super::settings::{self, NamedModel};
use super::shard::{self, ShardArgs};
use super::stop::{Stop, TimeArgs};
use crate::generate::Ending;
use crate::judge::Rubric;
use crate::run;

/// Arguments of `judge`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run's folder, as `generate` or `make` left it
    #[arg(required_unless_present = "show_rubric")]
    run: Option<PathBuf>,
    /// Model that rates the answers: a Hugging Face model directory or a GGUF file
    #[arg(long, value_name = "MODEL", required_unless_present = "show_rubric")]
    judge: Option<PathBuf>,
    /// Questions in place of the built-in ones
    #[arg(long, value_name = "FILE")]
    rubric: Option<PathBuf>,
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
    let dir = settings::required(&args.judge, "--judge", "the model that rates the answers")?;
    let template = settings::template_options(date, args.chat_template.as_deref(), Some(args.thinking))?;
    let model = NamedModel::find(dir, &args.engine, &compute, loaded.lock.seed, &template)?;
    model.say_note(&args.output);
    model.require_template()?;
    let rubric = args.rubric.as_deref().map_or_else(Rubric::built_in, Rubric::read)?;
    loaded.lock.judge = Some(model.record.clone());
    loaded.lock.rubric_sha256 = Some(rubric.sha256.clone());
    loaded.lock.parameters.insert("judge".to_owned(), settings::judge_parameters(&rubric, &args.engine, args.thinking));
    let status = run.require_candidates()?;
    args.shard.note(&mut loaded.lock, "judge")?;
    let _occupied = run.claim(&mut loaded.lock, args.changes.claim())?;
    if status.verdicts.is_done() {
        args.output.say(&format!("nothing to do: every answer in {} is rated", run.root().display()));
    } else {
        let mut progress = Progress::new(&args.output, &stop, &[("judge", status.verdicts.num_wanted as u64)]);
        let mut model = model.load()?;
        let ending = run::judge(&run, &loaded, &mut model, &rubric, &mut progress)?;
        progress.finish(&model.engine().stats());
        if ending != Ending::Completed {
            return Ok(ending);
        }
    }
    if args.output.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&run.status()?)?)?;
    }
    Ok(Ending::Completed)
}

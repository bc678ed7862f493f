//! `pairwright export RUN`: the dataset with people's votes in it, each time a version; or the rows as tasks of another annotation tool.
//! Knows flags and what to say; nothing of what makes a label.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::progress::OutputArgs;
use super::{pair, settings, shard};
use crate::annotate::export::{ExportOptions, export};
use crate::annotate::label::DEFAULT_MIN_VOTES;
use crate::annotate::store::{read_people, read_votes, seal};
use crate::generate::Ending;
use crate::run::{self, RunDir};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run's folder; a server may be taking votes on it
    run: PathBuf,
    /// Where to write the dataset [default: `export` in the run's folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Leave out rows that people did not decide; otherwise the judge decides those
    #[arg(long)]
    human_only: bool,
    /// Fewest opinions on two answers that make a label
    #[arg(long, value_name = "K", default_value_t = DEFAULT_MIN_VOTES, value_parser = clap::value_parser!(u64).range(1..))]
    min_votes: u64,
    /// Seal the votes that are exported: nobody can undo or change them any more
    #[arg(long)]
    seal: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Writes the dataset, or says that it is there.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let run = RunDir::new(&args.run);
    shard::refuse_parent(run.root())?;
    let loaded = run.load()?;
    run.refuse_shard(&loaded.lock)?;
    run.require_verdicts()?;
    let (origin, dataset) = pair::of_run(&loaded.lock)?;
    let date = settings::date(None)?.to_string();
    let options = ExportOptions { dataset, min_votes: args.min_votes, human_only: args.human_only, date };
    // The votes first: those that come meanwhile are for the next version, and for no seal.
    let votes = read_votes(run.root())?;
    let people = read_people(run.root())?;
    let out = args.out.clone().unwrap_or_else(|| run.export());
    let made = run::with_input(&run, &loaded, origin, &options.dataset, |input| {
        export(run.root(), &out, input, (&votes, &people), &options)
    })??;
    let through = votes.last().map(|last| last.sequence).filter(|_| args.seal);
    if let Some(through) = through {
        let now = jiff::Timestamp::now().as_second();
        seal(run.root(), through, &format!("export, version {}", made.version.number), now)?;
    }
    if args.output.json {
        let view = json!({
            "version": made.version.number,
            "is_new": made.is_new,
            "is_written": made.is_written,
            "num_pairs": made.version.num_pairs,
            "num_human_pairs": made.version.num_human_pairs,
            "num_turned": made.version.num_turned,
            "num_votes": made.version.num_votes,
            "num_annotators": made.version.num_annotators,
            "num_added": made.version.num_added,
            "num_changed": made.version.num_changed,
            "left": made.version.left,
            "drops": made.version.drops,
            "alpha": made.version.alpha,
            "judge": made.version.judge_accuracy(),
            "sealed_through": through,
            "content": made.version.content,
            "out": out,
        });
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&view)?)?;
    }
    let version = &made.version;
    if !made.is_written {
        args.output.say(&format!("nothing to do: {} has version {} already", out.display(), version.number));
        return Ok(Ending::Completed);
    }
    args.output.say(&format!(
        "version {}: {} pairs, {} of them by people ({} against the judge), from {} votes of {} people",
        version.number,
        version.num_pairs,
        version.num_human_pairs,
        version.num_turned,
        version.num_votes,
        version.num_annotators
    ));
    if version.number > 1 && made.is_new {
        let left: u64 = version.left.values().sum();
        args.output.say(&format!(
            "since version {}: {} rows more, {} with another chosen answer, {left} that left",
            version.number - 1,
            version.num_added,
            version.num_changed
        ));
        for (reason, rows) in &version.left {
            args.output.say(&format!("{rows:>8}  {reason}"));
        }
    }
    args.output.say(&format!("dataset   {}", out.display()));
    Ok(Ending::Completed)
}

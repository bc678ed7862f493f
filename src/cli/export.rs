//! `pairwright export RUN`: the dataset with people's votes in it, each time a version; or the rows as tasks of another annotation tool.
//! Knows flags and what to say; nothing of what makes a label.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::exit::UsageError;
use super::import::{stranger, unknown, users_of};
use super::progress::OutputArgs;
use super::{pair, settings, shard};
use crate::annotate::exchange::Handover;
use crate::annotate::exchange::argilla::Dataset;
use crate::annotate::exchange::label_studio::Tasks;
use crate::annotate::export::{ExportOptions, export};
use crate::annotate::items::{AnswerChoice, Items};
use crate::annotate::label::DEFAULT_MIN_VOTES;
use crate::annotate::store::{read_people, read_votes, seal};
use crate::annotate::vote::{Vote, current_votes};
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
    /// Write the run's items for Argilla in place of the dataset: a folder that its package loads
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "human_only", "seal"])]
    argilla: Option<PathBuf>,
    /// Write them for Label Studio: tasks (FILE.jsonl: a line each, else JSON), and the project's form beside them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "human_only", "seal", "argilla"])]
    label_studio: Option<PathBuf>,
    #[command(flatten)]
    handover: HandoverArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What other tools get.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Other annotation tools")]
pub(super) struct HandoverArgs {
    /// All answers of a prompt, to be ranked, in place of the two of its pair (Argilla)
    #[arg(long)]
    rank: bool,
    /// Leave out what the judge thinks, which the tools otherwise suggest to people
    #[arg(long)]
    blind: bool,
    /// Whose votes go along: lines of a pseudonym and, behind a space, the user's id there; without it no vote does
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
}

impl HandoverArgs {
    /// With the responses that each record wants.
    pub(super) fn handover(&self, min_votes: u64) -> anyhow::Result<Handover> {
        let users = users_of(self.users.as_deref())?;
        Ok(Handover { with_suggestions: !self.blind, min_votes, users })
    }
}

/// A run's items with the votes on them, and the judge's name.
pub(super) struct Shown {
    pub(super) items: Items,
    pub(super) votes: Vec<Vote>,
    pub(super) judge: String,
}

/// Those of the run in a folder, which may be unfinished. People whose votes go along have to be known in it.
pub(super) fn shown(run: &RunDir, args: &HandoverArgs, handover: &Handover) -> anyhow::Result<Shown> {
    let (path, answers) = (args.users.as_deref(), if args.rank { AnswerChoice::All } else { AnswerChoice::Pair });
    shard::refuse_parent(run.root())?;
    let loaded = run.load()?;
    let (origin, options) = pair::of_run(&loaded.lock)?;
    let (events, people) = (read_votes(run.root())?, read_people(run.root())?);
    if let Some(name) = unknown(&handover.users, &people, &events).first() {
        return Err(stranger(path, name, &people, "or leave that line out").into());
    }
    let votes = events.into_iter().map(|stored| stored.vote).collect();
    let judges: Vec<&str> = loaded.lock.judges.iter().map(|judge| judge.name.as_str()).collect();
    let judge = judges.join(" ");
    let items = run::with_input(run, &loaded, origin, &options, |input| Items::of(input, &options, answers, 0))?;
    Ok(Shown { items, votes, judge })
}

/// Writes items for another tool.
fn hand_over(args: &Args) -> anyhow::Result<Ending> {
    if args.handover.rank && args.label_studio.is_some() {
        let message = "--rank is for Argilla: the form for Label Studio shows two answers\nhint: leave --rank out, or give --argilla";
        return Err(UsageError(message.to_owned()).into());
    }
    let handover = args.handover.handover(args.min_votes)?;
    let Shown { items, votes, judge } = shown(&RunDir::new(&args.run), &args.handover, &handover)?;
    let current = current_votes(&votes);
    let (path, num_records, num_responses, num_left_out) = match (&args.argilla, &args.label_studio) {
        (Some(dir), _) => {
            let dataset = Dataset::of(&items.items, &current, &judge, &handover);
            let name = args.run.file_name().map_or("pairwright".into(), |name| name.to_string_lossy());
            dataset.write(dir, &name)?;
            let written = dataset.written;
            (dir, written.num_records, written.num_responses, written.num_left_out)
        }
        (None, Some(file)) => {
            let tasks = Tasks::of(&items.items, &current, &judge, &handover);
            tasks.write(file)?;
            (file, tasks.tasks.len() as u64, tasks.num_annotations, tasks.num_left_out)
        }
        (None, None) => return Ok(Ending::Completed),
    };
    if args.output.json {
        let view = json!({"num_records": num_records, "num_responses": num_responses, "num_left_out": num_left_out});
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&view)?)?;
    }
    args.output.say(&format!("{num_records} records with {num_responses} responses: {}", path.display()));
    if num_left_out > 0 {
        args.output.say(&format!("{num_left_out:>8}  votes that the questions there cannot hold"));
    }
    for (reason, rows) in &items.left_out {
        args.output.say(&format!("{rows:>8}  {reason}"));
    }
    Ok(Ending::Completed)
}

/// Writes the dataset, or says that it is there.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    if args.argilla.is_some() || args.label_studio.is_some() {
        return hand_over(args);
    }
    if args.handover.blind || args.handover.rank || args.handover.users.is_some() {
        let message = "--blind, --rank and --users are for other tools\nhint: give --argilla or --label-studio too";
        return Err(UsageError(message.to_owned()).into());
    }
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

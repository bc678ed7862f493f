//! `pairwright calibrate RUN`: the judge's aspect weights and margin against people's votes.
//! Knows flags and where the weights go; nothing of how they are found.

use std::io::Write;
use std::path::PathBuf;

use super::progress::OutputArgs;
use super::{pair, shard};
use crate::annotate::agreement::decided;
use crate::annotate::calibrate::{DEFAULT_FOLDS, calibrate};
use crate::annotate::items::{AnswerChoice, Items};
use crate::annotate::label::DEFAULT_MIN_VOTES;
use crate::annotate::store::read_votes;
use crate::annotate::vote::{Vote, current_votes};
use crate::generate::Ending;
use crate::provenance::write_atomic;
use crate::run::{self, RunDir};

/// Arguments of `calibrate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run's folder; it may be unfinished, and a server may be taking votes on it
    run: PathBuf,
    /// Where to write the weights, if they are better than the judge's own beyond chance [default: `aspect-weights.toml` beside the votes]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Parts into which the prompts are cut; each is predicted from the others
    #[arg(long, value_name = "N", default_value_t = DEFAULT_FOLDS as u64, value_parser = clap::value_parser!(u64).range(2..=50))]
    folds: u64,
    /// Fewest opinions on two answers that make a label
    #[arg(long, value_name = "K", default_value_t = DEFAULT_MIN_VOTES, value_parser = clap::value_parser!(u64).range(1..))]
    min_votes: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// Says what was found, and writes the weights where they are advised.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let run = RunDir::new(&args.run);
    shard::refuse_parent(run.root())?;
    let loaded = run.load()?;
    let (origin, options) = pair::of_run(&loaded.lock)?;
    let events: Vec<Vote> = read_votes(run.root())?.into_iter().map(|stored| stored.vote).collect();
    let items =
        run::with_input(&run, &loaded, origin, &options, |input| Items::of(input, &options, AnswerChoice::All, 0))?;
    let couples = decided(&items, &current_votes(&events), args.min_votes);
    let found = calibrate(&couples, args.folds as usize)?;
    if args.output.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&found)?)?;
    }
    found.in_words().iter().for_each(|line| args.output.say(line));
    if let Some(text) = found.to_toml().filter(|_| found.is_advised) {
        let path = args.out.clone().unwrap_or_else(|| run.annotations().join("aspect-weights.toml"));
        write_atomic(&path, text.as_bytes())?;
        args.output.say(&format!("weights   {}", path.display()));
        args.output.say(&format!(
            "use them: pairwright pair {} --aspect-weights {}",
            args.run.display(),
            path.display()
        ));
    }
    Ok(Ending::Completed)
}

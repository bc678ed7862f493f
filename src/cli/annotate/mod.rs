//! `pairwright annotate`: people's votes on a run's answers. Knows how a run becomes items; one file per subcommand knows its flags.

mod pack;
mod serve;

use std::path::Path;

use super::exit::UsageError;
use super::{pair, shard};
use crate::annotate::items::{AnswerChoice, Items};
use crate::annotate::keys::Keys;
use crate::generate::Ending;
use crate::run::{self, RunDir};

/// What may be done with votes.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Pages for people who vote, on this machine or, with --lan, for a room
    Serve(Box<serve::Args>),
    /// A page in one file for a phone without a network, with some of the items
    Pack(pack::PackArgs),
    /// Files that packs saved, into the run's votes
    Merge(pack::MergeArgs),
}

/// Flags that say what is shown.
#[derive(Debug, clap::Args)]
pub(super) struct ItemArgs {
    /// The run's folder; it may be unfinished
    run: std::path::PathBuf,
    /// All answers of a prompt at once, to be ranked, in place of the two of its pair
    #[arg(long)]
    rank: bool,
}

impl ItemArgs {
    /// The run's items.
    fn items(&self) -> anyhow::Result<Items> {
        let run = RunDir::new(&self.run);
        shard::refuse_parent(run.root())?;
        let loaded = run.load()?;
        let (origin, options) = pair::of_run(&loaded.lock)?;
        let choice = if self.rank { AnswerChoice::All } else { AnswerChoice::Pair };
        // Which answers are planted where must not change from one start to the next.
        let seed = Keys::open(&self.run)?.seed();
        Ok(run::with_input(&run, &loaded, origin, &options, |input| Items::of(input, &options, choice, seed))?)
    }
}

/// A text file that the user names.
fn text_of(path: Option<&Path>, flag: &str) -> anyhow::Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| UsageError(format!("{flag} {}: {error}\nhint: give a text file in UTF-8", path.display())))?;
    Ok(Some(text))
}

/// Runs one of them.
pub(super) fn run(command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Pack(args) => pack::pack(&args),
        Command::Merge(args) => pack::merge(&args),
    }
}

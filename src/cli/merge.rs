//! `pairwright merge RUN…`: the shards of a run into one run with its dataset.
//! Knows flags and what to say; nothing of what makes shards one.

use std::path::PathBuf;

use super::exit::UsageError;
use super::pair::{self, PairArgs};
use super::progress::OutputArgs;
use crate::generate::Ending;
use crate::run::{Merge, RunDir, shards_in};

/// Arguments of `merge`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder that holds the shards (the --out of `make --shard`), several such folders, or the shards' own folders
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder of the merged run [default: the one that holds the shards]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Joins the shards, which must all be there and complete, and writes the dataset that one run of all rows would have written.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let mut shards = Vec::new();
    let mut parents = Vec::new();
    for path in &args.runs {
        let inside = shards_in(path)?;
        if inside.is_empty() {
            parents.push(path.parent().map_or_else(PathBuf::new, PathBuf::from));
            shards.push(RunDir::new(path));
        } else {
            parents.push(path.clone());
            shards.extend(inside.into_iter().map(|(_, run)| run));
        }
    }
    parents.dedup();
    let out = match (&args.out, parents.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [parent]) => parent.clone(),
        _ => {
            let message =
                "--out is missing: the shards lie in several folders\nhint: give the folder of the merged run";
            return Err(UsageError(message.to_owned()).into());
        }
    };
    let out = RunDir::new(&if out.as_os_str().is_empty() { PathBuf::from(".") } else { out });
    let mut merge = Merge::read(&shards)?;
    let pairing = PairArgs::of_lock(&merge.lock)?;
    merge.lock.parameters.insert("pair".to_owned(), pairing.parameters());
    if merge.is_in(&out)? && pair::is_current(&out, &merge.lock) {
        args.output.say(&format!("nothing to do: {} is complete", out.root().display()));
        return pair::announce(&out, &args.output);
    }
    let (loaded, _occupied) = merge.write(&out)?;
    args.output.say(&format!("merged {} shards into {}", merge.num_shards, out.root().display()));
    pair::write(&out, &loaded, &pairing)?;
    pair::announce(&out, &args.output)
}

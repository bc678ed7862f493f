//! `pairwright bundle install`: what a bundle holds, put where programs look for it.
//! Knows flags and words; the work is done by [`crate::bundle::install`].

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::find;
use crate::bundle::Bundle;
use crate::bundle::install::{Outcome, Target, install};
use crate::cli::progress::{Bytes, OutputArgs};
use crate::generate::Ending;

/// What is printed behind the flags.
const AFTER_HELP: &str = "\
Every byte is checked on the way. An item is in place when it is whole; an install that was cut off goes on where it stopped; of a bad
bundle nothing is left.

  pairwright bundle install nl.tar.000 --to /data/pairwright     # models/…, datasets/…, bin/…
  pairwright bundle install nl.tar.000 --hf-cache                # HF_HUB_CACHE: Transformers and others find it offline";

/// Arguments of `bundle install`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct Args {
    /// The bundle: a folder, a tar, or the first of its parts
    path: PathBuf,
    /// The folder that gets `models`, `datasets` and `bin`
    #[arg(long, value_name = "DIR", default_value = ".", conflicts_with = "hf_cache")]
    to: PathBuf,
    /// Into the Hugging Face cache of this user, what is of the hub
    #[arg(long)]
    hf_cache: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Installs all of it and says where it is.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let mut bundle = Bundle::open(&args.path)?;
    let target = match args.hf_cache {
        true => Target::Cache(find::cache()?),
        false => Target::Folder(args.to.clone()),
    };
    let mut bytes = Bytes::new(&args.output, "install", bundle.manifest().size_bytes());
    let done = install(&mut bundle, &target, &mut |count| bytes.add(count))?;
    bytes.finish();
    let mut num_new = 0;
    for item in &done {
        match &item.outcome {
            Outcome::Installed(place) => {
                num_new += 1;
                args.output.say(&format!("installed {}", place.display()));
            }
            Outcome::Present(place) => args.output.say(&format!("there already: {}", place.display())),
            Outcome::NotOfTheHub => args.output.say(&format!(
                "left in the bundle, since it is not, file by file, of the hub: {} (install it with --to DIR)",
                item.item
            )),
        }
        if let Some(note) = &item.note {
            args.output.say(&format!("note: {note}"));
        }
    }
    if num_new == 0 {
        args.output.say("nothing to do");
    }
    if args.output.json {
        writeln!(std::io::stdout(), "{}", json!({"items": done, "num_installed": num_new}))?;
    }
    Ok(Ending::Completed)
}

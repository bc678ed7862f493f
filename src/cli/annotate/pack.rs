//! `pairwright annotate pack RUN` and `annotate merge RUN FILES`: votes by a file that goes out and a file that comes back.
//! Knows flags and files; nothing of what is signed.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::ItemArgs;
use crate::annotate::keys::Keys;
use crate::annotate::pack::{self, MAX_FILE_BYTES, PackError};
use crate::annotate::queue::QueueOptions;
use crate::annotate::room::Room;
use crate::annotate::store::{Store, read_people, read_votes};
use crate::annotate::strings::Strings;
use crate::cli::arguments::positive;
use crate::cli::exit::UsageError;
use crate::generate::Ending;
use crate::provenance::write_atomic;

/// Arguments of `annotate pack`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PackArgs {
    #[command(flatten)]
    items: ItemArgs,
    /// Items in the pack
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = positive)]
    num_items: usize,
    /// People per item: items that have as many votes are not packed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    overlap: usize,
    /// Language of the page's own words: en, nl, fr, es, pt, ar, hi, sw, th, or one that was translated on the server's pages
    #[arg(long, value_name = "CODE", default_value = "en")]
    interface: String,
    /// The page to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `annotate merge`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct MergeArgs {
    /// The run's folder
    run: PathBuf,
    /// Files that packs saved
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What became of the votes as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Writes a pack.
pub(super) fn pack(args: &PackArgs) -> anyhow::Result<Ending> {
    let run = &args.items.run;
    let items = args.items.items()?;
    let keys = Keys::open(run)?;
    let strings = Strings::open(run)?;
    if !strings.has(&args.interface) {
        let known: Vec<&str> = strings.languages().map(|(code, _)| code).collect();
        let message = format!("--interface {} is not translated\nhint: there are {}", args.interface, known.join(", "));
        return Err(UsageError(message).into());
    }
    let options = QueueOptions { overlap: args.overlap, ..QueueOptions::default() };
    let mut room = Room::new(Arc::new(items), keys.clone(), options, read_votes(run)?, read_people(run)?);
    let (page, num_items) = pack::make(&mut room, &keys, args.num_items, strings.tongue(&args.interface), now())?;
    write_atomic(&args.out, page.as_bytes())?;
    eprintln!("pack      {}: {num_items} items, {} KB", args.out.display(), page.len().div_ceil(1000));
    eprintln!("Send it to a speaker; the file that they save goes into `pairwright annotate merge`.");
    Ok(Ending::Completed)
}

/// Takes files of votes in.
pub(super) fn merge(args: &MergeArgs) -> anyhow::Result<Ending> {
    // A run that is not there must not get a store.
    crate::run::RunDir::new(&args.run).load()?;
    let mut files = Vec::new();
    for path in &args.files {
        let mut text = String::new();
        let no_votes = |what: String| PackError::NoVotes { path: path.clone(), what };
        let file = std::fs::File::open(path).map_err(|error| no_votes(error.to_string()))?;
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| no_votes(error.to_string()))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(no_votes(format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20)).into());
        }
        files.push((path.clone(), text));
    }
    let keys = Keys::open(&args.run)?;
    let mut store = Store::open(&args.run)?;
    let merged = pack::merge(&mut store, &keys, &files, now())?;
    if args.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&merged)?)?;
    }
    let pack::Merged { num_new, num_doubles, num_older, people } = merged;
    eprintln!(
        "{num_new} new votes of {} people; {num_doubles} were there already, {num_older} are older than what is there",
        people.len()
    );
    Ok(Ending::Completed)
}

/// Seconds since 1970.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

//! `pairwright annotate pack RUN` and `annotate merge RUN FILES`: votes by a file that goes out and a file that comes back.
//! Knows flags and files; nothing of what is signed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::ItemArgs;
use crate::annotate::items::Items;
use crate::annotate::keys::Keys;
use crate::annotate::pack::{self, MAX_FILE_BYTES, Pack, PackError, Wanted};
use crate::annotate::packed::{self, DEFAULT_LEASE_DAYS};
use crate::annotate::queue::QueueOptions;
use crate::annotate::room::Room;
use crate::annotate::store::{Store, read_people, read_votes};
use crate::annotate::strings::Strings;
use crate::cli::arguments::positive;
use crate::cli::exit::UsageError;
use crate::cli::tell;
use crate::data::DataError;
use crate::data::language::{LanguageCount, resolve};
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
    /// People per item: items that have as many votes, or are in as many packs that are not back, are not packed
    #[arg(long, value_name = "N", default_value_t = QueueOptions::default().overlap, value_parser = positive)]
    overlap: usize,
    /// Only items in this language, by name or code; may be given several times
    #[arg(long, value_name = "LANGUAGE")]
    language: Vec<String>,
    /// Days after which a pack that is not back is waited for no more
    #[arg(long, value_name = "DAYS", default_value_t = DEFAULT_LEASE_DAYS)]
    lease: u16,
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
    let wanted = Wanted {
        num_items: args.num_items,
        languages: languages_of(&items, &args.language)?,
        out: packed::out(run, args.lease, now())?,
    };
    let mut room = Room::new(Arc::new(items), keys.clone(), options, read_votes(run)?, read_people(run)?);
    let made = pack::make(&mut room, &keys, &wanted, strings.tongue(&args.interface), now())?;
    // Noted first: a page that is out and not noted would be packed a second time.
    packed::note(run, &made.id, &made.items, now())?;
    write_atomic(&args.out, made.page.as_bytes())?;
    say(args, &wanted, &made);
    Ok(Ending::Completed)
}

/// The languages of items that the user means, as the source spells them.
fn languages_of(items: &Items, asked: &[String]) -> Result<Vec<String>, DataError> {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for item in &items.items {
        *counts.entry((&item.language, item.language_tag.as_deref().unwrap_or_default())).or_default() += 1;
    }
    let available: Vec<LanguageCount> = counts
        .into_iter()
        .map(|((name, code), num_rows)| LanguageCount {
            name: name.to_owned(),
            code: code.to_owned(),
            num_rows,
            num_with_response: num_rows,
        })
        .collect();
    let mut found = Vec::new();
    for query in asked {
        found.extend(resolve(query, &available).map_err(Box::new)?.languages.into_iter().map(|language| language.name));
    }
    Ok(found)
}

/// What went into a pack, and whom else it is with.
fn say(args: &PackArgs, wanted: &Wanted, made: &Pack) {
    let num_all = made.items.len() + made.num_planted;
    tell(&format!(
        "pack      {}: {num_all} items, {} of them planted, {} KB",
        args.out.display(),
        made.num_planted,
        made.page.len().div_ceil(1000)
    ));
    let num_out = wanted.out.len();
    if num_all < args.num_items {
        tell(&format!(
            "fewer than {}: all others have votes of {} people, or are in the {num_out} packs that are not back (--overlap, --lease)",
            args.num_items, args.overlap
        ));
    }
    match made.num_shared {
        0 => tell(&format!(
            "none of its items is in one of the {num_out} other packs that are not back (planted ones aside)"
        )),
        shared => tell(&format!(
            "{shared} of its items are in one of the {num_out} other packs that are not back too: --overlap {} wants several people on each",
            args.overlap
        )),
    }
    tell("Send it to a speaker; the file that they save goes into `pairwright annotate merge`.");
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
    let pack::Merged { num_new, num_doubles, num_older, people, packs } = merged;
    for pack in &packs {
        packed::note(&args.run, pack, &[], now())?;
    }
    tell(&format!(
        "{num_new} new votes of {} people; {num_doubles} were there already, {num_older} are older than what is there",
        people.len()
    ));
    Ok(Ending::Completed)
}

/// Seconds since 1970.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

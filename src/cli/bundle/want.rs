//! `pairwright bundle want`: what this machine lacks for a run, as a list for the machine that can fetch it.
//! Knows where models and prompts lie; opens no connection.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::find;
use crate::bundle::hf_cache::Cache;
use crate::bundle::{Kind, Want, integrity, target};
use crate::cli::settings::{date, template_options};
use crate::cli::tell;
use crate::generate::{Ending, verify::verify};

/// What is printed behind the flags.
const AFTER_HELP: &str = "\
What is here and whole (in DIR, in the Hugging Face cache, or at a path) is left out. The list goes to stdout:

  pairwright bundle want --models org/writer,qwen3-8b --dataset CohereLabs/aya_dataset --languages yor > want.json
  pairwright bundle create --want want.json -o for-us.tar       # on the machine with a connection, after fetching them";

/// Arguments of `bundle want`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(in crate::cli) struct Args {
    /// Models: ids (OWNER/NAME, OWNER/NAME@REVISION), names of `models list`, or paths
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',')]
    models: Vec<String>,
    /// Prompts: an id or a path; may be given several times
    #[arg(long, value_name = "PATH|ID")]
    dataset: Vec<String>,
    /// Languages that are wanted of the prompts; without it all
    #[arg(long, value_name = "LANGUAGE,…", value_delimiter = ',')]
    languages: Vec<String>,
    /// Where bundles are installed on this machine
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Looks, says on stderr what is here, and prints the list.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let cache = find::cache()?;
    let (mut models, mut datasets) = (Vec::new(), Vec::new());
    for text in &args.models {
        let (id, wanted) = named(text)?;
        match place_of(Kind::Model, &id, &wanted, &args.dir, &cache).map(|path| (whole(&path), path)) {
            Some((Ok(()), path)) => say(&format!("{text}: here and whole, {}", path.display())),
            Some((Err(error), path)) => {
                let line = error.to_string().lines().next().unwrap_or_default().to_owned();
                say(&format!("{text}: wanted, since {} is not usable: {line}", path.display()));
                models.push(wanted);
            }
            None => {
                say(&format!("{text}: wanted"));
                models.push(wanted);
            }
        }
    }
    for text in &args.dataset {
        let (id, wanted) =
            find::id_of(text).map_or((text.clone(), text.clone()), |(id, _)| (id.to_owned(), text.clone()));
        match place_of(Kind::Dataset, &id, &wanted, &args.dir, &cache) {
            Some(path) => say(&format!("{text}: here, {}", path.display())),
            None => {
                say(&format!("{text}: wanted"));
                datasets.push(wanted);
            }
        }
    }
    let mut want = Want::new(models, datasets, args.languages.clone(), target());
    want.free_bytes = crate::provenance::free_bytes(&args.dir);
    if want.is_empty() {
        say("nothing is wanted");
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&want)?)?;
    Ok(Ending::Completed)
}

fn say(line: &str) {
    tell(line);
}

/// The id of a model, and the same with the revision that is wanted: the list of models knows tested commits.
fn named(text: &str) -> anyhow::Result<(String, String)> {
    if let Some((id, _)) = find::id_of(text) {
        return Ok((id.to_owned(), text.to_owned()));
    }
    let listed = find::listed(text)?;
    Ok(listed.map_or((text.to_owned(), text.to_owned()), |(id, commit)| match commit {
        Some(commit) => (id.clone(), format!("{id}@{commit}")),
        None => (id.clone(), id),
    }))
}

/// Where it lies on this machine: a path, an installed folder that says so, the cache.
fn place_of(kind: Kind, id: &str, wanted: &str, dir: &Path, cache: &Cache) -> Option<PathBuf> {
    if Path::new(wanted).exists() {
        return Some(PathBuf::from(wanted));
    }
    let revision = wanted.split_once('@').map(|(_, revision)| revision);
    let folder = dir.join(if kind == Kind::Model { "models" } else { "datasets" });
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_it = |path: &PathBuf| {
        let list = integrity::expectation(path).ok().flatten();
        list.and_then(|list| list.identity).is_some_and(|identity| {
            let commit = identity.commit.as_deref().unwrap_or_default();
            let is_wanted = |wanted: &str| commit.starts_with(wanted) || identity.revision.as_deref() == Some(wanted);
            identity.repo == id && revision.is_none_or(is_wanted)
        })
    };
    let mut installed: Vec<PathBuf> = entries.filter(is_it).collect();
    installed.sort();
    installed.into_iter().next().or_else(|| Some(cache.find(kind, id, revision)?.dir))
}

/// Whether a model that is here can be used.
fn whole(path: &Path) -> anyhow::Result<()> {
    integrity::check(path, false, &mut |_| ())?;
    verify(path, &template_options(date(None)?, None, None)?)?;
    Ok(())
}

//! `pairwright pull NAME`: a model or a dataset from the Hub into the cache that Python shares.
//! Knows flags, questions and words; what is fetched and how is the business of [`crate::hub`].

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use super::exit::UsageError;
use super::models::RegistryArgs;
use super::progress::{Bytes, OutputArgs};
use crate::config;
use crate::generate::Ending;
use crate::hub::{self, Dialogue, Hub, HubError, Licence, PullOffer, PullRequest, Pulled, RepoId, RepoKind, Transfer};
use crate::registry::{LicenceKind, ModelEntry, Role};

/// The dataset that has a short name.
const AYA: (&str, &str) = ("aya", "CohereLabs/aya_dataset");
/// Files that are named one by one before they are counted.
const NUM_NAMED: usize = 40;

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A name of `pairwright models list`, or OWNER/NAME on the Hub; with --dataset: aya, or OWNER/NAME
    name: String,
    /// NAME is a dataset
    #[arg(long)]
    dataset: bool,
    /// Branch, tag or commit; whichever it is, one commit is fetched and named [default: the list's commit, or main]
    #[arg(long, value_name = "REV")]
    revision: Option<String>,
    /// Weights or data files by name in place of the usual ones, with * and ?, for example '*Q4_K_M.gguf'; may be given several times
    #[arg(long, value_name = "PATTERN")]
    file: Vec<String>,
    /// Accept the licence that is shown, without being asked
    #[arg(long, alias = "accept-license")]
    accept_licence: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Flags of every command that opens a connection.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ConnectionArgs {
    /// How often to try again what failed in passing
    #[arg(long, value_name = "N", default_value_t = 5)]
    retries: u32,
}

impl ConnectionArgs {
    /// How often to try again.
    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    /// The Hub that the environment names.
    pub(super) fn hub(&self) -> anyhow::Result<Hub> {
        let no_home = || UsageError("no folder for the cache: no home is known\nhint: set HF_HUB_CACHE".to_owned());
        Ok(Hub {
            endpoint: config::hub_endpoint(),
            token: config::hub_token(),
            cache: config::hub_cache().ok_or_else(no_home)?,
            offline: config::hub_is_offline(),
            silence_s: config::hub_silence_s(),
            num_retries: self.retries,
        })
    }
}

/// Fetches what is missing and says what is there and how to use it.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let registry = args.registry.read()?;
    let known = |name: &str| registry.find(name).ok().filter(|_| !args.dataset);
    let (repo, entry) = match args.name.as_str() {
        name if args.dataset && name == AYA.0 => (RepoId::parse(RepoKind::Dataset, AYA.1)?, None),
        name if args.dataset => (RepoId::parse(RepoKind::Dataset, name)?, None),
        name if name.contains('/') => (RepoId::parse(RepoKind::Model, name)?, known(name)),
        name => {
            let entry = registry.find(name)?;
            (RepoId::parse(RepoKind::Model, &entry.hub_id)?, Some(entry))
        }
    };
    let listed = entry.and_then(|entry| entry.commit.clone());
    let revision = args.revision.clone().or(listed).unwrap_or_else(|| "main".to_owned());
    let request = PullRequest { repo, revision, patterns: args.file.clone() };
    let mut talk = Talk { args, entry, bytes: None };
    let pulled = hub::pull(&args.connection.hub()?, &request, &mut talk)?;
    if let Some(bytes) = talk.bytes.take() {
        bytes.finish();
    }
    if args.output.json {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string_pretty(&pulled)?)?;
    }
    conclude(&pulled, entry, &args.output);
    Ok(Ending::Completed)
}

/// Terms and files before, a bar meanwhile.
struct Talk<'a> {
    args: &'a Args,
    entry: Option<&'a ModelEntry>,
    bytes: Option<Bytes>,
}

impl Dialogue<PullOffer> for Talk<'_> {
    fn agree(&mut self, offer: &PullOffer) -> Result<(), HubError> {
        let output = &self.args.output;
        output.say(&format!("{} at commit {}", offer.repo.id, offer.commit));
        say_files(output, &offer.files);
        if offer.num_bytes_here > 0 {
            output.say(&format!("{} of it are here from an earlier pull", size(offer.num_bytes_here)));
        }
        let terms = terms(offer, self.entry);
        if self.args.accept_licence {
            output.say(&terms);
        } else {
            ask(&format!("{terms}\nAccept and fetch?"), "fetched", "--accept-licence accepts it without being asked")?;
        }
        let num_bytes = offer.files.iter().map(|file| file.size_bytes).sum();
        self.bytes = Some(Bytes::new(output, "pull", num_bytes));
        Ok(())
    }

    fn position(&mut self, num_bytes: u64) {
        if let Some(bytes) = &mut self.bytes {
            bytes.set(num_bytes);
        }
    }

    fn note(&mut self, line: &str) {
        self.args.output.say(line);
    }
}

/// The files that are to be moved.
pub(super) fn say_files(output: &OutputArgs, files: &[Transfer]) {
    for file in files.iter().take(NUM_NAMED) {
        output.say(&format!("{:>11}  {}", size(file.size_bytes), file.path));
    }
    if let Some(more) = files.len().checked_sub(NUM_NAMED).filter(|more| *more > 0) {
        output.say(&format!("{:>11}  and {more} files more", ""));
    }
    let files_in_words = if files.len() == 1 { "1 file".to_owned() } else { format!("{} files", files.len()) };
    output.say(&format!("{:>11}  in {files_in_words}", size(files.iter().map(|file| file.size_bytes).sum())));
}

/// Three digits and a unit.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.iter().find(|(unit, _)| bytes as f64 >= *unit) {
        Some((unit, name)) => format!("{:.2} {name}", bytes as f64 / unit),
        None => format!("{bytes} B"),
    }
}

/// Asks on the terminal; where there is none nobody can agree.
pub(super) fn ask(question: &str, done: &'static str, hint: &'static str) -> Result<(), HubError> {
    let stdin = std::io::stdin();
    let subject = question.split('\n').next().unwrap_or_default().to_owned();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return Err(HubError::Declined { what: format!("{subject}, and nobody is here to be asked"), done, hint });
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut line = String::new();
    // Whoever cannot be heard has not agreed.
    let _ = stdin.lock().read_line(&mut line);
    if ["y", "yes"].contains(&line.trim().to_lowercase().as_str()) {
        return Ok(());
    }
    Err(HubError::Declined { what: format!("{subject}; not accepted"), done, hint })
}

/// The terms in one line, and in further ones what the list and the Hub add.
fn terms(offer: &PullOffer, entry: Option<&ModelEntry>) -> String {
    let mut text = format!("licence: {}", licence(&offer.licence));
    if let Some(entry) = entry {
        let kind = match entry.licence_kind {
            LicenceKind::Open => "any use",
            LicenceKind::Restricted => "with terms of use",
            LicenceKind::NonCommercial => "NON-COMMERCIAL use only",
            LicenceKind::Unknown => "its makers do not say what is allowed",
        };
        text += &format!("; by the list: {}, {kind}", entry.licence);
        text += &entry.terms.as_ref().map(|terms| format!("\n{terms}")).unwrap_or_default();
    }
    if offer.gated {
        text += "\nits owners ask for a form to be accepted on its page first";
    }
    text
}

fn licence(licence: &Licence) -> String {
    let named = match (licence.id.as_deref(), licence.name.as_deref()) {
        (Some("other") | None, Some(name)) => name,
        (Some(id), _) => id,
        (None, None) => "the card states none: read it first",
    };
    match &licence.link {
        Some(link) => format!("{named} ({link})"),
        None => named.to_owned(),
    }
}

/// What is there now and the command that uses it.
fn conclude(pulled: &Pulled, entry: Option<&ModelEntry>, output: &OutputArgs) {
    match pulled.num_fetched {
        0 => output.say(&format!("nothing to fetch: all {} files of this commit are here", pulled.files.len())),
        count => output.say(&format!("fetched {count} files, {}, each verified", size(pulled.num_bytes_fetched))),
    }
    for (label, value) in [
        ("commit", pulled.commit.as_str()),
        ("licence", &licence(&pulled.licence)),
        ("path", &pulled.path.display().to_string()),
        ("use", &usage(pulled, entry)),
    ] {
        output.say(&format!("{label:<8}  {value}"));
    }
}

/// The command line that takes up what was fetched.
fn usage(pulled: &Pulled, entry: Option<&ModelEntry>) -> String {
    let quoted = |path: &Path| {
        let text = path.display().to_string();
        let plain = text.chars().all(|c| c.is_alphanumeric() || "/._-+=@:\\".contains(c));
        if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
    };
    let ends = |ending: &str| pulled.files.iter().find(|file| file.path.ends_with(ending));
    if pulled.repo.kind == RepoKind::Dataset {
        let rows = ends(".parquet").or_else(|| ends(".jsonl")).or_else(|| ends(".csv"));
        // A test split is not for training: the file with the name of the train split comes first.
        let train = pulled.files.iter().find(|file| file.path.contains("train") && file.path.ends_with(".parquet"));
        let path = train.or(rows).map_or_else(|| pulled.path.clone(), |file| pulled.path.join(&file.path));
        let licence = pulled.licence.id.as_ref().map(|id| format!(" --source-license {id}")).unwrap_or_default();
        return format!(
            "pairwright make --prompts {} --language LANGUAGE --generator MODEL --judge MODEL --out RUN --source-dataset {}{licence}",
            quoted(&path),
            pulled.repo.id
        );
    }
    let path = match (ends(".safetensors"), ends(".gguf")) {
        (None, Some(file)) => pulled.path.join(&file.path),
        _ => pulled.path.clone(),
    };
    let path = quoted(&path);
    match entry.map(|entry| entry.roles.as_slice()) {
        Some([Role::Reward]) => format!("pairwright score --model {path} --data FILE --out FILE"),
        Some([Role::Judge, ..]) => {
            format!("pairwright make --prompts FILE --language LANGUAGE --generator MODEL --judge {path} --out RUN")
        }
        _ => format!("pairwright make --prompts FILE --language LANGUAGE --generator {path} --judge MODEL --out RUN"),
    }
}

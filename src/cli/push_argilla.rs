//! `pairwright push-argilla RUN --url URL --dataset NAME`: a run's items onto an Argilla server, for people to answer there.
//! Knows flags and words; what is sent and how is the business of [`crate::hub`], what a record holds of [`crate::annotate::exchange`].

use std::io::Write;
use std::path::PathBuf;

use super::exit::UsageError;
use super::export::{HandoverArgs, Shown, shown};
use super::progress::{Bytes, OutputArgs};
use super::pull::ConnectionArgs;
use crate::annotate::exchange::argilla::Dataset;
use crate::annotate::label::DEFAULT_MIN_VOTES;
use crate::annotate::vote::current_votes;
use crate::config;
use crate::generate::Ending;
use crate::hub::{self, Argilla, Dialogue, HubError, PushOffer, PushRequest};
use crate::run::RunDir;

/// Arguments of `push-argilla`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run's folder; a server may be taking votes on it
    run: PathBuf,
    /// The Argilla server, for example http://127.0.0.1:6900
    #[arg(long)]
    url: String,
    /// The dataset there, which is made where it is not there; records that are there already are changed and not doubled
    #[arg(long, value_name = "NAME")]
    dataset: String,
    /// Its workspace [default: the only one of the API key's user]
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// A file whose first line is the API key, in place of ARGILLA_API_KEY
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Responses that a record wants before it is complete
    #[arg(long, value_name = "K", default_value_t = DEFAULT_MIN_VOTES, value_parser = clap::value_parser!(u64).range(1..))]
    min_votes: u64,
    #[command(flatten)]
    handover: HandoverArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Args {
    fn api_key(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.api_key_file else { return Ok(config::argilla_api_key()) };
        let wrong = |what: String| {
            UsageError(format!("--api-key-file {}: {what}\nhint: its first line is the key", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let key = text.lines().next().unwrap_or_default().trim();
        if key.is_empty() { Err(wrong("its first line is empty".to_owned()).into()) } else { Ok(Some(key.to_owned())) }
    }
}

/// Sends the items of a run, or again those that changed.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let server = Argilla {
        url: args.url.clone(),
        api_key: args.api_key()?,
        offline: config::hub_is_offline(),
        silence_s: config::hub_silence_s(),
        num_retries: args.connection.retries(),
    };
    let handover = args.handover.handover(args.min_votes)?;
    let Shown { items, votes, judge } = shown(&RunDir::new(&args.run), &args.handover, &handover)?;
    let Dataset { settings, records, .. } = Dataset::of(&items.items, &current_votes(&votes), &judge, &handover);
    let request = PushRequest { workspace: args.workspace.clone(), dataset: args.dataset.clone(), settings, records };
    let mut talk = Talk { args, bytes: None };
    let pushed = hub::push(&server, &request, &mut talk)?;
    if let Some(bytes) = talk.bytes.take() {
        bytes.finish();
    }
    if args.output.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&pushed)?)?;
    }
    args.output.say(&format!(
        "{} records, {} of them there before, with {} responses",
        pushed.num_records, pushed.num_known, pushed.num_responses
    ));
    if pushed.num_kept > 0 {
        args.output.say(&format!(
            "{} responses stayed here: the same people answered these records there, and that holds",
            pushed.num_kept
        ));
    }
    for (reason, rows) in &items.left_out {
        args.output.say(&format!("{rows:>8}  {reason}"));
    }
    args.output.say(&format!("dataset   {}/dataset/{}/annotation-mode", pushed.url, pushed.id));
    Ok(Ending::Completed)
}

/// What is sent whereto before, a bar meanwhile.
struct Talk<'a> {
    args: &'a Args,
    bytes: Option<Bytes>,
}

impl Dialogue<PushOffer> for Talk<'_> {
    fn agree(&mut self, offer: &PushOffer) -> Result<(), HubError> {
        let how = if offer.is_new { "a new dataset" } else { "a dataset that is there" };
        let name = &self.args.dataset;
        self.note(&format!("{name} in the workspace {}: {how}, {} records", offer.workspace, offer.num_records));
        self.bytes = Some(Bytes::new(&self.args.output, "push", offer.num_bytes));
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

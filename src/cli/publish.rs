//! `pairwright publish RUN --repo OWNER/NAME`: a finished run's dataset onto the Hub, with people's votes where they were exported.
//! Knows flags, questions and words; what is sent and how is the business of [`crate::hub`].

use std::io::Write;
use std::path::PathBuf;

use super::exit::UsageError;
use super::progress::{Bytes, OutputArgs};
use super::pull::{ConnectionArgs, ask, say_files};
use crate::generate::Ending;
use crate::hub::{self, Dialogue, HubError, PublishRequest, RepoId, RepoKind, UploadOffer};
use crate::run::RunDir;

/// Arguments of `publish`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run's folder; what `export` wrote, the dataset with people's votes, is published, or without an export what lies in `dataset`
    run: PathBuf,
    /// Publish `dataset`, the judge's, although there is an export
    #[arg(long)]
    without_votes: bool,
    /// The dataset on the Hub, which is made where it is not there
    #[arg(long, value_name = "OWNER/NAME")]
    repo: String,
    /// Make it so that only its owners see it
    #[arg(long)]
    private: bool,
    /// Publish without being asked
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Publishes the dataset of a finished run, or says that it is there.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let repo = RepoId::parse(RepoKind::Dataset, &args.repo)?;
    let run = RunDir::new(&args.run);
    let status = run.require_verdicts()?;
    let loaded = run.load()?;
    if !status.dataset_written || !super::pair::is_current(&run, &loaded.lock) {
        let message = format!(
            "{}: the dataset is not that of the run\nhint: `pairwright pair {}` (or `make`, as before) writes it",
            args.run.display(),
            args.run.display()
        );
        return Err(UsageError(message).into());
    }
    if run.demo().exists() {
        args.output.say("warning: this is the demonstration's dataset: a toy made it, and nobody should train on it");
    }
    let has_votes = run.export().is_dir() && !args.without_votes;
    if has_votes && !super::pair::is_of(&run.export_lock(), &loaded.lock) {
        let path = args.run.display();
        let message = format!(
            "{path}: the export is not that of the run\nhint: `pairwright export {path}` writes it; --without-votes publishes the judge's dataset"
        );
        return Err(UsageError(message).into());
    }
    let folder = if has_votes { run.export() } else { run.dataset() };
    let summary = format!("Publish a dataset made with pairwright {}", env!("CARGO_PKG_VERSION"));
    let request = PublishRequest { repo, private: args.private, folder, summary };
    let mut talk = Talk { args, bytes: None };
    let published = hub::publish(&args.connection.hub()?, &request, &mut talk)?;
    if let Some(bytes) = talk.bytes.take() {
        bytes.finish();
    }
    if args.output.json {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string_pretty(&published)?)?;
    }
    if published.num_sent + published.num_removed == 0 {
        args.output.say("nothing to do: the Hub has the same files");
    } else {
        args.output.say(&format!("published {} files, removed {}", published.num_sent, published.num_removed));
    }
    args.output.say(&format!("commit    {}\npage      {}", published.commit, published.url));
    Ok(Ending::Completed)
}

/// What will be seen by whom before, a bar meanwhile.
struct Talk<'a> {
    args: &'a Args,
    bytes: Option<Bytes>,
}

impl Dialogue<UploadOffer> for Talk<'_> {
    fn agree(&mut self, offer: &UploadOffer) -> Result<(), HubError> {
        let output = &self.args.output;
        let whereto = match offer.created {
            Some(true) => "a new dataset that only its owners see",
            Some(false) => "a new dataset that everybody sees",
            None => "a dataset that is there",
        };
        output.say(&format!("{}: {whereto}", offer.repo.id));
        say_files(output, &offer.files);
        if offer.num_unchanged > 0 {
            output.say(&format!("{:>11}  {} files are there already", "", offer.num_unchanged));
        }
        for path in &offer.removed {
            output.say(&format!("{:>11}  {path}, of an earlier publication", "removed"));
        }
        if !self.args.yes {
            let question = format!("{} is to be published on the Hub\nPublish it?", self.args.run.display());
            ask(&question, "published", "--yes publishes without being asked")?;
        }
        self.bytes = Some(Bytes::new(output, "publish", offer.files.iter().map(|file| file.size_bytes).sum()));
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

//! `pairwright annotate serve RUN`: the pages on which people vote. Knows flags and what the terminal shows; nothing of votes.

use std::io::IsTerminal;
use std::path::PathBuf;

use qrcode::QrCode;
use qrcode::render::unicode;

use super::{ItemArgs, text_of};
use crate::annotate::queue::QueueOptions;
use crate::annotate::serve::{self, Connections, Ready, ServeOptions};
use crate::cli::arguments::positive;
use crate::cli::stop::{Stop, TimeArgs};
use crate::cli::tell;
use crate::generate::Ending;

/// Arguments of `annotate serve`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    items: ItemArgs,
    /// Where to listen; 0: any free port
    #[arg(long, default_value_t = 8377)]
    port: u16,
    /// Listen for the whole network, in place of this machine alone; people then need the invitation, which is shown with a QR code
    #[arg(long)]
    lan: bool,
    /// Names, one a line, of those who vote: each gets a link of their own, and nobody else comes in
    #[arg(long, value_name = "FILE")]
    annotators: Option<PathBuf>,
    /// People per item
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    overlap: usize,
    /// Share of the items that is drawn at random, for fair estimates; the others come by how unsure the judge is
    #[arg(long, value_name = "SHARE", default_value_t = 0.25, value_parser = share)]
    audit: f64,
    /// Share of a person's turns that shows an own earlier item again
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    repeats: f64,
    /// Share of a person's turns that shows a planted item: an answer of the prompt's own beside one of another prompt
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    planted: f64,
    /// Minutes after which an item that somebody opened and left is shown to others
    #[arg(long, value_name = "MINUTES", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    lease: u16,
    /// The project's guidelines in Markdown, in place of a page of general ones
    #[arg(long, value_name = "FILE")]
    guidelines: Option<PathBuf>,
    /// A text that people must agree to before they vote
    #[arg(long, value_name = "FILE")]
    consent: Option<PathBuf>,
    /// End all links, codes and sessions that were given out before
    #[arg(long)]
    new_links: bool,
}

/// A share from 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("want a share from 0 to 1, such as 0.05".to_owned()),
    }
}

/// Serves until a signal comes.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let names = text_of(args.annotators.as_deref(), "--annotators")?.unwrap_or_default();
    let mut names: Vec<String> =
        names.lines().map(|line| line.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    names.dedup();
    let options = ServeOptions {
        port: args.port,
        is_lan: args.lan,
        names,
        new_links: args.new_links,
        guidelines: text_of(args.guidelines.as_deref(), "--guidelines")?,
        consent: text_of(args.consent.as_deref(), "--consent")?,
        queue: QueueOptions {
            overlap: args.overlap,
            audit_share: args.audit,
            repeat_share: args.repeats,
            gold_share: args.planted,
            lease_s: i64::from(args.lease) * 60,
            ..QueueOptions::default()
        },
        connections: Connections::default(),
    };
    let items = args.items.items()?;
    tell(&format!("{} items, {} planted ones beside them", items.items.len(), items.gold.len()));
    for (reason, count) in &items.left_out {
        tell(&format!("{count:>8}  rows without an item: {}", reason.replace('_', " ")));
    }
    let stop = Stop::install(&TimeArgs::default())?;
    let is_lan = args.lan;
    serve::serve(args.items.run.clone(), items, options, |ready| say(ready, is_lan), move || stop.is_asked())?;
    tell("stopped; all votes are kept");
    Ok(Ending::Completed)
}

/// Addresses, and in a room the code that phones read.
fn say(ready: &Ready, is_lan: bool) {
    let people = if is_lan { &ready.invitation } else { &ready.people };
    tell(&format!("people    {people}"));
    for (name, link) in &ready.codes {
        tell(&format!("          {link}  {name}"));
    }
    tell(&format!("admin     {}", ready.admin));
    let port = ready.address.port();
    if is_lan {
        // An address that is too long for a code has none; a file of messages wants no picture.
        if let (true, Ok(code)) = (std::io::stderr().is_terminal(), QrCode::new(people.as_bytes())) {
            tell(&code.render::<unicode::Dense1x2>().build());
        }
    } else {
        tell(&format!("from elsewhere: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE, then the same address there"));
    }
    tell("Ctrl-C stops; votes are on the disk as soon as they are taken");
}

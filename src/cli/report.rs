//! `pairwright report RUN`: what a run looks like, finished or not, as one page for a browser and as JSON.
//! Knows flags and where the page goes; nothing of what it says.

use std::io::Write;
use std::path::PathBuf;

use super::{pair, shard};
use crate::cli::tell;
use crate::generate::Ending;
use crate::provenance::write_atomic;
use crate::run::{self, RunDir};

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run's folder; the run may be at work
    run: PathBuf,
    /// Where to write the page, in place of `report.html` in the run's folder
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The same numbers as JSON on stdout; without --out no page is written
    #[arg(long)]
    json: bool,
}

/// Counts what the journals say, with the pairing that the run names, and shows it.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let run = RunDir::new(&args.run);
    shard::refuse_parent(run.root())?;
    let loaded = run.load()?;
    let (origin, options) = pair::of_run(&loaded.lock)?;
    let data = run::report(&run, &loaded, origin, &options)?;
    if args.json {
        writeln!(std::io::stdout(), "{}", data.to_json()?)?;
    }
    if args.out.is_some() || !args.json {
        let path = args.out.clone().unwrap_or_else(|| run.report_page());
        write_atomic(&path, data.to_html()?.as_bytes())?;
        tell(&format!("report    {}", path.display()));
    }
    Ok(Ending::Completed)
}

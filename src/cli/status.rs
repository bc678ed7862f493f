//! `pairwright status RUN`: how far a run is.
//! Knows flags and words; nothing of journals.

use std::io::Write;
use std::path::PathBuf;

use crate::generate::Ending;
use crate::run::{RunDir, StageStatus};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run's folder
    run: PathBuf,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Prints the rows of each stage; may be called while the run is at work.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let status = RunDir::new(&args.run).status()?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
        return Ok(Ending::Completed);
    }
    let stage = |stage: StageStatus| {
        let failed = if stage.num_failed > 0 { format!(", {} failed", stage.num_failed) } else { String::new() };
        format!("{} of {}{failed}", stage.num_done, stage.num_wanted)
    };
    writeln!(out, "prompts   {} of {} rows of the source", status.num_records, status.num_rows_read)?;
    writeln!(out, "generate  {}", stage(status.candidates))?;
    writeln!(out, "judge     {}", stage(status.verdicts))?;
    writeln!(out, "dataset   {}", if status.dataset_written { "written" } else { "not yet written" })?;
    Ok(Ending::Completed)
}

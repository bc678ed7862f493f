//! `pairwright status RUN`: how far a run is, or each of its shards and all of them.
//! Knows flags and words; nothing of journals.

use std::io::Write;
use std::path::PathBuf;

use crate::generate::Ending;
use crate::run::{RunDir, ShardsStatus, StageStatus, status_of_shards};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run's folder; of a run in shards the folder that holds them, or one of theirs
    run: PathBuf,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Prints the rows of each stage; may be called while the run is at work.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let mut out = std::io::stdout().lock();
    if let Some(status) = status_of_shards(&args.run)? {
        match args.json {
            true => writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?,
            false => shards(&mut out, &status)?,
        }
        return Ok(Ending::Completed);
    }
    let status = RunDir::new(&args.run).status()?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
        return Ok(Ending::Completed);
    }
    writeln!(out, "prompts   {} of {} rows of the source", status.num_records, status.num_rows_read)?;
    writeln!(out, "generate  {}", stage(status.candidates))?;
    writeln!(out, "judge     {}", stage(status.verdicts))?;
    if let Some(comparisons) = status.comparisons {
        writeln!(out, "compare   {}", stage(comparisons))?;
    }
    writeln!(out, "dataset   {}", if status.dataset_written { "written" } else { "not yet written" })?;
    Ok(Ending::Completed)
}

fn stage(stage: StageStatus) -> String {
    let failed = if stage.num_failed > 0 { format!(", {} failed", stage.num_failed) } else { String::new() };
    format!("{} of {}{failed}", stage.num_done, stage.num_wanted)
}

/// A line for each shard, the sum, and what they became.
fn shards(out: &mut impl Write, all: &ShardsStatus) -> anyhow::Result<()> {
    let mut lines = vec![["shard".to_owned(), "prompts".to_owned(), "generate".to_owned(), "judge".to_owned()]];
    let mut problems = Vec::new();
    for shard in &all.shards {
        let name = shard.shard.to_string();
        lines.push(match (&shard.status, &shard.problem) {
            (Some(status), _) => {
                [name, status.num_records.to_string(), stage(status.candidates), stage(status.verdicts)]
            }
            (None, None) => [name, "–".to_owned(), "not begun".to_owned(), String::new()],
            (None, Some(problem)) => {
                problems.push(problem);
                [name, "–".to_owned(), "cannot be read".to_owned(), String::new()]
            }
        });
    }
    lines.push(["sum".to_owned(), all.num_records.to_string(), stage(all.candidates), stage(all.verdicts)]);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for [name, prompts, generate, judge] in &lines {
        let line = format!("{name:<0$}  {prompts:>1$}  {generate:<2$}  {judge}", widths[0], widths[1], widths[2]);
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out, "complete  {} of {} shards", all.num_complete, all.shards.len())?;
    let merged = match all.merged {
        Some(run) if run.dataset_written => "yes, and the dataset is written",
        Some(_) => "begun, and not complete",
        None => "not yet",
    };
    writeln!(out, "merged    {merged}")?;
    for problem in problems {
        writeln!(out, "{problem}")?;
    }
    Ok(())
}

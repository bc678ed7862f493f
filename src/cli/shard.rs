//! `--shard`: which share of a run's rows a command does, said by the user or by who started the process.
//! Knows flags and folders; nothing of rows.

use std::io::Write;
use std::path::Path;

use super::exit::UsageError;
use super::progress::OutputArgs;
use super::shell;
use crate::config;
use crate::generate::Ending;
use crate::provenance::RunLock;
use crate::run::{RunDir, RunError};
use crate::shard::Shard;

/// The flag of commands whose rows may be shared out.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Several machines")]
pub(super) struct ShardArgs {
    /// Do share I of N of the rows, in a run of its own below the folder (shard-0000I-of-0000N), for `pairwright merge` to join. I counts
    /// from 0: 0/4, 1/4, 2/4, 3/4. A row's share depends on its prompt alone. `auto` asks who started the process: a Slurm array or
    /// srun, Open MPI, or an Indexed Job of Kubernetes with JOB_COMPLETIONS set. Without the flag nobody is asked
    #[arg(long, value_name = "I/N|auto")]
    pub(super) shard: Option<String>,
}

impl ShardArgs {
    /// The shard that is meant, if any.
    pub(super) fn shard(&self) -> anyhow::Result<Option<Shard>> {
        let Some(text) = self.shard.as_deref() else { return Ok(None) };
        let refused = |why: String, hint: &str| UsageError(format!("--shard {text}: {why}{hint}"));
        if text != "auto" {
            return Ok(Some(
                text.parse().map_err(|why| refused(why, "\nhint: the first of four is 0/4, the last 3/4"))?,
            ));
        }
        let place = config::place_in_job().map_err(|why| refused(why, ""))?.ok_or_else(|| {
            refused(
                "nobody says which part this process is".to_owned(),
                "\nhint: give --shard I/N; auto is for tasks of a Slurm array, srun, Open MPI, or a Kubernetes Job with JOB_COMPLETIONS set",
            )
        })?;
        let shard = format!("{}/{}", place.0, place.1).parse();
        Ok(Some(shard.map_err(|why| refused(why, "\nhint: give --shard I/N"))?))
    }

    /// The directory of the run, or of the shard of it.
    pub(super) fn run_dir(&self, out: &Path) -> anyhow::Result<RunDir> {
        Ok(match self.shard()? {
            None => RunDir::new(out),
            Some(shard) => RunDir::of_shard(out, shard)?,
        })
    }

    /// Writes into a lock which shard it is, and the command that goes on with it, which `merge` repeats where rows are missing.
    pub(super) fn note(&self, lock: &mut RunLock, name: &str) -> anyhow::Result<()> {
        if let Some(shard) = self.shard()? {
            lock.shard = Some(shard);
            lock.environment.notes.insert(name.to_owned(), shell::own_command(shard));
        }
        Ok(())
    }
}

/// Says that a shard is complete and what comes next; with --json prints how far it is.
pub(super) fn announce(run: &RunDir, shard: Shard, output: &OutputArgs) -> anyhow::Result<Ending> {
    if output.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&run.status()?)?)?;
    }
    let parent = run.root().parent().unwrap_or(Path::new("."));
    let merge = shell::join(["pairwright", "merge", &parent.to_string_lossy()]);
    output.say(&format!("shard {shard} is complete; when all {} are: {merge}", shard.count()));
    Ok(Ending::Completed)
}

/// A folder of shards is no run by itself.
pub(super) fn refuse_parent(out: &Path) -> Result<(), RunError> {
    let run = RunDir::new(out);
    match crate::run::shards_in(out)?.first() {
        Some((shard, _)) if !run.lock().exists() => Err(RunError::Shards {
            problems: vec![format!("{} holds shards of a run in {} parts", out.display(), shard.count())],
            hint: "give --shard I/N to work on one of them, or `pairwright merge` to make one run of them",
        }),
        _ => Ok(()),
    }
}

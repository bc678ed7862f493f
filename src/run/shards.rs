//! A run's shards: where they lie beside one another, what keeps them from being mixed up, and how far all of them are.
//! Knows folders and locks; computes no row and joins none (`merge` does).

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::directory::take_over;
use super::{Claim, RunDir, RunError, StageStatus, Status};
use crate::provenance::RunLock;
use crate::shard::Shard;

/// How far one shard is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardStatus {
    /// Which.
    pub shard: Shard,
    /// Its folder.
    pub path: PathBuf,
    /// `None`: it has not begun, or cannot be read.
    pub status: Option<Status>,
    /// Why it cannot be read.
    pub problem: Option<String>,
}

impl ShardStatus {
    /// Answers and ratings are there.
    pub fn is_complete(&self) -> bool {
        self.status.is_some_and(|status| status.is_judged())
    }
}

/// How far all shards of a run are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardsStatus {
    /// Each, by number; those without a folder too.
    pub shards: Vec<ShardStatus>,
    /// Shards with all answers and ratings.
    pub num_complete: usize,
    /// Rows of the source.
    pub num_rows_read: u64,
    /// Rows chosen, of all shards.
    pub num_records: u64,
    /// Answers generated. Those wanted are of all shards.
    pub candidates: StageStatus,
    /// Answers rated. Those wanted are of shards that have begun.
    pub verdicts: StageStatus,
    /// The run that they were merged into, if it lies in the same folder.
    pub merged: Option<Status>,
}

/// The shards in a folder, by number.
///
/// # Errors
/// If the folder cannot be read; one that does not exist has none.
pub fn shards_in(out: &Path) -> Result<Vec<(Shard, RunDir)>, RunError> {
    let entries = match std::fs::read_dir(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(RunError::Io { path: out.to_owned(), action: "read", source }),
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()),
    };
    let mut found: Vec<(Shard, RunDir)> =
        entries.filter_map(|path| Some((Shard::of_folder(&path)?, RunDir::new(&path)))).collect();
    found.sort_by_key(|(shard, _)| (shard.count(), shard.index()));
    Ok(found)
}

impl RunDir {
    /// The directory of a shard of the run at `out`.
    ///
    /// # Errors
    /// [`RunError::Shards`] if the run there is whole or has another number of shards.
    pub fn of_shard(out: &Path, shard: Shard) -> Result<Self, RunError> {
        let started = |(_, run): &(Shard, Self)| run.lock().exists();
        let found: Vec<(Shard, Self)> = shards_in(out)?.into_iter().filter(started).collect();
        let refused = |there: String| RunError::Shards {
            problems: vec![format!("{}: number of shards: {there} → {}", out.display(), shard.count())],
            hint: "give another --out, or the number of shards that the run there has",
        };
        if let Some((other, _)) = found.iter().find(|(other, _)| other.count() != shard.count()) {
            return Err(refused(other.count().to_string()));
        }
        if found.is_empty() && Self::new(out).lock().exists() {
            return Err(refused("(none)".to_owned()));
        }
        Ok(Self::new(&out.join(shard.folder_name())))
    }

    /// Shards that have begun beside this one, in the folder that it lies in.
    fn siblings(&self) -> Result<impl Iterator<Item = Self>, RunError> {
        let folder = crate::provenance::folder_of(self.root());
        let is_shard = Shard::of_folder(self.root()).is_some();
        let beside = if is_shard { shards_in(folder)? } else { Vec::new() };
        let own = self.root().to_owned();
        Ok(beside.into_iter().map(|(_, run)| run).filter(move |run| run.root() != own && run.lock().exists()))
    }

    /// The lock whose date the run takes over: its own, unless it is to begin anew, or that of a shard which began before it, so that
    /// all shards have one date also past midnight.
    ///
    /// # Errors
    /// As [`Self::existing_lock`].
    pub fn earlier_lock(&self, claim: Claim) -> Result<Option<RunLock>, RunError> {
        match self.existing_lock()?.filter(|_| claim != Claim::Anew) {
            Some(lock) => Ok(Some(lock)),
            None => Ok(self.siblings()?.next().map(|sibling| RunLock::read(&sibling.lock())).transpose()?),
        }
    }

    /// Refuses a shard made from other things than the one beside it, hours before merging would. One sibling stands for all, since
    /// each was held against one when it began. Changes that are accepted are noted, as where a run goes on.
    pub(super) fn check_siblings(&self, lock: &mut RunLock, claim: Claim) -> Result<(), RunError> {
        if lock.shard.is_none() {
            return Ok(());
        }
        let Some(sibling) = self.siblings()?.next() else { return Ok(()) };
        let found = RunLock::read(&sibling.lock())?;
        let differences = differences(&found, lock);
        if differences.is_empty() {
            return Ok(());
        }
        if claim == Claim::WithChanges && differences.iter().all(|difference| RunLock::is_harmless(difference)) {
            lock.keep(&found, differences);
            return Ok(());
        }
        Err(RunError::Shards {
            problems: vec![format!(
                "{} has other inputs or parameters: {}",
                sibling.root().display(),
                differences.join("; ")
            )],
            hint: "give another --out, or what the shards there were made from",
        })
    }

    /// Refuses the folder of a shard, where a whole run is needed.
    ///
    /// # Errors
    /// [`RunError::IsShard`].
    pub fn refuse_shard(&self, lock: &RunLock) -> Result<(), RunError> {
        match lock.shard {
            None => Ok(()),
            Some(shard) => Err(RunError::IsShard { path: self.root().to_owned(), shard }),
        }
    }
}

/// What differs between two shards, apart from their numbers, from how pairs are made, and from what one of them has not set yet.
pub(super) fn differences(there: &RunLock, here: &RunLock) -> Vec<String> {
    let (mut there, mut here) = (there.clone(), here.clone());
    take_over(&mut there, &here);
    take_over(&mut here, &there);
    for lock in [&mut there, &mut here] {
        lock.shard = None;
        lock.parameters.remove("pair");
    }
    there.differences(&here)
}

/// How far the shards in `out` are; `None` if there are none.
///
/// # Errors
/// If the folder, or a run that was merged there, cannot be read. What is wrong with a shard stands beside it.
pub fn status_of_shards(out: &Path) -> Result<Option<ShardsStatus>, RunError> {
    let found = shards_in(out)?;
    let Some((last, _)) = found.last().cloned() else { return Ok(None) };
    let merged = RunDir::new(out);
    let merged = if merged.prompts().exists() { Some(merged.status()?) } else { None };
    let nothing = StageStatus { num_done: 0, num_failed: 0, num_wanted: 0 };
    let mut all = ShardsStatus {
        shards: Vec::new(),
        num_complete: 0,
        num_rows_read: 0,
        num_records: 0,
        candidates: nothing,
        verdicts: nothing,
        merged,
    };
    // Another number of shards is refused when a run begins; a folder that was copied here is still shown.
    let strangers = found.iter().map(|(shard, _)| *shard).filter(|shard| shard.count() != last.count());
    for shard in strangers.chain(last.all()) {
        let run = RunDir::new(&out.join(shard.folder_name()));
        let (status, problem) = match run.status() {
            Ok(status) => (Some(status), None),
            Err(RunError::NoRun { .. }) => (None, None),
            Err(error) => (None, Some(error.to_string())),
        };
        all.shards.push(ShardStatus { shard, path: run.root().to_owned(), status, problem });
        let Some(status) = status else { continue };
        for (sum, one) in [(&mut all.candidates, status.candidates), (&mut all.verdicts, status.verdicts)] {
            sum.num_done += one.num_done;
            sum.num_failed += one.num_failed;
            sum.num_wanted += one.num_wanted;
        }
        // A shard knows of all rows, also of those whose shards have not begun.
        all.num_rows_read = status.num_rows_read;
        all.num_records = status.num_records_of_all.unwrap_or(status.num_records as u64);
        let lock = RunLock::read(&run.lock())?;
        let num_samples = super::stages::num_samples(&lock);
        let num_generators = lock.generators.len().max(1);
        all.candidates.num_wanted = (all.num_records * num_samples) as usize * num_generators;
    }
    all.num_complete = all.shards.iter().filter(|shard| shard.is_complete()).count();
    Ok(Some(all))
}

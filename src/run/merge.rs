//! Shards into one run: whether they are all there, complete and of one make, and the run that they are together, which has the
//! bytes of one that was never cut. Knows locks, rows and journals; the dataset is made from the merged run as from any other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::directory::{CANDIDATES, COMPARISONS, KNOWN_COMPARISONS, KNOWN_VERDICTS, RATIONALES, VERDICTS};
use super::{Claim, LoadedRun, Occupied, RunDir, RunError, WholeRows, shards};
use crate::demo;
use crate::generate::{GenerateRow, StageSpeed};
use crate::judge::{CompareRow, JudgeRow, RationaleRow};
use crate::provenance::{RunLock, write_atomic};
use crate::shard::Shard;

/// All shards of a run, read and found to be one.
#[derive(Debug)]
pub struct Merge {
    /// The run's lock, without a shard.
    pub lock: RunLock,
    /// Of how many shards.
    pub num_shards: u32,
    parts: Vec<RunDir>,
    run: LoadedRun,
    rows: Rows,
}

/// A shard that has been read.
struct Part {
    dir: RunDir,
    shard: Shard,
    run: LoadedRun,
}

const HINT: &str = "run these commands to their end; what is not of this run belongs into another folder, and a shard that was made from \
                    other things is made anew in an empty one";

impl Merge {
    /// Reads the shards in `dirs`, in any order.
    ///
    /// # Errors
    /// [`RunError::Shards`], which names each shard that is missing, incomplete, twice there or not of this run.
    pub fn read(dirs: &[RunDir]) -> Result<Self, RunError> {
        let mut problems = Vec::new();
        let mut parts = Vec::new();
        for dir in dirs {
            match dir.load() {
                Ok(run) => match run.lock.shard {
                    Some(shard) => parts.push(Part { dir: dir.clone(), shard, run }),
                    None => problems.push(format!("{} is a whole run and no shard", dir.root().display())),
                },
                Err(RunError::NoRun { .. }) if Shard::of_folder(dir.root()).is_some() => {}
                Err(error) => problems.push(one_line(&error)),
            }
        }
        parts.sort_by_key(|part| part.shard);
        compare(&parts, &mut problems);
        let mut all = Rows::default();
        for part in &parts {
            problems.extend(all.take(part)?);
        }
        let Some(first) = parts.first().filter(|_| problems.is_empty()) else {
            return Err(RunError::Shards { problems, hint: HINT });
        };
        let mut records: Vec<_> = parts.iter().flat_map(|part| part.run.records.iter().cloned()).collect();
        records.sort_by_key(|record| record.row_index);
        let whole = WholeRows::of(&records).ok();
        if whole != first.run.whole {
            let problems = vec!["together they have other rows than the source had when they began".to_owned()];
            return Err(RunError::Shards { problems, hint: HINT });
        }
        let lock = merged_lock(&parts, first);
        let LoadedRun { num_rows_read, drops, .. } = first.run.clone();
        let place: HashMap<&str, usize> = records.iter().enumerate().map(|(at, row)| (row.id.as_str(), at)).collect();
        let place = |id: &str| place.get(id).copied().unwrap_or(usize::MAX);
        all.candidates.sort_by_cached_key(|row| (place(row.record_id()), row.model().to_owned(), row.sample_index()));
        all.verdicts.sort_by_cached_key(|row| {
            let ((id, source, model, sample_index), judge) = row.key();
            (place(&id), sample_index, model, format!("{source:?}"), judge)
        });
        all.comparisons.sort_by_cached_key(|row| {
            let (id, answers, judge) = row.key();
            (place(&id), answers, judge)
        });
        all.rationales.sort_by_cached_key(|row| {
            let ((id, source, model, sample_index), judge) = row.key();
            (place(&id), sample_index, model, format!("{source:?}"), judge)
        });
        Ok(Self {
            num_shards: first.shard.count(),
            parts: parts.iter().map(|part| part.dir.clone()).collect(),
            run: LoadedRun { lock: lock.clone(), records, num_rows_read, drops, whole: None },
            lock,
            rows: all,
        })
    }

    /// Whether `out` is this run, with all of its answers and ratings.
    ///
    /// # Errors
    /// Damaged files.
    pub fn is_in(&self, out: &RunDir) -> Result<bool, RunError> {
        if !out.lock().exists() || !out.prompts().exists() {
            return Ok(false);
        }
        let status = out.status()?;
        let is_same = self.lock.differences(&RunLock::read(&out.lock())?).is_empty();
        Ok(is_same && status.is_judged())
    }

    /// Makes `out` the run that the shards are together, as far as its ratings. At each moment it is an ordinary run that has got so
    /// far: whoever comes after a kill goes on. The folder is this process's as long as what is returned lives.
    ///
    /// # Errors
    /// A folder that holds something else, or files that cannot be written.
    pub fn write(&self, out: &RunDir) -> Result<(LoadedRun, Occupied), RunError> {
        let mut lock = self.lock.clone();
        let beside = |dir: &RunDir| dir.root().parent() == Some(out.root());
        if !out.lock().exists() && self.parts.iter().any(beside) {
            // The shards' own folder: besides them it may hold what it likes, but nothing that a run would write.
            let ours = [
                out.prompts(),
                out.known_rows(),
                out.journals(),
                out.dataset(),
                out.report(),
                out.summary(),
                out.speeds(),
            ];
            if ours.iter().any(|path| path.exists()) {
                return Err(RunError::NotOurs { path: out.root().to_owned() });
            }
            lock.write(&out.lock())?;
        }
        let occupied = out.claim(&mut lock, Claim::Same)?;
        if self.parts.iter().any(|part| part.demo().exists()) {
            let unwritable = |source| RunError::Io { path: out.demo(), action: "written", source };
            demo::write(&out.demo()).map_err(unwritable)?;
        }
        if !out.prompts().exists() {
            out.store_prompts(&self.run.records, self.run.num_rows_read, &self.run.drops, None)?;
        }
        let rows = &self.rows;
        append(out, &lock, CANDIDATES, &rows.candidates, GenerateRow::key)?;
        // Of tests and comparisons nothing is written where there is none, as in a run by itself.
        append(out, &lock, KNOWN_VERDICTS, &rows.known_verdicts, JudgeRow::key)?;
        append(out, &lock, KNOWN_COMPARISONS, &rows.known_comparisons, CompareRow::key)?;
        append(out, &lock, COMPARISONS, &rows.comparisons, CompareRow::key)?;
        append(out, &lock, RATIONALES, &rows.rationales, RationaleRow::key)?;
        append(out, &lock, VERDICTS, &rows.verdicts, JudgeRow::key)?;
        self.copy_speeds(out)?;
        Ok((out.load()?, occupied))
    }

    /// Puts the shards' figures of speed together, unless the run has some.
    fn copy_speeds(&self, out: &RunDir) -> Result<(), RunError> {
        if out.speeds().exists() {
            return Ok(());
        }
        let mut text = String::new();
        for part in &self.parts {
            let path = part.speeds();
            let speeds = StageSpeed::read_all(&path).map_err(|source| RunError::Io { path, action: "read", source })?;
            for speed in speeds {
                let unwritable = |error: serde_json::Error| RunError::Io {
                    path: out.speeds(),
                    action: "written",
                    source: error.into(),
                };
                text += &(serde_json::to_string(&speed).map_err(unwritable)? + "\n");
            }
        }
        Ok(write_atomic(&out.speeds(), text.as_bytes())?)
    }
}

/// Appends the rows that a stage's journal lacks, in their order.
fn append<T: Serialize + DeserializeOwned, K: Eq + std::hash::Hash>(
    out: &RunDir,
    lock: &RunLock,
    stage: &str,
    rows: &[T],
    key: impl Fn(&T) -> K,
) -> Result<(), RunError> {
    if rows.is_empty() && ![CANDIDATES, VERDICTS].contains(&stage) {
        return Ok(());
    }
    let (mut journal, there) = out.open_stage::<T>(stage, lock)?;
    let known: HashSet<K> = there.iter().map(&key).collect();
    for row in rows.iter().filter(|row| !known.contains(&key(row))) {
        journal.append(row)?;
    }
    Ok(journal.sync()?)
}

/// The lock that the parts have in common.
fn merged_lock(parts: &[Part], first: &Part) -> RunLock {
    let mut lock = first.run.lock.clone();
    lock.shard = None;
    let devices: BTreeSet<&str> = parts.iter().map(|part| part.run.lock.environment.device.as_str()).collect();
    lock.environment.device = devices.into_iter().collect::<Vec<_>>().join("; ");
    let accepted: BTreeSet<&String> = parts.iter().flat_map(|part| &part.run.lock.accepted_changes).collect();
    lock.accepted_changes = accepted.into_iter().cloned().collect();
    lock.environment.num_threads = None;
    lock.environment.max_batch_size = None;
    lock.environment.notes = BTreeMap::from([("shards".to_owned(), parts.len().to_string())]);
    lock
}

/// What is wrong with the parts beside one another: one that is missing, one too many, one that was made from other things.
fn compare(parts: &[Part], problems: &mut Vec<String>) {
    let Some(first) = parts.first() else {
        problems.push("there is no shard".to_owned());
        return;
    };
    for shard in first.shard.all() {
        let same: Vec<String> =
            parts.iter().filter(|part| part.shard == shard).map(|part| part.dir.root().display().to_string()).collect();
        match same.len() {
            0 => problems.push(format!("shard {shard} is missing; {}", start_of(shard, first))),
            1 => {}
            _ => problems.push(format!("shard {shard} is there more than once: {}", same.join(", "))),
        }
    }
    for part in parts.iter().filter(|part| part.shard.count() != first.shard.count()) {
        let path = part.dir.root().display();
        problems.push(format!("{path} is shard {}, and {} is {}", part.shard, first.dir.root().display(), first.shard));
    }
    for part in parts.iter().skip(1).filter(|part| part.shard.count() == first.shard.count()) {
        let (there, here) = (&first.run, &part.run);
        let mut differences = shards::differences(&there.lock, &here.lock);
        if there.lock.created != here.lock.created {
            differences.push(format!("date: {} → {}", there.lock.created, here.lock.created));
        }
        if let (Some(a), Some(b)) = (there.lock.parameters.get("pair"), here.lock.parameters.get("pair"))
            && a != b
        {
            differences.push(format!("parameters.pair: {a} → {b}"));
        }
        // Sources of equal locks give equal rows, unless what was stored of them was changed.
        if differences.is_empty() {
            let same =
                there.whole == here.whole && there.num_rows_read == here.num_rows_read && there.drops == here.drops;
            differences.extend((!same).then(|| "the rows of the source, by their number or checksum".to_owned()));
        }
        if !differences.is_empty() {
            let (path, list) = (part.dir.root().display(), differences.join("; "));
            problems.push(format!("{path} (shard {}) differs from shard {}: {list}", part.shard, first.shard));
        }
    }
}

/// How a shard is begun, from the command that began another one.
fn start_of(shard: Shard, other: &Part) -> String {
    let notes = &other.run.lock.environment.notes;
    let command = ["make", "generate"].iter().find_map(|name| notes.get(*name));
    let command = command.and_then(|command| command.strip_suffix(&format!(" --shard {}", other.shard)));
    match command {
        Some(command) => format!("begin with: {command} --shard {shard}"),
        None => format!("begin with the command of the others and --shard {shard}"),
    }
}

/// The rows of all parts.
#[derive(Debug, Default)]
struct Rows {
    candidates: Vec<GenerateRow>,
    verdicts: Vec<JudgeRow>,
    comparisons: Vec<CompareRow>,
    rationales: Vec<RationaleRow>,
    known_verdicts: Vec<JudgeRow>,
    known_comparisons: Vec<CompareRow>,
}

impl Rows {
    /// Takes a part's rows, if it has its own and all of them; else says what is wrong with it.
    fn take(&mut self, part: &Part) -> Result<Option<String>, RunError> {
        let Part { dir, shard, run } = part;
        let place = format!("{} (shard {shard})", dir.root().display());
        if let Some(row) = run.records.iter().find(|row| !shard.owns(&row.id)) {
            let other = Shard::of_row(&row.id, shard.count());
            return Ok(Some(format!("{place} has the prompt {}, which belongs to shard {other}", row.id)));
        }
        let rows = match Self::read(dir, &run.lock) {
            Ok(rows) => rows,
            Err(error) => return Ok(Some(one_line(&error))),
        };
        let own: HashSet<&str> = run.records.iter().map(|row| row.id.as_str()).collect();
        let ids = rows.candidates.iter().map(|row| row.record_id().to_owned());
        let ids = ids.chain(rows.verdicts.iter().map(|row| row.answer().0));
        let ids = ids.chain(rows.rationales.iter().map(|row| row.answer().0));
        let stranger = ids.chain(rows.comparisons.iter().map(|row| row.key().0));
        if let Some(id) = stranger.into_iter().find(|id| !own.contains(id.as_str())) {
            return Ok(Some(format!("{place} has a row of the prompt {id}, which is none of its own")));
        }
        let answers: HashSet<_> = rows.candidates.iter().map(GenerateRow::key).collect();
        let ratings: HashSet<_> = rows.verdicts.iter().map(JudgeRow::key).collect();
        let comparisons: HashSet<_> = rows.comparisons.iter().map(CompareRow::key).collect();
        let rationales: HashSet<_> = rows.rationales.iter().map(RationaleRow::key).collect();
        let lengths = [rows.candidates.len(), rows.verdicts.len(), rows.comparisons.len(), rows.rationales.len()];
        if [answers.len(), ratings.len(), comparisons.len(), rationales.len()] != lengths {
            return Ok(Some(format!("{place} has a row twice in a journal")));
        }
        let status = dir.status()?;
        let (candidates_left, verdicts_left) = (!status.candidates.is_done(), !status.is_judged());
        if candidates_left || verdicts_left {
            let notes = &run.lock.environment.notes;
            let names: &[&str] = if candidates_left { &["make", "generate"] } else { &["judge", "make"] };
            let command = names.iter().find_map(|name| notes.get(*name)).cloned();
            let path = dir.root().display();
            let command = command.unwrap_or_else(|| match candidates_left {
                true => format!("the command that began it, with --shard {shard}"),
                false => format!("pairwright judge {path} --judge MODEL"),
            });
            let [answers, ratings] =
                [status.candidates, status.verdicts].map(|stage| format!("{} of {}", stage.num_done, stage.num_wanted));
            return Ok(Some(format!("{place} has {answers} answers and {ratings} ratings; go on with: {command}")));
        }
        self.candidates.extend(rows.candidates);
        self.verdicts.extend(rows.verdicts);
        self.comparisons.extend(rows.comparisons);
        self.rationales.extend(rows.rationales);
        self.known_verdicts.extend(rows.known_verdicts);
        self.known_comparisons.extend(rows.known_comparisons);
        Ok(None)
    }

    fn read(dir: &RunDir, lock: &RunLock) -> Result<Self, RunError> {
        Ok(Self {
            candidates: dir.read_stage(CANDIDATES, lock)?,
            verdicts: dir.read_stage(VERDICTS, lock)?,
            comparisons: dir.read_stage(COMPARISONS, lock)?,
            rationales: dir.read_stage(RATIONALES, lock)?,
            known_verdicts: dir.read_stage(KNOWN_VERDICTS, lock)?,
            known_comparisons: dir.read_stage(KNOWN_COMPARISONS, lock)?,
        })
    }
}

/// An error as one entry of a list; its hint is about a run by itself.
fn one_line(error: &RunError) -> String {
    error.to_string().lines().filter(|line| !line.starts_with("hint:")).map(str::trim).collect::<Vec<_>>().join(" ")
}

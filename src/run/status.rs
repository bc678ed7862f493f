//! How far a run is: each stage, and in it each model. Knows what the journals hold and what the lock wants; runs no stage.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::directory::{CANDIDATES, COMPARISONS, VERDICTS};
use super::{LoadedRun, RunDir, RunError};
use crate::generate::GenerateRow;
use crate::judge::{CompareRow, JudgeRow};
use crate::provenance::RunLock;

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StageStatus {
    /// Rows done, failures included.
    pub num_done: usize,
    /// Rows that failed.
    pub num_failed: usize,
    /// Rows to do.
    pub num_wanted: usize,
}

impl StageStatus {
    fn sum(all: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self { num_done: 0, num_failed: 0, num_wanted: 0 };
        for one in all {
            sum.num_done += one.num_done;
            sum.num_failed += one.num_failed;
            sum.num_wanted += one.num_wanted;
        }
        sum
    }

    /// Nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.num_done >= self.num_wanted
    }
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Rows of the source.
    pub num_rows_read: u64,
    /// Rows chosen; of a shard, its own.
    pub num_records: usize,
    /// Of a shard: the rows chosen for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_records_of_all: Option<u64>,
    /// Answers generated, by all models.
    pub candidates: StageStatus,
    /// Answers rated, by all judges.
    pub verdicts: StageStatus,
    /// Pairs of answers compared; `None` where none are wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparisons: Option<StageStatus>,
    /// The dataset is written.
    pub dataset_written: bool,
}

impl Status {
    /// Every answer is there, and all that was to be said of it.
    pub fn is_judged(&self) -> bool {
        let compared = self.comparisons.is_none_or(|stage| stage.is_done());
        self.candidates.is_done() && self.verdicts.is_done() && compared
    }
}

/// How far each model is in each stage, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Each generator's answers.
    pub candidates: BTreeMap<String, StageStatus>,
    /// Each judge's ratings. How many are wanted is known when all answers are there.
    pub verdicts: BTreeMap<String, StageStatus>,
    /// Each comparing judge's comparisons; empty where none are wanted.
    pub comparisons: BTreeMap<String, StageStatus>,
    /// Answers there are to rate, those of people included.
    pub num_answers: usize,
}

impl LoadedRun {
    /// Answers to rate once every prompt has this many generated ones; those that fail make them fewer.
    pub fn num_answers(&self, num_samples: u32) -> u64 {
        let num_human = self.records.iter().filter(|record| record.response.is_some()).count();
        self.records.len() as u64 * u64::from(num_samples) + num_human as u64
    }
}

/// Whether the lock asks for comparisons of two answers.
pub(super) fn wants_comparisons(lock: &RunLock) -> bool {
    lock.parameters.contains_key("compare")
}

/// The judges that compare answers: those that speak.
pub(super) fn comparing_judges(lock: &RunLock) -> impl Iterator<Item = &str> {
    let wanted = wants_comparisons(lock);
    lock.judges.iter().filter(move |judge| wanted && !judge.is_reward).map(|judge| judge.name.as_str())
}

impl RunDir {
    /// Refuses to judge a run that lacks answers.
    ///
    /// # Errors
    /// [`RunError::Incomplete`], or what [`Self::status`] refuses.
    pub fn require_candidates(&self) -> Result<Status, RunError> {
        let hint = "run `pairwright generate` (or `make`) with the same parameters to its end first";
        let status = self.status()?;
        self.require(status.candidates, "generated answers", hint)?;
        Ok(status)
    }

    /// Refuses to pair a run that lacks answers or ratings.
    ///
    /// # Errors
    /// [`RunError::Incomplete`], or what [`Self::status`] refuses.
    pub fn require_verdicts(&self) -> Result<Status, RunError> {
        let hint = "run `pairwright judge` (or `make`) with the same parameters to its end first";
        let status = self.require_candidates()?;
        self.require(status.verdicts, "verdicts", hint)?;
        if let Some(comparisons) = status.comparisons {
            self.require(comparisons, "comparisons", hint)?;
        }
        Ok(status)
    }

    fn require(&self, stage: StageStatus, what: &'static str, hint: &'static str) -> Result<(), RunError> {
        if stage.is_done() {
            return Ok(());
        }
        let (done, wanted) = (stage.num_done, stage.num_wanted);
        Err(RunError::Incomplete { path: self.root().to_owned(), done, wanted, what, hint })
    }

    /// How far each model is.
    ///
    /// # Errors
    /// [`RunError::NoRun`], or damaged files.
    pub fn progress(&self) -> Result<(LoadedRun, Progress), RunError> {
        let run = self.load()?;
        let progress = self.progress_of(&run)?;
        Ok((run, progress))
    }

    fn progress_of(&self, run: &LoadedRun) -> Result<Progress, RunError> {
        let samples = super::stages::num_samples(&run.lock) as usize;
        let rows: Vec<GenerateRow> = self.read_stage(CANDIDATES, &run.lock)?;
        let is_failure = |row: &GenerateRow| matches!(row, GenerateRow::Failure(_));
        let mut progress = Progress::default();
        for model in &run.lock.generators {
            let own = || rows.iter().filter(|row| row.model() == model.name);
            let num_failed = own().filter(|row| is_failure(row)).count();
            let num_wanted = run.records.len() * samples;
            let status = StageStatus { num_done: own().count(), num_failed, num_wanted };
            progress.candidates.insert(model.name.clone(), status);
        }
        let answered: HashSet<&str> = rows.iter().filter_map(GenerateRow::answered).collect();
        let human = run.records.iter().filter(|r| r.response.is_some() && answered.contains(r.id.as_str())).count();
        progress.num_answers = rows.iter().filter(|row| !is_failure(row)).count() + human;
        let verdicts: Vec<JudgeRow> = self.read_stage(VERDICTS, &run.lock)?;
        for judge in &run.lock.judges {
            let own = || verdicts.iter().filter(|row| row.judge() == judge.name);
            let num_failed = own().filter(|row| matches!(row, JudgeRow::Failure(_))).count();
            let status = StageStatus { num_done: own().count(), num_failed, num_wanted: progress.num_answers };
            progress.verdicts.insert(judge.name.clone(), status);
        }
        if wants_comparisons(&run.lock) {
            let num_wanted = super::stages::compare_items(run, &rows).len();
            let comparisons: Vec<CompareRow> = self.read_stage(COMPARISONS, &run.lock)?;
            for judge in comparing_judges(&run.lock) {
                let own = || comparisons.iter().filter(|row| row.key().2 == judge);
                let num_failed = own().filter(|row| matches!(row, CompareRow::Failure(_))).count();
                let status = StageStatus { num_done: own().count(), num_failed, num_wanted };
                progress.comparisons.insert(judge.to_owned(), status);
            }
        }
        Ok(progress)
    }

    /// How far the run is.
    ///
    /// # Errors
    /// [`RunError::NoRun`], or damaged files.
    pub fn status(&self) -> Result<Status, RunError> {
        let (run, progress) = self.progress()?;
        let mut verdicts = StageStatus::sum(progress.verdicts.values().copied());
        if run.lock.judges.is_empty() {
            // Nobody is named yet: as many as one judge has to do.
            verdicts.num_wanted = progress.num_answers;
        }
        let comparisons = wants_comparisons(&run.lock).then(|| StageStatus::sum(progress.comparisons.into_values()));
        Ok(Status {
            num_rows_read: run.num_rows_read,
            num_records: run.records.len(),
            num_records_of_all: run.whole.map(|whole| whole.num_records),
            candidates: StageStatus::sum(progress.candidates.into_values()),
            verdicts,
            comparisons,
            dataset_written: self.dataset_lock().exists() && self.summary().exists(),
        })
    }
}

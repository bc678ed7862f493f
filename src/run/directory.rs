//! A run's directory: what lies where, whose it is, and how far each stage is.
//! Knows files; runs no stage.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Occupied, RunError};
use crate::data::{DropCounts, PromptRecord};
use crate::generate::GenerateRow;
use crate::journal::{Journal, JournalHeader, read_journal};
use crate::judge::known::{self, KnownRow};
use crate::judge::{CompareRow, JudgeRow};
use crate::provenance::{GENERATORS, RunLock, sha256_hex, write_atomic};
use crate::shard::Shard;

/// Names of the journals.
pub(super) const CANDIDATES: &str = "candidates";
/// See [`CANDIDATES`].
pub(super) const VERDICTS: &str = "verdicts";
/// See [`CANDIDATES`].
pub(super) const COMPARISONS: &str = "comparisons";
/// What judges wrote about answers; of the lock's parameters too.
pub(super) const RATIONALES: &str = "rationales";
/// How likely generators find the human answers.
pub(super) const LIKELIHOODS: &str = "likelihoods";
/// Ratings of known answers.
pub(super) const KNOWN_VERDICTS: &str = "known-verdicts";
/// Comparisons of known answers.
pub(super) const KNOWN_COMPARISONS: &str = "known-comparisons";

/// Paths of a run. Nothing is read or written until asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    root: PathBuf,
}

/// First line of the stored prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PromptsHeader {
    num_rows_read: u64,
    drops: DropCounts,
    num_records: u64,
    /// Of the lines behind this one.
    sha256: String,
    /// Of a shard: what the lines of all shards would be together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whole: Option<WholeRows>,
}

/// The rows that the shards of a run have together, as each of them knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeRows {
    /// How many.
    pub num_records: u64,
    /// Of their stored form, in the source's order.
    pub sha256: String,
}

/// What the first stage left.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedRun {
    /// What the run is made from.
    pub lock: RunLock,
    /// The chosen rows.
    pub records: Vec<PromptRecord>,
    /// Rows that the source had.
    pub num_rows_read: u64,
    /// What reading the source dropped.
    pub drops: DropCounts,
    /// Of a shard: all rows that were chosen, of which it has some.
    pub whole: Option<WholeRows>,
}

impl WholeRows {
    /// How many these are, and the checksum of their stored form.
    pub(super) fn of(records: &[PromptRecord]) -> Result<Self, serde_json::Error> {
        let mut rows = String::new();
        for record in records {
            rows += &(serde_json::to_string(record)? + "\n");
        }
        Ok(Self { num_records: records.len() as u64, sha256: sha256_hex(rows.as_bytes()) })
    }
}

/// What becomes of a run that is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Claim {
    /// It is continued, if all that its rows depend on is the same.
    #[default]
    Same,
    /// It is continued, also if something differs that leaves its rows usable.
    WithChanges,
    /// It is removed.
    Anew,
}

impl RunDir {
    /// The run at `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// People's votes, which no stage touches.
    pub fn annotations(&self) -> PathBuf {
        self.root.join(crate::provenance::ANNOTATIONS_FOLDER)
    }

    /// The lock file of [`Self::export`].
    pub fn export_lock(&self) -> PathBuf {
        self.export().join(crate::provenance::LOCK_FILE_NAME)
    }

    /// The dataset with people's votes, where `export` writes it unless told otherwise.
    pub fn export(&self) -> PathBuf {
        self.root.join("export")
    }

    /// The embedded prompts and model of a demonstration.
    pub fn demo(&self) -> PathBuf {
        self.root.join("demo")
    }

    /// What the run is made from.
    pub fn lock(&self) -> PathBuf {
        self.root.join(crate::provenance::LOCK_FILE_NAME)
    }

    /// The chosen rows.
    pub fn prompts(&self) -> PathBuf {
        self.root.join("prompts.jsonl")
    }

    /// The rows that judges are tested with.
    pub fn known_rows(&self) -> PathBuf {
        self.root.join("known-answers.json")
    }

    /// The folder of the journals.
    pub fn journals(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The dataset, ready to be pushed as it is.
    pub fn dataset(&self) -> PathBuf {
        self.root.join("dataset")
    }

    /// What the dataset was made from, as of its writing: the published part of the lock, without paths and machine.
    pub fn dataset_lock(&self) -> PathBuf {
        self.dataset().join(crate::provenance::LOCK_FILE_NAME)
    }

    /// The report.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.md")
    }

    /// The report for a browser.
    pub fn report_page(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The report's numbers.
    pub fn summary(&self) -> PathBuf {
        self.root.join("summary.json")
    }

    /// How fast stages were, a [`crate::generate::StageSpeed`] a line: of this run's machines, and no part of what it makes.
    pub fn speeds(&self) -> PathBuf {
        self.root.join("speed.jsonl")
    }

    /// What `plan --save` predicted of the run, which nothing that is made depends on.
    pub fn plan(&self) -> PathBuf {
        self.root.join("plan.json")
    }

    /// The lock that is there, if any; refuses a folder that holds something else.
    ///
    /// # Errors
    /// [`RunError::NotOurs`], or a damaged lock file.
    pub fn existing_lock(&self) -> Result<Option<RunLock>, RunError> {
        if self.lock().exists() {
            return Ok(Some(RunLock::read(&self.lock())?));
        }
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RunError::Io { path: self.root.clone(), action: "read", source }),
            Ok(entries) => entries,
        };
        // A kill while the lock is written leaves its temporary file, which is no reason to refuse the folder.
        let is_leftover =
            |name: &std::ffi::OsStr| name == super::IN_USE || name.to_string_lossy().starts_with(".run.lock.tmp-");
        let mut others = entries
            .filter_map(Result::ok)
            .filter(|entry| ![self.demo(), self.annotations(), self.export(), self.plan()].contains(&entry.path()))
            .filter(|entry| !is_leftover(&entry.file_name()));
        match others.next() {
            None => Ok(None),
            Some(_) => Err(RunError::NotOurs { path: self.root.clone() }),
        }
    }

    /// Refuses a run of other prompts and models than the embedded demonstration's.
    ///
    /// # Errors
    /// [`RunError::OtherRun`], or what [`Self::existing_lock`] refuses.
    pub fn check_demo(&self) -> Result<(), RunError> {
        match self.existing_lock()? {
            Some(lock) if !self.demo().exists() => Err(RunError::OtherRun {
                path: self.root.clone(),
                differences: vec![format!("source: {} → the embedded demonstration", lock.source.path)],
                is_harmless: false,
            }),
            _ => Ok(()),
        }
    }

    /// Starts the run or takes up the one that is there. What only later stages use may be missing on either side, and is
    /// then taken over; pairing may differ, since it touches neither answers nor ratings. A run may get further models; none of those that
    /// it has may be missing.
    ///
    /// # Errors
    /// [`RunError::NotOurs`], [`RunError::InUse`], [`RunError::OtherRun`] saying what differs, or files that cannot be written.
    pub fn claim(&self, lock: &mut RunLock, claim: Claim) -> Result<Occupied, RunError> {
        let create = |path: &Path| {
            std::fs::create_dir_all(path).map_err(|source| RunError::Io {
                path: path.to_owned(),
                action: "created",
                source,
            })
        };
        // A shard that begins is held against another one; before anything is removed.
        if claim == Claim::Anew || self.existing_lock()?.is_none() {
            self.check_siblings(lock, claim)?;
        }
        create(&self.root)?;
        let occupied = Occupied::take(&self.root)?;
        if claim == Claim::Anew {
            self.clear()?;
        }
        let there = self.existing_lock()?;
        if let Some(mut found) = there.clone() {
            lock.order_like(&found);
            take_over(lock, &found);
            take_over(&mut found, lock);
            found.grow(lock);
            found.parameters.remove("pair");
            let mut compared = lock.clone();
            compared.parameters.remove("pair");
            let differences = found.differences(&compared);
            let is_harmless = differences.iter().all(|difference| RunLock::is_harmless(difference));
            if !(differences.is_empty() || is_harmless && claim == Claim::WithChanges) {
                return Err(RunError::OtherRun { path: self.root.clone(), differences, is_harmless });
            }
            lock.keep(&found, differences);
        }
        // The lock comes first: a folder that holds anything else without it would be refused after a kill.
        if there.as_ref() != Some(lock) {
            lock.write(&self.lock())?;
        }
        create(&self.journals())?;
        Ok(occupied)
    }

    /// Removes all that runs write here, the lock last: who is killed before leaves a run that can still be removed.
    fn clear(&self) -> Result<(), RunError> {
        if self.existing_lock()?.is_none() {
            return Ok(());
        }
        let gone = |path: PathBuf, result: std::io::Result<()>| match result {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(RunError::Io { path, action: "removed", source })
            }
            _ => Ok(()),
        };
        for folder in [self.dataset(), self.journals()] {
            let result = std::fs::remove_dir_all(&folder);
            gone(folder, result)?;
        }
        let files = [
            self.prompts(),
            self.known_rows(),
            self.report(),
            self.report_page(),
            self.summary(),
            self.speeds(),
            self.lock(),
        ];
        for file in files {
            let result = std::fs::remove_file(&file);
            gone(file, result)?;
        }
        Ok(())
    }

    /// Stores the chosen rows, or those of them that `shard` has, all at once; and before them the rows that judges are tested with, which
    /// are of the whole run.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn store_prompts(
        &self,
        records: &[PromptRecord],
        num_rows_read: u64,
        drops: &DropCounts,
        shard: Option<Shard>,
    ) -> Result<(), RunError> {
        let unwritable =
            |error: serde_json::Error| RunError::Io { path: self.prompts(), action: "written", source: error.into() };
        let (mut rows, mut num_records) = (String::new(), 0);
        for record in records.iter().filter(|record| shard.is_none_or(|shard| shard.owns(&record.id))) {
            rows += &(serde_json::to_string(record).map_err(unwritable)? + "\n");
            num_records += 1;
        }
        let whole = match shard {
            None => None,
            Some(_) => Some(WholeRows::of(records).map_err(unwritable)?),
        };
        let sha256 = sha256_hex(rows.as_bytes());
        let header = PromptsHeader { num_rows_read, drops: drops.clone(), num_records, sha256, whole };
        let text = serde_json::to_string(&header).map_err(unwritable)? + "\n" + &rows;
        let known = serde_json::to_string(&known::choose(records)).map_err(unwritable)?;
        write_atomic(&self.known_rows(), known.as_bytes())?;
        Ok(write_atomic(&self.prompts(), text.as_bytes())?)
    }

    /// Reads lock and rows of a run that has them.
    ///
    /// # Errors
    /// [`RunError::NoRun`], or damaged files.
    pub fn load(&self) -> Result<LoadedRun, RunError> {
        let no_run = |missing| RunError::NoRun { path: self.root.clone(), missing };
        if !self.lock().exists() {
            return Err(no_run("run.lock"));
        }
        let lock = RunLock::read(&self.lock())?;
        let path = self.prompts();
        if !path.exists() {
            return Err(no_run("prompts.jsonl"));
        }
        let unreadable = |source| RunError::Io { path: path.clone(), action: "read", source };
        let bytes = std::fs::read(&path).map_err(unreadable)?;
        let damaged = |line: usize, what: String| RunError::StoredPrompts { path: path.clone(), line: line + 1, what };
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged(0, "it is not UTF-8".to_owned()))?;
        let (first, rows) = text.split_once('\n').ok_or_else(|| damaged(0, "its rows are missing".to_owned()))?;
        let header: PromptsHeader = serde_json::from_str(first).map_err(|error| damaged(0, error.to_string()))?;
        let records: Vec<PromptRecord> = rows
            .lines()
            .enumerate()
            .map(|(line, text)| serde_json::from_str(text).map_err(|error| damaged(line + 1, error.to_string())))
            .collect::<Result<_, _>>()?;
        if records.len() as u64 != header.num_records {
            let what = format!("there are {} rows, want {}", records.len(), header.num_records);
            return Err(damaged(records.len(), what));
        }
        if sha256_hex(rows.as_bytes()) != header.sha256 {
            return Err(damaged(0, "the rows are not those that were stored: their checksum differs".to_owned()));
        }
        let PromptsHeader { num_rows_read, drops, whole, .. } = header;
        Ok(LoadedRun { lock, records, num_rows_read, drops, whole })
    }

    /// The rows that judges are tested with; none in a run that has no such file.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn read_known_rows(&self) -> Result<Vec<KnownRow>, RunError> {
        let path = self.known_rows();
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(RunError::Io { path, action: "read", source }),
            Ok(bytes) => bytes,
        };
        serde_json::from_slice(&bytes).map_err(|error| RunError::StoredPrompts {
            path,
            line: error.line(),
            what: error.to_string(),
        })
    }

    /// Opens the generate stage's journal for `lock`.
    ///
    /// # Errors
    /// If it is another run's, damaged, or in use.
    pub fn candidates(&self, lock: &RunLock) -> Result<(Journal<GenerateRow>, Vec<GenerateRow>), RunError> {
        self.open_stage(CANDIDATES, lock)
    }

    /// Opens the judge stage's journal for `lock`.
    ///
    /// # Errors
    /// If it is another run's, damaged, or in use.
    pub fn verdicts(&self, lock: &RunLock) -> Result<(Journal<JudgeRow>, Vec<JudgeRow>), RunError> {
        self.open_stage(VERDICTS, lock)
    }

    /// Opens the journal of comparisons for `lock`.
    ///
    /// # Errors
    /// If it is another run's, damaged, or in use.
    pub fn comparisons(&self, lock: &RunLock) -> Result<(Journal<CompareRow>, Vec<CompareRow>), RunError> {
        self.open_stage(COMPARISONS, lock)
    }

    pub(super) fn open_stage<T: Serialize + DeserializeOwned>(
        &self,
        stage: &str,
        lock: &RunLock,
    ) -> Result<(Journal<T>, Vec<T>), RunError> {
        Ok(Journal::open(&self.journals().join(format!("{stage}.jsonl")), &header_of(stage, lock))?)
    }

    /// Rows of a stage's journal without opening it for writing; none if it does not exist.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn read_stage<T: DeserializeOwned>(&self, stage: &str, lock: &RunLock) -> Result<Vec<T>, RunError> {
        let path = self.journals().join(format!("{stage}.jsonl"));
        if !path.exists() {
            return Ok(Vec::new());
        }
        Ok(read_journal(&path, Some(&header_of(stage, lock)))?.rows)
    }
}

/// Whose rows a stage's journal has: what they depend on, of all that the lock says. Not the models: rows name theirs, a run may get more
/// of them, and the lock refuses another one of the same name.
fn header_of(stage: &str, lock: &RunLock) -> JournalHeader {
    let mut lock = lock.clone();
    lock.generators.clear();
    lock.judges.clear();
    if let Some(serde_json::Value::Object(generate)) = lock.parameters.get_mut("generate") {
        generate.remove(GENERATORS);
    }
    let depends_on: &[&str] = match stage {
        CANDIDATES | LIKELIHOODS => &["prompts", "generate"],
        VERDICTS | COMPARISONS => &["prompts", "generate", "judge"],
        RATIONALES => &["prompts", "generate", "judge", RATIONALES],
        _ => &["prompts", "judge"],
    };
    if !depends_on.contains(&"judge") {
        lock.rubric_sha256 = None;
    }
    lock.parameters.retain(|name, _| depends_on.contains(&name.as_str()));
    JournalHeader::new(stage, lock.run_hash())
}

/// Fills what only later stages use from another lock, where it is missing.
pub(super) fn take_over(lock: &mut RunLock, other: &RunLock) {
    if lock.judges.is_empty() {
        lock.judges.clone_from(&other.judges);
        lock.rubric_sha256.clone_from(&other.rubric_sha256);
    }
    for stage in ["judge", "compare", RATIONALES, "pair"] {
        if let (None, Some(parameters)) = (lock.parameters.get(stage), other.parameters.get(stage)) {
            lock.parameters.insert(stage.to_owned(), parameters.clone());
        }
    }
}

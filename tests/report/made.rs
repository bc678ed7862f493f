//! Runs that the tests of the report are made of: prompts with a human and a model answer, rated as the test says.
//! Knows the dataset's input; says nothing of what a report should hold.

use std::collections::BTreeMap;

use pairwright::data::{DropCounts, PromptRecord};
use pairwright::dataset::{CardLanguage, DatasetInput, DatasetOptions, DatasetSummary, Origin, write_dataset};
use pairwright::generate::{Candidate, CandidateSource, FinishReason};
use pairwright::judge::Verdict;
use pairwright::provenance::{FileDigest, RunLock, sha256_hex};
use pairwright::report::ReportData;

use super::judged::{model, verdict};

/// Everything a report is made from, owned.
pub struct Made {
    pub records: Vec<PromptRecord>,
    pub candidates: Vec<Candidate>,
    pub verdicts: Vec<Verdict>,
    pub weights: BTreeMap<String, f64>,
    pub failures: BTreeMap<String, String>,
    pub drops: DropCounts,
    pub lock: RunLock,
    pub language: CardLanguage,
    pub origin: Origin,
}

impl Made {
    /// A run without rows.
    pub fn empty() -> Self {
        let source = FileDigest { path: "/secret/aya.parquet".into(), size_bytes: 1, sha256: sha256_hex(b"aya") };
        let mut lock = RunLock::new("2026-01-02T00:00:00Z".into(), 7, source);
        lock.environment.device = "secret device".into();
        lock.generators = vec![model("writer")];
        lock.judges = vec![model("judge")];
        Self {
            records: Vec::new(),
            candidates: Vec::new(),
            verdicts: Vec::new(),
            weights: BTreeMap::new(),
            failures: BTreeMap::new(),
            drops: DropCounts::default(),
            lock,
            language: CardLanguage { name: "Hindi".into(), code: "hin".into(), card_codes: vec!["hi".into()] },
            origin: Origin::default(),
        }
    }

    /// One more prompt with its answers and their ratings.
    pub fn row(&mut self, prompt: &str, [human, made]: [&str; 2], [human_rating, rating]: [f64; 2]) -> &mut Self {
        let record = PromptRecord {
            id: sha256_hex(prompt.as_bytes()),
            row_index: self.records.len() as u64,
            prompt: prompt.into(),
            response: Some(human.into()),
            language: "Hindi".into(),
            language_code: "hin".into(),
            annotation_type: None,
            user_id: None,
        };
        let own = Candidate::human(&record.id, human);
        let answer = Candidate {
            source: CandidateSource::Model,
            model: "writer".into(),
            text: made.into(),
            token_ids: vec![1, 2],
            num_prompt_tokens: 3,
            finish_reason: Some(FinishReason::Stop),
            logprob: Some(-1.0),
            ..own.clone()
        };
        for (candidate, rating) in [(own, human_rating), (answer, rating)] {
            self.verdicts.push(verdict(&candidate, rating));
            self.candidates.push(candidate);
        }
        self.records.push(record);
        self
    }

    /// Rows by number: pairs either way, ties, an unreliable verdict, and lengths of all kinds.
    pub fn mixed(num_rows: u64) -> Self {
        let mut made = Self::empty();
        for n in 0..num_rows {
            let (human, answer) = ("क".repeat(1 + n as usize * 7 % 90), "ख".repeat(1 + n as usize * 11 % 70));
            let difference = [1.3, -0.7, 0.02, 0.4, -2.2][n as usize % 5];
            made.row(&format!("prompt {n}"), [&human, &answer], [3.0 + difference / 2.0, 3.0 - difference / 2.0]);
        }
        if let Some(verdict) = made.verdicts.get_mut(7) {
            verdict.reliable = false;
        }
        made.drops = DropCounts(BTreeMap::from([("over_limit".to_owned(), 4)]));
        made
    }

    pub fn input(&self) -> DatasetInput<'_> {
        DatasetInput {
            records: &self.records,
            candidates: &self.candidates,
            verdicts: &self.verdicts,
            comparisons: &[],
            judge_weights: &self.weights,
            known_answers: &[],
            failures: &self.failures,
            lock: &self.lock,
            source_drops: &self.drops,
            language: self.language.clone(),
            origin: self.origin.clone(),
        }
    }

    pub fn report(&self) -> ReportData {
        ReportData::of(&self.input(), &DatasetOptions::default())
    }

    pub fn summary(&self) -> DatasetSummary {
        let dir = tempfile::tempdir().expect("a folder");
        write_dataset(dir.path(), &self.input(), &DatasetOptions::default()).expect("a dataset")
    }
}

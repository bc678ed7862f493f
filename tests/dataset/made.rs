//! Records, answers, verdicts and whole runs that the tests of the dataset are made of, and readers of what was written.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, ListArray, RecordBatch, StringArray, StructArray};
use pairwright::data::{DropCounts, PromptRecord};
use pairwright::dataset::{
    CardLanguage, DatasetError, DatasetInput, DatasetOptions, DatasetSummary, Origin, write_dataset,
};
use pairwright::generate::{Candidate, CandidateSource, FinishReason};
use pairwright::judge::{Comparison, Verdict};
use pairwright::provenance::{FileDigest, RunLock, sha256_hex};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::judged::{model, verdict};

pub const TEXTS: [&str; 8] = [
    "سلام، دنیا — |`خط`|",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "ሰላም ለዓለም\n```\nfence\n```",
    "你好，世界",
    "👩🏽‍🚀 e\u{301} <|im_end|>",
    "Plain text: with # and \"quotes\"",
    "ꦲꦏ꧀ꦱꦫ ꦗꦮ",
];

pub fn record(number: u64) -> PromptRecord {
    let prompt = format!("{number}: {}", TEXTS[number as usize % TEXTS.len()]);
    PromptRecord {
        id: sha256_hex(prompt.as_bytes()),
        row_index: number,
        response: Some(format!("human {number} {}", TEXTS[(number as usize + 1) % TEXTS.len()])),
        prompt,
        language: "Iranian Persian".into(),
        language_code: "pes".into(),
        annotation_type: Some("original-annotations".into()),
        user_id: Some(format!("pseudonym-{number}")),
    }
}

pub fn answer(record: &PromptRecord, source: CandidateSource, model: &str, sample_index: u32, text: &str) -> Candidate {
    let is_model = source == CandidateSource::Model;
    Candidate {
        record_id: record.id.clone(),
        sample_index,
        source,
        model: model.into(),
        text: text.into(),
        thinking: None,
        token_ids: if is_model { vec![1, 2, 3] } else { Vec::new() },
        num_prompt_tokens: 5,
        finish_reason: is_model.then_some(FinishReason::Stop),
        logprob: is_model.then_some(-1.25),
    }
}

pub fn human(record: &PromptRecord) -> Candidate {
    answer(record, CandidateSource::Human, "human", 0, record.response.as_deref().unwrap_or_default())
}

pub fn generated(record: &PromptRecord) -> Candidate {
    answer(record, CandidateSource::Model, "writer", 0, &format!("model {}", record.prompt))
}

/// Fisher-Yates with a small congruential generator.
pub fn shuffle<T>(items: &mut [T], mut state: u64) {
    for last in (1..items.len()).rev() {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        items.swap(last, (state >> 33) as usize % (last + 1));
    }
}

/// Everything a dataset is written from, owned.
pub struct Run {
    pub records: Vec<PromptRecord>,
    pub candidates: Vec<Candidate>,
    pub verdicts: Vec<Verdict>,
    pub comparisons: Vec<Comparison>,
    pub failures: BTreeMap<String, String>,
    pub source_drops: DropCounts,
    pub lock: RunLock,
    pub origin: Origin,
    pub language: CardLanguage,
}

impl Run {
    /// Row `n` is a pair unless `n % 8` names a trouble.
    pub fn new(num_records: u64) -> Self {
        let records: Vec<PromptRecord> = (0..num_records).map(record).collect();
        let (mut candidates, mut verdicts, mut failures) = (Vec::new(), Vec::new(), BTreeMap::new());
        for record in &records {
            let (own, mut made) = (human(record), generated(record));
            let difference = match record.row_index % 8 {
                5 => 0.01,
                odd if odd % 2 == 1 => 1.5,
                _ => -1.25,
            };
            if record.row_index % 8 == 6 {
                made.text.clear();
            }
            verdicts.push(verdict(&own, 3.0 + difference / 2.0));
            candidates.push(own);
            if record.row_index % 8 == 7 {
                failures.insert(record.id.clone(), "prompt_too_long".to_string());
            } else {
                verdicts.push(verdict(&made, 3.0 - difference / 2.0));
                candidates.push(made);
            }
        }
        let source = FileDigest { path: "/somewhere/aya.parquet".into(), size_bytes: 1, sha256: sha256_hex(b"aya") };
        let mut lock = RunLock::new("2026-01-02T03:04:05Z".into(), 7, source);
        lock.generators = vec![model("writer")];
        lock.judges = vec![model("judge")];
        Self {
            records,
            candidates,
            verdicts,
            comparisons: Vec::new(),
            failures,
            source_drops: DropCounts(BTreeMap::from([("empty_prompt".to_string(), 3), ("none".to_string(), 0)])),
            lock,
            origin: Origin { dataset: Some("CohereLabs/aya_dataset".into()), license: Some("apache-2.0".into()) },
            language: CardLanguage {
                name: "Iranian Persian".into(),
                code: "pes".into(),
                card_codes: vec!["fa".into()],
            },
        }
    }

    pub fn write(&self, dir: &Path, options: &DatasetOptions) -> Result<DatasetSummary, DatasetError> {
        let input = DatasetInput {
            records: &self.records,
            candidates: &self.candidates,
            verdicts: &self.verdicts,
            comparisons: &self.comparisons,
            judge_weights: &BTreeMap::new(),
            known_answers: &[],
            failures: &self.failures,
            lock: &self.lock,
            source_drops: &self.source_drops,
            language: self.language.clone(),
            origin: self.origin.clone(),
        };
        write_dataset(dir, &input, options)
    }
}

pub const TRAIN: &str = "data/train-00000-of-00001.parquet";
pub const TEST: &str = "data/test-00000-of-00001.parquet";
pub const RAW: &str = "raw/train-00000-of-00001.parquet";

pub fn read(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

pub fn column<T: Clone + 'static>(batches: &[RecordBatch], name: &str) -> T {
    assert_eq!(batches.len(), 1);
    batches[0].column_by_name(name).unwrap().as_any().downcast_ref::<T>().unwrap().clone()
}

pub fn texts(array: &StringArray) -> Vec<Option<String>> {
    array.iter().map(|text| text.map(str::to_string)).collect()
}

pub fn message(batches: &[RecordBatch], name: &str, row: usize) -> (String, String) {
    let messages = column::<ListArray>(batches, name).value(row);
    assert_eq!(messages.len(), 1);
    let messages = messages.as_any().downcast_ref::<StructArray>().unwrap();
    let field = |name: &str| {
        messages.column_by_name(name).unwrap().as_any().downcast_ref::<StringArray>().unwrap().value(0).to_string()
    };
    (field("role"), field("content"))
}

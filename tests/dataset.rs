//! The dataset as files: what entered is there, the bytes depend on nothing else, and nothing is lost or half written.

#[path = "dataset/card.rs"]
mod card;
#[path = "dataset/choosing.rs"]
mod choosing;
#[path = "support/judged.rs"]
mod judged;
#[path = "dataset/made.rs"]
mod made;
#[path = "dataset/pairing.rs"]
mod pairing;

use std::collections::BTreeMap;
use std::fs::{self, File};

use arrow::array::{Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use pairwright::data::{DropCounts, PromptRecord};
use pairwright::dataset::schema::{HUGGINGFACE_KEY, default_columns, raw_columns, schema_of};
use pairwright::dataset::{
    CARD_FILE, DatasetError, DatasetOptions, LOCK_KEY, PairingOptions, TestSplit, render_report,
};
use pairwright::generate::CandidateSource;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use serde_json::{Value, json};

use self::judged::verdict;
use self::made::{RAW, Run, TEST, TRAIN, column, generated, message, read, record, shuffle, texts};
use self::pairing::{answers_strategy, case};

#[test]
fn files_hold_what_entered() {
    let run = Run::new(16);
    let dir = tempfile::tempdir().unwrap();
    let summary = run.write(dir.path(), &DatasetOptions::default()).unwrap();
    assert_eq!((summary.num_rows_in, summary.num_records, summary.num_pairs), (19, 16, 10));
    assert_eq!(
        summary.drops,
        BTreeMap::from(
            [("empty_answer", 2), ("empty_prompt", 3), ("prompt_too_long", 2), ("tie", 2)]
                .map(|(name, count)| (name.to_string(), count))
        )
    );
    let pairs = read(&dir.path().join(TRAIN));
    assert_eq!(pairs[0].num_rows(), 10);
    assert_eq!(message(&pairs, "prompt", 0), ("user".into(), run.records[0].prompt.clone()));
    assert_eq!(message(&pairs, "chosen", 0), ("assistant".into(), generated(&run.records[0]).text));
    assert_eq!(message(&pairs, "rejected", 0), ("assistant".into(), run.records[0].response.clone().unwrap()));
    assert_eq!(column::<Float64Array>(&pairs, "margin").value(0), 1.25);
    assert_eq!(column::<StringArray>(&pairs, "chosen_source").value(1), "human");
    assert_eq!(column::<StringArray>(&pairs, "judge_model").value(0), "judge");

    let raw = read(&dir.path().join(RAW));
    assert_eq!(raw[0].num_rows(), 16);
    let outcomes = texts(&column::<StringArray>(&raw, "outcome"));
    assert_eq!(outcomes[5..8], ["tie", "empty_answer", "prompt_too_long"].map(|name| Some(name.to_string())));
    assert_eq!(column::<Int64Array>(&raw, "chosen_index").value(0), 1);
    assert!(column::<Int64Array>(&raw, "chosen_index").is_null(5));
    assert!((column::<Float64Array>(&raw, "margin").value(5) - 0.01).abs() < 1e-9, "a tie keeps its difference");
    assert_eq!(column::<ListArray>(&raw, "ratings").value(7).len(), 1);
    assert_eq!(column::<ListArray>(&raw, "verdicts").value(0).len(), 2);
    let verdicts = column::<ListArray>(&raw, "generation_language_verdicts");
    let flags = column::<ListArray>(&raw, "generation_flags");
    let answers = column::<ListArray>(&raw, "generations");
    assert!((0..16).all(|row| verdicts.value(row).len() == answers.value(row).len()
        && flags.value(row).len() == verdicts.value(row).len()));
    assert!(raw[0].column_by_name("user_id").is_none());
}

#[test]
fn the_footer_carries_lock_and_features() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::new(4);
    run.write(dir.path(), &DatasetOptions { include_user_id: true, ..DatasetOptions::default() }).unwrap();
    for (file, columns) in [(TRAIN, default_columns(false)), (RAW, raw_columns(true))] {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(dir.path().join(file)).unwrap()).unwrap();
        let footer = reader.metadata().file_metadata().key_value_metadata().unwrap();
        let value =
            |key: &str| footer.iter().find(|entry| entry.key == key).and_then(|entry| entry.value.clone()).unwrap();
        assert_eq!(value(LOCK_KEY), run.lock.published());
        let features: Value = serde_json::from_str(&value(HUGGINGFACE_KEY)).unwrap();
        let features = features["info"]["features"].as_object().unwrap();
        let expected: Vec<&str> = columns.iter().map(|column| column.0).collect();
        assert_eq!(features.keys().collect::<Vec<_>>(), expected);
        assert_eq!(reader.schema().fields(), schema_of(&columns).fields());
        for reserved in ["tools", "chat_template_kwargs", "image", "images", "messages"] {
            assert!(!features.contains_key(reserved));
        }
    }
    let features = schema_of(&default_columns(false)).metadata()[HUGGINGFACE_KEY].clone();
    let string = json!({"dtype": "string", "_type": "Value"});
    let expected = json!({"feature": {"role": string, "content": string}, "_type": "List"});
    assert_eq!(serde_json::from_str::<Value>(&features).unwrap()["info"]["features"]["chosen"], expected);
    let raw = read(&dir.path().join(RAW));
    assert_eq!(column::<StringArray>(&raw, "user_id").value(0), "pseudonym-0");
}

#[test]
fn the_same_rows_in_any_order_give_the_same_bytes() {
    let mut run = Run::new(64);
    let options = DatasetOptions { test_split: Some(TestSplit::Size(7)), ..DatasetOptions::default() };
    let [first, second] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let expected = run.write(first.path(), &options).unwrap();
    shuffle(&mut run.records, 1);
    shuffle(&mut run.candidates, 2);
    shuffle(&mut run.verdicts, 3);
    run.lock.environment.device = "another".into();
    assert_eq!(run.write(second.path(), &options).unwrap(), expected);
    for file in [TRAIN, TEST, RAW, CARD_FILE] {
        assert!(fs::read(first.path().join(file)).unwrap() == fs::read(second.path().join(file)).unwrap(), "{file}");
    }
}

#[test]
fn many_batches_keep_every_row() {
    let run = Run::new(2500);
    let dir = tempfile::tempdir().unwrap();
    let summary = run.write(dir.path(), &DatasetOptions::default()).unwrap();
    let num_rows = |file: &str| read(&dir.path().join(file)).iter().map(RecordBatch::num_rows).sum::<usize>() as u64;
    assert_eq!((num_rows(TRAIN), num_rows(RAW)), (summary.num_pairs, 2500));
    assert_eq!(summary.files.iter().map(|file| file.num_rows).sum::<u64>(), summary.num_pairs + 2500);
}

#[test]
fn a_test_split_depends_on_ids_alone() {
    let ids = |run: &Run, split: TestSplit| {
        let dir = tempfile::tempdir().unwrap();
        run.write(dir.path(), &DatasetOptions { test_split: Some(split), ..DatasetOptions::default() }).unwrap();
        let of = |file: &str| texts(&column::<StringArray>(&read(&dir.path().join(file)), "id"));
        (of(TRAIN), of(TEST))
    };
    let (small, large) = (Run::new(100), Run::new(200));
    let (train, test) = ids(&small, TestSplit::Fraction(0.2));
    let (_, more) = ids(&large, TestSplit::Fraction(0.2));
    assert!(!test.is_empty() && test.len() < train.len() && test.iter().all(|id| !train.contains(id)));
    assert!(test.iter().all(|id| more.contains(id)), "pairs stay where they are when others are added");
    assert_eq!(ids(&small, TestSplit::Size(9)).1.len(), 9);
}

#[test]
fn options_out_of_range_are_refused() {
    let run = Run::new(4);
    let dir = tempfile::tempdir().unwrap();
    let with_margin = |margin| DatasetOptions {
        pairing: PairingOptions { margin, ..PairingOptions::default() },
        ..DatasetOptions::default()
    };
    let with_split = |split| DatasetOptions { test_split: Some(split), ..DatasetOptions::default() };
    for options in [
        with_margin(-0.1),
        with_margin(4.5),
        with_margin(f64::NAN),
        with_split(TestSplit::Fraction(0.0)),
        with_split(TestSplit::Fraction(1.0)),
        with_split(TestSplit::Fraction(f64::NAN)),
        with_split(TestSplit::Size(4)),
    ] {
        let error = run.write(dir.path(), &options).unwrap_err();
        assert!(error.to_string().contains("\nhint: "), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_second_write_replaces_its_own_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let split = DatasetOptions { test_split: Some(TestSplit::Size(2)), ..DatasetOptions::default() };
    Run::new(16).write(dir.path(), &split).unwrap();
    fs::write(dir.path().join("data/notes.txt"), "mine").unwrap();
    fs::write(dir.path().join("run.lock"), "mine").unwrap();
    fs::create_dir(dir.path().join(".pairwright-staging")).unwrap();
    fs::write(dir.path().join(".pairwright-staging/left"), "over").unwrap();
    Run::new(8).write(dir.path(), &DatasetOptions::default()).unwrap();
    assert!(!dir.path().join(TEST).exists() && !dir.path().join(".pairwright-staging").exists());
    assert_eq!(fs::read_to_string(dir.path().join("data/notes.txt")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(dir.path().join("run.lock")).unwrap(), "mine");
    assert_eq!(read(&dir.path().join(RAW))[0].num_rows(), 8);
    assert!(!fs::read_to_string(dir.path().join(CARD_FILE)).unwrap().contains("data/test-*"));
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(Run::new(1).write(&dir.path().join("file"), &split), Err(DatasetError::TestSize { .. })));
    assert!(matches!(
        Run::new(1).write(&dir.path().join("file"), &DatasetOptions::default()),
        Err(DatasetError::Io { .. })
    ));
}

#[test]
fn no_rows_still_make_a_dataset() {
    let dir = tempfile::tempdir().unwrap();
    let run = Run::new(0);
    let summary = run.write(dir.path(), &DatasetOptions::default()).unwrap();
    assert_eq!((summary.num_rows_in, summary.num_pairs), (3, 0));
    assert!(summary.chosen_human_share.is_none() && summary.lengths.is_none() && summary.judge_health.is_none());
    assert!(render_report(&summary, &run.lock).contains("No answer was rated"));
}

#[test]
fn duplicates_orphans_and_unlisted_human_answers_are_accounted_for() {
    let mut run = Run::new(4);
    run.records.push(PromptRecord { row_index: 9, ..record(0) });
    run.candidates.retain(|candidate| candidate.source == CandidateSource::Model);
    let stray = generated(&record(99));
    run.verdicts.push(verdict(&stray, 3.0));
    run.candidates.push(stray);
    let dir = tempfile::tempdir().unwrap();
    let summary = run.write(dir.path(), &DatasetOptions::default()).unwrap();
    assert_eq!(summary.num_pairs, 4, "the human answer is taken from its record");
    assert_eq!(summary.drops.get("duplicate_prompt"), Some(&1));
    assert_eq!((summary.num_orphan_candidates, summary.num_orphan_verdicts), (1, 1));
    assert!(render_report(&summary, &run.lock).contains("1 answers and 1 verdicts belong to no record"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rows_in_are_pairs_plus_drops(
        prompts in prop::collection::vec((answers_strategy(), any::<bool>(), 0u64..12), 0..20),
        source_drops in prop::collection::btree_map("[a-z]{1,8}|tie", 0u64..50, 0..4),
    ) {
        let mut run = Run::new(0);
        for (answers, failed, number) in &prompts {
            let (_, candidates, verdicts) = case(answers);
            let record = record(*number);
            let of = |id: &mut String| id.clone_from(&record.id);
            run.candidates.extend(candidates.into_iter().map(|mut candidate| { of(&mut candidate.record_id); candidate }));
            run.verdicts.extend(verdicts.into_iter().map(|mut verdict| { of(&mut verdict.record_id); verdict }));
            if *failed {
                run.failures.insert(record.id.clone(), "engine_error".into());
            }
            run.records.push(record);
        }
        run.source_drops = DropCounts(source_drops.clone());
        let dir = tempfile::tempdir().unwrap();
        let summary = run.write(dir.path(), &DatasetOptions::default()).unwrap();
        prop_assert_eq!(summary.num_rows_in, prompts.len() as u64 + source_drops.values().sum::<u64>());
        prop_assert_eq!(summary.num_rows_in, summary.num_pairs + summary.drops.values().sum::<u64>());
        prop_assert_eq!(summary.num_pairs, summary.num_train_pairs);
        prop_assert_eq!(summary.pairs_at_margin[2].num_pairs, summary.num_pairs, "0.1 is the default margin");
        let rows: usize = read(&dir.path().join(RAW)).iter().map(RecordBatch::num_rows).sum();
        prop_assert_eq!(rows, prompts.len());
    }
}

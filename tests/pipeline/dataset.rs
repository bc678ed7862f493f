//! What comes out against what went in: columns, rows, texts byte for byte, funnel and lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use super::aya::{row, write_aya};
use super::program::{done, fixture_model, text};
use super::workshop::{ROWS, Workshop};
use super::{Job, PAIRS, RAW};

fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    let schema = batches.first().expect("a batch").schema();
    concat_batches(&schema, &batches).unwrap()
}

/// Every row of a Parquet file as text, without one of its columns.
pub fn rows_as_text(path: &Path, without: &str) -> Vec<String> {
    let batch = read(path);
    let schema = batch.schema();
    let options = FormatOptions::default();
    let columns = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| field.name() != without);
    let columns: Vec<_> = columns
        .map(|(field, column)| (field.name(), ArrayFormatter::try_new(column, &options).expect("a column with a text")))
        .collect();
    let cell = |at: usize| {
        move |(name, text): &(&String, ArrayFormatter<'_>)| format!("{name}={:?}", text.value(at).to_string())
    };
    (0..batch.num_rows()).map(|at| columns.iter().map(cell(at)).collect::<Vec<_>>().join(" ")).collect()
}

fn strings(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(column).unwrap_or_else(|| panic!("no column {column}"));
    column.as_string::<i32>().iter().map(|value| value.map(str::to_owned)).collect()
}

fn plain(batch: &RecordBatch, column: &str) -> Vec<String> {
    strings(batch, column).into_iter().map(|value| value.expect("not null")).collect()
}

/// A text column of a file, without nulls.
pub fn texts(path: &Path, column: &str) -> Vec<String> {
    plain(&read(path), column)
}

fn numbers(batch: &RecordBatch, column: &str) -> Vec<f64> {
    batch.column_by_name(column).expect("a column").as_primitive::<Float64Type>().values().to_vec()
}

/// The text of the one message of each row.
fn message(batch: &RecordBatch, column: &str, role: &str) -> Vec<String> {
    let list = batch.column_by_name(column).expect("a column").as_list::<i32>();
    (0..batch.num_rows())
        .map(|at| {
            let turns = list.value(at);
            let turns = turns.as_struct();
            assert_eq!(turns.len(), 1, "{column} {at}");
            assert_eq!(turns.column_by_name("role").unwrap().as_string::<i32>().value(0), role);
            turns.column_by_name("content").unwrap().as_string::<i32>().value(0).to_owned()
        })
        .collect()
}

#[test]
fn an_aya_file_becomes_a_dataset_row_by_row() {
    let workshop = Workshop::new();
    let path = workshop.path("aya.parquet");
    let mut rows: Vec<_> = ROWS.iter().map(|[prompt, answer, name, code]| row(prompt, answer, name, code)).collect();
    rows.insert(2, row(ROWS[0][0], "een dubbele", "Dutch", "nld"));
    rows.insert(5, [None, Some("x"), Some("Dutch"), Some("nld"), None, None]);
    rows.push([Some("geen antwoord"), None, Some("Dutch"), Some("nld"), None, None]);
    write_aya(&path, &rows, &DataType::LargeUtf8, WriterProperties::default());
    let (out, rubric) = (workshop.arg("run"), workshop.arg("rubric.toml"));
    let (llama, qwen2) = (fixture_model("llama"), fixture_model("qwen2"));
    let arguments = ["make", "--prompts", text(&path), "--generator", text(&llama), "--judge", text(&qwen2), "-q"];
    let more = ["--out", &out, "--rubric", &rubric, "--margin", "0", "--max-tokens", "16", "--json"];
    let summary: Value = serde_json::from_str(&done(&[&arguments[..], &more].concat())).unwrap();
    assert_eq!(summary["num_rows_in"], rows.len());
    assert_eq!(summary["num_records"], ROWS.len());
    for reason in ["duplicate_prompt", "null_prompt", "null_response"] {
        assert_eq!(summary["drops"][reason], 1, "{summary}");
    }
    let dropped: u64 = summary["drops"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(summary["num_pairs"].as_u64().unwrap() + dropped, rows.len() as u64);

    let raw = read(&workshop.path("run").join(RAW));
    assert_eq!(plain(&raw, "instruction"), ROWS.map(|row| row[0]), "the source's order and bytes");
    assert_eq!(plain(&raw, "targets"), ROWS.map(|row| row[1]));
    assert_eq!(plain(&raw, "language_code"), ROWS.map(|row| row[3]));
    let source: BTreeMap<&str, i64> =
        rows.iter().enumerate().rev().filter_map(|(at, row)| Some((row[0]?, at as i64))).collect();
    let indices = raw.column_by_name("row_index").unwrap().as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(indices, ROWS.map(|row| source[row[0]]));
    assert!(raw.column_by_name("user_id").is_none(), "pseudonyms stay out unless asked for");
    let generated = plain(&raw, "generation");
    assert!(plain(&raw, "generation_model").iter().all(|model| model == "llama"));

    let pairs = read(&workshop.path("run").join(PAIRS));
    assert_eq!(pairs.num_rows() as u64, summary["num_pairs"].as_u64().unwrap());
    let (prompts, chosen, rejected) = (
        message(&pairs, "prompt", "user"),
        message(&pairs, "chosen", "assistant"),
        message(&pairs, "rejected", "assistant"),
    );
    let sources = [plain(&pairs, "chosen_source"), plain(&pairs, "rejected_source")];
    let ratings = [numbers(&pairs, "chosen_rating"), numbers(&pairs, "rejected_rating")];
    let margins = numbers(&pairs, "margin");
    for at in 0..pairs.num_rows() {
        let place = ROWS.iter().position(|row| row[0] == prompts[at]).expect("a prompt of the source");
        let (human, model) = if sources[0][at] == "human" { (&chosen, &rejected) } else { (&rejected, &chosen) };
        assert_eq!((human[at].as_str(), &model[at]), (ROWS[place][1], &generated[place]), "row {at}");
        assert_ne!(sources[0][at], sources[1][at]);
        assert!(ratings[0][at] > ratings[1][at] && (1.0..=5.0).contains(&ratings[1][at]) && ratings[0][at] <= 5.0);
        assert!((ratings[0][at] - ratings[1][at] - margins[at]).abs() < 1e-12);
    }
    assert!(plain(&pairs, "judge_model").iter().all(|model| model == "qwen2"));
    check_lock(&workshop, &path);
}

/// The lock says what the run was made from, by hash; the dataset's copy and the footer say it without the machine's paths.
fn check_lock(workshop: &Workshop, prompts: &Path) {
    let read_json =
        |name: &str| -> Value { serde_json::from_str(&std::fs::read_to_string(workshop.path(name)).unwrap()).unwrap() };
    let lock = read_json("run/run.lock");
    let sha256 = |path: &Path| pairwright::provenance::sha256_file(path).unwrap();
    assert_eq!(lock["source"]["sha256"], sha256(prompts));
    assert_eq!(lock["rubric_sha256"], sha256(&workshop.path("rubric.toml")));
    for (role, name) in [("generators", "llama"), ("judges", "qwen2")] {
        assert_eq!(lock[role][0]["name"], name);
        for file in ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"] {
            assert_eq!(lock[role][0]["files"][file], sha256(&fixture_model(name).join(file)), "{role} {file}");
        }
    }
    assert_eq!(lock["created"], "2026-11-22T00:00:00Z");
    assert_eq!(lock["parameters"]["generate"]["max_tokens"], 16);
    assert_eq!(lock["parameters"]["pair"]["margin"], 0.0);
    let published = std::fs::read_to_string(workshop.path("run/dataset/run.lock")).unwrap();
    assert!(
        !published.contains(text(&workshop.path(".")).trim_end_matches("/.")),
        "no path of the machine: {published}"
    );
    let file = File::open(workshop.path("run").join(PAIRS)).unwrap();
    let footer = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let entries = footer.metadata().file_metadata().key_value_metadata().unwrap().clone();
    let entry = entries.iter().find(|entry| entry.key == pairwright::dataset::LOCK_KEY).unwrap();
    assert_eq!(entry.value.as_deref(), Some(published.as_str()), "the same facts in the footer");
}

#[test]
fn without_a_reliable_verdict_there_is_no_pair() {
    let job = Job::new(1);
    let rubric = super::workshop::RUBRIC.replace("min_label_mass = 0.0", "min_label_mass = 0.9");
    job.workshop.write("rubric.toml", rubric);
    let summary = job.made("run", &[]);
    assert_eq!((&summary["num_pairs"], &summary["drops"]["unreliable_verdict"]), (&0.into(), &12.into()), "{summary}");
    assert_eq!(summary["judge_health"]["unreliable_share"], 1.0);
    let raw = read(&job.workshop.path("run").join(RAW));
    assert!(plain(&raw, "outcome").iter().all(|outcome| outcome == "unreliable_verdict"));
    assert_eq!(raw.num_rows(), 12, "every row stays in `raw`");
}

#[test]
fn the_demonstration_makes_pairs_in_many_languages() {
    let workshop = Workshop::new();
    let out = workshop.arg("demo");
    let summary: Value = serde_json::from_str(&done(&["make", "--demo", "--out", &out, "--json", "-q"])).unwrap();
    assert!(summary["num_pairs"].as_u64().unwrap() > 20, "{summary}");
    assert_eq!(summary["same_model_judge"], true);
    let pairs = read(&workshop.path("demo").join(PAIRS));
    let languages: BTreeSet<String> = plain(&pairs, "language").into_iter().collect();
    assert!(languages.len() >= 8, "{languages:?}");
    let names = plain(&pairs, "judge_model");
    assert!(names.iter().all(|name| name == pairwright::demo::MODEL_LABEL), "{names:?}");
    let card = std::fs::read_to_string(workshop.path("demo/dataset/README.md")).unwrap();
    for said in ["license: \"apache-2.0\"", "multilinguality: \"multilingual\"", pairwright::demo::MODEL_LABEL] {
        assert!(card.contains(said), "want {said} in {card}");
    }
}

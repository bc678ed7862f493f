//! The same answers, ratings and files, whoever shares the batch and in whatever order the rows come.

use std::collections::BTreeMap;

use serde_json::Value;

use super::dataset::rows_as_text;
use super::program::{done, fixture_model, text};
use super::workshop::ROWS;
use super::{Job, PAIRS, RAW};

/// Ways to run the same job: batches, threads, steps, blocks, a cache in which sequences push one another out, several devices, and a model
/// that is cut over them.
const WAYS: [&[&str]; 10] = [
    &["--max-batch", "1"],
    &["--max-batch", "7", "--threads", "1"],
    &["--max-batch", "64", "--threads", "2", "--block-size", "16"],
    &["--step-tokens", "19", "--max-batch", "5"],
    &["--block-size", "128", "--kv-memory", "64MiB"],
    &["--block-size", "16", "--kv-tokens", "640", "--max-batch", "32"],
    &["--device", "cpu,cpu"],
    &["--device", "cpu+cpu"],
    &["--device", "cpu+cpu,cpu+cpu", "--max-batch", "3"],
    &["--device", "cpu,cpu,cpu", "--max-batch", "2", "--threads", "3"],
];

/// SHA-256 over the candidates, verdicts and dataset rows of these runs together, each sorted. A row's place in its source is
/// left out, since it changes with order and shards.
fn digest(job: &Job, runs: &[&str]) -> String {
    let mut text = String::new();
    let mut add = |mut rows: Vec<String>| {
        assert!(!rows.is_empty());
        rows.sort();
        text += &(rows.join("\n") + "\n\n");
    };
    for stage in ["candidates", "verdicts"] {
        add(runs.iter().flat_map(|run| job.journal(run, stage)).collect());
    }
    for file in [RAW, PAIRS] {
        add(runs.iter().flat_map(|run| rows_as_text(&job.workshop.path(run).join(file), "row_index")).collect());
    }
    pairwright::provenance::sha256_hex(text.as_bytes())
}

#[test]
fn whatever_the_way_the_rows_have_one_digest() {
    let job = Job::judged_by("llama", 1);
    job.made("first", &[]);
    let wanted = digest(&job, &["first"]);
    let mut num_ways = 0;
    let mut same = |what: &str, runs: &[&str]| {
        assert_eq!(digest(&job, runs), wanted, "{what}");
        num_ways += 1;
    };
    for way in WAYS {
        let run = way.concat();
        job.made(&run, way);
        same(&run, &[&run]);
    }
    // Each stage by a command of its own, and a queue of both over what `generate` and a kill left.
    job.stages("stages", 3);
    same("three commands", &["stages"]);
    job.stages("generated", 1);
    job.made("generated", &[]);
    same("generate, then make", &["generated"]);
    for point in [("candidates", 5), ("verdicts", 9)] {
        let run = format!("killed at {point:?}");
        super::resume::killed(&job, &run, point);
        job.made(&run, &["--max-batch", "9"]);
        same(&run, &[&run]);
    }
    // Another order; shards, each with a cache that knows nothing of the others.
    let mut turned = ROWS;
    turned.reverse();
    turned.swap(2, 9);
    job.workshop.prompts("p.jsonl", &turned);
    job.made("turned", &["--max-batch", "3"]);
    same("another order", &["turned"]);
    for size in [6, 4] {
        let shards: Vec<String> = ROWS
            .chunks(size)
            .enumerate()
            .map(|(index, rows)| {
                job.workshop.prompts("p.jsonl", rows);
                let run = format!("shard{index} of {size}");
                job.made(&run, &[]);
                run
            })
            .collect();
        let shards: Vec<&str> = shards.iter().map(String::as_str).collect();
        same(&format!("{} shards", shards.len()), &shards);
    }
    assert!(num_ways >= 12, "{num_ways}");
}

#[test]
fn one_model_after_the_other_changes_no_byte_either() {
    let job = Job::new(1);
    let first = job.made("first", &[]);
    assert!(first["num_pairs"].as_u64().unwrap() > 6, "{first}");
    for (index, way) in WAYS.iter().enumerate() {
        let run = format!("run{index}");
        assert_eq!(job.made(&run, way), first, "{way:?}");
        for stage in ["candidates", "verdicts"] {
            assert!(job.journal(&run, stage) == job.journal("first", stage), "{way:?}: {stage} differ");
        }
        for file in [PAIRS, RAW, "dataset/README.md", "dataset/run.lock", "report.md", "report.html"] {
            assert!(job.bytes(&run, file) == job.bytes("first", file), "{way:?}: {file} differs");
        }
    }
}

#[test]
fn a_cache_of_a_few_blocks_preempts_and_gives_the_same_answers() {
    let job = Job::new(1);
    let model = fixture_model("llama");
    let generate = |out: &str, more: &[&str]| -> Value {
        let out = job.workshop.arg(out);
        let arguments = ["generate", "--model", text(&model), "--prompts", text(&job.prompts), "--out", &out, "--json"];
        let sampling = ["-q", "--temperature", "1", "--max-tokens", "120", "--ignore-eos"];
        serde_json::from_str(&done(&[&arguments[..], &sampling, more].concat())).unwrap()
    };
    let roomy = generate("roomy", &[]);
    assert_eq!(roomy["num_preemptions"], 0);
    let tight = generate("tight", &["--block-size", "16", "--kv-tokens", "640"]);
    assert!(tight["num_preemptions"].as_u64().unwrap() > 0, "{tight}");
    assert_eq!(tight["num_output_tokens"], roomy["num_output_tokens"]);
    assert_eq!(job.journal("tight", "candidates"), job.journal("roomy", "candidates"));
}

#[test]
fn a_row_among_others_is_the_row_alone() {
    let job = Job::judged_by("llama", 1);
    job.made("all", &[]);
    job.workshop.prompts("p.jsonl", &ROWS[5..6]);
    job.made("one", &[]);
    for stage in ["candidates", "verdicts"] {
        let alone = job.journal("one", stage);
        let all = job.journal("all", stage);
        assert!(!alone.is_empty() && alone.iter().all(|row| all.contains(row)), "{stage}");
    }
}

#[test]
fn samples_are_counted_and_differ() {
    let job = Job::new(1);
    job.made("run", &[]);
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in job.journal("run", "candidates") {
        let row: Value = serde_json::from_str(row.strip_suffix('}').unwrap()).unwrap();
        let candidate = &row["candidate"];
        texts
            .entry(candidate["record_id"].as_str().unwrap().to_owned())
            .or_default()
            .push(candidate["text"].to_string());
    }
    assert_eq!(texts.len(), ROWS.len());
    assert!(texts.values().all(|samples| samples.len() == 2 && samples[0] != samples[1]), "{texts:?}");
    assert_eq!(job.journal("run", "verdicts").len(), 3 * ROWS.len(), "each sample and the human answer");
}

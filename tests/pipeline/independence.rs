//! The same answers, ratings and files, whoever shares the batch and in whatever order the rows come.

use std::collections::BTreeMap;

use serde_json::Value;

use super::program::{done, fixture_model, text};
use super::workshop::ROWS;
use super::{Job, PAIRS, RAW};

#[test]
fn batch_cache_threads_and_preemption_change_no_byte() {
    let job = Job::new(2);
    let first = job.made("first", &[]);
    assert!(first["num_pairs"].as_u64().unwrap() > 12, "{first}");
    let ways: [&[&str]; 6] = [
        &["--max-batch", "1"],
        &["--max-batch", "7", "--threads", "1"],
        &["--max-batch", "64", "--threads", "2", "--block-size", "16"],
        &["--step-tokens", "19", "--max-batch", "5"],
        &["--block-size", "128", "--kv-memory", "64MiB"],
        &["--block-size", "16", "--kv-tokens", "640", "--max-batch", "32"],
    ];
    for (index, way) in ways.iter().enumerate() {
        let run = format!("run{index}");
        assert_eq!(job.made(&run, way), first, "{way:?}");
        for stage in ["candidates", "verdicts"] {
            assert!(job.journal(&run, stage) == job.journal("first", stage), "{way:?}: {stage} differ");
        }
        for file in [PAIRS, RAW, "dataset/README.md", "dataset/run.lock", "report.md"] {
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
fn prompts_in_another_order_get_the_same_answers_and_ratings() {
    let job = Job::new(1);
    job.made("forward", &[]);
    let mut turned = ROWS;
    turned.reverse();
    turned.swap(2, 9);
    job.workshop.prompts("p.jsonl", &turned);
    job.made("turned", &["--max-batch", "3"]);
    for stage in ["candidates", "verdicts"] {
        assert_eq!(job.journal("forward", stage), job.journal("turned", stage));
    }
}

#[test]
fn a_row_among_others_is_the_row_alone() {
    let job = Job::new(1);
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

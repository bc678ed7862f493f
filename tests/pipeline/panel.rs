//! Several generators and several judges in one run, comparisons and known answers: made at once, grown model by model, in shards, or
//! killed, the dataset is the same.

use serde_json::Value;

use super::dataset::texts;
use super::program::{self, done, fixture_model, text};
use super::{Job, PAIRS, RAW, borrowed, journal_rows};

const WRITERS: [&str; 2] = ["llama", "qwen2"];
const JUDGES: [&str; 3] = ["llama", "qwen2", "llama_reward"];

/// `make` with these models; the short rubric's context has room for comparisons.
fn make(job: &Job, out: &str, writers: &[&str], judges: &[&str], more: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["make", "--prompts", text(&job.prompts), "--margin", "0"].map(str::to_owned).to_vec();
    arguments.extend([
        "--out".to_owned(),
        job.workshop.arg(out),
        "--rubric".to_owned(),
        job.workshop.arg("panel.toml"),
    ]);
    for (flag, models) in [("--generator", writers), ("--judge", judges)] {
        arguments.extend(models.iter().flat_map(|name| [flag.to_owned(), text(&fixture_model(name)).to_owned()]));
    }
    arguments.extend(["--max-tokens", "8", "--temperature", "1", "--seed", "5", "-q", "--json"].map(str::to_owned));
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    arguments
}

fn job() -> Job {
    let job = Job::new(1);
    let pairwise = "[pairwise]\nintro = \"Compare.\"\nfirst_heading = \"A:\"\nsecond_heading = \"B:\"\nquestion = \"A or B?\"\n\
        labels = [\"A\", \"B\"]\n";
    job.workshop.write("panel.toml", format!("{}{pairwise}", super::workshop::RUBRIC));
    job
}

fn made(arguments: &[String]) -> Value {
    serde_json::from_str(&done(&borrowed(arguments))).expect("a summary")
}

#[test]
fn every_model_answers_and_every_judge_rates() {
    let job = job();
    let summary = made(&make(&job, "run", &WRITERS, &JUDGES, &["--pairwise", "--pairs-per-prompt", "2"]));
    let num_rows = super::ROWS.len();
    let (raw, pairs) = (job.workshop.path("run").join(RAW), job.workshop.path("run").join(PAIRS));
    assert_eq!(texts(&raw, "instruction").len(), num_rows);
    // Human and two models: three answers, three comparisons by each of the two judges that speak.
    assert_eq!(job.journal("run", "candidates").len(), num_rows * 2);
    assert_eq!(job.journal("run", "verdicts").len(), num_rows * 3 * JUDGES.len());
    let comparisons = job.journal("run", "comparisons").len();
    assert!(comparisons > num_rows * 4 && comparisons <= num_rows * 3 * 2, "{comparisons}");
    assert_eq!(texts(&pairs, "judge_model").first().map(String::as_str), Some("llama, llama_reward, qwen2"));
    let health = &summary["judge_health"];
    assert!(health["agreement"].is_number() && health["order_consistency"]["n"].is_number(), "{health}");
    assert_eq!(health["weights"].as_object().unwrap().len(), JUDGES.len());
    assert!(health["known_answers"].as_array().unwrap().iter().any(|test| test["method"] == "pairwise"), "{health}");
    assert!(summary["num_pairs"].as_u64() > summary["num_paired_prompts"].as_u64(), "{summary}");
    let paired = summary["num_paired_prompts"].as_u64().unwrap();
    let dropped: u64 = summary["drops"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(paired + dropped, num_rows as u64, "{summary}");
}

#[test]
fn a_run_grows_by_models_and_loses_none() {
    let job = job();
    made(&make(&job, "whole", &WRITERS, &JUDGES, &["--pairwise"]));
    made(&make(&job, "grown", &["llama"], &["qwen2"], &[]));
    let fewer = make(&job, "grown", &["qwen2"], &["qwen2"], &[]);
    let refused = program::run(&borrowed(&fewer));
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("generators.llama: llama → (none)"), "{}", refused.stderr);
    // In another order, and model by model.
    made(&make(&job, "grown", &["qwen2", "llama"], &["qwen2"], &[]));
    made(&make(&job, "grown", &["llama", "qwen2"], &["llama", "llama_reward", "qwen2"], &["--pairwise"]));
    for stage in ["candidates", "verdicts", "comparisons"] {
        assert_eq!(job.journal("grown", stage), job.journal("whole", stage), "{stage}");
    }
    for file in [RAW, PAIRS, "dataset/README.md"] {
        let (grown, whole) = (job.workshop.path("grown").join(file), job.workshop.path("whole").join(file));
        if file.ends_with("parquet") {
            assert_eq!(super::dataset::rows_as_text(&grown, ""), super::dataset::rows_as_text(&whole, ""), "{file}");
        }
    }
    let alone = make(&job, "alone", &["qwen2"], &["llama"], &[]);
    made(&alone);
    let of_qwen2 = |run: &str| {
        let mut rows = journal_rows(&job.workshop.path(run).join("journal/candidates.jsonl"));
        rows.retain(|row| row.contains("\"model\":\"qwen2\""));
        rows.sort();
        rows
    };
    assert_eq!(of_qwen2("whole"), of_qwen2("alone"), "an answer does not depend on who else answers");
}

#[test]
fn shards_of_a_panel_merge_to_the_run_in_one_piece() {
    let job = job();
    made(&make(&job, "whole", &WRITERS, &JUDGES, &["--pairwise"]));
    for shard in ["0/3", "1/3", "2/3"] {
        done(&borrowed(&make(&job, "cut", &WRITERS, &JUDGES, &["--pairwise", "--shard", shard])));
    }
    done(&["merge", &job.workshop.arg("cut"), "-q"]);
    for file in [RAW, PAIRS, "dataset/README.md", "dataset/run.lock", "summary.json"] {
        assert_eq!(job.bytes("cut", file), job.bytes("whole", file), "{file}");
    }
}

#[test]
fn two_models_of_one_name_are_refused() {
    let job = job();
    let twice = make(&job, "run", &["llama", "llama"], &["qwen2"], &[]);
    let refused = program::run(&borrowed(&twice));
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("two generators are called `llama`"), "{}", refused.stderr);
}

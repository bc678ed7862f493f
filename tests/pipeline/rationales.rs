//! Written rationales as a stage of a run: kills, later calls and shards change no letter, the ratings that count stay as they are, and what
//! was written stands beside them in the dataset.

use std::path::Path;

use serde_json::Value;

use super::dataset::{rows_as_text, texts};
use super::program::{done, fixture_model, run, text};
use super::resume::{reaches, spawn};
use super::{Job, RAW, borrowed};

/// Short, since the fixtures' context is.
const TEXT: &str = "version = 1\ninstruction = \"Why? In JSON.\"\n";

/// Flags of a run with rationales; the text lies in the job's folder.
fn flags(job: &Job) -> Vec<String> {
    job.workshop.write("why.toml", TEXT);
    let text = job.workshop.arg("why.toml");
    let flags = ["--rationales", "--rationale-tokens", "60", "--rationale-temperature", "1", "--pairwise"];
    flags.into_iter().chain(["--rationale-text", &text]).map(str::to_owned).collect()
}

fn failures(job: &Job, run: &str) -> Vec<String> {
    rationales(job, run).into_iter().filter(|row| row.contains("failure")).collect()
}

fn rationales(job: &Job, run: &str) -> Vec<String> {
    job.journal(run, "rationales")
}

#[test]
fn rationales_are_a_stage_of_their_own() {
    let job = Job::new(1);
    let with = flags(&job);
    let with = borrowed(&with);
    let summary = job.made("whole", &with);
    assert_eq!(failures(&job, "whole"), Vec::<String>::new());
    let wanted = rationales(&job, "whole");
    assert_eq!(wanted.len(), job.journal("whole", "verdicts").len(), "one for each answer that was rated");
    for line in &wanted {
        let row: Value = serde_json::from_str(line.strip_suffix('}').unwrap()).unwrap();
        let aspects = row["rationale"]["aspects"].as_array().expect("no failure");
        assert!(aspects.iter().all(|aspect| (1..=5).contains(&aspect["rating"].as_u64().unwrap())), "{row}");
    }

    // Without them all ratings and pairs are the same.
    let plain = job.made("plain", &["--pairwise"]);
    assert_eq!(summary["num_pairs"], plain["num_pairs"]);
    assert_eq!(job.journal("plain", "verdicts").len(), wanted.len());
    let numbers = |run: &str| texts(&job.workshop.path(run).join(RAW), "outcome");
    assert_eq!(numbers("plain"), numbers("whole"));
    let raw = |run: &str| rows_as_text(&job.workshop.path(run).join(RAW), "").join("\n");
    assert!(raw("whole").contains("written_rating: ") && raw("plain").contains("rationales=\"\""));

    // A run that has none gets them later, and is then the run that had them from the beginning.
    let (out, judge, rubric) = (job.workshop.arg("plain"), fixture_model("qwen2"), job.workshop.arg("rubric.toml"));
    let arguments = ["judge", &out, "--judge", text(&judge), "--rubric", &rubric, "-q"];
    done(&[&arguments[..], &with].concat());
    assert_eq!(rationales(&job, "plain"), wanted);
    done(&["pair", &out, "--margin", "0", "-q"]);
    assert!(job.bytes("plain", RAW) == job.bytes("whole", RAW), "another dataset");

    // Other rationales do not mix with these.
    let other = [&arguments[..], &["--rationales", "--rationale-tokens", "90"]].concat();
    let refused = run(&other);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("rationales"), "{}", refused.stderr);
}

#[test]
fn a_kill_changes_no_letter() {
    let job = Job::new(1);
    let with = flags(&job);
    let with = borrowed(&with);
    job.made("whole", &with);
    for (index, lines) in [0, 2, 17].into_iter().enumerate() {
        let run = format!("killed{index}");
        let arguments = job.make(&run, &[&with[..], &["--max-batch", "3"]].concat());
        let mut child = spawn(&arguments);
        reaches(&mut child, &job.workshop.path(&run).join("journal/rationales.jsonl"), 1 + lines);
        child.kill().expect("kill");
        child.wait().expect("reap");
        job.made(&run, &with);
        assert_eq!(rationales(&job, &run), rationales(&job, "whole"), "{run}");
        assert!(job.bytes(&run, RAW) == job.bytes("whole", RAW), "{run}: another dataset");
    }
}

#[test]
fn shards_merge_to_the_whole() {
    let job = Job::new(1);
    let with = flags(&job);
    let with = borrowed(&with);
    job.made("whole", &with);
    for shard in ["0/2", "1/2"] {
        let arguments = [job.make("cut", &with), vec!["--shard".to_owned(), shard.to_owned()]].concat();
        done(&borrowed(&arguments));
    }
    let out = job.workshop.arg("cut");
    done(&["merge", &out, "-q"]);
    assert_eq!(rationales(&job, "cut"), rationales(&job, "whole"));
    assert!(job.bytes("cut", RAW) == job.bytes("whole", RAW), "another dataset");
}

#[test]
fn what_cannot_be_used_is_refused_before_anything_runs() {
    let job = Job::new(1);
    let missing = job.workshop.arg("nowhere.toml");
    for flags in [&["--rationale-tokens", "20"][..], &["--rationale-temperature=-1"], &["--rationale-text", &missing]] {
        let outcome = run(&borrowed(&job.make("refused", &[&["--rationales"], flags].concat())));
        assert!(matches!(outcome.code, Some(2 | 3)), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("hint: "), "{}", outcome.stderr);
        assert!(!Path::new(&job.workshop.path("refused")).join("journal").exists());
    }
}

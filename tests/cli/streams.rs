//! Which words stand on which stream: help, JSON summaries, silence, and a reader that goes away.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::program::{done, fixture_model, run, text};
use super::workshop::{ROWS, Workshop};

#[test]
fn help_names_the_main_flags_and_the_exit_codes() {
    let wanted: [(&[&str], &[&str]); 10] = [
        (
            &["--help"],
            &[
                "make",
                "generate",
                "judge",
                "pair",
                "languages",
                "status",
                "bench",
                "3 input",
                "75 stopped early",
                "--demo",
            ],
        ),
        (
            &["make", "--help"],
            &["--prompts", "--generator", "--judge", "--out", "--language", "--rubric", "--margin", "--seed"],
        ),
        (
            &["generate", "--help"],
            &["--model", "--raw-prompts", "--logprobs", "--prompt-logprobs", "--top-k", "--ignore-eos"],
        ),
        (&["judge", "--help"], &["--judge", "--rubric", "--show-rubric", "--max-batch", "--kv-memory"]),
        (&["score", "--help"], &["--model", "--data", "ForSequenceClassification", "--fresh"]),
        (&["pair", "--help"], &["--margin", "--test-split", "--include-user-id"]),
        (&["languages", "--help"], &["--map", "--json"]),
        (&["status", "--help"], &["--json"]),
        (&["bench", "--help"], &["engine"]),
        (&["bench", "engine", "--help"], &["--sequences", "--prompt-len", "--output-len", "--weights", "--threads"]),
    ];
    for (arguments, flags) in wanted {
        let help = done(arguments);
        for flag in flags {
            assert!(help.contains(flag), "{arguments:?} lacks {flag}:\n{help}");
        }
    }
    let bare = run(&[]);
    assert_eq!((bare.code, bare.stdout.as_str()), (Some(2), ""), "{}", bare.stderr);
    assert!(bare.stderr.contains("Usage:"));
    assert!(done(&["--version"]).starts_with("pairwright "));
}

#[test]
fn json_is_one_object_and_quiet_is_silent_on_every_stage() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..2]);
    let requests = workshop.write("r.jsonl", "{\"prompt\": \"x\"}\n");
    let (llama, qwen2) = (fixture_model("llama"), fixture_model("qwen2"));
    let (out, lines, rubric) = (workshop.arg("out"), workshop.arg("o.jsonl"), workshop.arg("rubric.toml"));
    let model = ["--model", text(&llama), "--max-tokens", "4"];
    let commands = [
        [&["generate", "--prompts", text(&requests), "--out", &lines][..], &model].concat(),
        [&["generate", "--prompts", text(&prompts), "--out", &out][..], &model].concat(),
        vec!["judge", &out, "--judge", text(&qwen2), "--rubric", &rubric],
        vec!["pair", &out, "--margin", "0"],
    ];
    for command in &commands {
        // The second call has nothing to do, and says so in the same form.
        for _ in 0..2 {
            let outcome = run(&[&command[..], &["--json", "-q"]].concat());
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{command:?}");
            let parsed: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{command:?}: {e}"));
            assert!(parsed.is_object() && outcome.stdout.lines().count() == 1, "{command:?}: {}", outcome.stdout);
        }
        let silent = run(&[&command[..], &["-q"]].concat());
        assert_eq!((silent.stdout.as_str(), silent.stderr.as_str()), ("", ""), "{command:?}");
        let said = run(command);
        assert_eq!(said.stdout, "", "{command:?}: without --json nothing is on stdout");
        assert!(!said.stderr.is_empty(), "{command:?}");
    }
    let status = done(&["status", &out]);
    assert!(status.contains("prompts   2 of 2") && status.contains("dataset   written"), "{status}");
}

#[test]
fn languages_lists_names_codes_and_rows() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS);
    let table = done(&["languages", text(&prompts)]);
    assert!(table.lines().any(|line| line.split_whitespace().eq(["2", "2", "nld", "Dutch"])), "{table}");
    let json: Vec<Value> = serde_json::from_str(&done(&["languages", text(&prompts), "--json"])).unwrap();
    assert_eq!(json.len(), 10);
    assert_eq!(json.iter().map(|language| language["num_rows"].as_u64().unwrap()).sum::<u64>(), 12);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let workshop = Workshop::new();
    let lines: String = (0..3000)
        .map(|n| {
            format!(
                "{{\"inputs\": \"p{n}\", \"targets\": \"a\", \"language\": \"L{n}\", \"language_code\": \"l{n}\"}}\n"
            )
        })
        .collect();
    let prompts = workshop.write("many.jsonl", lines);
    for arguments in [&["languages", text(&prompts)][..], &["languages", text(&prompts), "--json"], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pairwright"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn the_built_in_rubric_can_be_printed_and_used() {
    let workshop = Workshop::new();
    let rubric = workshop.write("mine.toml", done(&["judge", "--show-rubric"]));
    let (out, again) = (workshop.arg("a"), workshop.arg("b"));
    done(&["make", "--demo", "--out", &out, "--limit", "2", "-q"]);
    done(&["make", "--demo", "--out", &again, "--limit", "2", "-q", "--rubric", text(&rubric)]);
    let read = |run: &str| std::fs::read(workshop.path(run).join("dataset/data/train-00000-of-00001.parquet")).unwrap();
    assert_eq!(read("a"), read("b"));
}

//! Runs that stop before their time is over, folders that are in use, and changes on the way.

use std::path::Path;

use super::program::{Outcome, done, program, run};
use super::{Job, PAIRS, borrowed};

fn said(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
    words.iter().for_each(|word| assert!(outcome.stderr.contains(word), "want {word:?} in:\n{}", outcome.stderr));
}

#[test]
fn without_time_nothing_is_begun_and_the_next_call_goes_on() {
    let job = Job::new(1);
    job.made("whole", &[]);
    said(&run(&borrowed(&job.make("budget", &["--time-budget", "1s"]))), 75, &["out of time: what was done is kept"]);
    assert!(!job.workshop.path("budget").join("dataset").exists());
    let mut in_a_job = program(&borrowed(&job.make("budget", &[])));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let output = in_a_job.env("SLURM_JOB_END_TIME", (now + 1).to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", String::from_utf8_lossy(&output.stderr));
    // The user knows better.
    let end = (now + 1).to_string();
    let mut ignoring = program(&borrowed(&job.make("budget", &["--deadline", "none"])));
    assert!(ignoring.env("SLURM_JOB_END_TIME", end).output().unwrap().status.success());
    assert!(job.bytes("budget", PAIRS) == job.bytes("whole", PAIRS));
    said(&run(&borrowed(&job.make("budget", &["--deadline", "yesterday"]))), 2, &["is no time", "hint: "]);
}

#[test]
fn a_folder_in_use_is_refused_and_one_left_behind_is_not() {
    let job = Job::new(1);
    job.made("whole", &[]);
    let in_use = job.workshop.path("whole/in-use.json");
    assert!(!in_use.exists(), "a run that ends leaves nothing");
    let ino = number_of(&job.workshop.path("whole"));
    let occupant = |folder: u64| format!("{{\"host\":\"gpu-box\",\"pid\":4711,\"folder\":{folder}}}\n");
    std::fs::write(&in_use, occupant(ino)).unwrap();
    let again = job.make("whole", &[]);
    said(&run(&borrowed(&again)), 3, &["in use by process 4711 on gpu-box", "hint: ", "in-use.json"]);
    // In a copy nobody is at work.
    std::fs::write(&in_use, occupant(ino + 1)).unwrap();
    done(&borrowed(&again));
}

#[cfg(unix)]
fn number_of(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
}

#[test]
fn a_run_is_started_anew_when_asked_and_by_nobody_else() {
    let job = Job::new(1);
    job.made("whole", &[]);
    let other = |more: &[&str]| job.make("whole", &[&["--max-len", "400"], more].concat());
    said(&run(&borrowed(&other(&[]))), 3, &["max_len: (none) → 400", "--fresh to start anew"]);
    done(&borrowed(&other(&["--fresh"])));
    done(&borrowed(&other(&[])));
    said(&run(&borrowed(&job.make("whole", &[]))), 3, &["max_len: 400 → (none)"]);
    // What is no run is not removed.
    std::fs::create_dir(job.workshop.path("thesis")).unwrap();
    std::fs::write(job.workshop.path("thesis/chapter1.txt"), "years of work").unwrap();
    said(&run(&borrowed(&job.make("thesis", &["--fresh"]))), 3, &["holds no run"]);
    assert_eq!(job.bytes("thesis", "chapter1.txt"), b"years of work");
}

#[test]
fn changes_that_leave_rows_usable_are_named_and_can_be_accepted() {
    let job = Job::new(1);
    job.made("whole", &[]);
    let lock = job.workshop.path("whole/run.lock");
    let version = format!("\"tool_version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let text = std::fs::read_to_string(&lock).unwrap();
    std::fs::write(&lock, text.replace(&version, "\"tool_version\": \"0.0.9\"")).unwrap();
    // As an older version left it: journals name what their rows depend on, so they are of that version too.
    std::fs::remove_dir_all(job.workshop.path("whole/journal")).unwrap();
    std::fs::remove_dir_all(job.workshop.path("whole/dataset")).unwrap();
    said(&run(&borrowed(&job.make("whole", &[]))), 3, &["tool_version: 0.0.9", "--accept-changes"]);
    done(&borrowed(&job.make("whole", &["--accept-changes"])));
    let card = String::from_utf8(job.bytes("whole", "dataset/README.md")).unwrap();
    assert!(card.contains("changed on the way") && card.contains("tool_version: 0.0.9"), "{card}");
    done(&borrowed(&job.make("whole", &["--accept-changes"])));
    // Other prompts or parameters are not of that kind.
    said(&run(&borrowed(&job.make("whole", &["--accept-changes", "--max-len", "400"]))), 3, &["max_len", "--fresh"]);
}

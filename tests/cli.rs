//! The real binary on bad and good input: exit codes, messages, what stands on which stream, and what is left on disk.
//! Whole jobs are in `pipeline.rs`.

#[path = "support/aya.rs"]
mod aya;
#[path = "cli/bad_headers.rs"]
mod bad_headers;
#[path = "cli/bad_input.rs"]
mod bad_input;
#[path = "cli/bad_models.rs"]
mod bad_models;
#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/bombs.rs"]
mod bombs;
#[path = "cli/clusters.rs"]
mod clusters;
#[path = "cli/damage.rs"]
mod damage;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/gguf.rs"]
mod gguf;
#[path = "cli/models.rs"]
mod models;
#[path = "support/program.rs"]
mod program;
#[path = "cli/runs.rs"]
mod runs;
#[path = "cli/score.rs"]
mod score;
#[path = "cli/sealed.rs"]
mod sealed;
#[path = "cli/streams.rs"]
mod streams;
#[path = "support/workshop.rs"]
mod workshop;

use program::{run, tree};

/// Runs a command that must fail: the exit code, one message with all of `said` and a hint, nothing on stdout, and no
/// change in `folder`.
fn refused(code: i32, folder: &std::path::Path, arguments: &[&str], said: &[&str]) {
    let before = tree(folder);
    let outcome = run(arguments);
    let stderr = &outcome.stderr;
    assert_eq!(outcome.code, Some(code), "{arguments:?}\n{stderr}");
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "one error: {stderr}");
    for word in said {
        assert!(stderr.contains(word), "want {word:?} in:\n{stderr}");
    }
    let is_usage_of_clap = stderr.contains("--help'");
    assert!(stderr.contains("\nhint: ") || is_usage_of_clap, "no hint:\n{stderr}");
    for word in ["panicked", "RUST_BACKTRACE", "src/", ".rs:", "unwrap", "Os {", "Err("] {
        assert!(!stderr.contains(word), "{word:?} is not for users:\n{stderr}");
    }
    assert_eq!(outcome.stdout, "", "stdout is for data");
    let after = tree(folder);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{arguments:?} left something");
    assert!(before == after, "{arguments:?} changed a file");
}

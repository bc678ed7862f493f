//! A full disk, a bad one, and kills at the very calls that change a run's folder, half-written lines included: whatever happens, the same
//! command ends with the same dataset. A few places here; with `PAIRWRIGHT_FAULTS=100` that many of each, with `all` every one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use super::{Job, PAIRS, RAW, borrowed};

/// The shim, compiled once; none where there is no C compiler for Linux.
fn shim() -> Option<&'static Path> {
    static SHIM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/faults.c");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}.so", std::process::id()));
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-O1", "-o"];
        let status = Command::new(compiler).args(flags).arg(&target).arg(source).arg("-ldl").status();
        status.is_ok_and(|status| status.success()).then_some(target)
    };
    if cfg!(target_os = "linux") { SHIM.get_or_init(build).as_deref() } else { None }
}

/// `make` into `run` with a fault at call `at` (0: none).
fn make(job: &Job, run: &str, shim: &Path, at: usize, kind: &str) -> Output {
    let root = job.workshop.path(run);
    let arguments = job.make(run, &["--max-batch", "8"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_pairwright"));
    command.args(borrowed(&arguments)).env("PAIRWRIGHT_DATE", "2026-11-22").env_remove("RUST_BACKTRACE");
    command.env("LD_PRELOAD", shim).env("FAULT_ROOT", root).env("FAULT_AT", at.to_string()).env("FAULT_KIND", kind);
    command.env("FAULT_STAYS", "1").env("FAULT_LOG", job.workshop.path("count"));
    command.output().expect("the binary starts")
}

/// Of `num_calls` calls those to be hit: spread over all, another few for each kind.
fn places(num_calls: usize, salt: usize) -> Vec<usize> {
    let wanted = std::env::var("PAIRWRIGHT_FAULTS").unwrap_or_default();
    if wanted == "all" {
        return (1..=num_calls).collect();
    }
    let wanted: usize = wanted.parse().unwrap_or(6);
    let offset = |index: usize| (index.wrapping_mul(7_919) + salt * 104_729) % 97;
    (0..wanted).map(|index| ((index * 97 + offset(index)) * num_calls / (wanted * 97)).clamp(1, num_calls)).collect()
}

fn survives(kinds: &[&str]) {
    let Some(shim) = shim() else {
        println!("skipped: no C compiler for Linux");
        return;
    };
    let job = Job::new(1);
    job.made("whole", &[]);
    let counted = make(&job, "counted", shim, 0, "");
    assert!(counted.status.success(), "{}", String::from_utf8_lossy(&counted.stderr));
    let count = std::fs::read_to_string(job.workshop.path("count")).expect("the shim's count");
    let num_calls: usize = count.trim().parse().expect("a number");
    assert!(num_calls > 50, "only {num_calls} calls change a run's folder");
    for (salt, kind) in kinds.iter().enumerate() {
        let mut num_hit = 0;
        for at in places(num_calls, salt + 1) {
            let run = format!("{kind}-{at}");
            let hit = make(&job, &run, shim, at, kind);
            let stderr = String::from_utf8_lossy(&hit.stderr);
            num_hit += usize::from(!hit.status.success());
            assert!(!stderr.contains("panicked"), "{kind} at call {at}: {stderr}");
            if *kind != "kill" && !hit.status.success() {
                let errors = stderr.lines().filter(|line| line.starts_with("error: ")).count();
                assert_eq!(errors, 1, "{kind} at call {at}: {stderr}");
                let is_told_what_to_do = *kind != "enospc" || stderr.contains("hint: ");
                assert!(is_told_what_to_do, "{kind} at call {at}: {stderr}");
            }
            let again = make(&job, &run, shim, 0, "");
            assert!(again.status.success(), "{kind} at call {at}, then: {}", String::from_utf8_lossy(&again.stderr));
            for file in [PAIRS, RAW, "dataset/README.md", "report.md", "report.html", "summary.json"] {
                assert!(job.bytes(&run, file) == job.bytes("whole", file), "{kind} at call {at}: {file} differs");
            }
            let rows = |run: &str, stage: &str| job.journal(run, stage);
            for stage in ["candidates", "verdicts"] {
                assert!(rows(&run, stage) == rows("whole", stage), "{kind} at call {at}: other rows in {stage}");
            }
            std::fs::remove_dir_all(job.workshop.path(&run)).expect("room for the next");
        }
        println!("{kind}: {num_hit} runs cut short, of {num_calls} calls");
        assert!(num_hit > 0, "{kind}: no run was cut short");
    }
}

#[test]
fn a_full_or_bad_disk_spoils_no_run() {
    survives(&["enospc", "eio", "erofs"]);
}

#[test]
fn a_kill_in_the_middle_of_a_write_spoils_no_run() {
    survives(&["kill"]);
}

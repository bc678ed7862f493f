//! Kills, torn lines, Ctrl-C, and calls on a run that is complete. No test waits by the clock: a process is watched through its
//! journal.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use pairwright::generate::StageSpeed;

use super::program::{self, done, run, tree};
use super::{Job, PAIRS, RAW, borrowed, journal_rows};

pub fn spawn(arguments: &[String]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_pairwright"))
        .args(arguments)
        .env("PAIRWRIGHT_DATE", "2026-11-22")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts")
}

/// Lines of a file; 0 while it is not there.
fn num_lines(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

/// Watches until `path` has `lines` lines; false if the process ended before.
pub fn reaches(child: &mut Child, path: &Path, lines: usize) -> bool {
    while num_lines(path) < lines {
        if child.try_wait().expect("the process can be asked").is_some() {
            return num_lines(path) >= lines;
        }
        std::thread::yield_now();
    }
    true
}

fn assert_same(job: &Job, run: &str) {
    for file in [PAIRS, RAW, "dataset/README.md", "report.md", "report.html"] {
        assert!(job.bytes(run, file) == job.bytes("whole", file), "{run}: {file} differs from the uninterrupted run's");
    }
}

/// Starts a run and kills it once a journal has so many lines; whether it was cut short.
pub fn killed(job: &Job, run: &str, (stage, lines): (&str, usize)) -> bool {
    // A small batch, so that lines come one after the other.
    let arguments = job.make(run, &["--max-batch", "3"]);
    let journal = job.workshop.path(run).join(format!("journal/{stage}.jsonl"));
    let mut child = spawn(&arguments);
    reaches(&mut child, &journal, lines);
    child.kill().expect("kill");
    child.wait().expect("reap");
    !job.workshop.path(run).join(PAIRS).exists()
}

#[test]
fn a_killed_run_ends_as_if_it_never_was() {
    const ONE_QUEUE: [(&str, usize); 4] = [("candidates", 0), ("candidates", 9), ("verdicts", 1), ("verdicts", 60)];
    const TWO_STAGES: [(&str, usize); 6] = [
        ("candidates", 0),
        ("candidates", 1),
        ("candidates", 9),
        ("candidates", 50),
        ("verdicts", 1),
        ("verdicts", 60),
    ];
    for (judge, points) in [("qwen2", &TWO_STAGES[..]), ("llama", &ONE_QUEUE)] {
        let job = Job::judged_by(judge, 3);
        job.made("whole", &[]);
        let mut num_cut = 0;
        for (index, point) in points.iter().enumerate() {
            let run = format!("killed{index}");
            num_cut += usize::from(killed(&job, &run, *point));
            done(&borrowed(&job.make(&run, &[])));
            assert_same(&job, &run);
        }
        assert!(num_cut >= points.len() - 2, "only {num_cut} runs were cut short");
    }
}

#[test]
fn a_queue_of_both_stages_goes_on_from_any_part_of_both() {
    let job = Job::judged_by("llama", 1);
    job.made("whole", &[]);
    let wanted = ["candidates", "verdicts"].map(|stage| job.journal("whole", stage));
    // Cut after so many rows. After a power cut there may even be ratings whose answers were lost.
    for (index, (candidates, verdicts)) in [(9, 4), (20, 0), (3, 30), (24, 11)].into_iter().enumerate() {
        let run = format!("part{index}");
        job.made(&run, &[]);
        std::fs::remove_dir_all(job.workshop.path(&run).join("dataset")).unwrap();
        for (stage, rows) in [("candidates", candidates), ("verdicts", verdicts)] {
            let path = job.workshop.path(&run).join(format!("journal/{stage}.jsonl"));
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.split_inclusive('\n').take(1 + rows).collect::<String>()).unwrap();
        }
        // Of a prompt's two answers one may be there: both are made again, and none is counted twice.
        let arguments = job.make(&run, &["--progress", "plain"]);
        let mut loud = borrowed(&arguments);
        loud.retain(|argument| *argument != "-q");
        let mut counted = vec![("judge", wanted[1].len())];
        if index % 2 == 1 {
            job.stages(&run, 1);
        } else {
            counted.push(("generate", wanted[0].len()));
        }
        let said = program::run(&loud).stderr;
        for (stage, rows) in counted {
            assert!(said.contains(&format!("{stage}: {rows} of {rows} rows")), "{said}");
        }
        assert_same(&job, &run);
        let found = ["candidates", "verdicts"].map(|stage| job.journal(&run, stage));
        assert!(found == wanted, "{candidates} answers and {verdicts} ratings were there");
    }
}

#[test]
fn a_torn_last_line_is_done_again() {
    torn("qwen2", &[1, 2, 17, 400]);
    torn("llama", &[17]);
}

/// Cuts bytes off the end of either journal, and once half of it, and once nearly all.
fn torn(judge: &'static str, cuts: &[usize]) {
    let job = Job::judged_by(judge, 1);
    job.made("whole", &[]);
    job.made("torn", &[]);
    for stage in ["candidates", "verdicts"] {
        let journal = job.workshop.path("torn").join(format!("journal/{stage}.jsonl"));
        let whole = std::fs::read(&journal).unwrap();
        let rows = journal_rows(&journal).len();
        for &cut in cuts.iter().chain(&[whole.len() / 2, whole.len() - 30]) {
            std::fs::write(&journal, &whole[..whole.len() - cut]).unwrap();
            // Without its dataset the run is not complete, whatever the journal says.
            std::fs::remove_dir_all(job.workshop.path("torn/dataset")).unwrap();
            job.made("torn", &[]);
            assert_eq!(journal_rows(&journal).len(), rows, "{stage}, {cut} bytes cut");
            assert_same(&job, "torn");
        }
    }
}

#[test]
fn ctrl_c_stops_with_75_and_the_next_call_goes_on() {
    for judge in ["qwen2", "llama"] {
        interrupted(&Job::judged_by(judge, 4));
    }
}

fn interrupted(job: &Job) {
    job.made("whole", &[]);
    for (stage, lines) in [("candidates", 4), ("verdicts", 4)] {
        let run = format!("interrupted-{stage}");
        let mut child = spawn(&job.make(&run, &["--max-batch", "2"]));
        let journal = job.workshop.path(&run).join(format!("journal/{stage}.jsonl"));
        assert!(reaches(&mut child, &journal, lines), "{stage} ended too soon");
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(75), "{stage}");
        assert!(!job.workshop.path(&run).join("dataset").exists());
        let before = num_lines(&journal);
        assert!(before >= lines);
        let speeds = |run: &str| StageSpeed::read_all(&job.workshop.path(run).join("speed.jsonl")).unwrap();
        let (whole, stopped) = (speeds("whole"), speeds(&run));
        assert!(stopped.iter().all(|speed| speed.elapsed_s > 0.0 && !speed.device.is_empty()), "{stopped:?}");
        job.made(&run, &[]);
        assert!(num_lines(&journal) > before, "the rest was done by the second call");
        // The sessions together did what the whole did in one; prompts that lacked an answer, of two at once, were done again.
        let all = speeds(&run);
        assert!(all.len() > stopped.len() && all[..stopped.len()] == stopped, "{all:?}");
        let rows = |speeds: &[StageSpeed]| -> u64 { speeds.iter().flat_map(|speed| speed.rows.values()).sum() };
        assert!((rows(&whole)..=rows(&whole) + 4).contains(&rows(&all)), "{all:?}\n{whole:?}");
        assert_same(job, &run);
    }
}

#[test]
fn a_complete_run_is_left_as_it_is() {
    let job = Job::new(1);
    let summary = job.made("whole", &[]);
    let before = tree(&job.workshop.path("whole"));
    let mut arguments = job.make("whole", &[]);
    arguments.retain(|argument| argument != "-q");
    let again = run(&borrowed(&arguments));
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&again.stdout).unwrap(), summary);
    assert!(tree(&job.workshop.path("whole")) == before, "a call with nothing to do changed a file");
}

#[test]
fn pairs_are_made_anew_with_another_margin_without_a_model() {
    let job = Job::new(1);
    let all = job.made("whole", &[]);
    let candidates = job.bytes("whole", "journal/candidates.jsonl");
    let out = job.workshop.arg("whole");
    let pair = |margin: &str| -> serde_json::Value {
        serde_json::from_str(&done(&["pair", &out, "--margin", margin, "--json", "-q"])).unwrap()
    };
    let none = pair("4");
    assert_eq!((&none["num_pairs"], &none["drops"]["tie"]), (&0.into(), &12.into()), "{none}");
    let median = all["margin_quantiles"]["p50"].as_f64().unwrap();
    let some = pair(&median.to_string())["num_pairs"].as_u64().unwrap();
    assert!(some >= 6 && some < all["num_pairs"].as_u64().unwrap(), "{some} of {all}");
    assert_eq!(pair("0"), all);
    assert!(candidates == job.bytes("whole", "journal/candidates.jsonl"));
    // `make` sees that its own margin is no longer the dataset's.
    pair("4");
    assert_eq!(job.made("whole", &[]), all);
}

#[test]
fn stages_alone_give_the_dataset_of_make() {
    let job = Job::new(1);
    job.made("whole", &[]);
    job.stages("stages", 3);
    assert_same(&job, "stages");
    let again = run(&borrowed(&job.make("stages", &[])));
    assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "make takes the stages' run for its own");
}

//! A run in shards, merged: the bytes of the run that was never cut, in whatever order shards come and whatever befell them; and what is
//! no run together is refused, each shard by its name and with the command that helps.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::program::{done, fixture_model, program, run, text, tree};
use super::{Job, PAIRS, RAW, borrowed, resume};

/// A shard's folder inside a run's.
fn folder(index: usize, count: usize) -> String {
    format!("shard-{index:05}-of-{count:05}")
}

/// Arguments of a shard.
fn shard_of(job: &Job, out: &str, shard: &str, more: &[&str]) -> Vec<String> {
    let mut arguments = job.make(out, more);
    arguments.extend(["--shard", shard].map(str::to_owned));
    arguments
}

/// Three shards of a run, the last first.
fn three(job: &Job, out: &str) {
    for shard in ["2/3", "0/3", "1/3"] {
        done(&borrowed(&shard_of(job, out, shard, &[])));
    }
}

fn assert_whole(job: &Job, merged: &str) {
    for file in [
        PAIRS,
        RAW,
        "dataset/README.md",
        "dataset/run.lock",
        "report.md",
        "report.html",
        "summary.json",
        "prompts.jsonl",
    ] {
        assert!(job.bytes(merged, file) == job.bytes("whole", file), "{merged}: {file} differs from the whole run's");
    }
    for stage in ["candidates", "verdicts"] {
        assert!(job.journal(merged, stage) == job.journal("whole", stage), "{merged}: {stage} differ");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for (path, content) in tree(from) {
        let path = to.join(path);
        match content {
            None => std::fs::create_dir_all(path).unwrap(),
            Some(bytes) => {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

/// What `merge` says against these folders; it must refuse them and write nothing.
fn refused(job: &Job, runs: &[&Path]) -> String {
    let out = job.workshop.path("refused");
    let paths: Vec<&str> = runs.iter().map(|path| text(path)).collect();
    let outcome = run(&[&["merge", "--out", text(&out)][..], &paths].concat());
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(!out.exists(), "something was written for {}", outcome.stderr);
    outcome.stderr
}

#[test]
fn shards_in_any_order_and_after_a_kill_are_the_whole_run() {
    for judge in ["qwen2", "llama"] {
        let job = Job::judged_by(judge, 2);
        job.made("whole", &[]);
        done(&borrowed(&shard_of(&job, "cut", "2/3", &["--max-batch", "5"])));
        let journal = job.workshop.path("cut").join(folder(0, 3)).join("journal/candidates.jsonl");
        let mut child = resume::spawn(&shard_of(&job, "cut", "0/3", &["--max-batch", "2"]));
        resume::reaches(&mut child, &journal, 4);
        child.kill().expect("kill");
        child.wait().expect("reap");
        done(&borrowed(&shard_of(&job, "cut", "1/3", &["--max-batch", "1"])));
        done(&borrowed(&shard_of(&job, "cut", "0/3", &[])));
        let cut = job.workshop.arg("cut");
        assert!(!job.workshop.path("cut").join(folder(1, 3)).join("dataset").exists(), "a shard makes no dataset");
        let summary: Value = serde_json::from_str(&done(&["merge", &cut, "--json", "-q"])).unwrap();
        assert_eq!(summary["num_rows_in"], 24);
        let speeds = |path: &Path| std::fs::read_to_string(path.join("speed.jsonl")).unwrap();
        let parts = [0, 1, 2].map(|index| speeds(&job.workshop.path("cut").join(folder(index, 3))));
        assert_eq!(speeds(&job.workshop.path("cut")), parts.concat(), "what each shard did, one behind the other");
        assert_whole(&job, "cut");
        // Again, by `merge` and by `make`: nothing to do, and nothing written.
        let before = tree(&job.workshop.path("cut"));
        let again = run(&["merge", &cut]);
        assert!(again.code == Some(0) && again.stderr.contains("nothing to do"), "{}", again.stderr);
        let arguments = shard_of(&job, "cut", "1/3", &["--max-batch", "1"]);
        done(&borrowed(&arguments));
        assert!(tree(&job.workshop.path("cut")) == before, "a call with nothing to do changed a file");
        // A merge in another folder, of folders in another order.
        let parts = [1, 2, 0].map(|index| job.workshop.path("cut").join(folder(index, 3)));
        let [a, b, c] = parts.each_ref().map(|path| text(path));
        done(&["merge", b, a, c, "--out", &job.workshop.arg("elsewhere"), "-q"]);
        assert_whole(&job, "elsewhere");
    }
}

#[test]
fn a_merge_that_was_cut_short_is_not_whole_and_goes_on() {
    let job = Job::judged_by("llama", 1);
    job.made("whole", &[]);
    three(&job, "cut");
    let cut = job.workshop.arg("cut");
    done(&["merge", &cut, "-q"]);
    for (candidates, verdicts) in [(0, 0), (7, 0), (24, 5)] {
        std::fs::remove_dir_all(job.workshop.path("cut/dataset")).unwrap();
        for (stage, rows) in [("candidates", candidates), ("verdicts", verdicts)] {
            let path = job.workshop.path("cut").join(format!("journal/{stage}.jsonl"));
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.split_inclusive('\n').take(1 + rows).collect::<String>()).unwrap();
        }
        let status: Value = serde_json::from_str(&done(&["status", &cut, "--json"])).unwrap();
        assert_eq!(status["merged"]["dataset_written"], false);
        assert_eq!(status["merged"]["verdicts"]["num_done"], verdicts);
        done(&["merge", &cut, "-q"]);
        assert_whole(&job, "cut");
    }
}

#[test]
fn stages_by_commands_of_their_own_and_places_from_the_environment() {
    let job = Job::new(1);
    job.made("whole", &[]);
    let (out, rubric) = (job.workshop.arg("cut"), job.workshop.arg("rubric.toml"));
    let (llama, qwen2) = (fixture_model("llama"), fixture_model("qwen2"));
    let generate = ["generate", "--prompts", text(&job.prompts), "--out", &out, "--model", text(&llama)];
    for index in ["1", "0"] {
        // Open MPI's ranks, and tasks of a Slurm array from 1 to 2.
        let ranks = [("OMPI_COMM_WORLD_RANK", index), ("OMPI_COMM_WORLD_SIZE", "2")];
        let arguments = [&generate[..], &super::SAMPLING, &["--shard", "auto"]].concat();
        program(&arguments).envs(ranks).assert().success();
        let task = if index == "1" { "2" } else { "1" };
        let array = [("ID", task), ("MIN", "1"), ("MAX", "2"), ("STEP", "1"), ("COUNT", "2")];
        let array = array.map(|(name, value)| (format!("SLURM_ARRAY_TASK_{name}"), value));
        let judge = ["judge", &out, "--judge", text(&qwen2), "--rubric", &rubric, "-q", "--shard", "auto"];
        program(&judge).envs(array).assert().success();
    }
    done(&["merge", &out, "-q"]);
    // `pair` was left to its defaults, which are not those of the job.
    done(&["pair", &out, "--margin", "0", "-q"]);
    assert_whole(&job, "cut");
}

#[test]
fn status_tells_of_each_shard_and_of_all() {
    let job = Job::new(1);
    let out = job.workshop.arg("cut");
    done(&borrowed(&shard_of(&job, "cut", "1/3", &[])));
    let status: Value = serde_json::from_str(&done(&["status", &out, "--json"])).unwrap();
    let shards = status["shards"].as_array().unwrap();
    assert_eq!(shards.iter().map(|shard| shard["shard"].as_str().unwrap()).collect::<Vec<_>>(), ["0/3", "1/3", "2/3"]);
    assert!(shards[0]["status"].is_null() && shards[2]["status"].is_null() && status["merged"].is_null(), "{status}");
    let own = shards[1]["status"]["num_records"].as_u64().unwrap();
    assert!(own > 0 && own < 12, "{status}");
    assert_eq!((&status["num_complete"], &status["num_records"]), (&1.into(), &12.into()));
    assert_eq!(
        (&status["candidates"]["num_done"], &status["candidates"]["num_wanted"]),
        (&(2 * own).into(), &24.into())
    );
    let said = done(&["status", &out]);
    for line in ["0/3", "not begun", "complete  1 of 3 shards", "merged    not yet"] {
        assert!(said.contains(line), "want {line} in {said}");
    }
    // A shard's folder alone is a run as any other.
    let one: Value =
        serde_json::from_str(&done(&["status", text(&job.workshop.path("cut").join(folder(1, 3))), "--json"])).unwrap();
    assert_eq!((one["num_records"].as_u64(), &one["num_records_of_all"]), (Some(own), &12.into()));
}

#[test]
fn what_is_no_run_together_is_refused_by_name() {
    let job = Job::judged_by("llama", 1);
    three(&job, "cut");
    let cut = job.workshop.path("cut");
    let parts: Vec<PathBuf> = (0..3).map(|index| cut.join(folder(index, 3))).collect();
    let [first, second, third] = [&parts[0], &parts[1], &parts[2]].map(PathBuf::as_path);
    let wants = |said: &str, words: &[&str]| {
        words.iter().for_each(|word| assert!(said.contains(word), "want {word} in {said}"))
    };

    wants(&refused(&job, &[first, third]), &["shard 1/3 is missing", "begin with: pairwright make", "--shard 1/3"]);
    wants(&refused(&job, &[first, second, third, first]), &["shard 0/3 is there more than once"]);
    // Other numbers of shards, other parameters: already when they begin.
    for (shard, more, words) in [
        ("0/4", &[][..], &["number of shards: 3 → 4"][..]),
        ("1/3", &["--stop", "x"], &["parameters.generate.stop", "holds a run with other inputs"]),
        ("1/3", &["--stop", "x", "--fresh"], &["parameters.generate.stop", "has other inputs"]),
    ] {
        let outcome = run(&borrowed(&shard_of(&job, "cut", shard, more)));
        assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
        wants(&outcome.stderr, words);
    }
    // Elsewhere nobody saw them begin.
    done(&borrowed(&shard_of(&job, "other", "1/3", &["--stop", "x"])));
    let other = job.workshop.path("other").join(folder(1, 3));
    wants(&refused(&job, &[first, &other, third]), &["(shard 1/3) differs from shard 0/3", "parameters.generate.stop"]);
    done(&borrowed(&shard_of(&job, "fourths", "1/4", &[])));
    let fourth = job.workshop.path("fourths").join(folder(1, 4));
    wants(&refused(&job, &[first, &fourth, third]), &["is shard 1/4", "shard 1/3 is missing"]);
    job.made("whole", &[]);
    wants(&refused(&job, &[first, second, third, &job.workshop.path("whole")]), &["is a whole run and no shard"]);

    // Damage by hand.
    let damaged = |name: &str, mend: &dyn Fn(&Path)| {
        let copied = job.workshop.path(name);
        copy(second, &copied);
        mend(&copied);
        refused(&job, &[first, &copied, third])
    };
    let said = damaged("wrong rows", &|run| {
        _ = std::fs::copy(first.join("prompts.jsonl"), run.join("prompts.jsonl")).unwrap()
    });
    wants(&said, &["(shard 1/3) has the prompt", "belongs to shard 0/3"]);
    let said = damaged("wrong journal", &|run| {
        _ = std::fs::copy(first.join("journal/candidates.jsonl"), run.join("journal/candidates.jsonl")).unwrap();
    });
    wants(&said, &["belongs to another run"]);
    let said = damaged("incomplete", &|run| {
        let path = run.join("journal/verdicts.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.split_inclusive('\n').take(3).collect::<String>()).unwrap();
    });
    wants(&said, &["(shard 1/3) has", "and 2 of", "go on with: pairwright make", "--shard 1/3"]);
    // A shard is not a run: no pairs of it, and no run without --shard in its folder or in theirs.
    let outcome = run(&["pair", text(first)]);
    wants(&outcome.stderr, &["is shard 0/3 of a run", "pairwright merge"]);
    let outcome = run(&borrowed(&job.make("cut", &[])));
    assert_eq!(outcome.code, Some(3));
    wants(&outcome.stderr, &["holds shards of a run", "--shard I/N"]);
    let outcome = run(&borrowed(&job.make(&format!("cut/{}", folder(0, 3)), &[])));
    wants(&outcome.stderr, &["shard: 0/3 → (none)"]);
    assert!(!cut.join("run.lock").exists() && !cut.join("dataset").exists());
}

//! `plan` as a program: its counts are those of the run that follows, its exit codes are documented, and what it keeps is held against the run.

use std::path::Path;

use serde_json::Value;

use super::program::{done, run, text, tree};

/// The demonstration, made: prompts, model, and what its stages counted.
struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    fn demo() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Self { folder };
        done(&["make", "--demo", "--out", &made.path("demo"), "--device", "cpu", "--products", "fma", "--quiet"]);
        made
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// The flags of a job over the demonstration's rows.
    fn job(&self, generator: &str, judge: &str) -> Vec<String> {
        let prompts = self.path("demo/demo/prompts.jsonl");
        let words = [
            "--prompts",
            &prompts,
            "--generator",
            generator,
            "--judge",
            judge,
            "--max-tokens",
            "24",
            "--device",
            "cpu",
        ];
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn toy(&self) -> String {
        self.path("demo/demo/model")
    }

    /// The toy under another name, so that two stages do not share a queue.
    fn other(&self) -> String {
        let other = self.folder.path().join("other");
        if !other.exists() {
            std::fs::create_dir(&other).unwrap();
            for entry in std::fs::read_dir(self.toy()).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, other.join(path.file_name().unwrap())).unwrap();
            }
            // Another file, so that it is another model.
            std::fs::write(other.join("generation_config.json"), "{\"temperature\": 0.9}").unwrap();
        }
        self.path("other")
    }
}

fn plan(words: &[String], more: &[&str]) -> Value {
    let words: Vec<&str> =
        ["plan"].into_iter().chain(words.iter().map(String::as_str)).chain(more.iter().copied()).collect();
    serde_json::from_str(&done(&[&words[..], &["--json", "--quiet"]].concat())).unwrap()
}

fn speeds(run: &str) -> Vec<Value> {
    let lines = std::fs::read_to_string(Path::new(run).join("speed.jsonl")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Prompt tokens of a stage, and those computed.
fn counted(stage: &Value) -> (u64, u64) {
    let computed = stage["computed"].as_object().unwrap().values().map(|tokens| tokens.as_u64().unwrap()).sum();
    (stage["num_prompt_tokens"].as_u64().unwrap(), computed)
}

#[test]
fn tokens_are_those_that_the_run_computes() {
    let made = Made::demo();
    let words = made.job(&made.toy(), &made.other());
    let plan = plan(&words, &[]);
    let out = made.path("run");
    let arguments: Vec<&str> =
        ["make", "--out", &out, "--quiet"].into_iter().chain(words.iter().map(String::as_str)).collect();
    done(&arguments);
    let speeds = speeds(&out);
    assert_eq!(plan["rows"]["num_records"], 48);
    for (stage, exact) in [("known answers", true), ("generate", true), ("judge", false)] {
        let planned = plan["stages"].as_array().unwrap().iter().find(|one| one["stage"] == stage).unwrap();
        let speed = speeds.iter().find(|speed| speed["rows"].get(stage).is_some()).unwrap();
        let [computed, reused] = ["num_prefill_tokens", "num_reused_tokens"].map(|name| speed[name].as_u64().unwrap());
        let (prompts, planned_computed) = counted(planned);
        assert_eq!(planned["num_rows"], speed["rows"][stage], "{stage}");
        if exact {
            // The real rubric, template and tokenizer, in the engine's own order: to the token.
            assert_eq!((prompts, planned_computed), (computed + reused, computed), "{stage}");
        } else {
            // People's answers stand for the model's.
            let ratio = prompts as f64 / (computed + reused) as f64;
            assert!((0.85..1.15).contains(&ratio), "{stage}: {ratio}");
        }
    }
    // Counts of the tokenizer itself.
    let first = plan["tokens"][0].clone();
    assert_eq!(first["counted_by"], "tokenizer");
    assert_eq!(first["prompts"]["n"], 48);
    let generated = plan["stages"].as_array().unwrap().iter().find(|one| one["stage"] == "generate").unwrap();
    assert_eq!(first["prompts"]["total"], generated["num_prompt_tokens"]);
}

#[test]
fn its_json_keeps_its_form() {
    let made = Made::demo();
    let plan = plan(
        &made.job(&made.toy(), &made.toy()),
        &["--card", "H100 80GB", "--hours", "4", "--price-per-gpu-hour", "2.5"],
    );
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        keys(&plan),
        "format tool_version created rows tokens models stages cards measured forecast disk power annotation licences risks \
         assumptions fits what_would"
    );
    assert_eq!(keys(&plan["rows"]), "num_rows_read num_records num_with_response drops languages most_pairs");
    assert_eq!(
        keys(&plan["stages"][0]),
        "stage model num_rows num_requests prompt num_prompt_tokens computed num_output_tokens num_refused simulated_share"
    );
    assert_eq!(keys(&plan["cards"][0]), "card memory_gb unverified models fits stages gpus num_tasks");
    assert_eq!(keys(&plan["cards"][0]["gpus"][0]), "num_gpus wall_hours gpu_hours kwh price");
    assert_eq!(keys(&plan["forecast"][0]), "stage model card num_rows low_s expected_s high_s");
    assert_eq!(
        (plan["format"].as_u64(), plan["fits"].as_bool(), plan["cards"][0]["num_tasks"].as_u64()),
        (Some(1), Some(true), Some(1))
    );
    // More cards, less time; hours of cards do not shrink, and price and energy follow them.
    let gpus = plan["cards"][0]["gpus"].as_array().unwrap();
    let worst = |gpus: &Value, name: &str| gpus[name][1].as_f64().unwrap();
    for (few, more) in gpus.iter().zip(&gpus[1..]) {
        assert!(
            worst(more, "wall_hours") <= worst(few, "wall_hours")
                && worst(more, "gpu_hours") >= worst(few, "gpu_hours")
        );
    }
    assert!((worst(&gpus[0], "price") - 2.5 * worst(&gpus[0], "gpu_hours")).abs() < 1e-9);
    assert!((worst(&gpus[0], "kwh") - 0.7 * worst(&gpus[0], "gpu_hours")).abs() < 1e-9);
    // Each aspect of a rating, and a judge that rates itself.
    let judge = plan["cards"][0]["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "judge").unwrap();
    assert_eq!(judge["parts"].as_object().unwrap().len(), 5);
    let risks: Vec<&str> =
        plan["risks"].as_array().unwrap().iter().map(|risk| risk["name"].as_str().unwrap()).collect();
    assert!(risks.contains(&"judge_is_generator") && risks.contains(&"clipped_answers"), "{risks:?}");
}

#[test]
fn names_of_the_list_are_planned_with_estimates_and_what_cannot_fit_says_what_would() {
    let made = Made::demo();
    let prompts = made.path("demo/demo/prompts.jsonl");
    let words =
        ["plan", "--prompts", &prompts, "--generator", "Qwen/Qwen3-32B", "--judge", "llama-3.1-8b-instruct", "--quiet"];
    let fits = run(&[&words[..], &["--card", "h200", "--pairwise"]].concat());
    assert_eq!(fits.code, Some(0), "{}", fits.stderr);
    for said in [
        "estimated: no tokenizer here",
        "token counts of llama-3.1-8b-instruct, qwen3-32b are estimates",
        "by llama-3.1-8b-instruct: first order",
        "do not name",
    ] {
        assert!(fits.stdout.contains(said), "{said}: {}", fits.stdout);
    }
    let not = run(&[&words[..], &["--card", "L4"]].concat());
    assert_eq!(not.code, Some(1), "{}", not.stderr);
    assert!(not.stderr.contains("qwen3-32b needs 66.7 GB and a cache, and fits with --quantize q5k"), "{}", not.stderr);
    assert!(not.stdout.contains("CANNOT BE MADE AS ASKED"), "the plan is printed all the same");
    let late = run(&[&words[..], &["--card", "H200", "--hours", "0.001"]].concat());
    assert_eq!(late.code, Some(1));
    assert!(late.stderr.contains("give tasks more time"), "{}", late.stderr);
}

#[test]
fn wrong_flags_have_their_exit_codes() {
    let made = Made::demo();
    let words = made.job(&made.toy(), &made.toy());
    let words: Vec<&str> = ["plan"].into_iter().chain(words.iter().map(String::as_str)).collect();
    let before = tree(made.folder.path());
    for (arguments, code, said) in [
        (vec!["plan"], 2, "--prompts is missing"),
        ([&words[..], &["--card", "H1000"]].concat(), 3, "did you mean H100 80GB"),
        ([&words[..], &["--save"]].concat(), 2, "--save does not say where"),
        ([&words[..], &["--measure", "soon"]].concat(), 2, "want a duration such as 60s"),
        ([&words[..], &["--judge", "lama-3.1-8b-instruct"]].concat(), 3, "did you mean llama-3.1-8b-instruct"),
        ([&words[..], &["--judge", "qwen3-8b", "--measure", "1s"]].concat(), 2, "--measure runs models"),
    ] {
        let outcome = run(&arguments);
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{said}: {}", outcome.stderr);
    }
    // A plan writes nothing that was not asked for, and a refused one nothing at all.
    done(&[&words[..], &["--json", "--quiet"]].concat());
    assert_eq!(tree(made.folder.path()), before);
}

#[test]
fn what_was_kept_is_held_against_the_run() {
    let made = Made::demo();
    let out = made.path("run");
    let words = made.job(&made.toy(), &made.other());
    let measured = plan(&words, &["--out", &out, "--save", "--measure", "300ms"]);
    assert!(Path::new(&out).join("plan.json").exists());
    let stages: Vec<&str> =
        measured["measured"].as_array().unwrap().iter().map(|one| one["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["known answers", "generate", "judge"]);
    assert_eq!(measured["tokens"][0]["expected_from"], "measured");
    // The folder is still a run's to take, and what the plan said changes nothing of it.
    let make = |out: &str| {
        let arguments: Vec<&str> =
            ["make", "--out", out, "--quiet"].into_iter().chain(words.iter().map(String::as_str)).collect();
        done(&arguments);
    };
    make(&out);
    let plain = made.path("plain");
    make(&plain);
    let read = |run: &str, name: &str| std::fs::read(Path::new(run).join(name)).unwrap();
    for name in ["report.md", "report.html", "summary.json", "dataset/run.lock"] {
        assert_eq!(read(&out, name), read(&plain, name), "{name}");
    }
    let page = made.path("page.html");
    let report: Value = serde_json::from_str(&done(&["report", &out, "--json", "--out", &page])).unwrap();
    let predicted = report["predicted"].as_array().unwrap();
    assert_eq!(
        predicted.iter().map(|one| one["stage"].as_str().unwrap()).collect::<Vec<_>>(),
        ["known answers", "generate", "judge"]
    );
    for one in predicted {
        assert_eq!(one["num_rows"], one["num_rows_predicted"], "{one}");
        let [low, middle, high] = [0, 1, 2].map(|at| one["predicted_s"][at].as_f64().unwrap());
        assert!(0.0 < low && low < middle && middle < high && one["card"].is_null(), "{one}");
    }
    let texts = super::html::texts_of(&std::fs::read_to_string(&page).unwrap()).unwrap();
    assert!(texts.contains("What the plan had said") && texts.contains("timing this machine"), "{texts}");
    let without = done(&["report", &plain, "--json"]);
    assert!(!without.contains("\"predicted\""));
    assert_eq!(text(Path::new(&page)), page);
}

#[test]
fn the_arguments_of_make_are_those_of_plan() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |more: &[&str]| -> Value {
        let words = [&["plan", "--demo", "--device", "cpu", "--card", "H100", "--json", "--quiet"], more].concat();
        let output = super::program::program(&words).env("TMPDIR", folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let whole = ask(&["--fresh"]);
    assert_eq!(whole["rows"]["num_records"], 48);
    assert!(whole["models"][0]["facts"]["name"].as_str().unwrap().contains("not a language model"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the demonstration's files are gone");
    // One model in both roles is loaded once.
    let stages = |plan: &Value| -> Vec<String> {
        plan["cards"][0]["stages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stage| stage["stage"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(stages(&whole), ["load", "known answers", "generate", "judge"]);
    // Shards are the rows together, each row once, and the first tests the judge.
    let shards: Vec<Value> = ["0/3", "1/3", "2/3"].map(|shard| ask(&["--shard", shard])).into();
    let rows = |plan: &Value| plan["rows"]["num_records"].as_u64().unwrap();
    assert_eq!(shards.iter().map(rows).sum::<u64>(), 48);
    for (at, shard) in shards.iter().enumerate() {
        assert_eq!(shard["rows"]["drops"]["other_shard"].as_u64().unwrap() + rows(shard), 48);
        assert_eq!(stages(shard).contains(&"known answers".to_owned()), at == 0);
    }
    // The time that a run has is the time of its tasks.
    let tasks = |more: &[&str]| ask(more)["cards"][0]["num_tasks"].as_u64();
    assert_eq!((tasks(&[]), tasks(&["--time-budget", "4h"]), tasks(&["--hours", "4"])), (None, Some(1), Some(1)));
}

#[test]
fn a_judge_with_the_generators_name_is_another_model() {
    let made = Made::demo();
    let name = "llama-demo";
    let (writer, rater) = (made.folder.path().join("a").join(name), made.folder.path().join("b").join(name));
    for copy in [&writer, &rater] {
        std::fs::create_dir_all(copy).unwrap();
        for entry in std::fs::read_dir(made.toy()).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        std::fs::write(copy.join("generation_config.json"), "{\"temperature\": 0.9}").unwrap();
    }
    std::fs::write(rater.join("README.md"), "---\nlicense: mit\n---\n").unwrap();
    let words = made.job(text(&writer), text(&rater));
    let plan = plan(&words, &["--card", "H100"]);
    let models = plan["models"].as_array().unwrap();
    assert_eq!((&models[0]["facts"]["name"], &models[1]["facts"]["name"]), (&name.into(), &name.into()));
    assert_eq!(models[1]["facts"]["licence"], "mit");
    let loads = plan["cards"][0]["stages"].as_array().unwrap().iter().filter(|stage| stage["stage"] == "load").count();
    assert!(loads > 1, "each is loaded");
}

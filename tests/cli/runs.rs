//! Runs that are there: other parameters are named, incomplete stages are refused and leave no trace, drops are counted.

use std::path::Path;

use serde_json::Value;

use super::damage::model;
use super::program::{done, fixture_model, run, text, tree};
use super::refused;
use super::workshop::{ROWS, Workshop};

/// Arguments of a small, complete `make` on fixture models.
fn make<'a>(prompts: &'a Path, out: &'a str, rubric: &'a str, models: &'a [String; 2]) -> Vec<&'a str> {
    let [generator, judge] = models;
    let mut arguments = vec!["make", "--prompts", text(prompts), "--generator", generator, "--judge", judge];
    arguments.extend(["--out", out, "--rubric", rubric, "--max-tokens", "8", "--margin", "0", "--json", "-q"]);
    arguments.extend(["--products", "fma"]);
    arguments
}

fn models() -> [String; 2] {
    ["llama", "qwen2"].map(|name| text(&fixture_model(name)).to_owned())
}

#[test]
fn another_runs_folder_is_refused_and_each_difference_named() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..2]);
    let (out, rubric, models) = (workshop.arg("out"), workshop.arg("rubric.toml"), models());
    let base = make(&prompts, &out, &rubric, &models);
    done(&base);
    let refuse = |more: &[&str], said: &[&str]| {
        refused(3, &workshop.path("."), &[&base[..], more].concat(), &[&["another --out"], said].concat());
    };
    refuse(&["--seed", "5", "--temperature", "0.5"], &["seed: 0 → 5", "parameters.generate.temperature: 0.7 → 0.5"]);
    refuse(&["--max-len", "300"], &["parameters.generate.max_len: (none) → 300", "parameters.judge.max_len"]);
    refuse(&["--system-prompt", "Be brief."], &["parameters.generate.system_prompts"]);
    refuse(&["--limit", "1"], &["parameters.prompts.limit: (none) → 1"]);
    refuse(&["-n", "2"], &["num_samples: 1 → 2"]);
    refuse(&["--dtype", "bf16"], &["generators.llama.dtype: f32 → bf16", "judges.qwen2.dtype"]);
    let said =
        ["generators.llama.dtype: f32 → q8_0, activations int8", "judges.qwen2.dtype: f32 → q8_0, activations int8"];
    refuse(&["--quantize", "q8_0"], &said);
    refuse(
        &["--kv-dtype", "f16"],
        &["generators.llama.dtype: f32 → f32, KV cache f16", "judges.qwen2.dtype: f32 → f32, KV cache f16"],
    );
    let other = [models[1].clone(), models[0].clone()];
    refused(
        3,
        &workshop.path("."),
        &make(&prompts, &out, &rubric, &other),
        &["generators.llama: llama → (none)", "generators.qwen2: (none) → qwen2"],
    );
    let more = workshop.prompts("more.jsonl", &ROWS[..3]);
    refused(3, &workshop.path("."), &make(&more, &out, &rubric, &models), &["source.sha256"]);
    let second = workshop.write("second.toml", super::workshop::RUBRIC.replace("Form,", "Shape,"));
    refused(3, &workshop.path("."), &make(&prompts, &out, text(&second), &models), &["rubric_sha256"]);
    refused(3, &workshop.path("."), &["make", "--demo", "--out", &out], &["p.jsonl → the embedded demonstration"]);
    // Candle's operations do the same job with other last bits.
    let portable = ["--ops", "portable"];
    let other = [&make(&prompts, &out, &rubric, &models)[..], &portable].concat();
    refused(3, &workshop.path("."), &other, &["f32 → f32, portable operations"]);
    let beside = workshop.arg("beside");
    let made: Value =
        serde_json::from_str(&done(&[&make(&prompts, &beside, &rubric, &models)[..], &portable].concat())).unwrap();
    assert_eq!(made["num_rows_in"], 2, "{made}");
}

#[test]
fn quantised_weights_are_named_and_what_does_not_fit_is_said_once() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..2]);
    let (out, rubric, [llama, _]) = (workshop.arg("out"), workshop.arg("rubric.toml"), models());
    let mut base = vec!["make", "--prompts", text(&prompts), "--generator", &llama, "--judge", &llama, "--out", &out];
    base.extend(["--rubric", &rubric, "--max-tokens", "4", "--margin", "0", "--products", "fma"]);
    let made = run(&[&base[..], &["--quantize", "q4k"]].concat());
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let note = "q4k takes rows of whole blocks of 256: 23 of 23 matrices stay in q8_0 (rows of 64)";
    assert_eq!(made.stderr.matches(note).count(), 1, "{}", made.stderr);
    let lock: Value = serde_json::from_slice(&std::fs::read(workshop.path("out/run.lock")).unwrap()).unwrap();
    assert_eq!(
        (&lock["generators"][0]["dtype"], &lock["judges"][0]["dtype"]),
        (&"q4k, activations int8".into(), &"q4k, activations int8".into())
    );
    assert!(lock["environment"]["device"].as_str().unwrap().ends_with(" q4k"), "{lock}");
    let other = [&base[..], &["--quantize", "q8_0"]].concat();
    refused(
        3,
        &workshop.path("."),
        &other,
        &["generators.llama.dtype: q4k, activations int8 → q8_0, activations int8"],
    );
    refused(3, &workshop.path("."), &base, &["generators.llama.dtype: q4k, activations int8 → f32"]);
    let exact = [&base[..], &["--quantize", "q4k", "--activations", "f32"]].concat();
    refused(3, &workshop.path("."), &exact, &["generators.llama.dtype: q4k, activations int8 → q4k\n"]);
    refused(2, &workshop.path("."), &[&base[..], &["--quantize", "q3k"]].concat(), &["q8_0, q6k, q5k, q4k, q4_0"]);
}

#[test]
fn formats_that_change_answers_are_in_lock_and_card_and_others_are_not() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..2]);
    let (out, rubric, models) = (workshop.arg("out"), workshop.arg("rubric.toml"), models());
    let base = make(&prompts, &out, &rubric, &models);
    let dtype = || {
        let lock: Value = serde_json::from_slice(&std::fs::read(workshop.path("out/run.lock")).unwrap()).unwrap();
        lock["generators"][0]["dtype"].as_str().unwrap().to_owned()
    };
    // Activations are rounded for weights in blocks, of which a dense model has none.
    done(&[&base[..], &["--activations", "int8", "--kv-dtype", "f32"]].concat());
    assert_eq!(dtype(), "f32");
    let made = tree(&workshop.path("out"));
    done(&[&base[..], &["--activations", "f32"]].concat());
    assert!(tree(&workshop.path("out")) == made, "a complete run is left as it is");
    std::fs::remove_dir_all(workshop.path("out")).unwrap();
    let int8 = [&base[..], &["--quantize", "q8_0", "--kv-dtype", "int8"]].concat();
    done(&int8);
    assert_eq!(dtype(), "q8_0, activations int8, KV cache int8");
    let card = std::fs::read_to_string(workshop.path("out/dataset/README.md")).unwrap();
    assert_eq!(card.matches("(`q8_0, activations int8, KV cache int8`, ").count(), 2, "{card}");
    for (more, to) in [
        (["--kv-dtype", "bf16", "--activations", "int8"], "q8_0, activations int8, KV cache bf16"),
        (["--kv-dtype", "f32", "--activations", "f32"], "q8_0\n"),
    ] {
        let said = format!("generators.llama.dtype: q8_0, activations int8, KV cache int8 → {to}");
        let arguments = [&base[..], &["--quantize", "q8_0"], &more].concat();
        refused(3, &workshop.path("."), &arguments, &[&said]);
    }
    let split = [&base[..base.len() - 1], &["bf16x3"]].concat();
    refused(3, &workshop.path("."), &split, &["KV cache int8 → f32, products bf16x3"]);
    let unknown = [&base[..], &["--kv-dtype", "int4"]].concat();
    refused(2, &workshop.path("."), &unknown, &["--kv-dtype", "f32, f16, bf16, int8"]);
}

#[test]
fn incomplete_stages_are_refused_without_a_trace() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..3]);
    let (out, rubric, [llama, qwen2]) = (workshop.arg("out"), workshop.arg("rubric.toml"), models());
    for command in [&["status", &out][..], &["judge", &out, "--judge", &qwen2], &["pair", &out]] {
        refused(3, &workshop.path("."), command, &["holds no run: run.lock is missing"]);
    }
    done(&["generate", "--model", &llama, "--prompts", text(&prompts), "--out", &out, "--max-tokens", "4", "-q"]);
    refused(3, &workshop.path("."), &["pair", &out, "--margin", "0.3"], &["0 of 6 rows have verdicts", "judge"]);
    let journal = workshop.path("out/journal/candidates.jsonl");
    let whole = std::fs::read_to_string(&journal).unwrap();
    let shorter: String = whole.split_inclusive('\n').take(3).collect();
    std::fs::write(&journal, shorter).unwrap();
    let judge = ["judge", &out, "--judge", &qwen2, "--rubric", &rubric];
    refused(3, &workshop.path("."), &judge, &["2 of 3 rows have generated answers", "`pairwright generate`"]);
    refused(3, &workshop.path("."), &["pair", &out], &["2 of 3 rows have generated answers"]);
    std::fs::write(&journal, whole).unwrap();
    let bad = model(&workshop, "bad", "qwen2");
    let weights = std::fs::read(bad.join("model.safetensors")).unwrap();
    std::fs::write(bad.join("model.safetensors"), &weights[..900]).unwrap();
    let arguments = ["judge", &out, "--judge", text(&bad), "--rubric", &rubric];
    refused(3, &workshop.path("."), &arguments, &["not a readable safetensors file"]);
    refused(2, &workshop.path("."), &["pair", &out, "--margin", "-2"], &["--margin is -2", "0 to 4"]);
    done(&judge);
    done(&["pair", &out]);
}

#[test]
fn damaged_journals_are_told_by_line_and_their_rows_done_again() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..3]);
    let (out, rubric, models) = (workshop.arg("out"), workshop.arg("rubric.toml"), models());
    let make = make(&prompts, &out, &rubric, &models);
    done(&make);
    let journal = workshop.path("out/journal/candidates.jsonl");
    let damaged = std::fs::read_to_string(&journal).unwrap().replacen("\"text\":\"", "\"text\":\"x", 1);
    std::fs::write(&journal, damaged).unwrap();
    std::fs::remove_dir_all(workshop.path("out/dataset")).unwrap();
    let loud: Vec<&str> = make.iter().copied().filter(|argument| *argument != "-q").collect();
    let again = run(&loud);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let said = "candidates.jsonl: line 2 is damaged: its checksum does not match; such rows are done again";
    assert!(again.stderr.contains(said), "{}", again.stderr);
    let bytes = std::fs::read(&journal).unwrap();
    assert_eq!(bytes.iter().filter(|&&byte| byte == b'\n').count(), 1 + 3 + 1, "one row was done again");
    std::fs::write(&journal, "something else\nentirely\n").unwrap();
    refused(3, &workshop.path("."), &["status", &out], &["is not a journal"]);
    std::fs::write(workshop.path("out/prompts.jsonl"), "{}\n").unwrap();
    refused(3, &workshop.path("."), &["status", &out], &["prompts.jsonl, line 1"]);
}

#[test]
fn a_start_that_was_killed_early_is_no_foreign_folder() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..2]);
    workshop.write("out/.run.lock.tmp-4711", "{\"format_ver");
    let (out, rubric, models) = (workshop.arg("out"), workshop.arg("rubric.toml"), models());
    done(&make(&prompts, &out, &rubric, &models));
}

#[test]
fn nulls_empty_and_overlong_rows_are_counted_and_the_rest_goes_on() {
    let workshop = Workshop::new();
    let long = "lang ".repeat(200);
    let rows = [
        serde_json::json!({"inputs": "Hoi", "targets": "Hallo", "language": "Dutch", "language_code": "nld"}),
        serde_json::json!({"inputs": null, "targets": "Hallo", "language": "Dutch", "language_code": "nld"}),
        serde_json::json!({"inputs": "Hoi", "targets": "weer", "language": "Dutch", "language_code": "nld"}),
        serde_json::json!({"inputs": "Dag", "targets": null, "language": "Dutch", "language_code": "nld"}),
        serde_json::json!({"inputs": "Dag", "targets": "  ", "language": "Dutch", "language_code": "nld"}),
        serde_json::json!({"inputs": " ", "targets": "x", "language": "Dutch", "language_code": "nld"}),
        serde_json::json!({"inputs": long, "targets": "x", "language": "Dutch", "language_code": "nld"}),
        serde_json::json!({"inputs": "Tot ziens", "targets": long, "language": "Dutch", "language_code": "nld"}),
        serde_json::json!({"inputs": "สวัสดี", "targets": "ครับ", "language": "Thai", "language_code": "tha"}),
    ];
    let prompts = workshop.write("p.jsonl", rows.map(|row| row.to_string() + "\n").concat());
    let (out, rubric, models) = (workshop.arg("out"), workshop.arg("rubric.toml"), models());
    let arguments = [&make(&prompts, &out, &rubric, &models)[..], &["--language", "nl"]].concat();
    let summary: Value = serde_json::from_str(&done(&arguments)).unwrap();
    let drops = &summary["drops"];
    for (reason, rows) in [
        ("null_prompt", 1),
        ("duplicate_prompt", 1),
        ("null_response", 1),
        ("empty_response", 1),
        ("empty_prompt", 1),
        ("other_language", 1),
        ("prompt_too_long", 1),
        ("judge_prompt_too_long", 1),
    ] {
        assert_eq!(drops[reason], rows, "{reason}: {summary}");
    }
    let dropped: u64 = drops.as_object().unwrap().values().map(|rows| rows.as_u64().unwrap()).sum();
    assert_eq!(summary["num_rows_in"], 9);
    assert_eq!(summary["num_pairs"].as_u64().unwrap() + dropped, 9, "{summary}");
    let report = std::fs::read_to_string(workshop.path("out/report.md")).unwrap();
    assert!(report.contains("`prompt_too_long`") && report.contains("`judge_prompt_too_long`"), "{report}");
    let status: Value = serde_json::from_str(&done(&["status", &out, "--json"])).unwrap();
    assert_eq!(status["candidates"], serde_json::json!({"num_done": 3, "num_failed": 1, "num_wanted": 3}));
    assert_eq!(status["dataset_written"], true);
}

#[test]
fn rows_too_large_for_the_cache_are_left_and_done_when_it_is_raised() {
    let workshop = Workshop::new();
    // 441 tokens with template and answer, and some more.
    let longer = format!("{} En een maand, en een jaar?", ROWS[0][0]);
    let prompts = workshop.prompts("p.jsonl", &[ROWS[0], [&longer, "Dat scheelt.", "Dutch", "nld"]]);
    let (out, rubric, models) = (workshop.arg("out"), workshop.arg("rubric.toml"), models());
    let make = make(&prompts, &out, &rubric, &models);
    for (tokens, done_rows) in [("32", 0), ("448", 1)] {
        let small = run(&[&make[..], &["--kv-tokens", tokens]].concat());
        let stderr = &small.stderr;
        assert_eq!(small.code, Some(3), "{stderr}");
        assert!(stderr.contains(&format!("{} rows were left, all others are done", 2 - done_rows)), "{stderr}");
        assert!(
            stderr.contains(&format!("does not fit the KV cache of {tokens} tokens\nhint: raise --kv-memory")),
            "{stderr}"
        );
        assert_eq!(small.stdout, "");
        assert!(!tree(&workshop.path("out")).keys().any(|path| path.starts_with("dataset")));
        let status: Value = serde_json::from_str(&done(&["status", &out, "--json"])).unwrap();
        assert_eq!(status["candidates"]["num_done"], done_rows, "{status}");
    }
    done(&make);
}

/// Twenty-one Turkish answers of 1 to 21 words.
fn answers_of_many_lengths() -> String {
    let row = |words: usize| {
        let answer = vec!["söz"; words].join(" ");
        format!(
            "{{\"inputs\": \"Soru {words}?\", \"targets\": \"{answer}\", \"language\": \"Turkish\", \"language_code\": \"tur\"}}\n"
        )
    };
    (1..=21).map(row).collect()
}

#[test]
fn lengths_are_told_as_the_whole_source_has_them_in_every_shard() {
    let workshop = Workshop::new();
    let prompts = workshop.write("p.jsonl", answers_of_many_lengths());
    let [model, _] = models();
    let generate = |out: &str, more: &[&str]| {
        let mut arguments = vec!["generate", "--model", &model, "--prompts", text(&prompts), "--out", out, "-q"];
        arguments.extend(["--max-tokens", "1", "--products", "fma", "--length-guidance"]);
        done(&[&arguments[..], more].concat());
    };
    let guidance = |folder: &str| -> Value {
        let lock = std::fs::read_to_string(workshop.path(folder).join("run.lock")).unwrap();
        serde_json::from_str::<Value>(&lock).unwrap()["parameters"]["generate"]["length_guidance"].clone()
    };
    let (whole, sharded) = (workshop.arg("whole"), workshop.arg("sharded"));
    generate(&whole, &[]);
    for shard in ["0/3", "2/3"] {
        generate(&sharded, &["--shard", shard]);
    }
    let told = guidance("whole");
    let turkish = &told["languages"][0];
    assert_eq!((&turkish["low"], &turkish["middle"], &turkish["high"]), (&6.into(), &11.into(), &16.into()), "{told}");
    assert_eq!(turkish["num_answers"], 21);
    assert!(turkish["text"].as_str().unwrap().contains("6 ile 16 sözcük"), "{told}");
    for shard in ["shard-00000-of-00003", "shard-00002-of-00003"] {
        assert_eq!(guidance(&format!("sharded/{shard}")), told, "{shard}");
    }
    // Answers depend on it: without the flag the folder is another run's.
    let without = ["generate", "--model", &model, "--prompts", text(&prompts), "--out", &whole, "--max-tokens", "1"];
    let without = [&without[..], &["--products", "fma"]].concat();
    refused(3, &workshop.path("."), &without, &["parameters.generate.length_guidance"]);
}

#[test]
fn a_profile_is_measured_on_tables_that_had_no_part_in_it() {
    let workshop = Workshop::new();
    let answer = "Fail itu tidak dapat dibuka kerana ia telah dialihkan ke folder lain semasa program masih berjalan.";
    let row = |text: &str, code: &str| {
        format!(
            "{{\"inputs\": \"?{text}\", \"targets\": \"{text}\", \"language\": \"\", \"language_code\": \"{code}\"}}\n"
        )
    };
    let table = workshop.write("t.jsonl", row(answer, "zsm") + &row("Terlalu pendek.", "zsm"));
    let figures: Value = serde_json::from_str(&done(&["lid", "measure", text(&table), "--json"])).unwrap();
    assert_eq!(figures["languages"]["msa"]["num_texts"], 1, "{figures}");
    assert_eq!(figures["macro_accuracy"], 1.0);
    assert!(done(&["lid", "measure", text(&table)]).contains("mean over 1 languages: 100.00 %"));
    let short = workshop.write("s.jsonl", row("Terlalu pendek.", "zsm"));
    refused(2, &workshop.path("."), &["lid", "measure", text(&short)], &["60 characters", "hint:"]);
}

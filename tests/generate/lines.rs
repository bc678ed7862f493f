//! A line in, a line out.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::loaded::{engine_options, load};
use super::program::{done, fixture_model, run, text, tree};
use super::workshop::{ROWS, Workshop};

#[derive(Deserialize)]
struct Expected {
    prompts: Vec<Vec<u32>>,
    greedy: Vec<Vec<u32>>,
    margins: Vec<Vec<f32>>,
    nll: Vec<f64>,
}

fn expected(model: &Path) -> Expected {
    serde_json::from_str(&std::fs::read_to_string(model.join("expected.json")).unwrap()).unwrap()
}

fn read_lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn token_ids(line: &Value) -> Vec<u32> {
    serde_json::from_value(line["token_ids"].clone()).unwrap()
}

/// Runs `generate` on requests and gives its lines.
fn answers(workshop: &Workshop, model: &str, requests: &[Value], more: &[&str]) -> Vec<Value> {
    let requests: String = requests.iter().map(|request| request.to_string() + "\n").collect();
    let (file, model) = (workshop.write("r.jsonl", requests), fixture_model(model));
    let out = workshop.arg("o.jsonl");
    let arguments = ["generate", "--model", text(&model), "--prompts", text(&file), "--out", &out, "-q", "--fresh"];
    done(&[&arguments[..], more].concat());
    read_lines(Path::new(&out))
}

#[test]
fn greedy_tokens_and_likelihoods_equal_transformers_through_the_command_line() {
    let workshop = Workshop::new();
    for name in ["llama", "qwen2"] {
        let expected = expected(&fixture_model(name));
        let requests: Vec<Value> = expected.prompts.iter().map(|ids| json!({"prompt_token_ids": ids})).collect();
        let flags =
            ["--temperature", "0", "--ignore-eos", "--max-tokens", "24", "--prompt-logprobs", "--kv-tokens", "4096"];
        let lines = answers(&workshop, name, &requests, &flags);
        assert_eq!(lines.len(), requests.len());
        for (index, line) in lines.iter().enumerate() {
            assert_eq!(line["id"], index.to_string(), "the input's order");
            let sure = expected.margins[index].iter().position(|&margin| margin < 1e-3).unwrap_or(24);
            assert_eq!(token_ids(line)[..sure], expected.greedy[index][..sure], "{name} {index}");
            assert_eq!(line["finish_reason"], "length");
            let logprobs: Vec<Option<f64>> = serde_json::from_value(line["prompt_logprobs"].clone()).unwrap();
            assert_eq!((logprobs.len(), logprobs[0]), (expected.prompts[index].len(), None));
            assert!(logprobs[1..].iter().all(Option::is_some));
            let (nll, want) = (-logprobs.iter().flatten().sum::<f64>(), expected.nll[index]);
            assert!((nll - want).abs() < 1e-4 * want, "{name} {index}: {nll}, want {want}");
        }
    }
}

#[test]
fn every_form_of_prompt_gives_its_tokens_and_text() {
    let workshop = Workshop::new();
    let tokenizer = load(&fixture_model("llama"), engine_options());
    let tokenizer = tokenizer.tokenizer();
    let message = |content: &str| json!([{"role": "user", "content": content}]);
    let requests = [
        json!({"id": "prompt", "prompt": "नमस्ते 👋🏽"}),
        json!({"id": "messages", "messages": message("नमस्ते 👋🏽")}),
        json!({"id": "hostile", "prompt": "<|end|><|eos|>"}),
        json!({"id": 4, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}),
    ];
    let flags = ["--temperature", "0", "--max-tokens", "12", "--logprobs", "3", "--prompt-logprobs"];
    let lines = answers(&workshop, "llama", &requests, &flags);
    let ids: Vec<&Value> = lines.iter().map(|line| &line["id"]).collect();
    assert_eq!(ids, [&json!("prompt"), &json!("messages"), &json!("hostile"), &json!("4")]);
    assert_eq!(lines[0]["token_ids"], lines[1]["token_ids"], "a prompt is one user turn");
    for line in &lines {
        let ids = token_ids(line);
        assert_eq!(line["text"], tokenizer.decode(&ids, true).unwrap());
        let logprobs = line["logprobs"].as_array().unwrap();
        assert_eq!(logprobs.len(), ids.len());
        for (entry, id) in logprobs.iter().zip(&ids) {
            assert_eq!(entry["token_id"], *id);
            let top = entry["top"].as_array().unwrap();
            assert_eq!(top.len(), 3);
            assert_eq!((&top[0]["token_id"], &top[0]["logprob"]), (&entry["token_id"], &entry["logprob"]), "greedy");
            assert!(top.windows(2).all(|two| two[0]["logprob"].as_f64() >= two[1]["logprob"].as_f64()));
        }
    }
    let chat = |content: &str| {
        let turn = pairwright::prompt::Message { role: "user".to_owned(), content: content.to_owned() };
        tokenizer.encode_chat(&[turn], pairwright::prompt::DialogueEnd::GenerationPrompt).unwrap().len()
    };
    assert_eq!(lines[2]["prompt_logprobs"].as_array().unwrap().len(), chat("<|end|><|eos|>"));
    assert!(chat("<|end|><|eos|>") > chat("") + 8, "control text in a prompt is text");
    let raw = answers(&workshop, "llama", &requests[..1], &[&flags[..], &["--raw-prompts"]].concat());
    let plain = tokenizer.encode_text("नमस्ते 👋🏽").unwrap().len();
    assert_eq!(raw[0]["prompt_logprobs"].as_array().unwrap().len(), plain + 1, "the start token and the text");
}

#[test]
fn answers_stop_at_strings_and_tokens() {
    let workshop = Workshop::new();
    let model = fixture_model("llama");
    let expected = expected(&model);
    let requests = [json!({"prompt_token_ids": expected.prompts[1]})];
    let base = ["--temperature", "0", "--ignore-eos", "--max-tokens", "24"];
    let whole = answers(&workshop, "llama", &requests, &base).remove(0);
    let all = token_ids(&whole);
    let full = whole["text"].as_str().unwrap();
    // A stop string that spans tokens: two characters somewhere in the middle.
    let places: Vec<usize> = full.char_indices().map(|(at, _)| at).collect();
    let (from, to) = (places[places.len() / 2], places[places.len() / 2 + 3]);
    let stop = full.get(from..to).unwrap();
    let cut = answers(&workshop, "llama", &requests, &[&base[..], &["--stop", stop]].concat()).remove(0);
    let first = full.find(stop).unwrap();
    assert_eq!(cut["text"].as_str(), full.get(..first), "cut before the first {stop:?} in {full:?}");
    assert_eq!(cut["finish_reason"], "stop");
    let ids = token_ids(&cut);
    assert!(ids.len() < all.len() && ids == all[..ids.len()], "nothing is generated past it");
    // The stop string is complete with the very token that reaches the limit: the row must not be lost between the two.
    let limit = ids.len().to_string();
    let flags = ["--temperature", "0", "--ignore-eos", "--max-tokens", &limit, "--stop", stop];
    assert_eq!(answers(&workshop, "llama", &requests, &flags), [cut]);
    let at = (0..all.len()).find(|&at| at > 3 && !all[..at].contains(&all[at])).unwrap();
    let id = all[at].to_string();
    let by_id = answers(&workshop, "llama", &requests, &[&base[..], &["--stop-token-id", &id]].concat()).remove(0);
    assert_eq!((token_ids(&by_id).as_slice(), &by_id["finish_reason"]), (&all[..at], &json!("stop")));
    let none = answers(&workshop, "llama", &requests, &[&base[..], &["--stop", "☃ not in it"]].concat()).remove(0);
    assert_eq!(none, whole);
    let zero = answers(&workshop, "llama", &requests, &["--max-tokens", "0"]).remove(0);
    assert_eq!((&zero["text"], &zero["finish_reason"]), (&json!(""), &json!("length")));
}

#[test]
fn samples_differ_by_index_and_seed_and_not_by_company() {
    let workshop = Workshop::new();
    let requests: Vec<Value> = (0..5).map(|n| json!({"id": format!("r{n}"), "prompt": "ሰላም ልዑል"})).collect();
    let base = ["--temperature", "1", "--max-tokens", "16", "-n", "3"];
    let lines = answers(&workshop, "qwen2", &requests, &[&base[..], &["--seed", "7"]].concat());
    let keys: Vec<(String, u64)> = lines
        .iter()
        .map(|line| (line["id"].as_str().unwrap().to_owned(), line["sample_index"].as_u64().unwrap()))
        .collect();
    let want: Vec<(String, u64)> = (0..5).flat_map(|n| (0..3).map(move |s| (format!("r{n}"), s))).collect();
    assert_eq!(keys, want);
    let distinct: std::collections::BTreeSet<Vec<u32>> = lines.iter().map(token_ids).collect();
    assert_eq!(distinct.len(), 15, "the same prompt, other random numbers for each id and sample");
    let alone =
        answers(&workshop, "qwen2", &requests[3..4], &[&base[..], &["--seed", "7", "--max-batch", "1"]].concat());
    assert_eq!(alone, lines[9..12]);
    let other = answers(&workshop, "qwen2", &requests[3..4], &[&base[..], &["--seed", "8"]].concat());
    assert!(other.iter().zip(&alone).all(|(a, b)| a["token_ids"] != b["token_ids"]));
}

#[test]
fn a_row_that_fails_is_a_line_and_stops_no_other() {
    let workshop = Workshop::new();
    let requests = [
        json!({"id": "fits", "prompt": "a"}),
        json!({"id": "long", "prompt": "a".repeat(600)}),
        json!({"id": "none", "prompt_token_ids": []}),
        json!({"id": "alien", "prompt_token_ids": [5, 384]}),
        json!({"id": "role", "messages": [{"role": "user", "content": "b"}]}),
    ];
    let lines = answers(&workshop, "llama", &requests, &["--max-tokens", "4"]);
    let reasons: Vec<&Value> = lines.iter().map(|line| &line["error"]["reason"]).collect();
    let (null, long) = (Value::Null, json!("prompt_too_long"));
    assert_eq!(reasons, [&null, &long, &json!("empty_prompt"), &json!("unknown_token"), &null]);
    let detail = lines[1]["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("the context holds 512"), "{detail}");
}

#[test]
fn an_output_is_continued_after_its_last_whole_line() {
    let workshop = Workshop::new();
    let requests: String = (0..9).map(|n| format!("{{\"id\": \"ลำดับ{n}\", \"prompt\": \"คำถาม {n}\"}}\n")).collect();
    let file = workshop.write("r.jsonl", requests);
    let (model, out) = (fixture_model("llama"), workshop.path("o.jsonl"));
    let arguments = ["generate", "--model", text(&model), "--prompts", text(&file), "--out", text(&out), "-q"];
    let sampling = ["--temperature", "1", "--max-tokens", "9", "-n", "2", "--logprobs", "1"];
    let base = [&arguments[..], &sampling].concat();
    done(&base);
    let whole = std::fs::read(&out).unwrap();
    for keep in [whole.len(), whole.len() - 1, whole.len() / 2, whole.len() / 3, 5, 0] {
        std::fs::write(&out, &whole[..keep]).unwrap();
        done(&base);
        assert!(std::fs::read(&out).unwrap() == whole, "cut at byte {keep}");
    }
    // What an interruption leaves: lines out of turn. The complete file is in the order of the input again.
    let text_of = String::from_utf8(whole.clone()).unwrap();
    let lines: Vec<&str> = text_of.split_inclusive('\n').collect();
    std::fs::write(&out, [lines[0], lines[7], lines[4]].concat()).unwrap();
    done(&base);
    assert!(std::fs::read(&out).unwrap() == whole, "out of turn");
    // Another day: the date of the first call counts, as a template may print it.
    std::fs::write(&out, lines[..4].concat()).unwrap();
    let later = super::program::program(&base).env("PAIRWRIGHT_DATE", "2027-01-01").output().unwrap();
    assert!(later.status.success() && std::fs::read(&out).unwrap() == whole, "{later:?}");
}

#[test]
fn an_output_of_other_inputs_is_refused_unless_fresh() {
    let workshop = Workshop::new();
    let file = workshop.write("r.jsonl", "{\"prompt\": \"x\"}\n");
    let (llama, qwen2, out) = (fixture_model("llama"), fixture_model("qwen2"), workshop.path("o.jsonl"));
    let base = |model, more: &[&'static str]| {
        let arguments =
            ["generate", "--prompts", text(&file), "--out", text(&out), "--max-tokens", "3", "-q", "--model"];
        [&arguments[..], &[model], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let as_arguments = |owned: &[String]| run(&owned.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(as_arguments(&base(text(&llama), &[])).code, Some(0));
    let before = std::fs::read(&out).unwrap();
    for (model, more, named) in [
        (&qwen2, &[][..], "model.name"),
        (&llama, &["--top-k", "4"], "generate.top_k"),
        (&llama, &["--seed", "3"], "seed"),
        (&llama, &["--max-len", "99"], "generate.max_len"),
    ] {
        let refused = as_arguments(&base(text(model), more));
        assert_eq!(refused.code, Some(3), "{}", refused.stderr);
        assert!(refused.stderr.contains(named) && refused.stderr.contains("--fresh"), "{}", refused.stderr);
    }
    workshop.write("r.jsonl", "{\"prompt\": \"another question under the same id\"}\n");
    let refused = as_arguments(&base(text(&llama), &[]));
    assert!(refused.code == Some(3) && refused.stderr.contains("prompts_sha256"), "{}", refused.stderr);
    assert_eq!(std::fs::read(&out).unwrap(), before);
    assert_eq!(as_arguments(&base(text(&qwen2), &["--fresh"])).code, Some(0));
    assert_ne!(std::fs::read(&out).unwrap(), before);
    workshop.write("o.jsonl", "{\"mine\": 1}\n");
    std::fs::remove_file(workshop.path("o.jsonl.lock")).unwrap();
    let refused = as_arguments(&base(text(&llama), &[]));
    assert!(refused.code == Some(3) && refused.stderr.contains("no lock file"), "{}", refused.stderr);
}

#[test]
fn lines_and_runs_take_their_own_flags_and_leave_nothing_else() {
    let workshop = Workshop::new();
    let (model, prompts) = (fixture_model("llama"), workshop.prompts("p.jsonl", &ROWS[..1]));
    let (requests, lines) = (workshop.write("r.jsonl", "{\"prompt\": \"x\"}\n"), workshop.arg("o.jsonl"));
    let folder = workshop.arg("run");
    let call = |prompts: &Path, out: &str, more: &[&str]| {
        let arguments = ["generate", "--model", text(&model), "--prompts", text(prompts), "--out", out];
        run(&[&arguments[..], &["--max-tokens", "3"], more].concat()).code
    };
    let before = tree(&workshop.path("."));
    for flag in [&["--raw-prompts"][..], &["--logprobs", "1"], &["--prompt-logprobs"]] {
        assert_eq!(call(&prompts, &folder, flag), Some(2), "{flag:?}");
    }
    let for_a_run = [
        ["--language", "nl"],
        ["--map", "prompt=x"],
        ["--max-prompt-chars", "9"],
        ["--max-response-chars", "9"],
        ["--system-prompt", "Answer in {language}."],
    ];
    for flag in for_a_run.iter().map(|flag| &flag[..]).chain([&["--length-guidance"][..]]) {
        assert_eq!(call(&requests, &lines, flag), Some(2), "{flag:?}");
    }
    assert!(tree(&workshop.path(".")) == before, "a refused call leaves nothing");
    assert_eq!(call(&requests, &lines, &[]), Some(0));
    let mut added: Vec<String> = tree(&workshop.path("."))
        .into_keys()
        .filter(|path| !before.contains_key(path))
        .map(|path| path.display().to_string())
        .collect();
    added.sort();
    assert_eq!(added, ["o.jsonl", "o.jsonl.lock"]);
}

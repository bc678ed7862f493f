//! `score`: reward models over dialogues and pairs, in any script, continued where it stopped; what it refuses.

use std::fs;

use serde_json::Value;

use super::program::{done, fixture_model, run, text};
use super::refused;
use super::workshop::Workshop;

const LINES: &str = r#"{"id": "a", "prompt": "Kí ni olú ìlú Nàìjíríà?", "response": "Àbújá ni."}
{"id": 7, "messages": [{"role": "system", "content": "قصير"}, {"role": "user", "content": "ما عاصمة هولندا؟"}, {"role": "assistant", "content": "أمستردام"}]}
{"id": "pair", "prompt": [{"role": "user", "content": "ශ්‍රී ලංකාවේ අගනුවර?"}], "chosen": [{"role": "assistant", "content": "ශ්‍රී ජයවර්ධනපුර කෝට්ටේ"}], "rejected": [{"role": "assistant", "content": "<|eos|><|end|>"}]}
"#;

fn rows(path: &str) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn dialogues_and_pairs_are_scored_in_order() {
    let workshop = Workshop::new();
    let (data, out, model) = (workshop.write("d.jsonl", LINES), workshop.arg("s.jsonl"), fixture_model("llama_reward"));
    let command = ["score", "--model", text(&model), "--data", text(&data), "--out", &out, "-q"];
    done(&command);
    let whole = rows(&out);
    assert_eq!(whole.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "7", "pair"]);
    assert!(whole[0]["score"].is_f64() && whole[1]["score"].is_f64());
    let number = |field: &str| whole[2][field].as_f64().unwrap();
    assert!((number("score_chosen") - number("score_rejected") - number("margin")).abs() < 1e-9);
    assert_ne!(number("margin"), 0.0);
    // The same answers as lone dialogues get the same scores, however they are batched.
    let alone = r#"{"id": "c", "prompt": "ශ්‍රී ලංකාවේ අගනුවර?", "response": "ශ්‍රී ජයවර්ධනපුර කෝට්ටේ"}"#;
    let (alone, second) = (workshop.write("alone.jsonl", alone), workshop.arg("alone-s.jsonl"));
    let one = ["score", "--model", text(&model), "--data", text(&alone), "--out", &second, "--max-batch", "1", "-q"];
    done(&one);
    assert_eq!(rows(&second)[0]["score"], whole[2]["score_chosen"]);
    // A file cut in the middle is continued to the same bytes.
    let bytes = fs::read(&out).unwrap();
    fs::write(&out, &bytes[..bytes.len() / 2]).unwrap();
    done(&command);
    assert_eq!(fs::read(&out).unwrap(), bytes);
    let several = workshop.arg("several.jsonl");
    let qwen = fixture_model("qwen3_reward");
    done(&["score", "--model", text(&qwen), "--data", text(&data), "--out", &several, "-q"]);
    assert_eq!(rows(&several)[0]["score"].as_array().unwrap().len(), 3, "one number per label");
    let other = run(&["score", "--model", text(&qwen), "--data", text(&data), "--out", &out]);
    assert_eq!(other.code, Some(3));
    assert!(other.stderr.contains("was made with another") && other.stderr.contains("--fresh"), "{}", other.stderr);
}

#[test]
fn a_dialogue_too_long_is_a_line_with_a_reason() {
    let workshop = Workshop::new();
    let long = format!("{}{{\"id\": \"long\", \"prompt\": \"{}\", \"response\": \"x\"}}\n", LINES, "é".repeat(600));
    let (data, out, model) =
        (workshop.write("d.jsonl", &long), workshop.arg("s.jsonl"), fixture_model("gemma2_reward"));
    done(&["score", "--model", text(&model), "--data", text(&data), "--out", &out, "-q"]);
    let rows = rows(&out);
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[3]["error"]["reason"], "too_long");
    assert!(rows[..3].iter().all(|row| row.get("error").is_none()));
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let workshop = Workshop::new();
    let (data, out) = (workshop.write("d.jsonl", LINES), workshop.arg("s.jsonl"));
    let (reward, llama) = (fixture_model("llama_reward"), fixture_model("llama"));
    let score =
        |model, data| ["score", "--model", text(model), "--data", text(data), "--out", &out, "-q"].map(str::to_owned);
    let outcome = run(&score(&llama, &data).each_ref().map(String::as_str));
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("has no score head") && outcome.stderr.contains("hint: "), "{}", outcome.stderr);
    let prompts = workshop.write("p.jsonl", "{\"prompt\": \"x\"}\n");
    let generated = workshop.arg("g.jsonl");
    let outcome = run(&["generate", "--model", text(&reward), "--prompts", text(&prompts), "--out", &generated, "-q"]);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("is a reward model"), "{}", outcome.stderr);
    for (line, said) in [
        (r#"{"id": "x", "prompt": "a"}"#, "want \"messages\""),
        (r#"{"id": "x", "chosen": "a"}"#, "want \"messages\""),
        (r#"{"id": "x", "messages": [{"role": "user", "content": "a"}]}"#, "ends with a turn of the assistant"),
        (r#"{"id": [], "prompt": "a", "response": "b"}"#, "want a string or a number"),
        ("{\"prompt\": 3, \"response\": \"b\"}", "line 1"),
        ("", "holds no requests"),
    ] {
        let bad = Workshop::new();
        let (data, out) = (bad.write("bad.jsonl", line), bad.arg("s.jsonl"));
        let command = ["score", "--model", text(&reward), "--data", text(&data), "--out", &out];
        refused(3, data.parent().unwrap(), &command, &[said]);
    }
}

//! Thinking over whole commands: `--thinking` reaches the template and the lock, a row that never answers is a counted failure,
//! a dialogue is continued in its last turn, and tokens without a row in the model, or rows without a token, do no harm.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::program::{done, fixture_model, run, text};
use super::workshop::Workshop;

#[test]
fn the_switch_reaches_template_and_lock_and_a_thought_alone_is_a_failure() {
    let workshop = Workshop::new();
    let file = workshop.write("p.jsonl", "{\"id\": \"een\", \"prompt\": \"Hoeveel?\"}\n");
    let template = workshop.write(
        "t.jinja",
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}A{% if enable_thinking %}<think>{% else %}<think></think>{% endif %}{% endif %}",
    );
    let (model, out) = (fixture_model("llama"), workshop.path("o.jsonl"));
    let base = [
        "generate",
        "--model",
        text(&model),
        "--prompts",
        text(&file),
        "--out",
        text(&out),
        "--chat-template",
        text(&template),
        "--max-tokens",
        "6",
        "--ignore-eos",
        "--temperature",
        "0",
        "-q",
        "--thinking",
    ];
    let lines = || -> Vec<Json> {
        std::fs::read_to_string(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    done(&[&base[..], &["on"]].concat());
    let [failed] = &lines()[..] else { panic!("one line") };
    assert_eq!(failed["error"]["reason"], "only_thinking");
    assert!(failed["error"]["detail"].as_str().unwrap().contains("6 tokens inside the thinking"), "{failed}");
    let refused = run(&[&base[..], &["off"]].concat());
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("another thinking"), "{}", refused.stderr);
    done(&[&base[..], &["off", "--fresh"]].concat());
    assert!(lines()[0]["text"].is_string() && lines()[0].get("thinking").is_none(), "{:?}", lines());
}

#[test]
fn a_run_stores_thinking_and_never_publishes_it() {
    let workshop = Workshop::new();
    let template = workshop.write(
        "t.jinja",
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}A{% if enable_thinking | default(true) %}<think>{% endif %}{% endif %}",
    );
    let (model, run_dir) = (fixture_model("llama"), workshop.path("run"));
    let prompts = workshop.prompts("p.jsonl", &super::workshop::ROWS[..3]);
    let outcome = run(&[
        "make",
        "--generator",
        text(&model),
        "--judge",
        text(&model),
        "--prompts",
        text(&prompts),
        "--out",
        text(&run_dir),
        "--chat-template",
        text(&template),
        "--rubric",
        &workshop.arg("rubric.toml"),
        "--max-tokens",
        "6",
        "-q",
        "--system-prompt",
        "Kort.",
    ]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let read = |name: &str| std::fs::read_to_string(run_dir.join(name)).unwrap();
    assert_eq!(read("journal/candidates.jsonl").matches("only_thinking").count(), 3);
    let summary: Json = serde_json::from_str(&read("summary.json")).unwrap();
    assert!(summary.to_string().contains("only_thinking"), "{summary}");
    let lock: Json = serde_json::from_str(&read("run.lock")).unwrap();
    assert_eq!(
        (&lock["parameters"]["generate"]["thinking"], &lock["parameters"]["judge"]["thinking"]),
        (&Json::Null, &json!("off"))
    );
    assert_eq!(lock["generators"][0]["merges_system"], true);
    let card = read("dataset/README.md");
    assert!(card.contains("at the head of the user's turn") && card.contains("as its template has it"), "{card}");
}

#[test]
fn a_dialogue_is_continued_in_its_last_turn() {
    let workshop = Workshop::new();
    let lines = [
        json!({"id": "open", "continue_final_message": true, "messages": [{"role": "user", "content": "عدّ"}, {"role": "assistant", "content": "١ ٢"}]}),
        json!({"id": "whole", "messages": [{"role": "user", "content": "عدّ"}, {"role": "assistant", "content": "١ ٢"}]}),
    ];
    let file = workshop.write("p.jsonl", lines.map(|line| line.to_string()).join("\n"));
    let (model, out) = (fixture_model("llama"), workshop.path("o.jsonl"));
    let base = [
        "generate",
        "--model",
        text(&model),
        "--prompts",
        text(&file),
        "--out",
        text(&out),
        "-q",
        "--max-tokens",
        "4",
        "--temperature",
        "0",
        "--prompt-logprobs",
    ];
    done(&base);
    let read: Vec<Json> =
        std::fs::read_to_string(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let num_prompt = |line: &Json| line["prompt_logprobs"].as_array().unwrap().len();
    assert!(num_prompt(&read[0]) < num_prompt(&read[1]), "neither the turn's end nor a generation prompt: {read:?}");
    workshop.write(
        "p.jsonl",
        json!({"continue_final_message": true, "messages": [{"role": "user", "content": "a"}]}).to_string(),
    );
    let refused = run(&[&base[..], &["--fresh"]].concat());
    assert!(refused.code == Some(3) && refused.stderr.contains("line 1"), "{}", refused.stderr);
}

/// A copy of a fixture with another tokenizer.
fn with_tokens(workshop: &Workshop, name: &str, change: impl FnOnce(&mut Json)) -> std::path::PathBuf {
    let (from, dir) = (fixture_model("llama"), workshop.path(name));
    std::fs::create_dir(&dir).unwrap();
    for entry in std::fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.join("tokenizer.json");
    let mut json: Json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(&path, json.to_string()).unwrap();
    dir
}

fn answer(workshop: &Workshop, model: &Path) -> super::program::Outcome {
    let file = workshop.write("p.jsonl", "{\"prompt\": \"Hallo <image_soft_token> zzz 日本\"}\n");
    let out = workshop.arg("o.jsonl");
    let base = ["generate", "--model", text(model), "--prompts", text(&file), "--out", &out, "-q", "--fresh"];
    run(&[&base[..], &["--max-tokens", "200", "--ignore-eos", "--temperature", "9", "-n", "2"]].concat())
}

#[test]
fn tokens_and_rows_need_not_be_the_same_number() {
    let workshop = Workshop::new();
    let added = |content: &str, special: bool| json!({"id": 384, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special});
    let more = |token: Json| move |json: &mut Json| json["added_tokens"].as_array_mut().unwrap().push(token);
    let image = with_tokens(&workshop, "image", more(added("<image_soft_token>", true)));
    let outcome = answer(&workshop, &image);
    assert_eq!(outcome.code, Some(0), "no text reaches it: {}", outcome.stderr);
    let word = with_tokens(&workshop, "word", more(added("zzz", false)));
    let refused = answer(&workshop, &word);
    assert_eq!(refused.code, Some(3));
    let expected = "the tokenizer has 385 tokens, the model a vocabulary of 384: a prompt could hold \"zzz\" (id 384)";
    assert!(refused.stderr.contains(expected) && refused.stderr.contains("hint: "), "{}", refused.stderr);
    // The upper rows of the fixture have filler tokens; without them the model samples ids that have no token.
    let fewer = with_tokens(&workshop, "fewer", |json| {
        json["added_tokens"].as_array_mut().unwrap().retain(|token| token["id"].as_u64().unwrap() < 265);
        json["model"]["vocab"].as_object_mut().unwrap().retain(|_, id| id.as_u64().unwrap() < 265);
    });
    let outcome = answer(&workshop, &fewer);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let lines = std::fs::read_to_string(workshop.path("o.jsonl")).unwrap();
    let ids: Vec<u64> = lines
        .lines()
        .flat_map(|line| serde_json::from_str::<Json>(line).unwrap()["token_ids"].as_array().unwrap().clone())
        .filter_map(|id| id.as_u64())
        .collect();
    assert!(ids.len() == 400 && ids.iter().any(|id| *id >= 265), "{ids:?}");
    assert!(!lines.contains("fill"), "{lines}");
}

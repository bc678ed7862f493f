//! Prompt files, flags, rubrics and output folders that cannot be used.

use std::path::Path;

use arrow::datatypes::DataType;
use parquet::file::properties::WriterProperties;

use super::aya::{row, write_aya};
use super::program::{fixture_model, text};
use super::refused;
use super::workshop::{ROWS, Workshop};

/// `make` on the fixture models with these prompts and further arguments must refuse.
fn make_refused(code: i32, workshop: &Workshop, prompts: &Path, more: &[&str], said: &[&str]) {
    let (llama, qwen2) = (fixture_model("llama"), fixture_model("qwen2"));
    let out = workshop.arg("out");
    let mut arguments = vec!["make", "--prompts", text(prompts), "--generator", text(&llama), "--judge", text(&qwen2)];
    if !more.contains(&"--out") {
        arguments.extend(["--out", &out]);
    }
    arguments.extend(more);
    refused(code, &workshop.path("."), &arguments, said);
}

#[test]
fn prompt_files_without_usable_prompts() {
    let workshop = Workshop::new();
    make_refused(3, &workshop, &workshop.path("none.parquet"), &[], &["no such file", "none.parquet"]);
    let empty = workshop.prompts("empty.jsonl", &[["", "a", "Dutch", "nld"], [" \u{3000}", "b", "Dutch", "nld"]]);
    make_refused(3, &workshop, &empty, &[], &["all 2 rows lack a prompt", "--map prompt="]);
    let nothing = workshop.write("nothing.jsonl", "");
    make_refused(3, &workshop, &nothing, &[], &["no rows"]);
    let strange = workshop.write("prompts.xlsx", "PK");
    make_refused(3, &workshop, &strange, &[], &[".xlsx", ".parquet"]);
    let not_json = workshop.write("bad.jsonl", "{\"inputs\": \"a\", \"targets\": \"b\"}\n{\"inputs\": \n");
    make_refused(3, &workshop, &not_json, &[], &["bad.jsonl, line 2"]);
}

#[test]
fn a_parquet_column_of_nulls() {
    let workshop = Workshop::new();
    let rows: Vec<_> = (0..4).map(|_| [None, Some("b"), Some("Dutch"), Some("nld"), None, None]).collect();
    let path = workshop.path("nulls.parquet");
    write_aya(&path, &rows, &DataType::Utf8, WriterProperties::default());
    make_refused(3, &workshop, &path, &[], &["all 4 rows lack a prompt", "`inputs`"]);
}

#[test]
fn damaged_parquet_is_told_without_a_panic_message() {
    let workshop = Workshop::new();
    let path = workshop.path("p.parquet");
    let rows: Vec<_> = ROWS.iter().map(|[prompt, answer, name, code]| row(prompt, answer, name, code)).collect();
    write_aya(&path, &rows, &DataType::Utf8, WriterProperties::default());
    let whole = std::fs::read(&path).unwrap();
    for keep in [whole.len() - 1, whole.len() / 2, 4, 0] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        make_refused(3, &workshop, &path, &[], &["p.parquet is not a readable Parquet file"]);
    }
    let footer = whole.len() - 8;
    let mut num_refused = 0;
    for at in (4..footer).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at..(at + 9).min(footer)].fill(0xFF);
        std::fs::write(&path, &bytes).unwrap();
        let outcome = super::run(&["languages", text(&path)]);
        assert!(!outcome.stderr.contains("panicked"), "at {at}: {}", outcome.stderr);
        assert!(matches!(outcome.code, Some(0 | 3)), "at {at}: {:?} {}", outcome.code, outcome.stderr);
        num_refused += usize::from(outcome.code == Some(3));
    }
    assert!(num_refused > 5, "{num_refused}");
}

#[test]
fn languages_that_are_not_there() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS);
    make_refused(3, &workshop, &prompts, &["--language", "Dutsch"], &["Dutsch", "Dutch"]);
    make_refused(3, &workshop, &prompts, &["--language", "nl,d"], &["nl,d"]);
    let bare = workshop.write("bare.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n");
    make_refused(3, &workshop, &bare, &["--language", "nl"], &["no column says the language", "--map language="]);
    make_refused(3, &workshop, &bare, &["--map", "prompt=promt"], &["no column `promt`", "did you mean `prompt`"]);
    make_refused(3, &workshop, &bare, &["--map", "promt"], &["column map `promt`", "KEY=COLUMN"]);
}

#[test]
fn flags_that_cannot_be_meant() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..1]);
    let usage = |more: &[&str], said: &[&str]| make_refused(2, &workshop, &prompts, more, said);
    usage(&["--max-batchs", "3"], &["--max-batchs", "--max-batch"]);
    usage(&["--kv-memory", "2 potatoes"], &["2 potatoes", "2GiB"]);
    usage(&["--kv-tokens", "0"], &["whole number above 0"]);
    usage(&["--kv-tokens", "64", "--kv-memory", "1GiB"], &["cannot be used with"]);
    usage(&["--block-size", "17"], &["16, 32, 64"]);
    usage(&["--temperature", "-1"], &["0 or more"]);
    usage(&["--temperature", "NaN"], &["0 or more"]);
    usage(&["--top-p", "1.5"], &["0 to 1"]);
    usage(&["--repetition-penalty", "0"], &["more than 0"]);
    usage(&["-n", "0"], &["1..=64"]);
    usage(&["--device", "gpu"], &["auto, cpu, cuda"]);
    usage(&["--margin", "7"], &["--margin is 7", "0 to 4"]);
    usage(&["--margin", "NaN"], &["--margin is NaN", "0 to 4"]);
    usage(&["--test-split", "many"], &["--test-split is many", "0.05"]);
    usage(&["--chat-template", "/nowhere.jinja"], &["--chat-template /nowhere.jinja cannot be read"]);
    refused(2, &workshop.path("."), &["make", "--out", &workshop.arg("out")], &["--prompts is missing"]);
    refused(2, &workshop.path("."), &["maek"], &["maek", "make"]);
    refused(
        2,
        &workshop.path("."),
        &["make", "--demo", "--language", "nl", "--out", &workshop.arg("out")],
        &["--demo"],
    );
}

#[test]
fn a_device_that_is_not_built_in() {
    if cfg!(any(feature = "cuda", feature = "metal")) {
        return;
    }
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..1]);
    make_refused(3, &workshop, &prompts, &["--device", "cuda"], &["device `cuda`", "--features cuda"]);
    make_refused(3, &workshop, &prompts, &["--device", "metal"], &["device `metal`", "--features metal"]);
}

#[test]
fn rubrics_and_system_prompts_that_cannot_be_read() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..1]);
    let refuse = |flag: &str, file: &Path, said: &[&str]| {
        make_refused(3, &workshop, &prompts, &[flag, text(file)], said);
    };
    refuse("--rubric", &workshop.path("none.toml"), &["the rubric", "cannot be read"]);
    refuse("--rubric", &workshop.write("r.toml", "name = "), &["the rubric", "r.toml", "--show-rubric"]);
    refuse("--rubric", &workshop.write("r.toml", "\u{0}\u{1}"), &["the rubric"]);
    refuse("--system-prompt", &workshop.path("none.toml"), &["the system prompts", "none.toml"]);
    refuse("--system-prompt", &workshop.write("s.toml", "text = 3"), &["the system prompts", "s.toml", "`version`"]);
}

#[test]
fn a_cache_that_holds_no_sequence() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..1]);
    make_refused(3, &workshop, &prompts, &["--kv-memory", "1KiB"], &["KV cache of 0 tokens", "--kv-memory"]);
    let requests = workshop.write("r.jsonl", "{\"prompt\": \"x\"}\n");
    let model = fixture_model("llama");
    let out = workshop.arg("o.jsonl");
    let arguments = ["generate", "--model", text(&model), "--prompts", text(&requests), "--out", &out];
    refused(3, &workshop.path("."), &[&arguments[..], &["--kv-memory", "1KiB"]].concat(), &["KV cache of 0 tokens"]);
}

#[test]
fn output_folders_that_are_not_ours() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..1]);
    workshop.write("theirs/thesis.txt", "do not touch");
    let theirs = workshop.arg("theirs");
    make_refused(3, &workshop, &prompts, &["--out", &theirs], &["theirs is not empty and holds no run"]);
    refused(3, &workshop.path("."), &["make", "--demo", "--out", &theirs], &["theirs is not empty and holds no run"]);
    let file = workshop.write("file", "x");
    make_refused(1, &workshop, &prompts, &["--out", text(&file)], &["file cannot be read"]);
    make_refused(1, &workshop, &prompts, &["--out", &format!("{}/deep", text(&file))], &["cannot be"]);
    workshop.write("broken/run.lock", "not json");
    make_refused(3, &workshop, &prompts, &["--out", &workshop.arg("broken")], &["is not a run lock"]);
    workshop.write("newer/run.lock", "{\"format_version\": 99}");
    make_refused(3, &workshop, &prompts, &["--out", &workshop.arg("newer")], &["lock format 99"]);
}

#[test]
fn request_files_name_the_wrong_line() {
    let workshop = Workshop::new();
    let model = fixture_model("llama");
    let out = workshop.arg("o.jsonl");
    let refuse = |content: &[u8], said: &[&str]| {
        let requests = workshop.write("r.jsonl", content);
        let arguments = ["generate", "--model", text(&model), "--prompts", text(&requests), "--out", &out];
        refused(3, &workshop.path("."), &arguments, said);
    };
    refuse(b"{\"prompt\": \"a\"}\n\nnot json\n", &["r.jsonl, line 3", "\"messages\""]);
    refuse(b"{\"id\": \"x\"}\n", &["line 1", "exactly one of"]);
    refuse(b"{\"prompt\": \"a\", \"prompt_token_ids\": [1]}\n", &["line 1", "exactly one of"]);
    refuse(b"{\"prompt_token_ids\": [-1]}\n", &["line 1"]);
    refuse(b"{\"id\": [1], \"prompt\": \"a\"}\n", &["line 1", "\"id\" is [1]"]);
    refuse(
        b"{\"id\": 7, \"prompt\": \"a\"}\n{\"id\": \"7\", \"prompt\": \"b\"}\n",
        &["line 2", "\"7\" was used before"],
    );
    refuse(b"\n \n", &["holds no requests"]);
    refuse(b"{\"prompt\": \"a\"}\n{\"prompt\": \"\xFF\"}\n", &["r.jsonl", "UTF-8"]);
    let nowhere = workshop.arg("no/such/folder/o.jsonl");
    let requests = workshop.write("r.jsonl", "{\"prompt\": \"a\"}\n");
    let arguments = ["generate", "--model", text(&model), "--prompts", text(&requests), "--out", &nowhere];
    refused(1, &workshop.path("."), &arguments, &["o.jsonl cannot be read or written"]);
    let arguments = [&arguments[..6], &[&out, "--language", "nl"]].concat();
    refused(2, &workshop.path("."), &arguments, &["--language", "folder"]);
}

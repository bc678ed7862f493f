//! A GGUF file wherever a model directory goes: what it answers, and what the run's lock says of it.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::program::{done, fixture_model, text};
use super::refused;
use super::workshop::{ROWS, Workshop};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf").join(name)
}

fn sha256(path: &Path) -> String {
    pairwright::provenance::sha256_file(path).unwrap()
}

#[test]
fn a_run_names_its_gguf_files_and_their_hashes() {
    let workshop = Workshop::new();
    let prompts = workshop.prompts("p.jsonl", &ROWS[..3]);
    let (out, rubric) = (workshop.arg("out"), workshop.arg("rubric.toml"));
    let (generator, judge) = (fixture("llama_q8_0.gguf"), fixture("qwen3_q4_0.gguf"));
    let arguments = ["make", "--prompts", text(&prompts), "--generator", text(&generator), "--judge", text(&judge)];
    let rest = ["--rubric", &rubric, "--out", &out, "--max-tokens", "5", "--margin", "0", "--products", "fma"];
    done(&[&arguments[..], &rest].concat());
    let lock: Json = serde_json::from_slice(&std::fs::read(workshop.path("out/run.lock")).unwrap()).unwrap();
    for (role, path, name) in [("generators", &generator, "llama_q8_0"), ("judges", &judge, "qwen3_q4_0")] {
        let record = &lock[role][0];
        assert_eq!(record["weights"], "gguf", "{role}");
        assert_eq!(record["dtype"], "f32, activations int8", "{role}");
        assert_eq!(record["name"], name);
        assert_eq!(record["license"], "apache-2.0");
        let files = record["files"].as_object().unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(files[path.file_name().unwrap().to_str().unwrap()], sha256(path));
        let template = fixture_model("llama").join("chat_template.jinja");
        assert_eq!(
            record["template_sha256"],
            sha256(&template),
            "the template of the file is the one it was made from"
        );
    }
    let journal = std::fs::read_to_string(workshop.path("out/journal/candidates.jsonl")).unwrap();
    assert_eq!(journal.lines().count(), 4, "a header and three answers");
}

#[test]
fn what_is_wrong_with_a_file_is_told_before_anything_is_written() {
    let workshop = Workshop::new();
    let requests = workshop.write("r.jsonl", "{\"prompt\": \"x\"}\n");
    let lines = workshop.arg("o.jsonl");
    let bytes = std::fs::read(fixture("llama_q8_0.gguf")).unwrap();
    for (name, content, said) in [
        ("cut.gguf", &bytes[..bytes.len() / 2], "cut.gguf is not a usable GGUF file: its data is cut short"),
        ("head.gguf", &bytes[..200], "head.gguf is not a usable GGUF file"),
        ("other.gguf", b"PK\x03\x04".as_slice(), "want `GGUF`"),
    ] {
        std::fs::write(workshop.path(name), content).unwrap();
        let path = workshop.arg(name);
        let arguments = ["generate", "--model", &path, "--prompts", text(&requests), "--out", &lines];
        refused(3, &workshop.path("."), &arguments, &[said]);
    }
    let nowhere = workshop.arg("nowhere.gguf");
    let arguments = ["generate", "--model", &nowhere, "--prompts", text(&requests), "--out", &lines];
    refused(3, &workshop.path("."), &arguments, &["nowhere.gguf", "cannot be read"]);
    let folder = workshop.arg(".");
    let arguments = ["generate", "--model", &folder, "--prompts", text(&requests), "--out", &lines];
    refused(3, &workshop.path("."), &arguments, &["the folder holds several models (3 GGUF files"]);
}

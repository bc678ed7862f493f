//! The real binary on the same model as GGUF and as safetensors. What it records of a file: `tests/cli/gguf.rs`.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::writer;

#[test]
fn a_folder_with_a_gguf_file_answers_as_the_one_with_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let prompts =
        ["Hoeveel dagen heeft een week?", "ما عاصمة مصر؟", "भारत की राजधानी क्या है?", "日本の首都はどこですか。"];
    let requests: String = prompts.iter().map(|prompt| format!("{}\n", json!({"prompt": prompt}))).collect();
    std::fs::write(dir.path().join("r.jsonl"), requests).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/llama");
    let folder = dir.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("m.gguf"), writer::of_safetensors(&source).bytes()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"] {
        std::fs::copy(source.join(name), folder.join(name)).unwrap();
    }
    let answers = |model: &Path, out: &str| -> Vec<Vec<Json>> {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_pairwright"));
        command.current_dir(dir.path()).args(["generate", "--prompts", "r.jsonl", "--out", out, "--model"]).arg(model);
        command.args(["--max-tokens", "12", "--temperature", "0", "--seed", "7"]).assert().success();
        let lines = std::fs::read_to_string(dir.path().join(out)).unwrap();
        let fields = |line: &str| {
            let line: Json = serde_json::from_str(line).unwrap();
            // Everything but the name of the model.
            let fields = line.as_object().unwrap().iter().filter(|(name, _)| *name != "model");
            fields.map(|(_, value)| value.clone()).collect()
        };
        lines.lines().map(fields).collect()
    };
    let from_folder = answers(&folder, "a.jsonl");
    assert_eq!(from_folder.len(), prompts.len());
    assert!(from_folder[0].len() > 2, "{from_folder:?}");
    assert_eq!(from_folder, answers(&source, "b.jsonl"));
    assert_eq!(from_folder, answers(&folder.join("m.gguf"), "c.jsonl"));
}

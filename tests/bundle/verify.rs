//! `models verify` against the list of files that a cache or a bundle has: every defect by name, with the command that mends it.

use std::fs;

use super::program::{self, text};
use super::workshop::Workshop;
use super::{COMMIT, cached_model, done, model, refused};

#[test]
fn every_defect_of_a_snapshot_names_the_file_and_the_repair() {
    let workshop = Workshop::new();
    let snapshot = cached_model(&workshop, "writer", "llama");
    let repair = format!("pairwright pull org/writer --revision {COMMIT}");
    let verify = |said: &[&str], more: &[&str]| {
        let command = [&["models", "verify", text(&snapshot)], more].concat();
        refused(&workshop, 3, &command, &[said, &[repair.as_str(), "not whole (by trees/"]].concat());
    };
    let blob = snapshot.join("model.safetensors").canonicalize().unwrap();
    let good = fs::read(&blob).unwrap();
    fs::write(&blob, &good[..good.len() - 1]).unwrap();
    verify(&["model.safetensors is 570103 bytes, want 570104"], &[]);
    fs::write(&blob, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 570104\n").unwrap();
    verify(&["model.safetensors is a git-lfs pointer"], &[]);
    fs::remove_file(&blob).unwrap();
    verify(&["model.safetensors is a link to nothing"], &[]);
    let mut other = good.clone();
    other[good.len() - 1] ^= 1;
    fs::write(&blob, &other).unwrap();
    done(&workshop, &["models", "verify", text(&snapshot)]);
    verify(&["model.safetensors has other bytes than its hash says"], &["--deep", "-q"]);
    fs::write(&blob, &good).unwrap();
    let template = snapshot.join("chat_template.jinja").canonicalize().unwrap();
    let text_before = fs::read_to_string(&template).unwrap();
    fs::write(&template, text_before.replacen('a', "b", 1)).unwrap();
    verify(&["chat_template.jinja has other bytes"], &["--deep", "-q"]);
    fs::write(&template, text_before).unwrap();
    fs::remove_file(snapshot.join("generation_config.json")).unwrap();
    verify(&["generation_config.json is missing"], &[]);
    // What is not needed may be missing, and is told.
    fs::copy(
        workshop.path("hub").join("models--org--writer").join("refs/main"),
        snapshot.join("generation_config.json"),
    )
    .unwrap();
    verify(&["generation_config.json is 40 bytes, want"], &[]);
    let tree = workshop.path(&format!("hub/models--org--writer/trees/{COMMIT}.json"));
    fs::write(tree, "{\"format_version\": 1, \"files\": {").unwrap();
    refused(&workshop, 3, &["models", "verify", text(&snapshot)], &["its list of files is damaged"]);
}

#[test]
fn files_of_the_commit_that_nobody_needs_may_be_missing_and_are_told() {
    let workshop = Workshop::new();
    let snapshot = cached_model(&workshop, "writer", "llama");
    fs::remove_file(snapshot.join("README.md")).unwrap();
    let said = program::done(&["models", "verify", text(&snapshot)]);
    assert!(said.contains("1 of the commit's files are not here, for example README.md, and not needed"), "{said}");
    assert!(said.contains("memory") && said.contains("q4k") && said.contains("KV cache"), "{said}");
}

#[test]
fn a_list_of_another_form_or_none_leaves_links_and_pointers_to_be_found() {
    let workshop = Workshop::new();
    let folder = model(&workshop, "m", "llama");
    let said = done(&workshop, &["models", "verify", "m"]);
    assert!(said.contains("no list of them is here"), "{said}");
    std::os::unix::fs::symlink("../blobs/0000", folder.join("model-00002-of-00002.safetensors")).unwrap();
    refused(
        &workshop,
        3,
        &["models", "verify", "m"],
        &["model-00002-of-00002.safetensors is a link to nothing", "cp -aL"],
    );
    fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
    workshop.write("m/tokenizer.json", "version https://git-lfs.github.com/spec/v1\n");
    refused(&workshop, 3, &["models", "verify", "m"], &["tokenizer.json is a git-lfs pointer"]);
}

#[test]
fn a_folder_that_was_downloaded_into_is_held_against_its_list() {
    let workshop = Workshop::new();
    model(&workshop, "m", "llama");
    let config = fs::metadata(workshop.path("m/config.json")).unwrap().len();
    let list = serde_json::json!({"format_version": 1, "files": {
        "config.json": {"size": config, "blob_id": "0".repeat(40)},
        "model-00002-of-00002.safetensors": {"size": 5, "blob_id": "0".repeat(40)},
        "pytorch_model.bin": {"size": 5, "blob_id": "0".repeat(40)},
    }});
    workshop.write(&format!("m/.cache/huggingface/trees/{COMMIT}.json"), list.to_string());
    refused(&workshop, 3, &["models", "verify", "m"], &["model-00002-of-00002.safetensors is missing"]);
}

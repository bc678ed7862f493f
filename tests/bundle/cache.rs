//! The Hugging Face cache: what an install leaves there is what huggingface_hub itself would have left, so that Python finds it offline.

use std::fs;

use super::program::{text, tree};
use super::workshop::Workshop;
use super::{COMMIT, cached_model, done, model, refused};

#[test]
fn refs_snapshots_blobs_and_the_list_of_files_are_there() {
    let workshop = Workshop::new();
    let snapshot = cached_model(&workshop, "writer", "llama");
    let repo = workshop.path("hub/models--org--writer");
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    let tree_file = fs::read(repo.join(format!("trees/{COMMIT}.json"))).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&tree_file).unwrap();
    assert_eq!(list["format_version"], 1);
    let weights = &list["files"]["model.safetensors"];
    let config = &list["files"]["config.json"];
    let blob = |name: &str| fs::read_link(snapshot.join(name)).unwrap();
    let etag = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    assert_eq!(text(&blob("model.safetensors")), format!("../../blobs/{}", etag(&weights["lfs_sha256"])));
    assert_eq!(text(&blob("config.json")), format!("../../blobs/{}", etag(&config["blob_id"])));
    assert!(config.get("lfs_sha256").is_none() && weights["lfs_size"] == weights["size"]);
    let said = done(&workshop, &["models", "verify", text(&snapshot), "--deep", "-q"]);
    assert!(said.contains(&format!("8 as trees/{COMMIT}.json has them, 8 by their hash too")), "{said}");
}

#[test]
fn a_second_install_does_nothing_and_a_broken_one_is_mended() {
    let workshop = Workshop::new();
    let snapshot = cached_model(&workshop, "writer", "llama");
    done(&workshop, &["bundle", "create", "--models", "org/writer", "-o", "a.tar", "-q"]);
    let before = tree(&workshop.path("hub"));
    let install = ["bundle", "install", "a.tar", "--hf-cache"];
    assert!(done(&workshop, &install).contains("nothing to do"));
    fs::remove_file(snapshot.join("config.json").canonicalize().unwrap()).unwrap();
    fs::remove_file(snapshot.join("tokenizer.json")).unwrap();
    fs::remove_file(workshop.path("hub/models--org--writer/refs/main")).unwrap();
    assert!(done(&workshop, &install).contains("installed "));
    assert_eq!(before, tree(&workshop.path("hub")));
    // Another commit under the branch's name is told of, and stays.
    let other = "f".repeat(40);
    fs::write(workshop.path("hub/models--org--writer/refs/main"), &other).unwrap();
    assert!(done(&workshop, &install).contains(&format!("`main` was commit {other} before")));
    assert_eq!(before, tree(&workshop.path("hub")));
}

#[test]
fn of_a_bad_bundle_nothing_is_left_in_the_cache() {
    let workshop = Workshop::new();
    let plain = model(&workshop, "plain", "llama");
    let named = format!("org/writer@{COMMIT}={}", text(&plain));
    done(&workshop, &["bundle", "create", "--models", &named, "-o", "a.tar", "-q"]);
    let mut bytes = fs::read(workshop.path("a.tar")).unwrap();
    // Somewhere in the weights, which are the most of it.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    workshop.write("a.tar", bytes);
    refused(&workshop, 3, &["bundle", "install", "a.tar", "--hf-cache"], &["is damaged", "SHA-256"]);
    assert!(!workshop.path("hub").exists());
}

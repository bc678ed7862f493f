//! Copies of fixture models that a test may damage. Knows files only.

use std::path::{Path, PathBuf};

use super::program::fixture_model;
use super::workshop::Workshop;

/// A copy of the fixture model `fixture` as the folder `name`.
pub fn model(workshop: &Workshop, name: &str, fixture: &str) -> PathBuf {
    let to = workshop.path(name);
    std::fs::create_dir_all(&to).expect("create a model folder");
    for entry in std::fs::read_dir(fixture_model(fixture)).expect("the fixture") {
        let from = entry.expect("a folder entry").path();
        std::fs::copy(&from, to.join(from.file_name().expect("a name"))).expect("copy a model file");
    }
    to
}

/// Replaces one field of a JSON file.
pub fn edit_json(path: &Path, field: &str, value: serde_json::Value) {
    let mut json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("a JSON file")).expect("JSON");
    json[field] = value;
    std::fs::write(path, json.to_string()).expect("write JSON");
}

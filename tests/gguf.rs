//! GGUF files: that they give the model, the tokenizer and the template they were made from, and that damaged ones give one
//! clear error. Most files are written here, by a writer of our own; real ones of the `gguf` package are in `tests/fixtures/gguf`.

#[path = "gguf/damage.rs"]
mod damage;
#[path = "gguf/models.rs"]
mod models;
#[path = "gguf/program.rs"]
mod program;
#[path = "gguf/tokenizer.rs"]
mod tokenizer;
#[path = "support/gguf_writer.rs"]
mod writer;

use std::path::{Path, PathBuf};

/// A file of `tests/fixtures/gguf`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf").join(name)
}

/// What `scripts/make_gguf_fixtures.py` wrote down.
fn expected() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap()
}

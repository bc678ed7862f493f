//! model.safetensors.index.json beside two small files: it is refused, or leads to these two and nowhere else.
//! Knows a folder inside a folder that holds a third file, which must never be opened.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pairwright::model::weights::WeightSource;
use tempfile::TempDir;

/// A file with one tensor of one byte.
fn file(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#);
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0]].concat()
}

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let inner = folder.path().join("m");
    std::fs::create_dir(&inner).expect("a folder");
    std::fs::write(folder.path().join("c.safetensors"), file("secret")).expect("write a file");
    std::fs::write(inner.join("a.safetensors"), file("a")).expect("write a file");
    std::fs::write(inner.join("b.safetensors"), file("b")).expect("write a file");
    folder
});

fuzz_target!(|json: &[u8]| {
    let inner = FOLDER.path().join("m");
    std::fs::write(inner.join("model.safetensors.index.json"), json).expect("write the index");
    if let Ok(source) = WeightSource::open(&inner) {
        assert!(source.inventory().num_tensors <= 2);
        assert!(!source.contains("secret"));
    }
});

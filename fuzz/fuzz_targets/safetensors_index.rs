//! model.safetensors.index.json beside two small files: it is refused, or leads to these two and nowhere else.
//! Knows a folder inside a folder that holds a third file, which must never be opened.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pairwright::model::HfConfig;
use pairwright::model::weights::WeightSource;
use tempfile::TempDir;

/// A file with one tensor of `len` bytes.
fn file(name: &str, len: usize) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; len]].concat()
}

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let inner = folder.path().join("m");
    std::fs::create_dir(&inner).expect("a folder");
    std::fs::write(folder.path().join("c.safetensors"), file("c", 100)).expect("write a file");
    std::fs::write(inner.join("a.safetensors"), file("a", 1)).expect("write a file");
    std::fs::write(inner.join("b.safetensors"), file("b", 1)).expect("write a file");
    folder
});

fuzz_target!(|json: &[u8]| {
    let inner = FOLDER.path().join("m");
    std::fs::write(inner.join("model.safetensors.index.json"), json).expect("write the index");
    let config = HfConfig::parse("{}").expect("an empty configuration");
    if let Ok(source) = WeightSource::open(&inner, &config) {
        assert!(source.inventory().num_bytes <= 2, "the third file was read");
    }
});

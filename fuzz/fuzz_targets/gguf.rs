//! A GGUF file: it is refused, or its metadata makes a configuration and every tensor that its header names can be read.
//! Knows a folder with that one file; tokenizer and template are not asked for.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pairwright::gguf::Gguf;
use pairwright::model::weights::WeightSource;
use pairwright::model::{HfConfig, arch};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.path().join("m.gguf");
    std::fs::write(&path, bytes).expect("write the file");
    let Ok(gguf) = Gguf::open(std::slice::from_ref(&path)) else { return };
    let read: usize = gguf.tensors().iter().map(|tensor| gguf.bytes(tensor).len()).sum();
    assert!(gguf.tensors().is_empty() || read <= bytes.len() * gguf.tensors().len());
    let Ok(config) = HfConfig::read(&path) else { return };
    let Ok(source) = WeightSource::open(&path, &config) else { return };
    let _ = source.non_finite(|_| ());
    if let Ok(spec) = arch::spec(&config) {
        let _ = source.check(&spec);
    }
});

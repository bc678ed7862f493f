//! One file of weights: it is refused, or every tensor that its header names can be read.
//! Knows a folder with that one file; the model it is held against is a small llama.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pairwright::model::weights::WeightSource;
use pairwright::model::{DecoderSpec, HfConfig, arch};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));
static MODEL: LazyLock<(HfConfig, DecoderSpec)> = LazyLock::new(|| {
    let config = HfConfig::parse(include_str!("../../tests/fixtures/models/llama/config.json")).expect("a fixture");
    let spec = arch::spec(&config).expect("a fixture");
    (config, spec)
});

fuzz_target!(|bytes: &[u8]| {
    let (config, spec) = &*MODEL;
    std::fs::write(FOLDER.path().join("model.safetensors"), bytes).expect("write the file");
    let Ok(source) = WeightSource::open(FOLDER.path(), config) else { return };
    let inventory = source.inventory();
    assert!(inventory.num_bytes <= bytes.len() as u64);
    let mut read = 0;
    let found = source.non_finite(|bytes| read += bytes);
    assert_eq!(read, inventory.num_bytes);
    assert!(found.iter().all(|tensor| tensor.num_nan + tensor.num_infinite <= inventory.num_elements));
    let _ = source.check(spec);
});

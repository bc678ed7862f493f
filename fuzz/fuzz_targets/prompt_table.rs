//! A table of prompts from anywhere, by the name of each format: records and counted drops that are all of its rows, or one error.
//! The first byte chooses the format, the second the filters. Knows files; nothing of what is asked in them.

#![no_main]

use std::collections::HashSet;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pairwright::data::{ReadOptions, read_prompts};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));
const FORMATS: [&str; 4] = ["p.jsonl", "p.csv", "p.tsv", "p.parquet"];

fuzz_target!(|bytes: &[u8]| {
    let [format, filters, table @ ..] = bytes else { return };
    let path = FOLDER.path().join(FORMATS[usize::from(*format) % FORMATS.len()]);
    std::fs::write(&path, table).expect("write the file");
    let options = ReadOptions {
        limit: (filters & 1 > 0).then_some(2),
        max_prompt_chars: (filters & 2 > 0).then_some(20),
        require_response: filters & 4 > 0,
        language: (filters & 8 > 0).then(|| "Dutch".to_owned()),
        ..ReadOptions::default()
    };
    let Ok(prompts) = read_prompts(&path, &options) else { return };
    assert_eq!(
        prompts.records.len() as u64 + prompts.drops.total(),
        prompts.num_rows_read,
        "every row is a record or counted"
    );
    let ids: HashSet<&str> = prompts.records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids.len(), prompts.records.len());
});

//! A stage's journal as a kill, a bad disk or anybody else may leave it: rows that hold are read, opening and appending works or is refused,
//! and what was read before is still there afterwards. Knows lines of bytes; the rows are any JSON.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pairwright::journal::{Journal, JournalHeader, read_journal};
use tempfile::TempDir;

type Row = std::collections::BTreeMap<String, String>;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.path().join("journal.jsonl");
    std::fs::write(&path, bytes).expect("write the file");
    let header = JournalHeader::new("candidates", "seed");
    let read = read_journal::<Row>(&path, Some(&header));
    let Ok((mut journal, rows)) = Journal::<Row>::open(&path, &header) else {
        assert_eq!(std::fs::read(&path).expect("the file"), bytes, "what is refused is left alone");
        return;
    };
    assert_eq!(read.expect("what can be opened can be read").rows, rows);
    let mine = Row::from([("a".to_owned(), "ሰላም\u{2028}".to_owned())]);
    journal.append(&mine).expect("a row");
    drop(journal);
    let again = read_journal::<Row>(&path, Some(&header)).expect("a journal").rows;
    assert_eq!(again.len(), rows.len() + 1);
    assert!(again.starts_with(&rows) && again.last() == Some(&mine));
});

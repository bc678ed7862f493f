//! The journal under kills, damage and other runs; the lock file and the durable writes of provenance.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pairwright::journal::{Journal, JournalError, JournalHeader, SyncPolicy, TornTail, read_journal};
use pairwright::provenance::{
    Environment, FileDigest, LOCK_FILE_NAME, ModelRecord, ProvenanceError, RunLock, WeightsKind, sha256_file,
    sha256_hex, write_atomic,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    id: String,
    text: String,
    value: f64,
}

fn row(number: usize) -> Row {
    let texts = ["سلام\nدنیا", "नमस्ते \"दुनिया\"", "สวัสดี\r\n", "ሰላም\u{2028}", "你好\0", "👩🏽‍🚀 e\u{301}\\"];
    Row { id: format!("row-{number}"), text: texts[number % texts.len()].to_string(), value: 0.1 * number as f64 }
}

fn header() -> JournalHeader {
    JournalHeader::new("generate", "abc123")
}

fn write_rows(path: &Path, num_rows: usize) {
    let (mut journal, _) = Journal::<Row>::open(path, &header()).unwrap();
    for number in 0..num_rows {
        journal.append(&row(number)).unwrap();
    }
}

#[test]
fn rows_come_back_and_appending_continues() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generate.jsonl");
    let (mut journal, rows) = Journal::<Row>::open(&path, &header()).unwrap();
    assert!(rows.is_empty());
    assert_eq!(journal.torn_tail(), None);
    journal.append(&row(0)).unwrap();
    journal.append(&row(1)).unwrap();
    journal.sync().unwrap();
    // Readable while it is being written.
    assert_eq!(read_journal::<Row>(&path, None).unwrap().rows, [row(0), row(1)]);
    drop(journal);
    let (mut journal, rows) = Journal::<Row>::open(&path, &header()).unwrap();
    assert_eq!(rows, [row(0), row(1)]);
    journal.append(&row(2)).unwrap();
    assert_eq!(journal.num_rows(), 3);
    drop(journal);
    let content = read_journal::<Row>(&path, None).unwrap();
    assert_eq!(content.rows, [row(0), row(1), row(2)]);
    assert_eq!(content.header, Some(header()));
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4, "text with line breaks stays on one line");
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_rest_continues() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generate.jsonl");
    write_rows(&path, 6);
    let whole = fs::read(&path).unwrap();
    let last_start = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    for end in last_start..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let read = read_journal::<Row>(&path, None).unwrap();
        let (mut journal, rows) = Journal::<Row>::open(&path, &header()).unwrap();
        assert_eq!(rows, (0..5).map(row).collect::<Vec<_>>(), "cut at byte {end}");
        let expected = (end > last_start).then_some(TornTail { line: 7, size_bytes: (end - last_start) as u64 });
        assert_eq!(journal.torn_tail(), expected, "cut at byte {end}");
        assert_eq!((read.rows, read.torn_tail), (rows, expected));
        journal.append(&row(5)).unwrap();
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), whole, "the file is whole again after a cut at byte {end}");
    }
}

#[test]
fn a_header_torn_at_any_byte_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("judge.jsonl");
    write_rows(&path, 0);
    let whole = fs::read(&path).unwrap();
    for end in 0..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let (journal, rows) = Journal::<Row>::open(&path, &header()).unwrap();
        assert!(rows.is_empty());
        assert_eq!(journal.torn_tail().is_some(), end > 0);
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn zeros_at_the_end_are_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generate.jsonl");
    write_rows(&path, 2);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [whole.as_slice(), &[0; 4096]].concat()).unwrap();
    let (journal, rows) = Journal::<Row>::open(&path, &header()).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(journal.torn_tail(), Some(TornTail { line: 4, size_bytes: 4096 }));
    drop(journal);
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn damage_in_the_middle_costs_its_own_row_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generate.jsonl");
    write_rows(&path, 4);
    let damaged = fs::read_to_string(&path).unwrap().replace("row-1", "row-9");
    fs::write(&path, &damaged).unwrap();
    let (mut journal, rows) = Journal::<Row>::open(&path, &header()).unwrap();
    assert_eq!(rows, [row(0), row(2), row(3)]);
    assert_eq!(journal.damaged().iter().map(|damage| damage.line).collect::<Vec<_>>(), [3]);
    assert_eq!(fs::read_to_string(&path).unwrap(), damaged, "what is damaged stays to be looked at");
    journal.append(&row(1)).unwrap();
    drop(journal);
    let (journal, rows) = Journal::<Row>::open(&path, &header()).unwrap();
    assert_eq!((rows, journal.damaged().len()), (vec![row(0), row(2), row(3), row(1)], 1));
}

#[test]
fn rows_are_known_by_themselves_where_the_header_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generate.jsonl");
    write_rows(&path, 3);
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replacen("generate", "generale", 1)).unwrap();
    let (journal, rows) = Journal::<Row>::open(&path, &header()).unwrap();
    assert_eq!((rows.len(), journal.damaged()[0].line), (3, 1));
    drop(journal);
    // To somebody else they are nothing.
    let (_, rows) = Journal::<Row>::open(&path, &JournalHeader::new("generate", "other")).unwrap();
    assert!(rows.is_empty());
}

/// A thousand times a journal is cut or a bit of it flipped at a random place: it is seen each time, all rows that were not hit are
/// there, and no other; then the missing ones are done again, and all are there.
#[test]
fn damage_anywhere_is_seen_and_costs_no_other_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generate.jsonl");
    let num_rows = 20;
    write_rows(&path, num_rows);
    let whole = fs::read(&path).unwrap();
    let lines: Vec<usize> = whole.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::len).collect();
    // Which lines a place is in; a newline stands between two.
    let line_of = |place: usize| {
        let mut end = 0;
        lines.iter().position(|len| (end += len, place < end).1).unwrap()
    };
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for attempt in 0..1000 {
        let (place, is_cut) = (random(whole.len()), attempt % 2 == 0);
        let mut bytes = whole.clone();
        match is_cut {
            true => bytes.truncate(place),
            false => bytes[place] ^= 1 << random(8),
        }
        fs::write(&path, &bytes).unwrap();
        let (mut journal, rows) = Journal::<Row>::open(&path, &header()).unwrap();
        let missing: Vec<usize> = (0..num_rows).filter(|&number| !rows.contains(&row(number))).collect();
        assert_eq!(rows.len() + missing.len(), num_rows, "at {place}: no row is there that was not written");
        let is_told = journal.torn_tail().is_some() || !journal.damaged().is_empty();
        assert!(is_told || !missing.is_empty() || bytes.is_empty(), "at {place}: nobody saw it");
        let hit = line_of(place);
        for number in &missing {
            let line = number + 1;
            let is_hit = if is_cut { line >= hit } else { line == hit || (line == hit + 1 && whole[place] == b'\n') };
            assert!(is_hit, "at {place} of line {hit}: row {number} was not hit");
        }
        missing.iter().for_each(|&number| journal.append(&row(number)).unwrap());
        drop(journal);
        let (_, rows) = Journal::<Row>::open(&path, &header()).unwrap();
        assert!(rows.len() == num_rows && (0..num_rows).all(|number| rows.contains(&row(number))), "at {place}");
    }
}

#[test]
fn a_damaged_last_line_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generate.jsonl");
    write_rows(&path, 4);
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("row-3", "row-9")).unwrap();
    let (journal, rows) = Journal::<Row>::open(&path, &header()).unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(journal.torn_tail().map(|tail| tail.line), Some(5));
}

#[test]
fn a_journal_of_another_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generate.jsonl");
    write_rows(&path, 1);
    for (other, field) in
        [(JournalHeader::new("judge", "abc123"), "stage"), (JournalHeader::new("generate", "ffff"), "parameter hash")]
    {
        let error = Journal::<Row>::open(&path, &other).unwrap_err();
        assert!(matches!(&error, JournalError::OtherRun { field: found, .. } if *found == field), "{error}");
        assert!(error.to_string().contains("--out"), "{error}");
    }
    let newer_tool = JournalHeader { tool_version: "99.0.0".into(), ..header() };
    assert_eq!(Journal::<Row>::open(&path, &newer_tool).unwrap().1, [row(0)], "the tool's version is for people");
}

#[test]
fn a_strangers_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    for text in ["my notes", "{\"prompt\": \"hi\"}\n", "\n", "a\nb\n"] {
        fs::write(&path, text).unwrap();
        let error = Journal::<Row>::open(&path, &header()).unwrap_err();
        assert!(matches!(error, JournalError::NotAJournal { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    assert!(matches!(read_journal::<Row>(&dir.path().join("none"), None), Err(JournalError::Io { .. })));
}

#[test]
fn rows_of_another_shape_and_unreadable_rows_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generate.jsonl");
    write_rows(&path, 2);
    let error = read_journal::<Vec<u8>>(&path, None).unwrap_err();
    assert!(matches!(error, JournalError::Row { line: 2, .. }), "{error}");
    let (mut journal, _) = Journal::<Row>::open(&path, &header()).unwrap();
    let error = journal.append(&Row { value: f64::NAN, ..row(2) }).unwrap_err();
    assert!(matches!(error, JournalError::Unwritable { .. }), "{error}");
    journal.append(&row(2)).unwrap();
    drop(journal);
    assert_eq!(read_journal::<Row>(&path, None).unwrap().rows.len(), 3, "a refused row leaves nothing behind");
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generate.jsonl");
    let (first, _) = Journal::<Row>::open(&path, &header()).unwrap();
    assert!(matches!(Journal::<Row>::open(&path, &header()), Err(JournalError::Locked { .. })));
    drop(first);
    assert!(Journal::<Row>::open(&path, &header()).is_ok());
}

#[test]
fn a_strict_policy_writes_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let (lazy, strict) = (dir.path().join("lazy"), dir.path().join("strict"));
    write_rows(&lazy, 5);
    let policy = SyncPolicy { max_unsynced_rows: 1, max_unsynced_time: Duration::ZERO };
    let (mut journal, _) = Journal::<Row>::open_with_policy(&strict, &header(), policy).unwrap();
    (0..5).for_each(|number| journal.append(&row(number)).unwrap());
    assert_eq!(fs::read(lazy).unwrap(), fs::read(strict).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A resumed run must compute with the same digits as one that was never stopped.
    #[test]
    fn floats_and_text_come_back_bit_for_bit(values in prop::collection::vec((any::<f64>(), any::<String>()), 1..20)) {
        let rows: Vec<Row> = values
            .into_iter()
            .filter(|(value, _)| value.is_finite())
            .map(|(value, text)| Row { id: text.clone(), text, value })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let policy = SyncPolicy { max_unsynced_rows: 1000, max_unsynced_time: Duration::from_secs(1000) };
        let (mut journal, _) = Journal::<Row>::open_with_policy(&path, &header(), policy).unwrap();
        for row in &rows {
            journal.append(row).unwrap();
        }
        drop(journal);
        let read = read_journal::<Row>(&path, None).unwrap().rows;
        prop_assert_eq!(read.len(), rows.len());
        for (got, expected) in read.iter().zip(&rows) {
            prop_assert_eq!(got.value.to_bits(), expected.value.to_bits());
            prop_assert_eq!(&got.text, &expected.text);
        }
    }
}

fn model(name: &str) -> ModelRecord {
    ModelRecord {
        name: name.into(),
        path: format!("/models/{name}"),
        files: [("model.safetensors".to_string(), sha256_hex(name.as_bytes()))].into(),
        template_sha256: Some(sha256_hex(b"template")),
        merges_system: false,
        license: Some("apache-2.0".into()),
        dtype: "bf16".into(),
        weights: WeightsKind::Safetensors,
        is_reward: false,
    }
}

fn lock() -> RunLock {
    let source = FileDigest { path: "/home/someone/aya.parquet".into(), size_bytes: 7, sha256: sha256_hex(b"aya") };
    let mut lock = RunLock::new("2026-01-02T03:04:05Z".into(), 0, source);
    lock.parameters.insert("generate".into(), json!({"temperature": 0.7, "max_new_tokens": 512}));
    lock.generators = vec![model("writer")];
    lock.judges = vec![model("judge")];
    lock.rubric_sha256 = Some(sha256_hex(b"rubric"));
    lock
}

#[test]
fn digests_match_published_vectors() {
    assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("million");
    fs::write(&path, vec![b'a'; 3_000_000]).unwrap();
    assert_eq!(sha256_file(&path).unwrap(), sha256_hex(&vec![b'a'; 3_000_000]));
    assert_eq!(FileDigest::of(&path).unwrap().size_bytes, 3_000_000);
    assert!(matches!(sha256_file(&dir.path().join("none")), Err(ProvenanceError::Io { .. })));
}

#[test]
fn atomic_writes_replace_whole_files_and_leave_no_temporary() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    write_atomic(&path, b"old").unwrap();
    write_atomic(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    fs::create_dir(dir.path().join("folder")).unwrap();
    assert!(write_atomic(&dir.path().join("folder"), b"x").is_err());
    assert!(write_atomic(&dir.path().join("none/file"), b"x").is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file stays");
}

#[test]
fn a_lock_comes_back_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOCK_FILE_NAME);
    lock().write(&path).unwrap();
    assert_eq!(RunLock::read(&path).unwrap(), lock());
    assert!(fs::read_to_string(&path).unwrap().contains("\n  \"seed\": 0"), "indented for people");
    fs::write(&path, "{}").unwrap();
    assert!(matches!(RunLock::read(&path), Err(ProvenanceError::NotALock { .. })));
    fs::write(&path, "{\"format_version\": 99}").unwrap();
    assert!(matches!(RunLock::read(&path), Err(ProvenanceError::OtherFormat { got: 99, .. })));
}

#[test]
fn what_cannot_change_an_answer_is_no_difference() {
    let mut other = lock();
    other.created = "2027-01-01T00:00:00Z".into();
    other.source.path = "D:\\aya.parquet".into();
    other.generators[0].path = "/elsewhere".into();
    other.generators[0].license = None;
    other.environment = Environment {
        device: "cuda:0".into(),
        num_threads: Some(64),
        max_batch_size: Some(256),
        notes: [("driver".to_string(), "550".to_string())].into(),
    };
    other.parameters.insert("generate".into(), json!({"max_new_tokens": 512, "temperature": 0.7}));
    assert_eq!(lock().differences(&other), Vec::<String>::new());
    assert_eq!(lock().run_hash(), other.run_hash());
}

type Change = fn(&mut RunLock);

#[test]
fn differences_are_readable_and_change_the_hash() {
    let changes: [(Change, &str); 6] = [
        (|lock| lock.seed = 1, "seed: 0 → 1"),
        (|lock| lock.judges.clear(), "judges.judge: judge → (none)"),
        (|lock| lock.judges[0].dtype = "f32".into(), "judges.judge.dtype: bf16 → f32"),
        (
            |lock| lock.generators[0].weights = WeightsKind::EmbeddedDemo,
            "generators.writer.weights: safetensors → embedded-demo",
        ),
        (
            |lock| drop(lock.parameters.insert("generate".into(), json!({"temperature": 1.0, "max_new_tokens": 512}))),
            "parameters.generate.temperature: 0.7 → 1.0",
        ),
        (|lock| lock.source.sha256 = sha256_hex(b"abc"), "source.sha256: "),
    ];
    for (change, expected) in changes {
        let mut other = lock();
        change(&mut other);
        let found = lock().differences(&other);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{found:?}");
        assert_ne!(lock().run_hash(), other.run_hash());
    }
}

#[test]
fn nothing_of_the_machine_is_published() {
    let mut lock = lock();
    lock.environment.device = "cuda:7".into();
    let published = lock.published();
    for secret in ["someone", "/models", "cuda:7"] {
        assert!(!published.contains(secret), "{published}");
    }
    assert!(
        published.contains("aya.parquet") && published.contains("2026-01-02") && published.contains("apache-2.0"),
        "{published}"
    );
}

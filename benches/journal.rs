//! What the journal costs: rows as the generate stage writes them, appended and synced as a run does; and of that what a disk's own time is.
//! `cargo bench --bench journal -- [FOLDER]`: the folder's disk is the one that is measured (the system's temporary folder). A JSON line at
//! the end. Knows the journal; knows no engine.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pairwright::generate::{Candidate, CandidateSource, FinishReason, GenerateRow};
use pairwright::journal::{Journal, JournalHeader, SyncPolicy};

/// Rows of a round, and rounds; the median counts.
const NUM_ROWS: usize = 20_000;
const NUM_ROUNDS: usize = 5;
/// Bytes of an answer's text: 450 tokens or so.
const TEXT_BYTES: usize = 1_800;

fn row(index: usize) -> GenerateRow {
    let words = ["een antwoord ", "ответ ", "答案 ", "sagot "];
    let mut text = String::new();
    while text.len() < TEXT_BYTES {
        text += words[(index + text.len()) % words.len()];
    }
    GenerateRow::Candidate(Candidate {
        record_id: format!("{index:064x}"),
        sample_index: 0,
        source: CandidateSource::Model,
        model: "writer".to_owned(),
        text,
        thinking: None,
        token_ids: (0..450).map(|token| (token * 7919 + index as u32) % 128_000).collect(),
        num_prompt_tokens: 200,
        finish_reason: Some(FinishReason::Stop),
        logprob: Some(-123.456_789),
    })
}

fn seconds(folder: &std::path::Path, rows: &[GenerateRow], policy: SyncPolicy) -> f64 {
    let path = folder.join(format!("bench-journal-{}.jsonl", std::process::id()));
    let header = JournalHeader::new("candidates", "bench");
    let (mut journal, _) = Journal::open_with_policy(&path, &header, policy).expect("a journal");
    let started = Instant::now();
    rows.iter().for_each(|row| journal.append(row).expect("a row"));
    journal.sync().expect("the disk");
    let seconds = started.elapsed().as_secs_f64();
    drop(journal);
    std::fs::remove_file(&path).expect("the file again");
    seconds
}

fn main() {
    let folder = std::env::args().nth(1).filter(|argument| !argument.starts_with('-')).map(PathBuf::from);
    let folder = folder.unwrap_or_else(std::env::temp_dir);
    let rows: Vec<GenerateRow> = (0..NUM_ROWS).map(row).collect();
    let never = SyncPolicy { max_unsynced_rows: u64::MAX, max_unsynced_time: Duration::MAX };
    let median = |policy| {
        let mut all: Vec<f64> = (0..NUM_ROUNDS).map(|_| seconds(&folder, &rows, policy)).collect();
        all.sort_by(f64::total_cmp);
        all[NUM_ROUNDS / 2] / NUM_ROWS as f64 * 1e6
    };
    let (usual, unsynced) = (median(SyncPolicy::default()), median(never));
    println!("append and sync    {usual:>8.2} us/row   {:.2} % of one thread at 1,000 rows/s", usual / 10.0);
    println!("without the syncs  {unsynced:>8.2} us/row");
    println!(
        "{{\"bench\":\"journal\",\"row_bytes\":{TEXT_BYTES},\"us_per_row\":{usual:.3},\"us_per_row_unsynced\":{unsynced:.3}}}"
    );
}

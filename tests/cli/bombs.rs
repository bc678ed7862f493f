//! Prompt files that are small on disk and large in memory, and rows that no person wrote: refused, or read in the memory they need.
//! The process gets 4 GiB of addresses, so what would hold all of it fails here. Knows no model.

#![cfg(target_os = "linux")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int32Type};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::aya::{row, write_aya};
use super::program::text;
use super::workshop::Workshop;

/// `languages` reads every row of a file; with a prompt column alone the largest one too.
fn read_in_4_gib(path: &Path, more: &[&str]) -> (Option<i32>, String) {
    let binary = env!("CARGO_BIN_EXE_pairwright");
    let script = "ulimit -v 4194304; exec \"$0\" \"$@\"";
    let arguments = [&["-c", script, binary, "languages", text(path)], more].concat();
    let output = assert_cmd::Command::new("sh").args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

fn refused(path: &Path, said: &[&str]) {
    let (code, text) = read_in_4_gib(path, &[]);
    assert_eq!(code, Some(3), "{text}");
    assert!(said.iter().chain(&["\nhint: "]).all(|word| text.contains(word)), "{said:?} in {text}");
    assert_eq!(text.matches("error: ").count(), 1, "{text}");
}

#[test]
fn a_row_of_8_gib_is_refused_where_it_begins() {
    let workshop = Workshop::new();
    for (name, start, said) in [
        ("a.jsonl", "{\"inputs\":\"a\",\"targets\":\"b\"}\n{\"inputs\":\"", "a.jsonl, row 2: more than 64 MiB"),
        ("b.csv", "inputs,targets\nq,r\nq,\"", "b.csv, row 3: more than 64 MiB"),
        ("c.tsv", "inputs", "c.tsv, row 1: more than 64 MiB"),
    ] {
        let path = workshop.path(name);
        fs::write(&path, start).unwrap();
        // A hole: eight gigabytes of NUL bytes that take no room on disk.
        OpenOptions::new().write(true).open(&path).unwrap().set_len(8 << 30).unwrap();
        refused(&path, &[said]);
    }
}

#[test]
fn a_long_row_that_a_person_may_have_written_is_read() {
    let workshop = Workshop::new();
    let long = "ኢ".repeat(20 << 20);
    let path = workshop.path("a.jsonl");
    let mut file = fs::File::create(&path).unwrap();
    for n in 0..3 {
        writeln!(file, "{{\"inputs\":\"{n}\",\"targets\":\"{long}\",\"language\":\"Amharic\"}}").unwrap();
    }
    let (code, text) = read_in_4_gib(&path, &["--json"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\"num_rows\": 3") || text.contains("\"num_rows\":3"), "{text}");
}

/// 40 MiB of text once in a dictionary, for each of 128 rows: 5 GB if every row got its own.
#[test]
fn a_parquet_dictionary_is_not_multiplied() {
    let workshop = Workshop::new();
    let path = workshop.path("bomb.parquet");
    let values: ArrayRef = Arc::new(StringArray::from(vec!["ja ".repeat(14 << 20)]));
    let answers = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0; 128]), values);
    let prompts: StringArray = (0..128).map(|n| Some(format!("{n}?"))).collect();
    // Its schema says text, not dictionary, as from any other writer.
    let columns: Vec<(&str, ArrayRef)> = vec![("inputs", Arc::new(prompts)), ("targets", Arc::new(answers))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(zstd)
        .set_dictionary_page_size_limit(1 << 30)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None);
    let file = fs::File::create(&path).unwrap();
    let options = parquet::arrow::arrow_writer::ArrowWriterOptions::new()
        .with_properties(properties.build())
        .with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(file, batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 1 << 20, "small on disk");
    let (code, text) = read_in_4_gib(&path, &["--json"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("128"), "{text}");
}

#[test]
fn a_parquet_cell_larger_than_any_text_is_refused() {
    let workshop = Workshop::new();
    let path = workshop.path("p.parquet");
    let long = "ja ".repeat(30 << 20);
    let rows = [row("a", "b", "Dutch", "nld"), row("c", &long, "Dutch", "nld")];
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    write_aya(&path, &rows, &DataType::Utf8, properties);
    refused(&path, &["p.parquet, row 2: more than 64 MiB"]);
}

/// Bytes that are no text, in each format: said with their place, and nothing is guessed.
#[test]
fn text_that_is_not_utf8_is_refused() {
    let workshop = Workshop::new();
    for (name, bytes, said) in [
        ("a.jsonl", &b"{\"inputs\":\"caf\xe9\",\"targets\":\"b\"}\n"[..], "a.jsonl, line 1"),
        ("b.csv", b"inputs,targets\ncaf\xe9,b\n", "the text is not UTF-8 (field 1)"),
        ("c.jsonl", b"\xff\xfe{\x00\"\x00", "c.jsonl, line 1"),
    ] {
        refused(&workshop.write(name, bytes), &[said]);
    }
}

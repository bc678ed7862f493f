//! Reading prompts: every format, every kind of drop, and Unicode byte for byte.
//! Parquet's own spellings and damage are in `data_parquet.rs`, languages in `data_language.rs`.

use std::path::{Path, PathBuf};

use pairwright::data::{
    ColumnMap, DataError, DropCounts, DropReason, Field, Prompts, ReadOptions, count_languages, read_prompts,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Texts that a careless reader would change: scripts, combining marks, joiners, line ends, marks that are no text.
const TEXTS: [&str; 12] = [
    "ما هي عاصمة اليمن؟",
    "የኢትዮጵያ ዋና ከተማ ማን ናት?",
    "e\u{301}te\u{301} and été stay apart",
    "क्\u{200D}ष  नमस्ते\u{200C}",
    "first line\r\nsecond line\nthird\rfourth",
    "\u{FEFF}a mark that is text",
    "👩🏽\u{200D}🌾 ที่ไหน 東京 \u{202E}rtl\u{202C}",
    "\"quoted\", with, commas; and \\backslashes\\n",
    "\ttabs and trailing space ",
    "Ọjọ́ ìbí",
    "\u{1112}\u{1161}\u{11AB} 한",
    "a\u{0}b",
];

fn write(directory: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn json_lines(rows: &[serde_json::Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn read(path: &Path) -> Prompts {
    read_prompts(path, &ReadOptions::default()).unwrap()
}

fn read_error(path: &Path) -> DataError {
    read_prompts(path, &ReadOptions::default()).unwrap_err()
}

fn prompts(read: &Prompts) -> Vec<&str> {
    read.records.iter().map(|record| record.prompt.as_str()).collect()
}

fn mapped(map: &str) -> ReadOptions {
    ReadOptions { map: Some(ColumnMap::parse(map).unwrap()), ..ReadOptions::default() }
}

#[test]
fn json_lines_keep_every_byte_and_the_line_number() {
    let directory = directory();
    let rows: Vec<_> = TEXTS.iter().map(|text| serde_json::json!({"inputs": text, "targets": text})).collect();
    let content = format!("\u{FEFF}\r\n{}", json_lines(&rows).replace('\n', "\r\n"));
    let path = write(&directory, "texts.jsonl", &content);
    let read = read(&path);
    assert_eq!(prompts(&read), TEXTS);
    for (position, record) in read.records.iter().enumerate() {
        assert_eq!(record.response.as_deref(), Some(TEXTS[position]));
        assert_eq!(record.row_index, position as u64 + 1, "a blank first line is a line, but no row");
        let digest = Sha256::digest(TEXTS[position].as_bytes());
        assert_eq!(record.id, digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    assert_eq!(read.num_rows_read, TEXTS.len() as u64);
    assert_eq!(read.source.size_bytes, content.len() as u64);
    let digest = Sha256::digest(content.as_bytes());
    assert_eq!(read.source.sha256, digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_eq!(read.source.path, path);
}

#[test]
fn csv_and_tsv_keep_every_byte() {
    let directory = directory();
    for (name, separator) in [("texts.csv", b','), ("texts.TSV", b'\t')] {
        let mut writer = csv::WriterBuilder::new().delimiter(separator).from_writer(b"\xEF\xBB\xBF".to_vec());
        writer.write_record(["inputs", "targets", "user_id"]).unwrap();
        for text in TEXTS {
            writer.write_record([text, text, "7"]).unwrap();
        }
        let path = write(&directory, name, writer.into_inner().unwrap());
        let read = read(&path);
        assert_eq!(prompts(&read), TEXTS, "{name}");
        assert!(read.records.iter().zip(TEXTS).all(|(record, text)| record.response.as_deref() == Some(text)));
        assert_eq!(read.records[3].row_index, 3, "data rows count, not lines");
        assert_eq!(read.records[0].user_id.as_deref(), Some("7"));
    }
}

#[test]
fn a_quoted_header_behind_a_byte_order_mark_is_read() {
    let directory = directory();
    let path =
        write(&directory, "excel.csv", "\u{FEFF}\"prompt\",\"answer\"\r\n\"Waar is Urk?\",\"In Flevoland.\"\r\n");
    let read = read(&path);
    assert_eq!(prompts(&read), ["Waar is Urk?"]);
    assert_eq!(read.records[0].response.as_deref(), Some("In Flevoland."));
}

#[test]
fn every_reason_is_counted_once_and_in_order() {
    use serde_json::json;
    let nl = |prompt: serde_json::Value, response: serde_json::Value| json!({"prompt": prompt, "response": response, "language": "Dutch", "language_code": "nld"});
    let rows = [
        json!({"prompt": null, "response": "x", "language": "Yoruba", "language_code": "yor"}),
        nl(json!(null), json!("x")),
        nl(json!(" \u{3000}\n"), json!("x")),
        nl(json!("too long a prompt"), json!("x")),
        nl(json!("b"), json!(null)),
        nl(json!("b"), json!("\t")),
        nl(json!("b"), json!("too long a response")),
        nl(json!("b"), json!("kept")),
        nl(json!("b"), json!("x")),
        nl(json!("éé́é"), json!("x")),
        nl(json!("over"), json!("x")),
        nl(json!("over"), json!("x")),
    ];
    let directory = directory();
    let path = write(&directory, "rows.ndjson", json_lines(&rows));
    let options = ReadOptions {
        language: Some("nl".to_owned()),
        limit: Some(2),
        max_prompt_chars: Some(4),
        max_response_chars: Some(4),
        require_response: true,
        ..ReadOptions::default()
    };
    let read = read_prompts(&path, &options).unwrap();
    assert_eq!(prompts(&read), ["b", "éé́é"], "lengths count scalar values, not bytes");
    assert_eq!(read.records[0].response.as_deref(), Some("kept"));
    let expected = DropReason::ALL.map(|reason| {
        let count = if reason == DropReason::DuplicatePrompt { 2 } else { 1 };
        (reason.as_str(), count)
    });
    for (reason, count) in expected {
        assert_eq!(read.drops.count(reason), count, "{reason}");
    }
    assert_eq!(read.num_rows_read, 12);
    assert_eq!(read.records.len() as u64 + read.drops.total(), 12);
    let language = read.language.unwrap();
    assert_eq!((language.languages.len(), language.languages[0].num_rows), (1, 11));
    assert_eq!(language.languages[0].num_with_response, 9);
}

#[test]
fn without_require_response_a_blank_answer_is_none() {
    let directory = directory();
    let path = write(&directory, "a.csv", "inputs,targets\na,\nb,  \nc,yes\n");
    let read = read(&path);
    let responses: Vec<_> = read.records.iter().map(|record| record.response.as_deref()).collect();
    assert_eq!(responses, [None, None, Some("yes")]);
    assert_eq!(read.drops, DropCounts::default());
}

#[test]
fn a_map_names_columns_and_a_partial_map_leaves_the_rest_to_the_usual_names() {
    let directory = directory();
    let path = write(&directory, "m.csv", "prompt,text,targets,lang,kind\nno,yes,t,Dutch,k\n");
    let record = |map| read_prompts(&path, &mapped(map)).unwrap().records.remove(0);
    let partial = record(" prompt = text , annotation_type=kind");
    assert_eq!((partial.prompt.as_str(), partial.response.as_deref()), ("yes", Some("t")));
    assert_eq!((partial.language.as_str(), partial.annotation_type.as_deref()), ("Dutch", Some("k")));
    assert_eq!(record("prompt=text,response=").response, None, "an empty column leaves the field out");
    assert_eq!(record("response=prompt,prompt=text").response.as_deref(), Some("no"));
    assert_eq!(record("response=prompt,prompt=targets").prompt, "t");
    let path = write(&directory, "n.jsonl", "{\"Question\":\"q\",\"OUTPUT\":\"o\",\"input\":\"i\"}");
    let exact = read_prompts(&path, &ReadOptions::default()).unwrap().records.remove(0);
    assert_eq!((exact.prompt.as_str(), exact.response.as_deref()), ("i", Some("o")), "exact spellings go first");
}

#[test]
fn the_names_tried_start_with_ayas() {
    let first: Vec<_> = Field::ALL.iter().map(|field| field.usual_names()[0]).collect();
    assert_eq!(first, ["inputs", "targets", "language", "language_code", "annotation_type", "user_id"]);
}

#[test]
fn maps_that_cannot_be_used_say_why() {
    for (map, said) in [
        ("", "it is empty"),
        ("prompt", "`prompt` has no `=`"),
        ("promt=a", "`promt` is not a key (did you mean `prompt`?)"),
        ("prompt=a,prompt=b", "`prompt` is given twice"),
        ("prompt=", "the prompt needs a column"),
        ("prompt=a,response=a", "prompt and response are the same column"),
    ] {
        let error = ColumnMap::parse(map).unwrap_err();
        assert!(matches!(error, DataError::InvalidMap { .. }), "{map}");
        let message = error.to_string();
        assert!(message.contains(said) && message.contains("\nhint: "), "{message}");
    }
}

#[test]
fn a_missing_column_names_itself_the_others_and_the_closest() {
    let directory = directory();
    let path = write(&directory, "c.csv", "question_text,answer_text\na,b\n");
    let message = read_prompts(&path, &mapped("prompt=question_txt")).unwrap_err().to_string();
    assert!(message.contains("no column `question_txt` for `prompt`"), "{message}");
    assert!(message.contains("`question_text`, `answer_text`"), "{message}");
    assert!(message.contains("did you mean `question_text`? Say so with --map prompt=question_text"), "{message}");
    let message = read_error(&path).to_string();
    assert!(message.contains("no column `inputs` or `prompt` or "), "{message}");
    let options = ReadOptions { require_response: true, ..mapped("prompt=question_text") };
    let error = read_prompts(&path, &options).unwrap_err();
    assert!(matches!(error, DataError::MissingColumn { key: "response", .. }), "{error}");
}

#[test]
fn bad_json_lines_say_where() {
    let directory = directory();
    let good = "{\"prompt\":\"a\"}\n\n";
    for (bad, column, said) in [
        ("{\"prompt\": \"b\",}", 15, "trailing comma"),
        ("{\"prompt\": \"b\"", 14, "EOF"),
        ("[1]", 1, "not an object"),
        ("{\"prompt\": \"\\ud800\"}", 19, "hex escape"),
    ] {
        let error = read_error(&write(&directory, "bad.jsonl", format!("{good}{bad}\n")));
        let DataError::Json { line, column: found, problem, .. } = &error else { panic!("{error}") };
        assert_eq!(*line, 3, "{error}");
        assert!(problem.contains(said) && !problem.contains("line 1"), "{error}");
        assert!(found.abs_diff(column) <= 1, "{error}");
    }
    let mut latin1 = good.as_bytes().to_vec();
    latin1.extend(b"{\"prompt\": \"caf\xE9\"}");
    assert!(matches!(read_error(&write(&directory, "l.jsonl", latin1)), DataError::Json { line: 3, .. }));
    let array = read_error(&write(&directory, "array.json", "[\n{\"prompt\": \"a\"}\n]"));
    assert!(array.to_string().contains("jq -c"), "{array}");
    let nested = format!("{{\"prompt\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(matches!(read_error(&write(&directory, "deep.jsonl", nested)), DataError::Json { line: 1, .. }));
}

#[test]
fn prose_must_be_text_but_identifiers_may_be_numbers() {
    let directory = directory();
    let path =
        write(&directory, "t.jsonl", "{\"prompt\":\"a\",\"user_id\":12}\n{\"prompt\":[\"b\"],\"user_id\":true}\n");
    let error = read_error(&path);
    assert!(matches!(&error, DataError::ColumnType { line: Some(2), found, .. } if found == "an array"), "{error}");
    let path = write(&directory, "u.jsonl", "{\"prompt\":\"a\",\"user_id\":12}\n{\"prompt\":\"b\"}\n");
    let read = read(&path);
    assert_eq!(read.records[0].user_id.as_deref(), Some("12"));
    assert_eq!(read.records[1].user_id, None);
}

#[test]
fn a_key_that_first_shows_up_later_is_found() {
    let directory = directory();
    let path = write(&directory, "late.jsonl", "{\"prompt\":\"a\"}\n{\"prompt\":\"b\",\"response\":\"r\"}\n");
    assert_eq!(read(&path).records[1].response.as_deref(), Some("r"));
}

#[test]
fn bad_csv_says_where() {
    let directory = directory();
    let error = read_error(&write(&directory, "bad.csv", "prompt,response\n\"a\nb\",c\nd\n"));
    assert!(
        matches!(&error, DataError::Csv { line: 4, problem, .. } if problem.contains("1 fields, expected 2")),
        "{error}"
    );
    let error = read_error(&write(&directory, "latin1.csv", b"prompt,response\na,caf\xE9\n"));
    assert!(matches!(&error, DataError::Csv { line: 2, problem, .. } if problem.contains("not UTF-8")), "{error}");
    let error = read_error(&write(&directory, "semicolons.csv", "prompt;response\na;b\n"));
    assert!(error.to_string().contains("separated by ';'"), "{error}");
}

#[test]
fn files_that_are_no_source_are_refused() {
    let directory = directory();
    let error = read_error(&directory.path().join("none.jsonl"));
    assert!(matches!(error, DataError::Missing { .. }), "{error}");
    let error = read_error(&write(&directory, "notes.txt", "hello"));
    assert!(error.to_string().contains("got .txt"), "{error}");
    let error = read_error(&write(&directory, "notes", ""));
    assert!(matches!(error, DataError::UnsupportedFormat { extension: None, .. }), "{error}");
    for (name, content) in [("empty.jsonl", "\n\n"), ("empty.csv", ""), ("header.csv", "prompt,response\n")] {
        let error = read_error(&write(&directory, name, content));
        assert!(matches!(error, DataError::NoRowsLeft { num_rows: 0, .. }), "{name}: {error}");
        assert!(count_languages(&directory.path().join(name), None).unwrap().is_empty(), "{name}");
    }
}

#[test]
fn no_prompt_at_all_and_nothing_left_are_errors() {
    let directory = directory();
    let path = write(&directory, "null.jsonl", "{\"prompt\":null}\n{\"prompt\":\" \"}\n");
    let error = read_error(&path);
    assert!(matches!(&error, DataError::NoPrompts { column, num_rows: 2, .. } if column == "prompt"), "{error}");
    let path = write(&directory, "long.csv", "prompt,response\nabc,x\nabcd,x\n,x\n");
    let error = read_prompts(&path, &ReadOptions { max_prompt_chars: Some(1), ..ReadOptions::default() }).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("no rows left of 3 read; dropped by reason:\n  2  prompt_too_long\n  1  empty_prompt\n"));
    let error = read_prompts(&path, &ReadOptions { limit: Some(0), ..ReadOptions::default() }).unwrap_err();
    assert!(matches!(&error, DataError::NoRowsLeft { drops, .. } if drops.count("over_limit") == 2), "{error}");
}

#[test]
fn a_language_needs_a_column_and_its_rows() {
    let directory = directory();
    let path = write(&directory, "n.csv", "prompt,response\na,b\nc,\n");
    let dutch = ReadOptions { language: Some("Dutch".to_owned()), ..ReadOptions::default() };
    let message = read_prompts(&path, &dutch).unwrap_err().to_string();
    assert!(message.contains("no column says the language") && message.contains("--map language="), "{message}");
    let counts = count_languages(&path, None).unwrap();
    assert_eq!(counts.len(), 1);
    assert_eq!((counts[0].name.as_str(), counts[0].code.as_str()), ("(none)", ""));
    assert_eq!((counts[0].num_rows, counts[0].num_with_response), (2, 1));
    let path = write(&directory, "l.csv", "prompt,tongue\na,Dutch\nb,Yoruba\nc,Dutch\nd,\n");
    let options = ReadOptions { language: Some("dutch".to_owned()), ..mapped("prompt=prompt,language=tongue") };
    let read = read_prompts(&path, &options).unwrap();
    assert_eq!((prompts(&read), read.drops.count("other_language")), (vec!["a", "c"], 2));
    let counts = count_languages(&path, options.map.as_ref()).unwrap();
    let listed: Vec<_> = counts.iter().map(|count| (count.to_string(), count.num_rows)).collect();
    assert_eq!(listed, [("Dutch".to_owned(), 2), ("(none)".to_owned(), 1), ("Yoruba".to_owned(), 1)]);
    let error = read_prompts(&path, &ReadOptions { language: Some("Dutsh".to_owned()), ..options }).unwrap_err();
    assert!(matches!(&error, DataError::UnknownLanguage(unknown) if unknown.suggestions == ["Dutch"]), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Rows in equal rows out plus drops, ids are unique, text is untouched, and the order is the file's.
    #[test]
    fn every_row_is_a_record_or_a_counted_drop(
        rows in prop::collection::vec(
            (prop::option::of("\\PC{0,6}|[ab]"), prop::option::of("\\PC{0,4}"), 0..3_usize), 1..40),
        limit in prop::option::of(0..20_usize),
        max_chars in prop::option::of(0..6_usize),
        require_response: bool,
        by_language: bool,
    ) {
        let names = ["Dutch", "Yoruba", "Amharic"];
        let content: Vec<_> = rows
            .iter()
            .map(|(prompt, response, name)| serde_json::json!({"inputs": prompt, "targets": response, "language": names[*name]}))
            .collect();
        let directory = directory();
        let path = write(&directory, "any.jsonl", json_lines(&content));
        let options = ReadOptions {
            language: by_language.then(|| "am".to_owned()),
            limit,
            max_prompt_chars: max_chars,
            max_response_chars: max_chars,
            require_response,
            map: None,
        };
        match read_prompts(&path, &options) {
            Ok(read) => {
                prop_assert_eq!(read.num_rows_read, rows.len() as u64);
                prop_assert_eq!(read.num_rows_read, read.records.len() as u64 + read.drops.total());
                let ids: std::collections::BTreeSet<_> = read.records.iter().map(|record| &record.id).collect();
                prop_assert_eq!(ids.len(), read.records.len());
                prop_assert!(read.records.is_sorted_by(|a, b| a.row_index < b.row_index));
                for record in &read.records {
                    prop_assert_eq!(Some(&record.prompt), rows[record.row_index as usize].0.as_ref());
                }
                prop_assert!(read.drops.0.keys().all(|key| DropReason::ALL.iter().any(|reason| reason.as_str() == key)));
            }
            Err(DataError::NoRowsLeft { num_rows, drops, .. }) => {
                prop_assert_eq!((num_rows, drops.total()), (rows.len() as u64, rows.len() as u64));
            }
            Err(DataError::NoPrompts { .. }) => {
                prop_assert!(rows.iter().all(|(prompt, _, _)| prompt.as_ref().is_none_or(|text| text.trim().is_empty())));
            }
            Err(DataError::UnknownLanguage(_)) => prop_assert!(by_language && rows.iter().all(|row| row.2 != 2)),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

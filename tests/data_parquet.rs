//! Reading prompts from Parquet: every spelling of text, several files, foreign types, and damage.
//! Filters and the other formats are in `data.rs`.

#[path = "support/aya.rs"]
mod aya;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, ListArray, NullArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int32Type};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use sha2::{Digest, Sha256};

use aya::{AyaRow, row, write_aya};
use pairwright::data::{DataError, Prompts, ReadOptions, count_languages, read_prompts};

fn rows() -> Vec<AyaRow<'static>> {
    let mut rows = vec![
        row("ما هي عاصمة اليمن؟", "صنعاء", "Standard Arabic", "arb"),
        row("የኢትዮጵያ ዋና ከተማ?", "አዲስ አበባ", "Amharic", "amh"),
        row("e\u{301}\r\nte\u{301}", "క్\u{200D}ష \u{200C}", "Telugu", "tel"),
        row("Wat is de hoofdstad?", "Amsterdam", "Dutch", "nld"),
        [None, Some("a"), Some("Dutch"), Some("nld"), Some("re-annotations"), Some("u2")],
        [Some("Zonder antwoord?"), None, Some("Dutch"), Some("nld"), None, None],
        row("Wat is de hoofdstad?", "Den Haag", "Dutch", "nld"),
        [Some("no language"), Some("x"), None, None, None, None],
    ];
    rows.extend([row("一", "二", "Simplified Chinese", "zho"), row("三", "四", "Traditional Chinese", "zho")]);
    rows
}

fn read(path: &Path) -> Prompts {
    read_prompts(path, &ReadOptions::default()).unwrap()
}

fn plain() -> WriterPropertiesBuilder {
    WriterProperties::builder()
}

fn check(read: &Prompts, what: &str) {
    let expected: Vec<_> = rows().into_iter().enumerate().filter(|(position, _)| ![4, 6].contains(position)).collect();
    assert_eq!(read.records.len(), expected.len(), "{what}");
    for (record, (position, row)) in read.records.iter().zip(expected) {
        assert_eq!(record.row_index, position as u64, "{what}");
        assert_eq!(Some(record.prompt.as_str()), row[0], "{what}");
        assert_eq!(record.response.as_deref(), row[1], "{what}");
        assert_eq!(record.language, row[2].unwrap_or_default(), "{what}");
        assert_eq!(record.language_code, row[3].unwrap_or_default(), "{what}");
        assert_eq!(record.annotation_type.as_deref(), row[4], "{what}");
        assert_eq!(record.user_id.as_deref(), row[5], "{what}");
    }
    assert_eq!((read.drops.count("null_prompt"), read.drops.count("duplicate_prompt")), (1, 1), "{what}");
    assert_eq!(read.num_rows_read, read.records.len() as u64 + read.drops.total(), "{what}");
}

#[test]
fn every_spelling_of_text_reads_alike() {
    let directory = tempfile::tempdir().unwrap();
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let layouts = [
        plain().build(),
        plain().set_compression(Compression::SNAPPY).set_dictionary_enabled(false).build(),
        plain().set_compression(Compression::ZSTD(Default::default())).set_max_row_group_row_count(Some(3)).build(),
        plain()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_dictionary_enabled(false)
            .set_encoding(Encoding::DELTA_BYTE_ARRAY)
            .build(),
        plain().set_compression(Compression::GZIP(Default::default())).set_data_page_row_count_limit(2).build(),
    ];
    for text in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, dictionary] {
        for (number, layout) in layouts.iter().enumerate() {
            let path = directory.path().join("train-00000-of-00001.parquet");
            write_aya(&path, &rows(), &text, layout.clone());
            check(&read(&path), &format!("{text} in layout {number}"));
        }
    }
}

#[test]
fn parquet_is_recognised_without_its_extension() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("51baa85043b569ba");
    write_aya(&path, &rows(), &DataType::Utf8, plain().build());
    check(&read(&path), "a blob named by its hash");
}

#[test]
fn more_rows_than_a_batch_keep_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("many.parquet");
    let texts: Vec<String> = (0..2_500).map(|number| format!("سؤال {number}")).collect();
    let many: Vec<_> = texts.iter().map(|text| row(text, "x", "Standard Arabic", "arb")).collect();
    write_aya(&path, &many, &DataType::Utf8, plain().build());
    let read = read(&path);
    assert_eq!(read.records.len(), 2_500);
    assert!(read.records.iter().zip(&texts).all(|(record, text)| record.prompt == *text));
    assert!(read.records.iter().enumerate().all(|(position, record)| record.row_index == position as u64));
}

#[test]
fn languages_are_counted_and_chosen_by_name_or_code() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("aya.parquet");
    write_aya(&path, &rows(), &DataType::Utf8, plain().build());
    let counts = count_languages(&path, None).unwrap();
    let listed: Vec<_> =
        counts.iter().map(|count| (count.to_string(), count.num_rows, count.num_with_response)).collect();
    assert_eq!(listed[0], ("Dutch (nld)".to_owned(), 4, 3));
    assert_eq!(listed[1], ("(none)".to_owned(), 1, 1));
    assert_eq!(listed.len(), 7);
    assert_eq!(counts.iter().map(|count| count.num_rows).sum::<u64>(), 10);
    for (query, num_records, num_languages) in
        [("zho", 2, 2), ("traditional chinese", 1, 1), ("nl", 2, 1), ("ar", 1, 1)]
    {
        let options = ReadOptions { language: Some(query.to_owned()), ..ReadOptions::default() };
        let read = read_prompts(&path, &options).unwrap();
        assert_eq!(read.records.len(), num_records, "{query}");
        assert_eq!(read.language.as_ref().map(|language| language.languages.len()), Some(num_languages), "{query}");
        assert_eq!(read.num_rows_read, read.records.len() as u64 + read.drops.total(), "{query}");
    }
}

#[test]
fn a_directory_is_read_in_order_of_names_and_hashed_as_a_listing() {
    let directory = tempfile::tempdir().unwrap();
    let all = rows();
    let parts = [("train-00001-of-00002.parquet", &all[5..]), ("train-00000-of-00002.parquet", &all[..5])];
    for (name, part) in parts {
        write_aya(&directory.path().join(name), part, &DataType::Utf8, plain().build());
    }
    std::fs::write(directory.path().join("README.md"), "not data").unwrap();
    let read = read(directory.path());
    check(&read, "two files");
    let mut listing = String::new();
    let mut size_bytes = 0;
    for (name, _) in [parts[1], parts[0]] {
        let bytes = std::fs::read(directory.path().join(name)).unwrap();
        size_bytes += bytes.len() as u64;
        listing.push_str(&format!("{}  {name}\n", hex(&bytes)));
    }
    assert_eq!(read.source.sha256, hex(listing.as_bytes()));
    assert_eq!(read.source.size_bytes, size_bytes);
    assert_eq!(read.source.path, directory.path());
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn directories_without_data_or_of_several_splits_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = read_prompts(directory.path(), &ReadOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::EmptyDirectory { .. }), "{error}");
    for name in ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"] {
        write_aya(&directory.path().join(name), &rows(), &DataType::Utf8, plain().build());
    }
    let error = read_prompts(directory.path(), &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("several splits (test, train)"), "{error}");
}

fn write_columns(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_second_file_must_have_the_columns_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let texts = || Arc::new(StringArray::from(vec!["a"])) as ArrayRef;
    write_columns(&directory.path().join("0.parquet"), vec![("prompt", texts()), ("response", texts())]);
    write_columns(&directory.path().join("1.parquet"), vec![("prompt", texts())]);
    let message = read_prompts(directory.path(), &ReadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("1.parquet: no column `response`"), "{message}");
}

#[test]
fn other_types_are_text_only_where_that_is_harmless() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("types.parquet");
    let numbers = || Arc::new(Int64Array::from(vec![Some(7), None])) as ArrayRef;
    let texts = || Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef;
    let flags = Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef;
    let nulls = Arc::new(NullArray::new(2)) as ArrayRef;
    write_columns(
        &path,
        vec![
            ("prompt", texts()),
            ("response", nulls),
            ("user_id", numbers()),
            ("annotation_type", flags),
            ("n", numbers()),
        ],
    );
    let read = read(&path);
    assert_eq!(read.records[0].user_id.as_deref(), Some("7"));
    assert_eq!(read.records[1].user_id, None);
    assert_eq!(read.records[1].annotation_type.as_deref(), Some("false"));
    assert!(read.records.iter().all(|record| record.response.is_none()));

    write_columns(&path, vec![("prompt", numbers())]);
    let message = read_prompts(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("column `prompt` (for `prompt`) holds Int64, expected text\nhint: "), "{message}");
    assert!(message.ends_with("--map prompt=COLUMN"), "{message}");
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)]), Some([Some(2)])]);
    write_columns(&path, vec![("prompt", texts()), ("response", Arc::new(lists) as ArrayRef)]);
    let error = read_prompts(&path, &ReadOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::ColumnType { key: "response", .. }), "{error}");
    assert!(error.to_string().ends_with("or leave the field out with --map response="), "{error}");
}

#[test]
fn a_prompt_column_of_nulls_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nulls.parquet");
    write_aya(&path, &[[None, Some("a"), None, None, None, None]; 3], &DataType::Utf8, plain().build());
    let error = read_prompts(&path, &ReadOptions::default()).unwrap_err();
    assert!(matches!(error, DataError::NoPrompts { num_rows: 3, .. }), "{error}");
}

fn damaged(directory: &Path, bytes: &[u8]) -> Result<Prompts, DataError> {
    let path: PathBuf = directory.join("damaged.parquet");
    std::fs::write(&path, bytes).unwrap();
    read_prompts(&path, &ReadOptions::default())
}

#[test]
fn truncated_files_and_pointers_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("whole.parquet");
    write_aya(&path, &rows(), &DataType::Utf8, plain().build());
    let whole = std::fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(37).chain([whole.len() - 1]) {
        let error = damaged(directory.path(), &whole[..length]).unwrap_err();
        assert!(matches!(error, DataError::Parquet { is_lfs_pointer: false, .. }), "{length}: {error}");
    }
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:51ba\nsize 137195800\n";
    let error = damaged(directory.path(), pointer).unwrap_err();
    assert!(error.to_string().contains("git lfs pull"), "{error}");
}

/// Found by fuzzing: page headers with a list of two billion items, none of which takes a byte, or none of which has to be there.
#[test]
fn a_header_that_never_ends_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet");
    for (file, why) in [
        ("endless_list.parquet", "a list stands there whose items take no bytes"),
        ("endless_header.parquet", "a map or a UUID stands in a header"),
    ] {
        let error = read_prompts(&folder.join(file), &ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(why), "{error}");
    }
}

/// The third layout matters: there the Parquet reader itself panics on some of these files (as of parquet 60).
#[test]
fn a_flipped_byte_never_panics() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("whole.parquet");
    let deltas = plain().set_dictionary_enabled(false).set_encoding(Encoding::DELTA_BYTE_ARRAY);
    for (layout, step) in [(plain(), 5), (plain().set_compression(Compression::SNAPPY), 5), (deltas, 1)] {
        write_aya(&path, &rows(), &DataType::Utf8, layout.build());
        let whole = std::fs::read(&path).unwrap();
        let mut num_errors = 0;
        for position in (0..whole.len()).step_by(step) {
            let mut bytes = whole.clone();
            bytes[position] ^= 0xFF;
            match damaged(directory.path(), &bytes) {
                Ok(read) => assert_eq!(read.num_rows_read, read.records.len() as u64 + read.drops.total()),
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    num_errors += 1;
                }
            }
        }
        assert!(num_errors > 0, "some damage must be noticed");
    }
}

//! Writes small Parquet files in the shape of the Aya dataset, in any of Arrow's spellings of text.
//! Knows the six columns and how to encode them; makes no claim about what reading them should give.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// A row of `inputs, targets, language, language_code, annotation_type, user_id`; `None` is a null.
pub type AyaRow<'a> = [Option<&'a str>; 6];

/// Aya's columns, in its order.
const AYA_COLUMNS: [&str; 6] = ["inputs", "targets", "language", "language_code", "annotation_type", "user_id"];

/// A complete row, by one annotator.
pub fn row<'a>(prompt: &'a str, response: &'a str, language: &'a str, code: &'a str) -> AyaRow<'a> {
    [Some(prompt), Some(response), Some(language), Some(code), Some("original-annotations"), Some("u1")]
}

/// Writes rows with all columns of one Arrow type (any spelling of text) under the given properties.
pub fn write_aya(path: &Path, rows: &[AyaRow<'_>], text: &DataType, properties: WriterProperties) {
    let columns: Vec<ArrayRef> = (0..AYA_COLUMNS.len())
        .map(|column| {
            let values: StringArray = rows.iter().map(|row| row[column]).collect();
            cast(&(Arc::new(values) as ArrayRef), text).expect("cast a text column")
        })
        .collect();
    let fields: Vec<Field> = AYA_COLUMNS.iter().map(|name| Field::new(*name, text.clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("build a batch");
    let file = File::create(path).expect("create a fixture");
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).expect("open a Parquet writer");
    writer.write(&batch).expect("write a batch");
    writer.close().expect("close the Parquet file");
}

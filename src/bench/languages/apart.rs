//! Rows that a model may have been trained on: those of a run's training split, which a bench must not ask. Knows a run's files.

use std::collections::HashSet;

use arrow::array::{Array, AsArray};

use super::super::BenchError;
use crate::data::{Prompts, parquet_batches};
use crate::dataset::schema::name;
use crate::provenance::sha256_hex;
use crate::run::RunDir;

/// Reason of rows that were left out.
pub const TRAINED_ON: &str = "in_a_training_split";

/// Ids of the rows that whoever trains on a run's dataset trains on: those of its training split, or all rows of a run whose dataset is not
/// written yet.
///
/// # Errors
/// No run, or damaged files.
pub fn trained_on(run: &RunDir) -> Result<HashSet<String>, BenchError> {
    let loaded = run.load()?;
    let path = run.dataset().join("data").join("train-00000-of-00001.parquet");
    if !path.exists() {
        return Ok(loaded.records.into_iter().map(|record| record.id).collect());
    }
    let mut ids = HashSet::new();
    for batch in parquet_batches(&path)? {
        let batch = batch?;
        let column = batch.column_by_name(name::ID).and_then(|column| column.as_string_opt::<i32>().cloned());
        let column = column.ok_or_else(|| BenchError::NoIds { path: path.clone() })?;
        ids.extend((0..column.len()).filter(|&row| column.is_valid(row)).map(|row| column.value(row).to_owned()));
    }
    Ok(ids)
}

/// Leaves out the rows with these ids and counts them; gives a digest of those that were there, for the lock.
pub fn keep_apart(prompts: &mut Prompts, ids: &HashSet<String>) -> String {
    let mut left_out: Vec<String> = Vec::new();
    prompts.records.retain(|record| {
        let keep = !ids.contains(&record.id);
        if !keep {
            left_out.push(record.id.clone());
        }
        keep
    });
    left_out.iter().for_each(|_| prompts.drops.add(TRAINED_ON));
    left_out.sort();
    sha256_hex(left_out.join("\n").as_bytes())
}

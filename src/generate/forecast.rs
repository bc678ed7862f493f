//! What a plan said that a run's stages would take, to be held against what they took. Knows a plan's file by this one field; knows no stage.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a stage of one model would take, in one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// As [`super::StageSpeed::rows`] names it.
    pub stage: String,
    /// The model's name, as the lock has it.
    pub model: String,
    /// The card that it was computed for; `None`: measured on the machine that planned.
    pub card: Option<String>,
    /// Rows of the stage: answers, ratings, comparisons.
    pub num_rows: u64,
    /// Seconds of all of them, at best.
    pub low_s: f64,
    /// The middle of the range.
    pub expected_s: f64,
    /// At worst.
    pub high_s: f64,
}

#[derive(Deserialize)]
struct File {
    forecast: Vec<Forecast>,
}

impl Forecast {
    /// Those of a plan's file; none if there is no file, or it is another version's: nobody's result depends on them.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_all(path: &Path) -> io::Result<Vec<Self>> {
        match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(bytes) => Ok(serde_json::from_slice::<File>(&bytes).map(|file| file.forecast).unwrap_or_default()),
        }
    }
}

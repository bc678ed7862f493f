//! The table of figures that benches leave: one row per figure, in one Parquet file that grows over months, machines and versions.
//! Knows columns and files; does not know what a metric means or how a figure came about.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use serde::Serialize;

use crate::data::{DataError, parquet_batches};
use crate::dataset::schema::{figure_columns, name, schema_of};
use crate::dataset::{DatasetError, parquet_bytes};
use crate::provenance::{ProvenanceError, folder_of, write_atomic};

/// One figure: what a metric is, of one model in one language, measured once.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// A hash of all that the bench's answers depend on: equal figures of two benches of one id are one figure.
    pub bench_id: String,
    /// The day the bench began, UTC, as `2026-11-27`.
    pub date: String,
    /// The version that measured.
    pub pairwright_version: String,
    /// Host and processor.
    pub machine: String,
    /// The device, in words.
    pub device: String,
    /// The model's name.
    pub model: String,
    /// Lower-case hex SHA-256 over the model's files.
    pub model_sha256: String,
    /// ISO 639-3, or what the source has.
    pub language: String,
    /// What was measured, for example `bits_per_byte`.
    pub metric: String,
    /// Its unit, for example `bit/byte`; `share` for 0 to 1.
    pub unit: String,
    /// The figure.
    pub value: f64,
    /// Lower end of its 95 % interval, if it has one.
    pub low: Option<f64>,
    /// Upper end of its 95 % interval, if it has one.
    pub high: Option<f64>,
    /// Rows that the figure is of.
    pub num_rows: i64,
    /// The judge it rests on, if any.
    pub judge: Option<String>,
    /// Lower-case hex SHA-256 of the rows that were asked.
    pub prompts_sha256: String,
}

impl Figure {
    /// What makes two rows the same measurement, of which the later one counts.
    fn key(&self) -> [&str; 8] {
        let judge = self.judge.as_deref().unwrap_or_default();
        [
            &self.bench_id,
            &self.date,
            &self.machine,
            &self.device,
            &self.model_sha256,
            &self.language,
            &self.metric,
            judge,
        ]
    }
}

/// What went wrong with a table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] DataError),
    /// It is a Parquet file of something else.
    #[error(
        "{} is no table of figures: column `{column}` is {got}, expected {expected}\nhint: want a file that `pairwright bench` wrote",
        path.display()
    )]
    OtherTable {
        /// The file.
        path: PathBuf,
        /// Which column.
        column: &'static str,
        /// What is there.
        got: String,
        /// What a table of figures has.
        expected: &'static str,
    },
    /// Its bytes cannot be made.
    #[error(transparent)]
    Encode(#[from] DatasetError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] ProvenanceError),
}

/// All figures of a table, in the order of its rows; none if there is no such file. Columns that this version does not know are passed over.
///
/// # Errors
/// [`TableError`]: a damaged file, or one of something else.
pub fn read(path: &Path) -> Result<Vec<Figure>, TableError> {
    let batches = match parquet_batches(path) {
        Err(DataError::Missing { .. }) => return Ok(Vec::new()),
        other => other?,
    };
    let mut figures = Vec::new();
    for batch in batches {
        figures.extend(Rows { path, batch: batch? }.figures()?);
    }
    Ok(figures)
}

/// Adds figures to a table, which is made if there is none. A figure that is there already, of the same bench, day, machine, device, model,
/// language, metric and judge, is replaced in its place, so that adding twice is adding once. The file is replaced as a whole: a reader
/// sees it before or after. Two processes that add take turns where the file system has locks.
///
/// # Errors
/// [`TableError`]; the table is then as it was.
pub fn append(path: &Path, figures: &[Figure]) -> Result<(), TableError> {
    // A folder can be locked like a file, and is not replaced. Where it cannot, only one process should add at a time.
    let folder = File::open(folder_of(path)).ok().filter(|folder| folder.lock().is_ok());
    let mut all = read(path)?;
    let mut places: std::collections::HashMap<[String; 8], usize> =
        all.iter().enumerate().map(|(at, figure)| (figure.key().map(str::to_owned), at)).collect();
    for figure in figures {
        let next = all.len();
        match *places.entry(figure.key().map(str::to_owned)).or_insert(next) {
            place if place < next => all[place] = figure.clone(),
            _ => all.push(figure.clone()),
        }
    }
    let written = replace(path, &all);
    drop(folder);
    written
}

/// Writes a table of these figures and no others. The same figures give the same bytes.
///
/// # Errors
/// [`TableError`]; the table is then as it was.
pub fn replace(path: &Path, figures: &[Figure]) -> Result<(), TableError> {
    let schema = Arc::new(schema_of(&figure_columns()));
    let text =
        |of: fn(&Figure) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(figures.iter().map(of))) };
    let number =
        |of: fn(&Figure) -> Option<f64>| -> ArrayRef { Arc::new(Float64Array::from_iter(figures.iter().map(of))) };
    // In the order of `figure_columns`, which the test of a round trip holds.
    let columns: Vec<ArrayRef> = vec![
        text(|figure| &figure.bench_id),
        text(|figure| &figure.date),
        text(|figure| &figure.pairwright_version),
        text(|figure| &figure.machine),
        text(|figure| &figure.device),
        text(|figure| &figure.model),
        text(|figure| &figure.model_sha256),
        text(|figure| &figure.language),
        text(|figure| &figure.metric),
        text(|figure| &figure.unit),
        number(|figure| Some(figure.value)),
        number(|figure| figure.low),
        number(|figure| figure.high),
        Arc::new(Int64Array::from_iter_values(figures.iter().map(|figure| figure.num_rows))),
        Arc::new(StringArray::from_iter(figures.iter().map(|figure| figure.judge.as_deref()))),
        text(|figure| &figure.prompts_sha256),
    ];
    let batch = RecordBatch::try_new(schema.clone(), columns).map_err(DatasetError::from)?;
    Ok(write_atomic(path, &parquet_bytes(&schema, &batch)?)?)
}

/// Some rows of a file that should be a table.
struct Rows<'p> {
    path: &'p Path,
    batch: RecordBatch,
}

impl Rows<'_> {
    fn column(&self, column: &'static str, expected: &'static str) -> Result<&ArrayRef, TableError> {
        let missing = || self.other(column, "missing".to_owned(), expected);
        self.batch.column_by_name(column).ok_or_else(missing)
    }

    fn other(&self, column: &'static str, got: String, expected: &'static str) -> TableError {
        TableError::OtherTable { path: self.path.to_owned(), column, got, expected }
    }

    fn optional_texts(&self, column: &'static str) -> Result<Vec<Option<String>>, TableError> {
        let array = self.column(column, "text")?;
        let texts =
            array.as_string_opt::<i32>().ok_or_else(|| self.other(column, array.data_type().to_string(), "text"))?;
        Ok(texts.iter().map(|text| text.map(str::to_owned)).collect())
    }

    fn texts(&self, column: &'static str) -> Result<Vec<String>, TableError> {
        let texts: Option<Vec<String>> = self.optional_texts(column)?.into_iter().collect();
        texts.ok_or_else(|| self.other(column, "null in places".to_owned(), "text in every row"))
    }

    fn numbers(&self, column: &'static str) -> Result<Vec<Option<f64>>, TableError> {
        let array = self.column(column, "float64")?;
        let numbers = array
            .as_primitive_opt::<Float64Type>()
            .ok_or_else(|| self.other(column, array.data_type().to_string(), "float64"))?;
        Ok(numbers.iter().collect())
    }

    fn figures(&self) -> Result<Vec<Figure>, TableError> {
        let counts = self.column(name::NUM_ROWS, "int64")?;
        let counts = counts
            .as_primitive_opt::<Int64Type>()
            .ok_or_else(|| self.other(name::NUM_ROWS, counts.data_type().to_string(), "int64"))?;
        let texts = |column| self.texts(column);
        let (bench_id, date) = (texts(name::BENCH_ID)?, texts(name::DATE)?);
        let (version, machine, device) =
            (texts(name::PAIRWRIGHT_VERSION)?, texts(name::MACHINE)?, texts(name::DEVICE)?);
        let (model, model_sha256) = (texts(name::MODEL)?, texts(name::MODEL_SHA256)?);
        let (language, metric, unit) = (texts(name::LANGUAGE)?, texts(name::METRIC)?, texts(name::UNIT)?);
        let prompts_sha256 = texts(name::PROMPTS_SHA256)?;
        let (values, lows, highs) = (self.numbers(name::VALUE)?, self.numbers(name::LOW)?, self.numbers(name::HIGH)?);
        let judges = self.optional_texts(name::JUDGE)?;
        let mut figures = Vec::with_capacity(values.len());
        for (row, value) in values.into_iter().enumerate() {
            let value =
                value.ok_or_else(|| self.other(name::VALUE, "null in places".to_owned(), "a number in every row"))?;
            if counts.is_null(row) {
                return Err(self.other(name::NUM_ROWS, "null in places".to_owned(), "a number in every row"));
            }
            figures.push(Figure {
                bench_id: bench_id[row].clone(),
                date: date[row].clone(),
                pairwright_version: version[row].clone(),
                machine: machine[row].clone(),
                device: device[row].clone(),
                model: model[row].clone(),
                model_sha256: model_sha256[row].clone(),
                language: language[row].clone(),
                metric: metric[row].clone(),
                unit: unit[row].clone(),
                value,
                low: lows[row],
                high: highs[row],
                num_rows: counts.value(row),
                judge: judges[row].clone(),
                prompts_sha256: prompts_sha256[row].clone(),
            });
        }
        Ok(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(model: &str, metric: &str, value: f64) -> Figure {
        Figure {
            bench_id: "b".repeat(16),
            date: "2026-11-27".to_owned(),
            pairwright_version: "0.1.0".to_owned(),
            machine: "máquina · 2 × ሞዴል".to_owned(),
            device: "cpu, f32".to_owned(),
            model: model.to_owned(),
            model_sha256: format!("sha of {model}"),
            language: "yor".to_owned(),
            metric: metric.to_owned(),
            unit: "bit/byte".to_owned(),
            value,
            low: Some(value - 0.25),
            high: None,
            num_rows: 250,
            judge: (metric == "win_rate").then(|| "judge".to_owned()),
            prompts_sha256: "p".to_owned(),
        }
    }

    #[test]
    fn a_table_grows_and_nothing_in_it_is_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures.parquet");
        assert_eq!(read(&path).unwrap(), []);
        let first = [figure("A", "bits_per_byte", 1.5), figure("A", "win_rate", 0.5)];
        append(&path, &first).unwrap();
        assert_eq!(read(&path).unwrap(), first);
        let bytes = std::fs::read(&path).unwrap();
        append(&path, &first).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        // Another model's, another day's, and a better value for a figure that is there.
        let day = Figure { date: "2027-01-01".to_owned(), ..figure("A", "win_rate", 0.25) };
        append(&path, &[figure("مثال", "win_rate", 0.75), day.clone(), figure("A", "win_rate", 0.625)]).unwrap();
        let expected = [first[0].clone(), figure("A", "win_rate", 0.625), figure("مثال", "win_rate", 0.75), day];
        assert_eq!(read(&path).unwrap(), expected);
    }

    #[test]
    fn several_may_add_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures.parquet");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = &path;
                scope.spawn(move || append(path, &[figure(&writer.to_string(), "bits_per_byte", 1.0)]).unwrap());
            }
        });
        let mut models: Vec<String> = read(&path).unwrap().into_iter().map(|figure| figure.model).collect();
        models.sort();
        assert_eq!(models, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    }

    #[test]
    fn other_files_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures.parquet");
        std::fs::write(&path, "no Parquet").unwrap();
        assert!(matches!(append(&path, &[figure("A", "x", 1.0)]), Err(TableError::Read(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"no Parquet");
        let schema = Arc::new(schema_of(&crate::dataset::schema::vote_columns()[..1]));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(StringArray::from(vec!["a"]))]).unwrap();
        std::fs::write(&path, parquet_bytes(&schema, &batch).unwrap()).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("`num_rows` is missing, expected int64"), "{error}");
    }
}

//! Parquet files and the folder around them: written aside, then renamed into place, so that nothing is half written.
//! Knows record batches and file names; knows nothing of pairs.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::Serialize;

use super::DatasetError;
use super::schema::HUGGINGFACE_KEY;
use crate::provenance::{sha256_file, sync_folder};

/// Key of the footer entry that holds the run's lock as JSON.
pub const LOCK_KEY: &str = "pairwright";

/// The card's file name. It is removed first and renamed last: a folder without it is not finished.
pub const CARD_FILE: &str = "README.md";

const STAGING_FOLDER: &str = ".pairwright-staging";
const ROWS_PER_ROW_GROUP: usize = 10_000;
const ZSTD_LEVEL: i32 = 9;

/// A Parquet file as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrittenFile {
    /// Configuration: `default`, `raw` or `votes`.
    pub config: String,
    /// Split: `train` or `test`.
    pub split: String,
    /// Path inside the dataset's folder, with `/`.
    pub path: String,
    /// Rows in the file.
    pub num_rows: u64,
    /// Size of the file.
    pub size_bytes: u64,
    /// Size of the rows in Arrow's memory layout, `num_bytes` in the card.
    pub arrow_size_bytes: u64,
    /// Lower-case hex SHA-256 of the file.
    pub sha256: String,
}

/// A folder inside the dataset's folder where files wait until all of them are complete.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
    staging: PathBuf,
    paths: Vec<String>,
}

impl Staging {
    /// Creates the dataset's folder where needed; leftovers of a killed write are removed.
    pub fn new(dir: &Path) -> Result<Self, DatasetError> {
        let staging = dir.join(STAGING_FOLDER);
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(DatasetError::io("remove", &staging))?;
        }
        fs::create_dir_all(&staging).map_err(DatasetError::io("create", &staging))?;
        Ok(Self { dir: dir.to_path_buf(), staging, paths: Vec::new() })
    }

    /// Where to write the file that shall become `path` (relative, with `/`); its folder exists.
    fn reserve(&mut self, path: &str) -> Result<PathBuf, DatasetError> {
        let staged = self.staging.join(path);
        if let Some(folder) = staged.parent() {
            fs::create_dir_all(folder).map_err(DatasetError::io("create", folder))?;
        }
        self.paths.push(path.to_string());
        Ok(staged)
    }

    /// Stages a text file.
    pub fn write_text(&mut self, path: &str, text: &str) -> Result<(), DatasetError> {
        let staged = self.reserve(path)?;
        fs::write(&staged, text).map_err(DatasetError::io("write", &staged))?;
        File::open(&staged).and_then(|file| file.sync_all()).map_err(DatasetError::io("sync", &staged))
    }

    /// Stages `<folder>/<split>-00000-of-00001.parquet` of a configuration: zstd, the lock in the footer. The same batches
    /// and lock give the same bytes.
    pub fn write_parquet(
        &mut self,
        (config, folder, split): (&str, &str, &str),
        schema: &Arc<Schema>,
        lock: &str,
        batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    ) -> Result<WrittenFile, DatasetError> {
        let path = parquet_path(folder, split);
        let staged = self.reserve(&path)?;
        let file = File::create(&staged).map_err(DatasetError::io("create", &staged))?;
        let mut writer = parquet_writer(file, schema, Some(lock))?;
        let (mut num_rows, mut arrow_size_bytes) = (0, 0);
        for batch in batches {
            let batch = batch?;
            num_rows += batch.num_rows() as u64;
            for column in batch.columns() {
                arrow_size_bytes += column.to_data().get_slice_memory_size()? as u64;
            }
            writer.write(&batch)?;
        }
        let file = writer.into_inner()?;
        file.sync_all().map_err(DatasetError::io("sync", &staged))?;
        let size_bytes = file.metadata().map_err(DatasetError::io("read", &staged))?.len();
        let (config, split) = (config.to_string(), split.to_string());
        Ok(WrittenFile { config, split, path, num_rows, size_bytes, arrow_size_bytes, sha256: sha256_file(&staged)? })
    }

    /// Whether the folder holds all of these files already, to the byte.
    pub fn is_in_place(&self) -> Result<bool, DatasetError> {
        for path in &self.paths {
            let (staged, target) = (self.staging.join(path), self.dir.join(path));
            if !target.is_file() || sha256_file(&staged)? != sha256_file(&target)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves everything into place, the card last. Files of an earlier write that have no successor are removed if their
    /// names are listed in `former`; nothing else in the folder is touched.
    pub fn commit(mut self, former: &[String]) -> Result<(), DatasetError> {
        let card = self.dir.join(CARD_FILE);
        remove_if_there(&card)?;
        for path in former.iter().filter(|path| !self.paths.contains(path)) {
            remove_if_there(&self.dir.join(path))?;
        }
        self.paths.sort_by_key(|path| path == CARD_FILE);
        for path in &self.paths {
            let target = self.dir.join(path);
            let folder = target.parent().unwrap_or(&self.dir);
            fs::create_dir_all(folder).map_err(DatasetError::io("create", folder))?;
            fs::rename(self.staging.join(path), &target)
                .map_err(DatasetError::io("move a finished file to", &target))?;
            sync_folder(folder)?;
        }
        fs::remove_dir_all(&self.staging).map_err(DatasetError::io("remove", &self.staging))
    }

    /// Throws away what was staged, after an error.
    pub fn discard(self) {
        // Best effort: the next write removes leftovers too.
        let _ = fs::remove_dir_all(&self.staging);
    }
}

/// One batch as a Parquet file in memory, for tables that are small and replaced as a whole. The same batch gives the same bytes.
///
/// # Errors
/// If the batch does not fit the schema.
pub fn parquet_bytes(schema: &Arc<Schema>, batch: &RecordBatch) -> Result<Vec<u8>, DatasetError> {
    let mut writer = parquet_writer(Vec::new(), schema, None)?;
    writer.write(batch)?;
    Ok(writer.into_inner()?)
}

/// All files are written alike: zstd, row groups of one size, this tool's name, the schema's features and, of a run, its lock in the footer.
fn parquet_writer<W: Write + Send>(
    to: W,
    schema: &Arc<Schema>,
    lock: Option<&str>,
) -> Result<ArrowWriter<W>, DatasetError> {
    let features = schema.metadata().get(HUGGINGFACE_KEY).map(String::as_str);
    let entry = |key: &str, value: Option<&str>| KeyValue::new(key.to_string(), value.map(str::to_string));
    let lock = lock.map(|lock| entry(LOCK_KEY, Some(lock)));
    let footer = lock.into_iter().chain([entry(HUGGINGFACE_KEY, features)]).collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROWS_PER_ROW_GROUP))
        .set_created_by(format!("pairwright {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(footer))
        .build();
    Ok(ArrowWriter::try_new(to, schema.clone(), Some(properties))?)
}

/// Path of a split's only shard inside the dataset's folder.
pub fn parquet_path(folder: &str, split: &str) -> String {
    format!("{folder}/{split}-00000-of-00001.parquet")
}

fn remove_if_there(path: &Path) -> Result<(), DatasetError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DatasetError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

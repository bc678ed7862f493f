//! Provenance of a run: hashes, durable file writes and the room for them, and the lock file that says what a run was made from.
//! Knows no stage: parameters arrive as JSON, models as names and digests.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::shard::Shard;

/// Name of the lock file inside a run's folder.
pub const LOCK_FILE_NAME: &str = "run.lock";

/// Version of the lock file's layout; a reader refuses a newer one.
pub const LOCK_FORMAT_VERSION: u32 = 1;

/// What went wrong with a file of provenance.
#[derive(Debug, Error)]
pub enum ProvenanceError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is JSON of another kind, or no JSON.
    #[error("{} is not a run lock: {source}\nhint: start the run in another folder with --out", path.display())]
    NotALock {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The lock was written by a later version.
    #[error(
        "{} has lock format {got}, expected at most {LOCK_FORMAT_VERSION}\nhint: it was written by a newer version; use that one",
        path.display()
    )]
    NewerFormat {
        /// The file or folder.
        path: PathBuf,
        /// The value found.
        got: u32,
    },
    /// The lock could not be turned into JSON.
    #[error("cannot write the run lock as JSON: {source}")]
    Serialise {
        /// The cause.
        source: serde_json::Error,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProvenanceError {
    let path = path.to_path_buf();
    move |source| ProvenanceError::Io { action, path, source }
}

/// Lower-case hex SHA-256 of `bytes`.
pub fn sha256_hex(bytes: &[u8]) -> String {
    to_hex(&Sha256::digest(bytes))
}

/// Lower-case hex SHA-256 of a file's content, read in pieces of 1 MiB.
pub fn sha256_file(path: &Path) -> Result<String, ProvenanceError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(to_hex(&hasher.finalize())),
            Ok(num_bytes) => hasher.update(buffer.get(..num_bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error("read", path)(error)),
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `bytes` to `path` so that a reader, now or after a power cut, sees the old content or the new, never a part:
/// temporary file in the same folder, fsync, rename, fsync of the folder.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ProvenanceError> {
    let folder = folder_of(path);
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = folder.join(format!(".{file_name}.tmp-{}", std::process::id()));
    let written = write_synced(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path).map_err(io_error("rename a temporary file to", path)));
    if written.is_err() {
        // Best effort: the error that is reported is the one that matters.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_folder(folder)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), ProvenanceError> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(io_error("create", path))?;
    file.write_all(bytes).map_err(io_error("write", path))?;
    file.sync_all().map_err(io_error("sync", path))
}

/// The folder that holds `path`; `.` for a bare file name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes created and renamed names in `folder` durable. Does nothing where folders cannot be opened (Windows).
pub fn sync_folder(folder: &Path) -> Result<(), ProvenanceError> {
    if cfg!(unix) {
        File::open(folder).and_then(|handle| handle.sync_all()).map_err(io_error("sync the folder", folder))?;
    }
    Ok(())
}

/// Bytes that may be written below `path`, which need not exist yet.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists() || ancestor.as_os_str().is_empty())?;
    let place = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    free_bytes_of(place)
}

#[cfg(unix)]
fn free_bytes_of(place: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(place).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes_of(_place: &Path) -> Option<u64> {
    None
}

/// A file named by what it contains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Where it was on the machine that ran; not compared.
    pub path: String,
    /// Length of the content.
    pub size_bytes: u64,
    /// Lower-case hex SHA-256 of the content.
    pub sha256: String,
}

impl FileDigest {
    /// Reads the file at `path` once and hashes it.
    pub fn of(path: &Path) -> Result<Self, ProvenanceError> {
        let size_bytes = fs::metadata(path).map_err(io_error("read", path))?.len();
        Ok(Self { path: path.to_string_lossy().into_owned(), size_bytes, sha256: sha256_file(path)? })
    }
}

/// Where a model's weights came from. The last two are not models anyone should train on, and every artifact says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightsKind {
    /// Full weights in safetensors files.
    Safetensors,
    /// Quantised weights in one file.
    Gguf,
    /// Weights drawn from a seed, for measurements.
    Dummy,
    /// The tiny model inside the binary.
    EmbeddedDemo,
}

impl WeightsKind {
    /// True if the output is for show only.
    pub fn is_for_show(self) -> bool {
        matches!(self, Self::Dummy | Self::EmbeddedDemo)
    }
}

/// One model as a run used it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// The name that stands in the dataset's columns.
    pub name: String,
    /// Where it was on the machine that ran; not compared.
    pub path: String,
    /// File name to lower-case hex SHA-256: every file, or `config.json` and the weights' index.
    pub files: BTreeMap<String, String>,
    /// Lower-case hex SHA-256 of the chat template's text.
    pub template_sha256: Option<String>,
    /// True if its chat template has no system role, so that a system text stands at the head of the user's turn; not compared,
    /// for the template decides it.
    #[serde(default)]
    pub merges_system: bool,
    /// Licence identifier as the model's card states it, if known; not compared, for it changes no answer.
    pub license: Option<String>,
    /// Formats of weights, activations and KV cache, for example `q8_0, activations int8, KV cache f16`; activations and cache go
    /// unsaid where they are f32.
    pub dtype: String,
    /// Where the weights came from.
    pub weights: WeightsKind,
}

/// What may differ between two machines without changing a single answer. Stored, never compared, never published.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The device, in words.
    pub device: String,
    /// Threads of the CPU used.
    pub num_threads: Option<u64>,
    /// Sequences computed together at most.
    pub max_batch_size: Option<u64>,
    /// Anything else worth knowing later, for example the driver's version.
    pub notes: BTreeMap<String, String>,
}

/// The lock file of a run: all that its result depends on, and the environment it happened to run in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunLock {
    /// [`LOCK_FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Version of this tool.
    pub tool_version: String,
    /// RFC 3339: the run's pinned date, which templates that print a date also use. A continued run takes it over from
    /// the lock it finds, so it is not compared.
    pub created: String,
    /// Seed of all sampling.
    pub seed: u64,
    /// Parameters by stage name. What must not matter (batch size, threads, paths) belongs in [`Environment`].
    pub parameters: BTreeMap<String, Value>,
    /// The file the prompts came from.
    pub source: FileDigest,
    /// The model that wrote answers.
    pub generator: Option<ModelRecord>,
    /// The model that rated them.
    pub judge: Option<ModelRecord>,
    /// Lower-case hex SHA-256 of the rubric's text.
    pub rubric_sha256: Option<String>,
    /// The share of the rows that it does, if it does not do them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// What changed while the run was made and was accepted, in words; not compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted_changes: Vec<String>,
    /// Where it ran; not compared.
    #[serde(default)]
    pub environment: Environment,
}

/// Fields of [`RunLock::differences`] in which a run may differ from what it goes on from without its rows being worth less: another
/// version of this program, and formats or sums that change last bits.
const HARMLESS: [&str; 3] = ["tool_version", "generator.dtype", "judge.dtype"];

impl RunLock {
    /// A lock of this version of the tool without models or parameters; fill in the public fields.
    pub fn new(created: String, seed: u64, source: FileDigest) -> Self {
        Self {
            format_version: LOCK_FORMAT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_string(),
            created,
            seed,
            parameters: BTreeMap::new(),
            source,
            generator: None,
            judge: None,
            rubric_sha256: None,
            shard: None,
            accepted_changes: Vec::new(),
            environment: Environment::default(),
        }
    }

    /// Reads a lock file. A newer layout, or a file that is no lock, is an error.
    pub fn read(path: &Path) -> Result<Self, ProvenanceError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let not_a_lock = |source| ProvenanceError::NotALock { path: path.to_path_buf(), source };
        let bytes = fs::read(path).map_err(io_error("read", path))?;
        let version: Version = serde_json::from_slice(&bytes).map_err(not_a_lock)?;
        if version.format_version > LOCK_FORMAT_VERSION {
            return Err(ProvenanceError::NewerFormat { path: path.to_path_buf(), got: version.format_version });
        }
        serde_json::from_slice(&bytes).map_err(not_a_lock)
    }

    /// Writes the lock as indented JSON, atomically.
    pub fn write(&self, path: &Path) -> Result<(), ProvenanceError> {
        let mut text = serde_json::to_string_pretty(self).map_err(|source| ProvenanceError::Serialise { source })?;
        text.push('\n');
        write_atomic(path, text.as_bytes())
    }

    /// What differs between two locks in readable words, `seed: 0 → 1`, old value first; empty if a run under `self` may be
    /// continued under `other`. The environment, the date and all paths do not count.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        collect_differences("", Some(&self.compared()), Some(&other.compared()), &mut found);
        found
    }

    /// Whether a run may go on in spite of this one of [`Self::differences`], if people agree.
    pub fn is_harmless(difference: &str) -> bool {
        difference.split_once(": ").is_some_and(|(field, _)| HARMLESS.contains(&field))
    }

    /// Goes on from `found`: what its rows were made from stays as it was, and the accepted differences are noted beside it.
    pub fn keep(&mut self, found: &Self, accepted: Vec<String>) {
        self.accepted_changes.clone_from(&found.accepted_changes);
        for change in accepted {
            if !self.accepted_changes.contains(&change) {
                self.accepted_changes.push(change);
            }
        }
        self.tool_version.clone_from(&found.tool_version);
        for (own, found) in [(&mut self.generator, &found.generator), (&mut self.judge, &found.judge)] {
            if let (Some(own), Some(found)) = (own, found) {
                own.dtype.clone_from(&found.dtype);
            }
        }
    }

    /// Lower-case hex SHA-256 over everything [`Self::differences`] compares: equal exactly if there are none.
    pub fn run_hash(&self) -> String {
        sha256_hex(self.compared().to_string().as_bytes())
    }

    /// The lock as one line of JSON for publication: with the date, without the environment and without any path but
    /// the source's file name, so that nothing about the machine leaks and the same run gives the same bytes anywhere.
    pub fn published(&self) -> String {
        let mut view = self.compared();
        if let Value::Object(fields) = &mut view {
            fields.insert("created".into(), json!(self.created));
            if !self.accepted_changes.is_empty() {
                fields.insert("accepted_changes".into(), json!(self.accepted_changes));
            }
            for (role, model) in [("generator", &self.generator), ("judge", &self.judge)] {
                if let (Some(Value::Object(view)), Some(model)) = (fields.get_mut(role), model) {
                    view.insert("license".into(), json!(model.license));
                    view.insert("merges_system".into(), json!(model.merges_system));
                }
            }
            if let Some(Value::Object(source)) = fields.get_mut("source") {
                source.insert("file".into(), json!(file_name_of(&self.source.path)));
            }
        }
        sorted(view).to_string()
    }

    /// The compared part, with sorted keys.
    fn compared(&self) -> Value {
        let mut view = json!({
            "format_version": self.format_version,
            "tool_version": self.tool_version,
            "seed": self.seed,
            "parameters": self.parameters,
            "source": {"size_bytes": self.source.size_bytes, "sha256": self.source.sha256},
            "generator": self.generator.as_ref().map(compared_model),
            "judge": self.judge.as_ref().map(compared_model),
            "rubric_sha256": self.rubric_sha256,
        });
        // Not as a null: a run of all rows has the hash that it had before there were shards.
        if let (Some(shard), Value::Object(fields)) = (self.shard, &mut view) {
            fields.insert("shard".into(), json!(shard));
        }
        sorted(view)
    }
}

/// The last part of a path written on any system.
fn file_name_of(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or_default()
}

fn compared_model(model: &ModelRecord) -> Value {
    json!({
        "name": model.name,
        "files": model.files,
        "template_sha256": model.template_sha256,
        "dtype": model.dtype,
        "weights": model.weights,
    })
}

/// The same value with the keys of every object in byte order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let by_name: BTreeMap<String, Value> =
                fields.into_iter().map(|(name, field)| (name, sorted(field))).collect();
            Value::Object(by_name.into_iter().collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        scalar => scalar,
    }
}

fn collect_differences(name: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<String>) {
    match (old, new) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let names: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for field in names {
                let full_name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                collect_differences(&full_name, left.get(field), right.get(field), found);
            }
        }
        (left, right) if left.unwrap_or(&Value::Null) == right.unwrap_or(&Value::Null) => {}
        (left, right) => found.push(format!("{name}: {} → {}", in_words(left), in_words(right))),
    }
}

/// A value short enough for one line of a message; a digest by its first 12 characters.
fn in_words(value: Option<&Value>) -> String {
    const MAX_CHARACTERS: usize = 60;
    let text = match value {
        None | Some(Value::Null) => return "(none)".to_string(),
        Some(Value::String(text)) if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            return format!("{}…", text.chars().take(12).collect::<String>());
        }
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(fields)) => match fields.get("name").and_then(Value::as_str) {
            Some(name) => name.to_string(),
            None => Value::Object(fields.clone()).to_string(),
        },
        Some(other) => other.to_string(),
    };
    if text.chars().count() <= MAX_CHARACTERS {
        return text;
    }
    format!("{}…", text.chars().take(MAX_CHARACTERS).collect::<String>())
}

//! The lock file: all that a run's rows depend on, held against another one, and published without what is the machine's.
//! Knows models by their records and stages by their names; computes no hash of a file but the source's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{LOCK_FORMAT_VERSION, ProvenanceError, io_error, sha256_file, sha256_hex, write_atomic};
use crate::shard::Shard;

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
    /// True if its head gives a score and no tokens (a reward model); not compared, for its files decide it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_reward: bool,
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
    /// The models that wrote answers, each name once. The first one's parameters are those of the stage, the others' stand among them
    /// by name, see [`GENERATORS`].
    pub generators: Vec<ModelRecord>,
    /// The models that rated them, each name once.
    pub judges: Vec<ModelRecord>,
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

/// Where the generate stage's parameters have those of the second generator and further ones, by name.
pub const GENERATORS: &str = "models";

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
            generators: Vec::new(),
            judges: Vec::new(),
            rubric_sha256: None,
            shard: None,
            accepted_changes: Vec::new(),
            environment: Environment::default(),
        }
    }

    /// Reads a lock file. Another layout, or a file that is no lock, is an error.
    pub fn read(path: &Path) -> Result<Self, ProvenanceError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let not_a_lock = |source| ProvenanceError::NotALock { path: path.to_path_buf(), source };
        let bytes = fs::read(path).map_err(io_error("read", path))?;
        let version: Version = serde_json::from_slice(&bytes).map_err(not_a_lock)?;
        if version.format_version != LOCK_FORMAT_VERSION {
            return Err(ProvenanceError::OtherFormat { path: path.to_path_buf(), got: version.format_version });
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

    /// Whether a run may go on in spite of this one of [`Self::differences`], if people agree: another version of this program, and
    /// formats or sums that change last bits.
    pub fn is_harmless(difference: &str) -> bool {
        let is_of_model = |field: &str| field.starts_with("generators.") || field.starts_with("judges.");
        difference
            .split_once(": ")
            .is_some_and(|(field, _)| field == "tool_version" || is_of_model(field) && field.ends_with(".dtype"))
    }

    /// Puts the generators in the order of `found`, those that it lacks last, and moves their parameters along: who came first decides
    /// no answer.
    pub fn order_like(&mut self, found: &Self) {
        let place = |name: &str| found.generators.iter().position(|model| model.name == name).unwrap_or(usize::MAX);
        let Some(Value::Object(mut first)) = self.parameters.remove("generate") else { return };
        let others = first.remove(GENERATORS);
        let of = |model: &ModelRecord| others.as_ref().and_then(|others| others.get(&model.name)).cloned();
        let mut all: Vec<(ModelRecord, Value)> = Vec::new();
        for (at, model) in self.generators.drain(..).enumerate() {
            let own = of(&model).filter(|_| at > 0).unwrap_or_else(|| Value::Object(first.clone()));
            all.push((model, own));
        }
        all.sort_by_key(|(model, _)| place(&model.name));
        self.set_generators(all);
        if self.generators.is_empty() {
            self.parameters.insert("generate".to_owned(), Value::Object(first));
        }
    }

    /// Sets the generators with each one's parameters.
    pub fn set_generators(&mut self, models: Vec<(ModelRecord, Value)>) {
        let mut models = models.into_iter();
        let Some((first, mut parameters)) = models.next() else { return };
        let mut others = Map::new();
        self.generators = vec![first];
        for (model, own) in models {
            others.insert(model.name.clone(), own);
            self.generators.push(model);
        }
        if !others.is_empty() {
            parameters[GENERATORS] = Value::Object(others);
        }
        self.parameters.insert("generate".to_owned(), parameters);
    }

    /// Takes over the models that `other` has and this lacks, if it lacks none of this one's: a run grows by models, and loses none
    /// without a word.
    pub fn grow(&mut self, other: &Self) {
        let has_all =
            |own: &[ModelRecord], more: &[ModelRecord]| own.iter().all(|a| more.iter().any(|b| a.name == b.name));
        if !self.generators.is_empty() && has_all(&self.generators, &other.generators) {
            let new = other.generators.iter().filter(|model| self.generators.iter().all(|own| own.name != model.name));
            let new: Vec<ModelRecord> = new.cloned().collect();
            let theirs = other.parameters.get("generate").and_then(|stage| stage.get(GENERATORS));
            if let Some(Value::Object(own)) = self.parameters.get_mut("generate") {
                for model in &new {
                    if let Some(parameters) = theirs.and_then(|all| all.get(&model.name))
                        && let Some(all) = own.entry(GENERATORS).or_insert_with(|| json!({})).as_object_mut()
                    {
                        all.insert(model.name.clone(), parameters.clone());
                    }
                }
            }
            self.generators.extend(new);
        }
        if has_all(&self.judges, &other.judges) {
            let new = other.judges.iter().filter(|model| self.judges.iter().all(|own| own.name != model.name));
            let new: Vec<ModelRecord> = new.cloned().collect();
            self.judges.extend(new);
        }
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
        for (own, found) in [(&mut self.generators, &found.generators), (&mut self.judges, &found.judges)] {
            for own in own {
                if let Some(found) = found.iter().find(|model| model.name == own.name) {
                    own.dtype.clone_from(&found.dtype);
                }
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
            for (role, models) in [("generators", &self.generators), ("judges", &self.judges)] {
                for model in models {
                    if let Some(Value::Object(view)) = fields.get_mut(role).and_then(|all| all.get_mut(&model.name)) {
                        view.insert("license".into(), json!(model.license));
                        view.insert("merges_system".into(), json!(model.merges_system));
                    }
                }
            }
            if let Some(Value::Object(stages)) = fields.get_mut("parameters") {
                stages.iter_mut().filter_map(|(_, stage)| stage.as_object_mut()).for_each(name_files);
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
            "generators": by_name(&self.generators),
            "judges": by_name(&self.judges),
            "rubric_sha256": self.rubric_sha256,
        });
        // Not as a null: a run of all rows has the hash that it had before there were shards.
        if let (Some(shard), Value::Object(fields)) = (self.shard, &mut view) {
            fields.insert("shard".into(), json!(shard));
        }
        sorted(view)
    }
}

/// A parameter with a `…_sha256` beside it is the path of a file: its name is published, and its content by the hash.
fn name_files(parameters: &mut Map<String, Value>) {
    let is_file = |name: &&String| parameters.contains_key(&format!("{name}_sha256"));
    let files: Vec<String> = parameters.keys().filter(is_file).cloned().collect();
    for name in files {
        if let Some(Value::String(path)) = parameters.get_mut(&name) {
            *path = file_name_of(path).to_owned();
        }
    }
}

/// The last part of a path written on any system.
fn file_name_of(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or_default()
}

fn by_name(models: &[ModelRecord]) -> Value {
    Value::Object(models.iter().map(|model| (model.name.clone(), compared_model(model))).collect())
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

//! Where a model's numbers come from: memory-mapped safetensors files, or random ones for benchmarks and tests.
//! Knows names, shapes and bytes; knows nothing of what a tensor is for. Pages are given back once a tensor is packed, so that
//! file and packed form never lie in memory together.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use candle_core::DType;
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensors};

use super::spec::DecoderSpec;
use super::{ModelError, dummy};
use crate::ops::Compute;
use crate::ops::embedding::Embedding;
use crate::ops::linear::{Linear, MatrixView};
use crate::ops::rms_norm::RmsNorm;

/// Tensors by Hugging Face's names.
pub struct WeightSource {
    kind: Kind,
}

enum Kind {
    Files { maps: Vec<Mmap>, tensors: HashMap<String, Entry> },
    Dummy { seed: u64 },
}

/// Where a tensor lies.
struct Entry {
    /// Index of the file.
    map: usize,
    /// Byte range in it.
    range: std::ops::Range<usize>,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl WeightSource {
    /// Random weights of a seed.
    pub fn dummy(seed: u64) -> Self {
        Self { kind: Kind::Dummy { seed } }
    }

    /// Maps the safetensors files of a model directory and reads their headers.
    ///
    /// # Errors
    /// [`ModelError`] if there are none, one is missing or damaged, or the directory holds only pickle files.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let mut maps = Vec::new();
        let mut tensors = HashMap::new();
        for path in safetensors_files(dir)? {
            let map = map_file(&path)?;
            let corrupt = |what: String| ModelError::Corrupt { path: path.clone(), what, size_bytes: map.len() as u64 };
            if map.starts_with(b"version https://git-lfs") {
                return Err(corrupt("it is a git-lfs pointer, not the file itself".to_owned()));
            }
            let parsed = SafeTensors::deserialize(&map).map_err(|error| corrupt(error.to_string()))?;
            for (name, view) in parsed.tensors() {
                let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
                let entry = Entry {
                    map: maps.len(),
                    range: start..start + view.data().len(),
                    dtype: view.dtype(),
                    shape: view.shape().to_vec(),
                };
                tensors.insert(name, entry);
            }
            maps.push(map);
        }
        Ok(Self { kind: Kind::Files { maps, tensors } })
    }

    /// Whether a tensor of this name exists (always, for random weights).
    pub fn contains(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Files { tensors, .. } => tensors.contains_key(name),
            Kind::Dummy { .. } => true,
        }
    }

    /// Bytes and element type of tensor `name`, which must have `shape`.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<(Cow<'_, [u8]>, DType), ModelError> {
        let (maps, tensors) = match &self.kind {
            Kind::Dummy { seed } => return Ok((Cow::Owned(dummy::bytes(*seed, name, shape)), DType::BF16)),
            Kind::Files { maps, tensors } => (maps, tensors),
        };
        let Some(entry) = tensors.get(name) else {
            let closest = tensors
                .keys()
                .map(|other| (strsim::normalized_levenshtein(name, other), other))
                .filter(|(score, _)| *score > 0.6)
                .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)));
            return Err(ModelError::MissingTensor {
                name: name.to_owned(),
                shape: shape.to_vec(),
                closest: closest.map(|(_, other)| format!(" (closest: `{other}`)")).unwrap_or_default(),
            });
        };
        if entry.shape != shape {
            return Err(ModelError::WrongShape {
                name: name.to_owned(),
                got: entry.shape.clone(),
                want: shape.to_vec(),
            });
        }
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => return Err(ModelError::WrongType { name: name.to_owned(), dtype: format!("{other:?}") }),
        };
        Ok((Cow::Borrowed(&maps[entry.map][entry.range.clone()]), dtype))
    }

    /// Checks, by the files' headers alone, that they hold every tensor of `spec` in its shape and no others: what is left over
    /// belongs to another model. Buffers that old exports carry along, and a tied head's copy, are let pass.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor that is missing, extra, wrongly shaped or of an unsupported type.
    pub fn check(&self, spec: &DecoderSpec) -> Result<(), ModelError> {
        let Kind::Files { tensors, .. } = &self.kind else { return Ok(()) };
        let wanted = super::tensors::tensors(spec);
        for (name, shape) in &wanted {
            self.tensor(name, shape)?;
        }
        let wanted: HashSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let harmless =
            |name: &str| name.ends_with("rotary_emb.inv_freq") || (spec.tied_head && name == "lm_head.weight");
        let extra: BTreeSet<&String> =
            tensors.keys().filter(|name| !wanted.contains(name.as_str()) && !harmless(name)).collect();
        match extra.first() {
            None => Ok(()),
            Some(first) => Err(ModelError::ExtraTensors { first: (*first).clone(), count: extra.len() }),
        }
    }

    /// Tells the system that a tensor's pages are not needed any more.
    fn release(&self, name: &str) {
        if let Kind::Files { maps, tensors } = &self.kind
            && let Some(entry) = tensors.get(name)
        {
            // SAFETY: the mapping is read-only and file-backed: dropped pages are read again if ever touched. Failure only
            // leaves pages in memory, so the result does not matter.
            let _ = unsafe {
                maps[entry.map].unchecked_advise_range(UncheckedAdvice::DontNeed, entry.range.start, entry.range.len())
            };
        }
    }
}

/// Builds layers out of a source.
pub struct Loader<'a> {
    source: &'a WeightSource,
    compute: &'a Compute,
}

impl<'a> Loader<'a> {
    /// A loader of this source.
    pub fn new(compute: &'a Compute, source: &'a WeightSource) -> Self {
        Self { source, compute }
    }

    /// Device and formats that layers are built for.
    pub fn compute(&self) -> &'a Compute {
        self.compute
    }

    /// The matrices `{name}.weight` [rows, columns] stacked by rows, with their biases if `bias`.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn linear(&mut self, parts: &[(String, usize)], columns: usize, bias: bool) -> Result<Linear, ModelError> {
        let names: Vec<String> = parts.iter().map(|(name, _)| format!("{name}.weight")).collect();
        let mut data = Vec::with_capacity(parts.len());
        for (name, (_, rows)) in names.iter().zip(parts) {
            data.push((self.source.tensor(name, &[*rows, columns])?, *rows));
        }
        let views: Vec<MatrixView<'_>> = data
            .iter()
            .map(|((bytes, dtype), rows)| MatrixView { bytes, format: (*dtype).into(), rows: *rows, columns })
            .collect();
        let mut biases = bias.then(Vec::new);
        if let Some(all) = &mut biases {
            for (name, rows) in parts {
                all.extend(self.vector(&format!("{name}.bias"), *rows)?);
            }
        }
        let linear = Linear::new(self.compute, &views, biases)?;
        self.done(&names);
        Ok(linear)
    }

    /// The embedding table `{name}.weight` [rows, columns].
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn embedding(&mut self, name: &str, rows: usize, columns: usize) -> Result<Embedding, ModelError> {
        let name = format!("{name}.weight");
        let (bytes, dtype) = self.source.tensor(&name, &[rows, columns])?;
        let embedding =
            Embedding::table(self.compute, &MatrixView { bytes: &bytes, format: dtype.into(), rows, columns })?;
        self.done(&[name]);
        Ok(embedding)
    }

    /// The norm `{name}.weight`, of shape `[width]`.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn rms_norm(&mut self, name: &str, width: usize, eps: f64) -> Result<RmsNorm, ModelError> {
        Ok(RmsNorm::new(self.compute, self.vector(&format!("{name}.weight"), width)?, eps))
    }

    /// A vector of full tensor name `name` [width], widened to f32.
    fn vector(&mut self, name: &str, width: usize) -> Result<Vec<f32>, ModelError> {
        let (bytes, dtype) = self.source.tensor(name, &[width])?;
        let tensor = candle_core::Tensor::from_raw_buffer(&bytes, dtype, &[width], &candle_core::Device::Cpu)?;
        let values = crate::ops::to_host(&tensor)?;
        self.done(&[name.to_owned()]);
        Ok(values)
    }

    fn done(&self, names: &[String]) {
        names.iter().for_each(|name| self.source.release(name));
    }
}

/// The files to read: those of the index, or else every *.safetensors in the directory.
fn safetensors_files(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ModelError::Io { path, source }
    };
    let index = dir.join("model.safetensors.index.json");
    if index.exists() {
        let text = std::fs::read_to_string(&index).map_err(io(&index))?;
        let corrupt = |what: String| ModelError::Corrupt { path: index.clone(), what, size_bytes: text.len() as u64 };
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))?;
        let Some(map) = json.get("weight_map").and_then(|map| map.as_object()) else {
            return Err(corrupt("it has no weight_map".to_owned()));
        };
        let names: BTreeSet<&str> = map.values().filter_map(|name| name.as_str()).collect();
        return Ok(names.into_iter().map(|name| dir.join(name)).collect());
    }
    let mut files = Vec::new();
    let mut pickle = None;
    for entry in std::fs::read_dir(dir).map_err(io(dir))? {
        let path = entry.map_err(io(dir))?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => files.push(path),
            Some("bin" | "pt" | "pth") => pickle = Some(path),
            _ => {}
        }
    }
    files.sort();
    match (files.is_empty(), pickle) {
        (false, _) => Ok(files),
        (true, Some(path)) => Err(ModelError::Pickle { path }),
        (true, None) => {
            Err(ModelError::NotAModel { path: dir.to_owned(), what: "there is no *.safetensors in it".to_owned() })
        }
    }
}

fn map_file(path: &Path) -> Result<Mmap, ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    // SAFETY: the mapping is only read. Another process that truncates the file while it is mapped ends this one with
    // SIGBUS, as with every program that maps model files; sizes are checked against the header before any tensor is read.
    unsafe { Mmap::map(&file) }.map_err(io)
}

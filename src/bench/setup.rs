//! What every bench of the engine shares: the loaded model with what its figures are stated against, and jobs of random tokens.
//! Knows no workload.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::BenchError;
use crate::engine::{Engine, EngineError, EngineOptions, EngineStats, Request};
use crate::gguf::{self, Gguf};
use crate::model::{self, DecoderSpec, LoadOptions, WeightsKind};

/// Model and machine, as reports name them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setup {
    /// Directory or file as given.
    pub model: String,
    /// `files`, `gguf` or `dummy`.
    pub weights: &'static str,
    /// Device, instruction set and weights format (of a GGUF file: the format of what is not in blocks).
    pub device: String,
    /// All formats that results depend on, as a run's lock names them.
    pub formats: String,
    /// Threads of the pool.
    pub threads: usize,
    /// Most sequences at once.
    pub max_batch: usize,
    /// Seconds until the weights were read, and on the device.
    pub load_s: f64,
    /// Seconds until the engine took requests: weights, the largest step once where there is a device, the cache.
    pub ready_s: f64,
}

/// An engine to be timed.
pub struct Loaded {
    /// Kept over all runs: a new one would clear its whole cache each time.
    pub engine: Engine,
    /// What it is.
    pub setup: Setup,
    /// Parameters in matrices that every token passes, the head's among them.
    pub product_parameters: f64,
    /// Parameters of the head.
    pub head_parameters: f64,
    /// Bytes of weights that a step reads at least once.
    pub weight_bytes: f64,
}

/// One timed job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Job {
    /// What the engine did.
    pub stats: EngineStats,
    /// From the first step's beginning to the last one's end.
    pub elapsed_s: f64,
}

impl Loaded {
    /// Loads the model.
    ///
    /// # Errors
    /// [`BenchError`] if it cannot be loaded or has no room.
    pub fn new(path: &Path, load: &LoadOptions, options: &EngineOptions) -> Result<Self, BenchError> {
        let started = Instant::now();
        let decoder = model::load(path, load)?;
        let load_s = started.elapsed().as_secs_f64();
        let spec = decoder.spec();
        let product_parameters = spec.num_product_parameters() as f64;
        let head_parameters = (spec.hidden_size * spec.num_logits()) as f64;
        let (weights, bytes_per_weight) = match load.weights {
            WeightsKind::Dummy { .. } => ("dummy", load.compute.bytes_per_weight()),
            WeightsKind::Files if path.is_file() => ("gguf", bytes_per_weight_of_file(path, spec)),
            WeightsKind::Files => ("files", load.compute.bytes_per_weight()),
        };
        let files = gguf::locate(path).ok().flatten().filter(|_| weights != "dummy");
        let has_blocks = files.and_then(|files| Gguf::open(&files).ok()).is_some_and(|gguf| gguf.has_blocks());
        let weight_bytes = product_parameters * bytes_per_weight;
        let engine = Engine::new(decoder, options)?;
        let setup = Setup {
            model: path.display().to_string(),
            weights,
            device: load.compute.describe(),
            formats: load.compute.formats(has_blocks),
            threads: rayon::current_num_threads(),
            max_batch: options.max_batch,
            load_s,
            ready_s: started.elapsed().as_secs_f64(),
        };
        Ok(Self { engine, setup, product_parameters, head_parameters, weight_bytes })
    }

    /// Tokens that the model knows.
    pub fn vocab(&self) -> usize {
        self.engine.decoder().spec().vocab_size
    }

    /// Queues all requests, then steps until all have ended; only the steps are timed.
    ///
    /// # Errors
    /// [`EngineError`] if a request can never be served or the device fails.
    pub fn job(&mut self, requests: impl IntoIterator<Item = Request>) -> Result<Job, EngineError> {
        self.engine.add_all(requests)?;
        let before = self.engine.stats();
        let started = Instant::now();
        while self.engine.num_sequences() > 0 {
            self.engine.step()?;
        }
        let elapsed_s = started.elapsed().as_secs_f64();
        Ok(Job { stats: self.engine.stats().since(&before), elapsed_s })
    }
}

/// The file's bytes over its parameters: those of products, and an embedding beside them. (A tied one is counted twice, and then
/// this is somewhat too small.)
fn bytes_per_weight_of_file(path: &Path, spec: &DecoderSpec) -> f64 {
    let size_bytes = std::fs::metadata(path).map_or(0, |found| found.len());
    size_bytes as f64 / (spec.num_product_parameters() + spec.hidden_size * spec.vocab_size) as f64
}

/// `len` token ids below `vocab` that differ from one `salt` to another. (SplitMix64.)
pub fn random_tokens(salt: u64, len: usize, vocab: usize) -> Vec<u32> {
    let token = |index: u64| {
        let mut z = (salt << 32 | index).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % vocab.max(1) as u64) as u32
    };
    (0..len as u64).map(token).collect()
}

/// The middle of the values, of an even number the mean of the two; 0 of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len => (values[(len - 1) / 2] + values[len / 2]) / 2.0,
    }
}

/// `amount` per `whole`; 0 where there is no whole, as in a job without decode steps.
pub fn per(amount: f64, whole: f64) -> f64 {
    if whole > 0.0 { amount / whole } else { 0.0 }
}

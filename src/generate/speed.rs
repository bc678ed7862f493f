//! What stages did and how long it took them: a line for each stage and session in a file that is neither compared nor published, since
//! nothing that is made depends on it. Knows counts and seconds; knows no text and no stage.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Observer, TextModel};
use crate::engine::EngineStats;
use crate::provenance::Environment;

/// What one stage, or several in one queue, did in one session on one machine. Sessions that were killed or failed leave none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageSpeed {
    /// Rows done by stage, again where an earlier session left a prompt with some of its answers: answers under `generate`, ratings under
    /// `judge`, and so on.
    pub rows: BTreeMap<String, u64>,
    /// The model's name, as the lock has it.
    pub model: String,
    /// Formats of weights, activations and cache.
    pub dtype: String,
    /// The device, in words.
    pub device: String,
    /// Threads of the processor.
    pub num_threads: Option<u64>,
    /// Sequences computed together at most.
    pub max_batch_size: Option<u64>,
    /// Prompt tokens computed.
    pub num_prefill_tokens: u64,
    /// Prompt tokens found in the prefix cache.
    pub num_reused_tokens: u64,
    /// Tokens generated.
    pub num_output_tokens: u64,
    /// From the stage's first row to its end, texts and files included; the loading of the model is not.
    pub elapsed_s: f64,
    /// In steps that hold prompt tokens.
    pub prefill_s: f64,
    /// In steps that only decode.
    pub decode_s: f64,
}

impl StageSpeed {
    /// Rows of all its stages per second of the whole.
    pub fn rows_per_s(&self) -> f64 {
        self.per_s(self.rows.values().sum())
    }

    /// Prompt tokens, reused ones included, per second of the whole.
    pub fn prompt_tokens_per_s(&self) -> f64 {
        self.per_s(self.num_prefill_tokens + self.num_reused_tokens)
    }

    /// Generated tokens per second of the whole.
    pub fn output_tokens_per_s(&self) -> f64 {
        self.per_s(self.num_output_tokens)
    }

    fn per_s(&self, number: u64) -> f64 {
        number as f64 / self.elapsed_s.max(1e-9)
    }

    /// Adds a line. One that a kill left unfinished is closed first.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let mut line = serde_json::to_string(self)? + "\n";
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                line.insert(0, '\n');
            }
        }
        file.write_all(line.as_bytes())
    }

    /// All lines of such a file, in the order of the sessions; none if there is no file. Lines that a kill or another version of this tool
    /// left are passed over: nobody's result depends on them.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_all(path: &Path) -> io::Result<Vec<Self>> {
        match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(bytes) => {
                let lines = bytes.split(|byte| *byte == b'\n');
                Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
            }
        }
    }
}

/// An observer between a stage and the one who looks on: it counts what the stage does, and passes on the stage's own share of what its
/// engine has done, which may have served another stage before.
pub struct Meter<'o> {
    observer: &'o mut dyn Observer,
    started: Instant,
    before: EngineStats,
    now: EngineStats,
    num_rows: Vec<u64>,
}

impl<'o> Meter<'o> {
    /// Begins to count, and says how many rows of each stage earlier sessions did.
    pub fn start(observer: &'o mut dyn Observer, num_before: &[u64], model: &TextModel) -> Self {
        observer.progress(num_before, &EngineStats::default());
        let num_rows = vec![0; num_before.len()];
        Self {
            observer,
            started: Instant::now(),
            before: model.engine().stats(),
            now: EngineStats::default(),
            num_rows,
        }
    }

    /// What was done since, by stages of these names; `None` if that is nothing.
    pub fn speed(&self, stages: &[&str], model: &TextModel, environment: &Environment) -> Option<StageSpeed> {
        let rows = stages.iter().map(|name| (*name).to_owned()).zip(self.num_rows.iter().copied()).collect();
        let EngineStats { num_prefill_tokens, num_reused_tokens, num_output_tokens, prefill_s, decode_s, .. } =
            self.now;
        (self.now.num_steps > 0).then(|| StageSpeed {
            rows,
            model: model.record().name.clone(),
            dtype: model.record().dtype.clone(),
            device: environment.device.clone(),
            num_threads: environment.num_threads,
            max_batch_size: environment.max_batch_size,
            num_prefill_tokens,
            num_reused_tokens,
            num_output_tokens,
            elapsed_s: self.started.elapsed().as_secs_f64(),
            prefill_s,
            decode_s,
        })
    }
}

impl Observer for Meter<'_> {
    fn progress(&mut self, num_rows: &[u64], stats: &EngineStats) {
        self.now = stats.since(&self.before);
        self.num_rows.iter_mut().zip(num_rows).for_each(|(all, more)| *all += more);
        self.observer.progress(num_rows, &self.now);
    }

    fn should_stop(&mut self) -> bool {
        self.observer.should_stop()
    }

    fn note(&mut self, line: &str) {
        self.observer.note(line);
    }

    fn deadline(&self) -> Option<Instant> {
        self.observer.deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_what_a_kill_left_between_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("speed.jsonl");
        assert_eq!(StageSpeed::read_all(&path).unwrap(), []);
        let speed = StageSpeed {
            rows: BTreeMap::from([("generate".to_owned(), 3), ("judge".to_owned(), 5)]),
            model: "ሞዴል".to_owned(),
            dtype: "f32".to_owned(),
            device: "cpu".to_owned(),
            num_threads: Some(2),
            max_batch_size: None,
            num_prefill_tokens: 30,
            num_reused_tokens: 10,
            num_output_tokens: 8,
            elapsed_s: 2.0,
            prefill_s: 1.5,
            decode_s: 0.25,
        };
        assert_eq!((speed.rows_per_s(), speed.prompt_tokens_per_s(), speed.output_tokens_per_s()), (4.0, 20.0, 4.0));
        speed.append(&path).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all("{\"rows\": {\"ሀ".as_bytes()).unwrap();
        speed.append(&path).unwrap();
        assert_eq!(StageSpeed::read_all(&path).unwrap(), [speed.clone(), speed]);
    }
}

//! Whole jobs by the real binary: what goes in against what comes out, independence of batch and order, kills and resumption,
//! and the stages alone.

#[path = "support/aya.rs"]
mod aya;
#[path = "pipeline/dataset.rs"]
mod dataset;
#[path = "pipeline/faults.rs"]
mod faults;
#[path = "pipeline/hostile.rs"]
mod hostile;
#[path = "pipeline/independence.rs"]
mod independence;
#[path = "pipeline/panel.rs"]
mod panel;
#[path = "support/program.rs"]
mod program;
#[path = "pipeline/resume.rs"]
mod resume;
#[path = "pipeline/shards.rs"]
mod shards;
#[path = "pipeline/stopping.rs"]
mod stopping;
#[path = "support/workshop.rs"]
mod workshop;

use std::path::{Path, PathBuf};

use serde_json::Value;

use program::{fixture_model, text};
use workshop::{ROWS, Workshop};

/// The dataset's file for training.
const PAIRS: &str = "dataset/data/train-00000-of-00001.parquet";
/// The dataset's file with every row.
const RAW: &str = "dataset/raw/train-00000-of-00001.parquet";

/// How answers are made.
const SAMPLING: [&str; 9] = ["--max-tokens", "24", "--temperature", "1", "--seed", "11", "-n", "2", "-q"];

/// A run on the fixture models: llama answers, and qwen2 rates (so one stage comes after the other) or llama does (so one queue
/// holds both). Every difference makes a pair.
struct Job {
    workshop: Workshop,
    prompts: PathBuf,
    judge: &'static str,
}

impl Job {
    /// `times` variants of each row, so that a run is long enough to be killed.
    fn new(times: usize) -> Self {
        Self::judged_by("qwen2", times)
    }

    fn judged_by(judge: &'static str, times: usize) -> Self {
        let workshop = Workshop::new();
        let texts: Vec<[String; 4]> = (0..times)
            .flat_map(|n| {
                ROWS.map(|[prompt, answer, language, code]| {
                    let prompt = if n == 0 { prompt.to_owned() } else { format!("{prompt} ({n})") };
                    [prompt, answer.to_owned(), language.to_owned(), code.to_owned()]
                })
            })
            .collect();
        let rows: Vec<[&str; 4]> = texts.iter().map(|row| row.each_ref().map(String::as_str)).collect();
        let prompts = workshop.prompts("p.jsonl", &rows);
        Self { workshop, prompts, judge }
    }

    /// Arguments of `make` into the folder `out`.
    fn make(&self, out: &str, more: &[&str]) -> Vec<String> {
        let models = [fixture_model("llama"), fixture_model(self.judge)];
        let rubric = self.workshop.arg("rubric.toml");
        let out = self.workshop.arg(out);
        let arguments = ["make", "--prompts", text(&self.prompts), "--out", &out, "--rubric", &rubric, "--margin", "0"];
        let models = ["--generator", text(&models[0]), "--judge", text(&models[1])];
        [&arguments[..], &models, &SAMPLING, &["--json"], more].concat().into_iter().map(str::to_owned).collect()
    }

    /// The run in three commands instead of one, as far as the dataset if `last` is 3.
    fn stages(&self, run: &str, last: usize) {
        let (out, rubric) = (self.workshop.arg(run), self.workshop.arg("rubric.toml"));
        let models = [fixture_model("llama"), fixture_model(self.judge)];
        let generate = ["generate", "--prompts", text(&self.prompts), "--out", &out, "--model", text(&models[0])];
        let commands = [
            [&generate[..], &SAMPLING].concat(),
            vec!["judge", &out, "--judge", text(&models[1]), "--rubric", &rubric, "-q"],
            vec!["pair", &out, "--margin", "0", "-q"],
        ];
        commands[..last].iter().for_each(|command| _ = program::done(command));
    }

    /// Runs `make` to its end; gives the summary.
    fn made(&self, out: &str, more: &[&str]) -> Value {
        serde_json::from_str(&program::done(&borrowed(&self.make(out, more)))).expect("a summary")
    }

    fn bytes(&self, run: &str, file: &str) -> Vec<u8> {
        std::fs::read(self.workshop.path(run).join(file)).expect("a file of the run")
    }

    /// Rows of a journal as JSON text, sorted: floats as they are written, which is exactly.
    fn journal(&self, run: &str, stage: &str) -> Vec<String> {
        let mut rows = journal_rows(&self.workshop.path(run).join(format!("journal/{stage}.jsonl")));
        rows.sort();
        rows
    }
}

fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The rows after the header, without checksums.
fn journal_rows(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("a journal");
    let row = |line: &str| line.split_once("\"row\":").expect("a journal line").1.to_owned();
    text.lines().skip(1).map(row).collect()
}

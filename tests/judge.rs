//! Judging as a library, against direct computations on the same models: label distributions, labels of several tokens,
//! reliability, text that tries to speak as the rubric, and how much is computed.

#[path = "judge/distribution.rs"]
mod distribution;
#[path = "judge/known.rs"]
mod known;
#[path = "support/loaded.rs"]
mod loaded;
#[path = "judge/pairwise.rs"]
mod pairwise;
#[path = "judge/queue.rs"]
mod queue;
#[path = "judge/refusals.rs"]
mod refusals;

use std::path::{Path, PathBuf};

use pairwright::generate::{Candidate, Ending, TextModel};
use pairwright::judge::{JudgeItem, JudgeRow, PromptText, Rubric, Verdict, answer_key, judge};
use tempfile::TempDir;

use loaded::Patient;

fn fixture_model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

/// The embedded demonstration model in a folder of its own.
fn demo_model(folder: &TempDir) -> TextModel {
    pairwright::demo::write_model_dir(folder.path()).unwrap();
    loaded::load(folder.path(), loaded::engine_options())
}

/// A short rubric of two aspects with these labels.
fn rubric(folder: &TempDir, labels: [&str; 5], min_label_mass: f64) -> Rubric {
    let path = folder.path().join("rubric.toml");
    let text = format!(
        "name = \"short\"\nversion = 1\nlabels = {labels:?}\nmin_label_mass = {min_label_mass:?}\nintro = \"Rate.\"\n\
         prompt_heading = \"### P\"\nanswer_heading = \"### A\"\n\
         [[aspect]]\nname = \"form\"\nweight = 1.0\nquestion = \"Form?\"\n\
         [[aspect]]\nname = \"overall\"\nweight = 3.0\nquestion = \"Overall?\"\n"
    );
    std::fs::write(&path, text).unwrap();
    Rubric::read(&path).unwrap()
}

/// A prompt that names no language.
fn asked(text: &str) -> PromptText {
    PromptText { text: text.to_owned(), ..PromptText::default() }
}

fn items() -> Vec<JudgeItem> {
    let item = |(index, (prompt, answer)): (usize, (&str, &str))| JudgeItem {
        prompt: asked(prompt),
        candidate: Candidate::human(&format!("{index}"), answer),
    };
    let texts = [("ما هو الماء؟", "سائل شفاف."), ("น้ำคืออะไร", "ของเหลว"), ("💧?", "H₂O 💧"), ("जल क्या है?", "")];
    texts.into_iter().enumerate().map(item).collect()
}

/// Judges and gives the rows in the order of the items.
fn rows(model: &mut TextModel, rubric: &Rubric, items: Vec<JudgeItem>) -> Vec<JudgeRow> {
    let order: Vec<_> = items.iter().map(|item| answer_key(&item.candidate)).collect();
    let mut found = Vec::new();
    let mut done = |row: JudgeRow| {
        found.push(row);
        Ok(())
    };
    let mut observer = Patient::default();
    let ending = judge(model, rubric, items, &mut observer, &mut done).unwrap();
    assert_eq!((ending, observer.num_rows), (Ending::Completed, order.len() as u64));
    assert_eq!(model.engine().num_free_blocks(), model.engine().stats().num_blocks, "an idle engine holds no block");
    found.sort_by_key(|row| order.iter().position(|key| *key == row.answer()));
    found
}

fn verdicts(model: &mut TextModel, rubric: &Rubric, items: Vec<JudgeItem>) -> Vec<Verdict> {
    let verdict = |row| match row {
        JudgeRow::Verdict(verdict) => verdict,
        other => panic!("{other:?}"),
    };
    rows(model, rubric, items).into_iter().map(verdict).collect()
}

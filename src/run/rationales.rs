//! The stage of written rationales: each judge that speaks says why, of every answer that it rated. An option beside the ratings, with a
//! journal of its own, so that a run which has none can still get them. Knows answers and the journal; knows nothing of forms.

use std::collections::HashMap;

use super::directory::RATIONALES;
use super::stages::{Place, judge_items, over_answers, store};
use super::{LoadedRun, RunDir, RunError};
use crate::generate::{self, Ending, GenerateError, GenerateRow, Observer, TextModel};
use crate::judge::{
    AnswerKey, AspectRationale, Judge, RationaleOptions, RationaleRow, RationaleWriter, Rubric, Verdict, answer_key,
};
use crate::provenance::RunLock;

/// Whether the lock asks for written rationales.
pub(super) fn wants_rationales(lock: &RunLock) -> bool {
    lock.parameters.contains_key(RATIONALES)
}

/// Has the model write what the run lacks of its rationales.
///
/// # Errors
/// [`RunError`]; what was done is in the journal.
pub fn rationales(
    run: &RunDir,
    loaded: &LoadedRun,
    model: &mut TextModel,
    rubric: &Rubric,
    options: &RationaleOptions,
    observer: &mut dyn Observer,
) -> Result<Ending, RunError> {
    let name = model.record().name.clone();
    let asked = |rows: &[GenerateRow]| {
        judge_items(loaded, rows).into_iter().map(|item| (answer_key(&item.candidate), item)).collect()
    };
    let done = |row: &RationaleRow| (row.judge() == name).then(|| row.answer());
    over_answers(Place { run, loaded }, model, observer, RATIONALES, (asked, done), |model, items, meter, journal| {
        let queue_len = model.queue_len();
        let (engine, tokenizer) = model.parts();
        let writer = RationaleWriter::new(Judge { tokenizer, name: &name, rubric }, options)
            .map_err(|error| GenerateError::Store(Box::new(error)))?;
        let source = writer.rationales(items.into_iter(), |row| store(journal, &row));
        Ok(generate::drive(engine, queue_len, vec![source], meter)?)
    })
}

/// Puts what the judges wrote beside what was read of them.
pub(super) fn attach(verdicts: &mut [Verdict], rows: Vec<RationaleRow>) {
    let mut written: HashMap<(AnswerKey, String), Vec<AspectRationale>> = HashMap::new();
    for row in rows {
        let key = row.key();
        if let RationaleRow::Rationale(rationale) = row {
            written.insert(key, rationale.aspects);
        }
    }
    for verdict in verdicts {
        let answer = (verdict.record_id.clone(), verdict.source, verdict.model.clone(), verdict.sample_index);
        let Some(aspects) = written.remove(&(answer, verdict.judge.clone())) else { continue };
        for aspect in aspects {
            if let Some(score) = verdict.aspects.iter_mut().find(|score| score.aspect == aspect.aspect) {
                score.written = Some(aspect);
            }
        }
    }
}

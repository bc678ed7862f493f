//! The stage that asks each generator how likely it finds the human answers: no token is decoded, and no later stage needs it.
//! Knows journals and keys; what is asked is in [`crate::generate`].

use std::collections::HashSet;

use super::directory::LIKELIHOODS;
use super::stages::{note_damage, note_speed, store};
use super::{GenerateStage, LoadedRun, RunDir, RunError};
use crate::generate::{self, Ending, Likelihood, LikelihoodItem, LikelihoodRow, Meter, Observer, TextModel};
use crate::provenance::RunLock;

/// Asks what the run lacks: of each record with a human answer the likelihood of that, behind the same dialogue that
/// [`super::generate()`] begins with.
///
/// # Errors
/// [`RunError`]; what was done is in the journal.
pub fn likelihoods(
    run: &RunDir,
    loaded: &LoadedRun,
    model: &mut TextModel,
    stage: &GenerateStage,
    observer: &mut dyn Observer,
) -> Result<Ending, RunError> {
    let (mut journal, rows) = run.open_stage::<LikelihoodRow>(LIKELIHOODS, &loaded.lock)?;
    note_damage(&journal, observer);
    let name = model.record().name.clone();
    let done = done(&rows, &name);
    let items = loaded.records.iter().filter(|record| !done.contains(record.id.as_str())).filter_map(|record| {
        let messages = stage.dialogue(record);
        Some(LikelihoodItem { id: record.id.clone(), messages, answer: record.response.clone()? })
    });
    let mut meter = Meter::start(observer, &[done.len() as u64], model);
    let ending = generate::likelihoods(model, items, &mut meter, |row| store(&mut journal, &row))?;
    journal.sync()?;
    note_speed(run, loaded, &mut meter, &[LIKELIHOODS], model);
    Ok(ending)
}

fn done<'r>(rows: &'r [LikelihoodRow], model: &str) -> HashSet<&'r str> {
    rows.iter().filter(|row| row.model() == model).map(LikelihoodRow::record_id).collect()
}

impl RunDir {
    /// What the stage found so far, failures left out.
    ///
    /// # Errors
    /// Damaged files.
    pub fn read_likelihoods(&self, lock: &RunLock) -> Result<Vec<Likelihood>, RunError> {
        let rows: Vec<LikelihoodRow> = self.read_stage(LIKELIHOODS, lock)?;
        let found = rows.into_iter().filter_map(|row| match row {
            LikelihoodRow::Likelihood(row) => Some(row),
            LikelihoodRow::Failure(_) => None,
        });
        Ok(found.collect())
    }

    /// How many human answers a model has not been asked of.
    ///
    /// # Errors
    /// Damaged files.
    pub fn num_likelihoods_left(&self, loaded: &LoadedRun, model: &str) -> Result<u64, RunError> {
        let rows: Vec<LikelihoodRow> = self.read_stage(LIKELIHOODS, &loaded.lock)?;
        let done = done(&rows, model);
        let records = loaded.records.iter().filter(|record| record.response.is_some());
        Ok(records.filter(|record| !done.contains(record.id.as_str())).count() as u64)
    }
}

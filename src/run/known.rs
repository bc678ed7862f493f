//! The known-answer test of a run's judges: rated before the run's own rows, so that people hear of a judge at chance before they have
//! waited for it. Knows journals and keys; what the tests are is in [`crate::judge::known`].

use std::collections::HashSet;

use super::directory::{KNOWN_COMPARISONS, KNOWN_VERDICTS};
use super::stages::{note_damage, note_speed, store};
use super::status::wants_comparisons;
use super::{LoadedRun, RunDir, RunError};
use crate::generate::{Ending, Meter, Observer, TextModel};
use crate::judge::known::{self, KnownResult, KnownRow};
use crate::judge::{self, CompareItem, CompareRow, JudgeItem, JudgeRow, Rubric, answer_key};
use crate::provenance::RunLock;

/// What is left of the test of one judge.
#[derive(Debug, Default)]
pub struct KnownAnswers {
    judge_items: Vec<JudgeItem>,
    compare_items: Vec<CompareItem>,
    num_done: u64,
}

impl KnownAnswers {
    /// Nothing is left to ask.
    pub fn is_done(&self) -> bool {
        self.judge_items.is_empty() && self.compare_items.is_empty()
    }

    /// Rows that the test has, done or not.
    pub fn num_wanted(&self) -> u64 {
        self.num_done + (self.judge_items.len() + self.compare_items.len()) as u64
    }
}

impl RunDir {
    /// What is left of `judge`'s test with `per_language` rows of each language. A shard but the first has nothing to do: the test is of
    /// the whole run.
    ///
    /// # Errors
    /// Damaged files.
    pub fn known_answers(
        &self,
        lock: &RunLock,
        judge: &str,
        is_reward: bool,
        per_language: usize,
    ) -> Result<KnownAnswers, RunError> {
        if per_language == 0 || lock.shard.is_some_and(|shard| shard.index() > 0) {
            return Ok(KnownAnswers::default());
        }
        let rows = self.read_known_rows()?;
        let rows: Vec<&KnownRow> = known::first_rows(&rows, per_language);
        let rated: Vec<JudgeRow> = self.read_stage(KNOWN_VERDICTS, lock)?;
        let rated: HashSet<_> = rated.iter().filter(|row| row.judge() == judge).map(JudgeRow::answer).collect();
        let compared: Vec<CompareRow> = self.read_stage(KNOWN_COMPARISONS, lock)?;
        let compared: HashSet<_> = compared.iter().map(CompareRow::key).collect();
        let compares = wants_comparisons(lock) && !is_reward;
        let all_compare: Vec<CompareItem> =
            rows.iter().filter(|_| compares).flat_map(|row| row.compare_items()).collect();
        let all_judge: Vec<JudgeItem> = rows.iter().flat_map(|row| row.judge_items()).collect();
        let num_all = all_compare.len() + all_judge.len();
        let judge_items: Vec<JudgeItem> =
            all_judge.into_iter().filter(|item| !rated.contains(&answer_key(&item.candidate))).collect();
        let compare_items: Vec<CompareItem> =
            all_compare.into_iter().filter(|item| !compared.contains(&item.key(judge))).collect();
        let num_done = (num_all - judge_items.len() - compare_items.len()) as u64;
        Ok(KnownAnswers { judge_items, compare_items, num_done })
    }

    /// What the tests of this run's judges gave.
    ///
    /// # Errors
    /// Damaged files.
    pub fn known_results(&self, lock: &RunLock) -> Result<Vec<KnownResult>, RunError> {
        let is_ours = |judge: &str| lock.judges.iter().any(|own| own.name == judge);
        let mut ratings: Vec<JudgeRow> = self.read_stage(KNOWN_VERDICTS, lock)?;
        ratings.retain(|row| is_ours(row.judge()));
        let mut comparisons: Vec<CompareRow> = self.read_stage(KNOWN_COMPARISONS, lock)?;
        comparisons.retain(|row| is_ours(&row.key().2));
        Ok(known::results(&self.read_known_rows()?, &ratings, &comparisons))
    }
}

/// Asks what is left of a judge's test.
///
/// # Errors
/// [`RunError`]; what was done is in the journals.
pub fn known_answers(
    run: &RunDir,
    loaded: &LoadedRun,
    model: &mut TextModel,
    rubric: &Rubric,
    todo: KnownAnswers,
    observer: &mut dyn Observer,
) -> Result<Ending, RunError> {
    let mut meter = Meter::start(observer, &[todo.num_done], model);
    let ending = ask(run, loaded, model, rubric, todo, &mut meter)?;
    note_speed(run, loaded, &mut meter, &["known answers"], model);
    Ok(ending)
}

fn ask(
    run: &RunDir,
    loaded: &LoadedRun,
    model: &mut TextModel,
    rubric: &Rubric,
    todo: KnownAnswers,
    observer: &mut Meter<'_>,
) -> Result<Ending, RunError> {
    let (mut journal, _) = run.open_stage::<JudgeRow>(KNOWN_VERDICTS, &loaded.lock)?;
    note_damage(&journal, observer);
    let ending = judge::judge(model, rubric, todo.judge_items, observer, |row| store(&mut journal, &row))?;
    journal.sync()?;
    if ending != Ending::Completed || todo.compare_items.is_empty() {
        return Ok(ending);
    }
    let (mut journal, _) = run.open_stage::<CompareRow>(KNOWN_COMPARISONS, &loaded.lock)?;
    note_damage(&journal, observer);
    let ending = judge::compare(model, rubric, todo.compare_items, observer, |row| store(&mut journal, &row))?;
    journal.sync()?;
    Ok(ending)
}

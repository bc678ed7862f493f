//! What judging would ask the engine, for who plans a run and asks nobody: the requests that the stages make themselves.
//! Knows how a stage prepares its rows; knows no engine and keeps no answer.

use super::{CompareItem, Judge, JudgeItem, RationaleWriter, pairwise, reward};
use crate::engine::Request;
use crate::generate::{GenerateError, Prepared, Row};
use crate::prompt::ChatTokenizer;

/// The requests of a prepared row; none if it is over without the engine.
fn of<R: Row>(row: Prepared<R>) -> Vec<Request> {
    match row {
        Prepared::Asks(_, requests) => requests,
        Prepared::Done(_) => Vec::new(),
    }
}

/// What rates an answer: a request per aspect (and query of its labels), in the rubric's order.
///
/// # Errors
/// [`GenerateError`] if the tokenizer or its template cannot be used at all.
pub fn rating_requests(judge: Judge<'_>, item: JudgeItem) -> Result<Vec<Request>, GenerateError> {
    judge.prepare(item).map(of)
}

/// What compares two answers: both orders, the given one first.
///
/// # Errors
/// See [`rating_requests`].
pub fn comparison_requests(judge: Judge<'_>, item: CompareItem) -> Result<Vec<Request>, GenerateError> {
    pairwise::prepare(judge, item).map(of)
}

/// What asks a reward model for its score.
///
/// # Errors
/// See [`rating_requests`].
pub fn score_requests(tokenizer: &ChatTokenizer, item: JudgeItem) -> Result<Vec<Request>, GenerateError> {
    reward::rated(tokenizer, "", item).map(of)
}

/// What has a judge write its reasons: a request per aspect.
///
/// # Errors
/// See [`rating_requests`].
pub fn rationale_requests(writer: &RationaleWriter<'_>, item: JudgeItem) -> Result<Vec<Request>, GenerateError> {
    writer.prepare(item).map(of)
}

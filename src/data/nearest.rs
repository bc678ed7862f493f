//! Did-you-mean: the candidates most like a misspelt word.
//! Knows strings only; does not know whether they are columns, keys or languages.

use std::cmp::Ordering;

/// Below this similarity (Jaro-Winkler, 0 to 1) a suggestion would confuse more than it helps.
const WORTH_SUGGESTING: f64 = 0.75;

/// How alike two words are, 0 to 1, upper and lower case being the same.
pub(super) fn similarity(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(&a.to_lowercase(), &b.to_lowercase())
}

/// The candidates worth suggesting for `word`, most alike first, at most `limit`; equal ones keep their order.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>, limit: usize) -> Vec<&'a str> {
    let mut scored: Vec<(f64, &str)> = candidates
        .into_iter()
        .map(|candidate| (similarity(word, candidate), candidate))
        .filter(|(score, _)| *score >= WORTH_SUGGESTING)
        .collect();
    scored.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal));
    scored.into_iter().take(limit).map(|(_, candidate)| candidate).collect()
}

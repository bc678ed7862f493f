//! Which of a prompt's rated answers make pairs: who meets whom, who wins, and why two are none.
//! Pure functions of ratings and comparisons; knows no record but its id, and no file.

use std::collections::{BTreeMap, HashSet};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::pairing::{
    Decision, DropReason, PairChoice, PairOutcome, PairingOptions, PreferencePair, RatedAnswer, by_content,
    most_telling,
};
use crate::generate::CandidateSource;
use crate::judge::{AnswerName, Comparison};

/// An answer that may stand in a pair: its place among all answers, and its rating.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usable {
    index: usize,
    rating: f64,
}

/// One prompt's answers and what was said of them.
#[derive(Clone, Copy)]
pub(super) struct Table<'t, 'a> {
    pub(super) id: &'t str,
    pub(super) answers: &'t [RatedAnswer<'a>],
    pub(super) comparisons: &'t [&'a Comparison],
    pub(super) weights: &'t BTreeMap<String, f64>,
    pub(super) options: &'t PairingOptions,
}

impl Table<'_, '_> {
    /// The usable answers from the worst to the best, or the most telling reason why there are not two. Equal ratings are ordered by
    /// text, so that neither arrival nor authorship picks the answer.
    pub(super) fn usable(&self) -> Result<Vec<Usable>, DropReason> {
        if self.answers.len() < 2 {
            return Err(DropReason::MissingCandidate);
        }
        let (mut usable, mut reasons) = (Vec::new(), Vec::new());
        for (index, answer) in self.answers.iter().enumerate() {
            match answer.usable_rating(self.options) {
                Ok(rating) => usable.push(Usable { index, rating }),
                Err(reason) => reasons.push(reason),
            }
        }
        if usable.len() < 2 {
            return Err(most_telling(&reasons));
        }
        let standing: Vec<f64> = match self.options.decision {
            Decision::Pairwise => usable.iter().map(|answer| self.wins(answer.index)).collect(),
            _ => usable.iter().map(|answer| answer.rating).collect(),
        };
        let mut order: Vec<usize> = (0..usable.len()).collect();
        let text = |at: usize| self.answers[usable[at].index].candidate;
        order.sort_by(|&a, &b| standing[a].total_cmp(&standing[b]).then_with(|| by_content(text(a), text(b))));
        Ok(order.into_iter().map(|at| usable[at]).collect())
    }

    /// The pairs of these answers, or why there is none; and the first pair's difference in rating.
    pub(super) fn pairs(&self, usable: Vec<Usable>) -> (Option<f64>, PairOutcome) {
        let mut pairs = Vec::new();
        let mut first: Option<(Option<f64>, DropReason)> = None;
        let mut difference = None;
        for (worse, better) in self.meetings(&usable) {
            if pairs.len() >= self.options.pairs_per_prompt.max(1) {
                break;
            }
            let (apart, found) = self.meet(worse, better);
            match found {
                Ok(pair) => {
                    difference = difference.or(apart);
                    pairs.push(pair);
                }
                Err(reason) => _ = first.get_or_insert((apart, reason)),
            }
        }
        match (pairs.is_empty(), first) {
            (false, _) => (difference, PairOutcome::Pairs(pairs)),
            (true, Some((apart, reason))) => (apart, PairOutcome::Dropped(reason)),
            (true, None) => (None, PairOutcome::Dropped(DropReason::MissingCandidate)),
        }
    }

    /// Who meets whom, the most wanted two first; of each two the worse one first. `usable` runs from the worst to the best.
    fn meetings(&self, usable: &[Usable]) -> Vec<(Usable, Usable)> {
        let source = |answer: &Usable| self.answers[answer.index].candidate.source;
        let Some((best, others)) = usable.split_last() else { return Vec::new() };
        match self.options.choice {
            PairChoice::BestWorst if self.options.pairs_per_prompt <= 1 => vec![(others[0], *best)],
            PairChoice::BestWorst => {
                let all = (0..usable.len()).flat_map(|a| (a + 1..usable.len()).map(move |b| (a, b)));
                let mut all: Vec<(usize, usize)> = all.collect();
                let apart = |&(a, b): &(usize, usize)| match self.options.decision {
                    Decision::Pairwise => (b - a) as f64,
                    _ => usable[b].rating - usable[a].rating,
                };
                // Those farthest apart; of equals those farthest apart in rank.
                all.sort_by(|x, y| apart(y).total_cmp(&apart(x)).then((y.1 - y.0, x.0).cmp(&(x.1 - x.0, y.0))));
                all.into_iter().map(|(a, b)| (usable[a], usable[b])).collect()
            }
            PairChoice::BestRandom => {
                let lot = |answer: &Usable| xxh3_64_with_seed(self.id.as_bytes(), answer.index as u64);
                let mut others = others.to_vec();
                others.sort_by_key(lot);
                others.into_iter().map(|other| (other, *best)).collect()
            }
            PairChoice::HumanBest => {
                let human = usable.iter().position(|answer| source(answer) == CandidateSource::Human);
                let Some(human) = human else { return Vec::new() };
                let models = (0..usable.len()).rev().filter(|at| source(&usable[*at]) == CandidateSource::Model);
                models.map(|model| (usable[human.min(model)], usable[human.max(model)])).collect()
            }
        }
    }

    /// Whether two answers are a pair, and how far apart their ratings are (`None` for equal texts).
    fn meet(&self, worse: Usable, better: Usable) -> (Option<f64>, Result<PreferencePair, DropReason>) {
        let text = |answer: Usable| self.answers[answer.index].candidate.text.trim();
        if text(worse) == text(better) {
            return (None, Err(DropReason::IdenticalAnswers));
        }
        let margin = better.rating - worse.rating;
        let (num_compared, preference) = self.preference(better.index, worse.index);
        // Comparisons alone decide by what they say of these two, whatever they say of others.
        let turns =
            self.options.decision == Decision::Pairwise && preference.is_some_and(|preference| preference < 0.0);
        let (chosen, rejected) = if turns { (worse, better) } else { (better, worse) };
        let judges_agree = self.judges_agree(chosen.index, rejected.index);
        let refused = match self.options.decision {
            Decision::Pairwise if num_compared == 0 => Some(DropReason::MissingComparison),
            Decision::Pairwise => preference.is_none().then_some(DropReason::OrderDisagreement),
            _ if margin <= 0.0 || margin < self.options.margin => Some(DropReason::Tie),
            Decision::Both if num_compared > 0 => match preference {
                None => Some(DropReason::OrderDisagreement),
                Some(preference) if preference < 0.0 => Some(DropReason::PairwiseDisagrees),
                Some(_) => None,
            },
            _ => None,
        };
        let refused = refused.or_else(|| {
            (self.options.require_agreement && judges_agree == Some(false)).then_some(DropReason::JudgesDisagree)
        });
        let pair = PreferencePair {
            chosen_index: chosen.index,
            rejected_index: rejected.index,
            chosen_rating: Some(chosen.rating),
            rejected_rating: Some(rejected.rating),
            margin: Some(chosen.rating - rejected.rating),
            preference: preference.map(|preference| if turns { -preference } else { preference }),
            judges_agree,
            people: None,
        };
        (Some(margin), refused.map_or(Ok(pair), Err))
    }

    /// The comparisons of two answers: how many there are, and the weighted mean of those that can be relied on, above 0 for the first
    /// answer; `None` if there are none, or they cancel out.
    fn preference(&self, first: usize, second: usize) -> (usize, Option<f64>) {
        let [first, second] = [first, second].map(|index| AnswerName::of(self.answers[index].candidate));
        let (mut count, mut sum, mut weights) = (0, 0.0, 0.0);
        for comparison in self.comparisons {
            let [a, b] = &comparison.answers;
            let sign = match (*a == first && *b == second, *a == second && *b == first) {
                (true, _) => 1.0,
                (_, true) => -1.0,
                _ => continue,
            };
            count += 1;
            if comparison.winner().is_some() {
                let weight = self.weights.get(&comparison.judge).copied().unwrap_or(1.0);
                sum += weight * sign * comparison.preference;
                weights += weight;
            }
        }
        (count, (weights > 0.0 && sum != 0.0).then(|| sum / weights))
    }

    /// Comparisons won minus lost, of those that can be relied on.
    fn wins(&self, index: usize) -> f64 {
        let others = (0..self.answers.len()).filter(|other| *other != index);
        others.filter_map(|other| self.preference(index, other).1).map(f64::signum).sum()
    }

    /// Whether each judge rates the first answer higher; `None` with fewer than two judges of both.
    fn judges_agree(&self, first: usize, second: usize) -> Option<bool> {
        let [first, second] = [first, second].map(|index| &self.answers[index].verdicts);
        let both: Vec<(&str, f64)> = first
            .iter()
            .filter_map(|a| {
                let b = second.iter().find(|b| b.judge == a.judge)?;
                Some((a.judge.as_str(), a.rating - b.rating))
            })
            .collect();
        let judges: HashSet<&str> = both.iter().map(|(judge, _)| *judge).collect();
        (judges.len() >= 2).then(|| both.iter().all(|(_, difference)| *difference > 0.0))
    }
}

//! What people together say of two answers: votes counted per person, and the rule by which they are a label.
//! Knows votes; knows nothing of judges, rows or files.

use std::collections::BTreeMap;

use serde::Serialize;

use super::vote::{Choice, CurrentVote, Flag, ItemKind, Preference};

/// Fewest opinions on two answers that make a label, unless told otherwise.
pub const DEFAULT_MIN_VOTES: u64 = 1;

/// Opinions on two answers, one per person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// For the first.
    pub first: u64,
    /// For the second.
    pub second: u64,
    /// That neither is better.
    pub same: u64,
    /// That neither is good enough.
    pub both_bad: u64,
    /// That something is wrong with one of them, or with all of the item.
    pub flags: BTreeMap<Flag, u64>,
}

/// What a tally comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// The first is better.
    First,
    /// The second is better.
    Second,
    /// Most people see no difference.
    Tie,
    /// Most people find neither good enough.
    BothBad,
    /// Most people flagged, and this most often.
    Flagged(Flag),
    /// Enough opinions, and no majority.
    Split,
    /// Fewer opinions than the rule wants.
    TooFewVotes,
}

impl Tally {
    /// Opinions of all kinds.
    pub fn num_votes(&self) -> u64 {
        self.first + self.second + self.same + self.both_bad + self.num_flags()
    }

    fn num_flags(&self) -> u64 {
        self.flags.values().sum()
    }

    /// The rule: at least `min_votes` opinions (1 or more). Then, if more than half of them are flags, both bad, or the same, that is it; else
    /// one answer has to have more than half of those that prefer one.
    pub fn ruling(&self, min_votes: u64) -> Ruling {
        let all = self.num_votes();
        if all < min_votes.max(1) {
            return Ruling::TooFewVotes;
        }
        let is_most = |count: u64| 2 * count > all;
        let mut flag: Option<(Flag, u64)> = None;
        for (kind, count) in &self.flags {
            if flag.is_none_or(|(_, most)| *count > most) {
                flag = Some((*kind, *count));
            }
        }
        match flag {
            Some((flag, _)) if is_most(self.num_flags()) => Ruling::Flagged(flag),
            _ if is_most(self.both_bad) => Ruling::BothBad,
            _ if is_most(self.same) => Ruling::Tie,
            _ if self.first > self.second => Ruling::First,
            _ if self.second > self.first => Ruling::Second,
            _ => Ruling::Split,
        }
    }

    fn add(&mut self, opinion: Opinion) {
        match opinion {
            Opinion::Prefers(Preference::First) => self.first += 1,
            Opinion::Prefers(Preference::Second) => self.second += 1,
            Opinion::Prefers(Preference::Same) => self.same += 1,
            Opinion::Prefers(Preference::BothBad) => self.both_bad += 1,
            Opinion::Flags(flag) => *self.flags.entry(flag).or_default() += 1,
        }
    }
}

/// What one vote says of two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opinion {
    /// How they compare.
    Prefers(Preference),
    /// That something is wrong.
    Flags(Flag),
}

/// Two answers by their hashes, the smaller one first.
pub type Couple<'a> = (&'a str, &'a str);

/// Whether a vote counts for the dataset: repeats and planted items never do.
pub fn is_for_dataset(vote: &CurrentVote<'_>) -> bool {
    matches!(vote.vote.kind, ItemKind::Ordinary | ItemKind::Audit)
}

/// What a vote says of each two answers that it was shown.
pub fn opinions<'a>(vote: &CurrentVote<'a>) -> Vec<(Couple<'a>, Opinion)> {
    let mut found = Vec::new();
    for (at, one) in vote.vote.shown.iter().enumerate() {
        for other in vote.vote.shown.iter().skip(at + 1) {
            let (first, second) = if one < other { (one, other) } else { (other, one) };
            let opinion = match vote.choice {
                Choice::Flag { flag, answer, .. } => {
                    let is_meant = answer.as_ref().is_none_or(|answer| answer == first || answer == second);
                    is_meant.then_some(Opinion::Flags(*flag))
                }
                choice => choice.preference(first, second).map(Opinion::Prefers),
            };
            found.extend(opinion.map(|opinion| ((first.as_str(), second.as_str()), opinion)));
        }
    }
    found
}

/// Opinions on each two answers of each prompt, by the prompt's id: one per person, their last. Who skips has none.
pub fn tallies<'a>(votes: &[CurrentVote<'a>]) -> BTreeMap<&'a str, BTreeMap<Couple<'a>, Tally>> {
    let mut last: BTreeMap<(&str, Couple<'_>, &str), Opinion> = BTreeMap::new();
    for vote in votes.iter().filter(|vote| is_for_dataset(vote)) {
        for (couple, opinion) in opinions(vote) {
            last.insert((&vote.vote.prompt, couple, &vote.vote.annotator), opinion);
        }
    }
    let mut found: BTreeMap<&str, BTreeMap<Couple<'_>, Tally>> = BTreeMap::new();
    for ((prompt, couple, _), opinion) in last {
        found.entry(prompt).or_default().entry(couple).or_default().add(opinion);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruled([first, second, same, both_bad, broken]: [u64; 5], min_votes: u64) -> Ruling {
        let flags = BTreeMap::from_iter((broken > 0).then_some((Flag::Broken, broken)));
        Tally { first, second, same, both_bad, flags }.ruling(min_votes)
    }

    #[test]
    fn a_majority_of_those_who_prefer_one_is_a_label() {
        assert_eq!(ruled([2, 1, 0, 0, 0], 3), Ruling::First);
        assert_eq!(ruled([1, 2, 2, 0, 0], 1), Ruling::Second);
        assert_eq!(ruled([2, 1, 0, 0, 0], 4), Ruling::TooFewVotes);
        assert_eq!(ruled([0; 5], 0), Ruling::TooFewVotes);
        assert_eq!(ruled([2, 2, 1, 0, 0], 1), Ruling::Split);
        assert_eq!(ruled([1, 0, 2, 0, 0], 1), Ruling::Tie);
        assert_eq!(ruled([1, 0, 1, 0, 0], 1), Ruling::First, "half is no majority");
        assert_eq!(ruled([1, 0, 0, 2, 0], 1), Ruling::BothBad);
        assert_eq!(ruled([1, 0, 0, 0, 2], 1), Ruling::Flagged(Flag::Broken));
        assert_eq!(ruled([0, 0, 1, 1, 1], 1), Ruling::Split);
    }
}

//! Numbers of a run's votes for whoever leads the work: how far it is, whom sides mislead, how people agree with themselves and with planted
//! answers, how the judge fares against people, and how sure that is. Knows items and votes; knows nothing of pages or clocks.

use std::collections::BTreeMap;

use super::items::{Item, Items};
use super::vote::{Choice, CurrentVote, ItemKind, Preference, Vote, current_votes};
use crate::judge::Share;

/// Half of the width of an interval, in points, at which the judge's accuracy counts as known.
pub const STOP_POINTS: f64 = 5.0;
/// Gaps between two votes that are longer were a break, in seconds.
const BREAK_S: i64 = 600;
/// Paces are told in steps of so many seconds: nobody is timed.
const PACE_STEP_S: i64 = 5;
/// Lower ends of the buckets of the judge's margins.
const MARGINS: [f64; 5] = [0.0, 0.25, 0.5, 1.0, 2.0];
/// Standard normal quantile of a two-sided 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;

/// What is counted for a person, or for all together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PersonNumbers {
    /// Votes that hold, repeats and planted items included.
    pub num_votes: u64,
    /// By the choice's name.
    pub choices: BTreeMap<&'static str, u64>,
    /// Votes for the answer shown first, among those for one of two.
    pub first: Option<Share>,
    /// Repeats on which the second vote says what the first one said.
    pub repeats: Option<Share>,
    /// Planted items on which the right answer was preferred, among those on which one of the two was.
    pub gold: Option<Share>,
    /// Usual seconds from vote to vote, in steps of five; `None` for fewer than five votes.
    pub pace_s: Option<i64>,
}

/// How the judge fares against people, on two answers of an item that people do not see as equal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JudgeNumbers {
    /// Where the judge rates the answer higher that most people prefer.
    pub all: Option<Share>,
    /// The same among items drawn at random: what holds for the run.
    pub audit: Option<Share>,
    /// The same by how far apart the ratings are: from, and of how many.
    pub by_margin: Vec<(f64, Option<Share>)>,
    /// The same by each aspect's mean in place of the rating.
    pub by_aspect: Vec<(String, Option<Share>)>,
}

/// Whether enough was voted to know the judge's accuracy.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StopRule {
    /// Half of the width of the 95 % interval of [`JudgeNumbers::audit`], in points; `None` without votes on the slice.
    pub points: Option<f64>,
    /// It is [`STOP_POINTS`] or less.
    pub is_met: bool,
    /// Further items of the slice that the rule wants, about.
    pub num_more: u64,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    /// By pseudonym.
    pub people: BTreeMap<String, PersonNumbers>,
    /// Together.
    pub all: PersonNumbers,
    /// Judge against people.
    pub judge: JudgeNumbers,
    /// Stop rule.
    pub stop: StopRule,
    /// Flags that hold, by kind.
    pub flags: BTreeMap<&'static str, u64>,
}

impl Numbers {
    /// Counts the events of a run.
    pub fn of(items: &Items, events: &[Vote]) -> Self {
        let current = current_votes(events);
        let places: BTreeMap<&str, &Item> =
            items.items.iter().chain(&items.gold).map(|item| (item.id.as_str(), item)).collect();
        let mut by_person: BTreeMap<&str, Vec<CurrentVote<'_>>> = BTreeMap::new();
        let mut flags: BTreeMap<&'static str, u64> = BTreeMap::new();
        for vote in &current {
            by_person.entry(&vote.vote.annotator).or_default().push(*vote);
            if let Choice::Flag { flag, .. } = vote.choice {
                *flags.entry(flag.as_str()).or_default() += 1;
            }
        }
        let people: BTreeMap<String, PersonNumbers> =
            by_person.iter().map(|(person, votes)| ((*person).to_owned(), person_numbers(votes, &places))).collect();
        let mut all = person_numbers(&current, &places);
        all.pace_s = None;
        let judge = judge_numbers(&current, &places);
        let stop = StopRule::of(judge.audit);
        Self { people, all, judge, stop, flags }
    }
}

impl StopRule {
    /// From the judge's accuracy among items drawn at random.
    pub fn of(audit: Option<Share>) -> Self {
        // Without a vote the widest case: a share of one half.
        let (share, total) = audit.map_or((0.5, 0), |audit| (audit.share, audit.total));
        let points = audit.map(|audit| 50.0 * (audit.high - audit.low));
        let is_met = points.is_some_and(|points| points <= STOP_POINTS);
        // n = z² p (1 - p) / h², the normal approximation; a share near 0 or 1 is taken as not nearer than a tenth, since few votes say so.
        let share = share.clamp(0.1, 0.9);
        let wanted = (Z_95 / (STOP_POINTS / 100.0)).powi(2) * share * (1.0 - share);
        let num_more = if is_met { 0 } else { (wanted.ceil() as u64).saturating_sub(total).max(1) };
        Self { points, is_met, num_more }
    }
}

/// What a vote says of the first two answers that it was shown, if it prefers one.
fn decided(vote: &CurrentVote<'_>) -> Option<bool> {
    let [first, second] = vote.vote.shown.as_slice() else { return None };
    match vote.choice.preference(first, second)? {
        Preference::First => Some(true),
        Preference::Second => Some(false),
        Preference::Same | Preference::BothBad => None,
    }
}

/// A share of those that say yes among all that say something.
fn share(said: impl Iterator<Item = bool>) -> Option<Share> {
    let (mut yes, mut all) = (0, 0);
    for one in said {
        yes += u64::from(one);
        all += 1;
    }
    Share::of(yes, all)
}

fn person_numbers(votes: &[CurrentVote<'_>], items: &BTreeMap<&str, &Item>) -> PersonNumbers {
    let mut choices: BTreeMap<&'static str, u64> = BTreeMap::new();
    for vote in votes {
        *choices.entry(vote.choice.as_str()).or_default() += 1;
    }
    let firsts: BTreeMap<(&str, &str), &CurrentVote<'_>> = votes
        .iter()
        .filter(|vote| vote.vote.kind != ItemKind::Repeat)
        .map(|vote| ((vote.vote.annotator.as_str(), vote.vote.item.as_str()), vote))
        .collect();
    let repeated = votes.iter().filter(|vote| vote.vote.kind == ItemKind::Repeat).filter_map(|again| {
        let first = firsts.get(&(again.vote.annotator.as_str(), again.vote.item.as_str()))?;
        let says =
            |vote: &CurrentVote<'_>| two_of(&again.vote.shown).map(|(a, b)| vote.choice.preference(a, b)).collect();
        let (before, now): (Vec<_>, Vec<_>) = (says(first), says(again));
        Some(before == now)
    });
    let right = votes.iter().filter(|vote| vote.vote.kind == ItemKind::Gold).filter_map(|vote| {
        let item = items.get(vote.vote.item.as_str())?;
        let right = item.gold.as_deref()?;
        let wrong = item.answers.iter().find(|answer| answer.hash != right)?;
        match vote.choice.preference(right, &wrong.hash)? {
            Preference::First => Some(true),
            Preference::Second | Preference::Same => Some(false),
            Preference::BothBad => None,
        }
    });
    PersonNumbers {
        num_votes: votes.len() as u64,
        choices,
        first: share(votes.iter().filter_map(decided)),
        repeats: share(repeated),
        gold: share(right),
        pace_s: pace(votes),
    }
}

/// All twos of answers, the earlier one first.
fn two_of(shown: &[String]) -> impl Iterator<Item = (&str, &str)> {
    let later = |at: usize| shown.get(at + 1..).unwrap_or_default();
    shown.iter().enumerate().flat_map(move |(at, a)| later(at).iter().map(move |b| (a.as_str(), b.as_str())))
}

fn pace(votes: &[CurrentVote<'_>]) -> Option<i64> {
    let mut times: Vec<i64> = votes.iter().map(|vote| vote.vote.at).collect();
    times.sort_unstable();
    let gap = |two: &[i64]| two.get(1).zip(two.first()).map(|(b, a)| b - a);
    let mut gaps: Vec<i64> = times.windows(2).filter_map(gap).filter(|gap| *gap <= BREAK_S).collect();
    gaps.sort_unstable();
    let median = gaps.get(gaps.len() / 2).filter(|_| gaps.len() >= 4)?;
    Some(((median + PACE_STEP_S / 2) / PACE_STEP_S * PACE_STEP_S).max(PACE_STEP_S))
}

fn judge_numbers(votes: &[CurrentVote<'_>], items: &BTreeMap<&str, &Item>) -> JudgeNumbers {
    // For two answers of an item, in the order of their hashes: people for the first minus people for the second, and whether by lot.
    let mut couples: BTreeMap<(&str, &str, &str), (i64, bool)> = BTreeMap::new();
    for vote in votes.iter().filter(|vote| !matches!(vote.vote.kind, ItemKind::Repeat | ItemKind::Gold)) {
        for (a, b) in two_of(&vote.vote.shown) {
            let (a, b) = if a < b { (a, b) } else { (b, a) };
            let say = match vote.choice.preference(a, b) {
                Some(Preference::First) => 1,
                Some(Preference::Second) => -1,
                Some(Preference::Same | Preference::BothBad) | None => 0,
            };
            let couple = couples.entry((&vote.vote.item, a, b)).or_default();
            couple.0 += say;
            couple.1 |= vote.vote.kind == ItemKind::Audit;
        }
    }
    // Rating of what people prefer minus rating of the other; by the rating or by an aspect.
    let lead =
        |by: &dyn Fn(&super::items::ItemAnswer) -> Option<f64>, key: &(&str, &str, &str), say: i64| -> Option<f64> {
            let item = items.get(key.0)?;
            let (a, b) = (by(item.answer(key.1)?)?, by(item.answer(key.2)?)?);
            Some((a - b) * say.signum() as f64).filter(|lead| say != 0 && *lead != 0.0)
        };
    let rated = |is_wanted: &dyn Fn(f64, bool) -> bool| {
        let said = couples.iter().filter_map(|(key, (say, is_audit))| {
            let lead = lead(&|answer| answer.rating, key, *say)?;
            is_wanted(lead.abs(), *is_audit).then_some(lead > 0.0)
        });
        share(said)
    };
    let by_margin = MARGINS.iter().enumerate().map(|(at, &low)| {
        let high = MARGINS.get(at + 1).copied().unwrap_or(f64::INFINITY);
        (low, rated(&|margin, _| (low..high).contains(&margin)))
    });
    let mut aspects: Vec<String> = Vec::new();
    for (name, _) in items.values().flat_map(|item| &item.answers).flat_map(|answer| &answer.aspects) {
        if !aspects.contains(name) {
            aspects.push(name.clone());
        }
    }
    let by_aspect = aspects.into_iter().map(|name| {
        let mean = |answer: &super::items::ItemAnswer| {
            answer.aspects.iter().find(|(other, _)| *other == name).map(|(_, mean)| *mean)
        };
        let found = share(couples.iter().filter_map(|(key, (say, _))| Some(lead(&mean, key, *say)? > 0.0)));
        (name, found)
    });
    JudgeNumbers {
        all: rated(&|_, _| true),
        audit: rated(&|_, is_audit| is_audit),
        by_margin: by_margin.collect(),
        by_aspect: by_aspect.collect(),
    }
}

//! How far people agree with one another, with themselves and with the judge: all numbers that a page, a card or a script shows of votes.
//! Knows items and votes; pure functions of them, which read and write nothing and know no clock.
//!
//! Votes on repeats and planted items say how careful somebody is and nothing else: agreement and the judge's accuracy are of the others.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::items::{Item, ItemAnswer, Items};
use super::label::{Opinion, Ruling, is_for_dataset, opinions, tallies};
use super::vote::{Choice, CurrentVote, Flag, ItemKind, Preference};
use crate::judge::Share;
use crate::judge::agreement::{KappaWeights, Scale, cohen_kappa, fleiss_kappa, krippendorff_alpha};

/// Half of the width of the 95 % interval, in shares of one, at which the judge's accuracy counts as known, unless told otherwise: the ±4
/// points that annotators are shown.
pub const DEFAULT_TARGET: f64 = 0.04;
/// Lower ends of the bins of the judge's margins, on the scale 1 to 5.
pub const MARGIN_BINS: [f64; 6] = [0.0, 0.1, 0.25, 0.5, 1.0, 2.0];
/// First, same, second, both bad: the categories of all kappas, the first three in their order.
const NUM_CATEGORIES: usize = 4;
/// Standard normal quantile of a two-sided 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Votes that hold and count for the dataset, skips among them.
    pub num_votes: u64,
    /// People who gave them.
    pub num_annotators: u64,
    /// Items that somebody has an opinion on.
    pub num_items: u64,
    /// What the rule makes of each two answers, by its name.
    pub rulings: BTreeMap<&'static str, u64>,
    /// What the counted votes say, by the choice's name.
    pub choices: BTreeMap<&'static str, u64>,
    /// Flags that hold, by kind.
    pub flags: BTreeMap<&'static str, u64>,
    /// People against people.
    pub agreement: Agreement,
    /// The judge against people.
    pub judge: JudgeAccuracy,
    /// Where people look first.
    pub position: Position,
    /// Each of them, by pseudonym.
    pub annotators: BTreeMap<String, Annotator>,
    /// Whether enough was voted.
    pub stop: StopRule,
}

/// How far people agree on answers that several of them saw. `None` where nothing can be held against anything.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Couples of answers with opinions of two people or more.
    pub num_couples: u64,
    /// Krippendorff's alpha of the four categories: first, same, second, both bad.
    pub alpha_nominal: Option<f64>,
    /// The same with first < same < second in order, and both bad in the middle.
    pub alpha_ordinal: Option<f64>,
    /// Fleiss' kappa of the four categories.
    pub fleiss_kappa: Option<f64>,
    /// Each two people with couples in common.
    pub pairs: Vec<PairAgreement>,
}

/// Two people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairAgreement {
    /// Their pseudonyms, in order.
    pub annotators: [String; 2],
    /// Couples of answers on which both have an opinion.
    pub num_couples: u64,
    /// Cohen's kappa of the four categories.
    pub kappa: Option<f64>,
    /// Cohen's kappa of first, same and second with linear weights, both bad taken as the same.
    pub kappa_linear: Option<f64>,
}

/// How often the judge rates the answer higher that people prefer, on couples that people decided and on which the judge has no tie.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct JudgeAccuracy {
    /// On all of them. The queue shows first what the judge is unsure of, so this is lower than what holds for the run.
    pub all: Option<Share>,
    /// On those drawn at random: what holds for the run.
    pub audit: Option<Share>,
    /// By how far apart the ratings are.
    pub by_margin: Vec<MarginBin>,
    /// By each aspect's mean in place of the rating.
    pub by_aspect: Vec<(String, Option<Share>)>,
}

/// Couples whose ratings are so far apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MarginBin {
    /// The smallest difference.
    pub from: f64,
    /// All are below; `None`: no limit.
    pub to: Option<f64>,
    /// Mean difference of those in the bin.
    pub mean_margin: Option<f64>,
    /// The judge's accuracy there.
    pub accuracy: Option<Share>,
}

/// Votes for what is shown first.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Position {
    /// Share of A among votes for A or B, on items of two answers.
    pub first: Option<Share>,
    /// The interval leaves one half out: sides matter to these people.
    pub is_biased: bool,
}

/// One person.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Annotator {
    /// Votes that hold, on repeats and planted items too.
    pub num_votes: u64,
    /// See [`Position`].
    pub position: Position,
    /// Repeats on which this person says the same again, skips left out.
    pub consistency: Option<Share>,
    /// Planted items on which this person found the right answer, skips left out.
    pub gold: Option<Share>,
}

/// Whether the judge's accuracy is known well enough to stop voting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StopRule {
    /// Half of the width of the interval that is wanted.
    pub target: f64,
    /// Half of the width there is, on the audit slice; `None` without a couple decided there.
    pub half_width: Option<f64>,
    /// `half_width <= target`.
    pub is_met: bool,
    /// Couples of the slice that are still to be decided, about; 0 if the rule is met.
    pub num_more: u64,
}

impl Report {
    /// Of the votes that hold ([`super::vote::current_votes`]), with a label where [`super::label::Tally::ruling`] of `min_votes` gives one. Votes on answers
    /// that are no item any more count for agreement and not for the judge.
    pub fn of(items: &Items, votes: &[CurrentVote<'_>], min_votes: u64, target: f64) -> Self {
        let counted: Vec<&CurrentVote<'_>> = votes.iter().filter(|vote| is_for_dataset(vote)).collect();
        let opined = || counted.iter().filter(|vote| *vote.choice != Choice::Skip);
        let distinct = |names: BTreeSet<&str>| names.len() as u64;
        let decided: Vec<Decided<'_>> = decided(items, votes, min_votes);
        let (mut rulings, mut choices, mut flags) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for tally in tallies(votes).values().flat_map(BTreeMap::values) {
            *rulings.entry(ruling_name(tally.ruling(min_votes))).or_default() += 1;
        }
        for vote in &counted {
            *choices.entry(vote.choice.as_str()).or_default() += 1;
            if let Choice::Flag { flag, .. } = vote.choice {
                *flags.entry(flag.as_str()).or_default() += 1;
            }
        }
        let judge = JudgeAccuracy::of(&decided);
        let mut by_person: BTreeMap<&str, Vec<&CurrentVote<'_>>> = BTreeMap::new();
        votes.iter().for_each(|vote| by_person.entry(&vote.vote.annotator).or_default().push(vote));
        Self {
            num_votes: counted.len() as u64,
            num_annotators: distinct(opined().map(|vote| vote.vote.annotator.as_str()).collect()),
            num_items: distinct(opined().map(|vote| vote.vote.item.as_str()).collect()),
            rulings,
            choices,
            flags,
            agreement: Agreement::of(votes),
            position: Position::of(counted.iter().copied()),
            annotators: by_person
                .into_iter()
                .map(|(name, votes)| (name.to_owned(), Annotator::of(&votes, items)))
                .collect(),
            stop: StopRule::of(judge.audit, target),
            judge,
        }
    }

    /// As JSON, for scripts and pages.
    ///
    /// # Errors
    /// None that a number of this report could cause.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

/// The name of a ruling in files and tables.
pub fn ruling_name(ruling: Ruling) -> &'static str {
    match ruling {
        Ruling::First | Ruling::Second => "decided",
        Ruling::Tie => "tie",
        Ruling::BothBad => "both_bad",
        Ruling::Flagged(Flag::WrongLanguage) => "flagged_wrong_language",
        Ruling::Flagged(Flag::Offensive) => "flagged_offensive",
        Ruling::Flagged(Flag::Broken) => "flagged_broken",
        Ruling::Flagged(Flag::Other) => "flagged_other",
        Ruling::Split => "split",
        Ruling::TooFewVotes => "too_few_votes",
    }
}

/// Two answers of which people prefer one.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    /// What people prefer.
    pub chosen: &'a ItemAnswer,
    /// The other one.
    pub rejected: &'a ItemAnswer,
    /// The prompt's id.
    pub prompt: &'a str,
    /// Whether somebody saw it because it was drawn at random.
    pub is_audit: bool,
}

/// Couples of answers that the rule decides, of items that are still there; each once, in the order of prompts and hashes.
pub fn decided<'a>(items: &'a Items, votes: &[CurrentVote<'_>], min_votes: u64) -> Vec<Decided<'a>> {
    let mut answers: BTreeMap<(&str, &str), &ItemAnswer> = BTreeMap::new();
    for item in &items.items {
        for answer in &item.answers {
            answers.entry((&item.prompt_id, &answer.hash)).or_insert(answer);
        }
    }
    let prompts: BTreeMap<&str, &Item> = items.items.iter().map(|item| (item.prompt_id.as_str(), item)).collect();
    let mut audited = BTreeSet::new();
    for vote in votes.iter().filter(|vote| vote.vote.kind == ItemKind::Audit) {
        audited.extend(opinions(vote).into_iter().map(|(couple, _)| (vote.vote.prompt.as_str(), couple)));
    }
    let mut found = Vec::new();
    for (prompt, couples) in tallies(votes) {
        let Some(item) = prompts.get(prompt) else { continue };
        for ((first, second), tally) in couples {
            let is_audit = audited.contains(&(prompt, (first, second)));
            let both = answers.get(&(prompt, first)).zip(answers.get(&(prompt, second)));
            let Some((first, second)) = both.map(|(first, second)| (*first, *second)) else { continue };
            let (chosen, rejected) = match tally.ruling(min_votes) {
                Ruling::First => (first, second),
                Ruling::Second => (second, first),
                _ => continue,
            };
            found.push(Decided { chosen, rejected, prompt: &item.prompt_id, is_audit });
        }
    }
    found
}

impl Decided<'_> {
    /// Rating of the preferred answer minus the other's; `None` unless both are rated.
    pub fn margin(&self) -> Option<f64> {
        Some(self.chosen.rating? - self.rejected.rating?)
    }

    /// The same of one aspect.
    pub fn aspect_margin(&self, aspect: &str) -> Option<f64> {
        let mean = |answer: &ItemAnswer| answer.aspects.iter().find(|(name, _)| name == aspect).map(|(_, mean)| *mean);
        Some(mean(self.chosen)? - mean(self.rejected)?)
    }
}

/// The share of those above zero among those that are not zero.
fn share_above_zero(margins: impl Iterator<Item = f64>) -> Option<Share> {
    share(margins.filter(|margin| *margin != 0.0).map(|margin| margin > 0.0))
}

fn share(said: impl Iterator<Item = bool>) -> Option<Share> {
    let (mut yes, mut all) = (0, 0);
    said.for_each(|one| {
        yes += u64::from(one);
        all += 1;
    });
    Share::of(yes, all)
}

impl JudgeAccuracy {
    /// Of couples that people decided.
    pub fn of(decided: &[Decided<'_>]) -> Self {
        let margins = || decided.iter().filter_map(Decided::margin);
        let bin = |(at, &from): (usize, &f64)| {
            let to = MARGIN_BINS.get(at + 1).copied();
            let own: Vec<f64> = margins()
                .filter(|margin| *margin != 0.0 && margin.abs() >= from && to.is_none_or(|to| margin.abs() < to))
                .collect();
            let mean = own.iter().map(|margin| margin.abs()).sum::<f64>() / own.len() as f64;
            let accuracy = share_above_zero(own.iter().copied());
            MarginBin { from, to, mean_margin: (!own.is_empty()).then_some(mean), accuracy }
        };
        let mut aspects: Vec<&str> = Vec::new();
        for (name, _) in decided.iter().flat_map(|couple| &couple.chosen.aspects) {
            if !aspects.contains(&name.as_str()) {
                aspects.push(name);
            }
        }
        let by_aspect = |name: &str| {
            (name.to_owned(), share_above_zero(decided.iter().filter_map(|couple| couple.aspect_margin(name))))
        };
        let audited = decided.iter().filter(|couple| couple.is_audit);
        Self {
            all: share_above_zero(margins()),
            audit: share_above_zero(audited.filter_map(Decided::margin)),
            by_margin: MARGIN_BINS.iter().enumerate().map(bin).collect(),
            by_aspect: aspects.into_iter().map(by_aspect).collect(),
        }
    }
}

impl Agreement {
    /// Of all opinions that compare two answers.
    pub fn of(votes: &[CurrentVote<'_>]) -> Self {
        type Said<'a> = BTreeMap<&'a str, Preference>;
        let mut couples: BTreeMap<(&str, (&str, &str)), Said<'_>> = BTreeMap::new();
        for vote in votes.iter().filter(|vote| is_for_dataset(vote)) {
            for (couple, opinion) in opinions(vote) {
                let said = couples.entry((&vote.vote.prompt, couple)).or_default();
                match opinion {
                    Opinion::Prefers(preference) => said.insert(&vote.vote.annotator, preference),
                    Opinion::Flags(_) => said.remove(vote.vote.annotator.as_str()),
                };
            }
        }
        couples.retain(|_, said| said.len() >= 2);
        let units = |value: fn(Preference) -> usize| -> Vec<Vec<f64>> {
            couples.values().map(|said| said.values().map(|said| value(*said) as f64).collect()).collect()
        };
        let subjects: Vec<Vec<u64>> = couples
            .values()
            .map(|said| {
                let mut counts = vec![0; NUM_CATEGORIES];
                said.values().for_each(|said| counts[category(*said)] += 1);
                counts
            })
            .collect();
        let mut tables: BTreeMap<[&str; 2], Vec<Vec<u64>>> = BTreeMap::new();
        for said in couples.values() {
            let said: Vec<(&str, Preference)> = said.iter().map(|(name, said)| (*name, *said)).collect();
            for (at, (one, first)) in said.iter().enumerate() {
                for (other, second) in said.iter().skip(at + 1) {
                    let empty = || vec![vec![0; NUM_CATEGORIES]; NUM_CATEGORIES];
                    tables.entry([one, other]).or_insert_with(empty)[category(*first)][category(*second)] += 1;
                }
            }
        }
        Self {
            num_couples: couples.len() as u64,
            alpha_nominal: krippendorff_alpha(&units(category), Scale::Nominal),
            alpha_ordinal: krippendorff_alpha(&units(place), Scale::Ordinal),
            fleiss_kappa: fleiss_kappa(&subjects),
            pairs: tables.into_iter().map(|(names, table)| pair_agreement(names, &table)).collect(),
        }
    }
}

/// Index among the [`NUM_CATEGORIES`].
fn category(preference: Preference) -> usize {
    match preference {
        Preference::First => 0,
        Preference::Same => 1,
        Preference::Second => 2,
        Preference::BothBad => 3,
    }
}

/// The same in order, where both bad is no preference.
fn place(preference: Preference) -> usize {
    if preference == Preference::BothBad { category(Preference::Same) } else { category(preference) }
}

fn pair_agreement(names: [&str; 2], table: &[Vec<u64>]) -> PairAgreement {
    let mut ordered = vec![vec![0; NUM_CATEGORIES - 1]; NUM_CATEGORIES - 1];
    let merged = |at: usize| if at == category(Preference::BothBad) { category(Preference::Same) } else { at };
    for (first, row) in table.iter().enumerate() {
        for (second, count) in row.iter().enumerate() {
            ordered[merged(first)][merged(second)] += count;
        }
    }
    PairAgreement {
        annotators: names.map(str::to_owned),
        num_couples: table.iter().flatten().sum(),
        kappa: cohen_kappa(table, KappaWeights::Equal),
        kappa_linear: cohen_kappa(&ordered, KappaWeights::Linear),
    }
}

impl Position {
    /// Of these votes, those that prefer one of the two answers shown.
    pub fn of<'v>(votes: impl Iterator<Item = &'v CurrentVote<'v>>) -> Self {
        let is_first = |vote: &CurrentVote<'_>| {
            let [first, second] = vote.vote.shown.as_slice() else { return None };
            match vote.choice.preference(first, second)? {
                Preference::First => Some(true),
                Preference::Second => Some(false),
                Preference::Same | Preference::BothBad => None,
            }
        };
        let first = share(votes.filter_map(is_first));
        Self { first, is_biased: first.is_some_and(|first| first.low > 0.5 || first.high < 0.5) }
    }
}

impl Annotator {
    fn of(votes: &[&CurrentVote<'_>], items: &Items) -> Self {
        let planted: BTreeMap<&str, &Item> = items.gold.iter().map(|item| (item.id.as_str(), item)).collect();
        let firsts: BTreeMap<&str, &CurrentVote<'_>> = votes
            .iter()
            .filter(|vote| vote.vote.kind != ItemKind::Repeat)
            .map(|vote| (vote.vote.item.as_str(), *vote))
            .collect();
        let says_again = |again: &&CurrentVote<'_>| {
            let first = firsts.get(again.vote.item.as_str()).filter(|_| again.vote.kind == ItemKind::Repeat)?;
            let is_opinion = |vote: &CurrentVote<'_>| *vote.choice != Choice::Skip;
            (is_opinion(first) && is_opinion(again)).then(|| opinions(first) == opinions(again))
        };
        let is_right = |vote: &&CurrentVote<'_>| {
            let item = planted.get(vote.vote.item.as_str()).filter(|_| vote.vote.kind == ItemKind::Gold)?;
            let right = item.gold.as_deref()?;
            let wrong = item.answers.iter().find(|answer| answer.hash != right)?;
            match vote.choice {
                Choice::Skip => None,
                // Who flags the answer that belongs to another prompt has found it too.
                Choice::Flag { answer: Some(answer), .. } => Some(*answer == wrong.hash),
                choice => Some(choice.preference(right, &wrong.hash) == Some(Preference::First)),
            }
        };
        Self {
            num_votes: votes.len() as u64,
            position: Position::of(votes.iter().copied().filter(|vote| is_for_dataset(vote))),
            consistency: share(votes.iter().filter_map(says_again)),
            gold: share(votes.iter().filter_map(is_right)),
        }
    }
}

impl StopRule {
    /// From the judge's accuracy on the audit slice. What is still missing follows from n = z² p (1 − p) / h² (the normal interval), with a
    /// share that few votes put near 0 or 1 taken as no nearer than a tenth.
    pub fn of(audit: Option<Share>, target: f64) -> Self {
        let half_width = audit.map(|audit| (audit.high - audit.low) / 2.0);
        let is_met = half_width.is_some_and(|half_width| half_width <= target);
        let (share, total) = audit.map_or((0.5, 0), |audit| (audit.share.clamp(0.1, 0.9), audit.total));
        let wanted = (Z_95 / target.max(f64::EPSILON)).powi(2) * share * (1.0 - share);
        let num_more = if is_met { 0 } else { (wanted.ceil() as u64).saturating_sub(total).max(1) };
        Self { target, half_width, is_met, num_more }
    }
}

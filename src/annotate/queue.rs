//! Who is shown what next: those items first of which the judge is unsure, mixed with a random slice, with repeats and planted items among
//! them, and never more people on one item than are wanted. Knows integers, margins and clocks; knows nothing of texts, pages or files.
//!
//! An item belongs to the random slice, or to the rest, by its hash alone, so that votes on the slice are a fair sample of all items.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::vote::ItemKind;

/// What a queue does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueueOptions {
    /// People per item, 1 or more.
    pub overlap: usize,
    /// Share of items in the random slice, and of turns that it gets, 0..=1.
    pub audit_share: f64,
    /// Share of turns that show an own earlier item again.
    pub repeat_share: f64,
    /// Share of turns that show a planted item.
    pub gold_share: f64,
    /// Seconds after which an item that somebody was shown is free again.
    pub lease_s: i64,
    /// Of all draws.
    pub seed: u64,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { overlap: 1, audit_share: 0.25, repeat_share: 0.05, gold_share: 0.05, lease_s: 1_800, seed: 0 }
    }
}

/// Own turns between an item and its repeat, at least, so that nobody just remembers.
pub const REPEAT_DISTANCE: usize = 8;

/// An item as the queue sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueItem {
    /// Its hash, or anything else that stays.
    pub id: String,
    /// How far apart the judge sees the best answers; `None` counts as not at all.
    pub margin: Option<f64>,
    /// Who can read it: only people who named this language, or no language at all, get it.
    pub language: String,
    /// It is planted.
    pub is_gold: bool,
}

/// What a person did so far, as far as the queue must know it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turns {
    /// Items with a vote that holds, in the order of voting, each with whether it was a repeat.
    pub voted: Vec<(usize, bool)>,
    /// Items whose vote was taken back and not given again; they come first, the latest one before the others.
    pub taken_back: Vec<(usize, bool)>,
}

/// An item for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// Place among the queue's items.
    pub item: usize,
    /// Why.
    pub kind: ItemKind,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// These, in this order; at least one.
    Turns(Vec<Turn>),
    /// Nothing now: others were shown what is left.
    Wait,
    /// Nothing any more.
    Done,
}

/// The queue: which items there are, who voted, and who was shown what when.
#[derive(Debug, Clone)]
pub struct Queue {
    items: Vec<QueueItem>,
    options: QueueOptions,
    /// Items outside of the slice, those of smallest margin first.
    unsure: Vec<usize>,
    /// The slice, by lot.
    audit: Vec<usize>,
    /// For each item whether it is in the slice.
    is_audit: Vec<bool>,
    gold: Vec<usize>,
    /// For each item the people whose vote on it holds.
    voters: Vec<BTreeSet<String>>,
    /// For each person what they were shown and did not answer, in the order of showing, with the second until which it is theirs.
    leases: BTreeMap<String, Vec<(Turn, i64)>>,
}

impl Queue {
    /// A queue in which nobody did anything yet.
    pub fn new(items: Vec<QueueItem>, options: QueueOptions) -> Self {
        let lot = |index: usize| xxh3_64_with_seed(items[index].id.as_bytes(), options.seed);
        let (mut audit, mut unsure, mut gold) = (Vec::new(), Vec::new(), Vec::new());
        for (index, item) in items.iter().enumerate() {
            if item.is_gold {
                gold.push(index);
            } else if share_of(lot(index)) < options.audit_share {
                audit.push(index);
            } else {
                unsure.push(index);
            }
        }
        audit.sort_by_key(|&index| lot(index));
        let margin = |index: usize| items[index].margin.unwrap_or(0.0).abs();
        unsure.sort_by(|&a, &b| margin(a).total_cmp(&margin(b)).then_with(|| lot(a).cmp(&lot(b))));
        let voters = vec![BTreeSet::new(); items.len()];
        let mut is_audit = vec![false; items.len()];
        audit.iter().for_each(|&index| is_audit[index] = true);
        Self { items, options, unsure, audit, is_audit, gold, voters, leases: BTreeMap::new() }
    }

    /// The options.
    pub fn options(&self) -> QueueOptions {
        self.options
    }

    /// Why this item is shown to somebody who sees it for the first time.
    pub fn kind(&self, item: usize) -> ItemKind {
        match self.items.get(item) {
            Some(found) if found.is_gold => ItemKind::Gold,
            _ if self.is_audit.get(item) == Some(&true) => ItemKind::Audit,
            _ => ItemKind::Ordinary,
        }
    }

    /// A person's first vote on an item holds now, or no longer does. What they were shown of it is answered, or not theirs any more.
    pub fn set_voted(&mut self, item: usize, person: &str, holds: bool) {
        let Some(voters) = self.voters.get_mut(item) else { return };
        if holds {
            voters.insert(person.to_owned());
        } else {
            voters.remove(person);
        }
        self.release(item, person);
    }

    /// Items are out of sight in somebody's hands, until whoever knows says otherwise: each counts as shown to one person.
    pub fn hold(&mut self, who: &str, items: impl IntoIterator<Item = usize>) {
        let held = items.into_iter().map(|item| (Turn { item, kind: self.kind(item) }, i64::MAX)).collect();
        self.leases.insert(who.to_owned(), held);
    }

    /// What a person was shown of an item is answered.
    pub fn release(&mut self, item: usize, person: &str) {
        if let Some(leases) = self.leases.get_mut(person) {
            leases.retain(|(turn, _)| turn.item != item);
        }
    }

    /// Items, planted ones aside, that have as many people as are wanted, and how many items there are.
    pub fn progress(&self) -> (usize, usize) {
        let ordinary = || (0..self.items.len()).filter(|&index| !self.items[index].is_gold);
        let is_full = |index: &usize| self.voters[*index].len() >= self.options.overlap;
        (ordinary().filter(is_full).count(), ordinary().count())
    }

    /// What a person is shown next and, if `ahead` is above 1, after that; they are theirs for a while. Asking again gives the same until
    /// they are answered. `languages`: those that they read; none: all.
    pub fn next(&mut self, person: &str, turns: &Turns, languages: &[String], ahead: usize, now: i64) -> Next {
        let until = now.saturating_add(self.options.lease_s);
        for leases in self.leases.values_mut() {
            leases.retain(|(_, end)| *end > now);
        }
        let mut mine: Vec<Turn> = Vec::new();
        for &(item, is_repeat) in turns.taken_back.iter().rev() {
            if item < self.items.len() {
                mine.push(Turn { item, kind: if is_repeat { ItemKind::Repeat } else { self.kind(item) } });
            }
        }
        let leased = self.leases.get(person).into_iter().flatten().map(|(turn, _)| *turn);
        for turn in leased.collect::<Vec<_>>() {
            let is_new = mine.iter().all(|other| other.item != turn.item);
            if is_new && self.may_read(turn.item, languages) {
                mine.push(turn);
            }
        }
        mine.truncate(ahead.max(1));
        let seen: HashSet<usize> = turns.voted.iter().map(|(item, _)| *item).collect();
        while mine.len() < ahead.max(1) {
            match self.draw((person, languages), turns, &seen, &mine) {
                Some(turn) => mine.push(turn),
                None => break,
            }
        }
        if mine.is_empty() {
            let is_open = |&index: &usize| {
                self.voters[index].len() < self.options.overlap
                    && !self.voters[index].contains(person)
                    && self.may_read(index, languages)
            };
            let is_left = self.unsure.iter().chain(&self.audit).any(is_open);
            return if is_left { Next::Wait } else { Next::Done };
        }
        let leases = mine.iter().map(|turn| (*turn, until)).collect();
        self.leases.insert(person.to_owned(), leases);
        Next::Turns(mine)
    }

    /// One more turn for a person with these languages who voted on these and has these before them already.
    fn draw(
        &self,
        (person, languages): (&str, &[String]),
        turns: &Turns,
        seen: &HashSet<usize>,
        mine: &[Turn],
    ) -> Option<Turn> {
        let num_turns = turns.voted.len() + mine.len();
        let lot = share_of(xxh3_64_with_seed(format!("{person} {num_turns}").as_bytes(), self.options.seed));
        let has = |item: usize| seen.contains(&item) || mine.iter().any(|turn| turn.item == item);
        let QueueOptions { gold_share, repeat_share, audit_share, .. } = self.options;
        // A person's planted items come in an order of their own.
        let planted = || {
            let own = |&index: &usize| xxh3_64_with_seed(self.items[index].id.as_bytes(), hash_of(person));
            let left = self.gold.iter().copied().filter(|&index| !has(index) && self.may_read(index, languages));
            left.min_by_key(own).map(|item| Turn { item, kind: ItemKind::Gold })
        };
        let repeated = || {
            let early = turns.voted.len().checked_sub(REPEAT_DISTANCE)?;
            let is_once = |item: usize| turns.voted.iter().filter(|(other, _)| *other == item).count() == 1;
            let first = |&&(item, is_repeat): &&(usize, bool)| {
                let is_shown = mine.iter().any(|turn| turn.item == item);
                !is_repeat && item < self.items.len() && is_once(item) && !is_shown && !self.items[item].is_gold
            };
            let found = turns.voted.iter().take(early).find(first)?;
            Some(Turn { item: found.0, kind: ItemKind::Repeat })
        };
        let special = if lot < gold_share {
            planted()
        } else if lot < gold_share + repeat_share {
            repeated()
        } else {
            None
        };
        let free = |list: &[usize], kind: ItemKind| {
            let is_free = |&&index: &&usize| {
                !has(index) && self.may_read(index, languages) && self.num_taken(index, person) < self.options.overlap
            };
            list.iter().find(is_free).map(|&item| Turn { item, kind })
        };
        let unsure = || free(&self.unsure, ItemKind::Ordinary);
        let audit = || free(&self.audit, ItemKind::Audit);
        special.or_else(|| match share_of(hash_of(&format!("{person} {num_turns} slice"))) < audit_share {
            true => audit().or_else(unsure),
            false => unsure().or_else(audit),
        })
    }

    /// People other than this one who voted on an item or are shown it now.
    fn num_taken(&self, item: usize, person: &str) -> usize {
        let voters = &self.voters[item];
        if voters.len() >= self.options.overlap {
            return voters.len();
        }
        let holds = |(other, leases): &(&String, &Vec<(Turn, i64)>)| {
            *other != person && !voters.contains(*other) && leases.iter().any(|(turn, _)| turn.item == item)
        };
        voters.iter().filter(|other| *other != person).count() + self.leases.iter().filter(holds).count()
    }

    fn may_read(&self, item: usize, languages: &[String]) -> bool {
        let is_known = |item: &QueueItem| languages.is_empty() || languages.contains(&item.language);
        self.items.get(item).is_some_and(is_known)
    }
}

fn hash_of(text: &str) -> u64 {
    xxh3_64_with_seed(text.as_bytes(), 0)
}

/// A hash as a number in 0..1.
fn share_of(hash: u64) -> f64 {
    // 53 bits, all that a float holds exactly.
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

//! The queue as an integer program: who gets what, whatever people do and in whatever order.

use std::collections::BTreeSet;

use pairwright::annotate::queue::{Next, Queue, QueueItem, QueueOptions, REPEAT_DISTANCE, Turns};
use pairwright::annotate::vote::ItemKind;
use proptest::prelude::*;

fn queue(num_items: usize, num_gold: usize, options: QueueOptions) -> Queue {
    let item = |index: usize| QueueItem {
        id: format!("item {index}"),
        margin: Some(((index * 7) % num_items.max(1)) as f64),
        language: if index % 4 == 3 { "Thai" } else { "Hindi" }.to_owned(),
        is_gold: index >= num_items,
    };
    Queue::new((0..num_items + num_gold).map(item).collect(), options)
}

fn plain(overlap: usize) -> QueueOptions {
    QueueOptions { overlap, repeat_share: 0.0, gold_share: 0.0, ..QueueOptions::default() }
}

#[test]
fn the_judge_s_doubts_come_first_and_the_slice_is_drawn_from_all() {
    let mut all = queue(200, 0, QueueOptions { audit_share: 0.0, ..plain(1) });
    let Next::Turns(turns) = all.next("ann", &Turns::default(), &[], 200, 0) else { panic!() };
    let margins: Vec<usize> = turns.iter().map(|turn| (turn.item * 7) % 200).collect();
    assert!(margins.is_sorted() && margins.len() == 200);
    let mut mixed = queue(200, 0, QueueOptions { audit_share: 0.25, ..plain(1) });
    let Next::Turns(turns) = mixed.next("ann", &Turns::default(), &[], 80, 0) else { panic!() };
    let audit: Vec<usize> = turns.iter().filter(|turn| turn.kind == ItemKind::Audit).map(|turn| turn.item).collect();
    assert!((8..=35).contains(&audit.len()), "{}", audit.len());
    let above = audit.iter().filter(|item| (*item * 7) % 200 >= 100).count();
    assert!(above >= audit.len() / 5, "the slice holds what the judge is sure of too");
    assert!(turns.iter().all(|turn| mixed.kind(turn.item) == turn.kind));
}

#[test]
fn leases_expire_and_are_then_given_to_others() {
    let mut queue = queue(3, 0, QueueOptions { lease_s: 100, ..plain(1) });
    let none = Turns::default();
    let Next::Turns(first) = queue.next("ann", &none, &[], 3, 0) else { panic!() };
    assert_eq!(first.len(), 3);
    assert_eq!(queue.next("bob", &none, &[], 1, 50), Next::Wait);
    let Next::Turns(later) = queue.next("bob", &none, &[], 3, 101) else { panic!() };
    assert_eq!(later.len(), 3);
    // Ann's vote counts all the same, and Bob is not asked for it any more.
    queue.set_voted(first[0].item, "ann", true);
    let Next::Turns(left) = queue.next("bob", &none, &[], 3, 102) else { panic!() };
    assert_eq!(left.len(), 3, "what he was shown stays his until he answers");
    for turn in &later {
        queue.set_voted(turn.item, "bob", true);
    }
    let done = Turns { voted: later.iter().map(|turn| (turn.item, false)).collect(), taken_back: Vec::new() };
    assert_eq!(queue.next("bob", &done, &[], 3, 103), Next::Done);
    assert_eq!(queue.progress(), (3, 3));
}

#[test]
fn people_get_what_they_read_and_what_they_took_back() {
    let mut queue = queue(8, 0, plain(1));
    let thai = ["Thai".to_owned()];
    let Next::Turns(turns) = queue.next("ann", &Turns::default(), &thai, 8, 0) else { panic!() };
    assert_eq!(turns.iter().map(|turn| turn.item).collect::<BTreeSet<_>>(), [3, 7].into());
    let back = Turns { voted: Vec::new(), taken_back: vec![(3, false), (7, false)] };
    let Next::Turns(turns) = queue.next("ann", &back, &thai, 1, 0) else { panic!() };
    assert_eq!(turns[0].item, 7, "the one taken back last comes first");
}

#[test]
fn repeats_come_late_and_once_and_planted_items_once() {
    let options = QueueOptions { repeat_share: 0.3, gold_share: 0.3, ..QueueOptions::default() };
    let mut queue = queue(60, 5, options);
    let mut turns = Turns::default();
    let mut firsts = BTreeSet::new();
    let (mut num_repeats, mut num_gold) = (0, 0);
    while let Next::Turns(next) = queue.next("ann", &turns, &[], 1, 0) {
        let turn = next[0];
        match turn.kind {
            ItemKind::Repeat => {
                let at = turns.voted.iter().position(|voted| *voted == (turn.item, false)).unwrap();
                assert!(turns.voted.len() - at >= REPEAT_DISTANCE && !turns.voted.contains(&(turn.item, true)));
                num_repeats += 1;
                queue.release(turn.item, "ann");
            }
            kind => {
                assert!(firsts.insert(turn.item));
                num_gold += usize::from(kind == ItemKind::Gold);
                queue.set_voted(turn.item, "ann", true);
            }
        }
        turns.voted.push((turn.item, turn.kind == ItemKind::Repeat));
    }
    assert_eq!((firsts.len() - num_gold, num_gold), (60, 5));
    assert!(num_repeats >= 8, "{num_repeats}");
}

proptest! {
    /// Whoever comes, asks ahead, votes, takes back or goes away: no item has more people, by votes and by what is shown, than are wanted,
    /// unless a lease ran out; nobody votes twice; and when all are done every item is full.
    #[test]
    fn places_are_never_given_twice(
        overlap in 1usize..4,
        num_items in 1usize..12,
        steps in prop::collection::vec((0usize..4, 0usize..5, 1usize..4), 0..120),
    ) {
        let mut queue = queue(num_items, 0, plain(overlap));
        let mut turns = vec![Turns::default(); 4];
        let mut shown: Vec<Vec<usize>> = vec![Vec::new(); 4];
        let mut num_taken_back = vec![0; num_items];
        let name = |who: usize| format!("person {who}");
        for (who, what, ahead) in steps {
            match what {
                0..=2 => match queue.next(&name(who), &turns[who], &[], ahead, 0) {
                    Next::Turns(next) => {
                        shown[who] = next.iter().map(|turn| turn.item).collect();
                        let item = shown[who].remove(0);
                        prop_assert!(!turns[who].voted.contains(&(item, false)));
                        turns[who].voted.push((item, false));
                        turns[who].taken_back.retain(|back| back.0 != item);
                        queue.set_voted(item, &name(who), true);
                    }
                    Next::Wait | Next::Done => shown[who].clear(),
                },
                3 => if let Some((item, _)) = turns[who].voted.pop() {
                    turns[who].taken_back.push((item, false));
                    num_taken_back[item] += 1;
                    queue.set_voted(item, &name(who), false);
                },
                _ => if let Next::Turns(next) = queue.next(&name(who), &turns[who], &[], ahead, 0) {
                    shown[who] = next.iter().map(|turn| turn.item).collect();
                },
            }
            for (item, &came_back) in num_taken_back.iter().enumerate() {
                let has = |who: &usize| {
                    turns[*who].voted.contains(&(item, false)) || shown[*who].contains(&item)
                };
                // A place whose vote was taken back is free for others, and yet its person may give it again.
                prop_assert!((0..4).filter(has).count() <= overlap + came_back);
            }
        }
        for round in 0..4 * num_items * 4 {
            let who = round % 4;
            // Long after: what was shown and left is free.
            if let Next::Turns(next) = queue.next(&name(who), &turns[who], &[], 1, 1_000_000 * (round as i64 + 1)) {
                turns[who].voted.push((next[0].item, false));
                turns[who].taken_back.retain(|back| back.0 != next[0].item);
                queue.set_voted(next[0].item, &name(who), true);
            }
        }
        prop_assert_eq!(queue.progress(), (num_items, num_items));
    }
}

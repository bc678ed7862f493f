//! Numbers of votes: labels, agreement, the judge against people, how careful people are, when enough was voted.
//! Knows votes on made-up rows; the statistics themselves are held against published examples where they are written.

use std::collections::BTreeMap;

use pairwright::annotate::agreement::{DEFAULT_TARGET, Report, StopRule};
use pairwright::annotate::items::{AnswerChoice, Item, Items};
use pairwright::annotate::vote::{Action, Choice, Flag, ItemKind, Via, Vote, current_votes, text_hash};
use pairwright::dataset::DatasetOptions;
use pairwright::judge::Share;

use crate::made::Made;

/// A vote on an item by somebody who sees its answers in this order.
pub fn vote_on(item: &Item, annotator: &str, kind: ItemKind, is_turned: bool, choice: Choice) -> Vote {
    let mut shown: Vec<String> = item.answers.iter().map(|answer| answer.hash.clone()).collect();
    if is_turned {
        shown.reverse();
    }
    let id = text_hash(&format!("{} {annotator} {kind:?} {choice:?}", item.id));
    Vote {
        id: id.chars().take(32).collect(),
        item: item.id.clone(),
        prompt: item.prompt_id.clone(),
        shown,
        kind,
        annotator: annotator.into(),
        at: 1_795_750_000,
        via: Via::Page,
        action: Action::Cast { choice, ratings: Vec::new(), supersedes: None },
    }
}

/// For the answer with this text.
pub fn prefers(text: &str) -> Choice {
    Choice::Better { answer: text_hash(text) }
}

fn report(items: &Items, votes: &[Vote], min_votes: u64) -> Report {
    Report::of(items, &current_votes(votes), min_votes, DEFAULT_TARGET)
}

/// Twenty-one rows; of row n the human answer is rated higher by 1.0 if n is even, else lower by 0.2.
pub fn rows() -> Made {
    let mut made = Made::empty();
    for n in 0..21 {
        let half = if n % 2 == 0 { 0.5 } else { -0.1 };
        made.row(&format!("prompt {n}"), [&format!("human {n}"), &format!("model {n}")], [3.0 + half, 3.0 - half]);
    }
    made
}

/// Items of such rows.
pub fn items(made: &Made) -> Items {
    Items::of(&made.input(), &DatasetOptions::default(), AnswerChoice::Pair, 1)
}

#[test]
fn the_judge_is_held_against_what_most_people_say() {
    let made = rows();
    let items = items(&made);
    let mut votes = Vec::new();
    for (n, item) in items.items.iter().enumerate() {
        let kind = if n < 6 { ItemKind::Audit } else { ItemKind::Ordinary };
        let human = prefers(&format!("human {n}"));
        votes.push(vote_on(item, "ann", kind, n % 3 == 0, human.clone()));
        votes.push(vote_on(item, "bob", kind, n % 2 == 0, if n == 4 { Choice::Same } else { human.clone() }));
        votes.push(vote_on(item, "eve", kind, false, if n < 3 { prefers(&format!("model {n}")) } else { human }));
    }
    let found = report(&items, &votes, 3);
    assert_eq!((found.num_votes, found.num_annotators, found.num_items), (63, 3, 21));
    assert_eq!(found.rulings, BTreeMap::from([("decided", 21)]));
    let counts = |share: Option<Share>| share.map(|share| (share.count, share.total));
    // People prefer the human answer everywhere; the judge in the eleven even rows.
    assert_eq!(counts(found.judge.all), Some((11, 21)));
    assert_eq!(counts(found.judge.audit), Some((3, 6)));
    let bins: Vec<_> = found.judge.by_margin.iter().map(|bin| (bin.from, counts(bin.accuracy))).collect();
    assert_eq!(bins[1], (0.1, Some((0, 10))));
    assert_eq!(bins[4], (1.0, Some((11, 11))));
    assert!((found.judge.by_margin[1].mean_margin.unwrap() - 0.2).abs() < 1e-9);
    assert_eq!(found.judge.by_aspect.len(), 1);
    // Four of 21 couples have one dissenter: expected values by hand from the coincidences.
    assert_eq!(found.agreement.num_couples, 21);
    let pair = |a: &str, b: &str| {
        found.agreement.pairs.iter().find(|pair| pair.annotators == [a.to_owned(), b.to_owned()]).unwrap().clone()
    };
    assert_eq!(pair("ann", "bob").num_couples, 21);
    assert!(pair("ann", "bob").kappa.unwrap() > pair("ann", "eve").kappa.unwrap());
    let agreement = &found.agreement;
    assert!(
        agreement.alpha_nominal.unwrap() > 0.6 && agreement.fleiss_kappa.unwrap() < agreement.alpha_nominal.unwrap()
    );
    assert!(!found.stop.is_met && found.stop.num_more > 500, "{:?}", found.stop);
    // One vote fewer than the rule wants is no label, and the JSON says so too.
    let few = report(&items, &votes, 4);
    assert_eq!((few.rulings["too_few_votes"], few.judge.all), (21, None));
    let json: serde_json::Value = serde_json::from_str(&few.to_json().unwrap()).unwrap();
    assert_eq!((json["rulings"]["too_few_votes"].as_u64(), json["judge"]["all"].is_null()), (Some(21), true));
}

#[test]
fn repeats_and_planted_items_say_how_careful_somebody_is_and_nothing_else() {
    let made = rows();
    let items = items(&made);
    let [first, second] = [&items.items[0], &items.items[1]];
    let gold = &items.gold[0];
    let right = gold.gold.clone().unwrap();
    let wrong = gold.answers.iter().find(|answer| answer.hash != right).unwrap().hash.clone();
    let votes = [
        vote_on(first, "ann", ItemKind::Ordinary, false, prefers("human 0")),
        vote_on(first, "ann", ItemKind::Repeat, true, prefers("human 0")),
        vote_on(second, "ann", ItemKind::Ordinary, false, prefers("human 1")),
        vote_on(second, "ann", ItemKind::Repeat, false, Choice::Same),
        vote_on(gold, "ann", ItemKind::Gold, false, Choice::Better { answer: right }),
        vote_on(
            gold,
            "bob",
            ItemKind::Gold,
            false,
            Choice::Flag { flag: Flag::Other, answer: Some(wrong.clone()), note: String::new() },
        ),
        vote_on(gold, "eve", ItemKind::Gold, false, Choice::Better { answer: wrong }),
    ];
    let found = report(&items, &votes, 1);
    assert_eq!((found.num_votes, found.num_items, found.rulings["decided"]), (2, 2, 2));
    let share = |share: Option<Share>| share.map(|share| (share.count, share.total));
    let ann = &found.annotators["ann"];
    assert_eq!((ann.num_votes, share(ann.consistency), share(ann.gold)), (5, Some((1, 2)), Some((1, 1))));
    let gold_of = |name: &str| share(found.annotators[name].gold);
    assert_eq!([gold_of("bob"), gold_of("eve")], [Some((1, 1)), Some((0, 1))]);
}

#[test]
fn whoever_always_takes_the_first_is_found() {
    let made = rows();
    let items = items(&made);
    let votes: Vec<Vote> = items
        .items
        .iter()
        .map(|item| {
            let answer = item.answers[0].hash.clone();
            vote_on(item, "ann", ItemKind::Ordinary, false, Choice::Better { answer })
        })
        .collect();
    let found = report(&items, &votes, 1);
    let first = found.position.first.unwrap();
    assert_eq!((first.count, first.total, found.position.is_biased), (21, 21, true));
    assert!(!report(&items, &votes[..2], 1).position.is_biased, "two votes show nothing");
}

#[test]
fn enough_is_enough_when_the_interval_is_narrow() {
    let rule = |count, total| StopRule::of(Share::of(count, total), 0.05);
    assert!(rule(160, 200).half_width.unwrap() > 0.05 && !rule(160, 200).is_met);
    // 50 % of 385 is the textbook's ±5 points.
    assert!(rule(193, 385).is_met && !rule(185, 370).is_met);
    assert_eq!(rule(193, 385).num_more, 0);
    assert_eq!(StopRule::of(None, 0.05).num_more, 385);
}

//! The vote, its store and its items: what other modules and other tools build on.

use std::collections::BTreeSet;

use pairwright::annotate::items::{AnswerChoice, Item, Items};
use pairwright::annotate::store::{
    Appended, Person, Store, StoreError, read_people, read_votes, seal, sealed_through, votes_path, write_jsonl,
};
use pairwright::annotate::vote::{
    Action, Choice, Flag, ItemKind, Preference, Via, Vote, current_votes, item_id, text_hash,
};
use pairwright::dataset::DatasetOptions;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::made::Made;

/// A vote of `annotator` on the item of two texts.
pub fn cast(id: &str, annotator: &str, choice: Choice) -> Vote {
    let shown = vec![text_hash("one"), text_hash("two")];
    let prompt = text_hash("What?");
    Vote {
        id: id.into(),
        item: item_id(&prompt, shown.iter().map(String::as_str)),
        prompt,
        shown,
        kind: ItemKind::Ordinary,
        annotator: annotator.into(),
        at: 1_795_750_000,
        via: Via::Page,
        action: Action::Cast { choice, ratings: Vec::new(), supersedes: None },
    }
}

fn undo(id: &str, annotator: &str, target: &str) -> Vote {
    Vote { action: Action::Undo { supersedes: target.into() }, ..cast(id, annotator, Choice::Skip) }
}

fn change(id: &str, annotator: &str, choice: Choice, target: &str) -> Vote {
    let action = Action::Cast { choice, ratings: Vec::new(), supersedes: Some(target.into()) };
    Vote { action, ..cast(id, annotator, Choice::Skip) }
}

fn better(text: &str) -> Choice {
    Choice::Better { answer: text_hash(text) }
}

fn ids(events: &[Vote]) -> Vec<&str> {
    current_votes(events).iter().map(|current| current.vote.id.as_str()).collect()
}

#[test]
fn a_vote_reads_back_and_its_json_is_stable() {
    let mut vote = cast("v-1", "ann", Choice::Edit { answer: text_hash("one"), text: "ein\u{2067}s".into() });
    vote.action = match vote.action {
        Action::Cast { choice, .. } => {
            Action::Cast { choice, ratings: vec![Some(5), None], supersedes: Some("v-0".into()) }
        }
        other => other,
    };
    let text = serde_json::to_string(&vote).unwrap();
    assert_eq!(serde_json::from_str::<Vote>(&text).unwrap(), vote);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["action"], "cast");
    assert_eq!(value["choice"], json!({"choice": "edit", "answer": text_hash("one"), "text": "ein\u{2067}s"}));
    assert_eq!(value["kind"], "ordinary");
    assert_eq!(vote.time_bucket(), "2026-11-27");
    let taken = serde_json::to_value(undo("u", "ann", "v-1")).unwrap();
    assert_eq!((&taken["action"], &taken["supersedes"]), (&json!("undo"), &json!("v-1")));
}

#[test]
fn an_item_is_its_content_in_any_order() {
    let [prompt, a, b] = ["p", "a", "b"].map(text_hash);
    assert_eq!(item_id(&prompt, [a.as_str(), &b]), item_id(&prompt, [b.as_str(), &a]));
    assert_ne!(item_id(&prompt, [a.as_str(), &b]), item_id(&a, [prompt.as_str(), &b]));
    // Written down, so that votes of one version are found by the next.
    assert_eq!(item_id(&prompt, [a.as_str(), &b]), "ed81b0bca94ce8e235d5a98707d9580703b34a1e59b7d48cc66a5ec73850b2e9");
}

#[test]
fn what_is_no_vote_is_refused_with_its_field() {
    let wrong = |change: fn(&mut Vote)| {
        let mut vote = cast("v", "ann", better("one"));
        assert!(vote.check().is_ok());
        change(&mut vote);
        vote.check().unwrap_err().field
    };
    assert_eq!(wrong(|vote| vote.id = "'; DROP TABLE votes;--".into()), "id");
    assert_eq!(wrong(|vote| vote.annotator = String::new()), "annotator");
    assert_eq!(wrong(|vote| vote.item = text_hash("another")), "item");
    assert_eq!(wrong(|vote| vote.prompt = "A".repeat(64)), "hash");
    assert_eq!(wrong(|vote| vote.shown[1] = vote.shown[0].clone()), "shown");
    let with = |choice: Choice| cast("v", "ann", choice).check().map_err(|error| error.field);
    assert_eq!(with(better("three")), Err("answer"));
    assert_eq!(with(Choice::Flag { flag: Flag::Other, answer: None, note: "é".repeat(2_001) }), Err("note"));
    assert_eq!(with(Choice::Flag { flag: Flag::Other, answer: None, note: "é".repeat(2_000) }), Ok(()));
    let edit = |text: &str| with(Choice::Edit { answer: text_hash("one"), text: text.into() });
    assert_eq!([edit(" \n"), edit("two"), edit(&"x".repeat(70_000))], [Err("edited text"); 3]);
    assert_eq!(edit("three"), Ok(()));
    let [one, two] = ["one", "two"].map(text_hash);
    let rank = |groups: &[&[&String]]| {
        let groups = groups.iter().map(|group| group.iter().map(|hash| (*hash).clone()).collect()).collect();
        with(Choice::Ranking { groups })
    };
    assert_eq!([rank(&[&[&two], &[&one]]), rank(&[&[&two, &one]])], [Ok(()); 2]);
    assert_eq!([rank(&[&[&two]]), rank(&[&[&two, &one], &[]]), rank(&[&[&two, &two, &one]])], [Err("ranking"); 3]);
}

#[test]
fn choices_say_what_they_mean_of_two_answers() {
    let [one, two, three] = ["one", "two", "three"].map(text_hash);
    let says = |choice: &Choice| choice.preference(&one, &two);
    assert_eq!(says(&better("one")), Some(Preference::First));
    assert_eq!(says(&better("two")), Some(Preference::Second));
    assert_eq!(says(&Choice::Edit { answer: two.clone(), text: "x".into() }), Some(Preference::Second));
    assert_eq!(says(&better("three")), None);
    assert_eq!([says(&Choice::Same), says(&Choice::BothBad)], [Some(Preference::Same), Some(Preference::BothBad)]);
    assert_eq!(
        [says(&Choice::Skip), says(&Choice::Flag { flag: Flag::Broken, answer: None, note: String::new() })],
        [None; 2]
    );
    let ranking = Choice::Ranking { groups: vec![vec![three.clone()], vec![two.clone(), one.clone()]] };
    assert_eq!(says(&ranking), Some(Preference::Same));
    assert_eq!(ranking.preference(&three, &one), Some(Preference::First));
    assert_eq!(ranking.preference(&three, &text_hash("four")), None);
}

#[test]
fn undoing_and_changing_supersede_and_never_delete() {
    let first = cast("1", "ann", better("one"));
    let changed = change("2", "ann", Choice::Same, "1");
    let back = undo("3", "ann", "2");
    let gone = undo("4", "ann", "1");
    let again = cast("5", "ann", better("two"));
    let events = [first.clone(), changed, back, gone, again];
    let states: Vec<Vec<&str>> = (1..=5).map(|n| ids(&events[..n])).collect();
    assert_eq!(states, [vec!["1"], vec!["2"], vec!["1"], vec![], vec!["5"]]);
    // Taking the taking back.
    assert_eq!(ids(&[first.clone(), undo("2", "ann", "1"), undo("3", "ann", "2")]), ["1"]);
    // Nobody supersedes another's vote, nor one of another item, nor one that comes later; twice is once.
    assert_eq!(ids(&[first.clone(), undo("2", "eve", "1"), change("3", "eve", Choice::Same, "1")]), ["1", "3"]);
    let mut elsewhere = undo("2", "ann", "1");
    elsewhere.item = text_hash("another item");
    assert_eq!(ids(&[first.clone(), elsewhere]), ["1"]);
    assert_eq!(ids(&[undo("2", "ann", "1"), first.clone()]), ["1"]);
    assert_eq!(ids(&[first.clone(), undo("2", "ann", "1"), first.clone()]), [""; 0]);
    // A second opinion beside the first one is none: the last counts. A repeat is one.
    let repeat = Vote { kind: ItemKind::Repeat, ..cast("3", "ann", Choice::Same) };
    assert_eq!(ids(&[first, cast("2", "ann", better("two")), repeat]), ["2", "3"]);
}

proptest! {
    /// Whatever is sent, in whatever order and how often: one vote per person, item and round, and each of them was cast and not superseded.
    #[test]
    fn folding_gives_one_vote_per_person(steps in prop::collection::vec((0usize..6, 0usize..3, 0usize..8), 0..40)) {
        let mut events: Vec<Vote> = Vec::new();
        for (index, (what, who, target)) in steps.into_iter().enumerate() {
            let (id, who) = (index.to_string(), ["a", "b", "c"][who]);
            let target = target.to_string();
            events.push(match what {
                0 | 1 => cast(&id, who, better("one")),
                2 => change(&id, who, Choice::Same, &target),
                3 => undo(&id, who, &target),
                4 => events.first().cloned().unwrap_or_else(|| cast(&id, who, Choice::Skip)),
                _ => Vote { kind: ItemKind::Repeat, ..cast(&id, who, Choice::Skip) },
            });
        }
        let current = current_votes(&events);
        let keys: BTreeSet<_> =
            current.iter().map(|c| (&c.vote.annotator, &c.vote.item, c.vote.kind == ItemKind::Repeat)).collect();
        prop_assert_eq!(keys.len(), current.len());
        // Sending everything again changes nothing.
        let twice: Vec<Vote> = events.iter().chain(&events).cloned().collect();
        let again: Vec<&str> = current_votes(&twice).iter().map(|c| c.vote.id.as_str()).collect();
        prop_assert_eq!(again, ids(&events));
    }
}

#[test]
fn the_store_keeps_events_once_and_only_adds() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    assert_eq!(read_votes(run).unwrap(), []);
    let mut store = Store::open(run).unwrap();
    let votes = [cast("1", "ann", better("one")), cast("2", "bob", Choice::Same)];
    assert_eq!(store.append(&votes).unwrap(), [Appended::New(1), Appended::New(2)]);
    assert_eq!(store.append(&[votes[1].clone(), cast("3", "ann", Choice::Skip)]).unwrap()[0], Appended::Known(2));
    // Others read meanwhile, and nobody else writes.
    let read = read_votes(run).unwrap();
    assert_eq!(read.iter().map(|stored| stored.vote.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(read.windows(2).all(|two| two[0].sequence < two[1].sequence));
    assert!(matches!(Store::open(run), Err(StoreError::Locked { .. })));
    // All or nothing.
    let wrong = [cast("4", "ann", Choice::Same), cast("not an id", "ann", Choice::Same)];
    assert!(matches!(store.append(&wrong), Err(StoreError::Vote(_))));
    assert_eq!(store.votes().unwrap(), read);
    seal(run, 2, "export 1", 5).unwrap();
    assert_eq!((sealed_through(run).unwrap(), store.sealed_through().unwrap()), (2, 2));
    drop(store);
    let store = Store::open(run).unwrap();
    assert_eq!(store.votes().unwrap(), read);
    let mut lines = Vec::new();
    write_jsonl(&read, &mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((first["sequence"].clone(), first["id"].clone(), lines.lines().count()), (json!(1), json!("1"), 3));
}

#[test]
fn people_describe_themselves_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let ann = Person {
        pseudonym: "a-1".into(),
        name: "Ann".into(),
        credit: String::new(),
        consent: String::new(),
        languages: vec!["Hindi".into(), "Thai".into()],
        at: 1,
    };
    store.note_person(&ann).unwrap();
    store
        .note_person(&Person { pseudonym: "a-2".into(), name: "Robert'); DROP TABLE votes;--".into(), ..ann.clone() })
        .unwrap();
    let credited = Person { credit: "Ann B.".into(), at: 2, ..ann };
    store.note_person(&credited).unwrap();
    let people = read_people(folder.path()).unwrap();
    assert_eq!(people.len(), 2);
    assert_eq!(people[1], credited);
    assert_eq!(people[0].name, "Robert'); DROP TABLE votes;--");
}

#[test]
fn files_of_others_and_of_other_versions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    let path = votes_path(folder.path());
    let other = std::fs::read(&path).unwrap();
    // Offset 60 of the header: the user version (https://sqlite.org/fileformat.html).
    let mut newer = other.clone();
    newer[63] = 9;
    std::fs::write(&path, newer).unwrap();
    let error = Store::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("user_version is 9, expected 1") && error.contains("hint:"), "{error}");
    std::fs::write(&path, "not a database at all, but long enough to be looked at ".repeat(20)).unwrap();
    assert!(matches!(read_votes(folder.path()), Err(StoreError::Sqlite { .. })));
}

fn items(made: &Made, choice: AnswerChoice) -> Items {
    Items::of(&made.input(), &DatasetOptions::default(), choice, 1)
}

#[test]
fn items_are_rows_with_two_different_answers_and_survive_rating_anew() {
    let mut made = Made::empty();
    made.row("clear", ["human", "model"], [4.5, 2.0]);
    made.row("close", ["tie one", "tie two"], [3.0, 3.01]);
    made.row("same", ["equal", "equal"], [3.0, 3.0]);
    made.row("blank", ["only one", " \u{200b}"], [3.0, 3.0]);
    made.row("clear", ["human", "model"], [4.5, 2.0]);
    let found = items(&made, AnswerChoice::Pair);
    let prompts: Vec<&str> = found.items.iter().map(|item| item.prompt.as_str()).collect();
    assert_eq!(prompts, ["clear", "close"], "ties are what people are asked about too");
    assert_eq!(found.num_rows, found.items.len() as u64 + found.left_out.values().sum::<u64>());
    assert_eq!(found.left_out["duplicate_prompt"], 1);
    let clear = &found.items[0];
    assert_eq!(clear.judge_choice().unwrap().text, "human");
    assert!((clear.judge_margin().unwrap() - 2.5).abs() < 1e-9);
    assert_eq!(clear.language_tag.as_deref(), Some("hi"));
    assert_eq!(clear.answers[0].aspects.len(), clear.answers[1].aspects.len());
    // The same texts, rated the other way round: the same items.
    let mut anew = Made::empty();
    anew.row("close", ["tie one", "tie two"], [5.0, 1.0]);
    anew.row("clear", ["human", "model"], [1.0, 2.0]);
    let ids = |items: &Items| items.items.iter().map(|item| item.id.clone()).collect::<BTreeSet<_>>();
    assert_eq!(ids(&items(&anew, AnswerChoice::All)), ids(&found));
}

#[test]
fn planted_items_pair_an_own_answer_with_another_prompts() {
    let mut made = Made::empty();
    for index in 0..60 {
        let text = |what: &str| format!("{what} {index}");
        made.row(&text("prompt"), [&text("human"), &text("model")], [4.0, 3.0]);
    }
    let found = items(&made, AnswerChoice::Pair);
    assert_eq!((found.items.len(), found.gold.len()), (60, 3));
    for item in &found.gold {
        let number = item.prompt.strip_prefix("prompt ").unwrap();
        let right = item.answer(item.gold.as_deref().unwrap()).unwrap();
        assert_eq!(right.text, format!("human {number}"));
        let wrong: &Item = item;
        assert!(wrong.answers.iter().any(|answer| answer.text.starts_with("human") && answer.text != right.text));
        assert!(found.items.iter().all(|other| other.id != item.id));
        assert_eq!(found.get(&item.id), Some(item));
    }
}

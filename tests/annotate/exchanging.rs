//! Other annotation tools: what is written for them, and what comes back as votes, once each.
//! Knows the files' shapes as the tools document them; Argilla's own package is not asked.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use pairwright::annotate::exchange::argilla::{self, Dataset, agent};
use pairwright::annotate::exchange::label_studio::{self, FORM_FILE, Tasks};
use pairwright::annotate::exchange::{Handover, Imported, Responses, Users, to_votes};
use pairwright::annotate::items::Items;
use pairwright::annotate::store::StoredVote;
use pairwright::annotate::vote::{Action, Choice, Flag, ItemKind, Via, Vote, current_votes, text_hash};
use pairwright::provenance::sha256_hex;
use serde_json::{Value, json};

use crate::made::Made;
use crate::numbers::{items, prefers, rows, vote_on};

const ANN: &str = "5b0f3a1c-1111-4222-8333-444455556666";
const BOB: &str = "6c1f3a1c-1111-4222-8333-444455556666";

fn users() -> Users {
    Users::from([("ann".to_owned(), ANN.to_owned()), ("bob".to_owned(), BOB.to_owned())])
}

fn handover() -> Handover {
    Handover { with_suggestions: true, min_votes: 2, users: users() }
}

fn stored(votes: &[Vote]) -> Vec<StoredVote> {
    (1..).zip(votes).map(|(sequence, vote)| StoredVote { sequence, vote: vote.clone() }).collect()
}

fn import(found: Responses, made: &Made, past: &[Vote], sealed: i64) -> Imported {
    let prompts: HashSet<&str> = made.records.iter().map(|record| record.id.as_str()).collect();
    to_votes(found, &stored(past), &prompts, &users(), (sealed, 1_795_800_000))
}

/// Votes of every kind that the questions hold.
fn cast(items: &Items) -> Vec<Vote> {
    let on = |row: usize, who: &str, choice: Choice| {
        vote_on(&items.items[row], who, ItemKind::Ordinary, row % 2 == 1, choice)
    };
    let mut votes = vec![
        on(0, "ann", prefers("human 0")),
        on(0, "bob", prefers("model 0")),
        on(1, "ann", Choice::Same),
        on(2, "ann", Choice::BothBad),
        on(3, "ann", Choice::Flag { flag: Flag::Offensive, answer: None, note: String::new() }),
        on(4, "ann", Choice::Edit { answer: text_hash("model 4"), text: "بهتر است".into() }),
        on(5, "ann", Choice::Skip),
        on(6, "eve", prefers("human 6")),
    ];
    if let Action::Cast { ratings, .. } = &mut votes[0].action {
        *ratings = vec![Some(5), None];
    }
    votes
}

/// What holds, without ids, times and ways.
fn said(votes: &[Vote]) -> BTreeMap<(String, String), String> {
    let line = |choice: &Choice| serde_json::to_string(choice).unwrap();
    current_votes(votes)
        .iter()
        .map(|vote| {
            let rating = |hash: &String| {
                let at = vote.vote.shown.iter().position(|shown| shown == hash)?;
                vote.ratings.get(at).copied().flatten()
            };
            let mut sorted = vote.vote.shown.clone();
            sorted.sort();
            let ratings: Vec<Option<u8>> = sorted.iter().map(rating).collect();
            let key = (vote.vote.annotator.clone(), vote.vote.item.clone());
            (key, format!("{} {ratings:?}", line(vote.choice)))
        })
        .collect()
}

fn written(made: &Made, votes: &[Vote], dir: &Path) -> Dataset {
    let dataset = Dataset::of(&items(made).items, &current_votes(votes), "org/judge (v1) @ q4", &handover());
    dataset.write(dir, "a run").unwrap();
    dataset
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_argilla_folder_has_what_its_package_wants() {
    let made = rows();
    let votes = cast(&items(&made));
    let dir = tempfile::tempdir().unwrap();
    let dataset = written(&made, &votes, dir.path());
    // The skip and the one whose user nobody named stay here.
    assert_eq!((dataset.written.num_records, dataset.written.num_responses), (21, 6));
    let settings = json_of(&dir.path().join(".argilla/settings.json"));
    let required: Vec<&str> = settings["questions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|question| question["required"] == true)
        .map(|question| question["name"].as_str().unwrap())
        .collect();
    assert_eq!(required, ["preference"]);
    assert_eq!(settings["distribution"], json!({"strategy": "overlap", "min_submitted": 2}));
    assert_eq!(json_of(&dir.path().join(".argilla/dataset.json"))["name"], "a run");
    let records = json_of(&dir.path().join("records.json"));
    let mut sides = HashSet::new();
    for record in records.as_array().unwrap() {
        let fields = &record["fields"];
        let text = |name: &str| fields[name].as_str().unwrap();
        let prompt = text("prompt").trim_start_matches("prompt ").parse::<u64>().unwrap();
        let is_human_first = text("answer_a").starts_with("human");
        sides.insert(is_human_first);
        // The judge prefers the human answer in even rows; nothing else tells who wrote what.
        let expected = if is_human_first == prompt.is_multiple_of(2) { "a" } else { "b" };
        let suggested = &record["suggestions"]["preference"];
        assert_eq!(suggested["value"], expected);
        assert!((0.0..=1.0).contains(&suggested["score"].as_f64().unwrap()));
        assert_eq!(suggested["agent"], "org/judge -v1- - q4");
        assert_eq!(record["metadata"], json!({"language": "Hindi"}));
    }
    assert_eq!(sides.len(), 2, "both sides occur");
    let blind = Handover { with_suggestions: false, ..handover() };
    let blind = Dataset::of(&items(&made).items, &[], "judge", &blind);
    assert!(blind.records.iter().all(|record| record["suggestions"] == json!({})));
}

#[test]
fn agents_are_named_as_argilla_takes_them() {
    assert_eq!(agent("Qwen/Qwen3-14B"), "Qwen/Qwen3-14B");
    assert_eq!(agent("модель+1"), "-------1");
    assert_eq!(agent("模型"), "judge");
    assert_eq!(agent(&"x".repeat(300)).len(), 200);
}

#[test]
fn argilla_responses_come_back_as_the_votes_they_were_and_once() {
    let made = rows();
    let votes = cast(&items(&made));
    let dir = tempfile::tempdir().unwrap();
    written(&made, &votes, dir.path());
    let fresh = import(argilla::read(dir.path()).unwrap(), &made, &[], 0);
    assert!(fresh.left_out.is_empty(), "{:?}", fresh.left_out);
    assert!(fresh.votes.iter().all(|vote| vote.via == Via::Import && vote.check().is_ok()));
    let mut expected = said(&votes);
    expected.retain(|(who, item), said| who != "eve" && !said.contains("skip") && !item.is_empty());
    assert_eq!(said(&fresh.votes), expected);
    // Again, from the file, over what is there: nothing is new. Over the votes themselves neither.
    for past in [&fresh.votes, &votes] {
        let again = import(argilla::read(&dir.path().join("records.json")).unwrap(), &made, past, 0);
        assert_eq!((again.votes.len(), again.num_known), (0, 6));
    }
    // Somebody thinks again, and back again: each counts, and sealed ones stay.
    let mut past = fresh.votes.clone();
    let path = dir.path().join("records.json");
    let mut records = json_of(&path);
    for value in ["tie", "a", "tie"] {
        let record =
            records.as_array_mut().unwrap().iter_mut().find(|record| record["fields"]["prompt"] == "prompt 1").unwrap();
        record["responses"]["preference"][0]["value"] = json!(if value == "tie" { "both_bad" } else { value });
        std::fs::write(&path, records.to_string()).unwrap();
        let changed = import(argilla::read(&path).unwrap(), &made, &past, 0);
        assert_eq!((changed.votes.len(), changed.num_known), (1, 5));
        assert!(changed.votes[0].supersedes().is_some());
        past.extend(changed.votes);
    }
    assert_eq!(current_votes(&past).len(), 6);
    records[0]["responses"] = json!({});
    let sealed = import(argilla::read(dir.path()).unwrap(), &made, &fresh.votes, 6);
    assert_eq!((sealed.votes.len(), sealed.left_out.get("vote_is_sealed")), (0, Some(&1)));
}

#[test]
fn what_is_no_vote_is_left_out_with_its_reason() {
    let made = rows();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.json");
    let fields = json!({"prompt": "prompt 0", "answer_a": "human 0", "answer_b": "model 0"});
    let said = |value: &str, status: Value| json!({"preference": [{"value": value, "user_id": ANN, "status": status}]});
    let record = |fields: &Value, responses: Value| json!({"fields": fields, "responses": responses});
    let changed = json!({"id": sha256_hex(b"x"), "fields": fields, "responses": said("a", json!("submitted"))});
    let other = json!({"prompt": "another run's", "answer_a": "human 0", "answer_b": "model 0"});
    let records = json!([
        record(&fields, said("a", json!("draft"))),
        record(&fields, said("a", json!("discarded"))),
        record(&fields, said("c", json!("submitted"))),
        record(&fields, json!({"rating_a": [{"value": 3, "user_id": ANN}]})),
        record(&fields, json!({"preference": [{"value": "a"}]})),
        record(
            &fields,
            json!({"preference": [{"value": "a", "user_id": ANN}], "rating_a": [{"value": 9, "user_id": ANN}]})
        ),
        changed,
        record(&other, said("a", json!("submitted"))),
        record(&json!({"question": 1}), json!({})),
        // Argilla's own `to_disk` loses the status.
        record(&fields, json!({"preference": [{"value": "b", "user_id": "somebody@example.org", "status": null}]})),
        7,
    ]);
    std::fs::write(&path, records.to_string()).unwrap();
    let found = import(argilla::read(&path).unwrap(), &made, &[], 0);
    let reasons: Vec<(&str, u64)> = found.left_out.iter().map(|(reason, count)| (*reason, *count)).collect();
    assert_eq!(
        reasons,
        [
            ("discarded", 1),
            ("draft", 1),
            ("no_answer", 1),
            ("no_user", 1),
            ("not_of_this_run", 1),
            ("rating", 1),
            ("record_of_other_fields", 2),
            ("texts_were_changed", 1),
            ("unknown_value", 1)
        ]
    );
    let [vote] = found.votes.as_slice() else { panic!("{:?}", found.votes) };
    assert!(vote.annotator.starts_with("import-") && !serde_json::to_string(vote).unwrap().contains("somebody"));
    for wrong in ["{}", "[", "\u{feff}"] {
        std::fs::write(&path, wrong).unwrap();
        let error = argilla::read(&path).unwrap_err().to_string();
        assert!(error.contains("records.json") && error.contains("hint:"), "{error}");
    }
    assert!(argilla::read(&dir.path().join("nowhere")).unwrap_err().to_string().contains("nowhere"));
}

#[test]
fn label_studio_tasks_come_back_as_the_votes_they_were() {
    let made = rows();
    let votes = cast(&items(&made));
    let dir = tempfile::tempdir().unwrap();
    for file in ["tasks.json", "tasks.jsonl"] {
        let path = dir.path().join(file);
        let users = Users::from([("ann".to_owned(), "7".to_owned()), ("bob".to_owned(), "bob@example.org".to_owned())]);
        let handover = Handover { users: users.clone(), ..handover() };
        let tasks = Tasks::of(&items(&made).items, &current_votes(&votes), "judge", &handover);
        tasks.write(&path).unwrap();
        assert_eq!((tasks.tasks.len(), tasks.num_annotations), (21, 6));
        let prediction = &tasks.tasks[0]["predictions"][0];
        assert_eq!(
            (&prediction["model_version"], &prediction["result"][0]["type"]),
            (&json!("judge"), &json!("choices"))
        );
        let prompts: HashSet<&str> = made.records.iter().map(|record| record.id.as_str()).collect();
        let back = |past: &[Vote]| {
            to_votes(label_studio::read(&path).unwrap(), &stored(past), &prompts, &users, (0, 1_795_800_000))
        };
        let fresh = back(&[]);
        let mut expected = said(&votes);
        expected.retain(|(who, _), said| who != "eve" && !said.contains("skip"));
        assert_eq!(said(&fresh.votes), expected);
        let again = back(&fresh.votes);
        assert_eq!((again.votes.len(), again.num_known), (0, 6));
    }
    // As the tool itself exports it: more keys, users as objects, a text in place of a list, one cancelled.
    let path = dir.path().join("export.json");
    let mut task = json_of(&dir.path().join("tasks.json"))[8].clone();
    let region = |name: &str, kind: &str, value: Value| json!({"id": "x", "from_name": name, "to_name": "prompt", "type": kind, "origin": "manual", "value": value});
    task["annotations"] = json!([
        {"id": 3, "completed_by": {"id": 9, "email": "c@example.org"}, "was_cancelled": false, "lead_time": 1.5, "result": [
            region("preference", "choices", json!({"choices": ["a"]})),
            region("edit", "textarea", json!({"text": "better still"})),
            region("rating_b", "rating", json!({"rating": 2})),
        ]},
        {"id": 4, "completed_by": 9, "was_cancelled": true, "result": []},
    ]);
    std::fs::write(&path, json!([task]).to_string()).unwrap();
    let found = import(label_studio::read(&path).unwrap(), &made, &[], 0);
    assert_eq!((found.votes.len(), found.left_out.get("discarded")), (1, Some(&1)));
    let current = current_votes(&found.votes);
    assert!(matches!(current[0].choice, Choice::Edit { text, .. } if text == "better still"));
    assert_eq!(current[0].ratings, [None, Some(2)]);
    let form = std::fs::read_to_string(dir.path().join(FORM_FILE)).unwrap();
    for name in ["prompt", "answer_a", "answer_b", "preference", "rating_a", "rating_b", "flag", "edit"] {
        assert!(form.contains(&format!("name=\"{name}\"")), "{name}");
    }
    std::fs::write(&path, "{\"data\": 1}\nnot json\n").unwrap();
    let error = label_studio::read(&path).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("hint:"), "{error}");
}

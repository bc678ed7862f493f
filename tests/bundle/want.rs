//! The round trip: a sealed machine says what it lacks, a connected one makes a bundle of it, and then nothing is lacking.

use super::workshop::{ROWS, Workshop};
use super::{cached_model, done, refused, run};

#[test]
fn what_is_wanted_comes_and_is_wanted_no_more() {
    let (sealed, connected) = (Workshop::new(), Workshop::new());
    let wanted =
        ["bundle", "want", "--models", "org/writer", "--dataset", "p.jsonl", "--languages", "nld", "--dir", "t"];
    let outcome = run(&sealed, &wanted);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("org/writer: wanted") && outcome.stderr.contains("p.jsonl: wanted"));
    assert!(outcome.stdout.len() < 2048);
    connected.write("want.json", &outcome.stdout);
    let create = ["bundle", "create", "--want", "want.json", "-o", "a.tar", "--with-binary", "-q"];
    refused(&connected, 3, &create, &["org/writer", "pairwright pull org/writer"]);
    cached_model(&connected, "writer", "llama");
    connected.prompts("p.jsonl", &ROWS);
    done(&connected, &create);
    std::fs::copy(connected.path("a.tar"), sealed.path("a.tar")).unwrap();
    done(&sealed, &["bundle", "install", "a.tar", "--to", "t"]);
    let outcome = run(&sealed, &[&wanted[..3], &["org/writer", "--dir", "t"]].concat());
    assert!(outcome.stderr.contains("org/writer: here and whole"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("nothing is wanted"), "{}", outcome.stderr);
    // The prompts came in the language that was asked for.
    let said = done(&sealed, &["languages", "t/datasets/p-Dutch/p.jsonl"]);
    assert!(said.contains("Dutch") && !said.contains("Thai"), "{said}");
}

#[test]
fn names_of_the_list_become_ids_and_other_machines_want_other_programs() {
    let workshop = Workshop::new();
    let want = run(&workshop, &["bundle", "want", "--models", "EuroLLM-9B-Instruct"]).stdout;
    assert!(want.contains("\"utter-project/EuroLLM-9B-Instruct@"), "{want}");
    let mut other: serde_json::Value = serde_json::from_str(&want).unwrap();
    other["models"] = serde_json::json!([]);
    other["target"] = "aarch64-linux".into();
    workshop.write("want.json", other.to_string());
    let create = ["bundle", "create", "--want", "want.json", "-o", "b", "--with-binary"];
    refused(&workshop, 2, &create, &["aarch64-linux", "--with-binary=FILE"]);
    workshop.write("want.json", "{\"kind\": \"grocery list\"}");
    refused(&workshop, 3, &create, &["not a list of wants"]);
}

//! `models suggest`: an order with reasons, by what is known, and what is not known is said.

use pairwright::bench::table::{Figure, append};
use serde_json::Value;

use super::program::{done, run};

fn figure(model: &str, language: &str, metric: &str, value: f64, date: &str) -> Figure {
    Figure {
        bench_id: format!("{model}{date}"),
        date: date.to_owned(),
        pairwright_version: "0".to_owned(),
        machine: "m".to_owned(),
        device: "cpu".to_owned(),
        model: model.to_owned(),
        model_sha256: model.to_owned(),
        language: language.to_owned(),
        metric: metric.to_owned(),
        unit: "share".to_owned(),
        value,
        low: Some(value - 0.1),
        high: Some(value + 0.1),
        num_rows: 250,
        judge: None,
        prompts_sha256: "p".to_owned(),
    }
}

fn suggested(arguments: &[&str]) -> Vec<Value> {
    let stdout = done(&[&["models", "suggest", "--json"], arguments].concat());
    let value: Value = serde_json::from_str(&stdout).unwrap();
    value["suggestions"].as_array().unwrap().clone()
}

fn names(suggestions: &[Value]) -> Vec<&str> {
    suggestions.iter().map(|one| one["model"]["name"].as_str().unwrap()).collect()
}

#[test]
fn stated_support_comes_first_and_every_limit_holds() {
    let found = suggested(&["--language", "Dutch", "--memory", "24GB", "--role", "generator", "--licence", "open"]);
    assert!(found.len() >= 3);
    let support: Vec<&str> = found.iter().map(|one| one["support"].as_str().unwrap()).collect();
    assert!(support.is_sorted_by_key(|support| *support == "perhaps") && support[0] == "stated", "{support:?}");
    for (at, one) in found.iter().enumerate() {
        assert_eq!(one["rank"], at + 1);
        assert_eq!(one["model"]["licence_kind"], "open");
        assert!(one["model"]["roles"].as_array().unwrap().contains(&"generator".into()));
        assert!(one["fit"]["total_bytes"].as_u64().unwrap() <= 24_000_000_000);
        assert!(one["reasons"].as_array().unwrap().len() >= 3, "{one}");
        assert!(one["unknown"].as_array().unwrap().iter().any(|word| word == "nothing was measured in this language"));
    }
}

#[test]
fn figures_of_the_language_decide_among_equals() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("figures.parquet");
    let plain = suggested(&["--language", "nld", "--licence", "open"]);
    let stated: Vec<&str> = plain
        .iter()
        .filter(|one| one["support"] == "stated")
        .map(|one| one["model"]["name"].as_str().unwrap())
        .collect();
    let (first, last) = (stated[0], stated[stated.len() - 1]);
    assert_ne!(first, last);
    append(
        &table,
        &[
            figure(last, "nld", "win_rate", 0.3, "2026-01-01"),
            figure(last, "nld", "win_rate", 0.6, "2026-11-01"),
            figure(first, "nld", "win_rate", 0.5, "2026-11-01"),
            figure(first, "yor", "win_rate", 0.9, "2026-11-01"),
            figure(first, "nld", "peak_memory", 9.0, "2026-11-01"),
        ],
    )
    .unwrap();
    let results = folder.path().to_str().unwrap();
    let found = suggested(&["--language", "nl", "--licence", "open", "--results", results]);
    let order = names(&found);
    let place = |name: &str| order.iter().position(|own| *own == name).unwrap();
    assert!(place(last) < place(first), "the better figure wins: {order:?}");
    let own = &found[place(last)];
    assert_eq!(
        (own["measured"][0]["value"].as_f64(), own["measured"].as_array().unwrap().len()),
        (Some(0.6), 1),
        "the later one"
    );
    assert!(own["reasons"].to_string().contains("win_rate 0.600 (0.500 to 0.700) share, n = 250, 2026-11-01"), "{own}");
    assert_eq!(
        found[place(first)]["measured"].as_array().unwrap().len(),
        1,
        "no other language, and nothing that ranks no model"
    );
}

/// Each has another metric than the next: whatever is compared with what, it is one order.
#[test]
fn figures_that_few_models_have_still_give_one_order() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("figures.parquet");
    let plain = suggested(&["--language", "nld"]);
    let metrics = ["win_rate", "language_ok", "bits_per_byte", "known_answers"];
    let figures: Vec<Figure> = names(&plain)
        .iter()
        .enumerate()
        .flat_map(|(at, name)| {
            let own = (0..4).filter(move |bit| ((at * 7 % 15) >> bit) & 1 == 1);
            own.map(move |bit| figure(name, "nld", metrics[bit], (at * 5 % 7) as f64 / 7.0, "2026-11-01"))
        })
        .collect();
    append(&table, &figures).unwrap();
    let found = suggested(&["--language", "nld", "--results", folder.path().to_str().unwrap()]);
    assert_eq!(found.len(), plain.len());
    let won: Vec<Option<f64>> = found
        .iter()
        .filter(|one| one["support"] == "stated")
        .map(|one| {
            let measured = one["measured"].as_array().unwrap();
            measured.iter().find(|figure| figure["metric"] == "win_rate")?["value"].as_f64()
        })
        .collect();
    assert!(won.is_sorted_by(|a, b| a >= b), "{won:?}");
}

#[test]
fn unknown_languages_and_missing_tables_say_what_was_meant() {
    let wrong = run(&["models", "suggest", "--language", "Yorubba"]);
    assert_eq!(wrong.code, Some(3));
    assert!(wrong.stderr.contains("did you mean Yoruba (yor)"), "{}", wrong.stderr);
    let missing = run(&["models", "suggest", "--language", "yor", "--results", "/nowhere"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("pairwright bench --languages"), "{}", missing.stderr);
    let text = done(&["models", "suggest", "--language", "Yoruba", "--memory", "24GB"]);
    assert!(text.starts_with("For Yoruba (yor):\n  1. ") && text.contains("not known: nothing was measured"), "{text}");
    assert!(text.contains("No figures were given (--results)."));
}

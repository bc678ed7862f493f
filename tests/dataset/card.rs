//! Numbers, card and report of a written dataset.

use std::fs;
use std::path::Path;

use pairwright::dataset::{CARD_FILE, CardLanguage, DatasetOptions, Quantiles, TestSplit, render_report, to_yaml};
use pairwright::generate::{CandidateSource, FinishReason};
use pairwright::provenance::WeightsKind;
use serde_json::json;

use super::made::Run;

#[test]
fn numbers_of_the_summary() {
    let dir = tempfile::tempdir().unwrap();
    let summary = Run::new(16).write(dir.path(), &DatasetOptions::default()).unwrap();
    let counts: Vec<u64> = summary.pairs_at_margin.iter().map(|step| step.num_pairs).collect();
    assert_eq!(counts, [12, 10, 10, 10, 10, 10]);
    assert_eq!((summary.num_mixed_pairs, summary.chosen_human_share), (10, Some(0.4)));
    let health = summary.judge_health.as_ref().unwrap();
    assert_eq!((health.num_verdicts, health.unreliable_share), (30, 0.0));
    assert!((health.mean_label_mass - 0.9).abs() < 1e-12);
    assert_eq!(summary.rating_histogram["human"].iter().sum::<u64>(), 16);
    let quantiles = Quantiles::of((1..=10).map(f64::from).collect()).unwrap();
    assert_eq!([quantiles.min, quantiles.p10, quantiles.p50, quantiles.p90, quantiles.max], [1.0, 1.0, 5.0, 9.0, 10.0]);
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["num_pairs"], 10);
    assert!(json.get("samples").is_none());
}

#[test]
fn long_prompts_and_cut_answers_are_counted() {
    let mut run = Run::new(2);
    run.records[0].prompt = "अ ".repeat(1025);
    for candidate in run.candidates.iter_mut().filter(|candidate| candidate.source == CandidateSource::Model) {
        candidate.finish_reason = Some(FinishReason::Length);
    }
    let dir = tempfile::tempdir().unwrap();
    let summary = run.write(dir.path(), &DatasetOptions::default()).unwrap();
    assert_eq!((summary.num_long_prompts, summary.num_long_pairs, summary.num_truncated_answers), (1, 1, 2));
    let card = fs::read_to_string(dir.path().join(CARD_FILE)).unwrap();
    assert!(card.contains("1 of 2 prompts have more than 1024 characters"), "{card}");
    assert!(card.contains("2 answers in pairs were cut"), "{card}");
}

#[test]
fn yaml_strings_are_quoted_whatever_they_hold() {
    let value = json!({
        "language": ["no"],
        "name": "a: b # c \"d\" 'e' \\ سلام 👩🏽‍🚀\n- x",
        "odd": "\u{7f}\u{85}\u{2028}\u{feff}\u{1}",
        "list": [{"a": 1, "b": [{"c": true}, {"c": null}]}, "x", []],
        "empty": {},
    });
    let expected = "language:\n  - \"no\"\nname: \"a: b # c \\\"d\\\" 'e' \\\\ سلام 👩🏽‍🚀\\n- x\"\nodd: \"\\u007f\\u0085\\u2028\\ufeff\\u0001\"\n\
                    list:\n  - a: 1\n    b:\n      - c: true\n      - c: null\n  - \"x\"\n  - []\nempty: {}\n";
    assert_eq!(to_yaml(&value), expected);
}

#[test]
fn the_card_says_licences_and_warnings_honestly() {
    let card_of = |change: fn(&mut Run)| {
        let mut run = Run::new(8);
        change(&mut run);
        let dir = tempfile::tempdir().unwrap();
        run.write(dir.path(), &DatasetOptions::default()).unwrap();
        fs::read_to_string(dir.path().join(CARD_FILE)).unwrap()
    };
    let plain = card_of(|_| ());
    for part in [
        "---\nlanguage:\n  - \"fa\"\nmultilinguality: \"monolingual\"\n",
        "pretty_name: \"Pairwright Iranian Persian preferences\"\n",
        "in Iranian Persian (`pes`) for DPO",
        "tested for this language",
        "license: \"apache-2.0\"\n",
        "- \"extended|CohereLabs/aya_dataset\"\n",
        "- \"n<1K\"\n",
        "path: \"data/train-*\"\n",
        "num_examples: 5\n",
        "| rows in | 11 | 100.0 % |",
        "Checks of texts flag and rarely drop",
    ] {
        assert!(plain.contains(part), "{part} is missing in\n{plain}");
    }
    assert!(!plain.contains("is for show") && !plain.contains("prefer their own"));
    let mixed = card_of(|run| run.lock.judges[0].license = Some("gemma".into()));
    assert!(mixed.contains("license: \"other\"\nlicense_name: "), "{mixed}");
    assert!(mixed.contains("| judge | `judge` | `gemma` |"), "{mixed}");
    let unknown = card_of(|run| run.origin.license = None);
    assert!(unknown.contains("license: \"unknown\"\n"), "{unknown}");
    let demo = card_of(|run| run.lock.generators[0].weights = WeightsKind::EmbeddedDemo);
    assert!(demo.contains("train nothing on it"), "{demo}");
    let toy = card_of(|run| {
        run.lock.generators[0].weights = WeightsKind::EmbeddedDemo;
        run.lock.judges = run.lock.generators.clone();
    });
    assert_eq!(toy.matches("train nothing on it").count(), 1, "said once of one model\n{toy}");
    let own = card_of(|run| run.lock.judges = run.lock.generators.clone());
    assert!(own.contains("models prefer their own"), "{own}");
}

#[test]
fn the_card_names_every_language_of_a_mixed_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::new(8);
    let card_codes = ["am", "nl", "yo"].map(String::from).to_vec();
    run.language = CardLanguage { name: "3 languages".into(), code: String::new(), card_codes };
    run.write(dir.path(), &DatasetOptions::default()).unwrap();
    let card = fs::read_to_string(dir.path().join(CARD_FILE)).unwrap();
    for part in [
        "---\nlanguage:\n  - \"am\"\n  - \"nl\"\n  - \"yo\"\nmultilinguality: \"multilingual\"\n",
        "# Pairwright preferences in 3 languages\n",
        "in 3 languages (`am`, `nl`, `yo`) for DPO",
        "tested for these languages",
    ] {
        assert!(card.contains(part), "{part} is missing in\n{card}");
    }
    run.language = CardLanguage::default();
    run.write(dir.path(), &DatasetOptions::default()).unwrap();
    let card = fs::read_to_string(dir.path().join(CARD_FILE)).unwrap();
    assert!(!card.contains("multilinguality") && card.contains("a language that the source does not name"), "{card}");
}

/// `datasets` fails on a configuration without a row, so a dataset without pairs is one of `raw`.
#[test]
fn a_dataset_without_pairs_names_what_can_be_loaded() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dataset_sample_without_pairs");
    let options = DatasetOptions { test_split: Some(TestSplit::Fraction(0.1)), ..DatasetOptions::default() };
    let mut run = Run::new(8);
    run.verdicts.clear();
    let summary = run.write(&dir, &options).unwrap();
    assert_eq!(summary.num_pairs, 0);
    let card = fs::read_to_string(dir.join(CARD_FILE)).unwrap();
    assert!(!card.contains("config_name: \"default\"") && !card.contains("data/train"), "{card}");
    assert_eq!(card.matches("default: true").count(), 1, "{card}");
    assert!(card.contains("There is no pair yet") && !card.contains("DPOTrainer"), "{card}");
    assert!(card.contains("raw = load_dataset(\"path/or/hub-id\", \"raw\")"), "{card}");
    let (_, configs) = card.split_once("configs:\n").unwrap();
    assert_eq!(configs.matches("config_name:").count(), 2, "once to find the files, once to describe them\n{card}");
}

#[test]
fn the_report_fences_any_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::new(16);
    run.lock.generators[0].weights = WeightsKind::Dummy;
    let summary = run.write(dir.path(), &DatasetOptions::default()).unwrap();
    let report = render_report(&summary, &run.lock);
    assert!(report.contains("## 10 pairs to read"), "{report}");
    assert!(report.contains("````text\n"), "a text with a fence gets a longer one");
    assert!(report.contains("train nothing on this") && report.contains("| 0.05 | 10 |"), "{report}");
    let fences = report.lines().filter(|line| line.starts_with("```")).count();
    assert_eq!(fences % 2, 0);
}

/// Leaves a dataset with awkward names for `scripts/check_dataset.py`, in Cargo's folder for test output.
#[test]
fn a_sample_for_the_python_check_is_written() {
    let mut run = Run::new(200);
    run.lock.generators[0].name = "wri\"ter: #1 | `نموذج`".into();
    run.language.name = "Iranian: #Persian \"فارسی\"".into();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dataset_sample");
    let options = DatasetOptions { test_split: Some(TestSplit::Fraction(0.1)), ..DatasetOptions::default() };
    let summary = run.write(&dir, &options).unwrap();
    assert_eq!(summary.files.len(), 3);
    assert!(summary.files.iter().all(|file| dir.join(&file.path).is_file()));
}

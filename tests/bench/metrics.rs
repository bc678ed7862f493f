//! chrF++ against sacrebleu, bits per byte against Transformers' loss (scripts/make_bench_fixtures.py wrote both), and language confusion
//! against an example worked by hand.

use std::path::Path;

use pairwright::bench::table;
use pairwright::quality::{ChrfCounts, EnglishWords, LineCheck, check_lines, default_profile};
use serde_json::Value;

use super::program::{done, fixture_model, text};
use super::workshop::Workshop;

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bench").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn chrf_is_that_of_sacrebleu() {
    let expected = fixture("chrf.json");
    assert_eq!(expected["made_with"], "sacrebleu 2.6.0");
    let rows = expected["rows"].as_array().unwrap();
    assert!(rows.len() >= 50);
    let mut all = ChrfCounts::default();
    for row in rows {
        let counts = ChrfCounts::of(row["text"].as_str().unwrap(), row["reference"].as_str().unwrap());
        let score = row["score"].as_f64().unwrap();
        assert!((counts.score() - score).abs() < 1e-6, "{} is not {score}: {row}", counts.score());
        all += counts;
    }
    assert!((all.score() - expected["corpus"].as_f64().unwrap()).abs() < 1e-6);
}

#[test]
fn bits_per_byte_are_those_of_transformers_loss() {
    let expected = fixture("loss.json");
    let rows: Vec<[&str; 4]> = expected["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| [row[0].as_str().unwrap(), row[1].as_str().unwrap(), "Dutch", "nld"])
        .collect();
    let workshop = Workshop::new();
    let prompts = workshop.prompts("prompts.jsonl", &rows);
    for (name, expected) in expected["models"].as_object().unwrap() {
        let out = workshop.arg(name);
        let model = fixture_model(name);
        let flags = ["--system-prompt", "none", "--max-tokens", "4", "--n", "9", "-q", "--out", &out];
        let given = ["bench", "--languages", "nld", "--models", text(&model), "--prompts", text(&prompts)];
        done(&[&given[..], &flags].concat());
        let journal =
            std::fs::read_to_string(workshop.path(name).join("languages/nld/journal/likelihoods.jsonl")).unwrap();
        let found: Vec<Value> = journal
            .lines()
            .skip(1)
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["row"]["likelihood"].clone())
            .collect();
        assert_eq!(found.len(), rows.len());
        for expected in expected["rows"].as_array().unwrap() {
            let bits = expected["bits"].as_f64().unwrap();
            let per_byte = bits / expected["bytes"].as_f64().unwrap();
            let own = found.iter().find(|row| row["num_bytes"] == expected["bytes"]).unwrap();
            for count in ["num_tokens", "num_prompt_tokens"] {
                assert_eq!(own[count], expected[count], "{name}: {count} of {own}");
            }
            let got = -own["logprob"].as_f64().unwrap() / std::f64::consts::LN_2 / own["num_bytes"].as_f64().unwrap();
            assert!((got - per_byte).abs() < 1e-4, "{name}: {got} is not {per_byte}");
        }
        let figures = table::read(&workshop.path(name).join("figures.parquet")).unwrap();
        let of = |metric: &str| figures.iter().find(|figure| figure.metric == metric).unwrap();
        let total = expected["bits_per_byte"].as_f64().unwrap();
        assert!((of("bits_per_byte").value - total).abs() < 1e-4, "{name}: {total}");
        assert_eq!((of("bits_per_byte").num_rows, of("bits_per_byte").unit.as_str()), (5, "bit/byte"));
        let (bytes, tokens) = (162.0 + 26.0, found.iter().map(|row| row["num_tokens"].as_f64().unwrap()).sum::<f64>());
        let sum: f64 = found.iter().map(|row| row["num_bytes"].as_f64().unwrap()).sum();
        assert!((of("bytes_per_token").value - sum / tokens).abs() < 1e-9, "{bytes}");
    }
}

/// Ten answers that should be Thai: by hand, seven have lines that count, five of these pass, and four of the five have no English word.
#[test]
fn language_confusion_is_as_worked_by_hand() {
    const THAI: &str = "ประเทศไทยมีภูมิอากาศแบบร้อนชื้นและมีฝนตกชุกในฤดูมรสุมของทุกปี";
    const ENGLISH: &str = "Thailand has a tropical climate with heavy rain during the monsoon season.";
    const RUSSIAN: &str = "В Таиланде тропический климат с сильными дождями во время сезона муссонов.";
    let answers: [(String, u64, u64, bool); 10] = [
        (THAI.to_owned(), 1, 0, false),
        (format!("{THAI}\n{THAI}"), 2, 0, false),
        (format!("{THAI} weather"), 1, 0, true),
        (format!("{THAI} (Bangkok, DNA, the, sea)"), 1, 0, false),
        (ENGLISH.to_owned(), 1, 1, true),
        (format!("{THAI}\n\n{RUSSIAN}"), 2, 1, false),
        ("ใช่".to_owned(), 0, 0, false),
        ("```\nlet heavy = weather();\n```".to_owned(), 0, 0, false),
        (format!("– – – – – –\n{THAI}\n1. 2. 3. 4. 5."), 1, 0, false),
        (String::new(), 0, 0, false),
    ];
    let words = EnglishWords::of([ENGLISH, "The weather in Bangkok is hot."]);
    let (mut judged, mut passed, mut without_english) = (0, 0, 0);
    for (answer, num_lines, num_wrong, has_english) in &answers {
        let check = check_lines(default_profile(), answer, "tha");
        if answer.contains("1. 2. 3.") {
            // The line of numbers has five words and no letters: it counts, and is in no other language.
            assert_eq!(check, LineCheck { num_lines: num_lines + 1, num_wrong: *num_wrong }, "{answer}");
        } else {
            assert_eq!(check, LineCheck { num_lines: *num_lines, num_wrong: *num_wrong }, "{answer}");
        }
        let english = words.are_in(&pairwright::quality::prose(answer));
        assert_eq!(english, *has_english, "{answer}");
        judged += u64::from(check.num_lines > 0);
        passed += u64::from(check.num_lines > 0 && check.num_wrong == 0);
        without_english += u64::from(check.num_lines > 0 && check.num_wrong == 0 && !english);
    }
    assert_eq!((judged, passed, without_english), (7, 5, 4));
}

//! Three languages by three models of random weights: every metric of every cell, the same bytes after kills, more languages and models
//! later, a table of several benches, rows kept apart, and two models held against one another.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use pairwright::bench::languages::metrics::METRICS;
use pairwright::bench::table::{self, Figure};
use serde_json::Value;

use super::program::{done, fixture_model, run, text};
use super::workshop::{ROWS, Workshop};

pub const MODELS: [&str; 3] = ["llama", "qwen3", "gemma2"];
pub const LANGUAGES: [&str; 3] = ["nld", "tha", "arb"];

/// Prompts with answers long enough to be judged in three languages and in English.
pub fn source(workshop: &Workshop, times: usize) -> std::path::PathBuf {
    let bases = [
        (
            "Hoe gaat het vandaag",
            "Het weer is vandaag mooi en wij gaan straks samen naar het strand bij de zee",
            "Dutch",
            "nld",
        ),
        ("วันนี้อากาศเป็นอย่างไร", "วันนี้อากาศดีมากและเราจะไปเที่ยวทะเลด้วยกันในตอนบ่าย", "Thai", "tha"),
        ("كيف الطقس اليوم", "الطقس جميل اليوم وسوف نذهب معا إلى شاطئ البحر بعد الظهر", "Arabic", "arb"),
        (
            "How is the weather today",
            "The weather is fine today and we will go to the beach together",
            "English",
            "eng",
        ),
    ];
    let word =
        |at: usize| format!("{}{}{}", ["amber", "birch", "cedar", "dunes"][at % 4], ["ly", "ed", "ing"][at % 3], at);
    let texts: Vec<[String; 4]> = (0..times)
        .flat_map(|at| {
            bases.map(|(prompt, answer, language, code)| {
                let more = if code == "eng" { english(at) } else { String::new() };
                [
                    format!("{prompt} {}?", word(at)),
                    format!("{answer} {at}.{more}"),
                    language.to_owned(),
                    code.to_owned(),
                ]
            })
        })
        .collect();
    let rows: Vec<[&str; 4]> = texts.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    workshop.prompts("prompts-test.jsonl", &rows)
}

/// Words in lower case, of letters alone, that make a dictionary.
fn english(at: usize) -> String {
    let letter = |number: usize| char::from(b'a' + (number % 26) as u8);
    (0..40).map(|number| format!(" word{}{}{}", letter(at), letter(number), letter(number / 26))).collect()
}

pub fn arguments(workshop: &Workshop, prompts: &Path, out: &str, languages: &[&str], more: &[&str]) -> Vec<String> {
    let models: Vec<String> = MODELS.iter().map(|name| text(&fixture_model(name)).to_owned()).collect();
    let rubric = workshop.arg("rubric.toml");
    let judge = fixture_model("qwen2");
    let flags = [
        "--system-prompt",
        "none",
        "--n",
        "6",
        "--max-tokens",
        "12",
        "--temperature",
        "1",
        "--known-answers",
        "2",
        "-q",
        "--machine",
        "a machine",
    ];
    let mut all = vec!["bench", "--languages"].into_iter().map(str::to_owned).collect::<Vec<_>>();
    all.extend([languages.join(","), "--models".to_owned(), models.join(",")]);
    all.extend(["--prompts", text(prompts), "--judge", text(&judge), "--rubric", &rubric].map(str::to_owned));
    all.extend(["--out".to_owned(), workshop.arg(out)]);
    all.extend(flags.iter().chain(more).map(|flag| (*flag).to_owned()));
    all
}

pub fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn workshop() -> Workshop {
    let workshop = Workshop::new();
    // Comparisons too, whatever the labels' probability.
    let pairwise = "[pairwise]\nintro = \"Which is better?\"\nfirst_heading = \"### A\"\nsecond_heading = \"### B\"\nlabels = [\"A\", \"B\"]\n\
                    question = \"A or B?\"\n";
    let rubric = super::workshop::RUBRIC
        .replace("[[aspect]]\nname = \"form\"", &format!("{pairwise}[[aspect]]\nname = \"form\""));
    workshop.write("rubric.toml", rubric);
    workshop
}

fn metrics_of(figures: &[Figure], language: &str, model: &str) -> BTreeSet<String> {
    let own = figures.iter().filter(|figure| figure.language == language && figure.model == model);
    own.map(|figure| figure.metric.clone()).collect()
}

#[test]
fn three_languages_by_three_models_give_a_whole_table() {
    let workshop = workshop();
    let prompts = source(&workshop, 9);
    done(&borrowed(&arguments(&workshop, &prompts, "bench", &LANGUAGES, &["--table", &workshop.arg("all.parquet")])));
    let figures = table::read(&workshop.path("bench/figures.parquet")).unwrap();
    let measured = table::read(&workshop.path("bench/measured.parquet")).unwrap();
    let of_judge = ["known_answers", "ratings_per_hour", "comparisons_per_hour"];
    let of_machine = ["prefill_tokens_per_s", "decode_tokens_per_s", "rows_per_hour", "peak_memory"];
    // Random letters are in no language, so that no line has to be in one, and hardly any answer is judged.
    let may_lack = ["language_ok", "line_pass", "line_ok", "word_pass", "repeated"];
    for language in LANGUAGES {
        for model in MODELS {
            let all: BTreeSet<String> = METRICS.iter().map(|metric| metric.id.to_owned()).collect();
            let mut got = metrics_of(&figures, language, model);
            got.extend(metrics_of(&measured, language, model));
            let missing: Vec<&String> = all.difference(&got).filter(|id| !of_judge.contains(&id.as_str())).collect();
            assert!(missing.iter().all(|id| may_lack.contains(&id.as_str())), "{language}, {model}: {missing:?}");
        }
        let judge: BTreeSet<String> =
            metrics_of(&figures, language, "qwen2").union(&metrics_of(&measured, language, "qwen2")).cloned().collect();
        assert_eq!(judge, of_judge.map(str::to_owned).into());
    }
    for figure in &figures {
        assert!(!of_machine.contains(&figure.metric.as_str()));
        let (low, high) = (figure.low.unwrap(), figure.high.unwrap());
        assert!(low <= figure.value && figure.value <= high, "{figure:?}");
        assert!(figure.num_rows > 0 && figure.date == "2026-11-22" && figure.machine == "a machine", "{figure:?}");
        assert_eq!(figure.judge.is_some(), JUDGED.contains(&figure.metric.as_str()), "{figure:?}");
    }
    let asked = figures.iter().filter(|figure| figure.metric == "failed");
    assert!(asked.clone().all(|figure| figure.num_rows == 6 && figure.value == 0.0));
    assert_eq!(asked.count(), 9);
    let sorted = |mut figures: Vec<Figure>| {
        figures.sort_by(|a, b| (&a.language, &a.model, &a.metric).cmp(&(&b.language, &b.model, &b.metric)));
        figures
    };
    let all = table::read(&workshop.path("all.parquet")).unwrap();
    assert!(sorted(all) == sorted([figures, measured].concat()));

    // Later another day's bench goes into the same table, of which a repetition is no other.
    done(&borrowed(&arguments(&workshop, &prompts, "bench", &LANGUAGES, &["--table", &workshop.arg("all.parquet")])));
    let before = table::read(&workshop.path("all.parquet")).unwrap();
    done(&borrowed(&arguments(
        &workshop,
        &prompts,
        "other",
        &["nld"],
        &["--seed", "5", "--table", &workshop.arg("all.parquet")],
    )));
    let after = table::read(&workshop.path("all.parquet")).unwrap();
    assert_eq!(after[..before.len()], before);
    assert!(
        after[before.len()..].iter().all(|figure| figure.language == "nld" && figure.bench_id != before[0].bench_id)
    );
    assert!(after.len() > before.len());

    compares(&workshop);
}

const JUDGED: [&str; 8] = [
    "win_rate",
    "tie_rate",
    "win_rate_length_controlled",
    "rating_difference",
    "order_consistency",
    "label_mass",
    "judge_entropy",
    "known_answers",
];

/// Two models of a bench, and one against itself.
fn compares(workshop: &Workshop) {
    let bench = workshop.arg("bench");
    let tests: Vec<Value> = done(&["bench", "compare", "llama", "qwen3", "--in", &bench, "--json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let bits: Vec<&Value> = tests.iter().filter(|test| test["metric"] == "bits_per_byte").collect();
    assert_eq!(bits.len(), 3);
    for test in &tests {
        let number = |field: &str| test[field].as_f64().unwrap();
        assert!((number("first") - number("second") - number("difference")).abs() < 1e-9, "{test}");
        assert!(number("low") <= number("difference") && number("difference") <= number("high"), "{test}");
        assert!(
            number("p") <= number("p_corrected") && number("p_corrected") <= 1.0 && test["num_rows"] == 6,
            "{test}"
        );
    }
    let same = done(&["bench", "compare", "gemma2", "gemma", "--in", &bench]);
    assert!(same.contains("corrected for these") && same.contains("+0.000") && !same.contains("+0.001"), "{same}");
    let unknown = run(&["bench", "compare", "llama", "nobody", "--in", &bench]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("there are gemma2, llama, qwen3"), "{}", unknown.stderr);
}

#[test]
fn a_killed_bench_ends_as_if_it_never_was() {
    let workshop = workshop();
    let prompts = source(&workshop, 9);
    let small = ["--max-batch", "2"];
    done(&borrowed(&arguments(&workshop, &prompts, "whole", &LANGUAGES[..2], &small)));
    let journal = |out: &str, language: &str, stage: &str| {
        workshop.path(out).join(format!("languages/{language}/journal/{stage}.jsonl"))
    };
    let points = [
        ("nld", "likelihoods", 3),
        ("tha", "candidates", 4),
        ("nld", "candidates", 15),
        ("tha", "verdicts", 9),
        ("nld", "comparisons", 5),
    ];
    let mut num_cut = 0;
    for (index, (language, stage, lines)) in points.into_iter().enumerate() {
        let out = format!("killed{index}");
        let arguments = arguments(&workshop, &prompts, &out, &LANGUAGES[..2], &small);
        let mut child = Command::new(env!("CARGO_BIN_EXE_pairwright"))
            .args(&arguments)
            .env("PAIRWRIGHT_DATE", "2026-11-22")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let path = journal(&out, language, stage);
        let num_lines = || std::fs::read(&path).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count());
        while num_lines() < lines && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        num_cut += usize::from(!workshop.path(&out).join("figures.parquet").exists());
        // What a killed process leaves of a line is passed over.
        done(&borrowed(&arguments));
        for file in ["figures.parquet", "figures.csv"] {
            let [whole, other] = ["whole", &out].map(|bench| std::fs::read(workshop.path(bench).join(file)).unwrap());
            assert!(whole == other, "killed at {stage} of {language}: {file} differs from the uninterrupted bench's");
        }
    }
    assert!(num_cut >= 3, "{num_cut} benches were killed before their end");
}

#[test]
fn languages_come_later_and_leave_the_others_as_they_are() {
    let workshop = workshop();
    let prompts = source(&workshop, 7);
    done(&borrowed(&arguments(&workshop, &prompts, "both", &["nld", "tha"], &[])));
    done(&borrowed(&arguments(&workshop, &prompts, "later", &["tha"], &[])));
    done(&borrowed(&arguments(&workshop, &prompts, "later", &["Dutch"], &[])));
    let [both, later] = ["both", "later"].map(|out| std::fs::read(workshop.path(out).join("figures.parquet")).unwrap());
    assert!(both == later);
}

#[test]
fn rows_that_a_run_trains_on_are_left_out_and_counted() {
    let workshop = workshop();
    let prompts = source(&workshop, 8);
    let model = fixture_model("llama");
    let make = ["generate", "--model", text(&model), "--prompts", text(&prompts), "--language", "nld", "--limit", "5"];
    let out = workshop.arg("run");
    done(&[&make[..], &["--max-tokens", "2", "-q", "--out", &out]].concat());
    done(&borrowed(&arguments(&workshop, &prompts, "apart", &["nld"], &["--apart-from", &out])));
    let ids = |path: &str| -> BTreeSet<String> {
        let text = std::fs::read_to_string(workshop.path(path)).unwrap();
        text.lines()
            .skip(1)
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (trained, benched) = (ids("run/prompts.jsonl"), ids("apart/languages/nld/prompts.jsonl"));
    assert_eq!((trained.len(), benched.len()), (5, 3));
    assert!(trained.is_disjoint(&benched));
    let page = std::fs::read_to_string(workshop.path("apart/report.html")).unwrap();
    assert!(page.contains("5 rows that a run trains on were left out"));
}

#[test]
fn what_cannot_be_benched_is_refused_before_anything_runs() {
    let workshop = workshop();
    let prompts = workshop.prompts("prompts.jsonl", &ROWS);
    let cases: [(&[&str], &[&str], i32, &str); 4] = [
        (&["nld", "Dutch"], &[], 2, "--languages names nld twice"),
        (&["xho"], &[], 3, "no rows in `xho`"),
        (&["nld"], &["-n", "2"], 2, "one answer per prompt"),
        (&["nld"], &["--apart-from", "nowhere"], 3, "nowhere"),
    ];
    for (languages, more, code, said) in cases {
        let outcome = run(&borrowed(&arguments(&workshop, &prompts, "refused", languages, more)));
        assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
        assert!(!workshop.path("refused/figures.parquet").exists());
    }
    let outcome = run(&["bench", "--languages", "nld"]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    let outcome = run(&["bench", "report", &workshop.arg("nothing")]);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("holds no bench"), "{}", outcome.stderr);
}

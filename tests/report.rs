//! The report: its numbers are those of the dataset, its page holds no text as markup and asks for nothing, and the same run gives
//! the same bytes. How it looks is `scripts/check_pages.sh`'s part.

#[path = "report/html.rs"]
mod html;
#[path = "support/judged.rs"]
mod judged;
#[path = "report/made.rs"]
mod made;

use pairwright::judge::Share;
use pairwright::judge::agreement::Estimate;
use pairwright::judge::known::KnownShift;
use pairwright::provenance::{ModelRecord, WeightsKind};
use pairwright::report::{
    JudgeAgreement, KnownAnswer, KnownTotal, LanguageCheck, OrderConsistency, Unfinished, Weight,
};
use serde_json::{Value, json};

use html::texts_of;
use judged::model;
use made::Made;

/// Texts that would be markup, leave their place, turn the page around, or cannot be shown.
const HOSTILE: [&str; 12] = [
    "<script>document.title='OWNED'</script>",
    "\"]]><img src=x onerror=alert(1)>",
    "</div></article></main><style>*{display:none}</style>",
    "\u{202E}txt.exe\u{202D} \u{2067}a",
    "a\u{0}b\u{1B}[31mc\u{7F}\u{85}",
    "' onmouseover='alert(1)",
    "\" style=\"background:url(https://evil.example/x)\" x=\"",
    "javascript:alert(1) [a](javascript:alert(2))",
    "{{ self }} {% include \"x\" %} {# y #}",
    "<!-- --> &lt;b&gt; &#60;i&#62; <![CDATA[ x ]]>",
    "z\u{300}\u{301}\u{302}\u{489}\u{20DD}\u{FFFC}\u{FEFF}\u{E0041}",
    "</title></style></svg><svg onload=alert(1)>",
];

fn numbers(made: &Made) -> Value {
    serde_json::from_str(&made.report().to_json().unwrap()).unwrap()
}

fn page(made: &Made) -> String {
    made.report().to_html().unwrap()
}

#[test]
fn numbers_are_those_of_the_summary() {
    let made = Made::mixed(60);
    let (report, summary) = (numbers(&made), serde_json::to_value(made.summary()).unwrap());
    for name in ["num_rows_in", "num_records", "num_pairs"] {
        assert_eq!(report["funnel"][name], summary[name], "{name}");
    }
    for drop in report["funnel"]["drops"].as_array().unwrap() {
        assert_eq!(drop["rows"]["count"], summary["drops"][drop["reason"].as_str().unwrap()]);
    }
    assert_eq!(report["funnel"]["drops"].as_array().unwrap().len(), summary["drops"].as_object().unwrap().len());
    let dropped: u64 =
        report["funnel"]["drops"].as_array().unwrap().iter().map(|d| d["rows"]["count"].as_u64().unwrap()).sum();
    assert_eq!(
        report["funnel"]["paired"]["count"].as_u64().unwrap() + dropped,
        summary["num_rows_in"].as_u64().unwrap()
    );
    assert_eq!(report["human_chosen"]["share"], summary["chosen_human_share"]);
    assert_eq!(report["longer_chosen"]["share"], summary["lengths"]["chosen_longer_share"]);
    assert_eq!(report["unreliable"]["share"], summary["judge_health"]["unreliable_share"]);
    assert_eq!(report["margins"]["quantiles"], summary["margin_quantiles"]);
    for step in summary["pairs_at_margin"].as_array().unwrap() {
        let own = report["margins"]["pairs_at_margin"].as_array().unwrap();
        let own = own.iter().find(|own| own["margin"] == step["margin"]).unwrap();
        assert_eq!(own["num_pairs"], step["num_pairs"]);
    }
    // Every answer and every prompt is in one bin of each drawing.
    let sum = |bins: &Value| bins.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum(&report["human_ratings"]["bins"]) + sum(&report["model_ratings"]["bins"]), 120);
    assert_eq!(report["couples"]["grid"].as_array().unwrap().iter().map(sum).sum::<u64>(), 60);
    assert_eq!(sum(&report["lengths"]["num_by_ratio"]), summary["num_pairs"].as_u64().unwrap());
    let bins = report["margins"]["bins"].as_array().unwrap();
    let of = |name: &str| bins.iter().map(|bin| bin[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(of("num_human") + of("num_model"), summary["num_pairs"].as_u64().unwrap());
    assert_eq!(of("num_ties"), summary["drops"]["tie"].as_u64().unwrap());
}

#[test]
fn hostile_texts_are_inert() {
    let mut made = Made::empty();
    for (n, text) in HOSTILE.iter().enumerate() {
        let [human, answer] = ["human", "model"].map(|who| format!("{who} {text}"));
        made.row(text, [&human, &answer], [3.0, if n % 2 == 0 { 4.0 } else { 2.0 }]);
        // Everything that a source or a model directory can name is as hostile.
        let record = made.records.last_mut().unwrap();
        (record.language, record.language_code) = (format!("L{text}"), format!("c{text}"));
    }
    let all = HOSTILE.concat();
    let mut writer = ModelRecord { weights: WeightsKind::Dummy, ..model(&format!("writer{all}")) };
    (writer.license, writer.dtype) = (Some(all.clone()), all.clone());
    made.lock.generators = vec![writer];
    made.lock.accepted_changes = vec![all.clone()];
    made.lock.created.clone_from(&all);
    made.language.name.clone_from(&all);
    (made.origin.dataset, made.origin.license) = (Some(all.clone()), Some(all.clone()));
    for verdict in &mut made.verdicts {
        verdict.judge = format!("judge{all}");
        verdict.aspects[0].aspect = format!("aspect{all}");
    }
    made.failures.insert(made.records[0].id.clone(), all.clone());
    made.verdicts.retain(|verdict| verdict.record_id != made.records[0].id);
    let page = page(&made);
    let texts = texts_of(&page).unwrap();
    // They are all there to be read, as texts.
    for text in [HOSTILE[1], HOSTILE[2], HOSTILE[5], HOSTILE[6], HOSTILE[8], HOSTILE[9], HOSTILE[11]] {
        assert!(texts.contains(&format!("model {text}")) || texts.contains(&format!("human {text}")), "{text}");
    }
    assert!(texts.contains("⟨U+202E⟩txt.exe") && texts.contains("a␀b␛[31mc␡⟨U+0085⟩"));
}

#[test]
fn a_page_says_nothing_of_the_machine() {
    let page = page(&Made::mixed(10));
    assert!(!page.contains("secret"), "paths and devices stay at home");
    assert!(!numbers(&Made::mixed(10)).to_string().contains("secret"));
}

#[test]
fn templates_escape_everything() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/templates");
    for entry in std::fs::read_dir(format!("{folder}/report")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["|safe", "| safe", "autoescape", "| e", "<script", "src=", "//"] {
            assert!(!text.contains(word), "{} says {word}", path.display());
        }
    }
}

#[test]
fn the_same_rows_in_any_order_give_the_same_bytes() {
    let made = Made::mixed(60);
    let mut turned = Made::mixed(60);
    turned.candidates.reverse();
    turned.verdicts.rotate_left(17);
    turned.lock.environment.device = "another".into();
    turned.lock.source.path = "/elsewhere/aya.parquet".into();
    assert_eq!(page(&made), page(&turned));
    assert_eq!(made.report().to_json().unwrap(), turned.report().to_json().unwrap());
    turned.lock.seed = 8;
    assert_ne!(page(&made), page(&turned), "another seed draws other examples");
}

#[test]
fn small_runs_have_a_page() {
    let mut one = Made::empty();
    one.row("p", ["a", "bb"], [2.0, 4.0]);
    let mut ties = Made::empty();
    for n in 0..5 {
        ties.row(&format!("p{n}"), ["same length", "length same"], [3.0, 3.0]);
    }
    for (made, num_pairs, said) in
        [(Made::empty(), 0, "There are no pairs."), (one, 1, "There is 1 pair only."), (ties, 0, "There are no pairs.")]
    {
        let texts = texts_of(&page(&made)).unwrap();
        assert!(texts.contains(said), "{said}: {texts}");
        assert!(!texts.contains("NaN") && !texts.contains("inf "), "{texts}");
        assert_eq!(numbers(&made)["funnel"]["num_pairs"], num_pairs);
    }
}

/// The weights and beginnings of what a run is warned of.
fn findings(made: &Made) -> Vec<(Weight, String)> {
    made.report().findings().into_iter().map(|finding| (finding.weight, finding.what)).collect()
}

#[test]
fn findings_name_what_spoils_a_dataset_worst_first() {
    let mut made = Made::empty();
    for n in 0..300 {
        made.row(&format!("p{n}"), ["a long answer by a person", "short"], [4.0, 2.0]);
    }
    for verdict in made.verdicts.iter_mut().take(100) {
        verdict.reliable = false;
    }
    let found = findings(&made);
    for said in
        ["The human answer is chosen nearly always", "The longer answer is chosen in", "The judge did not want to rate"]
    {
        assert!(
            found.iter().any(|(weight, what)| *weight == Weight::Care && what.starts_with(said)),
            "{said}: {found:?}"
        );
    }
    assert_eq!(made.report().verdict(), (Weight::Care, "Look at 3 things first.".to_owned()));
    let toy = ModelRecord { weights: WeightsKind::EmbeddedDemo, ..model("toy") };
    (made.lock.generators, made.lock.judges) = (vec![toy.clone()], vec![toy]);
    let found = findings(&made);
    let first = "The generator and judge “toy” is for show: there is nothing to train on.";
    assert_eq!(found[0], (Weight::Stop, first.to_owned()));
    assert_eq!(made.report().verdict().1, "No.");
    let mut fine = Made::empty();
    for n in 0..300 {
        let ratings = if n % 2 == 0 { [4.0, 2.0] } else { [2.0, 4.0] };
        fine.row(&format!("p{n}"), [&"x".repeat(10 + n % 3), "model answer"], ratings);
    }
    assert_eq!(findings(&fine), []);
    assert_eq!(fine.report().verdict().0, Weight::Note);
}

#[test]
fn what_other_parts_find_out_has_its_place() {
    let mut report = Made::mixed(30).report();
    report.language_checks = None;
    let before = texts_of(&report.to_html().unwrap()).unwrap();
    let share = |count| Share::of(count, 40).unwrap();
    let name = "judge <b>".to_owned();
    report.language_checks = Some(vec![LanguageCheck {
        language: "Hindi".into(),
        source: "model".into(),
        num_ok: 30,
        num_mixed: 3,
        num_wrong: 6,
        num_unsure: 1,
    }]);
    report.order_consistency =
        Some(vec![OrderConsistency { judge: name.clone(), consistent: share(22), first_preferred: Some(share(31)) }]);
    report.agreement = Some(JudgeAgreement {
        alpha: Some(0.31),
        same_preference: Some(share(29)),
        weights: [(name.clone(), 1.5)].into(),
    });
    report.known_answers = Some(vec![KnownAnswer {
        judge: name.clone(),
        method: "rating",
        language: "Hindi".into(),
        test: "shuffled",
        passed: Some(share(19)),
        shift: None,
    }]);
    report.known_totals = vec![KnownTotal { judge: name.clone(), language: "Hindi".into(), passed: share(20) }];
    let shift = Estimate { value: 0.6, low: 0.3, high: 0.9, n: 1200 };
    report.known_shifts = vec![KnownShift { judge: name.clone(), method: "rating", shift }];
    report.unfinished = Some(Unfinished { num_answers: 5, num_answers_wanted: 30, num_ratings: 1 });
    let after = texts_of(&report.to_html().unwrap()).unwrap();
    for said in [
        "In which language the answers are",
        "Both orders",
        "Agreement of the judges",
        "Tests with a known answer",
        "The run is not finished: 5 of 30 answers are there",
        "6 of 40 model answers in Hindi are in another language.",
        "In Hindi, “judge <b>” passed the tests with a known answer not surely more often",
        "prefers the same answer in both orders in only 55 %",
        "an appended demand for the best rating moves its ratings by +0.60 (n = 1200, 95 %: +0.30 to +0.90)",
    ] {
        assert!(after.contains(said) && !before.contains(said), "{said}");
    }
    let json: Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(json["order_consistency"][0]["consistent"]["count"], 22);
    assert_eq!(json["findings"][0]["weight"], json!("stop"));
}

/// The program with a pinned date; gives stdout.
fn program(arguments: &[&str]) -> String {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_pairwright"));
    let output = command.args(arguments).env("PAIRWRIGHT_DATE", "2026-11-22").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_program_writes_the_page_with_the_dataset_and_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (run, other, page) = (path("run"), path("other"), path("page.html"));
    let summary: Value = serde_json::from_str(&program(&["make", "--demo", "--out", &run, "--json", "-q"])).unwrap();
    let written = std::fs::read_to_string(path("run/report.html")).unwrap();
    let texts = texts_of(&written).unwrap();
    assert!(texts.contains("there is nothing to train on") && texts.contains("Preference pairs in 16 languages"));
    // On demand it is the same page, with this machine's speeds besides.
    program(&["report", &run, "--out", &page]);
    let on_demand = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = on_demand.split_once("<section aria-labelledby=\"speed\">").unwrap();
    let (speeds, after) = rest.split_once("</section>").unwrap();
    assert!(format!("{before}{after}") == written && !written.contains("How fast it was"));
    assert!(speeds.contains("generate + judge") && speeds.contains("known answers"), "{speeds}");
    texts_of(&on_demand).unwrap();
    let numbers: Value = serde_json::from_str(&program(&["report", &run, "--json"])).unwrap();
    assert_eq!(numbers["funnel"]["num_pairs"], summary["num_pairs"]);
    let of_both = numbers["speeds"].as_array().unwrap().iter().find(|speed| speed["rows"]["judge"] == 96).unwrap();
    assert!(of_both["rows"]["generate"] == 48 && of_both["num_output_tokens"].as_u64() > Some(48), "{of_both}");
    assert_eq!(numbers["known_shifts"][0]["shift"]["n"], summary["judge_health"]["known_shifts"][0]["shift"]["n"]);
    assert_eq!(numbers["human_chosen"]["share"], summary["chosen_human_share"]);
    let card = std::fs::read_to_string(path("run/dataset/README.md")).unwrap();
    assert_eq!(card.matches("95 % interval").count(), 3, "the card's shares say how sure they are");
    assert!(card.contains("an appended demand for the best rating moves its ratings by "), "{card}");
    // Another process and batch size, and pairing again: the same bytes.
    program(&["make", "--demo", "--out", &other, "--max-batch", "3", "-q"]);
    program(&["pair", &other, "--source-license", "apache-2.0", "-q"]);
    assert!(std::fs::read_to_string(path("other/report.html")).unwrap() == written);
    // A run that has answers and no rating yet can be looked at.
    let (half, prompts, toy) = (path("half"), path("run/demo/prompts.jsonl"), path("run/demo/model"));
    program(&["generate", "--prompts", &prompts, "--model", &toy, "--out", &half, "-q"]);
    let numbers: Value = serde_json::from_str(&program(&["report", &half, "--json"])).unwrap();
    assert_eq!(numbers["unfinished"]["num_ratings"], 0);
    assert!(!std::path::Path::new(&path("half/report.html")).exists(), "--json alone writes no page");
}

//! `languages` without a file: every language, what is known of it with its day, and a page that asks for nothing.

use pairwright::coverage::{Coverage, Local, LocalCounts};
use pairwright::data::language::AyaLanguages;
use pairwright::registry::Registry;
use serde_json::Value;

use super::html::texts_of;
use super::program::{done, run};

#[test]
fn every_language_stands_in_all_three_forms() {
    let all: Value = serde_json::from_str(&done(&["languages", "--json"])).unwrap();
    let rows = all["languages"].as_array().unwrap();
    assert_eq!(rows.len(), 71);
    let one = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    assert_eq!((one("Dutch")["rows"].as_u64(), one("Dutch")["rows_exact"].as_bool()), (Some(1733), Some(true)));
    assert_eq!(one("Dutch")["preference_listed"], true);
    assert_eq!((one("Urdu")["direction"].as_str(), one("Urdu")["iso639_1"].as_str()), (Some("rtl"), Some("ur")));
    assert_eq!(one("Plateau Malagasy")["exact_code"], "plt");
    // Who names Arabic says nothing of Morocco's.
    let models = |name: &str| one(name)["models"].as_array().unwrap().len();
    assert!(models("Standard Arabic") > models("Moroccan Arabic"));
    assert_eq!(one("Moroccan Arabic")["identifier"]["code"], "ara", "told apart as Arabic");
    assert!(rows.iter().all(|row| row["local"].is_null()), "nothing was asked for");
    for snapshot in ["rows", "preference"] {
        assert!(all[snapshot]["date"].as_str().unwrap().starts_with("2024-"));
    }
    let table = done(&["languages"]);
    for row in rows {
        for field in ["name", "own_name", "code"] {
            assert!(table.contains(row[field].as_str().unwrap()), "{row}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("l.html");
    assert_eq!(done(&["languages", "--html", path.to_str().unwrap()]), "", "a page in place of the table");
    let texts = texts_of(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for row in rows {
        assert!(texts.contains(row["own_name"].as_str().unwrap()), "{row}");
    }
    assert!(!texts.contains("made here") && texts.contains("not listed then"));
}

#[test]
fn runs_of_this_machine_are_counted_by_language() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let run_dir = runs.join("demo");
    done(&["make", "--demo", "--out", run_dir.to_str().unwrap(), "--device", "cpu", "--quiet"]);
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(run_dir.join("summary.json")).unwrap()).unwrap();
    for local in [&run_dir, &runs] {
        let all: Value =
            serde_json::from_str(&done(&["languages", "--json", "--local", local.to_str().unwrap()])).unwrap();
        assert_eq!(all["num_local_runs"], 1);
        let rows = all["languages"].as_array().unwrap();
        let sum = |name: &str| rows.iter().map(|row| row["local"][name].as_u64().unwrap()).sum::<u64>();
        assert_eq!(sum("num_rows"), 48);
        assert_eq!(sum("num_pairs"), summary["num_pairs"].as_u64().unwrap());
    }
    let none = run(&["languages", "--local", folder.path().to_str().unwrap()]);
    assert_eq!(none.code, Some(2));
    assert!(none.stderr.contains("there is no run"), "{}", none.stderr);
}

#[test]
fn a_page_holds_nothing_but_texts() {
    let mut aya = AyaLanguages::embedded().unwrap();
    let hostile = "<script>alert(1)</script> \u{202E}\u{0}\" onload=\"x";
    for language in &mut aya.languages {
        (language.name, language.own) = (format!("{} {hostile}", language.name), hostile.to_owned());
        language.scripts = vec![hostile.to_owned()];
        language.code = format!("{}\" onload=\"x", language.code);
    }
    aya.rows.what = hostile.to_owned();
    aya.preference.source = hostile.to_owned();
    let mut local = LocalCounts::default();
    local.add("Dutch", "nld", Local { num_rows: 3, num_pairs: 2, num_votes: 1 });
    local.num_runs = 1;
    let registry = Registry::embedded().unwrap();
    let profile = &pairwright_profile();
    let page = Coverage::of(&aya, &registry, profile, Some(&local)).to_html().unwrap();
    let texts = texts_of(&page).unwrap();
    assert!(texts.contains("<script>alert(1)</script> ⟨U+202E⟩"), "shown as they are");
    let honest = Coverage::of(&AyaLanguages::embedded().unwrap(), &registry, profile, Some(&local)).to_html().unwrap();
    let texts = texts_of(&honest).unwrap();
    assert!(texts.contains("2 pairs, 1 votes"), "{texts}");
    // The names of languages that run from right to left stand in a box of their own.
    assert!(honest.contains("<bdi class=\"own\" dir=\"rtl\" lang=\"urd\">اردو</bdi>"));
    assert!(honest.contains("default-src 'none'"));
}

fn pairwright_profile() -> pairwright::quality::Profile {
    pairwright::quality::default_profile().clone()
}

#[test]
fn templates_escape_everything() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/templates/coverage");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["|safe", "| safe", "autoescape", "| e", "<script", "src=", "//"] {
            assert!(!text.contains(word), "{} says {word}", path.display());
        }
    }
}

//! Comparisons: both orders are asked, exchanging the answers changes the sign alone, and equal answers tie; neither place nor company
//! changes a rating.

use pairwright::generate::{Candidate, CandidateSource, Ending};
use pairwright::judge::{CompareItem, CompareRow, Comparison, RowLanguage, Rubric, compare};

use super::loaded::{Patient, engine_options, load};
use super::{asked, fixture_model, items, rubric, verdicts};

fn model_answer(id: usize, text: &str) -> Candidate {
    Candidate { source: CandidateSource::Model, model: "m".to_owned(), ..Candidate::human(&id.to_string(), text) }
}

fn pairs() -> Vec<CompareItem> {
    let texts = [("ما هو الماء؟", "سائل", "حجر"), ("น้ำ?", "ของเหลว", "หิน"), ("💧?", "H₂O", "H₂O"), ("जल?", "द्रव", "5")];
    let item = |(id, (prompt, human, model)): (usize, (&str, &str, &str))| CompareItem {
        prompt: asked(prompt),
        answers: [Candidate::human(&id.to_string(), human), model_answer(id, model)],
    };
    texts.into_iter().enumerate().map(item).collect()
}

fn compared(name: &str, rubric: &Rubric, items: Vec<CompareItem>) -> Vec<Comparison> {
    let mut model = load(&fixture_model(name), engine_options());
    let order: Vec<_> = items.iter().map(|item| item.key(name)).collect();
    let mut found = Vec::new();
    let ending = compare(&mut model, rubric, items, &mut Patient::default(), |row| {
        found.push(row);
        Ok(())
    });
    assert_eq!(ending.unwrap(), Ending::Completed);
    found.sort_by_key(|row| order.iter().position(|key| *key == row.key()));
    let comparison = |row| match row {
        CompareRow::Comparison(comparison) => comparison,
        CompareRow::Failure(failure) => panic!("{failure:?}"),
    };
    found.into_iter().map(comparison).collect()
}

/// A rubric whose texts fit the fixtures' context.
fn short(folder: &tempfile::TempDir) -> Rubric {
    let mut rubric = rubric(folder, ["1", "2", "3", "4", "5"], 0.0);
    let texts = rubric.pairwise.as_mut().expect("the built-in texts");
    (texts.intro, texts.question) = ("Compare.".to_owned(), "A or B?".to_owned());
    (texts.first_heading, texts.second_heading) = ("A:".to_owned(), "B:".to_owned());
    rubric
}

#[test]
fn exchanging_two_answers_changes_the_sign_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let rubric = short(&folder);
    for name in ["llama", "qwen2", "gemma3"] {
        let found = compared(name, &rubric, pairs());
        let exchanged = pairs().into_iter().map(|mut item| {
            item.answers.reverse();
            item
        });
        let exchanged = compared(name, &rubric, exchanged.collect());
        for (one, other) in found.iter().zip(&exchanged) {
            assert_eq!(one.preference.to_bits(), (-other.preference).to_bits(), "{one:?} {other:?}");
            assert_eq!(one.log_odds, [-other.log_odds[1], -other.log_odds[0]]);
            assert_eq!(one.label_mass, [other.label_mass[1], other.label_mass[0]]);
            assert_eq!((one.consistent, one.reliable), (other.consistent, other.reliable));
            assert_eq!(one.winner().map(|at| 1 - at), other.winner());
            assert_eq!(one.preference, (one.log_odds[0] + one.log_odds[1]) / 2.0);
            let same_sign = one.log_odds[0] * one.log_odds[1] > 0.0;
            assert_eq!(one.consistent, same_sign, "{one:?}");
        }
        assert!(found.iter().any(|one| one.preference != 0.0));
    }
}

#[test]
fn equal_answers_tie_whatever_the_place_is_worth() {
    let folder = tempfile::tempdir().unwrap();
    let found = compared("qwen2", &short(&folder), pairs());
    let equal = &found[2];
    assert_eq!((equal.preference, equal.consistent, equal.winner()), (0.0, false, None), "{equal:?}");
    assert_eq!(equal.log_odds[0], -equal.log_odds[1], "the place alone");
}

#[test]
fn a_comparison_depends_on_its_two_answers_alone() {
    let folder = tempfile::tempdir().unwrap();
    let rubric = short(&folder);
    let together = compared("llama", &rubric, pairs());
    for (at, item) in pairs().into_iter().enumerate() {
        assert_eq!(compared("llama", &rubric, vec![item]), together[at..=at]);
    }
}

#[test]
fn neither_place_nor_company_changes_a_rating() {
    let folder = tempfile::tempdir().unwrap();
    let rubric = rubric(&folder, ["1", "2", "3", "4", "5"], 0.0);
    let mut model = load(&fixture_model("llama"), engine_options());
    let forwards = verdicts(&mut model, &rubric, items());
    let mut backwards = verdicts(&mut model, &rubric, items().into_iter().rev().collect());
    backwards.reverse();
    assert_eq!(forwards, backwards, "to the bit");
}

#[test]
fn a_language_has_its_own_texts_and_examples() {
    let text = "name = \"n\"\nversion = 1\nintro = \"Rate.\"\nprompt_heading = \"P\"\nanswer_heading = \"A\"\n\
        labels = [\"1\", \"2\", \"3\", \"4\", \"5\"]\n[[aspect]]\nname = \"all\"\nweight = 1.0\nquestion = \"Good?\"\n\
        [[example]]\nlanguage = \"nld\"\nprompt = \"hoi?\"\nanswer = \"hoi\"\nrating = 4\n\
        [languages.nld]\nintro = \"Beoordeel.\"\nanswer_heading = \"Antwoord\"\n[languages.nld.questions]\nall = \"Goed?\"\n";
    let rubric = Rubric::parse(text, std::path::Path::new("r.toml")).unwrap();
    let dutch = RowLanguage { name: "Dutch", code: "nld" };
    let message = rubric.message(&rubric.aspects[0], dutch, "wat?", "dat");
    assert!(message.starts_with("Beoordeel.\n\nP [") && message.ends_with("\n\nGoed?"), "{message}");
    assert!(
        message.contains("Antwoord [") && message.contains("\nhoi\n") && message.contains("\nGoed?\n4\n"),
        "{message}"
    );
    let other = rubric.message(&rubric.aspects[0], RowLanguage { name: "Thai", code: "tha" }, "wat?", "dat");
    assert!(other.starts_with("Rate.\n\nP [") && !other.contains("hoi") && other.ends_with("\n\nGood?"), "{other}");
    for (wrong, said) in [("all = \"Goed?\"", "nothing = \"x\""), ("rating = 4", "rating = 6")] {
        let error = Rubric::parse(&text.replace(wrong, said), std::path::Path::new("r.toml")).unwrap_err().to_string();
        assert!(error.contains("r.toml") && error.contains("hint: "), "{error}");
    }
}

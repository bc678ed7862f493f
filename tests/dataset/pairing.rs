//! What pairs and what does not, and that neither order nor authorship decides.

use std::collections::BTreeMap;

use pairwright::data::PromptRecord;
use pairwright::dataset::{DropReason, PairOutcome, PairingOptions, Said, is_blank, pair_record};
use pairwright::generate::{Candidate, CandidateSource};
use pairwright::judge::Verdict;
use proptest::prelude::*;

use super::judged::verdict;
use super::made::{answer, generated, human, record, shuffle};

fn outcome_of(
    record: &PromptRecord,
    candidates: &[Candidate],
    verdicts: &[Verdict],
    failure: Option<&str>,
) -> PairOutcome {
    let (candidates, verdicts): (Vec<_>, Vec<_>) = (candidates.iter().collect(), verdicts.iter().collect());
    let said = Said { candidates: &candidates, verdicts: &verdicts, comparisons: &[], failure };
    pair_record(record, said, &BTreeMap::new(), &PairingOptions::default()).outcome
}

#[test]
fn the_better_rated_answer_is_chosen_whoever_wrote_it() {
    let record = record(0);
    let answers = [human(&record), generated(&record)];
    for (ratings, chosen_index) in [([4.0, 2.0], 0), ([2.0, 4.0], 1)] {
        let verdicts = [verdict(&answers[0], ratings[0]), verdict(&answers[1], ratings[1])];
        let outcome = outcome_of(&record, &answers, &verdicts, None);
        let pair = outcome.pair().unwrap();
        assert_eq!((pair.chosen_index, pair.rejected_index), (chosen_index, 1 - chosen_index));
        assert_eq!((pair.chosen_rating, pair.rejected_rating, pair.margin), (Some(4.0), Some(2.0), Some(2.0)));
        assert_eq!(outcome.as_str(), "pair");
    }
}

#[test]
fn every_reason_has_its_case() {
    let record = record(0);
    let (own, made) = (human(&record), generated(&record));
    let both = [own.clone(), made.clone()];
    let rated = |a: f64, b: f64| vec![verdict(&own, a), verdict(&made, b)];
    let with_text = |text: &str| [own.clone(), Candidate { text: text.into(), ..made.clone() }];
    let unsure = vec![verdict(&own, 4.0), Verdict { reliable: false, ..verdict(&made, 2.0) }];
    let same_text = format!("  {}\n", own.text);
    let cases: Vec<(&str, PairOutcome)> = vec![
        ("tie", outcome_of(&record, &both, &rated(3.0, 3.05), None)),
        ("tie", outcome_of(&record, &both, &rated(3.0, 3.0), None)),
        ("unreliable_verdict", outcome_of(&record, &both, &unsure, None)),
        ("missing_candidate", outcome_of(&record, &both[..1], &rated(4.0, 2.0), None)),
        ("missing_candidate", outcome_of(&record, &[], &[], None)),
        ("missing_verdict", outcome_of(&record, &both, &rated(4.0, 2.0)[..1], None)),
        ("invalid_rating", outcome_of(&record, &both, &rated(4.0, f64::NAN), None)),
        ("invalid_rating", outcome_of(&record, &both, &rated(4.0, 10.0), None)),
        ("identical_answers", outcome_of(&record, &with_text(&same_text), &rated(4.0, 2.0), None)),
        ("empty_answer", outcome_of(&record, &with_text(" \n\u{200B}\u{FEFF}"), &rated(4.0, 2.0), None)),
        (
            "conflicting_answers",
            outcome_of(
                &record,
                &[own.clone(), made.clone(), Candidate { text: "x".into(), ..made.clone() }],
                &rated(4.0, 2.0),
                None,
            ),
        ),
        (
            "empty_prompt",
            outcome_of(&PromptRecord { prompt: " ".into(), ..record.clone() }, &both, &rated(4.0, 2.0), None),
        ),
        ("prompt_too_long", outcome_of(&record, &both[..1], &[], Some("prompt_too_long"))),
        ("prompt_or_answer_error", outcome_of(&record, &both[..1], &[], Some(" "))),
        ("prompt_or_answer_error", outcome_of(&record, &both[..1], &[], Some("pair"))),
        ("pair", outcome_of(&record, &both, &rated(4.0, 2.0), Some("late trouble"))),
        ("pair", outcome_of(&record, &both, &rated(5.000000000000001, 1.0), None)),
        (
            "pair",
            outcome_of(&record, &[&both[..], &both[..]].concat(), &[rated(4.0, 2.0), rated(4.0, 2.0)].concat(), None),
        ),
    ];
    for (expected, outcome) in cases {
        assert_eq!(outcome.as_str(), expected);
    }
    assert_eq!(DropReason::DuplicatePrompt.as_str(), "duplicate_prompt");
    let keep = PairingOptions { drop_unreliable: false, ..PairingOptions::default() };
    let (candidates, verdicts) = (both.each_ref(), unsure.iter().collect::<Vec<_>>());
    let said = Said { candidates: &candidates, verdicts: &verdicts, ..Said::default() };
    let kept = pair_record(&record, said, &BTreeMap::new(), &keep);
    assert_eq!(kept.outcome.as_str(), "pair");
    assert!(is_blank("\u{2060}\t") && !is_blank("።"));
}

#[test]
fn an_unusable_answer_does_not_spoil_the_others() {
    let record = record(0);
    let third = answer(&record, CandidateSource::Model, "writer", 1, "");
    let answers = [third.clone(), human(&record), generated(&record)];
    let verdicts = [verdict(&answers[1], 4.0), verdict(&answers[2], 2.0), verdict(&third, 1.0)];
    let outcome = outcome_of(&record, &answers, &verdicts, None);
    assert_eq!(outcome.pair().map(|pair| (pair.chosen_index, pair.rejected_index)), Some((0, 1)));
}

#[test]
fn several_judges_are_averaged() {
    let record = record(0);
    let answers = [human(&record), generated(&record)];
    let second = |candidate: &Candidate, rating| Verdict { judge: "another".into(), ..verdict(candidate, rating) };
    let verdicts =
        [verdict(&answers[0], 4.0), second(&answers[0], 2.0), verdict(&answers[1], 1.0), second(&answers[1], 2.0)];
    let outcome = outcome_of(&record, &answers, &verdicts, None);
    assert_eq!(outcome.pair().map(|pair| (pair.chosen_rating, pair.rejected_rating)), Some((Some(3.0), Some(1.5))));
}

/// One answer in a generated case: text, rating in hundredths, and whether its verdict is there and reliable.
pub type Answer = (u8, u16, bool, bool);

pub fn case(answers: &[Answer]) -> (PromptRecord, Vec<Candidate>, Vec<Verdict>) {
    let record = record(3);
    let texts = ["", "alpha", "beta ", "beta", "γάμμα", "दल"];
    let candidates: Vec<Candidate> = answers
        .iter()
        .enumerate()
        .map(|(index, (text, ..))| {
            let source = if index == 0 { CandidateSource::Human } else { CandidateSource::Model };
            answer(&record, source, &format!("m{index}"), 0, texts[*text as usize % texts.len()])
        })
        .collect();
    let verdicts = answers
        .iter()
        .zip(&candidates)
        .filter(|((_, _, is_there, _), _)| *is_there)
        .map(|((_, rating, _, reliable), candidate)| Verdict {
            reliable: *reliable,
            ..verdict(candidate, 1.0 + f64::from(*rating % 401) / 100.0)
        })
        .collect();
    (record, candidates, verdicts)
}

/// Outcome in terms of the answers themselves: (chosen model, rejected model, margin), or the reason.
fn told(
    record: &PromptRecord,
    candidates: &[Candidate],
    verdicts: &[Verdict],
) -> Result<(String, String, f64), String> {
    let (candidates, verdicts): (Vec<_>, Vec<_>) = (candidates.iter().collect(), verdicts.iter().collect());
    let said = Said { candidates: &candidates, verdicts: &verdicts, ..Said::default() };
    let judged = pair_record(record, said, &BTreeMap::new(), &PairingOptions::default());
    let model = |index: usize| judged.answers[index].candidate.model.clone();
    match &judged.outcome {
        PairOutcome::Pairs(pairs) => {
            let [pair] = pairs.as_slice() else { panic!("{pairs:?}") };
            Ok((model(pair.chosen_index), model(pair.rejected_index), pair.margin.unwrap()))
        }
        PairOutcome::Dropped(reason) => Err(reason.as_str().to_string()),
    }
}

pub fn answers_strategy() -> impl Strategy<Value = Vec<Answer>> {
    prop::collection::vec((any::<u8>(), any::<u16>(), prop::bool::weighted(0.9), prop::bool::weighted(0.9)), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn neither_order_nor_authorship_decides(answers in answers_strategy(), seed in any::<u64>()) {
        let (record, candidates, verdicts) = case(&answers);
        let expected = told(&record, &candidates, &verdicts);
        let (mut shuffled, mut said) = (candidates.clone(), verdicts.clone());
        shuffle(&mut shuffled, seed);
        shuffle(&mut said, seed.rotate_left(7));
        prop_assert_eq!(told(&record, &shuffled, &said), expected.clone());
        let swap = |source: &mut CandidateSource| *source = match source {
            CandidateSource::Human => CandidateSource::Model,
            CandidateSource::Model => CandidateSource::Human,
        };
        shuffled.iter_mut().for_each(|candidate| swap(&mut candidate.source));
        said.iter_mut().for_each(|verdict| swap(&mut verdict.source));
        prop_assert_eq!(told(&record, &shuffled, &said), expected.clone());
        if let Ok((chosen, rejected, margin)) = expected {
            let text = |model: &str| candidates.iter().find(|candidate| candidate.model == model).unwrap().text.trim();
            prop_assert!(margin >= 0.1 && text(&chosen) != text(&rejected));
            prop_assert!(!text(&chosen).is_empty() && !text(&rejected).is_empty());
        }
    }
}

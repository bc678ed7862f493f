//! Which answers meet, and what several judges and comparisons make of them.

use std::collections::BTreeMap;

use pairwright::dataset::{Decision, JudgedPrompt, PairChoice, PairingOptions, Said, pair_record};
use pairwright::generate::{Candidate, CandidateSource};
use pairwright::judge::{AnswerName, Comparison, Verdict};

use super::judged::verdict;
use super::made::{answer, human, record};

/// Comparison of answers `a` and `b` by their log-odds in both orders.
fn comparison(judge: &str, a: &Candidate, b: &Candidate, log_odds: [f64; 2]) -> Comparison {
    Comparison {
        record_id: a.record_id.clone(),
        judge: judge.to_owned(),
        answers: [AnswerName::of(a), AnswerName::of(b)],
        log_odds,
        label_mass: [0.9, 0.9],
        preference: (log_odds[0] + log_odds[1]) / 2.0,
        consistent: log_odds[0] * log_odds[1] > 0.0,
        reliable: true,
    }
}

struct Case {
    answers: Vec<Candidate>,
    verdicts: Vec<Verdict>,
    comparisons: Vec<Comparison>,
    weights: BTreeMap<String, f64>,
}

impl Case {
    /// The human answer rated 3, three of a model rated 1.5, 4 and 4.5.
    fn new() -> Self {
        let record = record(0);
        let model = |at: u32| answer(&record, CandidateSource::Model, "m", at, &format!("antwoord {at}"));
        let answers = vec![human(&record), model(0), model(1), model(2)];
        let verdicts =
            answers.iter().zip([3.0, 1.5, 4.0, 4.5]).map(|(answer, rating)| verdict(answer, rating)).collect();
        Self { answers, verdicts, comparisons: Vec::new(), weights: BTreeMap::new() }
    }

    /// Pairs as (chosen, rejected), or the reason; answers by their place: the human one first.
    fn outcome(&self, options: PairingOptions) -> Result<Vec<(usize, usize)>, String> {
        let record = record(0);
        let candidates: Vec<_> = self.answers.iter().collect();
        let verdicts: Vec<_> = self.verdicts.iter().collect();
        let comparisons: Vec<_> = self.comparisons.iter().collect();
        let said = Said { candidates: &candidates, verdicts: &verdicts, comparisons: &comparisons, failure: None };
        let JudgedPrompt { outcome, .. } = pair_record(&record, said, &self.weights, &options);
        match outcome.pairs() {
            [] => Err(outcome.as_str().to_owned()),
            pairs => Ok(pairs.iter().map(|pair| (pair.chosen_index, pair.rejected_index)).collect()),
        }
    }
}

#[test]
fn each_choice_takes_its_answers() {
    let case = Case::new();
    let options = |choice, pairs_per_prompt| PairingOptions { choice, pairs_per_prompt, ..PairingOptions::default() };
    assert_eq!(case.outcome(options(PairChoice::BestWorst, 1)), Ok(vec![(3, 1)]));
    assert_eq!(case.outcome(options(PairChoice::BestWorst, 3)), Ok(vec![(3, 1), (2, 1), (3, 0)]));
    assert_eq!(case.outcome(options(PairChoice::HumanBest, 1)), Ok(vec![(3, 0)]));
    assert_eq!(case.outcome(options(PairChoice::HumanBest, 9)), Ok(vec![(3, 0), (2, 0), (0, 1)]));
    let random = case.outcome(options(PairChoice::BestRandom, 1)).unwrap();
    assert!(random[0].0 == 3 && random == case.outcome(options(PairChoice::BestRandom, 1)).unwrap());
    assert_eq!(case.outcome(options(PairChoice::BestRandom, 9)).unwrap().len(), 3);
    // A tie does not hide the pairs behind it.
    let wide = PairingOptions { margin: 1.4, ..options(PairChoice::BestWorst, 9) };
    assert_eq!(case.outcome(wide), Ok(vec![(3, 1), (2, 1), (3, 0), (0, 1)]));
}

#[test]
fn comparisons_confirm_contradict_and_decide() {
    let mut case = Case::new();
    let options = |decision| PairingOptions { decision, ..PairingOptions::default() };
    let (best, worst) = (case.answers[3].clone(), case.answers[1].clone());
    for (log_odds, both, pairwise) in [
        ([2.0, 1.0], Ok(vec![(3, 1)]), Ok(vec![(3, 1)])),
        ([-2.0, -1.0], Err("pairwise_disagrees"), Ok(vec![(1, 3)])),
        ([2.0, -3.0], Err("order_disagreement"), Err("order_disagreement")),
    ] {
        // The two may stand in either order in the journal.
        for turned in [false, true] {
            case.comparisons = vec![match turned {
                false => comparison("j", &best, &worst, log_odds),
                true => comparison("j", &worst, &best, [-log_odds[1], -log_odds[0]]),
            }];
            case.answers.truncate(4);
            let two = Case {
                answers: vec![best.clone(), worst.clone()],
                verdicts: case.verdicts.clone(),
                comparisons: case.comparisons.clone(),
                weights: BTreeMap::new(),
            };
            let places = |found: Result<Vec<(usize, usize)>, String>| {
                found.map(|pairs| pairs.into_iter().map(|(a, b)| ([1, 3][a], [1, 3][b])).collect::<Vec<_>>())
            };
            assert_eq!(case.outcome(options(Decision::Both)), both.clone().map_err(str::to_owned), "{log_odds:?}");
            assert_eq!(places(two.outcome(options(Decision::Pairwise))), pairwise.clone().map_err(str::to_owned));
            assert_eq!(case.outcome(options(Decision::Ratings)), Ok(vec![(3, 1)]));
        }
    }
    case.comparisons.clear();
    assert_eq!(case.outcome(options(Decision::Both)), Ok(vec![(3, 1)]), "nothing was compared");
    assert_eq!(case.outcome(options(Decision::Pairwise)), Err("missing_comparison".to_owned()));
}

#[test]
fn a_panel_is_weighed_and_its_disagreement_seen() {
    let mut case = Case::new();
    case.answers.truncate(2);
    let other = |rating, at: usize| Verdict { judge: "other".to_owned(), ..verdict(&case.answers[at], rating) };
    // `judge` prefers the human answer by 1.5, `other` the model's by 2.
    case.verdicts = vec![verdict(&case.answers[0], 3.0), verdict(&case.answers[1], 1.5), other(2.0, 0), other(4.0, 1)];
    let options = PairingOptions::default();
    assert_eq!(case.outcome(options), Ok(vec![(1, 0)]), "means of 2.5 and 2.75");
    case.weights = BTreeMap::from([("judge".to_owned(), 3.0), ("other".to_owned(), 1.0)]);
    assert_eq!(case.outcome(options), Ok(vec![(0, 1)]), "2.75 against 2.125");
    case.weights.insert("judge".to_owned(), 0.0);
    assert_eq!(case.outcome(options), Ok(vec![(1, 0)]), "who has no weight has no say");
    let strict = PairingOptions { require_agreement: true, ..options };
    assert_eq!(case.outcome(strict), Err("judges_disagree".to_owned()));
}

#[test]
fn judges_that_disagree_do_so_whoever_wins() {
    let record = record(0);
    let model = |at: u32| answer(&record, CandidateSource::Model, "m", at, &format!("antwoord {at}"));
    let answers = [model(0), model(1), model(2)];
    let other = |rating, at: usize| Verdict { judge: "other".to_owned(), ..verdict(&answers[at], rating) };
    let verdicts: Vec<_> =
        (0..3).flat_map(|at| [verdict(&answers[at], 1.0 + at as f64), other(3.0 - at as f64, at)]).collect();
    // Each is preferred to the next one in a circle, so that some two meet against their order.
    let comparisons: Vec<_> =
        (0..3).map(|at| comparison("judge", &answers[at], &answers[(at + 1) % 3], [1.0, 1.0])).collect();
    let said = Said {
        candidates: &answers.iter().collect::<Vec<_>>(),
        verdicts: &verdicts.iter().collect::<Vec<_>>(),
        comparisons: &comparisons.iter().collect::<Vec<_>>(),
        failure: None,
    };
    let options = PairingOptions { decision: Decision::Pairwise, pairs_per_prompt: 9, ..PairingOptions::default() };
    let judged = pair_record(&record, said, &BTreeMap::new(), &options);
    let found: Vec<_> = judged.outcome.pairs().iter().map(|pair| (pair.preference, pair.judges_agree)).collect();
    assert_eq!(found, [(Some(1.0), Some(false)); 3]);
}

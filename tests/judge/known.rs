//! Known-answer tests: which rows are taken, how answers are spoilt, and what is counted.

use std::collections::BTreeMap;

use pairwright::data::PromptRecord;
use pairwright::generate::CandidateSource;
use pairwright::judge::known::{MAX_ROWS, Spoiling, choose, first_rows, results, shifts, totals, weights};
use pairwright::judge::{JudgeRow, RewardScore};

fn record(number: usize, language: (&str, &str), answer: &str) -> PromptRecord {
    PromptRecord {
        id: pairwright::provenance::sha256_hex(format!("{language:?}{number}").as_bytes()),
        row_index: number as u64,
        prompt: format!("{number}?"),
        response: Some(answer.to_owned()),
        language: language.0.to_owned(),
        language_code: language.1.to_owned(),
        annotation_type: None,
        user_id: None,
    }
}

fn records() -> Vec<PromptRecord> {
    let dutch = (0..100)
        .map(|n| record(n, ("Dutch", "nld"), &format!("Het antwoord op vraag {n} is vandaag nog niet bekend.")));
    let thai = (0..3).map(|n| record(n, ("Thai", "tha"), &format!("คำตอบของคำถามที่ {n} ยังไม่เป็นที่ทราบในวันนี้")));
    dutch.chain(thai).collect()
}

#[test]
fn rows_do_not_depend_on_the_order_of_the_source() {
    let mut reversed = records();
    reversed.reverse();
    let chosen = choose(&records());
    assert_eq!(chosen, choose(&reversed));
    assert_eq!(chosen.len(), MAX_ROWS + 3);
    assert_eq!(first_rows(&chosen, 2).len(), 4);
    for row in &chosen {
        assert!(row.other_prompt.as_ref().is_some_and(|other| *other != row.answer));
        let other = if row.language == "Thai" { "antwoord" } else { "คำตอบ" };
        assert!(row.other_language.contains(other), "{row:?}");
    }
    let alone = choose(&records()[..5]);
    assert!(alone.iter().all(|row| !row.other_language.contains("antwoord")), "one language: texts of our own");
}

#[test]
fn answers_are_spoilt_in_every_script() {
    for row in choose(&records()) {
        let spoilt = |how| row.spoilt(how).unwrap();
        let letters = |text: &str| {
            let mut letters: Vec<char> = text.chars().filter(|letter| !letter.is_whitespace()).collect();
            letters.sort_unstable();
            letters
        };
        let shuffled = spoilt(Spoiling::Shuffled);
        assert!(shuffled != row.answer && letters(&shuffled) == letters(&row.answer), "{shuffled}");
        let half = spoilt(Spoiling::Truncated);
        assert!(row.answer.starts_with(&half) && half.chars().count() == row.answer.chars().count() / 2);
        assert!(spoilt(Spoiling::Injected).starts_with(&row.answer) && spoilt(Spoiling::Injected).contains('5'));
        assert_eq!(spoilt(Spoiling::Duplicate), row.answer);
        assert_eq!((row.judge_items().len(), row.compare_items().len()), (6, 6));
    }
    let short = choose(&[record(0, ("Dutch", "nld"), "Ja.")]);
    assert_eq!((short[0].spoilt(Spoiling::Truncated), short[0].spoilt(Spoiling::Shuffled)), (None, None));
    assert_eq!(short[0].spoilt(Spoiling::OtherPrompt), None);
}

/// A judge whose scores are what `score` makes of them.
fn judged(judge: &str, score: impl Fn(&str, usize) -> f64) -> Vec<JudgeRow> {
    let rows = choose(&records());
    let items = rows.iter().enumerate().flat_map(|(at, row)| row.judge_items().into_iter().map(move |item| (at, item)));
    items
        .map(|(at, item)| {
            JudgeRow::Score(RewardScore {
                record_id: item.candidate.record_id.clone(),
                source: CandidateSource::Human,
                score: score(&item.candidate.model, at),
                model: item.candidate.model,
                sample_index: 0,
                judge: judge.to_owned(),
            })
        })
        .collect()
}

#[test]
fn accuracy_shift_and_weights_are_counted() {
    let rows = choose(&records());
    let good = judged("good", |answer, at| match answer {
        "human" => 10.0 + at as f64 * 0.01,
        "injected" => 12.0 + at as f64 * 0.01,
        _ => at as f64 * 0.01,
    });
    let blind = judged("blind", |answer, at| ((at * 7919 + answer.len() * 104_729) % 1_000) as f64);
    let found = results(&rows, &[good, blind].concat(), &[]);
    let of = |judge: &str, test: Spoiling| {
        found.iter().find(|result| result.judge == judge && result.test == test && result.language == "Dutch").unwrap()
    };
    for test in [Spoiling::OtherPrompt, Spoiling::Truncated, Spoiling::Shuffled, Spoiling::OtherLanguage] {
        let accuracy = of("good", test).accuracy.unwrap();
        assert_eq!((accuracy.value, accuracy.n), (1.0, MAX_ROWS as u64));
    }
    let shift = of("good", Spoiling::Injected).shift.unwrap();
    assert!(shift.low > 0.0 && of("good", Spoiling::Injected).accuracy.is_none(), "{shift:?}");
    let moved = shifts(&found);
    let of_good = moved.iter().find(|shift| shift.judge == "good").unwrap();
    let groups: Vec<_> = found.iter().filter(|r| r.judge == "good").filter_map(|result| result.shift).collect();
    assert_eq!(of_good.shift.n, groups.iter().map(|group| group.n).sum::<u64>());
    assert!(of_good.shift.low > 0.0 && of_good.method == "rating" && moved.len() == 2, "{moved:?}");
    assert!(of_good.in_words().contains(&format!("n = {}, 95 %: +", of_good.shift.n)), "{}", of_good.in_words());
    let totals = totals(&found);
    let total = |judge: &str| totals.iter().find(|total| total.judge == judge && total.language == "Dutch").unwrap();
    assert!(!total("good").is_at_chance() && total("good").accuracy.n == 4 * MAX_ROWS as u64);
    assert!(total("blind").is_at_chance(), "{totals:?}");
    let say = weights(&["good".to_owned(), "blind".to_owned()], &totals);
    assert!(say["good"] > 4.0 && say["blind"] < 1.0, "{say:?}");
    assert_eq!(weights(&["new".to_owned()], &totals), BTreeMap::from([("new".to_owned(), 1.0)]));
}

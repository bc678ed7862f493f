//! The judge calibrated on votes: weights that people's choices follow are found, noise is left alone, files are what `pair` takes.
//! Knows made-up couples of answers; makes no claim about any real judge.

use pairwright::annotate::agreement::Decided;
use pairwright::annotate::calibrate::{Calibration, calibrate};
use pairwright::annotate::items::ItemAnswer;
use pairwright::generate::CandidateSource;
use pairwright::judge::{AspectWeights, AspectWeightsError, Verdict};
use pairwright::provenance::sha256_hex;

use crate::made::Made;

/// A fixed sequence of numbers from 0 to 1.
struct Lots(u64);

impl Lots {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Two answers with aspects of random means; the judge weighs them by `judge`, people by `people` with some noise.
fn couples(num: usize, judge: [f64; 3], people: [f64; 3], noise: f64) -> Vec<(ItemAnswer, ItemAnswer, String)> {
    let mut lots = Lots(7);
    let names = ["form", "help", "truth"];
    let weighed = |weights: [f64; 3], means: &[(String, f64)]| {
        weights.iter().zip(means).map(|(weight, (_, mean))| weight * mean).sum::<f64>() / weights.iter().sum::<f64>()
    };
    let answer = |text: String, lots: &mut Lots| {
        let aspects: Vec<(String, f64)> =
            names.iter().map(|name| ((*name).to_owned(), 1.0 + 4.0 * lots.next())).collect();
        ItemAnswer {
            hash: sha256_hex(text.as_bytes()),
            text,
            source: CandidateSource::Model,
            model: "writer".into(),
            rating: Some(weighed(judge, &aspects)),
            aspects,
        }
    };
    (0..num)
        .map(|n| {
            let (one, two) = (answer(format!("one {n}"), &mut lots), answer(format!("two {n}"), &mut lots));
            let lead = weighed(people, &one.aspects) - weighed(people, &two.aspects) + noise * (lots.next() - 0.5);
            let prompt = sha256_hex(format!("prompt {n}").as_bytes());
            if lead > 0.0 { (one, two, prompt) } else { (two, one, prompt) }
        })
        .collect()
}

fn calibrated(couples: &[(ItemAnswer, ItemAnswer, String)]) -> Calibration {
    let decided: Vec<Decided<'_>> = couples
        .iter()
        .map(|(chosen, rejected, prompt)| Decided { chosen, rejected, prompt, is_audit: false })
        .collect();
    calibrate(&decided, 5).unwrap()
}

#[test]
fn weights_that_people_follow_are_found_and_gain_on_other_prompts() {
    let couples = couples(400, [3.0, 1.0, 0.2], [0.0, 1.0, 2.0], 0.5);
    let found = calibrated(&couples);
    assert!(found.is_advised, "{found:?}");
    let [before, after] = [found.before, found.after.unwrap()];
    assert!(before.share < 0.75 && after.share > 0.9, "{before:?} {after:?}");
    let gain = found.gain.unwrap();
    assert!((gain.value - (after.share - before.share)).abs() < 1e-12 && gain.low > 0.1);
    let weights = found.weights.clone().unwrap();
    let of = |name: &str| weights.aspects.iter().find(|aspect| aspect.name == name).unwrap().weight;
    assert!(of("truth") > 1.5 * of("help") && of("form") < 0.05, "{weights:?}");
    assert_eq!(calibrated(&couples), found, "the same votes give the same digits");
    // The file is what `pair --aspect-weights` reads.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.toml");
    std::fs::write(&path, found.to_toml().unwrap()).unwrap();
    assert_eq!(AspectWeights::read(&path).unwrap(), weights);
}

#[test]
fn a_judge_that_weighs_as_people_do_is_left_alone() {
    let found = calibrated(&couples(300, [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], 3.0));
    assert!(!found.is_advised, "{found:?}");
    assert!(found.gain.unwrap().low <= 0.0);
    assert!(found.in_words().iter().any(|line| line.contains("do not use them")));
    // People answer by lot: nothing is advised.
    let found = calibrated(&couples(300, [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], 1_000.0));
    assert!(!found.is_advised && found.margin.is_none(), "{found:?}");
}

#[test]
fn a_margin_is_advised_where_the_judge_guesses_under_it() {
    // Noise of up to half a point either way: couples nearer than that are guesses, others are not.
    let couples = couples(1_500, [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], 12.0);
    let advice = calibrated(&couples).margin.unwrap();
    assert!(advice.below.low <= 0.5 && advice.below.high < advice.above.low, "{advice:?}");
    assert!((0.05..2.0).contains(&advice.margin));
}

#[test]
fn few_couples_say_nothing() {
    let few = couples(49, [1.0; 3], [1.0; 3], 1.0);
    let decided: Vec<Decided<'_>> =
        few.iter().map(|(chosen, rejected, prompt)| Decided { chosen, rejected, prompt, is_audit: false }).collect();
    let error = calibrate(&decided, 5).unwrap_err().to_string();
    assert!(error.contains("49") && error.contains("50 or more") && error.contains("hint:"), "{error}");
    assert!(calibrate(&decided, 4).is_ok());
}

#[test]
fn weights_change_ratings_and_those_of_another_rubric_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        AspectWeights::read(&path)
    };
    let mut verdicts: Vec<Verdict> = Made::mixed(1).verdicts;
    let second = pairwright::judge::AspectScore { aspect: "form".into(), mean: 1.0, ..verdicts[0].aspects[0].clone() };
    let own = verdicts[0].aspects[0].clone();
    verdicts[0].aspects = vec![own.clone(), second];
    let file = |form: &str| {
        format!("[[aspect]]\nname = \"{}\"\nweight = 3\n[[aspect]]\nname = \"form\"\nweight = {form}\n", own.aspect)
    };
    read(&file("1")).unwrap().apply(&mut verdicts[..1]).unwrap();
    assert!((verdicts[0].rating - (3.0 * own.mean + 1.0) / 4.0).abs() < 1e-12);
    let error = read(&file("1")).unwrap().apply(&mut verdicts[1..]).unwrap_err();
    assert!(matches!(error, AspectWeightsError::OtherAspects { .. }) && error.to_string().contains("hint:"));
    for wrong in [
        &file("-1"),
        &file("nan"),
        "",
        "[[aspect]]\nname = \"a\"\nweight = 0\n",
        "[[aspect]]\nname = \"a\"\nweight = 1\n\
                  [[aspect]]\nname = \"a\"\nweight = 1\n",
        "margin = 1\n[[aspect]]\nname = \"a\"\nweight = 1\n",
    ] {
        let error = read(wrong).unwrap_err().to_string();
        assert!(error.contains("hint:"), "{wrong}: {error}");
    }
}

//! What follows from the numbers for somebody who wants to train on them: what speaks against it, worst first.
//! Knows thresholds and says them; counts nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::data::{KnownTotal, ReportData};
use super::words::{count, interval, number, percent, share_in_words};

/// Share of chosen human answers above which, or below whose mirror image, a model may learn just who wrote what.
const LOPSIDED: f64 = 0.9;
/// Share of longer chosen answers above which length may be what is learned.
const LONGER: f64 = 0.7;
/// Share of unreliable verdicts above which the judge is not up to the language or the rubric.
const UNRELIABLE: f64 = 0.1;
/// Share of answers in pairs that end at the token limit.
const TRUNCATED: f64 = 0.05;
/// Share of answers in another language than asked for.
const WRONG_LANGUAGE: f64 = 0.05;
/// Share of prompts that are judged alike in both orders, below which order decides too much.
const CONSISTENT: f64 = 0.8;
/// Pairs below which shares say little.
const FEW: u64 = 200;
/// Steps of the scale by which a demand for the best rating surely moves a judge that is worth a word.
const TALKED_INTO: f64 = 0.25;
/// What a coin would pass of the tests with a known answer.
const BY_CHANCE: f64 = 0.5;
/// Languages of one trouble that are named.
const MAX_NAMED: usize = 5;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Train nothing on this.
    Stop,
    /// Look before you train.
    Care,
    /// Good to know.
    Note,
}

/// One thing that follows from the numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub weight: Weight,
    /// In one sentence.
    pub what: String,
    /// What to do or to think of it.
    pub advice: String,
    /// The part of the page that shows it, by its anchor.
    pub see: &'static str,
}

impl ReportData {
    /// What follows from the numbers, heaviest first.
    pub fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut add = |weight, see, what: String, advice: &str| {
            found.push(Finding { weight, what, advice: advice.to_owned(), see });
        };
        self.find_stops(&mut add);
        self.find_shortcuts(&mut add);
        self.find_judge_troubles(&mut add);
        self.find_notes(&mut add);
        found.sort_by_key(|finding| finding.weight);
        found
    }

    fn find_stops(&self, add: &mut impl FnMut(Weight, &'static str, String, &str)) {
        let mut for_show: Vec<(&str, Vec<&str>)> = Vec::new();
        for model in self.made.models.iter().filter(|model| model.is_for_show) {
            match for_show.iter_mut().find(|(name, _)| *name == model.name) {
                Some((_, roles)) => roles.push(model.role),
                None => for_show.push((&model.name, vec![model.role])),
            }
        }
        for (name, roles) in for_show {
            let what = format!("The {} “{name}” is for show: there is nothing to train on.", roles.join(" and "));
            add(Weight::Stop, "made", what, "The run shows how the tool works. Real models give real pairs.");
        }
        if let Some(left) = &self.unfinished {
            let what = format!(
                "The run is not finished: {} of {} answers are there, and {} ratings.",
                number(left.num_answers),
                number(left.num_answers_wanted),
                number(left.num_ratings)
            );
            add(
                Weight::Stop,
                "funnel",
                what,
                "Rows that are still to do count as dropped below. `make` with the same arguments goes on.",
            );
        }
        if self.funnel.num_pairs == 0 {
            let advice = "The rows and their reasons are below; a lower margin may help if they are ties.";
            add(Weight::Stop, "funnel", "There are no pairs.".to_owned(), advice);
        }
        if self.num_orphans > 0 {
            let what = format!(
                "{} belong to no row of this run and were left out.",
                count(self.num_orphans, "answer or verdict", "answers and verdicts")
            );
            add(Weight::Care, "funnel", what, "A journal of another run may have got into the folder.");
        }
    }

    fn find_shortcuts(&self, add: &mut impl FnMut(Weight, &'static str, String, &str)) {
        if let Some(share) = &self.human_chosen {
            let advice = "Whoever trains on this may teach a model to tell who wrote an answer, not what is good.";
            if share.share >= LOPSIDED {
                add(
                    Weight::Care,
                    "ratings",
                    format!("The human answer is chosen nearly always: in {}.", share_in_words(share)),
                    advice,
                );
            } else if share.share <= 1.0 - LOPSIDED {
                add(
                    Weight::Care,
                    "ratings",
                    format!("The human answer is hardly ever chosen: in {}.", share_in_words(share)),
                    advice,
                );
            }
        }
        if let Some(share) = self.longer_chosen.as_ref().filter(|share| share.share > LONGER) {
            let what =
                format!("The longer answer is chosen in {}, more than {}.", share_in_words(share), percent(LONGER));
            add(Weight::Care, "lengths", what, "A model may learn to write more instead of better.");
        }
        if let Some(share) = self.truncated.as_ref().filter(|share| share.count > 0) {
            let weight = if share.share > TRUNCATED { Weight::Care } else { Weight::Note };
            let what = format!(
                "{} in pairs cut at the token limit ({}).",
                count(share.count, "answer", "answers"),
                percent(share.share)
            );
            add(weight, "examples", what, "A higher --max-tokens gives them room.");
        }
        for check in self.language_checks.iter().flatten() {
            let total = check.num_ok + check.num_mixed + check.num_wrong + check.num_unsure;
            if total > 0 && check.num_wrong as f64 / total as f64 > WRONG_LANGUAGE {
                let what = format!(
                    "{} of {} {} answers in {} are in another language.",
                    number(check.num_wrong),
                    number(total),
                    check.source,
                    check.language
                );
                add(Weight::Care, "languages", what, "The generator may not know the language well enough.");
            }
        }
    }

    fn find_judge_troubles(&self, add: &mut impl FnMut(Weight, &'static str, String, &str)) {
        if let Some(share) = self.unreliable.as_ref().filter(|share| share.share > UNRELIABLE) {
            let what = format!("The judge did not want to rate {} of the answers.", share_in_words(share));
            add(
                Weight::Care,
                "judge",
                what,
                "It may not follow the rubric in this language. Try another judge before you trust the rest.",
            );
        }
        if self.made.same_model_judge {
            let what = "The judge also wrote answers.".to_owned();
            add(Weight::Care, "made", what, "Models prefer their own answers. A judge of another family is better.");
        }
        for order in self.order_consistency.iter().flatten().filter(|order| order.consistent.share < CONSISTENT) {
            let what = format!(
                "“{}” prefers the same answer in both orders in only {}.",
                order.judge,
                share_in_words(&order.consistent)
            );
            add(Weight::Care, "judge", what, "Which answer stands first decides too much.");
        }
        let mut at_chance: BTreeMap<&str, Vec<&KnownTotal>> = BTreeMap::new();
        for total in self.known_totals.iter().filter(|total| total.passed.low <= BY_CHANCE) {
            at_chance.entry(&total.judge).or_default().push(total);
        }
        for (judge, totals) in at_chance {
            let named: Vec<&str> = totals.iter().take(MAX_NAMED).map(|total| total.language.as_str()).collect();
            let more = match totals.len().saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let what = format!(
                "In {}{more}, “{judge}” passed the tests with a known answer not surely more often than a coin would.",
                named.join(", ")
            );
            add(Weight::Care, "known", what, "Do not trust this judge with these languages.");
        }
        for moved in self.known_shifts.iter().filter(|moved| moved.method == "rating" && moved.shift.low >= TALKED_INTO)
        {
            let what = format!("Of “{}”, {}.", moved.judge, moved.in_words());
            add(
                Weight::Care,
                "known",
                what,
                "Answers can talk this judge into a rating: look for such among the chosen ones.",
            );
        }
    }

    fn find_notes(&self, add: &mut impl FnMut(Weight, &'static str, String, &str)) {
        let num_pairs = self.funnel.num_pairs;
        if let Some(share) = self.longer_chosen.as_ref().filter(|_| num_pairs > 0 && num_pairs < FEW) {
            let verb = if num_pairs == 1 { "is" } else { "are" };
            let what = format!("There {verb} {} only.", count(num_pairs, "pair", "pairs"));
            let advice = format!("Shares are uncertain: 95 % intervals reach as wide as {}.", interval(share));
            add(Weight::Note, "ratings", what, &advice);
        }
        let unknown: Vec<&str> =
            self.made.models.iter().filter(|model| model.license.is_none()).map(|model| model.role).collect();
        if !unknown.is_empty() {
            let what = format!("The licence of the {} is not known.", unknown.join(" and the "));
            add(Weight::Note, "made", what, "Its terms apply to what is made with it.");
        }
        if !self.made.accepted_changes.is_empty() {
            let what = format!(
                "{} on the way and accepted.",
                count(self.made.accepted_changes.len() as u64, "thing was changed", "things were changed")
            );
            add(Weight::Note, "made", what, "Not all rows were made by the same program or in the same formats.");
        }
    }

    /// The answer to “can I train on it?”.
    pub fn verdict(&self) -> (Weight, String) {
        let findings = self.findings();
        let num_care = findings.iter().filter(|finding| finding.weight == Weight::Care).count() as u64;
        match findings.first().map(|finding| finding.weight) {
            Some(Weight::Stop) => (Weight::Stop, "No.".to_owned()),
            Some(Weight::Care) => (Weight::Care, format!("Look at {} first.", count(num_care, "thing", "things"))),
            _ => (Weight::Note, "Nothing in these numbers speaks against it.".to_owned()),
        }
    }
}

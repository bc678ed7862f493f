//! From judged prompts to the numbers of a report. Knows prompts, answers and verdicts; knows nothing of how they are shown.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use super::data::{
    AspectRow, Couples, DropRow, Funnel, GRID_BINS, JudgeAgreement, Judges, KnownAnswer, KnownTotal, LanguageCheck,
    LanguageRow, Lengths, Made, MadeModel, MarginBin, Margins, OrderConsistency, RatingBins, ReportData,
};
use super::examples::{choose_examples, draw};
use super::words::drop_in_words;
use crate::dataset::{
    DatasetInput, DatasetOptions, DatasetSummary, DropReason, JudgeHealth, JudgedPrompt, MarginCount, PairOutcome,
    PairRow, RatedAnswer, apply_checks, day, judge_records, judged_human_answers, models_for_show, share_of,
    source_name, summarise,
};
use crate::generate::CandidateSource;
use crate::judge::Share;
use crate::judge::known::{self, KnownResult};
use crate::provenance::{ModelRecord, RunLock};
use crate::quality::LanguageVerdict;

/// Bins of a histogram of ratings: a quarter of a step each.
const RATING_BINS: usize = 16;
/// Width of a bin of differences.
const DIFFERENCE_BIN: f64 = 0.1;
/// Bins of differences at most: those of 0 to 4.
const MAX_DIFFERENCE_BINS: usize = 40;
/// Width of a step of the curve of margins.
const MARGIN_STEP: f64 = 0.05;
/// Points of the scatter at most.
const MAX_POINTS: usize = 1500;

impl ReportData {
    /// Counts everything that records, answers and verdicts say.
    pub fn of(input: &DatasetInput<'_>, options: &DatasetOptions) -> Self {
        let pairing = options.pairing;
        let human_answers = judged_human_answers(input);
        let mut prompts = judge_records(input, &human_answers, &pairing);
        apply_checks(&mut prompts, &options.checks);
        let summary = summarise(input, &prompts, pairing);
        let pairs: Vec<PairRow<'_>> = prompts.iter().flat_map(PairRow::all).collect();
        let rated = |source| prompts.iter().flat_map(|prompt| &prompt.answers).filter(move |a| is_by(a, source));
        let health = summary.judge_health.as_ref();
        Self {
            made: made(input, &summary),
            funnel: funnel(&summary),
            human_chosen: summary.chosen_human_share.and_then(|share| share_of(share, summary.num_mixed_pairs)),
            longer_chosen: longer_chosen(pairs.iter()),
            unreliable: health.and_then(|health| share_of(health.unreliable_share, health.num_verdicts)),
            truncated: Share::of(summary.num_truncated_answers, 2 * summary.num_pairs),
            human_ratings: rating_bins(rated(CandidateSource::Human)),
            model_ratings: rating_bins(rated(CandidateSource::Model)),
            couples: couples(&prompts),
            margins: margins(&prompts, &summary),
            lengths: lengths(&pairs, &summary, input.lock.seed),
            judges: health.map(judges),
            aspects: aspects(&prompts),
            languages: languages(&prompts),
            language_checks: Some(language_checks(&prompts)).filter(|checks| !checks.is_empty()),
            order_consistency: order_consistency(&prompts),
            agreement: health.and_then(agreement),
            known_answers: known_answers(input.known_answers),
            known_totals: health.map(known_totals).unwrap_or_default(),
            known_shifts: health.map(|health| health.known_shifts.clone()).unwrap_or_default(),
            unfinished: None,
            speeds: None,
            predicted: None,
            num_orphans: summary.num_orphan_candidates + summary.num_orphan_verdicts,
            examples: choose_examples(&prompts, input.lock.seed),
        }
    }
}

/// Verdicts on the language of each answer, by the row's language and who wrote it.
fn language_checks(prompts: &[JudgedPrompt<'_>]) -> Vec<LanguageCheck> {
    let mut checks: BTreeMap<(&str, &'static str), LanguageCheck> = BTreeMap::new();
    for prompt in prompts {
        for (answer, quality) in prompt.answers.iter().zip(&prompt.quality.answers) {
            let (language, source) = (prompt.record.language.as_str(), source_name(answer.candidate.source));
            let check = checks.entry((language, source)).or_insert_with(|| LanguageCheck {
                language: language.to_owned(),
                source: source.to_owned(),
                num_ok: 0,
                num_mixed: 0,
                num_wrong: 0,
                num_unsure: 0,
            });
            *match quality.language.verdict {
                LanguageVerdict::Ok => &mut check.num_ok,
                LanguageVerdict::Mixed => &mut check.num_mixed,
                LanguageVerdict::Wrong => &mut check.num_wrong,
                LanguageVerdict::Unsure => &mut check.num_unsure,
            } += 1;
        }
    }
    checks.into_values().collect()
}

fn made(input: &DatasetInput<'_>, summary: &DatasetSummary) -> Made {
    let lock: &RunLock = input.lock;
    let for_show = models_for_show(lock);
    let model = |(role, record): (&'static str, &ModelRecord)| MadeModel {
        role,
        name: record.name.clone(),
        dtype: record.dtype.clone(),
        license: record.license.clone(),
        is_for_show: for_show.iter().any(|(_, shown)| *shown == record),
    };
    let roles = [("generator", &lock.generators), ("judge", &lock.judges)];
    Made {
        tool_version: lock.tool_version.clone(),
        created: day(&lock.created).to_owned(),
        seed: lock.seed,
        language: input.language.name.clone(),
        source: input.origin.dataset.clone(),
        source_license: input.origin.license.clone(),
        source_sha256: lock.source.sha256.clone(),
        rubric_sha256: lock.rubric_sha256.clone(),
        pairing: summary.pairing,
        models: roles
            .into_iter()
            .flat_map(|(role, all)| all.iter().map(move |record| (role, record)))
            .map(model)
            .collect(),
        same_model_judge: summary.same_model_judge,
        accepted_changes: lock.accepted_changes.clone(),
    }
}

fn funnel(summary: &DatasetSummary) -> Funnel {
    let mut drops: Vec<DropRow> = summary
        .drops
        .iter()
        .filter_map(|(reason, count)| {
            let rows = Share::of(*count, summary.num_rows_in)?;
            Some(DropRow { reason: reason.clone(), meaning: drop_in_words(reason, &summary.pairing), rows })
        })
        .collect();
    // Stable: equal counts stay in the order of their names.
    drops.sort_by_key(|drop| Reverse(drop.rows.count));
    Funnel {
        num_rows_in: summary.num_rows_in,
        num_records: summary.num_records,
        num_pairs: summary.num_pairs,
        paired: Share::of(summary.num_paired_prompts, summary.num_rows_in),
        drops,
    }
}

fn is_by(answer: &RatedAnswer<'_>, source: CandidateSource) -> bool {
    answer.candidate.source == source
}

/// The bin of a rating, of `num_bins` from 1 to 5; `None` for no rating or one that is no number.
fn bin_of(answer: &RatedAnswer<'_>, num_bins: usize) -> Option<usize> {
    let rating = answer.rating.filter(|rating| rating.is_finite())?;
    let place = (rating.clamp(1.0, 5.0) - 1.0) / 4.0 * num_bins as f64;
    Some((place as usize).min(num_bins - 1))
}

fn rating_bins<'p>(answers: impl Iterator<Item = &'p RatedAnswer<'p>>) -> RatingBins {
    let mut bins = vec![0; RATING_BINS];
    let (mut num_answers, mut sum) = (0, 0.0);
    for answer in answers {
        let (Some(bin), Some(rating)) = (bin_of(answer, RATING_BINS), answer.rating) else { continue };
        if let Some(count) = bins.get_mut(bin) {
            *count += 1;
        }
        num_answers += 1;
        sum += rating;
    }
    RatingBins { num_answers, mean: mean(sum, num_answers), bins }
}

fn mean(sum: f64, number: u64) -> Option<f64> {
    (number > 0).then(|| sum / number as f64)
}

fn couples(prompts: &[JudgedPrompt<'_>]) -> Couples {
    let mut grid = [[0; GRID_BINS]; GRID_BINS];
    let (mut total, mut human_higher, mut model_higher) = (0, 0, 0);
    for prompt in prompts {
        let of = |source| prompt.answers.iter().filter(move |answer| is_by(answer, source));
        for (human, model) in
            of(CandidateSource::Human).flat_map(|human| of(CandidateSource::Model).map(move |model| (human, model)))
        {
            let (Some(row), Some(column)) = (bin_of(human, GRID_BINS), bin_of(model, GRID_BINS)) else { continue };
            if let Some(count) = grid.get_mut(row).and_then(|row| row.get_mut(column)) {
                *count += 1;
            }
            total += 1;
            human_higher += u64::from(human.rating > model.rating);
            model_higher += u64::from(human.rating < model.rating);
        }
    }
    Couples { human_higher: Share::of(human_higher, total), model_higher: Share::of(model_higher, total), grid }
}

fn margins(prompts: &[JudgedPrompt<'_>], summary: &DatasetSummary) -> Margins {
    let mut bins: Vec<MarginBin> = Vec::new();
    let mut differences: Vec<f64> = Vec::new();
    let mut num_prompts = 0;
    for prompt in prompts {
        let Some(difference) = prompt.difference.filter(|d| d.is_finite() && *d >= 0.0) else { continue };
        // What was left out for another reason than its difference would be so at any margin.
        if matches!(prompt.outcome, PairOutcome::Pairs(_) | PairOutcome::Dropped(DropReason::Tie)) {
            differences.push(difference);
        }
        num_prompts += 1;
        // A difference that stands for a bin's end must not fall below it by its last bit.
        let at = ((difference / DIFFERENCE_BIN + 1e-9) as usize).min(MAX_DIFFERENCE_BINS - 1);
        while bins.len() <= at {
            bins.push(MarginBin { from: bins.len() as f64 / 10.0, ..MarginBin::default() });
        }
        let Some(bin) = bins.get_mut(at) else { continue };
        match PairRow::all(prompt).next() {
            Some(pair) if is_by(pair.chosen, CandidateSource::Human) => bin.num_human += 1,
            Some(_) => bin.num_model += 1,
            None => bin.num_ties += 1,
        }
    }
    differences.sort_by(f64::total_cmp);
    let largest = differences.last().copied().unwrap_or(0.0);
    let num_steps = (largest / MARGIN_STEP).ceil() as u32;
    let at_margin = |step: u32| {
        // 0.15, not 0.15000000000000002.
        let margin = f64::from(step) / 20.0;
        let below = differences.partition_point(|&difference| difference < margin || difference <= 0.0);
        MarginCount { margin, num_pairs: (differences.len() - below) as u64 }
    };
    let pairs_at_margin = if differences.is_empty() { Vec::new() } else { (0..=num_steps).map(at_margin).collect() };
    Margins { num_prompts, quantiles: summary.margin_quantiles, bins, pairs_at_margin }
}

fn num_characters(answer: &RatedAnswer<'_>) -> u64 {
    answer.candidate.text.chars().count() as u64
}

fn longer_chosen<'p>(pairs: impl Iterator<Item = &'p PairRow<'p>>) -> Option<Share> {
    let (mut total, mut longer) = (0, 0);
    for pair in pairs {
        total += 1;
        longer += u64::from(num_characters(pair.chosen) > num_characters(pair.rejected));
    }
    Share::of(longer, total)
}

fn lengths(pairs: &[PairRow<'_>], summary: &DatasetSummary, seed: u64) -> Option<Lengths> {
    let stats = summary.lengths?;
    let mut num_by_ratio = [0; 7];
    let mut points = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let (chosen, rejected) = (num_characters(pair.chosen), num_characters(pair.rejected));
        let bin = match (chosen.cmp(&rejected), chosen, rejected) {
            (Ordering::Less, chosen, rejected) if 4 * chosen < rejected => 0,
            (Ordering::Less, chosen, rejected) if 2 * chosen < rejected => 1,
            (Ordering::Less, ..) => 2,
            (Ordering::Equal, ..) => 3,
            (Ordering::Greater, chosen, rejected) if chosen > 4 * rejected => 6,
            (Ordering::Greater, chosen, rejected) if chosen > 2 * rejected => 5,
            (Ordering::Greater, ..) => 4,
        };
        if let Some(count) = num_by_ratio.get_mut(bin) {
            *count += 1;
        }
        points.push((draw(&pair.judged.record.id, seed), [chosen, rejected]));
    }
    if points.len() > MAX_POINTS {
        points.sort_unstable();
        points.truncate(MAX_POINTS);
    }
    let points = points.into_iter().map(|(_, point)| point).collect();
    Some(Lengths { chosen: stats.chosen, rejected: stats.rejected, num_by_ratio, points })
}

/// Scores of one aspect while they are added up, in a fixed order.
#[derive(Default)]
struct AspectSums {
    human: (u64, f64),
    model: (u64, f64),
    label_mass: f64,
    entropy: f64,
}

fn aspects(prompts: &[JudgedPrompt<'_>]) -> Vec<AspectRow> {
    let mut names: Vec<&str> = Vec::new();
    let mut sums: BTreeMap<&str, AspectSums> = BTreeMap::new();
    for answer in prompts.iter().flat_map(|prompt| &prompt.answers) {
        for score in answer.verdicts.iter().flat_map(|verdict| &verdict.aspects) {
            if !sums.contains_key(score.aspect.as_str()) {
                names.push(&score.aspect);
            }
            let sum = sums.entry(&score.aspect).or_default();
            let side = if is_by(answer, CandidateSource::Human) { &mut sum.human } else { &mut sum.model };
            *side = (side.0 + 1, side.1 + score.mean);
            sum.label_mass += score.label_mass;
            sum.entropy += score.entropy;
        }
    }
    let row = |name: &str| {
        let AspectSums { human, model, label_mass, entropy } = sums.get(name)?;
        let all = human.0 + model.0;
        Some(AspectRow {
            aspect: name.to_owned(),
            num_human: human.0,
            mean_human: mean(human.1, human.0),
            num_model: model.0,
            mean_model: mean(model.1, model.0),
            mean_label_mass: mean(*label_mass, all)?,
            mean_entropy: mean(*entropy, all)?,
        })
    };
    names.into_iter().filter_map(row).collect()
}

fn languages(prompts: &[JudgedPrompt<'_>]) -> Vec<LanguageRow> {
    let mut by_language: BTreeMap<(&str, &str), Vec<&JudgedPrompt<'_>>> = BTreeMap::new();
    for prompt in prompts {
        by_language.entry((&prompt.record.language, &prompt.record.language_code)).or_default().push(prompt);
    }
    let row = |((language, code), own): (&(&str, &str), &Vec<&JudgedPrompt<'_>>)| {
        let pairs: Vec<PairRow<'_>> = own.iter().flat_map(|prompt| PairRow::all(prompt)).collect();
        let mixed = || pairs.iter().filter(|p| p.chosen.candidate.source != p.rejected.candidate.source);
        let num_human = mixed().filter(|pair| is_by(pair.chosen, CandidateSource::Human)).count() as u64;
        LanguageRow {
            language: (*language).to_owned(),
            code: (*code).to_owned(),
            num_records: own.len() as u64,
            paired: Share::of(
                own.iter().filter(|prompt| prompt.outcome.pair().is_some()).count() as u64,
                own.len() as u64,
            ),
            human_chosen: Share::of(num_human, mixed().count() as u64),
            longer_chosen: longer_chosen(pairs.iter()),
        }
    };
    let mut rows: Vec<LanguageRow> = by_language.iter().map(row).collect();
    rows.sort_by_key(|row| Reverse(row.num_records));
    rows
}

fn judges(health: &JudgeHealth) -> Judges {
    Judges {
        names: health.judges.clone(),
        num_verdicts: health.num_verdicts,
        mean_label_mass: health.mean_label_mass,
        mean_entropy: health.mean_entropy,
    }
}

/// Of each judge that compared answers; `None` if none did.
fn order_consistency(prompts: &[JudgedPrompt<'_>]) -> Option<Vec<OrderConsistency>> {
    let mut counts: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for comparison in prompts.iter().flat_map(|prompt| &prompt.comparisons) {
        let [all, consistent, first] = counts.entry(&comparison.judge).or_default();
        *all += 1;
        *consistent += u64::from(comparison.consistent);
        // Answer 0 stands first in the first look, answer 1 in the second.
        *first += u64::from(comparison.log_odds[0] > 0.0) + u64::from(comparison.log_odds[1] < 0.0);
    }
    let row = |(judge, [all, consistent, first]): (&str, [u64; 3])| {
        let consistent = Share::of(consistent, all)?;
        Some(OrderConsistency { judge: judge.to_owned(), consistent, first_preferred: Share::of(first, 2 * all) })
    };
    let rows: Vec<OrderConsistency> = counts.into_iter().filter_map(row).collect();
    (!rows.is_empty()).then_some(rows)
}

fn agreement(health: &JudgeHealth) -> Option<JudgeAgreement> {
    let same_preference = health.agreeing_pairs.map(Share::from);
    let is_panel = health.judges.len() > 1 && (same_preference.is_some() || health.agreement.is_some());
    is_panel.then(|| JudgeAgreement { alpha: health.agreement, same_preference, weights: health.weights.clone() })
}

fn known_answers(results: &[KnownResult]) -> Option<Vec<KnownAnswer>> {
    let row = |result: &KnownResult| KnownAnswer {
        judge: result.judge.clone(),
        method: result.method,
        language: result.language.clone(),
        test: result.test.as_str(),
        passed: result.accuracy.map(Share::from),
        shift: result.shift,
    };
    (!results.is_empty()).then(|| results.iter().map(row).collect())
}

fn known_totals(health: &JudgeHealth) -> Vec<KnownTotal> {
    let row = |total: &known::KnownTotal| KnownTotal {
        judge: total.judge.clone(),
        language: total.language.clone(),
        passed: Share::from(total.accuracy),
    };
    health.known_totals.iter().map(row).collect()
}

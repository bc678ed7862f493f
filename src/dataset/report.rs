//! The report of a run for the person who made it: Markdown with the funnel, what the judge did, and pairs to read.
//! Knows the summary alone. Nothing in it is needed to load the dataset.

use std::fmt::Write;

use super::checks;
use super::pairing::DropReason;
use super::summary::{DatasetSummary, Quantiles, SamplePair};
use crate::judge::Share;
use crate::provenance::{ModelRecord, RunLock};

const BAR_WIDTH: u64 = 40;

/// Share of chosen human answers below or above which a reader should be warned, see check 11 of the facts on judging.
const LOPSIDED_SHARE: f64 = 0.9;
/// Share of longer chosen answers above which length may be what is learned.
const LONGER_SHARE: f64 = 0.7;

/// The report as Markdown.
pub fn render_report(summary: &DatasetSummary, lock: &RunLock) -> String {
    let mut parts = vec![
        introduction(lock),
        format!("## Funnel\n\n{}", funnel_table(summary)),
        warnings(summary, lock),
        margins(summary),
        ratings(summary),
        judge(summary),
        lengths(summary),
        checks::in_words(summary),
        samples(&summary.samples),
    ];
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn introduction(lock: &RunLock) -> String {
    let name = |models: &[ModelRecord]| match models {
        [] => "none".to_string(),
        models => models.iter().map(|model| inline_code(&model.name)).collect::<Vec<_>>().join(", "),
    };
    format!(
        "# Report of a Pairwright run\n\nGenerator {}, judge {}, seed {}, made {}. The dataset's own card is \
         `dataset/README.md`; counts and shares are also in `summary.json`.\n",
        name(&lock.generators),
        name(&lock.judges),
        lock.seed,
        day(&lock.created)
    )
}

/// A share in per cent with its number and 95 % interval, as `37.8 % (14 of 37; 95 % interval 24.1 to 53.9 %)`.
pub fn share_in_words(share: &Share) -> String {
    let [percent, low, high] = [share.share, share.low, share.high].map(|part| 100.0 * part);
    format!("{percent:.1} % ({} of {}; 95 % interval {low:.1} to {high:.1} %)", share.count, share.total)
}

/// The count that a share of a total came from, with its interval; `None` where there was nothing to count.
pub fn share_of(share: f64, total: u64) -> Option<Share> {
    Share::of((share * total as f64).round() as u64, total)
}

/// A run's pinned date without the hour, which it does not have.
pub fn day(created: &str) -> &str {
    created.strip_suffix("T00:00:00Z").unwrap_or(created)
}

/// Models that no one should train on, with the part each plays in the run.
pub fn models_for_show(lock: &RunLock) -> Vec<(&'static str, &ModelRecord)> {
    let for_show = |model: &&ModelRecord| model.weights.is_for_show();
    let generators: Vec<&ModelRecord> = lock.generators.iter().filter(for_show).collect();
    let judges: Vec<&ModelRecord> = lock.judges.iter().filter(for_show).collect();
    if let ([model], [judge]) = (generators.as_slice(), judges.as_slice())
        && model == judge
    {
        return vec![("generator and judge", model)];
    }
    let generators = generators.into_iter().map(|model| ("generator", model));
    generators.chain(judges.into_iter().map(|model| ("judge", model))).collect()
}

/// Rows in, pairs, and drops by reason, largest first.
pub fn funnel_table(summary: &DatasetSummary) -> String {
    let percent = |num_rows: u64| match summary.num_rows_in {
        0 => "–".to_string(),
        whole => format!("{:.1} %", 100.0 * num_rows as f64 / whole as f64),
    };
    let row = |name: &str, num_rows: u64| format!("| {name} | {num_rows} | {} |\n", percent(num_rows));
    let mut drops: Vec<(&String, &u64)> = summary.drops.iter().collect();
    drops.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    let mut text = String::from("| | rows | share |\n|---|---:|---:|\n");
    text += &row("rows in", summary.num_rows_in);
    text += &row("**rows with a pair**", summary.num_paired_prompts);
    for (reason, num_rows) in drops {
        text += &row(&inline_code(reason), *num_rows);
    }
    if summary.drops.contains_key(DropReason::Tie.as_str()) {
        let margin = summary.pairing.margin;
        text += &format!("\nA tie is a prompt whose best and worst answer are rated less than {margin} apart.\n");
    }
    text
}

fn warnings(summary: &DatasetSummary, lock: &RunLock) -> String {
    let mut found = Vec::new();
    for (role, model) in models_for_show(lock) {
        found.push(format!("The {role} {} is for show: train nothing on this.", inline_code(&model.name)));
    }
    if summary.same_model_judge {
        found.push("The judge also wrote answers: models prefer their own.".to_string());
    }
    match summary.chosen_human_share {
        Some(share) if share >= LOPSIDED_SHARE => {
            found.push("Nearly always the human answer is chosen: a model may learn just that.".to_string());
        }
        Some(share) if share <= 1.0 - LOPSIDED_SHARE => {
            found.push("Nearly always the model's answer is chosen: a model may learn just that.".to_string());
        }
        _ => {}
    }
    if summary.lengths.is_some_and(|lengths| lengths.chosen_longer_share > LONGER_SHARE) {
        found.push("Mostly the longer answer is chosen: a model may learn length.".to_string());
    }
    if summary.num_truncated_answers > 0 {
        found.push(format!("{} answers in pairs end at the token limit.", summary.num_truncated_answers));
    }
    if summary.num_orphan_candidates + summary.num_orphan_verdicts > 0 {
        found.push(format!(
            "{} answers and {} verdicts belong to no record of this run and were left out.",
            summary.num_orphan_candidates, summary.num_orphan_verdicts
        ));
    }
    if found.is_empty() {
        return String::new();
    }
    format!("## Worth a look\n\n{}\n", found.iter().map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n"))
}

fn margins(summary: &DatasetSummary) -> String {
    let mut text = format!(
        "## Margin\n\nThe margin of this run is {}. Other margins would give:\n\n| margin | pairs |\n|---:|---:|\n",
        summary.pairing.margin
    );
    for step in &summary.pairs_at_margin {
        text += &format!("| {} | {} |\n", step.margin, step.num_pairs);
    }
    if let Some(quantiles) = &summary.margin_quantiles {
        text +=
            &format!("\nDifference of best and worst answer, ties included: {}.\n", quantiles_in_words(quantiles, 2));
    }
    if let Some(share) = summary.chosen_human_share {
        text += &format!(
            "\nOf {} pairs of a human and a model answer, the human answer is chosen in {:.1} %.\n",
            summary.num_mixed_pairs,
            100.0 * share
        );
    }
    text
}

fn ratings(summary: &DatasetSummary) -> String {
    let mut text = String::from("## Ratings\n");
    for (source, bins) in &summary.rating_histogram {
        let largest = bins.iter().copied().max().unwrap_or(0).max(1);
        text += &format!("\n{source} answers, rounded ratings:\n\n```text\n");
        for (label, count) in (1..).zip(bins) {
            let bar = "█".repeat((count.saturating_mul(BAR_WIDTH) / largest) as usize);
            text += format!("{label}  {count:>7}  {bar}").trim_end();
            text.push('\n');
        }
        text += "```\n";
    }
    if summary.rating_histogram.is_empty() {
        text += "\nNo answer was rated.\n";
    }
    text
}

fn judge(summary: &DatasetSummary) -> String {
    let Some(health) = &summary.judge_health else { return String::new() };
    let names: Vec<String> = health.judges.iter().map(|name| inline_code(name)).collect();
    let shifts = super::card::shifts_in_words(summary);
    format!(
        "## Judge\n\n{} gave {} verdicts. Mean label mass {:.3} (1: it wanted to give a rating), mean entropy {:.3} nats \
         (0: certain, {:.3}: no idea), {:.1} % unreliable.{shifts}\n",
        names.join(", "),
        health.num_verdicts,
        health.mean_label_mass,
        health.mean_entropy,
        5f64.ln(),
        100.0 * health.unreliable_share
    )
}

fn lengths(summary: &DatasetSummary) -> String {
    let Some(lengths) = &summary.lengths else { return String::new() };
    format!(
        "## Lengths\n\nCharacters of chosen answers: {}.\nCharacters of rejected answers: {}.\nThe chosen answer is the longer \
         one in {:.1} % of the pairs.\n",
        quantiles_in_words(&lengths.chosen, 0),
        quantiles_in_words(&lengths.rejected, 0),
        100.0 * lengths.chosen_longer_share
    )
}

/// Quantiles in one line.
pub fn quantiles_in_words(quantiles: &Quantiles, digits: usize) -> String {
    format!(
        "median {:.digits$} (10 %: {:.digits$}, 90 %: {:.digits$}, from {:.digits$} to {:.digits$})",
        quantiles.p50, quantiles.p10, quantiles.p90, quantiles.min, quantiles.max
    )
}

fn samples(samples: &[SamplePair]) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let mut text = format!("## {} pairs to read\n", samples.len());
    for (number, sample) in (1..).zip(samples) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n### {number}. {}\n\nPrompt:\n\n{}", inline_code(&sample.id), fenced(&sample.prompt));
        for (side, rating, model, answer) in [
            ("Chosen", sample.chosen_rating, &sample.chosen_model, &sample.chosen),
            ("Rejected", sample.rejected_rating, &sample.rejected_model, &sample.rejected),
        ] {
            let rating = rating.map_or("not rated".to_string(), |rating| format!("rated {rating:.2}"));
            let _ = writeln!(text, "\n{side}, {rating}, by {}:\n\n{}", inline_code(model), fenced(answer));
        }
    }
    text
}

/// Any text in a fence that it cannot close.
pub fn fenced(text: &str) -> String {
    let fence = "`".repeat((longest_backtick_run(text) + 1).max(3));
    format!("{fence}text\n{text}\n{fence}")
}

/// Any text as code within a line, also within a table cell.
pub fn inline_code(text: &str) -> String {
    let one_line: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    let one_line = one_line.replace('|', "\\|");
    let ticks = "`".repeat(longest_backtick_run(&one_line) + 1);
    let pad = if one_line.starts_with('`') || one_line.ends_with('`') || one_line.is_empty() { " " } else { "" };
    format!("{ticks}{pad}{one_line}{pad}{ticks}")
}

fn longest_backtick_run(text: &str) -> usize {
    text.split(|character| character != '`').map(str::len).max().unwrap_or(0)
}

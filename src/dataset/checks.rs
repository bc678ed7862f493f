//! Checks of all rows of a dataset, and pairs that are left out for what was found; both in words for card and report.
//! Knows judged prompts and flags; deliberately does not know how anything is found.

use std::sync::Arc;

use super::pairing::{DropReason, JudgedPrompt, PairOutcome};
use super::summary::DatasetSummary;
use crate::quality::{self, HeldOutTexts, Profile, QualitySummary, Requirements, Row};

/// Openings that the report shows.
const NUM_OPENINGS: usize = 20;

/// What is checked, and what keeps a pair out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckOptions {
    /// A pair is left out if its row or one of its two answers has one of these flags.
    pub requirements: Requirements,
    /// The language profile; `None`: the program's own.
    pub profile: Option<Arc<Profile>>,
    /// Texts that no row may overlap with.
    pub held_out: Option<Arc<HeldOutTexts>>,
}

/// Checks all rows, and leaves pairs out that the requirements exclude. A row that had pairs and has none left gets the first such flag
/// as its reason.
pub fn apply(prompts: &mut [JudgedPrompt<'_>], options: &CheckOptions) -> QualitySummary {
    let profile = options.profile.as_deref().unwrap_or_else(|| quality::default_profile());
    let rows: Vec<Row<'_>> = prompts
        .iter()
        .map(|judged| Row {
            record: judged.record,
            answers: judged.answers.iter().map(|answer| answer.candidate).collect(),
        })
        .collect();
    let (found, summary) = quality::assess(&rows, profile, options.held_out.as_deref());
    for (judged, found) in prompts.iter_mut().zip(found) {
        judged.quality = found;
        let PairOutcome::Pairs(pairs) = &judged.outcome else { continue };
        let answers = &judged.quality.answers;
        let flags_of = |index: usize| answers.get(index).into_iter().flat_map(|answer| &answer.flags);
        let unmet = |(chosen, rejected): (usize, usize)| {
            options.requirements.unmet(judged.quality.flags.iter().chain(flags_of(chosen)).chain(flags_of(rejected)))
        };
        let reason = pairs.iter().filter_map(|pair| unmet((pair.chosen_index, pair.rejected_index))).min();
        let kept: Vec<_> =
            pairs.iter().filter(|pair| unmet((pair.chosen_index, pair.rejected_index)).is_none()).copied().collect();
        judged.outcome = match reason {
            Some(flag) if kept.is_empty() => PairOutcome::Dropped(DropReason::Flagged(flag)),
            _ => PairOutcome::Pairs(kept),
        };
    }
    summary
}

/// Flags and language verdicts as Markdown tables, with the openings that many answers share.
pub(super) fn in_words(summary: &DatasetSummary) -> String {
    let quality = &summary.quality;
    let mut text = String::from(
        "## Checks\n\nWhat checks of the texts found. A flag alone drops nothing; `pairwright pair --require` does.\n\n\
         | | answers | rows |\n|---|---:|---:|\n",
    );
    for flag in quality::Flag::ALL.map(quality::Flag::as_str) {
        let count = |of: &std::collections::BTreeMap<&str, u64>| of.get(flag).copied().unwrap_or(0);
        let (answers, rows) = (count(&quality.answers), count(&quality.rows));
        if answers + rows > 0 {
            text += &format!("| `{flag}` | {answers} | {rows} |\n");
        }
    }
    text += &format!("| none of these | {} | |\n", quality.answers.get("none").copied().unwrap_or(0));
    let verdicts: Vec<String> =
        quality.languages.iter().map(|(verdict, number)| format!("{number} {verdict}")).collect();
    if !verdicts.is_empty() {
        text +=
            &format!("\nLanguage of generated answers, against the language of their row: {}.", verdicts.join(", "));
        let list = |codes: &std::collections::BTreeSet<String>| codes.iter().cloned().collect::<Vec<_>>().join(", ");
        if !quality.not_validated.is_empty() {
            text += &format!(
                " The identifier was not validated in {}: there a verdict sets no flag.",
                list(&quality.not_validated)
            );
        }
        text.push('\n');
    }
    if !quality.openings.is_empty() {
        text += "\nOpenings that many answers of one model share, refusals and boilerplate among them:\n\n\
                 | answers | of | model | language | opening |\n|---:|---:|---|---|---|\n";
        for opening in quality.openings.iter().take(NUM_OPENINGS) {
            text += &format!(
                "| {} | {} | {} | {} | {} |\n",
                opening.num_answers, opening.num_of_model, opening.model, opening.language, opening.text
            );
        }
    }
    text
}

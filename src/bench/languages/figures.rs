//! From rows to figures: each metric of a model in a language with its 95 % interval and number. Shares have Wilson's interval, everything
//! else the bootstrap's. Knows the rows' numbers; knows no text and no file.

use super::intervals::{bootstrap, length_controlled, mean, median, ratio};
use super::rows::{AnswerValues, RowValues};
use crate::judge::agreement::Estimate;
use crate::quality::ChrfCounts;

/// A metric's name with its value.
pub type Measured = (&'static str, Estimate);

/// What is estimated of one model's rows in one language; a metric that no row speaks of is left out. `english` has bytes and tokens of
/// the source's English answers in this model's tokens.
pub fn estimates(rows: &[RowValues], english: &[(f64, f64)]) -> Vec<Measured> {
    let mut found: Vec<Measured> = Vec::new();
    let mut add = |metric, estimate: Option<Estimate>| found.extend(estimate.map(|estimate| (metric, estimate)));
    of_human_answers(rows, english, &mut add);
    of_texts(rows, &mut add);
    of_judging(rows, &mut add);
    found
}

type Add<'a> = dyn FnMut(&'static str, Option<Estimate>) + 'a;

/// The share of rows that a question is answered of.
fn share(answers: impl Iterator<Item = Option<bool>>) -> Option<Estimate> {
    let (mut yes, mut all) = (0, 0);
    for answer in answers.flatten() {
        yes += u64::from(answer);
        all += 1;
    }
    Estimate::share(yes, all)
}

fn of_human_answers(rows: &[RowValues], english: &[(f64, f64)], add: &mut Add<'_>) {
    let human: Vec<_> = rows.iter().filter_map(|row| row.human).collect();
    add("bits_per_byte", ratio(&human.iter().map(|row| (row.bits, row.bytes)).collect::<Vec<_>>()));
    add("bits_per_byte_median", median(&human.iter().map(|row| row.bits / row.bytes).collect::<Vec<_>>()));
    add("unscored", share(rows.iter().map(|row| Some(row.human.is_none()))));
    let bytes_and_tokens: Vec<(f64, f64)> = human.iter().map(|row| (row.bytes, row.tokens)).collect();
    add("bytes_per_token", ratio(&bytes_and_tokens));
    let (bytes, tokens) = english.iter().fold((0.0, 0.0), |(a, b), row| (a + row.0, b + row.1));
    if tokens > 0.0 {
        let per_token = bytes / tokens;
        add(
            "tokens_vs_english",
            ratio(&human.iter().map(|row| (row.tokens * per_token, row.bytes)).collect::<Vec<_>>()),
        );
    }
}

fn of_texts(rows: &[RowValues], add: &mut Add<'_>) {
    let answers: Vec<&AnswerValues> = rows.iter().filter_map(|row| row.answer.as_ref()).collect();
    let all = |of: fn(&AnswerValues) -> bool| share(answers.iter().map(|answer| Some(of(answer))));
    let each = |of: fn(&AnswerValues) -> f64| answers.iter().map(|answer| of(answer)).collect::<Vec<f64>>();
    let passes = |answer: &&&AnswerValues| answer.lines.num_lines > 0 && answer.lines.num_wrong == 0;
    add("language_ok", share(answers.iter().map(|answer| answer.in_language)));
    let judged = answers.iter().filter(|answer| answer.lines.num_lines > 0);
    add("line_pass", share(judged.clone().map(|answer| Some(answer.lines.num_wrong == 0))));
    let lines = judged.map(|answer| answer.lines);
    add("line_ok", ratio(&lines.map(|l| ((l.num_lines - l.num_wrong) as f64, l.num_lines as f64)).collect::<Vec<_>>()));
    add("word_pass", share(answers.iter().filter(passes).map(|answer| answer.has_english.map(|has| !has))));
    add("script_leak", all(|answer| answer.has_foreign_script));
    add("degenerate", all(|answer| answer.is_degenerate));
    add("repeated", mean(&answers.iter().filter_map(|answer| answer.repeated).collect::<Vec<_>>()));
    add("cut_off", all(|answer| answer.is_cut_off));
    add("common_opening", all(|answer| answer.is_common_opening));
    add("failed", share(rows.iter().map(|row| Some(row.answer.is_none()))));
    add("length_ratio", median(&each(|answer| answer.characters / answer.human_characters.max(1.0))));
    add("longer", all(|answer| answer.characters > answer.human_characters));
    let chrf = bootstrap(answers.len(), |picked| {
        let mut counts = ChrfCounts::default();
        picked.iter().for_each(|&row| counts += answers[row].chrf);
        Some(counts.score())
    });
    add("chrf", chrf);
    add("near_identical", all(|answer| answer.is_near_identical));
    add("tokens_per_row", mean(&each(|answer| answer.prompt_tokens + answer.output_tokens)));
    add("output_tokens_per_row", mean(&each(|answer| answer.output_tokens)));
}

fn of_judging(rows: &[RowValues], add: &mut Add<'_>) {
    let each = |of: fn(&RowValues) -> Option<f64>| rows.iter().filter_map(of).collect::<Vec<f64>>();
    add("win_rate", mean(&each(|row| row.judged.won)));
    add("tie_rate", share(rows.iter().map(|row| row.judged.won.map(|won| won == 0.5))));
    let longer = |row: &RowValues| {
        let answer = row.answer.as_ref()?;
        Some((row.judged.won?, answer.characters - answer.human_characters))
    };
    add("win_rate_length_controlled", length_controlled(&rows.iter().filter_map(longer).collect::<Vec<_>>()));
    add("rating_difference", mean(&each(|row| row.judged.rating_difference)));
    add("order_consistency", share(rows.iter().map(|row| row.judged.is_consistent)));
    add("label_mass", mean(&each(|row| row.judged.label_mass)));
    add("judge_entropy", mean(&each(|row| row.judged.entropy)));
}

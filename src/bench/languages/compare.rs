//! Two models on the same prompts, language by language: the difference, its interval, and whether it is more than chance once all
//! comparisons are counted. Knows rows of numbers; knows no text and no file.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::intervals::{holm, paired};
use super::rows::RowValues;

/// A value of a row that two models can be compared by.
type Value = fn(&RowValues) -> Option<f64>;

/// What models are compared by: all of it a mean over rows, so that the test is of what is shown. Bits per byte is here the mean of the
/// rows' own, and chrF++ that of the rows' own scores.
const COMPARED: [(&str, Value); 9] = [
    ("bits_per_byte", |row| row.human.map(|human| human.bits / human.bytes)),
    ("language_ok", |row| row.answer.as_ref()?.in_language.map(number)),
    ("line_pass", |row| {
        let lines = row.answer.as_ref()?.lines;
        (lines.num_lines > 0).then(|| number(lines.num_wrong == 0))
    }),
    ("script_leak", |row| row.answer.as_ref().map(|answer| number(answer.has_foreign_script))),
    ("degenerate", |row| row.answer.as_ref().map(|answer| number(answer.is_degenerate))),
    ("cut_off", |row| row.answer.as_ref().map(|answer| number(answer.is_cut_off))),
    ("chrf", |row| row.answer.as_ref().map(|answer| answer.chrf.score())),
    ("win_rate", |row| row.judged.won),
    ("rating_difference", |row| row.judged.rating_difference),
];

fn number(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// Two models by one metric in one language.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contrast {
    /// The language.
    pub language: String,
    /// The metric's name.
    pub metric: &'static str,
    /// Mean of the first over the prompts that both speak of.
    pub first: f64,
    /// Mean of the second.
    pub second: f64,
    /// First minus second.
    pub difference: f64,
    /// Lower end of its 95 % interval (paired bootstrap by prompt).
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Prompts that both speak of.
    pub num_rows: u64,
    /// Two-sided, of the paired randomisation test.
    pub p: f64,
    /// The same corrected for all comparisons that were made together (Holm).
    pub p_corrected: f64,
}

/// All comparisons of two models, over the languages that both have rows in; p values are corrected over all of them.
pub fn contrasts(first: &BTreeMap<String, Vec<RowValues>>, second: &BTreeMap<String, Vec<RowValues>>) -> Vec<Contrast> {
    let mut found: Vec<Contrast> = Vec::new();
    for (language, rows) in first {
        let Some(others) = second.get(language) else { continue };
        let others: HashMap<&str, &RowValues> = others.iter().map(|row| (row.id.as_str(), row)).collect();
        for (metric, value) in COMPARED {
            let pair = |row: &RowValues| Some((value(row)?, value(others.get(row.id.as_str())?)?));
            let pairs: Vec<(f64, f64)> = rows.iter().filter_map(pair).collect();
            let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
            let Some(test) = paired(&differences) else { continue };
            let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
            found.push(Contrast {
                language: language.clone(),
                metric,
                first: mean(|pair| pair.0),
                second: mean(|pair| pair.1),
                difference: test.difference.value,
                low: test.difference.low,
                high: test.difference.high,
                num_rows: test.difference.n,
                p: test.p,
                p_corrected: 1.0,
            });
        }
    }
    let corrected = holm(&found.iter().map(|contrast| contrast.p).collect::<Vec<_>>());
    found.iter_mut().zip(corrected).for_each(|(contrast, p)| contrast.p_corrected = p);
    found
}

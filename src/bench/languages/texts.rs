//! A bench's figures as text: Markdown for people, CSV for everything else. Knows figures and words; reads no file.

use std::fmt::Write;

use super::report::BenchReport;
use crate::bench::table::Figure;
use crate::dataset::inline_code;
use crate::report::words::{number, visible_name};

/// A value in as few digits as say something. No metric has negative values of thousands.
pub(super) fn shown(unit: &str, value: f64) -> String {
    match unit {
        "share" => format!("{:.1} %", 100.0 * value),
        _ if value.abs() >= 1_000.0 => number(value.abs().round() as u64),
        _ if value.abs() >= 100.0 => format!("{value:.1}"),
        _ if value.abs() >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The interval, as `1.21–1.34` or `-0.12 to 0.31`.
pub(super) fn interval(figure: &Figure) -> Option<String> {
    let (low, high) = (figure.low?, figure.high?);
    let unit = figure.unit.as_str();
    Some(match unit {
        "share" => format!("{:.1}–{:.1} %", 100.0 * low, 100.0 * high),
        _ if low < 0.0 => format!("{} to {}", shown(unit, low), shown(unit, high)),
        _ => format!("{}–{}", shown(unit, low), shown(unit, high)),
    })
}

/// Figures with all columns, a line each.
///
/// # Errors
/// If a row cannot be written.
pub fn to_csv(figures: &[Figure]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for figure in figures {
        writer.serialize(figure)?;
    }
    writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

impl BenchReport {
    /// A table for each language, and what the metrics are.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        let made = &self.made;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "# Bench of {}\n\nMade {}, Pairwright {}, on {} ({}). Rows: {}. Values with 95 % intervals (shares: Wilson; else bootstrap by \
             prompt) and the number of rows.\n",
            made.date,
            made.date,
            made.version,
            inline_code(&visible_name(&made.machine)),
            inline_code(&visible_name(&made.device)),
            inline_code(&visible_name(&made.source)),
        );
        for model in &self.models {
            let show = if model.is_for_show { " **For show: no weights of any use.**" } else { "" };
            let role = if model.is_judge { "judge" } else { "model" };
            let name = inline_code(&visible_name(&model.name));
            let _ = writeln!(text, "- {role} {name}: {}.{show}", model.contamination);
        }
        for (code, name) in &self.languages {
            let _ = writeln!(text, "\n## {} ({})\n", inline_code(&visible_name(name)), inline_code(code));
            let models: Vec<&str> = self.models_with_figures(code);
            let heads: Vec<String> = models.iter().map(|model| inline_code(&visible_name(model))).collect();
            let _ = writeln!(text, "| metric | {} |\n|---|{}", heads.join(" | "), "---|".repeat(models.len()));
            for metric in self.metrics() {
                let cells: Vec<String> = models
                    .iter()
                    .map(|model| self.figure(metric.id, code, model).map_or_else(String::new, cell))
                    .collect();
                if cells.iter().any(|cell| !cell.is_empty()) {
                    let _ = writeln!(text, "| {} ({}) | {} |", metric.label, metric.unit, cells.join(" | "));
                }
            }
        }
        if !self.contrasts.is_empty() {
            let _ = writeln!(
                text,
                "\n## Model against model\n\nPaired by prompt; p of the randomisation test, corrected for all {} tests (Holm). Those below \
                 0.05:\n",
                self.contrasts.len()
            );
            let _ =
                writeln!(text, "| language | metric | first | second | difference | p |\n|---|---|---|---|---|---|");
            for (first, second, test) in self.contrasts.iter().filter(|(_, _, test)| test.p_corrected < 0.05) {
                let [first, second] = [first, second].map(|model| inline_code(&visible_name(model)));
                let _ = writeln!(
                    text,
                    "| {} | {} | {first} | {second} | {:+.3} ({:+.3} to {:+.3}, n = {}) | {:.4} |",
                    test.language, test.metric, test.difference, test.low, test.high, test.num_rows, test.p_corrected
                );
            }
        }
        let _ = writeln!(text, "\n## What the metrics are\n");
        for metric in self.metrics() {
            let _ = writeln!(text, "- **{}** (`{}`, {}): {}", metric.label, metric.id, metric.unit, metric.definition);
        }
        text
    }

    /// Models that have a figure in a language, the judges last.
    pub(super) fn models_with_figures(&self, code: &str) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for model in &self.models {
            let has = self.figures.iter().any(|figure| figure.language == code && figure.model == model.name);
            if has && !names.contains(&model.name.as_str()) {
                names.push(&model.name);
            }
        }
        names
    }
}

fn cell(figure: &Figure) -> String {
    let value = shown(&figure.unit, figure.value);
    match interval(figure) {
        Some(interval) => format!("{value} ({interval}, n = {})", figure.num_rows),
        None => format!("{value} (n = {})", figure.num_rows),
    }
}

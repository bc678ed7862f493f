//! The bench's page: from figures to the words, shades and drawings that the template shows. Knows the template; counts nothing and writes no
//! markup itself. All text goes through the template's escaping.

use askama::Template;

use super::super::BenchError;
use super::metrics::{Better, METRICS, Metric, metric_of};
use super::plots::capital;
use super::report::{BenchReport, Sample};
use super::texts::{interval, shown};
use crate::report::chart::{Figure, Mark, WIDTH, place};
use crate::report::words::{count, number, visible_name};

/// Metrics with a table of languages and models of their own.
const HEATED: [&str; 7] =
    ["bits_per_byte", "language_ok", "line_pass", "degenerate", "win_rate", "chrf", "rows_per_hour"];
/// Metrics that are drawn with their intervals.
const DRAWN: [&str; 9] = [
    "bits_per_byte",
    "language_ok",
    "line_pass",
    "script_leak",
    "degenerate",
    "length_ratio",
    "win_rate",
    "win_rate_length_controlled",
    "known_answers",
];
/// How strong the strongest shade is: text on it keeps a contrast of 5 in both colour schemes.
const STRONGEST: f64 = 0.42;

#[derive(Template)]
#[template(path = "bench/page.html", whitespace = "minimize")]
struct Page<'a> {
    report: &'a BenchReport,
    title: String,
    have: String,
    heats: Vec<Heat>,
    width: String,
    forests: Vec<Figure>,
    fertility: Vec<Figure>,
    tests: Vec<TestRow>,
    num_tests: String,
    tables: Vec<LanguageTable>,
    samples: &'a [Sample],
    metrics: Vec<&'static Metric>,
}

/// A table of languages by models.
struct Heat {
    title: String,
    note: &'static str,
    models: Vec<String>,
    rows: Vec<(String, Vec<Option<HeatCell>>)>,
}

struct HeatCell {
    value: String,
    interval: String,
    /// Strength of the shade, 0 to 1: the best of the table has the most.
    shade: String,
}

struct TestRow {
    language: String,
    metric: String,
    first: String,
    second: String,
    difference: String,
    num_rows: String,
    p: String,
    is_clear: bool,
}

struct LanguageTable {
    name: String,
    code: String,
    models: Vec<String>,
    rows: Vec<(&'static str, &'static str, Vec<String>)>,
}

impl BenchReport {
    /// One page that needs no other file, no script and no connection.
    ///
    /// # Errors
    /// [`BenchError::Page`] if the template fails.
    pub fn to_html(&self) -> Result<String, BenchError> {
        let named = |ids: &[&str]| ids.iter().filter_map(|id| metric_of(id)).collect::<Vec<_>>();
        let (num_models, num_languages) = (self.benched().count() as u64, self.languages.len() as u64);
        let (models, languages) = (count(num_models, "model", "models"), count(num_languages, "language", "languages"));
        let page = Page {
            report: self,
            title: format!("{models} in {languages}"),
            have: self.have(),
            heats: named(&HEATED).into_iter().filter_map(|metric| self.heat(metric)).collect(),
            width: place(WIDTH),
            forests: named(&DRAWN).into_iter().filter_map(|metric| self.forest(metric)).collect(),
            fertility: named(&["bytes_per_token"]).into_iter().filter_map(|metric| self.fertility(metric)).collect(),
            tests: self.tests(),
            num_tests: number(self.contrasts.len() as u64),
            tables: self.languages.iter().map(|(code, name)| self.table(code, name)).collect(),
            samples: &self.samples,
            metrics: self.metrics().collect(),
        };
        Ok(page.render()?)
    }

    fn have(&self) -> String {
        let asked =
            self.figures.iter().filter(|figure| figure.metric == "failed").map(|figure| figure.num_rows.max(0) as u64);
        let (least, most) = (asked.clone().min().unwrap_or(0), asked.max().unwrap_or(0));
        let rows = if least == most {
            count(most, "prompt", "prompts")
        } else {
            format!("{} to {} prompts", number(least), number(most))
        };
        let judge = match self.models.iter().find(|model| model.is_judge) {
            Some(judge) => format!("rated by {}", visible_name(&judge.name)),
            None => "without a judge, so that nothing here says which answers are better".to_owned(),
        };
        let show = if self.models.iter().any(|model| model.is_for_show) {
            " Models marked “for show” have no weights of any use: the page shows the form, not quality."
        } else {
            ""
        };
        format!("{rows} with a person's answer in each language, {judge}.{show}")
    }

    fn heat(&self, metric: &'static Metric) -> Option<Heat> {
        let models: Vec<&str> = self.benched().map(|model| model.name.as_str()).collect();
        let values = || {
            self.languages
                .iter()
                .flat_map(|(code, _)| models.iter().filter_map(|model| self.figure(metric.id, code, model)))
        };
        let (least, most) = (values().map(|f| f.value).reduce(f64::min)?, values().map(|f| f.value).reduce(f64::max)?);
        let shade = |value: f64| {
            if most <= least {
                return 0.0;
            }
            let place = (value - least) / (most - least);
            STRONGEST * if metric.better == Better::Low { 1.0 - place } else { place }
        };
        let cell = |code: &str, model: &str| {
            let figure = self.figure(metric.id, code, model)?;
            let interval = interval(figure).map_or_else(String::new, |interval| format!("{interval}, "));
            Some(HeatCell {
                value: shown(&figure.unit, figure.value),
                interval: format!("{interval}n = {}", figure.num_rows),
                shade: format!("{:.2}", shade(figure.value)),
            })
        };
        let row = |(code, name): &(String, String)| {
            (visible_name(&format!("{name} ({code})")), models.iter().map(|model| cell(code, model)).collect())
        };
        Some(Heat {
            title: format!("{} ({})", capital(metric.label), metric.unit),
            note: match metric.better {
                Better::High => "Higher is better; the better, the stronger the shade.",
                Better::Low => "Lower is better; the better, the stronger the shade.",
                Better::Neither => "Neither way is better by itself; the higher, the stronger the shade.",
            },
            models: models.iter().map(|model| visible_name(model)).collect(),
            rows: self.languages.iter().map(row).collect(),
        })
    }

    fn tests(&self) -> Vec<TestRow> {
        let row = |(first, second, test): &(String, String, super::compare::Contrast)| TestRow {
            language: test.language.clone(),
            metric: metric_of(test.metric).map_or(test.metric, |metric| metric.label).to_owned(),
            first: visible_name(first),
            second: visible_name(second),
            difference: format!("{:+.3} ({:+.3} to {:+.3})", test.difference, test.low, test.high),
            num_rows: number(test.num_rows),
            p: if test.p_corrected < 0.001 { "< 0.001".to_owned() } else { format!("{:.3}", test.p_corrected) },
            is_clear: test.p_corrected < 0.05,
        };
        self.contrasts.iter().map(row).collect()
    }

    fn table(&self, code: &str, name: &str) -> LanguageTable {
        let models = self.models_with_figures(code);
        let cell = |metric: &Metric, model: &&str| match self.figure(metric.id, code, model) {
            None => "–".to_owned(),
            Some(figure) => {
                let interval = interval(figure).map_or_else(String::new, |interval| format!(" ({interval})"));
                format!("{}{interval} n = {}", shown(&figure.unit, figure.value), figure.num_rows)
            }
        };
        let rows = METRICS.iter().map(|metric| {
            (metric.label, metric.unit, models.iter().map(|model| cell(metric, model)).collect::<Vec<_>>())
        });
        let rows = rows.filter(|(_, _, cells)| cells.iter().any(|cell| cell != "–")).collect();
        let models = models.into_iter().map(visible_name).collect();
        LanguageTable { name: visible_name(name), code: code.to_owned(), models, rows }
    }
}

/// A name of a row or a model on one line, nothing in it invisible.
fn name(text: &str) -> String {
    visible_name(text)
}

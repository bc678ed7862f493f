//! A bench's drawings: figures with their intervals one under the other, and bars of bytes per token. Knows marks and figures; no markup.

use super::metrics::{Better, Metric};
use super::report::BenchReport;
use super::texts::{interval, shown};
use crate::bench::table::Figure;
use crate::report::chart::{self, Mark, Scale, Table, WIDTH};
use crate::report::words::visible_name;

/// Height of a row with its label, in units.
const ROW: f64 = 30.0;
const LEFT: f64 = 8.0;
/// Labels are cut here; the table beside a drawing has them whole.
const MAX_LABEL: usize = 46;

fn label(language: &str, model: &str) -> String {
    let text = visible_name(&format!("{language} · {model}"));
    match text.char_indices().nth(MAX_LABEL) {
        Some((end, _)) => format!("{}…", text.split_at(end).0),
        None => text,
    }
}

impl BenchReport {
    /// The figures of a metric, language by language, models within.
    fn figures_of<'r>(&'r self, metric: &'r Metric) -> Vec<(&'r str, &'r Figure)> {
        let in_language = |(code, _): &'r (String, String)| {
            let models = self.models_with_figures(code);
            models.into_iter().filter_map(move |model| Some((code.as_str(), self.figure(metric.id, code, model)?)))
        };
        self.languages.iter().flat_map(in_language).collect()
    }

    /// A metric's values with their intervals, one under the other; `None` if there is none.
    pub(super) fn forest(&self, metric: &'static Metric) -> Option<chart::Figure> {
        let figures = self.figures_of(metric);
        let ends = |figure: &Figure| [figure.low.unwrap_or(figure.value), figure.high.unwrap_or(figure.value)];
        let all = || figures.iter().flat_map(|(_, figure)| ends(figure));
        let (least, most) = (all().reduce(f64::min)?, all().reduce(f64::max)?);
        let is_share = metric.unit == "share";
        let values = match is_share {
            true => [0.0, 1.0],
            false => {
                let slack = (most - least).max(0.02 * most.abs()).max(1e-6) * 0.08;
                [least - slack, most + slack]
            }
        };
        let scale = Scale { values, places: [LEFT, WIDTH - LEFT] };
        let bottom = ROW * figures.len() as f64 + 6.0;
        let mut marks = Vec::new();
        for at in [0.0, 0.5, 1.0] {
            let value = values[0] + at * (values[1] - values[0]);
            let (x, side) = (scale.at(value), ["start", "middle", "end"][(2.0 * at) as usize]);
            marks.push(Mark::line([x, 0.0], [x, bottom], "rule"));
            marks.push(Mark::text([x, bottom + 15.0], shown(metric.unit, value), side));
        }
        for (row, (language, figure)) in figures.iter().enumerate() {
            let y = ROW * row as f64;
            let [low, high] = ends(figure).map(|value| scale.at(value));
            marks.push(Mark::text([LEFT, y + 13.0], label(language, &figure.model), "start name"));
            marks.push(Mark::line([low, y + 22.0], [high, y + 22.0], "span"));
            marks.push(Mark::rectangle([scale.at(figure.value) - 3.0, y + 19.0], [6.0, 6.0], "cell"));
        }
        let better = match metric.better {
            Better::High => "Higher is better. ",
            Better::Low => "Lower is better. ",
            Better::Neither => "",
        };
        Some(chart::Figure {
            id: metric.id,
            title: format!("{} ({})", capital(metric.label), metric.unit),
            note: format!("{better}{}.", capital(metric.definition)),
            label: format!("{}: values and 95 % intervals of each model in each language", metric.label),
            height: bottom + 22.0,
            marks,
            legend: Vec::new(),
            table: numbers(&figures),
        })
    }

    /// Bytes per token as bars, more is cheaper.
    pub(super) fn fertility(&self, metric: &'static Metric) -> Option<chart::Figure> {
        let figures = self.figures_of(metric);
        let most = figures.iter().map(|(_, figure)| figure.value).reduce(f64::max)?;
        let scale = Scale { values: [0.0, most.max(1e-9)], places: [0.0, WIDTH - 2.0 * LEFT - 44.0] };
        let mut marks = Vec::new();
        for (row, (language, figure)) in figures.iter().enumerate() {
            let y = ROW * row as f64;
            let width = scale.at(figure.value);
            marks.push(Mark::text([LEFT, y + 13.0], label(language, &figure.model), "start name"));
            marks.push(Mark::rectangle([LEFT, y + 17.0], [width, 9.0], "model"));
            marks.push(Mark::text([LEFT + width + 5.0, y + 25.5], shown(metric.unit, figure.value), "start"));
        }
        Some(chart::Figure {
            id: metric.id,
            title: "How many bytes of text a token holds".to_owned(),
            note: format!("More is cheaper. {}.", capital(metric.definition)),
            label: "bytes per token of each model in each language".to_owned(),
            height: ROW * figures.len() as f64 + 4.0,
            marks,
            legend: Vec::new(),
            table: numbers(&figures),
        })
    }
}

pub(super) fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + characters.as_str())
}

fn numbers(figures: &[(&str, &Figure)]) -> Table {
    let head = ["language and model", "value", "95 % interval", "n"].map(str::to_owned).to_vec();
    let row = |(language, figure): &(&str, &Figure)| {
        vec![
            visible_name(&format!("{language} · {}", figure.model)),
            shown(&figure.unit, figure.value),
            interval(figure).unwrap_or_else(|| "–".to_owned()),
            figure.num_rows.to_string(),
        ]
    };
    Table { head, rows: figures.iter().map(row).collect() }
}

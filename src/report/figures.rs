//! The report's drawings: from its numbers to marks and tables. Knows the numbers and what is worth saying of them; counts nothing.

use super::chart::{Figure, Frame, Mark, Scale, Table, WIDTH, log_ticks, place, ticks};
use super::data::{GRID_BINS, Lengths, Margins, RatingBins, ReportData};
use super::words::{count, number, percent, share_in_words};

const HEIGHT: f64 = 220.0;

fn cells<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

fn share_of(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Ratings of human and of model answers, on one scale so that they can be compared; those without any are left out.
pub fn ratings(data: &ReportData) -> Vec<Figure> {
    let sides = [
        ("human-ratings", "Human answers", "human", &data.human_ratings),
        ("model-ratings", "Model answers", "model", &data.model_ratings),
    ];
    let tallest = |bins: &RatingBins| bins.bins.iter().map(|&n| share_of(n, bins.num_answers)).fold(0.0, f64::max);
    let most = 100.0 * tallest(&data.human_ratings).max(tallest(&data.model_ratings));
    let sides = sides.into_iter().filter(|(.., bins)| bins.num_answers > 0);
    sides.map(|(id, who, class, bins)| rating_histogram(id, who, class, bins, most)).collect()
}

fn rating_histogram(id: &'static str, who: &str, class: &'static str, bins: &RatingBins, most: f64) -> Figure {
    let y_ticks = ticks(most);
    let frame = Frame::new([1.0, 5.0], [0.0, y_ticks.last().copied().unwrap_or(1.0)], HEIGHT);
    let labels: Vec<(f64, String)> = (1..=5).map(|label| (f64::from(label), label.to_string())).collect();
    let y_labels: Vec<(f64, String)> = y_ticks.iter().map(|tick| (*tick, format!("{tick} %"))).collect();
    let mut marks = frame.axes(&labels, &y_labels, ["rating", ""]);
    let width = 4.0 / bins.bins.len().max(1) as f64;
    let mut rows = Vec::new();
    for (at, &num_answers) in bins.bins.iter().enumerate() {
        let share = share_of(num_answers, bins.num_answers);
        let from = 1.0 + at as f64 * width;
        if num_answers > 0 {
            let (x, y) = (frame.x.at(from) + 0.5, frame.y.at(100.0 * share));
            let size = [frame.x.at(from + width) - x - 0.5, frame.y.places[0] - y];
            marks.push(Mark::rectangle([x, y], size, class));
        }
        rows.push(vec![format!("{from:.2} to {:.2}", from + width), number(num_answers), percent(share)]);
    }
    let mean = bins.mean.unwrap_or(0.0);
    let x = frame.x.at(mean.clamp(1.0, 5.0));
    marks.push(Mark::line([x, frame.y.places[0]], [x, frame.y.places[1]], "marker"));
    let title = format!("{who} are rated {mean:.2} on average");
    Figure {
        id,
        label: format!("Histogram of ratings from 1 to 5. {title}, n = {}.", number(bins.num_answers)),
        note: format!("{}; the dashed line is the mean.", count(bins.num_answers, "rated answer", "rated answers")),
        title,
        height: HEIGHT,
        marks,
        legend: Vec::new(),
        table: Table { head: cells(["rating", "answers", "share"]), rows },
    }
}

/// Human against model ratings of the same prompt; `None` without a couple.
pub fn couples(data: &ReportData) -> Option<Figure> {
    let couples = &data.couples;
    let (human, model) = (couples.human_higher?, couples.model_higher?);
    let size = 300.0;
    let [x, y] = [
        Scale { values: [1.0, 5.0], places: [46.0, 346.0] },
        Scale { values: [1.0, 5.0], places: [size + 10.0, 10.0] },
    ];
    let most = couples.grid.iter().flatten().copied().max().unwrap_or(0).max(1);
    let (mut marks, mut counted, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let side = size / GRID_BINS as f64;
    let from = |bin: usize| 1.0 + 4.0 * bin as f64 / GRID_BINS as f64;
    for (row, counts) in couples.grid.iter().enumerate() {
        let mut cells = vec![format!("human {:.1} to {:.1}", from(row), from(row + 1))];
        for (column, &num_couples) in counts.iter().enumerate() {
            let at = [x.at(from(column)) + 0.5, y.at(from(row + 1)) + 0.5];
            let strength = share_of(num_couples, most).sqrt();
            let Mark::Box { x, y, width, height, .. } = Mark::rectangle(at, [side - 1.0; 2], "cell") else { continue };
            let (class, opacity) = if num_couples == 0 {
                ("cell empty", None)
            } else {
                ("cell", Some(format!("{:.2}", 0.15 + 0.85 * strength)))
            };
            marks.push(Mark::Box { x, y, width, height, class, opacity });
            if num_couples > 0 {
                let class = if strength > 0.6 { "middle on-strong" } else { "middle on-weak" };
                let text =
                    if num_couples < 10_000 { num_couples.to_string() } else { format!("{}k", num_couples / 1000) };
                counted.push(Mark::text([at[0] + side / 2.0, at[1] + side / 2.0 + 4.0], text, class));
            }
            cells.push(number(num_couples));
        }
        rows.push(cells);
    }
    rows.reverse();
    marks.push(Mark::line([x.places[0], y.places[0]], [x.places[1], y.places[1]], "marker faint"));
    marks.extend(counted);
    for label in 1..=5 {
        let value = f64::from(label);
        marks.push(Mark::text([x.at(value), y.places[0] + 16.0], label.to_string(), "middle"));
        marks.push(Mark::text([x.places[0] - 6.0, y.at(value) + 4.0], label.to_string(), "end"));
    }
    marks.push(Mark::text([x.at(3.0), y.places[0] + 33.0], "rating of the model's answer →", "middle name"));
    marks.push(Mark::text([14.0, y.at(3.0)], "rating of the human answer →", "middle name upward"));
    let title = format!("The model's answer is rated above the human one in {}", share_in_words(&model));
    let head = (0..GRID_BINS).map(|column| format!("model {:.1} to {:.1}", from(column), from(column + 1)));
    Some(Figure {
        id: "couples",
        label: format!(
            "Grid of human ratings against model ratings. {title}; the human one above the model's in {}.",
            share_in_words(&human)
        ),
        note: format!(
            "{} to the same prompt: each cell counts them by both ratings. Below the dashed line the model's answer is the better one, \
             above it the human one ({}).",
            count(model.total, "human answer beside a model's", "human answers, each beside a model's"),
            share_in_words(&human)
        ),
        title,
        height: size + 52.0,
        marks,
        legend: Vec::new(),
        table: Table { head: std::iter::once(String::new()).chain(head).collect(), rows },
    })
}

/// Differences of ratings by who was chosen; `None` without any.
pub fn differences(data: &ReportData) -> Option<Figure> {
    let Margins { num_prompts, quantiles, bins, .. } = &data.margins;
    let quantiles = quantiles.as_ref()?;
    let tallest = bins.iter().map(|bin| bin.num_human + bin.num_model + bin.num_ties).max()?;
    let y_ticks = ticks(tallest as f64);
    let end = (bins.len() as f64 / 10.0).max(1.0);
    let frame = Frame::new([0.0, end], [0.0, y_ticks.last().copied().unwrap_or(1.0)], HEIGHT);
    let labels: Vec<(f64, String)> = y_ticks.iter().map(|tick| (*tick, number(*tick as u64))).collect();
    let mut marks = frame.axes(&steps(end), &labels, ["difference of ratings", "prompts"]);
    let mut rows = Vec::new();
    for bin in bins {
        let mut below = 0;
        for (class, num_prompts) in [("tie", bin.num_ties), ("human", bin.num_human), ("model", bin.num_model)] {
            let (x, y) = (frame.x.at(bin.from) + 0.5, frame.y.at((below + num_prompts) as f64));
            let size = [frame.x.at(bin.from + 0.1) - x - 0.5, frame.y.at(below as f64) - y];
            if num_prompts > 0 {
                marks.push(Mark::rectangle([x, y], size, class));
            }
            below += num_prompts;
        }
        let counts = [bin.num_human, bin.num_model, bin.num_ties].map(number);
        rows.push([vec![format!("{:.1} to {:.1}", bin.from, bin.from + 0.1)], counts.to_vec()].concat());
    }
    let x = frame.x.at(data.made.pairing.margin);
    if data.made.pairing.margin <= end {
        marks.push(Mark::line([x, frame.y.places[0]], [x, frame.y.places[1]], "marker"));
    }
    let title = format!("Half of the prompts have answers that are {:.2} or less apart", quantiles.p50);
    Some(Figure {
        id: "differences",
        label: format!("Histogram of the difference of best and worst rating. {title}, n = {}.", number(*num_prompts)),
        note: format!(
            "{} with two rated answers; the dashed line is the margin of this run, {}.",
            count(*num_prompts, "prompt", "prompts"),
            data.made.pairing.margin
        ),
        title,
        height: HEIGHT,
        marks,
        legend: vec![("human", "human answer chosen"), ("model", "model answer chosen"), ("tie", "too close: no pair")],
        table: Table { head: cells(["difference", "human chosen", "model chosen", "no pair"]), rows },
    })
}

/// Labels along an axis of differences, which ends between 0 and 4.
fn steps(end: f64) -> Vec<(f64, String)> {
    let step = if end > 2.0 {
        1.0
    } else if end > 1.0 {
        0.5
    } else {
        0.2
    };
    let number = (end / step + 1e-9).floor() as u32;
    (0..=number).map(|at| f64::from(at) * step).map(|value| (value, place(value))).collect()
}

/// Pairs kept as the margin moves; `None` if there was nothing to pair.
pub fn kept(data: &ReportData) -> Option<Figure> {
    let counts = &data.margins.pairs_at_margin;
    let (first, last) = (counts.first()?, counts.last()?);
    let y_ticks = ticks(first.num_pairs as f64);
    let end = last.margin.max(0.2);
    let frame = Frame::new([0.0, end], [0.0, y_ticks.last().copied().unwrap_or(1.0)], HEIGHT);
    let labels: Vec<(f64, String)> = y_ticks.iter().map(|tick| (*tick, number(*tick as u64))).collect();
    let mut marks = frame.axes(&steps(end), &labels, ["margin", "pairs"]);
    let path: Vec<String> = counts
        .iter()
        .map(|step| format!("{} {}", place(frame.x.at(step.margin)), place(frame.y.at(step.num_pairs as f64))))
        .collect();
    marks.push(Mark::Path { d: format!("M{}", path.join("L")), class: "curve" });
    let (margin, num_pairs) = (data.made.pairing.margin, data.funnel.num_pairs);
    if margin <= end {
        let x = frame.x.at(margin);
        marks.push(Mark::line([x, frame.y.places[0]], [x, frame.y.places[1]], "marker"));
        marks.push(Mark::rectangle([x - 3.0, frame.y.at(num_pairs as f64) - 3.0], [6.0; 2], "here"));
    }
    let at = |margin: f64| counts.iter().find(|step| step.margin >= margin - 1e-9).map_or(0, |step| step.num_pairs);
    let title = format!(
        "A margin of {margin} leaves {}; a margin of 1 would leave {}",
        count(num_pairs, "pair", "pairs"),
        number(at(1.0))
    );
    let row = |step: &crate::dataset::MarginCount| {
        vec![format!("{:.2}", step.margin), number(step.num_pairs), percent(share_of(step.num_pairs, first.num_pairs))]
    };
    Some(Figure {
        id: "kept",
        label: format!("Line of the number of pairs over the margin. {title}."),
        note: "Another margin needs no model: call “pairwright pair” with --margin. A higher one gives fewer and clearer pairs.".to_owned(),
        title,
        height: HEIGHT,
        marks,
        legend: Vec::new(),
        table: Table { head: cells(["margin", "pairs", "of those at margin 0"]), rows: counts.iter().map(row).collect() },
    })
}

/// Chosen against rejected length; `None` without pairs.
pub fn lengths(data: &ReportData) -> Option<Figure> {
    let (lengths, longer) = (data.lengths.as_ref()?, data.longer_chosen?);
    let all = || lengths.points.iter().flatten().map(|&length| length.max(1) as f64);
    let values = log_ticks(all().fold(f64::INFINITY, f64::min), all().fold(1.0, f64::max));
    let (least, most) = (values.first()?.log10(), values.last()?.log10());
    let size = 300.0;
    let [x, y] = [
        Scale { values: [least, most], places: [46.0, 346.0] },
        Scale { values: [least, most], places: [size + 10.0, 10.0] },
    ];
    let mut marks = Vec::new();
    // With many labels the powers of ten say enough.
    let is_shown = |value: f64| values.len() <= 7 || value.log10().fract().abs() < 1e-9;
    for &value in values.iter().filter(|&&value| is_shown(value)) {
        let (across, up, label) = (x.at(value.log10()), y.at(value.log10()), short(value));
        marks.push(Mark::line([across, y.places[0]], [across, y.places[1]], "rule"));
        marks.push(Mark::line([x.places[0], up], [x.places[1], up], "rule"));
        marks.push(Mark::text([across, y.places[0] + 16.0], label.clone(), "middle"));
        marks.push(Mark::text([x.places[0] - 6.0, up + 4.0], label, "end"));
    }
    marks.push(Mark::line([x.places[0], y.places[0]], [x.places[1], y.places[1]], "marker"));
    for (class, is_longer) in [("dots shorter", false), ("dots longer", true)] {
        let dots: String = lengths
            .points
            .iter()
            .filter(|[chosen, rejected]| (chosen > rejected) == is_longer)
            .map(|point| point.map(|length| (length.max(1) as f64).log10()))
            .map(|[chosen, rejected]| format!("M{} {}h0", place(x.at(rejected)), place(y.at(chosen))))
            .collect();
        if !dots.is_empty() {
            marks.push(Mark::Path { d: dots, class });
        }
    }
    marks.push(Mark::text(
        [x.at((least + most) / 2.0), y.places[0] + 33.0],
        "characters of the rejected answer →",
        "middle name",
    ));
    marks.push(Mark::text(
        [14.0, y.at((least + most) / 2.0)],
        "characters of the chosen answer →",
        "middle name upward",
    ));
    let title = format!("The chosen answer is the longer one in {} of the pairs", share_in_words(&longer));
    let shown = lengths.points.len() as u64;
    let drawn = if shown < longer.total {
        format!("{} of {}, drawn at random", number(shown), count(longer.total, "pair", "pairs"))
    } else {
        count(shown, "pair", "pairs")
    };
    let rows = Lengths::RATIOS.iter().zip(lengths.num_by_ratio);
    let rows =
        rows.map(|(ratio, n)| vec![(*ratio).to_owned(), number(n), percent(share_of(n, longer.total))]).collect();
    Some(Figure {
        id: "length-scatter",
        label: format!("Scatter of chosen against rejected length. {title}, n = {}.", number(longer.total)),
        note: format!(
            "{drawn}; both axes are logarithmic. Above the dashed line the chosen answer is the longer one. Median {:.0} characters \
             chosen, {:.0} rejected.",
            lengths.chosen.p50, lengths.rejected.p50
        ),
        title,
        height: size + 52.0,
        marks,
        legend: vec![("longer", "chosen is longer"), ("shorter", "chosen is not longer")],
        table: Table { head: cells(["chosen over rejected length", "pairs", "share"]), rows },
    })
}

/// A round number on an axis: 500, 2k, 10k.
fn short(value: f64) -> String {
    let value = value.round() as u64;
    match value {
        1_000_000.. if value.is_multiple_of(1_000_000) => format!("{}M", value / 1_000_000),
        1000.. if value.is_multiple_of(1000) => format!("{}k", value / 1000),
        _ => value.to_string(),
    }
}

/// Width of all drawings, for the template.
pub fn width() -> String {
    place(WIDTH)
}

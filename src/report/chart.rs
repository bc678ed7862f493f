//! Drawings as data: marks with places and classes, which the template turns into SVG, and the table that says the same.
//! Knows geometry; knows neither colours (the page's style has them, for light and dark) nor what is drawn.
//!
//! Not plotters: its SVG has colours in place of classes, so that a drawing could not follow the reader's colour scheme.

/// Width of a drawing in its own units; text of 11 units is readable on a phone and beside another drawing.
pub const WIDTH: f64 = 360.0;

/// A drawing with all that belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Its anchor on the page.
    pub id: &'static str,
    /// What it shows, as a sentence.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// What the drawing shows, for who does not see it.
    pub label: String,
    /// Height in units.
    pub height: f64,
    /// What is drawn, first things first.
    pub marks: Vec<Mark>,
    /// Classes and what they stand for.
    pub legend: Vec<(&'static str, &'static str)>,
    /// The numbers.
    pub table: Table,
}

/// Numbers in rows; the first cell of a row is its heading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Headings of the columns.
    pub head: Vec<String>,
    /// Cells, as many as headings.
    pub rows: Vec<Vec<String>>,
}

/// One thing that is drawn. Numbers are text already: one digit behind the point, so that no last bit shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    /// A box.
    Box {
        /// Left edge.
        x: String,
        /// Upper edge.
        y: String,
        /// Width.
        width: String,
        /// Height.
        height: String,
        /// Its looks.
        class: &'static str,
        /// How strong its colour is, 0..=1, where that says something.
        opacity: Option<String>,
    },
    /// A path.
    Path {
        /// SVG's path language.
        d: String,
        /// Its looks.
        class: &'static str,
    },
    /// A text.
    Text {
        /// Anchor.
        x: String,
        /// Base line.
        y: String,
        /// Its looks, and to which side of the anchor it stands.
        class: &'static str,
        /// What it says.
        text: String,
    },
}

/// A place with one digit behind the point.
pub fn place(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

impl Mark {
    /// A box from its corners.
    pub fn rectangle([x, y]: [f64; 2], [width, height]: [f64; 2], class: &'static str) -> Self {
        let [x, y, width, height] = [x, y, width.max(0.0), height.max(0.0)].map(place);
        Self::Box { x, y, width, height, class, opacity: None }
    }

    /// A straight line.
    pub fn line([x, y]: [f64; 2], to: [f64; 2], class: &'static str) -> Self {
        let [x, y, to_x, to_y] = [x, y, to[0], to[1]].map(place);
        Self::Path { d: format!("M{x} {y}L{to_x} {to_y}"), class }
    }

    /// A text.
    pub fn text([x, y]: [f64; 2], text: impl Into<String>, class: &'static str) -> Self {
        Self::Text { x: place(x), y: place(y), class, text: text.into() }
    }
}

/// A straight relation of values to places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Values at both ends.
    pub values: [f64; 2],
    /// Their places.
    pub places: [f64; 2],
}

impl Scale {
    /// The place of a value.
    pub fn at(&self, value: f64) -> f64 {
        let width = self.values[1] - self.values[0];
        let share = if width == 0.0 { 0.5 } else { (value - self.values[0]) / width };
        self.places[0] + share * (self.places[1] - self.places[0])
    }
}

/// The plotting area and its axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Left to right.
    pub x: Scale,
    /// Bottom to top.
    pub y: Scale,
}

impl Frame {
    /// An area of `height` units with room for labels on the left and below.
    pub fn new(x: [f64; 2], y: [f64; 2], height: f64) -> Self {
        Self {
            x: Scale { values: x, places: [44.0, WIDTH - 12.0] },
            y: Scale { values: y, places: [height - 40.0, 20.0] },
        }
    }

    /// Grid lines and labels at both axes' ticks, and what the axes are.
    pub fn axes(&self, x_ticks: &[(f64, String)], y_ticks: &[(f64, String)], names: [&str; 2]) -> Vec<Mark> {
        let ([left, right], [bottom, top]) = (self.x.places, self.y.places);
        let mut marks = Vec::new();
        for (value, label) in y_ticks {
            let y = self.y.at(*value);
            marks.push(Mark::line([left, y], [right, y], "rule"));
            marks.push(Mark::text([left - 6.0, y + 4.0], label, "end"));
        }
        for (value, label) in x_ticks {
            let x = self.x.at(*value);
            marks.push(Mark::line([x, bottom], [x, bottom + 4.0], "axis"));
            marks.push(Mark::text([x, bottom + 16.0], label, "middle"));
        }
        marks.push(Mark::line([left, bottom], [right, bottom], "axis"));
        marks.push(Mark::text([(left + right) / 2.0, bottom + 33.0], names[0], "middle name"));
        if !names[1].is_empty() {
            marks.push(Mark::text([left, top - 10.0], names[1], "start name"));
        }
        marks
    }
}

/// The next of 1, 2, 5, 10, 20 … that is at least a `parts`th of `most`.
fn step(most: f64, parts: f64) -> f64 {
    let mut step = 1.0;
    let mut factors = [2.0, 2.5, 2.0].into_iter().cycle();
    while step * parts < most {
        step *= factors.next().unwrap_or(2.0);
    }
    step
}

/// Whole numbers from 0 that divide an axis into some four parts; the last one is not below `most`.
pub fn ticks(most: f64) -> Vec<f64> {
    let step = step(most.max(1.0), 4.0);
    let number = (most.max(1.0) / step).ceil() as u32;
    (0..=number).map(|at| f64::from(at) * step).collect()
}

/// 1, 2, 5, 10, 20 … around a range of lengths; only powers of ten if there are many. The first is at most `least`, the last at
/// least `most`.
pub fn log_ticks(least: f64, most: f64) -> Vec<f64> {
    let mut values = vec![1.0];
    let mut factors = [2.0, 2.5, 2.0].into_iter().cycle();
    while let (Some(&last), true) = (values.last(), values.len() < 40) {
        if last >= most && values.len() > 1 {
            break;
        }
        values.push(last * factors.next().unwrap_or(2.0));
    }
    while let ([_, second, ..], true) = (values.as_slice(), values.len() > 2) {
        if *second > least {
            break;
        }
        values.remove(0);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_hold_the_values_between_them() {
        assert_eq!(ticks(0.0), [0.0, 1.0]);
        assert_eq!(ticks(37.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(log_ticks(7.0, 124.0), [5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
        assert_eq!(log_ticks(1.0, 1.0), [1.0, 2.0]);
        for most in [1.0, 3.0, 99.0, 101.0, 12345.0, 4e9] {
            let ticks = ticks(most);
            assert!(ticks.last().is_some_and(|&last| last >= most) && ticks.len() <= 6, "{most}: {ticks:?}");
        }
    }

    #[test]
    fn places_have_one_digit_and_no_minus_zero() {
        assert_eq!([0.0, -0.01, 7.25, 12.96].map(place), ["0", "0", "7.2", "13"]);
    }
}

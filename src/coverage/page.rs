//! The overview as one page that needs no other file, no script and no connection; it is sorted and filtered by style alone.
//! Knows the template; counts nothing and writes no markup itself: the template escapes all text.

use askama::Template;

use super::{Coverage, CoverageRow};
use crate::report::visible_name;

/// The page cannot be filled in.
#[derive(Debug, thiserror::Error)]
#[error("cannot fill in the page of languages: {0}")]
pub struct PageError(#[from] askama::Error);

#[derive(Template)]
#[template(path = "coverage/page.html", whitespace = "minimize")]
struct Page<'a> {
    data: &'a Coverage,
    version: &'static str,
    rows: Vec<Row<'a>>,
    num_models: usize,
    num_veto: usize,
    num_listed: usize,
    num_unstated: usize,
}

/// A language with its places in the orders that a reader may choose.
struct Row<'a> {
    of: &'a CoverageRow,
    by_name: usize,
    by_rows: usize,
    by_models: usize,
    by_identifier: usize,
    class: String,
}

impl Coverage {
    /// The page.
    ///
    /// # Errors
    /// [`PageError`] if the template fails.
    pub fn to_html(&self) -> Result<String, PageError> {
        let places = |key: &dyn Fn(&CoverageRow, &CoverageRow) -> std::cmp::Ordering| -> Vec<usize> {
            let mut order: Vec<usize> = (0..self.languages.len()).collect();
            order.sort_by(|&a, &b| key(&self.languages[a], &self.languages[b]).then(a.cmp(&b)));
            let mut places = vec![0; order.len()];
            order.iter().enumerate().for_each(|(place, &at)| places[at] = place + 1);
            places
        };
        let accuracy = |row: &CoverageRow| row.identifier.as_ref().and_then(|known| known.accuracy).unwrap_or(-1.0);
        let by_name = places(&|a, b| a.name.cmp(&b.name));
        let by_rows = places(&|a, b| b.rows.cmp(&a.rows));
        let by_models = places(&|a, b| b.models.len().cmp(&a.models.len()));
        let by_identifier = places(&|a, b| accuracy(b).total_cmp(&accuracy(a)));
        let row = |(at, of): (usize, &'_ CoverageRow)| (at, class(of));
        let classes: Vec<(usize, String)> = self.languages.iter().enumerate().map(row).collect();
        let rows = classes.into_iter().zip(&self.languages).map(|((at, class), of)| Row {
            of,
            by_name: by_name[at],
            by_rows: by_rows[at],
            by_models: by_models[at],
            by_identifier: by_identifier[at],
            class,
        });
        let count = |is_it: fn(&CoverageRow) -> bool| self.languages.iter().filter(|row| is_it(row)).count();
        let page = Page {
            data: self,
            version: env!("CARGO_PKG_VERSION"),
            rows: rows.collect(),
            num_models: count(|row| !row.models.is_empty()),
            num_veto: count(|row| row.identifier.as_ref().is_some_and(|known| known.may_veto)),
            num_listed: count(|row| row.preference_listed),
            num_unstated: count(|row| row.models.is_empty()),
        };
        Ok(page.render()?)
    }
}

/// What the page's filters look for.
fn class(row: &CoverageRow) -> String {
    let mut classes = vec![row.direction];
    classes.push(if row.preference_listed { "listed" } else { "not-listed" });
    classes.push(if row.models.is_empty() { "no-model" } else { "model" });
    if row.local.is_some_and(|local| local.num_rows > 0) {
        classes.push("here");
    }
    classes.join(" ")
}

// What the template calls.

fn name(text: impl AsRef<str>) -> String {
    visible_name(text.as_ref())
}

fn grouped(number: &u64) -> String {
    crate::report::number(*number)
}

fn percent(share: &f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn list(names: &[String]) -> String {
    visible_name(&names.join(", "))
}

//! The page: from numbers and findings to the words and widths that the template shows. Knows the template; counts nothing and
//! writes no markup itself. All text goes through the template's escaping: `templates/report` never says that something is safe.

use askama::Template;
use serde::Serialize;
use thiserror::Error;

use super::chart::{Figure, Mark};
use super::data::{LanguageCheck, ReportData};
use super::examples::{Example, ExampleGroup, Excerpt};
use super::figures;
use super::findings::{Finding, Weight};
use super::words::{count, interval, number, percent, share_in_words, visible, visible_name};
use crate::judge::Share;
use crate::judge::agreement::Estimate;

/// Languages in the table at most; a source can have hundreds.
const MAX_LANGUAGES: usize = 120;

/// Why a report could not be put together.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The template failed.
    #[error("cannot fill in the report's page: {0}")]
    Page(#[from] askama::Error),
    /// The numbers could not be turned into JSON.
    #[error("cannot write the report's numbers as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

#[derive(Template)]
#[template(path = "report/page.html", whitespace = "minimize")]
struct Page<'a> {
    data: &'a ReportData,
    title: String,
    have: String,
    verdict_class: &'static str,
    verdict: String,
    findings: &'a [Finding],
    tiles: Vec<Tile>,
    funnel: Vec<FunnelRow>,
    width: String,
    ratings: Vec<Figure>,
    margins: Vec<Figure>,
    lengths: Vec<Figure>,
    languages: Vec<LanguageRow>,
    num_languages_left_out: usize,
    groups: Vec<Group<'a>>,
}

/// A number of the head of the page.
struct Tile {
    label: &'static str,
    value: String,
    detail: String,
}

/// A share with the places of its interval on a strip from 0 to 100.
struct Strip {
    percent: String,
    detail: String,
    low: String,
    width: String,
    at: String,
}

struct FunnelRow {
    name: String,
    is_code: bool,
    meaning: String,
    class: &'static str,
    rows: String,
    share: Strip,
}

struct LanguageRow {
    name: String,
    code: String,
    num_records: String,
    pairs: Option<Strip>,
    human: Option<Strip>,
    longer: Option<Strip>,
}

struct Group<'a> {
    title: &'static str,
    note: String,
    examples: &'a [Example],
}

impl Strip {
    fn of(share: &Share) -> Self {
        Self {
            percent: percent(share.share),
            detail: format!("{} of {}, {}", number(share.count), number(share.total), interval(share)),
            low: format!("{:.1}", 100.0 * share.low),
            width: format!("{:.1}", 100.0 * (share.high - share.low)),
            at: format!("{:.1}", 100.0 * share.share),
        }
    }
}

impl ReportData {
    /// One page that needs no other file, no script and no connection.
    ///
    /// # Errors
    /// [`ReportError::Page`] if the template fails.
    pub fn to_html(&self) -> Result<String, ReportError> {
        let findings = self.findings();
        let (weight, verdict) = self.verdict();
        let page = Page {
            data: self,
            title: title(self),
            have: have(self),
            verdict_class: class_of(weight),
            verdict,
            findings: &findings,
            tiles: tiles(self),
            funnel: funnel(self),
            width: figures::width(),
            ratings: figures::ratings(self).into_iter().chain(figures::couples(self)).collect(),
            margins: figures::differences(self).into_iter().chain(figures::kept(self)).collect(),
            lengths: figures::lengths(self).into_iter().collect(),
            languages: languages(self),
            num_languages_left_out: self.languages.len().saturating_sub(MAX_LANGUAGES),
            groups: self.examples.iter().map(group).collect(),
        };
        Ok(page.render()?)
    }

    /// The numbers and findings as indented JSON.
    ///
    /// # Errors
    /// [`ReportError::Json`] if they cannot be turned into JSON.
    pub fn to_json(&self) -> Result<String, ReportError> {
        #[derive(Serialize)]
        struct Numbers<'a> {
            findings: Vec<Finding>,
            #[serde(flatten)]
            data: &'a ReportData,
        }
        Ok(serde_json::to_string_pretty(&Numbers { findings: self.findings(), data: self })?)
    }
}

fn class_of(weight: Weight) -> &'static str {
    match weight {
        Weight::Stop => "stop",
        Weight::Care => "care",
        Weight::Note => "note",
    }
}

fn title(data: &ReportData) -> String {
    match data.made.language.trim() {
        "" => "Preference pairs".to_owned(),
        language => format!("Preference pairs in {}", visible_name(language)),
    }
}

fn have(data: &ReportData) -> String {
    let pairs = count(data.funnel.num_pairs, "preference pair", "preference pairs");
    let rows = count(data.funnel.num_rows_in, "row", "rows");
    let share = data.funnel.paired.as_ref().map_or(String::new(), |share| format!(", {}", percent(share.share)));
    let reason = match data.funnel.drops.first() {
        Some(drop) if drop.meaning.is_empty() => {
            format!(" Most others were left out as “{}”.", visible_name(&drop.reason))
        }
        Some(drop) => format!(" Most others were left out because {}.", because(&drop.meaning)),
        None => String::new(),
    };
    format!("{pairs} from {rows} of the source{share}.{reason}")
}

/// A meaning that is no sentence reads as one behind “because”.
fn because(meaning: &str) -> String {
    match meaning.starts_with("of ") || meaning.starts_with("more ") || meaning.starts_with("fewer ") {
        true => format!("they were {meaning}"),
        false => meaning.to_owned(),
    }
}

fn tiles(data: &ReportData) -> Vec<Tile> {
    let share = |label, share: &Option<Share>, of: &str| {
        let share = share.as_ref()?;
        let detail =
            format!("95 % interval {}, {} of {} {of}", interval(share), number(share.count), number(share.total));
        Some(Tile { label, value: percent(share.share), detail })
    };
    let rows = count(data.funnel.num_rows_in, "row", "rows");
    let pairs =
        Tile { label: "pairs", value: number(data.funnel.num_pairs), detail: format!("from {rows} of the source") };
    let shares = [
        share("human answer chosen", &data.human_chosen, "mixed pairs"),
        share("longer answer chosen", &data.longer_chosen, "pairs"),
        share("verdicts unreliable", &data.unreliable, "verdicts"),
    ];
    std::iter::once(pairs).chain(shares.into_iter().flatten()).collect()
}

fn funnel(data: &ReportData) -> Vec<FunnelRow> {
    let row = |name: &str, meaning: &str, class, share: &Share| FunnelRow {
        name: visible_name(name),
        is_code: class == "drop",
        meaning: meaning.to_owned(),
        class,
        rows: number(share.count),
        share: Strip::of(share),
    };
    let whole = Share::of(data.funnel.num_rows_in, data.funnel.num_rows_in);
    let read = Share::of(data.funnel.num_records, data.funnel.num_rows_in);
    let first = [
        whole.map(|share| row("rows of the source", "", "whole", &share)),
        read.map(|share| row("rows that reading let pass", "", "whole", &share)),
        data.funnel.paired.as_ref().map(|share| row("rows with a pair", "", "kept", share)),
    ];
    let drops = data.funnel.drops.iter().map(|drop| row(&drop.reason, &drop.meaning, "drop", &drop.rows));
    first.into_iter().flatten().chain(drops).collect()
}

fn languages(data: &ReportData) -> Vec<LanguageRow> {
    let strip = |share: &Option<Share>| share.as_ref().map(Strip::of);
    let rows = data.languages.iter().take(MAX_LANGUAGES).map(|row| LanguageRow {
        name: visible_name(&row.language),
        code: visible_name(&row.code),
        num_records: number(row.num_records),
        pairs: strip(&row.paired),
        human: strip(&row.human_chosen),
        longer: strip(&row.longer_chosen),
    });
    rows.collect()
}

fn group(group: &ExampleGroup) -> Group<'_> {
    let (title, what) = match group.kind {
        "random" => ("Pairs drawn at random", "pairs, drawn by the run's seed: what the dataset is like"),
        "contested" => ("The closest calls", "prompts with two rated answers, those with the smallest difference"),
        _ => ("Rows with something odd", "rows with a flag, some of each kind"),
    };
    let note = format!("{} of {} {what}.", number(group.examples.len() as u64), number(group.num_rows));
    Group { title, note, examples: &group.examples }
}

impl Example {
    /// The beginning of the id, enough to find the row.
    fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// A reason without words of its own stands there as the outcome already.
    fn shown_flags(&self) -> Vec<&String> {
        self.flags.iter().filter(|flag| **flag != self.outcome).collect()
    }

    fn shown_difference(&self) -> String {
        self.difference.map_or_else(String::new, |difference| format!("{difference:.2} apart"))
    }
}

impl Excerpt {
    /// As a page may hold it.
    pub(crate) fn shown(&self) -> String {
        visible(&self.text)
    }

    /// How much is not shown.
    pub(crate) fn left_out(&self) -> String {
        let num_shown = self.text.chars().count() as u64;
        format!("… {} more", count(self.num_characters.saturating_sub(num_shown), "character", "characters"))
    }
}

/// A name of a row or a model on one line, nothing in it invisible.
fn name(text: &str) -> String {
    visible_name(text)
}

/// A mean, or a dash where there is none.
fn two_digits(value: &Option<f64>) -> String {
    value.as_ref().map_or_else(|| "–".to_owned(), decimal)
}

fn decimal(value: &f64) -> String {
    format!("{value:.2}")
}

/// A mean with its interval and number.
fn estimate(value: &Estimate) -> String {
    format!("{:+.2} ({:+.2} to {:+.2}, n = {})", value.value, value.low, value.high, number(value.n))
}

fn grouped(value: &u64) -> String {
    number(*value)
}

/// What is done in a second, by what came of a division.
fn rate(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { number(value.round() as u64) }
}

/// How far off, in percent.
fn signed_percent(share: &f64) -> String {
    format!("{:+.0} %", 100.0 * share)
}

/// A part in percent, or a dash of nothing.
fn share_of(part: &u64, rest: &u64) -> String {
    match part + rest {
        0 => "–".to_owned(),
        whole => percent(*part as f64 / whole as f64),
    }
}

fn strip(share: &Share) -> Strip {
    Strip::of(share)
}

fn check_cells(row: &LanguageCheck) -> [String; 4] {
    let total = row.num_ok + row.num_mixed + row.num_wrong + row.num_unsure;
    [row.num_ok, row.num_mixed, row.num_wrong, row.num_unsure].map(|part| match Share::of(part, total) {
        Some(share) => format!("{} · {}", number(part), share_in_words(&share)),
        None => "–".to_owned(),
    })
}

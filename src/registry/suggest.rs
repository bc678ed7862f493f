//! Which models to try first for a language: by what makers state, licences, memory and what was measured, each with its reasons.
//! Knows the list and figures that are handed in; it measures nothing, and says what it does not know.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{AyaData, Fit, LicenceKind, ModelEntry, Registry, RegistryError, Wanted};

/// Whether a model's makers name the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// They do.
    Stated,
    /// They speak of more languages than they name.
    Perhaps,
}

/// A figure of a bench of this machine or another one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// What was measured.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// The figure.
    pub value: f64,
    /// Its 95 % interval, if it has one.
    pub low: Option<f64>,
    /// See `low`.
    pub high: Option<f64>,
    /// Rows behind it.
    pub num_rows: i64,
    /// When.
    pub date: String,
    /// Whether more is better.
    pub more_is_better: bool,
}

/// A model to try, and why it stands where it does.
#[derive(Debug, Clone, Serialize)]
pub struct Suggestion<'a> {
    /// From 1.
    pub rank: usize,
    /// The entry.
    pub model: &'a ModelEntry,
    /// What its makers say of the language.
    pub support: Support,
    /// The widest precision at which it fits.
    pub fit: Option<Fit>,
    /// Of the figures that rank models: this model's, by metric.
    pub measured: Vec<Measured>,
    /// In words, what counts for and against it.
    pub reasons: Vec<String>,
    /// What nobody here knows of it.
    pub unknown: Vec<String>,
}

/// What is wanted of a suggestion.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Language, role, licence and memory.
    pub wanted: Wanted,
    /// Families this build runs.
    pub families: Vec<&'static str>,
    /// Figures in this language by the model's name, as a bench calls it.
    pub measured: BTreeMap<String, Vec<Measured>>,
}

/// Metrics that rank models, the most telling first, and whether more is better.
pub const RANKING: [(&str, bool); 4] =
    [("win_rate", true), ("known_answers", true), ("language_ok", true), ("bits_per_byte", false)];

impl Registry {
    /// Models for a language, best first: those that run here, then those whose makers name it, then what was measured, then open licences, then
    /// the larger ones. The second list is what the language was taken for.
    ///
    /// # Errors
    /// [`RegistryError::UnknownLanguage`] with the closest names.
    pub fn suggest(&self, search: &Search) -> Result<(Vec<Suggestion<'_>>, Vec<String>), RegistryError> {
        let selection = self.select(&search.wanted)?;
        let stated = selection.models.iter().map(|(entry, fit)| (*entry, *fit, Support::Stated));
        let perhaps = selection.perhaps.iter().map(|entry| {
            let fit = search.wanted.budget.and_then(|budget| entry.fit(budget));
            (*entry, fit, Support::Perhaps)
        });
        let mut found: Vec<Suggestion<'_>> = stated
            .chain(perhaps)
            .filter(|(entry, ..)| entry.supported && search.families.iter().any(|family| *family == entry.family))
            .map(|(model, fit, support)| {
                let measured = search.of(model);
                let (reasons, unknown) = (reasons(model, fit, support, &measured), unknown(model, &measured));
                Suggestion { rank: 0, model, support, fit, measured, reasons, unknown }
            })
            .collect();
        found.sort_by(|a, b| compare(a, b));
        found.iter_mut().enumerate().for_each(|(at, one)| one.rank = at + 1);
        Ok((found, selection.languages))
    }
}

impl Search {
    /// A model's figures: by its name, its hub id, or the last part of that.
    fn of(&self, entry: &ModelEntry) -> Vec<Measured> {
        let short = entry.hub_id.rsplit('/').next().unwrap_or_default();
        let is_it =
            |name: &str| [entry.name.as_str(), &entry.hub_id, short].iter().any(|own| own.eq_ignore_ascii_case(name));
        let found = self.measured.iter().find(|(name, _)| is_it(name));
        found.map(|(_, figures)| figures.clone()).unwrap_or_default()
    }
}

/// By stated support, then by the first ranking metric that both have, then whether anything was measured, then licence, then size.
/// One order of all: where some lack a metric, those that have it come first.
fn compare(a: &Suggestion<'_>, b: &Suggestion<'_>) -> std::cmp::Ordering {
    let open = |one: &Suggestion<'_>| one.model.licence_kind != LicenceKind::Open;
    let by_metric = || {
        let orders = RANKING.iter().map(|(metric, more_is_better)| {
            let of = |one: &Suggestion<'_>| {
                one.measured.iter().find(|figure| figure.metric == *metric).map(|figure| figure.value)
            };
            match of(a).zip(of(b)) {
                Some((a, b)) if *more_is_better => b.total_cmp(&a),
                Some((a, b)) => a.total_cmp(&b),
                None => of(a).is_none().cmp(&of(b).is_none()),
            }
        });
        orders.into_iter().find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    };
    a.support
        .cmp(&b.support)
        .then_with(by_metric)
        .then_with(|| a.measured.is_empty().cmp(&b.measured.is_empty()))
        .then_with(|| open(a).cmp(&open(b)))
        .then_with(|| b.model.parameters.cmp(&a.model.parameters))
        .then_with(|| a.model.name.cmp(&b.model.name))
}

fn reasons(model: &ModelEntry, fit: Option<Fit>, support: Support, measured: &[Measured]) -> Vec<String> {
    let mut reasons = vec![match support {
        Support::Stated if model.is_unverified("languages") => {
            "its makers name the language (written from memory)".to_owned()
        }
        Support::Stated => "its makers name the language".to_owned(),
        Support::Perhaps => "its makers speak of more languages than they name; not of this one".to_owned(),
    }];
    reasons.extend(fit.map(|fit| {
        format!("fits at {}: {:.1} GB with cache and work", fit.precision.name, fit.total_bytes as f64 / 1e9)
    }));
    reasons.push(match model.licence_kind {
        LicenceKind::Open => format!("open licence ({})", model.licence),
        LicenceKind::Restricted => format!("terms of use ({})", model.licence),
        LicenceKind::NonCommercial => format!("non-commercial only ({})", model.licence),
        LicenceKind::Unknown => format!("licence to be read first ({})", model.licence),
    });
    reasons.extend(measured.iter().map(|figure| {
        let range = match (figure.low, figure.high) {
            (Some(low), Some(high)) => format!(" ({low:.3} to {high:.3})"),
            _ => String::new(),
        };
        format!(
            "{} {:.3}{range} {}, n = {}, {}",
            figure.metric, figure.value, figure.unit, figure.num_rows, figure.date
        )
    }));
    if model.aya_data == AyaData::Yes {
        reasons.push("trained on Aya data: figures on Aya prompts flatter it".to_owned());
    }
    reasons
}

fn unknown(model: &ModelEntry, measured: &[Measured]) -> Vec<String> {
    let mut unknown = Vec::new();
    if measured.is_empty() {
        unknown.push("nothing was measured in this language".to_owned());
    }
    if model.aya_data == AyaData::Unknown {
        unknown.push("whether it was trained on Aya data".to_owned());
    }
    if model.layers.is_none() {
        unknown.push("its cache per token".to_owned());
    }
    let is_told = |field: &&String| ["languages", "licence", "context"].contains(&field.as_str());
    unknown.extend(model.unverified.iter().filter(is_told).map(|field| format!("{field}: written from memory")));
    unknown
}

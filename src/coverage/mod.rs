//! Every language of the Aya dataset beside what there is for it: rows, an identifier, models, preference datasets, and what was made here.
//! Knows the built-in lists and what is counted for it elsewhere; reads no run and no model.

mod page;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::data::language::{self, AyaLanguage, AyaLanguages, Snapshot};
use crate::quality::Profile;
use crate::registry::{ModelEntry, Registry};
pub use page::PageError;

/// The whole overview.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Coverage {
    /// Where the numbers of rows are from.
    pub rows: Snapshot,
    /// Where preference datasets were looked up.
    pub preference: Snapshot,
    /// How the identifier was measured.
    pub identifier_measured: String,
    /// Runs that were looked at; `None`: none was asked for.
    pub num_local_runs: Option<usize>,
    /// Most rows first.
    pub languages: Vec<CoverageRow>,
}

/// A language.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CoverageRow {
    /// Its name in the dataset.
    pub name: String,
    /// Its own name.
    pub own_name: String,
    /// Its code in the dataset.
    pub code: String,
    /// The code of just this language, where the dataset's is wider.
    pub exact_code: Option<String>,
    /// ISO 639-1, if it has one.
    pub iso639_1: Option<String>,
    /// ISO 15924, the usual one first.
    pub scripts: Vec<String>,
    /// `rtl` or `ltr`.
    pub direction: &'static str,
    /// Rows of the train split.
    pub rows: u64,
    /// Whether these were counted; if not they were read off a chart.
    pub rows_exact: bool,
    /// What the program's own identifier does in it; `None`: it does not know the language.
    pub identifier: Option<Identifier>,
    /// Models of the list whose makers name it.
    pub models: Vec<String>,
    /// Whether the list of preference datasets named it at its date; if not, nothing is said about later ones.
    pub preference_listed: bool,
    /// What runs on this machine have made of it; `None`: none was asked for.
    pub local: Option<Local>,
}

/// An identifier in one language, on texts that had no part in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Identifier {
    /// The code under which it is told apart: dialects of Arabic share one.
    pub code: String,
    /// Texts that were held out.
    pub num_held_out: u64,
    /// Of these: recognised, 0..=1; `None` without any.
    pub accuracy: Option<f64>,
    /// Whether it may call an answer wrong where this language is expected.
    pub may_veto: bool,
    /// Languages that it does not tell apart from this one.
    pub close_to: Vec<String>,
}

/// What was made on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Local {
    /// Rows of runs.
    pub num_rows: u64,
    /// Rows with a pair.
    pub num_pairs: u64,
    /// Votes of people that count.
    pub num_votes: u64,
}

/// What runs have made, by language.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalCounts {
    /// See [`key`].
    by_key: BTreeMap<String, Local>,
    /// Runs.
    pub num_runs: usize,
}

/// The exact code of a language; the two forms of Chinese, which share it, are told apart by name.
fn key(name: &str, code: &str) -> Option<String> {
    let exact = language::exact_code(name, code)?;
    let is_traditional = name.to_lowercase().contains("traditional");
    Some(if is_traditional { format!("{exact}-Hant") } else { exact.to_owned() })
}

impl LocalCounts {
    /// Adds what a run has of a language, as it spells it.
    pub fn add(&mut self, name: &str, code: &str, more: Local) {
        let Some(key) = key(name, code) else { return };
        let sum = self.by_key.entry(key).or_default();
        sum.num_rows += more.num_rows;
        sum.num_pairs += more.num_pairs;
        sum.num_votes += more.num_votes;
    }
}

impl Coverage {
    /// Puts the lists beside each other.
    pub fn of(aya: &AyaLanguages, registry: &Registry, profile: &Profile, local: Option<&LocalCounts>) -> Self {
        let row = |one: &AyaLanguage| row(one, registry, profile, local);
        Self {
            rows: aya.rows.clone(),
            preference: aya.preference.clone(),
            identifier_measured: profile.header().held_out.clone(),
            num_local_runs: local.map(|local| local.num_runs),
            languages: aya.languages.iter().map(row).collect(),
        }
    }
}

fn row(one: &AyaLanguage, registry: &Registry, profile: &Profile, local: Option<&LocalCounts>) -> CoverageRow {
    let exact = language::exact_code(&one.name, &one.code);
    let states = |entry: &&ModelEntry| entry.states(&one.name, &one.code);
    let known = language::broad_code(&one.name, &one.code).and_then(|code| profile.language(code));
    CoverageRow {
        name: one.name.clone(),
        own_name: one.own.clone(),
        code: one.code.clone(),
        exact_code: exact.filter(|exact| *exact != one.code).map(str::to_owned),
        iso639_1: language::iso639_1(&one.code).map(str::to_owned),
        scripts: one.scripts.clone(),
        direction: one.direction(),
        rows: one.rows,
        rows_exact: one.exact,
        identifier: known.map(|known| Identifier {
            code: known.code.clone(),
            num_held_out: known.num_held_out,
            accuracy: (known.num_held_out > 0).then(|| known.num_correct as f64 / known.num_held_out as f64),
            may_veto: known.is_validated(),
            close_to: known.close_to.clone(),
        }),
        models: registry.models().iter().filter(states).map(|entry| entry.name.clone()).collect(),
        preference_listed: one.listed,
        local: local.map(|local| {
            let found = key(&one.name, &one.code).and_then(|key| local.by_key.get(&key));
            found.copied().unwrap_or_default()
        }),
    }
}

//! The languages of the Aya dataset and what dated snapshots say of them: `aya.toml`, read and checked.
//! Knows names, scripts and counts with their sources; reads no dataset, and guesses nothing that the file does not say.

use serde::{Deserialize, Serialize};

/// The list that is built in.
const EMBEDDED: &str = include_str!("aya.toml");

/// Scripts that run from right to left.
const RIGHT_TO_LEFT: [&str; 5] = ["Arab", "Hebr", "Syrc", "Thaa", "Nkoo"];

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the built-in list of Aya's languages is damaged: {0}\nhint: this is a fault of the program; please report it")]
pub struct AyaListError(String);

/// Where and when something was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// What was read.
    pub what: String,
    /// The day that it speaks of.
    pub date: String,
    /// The page.
    pub source: String,
}

/// A language, as the dataset names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AyaLanguage {
    /// Unique.
    pub name: String,
    /// ISO 639-3, of some a macro-language's.
    pub code: String,
    /// Its own name.
    pub own: String,
    /// ISO 15924, the usual one first.
    pub scripts: Vec<String>,
    /// Rows of the train split.
    pub rows: u64,
    /// Whether these were counted.
    #[serde(default)]
    pub exact: bool,
    /// Whether the list of preference datasets names it.
    #[serde(default)]
    pub listed: bool,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AyaLanguages {
    /// Of the rows.
    pub rows: Snapshot,
    /// Of the preference datasets.
    pub preference: Snapshot,
    /// Most rows first.
    #[serde(rename = "language")]
    pub languages: Vec<AyaLanguage>,
}

impl AyaLanguage {
    /// `rtl` or `ltr`, by its usual script.
    pub fn direction(&self) -> &'static str {
        match self.scripts.first() {
            Some(script) if RIGHT_TO_LEFT.contains(&script.as_str()) => "rtl",
            _ => "ltr",
        }
    }
}

impl AyaLanguages {
    /// The list that is built into the program.
    ///
    /// # Errors
    /// [`AyaListError`], which a test rules out.
    pub fn embedded() -> Result<Self, AyaListError> {
        toml::from_str(EMBEDDED).map_err(|error| AyaListError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::language::{broad_code, english_name};

    #[test]
    fn the_list_names_every_language_once_with_sources() {
        let all = AyaLanguages::embedded().unwrap();
        assert_eq!(all.languages.len(), 71, "as many names as the dataset has");
        let names: std::collections::BTreeSet<&str> = all.languages.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names.len(), 71);
        let codes: std::collections::BTreeSet<&str> = all.languages.iter().map(|one| one.code.as_str()).collect();
        assert_eq!(codes.len(), 70, "as many codes as its card has: Chinese is one");
        for one in &all.languages {
            assert!(english_name(&one.code).is_some() && broad_code(&one.name, &one.code).is_some(), "{}", one.name);
            assert!(!one.own.trim().is_empty() && !one.scripts.is_empty() && one.rows > 0, "{}", one.name);
            assert!(one.scripts.iter().all(|script| script.len() == 4), "{}", one.name);
        }
        assert!(all.languages.windows(2).all(|two| two[0].rows >= two[1].rows), "most rows first");
        // The chart's total is within a percent of the split's.
        let total: u64 = all.languages.iter().map(|one| one.rows).sum();
        assert!(total.abs_diff(202_362) < 2_024, "{total}");
        assert_eq!(
            all.languages.iter().filter(|one| one.listed).count(),
            15,
            "14 languages, of which Chinese has two names"
        );
        let rtl: Vec<&str> =
            all.languages.iter().filter(|one| one.direction() == "rtl").map(|one| one.code.as_str()).collect();
        assert_eq!(rtl, ["ary", "arb", "pes", "pus", "urd", "arz", "snd", "ars", "acq", "apc", "kur"]);
        for snapshot in [&all.rows, &all.preference] {
            assert!(snapshot.source.starts_with("https://") && snapshot.date.len() == 10, "{snapshot:?}");
        }
    }
}

//! Choosing entries by language, role, licence and memory.
//! Knows the list and language codes; does not know how a choice is printed.

use std::collections::BTreeSet;

use super::{Fit, LicenceKind, ModelEntry, Registry, RegistryError, Role};
use crate::data::language::{self, MatchedBy};
use crate::data::{LanguageCount, LanguageMatch};

/// What entries must have.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A language by name or code.
    pub language: Option<String>,
    /// A role.
    pub role: Option<Role>,
    /// Only licences of [`LicenceKind::Open`].
    pub open_licence: bool,
    /// Bytes that weights and allowance may take.
    pub budget: Option<u64>,
}

/// What was chosen.
#[derive(Debug)]
pub struct Selection<'a> {
    /// The entries, largest first, with their fit where a budget was given.
    pub models: Vec<(&'a ModelEntry, Option<Fit>)>,
    /// Codes that the language was taken for; empty if none was asked for.
    pub languages: Vec<String>,
    /// How the language was found, if one was asked for.
    pub matched_by: Option<MatchedBy>,
    /// Entries that meet everything but the language, and speak of more languages than they name.
    pub perhaps: Vec<&'a ModelEntry>,
}

impl ModelEntry {
    /// Whether its makers name this language, given as a source spells it: a macro-language that they name is its standard member, so that
    /// `ara` is no word about Moroccan Arabic.
    pub fn states(&self, name: &str, code: &str) -> bool {
        let own = language::exact_code(name, code);
        // Filipino is the standard form of Tagalog.
        let form = |code: &'static str| if code == "tgl" { "fil" } else { code };
        self.languages.iter().any(|stated| own.is_some() && language::exact_code("", stated).map(form) == own.map(form))
    }
}

impl Registry {
    /// The entries that have what is wanted, largest first.
    ///
    /// # Errors
    /// [`RegistryError::UnknownLanguage`] if no entry names the language.
    pub fn select(&self, wanted: &Wanted) -> Result<Selection<'_>, RegistryError> {
        let found = wanted.language.as_deref().map(|query| self.resolve(query)).transpose()?;
        let codes: Vec<String> =
            found.iter().flat_map(|found| &found.languages).map(|language| language.code.clone()).collect();
        let mut models = Vec::new();
        let mut perhaps = Vec::new();
        for entry in self.models() {
            let fit = wanted.budget.map(|budget| entry.fit(budget));
            let has_role = wanted.role.is_none_or(|role| entry.roles.contains(&role));
            let has_licence = !wanted.open_licence || entry.licence_kind == LicenceKind::Open;
            if !has_role || !has_licence || fit == Some(None) {
                continue;
            }
            if found.is_none() || entry.languages.iter().any(|code| codes.contains(code)) {
                models.push((entry, fit.flatten()));
            } else if !entry.names_all_languages {
                perhaps.push(entry);
            }
        }
        models.sort_by(|(a, _), (b, _)| b.parameters.cmp(&a.parameters).then_with(|| a.name.cmp(&b.name)));
        Ok(Selection { models, languages: codes, matched_by: found.map(|found| found.matched_by), perhaps })
    }

    /// The stated languages that `query` means. A name counts as its code, so that a macro-language brings its members.
    fn resolve(&self, query: &str) -> Result<LanguageMatch, RegistryError> {
        let stated = self.stated_languages();
        let found = language::resolve(query, &stated).map_err(RegistryError::UnknownLanguage)?;
        match found.languages.first() {
            Some(named) if found.matched_by == MatchedBy::Name => {
                language::resolve(&named.code, &stated).map_err(RegistryError::UnknownLanguage)
            }
            _ => Ok(found),
        }
    }

    /// The languages that any entry names, as the file of a data set would list them.
    fn stated_languages(&self) -> Vec<LanguageCount> {
        let codes: BTreeSet<&str> =
            self.models().iter().flat_map(|entry| &entry.languages).map(String::as_str).collect();
        let count =
            |code: &str| self.models().iter().filter(|entry| entry.languages.iter().any(|own| own == code)).count();
        let one = |code: &str| LanguageCount {
            name: language::english_name(code).unwrap_or_default().to_owned(),
            code: code.to_owned(),
            num_rows: count(code) as u64,
            num_with_response: 0,
        };
        codes.into_iter().map(one).collect()
    }
}

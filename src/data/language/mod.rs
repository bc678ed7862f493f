//! From what a user types to the languages of a file, and from those to the codes of a dataset card.
//! Indexes what the file holds and never assumes it; does not know how the file was read.
//!
//! A name picks the rows of just that name (Simplified and Traditional Chinese share the code `zho`); a code, or a name the
//! file does not use, picks all rows of that language: by ISO 639-1 or 639-3, by a macro-language's code or a member's,
//! with or without a script (`nld_Latn`).

mod aya;
mod codes;

use std::fmt;

use serde::Serialize;
use thiserror::Error;
use unicode_script::{Script, UnicodeScript};

pub use self::aya::{AyaLanguage, AyaLanguages, AyaListError, Snapshot};
use self::codes::{Code, fold};
use super::nearest::similarity;

/// The name under which rows count that say no language.
pub const NO_LANGUAGE: &str = "(none)";

/// How many languages an error message suggests.
const NUM_SUGGESTIONS: usize = 5;

/// Names less alike than this (Jaro-Winkler, 0 to 1) are not suggested.
const WORTH_SUGGESTING: f64 = 0.72;

/// A language of a file, as the file spells it, and its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LanguageCount {
    /// Empty if the file gives a code alone, [`NO_LANGUAGE`] if it gives neither.
    pub name: String,
    /// Empty if the file gives a name alone.
    pub code: String,
    /// Rows in this language, with or without a response.
    pub num_rows: u64,
    /// Rows with a response that is not blank.
    pub num_with_response: u64,
}

/// `Dutch (nld)`, or the one that there is.
impl fmt::Display for LanguageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name.is_empty(), self.code.is_empty()) {
            (true, _) => write!(f, "{}", self.code),
            (false, true) => write!(f, "{}", self.name),
            (false, false) => write!(f, "{} ({})", self.name, self.code),
        }
    }
}

/// How a query found its languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchedBy {
    /// The file spells a language this way.
    Name,
    /// The query is the code, or another name, of the very language.
    Code,
    /// The query is a macro-language's code and the rows are of its members, or the other way round.
    MacroLanguage,
}

/// The languages of a file that a query means: at least one, largest first as in the list that was searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanguageMatch {
    /// What the user typed.
    pub query: String,
    /// A caller should list them if there are several.
    pub languages: Vec<LanguageCount>,
    /// Why these.
    pub matched_by: MatchedBy,
}

impl LanguageMatch {
    /// Whether a row with this name and code, as the file spells them, is of a matched language.
    pub fn contains(&self, name: &str, code: &str) -> bool {
        self.languages.iter().any(|language| language.name == name && language.code == code)
    }
}

/// A query that no language of the file fits.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no rows in `{query}`: {}\nhint: {}", self.described(), self.hint())]
pub struct UnknownLanguage {
    /// What the user typed.
    pub query: String,
    /// The language the query means, for example `Hebrew (heb)`, if it is one that the file does not hold.
    pub recognised: Option<String>,
    /// Languages of the file closest in spelling, or, if none is close, its largest ones; each with its code.
    pub suggestions: Vec<String>,
    /// How many languages the file holds.
    pub num_languages: usize,
}

impl UnknownLanguage {
    fn described(&self) -> String {
        let plural = if self.num_languages == 1 { "" } else { "s" };
        let held = format!("the file holds {} language{plural}", self.num_languages);
        match &self.recognised {
            Some(language) => format!("{language} is known, but not among them; {held}"),
            None => format!("not a language that is known here; {held}"),
        }
    }

    fn hint(&self) -> String {
        format!("there are, for example: {}; `pairwright languages FILE` lists all", self.suggestions.join(", "))
    }
}

/// Finds the languages of a file that `query` means. `available` is what [`super::count_languages`] gave; the result keeps
/// its order.
///
/// Tried in turn: a name of the file (case, apostrophes and hyphens aside); the language that the query is a code or an
/// English name of, together with the members of a macro-language (`ara`, `Chinese`); the macro-language that the query is
/// the standard member of (`cmn` finds rows under `zho`, `arz` does not find rows under `ara`).
///
/// Errors: [`UnknownLanguage`], with the closest names.
pub fn resolve(query: &str, available: &[LanguageCount]) -> Result<LanguageMatch, UnknownLanguage> {
    let found =
        |matched_by, languages: Vec<LanguageCount>| LanguageMatch { query: query.to_owned(), languages, matched_by };
    let folded = fold(query);
    let named = select(available, |language| !folded.is_empty() && fold(&language.name) == folded);
    if !named.is_empty() {
        return Ok(found(MatchedBy::Name, named));
    }
    let code = codes::from_code(query);
    let meant = match &code {
        Some(code) => vec![code.language],
        None => codes::from_name(query),
    };
    let script = code.and_then(|code| code.script);
    let fits = |language: &LanguageCount| script.as_deref().is_none_or(|script| is_in_script(language, script));
    let exact =
        select(available, |language| fits(language) && identities(language).iter().any(|id| meant.contains(id)));
    let with_members = select(available, |language| fits(language) && is_any_or_member(language, &meant));
    if !with_members.is_empty() {
        let matched_by = if with_members.len() == exact.len() { MatchedBy::Code } else { MatchedBy::MacroLanguage };
        return Ok(found(matched_by, with_members));
    }
    let under_macro = select(available, |language| fits(language) && is_under_macro_code(language, &meant));
    if !under_macro.is_empty() {
        return Ok(found(MatchedBy::MacroLanguage, under_macro));
    }
    Err(unknown(query, &meant, available))
}

/// The two-letter ISO 639-1 code of a language given by code or English name; `None` if it is unknown or has none. The
/// standard member of a macro-language shares the macro-language's letters (`zsm`, `Standard Malay`: `ms`).
pub fn iso639_1(code_or_name: &str) -> Option<&'static str> {
    let by_code = codes::from_code(code_or_name).map(|code| code.language);
    match by_code {
        Some(code) => codes::two_letters(code),
        None => codes::from_name(code_or_name).into_iter().find_map(codes::two_letters),
    }
}

/// The code a dataset card gives for a language of a file: ISO 639-1 if there is one, else ISO 639-3; `None` if neither name
/// nor code is known. Where the name is narrower than the code (Moroccan Arabic under `ara`), the name counts.
pub fn card_code(name: &str, code: &str) -> Option<String> {
    let id = narrow_code(name, code)?;
    Some(codes::two_letters(id).unwrap_or(id).to_owned())
}

/// The ISO 639-3 code under which text tells a language from others: a macro-language's where there is one (`arz`: `ara`, `cmn`:
/// `zho`; Serbian, Croatian and Bosnian: `hbs`), `fil` for Tagalog, else the language's own. `None` if neither name nor code is known.
pub fn broad_code(name: &str, code: &str) -> Option<&'static str> {
    let id = identify(name, code).into_iter().next()?;
    let id = codes::macro_of(id).map_or(id, |family| family.code);
    Some(if id == "tgl" { "fil" } else { id })
}

/// The ISO 639-3 code of just this language: where the name is narrower than the code the name counts (Moroccan Arabic under `ara` is
/// `ary`), and a macro-language's code alone means its standard member (`msa` is `zsm`, `mlg` is `plt`). `None` if neither name nor code
/// is known.
pub fn exact_code(name: &str, code: &str) -> Option<&'static str> {
    let id = narrow_code(name, code)?;
    Some(codes::standard_of(id).unwrap_or(id))
}

/// The English name of an ISO 639-3 code; `None` if it is no such code.
pub fn english_name(code: &str) -> Option<&'static str> {
    codes::english_name(code)
}

fn select(available: &[LanguageCount], wanted: impl Fn(&LanguageCount) -> bool) -> Vec<LanguageCount> {
    available.iter().filter(|language| wanted(language)).cloned().collect()
}

/// ISO 639-3 codes of what name and code say together: the code's language first, then what the name adds within the same
/// macro-language. A name that contradicts the code is not believed; a name that is itself a code counts as one.
fn identify(name: &str, code: &str) -> Vec<&'static str> {
    let mut named = codes::from_name(name);
    if named.is_empty() {
        named.extend(codes::from_code(name).map(|code| code.language));
    }
    let Some(Code { language, .. }) = codes::from_code(code) else { return named };
    let mut ids = vec![language];
    ids.extend(named.into_iter().filter(|id| *id != language && codes::related(id, language)));
    ids
}

/// The narrowest of what name and code say: a member that the name means before the macro-language of the code.
fn narrow_code(name: &str, code: &str) -> Option<&'static str> {
    let ids = identify(name, code);
    let is_general = |id: &&str| ids.iter().any(|other| codes::members(id).contains(other));
    let narrow = ids.iter().find(|id| !is_general(id) && codes::from_name(name).contains(id));
    narrow.or_else(|| ids.first()).copied()
}

fn identities(language: &LanguageCount) -> Vec<&'static str> {
    identify(&language.name, &language.code)
}

fn is_any_or_member(language: &LanguageCount, meant: &[&str]) -> bool {
    identities(language).iter().any(|id| meant.iter().any(|wanted| id == wanted || codes::members(wanted).contains(id)))
}

/// Whether the language goes by a macro-language's code alone and the query means its standard member.
fn is_under_macro_code(language: &LanguageCount, meant: &[&str]) -> bool {
    let ids = identities(language);
    meant.iter().any(|wanted| {
        codes::macro_of(wanted).is_some_and(|family| {
            family.standard == Some(*wanted)
                && ids.contains(&family.code)
                && !ids.iter().any(|id| codes::members(family.code).contains(id))
        })
    })
}

/// Whether a language may be in a script (ISO 15924, lower case): only a stated other script speaks against it, be it in the
/// code (`zho_Hant`) or, for Chinese, in the name.
fn is_in_script(language: &LanguageCount, script: &str) -> bool {
    let coded = codes::from_code(&language.code).or_else(|| codes::from_code(&language.name));
    if let Some(coded) = coded.and_then(|code| code.script) {
        return coded == script;
    }
    let name = fold(&language.name);
    match script {
        "hans" => !name.contains("traditional"),
        "hant" => !name.contains("simplified"),
        _ => true,
    }
}

fn unknown(query: &str, meant: &[&'static str], available: &[LanguageCount]) -> UnknownLanguage {
    let mut scored: Vec<(f64, &LanguageCount)> = available
        .iter()
        .filter(|language| language.name != NO_LANGUAGE)
        .map(|language| (likeness(query, meant, language), language))
        .collect();
    let num_languages = scored.len();
    if scored.iter().any(|(score, _)| *score >= WORTH_SUGGESTING) {
        scored.retain(|(score, _)| *score >= WORTH_SUGGESTING);
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
    UnknownLanguage {
        query: query.to_owned(),
        recognised: meant.first().and_then(|code| Some(format!("{} ({code})", codes::english_name(code)?))),
        suggestions: scored.iter().take(NUM_SUGGESTIONS).map(|(_, language)| language.to_string()).collect(),
        num_languages,
    }
}

/// How close a language is to a query, 0 to 1: by the whole name, by a word of it, by the code, or because both belong to
/// one macro-language (or are Tagalog and Filipino, its standard form).
fn likeness(query: &str, meant: &[&str], language: &LanguageCount) -> f64 {
    let ids = identities(language);
    let is_kin = |a: &str, b: &str| {
        codes::related(a, b)
            || codes::macro_of(a).is_some_and(|family| family.code == b || codes::members(family.code).contains(&b))
            || matches!((a, b), ("tgl", "fil") | ("fil", "tgl"))
    };
    if meant.iter().any(|wanted| ids.iter().any(|id| is_kin(wanted, id))) {
        return 1.0;
    }
    let query = fold(query);
    let name = fold(&language.name);
    let by_word = name.split(' ').map(|word| similarity(&query, word) * 0.95).fold(0.0, f64::max);
    let by_code = if query.len() <= 4 { similarity(&query, &language.code) } else { 0.0 };
    similarity(&query, &name).max(by_word).max(by_code)
}

/// Whether a character is of a script that puts no spaces between words.
pub fn is_unspaced(character: char) -> bool {
    !character.is_ascii()
        && matches!(
            character.script(),
            Script::Han
                | Script::Hiragana
                | Script::Katakana
                | Script::Thai
                | Script::Lao
                | Script::Khmer
                | Script::Myanmar
                | Script::Tibetan
        )
}

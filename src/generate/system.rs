//! The system turn of generation: which language to answer in, for each row's language.
//! Knows text, language names and codes; knows nothing of templates or models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lengths::LengthTexts;
use crate::data::language::exact_code;

/// The file inside the binary.
const BUILT_IN: &str = include_str!("../system_prompts.toml");

/// Texts by language, and one for all others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemPrompts {
    /// Names the file in the lock.
    pub name: String,
    /// Counts changes of the text.
    pub version: u32,
    /// For languages without a text of their own; `{language}` becomes the language's name.
    pub text: String,
    /// Texts by language code or name, as the prompt file spells them.
    #[serde(default)]
    pub languages: BTreeMap<String, String>,
    /// What is said of lengths with `--length-guidance`; no part of the system turn without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<LengthTexts>,
}

/// Why a system prompt file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the system prompts {path}: {what}\nhint: the file has `name`, `version`, `text` and optional tables [languages] and [length]"
)]
pub struct SystemPromptError {
    /// The file.
    path: PathBuf,
    /// What is wrong.
    what: String,
}

impl SystemPrompts {
    /// The texts inside the binary.
    ///
    /// # Errors
    /// None in a binary whose tests pass.
    pub fn built_in() -> Result<Self, SystemPromptError> {
        Self::parse(BUILT_IN, Path::new("(built in)"))
    }

    /// Reads a file of the same form.
    ///
    /// # Errors
    /// [`SystemPromptError`], saying what is wrong.
    pub fn read(path: &Path) -> Result<Self, SystemPromptError> {
        let error = |what: String| SystemPromptError { path: path.to_owned(), what };
        Self::parse(&std::fs::read_to_string(path).map_err(|source| error(source.to_string()))?, path)
    }

    /// The same text for every language.
    pub fn fixed(text: &str) -> Self {
        Self { name: "given".to_owned(), version: 1, text: text.to_owned(), languages: BTreeMap::new(), length: None }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, SystemPromptError> {
        toml::from_str(text).map_err(|error| SystemPromptError { path: path.to_owned(), what: error.to_string() })
    }

    /// The system turn for a row of this language; `None` if the row names no language and the text needs one.
    pub fn for_language(&self, name: &str, code: &str) -> Option<String> {
        let text = own_text(&self.languages, name, code).unwrap_or(&self.text).trim();
        let language = if name.is_empty() { code } else { name };
        if language.is_empty() && text.contains("{language}") {
            return None;
        }
        Some(text.replace("{language}", language))
    }
}

/// The text of a language: under its code or name as it is spelled, or under another code or name of just this language. The standard
/// member of a macro-language and the macro-language itself stand for one another (`zsm` and `msa`); another member has its own text or none.
pub(super) fn own_text<'t>(texts: &'t BTreeMap<String, String>, name: &str, code: &str) -> Option<&'t str> {
    let spelled = texts.get(name).filter(|_| !name.is_empty());
    let spelled = spelled.or_else(|| texts.get(code).filter(|_| exact_code(name, code) == exact_code("", code)));
    let same = || {
        let exact = exact_code(name, code)?;
        texts
            .iter()
            .find(|(key, _)| exact_code("", key).or_else(|| exact_code(key, "")) == Some(exact))
            .map(|(_, text)| text)
    };
    spelled.or_else(same).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_gets_its_own_text_or_the_neutral_one() {
        let mut prompts = SystemPrompts::fixed("Answer in {language}.");
        prompts.languages.insert("nld".to_owned(), "Antwoord in het Nederlands.".to_owned());
        assert_eq!(prompts.for_language("Dutch", "nld").as_deref(), Some("Antwoord in het Nederlands."));
        assert_eq!(prompts.for_language("Yoruba", "yor").as_deref(), Some("Answer in Yoruba."));
        assert_eq!(prompts.for_language("", ""), None);
        assert!(SystemPrompts::built_in().unwrap().for_language("Thai", "tha").unwrap().contains("Thai"));
    }

    #[test]
    fn codes_of_dialects_and_macro_languages_reach_the_text() {
        let prompts = SystemPrompts::built_in().unwrap();
        let text = |name: &str, code: &str| prompts.for_language(name, code).unwrap();
        for (name, code, key) in [
            ("Plateau Malagasy", "plt", "plt"),
            ("Plateau Malagasy", "mlg", "plt"),
            ("Malagasy", "mlg", "plt"),
            ("Standard Malay", "zsm", "zsm"),
            ("Standard Malay", "msa", "zsm"),
            ("", "msa", "zsm"),
            ("", "ms", "zsm"),
            ("Standard Arabic", "arb", "arb"),
            ("Arabic", "ara", "arb"),
            ("", "arb_Arab", "arb"),
            ("Moroccan Arabic", "ary", "ary"),
            ("Moroccan Arabic", "ara", "ary"),
            ("Moroccan Arabic", "", "ary"),
            ("Panjabi", "pan", "pan"),
            ("Telugu", "", "tel"),
        ] {
            assert_eq!(text(name, code), prompts.languages[key], "{name} {code}");
        }
        // Other dialects are told in English which one is meant, and a writing of another script is none of these.
        for (name, code) in [("Egyptian Arabic", "arz"), ("Egyptian Arabic", "ara"), ("Western Panjabi", "pnb")] {
            assert!(text(name, code).contains(&format!("answer in {name}")), "{name} {code}");
        }
    }
}

//! The system turn of generation: which language to answer in, for each row's language.
//! Knows text and language names; knows nothing of templates or models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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
}

/// Why a system prompt file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the system prompts {path}: {what}\nhint: the file has `name`, `version`, `text` and an optional [languages] table"
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
        Self { name: "given".to_owned(), version: 1, text: text.to_owned(), languages: BTreeMap::new() }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, SystemPromptError> {
        toml::from_str(text).map_err(|error| SystemPromptError { path: path.to_owned(), what: error.to_string() })
    }

    /// The system turn for a row of this language; `None` if the row names no language and the text needs one.
    pub fn for_language(&self, name: &str, code: &str) -> Option<String> {
        let own = self.languages.get(code).or_else(|| self.languages.get(name));
        let text = own.unwrap_or(&self.text).trim();
        let language = if name.is_empty() { code } else { name };
        if language.is_empty() && text.contains("{language}") {
            return None;
        }
        Some(text.replace("{language}", language))
    }
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
}

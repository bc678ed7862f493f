//! What pages say, in each language: one TOML file per language in the program, and one per language in the run's folder that wins over it,
//! which the page for translating writes. What neither has is English. Knows keys and texts; knows nothing of pages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::store::StoreError;
use crate::provenance::{ANNOTATIONS_FOLDER, write_atomic};

/// Most bytes of one translated text.
pub const MAX_TEXT_BYTES: usize = 8_000;
/// The language that has everything.
pub const ENGLISH: &str = "en";

/// The languages in the program.
const EMBEDDED: [(&str, &str); 9] = [
    (ENGLISH, include_str!("../../templates/annotate/strings/en.toml")),
    ("nl", include_str!("../../templates/annotate/strings/nl.toml")),
    ("fr", include_str!("../../templates/annotate/strings/fr.toml")),
    ("es", include_str!("../../templates/annotate/strings/es.toml")),
    ("pt", include_str!("../../templates/annotate/strings/pt.toml")),
    ("ar", include_str!("../../templates/annotate/strings/ar.toml")),
    ("hi", include_str!("../../templates/annotate/strings/hi.toml")),
    ("sw", include_str!("../../templates/annotate/strings/sw.toml")),
    ("th", include_str!("../../templates/annotate/strings/th.toml")),
];

type Texts = BTreeMap<String, String>;

/// All texts, by language.
#[derive(Debug, Clone)]
pub struct Strings {
    folder: PathBuf,
    languages: BTreeMap<String, Texts>,
}

/// The texts of one language.
#[derive(Debug, Clone, Copy)]
pub struct Tongue<'a> {
    /// Its code.
    pub code: &'a str,
    own: Option<&'a Texts>,
    english: Option<&'a Texts>,
}

impl<'a> Tongue<'a> {
    /// The text under a key; English where there is none, and the key itself where there is no such key.
    pub fn of(&self, key: &'a str) -> &'a str {
        let text = |texts: Option<&'a Texts>| texts?.get(key).map(String::as_str).filter(|text| !text.is_empty());
        text(self.own).or_else(|| text(self.english)).unwrap_or(key)
    }

    /// `ltr` or `rtl`.
    pub fn direction(&self) -> &'static str {
        if self.of("direction") == "rtl" { "rtl" } else { "ltr" }
    }
}

impl Strings {
    /// The program's texts, and over them those in the run's folder.
    ///
    /// # Errors
    /// A file that cannot be read or is no table of texts.
    pub fn open(run: &Path) -> Result<Self, StoreError> {
        let folder = run.join(ANNOTATIONS_FOLDER);
        let mut strings = Self { folder: folder.clone(), languages: BTreeMap::new() };
        for (code, text) in EMBEDDED {
            // A test reads each of them.
            strings.languages.insert(code.to_owned(), toml::from_str(text).unwrap_or_default());
        }
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(strings),
            other => other.map_err(io("read", &folder))?,
        };
        for entry in entries {
            let path = entry.map_err(io("read", &folder))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let code = name.strip_prefix("strings-").and_then(|rest| rest.strip_suffix(".toml"));
            let Some(code) = code.filter(|code| is_code(code)) else { continue };
            let text = std::fs::read_to_string(&path).map_err(io("read", &path))?;
            let own: Texts = toml::from_str(&text).map_err(|error| {
                io("read", &path)(std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))
            })?;
            strings.languages.entry(code.to_owned()).or_default().extend(own);
        }
        Ok(strings)
    }

    /// Codes of all languages with what they call themselves.
    pub fn languages(&self) -> impl Iterator<Item = (&str, &str)> {
        self.languages.iter().map(|(code, texts)| {
            let name = texts.get("language_name").map(String::as_str).filter(|name| !name.is_empty());
            (code.as_str(), name.unwrap_or(code))
        })
    }

    /// Whether there is such a language.
    pub fn has(&self, code: &str) -> bool {
        self.languages.contains_key(code)
    }

    /// Its texts; English if it is unknown.
    pub fn tongue<'a>(&'a self, code: &'a str) -> Tongue<'a> {
        let own = self.languages.get(code);
        Tongue { code: if own.is_some() { code } else { ENGLISH }, own, english: self.languages.get(ENGLISH) }
    }

    /// All keys with the English text.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.languages.get(ENGLISH).into_iter().flatten().map(|(key, text)| (key.as_str(), text.as_str()))
    }

    /// The first language of an `Accept-Language` header that there is.
    pub fn choose<'a>(&'a self, header: &str) -> &'a str {
        let wanted = header.split(',').filter_map(|part| part.split(';').next());
        let base = |tag: &str| tag.trim().split('-').next().unwrap_or_default().to_ascii_lowercase();
        let found = wanted.map(base).find_map(|code| self.languages.get_key_value(&code));
        found.map_or(ENGLISH, |(code, _)| code.as_str())
    }

    /// Replaces texts of a language and writes them into the run's folder; a language that is new begins with them. An empty text stands
    /// for the English one.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn translate(&mut self, code: &str, texts: Texts) -> Result<(), StoreError> {
        let path = self.folder.join(format!("strings-{code}.toml"));
        let known = self.languages.get(ENGLISH);
        let is_known = |key: &String| known.is_some_and(|known| known.contains_key(key));
        let texts: Texts =
            texts.into_iter().filter(|(key, text)| is_known(key) && text.len() <= MAX_TEXT_BYTES).collect();
        let mut all = self.languages.get(code).cloned().unwrap_or_default();
        all.extend(texts);
        let text = toml::to_string(&all).map_err(|error| io("write", &path)(std::io::Error::other(error)))?;
        write_atomic(&path, text.as_bytes()).map_err(|error| io("write", &path)(std::io::Error::other(error)))?;
        self.languages.insert(code.to_owned(), all);
        Ok(())
    }
}

/// Whether a text may be a language's code and part of a file's name.
pub fn is_code(code: &str) -> bool {
    (2..=12).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_every_text() {
        let english: Texts = toml::from_str(EMBEDDED[0].1).unwrap();
        for (code, text) in EMBEDDED {
            let own: Texts = toml::from_str(text).unwrap();
            assert!(own.keys().eq(english.keys()), "{code}");
            assert!(own.values().all(|text| !text.trim().is_empty() && text.len() <= MAX_TEXT_BYTES), "{code}");
        }
    }

    #[test]
    fn what_is_missing_is_english_and_a_translation_stays() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(ANNOTATIONS_FOLDER)).unwrap();
        let mut strings = Strings::open(folder.path()).unwrap();
        assert_eq!(strings.choose("yo-NG, ar;q=0.8, en"), "ar");
        assert_eq!((strings.tongue("ar").direction(), strings.tongue("yo").direction()), ("rtl", "ltr"));
        let texts = [("skip", "Fò ó"), ("undo", ""), ("no such key", "x")];
        let texts = texts.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        strings.translate("yo", texts).unwrap();
        let again = Strings::open(folder.path()).unwrap();
        let tongue = again.tongue("yo");
        assert_eq!((tongue.of("skip"), tongue.of("undo"), tongue.of("vote")), ("Fò ó", "Undo", "Vote"));
        assert_eq!(tongue.of("no such key"), "no such key");
        assert!(again.has("yo") && is_code("yo") && !is_code("../x") && !is_code(""));
    }
}

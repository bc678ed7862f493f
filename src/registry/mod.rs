//! The annotated list of open-weight models that the program carries: `models.toml`, read, checked and searched.
//! Knows what makers state and where that was read; it opens no model and does not know what this machine can run.

mod card;
mod memory;
mod select;
mod suggest;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use card::Card;
pub use memory::{ALLOWANCE_BYTES, Fit, KV_CACHE_BYTES, PRECISIONS, Precision, WORKING_BYTES};
pub use select::{Selection, Wanted};
pub use suggest::{Measured, RANKING, Search, Suggestion, Support};

use crate::data::language::{self, UnknownLanguage};
use crate::data::nearest::nearest;

/// The list that is built in.
const EMBEDDED: &str = include_str!("../../models.toml");
/// The only format of the file so far.
const FORMAT: u32 = 1;
/// How many names an error suggests.
const NUM_SUGGESTIONS: usize = 3;

/// Why the list, or what was asked of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file cannot be read.
    #[error(
        "{path} cannot be read: {source}\nhint: --registry wants a file like models.toml of Pairwright's repository"
    )]
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is no list of models.
    #[error(
        "{path} is not a list of models: {what}\nhint: models.toml of Pairwright's repository shows and explains the form"
    )]
    Invalid {
        /// The file.
        path: String,
        /// The entry or line, got and expected.
        what: String,
    },
    /// No model of that name.
    #[error("no model `{name}` among the {num_models} of the list\nhint: {}; `pairwright models list` shows all", did_you_mean(.closest))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The closest names.
        closest: Vec<String>,
        /// How many there are.
        num_models: usize,
    },
    /// No card of that name.
    #[error("no card `{name}` in the list\nhint: {}; there are {all}", did_you_mean(.closest))]
    UnknownCard {
        /// What was asked for.
        name: String,
        /// The closest names.
        closest: Vec<String>,
        /// All of them.
        all: String,
    },
    /// No model whose makers name that language, and none is known to the list under another spelling.
    #[error("no model states the language `{}`: {}\nhint: {}", .0.query, describe(.0), suggest(.0))]
    UnknownLanguage(UnknownLanguage),
}

fn did_you_mean(closest: &[String]) -> String {
    match closest {
        [] => "names are those of the first column".to_owned(),
        names => format!("did you mean {}?", names.join(", ")),
    }
}

fn describe(unknown: &UnknownLanguage) -> String {
    match &unknown.recognised {
        Some(language) => format!("{language} is known, but no maker in the list names it"),
        None => "not a language that is known here".to_owned(),
    }
}

fn suggest(unknown: &UnknownLanguage) -> String {
    match &unknown.recognised {
        Some(_) => "models that speak of more languages than they name may know it; `pairwright models list` shows all"
            .to_owned(),
        None => format!("did you mean {}?", unknown.suggestions.join(", ")),
    }
}

/// What a model is used for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Writes answers.
    Generator,
    /// Rates answers by reading label distributions.
    Judge,
    /// Rates answers by a score head.
    Reward,
}

/// How free a licence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LicenceKind {
    /// Any use, with attribution at most.
    Open,
    /// Terms of use beyond attribution.
    Restricted,
    /// No commercial use.
    NonCommercial,
    /// The makers do not say.
    Unknown,
}

/// What a chat template does with a system turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SystemPrompt {
    /// A turn of its own.
    Yes,
    /// Its text goes into the first user turn.
    Merged,
    /// Nothing, or an error.
    No,
    /// Not known.
    Unknown,
}

/// Whether a model thinks aloud before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Thinking {
    /// Never.
    None,
    /// It can be turned off.
    Switch,
    /// It cannot be turned off.
    Always,
    /// Not known.
    Unknown,
}

/// Whether the makers say that they trained on Aya data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AyaData {
    /// They say so.
    Yes,
    /// They say that they did not.
    No,
    /// They do not say.
    Unknown,
}

/// Where facts were read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Which facts.
    pub facts: String,
    /// The page.
    pub url: String,
}

/// A model, as its makers describe it. Field by field explained at the head of `models.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// Unique, lower case.
    pub name: String,
    /// `OWNER/NAME` on the hub.
    pub hub_id: String,
    /// Forty hexadecimal digits; `None`: no commit is known to the list.
    pub commit: Option<String>,
    /// `model_type` of its (text) configuration.
    pub family: String,
    /// Whether it is meant to run here.
    #[serde(default = "yes")]
    pub supported: bool,
    /// All parameters.
    pub parameters: u64,
    /// Parameters that a token passes, for mixtures of experts.
    pub active_parameters: Option<u64>,
    /// Layers that keep keys and values; with the two below, what a token takes of the cache.
    pub layers: Option<u64>,
    /// Heads of keys and values in each of them.
    pub kv_heads: Option<u64>,
    /// Numbers of a head.
    pub head_dim: Option<u64>,
    /// Tokens.
    pub context: u64,
    /// SPDX id or name.
    pub licence: String,
    /// How free it is.
    pub licence_kind: LicenceKind,
    /// What it asks for besides.
    pub terms: Option<String>,
    /// ISO 639-3 codes that the makers name.
    pub languages: Vec<String>,
    /// `false`: the makers speak of more languages than they name.
    #[serde(default = "yes")]
    pub names_all_languages: bool,
    /// What they say of languages.
    pub languages_note: Option<String>,
    /// At least one.
    pub roles: Vec<Role>,
    /// What the chat template does with a system turn.
    pub system_prompt: SystemPrompt,
    /// Whether it thinks aloud.
    pub thinking: Thinking,
    /// Contamination.
    pub aya_data: AyaData,
    /// Memory in the makers' words.
    pub stated_memory: Option<String>,
    /// For the reader.
    pub notes: Option<String>,
    /// Names of fields that no source backs.
    #[serde(default)]
    pub unverified: Vec<String>,
    /// At least one.
    pub sources: Vec<Source>,
}

fn yes() -> bool {
    true
}

impl ModelEntry {
    /// The page of the model's card on the hub.
    pub fn card_url(&self) -> String {
        format!("https://huggingface.co/{}", self.hub_id)
    }

    /// Whether `field` was written from memory.
    pub fn is_unverified(&self, field: &str) -> bool {
        self.unverified.iter().any(|name| name == field)
    }

    /// What is wrong with the entry itself.
    fn fault(&self) -> Option<String> {
        let is_slug = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let halves: Vec<&str> = self.hub_id.split('/').collect();
        if self.name.is_empty() || !self.name.chars().all(is_slug) {
            return Some("name wants lower-case letters, digits, `-`, `.` and `_`".to_owned());
        }
        if halves.len() != 2 || halves.iter().any(|half| half.is_empty() || half.contains(char::is_whitespace)) {
            return Some(format!("hub_id is `{}`, want OWNER/NAME", self.hub_id));
        }
        if let Some(commit) = self.commit.as_ref().filter(|commit| commit.len() != 40 || !commit.chars().all(is_hex)) {
            return Some(format!("commit is `{commit}`, want 40 lower-case hexadecimal digits, or no such line"));
        }
        if self.parameters == 0 || self.context == 0 {
            return Some("parameters and context want numbers above 0".to_owned());
        }
        if let Some(active) = self.active_parameters.filter(|active| *active == 0 || *active > self.parameters) {
            return Some(format!("active_parameters is {active}, want 1 to parameters ({})", self.parameters));
        }
        let shape = [self.layers, self.kv_heads, self.head_dim];
        if shape.iter().any(Option::is_some) && !shape.iter().all(|field| field.is_some_and(|number| number > 0)) {
            return Some("layers, kv_heads and head_dim want numbers above 0, all three of them or none".to_owned());
        }
        if let Some(code) = self.languages.iter().find(|code| language::english_name(code).is_none()) {
            return Some(format!("languages: `{code}` is no ISO 639-3 code"));
        }
        if !self.supported && self.notes.is_none() {
            return Some("an entry with supported = false wants notes that say why".to_owned());
        }
        if !self.names_all_languages && self.languages_note.is_none() {
            return Some("names_all_languages = false wants a languages_note".to_owned());
        }
        if self.roles.is_empty() || self.sources.is_empty() {
            return Some("roles and sources want at least one entry each".to_owned());
        }
        let no_page = |source: &&Source| !source.url.starts_with("https://") || source.facts.is_empty();
        if let Some(source) = self.sources.iter().find(no_page) {
            return Some(format!("source `{}` wants facts and an https address", source.url));
        }
        let fields = serde_json::to_value(self).ok()?;
        let no_field = |name: &&String| fields.get(name.as_str()).is_none_or(serde_json::Value::is_null);
        let wrong = self.unverified.iter().find(no_field)?;
        Some(format!("unverified names `{wrong}`, which this entry does not have"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    model: Vec<ModelEntry>,
    #[serde(default)]
    card: Vec<Card>,
}

/// The list.
#[derive(Debug, Clone)]
pub struct Registry {
    models: Vec<ModelEntry>,
    cards: Vec<Card>,
}

impl Registry {
    /// The list that is built into the program.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`], which a test rules out.
    pub fn embedded() -> Result<Self, RegistryError> {
        Self::parse(EMBEDDED, "the built-in models.toml")
    }

    /// The list in `path`.
    ///
    /// # Errors
    /// [`RegistryError::Io`] or [`RegistryError::Invalid`].
    pub fn read(path: &Path) -> Result<Self, RegistryError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| RegistryError::Io { path: name.clone(), source })?;
        Self::parse(&text, &name)
    }

    /// From TOML text; `origin` names it in errors.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`], naming the entry.
    pub fn parse(text: &str, origin: &str) -> Result<Self, RegistryError> {
        let invalid = |what: String| RegistryError::Invalid { path: origin.to_owned(), what };
        let file: File = toml::from_str(text).map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
        if file.format != FORMAT {
            return Err(invalid(format!("format is {}, want {FORMAT}", file.format)));
        }
        for (index, entry) in file.model.iter().enumerate() {
            if let Some(fault) = entry.fault() {
                return Err(invalid(format!("model `{}`: {fault}", entry.name)));
            }
            if file.model[..index].iter().any(|other| other.name == entry.name) {
                return Err(invalid(format!("model `{}` stands in it twice", entry.name)));
            }
        }
        for (index, card) in file.card.iter().enumerate() {
            if let Some(fault) = card.fault() {
                return Err(invalid(format!("card `{}`: {fault}", card.name)));
            }
            if file.card[..index].iter().any(|other| other.name == card.name) {
                return Err(invalid(format!("card `{}` stands in it twice", card.name)));
            }
        }
        Ok(Self { models: file.model, cards: file.card })
    }

    /// All entries, in the file's order.
    pub fn models(&self) -> &[ModelEntry] {
        &self.models
    }

    /// The entry of that name or hub id, whatever the case of its letters.
    ///
    /// # Errors
    /// [`RegistryError::UnknownModel`] with the closest names.
    pub fn find(&self, name: &str) -> Result<&ModelEntry, RegistryError> {
        let is_it =
            |entry: &&ModelEntry| entry.name.eq_ignore_ascii_case(name) || entry.hub_id.eq_ignore_ascii_case(name);
        self.models.iter().find(is_it).ok_or_else(|| {
            let last = name.rsplit('/').next().unwrap_or(name);
            let names = self.models.iter().map(|entry| entry.name.as_str());
            RegistryError::UnknownModel {
                name: name.to_owned(),
                closest: nearest(last, names, NUM_SUGGESTIONS).into_iter().map(str::to_owned).collect(),
                num_models: self.models.len(),
            }
        })
    }
}

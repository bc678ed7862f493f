//! What a judge is asked: the rubric's texts, from the file inside the binary or one of the user's, in the row's language where the
//! rubric has one. Knows text; knows nothing of tokens or models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::fence::Fence;

/// Ratings run from 1 to this.
pub const NUM_LABELS: usize = 5;

/// The rubric inside the binary.
const BUILT_IN: &str = include_str!("rubric.toml");

/// One question about an answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aspect {
    /// Stored with each score.
    pub name: String,
    /// Share in the answer's rating, relative to the others'.
    pub weight: f64,
    /// The text that ends the judge's message.
    pub question: String,
}

/// How two answers are compared.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairwiseTexts {
    /// What is compared, and how.
    pub intro: String,
    /// Line before the answer that is shown first.
    pub first_heading: String,
    /// Line before the other one.
    pub second_heading: String,
    /// The text that ends the judge's message.
    pub question: String,
    /// The texts that name the first and the second answer.
    pub labels: [String; 2],
}

/// A rated answer, shown before the one to be rated.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// Rows of this language alone see it, by code or name; of none: all rows.
    #[serde(default)]
    pub language: Option<String>,
    /// Its prompt.
    pub prompt: String,
    /// Its answer.
    pub answer: String,
    /// Its rating, 1 to 5.
    pub rating: u8,
}

/// Texts for the rows of one language; what is missing is taken from the rubric itself.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageTexts {
    /// See [`Rubric::intro`].
    pub intro: Option<String>,
    /// See [`Rubric::prompt_heading`].
    pub prompt_heading: Option<String>,
    /// See [`Rubric::answer_heading`].
    pub answer_heading: Option<String>,
    /// Questions by the aspect's name.
    #[serde(default)]
    pub questions: BTreeMap<String, String>,
    /// All texts of a comparison.
    pub pairwise: Option<PairwiseTexts>,
    /// How a rationale is asked for, in place of [`super::RationaleText`]; the judge is to write it in the language of this text.
    pub rationale: Option<String>,
}

/// See the module's text. The judge's message is: intro, examples, prompt heading, prompt, answer heading, answer, question; what is the
/// same for many questions stands first, so that it is computed once.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rubric {
    /// Stored in the lock file.
    pub name: String,
    /// Counts changes of the text.
    pub version: u32,
    /// What is rated, and how.
    pub intro: String,
    /// Line before the prompt.
    pub prompt_heading: String,
    /// Line before the answer.
    pub answer_heading: String,
    /// The texts of the ratings 1..=5.
    pub labels: [String; NUM_LABELS],
    /// The questions.
    #[serde(rename = "aspect")]
    pub aspects: Vec<Aspect>,
    /// Below this probability of all labels together a verdict counts as unreliable.
    #[serde(default = "default_label_mass")]
    pub min_label_mass: f64,
    /// Comparisons of two answers; a file without these texts takes the built-in ones.
    #[serde(default)]
    pub pairwise: Option<PairwiseTexts>,
    /// Rated answers to show first.
    #[serde(default, rename = "example")]
    pub examples: Vec<Example>,
    /// Texts by language code or name, as the prompts spell them.
    #[serde(default)]
    pub languages: BTreeMap<String, LanguageTexts>,
    /// SHA-256 of the file's text.
    #[serde(skip)]
    pub sha256: String,
}

/// Under half: the judge would rather have said something else.
fn default_label_mass() -> f64 {
    0.5
}

/// Why a rubric cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RubricError {
    /// The file cannot be read.
    #[error(
        "the rubric {path} cannot be read: {source}\nhint: give a file, or leave --rubric out for the built-in one"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not a rubric.
    #[error("the rubric {path}: {what}\nhint: `pairwright judge --show-rubric` prints the built-in one to start from")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// A row's language, as the source spells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowLanguage<'a> {
    /// `Dutch`; may be empty.
    pub name: &'a str,
    /// `nld`; may be empty.
    pub code: &'a str,
}

impl RowLanguage<'_> {
    fn is(self, key: &str) -> bool {
        !key.is_empty() && (key == self.code || key == self.name)
    }
}

impl Rubric {
    /// The rubric inside the binary.
    ///
    /// # Errors
    /// None in a binary whose tests pass.
    pub fn built_in() -> Result<Self, RubricError> {
        Self::parse(BUILT_IN, Path::new("(built in)"))
    }

    /// The text of the rubric inside the binary.
    pub fn built_in_text() -> &'static str {
        BUILT_IN
    }

    /// Reads a rubric file of the same form.
    ///
    /// # Errors
    /// [`RubricError`], saying what is wrong.
    pub fn read(path: &Path) -> Result<Self, RubricError> {
        let text = std::fs::read_to_string(path).map_err(|source| RubricError::Io { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Parses a rubric's text; `path` is for messages.
    ///
    /// # Errors
    /// [`RubricError::Invalid`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, RubricError> {
        let invalid = |what: String| RubricError::Invalid { path: path.to_owned(), what };
        let mut rubric: Self = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        rubric.check().map_err(invalid)?;
        rubric.sha256 = crate::provenance::sha256_hex(text.as_bytes());
        if rubric.pairwise.is_none() {
            rubric.pairwise = toml::from_str::<Self>(BUILT_IN).ok().and_then(|built_in| built_in.pairwise);
        }
        Ok(rubric)
    }

    fn check(&self) -> Result<(), String> {
        if self.aspects.is_empty() {
            return Err("it has no [[aspect]]".to_owned());
        }
        for (index, aspect) in self.aspects.iter().enumerate() {
            if !(aspect.weight > 0.0 && aspect.weight.is_finite()) {
                return Err(format!("aspect `{}`: weight is {}, want more than 0", aspect.name, aspect.weight));
            }
            if aspect.name.trim().is_empty() || aspect.question.trim().is_empty() {
                return Err(format!("aspect {}: name and question must not be empty", index + 1));
            }
            if self.aspects[..index].iter().any(|other| other.name == aspect.name) {
                return Err(format!("the aspect `{}` stands there twice", aspect.name));
            }
        }
        for (index, label) in self.labels.iter().enumerate() {
            if label.is_empty() || self.labels[..index].contains(label) {
                return Err(format!("label {} is empty or used twice", index + 1));
            }
        }
        if !(0.0..=1.0).contains(&self.min_label_mass) {
            return Err(format!("min_label_mass is {}, want 0 to 1", self.min_label_mass));
        }
        let pairwise = self.languages.values().filter_map(|texts| texts.pairwise.as_ref()).chain(&self.pairwise);
        for PairwiseTexts { labels: [first, second], .. } in pairwise {
            if first.is_empty() || second.is_empty() || first == second {
                return Err("the labels of [pairwise] must be two different texts".to_owned());
            }
        }
        if let Some(example) = self.examples.iter().find(|example| !(1..=NUM_LABELS as u8).contains(&example.rating)) {
            return Err(format!("an [[example]] has the rating {}, want 1 to {NUM_LABELS}", example.rating));
        }
        for (language, texts) in &self.languages {
            let unknown = texts.questions.keys().find(|name| self.aspects.iter().all(|aspect| aspect.name != **name));
            if let Some(name) = unknown {
                return Err(format!("[languages.{language}] has a question for `{name}`, which is no aspect"));
            }
            if texts.rationale.as_deref().is_some_and(|text| text.trim().is_empty()) {
                return Err(format!("[languages.{language}] has an empty `rationale`"));
            }
        }
        Ok(())
    }

    /// The rubric's own texts for a language, if it has any.
    fn texts(&self, language: RowLanguage<'_>) -> Option<&LanguageTexts> {
        self.languages.get(language.code).or_else(|| self.languages.get(language.name))
    }

    /// How a rationale is asked for in a language, if the rubric says so itself.
    pub fn rationale(&self, language: RowLanguage<'_>) -> Option<&str> {
        self.texts(language)?.rationale.as_deref().map(str::trim)
    }

    /// The judge's message about one aspect of an answer.
    pub fn message(&self, aspect: &Aspect, language: RowLanguage<'_>, prompt: &str, answer: &str) -> String {
        let own = self.texts(language);
        let pick =
            |of: fn(&LanguageTexts) -> &Option<String>, usual| own.and_then(|t| of(t).as_deref()).unwrap_or(usual);
        let intro = pick(|texts| &texts.intro, &self.intro).trim();
        let prompt_heading = pick(|texts| &texts.prompt_heading, &self.prompt_heading);
        let answer_heading = pick(|texts| &texts.answer_heading, &self.answer_heading);
        let question = own.and_then(|texts| texts.questions.get(&aspect.name)).unwrap_or(&aspect.question).trim();
        let shown = |prompt: &str, answer: &str| {
            let (outer, inner) = (Fence::around(&[prompt]), Fence::around(&[prompt, answer]));
            format!("{}\n\n{}", outer.section(prompt_heading, prompt), inner.section(answer_heading, answer))
        };
        let mut text = format!("{intro}\n\n");
        for example in self.examples.iter().filter(|e| e.language.as_deref().is_none_or(|key| language.is(key))) {
            let label = &self.labels[usize::from(example.rating.clamp(1, NUM_LABELS as u8)) - 1];
            text += &format!("{}\n\n{question}\n{label}\n\n", shown(&example.prompt, &example.answer));
        }
        text + &format!("{}\n\n{question}", shown(prompt, answer))
    }

    /// The judge's message about two answers in this order, and the labels that name them; `None` without texts for it, which no parsed
    /// rubric lacks.
    pub fn comparison(
        &self,
        language: RowLanguage<'_>,
        prompt: &str,
        [first, second]: [&str; 2],
    ) -> Option<(String, &[String; 2])> {
        let own = self.texts(language);
        let texts = own.and_then(|texts| texts.pairwise.as_ref()).or(self.pairwise.as_ref())?;
        let heading = own.and_then(|texts| texts.prompt_heading.as_deref()).unwrap_or(&self.prompt_heading);
        let section = |heading: &str, text: &str| Fence::around(&[prompt, text]).section(heading, text);
        let sections = [
            texts.intro.trim().to_owned(),
            Fence::around(&[prompt]).section(heading, prompt),
            section(&texts.first_heading, first),
            section(&texts.second_heading, second),
            texts.question.trim().to_owned(),
        ];
        Some((sections.join("\n\n"), &texts.labels))
    }
}

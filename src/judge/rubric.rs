//! What a judge is asked: the rubric's texts, from the file inside the binary or one of the user's.
//! Knows text; knows nothing of tokens or models.

use std::path::{Path, PathBuf};

use serde::Deserialize;

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

/// See the module's text. The judge's message is: intro, prompt heading, prompt, answer heading, answer, question; what is the
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

    fn parse(text: &str, path: &Path) -> Result<Self, RubricError> {
        let invalid = |what: String| RubricError::Invalid { path: path.to_owned(), what };
        let mut rubric: Self = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if rubric.aspects.is_empty() {
            return Err(invalid("it has no [[aspect]]".to_owned()));
        }
        for (index, aspect) in rubric.aspects.iter().enumerate() {
            if !(aspect.weight > 0.0 && aspect.weight.is_finite()) {
                return Err(invalid(format!(
                    "aspect `{}`: weight is {}, want more than 0",
                    aspect.name, aspect.weight
                )));
            }
            if aspect.name.trim().is_empty() || aspect.question.trim().is_empty() {
                return Err(invalid(format!("aspect {}: name and question must not be empty", index + 1)));
            }
            if rubric.aspects[..index].iter().any(|other| other.name == aspect.name) {
                return Err(invalid(format!("the aspect `{}` stands there twice", aspect.name)));
            }
        }
        for (index, label) in rubric.labels.iter().enumerate() {
            if label.is_empty() || rubric.labels[..index].contains(label) {
                return Err(invalid(format!("label {} is empty or used twice", index + 1)));
            }
        }
        if !(0.0..=1.0).contains(&rubric.min_label_mass) {
            return Err(invalid(format!("min_label_mass is {}, want 0 to 1", rubric.min_label_mass)));
        }
        rubric.sha256 = crate::provenance::sha256_hex(text.as_bytes());
        Ok(rubric)
    }

    /// The judge's message about one aspect of an answer.
    pub fn message(&self, aspect: &Aspect, prompt: &str, answer: &str) -> String {
        let Self { intro, prompt_heading, answer_heading, .. } = self;
        let question = aspect.question.trim();
        format!("{}\n\n{prompt_heading}\n{prompt}\n\n{answer_heading}\n{answer}\n\n{question}", intro.trim())
    }
}

//! Written rationales: for each aspect of an answer a few sentences and a rating, in a form that the tokens themselves are held to. An option
//! beside the ratings that are read from label distributions, and never in their place. Knows prompts and the form; knows no files but its
//! own text, and no pairs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{AnswerKey, Judge, JudgeFailure, JudgeItem, RowLanguage, answer_key};
use crate::engine::{Constraint, EngineError, Request, SamplingParams, Task};
use crate::generate::{
    Candidate, CandidateSource, Closing, Ended, Failure, FormError, GenerateError, GrammarForm, Prepared, Row, Source,
    dialogue, sampling_key,
};
use crate::prompt::{DialogueEnd, PromptError, Vocabulary};

/// The instruction inside the binary.
const BUILT_IN: &str = include_str!("rationale.toml");

/// The longest end of an object, `", "rating": 5}`, behind what is left of a character of four bytes.
const CLOSING_TOKENS: usize = 15 + 3;
/// `{"rationale": "`, a character and the end.
const FEWEST_TOKENS: usize = 15 + 4 + CLOSING_TOKENS;
/// What the form is written with, each of which has to be a token.
const LITERALS: &str = "{\"rationle:,g}12345";

/// How a judge is asked for reasons.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RationaleText {
    /// Counts changes of the text.
    pub version: u32,
    /// Follows the rubric's question.
    pub instruction: String,
    /// SHA-256 of the file's text.
    #[serde(skip)]
    pub sha256: String,
}

/// What rationales are made with.
#[derive(Debug, Clone, PartialEq)]
pub struct RationaleOptions {
    /// The request.
    pub text: RationaleText,
    /// Most characters of a rationale.
    pub max_chars: usize,
    /// Most tokens of the whole object, which is closed in time.
    pub max_tokens: usize,
    /// 0: the likeliest token at each place.
    pub temperature: f32,
    /// Of the random numbers.
    pub seed: u64,
}

/// Why no rationales can be had.
#[derive(Debug, thiserror::Error)]
pub enum RationaleError {
    /// The text cannot be read.
    #[error("{path} cannot be read: {source}\nhint: give a TOML file with `version = 1` and an `instruction`")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The text is none.
    #[error("{path}: {what}\nhint: give a TOML file with `version = 1` and an `instruction`")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The bounds leave nothing to write.
    #[error(
        "a rationale of at most {max_chars} characters in {max_tokens} tokens\nhint: want 1 or more, in at least {FEWEST_TOKENS}"
    )]
    TooShort {
        /// As asked.
        max_chars: usize,
        /// As asked.
        max_tokens: usize,
    },
    /// The tokenizer's tokens are no bytes.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// They cannot be held to the form.
    #[error(transparent)]
    Form(#[from] FormError),
}

impl RationaleText {
    /// The instruction inside the binary.
    ///
    /// # Errors
    /// None in a binary whose tests pass.
    pub fn built_in() -> Result<Self, RationaleError> {
        Self::parse(BUILT_IN, Path::new("(built in)"))
    }

    /// The text of the file inside the binary.
    pub fn built_in_text() -> &'static str {
        BUILT_IN
    }

    /// Reads a file of the same form.
    ///
    /// # Errors
    /// [`RationaleError::Io`], [`RationaleError::Invalid`].
    pub fn read(path: &Path) -> Result<Self, RationaleError> {
        let io = |source| RationaleError::Io { path: path.to_owned(), source };
        Self::parse(&std::fs::read_to_string(path).map_err(io)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, RationaleError> {
        let invalid = |what: String| RationaleError::Invalid { path: path.to_owned(), what };
        let mut parsed: Self = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if parsed.instruction.trim().is_empty() {
            return Err(invalid("`instruction` is empty".to_owned()));
        }
        parsed.sha256 = crate::provenance::sha256_hex(text.as_bytes());
        Ok(parsed)
    }
}

/// What a judge wrote about one aspect of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AspectRationale {
    /// The aspect's name in the rubric.
    pub aspect: String,
    /// Why; never blank.
    pub rationale: String,
    /// 1..=5, as written. The rating of the dataset is that of the label distribution.
    pub rating: u8,
}

/// What a judge wrote about an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rationale {
    /// The prompt record.
    pub record_id: String,
    /// Who wrote the answer.
    pub source: CandidateSource,
    /// Model name of the answer, or `human`.
    pub model: String,
    /// Which of the model's answers.
    pub sample_index: u32,
    /// Judge model's name.
    pub judge: String,
    /// One entry per aspect of the rubric, in its order.
    pub aspects: Vec<AspectRationale>,
}

/// A line of the rationales' journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RationaleRow {
    /// Of all aspects.
    Rationale(Rationale),
    /// None.
    Failure(JudgeFailure),
}

impl RationaleRow {
    /// The answer that the row is about.
    pub fn answer(&self) -> AnswerKey {
        match self {
            Self::Rationale(row) => (row.record_id.clone(), row.source, row.model.clone(), row.sample_index),
            Self::Failure(JudgeFailure { source, model, failure, .. }) => {
                (failure.record_id.clone(), *source, model.clone(), failure.sample_index)
            }
        }
    }

    /// Whose row it is.
    pub fn judge(&self) -> &str {
        match self {
            Self::Rationale(row) => &row.judge,
            Self::Failure(failed) => &failed.judge,
        }
    }

    /// The answer and the judge: each such row is there once.
    pub fn key(&self) -> (AnswerKey, String) {
        (self.answer(), self.judge().to_owned())
    }

    fn failed(judge: &str, candidate: &Candidate, reason: &str, detail: String) -> Self {
        let (record_id, sample_index) = (candidate.record_id.clone(), candidate.sample_index);
        let failure = Failure { record_id, sample_index, reason: reason.to_owned(), detail };
        let (judge, source, model) = (judge.to_owned(), candidate.source, candidate.model.clone());
        Self::Failure(JudgeFailure { judge, source, model, failure })
    }
}

/// A judge that gives reasons.
#[derive(Debug)]
pub struct RationaleWriter<'a> {
    judge: Judge<'a>,
    vocabulary: Vocabulary,
    sampling: SamplingParams,
    instruction: String,
    max_chars: usize,
}

impl<'a> RationaleWriter<'a> {
    /// For a judge.
    ///
    /// # Errors
    /// [`RationaleError`] if its tokenizer's tokens cannot be held to the form, or the bounds leave nothing to write.
    pub fn new(judge: Judge<'a>, options: &RationaleOptions) -> Result<Self, RationaleError> {
        let RationaleOptions { ref text, max_chars, max_tokens, temperature, seed } = *options;
        if max_chars == 0 || max_tokens < FEWEST_TOKENS {
            return Err(RationaleError::TooShort { max_chars, max_tokens });
        }
        let vocabulary = judge.tokenizer.vocabulary()?;
        let constraint = Some(Constraint::new(rationale_form(&vocabulary, max_chars)?));
        let sampling = SamplingParams { temperature, seed, max_tokens, constraint, ..SamplingParams::default() };
        Ok(Self { judge, vocabulary, sampling, instruction: text.instruction.trim().to_owned(), max_chars })
    }

    /// The reasons for `items` as a source of rows for [`crate::generate::drive`].
    pub fn rationales(
        &'a self,
        items: impl Iterator<Item = JudgeItem> + Send + 'a,
        done: impl FnMut(RationaleRow) -> Result<(), GenerateError> + Send + 'a,
    ) -> Source<'a> {
        Source::new(items.map(move |item| self.prepare(item)), done)
    }

    /// One request per aspect.
    pub(super) fn prepare(&'a self, item: JudgeItem) -> Result<Prepared<InFlight<'a>>, GenerateError> {
        let Judge { tokenizer, rubric, name: judge } = self.judge;
        let (_, source, model, sample_index) = answer_key(&item.candidate);
        let language = RowLanguage { name: &item.prompt.language, code: &item.prompt.language_code };
        let instruction = rubric.rationale(language).unwrap_or(&self.instruction);
        let mut requests = Vec::with_capacity(rubric.aspects.len());
        for aspect in &rubric.aspects {
            let asked = rubric.message(aspect, language, &item.prompt.text, &item.candidate.text);
            let text = asked + "\n\n" + instruction;
            let prompt = match tokenizer.encode_chat(&dialogue(None, &text), DialogueEnd::GenerationPrompt) {
                Ok(prompt) => prompt,
                Err(error @ PromptError::NoTemplate { .. }) => return Err(error.into()),
                Err(error) => {
                    let row = RationaleRow::failed(
                        judge,
                        &item.candidate,
                        "rationale_prompt_not_encodable",
                        error.to_string(),
                    );
                    return Ok(Prepared::Done(row));
                }
            };
            let name = format!("{}\u{1f}{source:?}\u{1f}{model}\u{1f}{}", item.candidate.record_id, aspect.name);
            let key = sampling_key(&name, sample_index);
            requests.push(Request { prompt, task: Task::Generate(self.sampling.clone()), key });
        }
        Ok(Prepared::Asks(InFlight { writer: self, candidate: item.candidate }, requests))
    }

    /// What a judge wrote, held against the form once more; what is wrong with it otherwise.
    fn read(&self, aspect: &str, part: Ended) -> Result<AspectRationale, (&'static str, String)> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Object {
            rationale: String,
            rating: u8,
        }
        if let Some(error) = part.output.constraint_error {
            return Err(("rationale_form_not_kept", format!("{aspect}: {error}")));
        }
        let bytes = self.vocabulary.join(part.output.tokens.iter().map(|chosen| chosen.token));
        let wrong = |what: String| ("rationale_not_parsed", format!("{aspect}: {what}"));
        let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        let Object { rationale, rating } =
            serde_json::from_str(&text).map_err(|error| wrong(format!("{error} in {text}")))?;
        let num_chars = rationale.chars().count();
        if !(1..=5).contains(&rating) || num_chars > self.max_chars || rationale.trim().is_empty() {
            return Err(wrong(format!("a rating of {rating} and {num_chars} characters in {text}")));
        }
        Ok(AspectRationale { aspect: aspect.to_owned(), rationale, rating })
    }
}

/// The form of a rationale of at most `max_chars` characters over these tokens.
///
/// # Errors
/// [`FormError`] if they cannot write it.
pub fn rationale_form(vocabulary: &Vocabulary, max_chars: usize) -> Result<GrammarForm, FormError> {
    let closing = Closing { byte: b'"', num_tokens: CLOSING_TOKENS, num_tokens_at_least: FEWEST_TOKENS };
    GrammarForm::new(vocabulary, &grammar(max_chars), LITERALS, closing)
}

/// The object in llguidance's Lark syntax: spaces where JSON writers put one, a rationale of at most `max_chars` characters that does not
/// begin with a space, and no escapes but of quotes, backslashes and new lines.
fn grammar(max_chars: usize) -> String {
    let more = max_chars.saturating_sub(1);
    format!(
        r#"start: HEAD TEXT MIDDLE RATING "}}"
HEAD: /\{{"rationale": ?/
TEXT: /"[^"\\\p{{White_Space}}\x00-\x1F\x7F]([^"\\\x00-\x1F\x7F]|\\["\\n]){{0,{more}}}"/
MIDDLE: /, ?"rating": ?/
RATING: /[1-5]/
"#
    )
}

/// An answer whose rationales are being written: one request per aspect.
pub(super) struct InFlight<'a> {
    writer: &'a RationaleWriter<'a>,
    candidate: Candidate,
}

impl Row for InFlight<'_> {
    type Done = RationaleRow;

    fn finish(self, parts: Vec<Ended>) -> Result<RationaleRow, GenerateError> {
        let Judge { rubric, name, .. } = self.writer.judge;
        if parts.len() != rubric.aspects.len() {
            let detail = format!("{} rationales for {} aspects", parts.len(), rubric.aspects.len());
            return Ok(RationaleRow::failed(name, &self.candidate, "rationale_not_parsed", detail));
        }
        let read = rubric.aspects.iter().zip(parts).map(|(aspect, part)| self.writer.read(&aspect.name, part));
        match read.collect::<Result<Vec<_>, _>>() {
            Err((reason, detail)) => Ok(RationaleRow::failed(name, &self.candidate, reason, detail)),
            Ok(aspects) => {
                let Candidate { record_id, source, model, sample_index, .. } = self.candidate;
                let judge = name.to_owned();
                Ok(RationaleRow::Rationale(Rationale { record_id, source, model, sample_index, judge, aspects }))
            }
        }
    }

    fn refused(self, error: EngineError) -> Result<RationaleRow, GenerateError> {
        let name = self.writer.judge.name;
        match error {
            EngineError::PromptTooLong { .. } => {
                Ok(RationaleRow::failed(name, &self.candidate, "rationale_prompt_too_long", error.to_string()))
            }
            error => Err(error.into()),
        }
    }
}

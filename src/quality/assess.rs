//! All checks over all rows of a run: a flag for what is found, a language verdict for each answer, nothing deleted.
//! Knows prompts and answers as text; deliberately knows no ratings, no pairs and no files.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::answer::{
    are_near_identical, has_leaked_markers, has_markdown, has_odd_length, has_preamble, is_echo, is_repetitive,
};
use super::duplicates::{HeldOutTexts, near_duplicates};
use super::identify::Profile;
use super::language::{LanguageReport, LanguageVerdict, check_language, leans_to};
use super::openings::{CommonOpening, Opening, mine};
use super::text::shows_nothing;
use crate::data::{PromptRecord, language};
use crate::generate::{Candidate, CandidateSource, FinishReason};

/// What may be found: the last two of rows, the others of answers; held-out texts in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// It shows nothing.
    Empty,
    /// It is in another language, and the identifier was validated in the one that it should be in.
    WrongLanguage,
    /// A part of it is.
    MixedLanguage,
    /// It was cut at the token limit.
    Truncated,
    /// It goes round.
    Repetition,
    /// It is the prompt again.
    Echo,
    /// Text of a template is left in it.
    LeakedMarkers,
    /// It begins as many answers of this model do: a refusal, or boilerplate.
    CommonOpening,
    /// It announces itself before it begins, as the human answer does not.
    Preamble,
    /// It has markup where the human answer has none.
    Markdown,
    /// It is ten times as long as the human answer, or a tenth.
    LengthRatio,
    /// Another answer to the prompt says the same in the same words.
    NearIdentical,
    /// An earlier row has nearly the same prompt.
    NearDuplicate,
    /// A stretch of it stands in the held-out set: of a row's prompt or human answer, or of a generated answer.
    Contaminated,
}

impl Flag {
    /// All of them, in order.
    pub const ALL: [Self; 14] = [
        Self::Empty,
        Self::WrongLanguage,
        Self::MixedLanguage,
        Self::Truncated,
        Self::Repetition,
        Self::Echo,
        Self::LeakedMarkers,
        Self::CommonOpening,
        Self::Preamble,
        Self::Markdown,
        Self::LengthRatio,
        Self::NearIdentical,
        Self::NearDuplicate,
        Self::Contaminated,
    ];

    /// The word in the files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::WrongLanguage => "wrong_language",
            Self::MixedLanguage => "mixed_language",
            Self::Truncated => "truncated",
            Self::Repetition => "repetition",
            Self::Echo => "echo",
            Self::LeakedMarkers => "leaked_markers",
            Self::CommonOpening => "common_opening",
            Self::Preamble => "preamble",
            Self::Markdown => "markdown",
            Self::LengthRatio => "length_ratio",
            Self::NearIdentical => "near_identical",
            Self::NearDuplicate => "near_duplicate",
            Self::Contaminated => "contaminated",
        }
    }
}

impl Serialize for Flag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Flags that keep a pair out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Requirements(BTreeSet<Flag>);

/// A requirement that there is not.
#[derive(Debug, Error)]
#[error(
    "`{got}` is no requirement\nhint: there are language-ok and no-FLAG, for example no-truncated; the flags are {}",
    flags_in_words()
)]
pub struct UnknownRequirement {
    got: String,
}

fn flags_in_words() -> String {
    Flag::ALL.map(|flag| flag.as_str().replace('_', "-")).join(", ")
}

impl FromStr for Requirements {
    type Err = UnknownRequirement;

    /// `language-ok,no-truncated`; `none` or nothing requires nothing.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut flags = BTreeSet::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty() && *word != "none") {
            if word == "language-ok" {
                flags.extend([Flag::WrongLanguage, Flag::MixedLanguage]);
                continue;
            }
            let named =
                |flag: &Flag| word.strip_prefix("no-").is_some_and(|name| name.replace('-', "_") == flag.as_str());
            flags.insert(Flag::ALL.into_iter().find(named).ok_or_else(|| UnknownRequirement { got: word.to_owned() })?);
        }
        Ok(Self(flags))
    }
}

impl Requirements {
    /// The first flag that keeps a pair out, among the row's and those of its two answers.
    pub fn unmet<'f>(&self, flags: impl IntoIterator<Item = &'f Flag>) -> Option<Flag> {
        flags.into_iter().copied().filter(|flag| self.0.contains(flag)).min()
    }
}

/// What was found in an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerQuality {
    /// Its language.
    pub language: LanguageReport,
    /// In order.
    pub flags: BTreeSet<Flag>,
}

/// What was found in a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowQuality {
    /// In order.
    pub flags: BTreeSet<Flag>,
    /// Id of the first row with nearly this prompt; `None` if there is no other.
    pub near_duplicate_group: Option<String>,
    /// For each answer, as they were handed in.
    pub answers: Vec<AnswerQuality>,
}

/// One row: its record and its answers, the human one among them.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// The prompt.
    pub record: &'a PromptRecord,
    /// The answers.
    pub answers: Vec<&'a Candidate>,
}

/// What was found in a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct QualitySummary {
    /// Answers, by flag; those without any under `none`.
    pub answers: BTreeMap<&'static str, u64>,
    /// Rows, by flag of the row.
    pub rows: BTreeMap<&'static str, u64>,
    /// Generated answers by language verdict.
    pub languages: BTreeMap<&'static str, u64>,
    /// Languages of the rows in which the identifier was validated, and those in which it was not, by code.
    pub validated: BTreeSet<String>,
    /// See `validated`.
    pub not_validated: BTreeSet<String>,
    /// Openings that many answers of a model share.
    pub openings: Vec<CommonOpening>,
}

/// Checks all rows. The result depends on texts alone and is the same on any number of threads.
pub fn assess(
    rows: &[Row<'_>],
    profile: &Profile,
    held_out: Option<&HeldOutTexts>,
) -> (Vec<RowQuality>, QualitySummary) {
    let mut found: Vec<RowQuality> = rows.par_iter().map(|row| assess_row(row, profile, held_out)).collect();
    let prompts: Vec<&str> = rows.iter().map(|row| row.record.prompt.as_str()).collect();
    for (index, first) in near_duplicates(&prompts).into_iter().enumerate() {
        let Some(first) = first else { continue };
        found[index].near_duplicate_group = Some(rows[first].record.id.clone());
        if first != index {
            found[index].flags.insert(Flag::NearDuplicate);
        }
    }
    let openings = flag_openings(rows, &mut found);
    let summary = summarise(rows, &found, profile, openings);
    (found, summary)
}

fn flag_openings(rows: &[Row<'_>], found: &mut [RowQuality]) -> Vec<CommonOpening> {
    let language = |row: &Row<'_>| expected_language(row.record).unwrap_or("").to_owned();
    let languages: Vec<String> = rows.iter().map(language).collect();
    let answers: Vec<Opening<'_>> = rows
        .iter()
        .zip(&languages)
        .flat_map(|(row, language)| {
            row.answers.iter().map(|answer| Opening {
                model: &answer.model,
                is_human: answer.source == CandidateSource::Human,
                language,
                prompt: &row.record.id,
                text: &answer.text,
            })
        })
        .collect();
    let (openings, flags) = mine(&answers);
    let all = found.iter_mut().flat_map(|row| &mut row.answers);
    all.zip(flags).filter(|(_, flagged)| *flagged).for_each(|(answer, _)| _ = answer.flags.insert(Flag::CommonOpening));
    openings
}

/// The code of a row's language, if it is known.
fn expected_language(record: &PromptRecord) -> Option<&'static str> {
    language::broad_code(&record.language, &record.language_code)
}

fn assess_row(row: &Row<'_>, profile: &Profile, held_out: Option<&HeldOutTexts>) -> RowQuality {
    let record = row.record;
    let mut quality = RowQuality::default();
    let human = record.response.as_deref();
    if held_out
        .is_some_and(|held_out| held_out.overlaps(&record.prompt) || human.is_some_and(|text| held_out.overlaps(text)))
    {
        quality.flags.insert(Flag::Contaminated);
    }
    let mut expected: Vec<&str> = expected_language(record).into_iter().collect();
    // A prompt may ask for another language (a translation): what the human answer is in is right as well.
    let of_human = human.map(|text| check_language(profile, text, &expected));
    let is_unclear = of_human.as_ref().is_some_and(|report| report.verdict == LanguageVerdict::Unsure);
    let asked = of_human
        .filter(|report| report.verdict != LanguageVerdict::Ok && report.posterior >= 0.9)
        .and_then(|report| report.code);
    if let Some(asked) = asked.as_deref().filter(|code| !expected.is_empty() && !expected.contains(code)) {
        expected.push(asked);
    }
    for answer in &row.answers {
        let is_human = answer.source == CandidateSource::Human;
        let mut language = check_language(profile, &answer.text, &expected);
        let is_foreign = matches!(language.verdict, LanguageVerdict::Wrong | LanguageVerdict::Mixed);
        let is_asked = |found: &str| is_unclear && human.is_some_and(|text| leans_to(profile, text, found, &expected));
        if is_foreign && language.code.as_deref().is_some_and(is_asked) {
            language.verdict = LanguageVerdict::Unsure;
        }
        let mut flags = BTreeSet::new();
        let mut flag = |condition: bool, flag: Flag| _ = condition.then(|| flags.insert(flag));
        let validated =
            expected.first().is_some_and(|code| profile.language(code).is_some_and(|own| own.is_validated()));
        flag(shows_nothing(&answer.text), Flag::Empty);
        flag(validated && language.verdict == LanguageVerdict::Wrong, Flag::WrongLanguage);
        flag(validated && language.verdict == LanguageVerdict::Mixed, Flag::MixedLanguage);
        flag(answer.finish_reason == Some(FinishReason::Length), Flag::Truncated);
        flag(is_repetitive(&answer.text), Flag::Repetition);
        flag(has_leaked_markers(&answer.text), Flag::LeakedMarkers);
        let other = human.filter(|_| !is_human);
        flag(!is_human && is_echo(&record.prompt, &answer.text, other), Flag::Echo);
        flag(other.is_some_and(|human| has_preamble(&answer.text, human)), Flag::Preamble);
        flag(!is_human && held_out.is_some_and(|held_out| held_out.overlaps(&answer.text)), Flag::Contaminated);
        flag(has_markdown(&answer.text, other), Flag::Markdown);
        flag(other.is_some_and(|human| has_odd_length(&answer.text, human)), Flag::LengthRatio);
        let mut others = row.answers.iter().filter(|other| !std::ptr::eq(**other, *answer));
        flag(!is_human && others.any(|other| are_near_identical(&other.text, &answer.text)), Flag::NearIdentical);
        quality.answers.push(AnswerQuality { language, flags });
    }
    quality
}

fn summarise(
    rows: &[Row<'_>],
    found: &[RowQuality],
    profile: &Profile,
    openings: Vec<CommonOpening>,
) -> QualitySummary {
    let mut summary = QualitySummary { openings, ..QualitySummary::default() };
    for (row, quality) in rows.iter().zip(found) {
        if let Some(code) = expected_language(row.record) {
            let validated = profile.language(code).is_some_and(|language| language.is_validated());
            let of = if validated { &mut summary.validated } else { &mut summary.not_validated };
            of.insert(code.to_owned());
        }
        quality.flags.iter().for_each(|flag| *summary.rows.entry(flag.as_str()).or_default() += 1);
        for (answer, quality) in row.answers.iter().zip(&quality.answers) {
            if quality.flags.is_empty() {
                *summary.answers.entry("none").or_default() += 1;
            }
            quality.flags.iter().for_each(|flag| *summary.answers.entry(flag.as_str()).or_default() += 1);
            if answer.source == CandidateSource::Model {
                *summary.languages.entry(quality.language.verdict.as_str()).or_default() += 1;
            }
        }
    }
    summary
}

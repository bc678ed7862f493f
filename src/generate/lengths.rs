//! How long people's answers are, language by language, and how a generator is told: `--length-guidance`.
//! Knows records and texts with places for numbers; deliberately does not know models, nor which shard's rows are answered: the figures
//! are those of the whole source.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::system::own_text;
use crate::data::PromptRecord;
use crate::data::language::is_unspaced;

/// Fewer answers in a language say too little about how long such answers are: a quartile would hang on one or two of them.
const MIN_ANSWERS: usize = 20;

/// Texts with `{low}`, `{high}` and `{middle}`, for each unit that lengths are counted in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthTexts {
    /// For languages whose words stand apart.
    words: UnitTexts,
    /// For languages whose words do not.
    characters: UnitTexts,
}

/// One unit's texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnitTexts {
    /// For languages without a text of their own.
    text: String,
    /// By language code or name.
    #[serde(default)]
    languages: BTreeMap<String, String>,
}

/// What a length is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LengthUnit {
    /// What white space parts.
    Words,
    /// Characters that are no white space.
    Characters,
}

/// Human answers in one language of the source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LanguageLength {
    /// As the source spells it.
    pub language: String,
    /// As the source spells it.
    pub language_code: String,
    /// Answers that were counted.
    pub num_answers: usize,
    /// Of the numbers below.
    pub unit: LengthUnit,
    /// First quartile, rounded.
    pub low: u64,
    /// Median, rounded.
    pub middle: u64,
    /// Third quartile, rounded.
    pub high: u64,
    /// What the generator is told.
    pub text: String,
}

/// What is said of lengths, by language; part of the lock, since answers depend on it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LengthGuidance {
    /// Languages with at least 20 human answers, in the order of name and code.
    pub languages: Vec<LanguageLength>,
    /// The others, `name (code)`: nothing is said of these.
    pub too_few: Vec<String>,
}

impl LengthGuidance {
    /// Counts the human answers of all `records`, each language by itself.
    pub fn of(records: &[PromptRecord], texts: &LengthTexts) -> Self {
        let mut answers: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for record in records {
            let Some(response) = record.response.as_deref() else { continue };
            answers.entry((&record.language, &record.language_code)).or_default().push(response);
        }
        let mut guidance = Self::default();
        for ((name, code), answers) in answers {
            match measure(name, code, &answers, texts) {
                Some(length) => guidance.languages.push(length),
                None => guidance.too_few.push(format!("{name} ({code})")),
            }
        }
        guidance
    }

    /// What is said of answers in this language, spelled as the source does.
    pub fn for_language(&self, name: &str, code: &str) -> Option<&str> {
        let own = self.languages.iter().find(|length| length.language == name && length.language_code == code);
        own.map(|length| length.text.as_str())
    }
}

fn measure(name: &str, code: &str, answers: &[&str], texts: &LengthTexts) -> Option<LanguageLength> {
    if answers.len() < MIN_ANSWERS {
        return None;
    }
    let unit = unit_of(answers);
    let mut lengths: Vec<u64> = answers.iter().map(|answer| length_in(unit, answer)).collect();
    lengths.sort_unstable();
    // Nearest rank: the length of an answer that there is.
    let quartile = |quarters: usize| lengths.get((lengths.len() - 1) * quarters / 4).copied().map(rounded);
    let (low, middle, high) = (quartile(1)?, quartile(2)?, quartile(3)?);
    let of_unit = match unit {
        LengthUnit::Words => &texts.words,
        LengthUnit::Characters => &texts.characters,
    };
    let text = own_text(&of_unit.languages, name, code).unwrap_or(&of_unit.text).trim();
    let text = [("{low}", low), ("{middle}", middle), ("{high}", high)]
        .into_iter()
        .fold(text.to_owned(), |text, (place, number)| text.replace(place, &number.to_string()));
    let num_answers = answers.len();
    Some(LanguageLength {
        language: name.to_owned(),
        language_code: code.to_owned(),
        num_answers,
        unit,
        low,
        middle,
        high,
        text,
    })
}

/// Words, unless most letters are of a script that is written without spaces between words.
fn unit_of(answers: &[&str]) -> LengthUnit {
    let (mut unspaced, mut letters) = (0u64, 0u64);
    for character in answers.iter().flat_map(|answer| answer.chars()).filter(|character| character.is_alphabetic()) {
        letters += 1;
        unspaced += u64::from(is_unspaced(character));
    }
    if 2 * unspaced > letters { LengthUnit::Characters } else { LengthUnit::Words }
}

fn length_in(unit: LengthUnit, answer: &str) -> u64 {
    let number = match unit {
        LengthUnit::Words => answer.split_whitespace().count(),
        LengthUnit::Characters => answer.chars().filter(|character| !character.is_whitespace()).count(),
    };
    number as u64
}

/// To a number that does not look more exact than it is: 5s from 20, 10s from 100, 50s from 500, 100s from 1,000.
fn rounded(length: u64) -> u64 {
    let step = match length {
        0..20 => 1,
        20..100 => 5,
        100..500 => 10,
        500..1_000 => 50,
        _ => 100,
    };
    (length + step / 2) / step * step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::SystemPrompts;

    fn texts() -> LengthTexts {
        SystemPrompts::built_in().unwrap().length.unwrap()
    }

    fn record(language: &str, code: &str, response: &str) -> PromptRecord {
        PromptRecord {
            id: String::new(),
            row_index: 0,
            prompt: "?".to_owned(),
            response: Some(response.to_owned()),
            language: language.to_owned(),
            language_code: code.to_owned(),
            annotation_type: None,
            user_id: None,
        }
    }

    #[test]
    fn quartiles_are_of_each_language_by_itself_in_its_own_words() {
        let mut records: Vec<PromptRecord> =
            (1..=101).map(|words| record("Turkish", "tur", &"söz ".repeat(words))).collect();
        records.extend((0..40).map(|_| record("Japanese", "jpn", &"はい、そうです。".repeat(20))));
        records.extend((0..25).map(|_| record("Dutch", "nld", "ja")));
        records.extend((0..19).map(|_| record("Wolof", "wol", "waaw")));
        records.push(PromptRecord { response: None, ..record("Wolof", "wol", "") });
        let guidance = LengthGuidance::of(&records, &texts());
        assert_eq!(guidance.too_few, ["Wolof (wol)"]);
        assert_eq!(guidance.for_language("Wolof", "wol"), None);
        let by_code = |code: &str| guidance.languages.iter().find(|length| length.language_code == code).unwrap();
        let turkish = by_code("tur");
        assert_eq!((turkish.low, turkish.middle, turkish.high), (25, 50, 75));
        assert_eq!((turkish.unit, turkish.num_answers), (LengthUnit::Words, 101));
        let told = guidance.for_language("Turkish", "tur").unwrap();
        assert!(told.contains("25 ile 75 sözcük") && !told.contains('{'), "{told}");
        let japanese = by_code("jpn");
        assert_eq!((japanese.unit, japanese.middle), (LengthUnit::Characters, 160));
        assert!(japanese.text.contains("160文字"), "{}", japanese.text);
        assert!(by_code("nld").text.starts_with("As a guide to length"), "{}", by_code("nld").text);
    }

    #[test]
    fn numbers_are_rounded_by_their_size() {
        let pairs = [(0, 0), (1, 1), (19, 19), (22, 20), (23, 25), (99, 100), (104, 100), (526, 550), (1_249, 1_200)];
        for (length, expected) in pairs {
            assert_eq!(rounded(length), expected, "{length}");
        }
    }
}

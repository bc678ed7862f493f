//! Language confusion: answers with a line in another language, and answers of another script with English words in them (K. Marchisio et al.
//! 2024, "Understanding and Mitigating Language Confusion in LLMs", arXiv 2406.20052). Knows one answer; deliberately knows no rows.
//!
//! As published: punctuation is taken off, lines with fewer than 5 words are passed over, an answer passes if no line is in another language
//! (line-level pass rate); of those that pass, one that holds a lower-case English word of more than 3 letters fails (word-level pass
//! rate), which is asked of scripts other than Latin alone. What differs, and what makes the numbers comparable in kind and not in digit:
//!
//! | | published | here |
//! |---|---|---|
//! | lines are identified by | fastText lid.176, which lacks 13 of Aya's languages | our profile; a line is wrong where a part of an answer would be (`language.rs`), and one that is unsure is no error |
//! | words of scripts without spaces | jieba, fugashi | a word for every two characters |
//! | dictionary | a list of English words | the words of the source's English rows; a caller without such rows has no word-level rate |
//! | languages at word level | ar hi ja ko ru zh | every language that is not written in Latin |

use std::collections::HashSet;

use super::identify::{Profile, count_letters};
use super::language::{LanguageVerdict, prose, verdict_of};
use crate::data::language::is_unspaced;

/// Lines with fewer words are passed over.
const MIN_WORDS: usize = 5;
/// English words with as many letters or fewer may be anything.
const MAX_SHORT: usize = 3;
/// Letters in a row of another script that are more than a symbol: as many as make an English word.
const MIN_RUN: usize = MAX_SHORT + 1;

/// Lower-case English words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnglishWords(HashSet<String>);

/// What an answer's lines are like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineCheck {
    /// Lines that were judged: long enough.
    pub num_lines: u64,
    /// Those in another language.
    pub num_wrong: u64,
}

impl EnglishWords {
    /// The words of English texts that count: of more than 3 letters, written in lower case there.
    pub fn of<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        Self(texts.into_iter().flat_map(english_like).map(str::to_owned).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them stands in a text.
    pub fn are_in(&self, text: &str) -> bool {
        english_like(text).any(|word| self.0.contains(word))
    }
}

/// Runs of letters that could be such a word.
fn english_like(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’');
    words.filter(|word| word.len() > MAX_SHORT && word.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// Holds each line of an answer against the language that it should be in (a code of [`crate::data::language::broad_code`]). Code, addresses
/// and quotations are left out first, as everywhere here.
pub fn check_lines(profile: &Profile, answer: &str, expected: &str) -> LineCheck {
    let mut check = LineCheck::default();
    for line in prose(answer).lines().filter(|line| num_words(line) >= MIN_WORDS) {
        check.num_lines += 1;
        check.num_wrong += u64::from(verdict_of(profile, line, expected) == LanguageVerdict::Wrong);
    }
    check
}

/// Words of a line without punctuation; in scripts without spaces every two characters are one.
fn num_words(line: &str) -> usize {
    line.split_whitespace()
        .map(|word| {
            let unspaced = word.chars().filter(|c| is_unspaced(*c)).count();
            if unspaced > 0 { unspaced.div_ceil(2) } else { usize::from(word.chars().any(char::is_alphanumeric)) }
        })
        .sum()
}

/// Whether an answer's prose holds four letters in a row of a script that none of `texts` (the prompt and the human answer) has any letter of.
/// Han, Hiragana, Katakana and Hangul count as one where the texts hold one of them: Japanese and Korean mix them.
pub fn has_foreign_script(answer: &str, texts: &[&str]) -> bool {
    use unicode_script::{Script, UnicodeScript};
    let family = |character: char| match character.script() {
        Script::Hiragana | Script::Katakana | Script::Hangul | Script::Bopomofo => Script::Han,
        script => script,
    };
    let known: HashSet<Script> =
        texts.iter().flat_map(|text| text.chars()).filter(|c| c.is_alphabetic()).map(family).collect();
    let prose = prose(answer);
    if known.is_empty() || count_letters(&prose) == 0 {
        return false;
    }
    let (mut run, mut of) = (0, Script::Common);
    prose.chars().any(|character| {
        let script = family(character);
        if matches!(script, Script::Inherited) {
            return false;
        }
        if !character.is_alphabetic() || script == Script::Common || known.contains(&script) {
            (run, of) = (0, Script::Common);
            return false;
        }
        run = if script == of { run + 1 } else { 1 };
        of = script;
        run >= MIN_RUN
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_english_only_in_lower_case_and_from_four_letters_on() {
        let words = EnglishWords::of(["The weather is fine, but Berlin's streets aren't."]);
        assert_eq!(words.len(), 3, "{words:?}");
        assert!(words.are_in("Погода weather хорошая"));
        for harmless in ["Berlin", "Weather", "the fine-tuned", "погода", "weatherproof", "is but"] {
            assert_eq!(words.are_in(harmless), harmless.contains("fine"), "{harmless}");
        }
    }

    #[test]
    fn letters_of_another_script_are_found_and_symbols_are_not() {
        let texts = ["อธิบาย DNA", "ดีเอ็นเอคือ"];
        assert!(!has_foreign_script("DNA คือ sequence", &texts), "Latin stands in the prompt");
        assert!(has_foreign_script("погода คือ", &texts));
        assert!(!has_foreign_script("ค่า π = 3.14 `код внутри`", &texts));
        assert!(!has_foreign_script("カタカナとひらがな", &["東京"]));
        assert!(has_foreign_script("東京東京", &["Wat is dit?"]));
    }

    #[test]
    fn short_lines_are_passed_over() {
        assert_eq!(
            ["one two three four", "a b c d e", "– – – – –", "日本の首都は", "日本の首都は東京です"].map(num_words),
            [4, 5, 0, 3, 5]
        );
    }
}

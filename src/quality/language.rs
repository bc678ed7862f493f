//! Whether an answer is in the language it should be in: ok, mixed, wrong or unsure, for a text and each of its parts.
//! Knows what of an answer is prose; deliberately does not know rows, and drops nothing.
//!
//! Code, URLs, addresses and quotations are left out; what stays is cut into lines and these into sentences, joined to parts of at least
//! 40 letters. A part or a line with fewer than 20 letters is not judged. A part is wrong only if the posterior of the
//! expected language is below 0.02 while another one's is above 0.9: the difference is left `unsure`.

use serde::{Deserialize, Serialize};

use super::identify::{Profile, Scored, also_written_in, count_letters};

/// Texts and parts with fewer letters are not judged.
pub const MIN_LETTERS: usize = 20;

/// Sentences are joined until a part has this many letters.
const PART_LETTERS: usize = 40;

/// The posterior below which the expected language is ruled out.
const RULED_OUT: f64 = 0.02;

/// The posterior from which another language is taken to be the right one.
const FOUND: f64 = 0.9;

/// Share of judged letters in wrong parts from which an answer is wrong as a whole, if its whole text is.
const WRONG_SHARE: f64 = 0.8;

/// Share of judged letters in wrong parts from which an answer is mixed.
const MIXED_SHARE: f64 = 0.15;

/// What is said of an answer's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LanguageVerdict {
    /// In the expected language, as far as one can tell.
    Ok,
    /// Partly in the expected language and partly in another one.
    Mixed,
    /// In another language.
    Wrong,
    /// Too short, too close to call, or in a language that the profile does not know.
    Unsure,
}

impl LanguageVerdict {
    /// The word in the files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Mixed => "mixed",
            Self::Wrong => "wrong",
            Self::Unsure => "unsure",
        }
    }
}

/// What an answer's language looks like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LanguageReport {
    /// The whole.
    pub verdict: LanguageVerdict,
    /// The likeliest language of the prose, ISO 639-3; `None` if it has too few letters or an unknown script.
    pub code: Option<String>,
    /// Its posterior, 0 to 1.
    pub posterior: f64,
    /// Parts that were judged, in order.
    pub parts: Vec<LanguageVerdict>,
}

/// Holds an answer against the languages that it may be in (codes of [`crate::data::language::broad_code`]); with none it is `unsure`.
pub fn check_language(profile: &Profile, answer: &str, expected: &[&str]) -> LanguageReport {
    let prose = prose(answer);
    let whole = profile.score(&prose);
    let identified = whole.identification();
    let mut report = LanguageReport {
        verdict: LanguageVerdict::Unsure,
        code: identified.code.filter(|_| identified.num_letters >= MIN_LETTERS),
        posterior: identified.posterior,
        parts: Vec::new(),
    };
    let known: Vec<&str> = expected.iter().copied().filter(|code| profile.language(code).is_some()).collect();
    if known.is_empty() || known.len() < expected.len() || identified.num_letters < MIN_LETTERS {
        return report;
    }
    let whole = judge(&whole, &known);
    let (mut judged, mut wrong) = (0, 0);
    for part in parts(&prose) {
        let scored = profile.score(&part);
        let verdict = judge(&scored, &known);
        judged += scored.num_letters();
        if verdict == LanguageVerdict::Wrong {
            wrong += scored.num_letters();
        }
        report.parts.push(verdict);
    }
    let share = wrong as f64 / judged.max(1) as f64;
    report.verdict = match whole {
        LanguageVerdict::Wrong if share >= WRONG_SHARE || judged == 0 => LanguageVerdict::Wrong,
        _ if share >= MIXED_SHARE => LanguageVerdict::Mixed,
        LanguageVerdict::Wrong => LanguageVerdict::Unsure,
        verdict => verdict,
    };
    report
}

/// Whether a text speaks rather for `found` than for the expected languages, be it too short to be judged: of a person's "The sea is calm."
/// one cannot say that it is English, but that English may well have been asked for.
pub(super) fn leans_to(profile: &Profile, text: &str, found: &str, expected: &[&str]) -> bool {
    let own = prose(text);
    // Nothing but a quotation may be the answer itself.
    let scored = profile.score(if count_letters(&own) > 0 { &own } else { text });
    let of_expected: f64 = expected.iter().filter_map(|code| scored.posterior(code)).sum();
    scored.posterior(found).is_some_and(|posterior| posterior > of_expected)
}

/// The verdict of a text as one part, without looking for code and quotations in it.
pub fn verdict_of(profile: &Profile, text: &str, expected: &str) -> LanguageVerdict {
    match profile.language(expected) {
        Some(_) => judge(&profile.score(text), &[expected]),
        None => LanguageVerdict::Unsure,
    }
}

/// One text as a whole. All of `expected` are in the profile.
fn judge(scored: &Scored<'_>, expected: &[&str]) -> LanguageVerdict {
    let Some(script) = scored.script().filter(|_| scored.num_letters() >= MIN_LETTERS) else {
        return LanguageVerdict::Unsure;
    };
    let sum: f64 = expected.iter().filter_map(|code| scored.posterior(code)).sum();
    let found = scored.code();
    match found {
        Some(code) if expected.contains(&code) => LanguageVerdict::Ok,
        // In a script of the expected language that the profile has no text in, or in one of no language that it knows.
        _ if sum <= 0.0 && expected.iter().any(|code| also_written_in(code, script)) => LanguageVerdict::Unsure,
        None => LanguageVerdict::Wrong,
        Some(_) if expected.iter().any(|code| scored.is_close_to(code)) => LanguageVerdict::Unsure,
        Some(code) if sum < RULED_OUT && scored.posterior(code).is_some_and(|posterior| posterior >= FOUND) => {
            LanguageVerdict::Wrong
        }
        Some(_) => LanguageVerdict::Unsure,
    }
}

/// An answer without code fences, code spans, URLs, e-mail addresses, tags and quotations; line by line as before.
pub fn prose(answer: &str) -> String {
    let mut kept = String::with_capacity(answer.len());
    let mut fence: Option<&str> = None;
    for line in answer.lines() {
        let start = line.trim_start();
        let marker = ["```", "~~~"].into_iter().find(|marker| start.starts_with(marker));
        match (fence, marker) {
            (Some(open), Some(marker)) if open == marker => fence = None,
            (Some(_), _) => {}
            (None, Some(marker)) => fence = Some(marker),
            // A block quotation.
            (None, None) if start.starts_with('>') => {}
            (None, None) => {
                keep_prose(line, &mut kept);
                kept.push('\n');
            }
        }
    }
    kept
}

/// Longest quotation, in characters, that is left out: a mark that is opened and never closed, or used otherwise, costs no more.
const MAX_QUOTED: usize = 300;

/// Pairs of marks around quotations and code. An apostrophe is no such mark.
const MARKS: [(char, char); 12] = [
    ('`', '`'),
    ('"', '"'),
    ('“', '”'),
    ('„', '“'),
    ('”', '”'),
    ('«', '»'),
    ('»', '«'),
    ('「', '」'),
    ('『', '』'),
    ('《', '》'),
    ('‹', '›'),
    ('<', '>'),
];

fn keep_prose(line: &str, kept: &mut String) {
    let characters: Vec<char> = line.chars().collect();
    let mut at = 0;
    while let Some(&character) = characters.get(at) {
        let closings = MARKS.iter().filter(|(open, _)| *open == character).map(|(_, close)| *close);
        let rest = characters.get(at + 1..characters.len().min(at + 1 + MAX_QUOTED)).unwrap_or_default();
        let end = closings.filter_map(|close| rest.iter().position(|&next| next == close)).min();
        if let Some(length) = end {
            kept.push(' ');
            at += length + 2;
            continue;
        }
        if at == 0 || characters.get(at - 1).is_some_and(|before| before.is_whitespace() || "([{".contains(*before)) {
            let word: String =
                characters.iter().skip(at).take_while(|next| !next.is_whitespace()).take(MAX_QUOTED).collect();
            if is_address(&word) {
                at += word.chars().count();
                kept.push(' ');
                continue;
            }
        }
        kept.push(character);
        at += 1;
    }
}

/// A URL, an e-mail address, a path or a domain: Latin letters that are no language.
fn is_address(word: &str) -> bool {
    let has = |part: &str| word.contains(part);
    let domain = |text: &str| {
        let mut labels = text.trim_end_matches(|c: char| !c.is_alphanumeric()).split('.');
        labels.next().is_some_and(|label| label.len() > 1)
            && labels.clone().count() >= 1
            && labels.all(|label| {
                label.len() > 1 && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '/')
            })
            && text.is_ascii()
    };
    has("://") || word.starts_with("www.") || (has("@") && has(".")) || domain(word)
}

/// Where a sentence ends, in the scripts that have a mark for it.
fn ends_sentence(character: char) -> bool {
    matches!(
        character,
        '.' | '!'
            | '?'
            | '…'
            | '。'
            | '！'
            | '？'
            | '．'
            | '।'
            | '॥'
            | '؟'
            | '۔'
            | '።'
            | '၊'
            | '။'
            | '។'
            | ';'
            | '；'
    )
}

/// Lines cut into sentences, sentences joined to parts of at least 40 letters within their line; lines with fewer than 20 stay out.
fn parts(prose: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for line in prose.lines().filter(|line| count_letters(line) >= MIN_LETTERS) {
        let first = parts.len();
        let mut part = String::new();
        for sentence in line.split_inclusive(ends_sentence) {
            part.push_str(sentence);
            if count_letters(&part) >= PART_LETTERS {
                parts.push(std::mem::take(&mut part));
            }
        }
        if count_letters(&part) >= MIN_LETTERS || (parts.len() == first && !part.is_empty()) {
            parts.push(part);
        } else if let Some(last) = parts.last_mut().filter(|_| !part.is_empty()) {
            last.push_str(&part);
        }
    }
    parts
}

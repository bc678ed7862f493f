//! What a text shows of its language: the script of its letters, and sequences of one to five letters within words.
//! Knows characters; deliberately knows no language and no weights.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use unicode_script::{Script, UnicodeScript};

/// Longest sequence of letters that is counted.
pub(super) const MAX_ORDER: usize = 5;

/// Share of kana among Han and kana from which a text is Japanese. Plain prose has well over a third, titles may have little.
const KANA_SHARE: f64 = 0.05;

/// Share of Hangul among Han and Hangul from which a text is Korean.
const HANGUL_SHARE: f64 = 0.2;

/// Text in the form in which it is compared (NFC); most text is in it already and is not copied.
pub fn composed(text: &str) -> Cow<'_, str> {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfc().collect()),
    }
}

/// Whether a character is part of a word: a letter, or a mark on one (vowel signs of Indic scripts are no letters to Unicode's
/// `Alphabetic`-free classes, so the standard library's `is_alphabetic` is taken together with combining marks).
pub fn is_letter(character: char) -> bool {
    character.is_alphabetic() || unicode_normalization::char::is_combining_mark(character)
}

/// How many letters a text has, marks included.
pub fn count_letters(text: &str) -> usize {
    text.chars().filter(|&character| is_letter(character)).count()
}

/// The writing system of most letters, and the share of letters in it, 0 to 1; `None` without letters. Japanese goes by Hiragana
/// where kana stand among Han characters, Korean by Hangul. A Han character counts as three letters and one of a syllabary or of
/// Hangul as two, since words are so much shorter in these.
pub fn writing(text: &str) -> Option<(Script, f64)> {
    let mut counts: Vec<(Script, u64)> = Vec::new();
    let mut add = |script: Script, weight: u64| match counts.iter_mut().find(|(known, _)| *known == script) {
        Some((_, count)) => *count += weight,
        None => counts.push((script, weight)),
    };
    for character in text.chars().filter(|character| character.is_alphabetic()) {
        match character {
            'a'..='z' | 'A'..='Z' => add(Script::Latin, 1),
            _ => match character.script() {
                Script::Common | Script::Inherited | Script::Unknown => {}
                Script::Han => add(Script::Han, 3),
                Script::Katakana | Script::Hiragana => add(Script::Hiragana, 2),
                Script::Hangul => add(Script::Hangul, 2),
                other => add(other, 1),
            },
        }
    }
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let of = |script: Script| counts.iter().find(|(known, _)| *known == script).map_or(0, |(_, count)| *count);
    let (han, kana, hangul) = (of(Script::Han), of(Script::Hiragana), of(Script::Hangul));
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let joined = if share(kana, han + kana) >= KANA_SHARE {
        Some((Script::Hiragana, han + kana))
    } else if share(hangul, han + hangul) >= HANGUL_SHARE {
        Some((Script::Hangul, han + hangul))
    } else {
        None
    };
    // The first of equals, in the order of the text.
    let mut best = joined;
    for &(script, count) in &counts {
        let part_of_joined = joined.is_some() && matches!(script, Script::Han | Script::Hiragana | Script::Hangul);
        if !part_of_joined && best.is_none_or(|(_, most)| count > most) {
            best = Some((script, count));
        }
    }
    best.map(|(script, count)| (script, share(count, total)))
}

/// Calls `seen` with the key and the order (1 to 5) of each sequence of letters, lower-cased, in a text in NFC. A word's ends count as
/// a letter, the space; a space alone is no sequence. The text's other characters end words.
pub(super) fn for_each_ngram(text: &str, mut seen: impl FnMut(u32, usize)) {
    // The last letters, newest first; zero where there is none.
    let mut window = [0u32; MAX_ORDER];
    let mut push = |letter: char, window: &mut [u32; MAX_ORDER], lone: bool| {
        window.rotate_right(1);
        window[0] = u32::from(letter);
        for order in (if lone { 2 } else { 1 })..=MAX_ORDER {
            if window[order - 1] == 0 {
                break;
            }
            seen(key(window, order), order);
        }
    };
    let mut in_word = false;
    for character in text.chars() {
        if !is_letter(character) {
            if in_word {
                push(' ', &mut window, true);
                in_word = false;
            }
            continue;
        }
        if !in_word {
            window = [0; MAX_ORDER];
            window[0] = u32::from(' ');
            in_word = true;
        }
        match character {
            'a'..='z' => push(character, &mut window, false),
            'A'..='Z' => push(character.to_ascii_lowercase(), &mut window, false),
            _ => character.to_lowercase().for_each(|lower| push(lower, &mut window, false)),
        }
    }
    if in_word {
        push(' ', &mut window, true);
    }
}

/// A key of 32 bits. Two of some hundred thousand sequences share one with a probability that no measurement would show.
fn key(window: &[u32; MAX_ORDER], order: usize) -> u32 {
    let letters = window.iter().take(order).fold(0u128, |packed, &letter| packed << 21 | u128::from(letter));
    let (low, high) = (letters as u64, (letters >> 64) as u64);
    let mixed = (low ^ high.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 32) as u32
}

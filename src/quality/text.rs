//! Texts as checks compare them: folded, cut into characters, sequences and tokens.
//! Knows Unicode; deliberately does not know what is compared or why.

use std::collections::HashSet;

use unicode_normalization::UnicodeNormalization;
use xxhash_rust::xxh3::xxh3_64;

/// Characters of a text in compatibility form (NFKC), in lower case, each run of other than letters and digits as one space.
pub(super) fn folded(text: &str) -> Vec<char> {
    let mut folded: Vec<char> = Vec::with_capacity(text.len());
    for character in text.nfkc().flat_map(char::to_lowercase) {
        let is_word = character.is_alphanumeric() || unicode_normalization::char::is_combining_mark(character);
        match (is_word, folded.last()) {
            (true, _) => folded.push(character),
            (false, Some(last)) if *last != ' ' => folded.push(' '),
            (false, _) => {}
        }
    }
    if folded.last() == Some(&' ') {
        folded.pop();
    }
    folded
}

/// Hash of some characters.
pub(super) fn hash(characters: &[char]) -> u64 {
    let mut bytes = Vec::with_capacity(4 * characters.len());
    characters.iter().for_each(|&character| bytes.extend(u32::from(character).to_le_bytes()));
    xxh3_64(&bytes)
}

/// Hashes of all sequences of `length` characters, or of the whole where it is shorter; none of an empty text.
pub(super) fn shingles(folded: &[char], length: usize) -> HashSet<u64> {
    if folded.len() <= length {
        return folded.first().map(|_| hash(folded)).into_iter().collect();
    }
    folded.windows(length).map(hash).collect()
}

/// Whether a text shows nothing: white space, control and format characters alone.
pub(super) fn shows_nothing(text: &str) -> bool {
    let invisible = |character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(character, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
    };
    text.chars().all(invisible)
}

//! chrF++: how much of a text's characters and words another one has (M. Popović 2017, "chrF++: words helping character n-grams", WMT).
//! Knows two texts; deliberately does not know languages, and folds nothing: what sacrebleu counts is counted here.
//!
//! As sacrebleu 2.6 has it by default with `word_order=2`: sequences of 1 to 6 characters without white space and of 1 and 2 words, matches
//! clipped, precision and recall averaged over the orders that both texts have ("effective order"), then F with beta 2. A word that
//! ends in ASCII punctuation, or else begins with it, is two words. Of many texts the counts are added before anything is divided.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::AddAssign;

const CHARACTER_ORDER: usize = 6;
const WORD_ORDER: usize = 2;
const NUM_ORDERS: usize = CHARACTER_ORDER + WORD_ORDER;
/// Recall counts for beta² times as much as precision.
const BETA: f64 = 2.0;

/// What a text and its reference have of each order; added up over texts they are a corpus'.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChrfCounts {
    /// For each order: sequences of the text, of the reference, of both.
    orders: [[u64; 3]; NUM_ORDERS],
}

impl ChrfCounts {
    /// Of one text and its reference.
    pub fn of(text: &str, reference: &str) -> Self {
        let mut counts = Self::default();
        let [own, other] = [text, reference].map(|text| text.chars().filter(|c| !is_space(*c)).collect::<Vec<char>>());
        let [own_words, other_words] = [text, reference].map(words);
        let (characters, of_words) = counts.orders.split_at_mut(CHARACTER_ORDER);
        for (length, order) in (1..).zip(characters) {
            *order = matches(&own, &other, length);
        }
        for (length, order) in (1..).zip(of_words) {
            *order = matches(&own_words, &other_words, length);
        }
        counts
    }

    /// The score, 0 to 100.
    pub fn score(&self) -> f64 {
        let both = self.orders.iter().filter(|[own, other, _]| *own > 0 && *other > 0);
        let (mut precision, mut recall, mut num_orders) = (0.0, 0.0, 0.0);
        for [own, other, common] in both {
            precision += *common as f64 / *own as f64;
            recall += *common as f64 / *other as f64;
            num_orders += 1.0;
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (precision, recall, factor) = (precision / num_orders, recall / num_orders, BETA * BETA);
        100.0 * (1.0 + factor) * precision * recall / (factor * precision + recall)
    }
}

impl AddAssign for ChrfCounts {
    fn add_assign(&mut self, more: Self) {
        let all = self.orders.iter_mut().flatten().zip(more.orders.iter().flatten());
        all.for_each(|(own, more)| *own += more);
    }
}

/// What Python's `str.split` takes for white space: Unicode's, and four separators of ASCII.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1C}'..='\u{1F}')
}

/// Words with the punctuation at their end, or else at their beginning, cut off.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        let mut characters = word.chars();
        let (first, last) = (characters.next().unwrap_or(' '), characters.next_back());
        match last {
            Some(last) if last.is_ascii_punctuation() => {
                let (front, end) = word.split_at(word.len() - last.len_utf8());
                words.extend([front, end]);
            }
            Some(_) if first.is_ascii_punctuation() => {
                let (front, end) = word.split_at(first.len_utf8());
                words.extend([front, end]);
            }
            _ => words.push(word),
        }
    }
    words
}

/// Sequences of one length: of the text, of the reference, of both. Of a reference that has none nothing counts.
fn matches<T: Hash + Eq>(own: &[T], other: &[T], length: usize) -> [u64; 3] {
    let number = |parts: &[T]| (parts.len() + 1).saturating_sub(length) as u64;
    let mut left: HashMap<&[T], u64> = HashMap::new();
    other.windows(length).for_each(|part| *left.entry(part).or_default() += 1);
    let mut common = 0;
    for part in own.windows(length) {
        if let Some(left) = left.get_mut(part).filter(|left| **left > 0) {
            *left -= 1;
            common += 1;
        }
    }
    [if number(other) > 0 { number(own) } else { 0 }, number(other), common]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_is_cut_off_once() {
        assert_eq!(words("(hi) \"a b, . ...\u{1F}c"), ["(hi", ")", "\"", "a", "b", ",", ".", "..", ".", "c"]);
        // Only ASCII's punctuation is cut off.
        assert_eq!(words("«да» ¿qué? 東京。"), ["«да»", "¿qué", "?", "東京。"]);
    }

    #[test]
    fn equal_texts_have_all_and_foreign_ones_nothing() {
        assert!((ChrfCounts::of("ሰላም ለዓለም", "ሰላም ለዓለም").score() - 100.0).abs() < 1e-9);
        assert_eq!(ChrfCounts::of("abc", "где").score(), 0.0);
        assert_eq!(ChrfCounts::of("", "где").score(), 0.0);
        assert_eq!(ChrfCounts::of("", "").score(), 0.0);
    }
}

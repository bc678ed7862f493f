//! Prompts that are nearly one another, and prompts or answers that stand in a held-out set.
//! Knows texts; deliberately does not know which of them is to go.
//!
//! Near-duplicates: sequences of 5 characters of the folded text (NFKC, lower case, without punctuation), 112 MinHash values in 16 bands
//! of 7 (two texts with a Jaccard similarity of 0.8 meet in a band with a probability of 98 %), each meeting checked against the true
//! similarity, at least 0.8.
//!
//! Contamination: 13 words in a row that a held-out text has too (as T. Brown et al. 2020, appendix C), or the same text where it is
//! shorter, from 20 characters on. Scripts that put no spaces between words have none to count, so their characters count as parts of one:
//! Han and kana as a half, Thai, Lao, Khmer and Burmese as a fifth, near the mean lengths of words there.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;
use unicode_script::{Script, UnicodeScript};

use super::text::{folded, hash, shingles};
use crate::data::language::is_unspaced;

const SHINGLE: usize = 5;
const BANDS: usize = 16;
const ROWS: usize = 7;
const SIMILAR: f64 = 0.8;
/// A word, in tenths.
const WORD: usize = 10;
/// Thirteen words.
const OVERLAP: usize = 13 * WORD;
const SHORTEST: usize = 20;
/// A band's bucket with more texts than this is compared with its first text alone: thousands of equal prompts stay linear.
const MAX_BUCKET: usize = 50;

/// For each text the index of the first text of its group; `None` for one that is like no other.
pub fn near_duplicates(texts: &[&str]) -> Vec<Option<usize>> {
    let sets: Vec<HashSet<u64>> = texts.par_iter().map(|text| shingles(&folded(text), SHINGLE)).collect();
    let signatures: Vec<[u64; BANDS]> = sets.par_iter().map(bands).collect();
    let mut parents: Vec<usize> = (0..texts.len()).collect();
    for band in 0..BANDS {
        let mut buckets: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (index, signature) in signatures.iter().enumerate().filter(|(index, _)| !sets[*index].is_empty()) {
            buckets.entry(signature[band]).or_default().push(index);
        }
        for members in buckets.values().filter(|members| members.len() > 1) {
            for (place, &index) in members.iter().enumerate() {
                let others = if members.len() > MAX_BUCKET { members.get(..1) } else { members.get(..place) };
                for &other in others.unwrap_or_default().iter().filter(|other| **other != index) {
                    if root(&mut parents, index) != root(&mut parents, other)
                        && jaccard(&sets[index], &sets[other]) >= SIMILAR
                    {
                        let (a, b) = (root(&mut parents, index), root(&mut parents, other));
                        parents[a.max(b)] = a.min(b);
                    }
                }
            }
        }
    }
    let roots: Vec<usize> = (0..texts.len()).map(|index| root(&mut parents, index)).collect();
    let mut sizes = vec![0u32; texts.len()];
    roots.iter().for_each(|&root| sizes[root] += 1);
    roots.into_iter().map(|root| (sizes[root] > 1).then_some(root)).collect()
}

fn root(parents: &mut [usize], mut index: usize) -> usize {
    while parents[index] != index {
        parents[index] = parents[parents[index]];
        index = parents[index];
    }
    index
}

/// A text's MinHash values, hashed band by band.
fn bands(set: &HashSet<u64>) -> [u64; BANDS] {
    let mut minima = [[u64::MAX; ROWS]; BANDS];
    for &shingle in set {
        for (number, minimum) in minima.iter_mut().flatten().enumerate() {
            // A permutation of 64 bits for each number (splitmix64).
            let mut mixed = shingle ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            *minimum = (*minimum).min(mixed ^ (mixed >> 31));
        }
    }
    minima
        .map(|band| band.iter().fold(0, |all, value| (all ^ value).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23)))
}

fn jaccard(a: &HashSet<u64>, b: &HashSet<u64>) -> f64 {
    let common = a.intersection(b).count();
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}

/// Texts that no row of a dataset may overlap with: a benchmark's prompts, a test split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldOutTexts {
    stretches: HashSet<u64>,
    whole: HashSet<u64>,
}

impl HeldOutTexts {
    /// Takes the texts in.
    pub fn new<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut held_out = Self::default();
        for text in texts {
            let folded = folded(text);
            let num_before = held_out.stretches.len();
            held_out.stretches.extend(stretches(&folded));
            if held_out.stretches.len() == num_before && folded.len() >= SHORTEST {
                held_out.whole.insert(hash(&folded));
            }
        }
        held_out
    }

    /// Whether a text overlaps with one of them.
    pub fn overlaps(&self, text: &str) -> bool {
        let folded = folded(text);
        self.whole.contains(&hash(&folded)) || stretches(&folded).any(|stretch| self.stretches.contains(&stretch))
    }
}

/// Hashes of all stretches of [`OVERLAP`] from the beginning of a word, or in scripts without spaces from any character. Where such a
/// stretch ends depends on where it begins alone, so that equal stretches of two texts have equal hashes.
fn stretches(folded: &[char]) -> impl Iterator<Item = u64> {
    let begins = |at: usize| {
        let character = folded[at];
        character != ' ' && (at == 0 || folded[at - 1] == ' ' || is_unspaced(character) || is_unspaced(folded[at - 1]))
    };
    let ends = |at: usize| folded.get(at + 1).is_none_or(|next| *next == ' ' || is_unspaced(*next));
    (0..folded.len()).filter(move |&at| begins(at)).filter_map(move |from| {
        let mut weight = 0;
        let to = (from..folded.len()).find(|&at| {
            let character = folded[at];
            weight += match () {
                () if is_unspaced(character) => weight_of(character),
                () if character != ' ' && ends(at) => WORD,
                () => 0,
            };
            weight >= OVERLAP
        })?;
        folded.get(from..=to).map(hash)
    })
}

/// What a character of a script without spaces is of a word.
fn weight_of(character: char) -> usize {
    match character.script() {
        Script::Han | Script::Hiragana | Script::Katakana => WORD / 2,
        _ => WORD / 5,
    }
}

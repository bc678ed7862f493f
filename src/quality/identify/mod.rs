//! Which language a text is in: its script first, then sequences of one to five letters against a profile.
//! Knows languages by code; deliberately does not know rows, prompts or what follows from a language.
//!
//! The score of a language is the sum over all sequences of ln(p / floor), in sixteenths (naive Bayes). p is the sequence's share among
//! those of its length in the language's training text; for one that was not seen it is the share of text that such ones make up, by
//! Good and Turing's estimate, spread over a number of sequences that is the same for all languages. So a language of which little text
//! is known expects more that is new. Sequences overlap and are not independent, so scores are far too sure of themselves; the
//! posterior divides them by [`TEMPERATURE`].

mod features;
mod profile;
mod train;

use std::sync::LazyLock;

use serde::Serialize;
use unicode_script::Script;

pub use self::features::{composed, count_letters, writing};
pub use self::profile::{Profile, ProfileError, ProfileHeader, ProfileLanguage, ProfileScript};
pub(in crate::quality) use self::train::also_written_in;
pub use self::train::{Labelled, Measured, MeasuredLanguage, cross_validate, hold_out, measure, train};

use self::features::{MAX_ORDER, for_each_ngram};

/// Scores are in sixteenths of a nat; a character has five sequences that say much the same, and neighbours are not independent. With
/// this divisor a posterior of 0.9 is right about nine times in ten on short texts, and too modest on long ones.
const TEMPERATURE: f64 = 16.0 * 8.0;

/// What was found in a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Identification {
    /// The likeliest language (ISO 639-3, see [`crate::data::language::broad_code`]); `None` without letters, or in a script that no
    /// language of the profile is written in.
    pub code: Option<String>,
    /// Its posterior among the languages of the script, 0 to 1.
    pub posterior: f64,
    /// The script of most letters, ISO 15924 (`Hira` for Japanese, `Hang` for Korean); `None` without letters.
    pub script: Option<&'static str>,
    /// Letters in the text.
    pub num_letters: usize,
}

/// A text's standing towards every language of a profile.
pub struct Scored<'p> {
    profile: &'p Profile,
    script: Option<Script>,
    num_letters: usize,
    /// Posterior by index of the profile; languages of other scripts have zero.
    posteriors: Vec<f64>,
    best: Option<usize>,
}

/// The profile in the program; `scripts/make_lid_corpus.py` says what it was made from.
pub fn default_profile() -> &'static Profile {
    static DEFAULT: LazyLock<Profile> = LazyLock::new(|| {
        // INFALLIBLE: the bytes are part of the program, and tests/quality reads them.
        Profile::decode(include_bytes!("default.lid"), "the profile in the program").expect("the program's own profile")
    });
    &DEFAULT
}

impl Profile {
    /// The likeliest language of a text.
    pub fn identify(&self, text: &str) -> Identification {
        self.score(text).identification()
    }

    /// Scores a text against all languages of its script.
    pub fn score(&self, text: &str) -> Scored<'_> {
        let text = composed(text);
        let script = writing(&text).map(|(script, _)| script);
        let languages = self.languages().len();
        let mut scored = Scored {
            profile: self,
            script,
            num_letters: count_letters(&text),
            posteriors: vec![0.0; languages],
            best: None,
        };
        let Some(script) = script else { return scored };
        let unseen = |index: usize| {
            let own = self.scripts[index].iter().find(|(own, _)| *own == script);
            own.map(|(_, unseen)| (index, *unseen))
        };
        let candidates: Vec<(usize, [u8; MAX_ORDER])> = (0..languages).filter_map(unseen).collect();
        match candidates.as_slice() {
            [] => {}
            [(only, _)] => scored.settle(*only),
            _ => {
                let mut sums = vec![0u64; languages];
                let mut seen = [0u64; MAX_ORDER];
                for_each_ngram(&text, |key, order| {
                    seen[order - 1] += 1;
                    for &(language, weight) in self.weights(key) {
                        sums[usize::from(language)] += u64::from(weight);
                    }
                });
                for (index, unseen) in &candidates {
                    sums[*index] +=
                        seen.iter().zip(unseen).map(|(number, weight)| number * u64::from(*weight)).sum::<u64>();
                }
                let candidates: Vec<usize> = candidates.iter().map(|(index, _)| *index).collect();
                scored.weigh(&candidates, &sums);
            }
        }
        scored
    }
}

impl Scored<'_> {
    fn settle(&mut self, only: usize) {
        self.posteriors[only] = 1.0;
        self.best = Some(only);
    }

    fn weigh(&mut self, candidates: &[usize], sums: &[u64]) {
        // The first of equals: a text none of whose sequences is known says nothing, and its posterior is low.
        let best = candidates.iter().copied().reduce(|best, next| if sums[next] > sums[best] { next } else { best });
        let Some(best) = best else { return };
        let weight = |index: usize| ((sums[index] as f64 - sums[best] as f64) / TEMPERATURE).exp();
        let total: f64 = candidates.iter().map(|&index| weight(index)).sum();
        for &index in candidates {
            self.posteriors[index] = weight(index) / total;
        }
        self.best = Some(best);
    }

    /// The posterior of a language; `None` if the profile does not have it.
    pub fn posterior(&self, code: &str) -> Option<f64> {
        self.profile.index(code).map(|index| self.posteriors[index])
    }

    /// The likeliest language.
    pub fn code(&self) -> Option<&str> {
        self.best.map(|index| self.profile.languages()[index].code.as_str())
    }

    /// Whether held-out texts of `expected` were often taken for the likeliest language.
    pub fn is_close_to(&self, expected: &str) -> bool {
        let close = self.profile.language(expected).map(|language| &language.close_to);
        close.zip(self.code()).is_some_and(|(close, code)| close.iter().any(|other| other == code))
    }

    /// The script of most letters.
    pub fn script(&self) -> Option<Script> {
        self.script
    }

    /// Letters in the text.
    pub fn num_letters(&self) -> usize {
        self.num_letters
    }

    /// The likeliest language and how sure that is.
    pub fn identification(&self) -> Identification {
        Identification {
            code: self.code().map(str::to_owned),
            posterior: self.best.map_or(0.0, |index| self.posteriors[index]),
            script: self.script.map(|script| script.short_name()),
            num_letters: self.num_letters,
        }
    }
}

//! Profiles from labelled texts, and how well a profile tells languages apart in texts that had no part in it.
//! Knows texts and labels; deliberately does not know files of rows or how figures are shown.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use serde::Serialize;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_script::Script;
use xxhash_rust::xxh3::xxh3_64;

use super::features::{MAX_ORDER, composed, count_letters, for_each_ngram, writing};
use super::profile::{MAX_LANGUAGES, Profile, ProfileHeader, ProfileLanguage, ProfileScript, Sequence};
use crate::quality::language::{LanguageVerdict, verdict_of};

/// Most sequences of each order that a language keeps, the most frequent ones, in a script of few languages.
const KEPT: [usize; MAX_ORDER] = [60, 400, 1_200, 1_500, 1_000];

/// The same where many languages share a script, and each of them is close to another one.
const KEPT_IN_CROWD: [usize; MAX_ORDER] = [60, 400, 1_500, 3_000, 4_500];

/// Languages from which a script is crowded.
const CROWD: usize = 10;

/// Over how many sequences of each length the share of the unseen ones is spread.
const UNSEEN: [f64; MAX_ORDER] = [60.0, 1_500.0, 8_000.0, 25_000.0, 50_000.0];

/// The part of an occurrence that a sequence gives to those that were not seen.
const DISCOUNT: f64 = 0.8;

/// The share that weighs nothing, by length: less than any unseen sequence has.
const FLOORS: [f64; MAX_ORDER] = [1e-6; MAX_ORDER];

/// Languages that are as often written without their marks of tone as with them: each text counts both ways.
const TONES_OPTIONAL: [&str; 2] = ["ibo", "yor"];

/// A language is close to another one if this share of its held-out texts was taken for it.
const CLOSE_SHARE: f64 = 0.005;

/// Sixteenths of a nat.
const WEIGHT_UNITS: f64 = 16.0;

/// A script belongs to a language if this share of its training texts is mostly in it: foreign names and quotations do not count.
const SCRIPT_SHARE: f64 = 0.04;

/// Held-out texts are measured if they have at least this many characters; shorter ones are not what a run is judged by.
const MIN_MEASURED_CHARACTERS: usize = 60;

/// A text and the language it is in, by [`crate::data::language::broad_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labelled<'a> {
    /// The language's code.
    pub code: &'a str,
    /// The text.
    pub text: &'a str,
}

/// How one language fared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MeasuredLanguage {
    /// Texts of at least 60 characters.
    pub num_texts: u64,
    /// Texts whose likeliest language was the right one.
    pub num_correct: u64,
    /// Texts that would be called wrong though they are right, were no language close, by what they were taken for.
    pub vetoed_for: BTreeMap<String, u64>,
    /// Texts taken for another language, by that language (`?`: none).
    pub taken_for: BTreeMap<String, u64>,
}

impl MeasuredLanguage {
    /// Texts that would be called wrong though they are right: those taken for a close language are not.
    pub fn num_wrong_vetoes(&self) -> u64 {
        let close = self.close_to();
        self.vetoed_for.iter().filter(|(code, _)| !close.contains(code)).map(|(_, number)| number).sum()
    }

    /// Texts that were taken for a close language.
    pub fn num_close(&self) -> u64 {
        self.close_to().iter().filter_map(|code| self.taken_for.get(code)).sum()
    }

    /// Languages that 0.5 % of the texts, and two at least, were taken for.
    pub fn close_to(&self) -> Vec<String> {
        let often = |number: u64| number >= 2 && number as f64 >= CLOSE_SHARE * self.num_texts as f64;
        self.taken_for
            .iter()
            .filter(|(code, number)| *code != "?" && often(**number))
            .map(|(code, _)| code.clone())
            .collect()
    }
}

/// How a profile fared, by language.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// Languages that had texts, by code.
    pub languages: BTreeMap<String, MeasuredLanguage>,
}

impl Measured {
    /// Mean over the languages of the share of texts recognised; `None` without texts.
    pub fn macro_accuracy(&self) -> Option<f64> {
        let shares = self.languages.values().map(|language| language.num_correct as f64 / language.num_texts as f64);
        (!self.languages.is_empty()).then(|| shares.sum::<f64>() / self.languages.len() as f64)
    }

    /// Adds what was found in other texts.
    pub fn add(&mut self, other: Self) {
        for (code, found) in other.languages {
            let own = self.languages.entry(code).or_default();
            own.num_texts += found.num_texts;
            own.num_correct += found.num_correct;
            found.vetoed_for.into_iter().for_each(|(code, number)| *own.vetoed_for.entry(code).or_default() += number);
            found.taken_for.into_iter().for_each(|(code, number)| *own.taken_for.entry(code).or_default() += number);
        }
    }
}

/// Counts of one language in one script.
#[derive(Default)]
struct Counts {
    num_texts: u64,
    num_letters: u64,
    ngrams: [HashMap<u32, u32>; MAX_ORDER],
}

/// Makes a profile of all texts; languages without letters stay out. `measured` goes into the header, with `held_out`, how it came about.
/// The same texts give the same profile, in whatever order they come.
pub fn train(texts: &[Labelled<'_>], sources: Vec<(String, String)>, measured: &Measured, held_out: &str) -> Profile {
    let mut by_code: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    texts.iter().for_each(|labelled| by_code.entry(labelled.code).or_default().push(labelled.text));
    let counted: Vec<_> = by_code.into_par_iter().map(|(code, texts)| (code, count(code, &texts))).collect();
    let mut num_languages: BTreeMap<&str, usize> = BTreeMap::new();
    for script in counted.iter().flat_map(|(_, scripts)| scripts.keys()) {
        *num_languages.entry(script).or_default() += 1;
    }
    let mut languages = Vec::new();
    let mut weights: BTreeMap<u32, Vec<(u8, u8)>> = BTreeMap::new();
    for (code, scripts) in counted.iter().filter(|(_, scripts)| !scripts.is_empty()).take(MAX_LANGUAGES) {
        let found = measured.languages.get(*code).cloned().unwrap_or_default();
        let index = languages.len() as u8;
        let mut language = ProfileLanguage {
            code: (*code).to_owned(),
            scripts: Vec::new(),
            num_letters: scripts.values().map(|counts| counts.num_letters).sum(),
            num_held_out: found.num_texts,
            num_correct: found.num_correct,
            num_close: found.num_close(),
            num_wrong_vetoes: found.num_wrong_vetoes(),
            close_to: found.close_to(),
        };
        for (name, counts) in scripts {
            let (unseen, heavy) = weigh(counts, most_kept(num_languages.get(name).copied().unwrap_or_default()));
            language.scripts.push(ProfileScript { name: (*name).to_owned(), unseen });
            for (key, weight) in heavy {
                let entries = weights.entry(key).or_default();
                // Two sequences of one language with one key: the heavier one counts.
                match entries.last_mut().filter(|(language, _)| *language == index) {
                    Some((_, known)) => *known = weight.max(*known),
                    None => entries.push((index, weight)),
                }
            }
        }
        languages.push(language);
    }
    let sequences: Vec<Sequence> = weights.into_iter().collect();
    Profile::new(ProfileHeader { sources, held_out: held_out.to_owned(), languages }, &sequences)
}

/// Counts by script. A script is a language's own if enough of its texts are mostly in it; others are left out.
fn count(code: &str, texts: &[&str]) -> BTreeMap<&'static str, Counts> {
    let mut scripts: BTreeMap<&'static str, Counts> = BTreeMap::new();
    for text in texts {
        let text = composed(text);
        let Some((script, _)) = writing(&text) else { continue };
        let counts = scripts.entry(script.short_name()).or_default();
        counts.num_texts += 1;
        counts.num_letters += count_letters(&text) as u64;
        let mut add =
            |text: &str| for_each_ngram(text, |key, order| *counts.ngrams[order - 1].entry(key).or_default() += 1);
        add(&text);
        if TONES_OPTIONAL.contains(&code) {
            let plain: String = text.nfd().filter(|&character| !is_combining_mark(character)).collect();
            add(&plain);
        }
    }
    let (most, all) =
        scripts.values().fold((0, 0), |(most, all), counts| (counts.num_texts.max(most), counts.num_texts + all));
    scripts.retain(|_, counts| counts.num_texts == most || counts.num_texts as f64 >= SCRIPT_SHARE * all as f64);
    scripts
}

/// Most sequences that a language keeps in a script of so many languages: none where it is alone, since the script says all.
fn most_kept(num_languages: usize) -> [usize; MAX_ORDER] {
    match num_languages {
        ..2 => [0; MAX_ORDER],
        2..CROWD => KEPT,
        _ => KEPT_IN_CROWD,
    }
}

/// Weights of what was not seen, and of the most frequent sequences of each length beyond that.
fn weigh(counts: &Counts, most: [usize; MAX_ORDER]) -> ([u8; MAX_ORDER], Vec<(u32, u8)>) {
    let in_units = |share: f64, order: usize| (WEIGHT_UNITS * (share / FLOORS[order]).ln()).round().clamp(0.0, 255.0);
    let mut unseen = [0; MAX_ORDER];
    let mut heavy = Vec::new();
    for (order, ngrams) in counts.ngrams.iter().enumerate() {
        let total: f64 = ngrams.values().map(|&number| f64::from(number)).sum();
        let mut ranked: Vec<(u32, u32)> = ngrams.iter().map(|(&key, &number)| (number, key)).collect();
        ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        ranked.truncate(most[order]);
        // Each kept sequence gives a part of one occurrence to what is new (absolute discounting); what is not kept is new, too.
        let kept: f64 = ranked.iter().map(|(number, _)| f64::from(*number) - DISCOUNT).sum();
        let new = ((total - kept) / total.max(1.0)).max(0.5 / total.max(1.0));
        let base = in_units(new / UNSEEN[order], order);
        unseen[order] = base as u8;
        for (number, key) in ranked {
            let weight = in_units((f64::from(number) - DISCOUNT) / total, order) - base;
            if weight >= 1.0 {
                heavy.push((key, weight as u8));
            }
        }
    }
    (unseen, heavy)
}

/// Whether a text is held out, with a probability of `share`: by its own hash, so that the same text always is.
pub fn hold_out(text: &str, share: f64) -> bool {
    ((xxh3_64(text.as_bytes()) >> 11) as f64) < share * (1u64 << 53) as f64
}

/// What a profile makes of texts of at least 60 characters whose language it has, in a script in which it has it.
pub fn measure(profile: &Profile, texts: &[Labelled<'_>]) -> Measured {
    let long = |labelled: &&Labelled<'_>| {
        let script = writing(labelled.text).map(|(script, _)| script.short_name());
        let known = |language: &ProfileLanguage| language.scripts.iter().any(|own| Some(own.name.as_str()) == script);
        labelled.text.chars().count() >= MIN_MEASURED_CHARACTERS && profile.language(labelled.code).is_some_and(known)
    };
    let texts: Vec<&Labelled<'_>> = texts.iter().filter(long).collect();
    let one = |labelled: &&Labelled<'_>| {
        let found = profile.identify(labelled.text).code.unwrap_or_else(|| "?".to_owned());
        (found, verdict_of(profile, labelled.text, labelled.code) == LanguageVerdict::Wrong)
    };
    let found: Vec<(String, bool)> = texts.par_iter().map(one).collect();
    let mut measured = Measured::default();
    for (Labelled { code, .. }, (found, vetoed)) in texts.into_iter().zip(found) {
        let language = measured.languages.entry((*code).to_owned()).or_default();
        language.num_texts += 1;
        if vetoed {
            *language.vetoed_for.entry(found.clone()).or_default() += 1;
        }
        match found == *code {
            true => language.num_correct += 1,
            false => *language.taken_for.entry(found).or_default() += 1,
        }
    }
    measured
}

/// Holds out each table in turn: a profile of all others is measured on it. So every text is judged by texts of other origin alone; a
/// language that stands in one table only is not measured.
pub fn cross_validate(tables: &[Vec<Labelled<'_>>]) -> Measured {
    let mut measured = Measured::default();
    for (index, table) in tables.iter().enumerate() {
        let others: Vec<Labelled<'_>> = tables
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .flat_map(|(_, texts)| texts.iter().copied())
            .collect();
        measured.add(measure(&train(&others, Vec::new(), &Measured::default(), ""), table));
    }
    measured
}

/// The scripts that a profile does not list though texts of the language may be in them: such a text is never called wrong by its script.
pub(in crate::quality) fn also_written_in(code: &str, script: Script) -> bool {
    match code {
        "kur" => matches!(script, Script::Latin | Script::Arabic | Script::Cyrillic),
        "hbs" | "mon" | "tgk" => matches!(script, Script::Latin | Script::Cyrillic | Script::Mongolian),
        "pan" => matches!(script, Script::Gurmukhi | Script::Arabic),
        "snd" => matches!(script, Script::Arabic | Script::Devanagari),
        "aze" | "uzb" | "kaz" | "kir" => matches!(script, Script::Latin | Script::Cyrillic | Script::Arabic),
        "hau" | "swa" | "msa" | "wol" | "som" | "ful" => matches!(script, Script::Latin | Script::Arabic),
        "jav" | "sun" => matches!(script, Script::Latin | Script::Arabic | Script::Javanese | Script::Sundanese),
        "jpn" | "zho" => matches!(script, Script::Han | Script::Hiragana | Script::Bopomofo),
        "kor" => matches!(script, Script::Hangul | Script::Han),
        _ => false,
    }
}

//! A profile: per language its scripts, how well it was told apart in text that had no part in it, and weights of letter sequences; as
//! a file that is checked before it is believed. Knows bytes and bounds; deliberately does not know how weights come about.
//!
//! Layout, all numbers little-endian: `PWLID` and the version, two digits, `\n`; length of the header, u32; the header, JSON; number of sequences,
//! u32; for each sequence, by ascending key, the distance from the key before (LEB128, at least 1 but for the first), the number of its
//! languages (one byte, at least 1) and for each, ascending, language (one byte) and weight (one byte, at least 1); XXH3-64 of all before.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use unicode_script::Script;

use super::features::MAX_ORDER;
use xxhash_rust::xxh3::xxh3_64;

/// The first bytes of a profile of the version that this program reads.
const MAGIC: &[u8; 8] = b"PWLID02\n";

/// Larger files are no profiles.
const MAX_BYTES: u64 = 64 << 20;

/// Most languages of a profile.
pub(super) const MAX_LANGUAGES: usize = 250;

/// A language needs at least this many held-out texts before it can be validated. With 80 and no error, the rate of errors is below 4 %
/// with a confidence of 95 %.
const MIN_HELD_OUT: u64 = 80;

/// Largest share of held-out texts that may be called wrong in a validated language.
const MAX_WRONG_VETOES: f64 = 0.01;

/// Smallest share of held-out texts that must be recognised in a validated language.
const MIN_ACCURACY: f64 = 0.9;

/// What a profile knows of a language besides its weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileLanguage {
    /// ISO 639-3, macro-languages under their common code; see [`crate::data::language::broad_code`].
    pub code: String,
    /// Writing systems of the training text.
    pub scripts: Vec<ProfileScript>,
    /// Letters of training text.
    pub num_letters: u64,
    /// Held-out texts that were looked at.
    pub num_held_out: u64,
    /// Held-out texts that were recognised.
    pub num_correct: u64,
    /// Held-out texts that were taken for a language of `close_to`.
    pub num_close: u64,
    /// Held-out texts, in this language, that would have been called wrong.
    pub num_wrong_vetoes: u64,
    /// Languages that held-out texts of this one were often taken for, by code: a text that looks like one of these is never called wrong.
    pub close_to: Vec<String>,
}

/// A language in one script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileScript {
    /// ISO 15924; `Hira` for Japanese, `Hang` for Korean.
    pub name: String,
    /// The weight of a sequence that the language has no entry for, by the sequence's length: the smaller the training text, the larger.
    pub unseen: [u8; MAX_ORDER],
}

impl ProfileLanguage {
    /// Whether a text may be called wrong where this language is expected: at least 80 held-out texts, 90 % of them taken for it
    /// or for a language that is close, and at most 1 % called wrong. Between close languages nothing is ever called wrong.
    pub fn is_validated(&self) -> bool {
        let held_out = self.num_held_out as f64;
        self.num_held_out >= MIN_HELD_OUT
            && self.num_wrong_vetoes as f64 <= MAX_WRONG_VETOES * held_out
            && (self.num_correct + self.num_close) as f64 >= MIN_ACCURACY * held_out
    }
}

/// The JSON part of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileHeader {
    /// What it was trained on: a name and a SHA-256 for each table.
    pub sources: Vec<(String, String)>,
    /// How the held-out texts were chosen, in words.
    pub held_out: String,
    /// By code, ascending.
    pub languages: Vec<ProfileLanguage>,
}

/// Weights of letter sequences by language.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    pub(super) header: ProfileHeader,
    /// Scripts of each language, parsed, with the weights of unseen sequences.
    pub(super) scripts: Vec<Vec<(Script, [u8; MAX_ORDER])>>,
    table: Table,
}

/// Sequences by key, in open addressing; each has a run of entries.
#[derive(Debug, Clone, PartialEq)]
struct Table {
    /// Key, start and end in `entries`; an empty run is a free place.
    slots: Vec<(u32, u32, u32)>,
    /// Language and weight.
    entries: Vec<(u8, u8)>,
    /// Places minus one; their number is a power of two.
    mask: usize,
}

/// One letter sequence: its key, and languages and weights, ascending by language.
pub(super) type Sequence = (u32, Vec<(u8, u8)>);

/// A profile that cannot be used.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// The file could not be read or written.
    #[error("cannot read or write the profile {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The bytes are no profile of this version.
    #[error(
        "{name} is no language profile that this version reads: {what}, expected {expected}\n\
         hint: make one with `pairwright lid train PROMPTS -o FILE`, or leave --profile out for the one in the program"
    )]
    Damaged {
        /// The file, or what stands for it.
        name: String,
        /// What was found.
        what: String,
        /// What should have been there.
        expected: &'static str,
    },
}

impl Profile {
    /// Puts a profile together. The sequences are by ascending key.
    pub(super) fn new(header: ProfileHeader, sequences: &[Sequence]) -> Self {
        let scripts = header
            .languages
            .iter()
            .map(|language| {
                let parsed = |script: &ProfileScript| Some((Script::from_short_name(&script.name)?, script.unseen));
                language.scripts.iter().filter_map(parsed).collect()
            })
            .collect();
        Self { header, scripts, table: Table::new(sequences) }
    }

    /// The languages, by code.
    pub fn languages(&self) -> &[ProfileLanguage] {
        &self.header.languages
    }

    /// The language with this code.
    pub fn language(&self, code: &str) -> Option<&ProfileLanguage> {
        self.index(code).and_then(|index| self.header.languages.get(index))
    }

    /// Where the profile comes from and how it was measured.
    pub fn header(&self) -> &ProfileHeader {
        &self.header
    }

    pub(super) fn index(&self, code: &str) -> Option<usize> {
        self.header.languages.binary_search_by(|language| language.code.as_str().cmp(code)).ok()
    }

    /// Languages and weights of a letter sequence; none if no language has it.
    pub(super) fn weights(&self, key: u32) -> &[(u8, u8)] {
        self.table.get(key)
    }

    /// Reads a profile from a file.
    ///
    /// # Errors
    /// [`ProfileError`]: the file cannot be read, or is no profile.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let io = |source| ProfileError::Io { path: path.to_path_buf(), source };
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > MAX_BYTES {
            let what = format!("{size} bytes");
            return Err(ProfileError::Damaged { name: path.display().to_string(), what, expected: "64 MiB at most" });
        }
        Self::decode(&std::fs::read(path).map_err(io)?, &path.display().to_string())
    }

    /// The bytes of the file; the same profile gives the same.
    pub fn encode(&self) -> Vec<u8> {
        // INFALLIBLE: numbers, strings and lists of them.
        let header = serde_json::to_vec(&self.header).expect("a header is plain data");
        let sequences = self.table.sequences();
        let mut bytes = MAGIC.to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header);
        bytes.extend((sequences.len() as u32).to_le_bytes());
        let mut before = 0;
        for (key, entries) in &sequences {
            let mut rest = key - before;
            before = *key;
            while rest >= 0x80 {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
            bytes.push(entries.len() as u8);
            bytes.extend(entries.iter().flat_map(|&(language, weight)| [language, weight]));
        }
        let sum = xxh3_64(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    /// Reads the bytes of a profile; `name` stands for them in errors. Every count is held against what is there before it is used.
    ///
    /// # Errors
    /// [`ProfileError::Damaged`].
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self, ProfileError> {
        let damaged = |what: String, expected| ProfileError::Damaged { name: name.to_owned(), what, expected };
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| damaged("its first bytes are others".to_owned(), "`PWLID02`, the profile's version"))?;
        let (body, sum) = bytes
            .split_last_chunk::<8>()
            .filter(|(body, _)| body.len() >= MAGIC.len() + 8)
            .ok_or_else(|| damaged(format!("{} bytes", bytes.len()), "a header, sequences and a checksum"))?;
        let (got, noted) = (xxh3_64(body), u64::from_le_bytes(*sum));
        if got != noted {
            return Err(damaged(format!("a checksum of {got:016x}"), "the one that it ends with"));
        }
        let mut reader = Reader(rest.get(..rest.len() - 8).unwrap_or_default());
        let header = reader.header().map_err(|(what, expected)| damaged(what, expected))?;
        let sequences = reader.sequences(header.languages.len()).map_err(|(what, expected)| damaged(what, expected))?;
        Ok(Self::new(header, &sequences))
    }
}

/// What is wrong, and what should have been there.
type Flaw = (String, &'static str);

/// The bytes that have not been read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, expected: &'static str) -> Result<&'a [u8], Flaw> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| (format!("{} bytes where {count} are announced", self.0.len()), expected))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Flaw> {
        self.take(1, "another byte").map(|bytes| bytes.first().copied().unwrap_or_default())
    }

    fn count(&mut self) -> Result<usize, Flaw> {
        let bytes = self.take(4, "a count")?;
        let mut number = [0; 4];
        number.copy_from_slice(bytes);
        Ok(u32::from_le_bytes(number) as usize)
    }

    fn header(&mut self) -> Result<ProfileHeader, Flaw> {
        let length = self.count()?;
        let bytes = self.take(length, "a header of the announced length")?;
        let header: ProfileHeader = serde_json::from_slice(bytes)
            .map_err(|error| (format!("a header with an error ({error})"), "the header's JSON"))?;
        let languages = &header.languages;
        if languages.is_empty() || languages.len() > MAX_LANGUAGES {
            return Err((format!("{} languages", languages.len()), "1 to 250 languages"));
        }
        if !languages.is_sorted_by(|a, b| a.code < b.code) {
            return Err(("languages out of order".to_owned(), "each language once, by code"));
        }
        for language in languages {
            let known = language.scripts.iter().all(|script| Script::from_short_name(&script.name).is_some());
            let seen = language.num_correct.checked_add(language.num_close);
            let counts = seen.is_some_and(|seen| seen <= language.num_held_out)
                && language.num_wrong_vetoes <= language.num_held_out;
            if language.scripts.is_empty() || !known || !counts {
                return Err((
                    format!("an impossible entry for `{}`", language.code),
                    "known scripts and counts that add up",
                ));
            }
        }
        Ok(header)
    }

    fn sequences(&mut self, num_languages: usize) -> Result<Vec<Sequence>, Flaw> {
        const SMALLEST: usize = 4;
        let count = self.count()?;
        if count > self.0.len() / SMALLEST {
            return Err((format!("{count} sequences in {} bytes", self.0.len()), "at least four bytes a sequence"));
        }
        let mut sequences: Vec<Sequence> = Vec::with_capacity(count);
        for _ in 0..count {
            let distance = self.distance()?;
            let key = match sequences.last() {
                None => Some(distance),
                Some((before, _)) => before.checked_add(distance).filter(|_| distance > 0),
            };
            let key = key.ok_or_else(|| ("keys out of order".to_owned(), "ascending keys of 32 bits"))?;
            let num_entries = usize::from(self.byte()?);
            let bytes = self.take(2 * num_entries, "a language and a weight for each entry")?;
            let entries: Vec<(u8, u8)> =
                bytes.as_chunks::<2>().0.iter().map(|&[language, weight]| (language, weight)).collect();
            let in_order = entries.is_sorted_by(|a, b| a.0 < b.0);
            let in_bounds =
                entries.iter().all(|&(language, weight)| usize::from(language) < num_languages && weight > 0);
            if entries.is_empty() || !in_order || !in_bounds {
                return Err(("an impossible entry".to_owned(), "languages of the header, ascending, with weights"));
            }
            sequences.push((key, entries));
        }
        match self.0 {
            [] => Ok(sequences),
            rest => Err((format!("{} bytes behind the last sequence", rest.len()), "none")),
        }
    }

    fn distance(&mut self) -> Result<u32, Flaw> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| (format!("a key of {value}"), "keys of 32 bits"));
            }
        }
        Err(("a number without an end".to_owned(), "at most five bytes"))
    }
}

impl Table {
    fn new(sequences: &[Sequence]) -> Self {
        let num_slots = (2 * sequences.len()).next_power_of_two().max(2);
        let mask = num_slots - 1;
        let mut table = Self { slots: vec![(0, 0, 0); num_slots], entries: Vec::new(), mask };
        for (key, entries) in sequences {
            let start = table.entries.len() as u32;
            table.entries.extend(entries);
            let mut at = *key as usize & mask;
            while table.slots[at].1 < table.slots[at].2 {
                at = (at + 1) & mask;
            }
            table.slots[at] = (*key, start, table.entries.len() as u32);
        }
        table
    }

    fn get(&self, key: u32) -> &[(u8, u8)] {
        let mut at = key as usize & self.mask;
        loop {
            let (found, start, end) = self.slots[at];
            if start == end {
                return &[];
            }
            if found == key {
                return self.entries.get(start as usize..end as usize).unwrap_or_default();
            }
            at = (at + 1) & self.mask;
        }
    }

    fn sequences(&self) -> Vec<Sequence> {
        let taken = self.slots.iter().filter(|(_, start, end)| start < end);
        let entries =
            |start: u32, end: u32| self.entries.get(start as usize..end as usize).unwrap_or_default().to_vec();
        let mut sequences: Vec<Sequence> = taken.map(|&(key, start, end)| (key, entries(start, end))).collect();
        sequences.sort_unstable_by_key(|(key, _)| *key);
        sequences
    }
}

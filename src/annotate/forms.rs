//! Forms as browsers send them: fields by name, and what they say of an item. Knows fields and choices; knows nothing of who sends them.

use std::collections::HashMap;

use crate::annotate::room::Said;
use crate::annotate::vote::{Choice, Flag};

/// The fields of a form; of a name that comes twice the last counts, and [`Fields::all`] has both.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    last: HashMap<String, String>,
    all: Vec<(String, String)>,
}

impl From<Vec<(String, String)>> for Fields {
    fn from(all: Vec<(String, String)>) -> Self {
        Self { last: all.iter().cloned().collect(), all }
    }
}

impl Fields {
    /// A field; empty if it is missing.
    pub fn get(&self, name: &str) -> &str {
        self.last.get(name).map_or("", String::as_str)
    }

    /// All fields of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Every field.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What the form says of answers with these hashes, in the order shown; `None` if nothing that could be said.
    pub fn said(&self, shown: &[String]) -> Option<Said> {
        let answer = |index: &str| shown.get(index.parse::<usize>().ok()?).cloned();
        let (choice, index) = match self.get("choice").split_once('-') {
            Some((choice, index)) => (choice, index),
            None => (self.get("choice"), ""),
        };
        let choice = match choice {
            "better" => Choice::Better { answer: answer(index)? },
            "same" => Choice::Same,
            "both_bad" => Choice::BothBad,
            "skip" => Choice::Skip,
            "flag" => Choice::Flag {
                flag: Flag::ALL.into_iter().find(|flag| flag.as_str() == self.get("flag"))?,
                answer: answer(self.get("where")),
                note: self.text("note").trim().to_owned(),
            },
            "edit" => Choice::Edit { answer: answer(index)?, text: self.text("text") },
            "ranking" => Choice::Ranking { groups: self.groups(shown)? },
            _ => return None,
        };
        let rating = |index: usize| self.get(&format!("rating-{index}")).parse::<u8>().ok();
        let ratings: Vec<Option<u8>> = (0..shown.len()).map(rating).collect();
        let ratings = if ratings.iter().all(Option::is_none) { Vec::new() } else { ratings };
        Some(Said { choice, ratings })
    }

    /// Browsers send the lines of a field apart by CR LF, whatever they were.
    fn text(&self, name: &str) -> String {
        self.get(name).replace("\r\n", "\n")
    }

    /// Answers by the places they were given, those with one place together.
    fn groups(&self, shown: &[String]) -> Option<Vec<Vec<String>>> {
        let mut placed: Vec<(usize, &String)> = Vec::new();
        for (index, hash) in shown.iter().enumerate() {
            placed.push((self.get(&format!("rank-{index}")).parse().ok()?, hash));
        }
        placed.sort_by_key(|(place, _)| *place);
        let groups = placed.chunk_by(|a, b| a.0 == b.0);
        Some(groups.map(|group| group.iter().map(|(_, hash)| (*hash).clone()).collect()).collect())
    }
}

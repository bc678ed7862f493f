//! A share of a run's rows, for work on several devices or machines: which rows belong to it, and its folder's name.
//! Knows ids and numbers; nothing of what a row is, of runs, or of who does the share.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Share `index` of `count`, written `3/16`. Counts from 0, as ranks, array tasks and the numbers in file names do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    index: u32,
    count: u32,
}

/// Most shares that a run can have: five digits stand in a folder's name.
pub const MAX_SHARDS: u32 = 99_999;

impl Shard {
    /// `None` unless `index < count <= MAX_SHARDS`.
    pub fn new(index: u32, count: u32) -> Option<Self> {
        (index < count && count <= MAX_SHARDS).then_some(Self { index, count })
    }

    /// Which, from 0.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Of how many.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether the row with this id is one of its own: XXH3-64 of the id's bytes, modulo the number of shards. A row's place in
    /// its file does not count, so neither order nor other rows move it.
    pub fn owns(self, id: &str) -> bool {
        Self::of_row(id, self.count) == self
    }

    /// The one of `count` shards that the row with this id belongs to; `count` is above 0.
    pub fn of_row(id: &str, count: u32) -> Self {
        let index = (xxh3_64(id.as_bytes()) % u64::from(count)) as u32;
        Self { index, count }
    }

    /// All shards beside it, itself included.
    pub fn all(self) -> impl Iterator<Item = Self> {
        (0..self.count).map(move |index| Self { index, count: self.count })
    }

    /// `shard-00003-of-00016`.
    pub fn folder_name(self) -> String {
        format!("shard-{:05}-of-{:05}", self.index, self.count)
    }

    /// The shard whose folder, by its name, this is.
    pub fn of_folder(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (index, count) = name.strip_prefix("shard-")?.split_once("-of-")?;
        let shard = Self::new(index.parse().ok()?, count.parse().ok()?)?;
        (shard.folder_name() == name).then_some(shard)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u32>().ok(),
            false => None,
        };
        let numbers = text.split_once('/').and_then(|(index, count)| Some((number(index)?, number(count)?)));
        let (index, count) = numbers.ok_or("want a shard and their number, such as 0/4")?;
        match count {
            1..=MAX_SHARDS => Self::new(index, count)
                .ok_or_else(|| format!("shards count from 0: of {count} they are 0/{count} to {}/{count}", count - 1)),
            _ => Err(format!("want 1 to {MAX_SHARDS} shards")),
        }
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id of a prompt, as `data` makes it.
    fn id(prompt: &str) -> String {
        crate::provenance::sha256_hex(prompt.as_bytes())
    }

    #[test]
    fn a_row_stays_in_its_shard_for_ever() {
        // Written down once: whoever changes the assignment breaks every run that is under way.
        let found = ["", "a", "Hoeveel dagen heeft een week?", "日本の首都はどこですか。"]
            .map(|prompt| [2, 3, 16, 1000].map(|count| Shard::of_row(&id(prompt), count).index()));
        // By Python: `xxhash.xxh3_64_intdigest(hashlib.sha256(prompt).hexdigest()) % count`.
        assert_eq!(found, [[1, 2, 5, 101], [0, 2, 2, 378], [0, 1, 8, 528], [1, 2, 3, 771]]);
    }

    #[test]
    fn every_row_has_one_shard_and_shards_are_alike() {
        let ids: Vec<String> = (0..16_000).map(|n| id(&format!("prompt {n}"))).collect();
        for count in [1, 2, 3, 7, 16, 64] {
            let mut sizes = vec![0u32; count as usize];
            for id in &ids {
                let owners: Vec<Shard> = Shard::new(0, count).unwrap().all().filter(|shard| shard.owns(id)).collect();
                assert_eq!(owners, [Shard::of_row(id, count)]);
                sizes[owners[0].index() as usize] += 1;
            }
            // Five standard deviations of a binomial share.
            let mean = ids.len() as f64 / f64::from(count);
            let most = 5.0 * (mean * (1.0 - 1.0 / f64::from(count))).sqrt();
            assert!(sizes.iter().all(|&size| (f64::from(size) - mean).abs() <= most), "{count}: {sizes:?}");
        }
    }

    #[test]
    fn shards_are_read_as_they_are_written() {
        let shard: Shard = "3/16".parse().unwrap();
        assert_eq!((shard.index(), shard.count(), shard.to_string()), (3, 16, "3/16".to_owned()));
        assert_eq!(shard.folder_name(), "shard-00003-of-00016");
        assert_eq!(Shard::of_folder(Path::new("runs/nl/shard-00003-of-00016")), Some(shard));
        assert_eq!(serde_json::to_string(&shard).unwrap(), "\"3/16\"");
        assert_eq!(serde_json::from_str::<Shard>("\"3/16\"").unwrap(), shard);
        for wrong in ["", "3", "16/16", "-1/4", "+1/4", "1/0", "1/100000", "1/2/3", " 1/2", "a/b", "0/4294967296"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        for wrong in ["shard-3-of-16", "shard-00016-of-00016", "shard-00003-of-00016.bak", "dataset"] {
            assert_eq!(Shard::of_folder(Path::new(wrong)), None, "{wrong}");
        }
        assert!("99998/99999".parse::<Shard>().is_ok());
    }
}

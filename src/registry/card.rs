//! Graphics cards as their makers describe them: what a plan computes speeds and room from.
//! Knows stated numbers and where they were read; it opens no device and does not know which card is here.

use serde::{Deserialize, Serialize};

use super::{NUM_SUGGESTIONS, Registry, RegistryError, Source};
use crate::data::nearest::nearest;

/// A card. Field by field explained at the head of `models.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Unique.
    pub name: String,
    /// Gigabytes of 10⁹ bytes, as stated: cards show a little more.
    pub memory_gb: u64,
    /// Of memory, in 10⁹ bytes a second.
    pub bandwidth_gb_s: f64,
    /// 10¹² operations a second of dense products in bf16, summed in f32; without sparsity.
    pub bf16_tflops: f64,
    /// The same in fp8, where the card has it.
    pub fp8_tflops: Option<f64>,
    /// Most power that the board draws.
    pub watts: f64,
    /// For the reader.
    pub notes: Option<String>,
    /// Names of fields that no source backs.
    #[serde(default)]
    pub unverified: Vec<String>,
    /// At least one.
    pub sources: Vec<Source>,
}

impl Card {
    /// Bytes that it holds at least.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_gb * 1_000_000_000
    }

    /// What is wrong with the entry itself.
    pub(super) fn fault(&self) -> Option<String> {
        let numbers = [self.memory_gb as f64, self.bandwidth_gb_s, self.bf16_tflops, self.watts];
        let is_wrong = |number: &f64| !(number.is_finite() && *number > 0.0);
        if numbers.iter().chain(&self.fp8_tflops).any(is_wrong) {
            return Some("its numbers want to be above 0".to_owned());
        }
        if self.name.trim().is_empty() || self.sources.is_empty() {
            return Some("it wants a name and at least one source".to_owned());
        }
        let fields = serde_json::to_value(self).ok()?;
        let no_field = |name: &&String| fields.get(name.as_str()).is_none_or(serde_json::Value::is_null);
        let wrong = self.unverified.iter().find(no_field)?;
        Some(format!("unverified names `{wrong}`, which this entry does not have"))
    }
}

impl Registry {
    /// All cards, in the file's order.
    pub fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// The card of that name, whatever the case of its letters and the signs between its words; or the only one whose name has all
    /// words of `name`, as `H100` and `4090` do.
    ///
    /// # Errors
    /// [`RegistryError::UnknownCard`] with the closest names.
    pub fn card(&self, name: &str) -> Result<&Card, RegistryError> {
        let plain = |name: &str| name.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
        let exact = self.cards.iter().find(|card| plain(&card.name) == plain(name));
        exact.or_else(|| self.only_card_with(name)).ok_or_else(|| {
            let names: Vec<&str> = self.cards.iter().map(|card| card.name.as_str()).collect();
            RegistryError::UnknownCard {
                name: name.to_owned(),
                closest: nearest(name, names.iter().copied(), NUM_SUGGESTIONS).into_iter().map(str::to_owned).collect(),
                all: names.join(", "),
            }
        })
    }

    /// The card whose name has all words of `asked`, if just one has them.
    fn only_card_with(&self, asked: &str) -> Option<&Card> {
        let words = |name: &str| name.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>();
        let asked = words(asked);
        let has_all = |card: &&Card| {
            let own = words(&card.name);
            asked.iter().all(|word| own.contains(word))
        };
        let mut found = self.cards.iter().filter(has_all);
        found.next().filter(|_| !asked.is_empty() && found.next().is_none())
    }
}

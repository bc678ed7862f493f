//! Whether models fit on cards, how many sequences beside them, and which room the engine would have: the arithmetic of `engine/room.rs` before
//! there is a device. Knows bytes and tokens; knows no speeds.

use serde::Serialize;

use super::model::{Formats, ModelFacts};
use super::simulate::Room;
use crate::engine::blocks_in;
use crate::engine::scheduler::Limits;
use crate::registry::{PRECISIONS, WORKING_BYTES};

/// Memory of cards in gigabytes, for the table of what fits.
pub const CLASSES_GB: [u64; 6] = [16, 24, 40, 48, 80, 141];

/// What a memory has room for beside one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// Bytes of the memory.
    pub memory_bytes: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Tokens that the cache holds; 0: none, or the weights do not fit.
    pub kv_tokens: u64,
    /// Sequences of usual length at once, bounded by the batch.
    pub num_usual: u64,
    /// Sequences of the longest length at once, bounded by the batch.
    pub num_longest: u64,
}

impl Fit {
    /// Whether at least one sequence of the longest length fits.
    pub fn fits(&self) -> bool {
        self.num_longest > 0
    }
}

/// Blocks of the cache: what weights and working memory leave, of which the engine takes its share; no more than the flags give or all
/// sequences at their longest need. `None` if the model's shape is not known.
pub fn num_blocks(facts: &ModelFacts, formats: &Formats, memory_bytes: u64) -> Option<usize> {
    let (size, per_token) = (formats.block_size, facts.kv_bytes_per_token? as usize);
    let free = memory_bytes.saturating_sub(facts.weight_bytes).saturating_sub(WORKING_BYTES);
    let there_is = blocks_in(free as usize, size, per_token);
    let asked = match (formats.kv_tokens, formats.kv_memory) {
        (Some(tokens), _) => tokens.div_ceil(size),
        (None, Some(bytes)) => bytes / (per_token * size).max(1),
        (None, None) => usize::MAX,
    };
    let most = formats.max_batch.saturating_mul(facts.max_len.div_ceil(size));
    Some(there_is.min(asked).min(most))
}

/// What fits of a model whose sequences are usually `usual` and at most `longest` tokens long.
pub fn fit(facts: &ModelFacts, formats: &Formats, memory_bytes: u64, usual: usize, longest: usize) -> Option<Fit> {
    let blocks = num_blocks(facts, formats, memory_bytes)?;
    let at_once = |len: usize| (blocks / len.max(1).div_ceil(formats.block_size)).min(formats.max_batch) as u64;
    Some(Fit {
        memory_bytes,
        weight_bytes: facts.weight_bytes,
        kv_tokens: (blocks * formats.block_size) as u64,
        num_usual: at_once(usual),
        num_longest: at_once(longest),
    })
}

/// The engine's room with so many blocks.
pub fn room(facts: &ModelFacts, formats: &Formats, num_blocks: usize) -> Room {
    let max_step_tokens = formats.step_tokens.max(formats.max_batch);
    let limits = Limits { max_batch: formats.max_batch, max_step_tokens, prefix_cache: true };
    Room { limits, block_size: formats.block_size, num_blocks, max_len: facts.max_len }
}

/// What would make a model fit into a memory: the widest format that does, or how many cards that share it; in words.
pub fn what_would(facts: &ModelFacts, formats: &Formats, memory_bytes: u64, longest: usize) -> String {
    let parameters = (facts.token_parameters + facts.head_parameters).max(facts.stored_bytes / 2);
    let with = |weight_bytes: u64| ModelFacts { weight_bytes, ..facts.clone() };
    let fits = |facts: &ModelFacts, memory| fit(facts, formats, memory, longest, longest).is_some_and(|fit| fit.fits());
    let narrower = PRECISIONS.iter().find(|precision| {
        let bytes = precision.bytes(parameters);
        bytes < facts.weight_bytes && fits(&with(bytes), memory_bytes)
    });
    let shared = (2..=8u64).find(|count| fits(&with(facts.weight_bytes / count), memory_bytes));
    let gigabytes = memory_bytes as f64 / 1e9;
    let mut ways = Vec::new();
    ways.extend(narrower.map(|precision| format!("--quantize {}", precision.name)));
    ways.extend(
        shared
            .map(|count| format!("{count} cards of {gigabytes:.0} GB that share its layers (--device cuda:0+cuda:1…)")),
    );
    let next = CLASSES_GB.iter().find(|gb| fits(facts, **gb * 1_000_000_000) && **gb * 1_000_000_000 > memory_bytes);
    ways.extend(next.map(|gb| format!("a card of {gb} GB")));
    let needs = (facts.weight_bytes + WORKING_BYTES) as f64 / 1e9;
    match ways.is_empty() {
        true => format!(
            "{} needs {needs:.1} GB and a cache; nothing that this list knows holds it: take a smaller model",
            facts.name
        ),
        false => format!("{} needs {needs:.1} GB and a cache, and fits with {}", facts.name, ways.join(", or ")),
    }
}

//! How much memory a model takes at a precision, and whether it fits.
//! Knows arithmetic on parameter counts; measures nothing and does not know the machine.

use serde::Serialize;

use super::ModelEntry;

/// A format that weights can be kept in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Precision {
    /// As on the command line.
    pub name: &'static str,
    /// Bits per parameter, scales of the blocks included: a block of q8_0 is 34 bytes for 32 parameters, blocks of q6k, q5k
    /// and q4k are 210, 176 and 144 bytes for 256.
    pub bits: f64,
}

/// From the widest to the narrowest. q4_0 takes as much as q4k.
pub const PRECISIONS: [Precision; 5] = [
    Precision { name: "bf16", bits: 16.0 },
    Precision { name: "q8_0", bits: 8.5 },
    Precision { name: "q6k", bits: 6.5625 },
    Precision { name: "q5k", bits: 5.5 },
    Precision { name: "q4k", bits: 4.5 },
];

/// Set aside for the KV cache: what `--kv-memory` takes unless told otherwise.
pub const KV_CACHE_BYTES: u64 = 2 << 30;
/// Set aside for activations, tokenizer and the rest.
pub const WORKING_BYTES: u64 = 1 << 30;
/// Set aside besides the weights.
pub const ALLOWANCE_BYTES: u64 = KV_CACHE_BYTES + WORKING_BYTES;

impl Precision {
    /// Bytes of `parameters` weights.
    pub fn bytes(&self, parameters: u64) -> u64 {
        (parameters as f64 * self.bits / 8.0) as u64
    }
}

/// The widest precision at which a model fits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fit {
    /// The precision.
    pub precision: Precision,
    /// Bytes of the weights alone.
    pub weight_bytes: u64,
    /// Bytes with the allowance.
    pub total_bytes: u64,
}

impl ModelEntry {
    /// Bytes of the KV cache that a token takes with numbers of `number_bytes`; `None` if the list does not know the model's shape.
    pub fn kv_bytes_per_token(&self, number_bytes: u64) -> Option<u64> {
        Some(2 * self.layers? * self.kv_heads? * self.head_dim? * number_bytes)
    }

    /// The widest precision whose weights and allowance are at most `budget` bytes.
    pub fn fit(&self, budget: u64) -> Option<Fit> {
        PRECISIONS.iter().find_map(|precision| {
            let weight_bytes = precision.bytes(self.parameters);
            let total_bytes = weight_bytes.saturating_add(ALLOWANCE_BYTES);
            (total_bytes <= budget).then_some(Fit { precision: *precision, weight_bytes, total_bytes })
        })
    }
}

//! Text to token ids and back: tokenizer, chat template, incremental detokenisation.
//! Knows nothing of models' weights, of batches or of datasets.

use serde::{Deserialize, Serialize};

/// One turn of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

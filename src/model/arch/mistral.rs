//! Mistral 7B and its successors of the same layout: llama with a sliding window in every layer.
//! Knows the configuration's fields only.

use crate::model::{DecoderSpec, HfConfig, ModelError};

/// Transformers' default where config.json does not mention the window at all; an explicit null means none.
const DEFAULT_WINDOW: usize = 4096;

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "mistral")?;
    let window =
        if config.mentions("sliding_window") { config.optional_size("sliding_window")? } else { Some(DEFAULT_WINDOW) };
    spec.windows.fill(window);
    Ok(spec)
}

//! Phi-3, 3.5 and 4: llama with merged matrices, a partly rotated head and LongRoPE.
//! Knows the configuration's fields only.

use crate::model::rope::RopeSpec;
use crate::model::spec::MlpInput;
use crate::model::{DecoderSpec, HfConfig, ModelError};

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(&config.without_rope(), "phi3", 10_000.0)?;
    let mut rope = config.rope_parameters();
    // Early files say "su" or "yarn" for what became LongRoPE.
    if rope.get("rope_type").is_some_and(|kind| kind == "su" || kind == "yarn") {
        rope.insert("rope_type".to_owned(), "longrope".into());
    }
    let head_dim = spec.layers[0].geometry.head_dim;
    spec.ropes = vec![RopeSpec::parse(&rope, 10_000.0, head_dim, spec.max_positions)?];
    let window = config.optional_size("sliding_window")?;
    spec.layers.iter_mut().for_each(|layer| layer.window = window);
    spec.attention.merged = true;
    spec.mlp.input = MlpInput::Merged;
    Ok(spec)
}

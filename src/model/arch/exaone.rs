//! EXAONE 4: norms behind each block, per-head norms of queries and keys; where there are windows, layers without one have no
//! rotation.
//! Knows the configuration's fields only.

use serde_json::Value;

use super::POST_WIRING;
use crate::model::{DecoderSpec, HfConfig, ModelError};
use crate::ops::rotary::NormSpan;

pub(super) fn spec(config: &HfConfig) -> Result<DecoderSpec, ModelError> {
    let mut spec = super::base(config, "exaone4", 10_000.0)?;
    spec.norm.eps = config.number("rms_norm_eps", 1e-5)?;
    spec.wiring = POST_WIRING;
    spec.attention.qk_norm = super::qk_norm(&spec, NormSpan::Head);
    let window = if config.mentions("sliding_window") { config.optional_size("sliding_window")? } else { Some(4096) };
    // The pattern is a number, or a word such as "LLLG" with one letter per layer.
    let pattern = match config.get("sliding_window_pattern") {
        Some(Value::String(letters)) => letters.chars().count(),
        _ => config.number("sliding_window_pattern", 4.0)? as usize,
    };
    let sliding = super::sliding_layers(config, spec.num_layers(), pattern)?;
    super::set_windows(&mut spec, &sliding, window);
    if window.is_some() {
        spec.layers.iter_mut().zip(&sliding).for_each(|(layer, sliding)| layer.rope = sliding.then_some(0));
    }
    Ok(spec)
}

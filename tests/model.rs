//! Models from their directories: what is read, what is refused and in which words, and that every form of the same numbers
//! gives the same logits. Files are built in temporary folders out of `tests/fixtures/models/llama` or by hand.

#[path = "model/config.rs"]
mod config;
#[path = "model/kv.rs"]
mod kv;
#[path = "model/quantised.rs"]
mod quantised;
#[path = "model/quantize.rs"]
mod quantize;
#[path = "model/rope.rs"]
mod rope;
#[path = "model/weights.rs"]
mod weights;

use std::path::{Path, PathBuf};

use pairwright::model::{self, Decoder, LoadOptions, ModelError, WeightsKind};
use pairwright::ops::Compute;
use pairwright::ops::Workspace;
use pairwright::ops::paged::PagedBatch;

/// A fixture model's directory.
fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(family)
}

/// Loads with f32 weights on the CPU.
fn load(dir: &Path, weights: WeightsKind) -> Result<Decoder, ModelError> {
    model::load(dir, &LoadOptions { compute: Compute::cpu(), weights, max_len: Some(64) })
}

/// The error of loading files; panics if they load.
fn refusal(dir: &Path) -> ModelError {
    load(dir, WeightsKind::Files).err().expect("it was meant to be refused")
}

/// The logits of twelve tokens, [12 * V], as bits.
fn logits(decoder: &Decoder) -> Vec<u32> {
    let ids: Vec<u32> = (0..12).map(|i| (i * 37 + 5) % decoder.spec().vocab_size as u32).collect();
    packed_logits(decoder, &ids).into_iter().map(f32::to_bits).collect()
}

/// The logits of one sequence, [ids.len() * V].
fn packed_logits(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    let num_tokens = ids.len() as u32;
    let num_blocks = num_tokens.div_ceil(16);
    let batch = PagedBatch {
        positions: (0..num_tokens).collect(),
        slot_mapping: (16..16 + num_tokens).collect(),
        cu_seqlens_q: vec![0, num_tokens],
        context_lens: vec![num_tokens],
        block_tables: (1..=num_blocks).collect(),
        cu_blocks: vec![0, num_blocks],
        is_generated: vec![false],
        block_size: 16,
        num_padding: 0,
    };
    let cache = decoder.new_cache(1 + num_blocks as usize, 16).unwrap();
    let ws = &mut Workspace::default();
    let hidden = decoder.hidden_states(ws, ids, &batch, &cache).unwrap();
    let rows: Vec<u32> = (0..num_tokens).collect();
    let logits = pairwright::ops::to_host(&decoder.logits(ws, &hidden, &rows).unwrap()).unwrap();
    assert!(logits.iter().all(|logit| logit.is_finite()));
    logits
}

/// Asserts that a message holds every one of `parts`.
fn assert_says(error: &ModelError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
}

#[test]
fn only_a_dynamic_scaling_reaches_past_the_models_context() {
    let spec = |rope: &str| {
        let config = format!(
            r#"{{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
                "intermediate_size": 96, "vocab_size": 384, "max_position_embeddings": 512, "rope_scaling": {rope}}}"#
        );
        pairwright::model::arch::spec(&pairwright::model::HfConfig::parse(&config).unwrap()).unwrap()
    };
    let dynamic = spec(r#"{"rope_type": "dynamic", "factor": 2.0}"#);
    assert_eq!([None, Some(100), Some(700), Some(9000)].map(|asked| dynamic.max_len(asked)), [512, 100, 700, 1024]);
    let linear = spec(r#"{"rope_type": "linear", "factor": 2.0}"#);
    assert_eq!([None, Some(100), Some(700)].map(|asked| linear.max_len(asked)), [512, 100, 512]);
}

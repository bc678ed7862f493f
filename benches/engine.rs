//! `cargo bench --bench engine`: the engine on a 125M-parameter llama shape with random weights, batched and one by one.
//! The same measurement on any model directory: `pairwright bench engine --model DIR`.

use pairwright::bench::engine::{self, Workload};
use pairwright::engine::EngineOptions;
use pairwright::model::{LoadOptions, WeightsKind};
use pairwright::ops::Compute;

/// The shape of a published 160M llama with grouped heads.
const SHAPE: &str = r#"{"model_type": "llama", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_key_value_heads": 4, "intermediate_size": 2048, "vocab_size": 32000, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false}"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("pairwright-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("config.json"), SHAPE)?;
    let load = LoadOptions { compute: Compute::cpu(), weights: WeightsKind::Dummy { seed: 0 }, max_len: None };
    let workload =
        Workload { sequences: 32, prompt_len: 128, output_len: 128, runs: 3, shared_prefix: 0, with_ragged: false };
    let one_by_one = Workload { sequences: 4, runs: 1, ..workload };
    for (max_batch, workload) in [(1, one_by_one), (32, workload)] {
        let options = EngineOptions { max_batch, ..EngineOptions::default() };
        println!("{}", serde_json::to_string(&engine::run(&dir, &load, &options, workload)?)?);
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

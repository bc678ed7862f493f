//! Loading a model against the least that it can cost: reading its file and widening every element to f32.
//!
//! `cargo bench --bench loading -- DIR` takes a directory with config.json and one model.safetensors in bf16 (no tokenizer needed)
//! and runs both in turn, five times each, the file in the page cache. One JSON line with the medians and their ratio.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::DType;
use half::bf16;
use pairwright::model::{self, LoadOptions, WeightsKind};
use pairwright::ops::Compute;
use rayon::prelude::*;

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Seconds to read the file with one call and to widen its bf16 elements in parallel.
fn read_and_convert(path: &Path) -> Outcome<f64> {
    let started = Instant::now();
    let bytes = std::fs::read(path)?;
    let wide: Vec<f32> =
        bytes.par_chunks_exact(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect();
    let elapsed_s = started.elapsed().as_secs_f64();
    std::hint::black_box(&wide);
    Ok(elapsed_s)
}

fn load(dir: &Path, dtype: DType) -> Outcome<f64> {
    let compute = Compute { weight_dtype: dtype, ..Compute::cpu() };
    let started = Instant::now();
    let decoder = model::load(dir, &LoadOptions { compute, weights: WeightsKind::Files, max_len: None })?;
    let elapsed_s = started.elapsed().as_secs_f64();
    std::hint::black_box(&decoder);
    Ok(elapsed_s)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Outcome<()> {
    let Some(dir) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).map(PathBuf::from) else {
        println!("no directory given: cargo bench --bench loading -- DIR");
        return Ok(());
    };
    let file = dir.join("model.safetensors");
    read_and_convert(&file)?; // brings the file into the page cache
    let (mut least, mut wide, mut narrow) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        least.push(read_and_convert(&file)?);
        wide.push(load(&dir, DType::F32)?);
        narrow.push(load(&dir, DType::BF16)?);
    }
    let (least, wide, narrow) = (median(least), median(wide), median(narrow));
    let line = serde_json::json!({
        "bench": "loading", "size_bytes": file.metadata()?.len(), "threads": rayon::current_num_threads(),
        "read_and_convert_s": least, "load_f32_s": wide, "load_bf16_s": narrow,
        "ratio_f32": wide / least, "ratio_bf16": narrow / least,
    });
    println!("{line}");
    Ok(())
}

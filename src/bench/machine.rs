//! What this machine can do at best, measured with plain loops: the ceilings that engine figures are stated against.
//! Knows memory and the packed product; knows no model.

use std::time::Instant;

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::ops::linear::{Linear, MatrixView};
use crate::ops::{Compute, Slot, Workspace};

/// Ceilings of the CPU with the threads in use.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct MachineCeilings {
    /// f32 product of 1024 x 2048 x 2048, best of several, in GFLOP/s.
    pub gemm_gflop_s: f64,
    /// Reading 512 MiB once, best of several, in GB/s (10^9).
    pub read_gb_s: f64,
}

/// Measures for about a second.
///
/// # Errors
/// If a tensor operation fails.
pub fn ceilings() -> candle_core::Result<MachineCeilings> {
    Ok(MachineCeilings { gemm_gflop_s: gemm_rate()?, read_gb_s: read_rate() })
}

/// The product's rate: see [`MachineCeilings`]. A fifth of a second or so.
///
/// # Errors
/// If a tensor operation fails.
pub fn gemm_rate() -> candle_core::Result<f64> {
    const ROWS: usize = 1024;
    const SIZE: usize = 2048;
    let compute = Compute::cpu();
    let bytes: Vec<u8> = (0..SIZE * SIZE).flat_map(|i| ((i % 7) as f32 * 0.1).to_le_bytes()).collect();
    let view = MatrixView { bytes: &bytes, format: DType::F32.into(), rows: SIZE, columns: SIZE };
    let linear = Linear::new(&compute, &[view], None)?;
    let x = Tensor::ones((ROWS, SIZE), DType::F32, &compute.device)?;
    // Into a buffer that is kept, as the engine's products: a fresh one would be timed with its page faults.
    let mut workspace = Workspace::default();
    let mut best = f64::MAX;
    for _ in 0..6 {
        let started = Instant::now();
        linear.forward_in(&mut workspace, Slot::GateUp, &x)?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok((2 * ROWS * SIZE * SIZE) as f64 / best / 1e9)
}

/// The rate of reading: see [`MachineCeilings`]. Holds 512 MiB while it measures.
pub fn read_rate() -> f64 {
    let data = vec![1u64; 64 << 20];
    let mut best = f64::MAX;
    for _ in 0..4 {
        let started = Instant::now();
        let sum: u64 = data.par_chunks(1 << 17).map(|run| run.iter().fold(0u64, |sum, &x| sum.wrapping_add(x))).sum();
        let elapsed_s = started.elapsed().as_secs_f64();
        if std::hint::black_box(sum) > 0 {
            best = best.min(elapsed_s);
        }
    }
    (data.len() * 8) as f64 / best / 1e9
}

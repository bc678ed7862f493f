//! What a device can do at best, measured with plain loops: the ceilings that figures are stated against.
//! Knows memory and the product; knows no model.

use std::time::Instant;

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use crate::ops::linear::{Linear, MatrixView};
use crate::ops::{Compute, Slot, Workspace};

/// Ceilings of a device, of the CPU with the threads in use.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct MachineCeilings {
    /// f32 product of 1024 x 2048 x 2048 on the CPU, elsewhere of 8192 x 8192 x 8192 in the weights' format; best of several, in
    /// GFLOP/s.
    pub gemm_gflop_s: f64,
    /// Reading 512 MiB once on the CPU, elsewhere copying 256 MiB, of which both ways count; best of several, in GB/s (10^9).
    pub read_gb_s: f64,
}

/// Measures for about a second. A card holds half a GiB while it does.
///
/// # Errors
/// If a tensor operation fails.
pub fn ceilings(compute: &Compute) -> Result<MachineCeilings> {
    Ok(MachineCeilings { gemm_gflop_s: gemm_rate(compute)?, read_gb_s: read_rate(compute)? })
}

/// The product's rate: see [`MachineCeilings`]. A fifth of a second or so.
///
/// # Errors
/// If a tensor operation fails.
pub fn gemm_rate(compute: &Compute) -> Result<f64> {
    let (rows, size, compute) = match compute.device.is_cpu() {
        true => (1024, 2048, &Compute::cpu()),
        false => (8192, 8192, &compute.unquantized()),
    };
    let bytes: Vec<u8> = (0..size * size).into_par_iter().flat_map_iter(|i| number(i).to_le_bytes()).collect();
    let view = MatrixView { bytes: &bytes, format: DType::F32.into(), rows: size, columns: size };
    let linear = Linear::new(compute, &[view], None)?;
    let x: Vec<f32> = (0..rows * size).into_par_iter().map(|i| number(i + size * size)).collect();
    let x = Tensor::from_vec(x, (rows, size), &compute.device)?.to_dtype(compute.activation_dtype)?;
    // Into a buffer that is kept, as the engine's products: a fresh one would be timed with its page faults.
    let mut workspace = Workspace::default();
    let seconds = best_of(6, compute, || linear.forward_in(&mut workspace, Slot::GateUp, &x).map(drop))?;
    Ok((2 * rows * size * size) as f64 / seconds / 1e9)
}

/// The rate of memory: see [`MachineCeilings`]. Holds 512 MiB while it measures.
///
/// # Errors
/// If a device has no room.
pub fn read_rate(compute: &Compute) -> Result<f64> {
    if compute.device.is_cpu() {
        return Ok(cpu_read_rate());
    }
    // Several at once, so that waiting for them is no part of it.
    const COPIES: usize = 8;
    let source: Vec<f32> = (0..64 << 20).into_par_iter().map(number).collect();
    let source = Tensor::from_vec(source, 64 << 20, &compute.device)?;
    let seconds = best_of(6, compute, || (0..COPIES).try_for_each(|_| source.copy().map(drop)))?;
    Ok((2 * COPIES * source.elem_count() * source.dtype().size_in_bytes()) as f64 / seconds / 1e9)
}

/// Numbers without a pattern, in [-1, 1): a card's matrix units draw less power, and run faster, on data that repeats itself.
fn number(i: usize) -> f32 {
    (xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes()) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Seconds of one run, the best of `times`, after one that is not counted.
fn best_of(times: usize, compute: &Compute, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::MAX;
    for time in 0..=times {
        let started = Instant::now();
        run()?;
        compute.device.synchronize()?;
        if time > 0 {
            best = best.min(started.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}

fn cpu_read_rate() -> f64 {
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

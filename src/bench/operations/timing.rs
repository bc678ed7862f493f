//! Seconds of an operation on its device, and how that stands beside what the device can do at best.
//! Knows the device's queue; knows no operation.

use std::time::Instant;

use candle_core::Result;
use serde::Serialize;

use super::Prepared;
use crate::bench::machine::MachineCeilings;
use crate::ops::Compute;

/// Runs of an operation that a CUDA device gets as one captured whole.
const AT_ONCE: usize = 10;

/// How fast an operation went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// Microseconds of one run.
    pub micros: f64,
    /// GB/s if memory bounds the operation, else GFLOP/s.
    pub rate: f64,
    /// `GB/s` or `GFLOP/s`.
    pub unit: &'static str,
    /// Of what the device can do at best.
    pub percent: f64,
}

impl Prepared {
    /// What it did in that many seconds, against whichever of memory and arithmetic takes it longer at best.
    pub fn rate(&self, seconds: f64, ceilings: &MachineCeilings) -> Rate {
        let (memory, arithmetic) = (ceilings.read_gb_s, ceilings.gemm_gflop_s);
        let memory_bounds = self.bytes as f64 / memory >= self.operations as f64 / arithmetic;
        let (amount, unit, ceiling) = match memory_bounds {
            true => (self.bytes, "GB/s", memory),
            false => (self.operations, "GFLOP/s", arithmetic),
        };
        let rate = amount as f64 / seconds / 1e9;
        Rate { micros: seconds * 1e6, rate, unit, percent: 100.0 * rate / ceiling }
    }

    /// Seconds of one run: the best of as many as `budget_s` holds. On a CUDA device several runs are captured and launched as a
    /// whole, so that what is measured is the device and not the host.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn seconds(&mut self, compute: &Compute, budget_s: f64) -> Result<f64> {
        let captured = match &compute.kernels {
            Some(kernels) if self.captures => {
                Some(kernels.capture(|| (0..AT_ONCE).try_for_each(|_| self.run().map(drop)))?)
            }
            _ => None,
        };
        let device = compute.device.clone();
        best(budget_s, || {
            let runs = match &captured {
                Some(graph) => graph.launch().map(|()| AT_ONCE)?,
                None => self.run().map(|_| 1)?,
            };
            device.synchronize()?;
            Ok(runs)
        })
    }
}

/// Seconds of one run where `runs` makes some and tells how many: the best in `budget_s`, after one that is not counted.
fn best(budget_s: f64, mut runs: impl FnMut() -> Result<usize>) -> Result<f64> {
    runs()?;
    let (mut best_s, started) = (f64::MAX, Instant::now());
    while best_s == f64::MAX || started.elapsed().as_secs_f64() < budget_s {
        let run = Instant::now();
        let count = runs()?;
        best_s = best_s.min(run.elapsed().as_secs_f64() / count as f64);
    }
    Ok(best_s)
}

//! Whether this machine computes what it should: its operations against a reference, models through the whole engine, and what must not
//! change an answer. Then how fast it is, beside what it can do at best. [`machine`] has the facts that need no computing.
//! Knows devices and small models; knows no text and no run.

mod arrival;
mod engine;
pub mod golden;
pub mod machine;
pub mod network;
mod operations;
mod room;

use std::path::PathBuf;

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use serde::Serialize;

use crate::bench::machine::MachineCeilings;
use crate::bench::operations::{Rate, Scale};
use crate::ops::paged::KvFormat;
use crate::ops::{Compute, DeviceError, OpsPath, Runs};

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Checks alone, and small ones: nothing is timed.
    pub quick: bool,
    /// A folder of models with what Transformers computed, each with an `expected.json` beside its weights.
    pub references: Option<PathBuf>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Something is off.
    Failed,
    /// Not for this device.
    Skipped,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen, in words.
    pub detail: String,
    /// How fast it went, if it was timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// This program's version.
    pub pairwright: &'static str,
    /// The device.
    pub device: String,
    /// Driver and libraries, if the device has any.
    pub software: Option<String>,
    /// Memory of the device that was free, and all of it, in MiB; of a device that has its own.
    pub memory_mib: Option<[usize; 2]>,
    /// Formats that were timed.
    pub formats: String,
    /// What the device can do at best, if anything was timed.
    pub ceilings: Option<MachineCeilings>,
    /// Checks that failed.
    pub num_failed: usize,
    /// All checks.
    pub checks: Vec<Check>,
}

impl Check {
    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Ok, detail: detail.into(), rate: None }
    }

    fn skipped(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::ok(name, detail) }
    }

    /// Ok if `good`.
    fn judged(name: impl Into<String>, good: bool, detail: impl Into<String>) -> Self {
        Self { verdict: if good { Verdict::Ok } else { Verdict::Failed }, ..Self::ok(name, detail) }
    }

    /// What a check that could not be made to its end says.
    fn from_result<E: std::fmt::Display>(name: &str, result: Result<Self, E>) -> Self {
        result.unwrap_or_else(|error| Self::judged(name, false, in_one_line(error)))
    }
}

/// What an error says, without the trace that Candle adds to it.
fn in_one_line(error: impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Looks at everything, and tells each check to `each` as soon as it is made. What fails is in the report; only a device that says
/// nothing of itself is an error.
///
/// # Errors
/// [`DeviceError`] if the device does not tell what it is.
pub fn examine(compute: &Compute, options: &Options, mut each: impl FnMut(&Check)) -> Result<Report, DeviceError> {
    let about = compute.about()?;
    let mut report = Report {
        pairwright: env!("CARGO_PKG_VERSION"),
        device: compute.describe(),
        software: about.as_ref().map(|about| about.software.clone()),
        memory_mib: about.as_ref().map(|about| [about.free_bytes, about.total_bytes].map(|bytes| bytes >> 20)),
        formats: compute.formats(false),
        ceilings: None,
        num_failed: 0,
        checks: Vec::new(),
    };
    let mut told = |check: Check| {
        each(&check);
        report.num_failed += usize::from(check.verdict == Verdict::Failed);
        report.checks.push(check);
    };
    arrival::check(compute, options.quick, &mut told);
    if let Some(are_right) = about.as_ref().and_then(|about| about.warpgroups) {
        let detail =
            if are_right { "right in a trial" } else { "wrong in a trial: slower ones are used in their place" };
        told(Check::judged("kernels of warpgroups", are_right, detail.to_owned()));
    }
    for compute in variants(compute) {
        operations::check(&compute, &mut told);
        operations::check_rows(&compute, Scale::Small, &mut told);
        golden::check_toy(&compute, &mut told);
    }
    let eights = Compute { fp8: true, kv_format: KvFormat::Fp8, ..compute.clone() };
    let has_fp8 = about.as_ref().is_some_and(|about| about.has_fp8) && compute.path == OpsPath::Native;
    if has_fp8 {
        operations::check(&eights, &mut told);
        operations::check_rows(&eights, Scale::Small, &mut told);
    }
    if let Some(folder) = &options.references {
        // Of random models' answers little is left in 16 bits: a router's near ties fall otherwise.
        golden::check_folder(&compute.clone().in_format(DType::F32), folder, &mut told);
    }
    engine::check(compute, options.quick, &mut told);
    if has_fp8 {
        engine::check(&eights, true, &mut told);
    }
    if matches!(compute.runs(), Runs::Cuda(_)) {
        engine::check(&Compute { quantize: Some(GgmlDType::Q8_0), ..compute.clone() }, true, &mut told);
    }
    room::check(compute, &mut told);
    if !options.quick {
        let scale = if compute.device.is_cpu() { Scale::Processor } else { Scale::Card };
        operations::check_rows(compute, scale, &mut told);
        if has_fp8 {
            operations::check_rows(&eights, scale, &mut told);
        }
        report.ceilings = operations::time(compute, scale, &mut told);
    }
    Ok(report)
}

/// The formats to check operations in.
fn variants(compute: &Compute) -> Vec<Compute> {
    if compute.device.is_cpu() {
        return vec![compute.clone()];
    }
    [DType::F32, DType::F16, DType::BF16].map(|dtype| compute.clone().in_format(dtype)).into()
}

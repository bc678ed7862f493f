//! `pairwright doctor`: one page on this machine; with `--device`, whether that device computes what it should, and how fast: a line per
//! check on stderr for people, one JSON line on stdout for everything else. Knows flags and how a check is printed; the checks are in
//! [`crate::doctor`].

mod page;

use std::io::Write;
use std::path::PathBuf;

use super::arguments::positive;
use super::engine_flags::{self, DtypeArg, parse_device};
use crate::doctor::{self, Check, Options, Report, Verdict};
use crate::generate::Ending;
use crate::ops::{Compute, DeviceChoice};

/// What is printed behind the flags.
const AFTER_HELP: &str = "\
Without --device: one page on this machine in seconds, and nothing is computed: processor, card and driver, memory, disks, limits, the
models in ./models and in the Hugging Face cache and whether they are whole, whether there is a way out of the machine (read from the
kernel's tables; no connection is opened), and the next step for each problem. Exit codes: 0 · 1 something will not work.

With --device: each operation is held against a slower one that is known to be right, and a model's answers against the same engine in other batches:
on a card also in captured and in single steps, and with all of its memory taken for a moment (other programs on it may fail then).
Exit codes: 0 all is well · 1 something is off · 3 no such device.

  pairwright doctor                            # the page
  pairwright doctor --device cuda              # a minute or two on a card: checks, then rates
  pairwright doctor --device cuda --quick      # checks alone
  pairwright doctor --device cuda --references DIR   # more models, of what Transformers computed";

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Check this device: auto, cpu, cuda, cuda:1, metal
    #[arg(long, value_parser = parse_device)]
    device: Option<DeviceChoice>,
    /// The page as one JSON line (the checks of a device always end with one)
    #[arg(long)]
    json: bool,
    /// Format of weights that rates are measured in [default: f32 on the CPU, bf16 on a GPU]
    #[arg(long, requires = "device")]
    dtype: Option<DtypeArg>,
    /// Checks alone, in small sizes: no rates
    #[arg(long, requires = "device")]
    quick: bool,
    /// A folder of models, each with an expected.json of what Transformers computed (scripts/make_reference_models.py makes some)
    #[arg(long, value_name = "DIR", requires = "device")]
    references: Option<PathBuf>,
    /// Threads [default: all cores]
    #[arg(long, value_parser = positive, requires = "device")]
    threads: Option<usize>,
}

/// Some checks failed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{failed} of {all} checks failed; do not trust what is computed here\nhint: report the lines above with the JSON line"
)]
struct Unwell {
    failed: usize,
    all: usize,
}

/// Looks at everything; an error if anything is off.
pub(super) fn run(args: Args) -> anyhow::Result<Ending> {
    let Some(device) = args.device else { return page::run(args.json) };
    engine_flags::start_threads(args.threads, 1)?;
    let compute = Compute::new(device, args.dtype.map(DtypeArg::dtype))?;
    writeln!(std::io::stderr(), "{}", compute.describe())?;
    let options = Options { quick: args.quick, references: args.references };
    let report = doctor::examine(&compute, &options, |check| {
        // Who closes stderr does not want the lines; the report has them too.
        let _ = writeln!(std::io::stderr(), "{}", line(check));
    })?;
    writeln!(std::io::stderr(), "{}", summary(&report))?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    match report.num_failed {
        0 => Ok(Ending::Completed),
        failed => Err(Unwell { failed, all: report.checks.len() }.into()),
    }
}

fn line(check: &Check) -> String {
    let Check { name, verdict, detail, rate } = check;
    let verdict = match verdict {
        Verdict::Ok => "ok",
        Verdict::Failed => "FAILED",
        Verdict::Skipped => "skipped",
    };
    let rate = rate.map_or(String::new(), |rate| {
        format!("   {:>9.1} us  {:>9.1} {:<7} {:>5.1} %", rate.micros, rate.rate, rate.unit, rate.percent)
    });
    let line = format!("{verdict:<7} {name:<48} {detail:<28}{rate}");
    line.trim_end().to_owned()
}

fn summary(report: &Report) -> String {
    let software = report.software.as_ref().map_or(String::new(), |software| format!("; {software}"));
    let memory =
        report.memory_mib.map_or(String::new(), |[free, all]| format!("; {free} of {all} MiB free at the start"));
    let failed = match report.num_failed {
        0 => "all is well".to_owned(),
        failed => format!("{failed} FAILED"),
    };
    format!("{}: {} checks, {failed}{software}{memory}", report.device, report.checks.len())
}

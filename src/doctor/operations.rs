//! Each operation against its reference, at small and odd sizes; then at large ones, timed.
//! Knows the cases of `bench::operations`; knows no model.

use super::{Check, Verdict, in_one_line};
use crate::bench::machine::{self, MachineCeilings};
use crate::bench::operations::{Case, Compared, Prepared, Scale, cases, rows_are_alike};
use crate::ops::{Compute, DenseProducts, Runs};

/// Seconds given to one case.
const BUDGET_S: f64 = 0.2;

/// The reference of a device: the processor's own operations, which tests hold against Transformers; and of these, Candle's.
fn reference(compute: &Compute) -> Compute {
    if compute.device.is_cpu() { compute.clone().portable() } else { Compute::cpu() }
}

/// Small cases: one check for each operation.
pub fn check(compute: &Compute, told: &mut dyn FnMut(Check)) {
    let (mut cases, reference) = (cases(Scale::Small), reference(compute));
    while let Some(op) = cases.first().map(|case| case.op) {
        let (of_op, others): (Vec<Case>, _) = cases.into_iter().partition(|case| case.op == op);
        cases = others;
        let name = format!("{op} {}", compute.weight_format());
        let mut worst: Option<(f32, Compared)> = None;
        let mut wrong = Vec::new();
        for case in &of_op {
            match case.check(compute, &reference) {
                Ok((_, compared)) if compared.is_close() => {
                    let share = if compared.allowed > 0.0 { compared.error / compared.allowed } else { 0.0 };
                    if worst.is_none_or(|(most, _)| share >= most) {
                        worst = Some((share, compared));
                    }
                }
                Ok((_, compared)) => wrong.push(format!("{}: {}", case.shape, off(compared))),
                Err(error) => wrong.push(format!("{}: {}", case.shape, in_one_line(error))),
            }
        }
        told(match (wrong.is_empty(), worst) {
            (true, Some((_, compared))) => Check::ok(name, format!("in {} shapes {}", of_op.len(), off(compared))),
            _ => Check::judged(name, false, wrong.join("; ")),
        });
    }
}

/// Whether a row has the same bits in any batch: by the products that a model takes, and on a CUDA device by our own.
pub fn check_rows(compute: &Compute, scale: Scale, told: &mut dyn FnMut(Check)) {
    let own = Compute { products: DenseProducts::Own, ..compute.clone() };
    let has_others = matches!(compute.runs(), Runs::Cuda(_));
    for (name, compute) in [("linear", compute)].into_iter().chain(has_others.then_some(("own linear", &own))) {
        let name = format!("{name} {}: a row in any batch", compute.weight_format());
        let checked = rows_are_alike(compute, scale).map(|(alike, detail)| Check::judged(&name, alike, detail));
        told(Check::from_result(&name, checked));
    }
}

/// Large cases, each checked once more and timed if it is right. What the device can do at best, if that could be measured.
pub fn time(compute: &Compute, scale: Scale, told: &mut dyn FnMut(Check)) -> Option<MachineCeilings> {
    let ceilings = match machine::ceilings(compute) {
        Ok(ceilings) => ceilings,
        Err(error) => {
            told(Check::judged("best rates", false, in_one_line(error)));
            return None;
        }
    };
    let MachineCeilings { gemm_gflop_s, read_gb_s } = ceilings;
    told(Check::ok("best rates", format!("memory {read_gb_s:.0} GB/s, matrices {gemm_gflop_s:.0} GFLOP/s")));
    for case in cases(scale) {
        let name = format!("{} {}", case.op, case.shape);
        let timed = case.check(compute, &reference(compute)).and_then(|(mut prepared, compared)| {
            let check = Check::judged(&name, compared.is_close(), off(compared));
            match check.verdict {
                Verdict::Ok => with_rate(check, &mut prepared, compute, &ceilings),
                Verdict::Failed | Verdict::Skipped => Ok(check),
            }
        });
        told(Check::from_result(&name, timed));
    }
    Some(ceilings)
}

fn with_rate(
    check: Check,
    prepared: &mut Prepared,
    compute: &Compute,
    ceilings: &MachineCeilings,
) -> candle_core::Result<Check> {
    let seconds = prepared.seconds(compute, BUDGET_S)?;
    Ok(Check { rate: Some(prepared.rate(seconds, ceilings)), ..check })
}

fn off(compared: Compared) -> String {
    match compared {
        Compared { allowed: 0.0, error: 0.0 } => "the same numbers".to_owned(),
        Compared { error, allowed } => format!("off by {error:.1e} of {allowed:.1e}"),
    }
}

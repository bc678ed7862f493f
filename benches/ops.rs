//! `cargo bench --bench ops`: every operation on the CPU, in GB/s or GFLOP/s and as a share of what this machine can do.
//! Each is timed only after it matched its portable version in this very run. One aligned line and one JSON line each.
//! Data that stays in the processor's caches can beat the memory ceiling. The same on a card: `pairwright doctor --device cuda`.
//! Knows formats; knows no model.

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use pairwright::bench::machine::{self, MachineCeilings};
use pairwright::bench::operations::{Case, Scale, cases};
use pairwright::ops::{BlockInputs, Compute, DenseProducts};

/// Seconds given to one case.
const BUDGET_S: f64 = 0.4;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Checks, then times; the rate in GFLOP/s, if products bound it.
fn timed(
    ceilings: &MachineCeilings,
    case: &Case,
    compute: &Compute,
) -> Result<Option<f64>, Box<dyn std::error::Error>> {
    // Its weights are what the other's blocks hold, widened.
    let (mut prepared, compared) = case.check(compute, &compute.clone().portable())?;
    let shape = match case.op {
        "linear" => format!("{} {}", case.shape, compute.formats(false)),
        _ => case.shape.clone(),
    };
    if !compared.is_close() {
        return Err(format!("{} {shape}: {compared:?} from the portable version, not timed", case.op).into());
    }
    let seconds = prepared.seconds(compute, BUDGET_S)?;
    let rate = prepared.rate(seconds, ceilings);
    println!(
        "{:<11} {shape:<48} {:>10.1} us {:>8.1} {:<7} {:>6.1} %",
        case.op, rate.micros, rate.rate, rate.unit, rate.percent
    );
    let line = serde_json::json!({"op": case.op, "shape": shape, "rate": rate, "error": compared.error});
    println!("{line}");
    Ok((rate.unit == "GFLOP/s").then_some(rate.rate))
}

/// The ways in which products are computed.
fn computes() -> Vec<Compute> {
    let dense = [DType::F32, DType::BF16, DType::F16].map(|weight_dtype| Compute { weight_dtype, ..Compute::cpu() });
    let parts = Compute { products: DenseProducts::Bf16x3, ..Compute::cpu() };
    let mut computes: Vec<Compute> = dense.into_iter().chain([parts]).collect();
    for format in [GgmlDType::Q8_0, GgmlDType::Q6K, GgmlDType::Q4K, GgmlDType::Q4_0] {
        for block_inputs in [BlockInputs::Int8, BlockInputs::F32] {
            computes.push(Compute { quantize: Some(format), block_inputs, ..Compute::cpu() });
        }
    }
    computes
}

fn main() -> Outcome {
    let before = machine::ceilings(&Compute::cpu())?;
    println!("{} on {} threads", Compute::cpu().describe(), rayon::current_num_threads());
    println!("{}", serde_json::to_string(&before)?);
    let (products, others): (Vec<Case>, _) = cases(Scale::Processor).into_iter().partition(|case| case.op == "linear");
    let mut best = 0f64;
    for compute in computes() {
        for case in &products {
            let rate = timed(&before, case, &compute)?;
            // The matrix unit's products are not what the ceiling is of.
            if compute.products == DenseProducts::Fma {
                best = best.max(rate.unwrap_or(0.0));
            }
        }
    }
    for case in &others {
        timed(&before, case, &Compute::cpu())?;
    }
    let after = machine::ceilings(&Compute::cpu())?;
    println!("{}", serde_json::json!({"ceilings_after": after}));
    let moved = |before: f64, after: f64| (after / before - 1.0).abs() > 0.1;
    let beaten = best > 1.1 * before.gemm_gflop_s;
    if beaten || moved(before.gemm_gflop_s, after.gemm_gflop_s) || moved(before.read_gb_s, after.read_gb_s) {
        println!("other programs were busy: a ceiling moved or was beaten by more than 10 %, do not quote the shares");
    }
    Ok(())
}

//! `cargo bench --bench ops`: every operation on the CPU, in GB/s or GFLOP/s and as a share of what this machine can do.
//! Each is timed only after it matched its portable version in this very run. One aligned line and one JSON line each.
//! Data that stays in the processor's caches can beat the memory ceiling. Knows operations; knows no model.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Result, Tensor};
use half::{bf16, f16};
use pairwright::bench::machine::{self, MachineCeilings};
use pairwright::ops::activation::{Activation, ActivationRows};
use pairwright::ops::attention::Attention;
use pairwright::ops::embedding::Embedding;
use pairwright::ops::experts::Router;
use pairwright::ops::linear::{Linear, MatrixView};
use pairwright::ops::norm::Norm;
use pairwright::ops::paged::{HeadGeometry, KvFormat, KvLayer, PagedBatch};
use pairwright::ops::rotary::{HeadNorms, Rotary, RotaryTable};
use pairwright::ops::{BlockInputs, Compute, DenseProducts, Workspace, to_host};

/// Seconds given to one case.
const BUDGET_S: f64 = 0.4;

/// What an operation is bound by at best.
#[derive(Clone, Copy)]
enum Work {
    /// Bytes read and written once.
    Bytes(usize),
    /// Multiplications and additions.
    Operations(usize),
}

struct Bench {
    ceilings: MachineCeilings,
    /// Best rate of any product so far, in GFLOP/s.
    best_gflop_s: Cell<f64>,
}

impl Bench {
    /// Checks `native` against `portable`, then times it: the best of as many runs as the budget holds.
    fn case(
        &self,
        name: &str,
        shape: &str,
        work: Work,
        tolerance: f32,
        native: &dyn Fn() -> Result<Tensor>,
        portable: &dyn Fn() -> Result<Tensor>,
    ) -> std::result::Result<(), Box<dyn std::error::Error>> {
        let (got, want) = (to_host(&native()?)?, to_host(&portable()?)?);
        let error = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0f32, f32::max);
        if got.len() != want.len() || error.is_nan() || error > tolerance {
            return Err(format!("{name} {shape}: off by {error} from the portable version, not timed").into());
        }
        let (mut best_s, started) = (f64::MAX, Instant::now());
        while started.elapsed().as_secs_f64() < BUDGET_S {
            let run = Instant::now();
            std::hint::black_box(native()?);
            best_s = best_s.min(run.elapsed().as_secs_f64());
        }
        let (rate, unit, ceiling) = match work {
            Work::Bytes(bytes) => (bytes as f64 / best_s / 1e9, "GB/s", self.ceilings.read_gb_s),
            Work::Operations(count) => (count as f64 / best_s / 1e9, "GFLOP/s", self.ceilings.gemm_gflop_s),
        };
        if let Work::Operations(_) = work {
            self.best_gflop_s.set(self.best_gflop_s.get().max(rate));
        }
        let (micros, percent) = (best_s * 1e6, 100.0 * rate / ceiling);
        println!(
            "{name:<11} {shape:<32} {micros:>10.1} us {rate:>8.1} {unit:<7} {percent:>6.1} % of {ceiling:.0} {unit}"
        );
        let line = serde_json::json!({
            "op": name, "shape": shape, "best_us": micros, "rate": rate, "unit": unit, "percent_of_ceiling": percent,
            "max_error": error,
        });
        println!("{line}");
        Ok(())
    }

    /// Whichever of memory and arithmetic takes this many bytes and operations longer at the machine's best.
    fn bound(&self, bytes: usize, operations: usize) -> Work {
        let arithmetic_s = operations as f64 / self.ceilings.gemm_gflop_s;
        match bytes as f64 / self.ceilings.read_gb_s > arithmetic_s {
            true => Work::Bytes(bytes),
            false => Work::Operations(operations),
        }
    }
}

/// Weights in (-1, 1), unlike the activations that [`matrix`] gives: equal rows would make sums of squares, hard to round.
fn numbers(count: usize) -> Vec<f32> {
    random(count, 1)
}

fn random(count: usize, seed: u64) -> Vec<f32> {
    let bits = |i: u64| xxhash_rust::xxh3::xxh3_64_with_seed(&i.to_le_bytes(), seed) >> 40;
    (0..count as u64).map(|i| bits(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn matrix(rows: usize, columns: usize) -> Result<Tensor> {
    Tensor::from_vec(random(rows * columns, 2), (rows, columns), &Compute::cpu().device)
}

/// Little-endian bytes in `dtype`, and those of the rounded numbers in f32.
fn stored(data: &[f32], dtype: DType) -> (Vec<u8>, Vec<u8>) {
    let wide = |x: f32| x.to_le_bytes();
    match dtype {
        DType::BF16 => {
            let rounded = data.iter().map(|&x| bf16::from_f32(x));
            (rounded.clone().flat_map(bf16::to_le_bytes).collect(), rounded.flat_map(|x| wide(x.to_f32())).collect())
        }
        DType::F16 => {
            let rounded = data.iter().map(|&x| f16::from_f32(x));
            (rounded.clone().flat_map(f16::to_le_bytes).collect(), rounded.flat_map(|x| wide(x.to_f32())).collect())
        }
        _ => {
            let bytes: Vec<u8> = data.iter().flat_map(|&x| wide(x)).collect();
            (bytes.clone(), bytes)
        }
    }
}

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

fn linear(bench: &Bench) -> Outcome {
    const K: usize = 2048;
    const N: usize = 8192;
    let data = numbers(K * N);
    let chains = [DType::F32, DType::BF16, DType::F16].map(|dtype| (dtype, DenseProducts::Fma));
    // bf16 weights are kept as they are, those of f16 in two parts.
    let parts = [DType::BF16, DType::F16].map(|dtype| (dtype, DenseProducts::Bf16x3));
    for (dtype, products) in chains.into_iter().chain(parts) {
        let (bytes, wide) = stored(&data, dtype);
        let view = MatrixView { bytes: &bytes, format: dtype.into(), rows: N, columns: K };
        let (weight_dtype, name) = match products {
            DenseProducts::Fma => (dtype, "fma"),
            DenseProducts::Bf16x3 => (DType::F32, "bf16x3"),
        };
        let native = Linear::new(&Compute { weight_dtype, products, ..Compute::cpu() }, &[view], None)?;
        let view = MatrixView { bytes: &wide, format: DType::F32.into(), ..view };
        let portable = Linear::new(&Compute::cpu().portable(), &[view], None)?;
        for rows in [1, 8, 32, 64, 512] {
            let x = matrix(rows, K)?;
            let work = bench.bound(K * N * dtype.size_in_bytes() + rows * (K + N) * 4, 2 * rows * K * N);
            let shape = format!("m={rows} k={K} n={N} {} {name}", dtype.as_str());
            bench.case("linear", &shape, work, 4e-4, &|| native.forward(&x), &|| portable.forward(&x))?;
        }
    }
    Ok(())
}

/// The same product with weights in blocks, beside the portable one with the widened weights.
fn blocks(bench: &Bench) -> Outcome {
    const K: usize = 2048;
    const N: usize = 8192;
    let (bytes, _) = stored(&numbers(K * N), DType::F32);
    let view = MatrixView { bytes: &bytes, format: DType::F32.into(), rows: N, columns: K };
    for format in [GgmlDType::Q8_0, GgmlDType::Q6K, GgmlDType::Q4K, GgmlDType::Q4_0] {
        let compute = Compute { quantize: Some(format), ..Compute::cpu() };
        let portable = Linear::new(&compute.clone().portable(), &[view], None)?;
        // Rounding the rows costs about 0.4 % of their size; the exact bits are held by tests/ops/int8.rs.
        for (inputs, name, tolerance) in [(BlockInputs::Int8, "int8", 0.5), (BlockInputs::F32, "f32", 4e-4)] {
            let native = Linear::new(&Compute { block_inputs: inputs, ..compute.clone() }, &[view], None)?;
            for rows in [1, 8, 32, 512] {
                let x = matrix(rows, K)?;
                let weights = K * N / format.block_size() * format.type_size();
                let work = bench.bound(weights + rows * (K + N) * 4, 2 * rows * K * N);
                let shape = format!("m={rows} k={K} n={N} {} x {name}", compute.weight_format());
                bench.case("linear", &shape, work, tolerance, &|| native.forward(&x), &|| portable.forward(&x))?;
            }
        }
    }
    Ok(())
}

const GEOMETRY: HeadGeometry = HeadGeometry { num_heads: 32, num_kv_heads: 8, head_dim: 64 };
const BLOCK: usize = 32;

/// `batch` sequences of `context` tokens, of which the last `num_new` are in the step.
fn paged_batch(batch: usize, context: usize, num_new: usize) -> PagedBatch {
    let blocks = context.div_ceil(BLOCK);
    let mut step = PagedBatch { block_size: BLOCK, cu_seqlens_q: vec![0], cu_blocks: vec![0], ..PagedBatch::default() };
    for sequence in 0..batch {
        // Interleaved, as blocks are when sequences grow side by side.
        let table: Vec<u32> = (0..blocks).map(|index| (index * batch + sequence) as u32).collect();
        for position in context - num_new..context {
            step.positions.push(position as u32);
            step.slot_mapping.push(table[position / BLOCK] * BLOCK as u32 + (position % BLOCK) as u32);
        }
        step.cu_seqlens_q.push(step.positions.len() as u32);
        step.context_lens.push(context as u32);
        step.block_tables.extend(table);
        step.cu_blocks.push(step.block_tables.len() as u32);
    }
    step
}

/// One layer on one path: cache filled with `context` tokens per sequence.
struct Layer {
    rotary: Rotary,
    attention: Attention,
    cache: KvLayer,
}

impl Layer {
    fn new(compute: &Compute, batch: usize, context: usize) -> Result<Self> {
        let speeds: Vec<f32> = (0..32).map(|i| 10_000f32.powf(-f32::from(i as u8) / 32.0)).collect();
        let rotary = Rotary::new(compute, RotaryTable::new(&speeds, 1.0, context), GEOMETRY, HeadNorms::none());
        let attention = Attention::new(compute, GEOMETRY, 0.125, None);
        let cache = KvLayer::new(compute, GEOMETRY, batch * context.div_ceil(BLOCK), BLOCK)?;
        let step = paged_batch(batch, context, context);
        cache.write(
            &rotary.forward(&Workspace::default(), matrix(batch * context, GEOMETRY.qkv_width())?, &step)?,
            &step,
        )?;
        Ok(Self { rotary, attention, cache })
    }
}

fn attention(bench: &Bench) -> Outcome {
    for (batch, context, num_new, what) in
        [(32, 256, 1, "decode"), (32, 2048, 1, "decode"), (1, 512, 512, "prefill"), (1, 2048, 512, "prefill")]
    {
        let native = Layer::new(&Compute::cpu(), batch, context)?;
        let portable = Layer::new(&Compute::cpu().portable(), batch, context)?;
        let step = paged_batch(batch, context, num_new);
        let queries = matrix(batch * num_new, GEOMETRY.q_width())?;
        let bytes = batch * context * GEOMETRY.kv_bytes_per_token(KvFormat::F32) + 2 * queries.elem_count() * 4;
        let seen = batch * (num_new * context - num_new * (num_new - 1) / 2);
        let work = bench.bound(bytes, 4 * seen * GEOMETRY.q_width());
        let shape = format!("{what} B={batch} ctx={context} new={num_new}");
        let run = |layer: &Layer| layer.attention.forward(&queries, &layer.cache, &step);
        bench.case("attention", &shape, work, 1e-5, &|| run(&native), &|| run(&portable))?;
    }
    Ok(())
}

fn rotary_and_paged(bench: &Bench) -> Outcome {
    for (batch, context, num_new) in [(32, 256, 1), (1, 512, 512)] {
        let native = Layer::new(&Compute::cpu(), batch, context)?;
        let portable = Layer::new(&Compute::cpu().portable(), batch, context)?;
        let step = paged_batch(batch, context, num_new);
        let qkv = matrix(batch * num_new, GEOMETRY.qkv_width())?;
        let shape = format!("T={} heads=32 D=64", batch * num_new);
        let work = Work::Bytes(2 * batch * num_new * GEOMETRY.q_width() * 4);
        // The rows are rotated in place, so each run begins with a copy of them.
        let run = |layer: &Layer| layer.rotary.forward(&Workspace::default(), qkv.copy()?, &step);
        bench.case("rotary", &shape, work, 1e-6, &|| run(&native), &|| run(&portable))?;
        // What was written is compared through the attention that reads it.
        let rotated = native.rotary.forward(&Workspace::default(), qkv.copy()?, &step)?;
        let read = |layer: &Layer| {
            layer.cache.write(&rotated, &step)?;
            layer.attention.forward(&rotated, &layer.cache, &step)
        };
        let (got, want) = (to_host(&read(&native)?)?, to_host(&read(&portable)?)?);
        if got.iter().zip(&want).any(|(got, want)| (got - want).abs() > 1e-5) {
            return Err(format!("paged {shape}: native and portable caches differ, not timed").into());
        }
        let write = |layer: &Layer| layer.cache.write(&rotated, &step).map(|()| rotated.clone());
        let work = Work::Bytes(4 * batch * num_new * GEOMETRY.kv_width() * 4);
        bench.case("paged", &format!("write {shape}"), work, 0.0, &|| write(&native), &|| write(&portable))?;
    }
    Ok(())
}

fn rows(bench: &Bench) -> Outcome {
    let (native, portable) = (Compute::cpu(), Compute::cpu().portable());
    for tokens in [32, 512] {
        let (x, width) = (matrix(tokens, 2048)?, 2048);
        let norm = |compute: &Compute| Norm::rms(compute, numbers(width), 1e-6);
        let (one, other) = (norm(&native)?, norm(&portable)?);
        let work = Work::Bytes(2 * tokens * width * 4);
        let shape = format!("T={tokens} width={width}");
        bench.case("norm", &shape, work, 1e-5, &|| one.forward(&x), &|| other.forward(&x))?;

        let (x, width) = (matrix(tokens, 16384)?, 8192);
        let gated = |compute: &Compute| ActivationRows::gated(compute, Activation::Silu);
        let (one, other) = (gated(&native), gated(&portable));
        let work = Work::Bytes(3 * tokens * width * 4);
        let shape = format!("T={tokens} width={width}");
        bench.case("activation", &shape, work, 1e-5, &|| one.forward(&x), &|| other.forward(&x))?;
    }
    Ok(())
}

fn embedding(bench: &Bench) -> Outcome {
    const VOCAB: usize = 32_000;
    const HIDDEN: usize = 1024;
    let (bytes, _) = stored(&numbers(VOCAB * HIDDEN), DType::F32);
    let view = MatrixView { bytes: &bytes, format: DType::F32.into(), rows: VOCAB, columns: HIDDEN };
    let (native, portable) = (Compute::cpu(), Compute::cpu().portable());
    let reference = Embedding::table(&portable, &view)?;
    let tied = Embedding::Tied(Linear::new(&native, &[view], None)?);
    let ids: Vec<u32> = (0..512).map(|i| i * 7919 % VOCAB as u32).collect();
    for (form, table) in [("table", Embedding::table(&native, &view)?), ("tied", tied)] {
        let work = Work::Bytes(2 * ids.len() * HIDDEN * 4);
        let shape = format!("{form} T=512 width={HIDDEN}");
        let (one, other) = (|| table.forward(&native, &ids), || reference.forward(&portable, &ids));
        bench.case("embedding", &shape, work, 0.0, &one, &other)?;
    }
    Ok(())
}

/// Routing 8 of 128 experts and putting weighted rows together, without the products between.
fn experts(bench: &Bench) -> Outcome {
    let (num_experts, num_chosen, width) = (128, 8, 2048);
    let router = Router { num_chosen, normalised: true, expert_scale: None };
    let (native, portable) = (Compute::cpu(), Compute::cpu().portable());
    for tokens in [32, 512] {
        let (scores, rows) = (matrix(tokens, num_experts)?, matrix(tokens * num_chosen, width)?);
        let work = Work::Bytes((num_chosen + 1) * tokens * width * 4);
        let workspace = RefCell::new(Workspace::default());
        let run = |compute: &Compute| router.route(&scores)?.combine(compute, &mut workspace.borrow_mut(), &rows);
        let shape = format!("T={tokens} {num_chosen} of {num_experts} width={width}");
        bench.case("experts", &shape, work, 1e-4, &|| run(&native), &|| run(&portable))?;
    }
    Ok(())
}

fn main() -> Outcome {
    let bench = Bench { ceilings: machine::ceilings()?, best_gflop_s: Cell::new(0.0) };
    println!("{} on {} threads", Compute::cpu().describe(), rayon::current_num_threads());
    println!("{}", serde_json::to_string(&bench.ceilings)?);
    linear(&bench)?;
    blocks(&bench)?;
    attention(&bench)?;
    rotary_and_paged(&bench)?;
    rows(&bench)?;
    embedding(&bench)?;
    experts(&bench)?;
    let (before, after) = (bench.ceilings, machine::ceilings()?);
    println!("{}", serde_json::json!({"ceilings_after": after}));
    let moved = |before: f64, after: f64| (after / before - 1.0).abs() > 0.1;
    let beaten = bench.best_gflop_s.get() > 1.1 * before.gemm_gflop_s;
    if beaten || moved(before.gemm_gflop_s, after.gemm_gflop_s) || moved(before.read_gb_s, after.read_gb_s) {
        println!("other programs were busy: a ceiling moved or was beaten by more than 10 %, do not quote the shares");
    }
    Ok(())
}

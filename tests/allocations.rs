//! A decode step allocates no tensor: what it computes in is kept from step to step. Counted by an allocator of this binary's own, in which
//! no other test runs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use candle_core::quantized::GgmlDType;
use pairwright::engine::{Engine, EngineOptions, KvBudget, Request, SamplingParams, Task};
use pairwright::model::{self, LoadOptions, WeightsKind};
use pairwright::ops::paged::KvFormat;
use pairwright::ops::{BlockInputs, Compute, DenseProducts};

/// The system's, counting.
struct Counting;

static NUM_BYTES: AtomicUsize = AtomicUsize::new(0);
static NUM_CALLS: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

fn count(size: usize) {
    NUM_BYTES.fetch_add(size, Relaxed);
    NUM_CALLS.fetch_add(1, Relaxed);
    LARGEST.fetch_max(size, Relaxed);
}

// SAFETY: the system's allocator does the work; counting touches no memory but its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sequences that decode together.
const BATCH: usize = 48;

/// Rows of 512 and more: with 48 sequences the smallest activation of them all takes 96 KiB.
const DENSE: &str = r#"{"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "intermediate_size": 768, "vocab_size": 2048, "max_position_embeddings": 512, "rms_norm_eps": 1e-6}"#;
const EXPERTS: &str = r#"{"model_type": "qwen3_moe", "hidden_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 768, "moe_intermediate_size": 512, "num_experts": 4,
    "num_experts_per_tok": 2, "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "vocab_size": 2048, "max_position_embeddings": 512, "rms_norm_eps": 1e-6}"#;

/// Bytes and calls per step, and the largest allocation of all, of decode steps after warm-up.
fn steady(config: &str, compute: &Compute) -> (usize, usize, usize) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let load = LoadOptions { compute: compute.clone(), weights: WeightsKind::Dummy { seed: 3 }, max_len: Some(512) };
    let decoder = model::load(dir.path(), &load).unwrap();
    let options =
        EngineOptions { max_batch: BATCH, kv_budget: KvBudget::Tokens(BATCH * 128), ..EngineOptions::default() };
    let mut engine = Engine::new(decoder, &options).unwrap();
    for index in 0..BATCH as u32 {
        let params = SamplingParams { temperature: 0.0, max_tokens: 100, ..SamplingParams::default() };
        let prompt = (0..8).map(|i| (index * 41 + i * 7) % 2048).collect();
        engine.add(Request { prompt, task: Task::Generate(params), key: u64::from(index) }).unwrap();
    }
    let mut step = |num_steps| (0..num_steps).for_each(|_| assert!(!engine.step().unwrap().is_empty()));
    step(20);
    const NUM_STEPS: usize = 40;
    [&NUM_BYTES, &NUM_CALLS, &LARGEST].iter().for_each(|counter| counter.store(0, Relaxed));
    step(NUM_STEPS);
    (NUM_BYTES.load(Relaxed) / NUM_STEPS, NUM_CALLS.load(Relaxed) / NUM_STEPS, LARGEST.load(Relaxed))
}

/// What is left are lists of a step's tasks and events, and threads' scratch: in attention some 10 KB, in products 6 KB of sums, for each
/// of the parts that a loop falls into, and 32 KB where halves are widened. The smallest tensor takes more than twice what is let pass.
#[test]
fn a_decode_step_allocates_no_tensor() {
    let dense = Compute::cpu();
    let quantised = Compute { quantize: Some(GgmlDType::Q8_0), block_inputs: BlockInputs::Int8, ..Compute::cpu() };
    let split = Compute { products: DenseProducts::Bf16x3, ..Compute::cpu() };
    let cached = Compute { kv_format: KvFormat::Int8, ..Compute::cpu() };
    for (name, config, compute, most_bytes) in [
        ("dense", DENSE, &dense, 2000 << 10),
        ("dense", DENSE, &split, 2000 << 10),
        ("dense", DENSE, &cached, 2000 << 10),
        ("dense", DENSE, &quantised, 3000 << 10),
        ("experts", EXPERTS, &dense, 3000 << 10),
    ] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let (bytes, calls, largest) = pool.install(|| steady(config, compute));
        let what = format!("{name} {}", compute.formats(false));
        println!("{what}: {bytes} bytes in {calls} allocations per step, the largest {largest}");
        assert!(largest <= 40 << 10, "{what}: an allocation of {largest} bytes");
        assert!(bytes <= most_bytes, "{what}: {bytes} bytes per step");
    }
}

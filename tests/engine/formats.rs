//! The same bits in any batch whatever the formats: a cache that rounds, weights in blocks, activations rounded to 8 bits.

use candle_core::quantized::GgmlDType;
use pairwright::engine::{Engine, EngineOptions, KvBudget, Request};
use pairwright::ops::paged::KvFormat;
use pairwright::ops::{BlockInputs, Compute, DenseProducts};

use super::batches::{Output, assert_same, requests};
use super::{decoder_in, options, run};

/// Every format of the cache; q8_0 weights (all rows but one kind are whole blocks) with rounded activations; inputs in three parts.
fn computes() -> Vec<Compute> {
    let cached = [KvFormat::F16, KvFormat::Bf16, KvFormat::Int8];
    let quantised = Compute { quantize: Some(GgmlDType::Q8_0), block_inputs: BlockInputs::Int8, ..Compute::cpu() };
    let mut computes: Vec<Compute> = cached.map(|kv_format| Compute { kv_format, ..Compute::cpu() }).into();
    computes.push(quantised.clone());
    computes.push(Compute { kv_format: KvFormat::Int8, ..quantised });
    computes.push(Compute { products: DenseProducts::Bf16x3, ..Compute::cpu() });
    computes
}

#[test]
fn neither_batch_nor_memory_nor_order_nor_threads_change_a_bit_in_any_format() {
    let mut different: Vec<Vec<Output>> = Vec::new();
    for compute in computes() {
        let what = compute.formats(false);
        let engine = |options: &EngineOptions| Engine::new(decoder_in(compute.clone(), None), options).unwrap();
        let alone = EngineOptions { max_batch: 1, prefix_cache: false, max_step_tokens: 4096, ..options() };
        let want = run(&mut engine(&alone), &requests());
        for options in [
            EngineOptions { max_batch: 64, prefix_cache: false, ..options() },
            EngineOptions { max_batch: 7, max_step_tokens: 9, ..options() },
            EngineOptions { max_batch: 3, block_size: 256, ..options() },
        ] {
            assert_same(&run(&mut engine(&options), &requests()), &want, &format!("{what}: {options:?}"));
        }
        let small = KvBudget::Tokens(176);
        let mut tight = engine(&EngineOptions { max_batch: 7, kv_budget: small, max_step_tokens: 20, ..options() });
        assert_same(&run(&mut tight, &requests()), &want, &format!("{what}: preempted"));
        assert!(tight.stats().num_preemptions > 0, "{what}: the budget was meant to be too small");
        // In another order, and again where every full block is found.
        let mut warm = engine(&options());
        let order: Vec<usize> = (0..30).map(|i| (i * 7 + 11) % 30).collect();
        let shuffled: Vec<Request> = order.iter().map(|&index| requests()[index].clone()).collect();
        let got = run(&mut warm, &shuffled);
        order.iter().zip(&got).for_each(|(&index, got)| assert_eq!(*got, want[index], "{what}: request {index}"));
        let reused = warm.stats().num_reused_tokens;
        assert_same(&run(&mut warm, &requests()), &want, &format!("{what}: prefix hits"));
        assert!(warm.stats().num_reused_tokens > reused + 100, "{what}");
        for num_threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().unwrap();
            let got = pool.install(|| run(&mut engine(&options()), &requests()));
            assert_same(&got, &want, &format!("{what}: {num_threads} threads"));
        }
        assert!(different.iter().all(|other| *other != want), "{what}: the format was meant to show in some logprob");
        different.push(want);
    }
}

//! A candidate depends on model, prompt, parameters and seed alone: sampled outputs are the same bits for any batch size,
//! order, memory, block size, step size and number of threads, with and without the prefix cache.

use pairwright::engine::{EngineOptions, FinishReason, KvBudget, Request, SamplingParams, SequenceOutput};

use super::{engine, finish, generate, options, prompt, run, score, tokens};

/// Thirty requests: shared beginnings, every kind of parameter, some scores.
pub fn requests() -> Vec<Request> {
    (0..30u32)
        .map(|index| {
            let mut ids = prompt([0, 20, 48, 64][index as usize % 4], index % 2);
            ids.extend(prompt(1 + index as usize % 13, index));
            let i = index as usize;
            let params = SamplingParams {
                temperature: [0.9, 1.4, 0.0][i % 3],
                top_k: [None, Some(20), None, Some(5)][i % 4],
                top_p: [0.95, 1.0, 0.7][i / 2 % 3],
                min_p: [0.0, 0.05][i % 2],
                repetition_penalty: [1.0, 1.2][i / 3 % 2],
                presence_penalty: [0.0, 0.4, 0.0][i % 3],
                frequency_penalty: [0.0, 0.0, 0.3, 0.0][i % 4],
                seed: 77,
                stop_token_ids: if i.is_multiple_of(5) { (60..97).collect() } else { Vec::new() },
                max_tokens: [5, 30, 44, 17][i / 2 % 4],
                top_logprobs: [0, 3][i % 2],
                prompt_logprobs: i.is_multiple_of(6).then_some(i % 4 * 5),
                constraint: None,
            };
            if index % 7 == 3 { score(&ids, &[1, 5, 96, 5]) } else { generate(ids, params, u64::from(index)) }
        })
        .collect()
}

pub type Output = (FinishReason, SequenceOutput);

fn outputs(options: &EngineOptions) -> Vec<Output> {
    run(&mut engine(options), &requests())
}

pub fn assert_same(got: &[Output], want: &[Output], what: &str) {
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got, want, "{what}: request {index}");
    }
}

fn alone() -> Vec<Output> {
    outputs(&EngineOptions { max_batch: 1, prefix_cache: false, max_step_tokens: 4096, ..options() })
}

#[test]
fn neither_batch_nor_memory_nor_blocks_change_a_bit() {
    let want = alone();
    assert!(want.iter().any(|(reason, _)| *reason == FinishReason::Stop));
    assert!(want.iter().filter(|(_, output)| output.tokens.len() >= 30).count() > 5);
    let (small, tokens) = (KvBudget::Tokens(176), KvBudget::Tokens);
    for options in [
        EngineOptions { max_batch: 7, ..options() },
        EngineOptions { max_batch: 64, ..options() },
        EngineOptions { max_batch: 64, prefix_cache: false, ..options() },
        EngineOptions { max_batch: 1, max_step_tokens: 1, ..options() },
        EngineOptions { max_batch: 7, max_step_tokens: 9, ..options() },
        EngineOptions { max_batch: 64, max_step_tokens: 2000, ..options() },
        EngineOptions { max_batch: 7, block_size: 32, ..options() },
        EngineOptions { max_batch: 64, block_size: 128, kv_budget: tokens(10_000), ..options() },
        EngineOptions { max_batch: 3, block_size: 256, ..options() },
        EngineOptions { kv_budget: KvBudget::Bytes(1 << 20), ..options() },
    ] {
        assert_same(&outputs(&options), &want, &format!("{options:?}"));
    }
    for (max_step_tokens, prefix_cache) in [(512, true), (512, false), (20, true), (7, false)] {
        let options = EngineOptions { max_batch: 7, kv_budget: small, max_step_tokens, prefix_cache, ..options() };
        let mut engine = engine(&options);
        assert_same(&run(&mut engine, &requests()), &want, &format!("{options:?}"));
        assert!(engine.stats().num_preemptions > 0, "{options:?}: the budget was meant to be too small");
        assert!(engine.stats().peak_blocks <= engine.stats().num_blocks);
    }
}

#[test]
fn neither_order_nor_company_changes_a_bit() {
    let want = alone();
    let requests = requests();
    for step in [29, 7, 13] {
        let order: Vec<usize> = (0..30).map(|i| (i * step + 11) % 30).collect();
        let shuffled: Vec<Request> = order.iter().map(|&index| requests[index].clone()).collect();
        let got = run(&mut engine(&EngineOptions { max_batch: 7, ..options() }), &shuffled);
        for (&index, got) in order.iter().zip(&got) {
            assert_eq!(*got, want[index], "request {index}");
        }
    }
    // Added while others run, into an engine whose cache is warm.
    let mut engine = engine(&options());
    run(&mut engine, &requests);
    let mut ids = Vec::new();
    let mut events = Vec::new();
    for request in &requests {
        ids.push(engine.add(request.clone()).unwrap());
        events.extend(engine.step().unwrap());
    }
    let ended = finish(&mut engine, events);
    assert!(engine.stats().num_reused_tokens > 100);
    let got: Vec<Output> = ids.iter().map(|id| ended[id].clone()).collect();
    assert_same(&got, &want, "one by one");
}

#[test]
fn threads_do_not_change_a_bit() {
    let want = alone();
    for num_threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().unwrap();
        let got = pool.install(|| outputs(&options()));
        assert_same(&got, &want, &format!("{num_threads} threads"));
    }
}

#[test]
fn seeds_and_keys_make_other_answers_and_nothing_else_does() {
    let params = SamplingParams { temperature: 0.9, max_tokens: 24, seed: 5, ..SamplingParams::default() };
    let ask = |seed, key| generate(prompt(12, 3), SamplingParams { seed, ..params.clone() }, key);
    let requests: Vec<Request> = (0..6).map(|key| ask(5, key)).chain((6..12).map(|seed| ask(seed, 0))).collect();
    let outputs = run(&mut engine(&options()), &requests);
    for (index, (_, one)) in outputs.iter().enumerate() {
        for (_, other) in &outputs[index + 1..] {
            assert_ne!(tokens(one), tokens(other));
        }
    }
    let mut again = engine(&options());
    assert_eq!(run(&mut again, &requests), outputs);
    assert_eq!(run(&mut again, &[ask(5, 3)])[0], outputs[3]);
}

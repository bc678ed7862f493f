//! One request at a time: how it ends, what it reports, what is refused, and that a refusal or a stop leaves no trace.

use pairwright::engine::{Engine, EngineError, EngineOptions, FinishReason, KvBudget, SamplingParams, Task};

use super::{VOCAB, decoder, engine, finish, generate, greedy, options, prompt, run, score, tokens};

#[test]
fn scores_are_a_distribution_over_the_vocabulary() {
    let mut engine = engine(&options());
    let all: Vec<u32> = (0..VOCAB).collect();
    for (reason, output) in run(&mut engine, &[score(&prompt(1, 0), &all), score(&prompt(90, 1), &all)]) {
        assert_eq!((reason, output.tokens.len(), output.prompt_logprobs.len()), (FinishReason::Stop, 0, 0));
        let total: f64 = output.target_logprobs.iter().map(|&logprob| f64::from(logprob).exp()).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
    }
    let outputs = run(&mut engine, &[score(&prompt(9, 2), &[]), score(&prompt(9, 2), &[4, 4, 0])]);
    assert!(outputs[0].1.target_logprobs.is_empty());
    let twice = &outputs[1].1.target_logprobs;
    assert_eq!((twice.len(), twice[0]), (3, twice[1]), "targets are answered in their order, doubles included");
}

#[test]
fn prompt_log_probabilities_are_the_chain_of_scores() {
    let ids = prompt(50, 4);
    let with = |max_tokens| SamplingParams { prompt_logprobs: Some(0), ..greedy(max_tokens) };
    let mut engine = engine(&options());
    let chain: Vec<_> = (1..ids.len()).map(|end| score(&ids[..end], &[ids[end]])).collect();
    let chain = run(&mut engine, &chain).into_iter().map(|(_, output)| Some(output.target_logprobs[0]));
    let want: Vec<Option<f32>> = [None].into_iter().chain(chain).collect();
    for max_tokens in [0, 1, 9] {
        let (_, output) = &run(&mut engine, &[generate(ids.clone(), with(max_tokens), 0)])[0];
        assert_eq!(output.prompt_logprobs, want);
        assert_eq!(output.tokens.len(), max_tokens);
    }
    let (_, output) = &run(&mut engine, &[generate(vec![7], with(2), 0)])[0];
    assert_eq!(output.prompt_logprobs, [None]);
    // From some place on: the same numbers, and none before it.
    for from in [1, 7, 49, 50, 90] {
        let params = SamplingParams { prompt_logprobs: Some(from), ..greedy(1) };
        let (_, output) = &run(&mut engine, &[generate(ids.clone(), params, 0)])[0];
        let (before, rest) = output.prompt_logprobs.split_at(from.min(ids.len()));
        assert!(before.iter().all(Option::is_none) && rest == &want[before.len()..], "{from}");
    }
    // The engine has seen this prompt, and takes of it what lies before the place: whole blocks of 16.
    let reused = |from| {
        let before = engine.stats().num_reused_tokens;
        let params = SamplingParams { prompt_logprobs: Some(from), ..greedy(1) };
        run(&mut engine, &[generate(ids.clone(), params, 0)]);
        engine.stats().num_reused_tokens - before
    };
    assert_eq!([0, 16, 17, 33, 90].map(reused), [0, 0, 16, 32, 48]);
}

/// The second prompt is half computed when the first needs its blocks: its positions must not be reported twice.
#[test]
fn prompt_log_probabilities_survive_a_preemption() {
    for from in [0, 20] {
        let with = SamplingParams { prompt_logprobs: Some(from), ..greedy(3) };
        let requests = [generate(prompt(14, 1), greedy(60), 0), generate(prompt(100, 2), with, 1)];
        let want = run(&mut engine(&options()), &requests);
        let tight = EngineOptions { kv_budget: KvBudget::Tokens(112), max_batch: 2, max_step_tokens: 3, ..options() };
        let mut engine = engine(&tight);
        let got = run(&mut engine, &requests);
        assert!(engine.stats().num_preemptions > 0);
        assert_eq!(want[1].1.prompt_logprobs.len(), 100);
        for ((_, got), (_, want)) in got.iter().zip(&want) {
            let pairs = got.prompt_logprobs.iter().zip(&want.prompt_logprobs);
            assert_eq!(pairs.take_while(|(got, want)| got == want).count(), want.prompt_logprobs.len());
            assert_eq!(got.tokens, want.tokens);
        }
    }
}

#[test]
fn answers_end_at_their_limits() {
    let mut engine = engine(&options());
    for (max_tokens, len) in [(0, 0), (1, 1), (7, 7)] {
        let (reason, output) = &run(&mut engine, &[generate(prompt(10, 5), greedy(max_tokens), 0)])[0];
        assert_eq!((*reason, output.tokens.len()), (FinishReason::Length, len));
    }
    // The context holds 160 tokens, answer included.
    let (reason, output) = &run(&mut engine, &[generate(prompt(150, 5), greedy(usize::MAX), 0)])[0];
    assert_eq!((*reason, output.tokens.len()), (FinishReason::Length, 10));
    let (reason, output) = &run(&mut engine, &[generate(prompt(159, 5), greedy(40), 0)])[0];
    assert_eq!((*reason, output.tokens.len()), (FinishReason::Length, 1));
    let shorter = Engine::new(decoder(Some(32)), &options());
    let (reason, output) = &run(&mut shorter.unwrap(), &[generate(prompt(30, 5), greedy(40), 0)])[0];
    assert_eq!((*reason, output.tokens.len()), (FinishReason::Length, 2));
}

#[test]
fn stop_tokens_end_an_answer_and_are_no_part_of_it() {
    let mut engine = engine(&options());
    let sampled = SamplingParams { temperature: 1.0, max_tokens: 40, ..SamplingParams::default() };
    let ask = |params: SamplingParams| generate(prompt(20, 6), params, 8);
    let (reason, whole) = run(&mut engine, &[ask(sampled.clone())]).remove(0);
    assert_eq!((reason, whole.tokens.len()), (FinishReason::Length, 40));
    let all = tokens(&whole);
    for at in [0, 3, 25] {
        let first = all.iter().position(|&token| token == all[at]).unwrap();
        let stopping = SamplingParams { stop_token_ids: vec![all[at]], ..sampled.clone() };
        let (reason, output) = run(&mut engine, &[ask(stopping)]).remove(0);
        assert_eq!(reason, FinishReason::Stop);
        assert_eq!(output.tokens, whole.tokens[..first]);
    }
}

#[test]
fn a_stop_from_outside_frees_the_blocks_and_harms_nobody() {
    let requests: Vec<_> = (0..5).map(|i| generate(prompt(30 + i as usize, i), greedy(30), u64::from(i))).collect();
    let want = run(&mut engine(&options()), &requests);
    let tight = EngineOptions { kv_budget: KvBudget::Tokens(160), max_batch: 3, ..options() };
    for stopped in 0..5 {
        let mut engine = engine(&tight);
        let ids: Vec<_> = requests.iter().map(|request| engine.add(request.clone()).unwrap()).collect();
        (0..6).for_each(|_| _ = engine.step().unwrap());
        let free = engine.num_free_blocks();
        let partial = engine.stop(ids[stopped]).expect("it runs or waits");
        assert!(engine.num_free_blocks() >= free && engine.num_sequences() == 4);
        assert!(stopped > 0 || (engine.num_free_blocks() > free && !partial.tokens.is_empty()));
        assert_eq!(partial.tokens, want[stopped].1.tokens[..partial.tokens.len()]);
        assert_eq!(engine.stop(ids[stopped]), None, "once");
        let mut ended = 0;
        while engine.num_sequences() > 0 {
            for event in engine.step().unwrap() {
                if let pairwright::engine::Event::Finished { id, output, .. } = event {
                    let index = ids.iter().position(|&other| other == id).unwrap();
                    assert!(index != stopped && output == want[index].1, "request {index}");
                    ended += 1;
                }
            }
        }
        assert_eq!((ended, engine.num_free_blocks()), (4, engine.stats().num_blocks));
    }
    assert_eq!(engine(&options()).stop(99), None);
}

#[test]
fn what_can_never_be_served_is_refused_and_leaves_no_trace() {
    let tight = EngineOptions { kv_budget: KvBudget::Tokens(64), ..options() };
    let mut engine = engine(&tight);
    let good = generate(prompt(20, 9), greedy(12), 0);
    let want = run(&mut engine, std::slice::from_ref(&good));
    let running = engine.add(good).unwrap();
    let events = engine.step().unwrap();
    let free = engine.num_free_blocks();
    let mut refused = |request, parts: &[&str]| -> EngineError {
        let error = engine.add(request).expect_err("it was meant to be refused");
        for part in parts {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!((engine.num_sequences(), engine.num_free_blocks()), (1, free));
        error
    };
    let error = refused(generate(vec![], greedy(1), 0), &["no tokens"]);
    assert!(matches!(error, EngineError::EmptyPrompt));
    assert!(matches!(refused(score(&[], &[1]), &[]), EngineError::EmptyPrompt));
    let error = refused(generate(prompt(160, 1), greedy(1), 0), &["160", "hint: "]);
    assert!(matches!(error, EngineError::PromptTooLong { num_tokens: 160, max_len: 160 }));
    assert!(matches!(refused(score(&prompt(161, 1), &[1]), &["161"]), EngineError::PromptTooLong { .. }));
    let error = refused(generate(prompt(40, 1), greedy(30), 0), &["70", "64", "hint: "]);
    assert!(matches!(error, EngineError::KvTooSmall { num_tokens: 70, capacity: 64 }));
    assert!(matches!(refused(score(&prompt(65, 1), &[1]), &[]), EngineError::KvTooSmall { .. }));
    for request in [generate(vec![5, 97], greedy(1), 0), score(&[5, 97], &[1]), score(&[5], &[1, 97])] {
        let error = refused(request, &["97", "vocabulary", "hint: "]);
        assert!(matches!(error, EngineError::UnknownToken { token: 97, vocab_size: 97 }));
    }
    refused(score(&[5], &[u32::MAX]), &["4294967295"]);
    let mut outputs = finish(&mut engine, events);
    assert_eq!(outputs.remove(&running).as_ref(), Some(&want[0]));
    // A whole context may be scored, and a whole cache filled.
    assert_eq!(run(&mut engine, &[score(&prompt(64, 1), &[1])])[0].1.target_logprobs.len(), 1);
    assert_eq!(run(&mut engine, &[generate(prompt(40, 1), greedy(24), 0)])[0].1.tokens.len(), 24);
}

#[test]
fn engines_that_cannot_work_are_refused() {
    let refused = |options: EngineOptions| match Engine::new(decoder(None), &options) {
        Err(error) => error,
        Ok(_) => panic!("{options:?} was meant to be refused"),
    };
    let none = refused(EngineOptions { kv_budget: KvBudget::Tokens(0), ..options() });
    assert!(matches!(none, EngineError::KvTooSmall { num_tokens: 16, capacity: 0 }), "{none}");
    let few = refused(EngineOptions { kv_budget: KvBudget::Bytes(100), ..options() });
    assert!(matches!(few, EngineError::KvTooSmall { .. }), "{few}");
    for block_size in [0, 1, 24, 512] {
        let error = refused(EngineOptions { block_size, ..options() }).to_string();
        assert!(error.contains(&format!("block size of {block_size}")), "{error}");
    }
    for kv_budget in [KvBudget::Tokens(usize::MAX), KvBudget::Bytes(usize::MAX)] {
        let engine = Engine::new(decoder(None), &EngineOptions { kv_budget, max_batch: 2, ..options() }).unwrap();
        assert_eq!(engine.num_free_blocks(), 20, "two sequences of 160 tokens in blocks of 16");
    }
    let endless = EngineOptions { max_batch: usize::MAX, kv_budget: KvBudget::Tokens(64), ..options() };
    assert_eq!(run(&mut engine(&endless), &[generate(prompt(9, 1), greedy(3), 0)])[0].1.tokens.len(), 3);
    let single = EngineOptions { max_batch: 0, max_step_tokens: 0, ..options() };
    assert_eq!(run(&mut engine(&single), &[generate(prompt(9, 1), greedy(3), 0)])[0].1.tokens.len(), 3);
}

#[test]
fn counts_add_up() {
    let mut engine = engine(&EngineOptions { prefix_cache: false, ..options() });
    let requests: Vec<_> = (0..6).map(|i| generate(prompt(20 + i as usize, i), greedy(10), 0)).collect();
    run(&mut engine, &requests);
    let stats = engine.stats();
    assert_eq!((stats.num_prefill_tokens, stats.num_output_tokens), ((20..26).sum::<u64>(), 60));
    assert_eq!((stats.num_decode_tokens, stats.peak_batch, stats.num_preemptions), (54, 6, 0));
    assert_eq!((stats.num_blocks, stats.block_size, stats.num_reused_tokens), (256, 16, 0));
    assert!(stats.peak_blocks >= 12 && stats.prefill_s > 0.0 && stats.decode_s > 0.0);
    assert_eq!((stats.num_steps, stats.num_sequence_steps), (10, 60));
    assert!(stats.scheduler_s > 0.0 && stats.sampler_s > 0.0);
    assert!(stats.sampler_s < stats.prefill_s + stats.decode_s);
    run(&mut engine, &requests[..2]);
    let since = engine.stats().since(&stats);
    assert_eq!((since.num_steps, since.num_sequence_steps, since.num_output_tokens), (10, 20, 20));
    assert!(since.scheduler_s > 0.0 && since.scheduler_s < engine.stats().scheduler_s);
    assert!(since.sampler_s > 0.0 && since.sampler_s < engine.stats().sampler_s);
    assert!(matches!(requests[0].task, Task::Generate(_)));
    let decoder = engine.into_decoder();
    assert_eq!(decoder.spec().vocab_size, 97);
}

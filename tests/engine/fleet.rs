//! Several engines fed as one: the answers of one engine, whichever serves a request; errors, stops and ends.

use std::collections::BTreeMap;

use pairwright::engine::{EngineError, EngineOptions, Event, FinishReason, Fleet, Request, SequenceId, SequenceOutput};

use super::{engine, generate, greedy, options, prompt, score};

fn fleet(count: usize, options: &EngineOptions) -> Fleet {
    Fleet::new((0..count).map(|_| engine(options)).collect()).unwrap()
}

fn requests() -> Vec<Request> {
    let answer =
        |index: u32| generate(prompt(3 + index as usize * 5, index), greedy(2 + index as usize), u64::from(index));
    (0..16).map(answer).chain((0..5).map(|index| score(&prompt(20, index), &[1, 2, 3]))).collect()
}

/// Steps until all have ended.
fn finish(fleet: &mut Fleet) -> BTreeMap<SequenceId, (FinishReason, SequenceOutput)> {
    let mut outputs = BTreeMap::new();
    while fleet.num_sequences() > 0 {
        for event in fleet.step().unwrap() {
            if let Event::Finished { id, reason, output } = event {
                assert!(outputs.insert(id, (reason, output)).is_none(), "{id} ended twice");
            }
        }
    }
    assert_eq!(fleet.num_free_blocks(), fleet.stats().num_blocks, "an idle fleet holds no block");
    outputs
}

#[test]
fn several_engines_give_what_one_gives() {
    let mut want = None;
    for count in [1, 2, 3] {
        let mut fleet = fleet(count, &EngineOptions { max_batch: 4, ..options() });
        assert_eq!((fleet.num_engines(), fleet.vocab_size()), (count, 97));
        let ids: Vec<SequenceId> = requests().into_iter().map(|request| fleet.add(request).unwrap()).collect();
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len(), "each id once");
        let mut outputs = finish(&mut fleet);
        let got: Vec<_> = ids.iter().map(|id| outputs.remove(id).unwrap()).collect();
        let stats = fleet.stats();
        assert_eq!(stats.num_output_tokens, (2..18).sum::<u64>());
        assert_eq!(*want.get_or_insert_with(|| got.clone()), got, "{count} engines");
        assert_eq!(fleet.step().unwrap(), [], "nothing is left to do");
    }
    assert!(matches!(Fleet::new(Vec::new()), Err(EngineError::NoEngine)));
}

#[test]
fn requests_that_come_together_stay_together_and_the_idlest_engine_takes_them() {
    let mut fleet = fleet(2, &options());
    let alike = || vec![generate(prompt(60, 4), greedy(3), 0); 5];
    let (first, second) = (fleet.add_all(alike()).unwrap(), fleet.add_all(alike()).unwrap());
    let engines = |ids: &[SequenceId]| ids.iter().map(|id| id % 2).collect::<std::collections::BTreeSet<_>>();
    assert_eq!((engines(&first).len(), engines(&second).len()), (1, 1));
    assert_ne!(engines(&first), engines(&second));
    finish(&mut fleet);
    assert_eq!(fleet.stats().num_reused_tokens, 2 * 4 * 48, "what a row's samples share is computed once");
}

#[test]
fn a_request_that_can_never_be_served_is_refused_at_once_and_leaves_no_trace() {
    let mut fleet = fleet(2, &options());
    let bad = vec![generate(prompt(5, 1), greedy(3), 0), generate(vec![97], greedy(3), 0)];
    assert!(matches!(fleet.add_all(bad), Err(EngineError::UnknownToken { token: 97, .. })));
    assert!(matches!(fleet.add(generate(Vec::new(), greedy(3), 0)), Err(EngineError::EmptyPrompt)));
    assert_eq!((fleet.num_sequences(), finish(&mut fleet).len()), (0, 0));
}

#[test]
fn a_stop_comes_back_as_an_end_and_a_dropped_fleet_ends() {
    let mut fleet = fleet(2, &options());
    let ids: Vec<SequenceId> =
        (0..6).map(|salt| fleet.add(generate(prompt(9, salt), greedy(140), 0)).unwrap()).collect();
    assert!(!fleet.step().unwrap().is_empty());
    assert!(fleet.stop(ids[3]).is_none());
    let outputs = finish(&mut fleet);
    assert_eq!(outputs.len(), 6);
    let (reason, output) = &outputs[&ids[3]];
    assert!(*reason == FinishReason::Stop && output.tokens.len() < 140, "{} tokens", output.tokens.len());
    assert_eq!(outputs[&ids[2]].1.tokens.len(), 140);
    fleet.add(generate(prompt(9, 7), greedy(140), 0)).unwrap();
    drop(fleet);
}

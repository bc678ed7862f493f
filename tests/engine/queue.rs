//! The order in which waiting sequences start, that no place stays empty for a step, and that a long queue costs a step no
//! more than a short one. Work is counted, not timed; `cargo bench --bench scheduler` times it.

use pairwright::engine::block_manager::BlockManager;
use pairwright::engine::scheduler::{Limits, Scheduled, Scheduler};
use pairwright::engine::sequence::Sequence;
use pairwright::engine::{Request, SamplingParams, SequenceId, Task};

const SIZE: usize = 4;

fn scheduler(num_blocks: usize, max_batch: usize) -> Scheduler {
    let limits = Limits { max_batch, max_step_tokens: 64, prefix_cache: true };
    Scheduler::new(BlockManager::new(num_blocks, SIZE), limits)
}

fn add(scheduler: &mut Scheduler, prompt: Vec<u32>, new_tokens: usize) -> SequenceId {
    let max_len = prompt.len() + new_tokens;
    let task = Task::Generate(SamplingParams::default());
    scheduler.add(Sequence::new(Request { prompt, task, key: 0 }, max_len, SIZE))
}

/// One step with the next one prepared; `ends` says who ends against expectation. Token 7 is always chosen.
fn step(scheduler: &mut Scheduler, ends: impl Fn(SequenceId) -> bool) -> Vec<SequenceId> {
    let step = scheduler.schedule();
    let tokens = |part: &Scheduled| scheduler.sequence(part.id).map_or(0, |sequence| sequence.tokens.len());
    let whole: Vec<bool> = step.iter().map(|part| part.start + part.num_tokens == tokens(part)).collect();
    step.iter().for_each(|&part| scheduler.computed(part));
    scheduler.prepare();
    for (part, _) in step.iter().zip(whole).filter(|(_, whole)| *whole) {
        let sequence = scheduler.sequence(part.id).unwrap();
        let last = sequence.tokens.len() + 1 >= sequence.max_len;
        if last || ends(part.id) {
            scheduler.finish(part.id).unwrap();
        } else {
            scheduler.push(part.id, 7);
        }
    }
    step.iter().map(|part| part.id).collect()
}

fn nobody(_: SequenceId) -> bool {
    false
}

#[test]
fn the_longest_start_first_and_equals_in_order() {
    let mut scheduler = scheduler(100, 2);
    let ids: Vec<_> = [3, 9, 0, 5, 9].into_iter().map(|new| add(&mut scheduler, vec![new as u32; 3], new)).collect();
    let mut started = Vec::new();
    while scheduler.num_sequences() > 0 {
        let new: Vec<_> = step(&mut scheduler, nobody).into_iter().filter(|id| !started.contains(id)).collect();
        started.extend(new);
    }
    assert_eq!(started, [ids[1], ids[4], ids[3], ids[0], ids[2]]);
    assert_eq!(scheduler.blocks().num_free(), 100);
}

#[test]
fn no_place_stays_empty_for_a_step() {
    // Ends that are known: the next ones are in the prepared step.
    let mut known = scheduler(100, 2);
    (0..8).for_each(|salt| _ = add(&mut known, vec![salt; 3], 0));
    let mut num_steps = 0;
    while known.num_sequences() > 0 {
        assert_eq!(step(&mut known, nobody).len(), 2);
        num_steps += 1;
    }
    assert_eq!(num_steps, 4);
    // An end that is not: the prepared step loses it, and another takes its place before the step is gathered.
    let mut unknown = scheduler(100, 2);
    let ids: Vec<_> = (0..3).map(|salt| add(&mut unknown, vec![salt; 3], 9)).collect();
    assert_eq!(step(&mut unknown, nobody), ids[..2]);
    assert_eq!(step(&mut unknown, |id| id == ids[0]), ids[..2]);
    assert_eq!(step(&mut unknown, nobody), ids[1..]);
    // So do an end from outside, and an arrival.
    unknown.finish(ids[1]).unwrap();
    let late = add(&mut unknown, vec![9; 3], 9);
    assert_eq!(step(&mut unknown, nobody), [ids[2], late]);
    // Nobody of the prepared step is left: a new one is planned.
    unknown.finish(ids[2]).unwrap();
    unknown.finish(late).unwrap();
    let last = add(&mut unknown, vec![8; 3], 2);
    assert_eq!(step(&mut unknown, nobody), [last]);
    assert_eq!(step(&mut unknown, nobody), [last]);
    assert!(step(&mut unknown, nobody).is_empty());
    assert_eq!(unknown.blocks().num_free(), 100);
}

/// Blocks of a prepared step that is never run must not be found by others: nothing is in them.
#[test]
fn blocks_of_a_step_that_never_runs_are_not_found() {
    let mut scheduler = scheduler(100, 2);
    let first = add(&mut scheduler, vec![1; 3], 9);
    step(&mut scheduler, nobody);
    let prompt: Vec<u32> = (0..13).collect();
    let second = add(&mut scheduler, prompt.clone(), 9);
    // Its prompt is scheduled, but the step is dropped: stopped before it is gathered.
    let planned = scheduler.schedule();
    assert_eq!(planned.iter().map(|part| part.id).collect::<Vec<_>>(), [first, second]);
    scheduler.finish(second).unwrap();
    scheduler.computed(planned[0]);
    scheduler.push(first, 7);
    let third = add(&mut scheduler, prompt, 9);
    let planned = scheduler.schedule();
    assert_eq!(planned[1], Scheduled { id: third, start: 0, num_tokens: 13 });
}

/// Steps of a full batch with `queued` waiting ones: how many of these were looked at.
fn examined(queued: u32, prompt: impl Fn(u32) -> Vec<u32>, steps: usize) -> u64 {
    let mut scheduler = scheduler(400, 8);
    let ids: Vec<_> = (0..queued).map(|salt| add(&mut scheduler, prompt(salt), 6 + salt as usize % 2)).collect();
    // Some are stopped while they wait.
    ids.iter().rev().step_by(10).for_each(|&id| _ = scheduler.finish(id).unwrap());
    (0..steps).for_each(|_| _ = step(&mut scheduler, |id| id % 5 == 3));
    assert!(scheduler.num_running() > 4 && scheduler.num_sequences() > 100);
    scheduler.counters().num_examined
}

#[test]
fn a_long_queue_costs_a_step_no_more_than_a_short_one() {
    let own = |salt: u32| (salt..salt + 7).collect();
    let few = examined(200, own, 30);
    assert_eq!(examined(10_000, own, 30), few);
    assert!(few < 60, "{few}");
    // All wait for one beginning at first: a step sets a bounded number aside, and each of these only once.
    let shared = |salt: u32| (0..12).chain([salt]).collect();
    let many = examined(10_000, shared, 30);
    assert!(many < 500, "{many}");
}

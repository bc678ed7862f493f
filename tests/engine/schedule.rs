//! The scheduler as a program over integers: random requests, limits and stops. A stand-in for the cache remembers, for every
//! slot, the tokens up to it, so that a block shared, reused or overwritten wrongly is seen at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pairwright::engine::block_manager::{BlockId, BlockManager};
use pairwright::engine::scheduler::{Limits, Scheduled, Scheduler};
use pairwright::engine::sequence::Sequence;
use pairwright::engine::{Request, SamplingParams, SequenceId, Task};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Wanted {
    /// Which of a few shared beginnings, and how much of it.
    beginning: (u32, usize),
    own: Vec<u32>,
    max_tokens: usize,
    /// The token that ends its answer before.
    stop_token: Option<u32>,
    prompt_logprobs: Option<usize>,
    /// The step before which it is added.
    arrives: usize,
    /// The step before which it is stopped from outside, counted from its arrival.
    stopped: Option<usize>,
}

impl Wanted {
    fn prompt(&self) -> Vec<u32> {
        let (salt, len) = self.beginning;
        (0..len as u32).map(|i| (i * (salt + 3) + salt) % 5).chain(self.own.iter().copied()).collect()
    }

    /// Prompt and whole answer.
    fn answered(&self) -> Vec<u32> {
        let mut tokens = self.prompt();
        for _ in 0..self.max_tokens {
            let token = next_token(&tokens);
            if self.stop_token == Some(token) {
                break;
            }
            tokens.push(token);
        }
        tokens
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let own = prop::collection::vec(0u32..5, 1..12);
    let stopped = prop::option::weighted(0.15, 0usize..12);
    let ends = (0usize..20, prop::option::weighted(0.4, 0u32..5));
    ((0u32..3, 0usize..25), own, ends, prop::option::weighted(0.2, 0usize..40), 0usize..30, stopped).prop_map(
        |(beginning, own, (max_tokens, stop_token), prompt_logprobs, arrives, stopped)| Wanted {
            beginning,
            own,
            max_tokens,
            stop_token,
            prompt_logprobs,
            arrives,
            stopped,
        },
    )
}

/// The token after these: any function of them will do.
fn next_token(tokens: &[u32]) -> u32 {
    tokens.iter().fold(7u32, |hash, &token| hash.wrapping_mul(31).wrapping_add(token)) % 5
}

struct Program {
    scheduler: Scheduler,
    limits: Limits,
    block_size: usize,
    /// Tokens up to and including each slot's own.
    slots: HashMap<usize, Vec<u32>>,
    /// Length at which each live sequence ends, and the token that ends it before.
    ends: BTreeMap<SequenceId, (usize, Option<u32>)>,
    finished: BTreeMap<SequenceId, Vec<u32>>,
    /// Positions that were computed for each live sequence itself.
    computed: BTreeMap<SequenceId, BTreeSet<usize>>,
}

impl Program {
    fn new(num_blocks: usize, block_size: usize, limits: Limits) -> Self {
        let scheduler = Scheduler::new(BlockManager::new(num_blocks, block_size), limits);
        let (slots, ends, finished, computed) = Default::default();
        Self { scheduler, limits, block_size, slots, ends, finished, computed }
    }

    /// Adds a request if the engine would: it must fit the cache by itself.
    fn add(&mut self, wanted: &Wanted) -> Option<SequenceId> {
        let prompt = wanted.prompt();
        let end = prompt.len() + wanted.max_tokens;
        if end > self.scheduler.blocks().num_blocks() * self.block_size {
            return None;
        }
        let params = SamplingParams { prompt_logprobs: wanted.prompt_logprobs, ..SamplingParams::default() };
        let request = Request { prompt, task: Task::Generate(params), key: 0 };
        let id = self.scheduler.add(Sequence::new(request, end, self.block_size));
        self.ends.insert(id, (end, wanted.stop_token));
        Some(id)
    }

    /// A step, and the next one planned before anybody knows this one's tokens.
    fn step(&mut self) -> Vec<Scheduled> {
        self.step_and(true)
    }

    fn step_and(&mut self, prepare: bool) -> Vec<Scheduled> {
        let step = self.scheduler.schedule();
        assert_eq!(step.is_empty(), self.ends.is_empty(), "a step is empty only when idle");
        assert!(step.iter().map(|part| part.num_tokens).sum::<usize>() <= self.limits.max_step_tokens);
        assert!(step.len() <= self.scheduler.num_running() && self.scheduler.num_running() <= self.limits.max_batch);
        let ids: BTreeSet<SequenceId> = step.iter().map(|part| part.id).collect();
        assert_eq!(ids.len(), step.len(), "a sequence is in a step once");
        step.iter().for_each(|part| self.check_part(part));
        self.check_blocks();
        let whole = |part: &&Scheduled| part.start + part.num_tokens == self.sequence(part.id).tokens.len();
        let chosen: Vec<SequenceId> = step.iter().filter(whole).map(|part| part.id).collect();
        step.iter().for_each(|&part| self.write(part));
        step.iter().for_each(|&part| self.scheduler.computed(part));
        self.check_blocks();
        if prepare {
            self.scheduler.prepare();
            self.check_blocks();
        }
        chosen.into_iter().for_each(|id| self.choose(id));
        self.check_blocks();
        step
    }

    /// A step for which there is no room: it was planned and so was the next, nothing is known of its tokens, and the cache may hold
    /// anything. Later steps are half as large.
    fn fail(&mut self) {
        let step = self.scheduler.schedule();
        step.iter().for_each(|&part| self.scheduler.computed(part));
        self.scheduler.prepare();
        self.slots.clear();
        self.limits.max_step_tokens = (self.limits.max_step_tokens / 2).max(1);
        self.limits.max_batch = self.limits.max_batch.min(self.limits.max_step_tokens);
        self.scheduler.restart(self.limits);
        self.check_blocks();
        assert_eq!(self.scheduler.blocks().num_free(), self.scheduler.blocks().num_blocks());
        assert_eq!(self.scheduler.num_running(), 0);
    }

    fn sequence(&self, id: SequenceId) -> &Sequence {
        self.scheduler.sequence(id).expect("it lives")
    }

    fn slot(&self, sequence: &Sequence, position: usize) -> usize {
        sequence.block_table[position / self.block_size] as usize * self.block_size + position % self.block_size
    }

    fn check_part(&self, part: &Scheduled) {
        let sequence = self.scheduler.sequence(part.id).expect("a scheduled sequence lives");
        assert_eq!(part.start, sequence.num_computed, "nothing is skipped or computed twice");
        assert!(part.num_tokens >= 1 && part.start + part.num_tokens <= sequence.tokens.len());
        assert!(sequence.block_table.len() * self.block_size >= part.start + part.num_tokens);
        for position in 0..part.start {
            let held = self.slots.get(&self.slot(sequence, position));
            assert_eq!(held.map(Vec::as_slice), Some(&sequence.tokens[..=position]), "the cache holds its past");
        }
    }

    fn write(&mut self, part: Scheduled) {
        let sequence = self.scheduler.sequence(part.id).unwrap();
        self.computed.entry(part.id).or_default().extend(part.start..part.start + part.num_tokens);
        for position in part.start..part.start + part.num_tokens {
            let slot = self.slot(sequence, position);
            self.slots.insert(slot, sequence.tokens[..=position].to_vec());
        }
    }

    /// Every block's holders: two may share it only where both have the same, computed tokens.
    fn check_blocks(&self) {
        let mut holders: HashMap<BlockId, Vec<(usize, &Sequence)>> = HashMap::new();
        for sequence in self.ends.keys().map(|&id| self.scheduler.sequence(id).expect("no sequence is lost")) {
            for (index, &block) in sequence.block_table.iter().enumerate() {
                holders.entry(block).or_default().push((index, sequence));
            }
        }
        let blocks = self.scheduler.blocks();
        assert_eq!(holders.len(), blocks.num_blocks() - blocks.num_free(), "held blocks and free ones are all blocks");
        assert!(holders.keys().all(|&block| !blocks.is_free(block)));
        for shared in holders.values().filter(|holders| holders.len() > 1) {
            let (index, first) = shared[0];
            let end = (index + 1) * self.block_size;
            for &(other_index, other) in shared {
                assert!(self.limits.prefix_cache && other_index == index && other.num_computed >= end);
                assert_eq!(other.tokens[..end], first.tokens[..end]);
            }
        }
    }

    /// What the engine does after a step with a sequence whose last token was computed.
    fn choose(&mut self, id: SequenceId) {
        let (end, stop_token) = self.ends[&id];
        let sequence = self.sequence(id);
        if let Task::Generate(SamplingParams { prompt_logprobs: Some(from), .. }) = &sequence.task {
            let mut asked = from.saturating_sub(1)..sequence.prompt_len;
            assert!(asked.all(|position| self.computed[&id].contains(&position)), "{from}: logits are there");
        }
        let tokens = &sequence.tokens;
        let token = next_token(tokens);
        if tokens.len() < end && stop_token != Some(token) {
            self.scheduler.push(id, token);
        }
        if self.sequence(id).tokens.len() >= end || stop_token == Some(token) {
            self.end(id);
        }
    }

    fn end(&mut self, id: SequenceId) {
        let sequence = self.scheduler.finish(id).expect("it lives");
        self.ends.remove(&id);
        self.finished.insert(id, sequence.tokens);
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    (1usize..6, 0usize..24, any::<bool>()).prop_map(|(max_batch, more, prefix_cache)| Limits {
        max_batch,
        max_step_tokens: max_batch + more,
        prefix_cache,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_program_ends_with_every_block_free(
        limits in limits(),
        block_size in 1usize..7,
        num_blocks in 1usize..28,
        requests in prop::collection::vec(wanted(), 1..14),
        prepared in prop::collection::vec(prop::bool::weighted(0.7), 1..6),
        failing in prop::collection::btree_set(0usize..25, 0..4),
    ) {
        let mut program = Program::new(num_blocks, block_size, limits);
        let mut all = BTreeMap::new();
        let mut stops = BTreeMap::new();
        let last_arrival = requests.iter().map(|wanted| wanted.arrives).max().unwrap_or(0);
        let mut num_steps = 0;
        // The oldest running sequence gains a token in every step, and is never preempted: this many steps are enough. A step that
        // fails costs all that was computed.
        let tokens = requests.iter().map(|w| w.prompt().len() + w.max_tokens).sum::<usize>();
        let enough = last_arrival + 1 + tokens * (1 + failing.len());
        for now in 0.. {
            for wanted in requests.iter().filter(|wanted| wanted.arrives == now) {
                if let Some(id) = program.add(wanted) {
                    all.insert(id, wanted.clone());
                    stops.extend(wanted.stopped.map(|after| (id, now + after)));
                }
            }
            let stopped: Vec<SequenceId> = stops.iter().filter(|(_, at)| **at == now).map(|(id, _)| *id).collect();
            for id in stopped.into_iter().filter(|id| program.ends.contains_key(id)).collect::<Vec<_>>() {
                program.end(id);
            }
            if now > last_arrival && program.ends.is_empty() {
                break;
            }
            match failing.contains(&now) {
                true => program.fail(),
                false => _ = program.step_and(prepared[now % prepared.len()]),
            }
            num_steps += 1;
            prop_assert!(num_steps <= enough, "no end after {} steps: {:?}", num_steps, program.ends);
        }
        prop_assert_eq!(program.scheduler.num_sequences(), 0);
        prop_assert_eq!(program.scheduler.blocks().num_free(), num_blocks);
        prop_assert!(program.scheduler.finish(0).is_none());
        prop_assert!(program.step().is_empty());
        for (id, wanted) in all {
            let (got, want) = (&program.finished[&id], wanted.answered());
            prop_assert_eq!(&got[..], &want[..got.len()]);
            if wanted.stopped.is_none() {
                prop_assert_eq!(got.len(), want.len());
            }
        }
    }
}

#[test]
fn running_sequences_go_first_and_the_newest_gives_way() {
    let limits = Limits { max_batch: 4, max_step_tokens: 16, prefix_cache: false };
    let mut program = Program::new(5, 4, limits);
    let wanted = |salt: u32| Wanted {
        beginning: (salt, 4),
        own: vec![salt],
        max_tokens: 10,
        stop_token: None,
        prompt_logprobs: None,
        arrives: 0,
        stopped: None,
    };
    let first = program.add(&wanted(0)).unwrap();
    program.step();
    let second = program.add(&wanted(1)).unwrap();
    let step = program.step();
    assert_eq!(step[0], Scheduled { id: first, start: 5, num_tokens: 1 }, "decoding does not wait for a prompt");
    while program.scheduler.counters().num_preemptions == 0 {
        program.step();
    }
    assert!(program.scheduler.sequence(second).unwrap().block_table.is_empty(), "the newest waits");
    assert!(!program.scheduler.sequence(first).unwrap().block_table.is_empty());
    while !program.ends.is_empty() {
        program.step();
    }
    assert_eq!(program.finished.keys().copied().collect::<Vec<_>>(), [first, second]);
}

#[test]
fn equal_beginnings_are_computed_once() {
    let limits = Limits { max_batch: 8, max_step_tokens: 64, prefix_cache: true };
    let mut program = Program::new(40, 4, limits);
    for own in 0..4 {
        let wanted = Wanted {
            beginning: (1, 17),
            own: vec![own],
            max_tokens: 6,
            stop_token: None,
            prompt_logprobs: [None, None, Some(10), Some(0)][own as usize],
            arrives: 0,
            stopped: None,
        };
        program.add(&wanted).unwrap();
    }
    let mut computed: BTreeMap<SequenceId, usize> = BTreeMap::new();
    while !program.ends.is_empty() {
        for part in program.step().iter().filter(|part| part.start < 18) {
            *computed.entry(part.id).or_default() += part.num_tokens;
        }
    }
    let computed: Vec<usize> = computed.into_values().collect();
    // The third asks for positions from the ninth on, the last for all: nothing may stand in for those.
    assert_eq!(computed, [18, 2, 10, 18]);
    assert_eq!(program.scheduler.counters().num_reused_tokens, 24);
}

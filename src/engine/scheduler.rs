//! Continuous batching: which sequences compute how many tokens in the next step, and which blocks they hold.
//! Integers only. Running sequences go first, oldest first, so decoding never waits for new prompts; what is left of the
//! step's tokens goes to prompts, in chunks. When blocks run out the newest sequence gives its blocks back and waits.
//! A step is planned while the one before it runs: that one's new tokens count as there before anyone knows which they are.

use std::collections::HashMap;

use super::block_manager::{BlockHash, BlockManager};
use super::sequence::{Sequence, SequenceId};
use super::waiting::{Place, Waiting};

/// Bounds of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most sequences that run at once.
    pub max_batch: usize,
    /// Most tokens per step; not under `max_batch`.
    pub max_step_tokens: usize,
    /// Whether blocks are shared between sequences with equal beginnings.
    pub prefix_cache: bool,
}

/// One sequence's part of a step: tokens `start..start + num_tokens` of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// Which sequence.
    pub id: SequenceId,
    /// First token to compute.
    pub start: usize,
    /// How many, at least 1.
    pub num_tokens: usize,
}

/// Most waiting sequences that one step sets aside because a block they need is just being computed.
const LOOK_AHEAD: usize = 256;

/// What a scheduler has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times a sequence had to give its blocks back.
    pub num_preemptions: u64,
    /// Prompt tokens that were found in the cache.
    pub num_reused_tokens: u64,
    /// Waiting sequences that were looked at, whether they could start or not.
    pub num_examined: u64,
}

/// A step as planned so far.
#[derive(Debug, Default)]
struct Plan {
    parts: Vec<Scheduled>,
    /// Somebody had to make room for it, so nobody may start in it.
    preempted: bool,
}

/// Holds every sequence, waiting or running.
#[derive(Debug)]
pub struct Scheduler {
    sequences: HashMap<SequenceId, Sequence>,
    waiting: Waiting,
    /// Oldest first.
    running: Vec<SequenceId>,
    prepared: Plan,
    blocks: BlockManager,
    limits: Limits,
    next_id: SequenceId,
    counters: Counters,
}

impl Scheduler {
    /// An idle scheduler.
    pub fn new(blocks: BlockManager, limits: Limits) -> Self {
        Self {
            sequences: HashMap::new(),
            waiting: Waiting::default(),
            running: Vec::new(),
            prepared: Plan::default(),
            blocks,
            limits,
            next_id: 0,
            counters: Counters::default(),
        }
    }

    /// Queues a sequence. It must fit the cache by itself: `max_len` tokens in all blocks.
    pub fn add(&mut self, sequence: Sequence) -> SequenceId {
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.insert(Place::of(id, &sequence));
        self.sequences.insert(id, sequence);
        id
    }

    /// A sequence that has not ended.
    pub fn sequence(&self, id: SequenceId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    /// As [`Self::sequence`], to change.
    pub fn sequence_mut(&mut self, id: SequenceId) -> Option<&mut Sequence> {
        self.sequences.get_mut(&id)
    }

    /// The allocator.
    pub fn blocks(&self) -> &BlockManager {
        &self.blocks
    }

    /// Sequences that have not ended.
    pub fn num_sequences(&self) -> usize {
        self.sequences.len()
    }

    /// Sequences that run.
    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    /// Totals so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The next step: what was prepared, without those that ended since, and with whoever fits into their place. Every token
    /// that [`Self::computed`] waits for must be there by now. Empty only when idle.
    pub fn schedule(&mut self) -> Vec<Scheduled> {
        let mut plan = std::mem::take(&mut self.prepared);
        plan.parts.retain(|part| self.sequences.contains_key(&part.id));
        if plan.parts.is_empty() {
            plan = self.continue_running();
        }
        self.admit(&mut plan);
        plan.parts
    }

    /// Plans the step after the one whose parts are [`Self::computed`], which may still run. Who ends in that step against
    /// expectation leaves the plan again through [`Self::finish`].
    pub fn prepare(&mut self) {
        let mut plan = self.continue_running();
        self.admit(&mut plan);
        self.prepared = plan;
    }

    /// Plans the next tokens of running sequences, oldest first; the newest make room if blocks are lacking.
    fn continue_running(&mut self) -> Plan {
        let mut plan = Plan::default();
        let mut budget = self.limits.max_step_tokens;
        while plan.parts.len() < self.running.len() && budget > 0 {
            match self.grow(self.running[plan.parts.len()], budget) {
                Some(part) => {
                    budget -= part.num_tokens;
                    plan.parts.push(part);
                }
                None => {
                    self.preempt_newest();
                    plan.preempted = true;
                }
            }
        }
        plan
    }

    /// A running sequence's next part, with its blocks; `None` if these are lacking.
    fn grow(&mut self, id: SequenceId, budget: usize) -> Option<Scheduled> {
        let sequence = self.sequences.get_mut(&id)?;
        let num_tokens = sequence.num_uncomputed().min(budget);
        let start = sequence.num_computed;
        let needed = (start + num_tokens).div_ceil(self.blocks.block_size());
        if needed.saturating_sub(sequence.block_table.len()) > self.blocks.num_free() {
            return None;
        }
        while sequence.block_table.len() < needed {
            sequence.block_table.extend(self.blocks.allocate());
        }
        Some(Scheduled { id, start, num_tokens })
    }

    fn preempt_newest(&mut self) {
        let Some(id) = self.running.pop() else { return };
        let Some(mut sequence) = self.sequences.remove(&id) else { return };
        self.give_back(&mut sequence);
        self.counters.num_preemptions += 1;
        sequence.num_computed = 0;
        sequence.preemption = self.counters.num_preemptions;
        self.waiting.insert(Place::of(id, &sequence));
        self.sequences.insert(id, sequence);
    }

    /// What a step may take.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Forgets plan, blocks and what was computed, as after a step that failed: all sequences wait, with the tokens that they have,
    /// and run again in steps within `limits`.
    pub fn restart(&mut self, limits: Limits) {
        self.limits = limits;
        self.prepared = Plan::default();
        self.waiting = Waiting::default();
        self.running.clear();
        self.blocks = BlockManager::new(self.blocks.num_blocks(), self.blocks.block_size());
        for (&id, sequence) in &mut self.sequences {
            self.counters.num_preemptions += 1;
            sequence.preemption = self.counters.num_preemptions;
            sequence.block_table.clear();
            sequence.num_computed = 0;
            sequence.awaits_token = false;
            self.waiting.insert(Place::of(id, sequence));
        }
    }

    /// Frees a sequence's blocks; who waited for those that it has not computed waits no longer.
    fn give_back(&mut self, sequence: &mut Sequence) {
        if !sequence.block_table.is_empty() {
            self.waiting.arrived(&sequence.block_hashes[sequence.num_computed / self.blocks.block_size()..]);
            self.blocks.release(&std::mem::take(&mut sequence.block_table));
        }
    }

    /// Starts waiting sequences while there is room. One whose next block is just being computed by another waits for it.
    fn admit(&mut self, plan: &mut Plan) {
        let mut budget = self.limits.max_step_tokens - plan.parts.iter().map(|part| part.num_tokens).sum::<usize>();
        let mut set_aside = 0;
        while !plan.preempted && budget > 0 && self.running.len() < self.limits.max_batch && set_aside < LOOK_AHEAD {
            let Some(place) = self.waiting.first() else { return };
            let Some(sequence) = self.sequences.get(&place.id) else {
                self.waiting.remove(place);
                continue;
            };
            self.counters.num_examined += 1;
            let reused = self.reusable(sequence);
            if let Some(block) = self.waiting.awaited(&self.shareable(sequence)[reused.len()..]) {
                self.waiting.set_aside(place, block);
                set_aside += 1;
                continue;
            }
            let size = self.blocks.block_size();
            let start = reused.len() * size;
            let num_tokens = (sequence.tokens.len() - start).min(budget);
            let new_blocks = (start + num_tokens).div_ceil(size) - reused.len();
            let revived = reused.iter().filter(|&&block| self.blocks.is_free(block)).count();
            // A block for each running sequence is kept back, so that admission does not at once force a preemption.
            if new_blocks + revived + self.running.len() > self.blocks.num_free() {
                return;
            }
            reused.iter().for_each(|&block| self.blocks.share(block));
            let mut table = reused;
            table.extend((0..new_blocks).filter_map(|_| self.blocks.allocate()));
            self.waiting.remove(place);
            let Some(sequence) = self.sequences.get_mut(&place.id) else { return };
            sequence.block_table = table;
            sequence.num_computed = start;
            if self.limits.prefix_cache {
                self.waiting.announce(&sequence.block_hashes[start / size..]);
            }
            self.counters.num_reused_tokens += start as u64;
            self.running.push(place.id);
            plan.parts.push(Scheduled { id: place.id, start, num_tokens });
            budget -= num_tokens;
        }
    }

    /// The sequence's full blocks that may be another's.
    fn shareable<'s>(&self, sequence: &'s Sequence) -> &'s [BlockHash] {
        let most = sequence.max_reused() / self.blocks.block_size();
        &sequence.block_hashes[..if self.limits.prefix_cache { most } else { 0 }]
    }

    /// Cached blocks that hold the sequence's beginning.
    fn reusable(&self, sequence: &Sequence) -> Vec<u32> {
        let tokens = sequence.tokens.chunks_exact(self.blocks.block_size());
        let blocks = self.shareable(sequence).iter().zip(tokens);
        blocks.map_while(|(&hash, tokens)| self.blocks.find(hash, tokens)).collect()
    }

    /// Counts a part of a gathered step as computed: whatever is planned from here on runs after that step. Full blocks become
    /// findable. If the part gives a sequence's last token, its blocks and its place are free for the next step.
    pub fn computed(&mut self, part: Scheduled) {
        let Some(sequence) = self.sequences.get_mut(&part.id) else { return };
        let size = self.blocks.block_size();
        sequence.num_computed = part.start + part.num_tokens;
        if self.limits.prefix_cache {
            let blocks = part.start / size..sequence.num_computed / size;
            for block in blocks.clone() {
                let tokens = &sequence.tokens[block * size..(block + 1) * size];
                self.blocks.publish(sequence.block_table[block], sequence.block_hashes[block], tokens);
            }
            self.waiting.arrived(&sequence.block_hashes[blocks]);
        }
        if sequence.num_computed == sequence.tokens.len() {
            sequence.awaits_token = sequence.tokens.len() + 1 < sequence.max_len;
            if !sequence.awaits_token {
                self.blocks.release(&std::mem::take(&mut sequence.block_table));
                self.running.retain(|&other| other != part.id);
            }
        }
    }

    /// Appends a generated token to a sequence.
    pub fn push(&mut self, id: SequenceId, token: u32) {
        let size = self.blocks.block_size();
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.push(token, size);
        }
    }

    /// Ends a sequence, wherever it is: its blocks are free again. `None` if there is none of that id.
    pub fn finish(&mut self, id: SequenceId) -> Option<Sequence> {
        let mut sequence = self.sequences.remove(&id)?;
        self.give_back(&mut sequence);
        self.running.retain(|&other| other != id);
        self.waiting.remove(Place::of(id, &sequence));
        Some(sequence)
    }
}

//! Continuous batching: which sequences compute how many tokens in the next step, and which blocks they hold.
//! Integers only. Running sequences go first, oldest first, so decoding never waits for new prompts; what is left of the
//! step's tokens goes to prompts, in chunks. When blocks run out the newest sequence gives its blocks back and waits.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::block_manager::{BlockHash, BlockManager};
use super::sequence::{Sequence, SequenceId};

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

/// How far down the queue admission looks when the first ones wait for a shared prefix.
const LOOK_AHEAD: usize = 256;

/// Holds every sequence, waiting or running.
#[derive(Debug)]
pub struct Scheduler {
    sequences: BTreeMap<SequenceId, Sequence>,
    waiting: VecDeque<SequenceId>,
    running: Vec<SequenceId>,
    blocks: BlockManager,
    limits: Limits,
    next_id: SequenceId,
    num_preemptions: u64,
    num_reused_tokens: u64,
}

impl Scheduler {
    /// An idle scheduler.
    pub fn new(blocks: BlockManager, limits: Limits) -> Self {
        Self {
            sequences: BTreeMap::new(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            blocks,
            limits,
            next_id: 0,
            num_preemptions: 0,
            num_reused_tokens: 0,
        }
    }

    /// Queues a sequence. It must fit the cache by itself: `max_len` tokens in all blocks.
    pub fn add(&mut self, sequence: Sequence) -> SequenceId {
        let id = self.next_id;
        self.next_id += 1;
        self.sequences.insert(id, sequence);
        self.waiting.push_back(id);
        id
    }

    /// The sequence of an id that was scheduled and has not ended.
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

    /// Times a sequence had to give its blocks back, and prompt tokens that were found in the cache.
    pub fn counters(&self) -> (u64, u64) {
        (self.num_preemptions, self.num_reused_tokens)
    }

    /// Chooses the next step's tokens and gives them blocks. Empty only when idle.
    pub fn schedule(&mut self) -> Vec<Scheduled> {
        let mut step = Vec::new();
        let mut budget = self.limits.max_step_tokens;
        let mut preempted = false;
        let mut index = 0;
        while index < self.running.len() && budget > 0 {
            let id = self.running[index];
            while !self.grow(id, budget, &mut step) {
                preempted = true;
                let newest = self.running.len() - 1;
                self.preempt(newest);
                if newest == index {
                    break;
                }
            }
            budget = self.limits.max_step_tokens - step.iter().map(|part| part.num_tokens).sum::<usize>();
            index += 1;
        }
        if !preempted && !self.waiting.is_empty() {
            self.admit(&mut step, budget);
        }
        step
    }

    /// Schedules a running sequence's next tokens; false if blocks are lacking.
    fn grow(&mut self, id: SequenceId, budget: usize, step: &mut Vec<Scheduled>) -> bool {
        let Some(sequence) = self.sequences.get_mut(&id) else { return true };
        let num_tokens = sequence.num_uncomputed().min(budget);
        let start = sequence.num_computed;
        let needed = (start + num_tokens).div_ceil(self.blocks.block_size());
        if needed.saturating_sub(sequence.block_table.len()) > self.blocks.num_free() {
            return false;
        }
        while sequence.block_table.len() < needed {
            sequence.block_table.extend(self.blocks.allocate());
        }
        step.push(Scheduled { id, start, num_tokens });
        true
    }

    fn preempt(&mut self, index: usize) {
        let id = self.running.remove(index);
        if let Some(sequence) = self.sequences.get_mut(&id) {
            self.blocks.release(&sequence.block_table);
            sequence.block_table.clear();
            sequence.num_computed = 0;
        }
        self.waiting.push_front(id);
        self.num_preemptions += 1;
    }

    /// Starts waiting sequences while there is room. One whose next block is just being computed by another waits for it.
    fn admit(&mut self, step: &mut Vec<Scheduled>, mut budget: usize) {
        let mut in_flight = self.blocks_in_flight();
        let mut index = 0;
        while budget > 0 && self.running.len() < self.limits.max_batch && index < self.waiting.len().min(LOOK_AHEAD) {
            let id = self.waiting[index];
            let Some(sequence) = self.sequences.get(&id) else { return };
            let reused = self.reusable(sequence);
            let next_block = sequence.block_hashes.get(reused.len());
            if self.limits.prefix_cache && next_block.is_some_and(|hash| in_flight.contains(hash)) {
                index += 1;
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
            let Some(sequence) = self.sequences.get_mut(&id) else { return };
            sequence.block_table = table;
            sequence.num_computed = start;
            in_flight.extend(&sequence.block_hashes[start / size..]);
            self.num_reused_tokens += start as u64;
            self.waiting.remove(index);
            self.running.push(id);
            step.push(Scheduled { id, start, num_tokens });
            budget -= num_tokens;
        }
    }

    /// Cached blocks that hold the sequence's beginning; its last token is always computed, since its logits are wanted.
    fn reusable(&self, sequence: &Sequence) -> Vec<u32> {
        if !self.limits.prefix_cache || !sequence.may_reuse() {
            return Vec::new();
        }
        let size = self.blocks.block_size();
        let most = (sequence.tokens.len() - 1) / size;
        let blocks = sequence.block_hashes.iter().take(most).zip(sequence.tokens.chunks_exact(size));
        blocks.map_while(|(&hash, tokens)| self.blocks.find(hash, tokens)).collect()
    }

    /// Full blocks that running sequences have yet to compute.
    fn blocks_in_flight(&self) -> HashSet<BlockHash> {
        let size = self.blocks.block_size();
        let running = self.running.iter().filter_map(|id| self.sequences.get(id));
        running.flat_map(|sequence| sequence.block_hashes.iter().skip(sequence.num_computed / size)).copied().collect()
    }

    /// Records that a scheduled part is computed: full blocks become findable.
    pub fn computed(&mut self, part: Scheduled) {
        let Some(sequence) = self.sequences.get_mut(&part.id) else { return };
        let size = self.blocks.block_size();
        sequence.num_computed = part.start + part.num_tokens;
        if self.limits.prefix_cache {
            for block in part.start / size..sequence.num_computed / size {
                let tokens = &sequence.tokens[block * size..(block + 1) * size];
                self.blocks.publish(sequence.block_table[block], sequence.block_hashes[block], tokens);
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
        let sequence = self.sequences.remove(&id)?;
        self.blocks.release(&sequence.block_table);
        self.running.retain(|&other| other != id);
        self.waiting.retain(|&other| other != id);
        Some(sequence)
    }
}

//! The sequences that do not run: who starts next, and who waits for a block that a running one has yet to compute.
//! Integers only; knows neither limits nor free blocks. No call costs more than the logarithm of the queue's length for each
//! sequence that it moves.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::block_manager::BlockHash;
use super::sequence::{Sequence, SequenceId};

/// A sequence's place in the queue, the next to start first: whoever gave its blocks back, the last of them before the others;
/// then whoever may generate most, so that no long answer is left over when the short ones are done; then whoever came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    preemption: Reverse<u64>,
    most_new_tokens: Reverse<usize>,
    /// Whose place it is.
    pub id: SequenceId,
}

impl Place {
    /// The place of `sequence`. It does not change while the sequence waits.
    pub fn of(id: SequenceId, sequence: &Sequence) -> Self {
        let most_new_tokens = Reverse(sequence.max_len - sequence.prompt_len);
        Self { preemption: Reverse(sequence.preemption), most_new_tokens, id }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Waiting {
    queue: BTreeSet<Place>,
    /// Full blocks that running sequences have yet to compute, each with those who left the queue until it is there.
    in_flight: HashMap<BlockHash, Vec<Place>>,
}

impl Waiting {
    /// Queues a sequence.
    pub fn insert(&mut self, place: Place) {
        self.queue.insert(place);
    }

    /// Takes a sequence out, if it is queued.
    pub fn remove(&mut self, place: Place) {
        self.queue.remove(&place);
    }

    /// Who starts next. It may have ended since, while it was set aside.
    pub fn first(&self) -> Option<Place> {
        self.queue.first().copied()
    }

    /// These blocks are going to be computed by a sequence that starts.
    pub fn announce(&mut self, blocks: &[BlockHash]) {
        blocks.iter().for_each(|&block| _ = self.in_flight.entry(block).or_default());
    }

    /// How far `blocks` are being computed at present, from the first one on: the last one of these.
    pub fn awaited(&self, blocks: &[BlockHash]) -> Option<BlockHash> {
        blocks.iter().copied().take_while(|block| self.in_flight.contains_key(block)).last()
    }

    /// Sets a queued sequence aside until `block`, which is being computed, is there or is given up.
    pub fn set_aside(&mut self, place: Place, block: BlockHash) {
        self.queue.remove(&place);
        self.in_flight.entry(block).or_default().push(place);
    }

    /// These blocks are computed, or nobody computes them any more: who waited for them is queued again.
    pub fn arrived(&mut self, blocks: &[BlockHash]) {
        let waited = blocks.iter().filter_map(|block| self.in_flight.remove(block));
        self.queue.extend(waited.flatten());
    }
}

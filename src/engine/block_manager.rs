//! The allocator of KV blocks: who holds which block, which full blocks can be shared, which free one to give out next.
//! Integers only: it never sees a tensor, and is tested as a program over numbers. Free blocks keep their contents' hash
//! until they are given out again (least recently used first), so a prefix computed once is found by whoever comes later. Blocks that
//! nobody can find go before them, the last used first: its memory is at hand.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Number of a block in the cache.
pub type BlockId = u32;

/// Identity of a full block: its tokens, which of them were generated and, through the chain, all tokens before it.
pub type BlockHash = u128;

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone)]
struct Block {
    ref_count: u32,
    /// What it holds, if it is full and findable.
    content: Option<(BlockHash, Box<[u32]>)>,
    /// Neighbours in the list of free blocks.
    previous: u32,
    next: u32,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct BlockManager {
    blocks: Vec<Block>,
    by_hash: HashMap<BlockHash, BlockId>,
    /// Ends of the list of free blocks, the next to be given out first.
    first_free: u32,
    last_free: u32,
    num_free: usize,
    block_size: usize,
}

impl BlockManager {
    /// `num_blocks` free blocks of `block_size` tokens.
    pub fn new(num_blocks: usize, block_size: usize) -> Self {
        let block = Block { ref_count: 0, content: None, previous: NONE, next: NONE };
        let mut manager = Self {
            blocks: vec![block; num_blocks],
            by_hash: HashMap::new(),
            first_free: NONE,
            last_free: NONE,
            num_free: 0,
            block_size,
        };
        (0..num_blocks as u32).for_each(|id| manager.link_free(id, manager.last_free, NONE));
        manager
    }

    /// Tokens per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// All blocks.
    pub fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that nobody holds.
    pub fn num_free(&self) -> usize {
        self.num_free
    }

    /// Blocks that somebody holds.
    pub fn num_held(&self) -> usize {
        self.blocks.len() - self.num_free
    }

    /// The hash of a full block of `tokens` that follows `parent`, `num_prompt` of which are a prompt's: keys and values of generated tokens
    /// need not have the bits that a prompt's would have (`PagedBatch::is_generated`).
    pub fn hash(parent: Option<BlockHash>, tokens: &[u32], num_prompt: usize) -> BlockHash {
        let mut bytes = Vec::with_capacity(24 + 4 * tokens.len());
        bytes.extend(parent.unwrap_or(0).to_le_bytes());
        bytes.extend((num_prompt as u64).to_le_bytes());
        tokens.iter().for_each(|token| bytes.extend(token.to_le_bytes()));
        xxh3_128_with_seed(&bytes, u64::from(parent.is_some()))
    }

    /// The findable block of this hash, if it holds exactly `tokens`.
    pub fn find(&self, hash: BlockHash, tokens: &[u32]) -> Option<BlockId> {
        let id = *self.by_hash.get(&hash)?;
        let (_, held) = self.blocks[id as usize].content.as_ref()?;
        (**held == *tokens).then_some(id)
    }

    /// Whether nobody holds `id` at present, so that holding it takes a free block.
    pub fn is_free(&self, id: BlockId) -> bool {
        self.blocks[id as usize].ref_count == 0
    }

    /// Holds a block that [`Self::find`] gave, together with whoever else holds it.
    pub fn share(&mut self, id: BlockId) {
        if self.is_free(id) {
            self.unlink_free(id);
        }
        self.blocks[id as usize].ref_count += 1;
    }

    /// Gives out a free block that cannot be found, or else the one that was unused longest, which then can no longer be found.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let id = self.first_free;
        if id == NONE {
            return None;
        }
        self.unlink_free(id);
        let block = &mut self.blocks[id as usize];
        block.ref_count = 1;
        if let Some((hash, _)) = block.content.take() {
            self.by_hash.remove(&hash);
        }
        Some(id)
    }

    /// Makes a full block findable. If an equal block is findable already, that one stays the one to find.
    pub fn publish(&mut self, id: BlockId, hash: BlockHash, tokens: &[u32]) {
        if !self.by_hash.contains_key(&hash) && self.blocks[id as usize].content.is_none() {
            self.blocks[id as usize].content = Some((hash, tokens.into()));
            self.by_hash.insert(hash, id);
        }
    }

    /// Gives a sequence's blocks back, the last first, so that prefixes stay findable longest.
    pub fn release(&mut self, table: &[BlockId]) {
        for &id in table.iter().rev() {
            let block = &mut self.blocks[id as usize];
            block.ref_count = block.ref_count.saturating_sub(1);
            match (block.ref_count, block.content.is_some()) {
                (0, true) => self.link_free(id, self.last_free, NONE),
                (0, false) => self.link_free(id, NONE, self.first_free),
                _ => {}
            }
        }
    }

    /// Puts a block between two neighbours in the list of free ones.
    fn link_free(&mut self, id: BlockId, previous: u32, next: u32) {
        self.blocks[id as usize].previous = previous;
        self.blocks[id as usize].next = next;
        match previous {
            NONE => self.first_free = id,
            previous => self.blocks[previous as usize].next = id,
        }
        match next {
            NONE => self.last_free = id,
            next => self.blocks[next as usize].previous = id,
        }
        self.num_free += 1;
    }

    fn unlink_free(&mut self, id: BlockId) {
        let Block { previous, next, .. } = self.blocks[id as usize];
        match previous {
            NONE => self.first_free = next,
            previous => self.blocks[previous as usize].next = next,
        }
        match next {
            NONE => self.last_free = previous,
            next => self.blocks[next as usize].previous = previous,
        }
        self.num_free -= 1;
    }
}

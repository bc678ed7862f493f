//! A step's numbers on a CUDA device: what `PagedBatch` says, and the work of attention cut into items, so that a kernel's grid needs to
//! know no lengths. Knows the batch's format; knows no kernel.

use candle_core::{Result, Tensor};

use super::cuda::{Kernels, Staging};
use super::paged::PagedBatch;

/// Keys that one item of decode attention reads; what the parts give is merged in their order.
pub const SPLIT: usize = 512;

/// Items of work: pairs of numbers, how many there are, and how many the launch must have room for.
#[derive(Clone)]
pub struct Items {
    /// [most, 2]
    pub list: Tensor,
    /// `[1]`
    pub count: Tensor,
    /// Blocks of a launch.
    pub most: usize,
}

/// Whose tokens are computed in a prefill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Prompt,
    /// Generated ones, computed again.
    Answer,
}

/// See the module's text; each array as in [`PagedBatch`].
pub struct StagedStep {
    /// `[T]`
    pub token_ids: Tensor,
    /// `[T]`
    pub positions: Tensor,
    /// `[T]`
    pub slots: Tensor,
    /// [B + 1]
    pub cu_seqlens_q: Tensor,
    /// `[B]`
    pub context_lens: Tensor,
    /// [B + 1]
    pub cu_blocks: Tensor,
    /// Concatenated.
    pub block_tables: Tensor,
    /// Generated tokens, each the only one of its sequence: (sequence, split).
    pub decode: Items,
    /// [B + 1] first item of each sequence in `decode`; none for others.
    pub cu_items: Tensor,
    /// The others, by whose they are, query heads to a key head, and rows to an item: (sequence, first packed row).
    prefill: Vec<((Whose, [usize; 2]), Items)>,
    /// Whose, sequence and number of tokens.
    parts: Vec<(Whose, u32, usize)>,
}

impl StagedStep {
    /// Puts the batch on the device, with room as `room` says.
    pub fn new(staging: &mut Staging, token_ids: &[u32], batch: &PagedBatch, room: &Room) -> Result<Self> {
        let (tokens, sequences) = (batch.num_tokens(), batch.num_sequences().max(room.sequences));
        let (mut items, mut cu_items, mut parts) = (Vec::new(), vec![0], Vec::new());
        for sequence in 0..batch.num_sequences() {
            match (batch.is_generated[sequence], batch.token_range(sequence).len()) {
                (true, 1) => {
                    let splits = batch.context_lens[sequence].div_ceil(SPLIT as u32);
                    items.extend((0..splits).flat_map(|split| [sequence as u32, split]));
                }
                (true, count) => parts.push((Whose::Answer, sequence as u32, count)),
                (false, count) => parts.push((Whose::Prompt, sequence as u32, count)),
            }
            cu_items.push((items.len() / 2) as u32);
        }
        // Sequences that are not there begin where the last one ends.
        let end = |bounds: &[u32]| {
            let last = bounds.last().copied().unwrap_or(0);
            let mut bounds = bounds.to_vec();
            bounds.resize(sequences + 1, last);
            bounds
        };
        let filled = |numbers: &[u32], len: usize| {
            let mut numbers = numbers.to_vec();
            numbers.resize(len, 0);
            numbers
        };
        let step = Self {
            token_ids: staging.push(&filled(token_ids, tokens), tokens)?,
            positions: staging.push(&batch.positions, tokens)?,
            slots: staging.push(&batch.slot_mapping, tokens)?,
            cu_seqlens_q: staging.push(&end(&batch.cu_seqlens_q), sequences + 1)?,
            context_lens: staging.push(&filled(&batch.context_lens, sequences), sequences)?,
            cu_blocks: staging.push(&end(&batch.cu_blocks), sequences + 1)?,
            decode: Items::new(staging, &items, room.items)?,
            cu_items: staging.push(&end(&cu_items), sequences + 1)?,
            // Last, since its length is anybody's guess: what lies before keeps its place.
            block_tables: staging.push(&batch.block_tables, batch.block_tables.len())?,
            prefill: Vec::new(),
            parts,
        };
        staging.send()?;
        Ok(step)
    }

    /// Items of a prompt's or an answer's tokens: `at_once` of their packed rows (tokens x the `group` query heads of a key head) each.
    /// Nothing is put on the device where there are none, so that a step which is captured copies nothing.
    pub fn prefill(
        &mut self,
        staging: &mut Staging,
        whose: Whose,
        group: usize,
        at_once: usize,
    ) -> Result<Option<Items>> {
        let kind = (whose, [group, at_once]);
        if let Some((_, items)) = self.prefill.iter().find(|(known, _)| *known == kind) {
            return Ok(Some(items.clone()));
        }
        // A sequence's last rows first: they see the most keys, and what takes longest should not begin last.
        let rows = |&(_, sequence, tokens): &(Whose, u32, usize)| {
            (0..tokens * group).step_by(at_once).rev().flat_map(move |row| [sequence, row as u32])
        };
        let list: Vec<u32> = self.parts.iter().filter(|(other, ..)| *other == whose).flat_map(rows).collect();
        if list.is_empty() {
            return Ok(None);
        }
        let items = Items::new(staging, &list, 0)?;
        staging.send()?;
        self.prefill.push((kind, items.clone()));
        Ok(Some(items))
    }
}

impl Items {
    fn new(staging: &mut Staging, list: &[u32], room: usize) -> Result<Self> {
        let (count, most) = (list.len() / 2, room.max(list.len() / 2));
        let counted = staging.push(&[count as u32], 1)?;
        Ok(Self { list: staging.push(list, 2 * most)?, count: counted, most })
    }
}

/// Items of decode attention for sequences of these lengths.
pub fn decode_items(context_lens: &[u32]) -> usize {
    context_lens.iter().map(|&len| (len as usize).div_ceil(SPLIT)).sum()
}

/// Room that a step's arrays get beyond what the step needs, so that they lie where those of another step lay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Sequences.
    pub sequences: usize,
    /// Items of decode attention.
    pub items: usize,
}

/// A step on its way to the device, and through it.
pub struct OnDevice {
    /// Where numbers go through.
    pub staging: Staging,
    /// The step that is computed.
    pub step: Option<StagedStep>,
}

impl OnDevice {
    /// With nothing on it.
    pub fn new(kernels: &Kernels) -> Result<Self> {
        Ok(Self { staging: kernels.staging()?, step: None })
    }
}

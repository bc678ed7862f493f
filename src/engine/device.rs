//! The runner's half on a CUDA device: decode steps are captured once per size and launched as a whole from then on, and tokens are
//! chosen where logits lie. Nothing waits for the device but what brings the chosen tokens back.
//! Knows steps and memory; knows nothing of why a row is wanted.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

use super::batch::StepBatch;
use crate::model::Decoder;
use crate::ops::paged::KvLayer;
use crate::ops::{Graph, Kernels, Room, Workspace};

/// Sequences up to which decode steps are captured.
const MOST_CAPTURED: usize = 256;

/// What a captured step has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Size {
    rows: usize,
    items: usize,
}

/// Captured steps. The first step of a size runs by itself and finds its memory; the second is captured.
pub struct DeviceRunner {
    kernels: Kernels,
    captured: BTreeMap<Size, Option<(Graph, Tensor)>>,
    /// See [`Workspace::num_moves`].
    num_moves: usize,
    captures: bool,
    num_captured_steps: u64,
}

impl DeviceRunner {
    /// With nothing captured; `captures`: whether anything will be.
    pub fn new(kernels: Kernels, captures: bool) -> Self {
        Self { kernels, captured: BTreeMap::new(), num_moves: 0, captures, num_captured_steps: 0 }
    }

    /// Drops what was captured.
    pub fn forget(&mut self) {
        self.captured.clear();
    }

    /// Steps that were launched as a whole.
    pub fn num_captured_steps(&self) -> u64 {
        self.num_captured_steps
    }

    /// Normalised hidden states of the batch's rows, and of some of padding behind them.
    pub fn hidden_states(
        &mut self,
        decoder: &Decoder,
        ws: &mut Workspace,
        batch: &StepBatch,
        cache: &[KvLayer],
    ) -> Result<Tensor> {
        let num_sequences = batch.paged.num_sequences();
        let decodes = batch.num_prefill_tokens == 0 && num_sequences <= MOST_CAPTURED;
        if !(self.captures && decodes && decoder.is_steady()) {
            return decoder.hidden_states(ws, &batch.token_ids, &batch.paged, cache);
        }
        let size = Size::of(&batch.paged.context_lens);
        let padded = batch.paged.padded_to(size.rows);
        let mut token_ids = batch.token_ids.clone();
        token_ids.resize(size.rows, 0);
        ws.begin_step(decoder.compute(), &token_ids, &padded, &Room { sequences: size.rows, items: size.items })?;
        if ws.num_moves() != self.num_moves {
            self.captured.clear();
            self.num_moves = ws.num_moves();
        }
        match self.captured.get(&size) {
            Some(Some((graph, hidden))) => {
                graph.launch()?;
                self.num_captured_steps += 1;
                return Ok(hidden.clone());
            }
            Some(None) => {}
            None => {
                let hidden = decoder.computed(ws, &token_ids, &padded, cache)?;
                self.captured.insert(size, None);
                return Ok(hidden);
            }
        }
        let mut hidden = None;
        let captured = self.kernels.capture(|| {
            hidden = Some(decoder.computed(ws, &token_ids, &padded, cache)?);
            Ok(())
        });
        match (captured, hidden) {
            (Ok(graph), Some(hidden)) => {
                graph.launch()?;
                self.num_captured_steps += 1;
                self.captured.insert(size, Some((graph, hidden.clone())));
                Ok(hidden)
            }
            // Nothing was computed. A device that does not capture computes without.
            _ => {
                self.captures = false;
                decoder.computed(ws, &token_ids, &padded, cache)
            }
        }
    }
}

impl Size {
    /// The smallest size that holds sequences of these lengths: few sizes, and little room beyond what is needed.
    fn of(context_lens: &[u32]) -> Self {
        let rows = match context_lens.len() {
            few @ ..=16 => few.next_power_of_two(),
            many => many.next_multiple_of(16),
        };
        let items = crate::ops::decode_items(context_lens);
        Self { rows, items: items.next_power_of_two().max(rows) }
    }
}

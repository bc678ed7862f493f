//! Attention over a paged cache, and the rotation that fills it. Every sequence has the same tokens, in blocks of its own: what one of
//! them gives is what all must give. Knows the batch's format; knows no engine.

use candle_core::{Result, Tensor};

use super::{Case, Prepared, Scale, matrix, size};
use crate::ops::attention::Attention;
use crate::ops::norm::Norm;
use crate::ops::paged::{HeadGeometry, KvLayer, PagedBatch};
use crate::ops::rotary::{HeadNorms, Rotary, RotaryTable};
use crate::ops::{Compute, Room, Workspace};

/// Tokens of a block.
const BLOCK: usize = 32;
/// Tokens of each sequence that go to the cache at once while it is filled: the same for one sequence as for many.
const FILLED_AT_ONCE: usize = 64;

/// Heads and what attention does besides.
#[derive(Clone, Copy)]
struct Shape {
    geometry: HeadGeometry,
    window: Option<usize>,
    soft_cap: Option<f32>,
    sinks: bool,
}

/// What is in the cache and what is asked of it.
#[derive(Clone, Copy)]
struct Load {
    context: usize,
    num_new: usize,
}

pub fn cases(scale: Scale) -> Vec<Case> {
    let plain = |num_heads, num_kv_heads, head_dim| Shape {
        geometry: HeadGeometry { num_heads, num_kv_heads, head_dim },
        window: None,
        soft_cap: None,
        sinks: false,
    };
    let decode = |context| Load { context, num_new: 1 };
    let chunk = |context, num_new| Load { context, num_new };
    match scale {
        Scale::Small => small(plain),
        Scale::Processor => {
            let shape = plain(32, 8, 64);
            let mut cases = vec![rotary(shape, 32, decode(256)), rotary(shape, 1, chunk(512, 512))];
            for (batch, load) in [(32, decode(256)), (32, decode(2048)), (1, chunk(512, 512)), (1, chunk(2048, 512))] {
                cases.push(attention(shape, batch, load));
            }
            cases
        }
        Scale::Card => {
            let shape = plain(32, 8, 128);
            let mut cases = vec![rotary(shape, 256, decode(450)), rotary(shape, 16, chunk(1024, 1024))];
            for (batch, load) in [
                (1, decode(4000)),
                (64, decode(450)),
                (256, decode(450)),
                (256, decode(4000)),
                (8, chunk(2048, 2048)),
                (16, chunk(1100, 100)),
            ] {
                cases.push(attention(shape, batch, load));
            }
            cases
        }
    }
}

/// Every size of heads, and each of what attention does besides.
fn small(plain: impl Fn(usize, usize, usize) -> Shape) -> Vec<Case> {
    let mut cases = Vec::new();
    let short = Load { context: 70, num_new: 1 };
    for head_dim in [16, 32, 64, 80, 96, 128, 192, 256] {
        for load in [short, Load { context: 41, num_new: 23 }] {
            cases.push(attention(plain(4, 2, head_dim), 3, load));
        }
    }
    let loads = [(75, 40), (1100, 1), (400, 270)].map(|(context, num_new)| Load { context, num_new });
    for load in [short].into_iter().chain(loads) {
        let shape = plain(6, 1, 64);
        cases.push(attention(Shape { window: Some(37), ..shape }, 2, load));
        cases.push(attention(Shape { soft_cap: Some(5.0), ..shape }, 2, load));
        cases.push(attention(Shape { sinks: true, ..shape }, 2, load));
    }
    for head_dim in [128, 256] {
        cases.push(attention(plain(3, 1, head_dim), 2, Load { context: 300, num_new: 150 }));
    }
    cases.extend([rotary(plain(4, 2, 64), 3, short), rotary(plain(5, 1, 128), 2, Load { context: 33, num_new: 33 })]);
    cases
}

/// Sequences of which each has one token in the step, of `context`.
pub fn decode_batch(sequences: usize, context: usize) -> PagedBatch {
    batch(sequences, context, context - 1..context)
}

/// `sequences` with `context` tokens, of which `new` are in the step.
fn batch(sequences: usize, context: usize, new: std::ops::Range<usize>) -> PagedBatch {
    let blocks = context.div_ceil(BLOCK);
    let mut step = PagedBatch { block_size: BLOCK, cu_seqlens_q: vec![0], cu_blocks: vec![0], ..PagedBatch::default() };
    for sequence in 0..sequences {
        // Interleaved, as blocks are when sequences grow side by side.
        let table: Vec<u32> = (0..blocks).map(|index| (index * sequences + sequence) as u32).collect();
        for position in new.clone() {
            step.positions.push(position as u32);
            step.slot_mapping.push(table[position / BLOCK] * BLOCK as u32 + (position % BLOCK) as u32);
        }
        step.cu_seqlens_q.push(step.positions.len() as u32);
        step.context_lens.push(new.end as u32);
        step.block_tables.extend(table);
        step.cu_blocks.push(step.block_tables.len() as u32);
        step.is_generated.push(new.len() == 1);
    }
    step
}

/// One layer: rotation, attention, and a cache for `sequences` of `context` tokens.
struct Layer {
    rotary: Rotary,
    attention: Attention,
    cache: KvLayer,
    workspace: Workspace,
}

impl Layer {
    fn new(compute: &Compute, shape: Shape, sequences: usize, context: usize) -> Result<Self> {
        let geometry = shape.geometry;
        let pairs = geometry.head_dim / 2;
        let speeds: Vec<f32> = (0..pairs).map(|i| 10_000f32.powf(-(i as f32) / pairs as f32)).collect();
        let table = RotaryTable::new(&speeds, 1.0, context).on(compute)?;
        let norm = |seed: f32| Norm::rms(compute, vec![seed; geometry.head_dim], 1e-6);
        let norms = HeadNorms::per_head(norm(1.25)?, norm(0.75)?);
        let scale = (geometry.head_dim as f32).powf(-0.5);
        let mut attention = Attention::new(compute, geometry, scale, shape.window);
        attention.soft_cap = shape.soft_cap;
        if shape.sinks {
            attention =
                attention.with_sinks(compute, (0..geometry.num_heads).map(|head| head as f32 / 4.0).collect())?;
        }
        Ok(Self {
            rotary: Rotary::new(compute, table, geometry, norms),
            attention,
            cache: KvLayer::new(compute, geometry, sequences * context.div_ceil(BLOCK), BLOCK)?,
            workspace: Workspace::default(),
        })
    }

    fn begin(&mut self, compute: &Compute, step: &PagedBatch) -> Result<()> {
        self.workspace.begin_step(compute, &vec![0; step.num_tokens()], step, &Room::default())
    }

    /// Fills the cache, a bounded part at a time, and gives the last part's rotated rows.
    fn fill(&mut self, compute: &Compute, sequences: usize, load: Load) -> Result<Tensor> {
        let before = load.context - load.num_new;
        let part = |first: usize| first..before.min(first + FILLED_AT_ONCE);
        let mut parts: Vec<_> = (0..before).step_by(FILLED_AT_ONCE).map(part).collect();
        parts.push(before..load.context);
        let mut last = None;
        for part in parts {
            compute.device.synchronize()?;
            let step = batch(sequences, load.context, part.clone());
            self.begin(compute, &step)?;
            let width = self.rotary.geometry().qkv_width();
            let rows = matrix(compute, sequences, part.len(), width, part.start as u64)?;
            last = Some(self.rotary.forward_to(&self.workspace, &self.cache, rows, &step)?);
        }
        match last {
            Some(rows) => Ok(rows),
            None => candle_core::bail!("a case without a token"),
        }
    }
}

fn attention(shape: Shape, sequences: usize, load: Load) -> Case {
    let Load { context, num_new } = load;
    let HeadGeometry { num_heads, num_kv_heads, head_dim } = shape.geometry;
    let mut name = format!("B={sequences} ctx={context} new={num_new} H={num_heads}/{num_kv_heads} D={head_dim}");
    name += &shape.window.map_or(String::new(), |window| format!(" window={window}"));
    name += &shape.soft_cap.map_or(String::new(), |cap| format!(" cap={cap}"));
    name += if shape.sinks { " sinks" } else { "" };
    Case::new("attention", name, sequences, move |compute, sequences| {
        let mut layer = Layer::new(compute, shape, sequences, context)?;
        let rows = layer.fill(compute, sequences, load)?;
        let step = batch(sequences, context, context - num_new..context);
        let visible = |position: usize| shape.window.map_or(position + 1, |window| window.min(position + 1));
        let scored: usize = sequences * (context - num_new..context).map(visible).sum::<usize>();
        let read = sequences * context.min(visible(context - 1) + num_new);
        let moved = read * shape.geometry.kv_bytes_per_token(compute.kv_format)
            + 2 * sequences * num_new * shape.geometry.q_width() * size(compute);
        let Layer { attention, cache, mut workspace, .. } = layer;
        let run = move || attention.forward_in(&mut workspace, &rows, &cache, &step);
        Ok(Prepared::new(moved, 4 * scored * shape.geometry.q_width(), run))
    })
}

/// Norms of queries and keys, their rotation, and keys and values to the cache.
fn rotary(shape: Shape, sequences: usize, load: Load) -> Case {
    let Load { context, num_new } = load;
    let HeadGeometry { num_heads, num_kv_heads, head_dim } = shape.geometry;
    let tokens = sequences * num_new;
    let name = format!("norm + write T={tokens} H={num_heads}/{num_kv_heads} D={head_dim}");
    Case::new("rotary", name, sequences, move |compute, sequences| {
        let mut layer = Layer::new(compute, shape, sequences, context)?;
        let step = batch(sequences, context, context - num_new..context);
        layer.begin(compute, &step)?;
        let rows = matrix(compute, sequences, num_new, shape.geometry.qkv_width(), 2)?;
        // Rows are read and written in place, keys and values once more.
        let moved =
            sequences * num_new * (2 * shape.geometry.qkv_width() + 2 * shape.geometry.kv_width()) * size(compute);
        let run = move || layer.rotary.forward_to(&layer.workspace, &layer.cache, rows.clone(), &step);
        Ok(Prepared::new(moved, 0, run))
    })
}

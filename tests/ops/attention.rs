//! Attention over the paged cache: native against portable, and the same bits however a sequence is cut into steps, batched
//! with others, laid out in blocks or spread over threads.

use std::ops::Range;

use candle_core::Tensor;
use pairwright::ops::Workspace;
use pairwright::ops::attention::Attention;
use pairwright::ops::norm::Norm;
use pairwright::ops::paged::{HeadGeometry, KvLayer, PagedBatch};
use pairwright::ops::rotary::{HeadNorms, Rotary, RotaryTable};
use pairwright::ops::{Compute, to_host};

use super::{Random, assert_close, matrix, on_threads};

/// The rotated queries [T, H * D] of merged rows, which stay as they are.
pub fn rotated_queries(rotary: &Rotary, rows: &Tensor, batch: &PagedBatch) -> candle_core::Result<Tensor> {
    let rotated = rotary.forward(&Workspace::default(), rows.copy()?, batch)?;
    rotated.narrow(1, 0, rotary.geometry().q_width())?.contiguous()
}

/// Rotates merged rows, which stay as they are, into the cache.
pub fn store(cache: &KvLayer, rows: &Tensor, rotary: &Rotary, batch: &PagedBatch) -> candle_core::Result<()> {
    cache.write(&rotary.forward(&Workspace::default(), rows.copy()?, batch)?, batch)
}

/// One sequence's part of a step.
pub type Part = (usize, Range<usize>);

/// Sequences as merged rows [q | k | v], to be run through one layer's rotation, cache and attention in any steps.
#[derive(Clone)]
pub struct Ragged {
    pub geometry: HeadGeometry,
    pub window: Option<usize>,
    pub block_size: usize,
    /// Merged rows of each sequence.
    pub sequences: Vec<Vec<f32>>,
    /// Block table of each sequence.
    pub tables: Vec<Vec<u32>>,
    pub num_blocks: usize,
    pub head_norm: Option<Vec<f32>>,
    /// A score per query head.
    pub sinks: Option<Vec<f32>>,
}

impl Ragged {
    pub fn new(random: &mut Random, geometry: HeadGeometry, block_size: usize, lens: &[usize]) -> Self {
        let sequences = lens.iter().map(|&len| random.numbers(len * geometry.qkv_width(), 2.0)).collect();
        let (window, head_norm, sinks, tables) = (None, None, None, Vec::new());
        let mut ragged = Self { geometry, window, block_size, sequences, tables, num_blocks: 0, head_norm, sinks };
        ragged.lay_out(random, block_size);
        ragged
    }

    /// New blocks in a random order, a few more than needed.
    pub fn lay_out(&mut self, random: &mut Random, block_size: usize) {
        self.block_size = block_size;
        self.num_blocks =
            (0..self.sequences.len()).map(|index| self.len(index).div_ceil(block_size)).sum::<usize>() + 3;
        let mut blocks: Vec<u32> = (0..self.num_blocks as u32).collect();
        random.shuffle(&mut blocks);
        self.tables = (0..self.sequences.len())
            .map(|index| blocks.drain(..self.len(index).div_ceil(block_size)).collect())
            .collect();
    }

    pub fn len(&self, sequence: usize) -> usize {
        self.sequences[sequence].len() / self.geometry.qkv_width()
    }

    pub fn batch(&self, parts: &[Part]) -> PagedBatch {
        let mut batch = PagedBatch { block_size: self.block_size, ..PagedBatch::default() };
        batch.cu_seqlens_q.push(0);
        batch.cu_blocks.push(0);
        for (sequence, range) in parts {
            let table = &self.tables[*sequence];
            batch.positions.extend(range.clone().map(|position| position as u32));
            batch.slot_mapping.extend(range.clone().map(|position| {
                table[position / self.block_size] * self.block_size as u32 + (position % self.block_size) as u32
            }));
            batch.cu_seqlens_q.push(batch.positions.len() as u32);
            batch.context_lens.push(range.end as u32);
            batch.block_tables.extend(&table[..range.end.div_ceil(self.block_size)]);
            batch.cu_blocks.push(batch.block_tables.len() as u32);
            batch.is_generated.push(range.len() == 1);
        }
        batch
    }

    pub fn rows(&self, parts: &[Part]) -> candle_core::Tensor {
        let width = self.geometry.qkv_width();
        let rows: Vec<f32> = parts
            .iter()
            .flat_map(|(sequence, range)| &self.sequences[*sequence][range.start * width..range.end * width])
            .copied()
            .collect();
        matrix(&rows, rows.len() / width, width)
    }

    pub fn rotary(&self, compute: &Compute) -> Rotary {
        let dim = self.geometry.head_dim;
        let speeds: Vec<f32> = (0..dim / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / dim as f32)).collect();
        let norm = || self.head_norm.clone().map(|weight| Norm::rms(compute, weight, 1e-6).unwrap());
        let norms = HeadNorms { queries: norm(), keys: norm(), ..HeadNorms::none() };
        Rotary::new(compute, RotaryTable::new(&speeds, 1.0, 1024), self.geometry, norms)
    }

    /// Outputs of every sequence [len, H * D] after these steps.
    pub fn run(&self, compute: &Compute, steps: &[Vec<Part>]) -> Vec<Vec<f32>> {
        let rotary = self.rotary(compute);
        let scale = (self.geometry.head_dim as f32).sqrt().recip();
        let mut attention = Attention::new(compute, self.geometry, scale, self.window);
        if let Some(sinks) = &self.sinks {
            attention = attention.with_sinks(compute, sinks.clone()).unwrap();
        }
        let cache = KvLayer::new(compute, self.geometry, self.num_blocks, self.block_size).unwrap();
        let width = self.geometry.q_width();
        let mut outputs: Vec<Vec<f32>> = self.sequences.iter().map(|_| Vec::new()).collect();
        for parts in steps {
            let (batch, qkv) = (self.batch(parts), self.rows(parts));
            let queries = rotated_queries(&rotary, &qkv, &batch).unwrap();
            store(&cache, &qkv, &rotary, &batch).unwrap();
            let output = to_host(&attention.forward(&queries, &cache, &batch).unwrap()).unwrap();
            for (index, (sequence, range)) in parts.iter().enumerate() {
                let rows = batch.token_range(index);
                assert_eq!(outputs[*sequence].len(), range.start * width, "steps are in order");
                outputs[*sequence].extend(&output[rows.start * width..rows.end * width]);
            }
        }
        outputs
    }

    /// All sequences from their first to their last token in one step.
    pub fn whole(&self) -> Vec<Vec<Part>> {
        vec![(0..self.sequences.len()).map(|index| (index, 0..self.len(index))).collect()]
    }

    /// Random cuts; each step holds a random choice of sequences in a random order, single tokens among them.
    pub fn chunked(&self, random: &mut Random) -> Vec<Vec<Part>> {
        let mut done = vec![0; self.sequences.len()];
        let mut steps = Vec::new();
        while (0..done.len()).any(|index| done[index] < self.len(index)) {
            let mut parts = Vec::new();
            for (index, start) in done.iter_mut().enumerate() {
                let left = self.len(index) - *start;
                if left > 0 && random.below(4) > 0 {
                    let most = [1, 3, 20, 300][random.below(4)];
                    let end = *start + (1 + random.below(most)).min(left);
                    parts.push((index, *start..end));
                    *start = end;
                }
            }
            random.shuffle(&mut parts);
            if !parts.is_empty() {
                steps.push(parts);
            }
        }
        steps
    }
}

pub fn geometry(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> HeadGeometry {
    HeadGeometry { num_heads, num_kv_heads, head_dim }
}

pub fn assert_same_bits(got: &[Vec<f32>], want: &[Vec<f32>], what: &str) {
    for (sequence, (got, want)) in got.iter().zip(want).enumerate() {
        let differ = got.iter().zip(want).position(|(got, want)| got.to_bits() != want.to_bits());
        assert_eq!((got.len(), differ), (want.len(), None), "{what}: sequence {sequence}");
    }
}

/// Groups 1, 3, 7 and 8; head sizes with and without padding.
fn geometries() -> [HeadGeometry; 7] {
    [
        geometry(4, 4, 16),
        geometry(6, 2, 64),
        geometry(7, 1, 80),
        geometry(8, 1, 96),
        geometry(2, 2, 128),
        geometry(3, 1, 40),
        geometry(16, 2, 8),
    ]
}

const LENS: [usize; 6] = [1, 16, 47, 257, 700, 3];

/// Values are in (-2, 2) and weights sum to 1: within 5e-6 of the portable version.
#[test]
fn native_equals_portable() {
    let mut random = Random(30);
    for (index, geometry) in geometries().into_iter().enumerate() {
        let block_size = [16, 32, 64, 128, 256][index % 5];
        let mut ragged = Ragged::new(&mut random, geometry, block_size, &LENS);
        ragged.head_norm = (index % 2 == 1).then(|| random.numbers(geometry.head_dim, 2.0));
        for window in [None, Some(1), Some(5), Some(300)] {
            ragged.window = window;
            let native = ragged.run(&Compute::cpu(), &ragged.whole());
            let portable = ragged.run(&Compute::cpu().portable(), &ragged.whole());
            for (sequence, (got, want)) in native.iter().zip(&portable).enumerate() {
                let what = format!("{geometry:?} block {block_size} window {window:?} sequence {sequence}");
                assert_close(got, want, 5e-6, &what);
            }
        }
    }
}

/// Scores far apart: the softmax's maximum moves between chunks, and old sums are rescaled.
#[test]
fn peaked_scores_equal_portable() {
    let mut random = Random(31);
    let mut ragged = Ragged::new(&mut random, geometry(4, 2, 32), 32, &[600]);
    let width = ragged.geometry.qkv_width();
    let q_width = ragged.geometry.q_width();
    for row in ragged.sequences[0].chunks_mut(width) {
        row[..q_width].iter_mut().for_each(|x| *x *= 8.0);
    }
    let native = ragged.run(&Compute::cpu(), &ragged.whole());
    let portable = ragged.run(&Compute::cpu().portable(), &ragged.whole());
    assert_close(&native[0], &portable[0], 1e-4, "peaked");
    assert_same_bits(&ragged.run(&Compute::cpu(), &ragged.chunked(&mut random)), &native, "peaked, chunked");
}

#[test]
fn chunked_prefill_and_decoding_have_the_bits_of_the_whole_prefill() {
    let mut random = Random(32);
    for (index, geometry) in geometries().into_iter().enumerate() {
        let mut ragged = Ragged::new(&mut random, geometry, [16, 64, 256][index % 3], &LENS);
        for window in [None, Some(37), Some(256)] {
            ragged.window = window;
            let whole = ragged.run(&Compute::cpu(), &ragged.whole());
            for _ in 0..2 {
                let steps = ragged.chunked(&mut random);
                assert_same_bits(&ragged.run(&Compute::cpu(), &steps), &whole, &format!("{geometry:?} {window:?}"));
            }
        }
    }
}

#[test]
fn neighbours_blocks_and_threads_do_not_change_a_bit() {
    let mut random = Random(33);
    for geometry in geometries() {
        let mut ragged = Ragged::new(&mut random, geometry, 16, &LENS);
        let together = ragged.run(&Compute::cpu(), &ragged.whole());
        let alone: Vec<Vec<Part>> = (0..LENS.len()).map(|index| vec![(index, 0..ragged.len(index))]).collect();
        assert_same_bits(&ragged.run(&Compute::cpu(), &alone), &together, "alone");
        for threads in [1, 2] {
            let there = on_threads(threads, || ragged.run(&Compute::cpu(), &ragged.whole()));
            assert_same_bits(&there, &together, "threads");
        }
        for block_size in [32, 64, 128, 256] {
            ragged.lay_out(&mut random, block_size);
            assert_same_bits(&ragged.run(&Compute::cpu(), &ragged.whole()), &together, "block size");
        }
    }
}

/// Blocks that are given out again hold old numbers; none may reach a later owner, not even as 0 times infinity.
#[test]
fn what_a_block_held_before_is_not_seen() {
    let mut random = Random(34);
    let ragged = Ragged::new(&mut random, geometry(4, 2, 40), 32, &[45, 70]);
    let clean = ragged.run(&Compute::cpu(), &ragged.whole());
    let compute = Compute::cpu();
    let rotary = ragged.rotary(&compute);
    let cache = KvLayer::new(&compute, ragged.geometry, ragged.num_blocks, ragged.block_size).unwrap();
    let mut dirty = ragged.clone();
    dirty.sequences =
        vec![vec![f32::NAN; 64 * ragged.geometry.qkv_width()], vec![f32::INFINITY; 96 * ragged.geometry.qkv_width()]];
    store(&cache, &dirty.rows(&dirty.whole()[0]), &rotary, &dirty.batch(&dirty.whole()[0])).unwrap();
    let (batch, qkv) = (ragged.batch(&ragged.whole()[0]), ragged.rows(&ragged.whole()[0]));
    store(&cache, &qkv, &rotary, &batch).unwrap();
    let attention = Attention::new(&compute, ragged.geometry, 40f32.sqrt().recip(), None);
    let queries = rotated_queries(&rotary, &qkv, &batch).unwrap();
    let output = to_host(&attention.forward(&queries, &cache, &batch).unwrap()).unwrap();
    assert_same_bits(&[output], &[clean.concat()], "dirty blocks");
}

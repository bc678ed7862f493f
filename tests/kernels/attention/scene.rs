//! Sequences with a layer's attention, a cache that holds them, and the launches over both, as a step lists its work. Knows how items are
//! listed; knows no scheduler.

use std::ops::Range;

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use pairwright::ops::attention::Attention;
use pairwright::ops::paged::{HeadGeometry, KvLayer, PagedBatch};
use pairwright::ops::{Compute, to_host};

use crate::machine::{Launch, Number};
use crate::numbers::{Format, Random, assert_near, unwritten, wide};

const SPLIT: usize = 512;
const TILE: usize = 32;
/// Packed rows of a block of two warpgroups.
const GROUP_ROWS: usize = 128;

/// A format of the cache.
pub trait Cached: Number {
    /// As kernels' names have it.
    const SUFFIX: &'static str;
    /// What a slot holds that nobody has written.
    const NOTHING: Self;
    fn kept(value: f32) -> Self;
    fn read(self) -> f32;
}
impl Cached for f32 {
    const SUFFIX: &'static str = "";
    const NOTHING: Self = f32::NAN;
    fn kept(value: f32) -> Self {
        value
    }
    fn read(self) -> f32 {
        self
    }
}
impl Cached for f16 {
    const SUFFIX: &'static str = "";
    const NOTHING: Self = f16::NAN;
    fn kept(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn read(self) -> f32 {
        self.to_f32()
    }
}
impl Cached for bf16 {
    const SUFFIX: &'static str = "";
    const NOTHING: Self = bf16::NAN;
    fn kept(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn read(self) -> f32 {
        self.to_f32()
    }
}
/// Bits of an e4m3.
impl Cached for u8 {
    const SUFFIX: &'static str = "_fp8";
    const NOTHING: Self = 0x7f;
    fn kept(value: f32) -> Self {
        let distance = |code: &u8| (code.read() - value.abs()).abs();
        let nearest = (0..0x7f).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
        nearest | if value < 0.0 { 0x80 } else { 0 }
    }
    fn read(self) -> f32 {
        let (exponent, fraction) = (i32::from(self >> 3 & 15), f32::from(self & 7));
        let size =
            if exponent == 0 { fraction / 512.0 } else { (1.0 + fraction / 8.0) * (exponent as f32 - 7.0).exp2() };
        if self & 0x80 == 0 { size } else { -size }
    }
}

/// One sequence's part of a step.
pub type Part = (usize, Range<usize>);

/// Sequences as merged rows [q | k | v], and a layer's attention.
pub struct Scene<T> {
    pub geometry: HeadGeometry,
    pub window: usize,
    pub soft_cap: f32,
    pub sinks: Option<Vec<f32>>,
    pub sequences: Vec<Vec<T>>,
}

/// A cache that holds them whole.
pub struct Cache<K> {
    keys: Vec<K>,
    values: Vec<K>,
    block_size: usize,
    tables: Vec<Vec<u32>>,
}

/// A launch's lists in device memory.
struct Lists {
    context_lens: Vec<u32>,
    cu_blocks: Vec<u32>,
    block_tables: Vec<u32>,
}

/// A prefill's lists.
struct Work {
    cu_seqlens_q: Vec<u32>,
    items: Vec<u32>,
    num_items: u32,
    tokens: usize,
}

impl<T: Format> Scene<T> {
    /// Keys and values are those that a cache of K holds.
    pub fn new<K: Cached>(seed: u64, heads: [usize; 2], head_dim: usize, lens: &[usize]) -> Self {
        let geometry = HeadGeometry { num_heads: heads[0], num_kv_heads: heads[1], head_dim };
        let mut random = Random(seed);
        let sequences = lens.iter().map(|len| {
            let mut rows: Vec<T> = random.numbers(len * geometry.qkv_width(), 2.0);
            for row in rows.chunks_mut(geometry.qkv_width()) {
                row[geometry.q_width()..]
                    .iter_mut()
                    .for_each(|value| *value = T::rounded(K::kept(value.wide()).read()));
            }
            rows
        });
        let sequences = sequences.collect();
        Self { geometry, window: 0, soft_cap: 0.0, sinks: None, sequences }
    }

    fn len(&self, sequence: usize) -> usize {
        self.sequences[sequence].len() / self.geometry.qkv_width()
    }

    fn group(&self) -> usize {
        self.geometry.num_heads / self.geometry.num_kv_heads
    }

    fn scale(&self) -> f32 {
        (self.geometry.head_dim as f32).sqrt().recip()
    }

    pub fn whole(&self) -> Vec<Part> {
        (0..self.sequences.len()).map(|index| (index, 0..self.len(index))).collect()
    }

    /// What the CPU makes of these parts, as [T, H * D].
    fn expected(&self, parts: &[Part]) -> Vec<f32> {
        let compute = Compute::cpu();
        let mut attention =
            Attention::new(&compute, self.geometry, self.scale(), (self.window > 0).then_some(self.window));
        attention.soft_cap = (self.soft_cap > 0.0).then_some(self.soft_cap);
        if let Some(sinks) = &self.sinks {
            attention = attention.with_sinks(&compute, sinks.clone()).unwrap();
        }
        let (size, width) = (32, self.geometry.qkv_width());
        let mut outputs = Vec::new();
        for (sequence, range) in parts {
            let step = |range: Range<usize>| PagedBatch {
                positions: range.clone().map(|position| position as u32).collect(),
                slot_mapping: range.clone().map(|position| position as u32).collect(),
                cu_seqlens_q: vec![0, range.len() as u32],
                context_lens: vec![range.end as u32],
                block_tables: (0..range.end.div_ceil(size) as u32).collect(),
                cu_blocks: vec![0, range.end.div_ceil(size) as u32],
                is_generated: vec![false],
                block_size: size,
                num_padding: 0,
            };
            let rows = wide(&self.sequences[*sequence][..range.end * width]);
            let rows = Tensor::from_vec(rows, (range.end, width), &Device::Cpu).unwrap();
            let layer = KvLayer::new(&compute, self.geometry, range.end.div_ceil(size), size).unwrap();
            layer.write(&rows, &step(0..range.end)).unwrap();
            let rows = rows.narrow(0, range.start, range.len()).unwrap().contiguous().unwrap();
            let output = attention.forward(&rows, &layer, &step(range.clone())).unwrap();
            outputs.extend(to_host(&output).unwrap());
        }
        outputs
    }

    /// Blocks in an order of the seed's; slots of no token hold what is no number.
    pub fn cache<K: Cached>(&self, seed: u64, block_size: usize) -> Cache<K> {
        let HeadGeometry { num_heads, num_kv_heads, head_dim } = self.geometry;
        let counts: Vec<usize> = (0..self.sequences.len()).map(|index| self.len(index).div_ceil(block_size)).collect();
        let num_blocks = counts.iter().sum::<usize>() + 2;
        let mut blocks: Vec<u32> = (0..num_blocks as u32).collect();
        let mut random = Random(seed);
        (1..num_blocks).rev().for_each(|index| blocks.swap(index, random.below(index + 1)));
        let tables: Vec<Vec<u32>> = counts.iter().map(|&count| blocks.drain(..count).collect()).collect();
        let mut keys = vec![K::NOTHING; num_blocks * num_kv_heads * block_size * head_dim];
        let mut values = keys.clone();
        for (rows, table) in self.sequences.iter().zip(&tables) {
            for (position, row) in rows.chunks(self.geometry.qkv_width()).enumerate() {
                for (at, value) in row[num_heads * head_dim..].iter().enumerate() {
                    let (head, d) = (at / head_dim % num_kv_heads, at % head_dim);
                    let panel = table[position / block_size] as usize * num_kv_heads + head;
                    let offset = position % block_size;
                    match at / head_dim < num_kv_heads {
                        true => keys[(panel * block_size + offset) * head_dim + d] = K::kept(value.wide()),
                        false => values[(panel * head_dim + d) * block_size + offset] = K::kept(value.wide()),
                    }
                }
            }
        }
        Cache { keys, values, block_size, tables }
    }

    /// Query rows of these parts.
    fn rows(&self, parts: &[Part]) -> Vec<T> {
        let width = self.geometry.qkv_width();
        let part =
            |(sequence, range): &Part| self.sequences[*sequence][range.start * width..range.end * width].to_vec();
        parts.iter().flat_map(part).collect()
    }

    /// A launch with the parameters that all of them begin with.
    fn launch<'a, K: Cached>(
        &self,
        name: &'a str,
        grid: [u32; 3],
        threads: u32,
        rows: &'a [T],
        cache: &'a Cache<K>,
        lists: &'a Lists,
    ) -> Launch<'a> {
        let HeadGeometry { num_heads, num_kv_heads, .. } = self.geometry;
        Launch::new(name, grid, threads)
            .input(rows)
            .int(self.geometry.qkv_width())
            .input(&cache.keys)
            .input(&cache.values)
            .input(&lists.context_lens)
            .input(&lists.cu_blocks)
            .input(&lists.block_tables)
            .int(num_heads)
            .int(num_kv_heads)
            .int(cache.block_size)
            .float(self.scale())
            .int(self.window)
            .float(self.soft_cap)
    }

    /// Bytes of shared memory that `stages` tiles take, and queries of so many tiles of rows of each warp, or their outputs.
    fn shared_bytes<K>(&self, stages: usize, warps: usize, row_tiles: usize) -> usize {
        let (head_dim, size) = (self.geometry.head_dim, size_of::<T>());
        let row = head_dim * size_of::<K>();
        let in_registers = if size == 2 && head_dim <= 128 { 4 / row_tiles } else { 0 };
        let queries = head_dim.div_ceil(32).saturating_sub(in_registers) * row_tiles * 16 * 32 * size;
        let tiles = stages * (TILE * row.next_multiple_of(64) + TILE * row);
        (tiles + warps * queries).max(warps * 16 * head_dim * size)
    }

    /// A prefill's items of so many packed rows, and behind them some that nobody is to look at.
    fn work(&self, parts: &[Part], at_once: usize) -> Work {
        let mut work = Work { cu_seqlens_q: vec![0], items: Vec::new(), num_items: 0, tokens: 0 };
        for (sequence, (_, range)) in parts.iter().enumerate() {
            let first_rows = (0..range.len() * self.group()).step_by(at_once);
            work.items.extend(first_rows.flat_map(|row| [sequence as u32, row as u32]));
            work.tokens += range.len();
            work.cu_seqlens_q.push(work.tokens as u32);
        }
        work.num_items = work.items.len() as u32 / 2;
        work.items.extend([u32::MAX; 6]);
        work
    }

    /// These parts in a prefill: [T, H * D].
    pub fn prefill<K: Cached>(&self, cache: &Cache<K>, parts: &[Part], stages: usize) -> Vec<T> {
        let (head_dim, lists) = (self.geometry.head_dim, cache.lists(parts));
        let warps = if head_dim * size_of::<T>() > 768 { 2 } else { 4 };
        let row_tiles = if size_of::<T>() == 2 && head_dim <= 128 { 2 } else { 1 };
        let work = self.work(parts, 16 * row_tiles * warps);
        let mut out = unwritten(work.tokens * self.geometry.q_width());
        let mut records = vec![f32::NAN; work.tokens * self.geometry.num_heads * (head_dim + 4)];
        let name = format!("pairwright_attention_prefill_{}{}_{head_dim}", T::NAME, K::SUFFIX);
        let rows = self.rows(parts);
        let grid = [work.num_items + 3, self.geometry.num_kv_heads as u32, 1];
        let launch = self.launch(&name, grid, 32 * warps as u32, &rows, cache, &lists);
        launch
            .shared(self.shared_bytes::<K>(stages, warps, row_tiles))
            .input(&work.cu_seqlens_q)
            .input(&work.items)
            .input(&[work.num_items])
            .maybe(self.sinks.as_deref())
            .output(&mut records)
            .output(&mut out)
            .int(stages)
            .run();
        out
    }

    /// Tokens (sequence, position), each decoded in a sequence of its own: [T, H * D]. Splits without a key in the window are items only
    /// if `all_splits`. Behind the tokens come a sequence and a row without items.
    pub fn decode<K: Cached>(
        &self,
        cache: &Cache<K>,
        tokens: &[[usize; 2]],
        stages: usize,
        all_splits: bool,
    ) -> Vec<T> {
        let HeadGeometry { num_heads, num_kv_heads, head_dim } = self.geometry;
        let parts: Vec<Part> = tokens.iter().map(|&[sequence, position]| (sequence, position..position + 1)).collect();
        let lists = cache.lists(&parts);
        let (mut items, mut cu_items) = (Vec::new(), vec![0]);
        for (sequence, [_, position]) in tokens.iter().enumerate() {
            let seen = if self.window == 0 { 0 } else { (position + 1).saturating_sub(self.window) };
            let first = if all_splits { 0 } else { seen / SPLIT };
            items.extend((first..position / SPLIT + 1).flat_map(|split| [sequence as u32, split as u32]));
            cu_items.push(items.len() as u32 / 2);
        }
        let num_items = items.len() as u32 / 2;
        cu_items.push(num_items);
        items.extend([u32::MAX; 4]);
        let first_rows: Vec<u32> = (0..=tokens.len() as u32).collect();
        let mut partials = vec![f32::NAN; (num_items as usize + 2) * num_heads * (head_dim + 4)];
        let name = format!("pairwright_attention_decode_{}{}_{head_dim}", T::NAME, K::SUFFIX);
        let rows = self.rows(&parts);
        let grid = [num_items + 2, num_kv_heads as u32, self.group().div_ceil(16) as u32];
        self.launch(&name, grid, 32, &rows, cache, &lists)
            .shared(self.shared_bytes::<K>(stages, 1, 1))
            .input(&first_rows)
            .input(&items)
            .input(&[num_items])
            .output(&mut partials)
            .int(stages)
            .run();
        assert!(partials[num_items as usize * num_heads * (head_dim + 4)..].iter().all(|number| number.is_nan()));
        let mut out: Vec<T> = unwritten((tokens.len() + 1) * num_heads * head_dim);
        let blocks = (num_heads * head_dim / 8).div_ceil(128) as u32;
        Launch::new(
            &format!("pairwright_attention_merge_{}_{head_dim}", T::NAME),
            [tokens.len() as u32 + 1, blocks, 1],
            128,
        )
        .input(&partials)
        .input(&cu_items)
        .input(&first_rows)
        .maybe(self.sinks.as_deref())
        .output(&mut out)
        .int(num_heads)
        .run();
        let idle = out.split_off(tokens.len() * num_heads * head_dim);
        assert!(idle.iter().all(|number| number.wide().is_nan()), "a sequence without items keeps its row");
        out
    }

    /// The same by warpgroups.
    pub fn group_prefill<K: Cached>(&self, cache: &Cache<K>, parts: &[Part]) -> Vec<T> {
        let head_dim = self.geometry.head_dim;
        let keys = if head_dim <= 128 { 128 } else { 64 };
        let work = self.work(parts, GROUP_ROWS);
        let mut out = unwritten(work.tokens * self.geometry.q_width());
        let name = format!("pairwright_attention_group_prefill_{}_{head_dim}", T::NAME);
        let (rows, lists) = (self.rows(parts), cache.lists(parts));
        let grid = [work.num_items + 3, self.geometry.num_kv_heads as u32, 1];
        self.launch(&name, grid, 256, &rows, cache, &lists)
            .shared((GROUP_ROWS + 4 * keys) * head_dim * 2 + 1024)
            .input(&work.cu_seqlens_q)
            .input(&work.items)
            .input(&[work.num_items])
            .maybe(self.sinks.as_deref())
            .output(&mut out)
            .run();
        out
    }

    /// Whether there is a kernel for warpgroups.
    fn has_groups<K: Cached>(&self) -> bool {
        size_of::<T>() == 2 && size_of::<K>() == 2 && [64, 128, 256].contains(&self.geometry.head_dim)
    }

    /// Prefill of all and decoding of some against the CPU: what one rounding of the weights and one of the outputs may change, relative
    /// to values of up to 2.
    pub fn holds<K: Cached>(&self, block_size: usize, what: &str) {
        let cache = self.cache::<K>(7, block_size);
        let parts = self.whole();
        let want = self.expected(&parts);
        let floor = want.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let tolerance = if size_of::<T>() == 4 { 1e-5 } else { T::STEP };
        let got = self.prefill(&cache, &parts, 2);
        assert_near(&got, &want, tolerance, floor, &format!("{what}, prefill{}", K::SUFFIX));
        if self.has_groups::<K>() {
            let got = self.group_prefill(&cache, &parts);
            assert_near(&got, &want, tolerance, floor, &format!("{what}, prefill by warpgroups"));
        }
        let ends: Vec<[usize; 2]> = parts.iter().map(|(sequence, range)| [*sequence, range.end - 1]).collect();
        let parts: Vec<Part> = ends.iter().map(|&[sequence, position]| (sequence, position..position + 1)).collect();
        let got = self.decode(&cache, &ends, 2, true);
        assert_near(&got, &self.expected(&parts), tolerance, floor, &format!("{what}, decoding{}", K::SUFFIX));
    }
}

impl<K: Cached> Cache<K> {
    fn lists(&self, parts: &[Part]) -> Lists {
        let mut lists = Lists { context_lens: Vec::new(), cu_blocks: vec![0], block_tables: Vec::new() };
        for (sequence, range) in parts {
            lists.context_lens.push(range.end as u32);
            lists.block_tables.extend(&self.tables[*sequence][..range.end.div_ceil(self.block_size)]);
            lists.cu_blocks.push(lists.block_tables.len() as u32);
        }
        lists
    }
}

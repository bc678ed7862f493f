//! The cache's layout, rotation of queries and keys, and batches that do not fit: errors, whatever is wrong with them.

use candle_core::{DType, Tensor};
use pairwright::ops::attention::Attention;
use pairwright::ops::norm::Norm;
use pairwright::ops::paged::{KvFormat, KvLayer, PagedBatch};
use pairwright::ops::rotary::{HeadNorms, Rotary, RotaryTable};
use pairwright::ops::{Compute, to_host};

use super::attention::{Ragged, geometry, rotated_queries, store};
use super::{Random, assert_close};

/// Rotation in f64, straight from the definition.
fn rotated(head: &[f32], speeds: &[f32], factor: f32, position: usize) -> Vec<f32> {
    let pairs = speeds.len();
    let mut out = head.to_vec();
    for (i, &speed) in speeds.iter().enumerate() {
        let (sin, cos) = f64::from(position as f32 * speed).sin_cos();
        let (x, y) = (f64::from(head[i]), f64::from(head[i + pairs]));
        out[i] = ((x * cos - y * sin) * f64::from(factor)) as f32;
        out[i + pairs] = ((y * cos + x * sin) * f64::from(factor)) as f32;
    }
    out
}

#[test]
fn queries_are_rotated_by_their_positions() {
    let mut random = Random(40);
    let ragged = Ragged::new(&mut random, geometry(3, 1, 20), 16, &[900, 1]);
    let parts = vec![(0, 3..900), (1, 0..1)];
    let (batch, qkv) = (ragged.batch(&parts), ragged.rows(&parts));
    // All pairs of a head, and a part of them.
    for pairs in [10, 6] {
        let speeds: Vec<f32> = (0..pairs).map(|i| 0.5f32.powi(i)).collect();
        for compute in [Compute::cpu(), Compute::cpu().portable()] {
            let table = RotaryTable::new(&speeds, 1.25, 900);
            let rotary = Rotary::new(&compute, table, ragged.geometry, HeadNorms::none());
            let got = to_host(&rotated_queries(&rotary, &qkv, &batch).unwrap()).unwrap();
            let rows = to_host(&qkv).unwrap();
            let want: Vec<f32> = rows
                .chunks(ragged.geometry.qkv_width())
                .zip(&batch.positions)
                .flat_map(|(row, &position)| {
                    let heads = row[..ragged.geometry.q_width()].chunks(20);
                    heads.flat_map(|head| rotated(head, &speeds, 1.25, position as usize)).collect::<Vec<_>>()
                })
                .collect();
            assert_close(&got, &want, 1e-6, &compute.describe());
        }
    }
}

/// Native keys lie as [Hkv, D, S] per block and values as [Hkv, S, D']; the portable cache is [slots, Hkv * D].
#[test]
fn native_and_portable_caches_hold_the_same_numbers() {
    let mut random = Random(41);
    for (geometry, size) in [(geometry(4, 2, 40), 16), (geometry(2, 2, 64), 256), (geometry(7, 1, 80), 32)] {
        let mut ragged = Ragged::new(&mut random, geometry, size, &[33, 1, 70]);
        ragged.head_norm = Some(random.numbers(geometry.head_dim, 2.0));
        let parts = &ragged.whole()[0];
        let (batch, qkv) = (ragged.batch(parts), ragged.rows(parts));
        let [native, portable] = [Compute::cpu(), Compute::cpu().portable()].map(|compute| {
            let cache = KvLayer::new(&compute, geometry, ragged.num_blocks, size).unwrap();
            store(&cache, &qkv, &ragged.rotary(&compute), &batch).unwrap();
            (to_host(&cache.keys).unwrap(), to_host(&cache.values).unwrap())
        });
        let (dim, heads) = (geometry.head_dim, geometry.num_kv_heads);
        let padded = dim.next_multiple_of(16);
        for slot in 0..ragged.num_blocks * size {
            let (block, offset) = (slot / size, slot % size);
            for head in 0..heads {
                let row = slot * heads * dim + head * dim;
                let keys: Vec<f32> =
                    (0..dim).map(|d| native.0[((block * heads + head) * dim + d) * size + offset]).collect();
                assert_close(&keys, &portable.0[row..row + dim], 4e-6, "keys");
                let values = &native.1[((block * heads + head) * size + offset) * padded..][..dim];
                assert_eq!(values, &portable.1[row..row + dim]);
            }
        }
    }
}

#[test]
fn sizes_are_counted_as_stored() {
    let geometry = geometry(6, 2, 40);
    assert_eq!((geometry.qkv_width(), geometry.q_width(), geometry.kv_width()), (400, 240, 80));
    for (format, per_token) in [
        (KvFormat::F32, 2 * (40 + 48) * 4),
        (KvFormat::F16, 2 * (40 + 48) * 2),
        (KvFormat::Bf16, 2 * (40 + 48) * 2),
        (KvFormat::Int8, 2 * (40 + 48 + 2 * 4)),
    ] {
        assert_eq!(geometry.kv_bytes_per_token(format), per_token, "{format:?}");
        let cache = KvLayer::new(&Compute { kv_format: format, ..Compute::cpu() }, geometry, 3, 64).unwrap();
        let bytes = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        let stored = bytes(&cache.keys) + bytes(&cache.values) + cache.scales.as_ref().map_or(0, bytes);
        assert_eq!(stored, 3 * 64 * per_token, "{format:?}");
    }
    for size in [0, 1, 8, 24, 48, 512] {
        let error = KvLayer::new(&Compute::cpu(), geometry, 3, size).unwrap_err().to_string();
        assert!(error.contains(&format!("block size of {size}")), "{error}");
    }
}

type Change = fn(&mut PagedBatch);

/// Each makes a batch of two sequences wrong in one way.
const WRONG: [(&str, Change); 17] = [
    ("slots missing", |batch| _ = batch.slot_mapping.pop()),
    ("a slot outside", |batch| batch.slot_mapping[2] = 100_000),
    ("positions missing", |batch| _ = batch.positions.pop()),
    ("rows beyond the tokens", |batch| *batch.cu_seqlens_q.last_mut().unwrap() += 1),
    ("rows left over", |batch| *batch.cu_seqlens_q.last_mut().unwrap() -= 1),
    ("rows backwards", |batch| batch.cu_seqlens_q[1] = 1000),
    ("rows from the second token", |batch| batch.cu_seqlens_q[0] = 1),
    ("no row bounds", |batch| batch.cu_seqlens_q.clear()),
    ("a context shorter than its rows", |batch| batch.context_lens[0] = 2),
    ("a context longer than its blocks", |batch| batch.context_lens[0] = 1000),
    ("a context missing", |batch| _ = batch.context_lens.pop()),
    ("a block outside", |batch| batch.block_tables[0] = 99),
    ("blocks missing", |batch| batch.block_tables.truncate(1)),
    ("block bounds backwards", |batch| batch.cu_blocks[1] = 77),
    ("no block bounds", |batch| batch.cu_blocks.clear()),
    ("blocks of no tokens", |batch| batch.block_size = 0),
    ("blocks of another size", |batch| batch.block_size = 32),
];

#[test]
fn batches_that_do_not_fit_are_errors() {
    let mut random = Random(42);
    let ragged = Ragged::new(&mut random, geometry(4, 2, 16), 16, &[20, 40]);
    let parts = &ragged.whole()[0];
    let (good, qkv) = (ragged.batch(parts), ragged.rows(parts));
    for compute in [Compute::cpu(), Compute::cpu().portable()] {
        let rotary = ragged.rotary(&compute);
        let attention = Attention::new(&compute, ragged.geometry, 0.25, None);
        let cache = KvLayer::new(&compute, ragged.geometry, ragged.num_blocks, 16).unwrap();
        store(&cache, &qkv, &rotary, &good).unwrap();
        let queries = rotated_queries(&rotary, &qkv, &good).unwrap();
        attention.forward(&queries, &cache, &good).unwrap();
        for (what, change) in WRONG {
            let mut batch = good.clone();
            change(&mut batch);
            let portable_takes_any_size = what == "blocks of another size" && compute.describe().contains("portable");
            if !portable_takes_any_size {
                assert!(attention.forward(&queries, &cache, &batch).is_err(), "attention: {what}");
                assert!(store(&cache, &qkv, &rotary, &batch).is_err(), "write: {what}");
            }
        }
        let mut far = good.clone();
        far.positions[5] = 5000;
        let error = rotated_queries(&rotary, &qkv, &far).unwrap_err().to_string();
        assert!(error.contains("5000") && error.contains("1024"), "{error}");
        assert!(store(&cache, &qkv, &rotary, &far).is_err());
    }
}

#[test]
fn tensors_that_do_not_fit_are_errors() {
    let mut random = Random(43);
    let ragged = Ragged::new(&mut random, geometry(4, 2, 16), 16, &[20]);
    let parts = &ragged.whole()[0];
    let (batch, qkv) = (ragged.batch(parts), ragged.rows(parts));
    for compute in [Compute::cpu(), Compute::cpu().portable()] {
        let rotary = ragged.rotary(&compute);
        let attention = Attention::new(&compute, ragged.geometry, 0.25, None);
        let cache = KvLayer::new(&compute, ragged.geometry, ragged.num_blocks, 16).unwrap();
        let zeros = |rows: usize, width: usize| Tensor::zeros((rows, width), DType::F32, &compute.device).unwrap();
        for x in [zeros(20, 127), zeros(19, 128), zeros(21, 128), zeros(0, 128), zeros(20, 256)] {
            assert!(rotated_queries(&rotary, &x, &batch).is_err(), "queries of {:?}", x.dims());
            assert!(store(&cache, &x, &rotary, &batch).is_err(), "write of {:?}", x.dims());
        }
        for x in [zeros(20, 63), zeros(19, 64), zeros(21, 64), zeros(0, 64)] {
            assert!(attention.forward(&x, &cache, &batch).is_err(), "attention of {:?}", x.dims());
        }
        let other = KvLayer::new(&compute, geometry(4, 1, 16), ragged.num_blocks, 16).unwrap();
        let queries = rotated_queries(&rotary, &qkv, &batch).unwrap();
        assert!(attention.forward(&queries, &other, &batch).is_err(), "a cache of other heads");
        assert!(store(&other, &qkv, &rotary, &batch).is_err(), "a cache of other heads");
        let three = ragged.geometry;
        let three = pairwright::ops::paged::HeadGeometry { num_kv_heads: 3, ..three };
        let uneven = Attention::new(&compute, three, 0.25, None);
        assert!(uneven.forward(&queries, &cache, &batch).is_err(), "four query heads over three key heads");
        if !compute.describe().contains("portable") {
            let keys = zeros(ragged.num_blocks, 24 * 32);
            let mut odd = cache.clone();
            (odd.values, odd.keys) = (keys.clone(), keys);
            let batch = PagedBatch { block_size: 24, ..batch.clone() };
            let error = attention.forward(&queries, &odd, &batch).unwrap_err().to_string();
            assert!(error.contains("block size of 24"), "{error}");
        }
        let wide = RotaryTable::new(&[1.0; 9], 1.0, 64);
        let rotary = Rotary::new(&compute, wide, ragged.geometry, HeadNorms::none());
        assert!(rotated_queries(&rotary, &qkv, &batch).is_err(), "nine pairs in a head of sixteen");
        let norm = Norm::rms(&compute, vec![1.0; 15], 1e-6).unwrap();
        let table = RotaryTable::new(&[1.0; 8], 1.0, 64);
        let rotary = Rotary::new(&compute, table, ragged.geometry, HeadNorms::per_head(norm.clone(), norm));
        assert!(rotated_queries(&rotary, &qkv, &batch).is_err(), "a norm of fifteen in a head of sixteen");
        assert!(store(&cache, &qkv, &rotary, &batch).is_err(), "a norm of fifteen in a head of sixteen");
    }
}

#[test]
fn an_empty_step_is_no_error() {
    let ragged = Ragged::new(&mut Random(44), geometry(4, 2, 16), 16, &[20]);
    for compute in [Compute::cpu(), Compute::cpu().portable()] {
        let batch = ragged.batch(&[]);
        let rotary = ragged.rotary(&compute);
        let cache = KvLayer::new(&compute, ragged.geometry, ragged.num_blocks, 16).unwrap();
        let qkv = Tensor::zeros((0, 128), DType::F32, &compute.device).unwrap();
        let queries = rotated_queries(&rotary, &qkv, &batch).unwrap();
        store(&cache, &qkv, &rotary, &batch).unwrap();
        let attention = Attention::new(&compute, ragged.geometry, 0.25, None);
        assert_eq!(attention.forward(&queries, &cache, &batch).unwrap().dims(), [0, 64]);
    }
}

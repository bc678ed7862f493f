//! Products with weight matrices, and rows taken out of tables. Knows matrices; knows no layer.

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Result};

use super::{Case, Prepared, Scale, bytes, matrix, numbers, size};
use crate::ops::embedding::Embedding;
use crate::ops::linear::{Linear, MatrixView};
use crate::ops::paged::PagedBatch;
use crate::ops::{Compute, DenseProducts, Room, Slot, Workspace, to_host};

pub fn cases(scale: Scale) -> Vec<Case> {
    let (k, n, rows): (usize, usize, &[usize]) = match scale {
        Scale::Small => (256, 352, &[1, 5, 33]),
        Scale::Processor => (2048, 8192, &[1, 8, 32, 64, 512]),
        Scale::Card => (4096, 14336, &[1, 16, 64, 256, 2048]),
    };
    let (vocabulary, width, tokens) = match scale {
        Scale::Small => (1_000, 96, 37),
        Scale::Processor => (32_000, 1024, 512),
        // More than a card's caches hold; larger tables take longer to make and are read the same way.
        Scale::Card => (32_000, 4096, 16_384),
    };
    let mut cases: Vec<Case> = rows.iter().map(|&rows| linear("linear", rows, [k, n], None)).collect();
    if scale != Scale::Processor {
        cases.extend(rows.iter().map(|&rows| own_linear(rows, [k, n])));
    }
    cases.push(gather(vocabulary, width, tokens, None));
    let formats: &[GgmlDType] = match scale {
        Scale::Small => &BLOCKS,
        Scale::Processor | Scale::Card => &[GgmlDType::Q8_0, GgmlDType::Q4K],
    };
    for &format in formats {
        let rows = if scale == Scale::Small { &rows[2..] } else { rows };
        cases.extend(rows.iter().map(|&rows| linear("blocks", rows, [k, n], Some(format))));
        cases.push(gather(if scale == Scale::Small { 100 } else { vocabulary }, k, tokens, Some(format)));
    }
    cases
}

/// The formats that have kernels.
const BLOCKS: [GgmlDType; 8] = [
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

/// y = x Wᵀ.
fn linear(op: &'static str, rows: usize, [k, n]: [usize; 2], blocks: Option<GgmlDType>) -> Case {
    let distinct = distinct(rows);
    let case = Case::new(op, format!("m={rows} k={k} n={n}"), rows / distinct, move |compute, copies| {
        prepare_linear(compute, [copies, distinct], [k, n])
    });
    case.with_blocks(blocks)
}

/// The same by our own kernels, also where cuBLASLt's would do.
fn own_linear(rows: usize, [k, n]: [usize; 2]) -> Case {
    let distinct = distinct(rows);
    Case::new("own linear", format!("m={rows} k={k} n={n}"), rows / distinct, move |compute, copies| {
        let compute = Compute { products: DenseProducts::Own, ..compute.clone() };
        prepare_linear(&compute, [copies, distinct], [k, n])
    })
}

fn prepare_linear(compute: &Compute, [copies, distinct]: [usize; 2], [k, n]: [usize; 2]) -> Result<Prepared> {
    let linear = weights(compute, [k, n])?;
    let (x, mut workspace) = (matrix(compute, copies, distinct, k, 2)?, Workspace::default());
    let weights = (n * k) as f64 * compute.bytes_per_weight();
    let moved = weights as usize + copies * distinct * (k + n) * size(compute);
    let run = move || linear.forward_in(&mut workspace, Slot::GateUp, &x);
    Ok(Prepared::new(moved, 2 * copies * distinct * k * n, run))
}

fn weights(compute: &Compute, [k, n]: [usize; 2]) -> Result<Linear> {
    let data = bytes(&numbers(n * k, 1));
    let view = MatrixView { bytes: &data, format: DType::F32.into(), rows: n, columns: k };
    Linear::new(compute, &[view], None)
}

/// Whether a row of a product is the same to the bit, wherever it stands and with however many others; and what was compared, or differs.
///
/// # Errors
/// If a tensor operation fails.
pub fn rows_are_alike(compute: &Compute, scale: Scale) -> Result<(bool, String)> {
    const DISTINCT: usize = 16;
    let (shape, batches): ([usize; 2], &[usize]) = match scale {
        Scale::Small => ([256, 352], &[1, 5, 33, 160]),
        Scale::Processor => ([2048, 2048], &[1, 8, 33, 160]),
        Scale::Card => ([4096, 14_336], &[1, 16, 64, 200, 2048]),
    };
    let linear = weights(compute, shape)?;
    let most = batches.iter().max().map_or(DISTINCT, |most| most.next_multiple_of(DISTINCT));
    let (x, mut workspace) = (matrix(compute, most / DISTINCT, DISTINCT, shape[0], 2)?, Workspace::default());
    let want = to_host(&linear.forward_in(&mut workspace, Slot::GateUp, &x.narrow(0, 0, DISTINCT)?)?)?;
    let mut differ = Vec::new();
    for &rows in batches {
        let got = to_host(&linear.forward_in(&mut workspace, Slot::GateUp, &x.narrow(0, 0, rows)?)?)?;
        let bits = |number: &f32| number.to_bits();
        if !got.chunks(want.len()).all(|rows| rows.iter().map(bits).eq(want[..rows.len()].iter().map(bits))) {
            differ.push(rows.to_string());
        }
    }
    let [k, n] = shape;
    Ok(match &differ[..] {
        [] => (true, format!("{batches:?} rows, k={k} n={n}")),
        _ => (false, format!("other bits with {} rows, k={k} n={n}", differ.join(", "))),
    })
}

/// The reference takes few rows; the others repeat them.
fn distinct(rows: usize) -> usize {
    (1..=rows.min(16)).rev().find(|&few| rows.is_multiple_of(few)).unwrap_or(1)
}

/// Tokens to rows.
fn gather(vocabulary: usize, width: usize, tokens: usize, blocks: Option<GgmlDType>) -> Case {
    let shape = format!("T={tokens} width={width} V={vocabulary}");
    let case = Case::new("embedding", shape, 1, move |compute, _| {
        let data = bytes(&numbers(vocabulary * width, 1));
        let view = MatrixView { bytes: &data, format: DType::F32.into(), rows: vocabulary, columns: width };
        let (table, ids) = (Embedding::table(compute, &view)?, ids(tokens, vocabulary));
        let mut workspace = on_device(compute, &ids)?;
        let compute = compute.clone();
        let moved = 2 * tokens * width * size(&compute);
        let run = move || Ok(table.stream(&compute, &mut workspace, &ids)?.residual().clone());
        Ok(Prepared::new(moved, 0, run))
    });
    // What is widened on the way is rounded to the device's format, and Candle's sums round twice where ours do once.
    if blocks.is_some() { case.with_blocks(blocks) } else { case.exact() }
}

/// Ids below `bound`, in no order.
fn ids(count: usize, bound: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 % bound) as u32).collect()
}

/// A step of these tokens, on a CUDA device.
fn on_device(compute: &Compute, ids: &[u32]) -> Result<Workspace> {
    let mut workspace = Workspace::default();
    workspace.begin_step(compute, ids, &batch_of(ids.len()), &Room::default())?;
    Ok(workspace)
}

/// One sequence of that many tokens, in one block.
fn batch_of(tokens: usize) -> PagedBatch {
    PagedBatch {
        positions: (0..tokens as u32).collect(),
        slot_mapping: (0..tokens as u32).collect(),
        cu_seqlens_q: vec![0, tokens as u32],
        context_lens: vec![tokens as u32],
        block_tables: vec![0],
        cu_blocks: vec![0, 1],
        is_generated: vec![false],
        block_size: tokens,
        num_padding: 0,
    }
}

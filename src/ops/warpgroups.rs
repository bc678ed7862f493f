//! Kernels of Hopper's warpgroups (kernels/warpgroup.cuh) are tried on a card before it uses them, each against plain sums: what their
//! instructions read is a matter of bits in descriptors, and answers would else be wrong without a word. Takes some milliseconds.
//! Knows what the kernels compute; knows no layer.

use candle_core::{DType, Device, Result, Tensor};

use super::Kernels;
use super::attention::GroupShape;
use super::launch::Launch;
use super::linear::by_all_warpgroup_tiles;

/// Bytes more that such a kernel is given, as its lines in shared memory begin at a multiple of so many (kernels/warpgroup.cuh).
pub(super) const LINES_ALIGNMENT: usize = 1024;

/// Rows, inputs and outputs of products: no whole tile of any size, and inputs for more steps than are copied ahead.
const ROWS: usize = 70;
const INPUTS: usize = 608;
const OUTPUTS: usize = 74;
/// Query heads of the one key head, their size, and tokens: those in the cache and those that ask.
const HEADS: usize = 3;
const HEAD_DIM: usize = 128;
const CONTEXT: usize = 300;
const ASKING: usize = 45;
/// Tokens of a block.
const BLOCK: usize = 32;
/// Error relative to the largest result: beyond what rounding does to a result and to weights, far below what a wrong place of an input does.
const MOST_ERROR: f32 = 0.03;

/// The kernels, with warpgroups' in use if the card has them and they are right.
///
/// # Errors
/// If the card fails, or has no room for a few megabytes.
pub(super) fn tried(device: &Device, kernels: Kernels) -> Result<Kernels> {
    if !kernels.offers_warpgroups() {
        return Ok(kernels);
    }
    let is_right = products_are_right(device, &kernels, DType::BF16)?
        && products_are_right(device, &kernels, DType::F8E4M3)?
        && attention_is_right(device, &kernels)?;
    Ok(kernels.with_warpgroups(is_right))
}

/// Numbers between -1 and 1 that look like none, a row after the other, the same each time.
fn numbers(salt: u32, rows: usize, width: usize, dtype: DType) -> Result<Tensor> {
    let number = |index: u32| {
        // The last step of MurmurHash3 (Appleby 2011).
        let mut word = index.wrapping_add(salt << 24);
        word = (word ^ (word >> 16)).wrapping_mul(0x85EB_CA6B);
        word = (word ^ (word >> 13)).wrapping_mul(0xC2B2_AE35);
        (word ^ (word >> 16)) as f32 / 2f32.powi(31) - 1.0
    };
    let numbers: Vec<f32> = (0..(rows * width) as u32).map(number).collect();
    Tensor::from_vec(numbers, (rows, width), &Device::Cpu)?.to_dtype(dtype)
}

/// As f32 on the CPU.
fn wide(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)
}

/// Whether numbers are those that are wanted, NaN being none.
fn agree(got: &Tensor, want: &Tensor) -> Result<bool> {
    let (got, want) = (wide(got)?.flatten_all()?.to_vec1::<f32>()?, wide(want)?.flatten_all()?.to_vec1::<f32>()?);
    let largest = want.iter().fold(0.0f32, |most, number| most.max(number.abs()));
    let near = |(got, want): (&f32, &f32)| (got - want).abs() <= MOST_ERROR * largest;
    Ok(got.len() == want.len() && got.iter().zip(&want).all(near))
}

fn products_are_right(device: &Device, kernels: &Kernels, dtype: DType) -> Result<bool> {
    let (x, weight) = (numbers(1, ROWS, INPUTS, dtype)?, numbers(2, OUTPUTS, INPUTS, dtype)?);
    let want = wide(&x)?.matmul(&wide(&weight)?.t()?)?;
    let results = by_all_warpgroup_tiles(kernels, &x.to_device(device)?, &weight.to_device(device)?)?;
    results.iter().try_fold(true, |right, result| Ok(right && agree(result, &want)?))
}

fn attention_is_right(device: &Device, kernels: &Kernels) -> Result<bool> {
    let blocks = CONTEXT.div_ceil(BLOCK);
    let queries = numbers(3, ASKING, HEADS * HEAD_DIM, DType::BF16)?;
    // Blocks lie in the cache the last first, with keys as [S, D] and values as [D, S].
    let [keys, values] =
        [numbers(4, blocks * BLOCK, HEAD_DIM, DType::BF16)?, numbers(5, blocks * BLOCK, HEAD_DIM, DType::BF16)?];
    let place = |rows: &Tensor| {
        let order: Vec<u32> = (0..blocks as u32).rev().collect();
        rows.reshape((blocks, BLOCK, HEAD_DIM))?.index_select(&Tensor::new(order, &Device::Cpu)?, 0)
    };
    let cache = [place(&keys)?.contiguous()?, place(&values)?.transpose(1, 2)?.contiguous()?];
    let cache = [cache[0].to_device(device)?, cache[1].to_device(device)?];
    let lists = |numbers: &[u32]| Tensor::new(numbers, device);
    let items: Vec<u32> = (0..ASKING * HEADS).step_by(GroupShape::ROWS).flat_map(|row| [0, row as u32]).collect();
    let table: Vec<u32> = (0..blocks as u32).rev().collect();
    let got = Tensor::zeros((ASKING, HEADS * HEAD_DIM), DType::BF16, device)?;
    Launch::named(kernels, format!("pairwright_attention_group_prefill_bf16_{HEAD_DIM}"))
        .over_all([items.len() / 2, 1, 1], GroupShape::THREADS)
        .shared(GroupShape::of(HEAD_DIM).shared_bytes())
        .tensor(&queries.to_device(device)?)
        .int(HEADS * HEAD_DIM)
        .tensor(&cache[0])
        .tensor(&cache[1])
        .tensor(&lists(&[CONTEXT as u32])?)
        .tensor(&lists(&[0, blocks as u32])?)
        .tensor(&lists(&table)?)
        .int(HEADS)
        .int(1)
        .int(BLOCK)
        .float((HEAD_DIM as f32).sqrt().recip())
        .int(0)
        .float(0.0)
        .tensor(&lists(&[0, ASKING as u32])?)
        .tensor(&lists(&items)?)
        .tensor(&lists(&[items.len() as u32 / 2])?)
        .optional(None)
        .tensor(&got)
        .run()?;
    agree(&got, &attended(&queries, &keys, &values)?)
}

/// Attention of the last tokens, each over those up to itself: [ASKING, HEADS * HEAD_DIM] in f32.
fn attended(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
    let (keys, values) = (wide(keys)?.narrow(0, 0, CONTEXT)?, wide(values)?.narrow(0, 0, CONTEXT)?);
    let rows = wide(queries)?.reshape((ASKING * HEADS, HEAD_DIM))?;
    let scores = (rows.matmul(&keys.t()?)? * f64::from((HEAD_DIM as f32).sqrt().recip()))?;
    let mut weights = scores.to_vec2::<f32>()?;
    for (row, weights) in weights.iter_mut().enumerate() {
        let seen = CONTEXT - ASKING + row / HEADS + 1;
        let largest = weights[..seen].iter().fold(f32::NEG_INFINITY, |most, score| most.max(*score));
        weights.iter_mut().for_each(|score| *score = (*score - largest).exp());
        weights[seen..].fill(0.0);
        let sum: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    let weights = Tensor::new(weights, &Device::Cpu)?;
    weights.matmul(&values)?.reshape((ASKING, HEADS * HEAD_DIM))
}

//! Tokens chosen from rows of logits: the same ones on every device. Knows the engine's sampler; knows no sequence.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use super::{Case, Prepared, Scale, numbers};
use crate::engine::{SamplingParams, TokenSet, sampler};
use crate::ops::paged::PagedBatch;
use crate::ops::{Room, Runs, Workspace, sampling, with_host};

/// Rows that the reference chooses from.
const DISTINCT: usize = 8;

pub fn cases(scale: Scale) -> Vec<Case> {
    let (vocabulary, copies) = match scale {
        Scale::Small => (1_111, 2),
        Scale::Processor => (128_256, 8),
        Scale::Card => (128_256, 32),
    };
    let drawn = SamplingParams { temperature: 0.8, ..SamplingParams::default() };
    let nucleus = SamplingParams { top_p: 0.95, top_k: Some(50), ..drawn.clone() };
    let penalised = SamplingParams { repetition_penalty: 1.2, min_p: 0.02, top_logprobs: 3, ..drawn.clone() };
    let greedy = SamplingParams { temperature: 0.0, ..drawn.clone() };
    // Two of three tokens, but none of every other thousand.
    let mut some = TokenSet::empty(vocabulary);
    (0..vocabulary as u32).for_each(|token| some.set(token, token % 3 > 0 && token / 1000 % 2 == 0));
    let some = Some(Arc::new(some));
    [
        ("greedy", greedy, None),
        ("drawn", drawn.clone(), None),
        ("top-k, top-p", nucleus, None),
        ("penalties, min-p", penalised, None),
        ("among some", drawn, some),
    ]
    .map(|(name, params, allowed)| sampling(name, params, allowed, vocabulary, copies))
    .into()
}

fn sampling(
    name: &'static str,
    params: SamplingParams,
    allowed: Option<Arc<TokenSet>>,
    vocabulary: usize,
    copies: usize,
) -> Case {
    let shape = format!("{name} B={} V={vocabulary}", copies * DISTINCT);
    Case::new("sampling", shape, copies, move |compute, copies| {
        let rows = copies * DISTINCT;
        // A few logits stand out, as they do: their tail is an exponential one.
        let (coarse, fine) = (numbers(DISTINCT * vocabulary, 8), numbers(DISTINCT * vocabulary, 9));
        let uniform = coarse.iter().zip(&fine).map(|(coarse, fine)| (coarse + 1.0) / 2.0 + (fine + 1.5) / 512.0);
        let logits: Vec<f32> = uniform.map(|u| -1.2 * u.ln()).collect();
        let logits = Tensor::from_vec(logits, (DISTINCT, vocabulary), &compute.device)?.repeat((copies, 1))?;
        let (logits, compute, params) = (logits.contiguous()?, compute.clone(), params.clone());
        let allowed = allowed.clone();
        let mut workspace = Workspace::default();
        let run = move || {
            let keyed = |row: usize| ((row % DISTINCT) as u64, [3, 77, 77, 5, (row % DISTINCT) as u32 + 9]);
            let tokens = match compute.runs() {
                Runs::Cuda(_) => {
                    workspace.begin_step(&compute, &[], &PagedBatch::default(), &Room::default())?;
                    let ask = |row| {
                        let (key, tokens) = keyed(row);
                        sampling::Ask { allowed: allowed.clone(), ..sampler::ask(&params, key, &tokens, 2) }
                    };
                    let asked: Vec<_> = (0..rows).map(ask).collect();
                    let found = sampling::choose(&compute, &mut workspace, &logits, &asked)?;
                    found.into_iter().map(|found| found.token).collect()
                }
                Runs::Cpu | Runs::Candle => chosen(&logits, vocabulary, &params, allowed.as_deref(), keyed)?,
            };
            Tensor::from_vec(tokens, rows, &candle_core::Device::Cpu)
        };
        let moved = rows * vocabulary * DType::F32.size_in_bytes();
        Ok(Prepared { captures: false, ..Prepared::new(moved, 0, run) })
    })
    .exact()
}

/// The processor's choices.
fn chosen(
    logits: &Tensor,
    vocabulary: usize,
    params: &SamplingParams,
    allowed: Option<&TokenSet>,
    keyed: impl Fn(usize) -> (u64, [u32; 5]) + Sync,
) -> Result<Vec<u32>> {
    with_host(logits, |logits| {
        let rows = logits.par_chunks(vocabulary).enumerate();
        let choose = |(row, logits): (usize, &[f32])| {
            let (key, tokens) = keyed(row);
            sampler::sample_among(allowed, logits, params, key, &tokens, 2).token
        };
        rows.map(choose).collect()
    })
}

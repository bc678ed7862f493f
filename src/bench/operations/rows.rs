//! What is done to each row by itself: norms, activations, experts' choice. Knows rows; knows no layer.

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Result, Tensor};

use super::{Case, Prepared, Scale, matrix, numbers, size};
use crate::ops::activation::{Activation, ActivationRows};
use crate::ops::embedding::Embedding;
use crate::ops::experts::{DeviceRouter, GroupedLinear, Router, has_kernels};
use crate::ops::linear::Linear;
use crate::ops::linear::MatrixView;
use crate::ops::norm::Norm;
use crate::ops::{Compute, Loading, Room, Slot, Workspace};

/// Rows that are computed by the reference.
const DISTINCT: usize = 8;

pub fn cases(scale: Scale) -> Vec<Case> {
    let sizes: &[(usize, usize)] = match scale {
        Scale::Small => &[(3, 96), (5, 1000)],
        Scale::Processor => &[(4, 2048), (64, 2048)],
        Scale::Card => &[(32, 4096), (2048, 4096)],
    };
    let mut cases = Vec::new();
    for &(copies, width) in sizes {
        cases.push(norm("rms", copies, width, |compute, width| Norm::rms(compute, weights(width), 1e-6)));
        cases.push(norm("layer", copies, width, |compute, width| {
            Norm::layer(compute, weights(width), Some(numbers(width, 6)), 1e-5)
        }));
        cases.push(add_norm(copies, width));
        cases.push(activation("silu", Activation::Silu, copies, 2 * width));
        cases.push(activation("gelu", Activation::GeluTanh, copies, 2 * width));
    }
    match scale {
        Scale::Small => cases.extend([
            experts(3, 8, 2, 96),
            grouped(3, (2, 8), [96, 200], None),
            grouped(9, (3, 4), [96, 72], Some(GgmlDType::Q8_0)),
        ]),
        Scale::Processor => cases.extend([
            experts(4, 128, 8, 2048),
            experts(64, 128, 8, 2048),
            grouped(16, (4, 16), [1024, 1536], None),
        ]),
        Scale::Card => cases.extend([
            experts(32, 128, 8, 2048),
            experts(256, 128, 8, 2048),
            grouped(32, (8, 128), [2048, 1536], None),
            grouped(256, (8, 128), [2048, 1536], None),
            grouped(256, (8, 128), [2048, 1536], Some(GgmlDType::Q4K)),
        ]),
    }
    cases
}

/// Near 1, as norms' weights are.
fn weights(width: usize) -> Vec<f32> {
    numbers(width, 5).into_iter().map(|number| 1.0 + number / 4.0).collect()
}

fn norm(
    kind: &'static str,
    copies: usize,
    width: usize,
    make: impl Fn(&Compute, usize) -> Result<Norm> + 'static,
) -> Case {
    Case::new("norm", format!("{kind} T={} width={width}", copies * DISTINCT), copies, move |compute, copies| {
        let (norm, x) = (make(compute, width)?, matrix(compute, copies, DISTINCT, width, 2)?);
        let (moved, mut workspace) = (2 * x.elem_count() * size(compute), Workspace::default());
        Ok(Prepared::new(moved, 0, move || norm.forward_in(&mut workspace, Slot::Scored, &x)))
    })
}

/// The residual step and the norm behind it.
fn add_norm(copies: usize, width: usize) -> Case {
    let shape = format!("add + rms T={} width={width}", copies * DISTINCT);
    Case::new("norm", shape, copies, move |compute, copies| {
        let rows = copies * DISTINCT;
        let (norm, delta) = (Norm::rms(compute, weights(width), 1e-6)?, matrix(compute, copies, DISTINCT, width, 2)?);
        // The stream begins as the one row of a table, for all tokens.
        let (table, ids, mut workspace) = (super::bytes(&numbers(width, 3)), vec![0; rows], Workspace::default());
        let view = MatrixView { bytes: &table, format: candle_core::DType::F32.into(), rows: 1, columns: width };
        workspace.begin_step(compute, &ids, &super::paged::decode_batch(rows, 1), &Room::default())?;
        let mut stream = Some(Embedding::table(compute, &view)?.stream(compute, &mut workspace, &ids)?);
        let run = move || {
            let Some(taken) = stream.take() else { candle_core::bail!("a run before failed") };
            let (sum, normed) = norm.add_forward(taken, Some(&delta))?;
            stream = Some(sum);
            Ok(normed)
        };
        // The stream is read and written, the other two once each.
        Ok(Prepared::new(4 * rows * width * size(compute), 0, run))
    })
}

fn activation(name: &'static str, activation: Activation, copies: usize, width: usize) -> Case {
    let shape = format!("{name} x gate T={} width={width}", copies * DISTINCT);
    Case::new("activation", shape, copies, move |compute, copies| {
        let (rows, x) = (ActivationRows::gated(compute, activation), matrix(compute, copies, DISTINCT, 2 * width, 2)?);
        let (moved, mut workspace) = (3 * copies * DISTINCT * width * size(compute), Workspace::default());
        Ok(Prepared::new(moved, 0, move || rows.forward_in(&mut workspace, &x)))
    })
}

/// Choosing experts and putting weighted rows together, without the products between.
fn experts(copies: usize, num_experts: usize, num_chosen: usize, width: usize) -> Case {
    let tokens = copies * DISTINCT;
    let shape = format!("T={tokens} {num_chosen} of {num_experts} width={width}");
    // All rows by the reference: where an expert's rows lie depends on how many there are.
    Case::new("experts", shape, 1, move |compute, _| {
        let rule = Router { num_chosen, normalised: true, expert_scale: None };
        let scores = matrix(compute, 1, tokens, num_experts, 2)?.to_dtype(DType::F32)?;
        let (rows, mut workspace) = (matrix(compute, 1, tokens * num_chosen, width, 3)?, Workspace::default());
        let compute = compute.clone();
        let moved = (num_chosen + 1) * tokens * width * size(&compute);
        if has_kernels(&compute, num_experts, num_chosen, &[]) {
            let router = DeviceRouter::new(&compute, &rule)?;
            let run = move || router.route(&mut workspace, &scores)?.combine(&mut workspace, &rows);
            return Ok(Prepared::new(moved, 0, run));
        }
        let run = move || rule.route(&scores)?.combine(&compute, &mut workspace, &rows);
        Ok(Prepared { captures: false, ..Prepared::new(moved, 0, run) })
    })
}

/// The products of the rows that each expert has, and the sums of each token's.
fn grouped(
    copies: usize,
    (num_chosen, num_experts): (usize, usize),
    [k, n]: [usize; 2],
    blocks: Option<GgmlDType>,
) -> Case {
    let tokens = copies * DISTINCT;
    let shape = format!("products T={tokens} {num_chosen} of {num_experts} k={k} n={n}");
    let case = Case::new("experts", shape, copies, move |compute, copies| {
        let tokens = copies * DISTINCT;
        let rule = Router { num_chosen, normalised: true, expert_scale: None };
        let scores = matrix(compute, copies, DISTINCT, num_experts, 2)?.to_dtype(DType::F32)?;
        let x = matrix(compute, copies, DISTINCT, k, 3)?;
        let each_expert = |take: &mut dyn FnMut(usize, &[MatrixView<'_>]) -> Result<()>| {
            (0..num_experts).try_for_each(|expert| {
                let bytes = super::bytes(&numbers(n * k, 10 + expert as u64));
                take(expert, &[MatrixView { bytes: &bytes, format: DType::F32.into(), rows: n, columns: k }])
            })
        };
        let (compute, mut workspace) = (compute.clone(), Workspace::default());
        let weights = (num_experts.min(tokens * num_chosen) * n * k) as f64 * compute.bytes_per_weight();
        let moved = weights as usize + tokens * (k + num_chosen * n) * size(&compute);
        let operations = 2 * tokens * num_chosen * k * n;
        if has_kernels(&compute, num_experts, num_chosen, &[k]) {
            let router = DeviceRouter::new(&compute, &rule)?;
            let (mut all, mut loading) = (None, Loading::default());
            each_expert(&mut |expert, views| {
                let all: &GroupedLinear = match &mut all {
                    Some(all) => all,
                    none => none.insert(GroupedLinear::new(&compute, num_experts, views, false)?),
                };
                all.set(&compute, &mut loading, expert, views, None)
            })?;
            let Some(all) = all else { candle_core::bail!("a mixture of no experts") };
            let run = move || {
                let routing = router.route(&mut workspace, &scores)?;
                let rows = all.forward(&mut workspace, Slot::ExpertRows, &x, &routing, true)?;
                routing.combine(&mut workspace, &rows)
            };
            return Ok(Prepared::new(moved, operations, run));
        }
        let mut experts = Vec::with_capacity(num_experts);
        each_expert(&mut |_, views| {
            experts.push(Linear::new(&compute, views, None)?);
            Ok(())
        })?;
        let run = move || {
            let routing = rule.route(&scores)?;
            let mut groups = Vec::new();
            for (expert, _, x) in routing.gather(&compute, &mut workspace, &x)? {
                groups.push(experts[expert].forward(&x)?);
            }
            routing.combine(&compute, &mut workspace, &Tensor::cat(&groups, 0)?)
        };
        Ok(Prepared { captures: false, ..Prepared::new(moved, operations, run) })
    });
    case.with_blocks(blocks)
}

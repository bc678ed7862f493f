//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864), with the optional per-head norm before it (Qwen3).
//! Pairs are (i, i + R/2), Hugging Face's order. Knows angles and heads; how a model scales its angles is decided elsewhere.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};

use super::paged::{HeadGeometry, PagedBatch};
use super::rms_norm::RmsNorm;
use super::simd::{Vectorised, dispatch};
use super::{Compute, OpsPath};

/// cos and sin of every position and pair, shared by all layers.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    /// Angular speed of each pair [R / 2].
    inv_freq: Arc<[f32]>,
    attention_factor: f32,
    num_positions: usize,
    /// [kept positions, R / 2]
    cos: Arc<[f32]>,
    /// [kept positions, R / 2]
    sin: Arc<[f32]>,
}

/// Positions whose cos and sin are kept; those of later ones (contexts reach a million) are computed where they are used.
const KEPT_POSITIONS: usize = 1 << 15;

impl RotaryTable {
    /// The table for positions 0..`num_positions` from the pairs' angular speeds; cos and sin are multiplied by
    /// `attention_factor` (YaRN's temperature). Angles are rounded to f32 as Transformers does.
    pub fn new(inv_freq: &[f32], attention_factor: f32, num_positions: usize) -> Self {
        let kept = 0..num_positions.min(KEPT_POSITIONS);
        let pairs =
            || kept.clone().flat_map(|p| inv_freq.iter().map(move |&speed| cos_sin(p, speed, attention_factor)));
        Self {
            cos: pairs().map(|(cos, _)| cos).collect(),
            sin: pairs().map(|(_, sin)| sin).collect(),
            inv_freq: inv_freq.into(),
            attention_factor,
            num_positions,
        }
    }

    /// Positions in the table.
    pub fn num_positions(&self) -> usize {
        self.num_positions
    }

    fn num_pairs(&self) -> usize {
        self.inv_freq.len()
    }

    /// cos and sin of a position [R / 2], if they are kept.
    fn row(&self, position: usize) -> Option<(&[f32], &[f32])> {
        let range = position * self.num_pairs()..(position + 1) * self.num_pairs();
        Some((self.cos.get(range.clone())?, self.sin.get(range)?))
    }

    /// cos and sin of all pairs at a position, kept or not: the same bits.
    fn entries(&self, position: usize) -> impl Iterator<Item = (f32, f32)> {
        self.inv_freq.iter().map(move |&speed| cos_sin(position, speed, self.attention_factor))
    }
}

fn cos_sin(position: usize, speed: f32, factor: f32) -> (f32, f32) {
    let angle = f64::from(position as f32 * speed);
    (angle.cos() as f32 * factor, angle.sin() as f32 * factor)
}

/// One layer's treatment of queries and keys before attention.
#[derive(Debug, Clone)]
pub struct Rotary {
    table: RotaryTable,
    geometry: HeadGeometry,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    path: OpsPath,
}

impl Rotary {
    /// `q_norm` and `k_norm` have the width of one head.
    pub fn new(
        compute: &Compute,
        table: RotaryTable,
        geometry: HeadGeometry,
        q_norm: Option<RmsNorm>,
        k_norm: Option<RmsNorm>,
    ) -> Self {
        Self { table, geometry, q_norm, k_norm, path: compute.path }
    }

    /// Head sizes.
    pub fn geometry(&self) -> HeadGeometry {
        self.geometry
    }

    pub(super) fn path(&self) -> OpsPath {
        self.path
    }

    /// The rotated queries [T, H * D] of merged rows qkv [T, (H + 2 Hkv) D].
    ///
    /// # Errors
    /// If shapes do not fit, or a position is beyond the table.
    pub fn queries(&self, qkv: &Tensor, batch: &PagedBatch) -> Result<Tensor> {
        self.validate(qkv, batch)?;
        match self.path {
            OpsPath::Native => qkv.apply_op1_no_bwd(&RotateQueries { rotary: self, batch }),
            OpsPath::Portable => self.portable(&qkv.narrow(1, 0, self.geometry.q_width())?, true, batch),
        }
    }

    /// Checks merged rows and positions against the table, the head sizes and the norms.
    pub(super) fn validate(&self, qkv: &Tensor, batch: &PagedBatch) -> Result<()> {
        let HeadGeometry { head_dim, .. } = self.geometry;
        if qkv.dims2()? != (batch.num_tokens(), self.geometry.qkv_width()) {
            let tokens = batch.num_tokens();
            candle_core::bail!("rotary: merged rows {:?} for {tokens} tokens of {:?}", qkv.shape(), self.geometry)
        }
        if let Some(&last) = batch.positions.iter().max()
            && last as usize >= self.table.num_positions()
        {
            candle_core::bail!("position {last} in a rotary table of {}", self.table.num_positions())
        }
        let norms = [&self.q_norm, &self.k_norm].into_iter().flatten();
        if 2 * self.table.num_pairs() > head_dim || norms.into_iter().any(|norm| norm.width() != head_dim) {
            candle_core::bail!("rotary: {} pairs or a norm do not fit heads of {head_dim}", self.table.num_pairs())
        }
        Ok(())
    }

    /// Normalises and rotates one key head in place.
    pub(super) fn rotate_key(&self, head: &mut [f32], position: usize) {
        dispatch(Head { rotary: self, norm: self.k_norm.as_ref(), head, position });
    }

    /// Norm and rotation of x [T, heads * D] in Candle operations.
    pub(super) fn portable(&self, x: &Tensor, queries: bool, batch: &PagedBatch) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let dim = self.geometry.head_dim;
        let mut heads = x.reshape((tokens, width / dim, dim))?.to_dtype(DType::F32)?;
        if let Some(norm) = if queries { &self.q_norm } else { &self.k_norm } {
            heads = norm.portable(&heads)?;
        }
        let pairs = self.table.num_pairs();
        let all = batch.positions.iter().flat_map(|&position| self.table.entries(position as usize));
        let (cos, sin): (Vec<f32>, Vec<f32>) = all.unzip();
        let rows = |values: Vec<f32>| Tensor::from_vec(values, (tokens, 1, pairs), x.device());
        let (cos, sin) = (rows(cos)?, rows(sin)?);
        let first = heads.narrow(D::Minus1, 0, pairs)?;
        let second = heads.narrow(D::Minus1, pairs, pairs)?;
        let mut parts = vec![
            (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?,
            (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?,
        ];
        if 2 * pairs < dim {
            parts.push(heads.narrow(D::Minus1, 2 * pairs, dim - 2 * pairs)?);
        }
        Tensor::cat(&parts, D::Minus1)?.reshape((tokens, width))?.to_dtype(x.dtype())
    }
}

struct Head<'a> {
    rotary: &'a Rotary,
    norm: Option<&'a RmsNorm>,
    head: &'a mut [f32],
    position: usize,
}

impl Vectorised for Head<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        if let Some(norm) = self.norm {
            norm.row_in_place(self.head);
        }
        let table = &self.rotary.table;
        let (first, second) = self.head.split_at_mut(table.num_pairs());
        let pairs = first.iter_mut().zip(second);
        let rotate = |(x, y): (&mut f32, &mut f32), c: f32, s: f32| (*x, *y) = (*x * c - *y * s, *y * c + *x * s);
        match table.row(self.position) {
            Some((cos, sin)) => pairs.zip(cos).zip(sin).for_each(|((pair, &c), &s)| rotate(pair, c, s)),
            None => pairs.zip(table.entries(self.position)).for_each(|(pair, (c, s))| rotate(pair, c, s)),
        }
    }
}

struct RotateQueries<'a> {
    rotary: &'a Rotary,
    batch: &'a PagedBatch,
}

impl CustomOp1 for RotateQueries<'_> {
    fn name(&self) -> &'static str {
        "rotate_queries"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = super::f32_slice(storage, layout)?;
        let geometry = self.rotary.geometry;
        let (tokens, width) = layout.shape().dims2()?;
        let mut q = vec![0f32; tokens * geometry.q_width()];
        super::for_each_row(&mut q, geometry.q_width(), |token, row| {
            row.copy_from_slice(&x[token * width..][..geometry.q_width()]);
            let position = self.batch.positions[token] as usize;
            for head in row.chunks_mut(geometry.head_dim) {
                dispatch(Head { rotary: self.rotary, norm: self.rotary.q_norm.as_ref(), head, position });
            }
        });
        Ok((CpuStorage::F32(q), Shape::from((tokens, geometry.q_width()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_past_the_kept_ones_rotate_by_the_same_rule() {
        let speeds = [1.0f32, 0.13, 0.002];
        let long = RotaryTable::new(&speeds, 1.5, 1_000_000);
        assert_eq!(long.num_positions(), 1_000_000);
        let (cos, sin) = long.row(KEPT_POSITIONS - 1).unwrap();
        let kept: Vec<(f32, f32)> = cos.iter().copied().zip(sin.iter().copied()).collect();
        assert_eq!(kept, long.entries(KEPT_POSITIONS - 1).collect::<Vec<_>>());
        assert!(long.row(KEPT_POSITIONS).is_none());
        let angle = 999_999f32 * 0.13;
        let (c, s) = long.entries(999_999).nth(1).unwrap();
        assert!((f64::from(c) - 1.5 * f64::from(angle).cos()).abs() < 1e-6);
        assert!((f64::from(s) - 1.5 * f64::from(angle).sin()).abs() < 1e-6);
    }
}

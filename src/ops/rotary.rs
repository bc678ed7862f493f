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
    /// [positions, R / 2]
    cos: Arc<Vec<f32>>,
    /// [positions, R / 2]
    sin: Arc<Vec<f32>>,
    /// R / 2, pairs per head.
    num_pairs: usize,
}

impl RotaryTable {
    /// The table for positions 0..`num_positions` from the pairs' angular speeds; cos and sin are multiplied by
    /// `attention_factor` (YaRN's temperature). Angles are rounded to f32 as Transformers does.
    pub fn new(inv_freq: &[f32], attention_factor: f32, num_positions: usize) -> Self {
        let angles = (0..num_positions).flat_map(|p| inv_freq.iter().map(move |&speed| f64::from(p as f32 * speed)));
        let (cos, sin) =
            angles.map(|angle| (angle.cos() as f32 * attention_factor, angle.sin() as f32 * attention_factor)).unzip();
        Self { cos: Arc::new(cos), sin: Arc::new(sin), num_pairs: inv_freq.len() }
    }

    /// Positions in the table.
    pub fn num_positions(&self) -> usize {
        self.cos.len().checked_div(self.num_pairs).unwrap_or(usize::MAX)
    }

    fn row(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.num_pairs..(position + 1) * self.num_pairs;
        (&self.cos[range.clone()], &self.sin[range])
    }
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
        if 2 * self.table.num_pairs > head_dim || norms.into_iter().any(|norm| norm.width() != head_dim) {
            candle_core::bail!("rotary: {} pairs or a norm do not fit heads of {head_dim}", self.table.num_pairs)
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
        let pairs = self.table.num_pairs;
        let gather = |table: &[f32]| {
            let rows: Vec<f32> =
                batch.positions.iter().flat_map(|&p| &table[p as usize * pairs..][..pairs]).copied().collect();
            Tensor::from_vec(rows, (tokens, 1, pairs), x.device())
        };
        let (cos, sin) = (gather(&self.table.cos)?, gather(&self.table.sin)?);
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
        let (cos, sin) = self.rotary.table.row(self.position);
        let (first, rest) = self.head.split_at_mut(self.rotary.table.num_pairs);
        for (((x, y), c), s) in first.iter_mut().zip(rest).zip(cos).zip(sin) {
            (*x, *y) = (*x * c - *y * s, *y * c + *x * s);
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

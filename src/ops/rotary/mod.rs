//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864), with the norms that some families put around it.
//! Pairs are (i, i + R/2), Hugging Face's order: families that pair neighbours have their weights' rows reordered at load.
//! Knows angles and heads; how a model scales its angles is decided elsewhere.

mod device;

use std::sync::Arc;

use candle_core::{D, DType, Result, Tensor};

use super::norm::Norm;
use super::paged::{HeadGeometry, KvLayer, PagedBatch};
use super::simd::{Vectorised, dispatch};
use super::workspace::{Workspace, with_slice_mut};
use super::{Compute, Runs};

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
    /// On a CUDA device, both of all positions: [positions, R / 2, 2].
    on_device: Option<Tensor>,
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
            on_device: None,
        }
    }

    /// The same with all of it on the device, if that is a CUDA device.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn on(mut self, compute: &Compute) -> Result<Self> {
        if let Runs::Cuda(_) = compute.runs() {
            let all: Vec<f32> =
                (0..self.num_positions).flat_map(|p| self.entries(p)).flat_map(|(cos, sin)| [cos, sin]).collect();
            self.on_device = Some(Tensor::from_vec(all, (self.num_positions, self.num_pairs(), 2), &compute.device)?);
        }
        Ok(self)
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

/// Which elements a norm of queries, keys or values takes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormSpan {
    /// Each head, all against the same D weights.
    Head,
    /// Each head, against D weights of its own.
    OwnHead,
    /// All heads of a token together.
    Token,
}

/// Norms of a layer's queries, keys and values.
#[derive(Debug, Clone)]
pub struct HeadNorms {
    /// Of queries.
    pub queries: Option<Norm>,
    /// Of keys.
    pub keys: Option<Norm>,
    /// Of values, always by [`NormSpan::Head`].
    pub values: Option<Norm>,
    /// What the norms of queries and keys take together.
    pub span: NormSpan,
    /// After the rotation instead of before it.
    pub after_rotation: bool,
}

impl HeadNorms {
    /// No norms at all.
    pub fn none() -> Self {
        Self { queries: None, keys: None, values: None, span: NormSpan::Head, after_rotation: false }
    }

    /// One norm for every query head and one for every key head.
    pub fn per_head(queries: Norm, keys: Norm) -> Self {
        Self { queries: Some(queries), keys: Some(keys), ..Self::none() }
    }
}

/// Queries grow with their position: 1 + beta ln(1 + floor(position / original)) (Llama 4; Ministral 3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryGrowth {
    /// > 0
    pub beta: f64,
    /// Positions up to which nothing grows.
    pub original: f64,
}

impl QueryGrowth {
    fn at(self, position: u32) -> f32 {
        (1.0 + self.beta * (1.0 + (f64::from(position) / self.original).floor()).ln()) as f32
    }
}

/// One layer's treatment of queries, keys and values before attention.
#[derive(Debug, Clone)]
pub struct Rotary {
    table: RotaryTable,
    geometry: HeadGeometry,
    norms: HeadNorms,
    growth: Option<QueryGrowth>,
    runs: Runs,
}

impl Rotary {
    /// `table` covers the rotated part of the head: all of it, the beginning, or nothing.
    pub fn new(compute: &Compute, table: RotaryTable, geometry: HeadGeometry, norms: HeadNorms) -> Self {
        Self { table, geometry, norms, growth: None, runs: compute.runs() }
    }

    /// The same, with queries that grow with their position.
    pub fn with_growth(self, growth: Option<QueryGrowth>) -> Self {
        Self { growth, ..self }
    }

    /// Head sizes.
    pub fn geometry(&self) -> HeadGeometry {
        self.geometry
    }

    /// Merged rows [T, (H + 2 Hkv) D], or rows [T, H * D] that hold queries alone, with queries and keys normalised and rotated and
    /// values normalised, as far as the layer does so: in place on the native path.
    ///
    /// # Errors
    /// If shapes do not fit, or a position is beyond the table.
    pub fn forward(&self, workspace: &Workspace, rows: Tensor, batch: &PagedBatch) -> Result<Tensor> {
        let (q_width, kv_width) = (self.geometry.q_width(), self.geometry.kv_width());
        let width = rows.dims2()?.1;
        let merged = width != q_width;
        if merged {
            self.validate(&rows, batch)?;
        } else {
            self.validate_rows(&rows, q_width, batch)?;
        }
        if let Runs::Cuda(kernels) = &self.runs {
            self.launch(kernels, workspace, &rows, None)?;
            return Ok(rows);
        }
        if matches!(self.runs, Runs::Cpu) {
            with_slice_mut(&rows, |rows| {
                super::for_each_row(rows, width, |token, row| self.rotate(row, batch.positions[token]));
                Ok(())
            })?;
            return Ok(rows);
        }
        let mut queries = self.portable(&rows.narrow(1, 0, q_width)?, true, batch)?;
        if let Some(growth) = self.growth {
            let factors: Vec<f32> = batch.positions.iter().map(|&position| growth.at(position)).collect();
            let factors = Tensor::from_vec(factors, (batch.num_tokens(), 1), rows.device())?;
            queries = queries.broadcast_mul(&factors.to_dtype(queries.dtype())?)?;
        }
        if !merged {
            return Ok(queries);
        }
        let keys = self.portable(&rows.narrow(1, q_width, kv_width)?, false, batch)?;
        let values = self.portable_values(rows.narrow(1, q_width + kv_width, kv_width)?)?;
        Tensor::cat(&[&queries, &keys, &values], 1)
    }

    /// The same for merged rows, whose keys and values go to `cache` as well: on the native path in the same pass.
    ///
    /// # Errors
    /// As for [`Self::forward`], and if the cache does not fit.
    pub fn forward_to(
        &self,
        workspace: &Workspace,
        cache: &KvLayer,
        rows: Tensor,
        batch: &PagedBatch,
    ) -> Result<Tensor> {
        if matches!(self.runs, Runs::Candle) {
            let rows = self.forward(workspace, rows, batch)?;
            cache.write(&rows, batch)?;
            return Ok(rows);
        }
        self.validate(&rows, batch)?;
        if cache.geometry() != self.geometry {
            candle_core::bail!("keys and values of {:?} for a cache of {:?}", self.geometry, cache.geometry())
        }
        if let Runs::Cuda(kernels) = &self.runs {
            cache.validate(self.geometry, batch)?;
            self.launch(kernels, workspace, &rows, Some((cache, batch.block_size)))?;
            return Ok(rows);
        }
        cache.with_writer(batch, |writer| {
            with_slice_mut(&rows, |rows| {
                super::for_each_row(rows, self.geometry.qkv_width(), |token, row| {
                    self.rotate(row, batch.positions[token]);
                    // SAFETY: each token once.
                    unsafe { writer.write(token, &row[self.geometry.q_width()..]) };
                });
                Ok(())
            })
        })?;
        Ok(rows)
    }

    /// One token's row.
    fn rotate(&self, row: &mut [f32], position: u32) {
        let factor = self.growth.map(|growth| growth.at(position));
        let position = position as usize;
        let (queries, rest) = row.split_at_mut(self.geometry.q_width());
        dispatch(Heads { rotary: self, norm: self.norms.queries.as_ref(), heads: queries, position, factor });
        let (keys, values) = rest.split_at_mut(rest.len() / 2);
        dispatch(Heads { rotary: self, norm: self.norms.keys.as_ref(), heads: keys, position, factor: None });
        if let Some(norm) = &self.norms.values {
            dispatch(ValueHeads { norm, heads: values, dim: self.geometry.head_dim });
        }
    }

    /// Checks merged rows and positions against the table, the head sizes and the norms.
    fn validate(&self, qkv: &Tensor, batch: &PagedBatch) -> Result<()> {
        self.validate_rows(qkv, self.geometry.qkv_width(), batch)
    }

    fn validate_rows(&self, rows: &Tensor, width: usize, batch: &PagedBatch) -> Result<()> {
        let HeadGeometry { head_dim, .. } = self.geometry;
        if rows.dims2()? != (batch.num_tokens(), width) {
            let tokens = batch.num_tokens();
            candle_core::bail!("rotary: merged rows {:?} for {tokens} tokens of {:?}", rows.shape(), self.geometry)
        }
        if let Some(&last) = batch.positions.iter().max()
            && last as usize >= self.table.num_positions()
        {
            candle_core::bail!("position {last} in a rotary table of {}", self.table.num_positions())
        }
        let want = |width: usize| if self.norms.span == NormSpan::Head { head_dim } else { width };
        let fits = |norm: &Option<Norm>, width: usize| norm.as_ref().is_none_or(|norm| norm.width() == width);
        let norms_fit = fits(&self.norms.queries, want(self.geometry.q_width()))
            && fits(&self.norms.keys, want(self.geometry.kv_width()))
            && fits(&self.norms.values, head_dim);
        if 2 * self.table.num_pairs() > head_dim || !norms_fit {
            candle_core::bail!("rotary: {} pairs or a norm do not fit heads of {head_dim}", self.table.num_pairs())
        }
        Ok(())
    }

    /// Norm and rotation of x [T, heads * D] in Candle operations.
    fn portable(&self, x: &Tensor, queries: bool, batch: &PagedBatch) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let dim = self.geometry.head_dim;
        let norm = if queries { &self.norms.queries } else { &self.norms.keys };
        let mut rows = x.to_dtype(DType::F32)?;
        if let (Some(norm), false) = (norm, self.norms.after_rotation) {
            rows = self.portable_norm(norm, &rows)?;
        }
        let heads = rows.reshape((tokens, width / dim, dim))?;
        let pairs = self.table.num_pairs();
        if pairs > 0 {
            let all = batch.positions.iter().flat_map(|&position| self.table.entries(position as usize));
            let (cos, sin): (Vec<f32>, Vec<f32>) = all.unzip();
            let values = |values: Vec<f32>| Tensor::from_vec(values, (tokens, 1, pairs), x.device());
            let (cos, sin) = (values(cos)?, values(sin)?);
            let first = heads.narrow(D::Minus1, 0, pairs)?;
            let second = heads.narrow(D::Minus1, pairs, pairs)?;
            let mut parts = vec![
                (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?,
                (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?,
            ];
            if 2 * pairs < dim {
                parts.push(heads.narrow(D::Minus1, 2 * pairs, dim - 2 * pairs)?);
            }
            rows = Tensor::cat(&parts, D::Minus1)?.reshape((tokens, width))?;
        }
        if let (Some(norm), true) = (norm, self.norms.after_rotation) {
            rows = self.portable_norm(norm, &rows)?;
        }
        rows.to_dtype(x.dtype())
    }

    /// x [T, heads * D] by the norm's span, in Candle operations.
    fn portable_norm(&self, norm: &Norm, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let dim = self.geometry.head_dim;
        match self.norms.span {
            NormSpan::Token => norm.portable(x),
            NormSpan::Head => norm.portable(&x.reshape((tokens, width / dim, dim))?)?.reshape((tokens, width)),
            NormSpan::OwnHead => {
                let head = |start| norm.portable_part(&x.narrow(1, start, dim)?, start, dim);
                Tensor::cat(&(0..width).step_by(dim).map(head).collect::<Result<Vec<_>>>()?, 1)
            }
        }
    }

    /// Values [T, Hkv * D] in Candle operations.
    fn portable_values(&self, values: Tensor) -> Result<Tensor> {
        let Some(norm) = &self.norms.values else { return Ok(values) };
        let (tokens, width) = values.dims2()?;
        let dim = self.geometry.head_dim;
        norm.portable(&values.reshape((tokens, width / dim, dim))?)?.reshape((tokens, width))
    }
}

/// All heads of a token's queries or keys.
struct Heads<'a> {
    rotary: &'a Rotary,
    norm: Option<&'a Norm>,
    heads: &'a mut [f32],
    position: usize,
    factor: Option<f32>,
}

impl Heads<'_> {
    #[inline(always)]
    fn normalise(&mut self) {
        let Some(norm) = self.norm else { return };
        let dim = self.rotary.geometry.head_dim;
        match self.rotary.norms.span {
            NormSpan::Token => norm.row_in_place(self.heads, 0),
            NormSpan::Head => self.heads.chunks_mut(dim).for_each(|head| norm.row_in_place(head, 0)),
            NormSpan::OwnHead => {
                self.heads.chunks_mut(dim).enumerate().for_each(|(index, head)| norm.row_in_place(head, index * dim));
            }
        }
    }
}

impl Vectorised for Heads<'_> {
    type Output = ();
    #[inline(always)]
    fn run(mut self) {
        if !self.rotary.norms.after_rotation {
            self.normalise();
        }
        let table = &self.rotary.table;
        for head in self.heads.chunks_mut(self.rotary.geometry.head_dim) {
            let (first, second) = head.split_at_mut(table.num_pairs());
            let pairs = first.iter_mut().zip(second);
            let rotate = |(x, y): (&mut f32, &mut f32), c: f32, s: f32| (*x, *y) = (*x * c - *y * s, *y * c + *x * s);
            match table.row(self.position) {
                Some((cos, sin)) => pairs.zip(cos).zip(sin).for_each(|((pair, &c), &s)| rotate(pair, c, s)),
                None => pairs.zip(table.entries(self.position)).for_each(|(pair, (c, s))| rotate(pair, c, s)),
            }
        }
        if self.rotary.norms.after_rotation {
            self.normalise();
        }
        if let Some(factor) = self.factor {
            self.heads.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

/// All heads of a token's values.
struct ValueHeads<'a> {
    norm: &'a Norm,
    heads: &'a mut [f32],
    dim: usize,
}

impl Vectorised for ValueHeads<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.heads.chunks_mut(self.dim).for_each(|head| self.norm.row_in_place(head, 0));
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

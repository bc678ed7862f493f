//! What a mixture of experts does around its products: choosing experts for each row, and putting weighted expert rows
//! together again. Rows are grouped by expert, so that each expert runs one product over all of its rows.
//! Knows row numbers and weights; knows nothing of the products between.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{Compute, OpsPath};

/// Which rows go to which expert, and with which weight they come back.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// Row numbers, grouped by expert, ascending within each.
    rows: Vec<u32>,
    /// [E + 1] first entry of each expert in `rows`, and the total.
    bounds: Vec<usize>,
    /// [T, k] entries of `rows` that belong to each token, by ascending expert, and their weights.
    places: Arc<[(u32, f32)]>,
    /// k
    num_chosen: usize,
}

/// How scores become weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Router {
    /// k, experts per token.
    pub num_chosen: usize,
    /// Weights of the chosen experts sum to 1 (softmax over the chosen); otherwise each is its share among all experts.
    pub normalised: bool,
    /// A factor on each expert's weight `[E]`, if there is one.
    pub expert_scale: Option<Vec<f32>>,
}

impl Router {
    /// Chooses the k best of each token's scores [T, E] (the lower number first where two are equal) and weighs them by softmax.
    /// A token's choice depends on its own scores alone.
    ///
    /// # Errors
    /// If there are fewer than k experts, or the factors are not one per expert.
    pub fn route(&self, scores: &Tensor) -> Result<Routing> {
        let (tokens, num_experts) = scores.dims2()?;
        let k = self.num_chosen;
        if k == 0 || k > num_experts || self.expert_scale.as_ref().is_some_and(|scale| scale.len() != num_experts) {
            candle_core::bail!("{k} of {num_experts} experts")
        }
        let scores = super::to_host(scores)?;
        let mut chosen = Vec::with_capacity(tokens * k);
        let mut order: Vec<u32> = Vec::with_capacity(num_experts);
        for row in scores.chunks(num_experts) {
            order.clear();
            order.extend(0..num_experts as u32);
            order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
            let best = f64::from(row[order[0] as usize]);
            let weight = |expert: u32| (f64::from(row[expert as usize]) - best).exp();
            let total: f64 = if self.normalised {
                order[..k].iter().map(|&expert| weight(expert)).sum()
            } else {
                (0..num_experts as u32).map(weight).sum()
            };
            order.truncate(k);
            order.sort_unstable();
            chosen.extend(order.iter().map(|&expert| {
                let scale = self.expert_scale.as_ref().map_or(1.0, |scale| scale[expert as usize]);
                (expert, (weight(expert) / total) as f32 * scale)
            }));
        }
        let mut bounds = vec![0; num_experts + 1];
        chosen.iter().for_each(|&(expert, _)| bounds[expert as usize + 1] += 1);
        (0..num_experts).for_each(|expert| bounds[expert + 1] += bounds[expert]);
        let mut next = bounds.clone();
        let mut rows = vec![0; chosen.len()];
        let places = chosen.iter().enumerate().map(|(index, &(expert, weight))| {
            let place = next[expert as usize];
            next[expert as usize] += 1;
            rows[place] = (index / k) as u32;
            (place as u32, weight)
        });
        let places = places.collect();
        Ok(Routing { rows, bounds, places, num_chosen: k })
    }
}

impl Routing {
    /// Experts that have rows, each with its rows of x [T, width] gathered.
    ///
    /// # Errors
    /// If x has too few rows.
    pub fn gather(&self, x: &Tensor) -> Result<Vec<(usize, Tensor)>> {
        let mut groups = Vec::new();
        for (expert, range) in self.bounds.windows(2).enumerate() {
            let rows = &self.rows[range[0]..range[1]];
            if !rows.is_empty() {
                groups.push((expert, x.index_select(&Tensor::new(rows, x.device())?, 0)?));
            }
        }
        Ok(groups)
    }

    /// The experts' rows y [T * k, width], grouped as they were gathered, weighted and added up to [T, width]: per token in the
    /// order of its experts.
    ///
    /// # Errors
    /// If y has another number of rows.
    pub fn combine(&self, compute: &Compute, y: &Tensor) -> Result<Tensor> {
        if y.dim(0)? != self.places.len() {
            candle_core::bail!("{} rows of experts, want {}", y.dim(0)?, self.places.len())
        }
        if compute.path == OpsPath::Native {
            return y.apply_op1_no_bwd(&Combine(self));
        }
        let (places, weights): (Vec<u32>, Vec<f32>) = self.places.iter().copied().unzip();
        let (tokens, width) = (places.len() / self.num_chosen, y.dim(1)?);
        let weights = Tensor::from_vec(weights, (tokens, self.num_chosen, 1), y.device())?.to_dtype(y.dtype())?;
        let rows = y.index_select(&Tensor::new(places, y.device())?, 0)?;
        rows.reshape((tokens, self.num_chosen, width))?.broadcast_mul(&weights)?.sum(1)
    }
}

struct Combine<'a>(&'a Routing);

impl CustomOp1 for Combine<'_> {
    fn name(&self) -> &'static str {
        "combine_experts"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = super::f32_slice(storage, layout)?;
        let (rows, width) = layout.shape().dims2()?;
        let tokens = rows / self.0.num_chosen;
        let mut out = vec![0f32; tokens * width];
        super::for_each_row(&mut out, width.max(1), |token, target| {
            for &(place, weight) in &self.0.places[token * self.0.num_chosen..][..self.0.num_chosen] {
                let source = &y[place as usize * width..][..width];
                target.iter_mut().zip(source).for_each(|(value, &add)| *value += add * weight);
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((tokens, width))))
    }
}

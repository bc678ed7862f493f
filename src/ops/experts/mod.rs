//! What a mixture of experts does around its products: choosing experts for each row, and putting weighted expert rows
//! together again. Rows are grouped by expert, so that each expert runs one product over all of its rows.
//! Knows row numbers and weights; knows nothing of the products between, which are here on a CUDA device alone (`device.rs`).

mod device;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Tensor};

pub use device::{DeviceRouter, DeviceRouting, GroupedLinear, has_kernels};

use super::embedding::select_rows;
use super::workspace::{Slot, Workspace, with_slices};
use super::{Compute, Runs};

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
        let (_, num_experts) = scores.dims2()?;
        let k = self.num_chosen;
        if k == 0 || k > num_experts || self.expert_scale.as_ref().is_some_and(|scale| scale.len() != num_experts) {
            candle_core::bail!("{k} of {num_experts} experts")
        }
        let (chosen, bounds) = super::with_host(scores, |scores| self.choose(scores, num_experts))?;
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

    /// [T, k] experts of each token of scores [T, E], ascending, with their weights; and [E + 1] how many rows experts before each
    /// one have.
    fn choose(&self, scores: &[f32], num_experts: usize) -> (Vec<(u32, f32)>, Vec<usize>) {
        let k = self.num_chosen;
        let mut chosen = Vec::with_capacity(scores.len() / num_experts * k);
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
        (chosen, bounds)
    }
}

impl Routing {
    /// T * k, the rows of all experts together.
    pub fn num_rows(&self) -> usize {
        self.rows.len()
    }

    /// Experts that have rows, each with where these lie among all experts' rows, and with its rows of x [T, width], gathered in a
    /// buffer of `workspace` on the native path.
    ///
    /// # Errors
    /// If x has too few rows.
    pub fn gather(
        &self,
        compute: &Compute,
        workspace: &mut Workspace,
        x: &Tensor,
    ) -> Result<Vec<(usize, Range<usize>, Tensor)>> {
        let gathered = select_rows(compute, workspace, Slot::Gathered, x, &self.rows)?;
        let with_rows = self.bounds.windows(2).map(|bounds| bounds[0]..bounds[1]).enumerate();
        let with_rows = with_rows.filter(|(_, range)| !range.is_empty());
        with_rows
            .map(|(expert, range)| Ok((expert, range.clone(), gathered.narrow(0, range.start, range.len())?)))
            .collect()
    }

    /// The experts' rows y [T * k, width], grouped as they were gathered, weighted and added up to [T, width]: per token in the
    /// order of its experts. On the native path in a buffer of `workspace`.
    ///
    /// # Errors
    /// If y has another number of rows.
    pub fn combine(&self, compute: &Compute, workspace: &mut Workspace, y: &Tensor) -> Result<Tensor> {
        let (rows, width) = y.dims2()?;
        if rows != self.places.len() {
            candle_core::bail!("{rows} rows of experts, want {}", self.places.len())
        }
        let tokens = rows / self.num_chosen;
        if matches!(compute.runs(), Runs::Cpu) {
            let mixed = workspace.rows(Slot::Mixed, y.device(), tokens, width)?;
            with_slices(y, &mixed, |y, mixed| self.mix(y, width.max(1), mixed))?;
            return Ok(mixed);
        }
        let (places, weights): (Vec<u32>, Vec<f32>) = self.places.iter().copied().unzip();
        let weights = Tensor::from_vec(weights, (tokens, self.num_chosen, 1), y.device())?.to_dtype(y.dtype())?;
        let rows = y.index_select(&Tensor::new(places, y.device())?, 0)?;
        rows.reshape((tokens, self.num_chosen, width))?.broadcast_mul(&weights)?.sum(1)
    }

    fn mix(&self, y: &[f32], width: usize, mixed: &mut [f32]) {
        super::for_each_row(mixed, width, |token, target| {
            target.fill(0.0);
            for &(place, weight) in &self.places[token * self.num_chosen..][..self.num_chosen] {
                let source = &y[place as usize * width..][..width];
                target.iter_mut().zip(source).for_each(|(value, &add)| *value += add * weight);
            }
        });
    }
}

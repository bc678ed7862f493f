//! The decoder that runs every family: what differs between them is in the [`DecoderSpec`].
//! Knows layers and the step's batch; keeps no state: the cache is passed in, hidden states and logits come out.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::ModelError;
use super::layer::{Layer, PerLayerInputs, Stream};
use super::spec::{DecoderSpec, Head};
use super::tensors;
use super::weights::{Loader, WeightSource};
use crate::ops::Compute;
use crate::ops::attention;
use crate::ops::embedding::{Embedding, select_rows};
use crate::ops::linear::Linear;
use crate::ops::norm::{self, Norm};
use crate::ops::paged::{KvLayer, PagedBatch};
use crate::ops::rotary::RotaryTable;
use crate::ops::{Room, Slot, Workspace};

/// A loaded model.
pub struct Decoder {
    spec: DecoderSpec,
    max_len: usize,
    embedding: Embedding,
    per_layer: Option<PerLayerInputs>,
    layers: Vec<Layer>,
    /// Devices with the layers that lie on them, in their order: one, unless the model is cut.
    stages: Vec<(Compute, Range<usize>)>,
    norm: Norm,
    head: Linear,
    slow_products: Vec<String>,
}

impl Decoder {
    /// Builds the decoder of `spec` from `source`, for sequences of up to `max_len` tokens.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor that is missing, extra or wrongly shaped, or why the model cannot be cut.
    pub fn new(
        compute: &Compute,
        spec: DecoderSpec,
        max_len: usize,
        source: &WeightSource,
    ) -> std::result::Result<Self, ModelError> {
        source.check(&spec)?;
        let has_kernels = spec.layers.iter().all(|layer| attention::has_kernels(layer.geometry));
        // Heads of a size that there are no kernels for: Candle's operations take any.
        let compute =
            if has_kernels || compute.kernels.is_none() { compute.clone() } else { compute.clone().portable() };
        let stages = stages(compute, &spec)?;
        let (first, last) = (&stages[0].0, &stages[stages.len() - 1].0);
        let mut loader = Loader::new(last, source);
        let head = loader.head(&tensors::head(&spec))?.with_wide_results(loader.loading())?;
        let norm = loader.norm(&spec.norm, "model.norm", spec.hidden_size)?;
        let mut slow_products = loader.loading().slow_products();
        let mut loader = Loader::new(first, source);
        let embedding = match spec.head {
            Head::Tied if stages.len() == 1 => Embedding::Tied(head.clone()),
            _ => loader.embedding(&tensors::embedding(&spec))?,
        };
        let per_layer = match spec.per_layer {
            Some(per_layer) => Some(PerLayerInputs::new(&mut loader, &spec, per_layer)?),
            None => None,
        };
        let unturned = RotaryTable::new(&[], 1.0, max_len);
        let mut caches = Vec::with_capacity(spec.num_layers());
        let mut layers = Vec::with_capacity(spec.num_layers());
        for (compute, range) in &stages {
            let tables = spec.ropes.iter().map(|rope| rope.table(max_len).on(compute));
            let tables = tables.collect::<Result<Vec<RotaryTable>>>()?;
            let mut loader = Loader::new(compute, source);
            for index in range.clone() {
                let layer = &spec.layers[index];
                let own = spec.layers[..index].iter().filter(|layer| layer.kv_of.is_none()).count();
                caches.push(layer.kv_of.map_or(own, |of| caches[of]));
                let table = layer.rope.map_or(&unturned, |rope| &tables[rope]).clone();
                layers.push(Layer::new(&mut loader, &spec, table, index, caches[index])?);
            }
            slow_products.extend(loader.loading().slow_products());
        }
        slow_products.sort();
        slow_products.dedup();
        Ok(Self { spec, max_len, embedding, per_layer, layers, stages, norm, head, slow_products })
    }

    /// Shapes of dense products for which NVIDIA's library has none that gives a row the same bits in any batch; they take ours, which is
    /// slower.
    pub fn slow_products(&self) -> &[String] {
        &self.slow_products
    }

    /// Shape and choices.
    pub fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// Device and formats.
    pub fn compute(&self) -> &Compute {
        &self.stages[0].0
    }

    /// That of the device which the head is on, and what of `ws` belongs to it.
    pub fn at_head<'a>(&'a self, ws: &'a mut Workspace) -> (&'a Compute, &'a mut Workspace) {
        let last = self.stages.len() - 1;
        (&self.stages[last].0, ws.stage(last))
    }

    /// Devices of the model, with the bytes of cache that a token takes on each.
    pub fn devices(&self) -> impl Iterator<Item = (&Compute, usize)> {
        self.stages.iter().map(|(compute, range)| {
            let own = self.spec.layers[range.clone()].iter().filter(|layer| layer.kv_of.is_none());
            (compute, own.map(|layer| layer.geometry.kv_bytes_per_token(compute.kv_format)).sum())
        })
    }

    /// Longest sequence this decoder was built for, in tokens.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// Whether every step of as many rows is the same work in the same memory, so that it can be captured: not where the host sends rows
    /// to experts, nor where layers have inputs of their own, nor over several devices.
    pub fn is_steady(&self) -> bool {
        self.stages.len() == 1 && self.per_layer.is_none() && self.layers.iter().all(Layer::is_steady)
    }

    /// Storage for `num_blocks` blocks in every layer that keeps keys and values of its own.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new_cache(&self, num_blocks: usize, block_size: usize) -> Result<Vec<KvLayer>> {
        let mut caches = Vec::new();
        for (compute, range) in &self.stages {
            for layer in self.spec.layers[range.clone()].iter().filter(|layer| layer.kv_of.is_none()) {
                caches.push(KvLayer::new(compute, layer.geometry, num_blocks, block_size)?);
            }
        }
        Ok(caches)
    }

    /// Finds the memory that attention takes besides the cache, for steps of up to `max_batch` single tokens whose contexts have
    /// `num_tokens` together.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn reserve(&self, ws: &mut Workspace, num_tokens: usize, max_batch: usize) -> Result<()> {
        for (index, (compute, range)) in self.stages.iter().enumerate() {
            for layer in &self.spec.layers[range.clone()] {
                attention::reserve(compute, ws.stage(index), layer.geometry, num_tokens, max_batch)?;
            }
        }
        Ok(())
    }

    /// Normalised hidden states [T, hidden] of packed tokens, in a buffer of `ws` where there are such; their keys and values go to
    /// `cache`, as [`Self::new_cache`] made it.
    ///
    /// # Errors
    /// If an id is outside the vocabulary or a tensor operation fails.
    pub fn hidden_states(
        &self,
        ws: &mut Workspace,
        token_ids: &[u32],
        batch: &PagedBatch,
        cache: &[KvLayer],
    ) -> Result<Tensor> {
        for (index, (compute, _)) in self.stages.iter().enumerate() {
            ws.stage(index).begin_step(compute, token_ids, batch, &Room::default())?;
        }
        self.computed(ws, token_ids, batch, cache)
    }

    /// The same for a step that was begun in `ws`, on a CUDA device without waiting and, if [`Self::is_steady`], in the same memory each
    /// time.
    ///
    /// # Errors
    /// As for [`Self::hidden_states`].
    pub fn computed(
        &self,
        ws: &mut Workspace,
        token_ids: &[u32],
        batch: &PagedBatch,
        cache: &[KvLayer],
    ) -> Result<Tensor> {
        let mut embeddings = self.embedding.stream(self.compute(), ws, token_ids)?;
        if self.spec.scales.embedding != 1.0 {
            embeddings = embeddings.scale(self.spec.scales.embedding)?;
        }
        let mut inputs = match &self.per_layer {
            Some(per_layer) => per_layer.forward(self.compute(), token_ids, embeddings.residual())?.into_iter(),
            None => Vec::new().into_iter(),
        };
        let mut stream = Stream::new(embeddings);
        for (index, (compute, range)) in self.stages.iter().enumerate() {
            let ws = ws.stage(index);
            if index > 0 {
                stream = stream.brought(ws, compute)?;
            }
            for layer in &self.layers[range.clone()] {
                stream = layer.forward(ws, stream, cache, batch, inputs.next())?;
            }
        }
        Ok(stream.normed(Some(&self.norm))?.1)
    }

    /// f32 logits [rows.len(), V] of the given rows of `hidden`; of a reward model, its scores.
    ///
    /// # Errors
    /// If a row is outside `hidden` or a tensor operation fails.
    pub fn logits(&self, ws: &mut Workspace, hidden: &Tensor, rows: &[u32]) -> Result<Tensor> {
        let (compute, ws) = self.at_head(ws);
        let rows = select_rows(compute, ws, Slot::Wanted, hidden, rows)?;
        let mut logits = self.head.forward_in(ws, Slot::Logits, &rows)?.to_dtype(DType::F32)?;
        if matches!(self.spec.head, Head::Scores(_)) {
            return Ok(logits);
        }
        if self.spec.scales.logits != 1.0 {
            logits = norm::scale(&compute.runs(), logits, self.spec.scales.logits)?;
        }
        match self.spec.scales.logit_cap {
            Some(cap) => norm::soft_cap(&compute.runs(), logits, cap),
            None => Ok(logits),
        }
    }
}

/// The devices that `compute` names, with an equal share of the layers each.
fn stages(compute: Compute, spec: &DecoderSpec) -> std::result::Result<Vec<(Compute, Range<usize>)>, ModelError> {
    let further = compute.further.clone();
    let devices: Vec<Compute> = std::iter::once(Compute { further: Vec::new(), ..compute }).chain(further).collect();
    let (count, layers) = (devices.len(), spec.num_layers());
    let is_whole = spec.per_layer.is_some() || spec.layers.iter().any(|layer| layer.kv_of.is_some());
    if count > 1 && (is_whole || layers < count) {
        return Err(ModelError::NotCut { devices: count });
    }
    let bound = |index: usize| index * layers / count;
    let share = |(index, compute): (usize, Compute)| (compute, bound(index)..bound(index + 1));
    Ok(devices.into_iter().enumerate().map(share).collect())
}

//! The decoder that runs every family: what differs between them is in the [`DecoderSpec`].
//! Knows layers and the step's batch; keeps no state: the cache is passed in, hidden states and logits come out.

use candle_core::{DType, Result, Tensor};

use super::ModelError;
use super::attention::AttentionBlock;
use super::mlp::Mlp;
use super::spec::DecoderSpec;
use super::weights::{Loader, WeightSource};
use crate::ops::Compute;
use crate::ops::embedding::Embedding;
use crate::ops::linear::Linear;
use crate::ops::paged::{KvLayer, PagedBatch};
use crate::ops::rms_norm::RmsNorm;
use crate::ops::rotary::RotaryTable;

/// A loaded model.
pub struct Decoder {
    spec: DecoderSpec,
    compute: Compute,
    max_len: usize,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
}

struct Layer {
    attention_norm: RmsNorm,
    attention: AttentionBlock,
    mlp_norm: RmsNorm,
    mlp: Mlp,
}

impl Decoder {
    /// Builds the decoder of `spec` from `source`, for sequences of up to `max_len` tokens.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor that is missing, extra or wrongly shaped.
    pub fn new(
        compute: &Compute,
        spec: DecoderSpec,
        max_len: usize,
        source: &WeightSource,
    ) -> std::result::Result<Self, ModelError> {
        source.check(&spec)?;
        let (hidden, eps) = (spec.hidden_size, spec.norm_eps);
        let mut loader = Loader::new(compute, source);
        let (speeds, factor) = spec.rope.frequencies(max_len);
        let table = RotaryTable::new(&speeds, factor, max_len);
        let embedding_name = "model.embed_tokens".to_owned();
        let (embedding, head) = if spec.tied_head {
            let head = loader.linear(&[(embedding_name, spec.vocab_size)], hidden, false)?;
            (Embedding::Tied(head.clone()), head)
        } else {
            let embedding = loader.embedding(&embedding_name, spec.vocab_size, hidden)?;
            (embedding, loader.linear(&[("lm_head".to_owned(), spec.vocab_size)], hidden, false)?)
        };
        let mut layers = Vec::with_capacity(spec.num_layers());
        for layer in 0..spec.num_layers() {
            let prefix = format!("model.layers.{layer}");
            layers.push(Layer {
                attention_norm: loader.rms_norm(&format!("{prefix}.input_layernorm"), hidden, eps)?,
                attention: AttentionBlock::new(
                    &mut loader,
                    &spec,
                    table.clone(),
                    layer,
                    &format!("{prefix}.self_attn"),
                )?,
                mlp_norm: loader.rms_norm(&format!("{prefix}.post_attention_layernorm"), hidden, eps)?,
                mlp: Mlp::new(&mut loader, &spec, &format!("{prefix}.mlp"))?,
            });
        }
        let norm = loader.rms_norm("model.norm", hidden, eps)?;
        Ok(Self { spec, compute: compute.clone(), max_len, embedding, layers, norm, head })
    }

    /// Shape and choices.
    pub fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// Device and formats.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// Longest sequence this decoder was built for, in tokens.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// Storage for `num_blocks` blocks in every layer.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new_cache(&self, num_blocks: usize, block_size: usize) -> Result<Vec<KvLayer>> {
        let layer = || KvLayer::new(&self.compute, self.spec.geometry, num_blocks, block_size);
        (0..self.layers.len()).map(|_| layer()).collect()
    }

    /// Normalised hidden states [T, hidden] of packed tokens; their keys and values go to `cache` (one entry per layer).
    ///
    /// # Errors
    /// If an id is outside the vocabulary or a tensor operation fails.
    pub fn hidden_states(&self, token_ids: &[u32], batch: &PagedBatch, cache: &[KvLayer]) -> Result<Tensor> {
        let mut residual = self.embedding.forward(&self.compute, token_ids)?;
        let mut delta: Option<Tensor> = None;
        for (layer, cache) in self.layers.iter().zip(cache) {
            let x;
            (residual, x) = add(&layer.attention_norm, residual, delta)?;
            let attention = layer.attention.forward(&x, cache, batch)?;
            let x;
            (residual, x) = layer.mlp_norm.add_forward(residual, &attention)?;
            delta = Some(layer.mlp.forward(&x)?);
        }
        Ok(add(&self.norm, residual, delta)?.1)
    }

    /// f32 logits [rows.len(), V] of the given rows of `hidden`.
    ///
    /// # Errors
    /// If a row is outside `hidden` or a tensor operation fails.
    pub fn logits(&self, hidden: &Tensor, rows: &[u32]) -> Result<Tensor> {
        let rows = Tensor::new(rows, hidden.device())?;
        self.head.forward(&hidden.index_select(&rows, 0)?)?.to_dtype(DType::F32)
    }
}

/// The residual stream plus what the block before gave it (nothing, before the first), and its norm.
fn add(norm: &RmsNorm, residual: Tensor, delta: Option<Tensor>) -> Result<(Tensor, Tensor)> {
    match delta {
        Some(delta) => norm.add_forward(residual, &delta),
        None => {
            let normed = norm.forward(&residual)?;
            Ok((residual, normed))
        }
    }
}

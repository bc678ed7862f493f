//! What a decoder can be: every choice that distinguishes one supported family from another, as data.
//! Knows numbers and names; holds no weights and computes nothing.

use super::rope::{RopeScaling, RopeSpec};
use crate::ops::activation::Activation;
use crate::ops::paged::HeadGeometry;

/// A decoder's shape and choices. Tensor names are Hugging Face's under the prefix `model.`.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderSpec {
    /// Hugging Face's `model_type`.
    pub family: &'static str,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width between the feed-forward products.
    pub intermediate_size: usize,
    /// V
    pub vocab_size: usize,
    /// H, Hkv, D
    pub geometry: HeadGeometry,
    /// One entry per layer: how far back attention sees, in tokens; `None`: all the way.
    pub windows: Vec<Option<usize>>,
    /// Added to the mean square in every norm.
    pub norm_eps: f64,
    /// Per-head norm of queries and keys before the rotation.
    pub qk_norm: bool,
    /// Bias of the query, key and value products.
    pub qkv_bias: bool,
    /// Bias of the attention's output product.
    pub output_bias: bool,
    /// Bias of the feed-forward products.
    pub mlp_bias: bool,
    /// The feed-forward block's activation.
    pub activation: Activation,
    /// Positions.
    pub rope: RopeSpec,
    /// The context the model was made for, in tokens.
    pub max_positions: usize,
    /// The head shares the embedding's matrix.
    pub tied_head: bool,
}

impl DecoderSpec {
    /// L
    pub fn num_layers(&self) -> usize {
        self.windows.len()
    }

    /// The longest sequence of a run that asks for `asked` tokens (`None`: what the model was made for). No more than the model's
    /// context, which a `dynamic` rotary scaling stretches by its factor for whoever asks.
    pub fn max_len(&self, asked: Option<usize>) -> usize {
        let stretch = match self.rope.scaling {
            RopeScaling::Dynamic { factor, .. } => factor.max(1.0),
            _ => 1.0,
        };
        asked.unwrap_or(self.max_positions).min((self.max_positions as f64 * stretch) as usize)
    }

    /// Parameters in matrices that every token passes (the embedding look-up not counted, the head counted).
    pub fn num_product_parameters(&self) -> usize {
        let attention = self.hidden_size * (self.geometry.qkv_width() + self.geometry.q_width());
        let mlp = 3 * self.hidden_size * self.intermediate_size;
        self.num_layers() * (attention + mlp) + self.hidden_size * self.vocab_size
    }
}

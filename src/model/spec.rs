//! What a decoder can be: every choice that distinguishes one supported family from another, as data.
//! Knows numbers and names; holds no weights and computes nothing.

use super::rope::{RopeScaling, RopeSpec};
use crate::ops::activation::Activation;
use crate::ops::experts::Router;
use crate::ops::norm::NormKind;
use crate::ops::paged::{HeadGeometry, KvFormat};
use crate::ops::rotary::{NormSpan, QueryGrowth};

/// A decoder's shape and choices. Tensor names are Hugging Face's, under the prefix `model.`.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderSpec {
    /// Hugging Face's `model_type`.
    pub family: &'static str,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// V
    pub vocab_size: usize,
    /// L entries.
    pub layers: Vec<LayerSpec>,
    /// Norms of the residual stream.
    pub norm: NormSpec,
    /// Which norms stand where, and whether attention and feed-forward run side by side.
    pub wiring: Wiring,
    /// What all layers' attention blocks share.
    pub attention: AttentionSpec,
    /// What all layers' dense feed-forward blocks share.
    pub mlp: MlpSpec,
    /// What all layers' mixtures of experts share, if there are any.
    pub experts: Option<ExpertsSpec>,
    /// Rotary settings that layers choose from.
    pub ropes: Vec<RopeSpec>,
    /// Factors on the way.
    pub scales: Scales,
    /// A second, small embedding that feeds every layer (Gemma 3n and 4).
    pub per_layer: Option<PerLayerSpec>,
    /// Each layer's output is multiplied by a stored number (Gemma 4).
    pub layer_scalar: bool,
    /// The context the model was made for, in tokens.
    pub max_positions: usize,
    /// What stands on top.
    pub head: Head,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// H, Hkv, D
    pub geometry: HeadGeometry,
    /// How far back attention sees, in tokens; `None`: all the way.
    pub window: Option<usize>,
    /// Index into [`DecoderSpec::ropes`]; `None`: no rotation.
    pub rope: Option<usize>,
    /// The earlier layer whose keys and values this one reads instead of making its own.
    pub kv_of: Option<usize>,
    /// Values are made by the keys' matrix.
    pub values_are_keys: bool,
    /// Width between the feed-forward products; 0: no dense block.
    pub mlp_width: usize,
    /// Whether there is a mixture of experts; beside the dense block if there is one.
    pub experts: bool,
}

/// A norm of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// Root mean square or LayerNorm.
    pub kind: NormKind,
    /// Added to the mean square.
    pub eps: f64,
    /// Whether a bias is stored.
    pub bias: bool,
    /// The stored weight is one less than the factor (Gemma).
    pub plus_one: bool,
}

/// Norms by their names within a layer; `None`: no norm there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wiring {
    /// Of the attention block's input.
    pub before_attention: Option<&'static str>,
    /// Of its output.
    pub after_attention: Option<&'static str>,
    /// Of the feed-forward block's input. In a parallel layer the attention's norm serves both.
    pub before_mlp: Option<&'static str>,
    /// Of its output.
    pub after_mlp: Option<&'static str>,
    /// Both blocks read the same input and are added together.
    pub parallel: bool,
}

/// Attention blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Factor on the scores.
    pub scale: f32,
    /// Bound that scores are bent into.
    pub soft_cap: Option<f32>,
    /// A learned sink per head.
    pub sinks: bool,
    /// One stored matrix `qkv_proj` instead of three.
    pub merged: bool,
    /// Bias of the query, key and value products.
    pub qkv_bias: bool,
    /// Bias of the output product.
    pub output_bias: bool,
    /// Norms of queries and keys.
    pub qk_norm: Option<QkNormSpec>,
    /// Values are normalised, without a weight.
    pub value_norm: bool,
    /// Rotation pairs neighbours (2i, 2i + 1) instead of (i, i + R/2).
    pub interleaved: bool,
    /// Queries grow with their position.
    pub growth: Option<QueryGrowth>,
}

/// Norms of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QkNormSpec {
    /// Names within the attention block.
    pub names: (&'static str, &'static str),
    /// What is taken together.
    pub span: NormSpan,
    /// Stored as one tensor per head, `{name}.norms.{head}`.
    pub per_head_tensors: bool,
    /// After the rotation instead of before it.
    pub after_rotation: bool,
    /// Root mean square or LayerNorm, and so on.
    pub norm: NormSpec,
}

/// Dense feed-forward blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlpSpec {
    /// Name of the block within its layer.
    pub block: &'static str,
    /// Matrices whose outputs go into the activation.
    pub input: MlpInput,
    /// Name of the last matrix.
    pub down: &'static str,
    /// Bias of all products.
    pub bias: bool,
    /// Between them.
    pub activation: Activation,
    /// The activation's constants are stored (`act_fn.*`, xIELU).
    pub stored_activation: bool,
}

/// The first matrices of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpInput {
    /// `gate_proj` and `up_proj`.
    GateUp,
    /// Both stored as one `gate_up_proj`.
    Merged,
    /// One matrix of this name and no gate.
    Plain(&'static str),
}

/// Mixtures of experts.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsSpec {
    /// Name of the block within its layer, with a dot behind it, or nothing.
    pub block: &'static str,
    /// E
    pub num_experts: usize,
    /// Width between an expert's products.
    pub width: usize,
    /// How many are chosen and how they are weighed.
    pub router: Router,
    /// Name of the router's matrix within the block.
    pub router_name: &'static str,
    /// How the experts' matrices are stored.
    pub layout: ExpertLayout,
    /// Between the products.
    pub activation: Activation,
    /// The router has an input norm and factors of its own, and the block norms its input and output (Gemma 4).
    pub beside_dense: bool,
}

/// How the experts' matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertLayout {
    /// `experts.{e}.{name}.weight` for gate, up and down.
    Separate([&'static str; 3]),
    /// `experts.gate_up_proj` [E, 2F, hidden] and `experts.down_proj` [E, hidden, F].
    Merged,
    /// The same transposed, gate and up alternating, with biases (gpt-oss); the router has a bias too.
    TransposedPairs,
}

/// Factors on the way through a decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// On embeddings.
    pub embedding: f64,
    /// On what each block adds to the residual stream.
    pub residual: f64,
    /// On logits.
    pub logits: f64,
    /// Bound that logits are bent into: cap * tanh(logit / cap).
    pub logit_cap: Option<f64>,
}

/// The second embedding: a table of L vectors per token, mixed with a projection of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerLayerSpec {
    /// Width of a layer's vector.
    pub width: usize,
    /// Rows of the table.
    pub vocab_size: usize,
}

/// What stands on the last hidden state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// `lm_head`, V rows.
    Own,
    /// The embedding's matrix.
    Tied,
    /// `score`, this many rows: a reward model.
    Scores(usize),
}

impl DecoderSpec {
    /// L
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// Width of a row of the head's output: V, or the scores of a reward model.
    pub fn num_logits(&self) -> usize {
        match self.head {
            Head::Scores(count) => count,
            Head::Own | Head::Tied => self.vocab_size,
        }
    }

    /// Bytes of cache that one token takes in all layers that keep keys and values of their own.
    pub fn kv_bytes_per_token(&self, format: KvFormat) -> usize {
        let own = self.layers.iter().filter(|layer| layer.kv_of.is_none());
        own.map(|layer| layer.geometry.kv_bytes_per_token(format)).sum()
    }

    /// The longest sequence of a run that asks for `asked` tokens (`None`: what the model was made for). No more than the model's
    /// context, which a `dynamic` rotary scaling stretches by its factor for whoever asks.
    pub fn max_len(&self, asked: Option<usize>) -> usize {
        let stretch = |rope: &RopeSpec| match rope.scaling {
            RopeScaling::Dynamic { factor, .. } => factor.max(1.0),
            _ => 1.0,
        };
        let stretch = self.ropes.iter().map(stretch).fold(1.0, f64::max);
        asked.unwrap_or(self.max_positions).min((self.max_positions as f64 * stretch) as usize)
    }

    /// Parameters in matrices that every token passes (the embedding look-up not counted, the head counted; of a mixture, the
    /// experts that a token chooses).
    pub fn num_product_parameters(&self) -> usize {
        let matrices = if matches!(self.mlp.input, MlpInput::Plain(_)) { 2 } else { 3 };
        let experts = self.experts.as_ref().map_or(0, |experts| 3 * experts.width * experts.router.num_chosen);
        let layer = |layer: &LayerSpec| {
            let geometry = layer.geometry;
            let inputs = if layer.kv_of.is_some() { geometry.q_width() } else { geometry.qkv_width() };
            let feed_forward = matrices * layer.mlp_width + if layer.experts { experts } else { 0 };
            self.hidden_size * (inputs + geometry.q_width() + feed_forward)
        };
        self.layers.iter().map(layer).sum::<usize>() + self.hidden_size * self.num_logits()
    }
}

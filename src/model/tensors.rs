//! The tensors of a model: Hugging Face's names and shapes, as a spec implies them, and how stored matrices become those of a
//! layer. The loader builds by these descriptions and the check before a run reads headers by them.
//! Knows names and shapes; where the numbers come from and what is built of them is decided elsewhere.

use std::collections::HashSet;

use super::spec::{DecoderSpec, ExpertLayout, Head, LayerSpec, MlpInput, NormSpec, QkNormSpec};
use crate::ops::rotary::NormSpan;

/// A stored tensor, or one entry of its first dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Full name.
    pub name: String,
    /// Shape of the whole tensor.
    pub shape: Vec<usize>,
    /// The entry of the first dimension that is meant.
    pub entry: Option<usize>,
    /// The matrix is stored [in, out].
    pub transposed: bool,
    /// Rows come in pairs of neighbours and are wanted as two halves.
    pub pairs: Option<Pairs>,
}

/// In every group of `group` rows the first `paired` ones are (a0, b0, a1, b1, …) and are wanted as (a0, a1, …, b0, b1, …).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pairs {
    /// D for heads.
    pub group: usize,
    /// R for heads; even.
    pub paired: usize,
}

impl Pairs {
    /// The stored row that stands at `row`.
    pub fn source(self, row: usize) -> usize {
        let (group, at) = (row / self.group * self.group, row % self.group);
        let half = self.paired / 2;
        group
            + match at {
                _ if at >= self.paired => at,
                _ if at < half => 2 * at,
                _ => 2 * (at - half) + 1,
            }
    }
}

/// One matrix of a layer: stored matrices stacked by rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// Each with its number of rows.
    pub parts: Vec<(Stored, usize)>,
    /// Input features.
    pub columns: usize,
    /// One stored vector per part, or none.
    pub biases: Vec<Stored>,
}

impl Stored {
    fn new(name: String, shape: &[usize]) -> Self {
        Self { name, shape: shape.to_vec(), entry: None, transposed: false, pairs: None }
    }
}

impl Matrix {
    /// Matrices `{name}.weight` with their `{name}.bias`.
    fn new(parts: &[(String, usize)], columns: usize, bias: bool) -> Self {
        let weight = |(name, rows): &(String, usize)| (Stored::new(format!("{name}.weight"), &[*rows, columns]), *rows);
        let vector = |(name, rows): &(String, usize)| Stored::new(format!("{name}.bias"), &[*rows]);
        let biases = if bias { parts.iter().map(vector).collect() } else { Vec::new() };
        Self { parts: parts.iter().map(weight).collect(), columns, biases }
    }

    fn tensors(&self) -> impl Iterator<Item = &Stored> {
        self.parts.iter().map(|(part, _)| part).chain(&self.biases)
    }
}

fn layer_name(layer: usize, rest: &str) -> String {
    format!("model.layers.{layer}.{rest}")
}

/// The merged query, key and value matrix of a layer; queries alone where keys are another layer's.
pub fn qkv(spec: &DecoderSpec, layer: usize) -> Matrix {
    let LayerSpec { geometry, rope, kv_of, values_are_keys, .. } = spec.layers[layer];
    let name = |rest: &str| layer_name(layer, &format!("self_attn.{rest}"));
    if spec.attention.merged {
        return Matrix::new(&[(name("qkv_proj"), geometry.qkv_width())], spec.hidden_size, spec.attention.qkv_bias);
    }
    let mut parts = vec![(name("q_proj"), geometry.q_width())];
    if kv_of.is_none() {
        let values = if values_are_keys { "k_proj" } else { "v_proj" };
        parts.extend([(name("k_proj"), geometry.kv_width()), (name(values), geometry.kv_width())]);
    }
    let mut matrix = Matrix::new(&parts, spec.hidden_size, spec.attention.qkv_bias);
    if let (true, Some(rope)) = (spec.attention.interleaved, rope) {
        let pairs = Some(Pairs { group: geometry.head_dim, paired: spec.ropes[rope].rotary_dim });
        matrix.parts.iter_mut().take(2).for_each(|(part, _)| part.pairs = pairs);
        matrix.biases.iter_mut().take(2).for_each(|bias| bias.pairs = pairs);
    }
    matrix
}

/// The attention block's last matrix.
pub fn attention_output(spec: &DecoderSpec, layer: usize) -> Matrix {
    let parts = [(layer_name(layer, "self_attn.o_proj"), spec.hidden_size)];
    Matrix::new(&parts, spec.layers[layer].geometry.q_width(), spec.attention.output_bias)
}

/// The sinks [H] of a layer.
pub fn sinks(spec: &DecoderSpec, layer: usize) -> Stored {
    Stored::new(layer_name(layer, "self_attn.sinks"), &[spec.layers[layer].geometry.num_heads])
}

/// The stored vectors whose concatenation is the weight of a layer's query (`keys` false) or key norm.
pub fn head_norm(spec: &DecoderSpec, norm: &QkNormSpec, layer: usize, keys: bool) -> Vec<Stored> {
    let LayerSpec { geometry, rope, .. } = spec.layers[layer];
    let dim = geometry.head_dim;
    let (short, heads) = if keys { (norm.names.1, geometry.num_kv_heads) } else { (norm.names.0, geometry.num_heads) };
    let name = |rest: &str| layer_name(layer, &format!("self_attn.{short}{rest}"));
    let mut vectors = match norm.span {
        NormSpan::Head => vec![Stored::new(name(".weight"), &[dim])],
        NormSpan::Token => vec![Stored::new(name(".weight"), &[heads * dim])],
        NormSpan::OwnHead if norm.per_head_tensors => {
            (0..heads).map(|head| Stored::new(name(&format!(".norms.{head}.weight")), &[dim])).collect()
        }
        NormSpan::OwnHead => vec![Stored::new(name(".weight"), &[heads, dim])],
    };
    if let (true, Some(rope)) = (spec.attention.interleaved, rope) {
        let pairs = Some(Pairs { group: dim, paired: spec.ropes[rope].rotary_dim });
        vectors.iter_mut().for_each(|vector| vector.pairs = pairs);
    }
    vectors
}

/// The dense feed-forward block's matrices: into the activation, and out of it.
pub fn mlp(spec: &DecoderSpec, layer: usize) -> (Matrix, Matrix) {
    let (mlp, hidden, width) = (&spec.mlp, spec.hidden_size, spec.layers[layer].mlp_width);
    let name = |rest: &str| layer_name(layer, &format!("{}.{rest}", mlp.block));
    let parts = match mlp.input {
        MlpInput::GateUp => vec![(name("gate_proj"), width), (name("up_proj"), width)],
        MlpInput::Merged => vec![(name("gate_up_proj"), 2 * width)],
        MlpInput::Plain(single) => vec![(name(single), width)],
    };
    (Matrix::new(&parts, hidden, mlp.bias), Matrix::new(&[(name(mlp.down), hidden)], width, mlp.bias))
}

/// The stored constants of a layer's xIELU: positive, negative, beta, eps.
pub fn stored_activation(spec: &DecoderSpec, layer: usize) -> [Stored; 4] {
    let name = |rest: &str| layer_name(layer, &format!("{}.act_fn.{rest}", spec.mlp.block));
    [("alpha_p", vec![1]), ("alpha_n", vec![1]), ("beta", vec![]), ("eps", vec![])]
        .map(|(rest, shape)| Stored::new(name(rest), &shape))
}

/// A mixture's tensors in one layer.
pub struct Experts {
    /// Scores [E] of each row.
    pub router: Matrix,
    /// Each expert's matrices: into the activation, and out of it.
    pub experts: Vec<(Matrix, Matrix)>,
    /// Factors on the router's input [hidden] and on the chosen weights [E], where the mixture stands beside a dense block.
    pub factors: Option<(Stored, Stored)>,
}

/// The mixture of a layer, if the model has any.
pub fn experts(spec: &DecoderSpec, layer: usize) -> Option<Experts> {
    let (experts, hidden) = (spec.experts.as_ref()?, spec.hidden_size);
    let (count, width) = (experts.num_experts, experts.width);
    let name = |rest: &str| layer_name(layer, &format!("{}{rest}", experts.block));
    let with_biases = experts.layout == ExpertLayout::TransposedPairs;
    let router = Matrix::new(&[(name(experts.router_name), count)], hidden, with_biases);
    let single = |stored: Stored, rows: usize, columns: usize, bias: Option<Stored>| Matrix {
        parts: vec![(stored, rows)],
        columns,
        biases: bias.into_iter().collect(),
    };
    let entry = |rest: &str, shape: &[usize], index: usize| Stored {
        entry: Some(index),
        ..Stored::new(name(&format!("experts.{rest}")), shape)
    };
    let expert = |index: usize| match experts.layout {
        ExpertLayout::Separate([gate, up, down]) => {
            let part = |rest: &str| name(&format!("experts.{index}.{rest}"));
            let inputs = [(part(gate), width), (part(up), width)];
            (Matrix::new(&inputs, hidden, false), Matrix::new(&[(part(down), hidden)], width, false))
        }
        ExpertLayout::Merged => {
            let input = entry("gate_up_proj", &[count, 2 * width, hidden], index);
            let down = entry("down_proj", &[count, hidden, width], index);
            (single(input, 2 * width, hidden, None), single(down, hidden, width, None))
        }
        ExpertLayout::TransposedPairs => {
            let pairs = Some(Pairs { group: 2 * width, paired: 2 * width });
            let stored = entry("gate_up_proj", &[count, hidden, 2 * width], index);
            let input = Stored { transposed: true, pairs, ..stored };
            let bias = Stored { pairs, ..entry("gate_up_proj_bias", &[count, 2 * width], index) };
            let down = Stored { transposed: true, ..entry("down_proj", &[count, width, hidden], index) };
            let down_bias = entry("down_proj_bias", &[count, hidden], index);
            (single(input, 2 * width, hidden, Some(bias)), single(down, hidden, width, Some(down_bias)))
        }
    };
    let factors = experts.beside_dense.then(|| {
        let vector = |rest: &str, len: usize| Stored::new(layer_name(layer, rest), &[len]);
        (vector("router.scale", hidden), vector("router.per_expert_scale", count))
    });
    Some(Experts { router, experts: (0..count).map(expert).collect(), factors })
}

/// The norms of a layer's residual stream, by their names within it.
fn layer_norms(spec: &DecoderSpec, layer: usize) -> Vec<&'static str> {
    let wiring = spec.wiring;
    let norms = [wiring.before_attention, wiring.after_attention, wiring.before_mlp, wiring.after_mlp];
    let mut names: Vec<&str> = norms.into_iter().flatten().collect();
    if spec.experts.as_ref().is_some_and(|experts| experts.beside_dense) && spec.layers[layer].experts {
        names.extend(BESIDE_NORMS);
    }
    if spec.per_layer.is_some() {
        names.push(PER_LAYER_NORM);
    }
    names
}

/// Norms of a mixture beside a dense block: of the dense block's output, of the experts' input, of their output.
pub const BESIDE_NORMS: [&str; 3] =
    ["post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2"];

/// Norm of what a layer makes of its per-layer input.
pub const PER_LAYER_NORM: &str = "post_per_layer_input_norm";

/// A layer's two matrices around its per-layer input.
pub fn per_layer_input(spec: &DecoderSpec, width: usize, layer: usize) -> (Matrix, Matrix) {
    let name = |rest: &str| layer_name(layer, rest);
    let gate = Matrix::new(&[(name("per_layer_input_gate"), width)], spec.hidden_size, false);
    (gate, Matrix::new(&[(name("per_layer_projection"), spec.hidden_size)], width, false))
}

/// A layer's stored factor.
pub fn layer_scalar(layer: usize) -> Stored {
    Stored::new(layer_name(layer, "layer_scalar"), &[1])
}

/// The product that mixes the first embedding into the per-layer one [L * width, hidden].
pub fn per_layer_projection(spec: &DecoderSpec, width: usize) -> Matrix {
    let rows = spec.num_layers() * width;
    Matrix::new(&[("model.per_layer_model_projection".to_owned(), rows)], spec.hidden_size, false)
}

/// The per-layer embedding's table.
pub fn per_layer_table(spec: &DecoderSpec, width: usize, vocab_size: usize) -> Stored {
    Stored::new("model.embed_tokens_per_layer.weight".to_owned(), &[vocab_size, spec.num_layers() * width])
}

/// The embedding's table.
pub fn embedding(spec: &DecoderSpec) -> Stored {
    Stored::new("model.embed_tokens.weight".to_owned(), &[spec.vocab_size, spec.hidden_size])
}

/// The head's matrix, the embedding's if they are tied.
pub fn head(spec: &DecoderSpec) -> Matrix {
    let name = match spec.head {
        Head::Own => "lm_head",
        Head::Tied => "model.embed_tokens",
        Head::Scores(_) => "score",
    };
    Matrix::new(&[(name.to_owned(), spec.num_logits())], spec.hidden_size, false)
}

/// A norm's stored vectors: the weight and, if there is one, the bias.
pub fn norm(spec: &NormSpec, name: &str, width: usize) -> Vec<Stored> {
    let vector = |rest: &str| Stored::new(format!("{name}.{rest}"), &[width]);
    let bias = spec.bias.then(|| vector("bias"));
    std::iter::once(vector("weight")).chain(bias).collect()
}

/// Every tensor that a model of this spec has, with its shape.
pub fn tensors(spec: &DecoderSpec) -> Vec<(String, Vec<usize>)> {
    let mut list = vec![embedding(spec)];
    list.extend(head(spec).tensors().cloned());
    list.extend(norm(&spec.norm, "model.norm", spec.hidden_size));
    if let Some(per_layer) = spec.per_layer {
        list.push(per_layer_table(spec, per_layer.width, per_layer.vocab_size));
        list.extend(per_layer_projection(spec, per_layer.width).tensors().cloned());
        list.extend(norm(&spec.norm, "model.per_layer_projection_norm", per_layer.width));
    }
    for (layer, shape) in spec.layers.iter().enumerate() {
        let mut matrices = vec![qkv(spec, layer), attention_output(spec, layer)];
        if let Some(per_layer) = spec.per_layer {
            matrices.extend(<[Matrix; 2]>::from(per_layer_input(spec, per_layer.width, layer)));
        }
        if shape.mlp_width > 0 {
            matrices.extend(<[Matrix; 2]>::from(mlp(spec, layer)));
        }
        if let (true, Some(mixture)) = (shape.experts, experts(spec, layer)) {
            matrices.push(mixture.router);
            matrices.extend(mixture.experts.into_iter().flat_map(<[Matrix; 2]>::from));
            list.extend(mixture.factors.into_iter().flat_map(<[Stored; 2]>::from));
        }
        list.extend(matrices.iter().flat_map(Matrix::tensors).cloned());
        for name in layer_norms(spec, layer) {
            list.extend(norm(&spec.norm, &layer_name(layer, name), spec.hidden_size));
        }
        if let Some(qk) = &spec.attention.qk_norm {
            list.extend(head_norm(spec, qk, layer, false));
            if shape.kv_of.is_none() {
                list.extend(head_norm(spec, qk, layer, true));
            }
        }
        if spec.attention.sinks {
            list.push(sinks(spec, layer));
        }
        if spec.mlp.stored_activation {
            list.extend(stored_activation(spec, layer));
        }
        if spec.layer_scalar {
            list.push(layer_scalar(layer));
        }
    }
    // Experts share tensors, and keys may serve as values.
    let mut seen = HashSet::new();
    let list = list.into_iter().filter(|stored| seen.insert(stored.name.clone()));
    list.map(|stored| (stored.name, stored.shape)).collect()
}

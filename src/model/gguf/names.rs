//! Which Hugging Face tensors a GGUF file's tensors are, and what was done to them: one ggml tensor is one of ours, or several
//! (experts in one, queries, keys and values in one). Knows names and shapes; reads no weights.

use super::family::{Family, LAYER};
use super::family_of;
use crate::gguf::{Gguf, GgufError, TensorInfo};

/// One Hugging Face tensor.
#[derive(Debug, PartialEq)]
pub struct Piece {
    /// Hugging Face's name.
    pub name: String,
    /// Dimensions in the usual order: rows first.
    pub shape: Vec<usize>,
    /// Where the elements are.
    pub source: Source,
}

/// Where a piece's elements are.
#[derive(Debug, PartialEq)]
pub enum Source {
    /// Rows of a tensor of the file, from `first_row` on, as many as the shape says.
    Rows {
        /// Index into the file's tensors.
        tensor: usize,
        /// Of the tensor's rows, all dimensions but the first taken together.
        first_row: usize,
        /// Rows of each of so many heads are in the order for a rotation of neighbouring elements.
        interleaved_heads: Option<usize>,
        /// 1 was added to each element.
        plus_one: bool,
    },
    /// Numbers of the metadata.
    Values(Vec<f32>),
}

/// The shape that names depend on.
struct Heads {
    queries: usize,
    keys: usize,
    head_dim: usize,
}

/// All pieces of a file. A tensor that we have no name for keeps ggml's, for the error about tensors that no model asks for.
///
/// # Errors
/// [`GgufError`] for an unknown architecture or a tensor whose shape its name does not admit.
pub fn pieces(gguf: &Gguf) -> Result<Vec<Piece>, GgufError> {
    let family = family_of(gguf)?;
    let count = |name: &str| gguf.count(&format!("{}.{name}", family.arch)).ok().flatten().map(|count| count as usize);
    let hidden = count("embedding_length").unwrap_or(0);
    let queries = count("attention.head_count").unwrap_or(1).max(1);
    let heads = Heads {
        queries,
        keys: count("attention.head_count_kv").filter(|count| *count > 0).unwrap_or(queries),
        head_dim: count("attention.key_length").unwrap_or(hidden / queries),
    };
    let num_layers = count("block_count").unwrap_or(0).saturating_sub(count("nextn_predict_layers").unwrap_or(0));
    let mut pieces = Vec::with_capacity(gguf.tensors().len());
    for (index, tensor) in gguf.tensors().iter().enumerate() {
        match tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((layer, name)) => match layer.parse::<usize>() {
                Ok(layer) if layer >= num_layers && count("nextn_predict_layers").is_some() => {}
                Ok(layer) => in_layer(gguf, family, &heads, (index, tensor), layer, name, &mut pieces)?,
                Err(_) => pieces.push(whole(index, tensor, tensor.name.clone())),
            },
            None => pieces.extend(outside(family, index, tensor)),
        }
    }
    if family.model_type == "apertus" {
        pieces.extend(xielu(gguf, num_layers)?);
    }
    Ok(pieces)
}

/// Dimensions in the usual order.
fn shape_of(tensor: &TensorInfo) -> Vec<usize> {
    tensor.dims.iter().rev().copied().collect()
}

fn whole(tensor: usize, info: &TensorInfo, name: String) -> Piece {
    let source = Source::Rows { tensor, first_row: 0, interleaved_heads: None, plus_one: false };
    Piece { name, shape: shape_of(info), source }
}

/// A tensor of no layer. The rotary factors are read with the configuration.
fn outside(family: &Family, index: usize, tensor: &TensorInfo) -> Option<Piece> {
    let name = match tensor.name.as_str() {
        "rope_freqs.weight" | "rope_factors_long.weight" | "rope_factors_short.weight" => return None,
        "token_embd.weight" => "model.embed_tokens.weight",
        "output.weight" => "lm_head.weight",
        "output_norm.weight" => "model.norm.weight",
        "output_norm.bias" => "model.norm.bias",
        other => other,
    };
    let mut piece = whole(index, tensor, name.to_owned());
    if let Source::Rows { plus_one, .. } = &mut piece.source {
        *plus_one = family.norm_plus_one && name == "model.norm.weight";
    }
    Some(piece)
}

fn in_layer(
    gguf: &Gguf,
    family: &Family,
    heads: &Heads,
    (index, tensor): (usize, &TensorInfo),
    layer: usize,
    name: &str,
    pieces: &mut Vec<Piece>,
) -> Result<(), GgufError> {
    let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
    let prefix = format!("model.layers.{layer}");
    if stem == "rope_freqs" {
        return Ok(());
    }
    let shape = shape_of(tensor);
    let rows = |name: String, first_row: usize, shape: Vec<usize>, interleaved_heads: Option<usize>| {
        let source = Source::Rows { tensor: index, first_row, interleaved_heads, plus_one: false };
        Piece { name, shape, source }
    };
    let experts = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];
    if let Some(product) = experts.iter().position(|name| *name == stem) {
        let [num_experts, out, columns] = shape[..] else {
            return Err(gguf.damaged(format!("tensor `{}` has {} dimensions, want 3", tensor.name, shape.len())));
        };
        let block = if family.model_type == "mixtral" { "block_sparse_moe" } else { "mlp" };
        let product = family.experts[product];
        pieces.extend((0..num_experts).map(|expert| {
            let name = format!("{prefix}.{block}.experts.{expert}.{product}.{suffix}");
            rows(name, expert * out, vec![out, columns], None)
        }));
        return Ok(());
    }
    let own = family.layer.iter().find(|(ggml, _)| *ggml == stem);
    if stem == "attn_qkv" && own.is_none() {
        let widths = [heads.queries, heads.keys, heads.keys].map(|count| count * heads.head_dim);
        if shape.first() != Some(&widths.iter().sum()) {
            let what =
                format!("tensor `{}` has shape {shape:?}, want {} rows", tensor.name, widths.iter().sum::<usize>());
            return Err(gguf.damaged(what));
        }
        let mut first_row = 0;
        for (part, width) in ["q_proj", "k_proj", "v_proj"].iter().zip(widths) {
            let mut part_shape = shape.clone();
            part_shape[0] = width;
            let heads = match *part {
                "q_proj" if family.interleaved => Some(heads.queries),
                "k_proj" if family.interleaved => Some(heads.keys),
                _ => None,
            };
            pieces.push(rows(format!("{prefix}.self_attn.{part}.{suffix}"), first_row, part_shape, heads));
            first_row += width;
        }
        return Ok(());
    }
    let Some((_, hf)) = own.or_else(|| LAYER.iter().find(|(ggml, _)| *ggml == stem)) else {
        pieces.push(whole(index, tensor, tensor.name.clone()));
        return Ok(());
    };
    // StableLM's norms per head are one tensor here and one each there.
    if let ([count, width], true) = (&shape[..], hf.ends_with("_layernorm") && stem.ends_with("_norm")) {
        pieces.extend(
            (0..*count).map(|head| rows(format!("{prefix}.{hf}.norms.{head}.{suffix}"), head, vec![*width], None)),
        );
        return Ok(());
    }
    let interleaved = match stem {
        "attn_q" if family.interleaved => Some(heads.queries),
        "attn_k" if family.interleaved => Some(heads.keys),
        _ => None,
    };
    let mut piece = rows(format!("{prefix}.{hf}.{suffix}"), 0, shape, interleaved);
    if let Source::Rows { plus_one, .. } = &mut piece.source {
        *plus_one = family.norm_plus_one && stem.ends_with("_norm");
    }
    pieces.push(piece);
    Ok(())
}

/// Apertus' activation has four parameters per layer, which converters move to the metadata.
fn xielu(gguf: &Gguf, num_layers: usize) -> Result<Vec<Piece>, GgufError> {
    let mut pieces = Vec::new();
    for (parameter, shape) in [("alpha_p", vec![1]), ("alpha_n", vec![1]), ("beta", vec![]), ("eps", vec![])] {
        let key = format!("xielu.{parameter}");
        let values = match gguf.is_array(&key) {
            true => gguf.numbers(&key)?.unwrap_or_default(),
            false => gguf.number(&key)?.map(|value| vec![value; num_layers]).unwrap_or_default(),
        };
        if values.len() < num_layers {
            return Err(gguf.damaged(format!("metadata `{key}` has {} numbers, want {num_layers}", values.len())));
        }
        pieces.extend(values.iter().take(num_layers).enumerate().map(|(layer, value)| Piece {
            name: format!("model.layers.{layer}.mlp.act_fn.{parameter}"),
            shape: shape.clone(),
            source: Source::Values(vec![*value as f32]),
        }));
    }
    Ok(pieces)
}

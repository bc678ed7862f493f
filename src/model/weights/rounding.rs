//! Which matrices of a model are rounded to blocks when that is asked for, and which cannot be.
//! Knows names and row lengths; rounds nothing itself.

use candle_core::DType;
use candle_core::quantized::GgmlDType;

use crate::model::spec::{DecoderSpec, Head};
use crate::model::tensors::{self, Matrix};
use crate::ops::Compute;
use crate::ops::blocks::fitting;
use crate::ops::linear::StoredFormat;

/// Whether the matrix of this full name is not rounded: one that chooses experts, or rates an answer. Its few rows decide much:
/// rounding them saves nothing and costs the most.
pub(super) fn stays_dense(name: &str) -> bool {
    const ENDINGS: [&str; 5] =
        ["mlp.gate.weight", "mlp.router.weight", "router.proj.weight", "block_sparse_moe.gate.weight", "score.weight"];
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Which matrices of `spec` do not take the blocks that `compute` rounds to, in words; `None` if all do.
pub fn quantize_note(spec: &DecoderSpec, compute: &Compute) -> Option<String> {
    let asked = compute.quantize?;
    let row_lengths = row_lengths(spec);
    let kept = |format: Option<GgmlDType>| {
        row_lengths.iter().copied().filter(|&columns| fitting(asked, columns) == format).collect::<Vec<_>>()
    };
    let (name, total) = (StoredFormat::from(asked).name(), row_lengths.len());
    let mut parts = Vec::new();
    let mut say = |rows: Vec<usize>, format: String| {
        if let Some(&example) = rows.first() {
            parts.push(format!("{} of {total} matrices stay in {format} (rows of {example})", rows.len()));
        }
    };
    if asked != GgmlDType::Q8_0 {
        say(kept(Some(GgmlDType::Q8_0)), StoredFormat::from(GgmlDType::Q8_0).name());
    }
    say(kept(None), compute.unquantized().weight_format());
    let block = asked.block_size();
    (!parts.is_empty()).then(|| format!("{name} takes rows of whole blocks of {block}: {}", parts.join(", ")))
}

/// Bytes that the weights of `spec` take in memory: matrices and embeddings rounded to `quantize` where their rows take it, or in one byte with
/// `fp8`, all else in `dtype`. Of weights that are published in blocks the files' own size is the better guess.
pub fn weight_bytes(spec: &DecoderSpec, dtype: DType, quantize: Option<GgmlDType>, fp8: bool) -> u64 {
    let one = |(name, shape): (String, Vec<usize>)| {
        let elements = shape.iter().product::<usize>();
        let columns = shape.last().copied().unwrap_or(1);
        let is_matrix =
            shape.len() > 1 && name.ends_with("weight") | name.contains("experts.") && !name.contains("norm");
        let blocks = quantize.filter(|_| is_matrix && !stays_dense(&name)).and_then(|asked| fitting(asked, columns));
        let bytes = match blocks {
            Some(format) => elements / format.block_size() * format.type_size(),
            None if fp8 && is_matrix && !name.contains("embed_tokens") && !stays_dense(&name) => elements,
            None => elements * dtype.size_in_bytes(),
        };
        bytes as u64
    };
    tensors::tensors(spec).into_iter().map(one).sum()
}

/// Elements per row of every matrix that is rounded if it can be.
fn row_lengths(spec: &DecoderSpec) -> Vec<usize> {
    let mut matrices = Vec::new();
    if spec.head == Head::Own {
        matrices.push(tensors::head(spec));
    }
    for (layer, shape) in spec.layers.iter().enumerate() {
        matrices.extend([tensors::qkv(spec, layer), tensors::attention_output(spec, layer)]);
        if shape.mlp_width > 0 {
            matrices.extend(<[Matrix; 2]>::from(tensors::mlp(spec, layer)));
        }
        if let (true, Some(mixture)) = (shape.experts, tensors::experts(spec, layer)) {
            matrices.extend(mixture.experts.into_iter().flat_map(<[Matrix; 2]>::from));
        }
        if let Some(per_layer) = spec.per_layer {
            matrices.extend(<[Matrix; 2]>::from(tensors::per_layer_input(spec, per_layer.width, layer)));
        }
    }
    let mut lengths = vec![spec.hidden_size];
    if let Some(per_layer) = spec.per_layer {
        lengths.push(spec.num_layers() * per_layer.width);
        matrices.push(tensors::per_layer_projection(spec, per_layer.width));
    }
    lengths.extend(matrices.iter().flat_map(|matrix| matrix.parts.iter().map(|_| matrix.columns)));
    lengths
}

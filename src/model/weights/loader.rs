//! Builds layers out of a weight source.
//! Knows how matrices are stacked and which vectors belong to them; knows nothing of files or of a layer's place in a model.

use candle_core::quantized::GgmlDType;

use super::{ModelError, Stored, WeightSource};
use crate::model::spec::DecoderSpec;
use crate::model::tensors::tensors;
use crate::ops::Compute;
use crate::ops::blocks::fitting;
use crate::ops::embedding::Embedding;
use crate::ops::linear::{Linear, MatrixView, StoredFormat};
use crate::ops::rms_norm::RmsNorm;

/// Builds layers out of a source.
pub struct Loader<'a> {
    source: &'a WeightSource,
    compute: &'a Compute,
}

impl<'a> Loader<'a> {
    /// A loader of this source.
    pub fn new(compute: &'a Compute, source: &'a WeightSource) -> Self {
        Self { source, compute }
    }

    /// Device and formats that layers are built for.
    pub fn compute(&self) -> &'a Compute {
        self.compute
    }

    /// The matrices `{name}.weight` [rows, columns] stacked by rows, with their biases if `bias`.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn linear(&mut self, parts: &[(String, usize)], columns: usize, bias: bool) -> Result<Linear, ModelError> {
        let names: Vec<String> = parts.iter().map(|(name, _)| format!("{name}.weight")).collect();
        let mut data = Vec::with_capacity(parts.len());
        for (name, (_, rows)) in names.iter().zip(parts) {
            data.push((self.source.tensor(name, &[*rows, columns])?, *rows));
        }
        let views: Vec<MatrixView<'_>> = data
            .iter()
            .map(|(stored, rows)| MatrixView { bytes: &stored.bytes, format: stored.format, rows: *rows, columns })
            .collect();
        let mut biases = bias.then(Vec::new);
        if let Some(all) = &mut biases {
            for (name, rows) in parts {
                all.extend(self.vector(&format!("{name}.bias"), *rows)?);
            }
        }
        let linear = match parts.iter().any(|(name, _)| is_router(name)) {
            true => Linear::new(&self.compute.unquantized(), &views, biases)?,
            false => Linear::new(self.compute, &views, biases)?,
        };
        self.done(&names);
        Ok(linear)
    }

    /// The embedding table `{name}.weight` [rows, columns].
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn embedding(&mut self, name: &str, rows: usize, columns: usize) -> Result<Embedding, ModelError> {
        let name = format!("{name}.weight");
        let Stored { bytes, format } = self.source.tensor(&name, &[rows, columns])?;
        let embedding = Embedding::table(self.compute, &MatrixView { bytes: &bytes, format, rows, columns })?;
        self.done(&[name]);
        Ok(embedding)
    }

    /// The norm `{name}.weight`, of shape `[width]`.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn rms_norm(&mut self, name: &str, width: usize, eps: f64) -> Result<RmsNorm, ModelError> {
        Ok(RmsNorm::new(self.compute, self.vector(&format!("{name}.weight"), width)?, eps))
    }

    /// A vector of full tensor name `name` [width], widened to f32.
    fn vector(&mut self, name: &str, width: usize) -> Result<Vec<f32>, ModelError> {
        let Stored { bytes, format } = self.source.tensor(name, &[width])?;
        let values = MatrixView { bytes: &bytes, format, rows: 1, columns: width }.to_f32()?;
        self.done(&[name.to_owned()]);
        Ok(values)
    }

    fn done(&self, names: &[String]) {
        names.iter().for_each(|name| self.source.release(name));
    }
}

/// Which matrices of `spec` do not take the blocks that `compute` rounds to, in words; `None` if all do.
pub fn quantize_note(spec: &DecoderSpec, compute: &Compute) -> Option<String> {
    let asked = compute.quantize?;
    let tensors = tensors(spec);
    let matrices =
        tensors.iter().filter(|(name, shape)| shape.len() > 1 && !is_router(name.trim_end_matches(".weight")));
    let row_lengths: Vec<usize> = matrices.filter_map(|(_, shape)| shape.last().copied()).collect();
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

/// Whether the matrix of this name chooses experts. Its few rows decide which weights are used at all: rounding it saves nothing
/// and costs the most.
fn is_router(name: &str) -> bool {
    ["mlp.gate", "mlp.router", "block_sparse_moe.gate"].iter().any(|router| name.ends_with(router))
}

//! Builds layers out of a weight source.
//! Knows how matrices are stacked and which vectors belong to them; knows nothing of files or of a layer's place in a model.

use super::{ModelError, Stored, WeightSource};
use crate::ops::Compute;
use crate::ops::embedding::Embedding;
use crate::ops::linear::{Linear, MatrixView};
use crate::ops::rms_norm::RmsNorm;

/// How the names of matrices end that choose experts.
pub(super) const ROUTERS: [&str; 3] = [".mlp.gate", ".mlp.router", ".block_sparse_moe.gate"];

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
        // A router is a few rows whose order decides which experts run: rounding it saves nothing and costs the most.
        let is_router = |(name, _): &(String, usize)| ROUTERS.iter().any(|router| name.ends_with(router));
        let linear = match parts.iter().any(is_router) {
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

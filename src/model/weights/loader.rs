//! Builds layers out of a weight source.
//! Knows how stored matrices are cut, turned and stacked; knows nothing of files or of a layer's place in a model.

use std::borrow::Cow;

use super::rounding::stays_dense;
use super::{Elements, ModelError, WeightSource};
use crate::model::spec::NormSpec;
use crate::model::tensors::{self, Matrix, Pairs, Stored};
use crate::ops::embedding::Embedding;
use crate::ops::experts::GroupedLinear;
use crate::ops::linear::{Linear, MatrixView};
use crate::ops::norm::{Norm, NormKind};
use crate::ops::{Compute, Loading};

/// Builds layers out of a source.
pub struct Loader<'a> {
    source: &'a WeightSource,
    compute: &'a Compute,
    loading: Loading,
}

impl<'a> Loader<'a> {
    /// A loader of this source.
    pub fn new(compute: &'a Compute, source: &'a WeightSource) -> Self {
        Self { source, compute, loading: Loading::default() }
    }

    /// Device and formats that layers are built for.
    pub fn compute(&self) -> &'a Compute {
        self.compute
    }

    /// What the matrices so far have in common.
    pub fn loading(&mut self) -> &mut Loading {
        &mut self.loading
    }

    /// A matrix of a layer.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn linear(&mut self, matrix: &Matrix) -> Result<Linear, ModelError> {
        match matrix.parts.iter().any(|(part, _)| stays_dense(&part.name)) {
            true => self.linear_in(|compute, _| compute.unquantized(), matrix),
            false => self.linear_in(|compute, _| compute.clone(), matrix),
        }
    }

    /// The head's matrix.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn head(&mut self, matrix: &Matrix) -> Result<Linear, ModelError> {
        match matrix.parts.iter().any(|(part, _)| stays_dense(&part.name)) {
            true => self.linear(matrix),
            false => self.linear_in(|compute, views| compute.for_head(views.iter().map(|view| view.format)), matrix),
        }
    }

    /// Matrices of the same shape, one for each expert, for products of grouped rows.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn grouped<'m>(
        &mut self,
        matrices: impl ExactSizeIterator<Item = &'m Matrix>,
    ) -> Result<GroupedLinear, ModelError> {
        let (num_experts, mut grouped) = (matrices.len(), None);
        for (expert, matrix) in matrices.enumerate() {
            let compute = self.compute;
            self.with_stored(matrix, |loading, views, biases| {
                let all: &GroupedLinear = match &mut grouped {
                    Some(all) => all,
                    none => none.insert(GroupedLinear::new(compute, num_experts, views, biases.is_some())?),
                };
                all.set(compute, loading, expert, views, biases.as_deref())
            })?;
        }
        Ok(grouped.ok_or_else(|| candle_core::Error::Msg("a mixture of no experts".to_owned()))?)
    }

    /// A matrix in the formats that `choose` makes of the loader's, seeing what is stored.
    fn linear_in(
        &mut self,
        choose: impl FnOnce(&Compute, &[MatrixView<'_>]) -> Compute,
        matrix: &Matrix,
    ) -> Result<Linear, ModelError> {
        let compute = self.compute;
        self.with_stored(matrix, |loading, views, biases| {
            Linear::new_in(&choose(compute, views), loading, views, biases)
        })
    }

    /// Calls `make` with what is stored of a matrix: its parts, and its biases one behind the other.
    fn with_stored<R>(
        &mut self,
        matrix: &Matrix,
        make: impl FnOnce(&mut Loading, &[MatrixView<'_>], Option<Vec<f32>>) -> candle_core::Result<R>,
    ) -> Result<R, ModelError> {
        let mut data = Vec::with_capacity(matrix.parts.len());
        for (part, rows) in &matrix.parts {
            data.push((self.rows(part, *rows, matrix.columns)?, *rows));
        }
        let columns = matrix.columns;
        let views: Vec<MatrixView<'_>> = data
            .iter()
            .map(|(stored, rows)| MatrixView { bytes: &stored.bytes, format: stored.format, rows: *rows, columns })
            .collect();
        let mut biases = (!matrix.biases.is_empty()).then(Vec::new);
        if let Some(all) = &mut biases {
            for bias in &matrix.biases {
                all.extend(self.vector(bias)?);
            }
        }
        let made = make(&mut self.loading, &views, biases)?;
        matrix.parts.iter().for_each(|(part, _)| self.source.release(part));
        Ok(made)
    }

    /// A stored matrix as [rows, columns], rows in the order that is wanted.
    fn rows(&self, stored: &Stored, rows: usize, columns: usize) -> Result<Elements<'a>, ModelError> {
        let mut elements = self.source.read(stored)?;
        if stored.transposed {
            elements.bytes = Cow::Owned(transposed(&elements.bytes, columns, rows));
        }
        if let Some(pairs) = stored.pairs {
            elements.bytes = Cow::Owned(reordered(&elements.bytes, rows, pairs));
        }
        Ok(elements)
    }

    /// An embedding's table of shape [rows, columns].
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn embedding(&mut self, stored: &Stored) -> Result<Embedding, ModelError> {
        let Elements { bytes, format } = self.source.read(stored)?;
        let (rows, columns) = (stored.shape.first().copied().unwrap_or(1), stored.shape.last().copied().unwrap_or(1));
        let embedding =
            Embedding::table_in(self.compute, &mut self.loading, &MatrixView { bytes: &bytes, format, rows, columns })?;
        self.source.release(stored);
        Ok(embedding)
    }

    /// A norm of full name `name` and this width.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn norm(&mut self, spec: &NormSpec, name: &str, width: usize) -> Result<Norm, ModelError> {
        let vectors = tensors::norm(spec, name, width);
        let bias = vectors.get(1).map(|bias| self.vector(bias)).transpose()?;
        self.norm_of(spec, &vectors[..1], bias)
    }

    /// A norm whose weight is the concatenation of stored vectors.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn norm_of(&mut self, spec: &NormSpec, weights: &[Stored], bias: Option<Vec<f32>>) -> Result<Norm, ModelError> {
        let mut weight = Vec::new();
        for part in weights {
            weight.extend(self.vector(part)?);
        }
        if spec.plus_one {
            weight.iter_mut().for_each(|value| *value += 1.0);
        }
        match spec.kind {
            NormKind::RootMeanSquare => Ok(Norm::rms(self.compute, weight, spec.eps)?),
            NormKind::Layer => Ok(Norm::layer(self.compute, weight, bias, spec.eps)?),
        }
    }

    /// A stored tensor's elements, widened to f32.
    ///
    /// # Errors
    /// [`ModelError`] naming the tensor.
    pub fn vector(&mut self, stored: &Stored) -> Result<Vec<f32>, ModelError> {
        let Elements { bytes, format } = self.source.read(stored)?;
        let len = stored.shape.iter().skip(usize::from(stored.entry.is_some())).product();
        let mut values = MatrixView { bytes: &bytes, format, rows: 1, columns: len }.to_f32()?;
        if let Some(pairs) = stored.pairs {
            values = (0..len).map(|row| values[pairs.source(row)]).collect();
        }
        self.source.release(stored);
        Ok(values)
    }
}

/// The elements of a [rows, columns] matrix as [columns, rows].
fn transposed(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let size = bytes.len() / (rows * columns).max(1);
    let mut out = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            out.extend_from_slice(&bytes[(row * columns + column) * size..][..size]);
        }
    }
    out
}

/// The rows of a matrix in another order.
fn reordered(bytes: &[u8], rows: usize, pairs: Pairs) -> Vec<u8> {
    let size = bytes.len() / rows.max(1);
    (0..rows).flat_map(|row| &bytes[pairs.source(row) * size..][..size]).copied().collect()
}

//! Token embedding: rows of a table, or of the head's matrix when the two are tied.
//! Knows token ids as row numbers and nothing else about them.

use candle_core::{DType, Result, Tensor};

use super::linear::{Linear, MatrixView};
use super::{Compute, OpsPath};

/// The embedding table [V, hidden].
#[derive(Clone)]
pub enum Embedding {
    /// A table of its own, kept in the weights' format.
    Table(Tensor),
    /// A table of its own, kept in blocks.
    Blocks(Linear),
    /// The head's matrix, stored once for both uses.
    Tied(Linear),
}

impl Embedding {
    /// A table of its own.
    ///
    /// # Errors
    /// If size or format of the bytes do not fit.
    pub fn table(compute: &Compute, source: &MatrixView<'_>) -> Result<Self> {
        source.validate()?;
        match (compute.path, compute.blocks_of(source)) {
            (OpsPath::Native, Some(_)) => Ok(Self::Blocks(Linear::new(compute, &[*source], None)?)),
            _ => Ok(Self::Table(super::dense(compute, source)?)),
        }
    }

    /// Rows of `ids` as [ids.len(), hidden] in the activations' format.
    ///
    /// # Errors
    /// If an id is outside the vocabulary.
    pub fn forward(&self, compute: &Compute, ids: &[u32]) -> Result<Tensor> {
        match self {
            Self::Tied(matrix) | Self::Blocks(matrix) => matrix.gather_rows(compute, ids),
            Self::Table(table) => {
                let rows = table.dim(0)?;
                if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
                    candle_core::bail!("token id {id} is outside the vocabulary of {rows}")
                }
                let rows = table.index_select(&Tensor::new(ids, &compute.device)?, 0)?;
                if rows.dtype() == DType::F32 { Ok(rows) } else { rows.to_dtype(compute.activation_dtype) }
            }
        }
    }
}

//! Matrices as weights files hold them: dense elements or ggml blocks, row by row.
//! Knows sizes and number formats; knows nothing of products, nor of files.

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Result};
use half::{bf16, f16};

use super::{BlockInputs, blocks, product};

/// How the elements of a stored matrix are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredFormat {
    /// One little-endian element after the other: F32, F16 or BF16.
    Dense(DType),
    /// ggml's blocks of 32 or 256 consecutive elements of a row, every row whole blocks.
    Blocks(GgmlDType),
}

impl From<DType> for StoredFormat {
    fn from(dtype: DType) -> Self {
        Self::Dense(dtype)
    }
}

/// ggml counts plain elements among its types.
impl From<GgmlDType> for StoredFormat {
    fn from(format: GgmlDType) -> Self {
        match format {
            GgmlDType::F32 => Self::Dense(DType::F32),
            GgmlDType::F16 => Self::Dense(DType::F16),
            GgmlDType::BF16 => Self::Dense(DType::BF16),
            blocks => Self::Blocks(blocks),
        }
    }
}

impl StoredFormat {
    /// Bytes of a row of `columns` elements.
    ///
    /// # Errors
    /// If the format is none of ours, or the row is not whole blocks of it.
    pub fn row_bytes(self, columns: usize) -> Result<usize> {
        let (block, bytes) = match self {
            Self::Dense(DType::F32) => (1, 4),
            Self::Dense(DType::F16 | DType::BF16) => (1, 2),
            Self::Dense(other) => candle_core::bail!("weights of type {other:?}: want F32, F16, BF16 or ggml blocks"),
            Self::Blocks(format) => (format.block_size(), format.type_size()),
        };
        if !columns.is_multiple_of(block) {
            let name = self.name();
            candle_core::bail!("rows of {columns} elements are not whole {name} blocks of {block}")
        }
        match (columns / block).checked_mul(bytes) {
            Some(bytes) => Ok(bytes),
            None => candle_core::bail!("rows of {columns} elements are too long"),
        }
    }

    /// Short name in lower case, as in `--dtype` and `--quantize`: `bf16`, `q8_0`, `q4k`.
    pub fn name(self) -> String {
        match self {
            Self::Dense(dtype) => dtype.as_str().to_owned(),
            Self::Blocks(format) => format!("{format:?}").to_lowercase(),
        }
    }
}

/// A row-major matrix as it lies in a weights file, not necessarily aligned.
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a> {
    /// `rows` times [`StoredFormat::row_bytes`].
    pub bytes: &'a [u8],
    /// How elements are written.
    pub format: StoredFormat,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
}

impl MatrixView<'_> {
    /// Checks size and format.
    pub(super) fn validate(&self) -> Result<()> {
        let want = self.format.row_bytes(self.columns)?.checked_mul(self.rows);
        if want != Some(self.bytes.len()) || self.bytes.is_empty() {
            let (rows, columns, got) = (self.rows, self.columns, self.bytes.len());
            candle_core::bail!("a {rows}x{columns} matrix has {got} bytes, want {}", want.unwrap_or(usize::MAX))
        }
        Ok(())
    }

    /// All elements, widened, row-major.
    ///
    /// # Errors
    /// If size or format do not fit.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.validate()?;
        match self.format {
            StoredFormat::Dense(_) => Ok((0..self.rows * self.columns).map(|index| self.element(index)).collect()),
            StoredFormat::Blocks(format) => {
                Ok(product::widened(blocks::matrix(format, self, BlockInputs::F32)?.as_ref()))
            }
        }
    }

    /// Element `index` of row-major order of a dense matrix, widened to f32.
    pub(super) fn element(&self, index: usize) -> f32 {
        match self.format {
            StoredFormat::Dense(DType::F32) => f32::from_le_bytes(self.array(index)),
            StoredFormat::Dense(DType::F16) => f16::from_le_bytes(self.array(index)).to_f32(),
            _ => bf16::from_le_bytes(self.array(index)).to_f32(),
        }
    }

    fn array<const N: usize>(&self, index: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[index * N..(index + 1) * N]);
        bytes
    }
}

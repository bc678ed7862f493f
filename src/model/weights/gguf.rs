//! The weights of a GGUF file by Hugging Face's names, in Hugging Face's layout, their blocks kept as they are.
//! Knows how a changed layout is put back; which tensors have one is decided in `model::gguf`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::DType;
use candle_core::quantized::GgmlDType;

use super::Elements;
use crate::gguf::{BlockType, Gguf};
use crate::model::ModelError;
use crate::model::gguf::{Piece, Source, pieces};
use crate::ops::linear::{MatrixView, StoredFormat};

/// Tensors by Hugging Face's names.
pub struct GgufFiles {
    gguf: Gguf,
    pieces: HashMap<String, Piece>,
}

impl GgufFiles {
    /// Maps `files` and finds out what their tensors are.
    ///
    /// # Errors
    /// [`ModelError::Gguf`] if one is damaged or of an architecture that we do not know.
    pub fn open(files: &[PathBuf]) -> Result<Self, ModelError> {
        let gguf = Gguf::open(files)?;
        let mut by_name = HashMap::new();
        for piece in pieces(&gguf)? {
            if let Some(other) = by_name.insert(piece.name.clone(), piece) {
                return Err(gguf.damaged(format!("two tensors are `{}` to Hugging Face", other.name)).into());
            }
        }
        Ok(Self { gguf, pieces: by_name })
    }

    /// The files, with their tensors by ggml's names.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// Every tensor's name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.keys().map(String::as_str)
    }

    /// The tensor of this name.
    pub fn piece(&self, name: &str) -> Option<&Piece> {
        self.pieces.get(name)
    }

    /// A tensor's elements, in Hugging Face's order.
    ///
    /// # Errors
    /// If the file's shapes contradict each other.
    pub fn stored(&self, piece: &Piece) -> Result<Elements<'_>, ModelError> {
        let (index, first_row, heads, plus_one) = match &piece.source {
            Source::Values(values) => {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                return Ok(Elements { bytes: Cow::Owned(bytes), format: DType::F32.into() });
            }
            Source::Rows { tensor, first_row, interleaved_heads, plus_one } => {
                (*tensor, *first_row, *interleaved_heads, *plus_one)
            }
        };
        let cut_short = || self.gguf.damaged(format!("tensor `{}` is shorter than its shape", piece.name));
        let tensor = self.gguf.tensors().get(index).ok_or_else(cut_short)?;
        let format = StoredFormat::from(ggml_dtype(tensor.kind));
        let elements = piece.shape.iter().product::<usize>();
        // What `first_row` counts: rows of a matrix, elements of a vector (which no converter writes in blocks).
        let row = if tensor.dims.len() > 1 { tensor.dims.first().copied().unwrap_or(1) } else { 1 };
        let (rows, row_bytes) = (elements / row, format.row_bytes(row)?);
        let range = first_row * row_bytes..(first_row + rows) * row_bytes;
        let bytes = self.gguf.bytes(tensor).get(range).ok_or_else(cut_short)?;
        let bytes = match heads {
            None => Cow::Borrowed(bytes),
            Some(heads) => Cow::Owned(halves(bytes, rows, row_bytes, heads).ok_or_else(|| {
                self.gguf
                    .damaged(format!("`{}` has {rows} rows, want an even number for each of {heads} heads", piece.name))
            })?),
        };
        if !plus_one {
            return Ok(Elements { bytes, format });
        }
        let mut values = MatrixView { bytes: &bytes, format, rows: 1, columns: elements }.to_f32()?;
        values.iter_mut().for_each(|value| *value -= 1.0);
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(Elements { bytes: Cow::Owned(bytes), format: DType::F32.into() })
    }

    /// Tells the system that a tensor's pages are not needed any more.
    pub fn release(&self, name: &str) {
        let source = self.pieces.get(name).map(|piece| &piece.source);
        if let Some(Source::Rows { tensor, .. }) = source
            && let Some(tensor) = self.gguf.tensors().get(*tensor)
        {
            self.gguf.release(tensor);
        }
    }
}

/// Puts the rows of each head back from pairs of neighbours (0, 1), (2, 3) … to halves: first all first elements of the pairs,
/// then all second ones. `None` if the rows are not whole heads of pairs.
fn halves(bytes: &[u8], rows: usize, row_bytes: usize, heads: usize) -> Option<Vec<u8>> {
    if heads == 0 || !rows.is_multiple_of(2 * heads) || bytes.len() != rows * row_bytes {
        return None;
    }
    let width = rows / heads;
    let mut ordered = Vec::with_capacity(bytes.len());
    for head in 0..heads {
        for half in 0..2 {
            for pair in 0..width / 2 {
                let row = head * width + 2 * pair + half;
                ordered.extend_from_slice(bytes.get(row * row_bytes..(row + 1) * row_bytes)?);
            }
        }
    }
    Some(ordered)
}

fn ggml_dtype(kind: BlockType) -> GgmlDType {
    match kind {
        BlockType::F32 => GgmlDType::F32,
        BlockType::F16 => GgmlDType::F16,
        BlockType::BF16 => GgmlDType::BF16,
        BlockType::Q4_0 => GgmlDType::Q4_0,
        BlockType::Q4_1 => GgmlDType::Q4_1,
        BlockType::Q5_0 => GgmlDType::Q5_0,
        BlockType::Q5_1 => GgmlDType::Q5_1,
        BlockType::Q8_0 => GgmlDType::Q8_0,
        BlockType::Q8_1 => GgmlDType::Q8_1,
        BlockType::Q2K => GgmlDType::Q2K,
        BlockType::Q3K => GgmlDType::Q3K,
        BlockType::Q4K => GgmlDType::Q4K,
        BlockType::Q5K => GgmlDType::Q5K,
        BlockType::Q6K => GgmlDType::Q6K,
        BlockType::Q8K => GgmlDType::Q8K,
    }
}

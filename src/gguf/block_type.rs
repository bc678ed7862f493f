//! How ggml stores the elements of a tensor: alone, or in blocks that share a scale.
//! Knows ids, names and sizes (from ggml's `ggml.h` and `ggml-common.h`); decodes nothing.

use super::error::Fault;

/// An element type, or a block format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// The upper halves of 32-bit floats.
    BF16,
    /// 32 elements of 4 bits, a scale.
    Q4_0,
    /// 32 elements of 4 bits, a scale and a minimum.
    Q4_1,
    /// 32 elements of 5 bits, a scale.
    Q5_0,
    /// 32 elements of 5 bits, a scale and a minimum.
    Q5_1,
    /// 32 elements of 8 bits, a scale.
    Q8_0,
    /// 32 elements of 8 bits, a scale and a sum.
    Q8_1,
    /// 256 elements of 2 bits.
    Q2K,
    /// 256 elements of 3 bits.
    Q3K,
    /// 256 elements of 4 bits.
    Q4K,
    /// 256 elements of 5 bits.
    Q5K,
    /// 256 elements of 6 bits.
    Q6K,
    /// 256 elements of 8 bits.
    Q8K,
}

/// Formats that exist and are not supported, by id: for the error's words.
const UNSUPPORTED: [(u32, &str); 23] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
    (31, "Q4_0_4_4"),
];

impl BlockType {
    /// The type of ggml's id.
    pub(super) fn from_id(id: u32, tensor: &str) -> Result<Self, Fault> {
        let kind = match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            9 => Self::Q8_1,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            15 => Self::Q8K,
            30 => Self::BF16,
            _ => {
                let name = UNSUPPORTED.iter().find(|(known, _)| *known == id).map(|(_, name)| *name);
                let what = match name {
                    Some(name) => format!("tensor `{tensor}` is stored as {name}"),
                    None => format!("tensor `{tensor}` has the unknown element type {id}"),
                };
                let what = format!("{what}, want F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1 or Q2_K to Q8_K");
                return Err(Fault {
                    what,
                    hint: "use a file of the same model in another quantisation, for example Q4_K_M or Q8_0",
                });
            }
        };
        Ok(kind)
    }

    /// Elements per block; 1 for plain elements.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::Q8_1 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K | Self::Q8K => 256,
        }
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q8_1 => 36,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Q8K => 292,
        }
    }
}

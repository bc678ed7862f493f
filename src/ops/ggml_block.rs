//! ggml's quantised blocks taken apart (ggml-common.h and ggml-quants.c, `block_q8_0` and its kin): quants, scales and mins by the
//! element they belong to. Knows the layout of single blocks; knows nothing of matrices.

use candle_core::quantized::GgmlDType;
use half::f16;

/// One block, taken apart.
pub struct Block {
    /// Elements.
    pub len: usize,
    /// Unsigned, zero at the kind's.
    pub quants: [u8; 256],
    /// Scale and min of the whole block.
    pub halves: [f16; 2],
    /// Integer factors of the scale.
    pub scales: [u8; 16],
    /// Integer factors of the min.
    pub mins: [u8; 8],
}

impl Block {
    /// Takes a block of a format that has an integer product apart; `bytes` has its size.
    pub fn read(format: GgmlDType, bytes: &[u8]) -> Self {
        let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut block =
            Self { len: format.block_size(), quants: [0; 256], halves: [f16::ZERO; 2], scales: [0; 16], mins: [0; 8] };
        match format {
            GgmlDType::Q8_0 => {
                block.halves[0] = half(0);
                block.quants.iter_mut().zip(&bytes[2..34]).for_each(|(quant, byte)| *quant = byte ^ 0x80);
            }
            GgmlDType::Q4_0 => {
                block.halves[0] = half(0);
                block.nibbles(&bytes[2..18], 0);
            }
            GgmlDType::Q4_1 => {
                block.halves = [half(0), -half(2)];
                block.nibbles(&bytes[4..20], 0);
            }
            GgmlDType::Q5_0 => {
                block.halves[0] = half(0);
                block.nibbles(&bytes[6..22], u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]));
            }
            GgmlDType::Q5_1 => {
                block.halves = [half(0), -half(2)];
                block.nibbles(&bytes[8..24], u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]));
            }
            GgmlDType::Q4K => {
                block.halves = [half(0), half(2)];
                block.six_bit_scales(&bytes[4..16]);
                block.long_nibbles(&bytes[16..144], &[0; 32]);
            }
            GgmlDType::Q5K => {
                block.halves = [half(0), half(2)];
                block.six_bit_scales(&bytes[4..16]);
                let (high, low) = bytes[16..176].split_at(32);
                block.long_nibbles(low, high);
            }
            // Q6K
            _ => {
                block.halves[0] = half(208);
                block.scales.copy_from_slice(&bytes[192..208]);
                for (index, quant) in block.quants.iter_mut().enumerate() {
                    let (part, within) = (index / 128, index % 128);
                    let low = bytes[64 * part + within % 64] >> (within / 64 * 4) & 15;
                    let high = bytes[128 + 32 * part + within % 32] >> (within / 32 * 2) & 3;
                    *quant = low | high << 4;
                }
            }
        }
        block
    }

    /// 32 quants: the first half in the low nibbles; bit i of `high` is the fifth of quant i.
    fn nibbles(&mut self, low: &[u8], high: u32) {
        for (index, quant) in self.quants[..32].iter_mut().enumerate() {
            *quant = ((low[index % 16] >> (index / 16 * 4)) & 15) | (((high >> index) & 1) as u8 * 16);
        }
    }

    /// 256 quants: groups two by two in the nibbles of 32 bytes; bit g of byte i of `high` is the fifth of quant i of group g.
    fn long_nibbles(&mut self, low: &[u8], high: &[u8]) {
        for (index, quant) in self.quants.iter_mut().enumerate() {
            let (group, within) = (index / 32, index % 32);
            let nibble = low[group / 2 * 32 + within] >> (group % 2 * 4) & 15;
            *quant = nibble | (high[within] >> group & 1) << 4;
        }
    }

    /// Eight scales and eight mins of six bits in twelve bytes.
    fn six_bit_scales(&mut self, bytes: &[u8]) {
        for group in 0..8 {
            (self.scales[group], self.mins[group]) = match group < 4 {
                true => (bytes[group] & 63, bytes[group + 4] & 63),
                false => (
                    (bytes[group + 4] & 15) | (bytes[group - 4] >> 6) << 4,
                    (bytes[group + 4] >> 4) | (bytes[group] >> 6) << 4,
                ),
            };
        }
    }
}

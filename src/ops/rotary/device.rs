//! Rotary embedding on a CUDA device: what kernels/rotary.cu is launched with, and how its work is dealt out, which changes no bit.
//! Knows sizes and counts; knows no angle.

use candle_core::{DType, Result, Tensor};

use super::super::Kernels;
use super::super::launch::Launch;
use super::super::norm::{Norm, NormKind};
use super::super::paged::{HeadGeometry, KvLayer};
use super::super::workspace::Workspace;
use super::{NormSpan, QueryGrowth, Rotary};

/// Warps of a block of the kernel.
const BLOCK_WARPS: usize = 8;

impl Rotary {
    /// The step's rows on a CUDA device; their keys and values go to `cache`, with its block size, if there is one.
    pub(super) fn launch(
        &self,
        kernels: &Kernels,
        workspace: &Workspace,
        rows: &Tensor,
        cache: Option<(&KvLayer, usize)>,
    ) -> Result<()> {
        let ((tokens, width), step) = (rows.dims2()?, workspace.step()?);
        let HeadGeometry { num_heads, num_kv_heads, head_dim } = self.geometry;
        fn weight(norm: &Option<Norm>) -> Result<Option<&Tensor>> {
            norm.as_ref().map(Norm::device_weight).transpose()
        }
        let (kind, eps) = [&self.norms.queries, &self.norms.keys, &self.norms.values]
            .into_iter()
            .find_map(|norm| norm.as_ref().map(Norm::kind_and_eps))
            .unwrap_or((NormKind::RootMeanSquare, 0.0));
        let growth = self.growth.unwrap_or(QueryGrowth { beta: 0.0, original: 1.0 });
        let in_fp8 = cache.is_some_and(|(cache, _)| cache.keys.dtype() == DType::F8E4M3);
        let suffix = if in_fp8 { "_fp8" } else { "" };
        let kv_heads = if width == self.geometry.q_width() { 0 } else { num_kv_heads };
        let lanes = lanes_of_head(head_dim, self.table.num_pairs())?;
        let stored = cache.map(|(cache, _)| cache.keys.dtype().size_in_bytes());
        let has_values = stored.is_some() || self.norms.values.is_some();
        let at_once = if has_values { values_at_once(tokens, kv_heads, head_dim * stored.unwrap_or(1)) } else { 0 };
        let value_blocks = if at_once > 0 { tokens.div_ceil(at_once) * kv_heads } else { 0 };
        let parts = match self.norms.span {
            NormSpan::Token => BLOCK_WARPS,
            NormSpan::Head | NormSpan::OwnHead => warps_of_token(tokens, (num_heads + kv_heads).div_ceil(32 / lanes)),
        };
        Launch::named(kernels, format!("pairwright_rotary_{}{suffix}", rows.dtype().as_str()))
            .over(value_blocks + (tokens * parts).div_ceil(BLOCK_WARPS), 32 * BLOCK_WARPS)
            .shared(at_once * stored.map_or(0, |bytes| shared_row(head_dim * bytes)))
            .tensor(rows)
            .int(width)
            .tensor(&step.positions)
            .optional(cache.map(|_| &step.slots))
            .optional(cache.map(|(cache, _)| &cache.keys))
            .optional(cache.map(|(cache, _)| &cache.values))
            .optional(self.table.on_device.as_ref())
            .optional(weight(&self.norms.queries)?)
            .optional(weight(&self.norms.keys)?)
            .optional(weight(&self.norms.values)?)
            .int(num_heads)
            .int(kv_heads)
            .int(head_dim)
            .int(self.table.num_pairs())
            .int(cache.map_or(0, |(_, block_size)| block_size))
            .int(self.norms.span as usize)
            .int(usize::from(self.norms.after_rotation))
            .int(usize::from(kind == NormKind::Layer))
            .float(eps)
            .float(growth.beta as f32)
            .float(growth.original as f32)
            .int(tokens)
            .int(lanes)
            .int(parts)
            .int(at_once)
            .run()
    }
}

/// Lanes that hold a head on a CUDA device, 8 pairs each or 16 of the numbers behind them: a power of 2.
fn lanes_of_head(head_dim: usize, num_pairs: usize) -> Result<usize> {
    let rest = head_dim.saturating_sub(2 * num_pairs);
    let lanes = (num_pairs.div_ceil(8) + rest.div_ceil(16)).next_power_of_two();
    if lanes > 32 {
        candle_core::bail!("rotary: heads of {head_dim} are more than a warp holds")
    }
    Ok(lanes)
}

/// Warps for a token's queries and keys, which are dealt out in so many rounds: few warps are to go on from round to round, but only where
/// there are enough to fill a device.
fn warps_of_token(tokens: usize, rounds: usize) -> usize {
    const ENOUGH: usize = 4096;
    rounds.div_ceil((tokens * rounds / ENOUGH).clamp(1, 5)).max(1)
}

/// Bytes of shared memory for a token's values.
fn shared_row(bytes: usize) -> usize {
    bytes.next_multiple_of(128)
}

/// Tokens of whose values of one head, of so many bytes, a block makes whole pieces of the cache: the more the better, but only where there
/// are blocks enough to fill a device. None where there are no values.
fn values_at_once(tokens: usize, kv_heads: usize, bytes: usize) -> usize {
    const ENOUGH: usize = 512;
    let (mut at_once, least) = (if kv_heads > 0 { 64 } else { 0 }, 8);
    while at_once > least && (at_once * shared_row(bytes) > 32 << 10 || tokens.div_ceil(at_once) * kv_heads < ENOUGH) {
        at_once /= 2;
    }
    at_once
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_batch_goes_to_few_warps_and_a_small_one_to_many() {
        assert_eq!(lanes_of_head(128, 64).unwrap(), 8);
        assert_eq!(lanes_of_head(512, 256).unwrap(), 32);
        assert_eq!(lanes_of_head(80, 20).unwrap(), 8);
        assert!(lanes_of_head(528, 264).is_err());
        assert_eq!([256, 2048, 16_384].map(|tokens| warps_of_token(tokens, 10)), [10, 2, 2]);
        assert_eq!([256, 2048, 16_384].map(|tokens| values_at_once(tokens, 8, 256)), [8, 32, 64]);
        assert_eq!([512, 1024, 2048].map(|bytes| values_at_once(1 << 16, 8, bytes)), [64, 32, 16]);
        assert_eq!(values_at_once(100, 0, 256), 0);
    }
}

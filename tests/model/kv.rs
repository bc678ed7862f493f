//! What a cache that rounds, and activations rounded to 8 bits, do to logits and to the tokens that Transformers chooses.

use candle_core::quantized::GgmlDType;
use pairwright::ops::paged::KvFormat;
use pairwright::ops::{BlockInputs, Compute};

use super::logits;
use super::quantize::{FORMATS, agreement, error, load, quantising, references, wide_model};

/// Greedy tokens as in `quantize::q8_0_chooses_the_tokens_of_f32`: the models are random, their best and second-best token often equally good.
/// Bounds in per cent, of all tokens and of those that f32 prefers by 0.05: one and a half times the loss that was measured.
#[test]
fn tokens_of_transformers_by_format() {
    let rounding = |compute: Compute| Compute { block_inputs: BlockInputs::Int8, ..compute };
    let cached = |kv_format| Compute { kv_format, ..Compute::cpu() };
    let q8_0 = quantising(GgmlDType::Q8_0);
    let cases = [
        (cached(KvFormat::F16), BOUNDS[0]),
        (cached(KvFormat::Bf16), BOUNDS[1]),
        (cached(KvFormat::Int8), BOUNDS[2]),
        (q8_0.clone(), BOUNDS[3]),
        (rounding(q8_0.clone()), BOUNDS[4]),
        (rounding(Compute { kv_format: KvFormat::Int8, ..q8_0 }), BOUNDS[5]),
    ];
    for (compute, (of_all, of_clear)) in cases {
        let (mut all, mut clear) = ((0, 0), (0, 0));
        for (dir, expected) in references() {
            let [some, some_clear] = agreement(&load(&dir, &compute), &expected, 0.05);
            all = (all.0 + some.0, all.1 + some.1);
            clear = (clear.0 + some_clear.0, clear.1 + some_clear.1);
        }
        let share = |(same, total): (usize, usize)| 100.0 * same as f64 / total as f64;
        let formats = compute.formats(false);
        println!("{formats}: {all:?} ({:.1} %) of all, {clear:?} ({:.1} %) of clear tokens", share(all), share(clear));
        assert!(share(all) >= of_all && share(clear) >= of_clear, "{formats}: {all:?}, {clear:?}");
    }
}

/// See [`tokens_of_transformers_by_format`].
const BOUNDS: [(f64, f64); 6] = [(99.8, 99.9), (98.1, 99.8), (97.2, 99.0), (92.5, 95.8), (86.2, 91.7), (86.2, 90.5)];

/// Relative error of logits on a random model 256 wide: with rounded activations beside the same weights with exact ones, and beside f32; and of
/// the cache's formats beside f32. Bounds are about 1.5 times what was measured.
#[test]
fn logits_by_format() {
    let dir = wide_model().write();
    let exact = logits(&load(dir.path(), &Compute::cpu()));
    for (format, (bound, of_f32)) in FORMATS.into_iter().zip(LOGITS) {
        let blocks = logits(&load(dir.path(), &quantising(format)));
        let rounding = Compute { block_inputs: BlockInputs::Int8, ..quantising(format) };
        let got = logits(&load(dir.path(), &rounding));
        let (beside_blocks, beside_f32) = (error(&got, &blocks), error(&got, &exact));
        println!(
            "{}: {beside_blocks:.4} beside exact activations, {beside_f32:.4} beside f32",
            rounding.formats(false)
        );
        assert!(0.0 < beside_blocks && beside_blocks < bound && beside_f32 < of_f32, "{format:?}");
    }
    for (kv_format, bound) in [KvFormat::F16, KvFormat::Bf16, KvFormat::Int8].into_iter().zip(CACHED) {
        let compute = Compute { kv_format, ..Compute::cpu() };
        let error = error(&logits(&load(dir.path(), &compute)), &exact);
        println!("{}: {error:.5} beside f32", compute.formats(false));
        assert!(0.0 < error && error < bound, "{kv_format:?}: {error}");
    }
}

/// Beside exact activations, and beside f32 weights, by format.
const LOGITS: [(f64, f64); 5] = [(0.024, 0.031), (0.025, 0.077), (0.025, 0.145), (0.026, 0.27), (0.025, 0.33)];
/// By format of the cache.
const CACHED: [f64; 3] = [0.0005, 0.0038, 0.0155];

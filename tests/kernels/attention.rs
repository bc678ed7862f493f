//! Attention: decoding and prefill against the CPU's operation in f32, and against each other by bits: decoded or computed in a prefill,
//! cut anywhere, beside anyone, in blocks of any size; prefill by warpgroups against itself.

#[path = "attention/scene.rs"]
mod scene;

use half::{bf16, f16};

use super::numbers::Format;
use scene::{Cached, Part, Scene};

/// Bits, as f32 has them; all numbers are.
fn bits<T: Format>(values: &[T]) -> Vec<u32> {
    assert!(values.iter().all(|value| value.wide().is_finite()));
    values.iter().map(|value| value.wide().to_bits()).collect()
}

fn every_head_size_holds<T: Format + Cached>() {
    for head_dim in [16, 32, 64, 80, 96, 128, 192, 256] {
        Scene::<T>::new::<T>(1, [4, 2], head_dim, &[37, 1]).holds::<T>(32, &format!("D {head_dim}"));
        Scene::<T>::new::<u8>(2, [2, 1], head_dim, &[34]).holds::<u8>(64, &format!("D {head_dim}"));
    }
}

#[test]
fn every_head_size_holds_in_f32() {
    every_head_size_holds::<f32>();
}

#[test]
fn every_head_size_holds_in_f16() {
    every_head_size_holds::<f16>();
}

#[test]
fn every_head_size_holds_in_bf16() {
    every_head_size_holds::<bf16>();
}

#[test]
fn every_group_holds() {
    for group in [1, 2, 4, 7, 8, 12, 24] {
        Scene::<bf16>::new::<bf16>(3, [2 * group, 2], 16, &[45, 33, 3]).holds::<bf16>(32, &format!("G {group}"));
        Scene::<f32>::new::<f32>(4, [group, 1], 32, &[66]).holds::<f32>(64, &format!("G {group}"));
    }
}

#[test]
fn windows_caps_and_sinks_hold() {
    for (window, soft_cap, sinks) in
        [(1, 0.0, false), (5, 0.0, true), (40, 3.0, false), (70, 20.0, true), (0, 0.5, false), (0, 0.0, true)]
    {
        let what = format!("window {window}, cap {soft_cap}, sinks {sinks}");
        let lens = [150, 64, 65];
        let sinks = sinks.then(|| vec![0.5, -3.0, 9.0, 1.0]);
        let scene = Scene { window, soft_cap, sinks, ..Scene::<f32>::new::<f32>(5, [4, 2], 16, &lens) };
        scene.holds::<f32>(32, &what);
        let Scene { window, soft_cap, sinks, .. } = scene;
        Scene { window, soft_cap, sinks, ..Scene::<f16>::new::<u8>(6, [4, 2], 32, &lens) }.holds::<u8>(128, &what);
    }
}

#[test]
fn long_contexts_hold() {
    let mut scene = Scene::<f32>::new::<f32>(7, [2, 1], 16, &[1030, 513, 512]);
    scene.holds::<f32>(256, "long");
    scene.window = 520;
    scene.holds::<f32>(64, "long with a window");
}

#[test]
fn warpgroups_hold_over_many_tiles() {
    for (window, soft_cap, sinks, block_size) in
        [(0, 0.0, false, 32), (1, 0.0, true, 64), (130, 0.0, false, 256), (40, 3.0, true, 32)]
    {
        let sinks = sinks.then(|| vec![0.5, -3.0, 9.0]);
        let scene = Scene { window, soft_cap, sinks, ..Scene::<bf16>::new::<bf16>(9, [3, 1], 64, &[391, 128, 129]) };
        scene.holds::<bf16>(block_size, &format!("window {window}, cap {soft_cap}"));
    }
    Scene::<f16>::new::<f16>(10, [8, 1], 128, &[270]).holds::<f16>(32, "D 128");
    Scene::<f16>::new::<f16>(11, [1, 1], 256, &[200]).holds::<f16>(64, "D 256");
}

/// Tokens' bits are the same in one prefill, and in prefills cut anywhere in the company of others, down to a token by itself.
#[test]
fn a_token_has_the_same_bits_in_any_prefill_by_warpgroups() {
    let lens = [431, 70, 300];
    for (window, sinks) in [(0, None), (150, Some(vec![0.0, 3.0, 7.0]))] {
        let scene = Scene { window, sinks, ..Scene::<bf16>::new::<bf16>(12, [3, 1], 64, &lens) };
        let width = scene.geometry.q_width();
        let (large, small) = (scene.cache::<bf16>(1, 256), scene.cache::<bf16>(2, 32));
        let whole = bits(&scene.group_prefill(&large, &scene.whole()));
        for (step, cut) in [0, 1, 2, 33, 127, 129, 256, 300, 430, 431].windows(2).enumerate() {
            let others: [Part; 2] = [(1, step..2 * step + 3), (2, 20 * step..20 * step + 9)];
            let parts = [others[0].clone(), (0, cut[0]..cut[1]), others[1].clone()];
            let chunk = bits(&scene.group_prefill(if step % 2 == 0 { &small } else { &large }, &parts));
            let first = |sequence: usize| lens[..sequence].iter().sum::<usize>();
            let want = parts.iter().flat_map(|(sequence, range)| {
                &whole[(first(*sequence) + range.start) * width..(first(*sequence) + range.end) * width]
            });
            assert!(chunk.iter().eq(want), "{cut:?}, window {window}");
        }
    }
}

/// Tokens' bits are the same decoded, in one prefill, and in prefills cut anywhere in the company of others.
fn a_token_has_the_same_bits<T: Format, K: Cached>(window: usize, soft_cap: f32, sinks: Option<Vec<f32>>) {
    let lens = [1063, 70, 545];
    let scene = Scene { window, soft_cap, sinks, ..Scene::<T>::new::<K>(8, [3, 1], 16, &lens) };
    let width = scene.geometry.q_width();
    let large = scene.cache::<K>(1, 256);
    let parts = scene.whole();
    let whole = bits(&scene.prefill(&large, &parts, 2));
    let row = |[sequence, position]: [usize; 2]| {
        let first = lens[..sequence].iter().sum::<usize>() + position;
        &whole[first * width..][..width]
    };
    let positions = [0, 1, 30, 31, 32, 63, 64, 500, 511, 512, 513, 519, 544, 700, 1023, 1024, 1025, 1062];
    let tokens: Vec<[usize; 2]> = (0..3)
        .flat_map(|sequence| positions.map(|position| [sequence, position]))
        .filter(|&[sequence, position]| position < lens[sequence])
        .collect();
    let small = scene.cache::<K>(2, 32);
    let together = bits(&scene.decode(&small, &tokens, 3, false));
    let listed = bits(&scene.decode(&small, &tokens, 1, true));
    assert_eq!(together, listed, "splits without a key change nothing");
    for (index, &token) in tokens.iter().enumerate() {
        assert_eq!(together[index * width..][..width], *row(token), "decoded: {token:?}");
    }
    for &token in tokens.iter().rev().step_by(5) {
        assert_eq!(bits(&scene.decode(&large, &[token], 4, false)), row(token), "decoded alone: {token:?}");
    }
    for (stages, cuts) in [(1, [0, 1, 33, 530, 1063]), (3, [0, 500, 520, 1040, 1063])] {
        for (step, cut) in cuts.windows(2).enumerate() {
            let others: [Part; 2] = [(1, step..2 * step + 3), (2, 100 * step..100 * step + 9)];
            let parts = [others[0].clone(), (0, cut[0]..cut[1]), others[1].clone()];
            let chunk = bits(&scene.prefill(if step % 2 == 0 { &small } else { &large }, &parts, stages));
            let want = parts.iter().flat_map(|(sequence, range)| range.clone().flat_map(|at| row([*sequence, at])));
            assert!(chunk.iter().eq(want), "{cut:?} with {stages} stages");
        }
    }
}

#[test]
fn a_token_has_the_same_bits_in_bf16() {
    a_token_has_the_same_bits::<bf16, bf16>(0, 0.0, None);
}

#[test]
fn a_token_has_the_same_bits_in_f16_with_a_cap_and_sinks() {
    a_token_has_the_same_bits::<f16, f16>(0, 2.0, Some(vec![1.0, 4.0, -2.0]));
}

#[test]
fn a_token_has_the_same_bits_in_f32_with_a_narrow_window() {
    a_token_has_the_same_bits::<f32, f32>(20, 0.0, None);
}

#[test]
fn a_token_has_the_same_bits_of_fp8_with_a_wide_window() {
    a_token_has_the_same_bits::<bf16, u8>(530, 0.0, Some(vec![0.0, 3.0, 7.0]));
}

//! Numbers on their way to the device, as weights take it: that all of them arrive, and how fast. Knows bytes.

use std::time::Instant;

use candle_core::{DType, Tensor};

use super::Check;
use crate::ops::{Compute, Loading, on_device};

/// Lengths of tensors: less and more than what is sent at once, and more than is on its way at a time.
const LENGTHS: [usize; 5] = [1000, 1 << 20, (8 << 20) + 3, 40 << 20, (1 << 20) + 1];
/// Bytes that are timed, and how often.
const TIMED_BYTES: usize = 256 << 20;
const TIMES: usize = 4;

/// Sends tensors one behind the other and fetches them again; unless `quick`, the way there is timed.
pub fn check(compute: &Compute, quick: bool, told: &mut dyn FnMut(Check)) {
    let name = "numbers on their way to the device";
    told(match compute.kernels {
        None => Check::skipped(name, "memory is the system's here"),
        Some(_) => Check::from_result(name, sent(name, compute, quick)),
    });
}

fn sent(name: &str, compute: &Compute, quick: bool) -> candle_core::Result<Check> {
    let mut loading = Loading::default();
    let mut send = |bytes: &[u8]| on_device(compute, &mut loading, bytes, DType::U8, &[bytes.len()]);
    // The top of Weyl's sequence: no piece is like another.
    let number = |i| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
    let numbers = LENGTHS.map(|len| (0..len).map(number).collect::<Vec<_>>());
    let tensors = numbers.iter().map(|numbers| send(numbers)).collect::<candle_core::Result<Vec<_>>>()?;
    let fetched = tensors.iter().map(Tensor::to_vec1::<u8>).collect::<candle_core::Result<Vec<_>>>()?;
    let same = fetched == numbers;
    let mut detail = if same { "all arrive" } else { "others arrive than were sent" }.to_owned();
    if same && !quick {
        let bytes = vec![1u8; TIMED_BYTES];
        let best = (0..TIMES).try_fold(f64::MAX, |best, _| -> candle_core::Result<f64> {
            let started = Instant::now();
            let _arrived = send(&bytes)?;
            compute.device.synchronize()?;
            Ok(best.min(started.elapsed().as_secs_f64()))
        })?;
        detail += &format!(", {:.1} GB/s", TIMED_BYTES as f64 / best / 1e9);
    }
    Ok(Check::judged(name, same, detail))
}

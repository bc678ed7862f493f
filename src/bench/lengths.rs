//! Output lengths of a ragged job: many short, few long, with exactly the total of the uniform job beside it.
//! Knows numbers only; the same for every run and machine.

/// `count` lengths from about an eighth of `mean` to four times it whose sum is `count * mean`, in a scattered order.
///
/// Length at rank u of [0, 1] is `least + (most - least) u^k`, with k such that the mean comes out (3.4 for 16 … 512 around
/// 128, whose median is then 62). Each rank has its share of the integral, rounded at both ends, so that the sum is exact.
pub fn ragged(count: usize, mean: usize) -> Vec<usize> {
    let (least, most) = ((mean / 8).max(1), 4 * mean);
    if count < 2 || least >= mean {
        return vec![mean; count];
    }
    let span = (most - least) as f64;
    let power = span / (mean - least) as f64; // k + 1
    let up_to = |rank: usize| {
        let u = rank as f64 / count as f64;
        (count as f64 * (least as f64 * u + span * u.powf(power) / power)).round() as usize
    };
    let stride = scatter(count);
    (0..count).map(|index| index * stride % count).map(|rank| up_to(rank + 1) - up_to(rank)).collect()
}

/// A stride without a common divisor with `count`, near the golden section of it.
fn scatter(count: usize) -> usize {
    fn divisor(a: usize, b: usize) -> usize {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    (count * 618 / 1000..).find(|&stride| divisor(stride, count) == 1).unwrap_or(1)
}

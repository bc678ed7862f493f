//! Shares with what is uncertain about them: a count of a total, and its 95 % interval.
//! Knows counts alone; knows nothing of what was counted, nor whether the counted were drawn at random.

use serde::Serialize;

/// The normal distribution's quantile at 97.5 %: 95 % lie between it and its negative.
const Z: f64 = 1.959_963_984_540_054;

/// A share of a whole that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// How many have it.
    pub count: u64,
    /// Of how many, at least 1.
    pub total: u64,
    /// `count / total`, 0..=1.
    pub share: f64,
    /// Lower end of the 95 % interval, 0..=`share`.
    pub low: f64,
    /// Upper end of the 95 % interval, `share`..=1.
    pub high: f64,
}

impl Share {
    /// The share with Wilson's score interval (E. B. Wilson, 1927), which stays within 0..=1 and also says something where
    /// none or all have it. `None` for an empty whole; a count above the total counts as all.
    pub fn of(count: u64, total: u64) -> Option<Self> {
        if total == 0 {
            return None;
        }
        let (count, n) = (count.min(total), total as f64);
        let share = count as f64 / n;
        let middle = share + Z * Z / (2.0 * n);
        let reach = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let whole = 1.0 + Z * Z / n;
        // Rounding must not move an end past the share itself, where it lies on 0 or 1.
        let (low, high) = (((middle - reach) / whole).clamp(0.0, share), ((middle + reach) / whole).clamp(share, 1.0));
        Some(Self { count, total, share, low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_literature() {
        // R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        for (count, total, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let share = Share::of(count, total).expect("a share");
            assert!((share.low - low).abs() < 5e-5 && (share.high - high).abs() < 5e-5, "{share:?}");
        }
    }

    #[test]
    fn an_interval_holds_its_share_and_needs_a_whole() {
        assert_eq!(Share::of(0, 0), None);
        for total in 1..60 {
            for count in 0..=total {
                let share = Share::of(count, total).expect("a share");
                assert!(0.0 <= share.low && share.low <= share.share && share.share <= share.high && share.high <= 1.0);
                let mirrored = Share::of(total - count, total).expect("a share");
                assert!((share.low + mirrored.high - 1.0).abs() < 1e-12, "{share:?} {mirrored:?}");
            }
        }
    }
}

//! Shares as people are told them: the count, of how many, and the 95 % interval.
//! Knows counts alone; the interval is computed in [`super::agreement`], and whether the counted were drawn at random nobody here knows.

use serde::Serialize;

use super::agreement::Estimate;

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
    /// `None` for an empty whole; a count above the total counts as all.
    pub fn of(count: u64, total: u64) -> Option<Self> {
        Estimate::share(count, total).map(Self::from)
    }
}

impl From<Estimate> for Share {
    /// The count of a share that was counted: exact, since the share is the nearest number to it.
    fn from(estimate: Estimate) -> Self {
        let Estimate { value: share, low, high, n: total } = estimate;
        let count = (share * total as f64).round() as u64;
        // Rounding must not move an end past the share itself, where it lies on 0 or 1.
        Self { count, total, share, low: low.min(share), high: high.max(share) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_its_share_and_needs_a_whole() {
        assert_eq!(Share::of(0, 0), None);
        for total in 1..60 {
            for count in 0..=total {
                let share = Share::of(count, total).expect("a share");
                assert_eq!((share.count, share.total), (count, total));
                assert!(0.0 <= share.low && share.low <= share.share && share.share <= share.high && share.high <= 1.0);
            }
        }
    }
}

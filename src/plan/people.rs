//! What can be told from so many pairs and votes, and how long people need for them. Knows counts and probabilities; knows no dataset.

use serde::Serialize;

/// Standard normal quantiles: two-sided 5 %, and a power of 80 %.
const Z_ALPHA: f64 = 1.959_963_984_540_054;
const Z_BETA: f64 = 0.841_621_233_572_914;
/// Share of agreement between judge and people that is planned with, and share of items on which two judges differ. Assumptions.
const AGREEMENT: f64 = 0.7;
const DISCORDANT: f64 = 0.3;
/// Sizes that are shown beside the plan's own.
const SIZES: [u64; 5] = [100, 250, 500, 1000, 2000];

/// Where the formulas are from.
pub const SOURCE: &str = "normal approximation, two-sided 5 %, power 80 %: Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions \
                          (3rd edition, 2003), chapters 2 (one rate) and 13 (paired rates)";

/// What can be seen with n items.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Power {
    /// Items.
    pub n: u64,
    /// Half the 95 % interval of a win rate of one half, 0..=1.
    pub win_rate_half_width: f64,
    /// Smallest distance of a win rate from one half that is found with a power of 80 %, 0..=1; `None`: no distance is.
    pub win_rate_difference: Option<f64>,
    /// Half the 95 % interval of an agreement of 70 %, 0..=1.
    pub agreement_half_width: f64,
    /// Smallest difference between two judges' agreement with the same votes that is found with a power of 80 %, where they differ on 30 % of
    /// the items, 0..=1; `None`: no difference is.
    pub judges_difference: Option<f64>,
}

impl Power {
    /// At n items.
    pub fn at(n: u64) -> Self {
        let root = (n.max(1) as f64).sqrt();
        Self {
            n,
            win_rate_half_width: (Z_ALPHA * 0.5 / root).min(1.0),
            win_rate_difference: smallest(
                |distance| {
                    // Under the other hypothesis the rate is 1/2 + distance.
                    let other = ((0.5 + distance) * (0.5 - distance)).max(0.0).sqrt();
                    distance * root >= Z_ALPHA * 0.5 + Z_BETA * other
                },
                0.5,
            ),
            agreement_half_width: (Z_ALPHA * (AGREEMENT * (1.0 - AGREEMENT)).sqrt() / root).min(1.0),
            judges_difference: smallest(
                |difference| {
                    let other = (DISCORDANT - difference * difference).max(0.0).sqrt();
                    difference * root >= Z_ALPHA * DISCORDANT.sqrt() + Z_BETA * other
                },
                DISCORDANT,
            ),
        }
    }

    /// At the sizes of the table and at `own`.
    pub fn table(own: u64) -> Vec<Self> {
        let mut sizes: Vec<u64> = SIZES.into_iter().filter(|size| *size < own).chain([own]).collect();
        sizes.dedup();
        sizes.into_iter().map(Self::at).collect()
    }
}

/// The smallest number up to `most` for which `holds`, which holds from there on; in steps of a ten-thousandth.
fn smallest(holds: impl Fn(f64) -> bool, most: f64) -> Option<f64> {
    (1..=10_000).map(|step| most * f64::from(step) / 10_000.0).find(|value| holds(*value))
}

/// What people would have to do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Effort {
    /// Prompts whose answers people compare.
    pub num_items: u64,
    /// Votes per item.
    pub overlap: u32,
    /// Seconds of a vote.
    pub seconds_per_vote: f64,
    /// Votes in all.
    pub num_votes: u64,
    /// Hours of people in all.
    pub person_hours: f64,
}

impl Effort {
    /// For so many items.
    pub fn of(num_items: u64, overlap: u32, seconds_per_vote: f64) -> Self {
        let num_votes = num_items * u64::from(overlap);
        Self {
            num_items,
            overlap,
            seconds_per_vote,
            num_votes,
            person_hours: num_votes as f64 * seconds_per_vote / 3600.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_and_differences_are_those_of_the_books() {
        // A win rate of one half: n = 250 ± 6.2 points, 500 ± 4.4, 1,000 ± 3.1.
        for (n, points) in [(250, 6.2), (500, 4.4), (1000, 3.1)] {
            assert!((100.0 * Power::at(n).win_rate_half_width - points).abs() < 0.05, "{n}");
        }
        // 0.6 against 0.5 takes 194 items (the textbook's formula without correction).
        let found = |n| Power::at(n).win_rate_difference.unwrap();
        assert!(found(194) <= 0.1 && found(193) > 0.0999, "{} {}", found(194), found(193));
        assert!((Power::at(500).agreement_half_width - 0.0402).abs() < 1e-4);
        assert_eq!(Power::at(1).win_rate_difference, None);
        // McNemar, discordant 0.3, difference 0.1: (1.96 * 0.5477 + 0.8416 * 0.5385)² / 0.01 = 233.1.
        let judges = |n| Power::at(n).judges_difference.unwrap();
        assert!(judges(234) <= 0.1 && judges(230) > 0.1, "{}", judges(234));
        assert_eq!(Power::table(250).iter().map(|power| power.n).collect::<Vec<_>>(), [100, 250]);
    }

    #[test]
    fn hours_are_votes_times_seconds() {
        let effort = Effort::of(500, 3, 40.0);
        assert_eq!((effort.num_votes, effort.person_hours), (1500, 1500.0 * 40.0 / 3600.0));
    }
}

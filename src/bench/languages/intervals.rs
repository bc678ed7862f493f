//! How sure a figure is, and whether two models differ: bootstrap by prompt, a paired randomisation test, Holm's correction, and the win rate
//! at equal length. Pure functions of numbers with a fixed seed; knows no text and no model.

use crate::judge::agreement::Estimate;

/// Resamples of a bootstrap interval: its ends then lie within some tenth of a standard error (B. Efron, R. J. Tibshirani 1993, chapter 13).
const NUM_RESAMPLES: usize = 1_000;
/// Sign patterns of a randomisation test: the least p value that it can give is 1 in 10,001.
const NUM_PATTERNS: usize = 10_000;
/// Start of all random numbers here: the same rows give the same interval, and two models' intervals come from the same resamples.
const SEED: u64 = 0x5EED_0F9A_1234_5678;
/// Prior precision of the coefficient of length in [`length_controlled`], as of a normal prior with variance 1, and of the intercept, which
/// keeps it finite when one side wins always.
const RIDGE: [f64; 2] = [0.01, 1.0];
/// Steps of Newton's method; it converges in fewer than ten.
const NEWTON_STEPS: usize = 25;

/// SplitMix64 (G. Steele, D. Lea, C. Flood 2014): one addition and one mix per number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is far below 2⁶⁴, so that no number is favoured measurably.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

/// A statistic of rows with its 95 % percentile interval over resamples of the rows; `None` of no row, or where the statistic is none. It is
/// handed the numbers of the rows that count, with repetition.
pub fn bootstrap(num_rows: usize, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Estimate> {
    let mut picked: Vec<usize> = (0..num_rows).collect();
    let value = statistic(&picked).filter(|value| value.is_finite() && num_rows > 0)?;
    let mut random = Random(SEED);
    let mut values = Vec::with_capacity(NUM_RESAMPLES);
    for _ in 0..NUM_RESAMPLES {
        picked.iter_mut().for_each(|row| *row = random.below(num_rows));
        values.extend(statistic(&picked).filter(|value| value.is_finite()));
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (values.len().max(1) - 1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        let [below, above] = [low, high].map(|place| values.get(place).copied().unwrap_or(value));
        below + (above - below) * place.fract()
    };
    Some(Estimate { value, low: at(0.025).min(value), high: at(0.975).max(value), n: num_rows as u64 })
}

/// The mean of values.
pub fn mean(values: &[f64]) -> Option<Estimate> {
    bootstrap(values.len(), |rows| Some(rows.iter().map(|&row| values[row]).sum::<f64>() / rows.len() as f64))
}

/// The median of values, the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<Estimate> {
    bootstrap(values.len(), |rows| {
        let mut picked: Vec<f64> = rows.iter().map(|&row| values[row]).collect();
        picked.sort_by(f64::total_cmp);
        let middle = picked.len() / 2;
        match picked.len() % 2 {
            1 => picked.get(middle).copied(),
            _ => Some((picked.get(middle.checked_sub(1)?)? + picked.get(middle)?) / 2.0),
        }
    })
}

/// The sum of the first by the sum of the second, of rows with both.
pub fn ratio(rows: &[(f64, f64)]) -> Option<Estimate> {
    bootstrap(rows.len(), |picked| {
        let (top, bottom) = picked.iter().fold((0.0, 0.0), |(a, b), &row| (a + rows[row].0, b + rows[row].1));
        (bottom > 0.0).then(|| top / bottom)
    })
}

/// Two models on the same prompts: the mean of their differences with its bootstrap interval, and the two-sided p value of the paired
/// randomisation test, in which each difference has either sign with equal probability (R. A. Fisher 1935; E. W. Noreen 1989, chapter 2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedTest {
    /// First minus second.
    pub difference: Estimate,
    /// Share of sign patterns, the one seen among them, that are as far from 0 as it.
    pub p: f64,
}

/// The test of these differences; `None` of fewer than two.
pub fn paired(differences: &[f64]) -> Option<PairedTest> {
    if differences.len() < 2 {
        return None;
    }
    let difference = mean(differences)?;
    let seen = differences.iter().sum::<f64>().abs();
    // Sums of the same numbers in another order of signs may differ in their last bits.
    let slack = 1e-9 * differences.iter().map(|value| value.abs()).sum::<f64>();
    let mut random = Random(SEED);
    let mut as_far = 1;
    for _ in 0..NUM_PATTERNS {
        let (mut bits, mut sum) = (0, 0.0);
        for (at, value) in differences.iter().enumerate() {
            if at % 64 == 0 {
                bits = random.next();
            }
            sum += if bits & 1 == 0 { *value } else { -value };
            bits >>= 1;
        }
        as_far += usize::from(sum.abs() >= seen - slack);
    }
    Some(PairedTest { difference, p: as_far as f64 / (NUM_PATTERNS + 1) as f64 })
}

/// p values corrected for their number, in the order given: rejecting those below a level keeps the probability of any false rejection
/// below it (S. Holm 1979, "A simple sequentially rejective multiple test procedure").
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut corrected = vec![0.0; p_values.len()];
    let mut least: f64 = 0.0;
    for (rank, &at) in order.iter().enumerate() {
        least = least.max(p_values[at] * (p_values.len() - rank) as f64).min(1.0);
        corrected[at] = least;
    }
    corrected
}

/// The win rate that would be left if both answers were equally long: a logistic regression of outcomes (1 won, ½ tie, 0 lost) on
/// tanh of the length difference over its standard deviation, read at 0 (Y. Dubois et al. 2024, arXiv 2404.04475, without its terms for
/// models and instructions). Rows are outcome and difference in characters.
pub fn length_controlled(rows: &[(f64, f64)]) -> Option<Estimate> {
    let deviation = (rows.iter().map(|row| row.1 * row.1).sum::<f64>() / rows.len().max(1) as f64).sqrt();
    let rows: Vec<(f64, f64)> = rows.iter().map(|(won, apart)| (*won, (apart / deviation.max(1e-9)).tanh())).collect();
    bootstrap(rows.len(), |picked| {
        let (mut intercept, mut slope) = (0.0, 0.0);
        for _ in 0..NEWTON_STEPS {
            let mut gradient = [-RIDGE[0] * intercept, -RIDGE[1] * slope];
            let [mut a, mut b, mut c] = [RIDGE[0], 0.0, RIDGE[1]];
            for &row in picked {
                let (won, x) = rows[row];
                let p = logistic(intercept + slope * x);
                gradient[0] += won - p;
                gradient[1] += (won - p) * x;
                let weight = p * (1.0 - p);
                a += weight;
                b += weight * x;
                c += weight * x * x;
            }
            let determinant = a * c - b * b;
            let step =
                [(c * gradient[0] - b * gradient[1]) / determinant, (a * gradient[1] - b * gradient[0]) / determinant];
            intercept += step[0].clamp(-2.0, 2.0);
            slope += step[1].clamp(-2.0, 2.0);
            if step.iter().all(|step| step.abs() < 1e-10) {
                break;
            }
        }
        Some(logistic(intercept))
    })
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_covers_what_the_rows_were_drawn_from() {
        // Of 200 samples of 60 rows from a coin with 0.3, about 190 intervals hold 0.3.
        let mut random = Random(7);
        let covered = (0..200).filter(|_| {
            let rows: Vec<f64> = (0..60).map(|_| f64::from(u8::from(random.below(10) < 3))).collect();
            mean(&rows).is_some_and(|estimate| estimate.low <= 0.3 && 0.3 <= estimate.high)
        });
        assert!((180..=198).contains(&covered.count()));
    }

    #[test]
    fn statistics_are_those_of_the_rows() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).map(|e| e.value), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).map(|e| e.value), Some(2.5));
        assert_eq!(ratio(&[(1.0, 2.0), (3.0, 2.0)]).map(|e| (e.value, e.n)), Some((1.0, 2)));
        assert_eq!((mean(&[]), ratio(&[(1.0, 0.0)])), (None, None));
        let one = mean(&[5.0]).expect("an estimate");
        assert_eq!((one.low, one.value, one.high), (5.0, 5.0, 5.0));
    }

    #[test]
    fn the_test_finds_a_difference_and_none_where_there_is_none() {
        let apart: Vec<f64> = (0..40).map(|row| 0.5 + f64::from(row % 3) / 10.0).collect();
        assert!(paired(&apart).is_some_and(|test| test.p < 0.001 && test.difference.low > 0.5));
        let equal: Vec<f64> = (0..40).map(|row| if row % 2 == 0 { 0.5 } else { -0.5 }).collect();
        assert!(paired(&equal).is_some_and(|test| test.p > 0.9));
        assert_eq!(paired(&[1.0]), None);
        // Five of five differences of one size and sign: 2 of 32 patterns are as far.
        let five = paired(&[1.0; 5]).expect("a test");
        assert!((five.p - 2.0 / 32.0).abs() < 0.01, "{}", five.p);
    }

    /// The worked example of Holm's procedure with p = 0.01, 0.04, 0.03, 0.005 of R's `p.adjust`.
    #[test]
    fn corrections_are_those_of_r() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (got, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((got - expected).abs() < 1e-12, "{corrected:?}");
        }
    }

    #[test]
    fn length_alone_is_no_win() {
        // Who is longer wins, whoever it is, and one side is longer in three of four rows.
        let rows: Vec<(f64, f64)> =
            (0..200).map(|row| if row % 4 > 0 { (1.0, 100.0) } else { (0.0, -100.0) }).collect();
        let (plain, controlled) = (0.75, length_controlled(&rows).expect("an estimate"));
        assert!(controlled.value < plain - 0.1, "{controlled:?}");
        // Length plays no part: the win rate stays.
        let rows: Vec<(f64, f64)> =
            (0..200).map(|row| (f64::from(u8::from(row % 4 > 0)), if row % 8 < 4 { 50.0 } else { -50.0 })).collect();
        let controlled = length_controlled(&rows).expect("an estimate");
        assert!((controlled.value - plain).abs() < 0.01, "{controlled:?}");
        assert!(length_controlled(&[(1.0, 3.0), (1.0, -2.0)]).is_some_and(|won| won.value > 0.6 && won.value < 1.0));
    }
}

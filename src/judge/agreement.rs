//! How sure a number is, and how far judges agree: intervals of shares and means, Krippendorff's alpha, Cohen's and Fleiss' kappa, weights
//! of a panel.
//! Pure functions of numbers; knows no answer and no judge.

use serde::Serialize;

/// Standard normal quantile of a two-sided 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;

/// A number with a 95 % interval and what it was counted from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The share, or the mean.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Of how many.
    pub n: u64,
}

impl Estimate {
    /// A share with Wilson's score interval (E. B. Wilson 1927, JASA 22:209); `None` of nothing.
    pub fn share(part: u64, whole: u64) -> Option<Self> {
        if whole == 0 {
            return None;
        }
        let (n, share) = (whole as f64, part.min(whole) as f64 / whole as f64);
        let z2 = Z_95 * Z_95;
        let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z_95 / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
        Some(Self { value: share, low: (middle - half).max(0.0), high: (middle + half).min(1.0), n: whole })
    }

    /// A mean with its normal interval, mean ± 1.96 s/√n; `None` for fewer than two values.
    pub fn mean(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        if values.len() < 2 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let half = Z_95 * (variance / n).sqrt();
        Some(Self { value: mean, low: mean - half, high: mean + half, n: values.len() as u64 })
    }
}

impl Estimate {
    /// The mean over all values of several groups whose means these are, with the interval that [`Self::mean`] of all values would have:
    /// a group's sum of squares follows from its number, mean and interval. `None` for fewer than two values.
    pub fn pooled(groups: &[Self]) -> Option<Self> {
        let n: u64 = groups.iter().map(|group| group.n).sum();
        if n < 2 {
            return None;
        }
        let mean = groups.iter().map(|group| group.n as f64 * group.value).sum::<f64>() / n as f64;
        let squares = groups.iter().map(|group| {
            let number = group.n as f64;
            let deviation = (group.high - group.low) / 2.0 / Z_95;
            (number - 1.0) * number * deviation.powi(2) + number * (group.value - mean).powi(2)
        });
        let half = Z_95 * (squares.sum::<f64>() / (n as f64 - 1.0) / n as f64).sqrt();
        Some(Self { value: mean, low: mean - half, high: mean + half, n })
    }
}

/// How far apart two values are for [`krippendorff_alpha`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal or not.
    Nominal,
    /// By ranks: how many values lie between.
    Ordinal,
    /// By the square of the difference.
    Interval,
}

/// Krippendorff's alpha: 1 is perfect agreement, 0 that of chance, below 0 systematic disagreement. A unit holds the values that it got, by
/// however many raters; units with fewer than two count for nothing. `None` if no two values can be held against one another, or all are
/// equal. (K. Krippendorff 2011, Computing Krippendorff's Alpha-Reliability.)
pub fn krippendorff_alpha(units: &[Vec<f64>], scale: Scale) -> Option<f64> {
    let units: Vec<&Vec<f64>> = units.iter().filter(|unit| unit.len() >= 2).collect();
    let mut values: Vec<f64> = units.iter().flat_map(|unit| unit.iter().copied()).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let place = |value: f64| values.partition_point(|known| *known < value);
    let num_values = values.len();
    let mut coincidences = vec![0.0; num_values * num_values];
    for unit in units {
        let share = 1.0 / (unit.len() - 1) as f64;
        for (at, first) in unit.iter().enumerate() {
            for (other, second) in unit.iter().enumerate() {
                if at != other {
                    coincidences[place(*first) * num_values + place(*second)] += share;
                }
            }
        }
    }
    let totals: Vec<f64> = coincidences.chunks(num_values.max(1)).map(|row| row.iter().sum()).collect();
    let all: f64 = totals.iter().sum();
    let distance = |a: usize, b: usize| match scale {
        Scale::Nominal => f64::from(u8::from(a != b)),
        Scale::Interval => (values[a] - values[b]).powi(2),
        Scale::Ordinal => {
            let (low, high) = (a.min(b), a.max(b));
            let between: f64 = totals[low..=high].iter().sum();
            (between - (totals[a] + totals[b]) / 2.0).powi(2)
        }
    };
    let (mut observed, mut expected) = (0.0, 0.0);
    for a in 0..num_values {
        for b in (0..num_values).filter(|b| *b != a) {
            observed += coincidences[a * num_values + b] * distance(a, b);
            expected += totals[a] * totals[b] * distance(a, b);
        }
    }
    (expected > 0.0).then(|| 1.0 - (all - 1.0) * observed / expected)
}

/// How much a disagreement weighs in [`cohen_kappa`] by how many categories lie between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KappaWeights {
    /// Equal or not (J. Cohen 1960, Educational and Psychological Measurement 20:37).
    Equal,
    /// By the distance (D. V. Cicchetti and T. Allison 1971).
    Linear,
    /// By its square (J. L. Fleiss and J. Cohen 1973).
    Quadratic,
}

/// Cohen's kappa of two raters: 1 is perfect agreement, 0 that of chance. `counts[i][j]` is how many units the first rater put into category
/// i and the second one into j; all rows have as many entries as there are rows. `None` if there is no unit, or chance alone would agree.
pub fn cohen_kappa(counts: &[Vec<u64>], weights: KappaWeights) -> Option<f64> {
    weighted_kappa(counts, |a, b| {
        let apart = a.abs_diff(b) as f64;
        match weights {
            KappaWeights::Equal => f64::from(u8::from(a != b)),
            KappaWeights::Linear => apart,
            KappaWeights::Quadratic => apart * apart,
        }
    })
}

/// Cohen's kappa with a weight of disagreement of one's own for each two categories, 0 for the same one (J. Cohen 1968, Psychological
/// Bulletin 70:213): one minus the weighted disagreement over that of chance.
pub fn weighted_kappa(counts: &[Vec<u64>], disagreement: impl Fn(usize, usize) -> f64) -> Option<f64> {
    let all: u64 = counts.iter().flatten().sum();
    let by_first: Vec<u64> = counts.iter().map(|row| row.iter().sum()).collect();
    let by_second: Vec<u64> = (0..counts.len()).map(|at| counts.iter().filter_map(|row| row.get(at)).sum()).collect();
    let (mut observed, mut expected) = (0.0, 0.0);
    for (a, row) in counts.iter().enumerate() {
        for (b, count) in row.iter().enumerate().take(counts.len()) {
            let weight = disagreement(a, b);
            observed += weight * *count as f64;
            expected += weight * by_first[a] as f64 * by_second[b] as f64;
        }
    }
    (expected > 0.0).then(|| 1.0 - observed * all as f64 / expected)
}

/// Fleiss' kappa of several raters (J. L. Fleiss 1971, Psychological Bulletin 76:378). A subject holds how many raters chose each category;
/// their number may differ between subjects, by the generalisation of Fleiss, Levin and Paik 2003 (section 18.3), and subjects with fewer
/// than two ratings count for nothing. `None` without subjects, or if all ratings are equal.
pub fn fleiss_kappa(subjects: &[Vec<u64>]) -> Option<f64> {
    let rated: Vec<(&Vec<u64>, f64)> =
        subjects.iter().map(|counts| (counts, counts.iter().sum::<u64>() as f64)).filter(|(_, n)| *n >= 2.0).collect();
    let all: f64 = rated.iter().map(|(_, n)| n).sum();
    let agreeing = |(counts, n): &(&Vec<u64>, f64)| {
        counts.iter().map(|count| *count as f64 * (*count as f64 - 1.0)).sum::<f64>() / (n * (n - 1.0))
    };
    let observed = rated.iter().map(agreeing).sum::<f64>() / rated.len() as f64;
    let num_categories = rated.iter().map(|(counts, _)| counts.len()).max()?;
    let share = |at: usize| rated.iter().filter_map(|(counts, _)| counts.get(at)).sum::<u64>() as f64 / all;
    let expected: f64 = (0..num_categories).map(|at| share(at).powi(2)).sum();
    (expected < 1.0).then(|| (observed - expected) / (1.0 - expected))
}

/// The weight of a judge that is right with this probability: the log-odds, by which independent votes are best added (S. Nitzan and
/// J. Paroush 1982, International Economic Review 23:289). Judges at chance or below it have none; above 0.99 nobody gains.
pub fn vote_weight(accuracy: f64) -> f64 {
    let accuracy = accuracy.clamp(0.5, 0.99);
    (accuracy / (1.0 - accuracy)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of Krippendorff 2011, section C to E: four observers, twelve units, missing values.
    #[test]
    fn alpha_is_that_of_the_published_example() {
        let none = 0.0;
        let observers = [
            [1.0, 2.0, 3.0, 3.0, 2.0, 1.0, 4.0, 1.0, 2.0, none, none, none],
            [1.0, 2.0, 3.0, 3.0, 2.0, 2.0, 4.0, 1.0, 2.0, 5.0, none, 3.0],
            [none, 3.0, 3.0, 3.0, 2.0, 3.0, 4.0, 2.0, 2.0, 5.0, 1.0, none],
            [1.0, 2.0, 3.0, 3.0, 2.0, 4.0, 4.0, 1.0, 2.0, 5.0, 1.0, none],
        ];
        let units: Vec<Vec<f64>> =
            (0..12).map(|unit| observers.iter().map(|row| row[unit]).filter(|value| *value > none).collect()).collect();
        for (scale, published) in [(Scale::Nominal, 0.743), (Scale::Ordinal, 0.815), (Scale::Interval, 0.849)] {
            let alpha = krippendorff_alpha(&units, scale).unwrap();
            assert!((alpha - published).abs() < 5e-4, "{scale:?}: {alpha}, published {published}");
        }
        assert_eq!(krippendorff_alpha(&[vec![1.0, 1.0], vec![1.0]], Scale::Nominal), None);
        assert_eq!(krippendorff_alpha(&[], Scale::Ordinal), None);
    }

    fn table<const N: usize>(rows: [[u64; N]; N]) -> Vec<Vec<u64>> {
        rows.map(|row| row.to_vec()).to_vec()
    }

    /// Cohen 1960, table 1 (proportions, in hundredths) and table 2, which Cohen 1968, table 1, has as counts of 200 with weights of its own;
    /// the skin conditions of the SAS/STAT manual's example on kappa (PROC FREQ), and the weighted example of scikit-learn's tests.
    #[test]
    fn kappa_is_that_of_the_published_examples() {
        let near = |kappa: Option<f64>, published: f64, digits: f64| {
            let kappa = kappa.unwrap();
            assert!((kappa - published).abs() <= digits, "{kappa}, published {published}");
        };
        near(cohen_kappa(&table([[25, 13, 12], [12, 2, 16], [3, 15, 2]]), KappaWeights::Equal), -0.09, 5e-3);
        let diagnoses = table([[88, 14, 18], [10, 40, 10], [2, 6, 12]]);
        near(cohen_kappa(&diagnoses, KappaWeights::Equal), 0.492, 5e-4);
        let weights = [[0.0, 1.0, 3.0], [1.0, 0.0, 6.0], [3.0, 6.0, 0.0]];
        near(weighted_kappa(&diagnoses, |a, b| weights[a][b]), 0.348, 5e-4);
        let skin = table([[10, 4, 1, 0], [5, 10, 12, 2], [2, 4, 12, 5], [0, 2, 6, 13]]);
        near(cohen_kappa(&skin, KappaWeights::Equal), 0.3449, 5e-5);
        near(cohen_kappa(&skin, KappaWeights::Linear), 0.5082, 5e-5);
        let ranked = table([[46, 0, 0], [4, 40, 0], [0, 0, 10]]);
        for (weights, published) in
            [(KappaWeights::Equal, 0.9315), (KappaWeights::Linear, 0.9412), (KappaWeights::Quadratic, 0.9541)]
        {
            near(cohen_kappa(&ranked, weights), published, 5e-5);
        }
        assert_eq!(cohen_kappa(&table([[0, 0], [0, 0]]), KappaWeights::Equal), None);
        assert_eq!(cohen_kappa(&table([[7, 0], [0, 0]]), KappaWeights::Linear), None);
    }

    /// Fleiss 1971, table 1: thirty patients, each with the diagnoses of six psychiatrists, 1 to 5 (as R's `irr` has them; its kappa is
    /// 0.4302445). Then the worked example of ten subjects and fourteen raters in Wikipedia's article on Fleiss' kappa.
    #[test]
    fn fleiss_kappa_is_that_of_the_published_examples() {
        let diagnoses = "444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 \
                         144444 124444 222333 144444 224445 333335 111455 111112 224444 133555 \
                         555555 244444 224555 114444 144445 222224 111155 224444 133333 555555";
        let count = |patient: &str, diagnosis: char| patient.chars().filter(|given| *given == diagnosis).count() as u64;
        let patients: Vec<Vec<u64>> = diagnoses
            .split(' ')
            .map(|patient| "12345".chars().map(|diagnosis| count(patient, diagnosis)).collect())
            .collect();
        assert_eq!(patients.len(), 30);
        assert!((fleiss_kappa(&patients).unwrap() - 0.4302445).abs() < 5e-8);
        let subjects = [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ]
        .map(|counts| counts.to_vec());
        assert!((fleiss_kappa(&subjects).unwrap() - 0.210).abs() < 5e-4);
        // Whom one person alone rated says nothing of agreement.
        let with_one: Vec<Vec<u64>> = subjects.iter().cloned().chain([vec![1, 0, 0, 0, 0]]).collect();
        assert_eq!(fleiss_kappa(&with_one), fleiss_kappa(&subjects));
        assert_eq!((fleiss_kappa(&[]), fleiss_kappa(&[vec![3, 0]])), (None, None));
    }

    /// Newcombe 1998, Statistics in Medicine 17:857, table I: method 3 (Wilson without continuity correction).
    #[test]
    fn wilson_intervals_are_those_of_the_published_table() {
        for (part, whole, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let found = Estimate::share(part, whole).unwrap();
            assert!((found.low - low).abs() < 5e-5 && (found.high - high).abs() < 5e-5, "{part} of {whole}: {found:?}");
        }
        assert_eq!(Estimate::share(0, 0), None);
    }

    #[test]
    fn groups_together_are_as_all_of_their_values() {
        let groups: [&[f64]; 3] = [&[1.0, 2.5, 4.0], &[-0.5, 0.25], &[3.0, 3.0, 3.5, 10.0]];
        let apart: Vec<Estimate> = groups.iter().filter_map(|values| Estimate::mean(values)).collect();
        let (pooled, whole) = (Estimate::pooled(&apart).unwrap(), Estimate::mean(&groups.concat()).unwrap());
        for (a, b) in [(pooled.value, whole.value), (pooled.low, whole.low), (pooled.high, whole.high)] {
            assert!((a - b).abs() < 1e-12, "{pooled:?} {whole:?}");
        }
        assert_eq!((pooled.n, Estimate::pooled(&[])), (9, None));
    }

    #[test]
    fn a_judge_at_chance_has_no_say() {
        assert_eq!((vote_weight(0.5), vote_weight(0.2)), (0.0, 0.0));
        assert!(vote_weight(0.9) > 2.0 * vote_weight(0.7) && vote_weight(1.0).is_finite());
    }
}

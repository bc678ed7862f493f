//! What a plan said that stages would take, beside what they took. Knows both in seconds; counts no rows of a run and reads no file.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::generate::{Forecast, StageSpeed};

/// A stage, or several in one queue, as predicted and as it was: all sessions of one model on one device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Predicted {
    /// Stages in one queue, with ` + ` between them.
    pub stage: String,
    /// The model's name.
    pub model: String,
    /// What the prediction was for: a card's name; `None`: timed on the machine that planned.
    pub card: Option<String>,
    /// Rows that were done, and rows of the prediction.
    pub num_rows: u64,
    /// See `num_rows`.
    pub num_rows_predicted: u64,
    /// Seconds of the rows that were done by the prediction: at best, in the middle, at worst.
    pub predicted_s: [f64; 3],
    /// Seconds that they took.
    pub actual_s: f64,
    /// Predicted (the middle) over actual, less one: above 0 the plan was too careful.
    pub error: f64,
}

/// Letters and digits of a name, small.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Whether a prediction is for this device: timed, or for a card whose name the device has.
fn is_for(forecast: &Forecast, device: &str, timed: bool) -> bool {
    match &forecast.card {
        None => timed,
        Some(card) => {
            // Every word of the card's name: devices put others between them.
            let device = plain(device);
            !timed && card.split_whitespace().all(|word| device.contains(&plain(word)))
        }
    }
}

/// Each stage of which both are known, in the order of the speeds. Timed predictions come before those for a card.
pub fn predicted(forecasts: &[Forecast], speeds: &[StageSpeed]) -> Vec<Predicted> {
    let mut order = Vec::new();
    let mut seen: BTreeMap<(String, &str, &str), Vec<&StageSpeed>> = BTreeMap::new();
    for speed in speeds {
        let stage = speed.rows.keys().cloned().collect::<Vec<_>>().join(" + ");
        let key = (stage, speed.model.as_str(), speed.device.as_str());
        if !seen.contains_key(&key) {
            order.push(key.clone());
        }
        seen.entry(key).or_default().push(speed);
    }
    let compare = |key: (String, &str, &str)| {
        let sessions = &seen[&key];
        let (stage, model, device) = key;
        let of = |timed: bool| -> Option<Vec<&Forecast>> {
            let one = |name: &String| {
                let is_it = |one: &&Forecast| one.stage == *name && one.model == model && is_for(one, device, timed);
                forecasts.iter().find(is_it)
            };
            sessions.first()?.rows.keys().map(one).collect()
        };
        let found = of(true).or_else(|| of(false))?;
        let done = |stage: &str| sessions.iter().filter_map(|session| session.rows.get(stage)).sum::<u64>();
        let mut row = Predicted {
            stage,
            model: model.to_owned(),
            card: found.first().and_then(|one| one.card.clone()),
            num_rows: 0,
            num_rows_predicted: 0,
            predicted_s: [0.0; 3],
            actual_s: sessions.iter().map(|session| session.elapsed_s).sum(),
            error: 0.0,
        };
        for forecast in found {
            let rows = done(&forecast.stage);
            let share = rows as f64 / forecast.num_rows.max(1) as f64;
            row.num_rows += rows;
            row.num_rows_predicted += forecast.num_rows;
            let seconds = [forecast.low_s, forecast.expected_s, forecast.high_s];
            row.predicted_s.iter_mut().zip(seconds).for_each(|(sum, seconds)| *sum += seconds * share);
        }
        row.error = row.predicted_s[1] / row.actual_s.max(1e-9) - 1.0;
        Some(row)
    };
    order.into_iter().filter_map(compare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(stage: &str, card: Option<&str>, expected_s: f64) -> Forecast {
        let card = card.map(str::to_owned);
        let (low_s, high_s) = (expected_s / 2.0, expected_s * 2.0);
        Forecast { stage: stage.into(), model: "m".into(), card, num_rows: 10, low_s, expected_s, high_s }
    }

    fn speed(rows: &[(&str, u64)], device: &str, elapsed_s: f64) -> StageSpeed {
        StageSpeed {
            rows: rows.iter().map(|(stage, number)| ((*stage).to_owned(), *number)).collect(),
            model: "m".into(),
            dtype: "f32".into(),
            device: device.into(),
            num_threads: None,
            max_batch_size: None,
            num_prefill_tokens: 0,
            num_reused_tokens: 0,
            num_output_tokens: 0,
            elapsed_s,
            prefill_s: 0.0,
            decode_s: 0.0,
        }
    }

    #[test]
    fn sessions_are_added_and_shares_of_the_rows_are_shares_of_the_seconds() {
        let forecasts = [
            forecast("generate", None, 100.0),
            forecast("judge", None, 40.0),
            forecast("generate", Some("H100 80GB"), 5.0),
        ];
        let found =
            predicted(&forecasts, &[speed(&[("generate", 4)], "cpu", 30.0), speed(&[("generate", 1)], "cpu", 20.0)]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].num_rows, found[0].num_rows_predicted, found[0].actual_s), (5, 10, 50.0));
        assert_eq!((found[0].predicted_s, found[0].error), ([25.0, 50.0, 100.0], 0.0));
        // Two stages in one queue are compared together, and one of which nothing was predicted is not compared.
        let both = predicted(
            &forecasts,
            &[speed(&[("generate", 10), ("judge", 10)], "cpu", 70.0), speed(&[("compare", 1)], "cpu", 1.0)],
        );
        assert_eq!(
            (both.len(), both[0].stage.as_str(), both[0].predicted_s[1], both[0].error),
            (1, "generate + judge", 140.0, 1.0)
        );
    }

    #[test]
    fn without_a_timed_prediction_the_device_names_its_card() {
        let forecasts = [forecast("judge", Some("A100 40GB"), 9.0), forecast("judge", Some("A100 80GB"), 5.0)];
        let found = predicted(&forecasts, &[speed(&[("judge", 10)], "cuda NVIDIA A100-SXM4-80GB", 4.0)]);
        assert_eq!((found[0].card.as_deref(), found[0].predicted_s[1], found[0].error), (Some("A100 80GB"), 5.0, 0.25));
        assert_eq!(predicted(&forecasts, &[speed(&[("judge", 10)], "cpu", 4.0)]), []);
    }
}

//! Numbers and ranges of a plan in words, the same in text and Markdown. Knows units; counts nothing.

use crate::plan::{CardPlan, Fit, Plan, TokenQuantiles};
use crate::registry::LicenceKind;

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three digits that count, at most.
pub(super) fn short(number: f64) -> String {
    match number.abs() {
        large if large >= 99.95 => grouped(number.round() as u64),
        middle if middle >= 9.995 => format!("{number:.1}"),
        small if small >= 0.095 || small == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

/// `1.2 to 3.4`, or one number where both are the same in words.
pub(super) fn range([low, high]: [f64; 2]) -> String {
    match (short(low), short(high)) {
        (low, high) if low == high => low,
        (low, high) => format!("{low} to {high}"),
    }
}

/// Seconds, minutes or hours of the worse end, as a range.
pub(super) fn time(seconds: [f64; 2]) -> String {
    let (divisor, unit) = match seconds[1] {
        short if short < 120.0 => (1.0, "s"),
        middle if middle < 7200.0 => (60.0, "min"),
        _ => (3600.0, "h"),
    };
    format!("{} {unit}", range(seconds.map(|value| value / divisor)))
}

/// `p50 12, p95 40, most 99`.
pub(super) fn quantiles(tokens: &TokenQuantiles) -> String {
    format!(
        "p50 {}, p95 {}, most {}",
        grouped(tokens.p50 as u64),
        grouped(tokens.p95 as u64),
        grouped(tokens.max as u64)
    )
}

/// What fits beside a model.
pub(super) fn room(fit: &Fit) -> String {
    match fit.fits() {
        true => format!("{} ({} of the longest)", grouped(fit.num_usual), grouped(fit.num_longest)),
        false => "does not fit".to_owned(),
    }
}

/// `qwen3-8b (judge)`.
pub(super) fn kind(kind: LicenceKind) -> &'static str {
    match kind {
        LicenceKind::Open => "open",
        LicenceKind::Restricted => "with terms of use",
        LicenceKind::NonCommercial => "non-commercial",
        LicenceKind::Unknown => "not known",
    }
}

/// A share in percent points.
pub(super) fn points(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// The same, where there may be none.
pub(super) fn points_or_none(share: Option<f64>) -> String {
    share.map_or_else(|| "none".to_owned(), points)
}

/// The card whose stages are shown one by one: the first that fits.
pub(super) fn shown_card(plan: &Plan) -> Option<&CardPlan> {
    plan.cards.iter().find(|card| card.fits)
}

/// `3,000 of 4,000 rows; dropped: 900 other_language, 100 too_long`.
pub(super) fn drops(plan: &Plan) -> String {
    let drops: Vec<String> =
        plan.rows.drops.iter().map(|(reason, number)| format!("{} {reason}", grouped(*number))).collect();
    if drops.is_empty() { "none".to_owned() } else { drops.join(", ") }
}

/// Languages with most rows first, so many of them.
pub(super) fn languages(plan: &Plan, most: usize) -> String {
    let mut all: Vec<(&String, &u64)> = plan.rows.languages.iter().collect();
    all.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let name = |name: &String| if name.is_empty() { "not named".to_owned() } else { name.clone() };
    let shown: Vec<String> =
        all.iter().take(most).map(|(language, rows)| format!("{} ({})", name(language), grouped(**rows))).collect();
    match all.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

//! How fast somebody votes, told so coarsely that nobody is timed. Knows when votes were taken; knows nothing of what they say.

use super::vote::CurrentVote;

/// Gaps between two votes that are longer were a break, in seconds.
const BREAK_S: i64 = 600;
/// Paces are told in steps of so many seconds.
const STEP_S: i64 = 5;
/// Gaps below which there is no usual one.
const MIN_GAPS: usize = 4;

/// Usual seconds from one of these votes to the next, in steps of five; `None` for fewer than five votes.
pub fn pace_s<'v>(votes: impl Iterator<Item = &'v CurrentVote<'v>>) -> Option<i64> {
    let mut times: Vec<i64> = votes.map(|vote| vote.vote.at).collect();
    times.sort_unstable();
    let gap = |two: &[i64]| two.get(1).zip(two.first()).map(|(b, a)| b - a);
    let mut gaps: Vec<i64> = times.windows(2).filter_map(gap).filter(|gap| *gap <= BREAK_S).collect();
    gaps.sort_unstable();
    let median = gaps.get(gaps.len() / 2).filter(|_| gaps.len() >= MIN_GAPS)?;
    Some(((median + STEP_S / 2) / STEP_S * STEP_S).max(STEP_S))
}

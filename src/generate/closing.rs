//! When no more rows are begun because the time left is too short for them. Knows how long rows took; knows no row.

use std::time::{Duration, Instant};

/// Kept for storing what is done and for the way out.
const FLUSH: Duration = Duration::from_secs(2);
/// Rows whose times are remembered.
const NUM_REMEMBERED: usize = 1024;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Closing {
    deadline: Option<Instant>,
    /// Of the last rows, in no order.
    took: Vec<Duration>,
    num_noted: usize,
    is_closed: bool,
}

impl Closing {
    /// Open until `deadline` comes near.
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self { deadline, took: Vec::new(), num_noted: 0, is_closed: false }
    }

    /// A row took so long, from the moment the engine had it.
    pub(super) fn note(&mut self, took: Duration) {
        match self.took.len() < NUM_REMEMBERED {
            true => self.took.push(took),
            false => self.took[self.num_noted % NUM_REMEMBERED] = took,
        }
        self.num_noted += 1;
    }

    /// Whether a row that is begun now would likely not be done: the time left is under the 99th percentile of the rows so far.
    /// Once closed it stays so, for the rows in flight only get longer.
    pub(super) fn is_closed(&mut self, now: Instant) -> bool {
        if let Some(deadline) = self.deadline
            && !self.is_closed
        {
            let left = deadline.saturating_duration_since(now).saturating_sub(FLUSH);
            // The longest row of all decides nothing but whether it is worth sorting.
            let is_far = self.took.iter().max().is_none_or(|longest| left > *longest);
            self.is_closed = left.is_zero() || (!is_far && left < self.percentile(99));
        }
        self.is_closed
    }

    /// Whether there is only time left to store what is done.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline.saturating_duration_since(now) <= FLUSH)
    }

    /// The time that so many of a hundred rows took at most.
    fn percentile(&mut self, percent: usize) -> Duration {
        let rank = (self.took.len() * percent).div_ceil(100).saturating_sub(1);
        match self.took.is_empty() {
            true => Duration::ZERO,
            false => *self.took.select_nth_unstable(rank).1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_at_the_99th_percentile_and_stays_closed() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut closing = Closing::new(Some(start + 1000 * second));
        (1..=200).rev().for_each(|seconds| closing.note(seconds * second));
        // 198 seconds and the time to store.
        assert!(!closing.is_closed(start + 799 * second));
        assert!(closing.is_closed(start + 801 * second));
        assert!(closing.is_closed(start), "closed is closed");
        assert!(!closing.is_over(start + 997 * second));
        assert!(closing.is_over(start + 998 * second) && closing.is_over(start + 2000 * second));
    }

    #[test]
    fn without_rows_or_a_deadline_it_is_open() {
        let start = Instant::now();
        let mut closing = Closing::new(Some(start + Duration::from_secs(10)));
        assert!(!closing.is_closed(start + Duration::from_secs(7)));
        assert!(closing.is_closed(start + Duration::from_secs(9)));
        let mut endless = Closing::new(None);
        endless.note(Duration::from_secs(1));
        assert!(!endless.is_closed(start) && !endless.is_over(start));
    }

    #[test]
    fn old_rows_are_forgotten() {
        let start = Instant::now();
        let mut closing = Closing::new(Some(start + Duration::from_secs(100)));
        (0..NUM_REMEMBERED).for_each(|_| closing.note(Duration::from_secs(200)));
        (0..NUM_REMEMBERED).for_each(|_| closing.note(Duration::from_secs(1)));
        assert!(!closing.is_closed(start));
    }
}

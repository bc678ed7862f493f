//! How often somebody may ask: a bucket of tokens per key, refilled with time. Knows clocks and keys; knows nothing of what is asked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Keys that are remembered at most; beyond, full buckets are forgotten, which changes nothing for their owners.
const MOST_KEYS: usize = 10_000;

/// A kind of request, with how many may come at once and how many per second on and on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Anything of somebody with a session, by their pseudonym.
    Session,
    /// Anything of somebody without, by their address.
    Stranger,
    /// A code, link or invitation that was wrong, by address: 10 at once, then one a minute.
    Guess,
    /// The same from all addresses together.
    AllGuesses,
}

impl Kind {
    fn burst_and_rate(self) -> (f64, f64) {
        match self {
            Self::Session => (200.0, 50.0),
            Self::Stranger => (120.0, 10.0),
            Self::Guess => (10.0, 1.0 / 60.0),
            Self::AllGuesses => (200.0, 0.5),
        }
    }
}

/// All buckets.
#[derive(Debug, Default)]
pub struct Limits {
    buckets: Mutex<HashMap<(Kind, String), (f64, Instant)>>,
}

impl Limits {
    /// Takes a token; false if there is none.
    pub fn take(&self, kind: Kind, key: &str) -> bool {
        self.change(kind, key, 1.0) >= 0.0
    }

    /// Whether this address may try a code: looks without taking.
    pub fn may_guess(&self, address: IpAddr) -> bool {
        self.change(Kind::Guess, &address.to_string(), 0.0) >= 1.0 && self.change(Kind::AllGuesses, "", 0.0) >= 1.0
    }

    /// A code was wrong.
    pub fn note_guess(&self, address: IpAddr) {
        self.take(Kind::Guess, &address.to_string());
        self.take(Kind::AllGuesses, "");
    }

    /// What is left after taking so many; negative, and nothing taken, if there are fewer.
    fn change(&self, kind: Kind, key: &str, taken: f64) -> f64 {
        let (burst, rate) = kind.burst_and_rate();
        let now = Instant::now();
        // A thread that panicked left numbers, and numbers are all there is.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST_KEYS {
            buckets.retain(|(kind, _), (left, since)| {
                let (burst, rate) = kind.burst_and_rate();
                *left + since.elapsed().as_secs_f64() * rate < burst
            });
        }
        let (left, since) = buckets.entry((kind, key.to_owned())).or_insert((burst, now));
        *left = (*left + now.duration_since(*since).as_secs_f64() * rate).min(burst);
        *since = now;
        if *left < taken {
            return -1.0;
        }
        *left -= taken;
        *left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_end_and_others_go_on() {
        let limits = Limits::default();
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        for _ in 0..10 {
            assert!(limits.may_guess(one));
            limits.note_guess(one);
        }
        assert!(!limits.may_guess(one) && limits.may_guess(other));
        assert!(limits.take(Kind::Session, "ann"));
    }

    #[test]
    fn many_addresses_together_are_limited_too() {
        let limits = Limits::default();
        let address = |n: u8| IpAddr::from([10, 0, 1, n]);
        for n in 0..200 {
            limits.note_guess(address(n));
        }
        assert!(!limits.may_guess(address(250)));
    }
}

//! People's votes on a run's answers: what is shown, what is said of it, and where that is kept.
//! Knows judged prompts and votes; alone knows SQLite and HTTP serving, and nothing of flags or of how a run is made.
//!
//! Who only reads votes needs [`store::read_votes`] and [`vote::current_votes`]; [`items::Items`] says what they were about.

pub mod agreement;
pub mod calibrate;
pub mod exchange;
pub mod export;
pub mod items;
pub mod label;
pub mod store;
pub mod versions;
pub mod vote;

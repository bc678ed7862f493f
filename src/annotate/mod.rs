//! People's votes on a run's answers: what is shown, what is said of it, and where that is kept.
//! Knows judged prompts and votes; alone knows SQLite and HTTP serving, and nothing of flags or of how a run is made.
//!
//! Who only reads votes needs [`store::read_votes`] and [`vote::current_votes`]; [`items::Items`] says what they were about.

mod address;
pub mod agreement;
pub mod calibrate;
pub mod desk;
pub mod exchange;
pub mod export;
mod forms;
pub mod guidelines;
pub mod items;
pub mod keys;
pub mod label;
mod limits;
pub mod pace;
pub mod pack;
pub mod packed;
mod pages;
pub mod queue;
pub mod room;
pub mod serve;
pub mod store;
pub mod strings;
pub mod versions;
pub mod vote;

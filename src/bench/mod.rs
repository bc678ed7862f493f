//! Measurements a user runs on a machine of their own. Knows the engine and the clock; knows no text and no dataset.

pub mod engine;
pub mod machine;

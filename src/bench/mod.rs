//! Measurements a user runs on a machine of their own. Knows the engine and the clock; knows no text and no dataset, so any
//! shape can be timed without its tokenizer.

pub mod engine;
pub mod figures;
pub mod judge;
pub mod lengths;
pub mod machine;
pub mod memory;
pub mod operations;
pub mod setup;
pub mod steady;
pub mod table;

use crate::engine::EngineError;
use crate::model::ModelError;

/// Why a bench failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine refused the workload.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

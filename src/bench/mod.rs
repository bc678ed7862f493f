//! Measurements a user runs on a machine of their own: of the engine, which knows no text, so that any shape can be timed without its
//! tokenizer; and, in [`languages`], of models in a language, whose figures go into a [`table`]. Knows no flags.

pub mod engine;
pub mod figures;
pub mod judge;
pub mod languages;
pub mod lengths;
pub mod machine;
pub mod memory;
pub mod operations;
pub mod setup;
pub mod steady;
pub mod table;

use std::path::PathBuf;

use crate::data::DataError;
use crate::engine::EngineError;
use crate::model::ModelError;
use crate::run::RunError;
use table::TableError;

/// Why a bench failed. Errors of other stages are boxed: they hold lists, and would make every result here large.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine refused the workload.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A language's run.
    #[error(transparent)]
    Run(Box<RunError>),
    /// A file of Parquet.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A table of figures.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The page's template failed.
    #[error("cannot fill in the bench's page: {0}")]
    Page(#[from] askama::Error),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The folder holds no bench.
    #[error("{} holds no bench\nhint: `pairwright bench --languages … --models … --prompts … --out DIR` makes one", path.display())]
    NoBench {
        /// The folder.
        path: PathBuf,
    },
    /// A dataset without ids.
    #[error("{} has no ids\nhint: want the dataset of a run, as `pairwright make` wrote it", path.display())]
    NoIds {
        /// The file.
        path: PathBuf,
    },
}

impl From<RunError> for BenchError {
    fn from(error: RunError) -> Self {
        Self::Run(Box::new(error))
    }
}

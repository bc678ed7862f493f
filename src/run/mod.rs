//! A run's directory and its stages: prompts, candidates, verdicts, dataset, each from the file that the stage before left.
//! Knows where a run's files lie and how stages continue; knows nothing of flags or terminals.

mod directory;
mod error;
mod occupied;
mod stages;

pub use directory::{Claim, LoadedRun, RunDir, StageStatus, Status};
pub use error::RunError;
pub use occupied::{IN_USE, Occupied};
pub use stages::{GenerateStage, generate, generate_and_judge, judge, pair};

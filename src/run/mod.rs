//! A run's directory and its stages: prompts, candidates, verdicts, dataset, each from the file that the stage before left.
//! A run may be cut into shards, each with a directory of its own, which are merged into one.
//! Knows where a run's files lie and how stages continue; knows nothing of flags or terminals.

mod directory;
mod error;
mod known;
mod likelihoods;
mod merge;
mod occupied;
mod rationales;
mod rows;
mod shards;
mod stages;
mod status;

pub use directory::{Claim, LoadedRun, RunDir, WholeRows};
pub use error::RunError;
pub use known::{KnownAnswers, known_answers};
pub use likelihoods::likelihoods;
pub use merge::Merge;
pub use occupied::{IN_USE, Occupied};
pub use rationales::rationales;
pub use rows::{report, with_input};
pub use shards::{ShardStatus, ShardsStatus, shards_in, status_of_shards};
pub use stages::{GenerateStage, compare, generate, generate_and_judge, judge, pair};
pub use status::{Progress, StageStatus, Status};

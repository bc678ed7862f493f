//! The flags that say what a run is made from and how: those that `make` runs and `plan` reckons with.
//! Knows flags; decides nothing.

use std::path::PathBuf;

use super::arguments::{DialogueArgs, EngineArgs, PromptArgs, SamplingArgs};
use super::pair::PairArgs;
use super::stages::JudgingArgs;

/// All that a run's rows depend on.
#[derive(Debug, clap::Args)]
pub(super) struct JobArgs {
    /// Model that writes the second answer: a Hugging Face model directory or a GGUF file; may be given several times
    #[arg(long, value_name = "MODEL")]
    pub(super) generator: Vec<PathBuf>,
    /// Model that rates the answers, a reward model too; another family than the generator's is better. Several make a panel
    #[arg(long, value_name = "MODEL")]
    pub(super) judge: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) dialogue: DialogueArgs,
    #[command(flatten)]
    pub(super) judging: JudgingArgs,
    #[command(flatten)]
    pub(super) prompts: PromptArgs,
    #[command(flatten)]
    pub(super) pair: PairArgs,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
}

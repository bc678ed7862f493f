//! The flags that say what a run is made from and how: those that `make` runs and `plan` reckons with.
//! Knows flags; decides nothing.

use std::path::{Path, PathBuf};

use super::arguments::{ClaimArgs, DialogueArgs, EngineArgs, PromptArgs, SamplingArgs};
use super::pair::PairArgs;
use super::shard::ShardArgs;
use super::stages::JudgingArgs;
use super::stop::TimeArgs;
use crate::demo;

/// All that a run depends on, but for its folder.
#[derive(Debug, clap::Args)]
pub(super) struct JobArgs {
    /// Run on embedded prompts with an embedded toy model: shows every stage, needs no download, and gives nothing to train on
    #[arg(long, conflicts_with_all = ["prompts", "generator", "judge", "language", "map"])]
    pub(super) demo: bool,
    #[command(flatten)]
    pub(super) claim: ClaimArgs,
    #[command(flatten)]
    pub(super) shard: ShardArgs,
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
    #[command(flatten)]
    pub(super) time: TimeArgs,
}

impl JobArgs {
    /// Points the flags at the demonstration that was written into `folder`.
    pub(super) fn use_demo(&mut self, folder: &Path) {
        self.prompts.prompts = Some(folder.join("prompts.jsonl"));
        self.generator = vec![folder.join("model")];
        self.judge = vec![folder.join("model")];
        self.pair.source_license.get_or_insert_with(|| demo::LICENSE.to_owned());
    }
}

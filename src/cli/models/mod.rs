//! `pairwright models`: the list of models that one may get, and whether one that is here is whole.
//! Knows flags and where their words come from; the list is in [`crate::registry`].

mod list;
mod show;
mod suggest;
mod verify;

use std::path::PathBuf;

use clap::ValueEnum;

use super::arguments::parse_bytes;
use crate::generate::Ending;
use crate::registry::{Registry, RegistryError, Role, Wanted};
pub(super) use list::gigabytes;
pub(super) use verify::NonFiniteWeights;

/// What to do with models.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Open-weight models that matter for many languages, by language, memory, role and licence
    List(list::Args),
    /// All that the list says of one model, with its sources and how to get it
    Show(show::Args),
    /// Which models to try first for a language, by stated support, memory, licence and bench figures, with reasons
    Suggest(suggest::Args),
    /// Whether a model's folder is whole: configuration, weights, tokenizer and template that belong together
    Verify(verify::Args),
}

/// Which list to read.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RegistryArgs {
    /// Another list than the one built in: a file like models.toml
    #[arg(long, value_name = "FILE")]
    registry: Option<PathBuf>,
}

impl RegistryArgs {
    /// The list.
    pub(super) fn read(&self) -> Result<Registry, RegistryError> {
        self.registry.as_deref().map_or_else(Registry::embedded, Registry::read)
    }
}

/// A role on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    /// Writes answers
    Generator,
    /// Rates answers by reading the probabilities of its labels
    Judge,
    /// Rates answers by a score head
    Reward,
}

impl RoleArg {
    fn role(self) -> Role {
        match self {
            Self::Generator => Role::Generator,
            Self::Judge => Role::Judge,
            Self::Reward => Role::Reward,
        }
    }
}

/// A kind of licence on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LicenceArg {
    /// Any use, with attribution at most
    Open,
    /// Also restricted, non-commercial and unknown ones
    Any,
}

/// Flags that choose among the list's models, and how they are told.
#[derive(Debug, clap::Args)]
pub(super) struct ChoiceArgs {
    /// Only models that fit into this much memory, at the widest precision that does: 24GB, 16GiB
    #[arg(long, visible_alias = "fits", value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<usize>,
    /// Only models for this role
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// Only models under such licences
    #[arg(long, alias = "license", value_enum, default_value = "any")]
    licence: LicenceArg,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl ChoiceArgs {
    /// What is looked for, in this language if there is one.
    fn wanted(&self, language: Option<&str>) -> Wanted {
        Wanted {
            language: language.map(str::to_owned),
            role: self.role.map(RoleArg::role),
            open_licence: self.licence == LicenceArg::Open,
            budget: self.memory.map(|bytes| bytes as u64),
        }
    }
}

/// Runs the subcommand.
pub(super) fn run(command: &Command) -> anyhow::Result<Ending> {
    match command {
        Command::List(args) => list::run(args),
        Command::Show(args) => show::run(args),
        Command::Suggest(args) => suggest::run(args),
        Command::Verify(args) => verify::run(args),
    }
}

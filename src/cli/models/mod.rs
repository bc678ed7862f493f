//! `pairwright models`: the list of models that one may get, and whether one that is here is whole.
//! Knows flags and where their words come from; the list is in [`crate::registry`].

mod list;
mod show;
mod suggest;
mod verify;

use std::path::PathBuf;

use crate::generate::Ending;
use crate::registry::{Registry, RegistryError};
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

/// Runs the subcommand.
pub(super) fn run(command: &Command) -> anyhow::Result<Ending> {
    match command {
        Command::List(args) => list::run(args),
        Command::Show(args) => show::run(args),
        Command::Suggest(args) => suggest::run(args),
        Command::Verify(args) => verify::run(args),
    }
}

//! `pairwright bundle`: models, prompts and the program for a machine without a network.
//! Knows flags and words; the work is done by [`crate::bundle`].

mod create;
mod find;
mod install;
mod verify;
mod want;

pub(super) use find::local_models;

use crate::generate::Ending;

/// What to do with bundles.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// On a connected machine: put models and prompts that are on its disk into one folder or tar
    Create(create::Args),
    /// Whether a bundle is whole, and is what it says
    Verify(verify::Args),
    /// On the sealed machine: put what a bundle holds in place
    Install(install::Args),
    /// On the sealed machine: the list of what it lacks, for `create --want`
    Want(want::Args),
}

/// Runs the subcommand.
pub(super) fn run(command: &Command) -> anyhow::Result<Ending> {
    match command {
        Command::Create(args) => create::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Install(args) => install::run(args),
        Command::Want(args) => want::run(args),
    }
}

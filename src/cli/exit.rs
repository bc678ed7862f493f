//! From a result to the message and the exit code. Knows every error type's meaning; nothing of how errors come about.

use std::process::ExitCode;

use super::models::NonFiniteWeights;
use crate::annotate::calibrate::TooFewCouples;
use crate::annotate::exchange::ExchangeError;
use crate::annotate::export::ExportError;
use crate::annotate::pack::PackError;
use crate::annotate::serve::ServeError;
use crate::annotate::store::StoreError;
use crate::annotate::versions::VersionsError;
use crate::bench::BenchError;
use crate::bench::table::TableError;
use crate::bundle::BundleError;
use crate::cli::tell;
use crate::data::DataError;
use crate::engine::EngineError;
use crate::generate::{Ending, GenerateError, LineError, RequestError, SystemPromptError, TextModelError};
use crate::hub::HubError;
use crate::journal::JournalError;
use crate::judge::{AspectWeightsError, RationaleError, RubricError};
use crate::ops::DeviceError;
use crate::provenance::ProvenanceError;
use crate::quality::ProfileError;
use crate::registry::RegistryError;
use crate::run::RunError;

/// Something the user asked for in a way that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_USABLE: u8 = 3;
const STOPPED_EARLY: u8 = 75;
/// A second Ctrl-C.
pub(super) const STOPPED_AT_ONCE: u8 = 130;

/// Prints an error as one message (what, got, expected, hint) and gives the documented code.
pub(super) fn code(result: anyhow::Result<Ending>) -> ExitCode {
    match result {
        Ok(Ending::Completed) => ExitCode::SUCCESS,
        Ok(ending @ (Ending::Interrupted | Ending::OutOfTime)) => {
            let why = if ending == Ending::OutOfTime { "out of time" } else { "stopped early" };
            tell(&format!("{why}: what was done is kept; the same command goes on from there"));
            ExitCode::from(STOPPED_EARLY)
        }
        Err(error) => {
            if is_closed_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            // Messages name their causes themselves.
            let message = error.to_string();
            let hint = if is_full_disk(&error, &message) { FULL_DISK } else { "" };
            tell(&format!("error: {message}{hint}"));
            ExitCode::from(code_of(&error))
        }
    }
}

/// What is said behind an error of a full disk.
const FULL_DISK: &str = "\nhint: make room on the disk, and the same command goes on from there";

/// Whether the disk is full, which libraries pass on in words alone.
fn is_full_disk(error: &anyhow::Error, message: &str) -> bool {
    let is_full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
    let in_chain = error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(is_full));
    // ENOSPC on Linux and macOS.
    in_chain || message.contains("(os error 28)")
}

/// The reader of stdout went away, as `head` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn code_of(error: &anyhow::Error) -> u8 {
    let hub = error.downcast_ref::<HubError>();
    if error.is::<UsageError>() || hub.is_some_and(HubError::is_usage) {
        return USAGE;
    }
    let not_usable = error.is::<DataError>()
        || error.is::<TextModelError>()
        || error.is::<RequestError>()
        || error.downcast_ref::<LineError>().is_some_and(|error| !matches!(error, LineError::Io { .. }))
        || error.is::<RubricError>()
        || error.is::<AspectWeightsError>()
        || error.downcast_ref::<StoreError>().is_some_and(is_of_the_votes)
        || error.downcast_ref::<PackError>().is_some_and(|error| match error {
            PackError::Store(error) => is_of_the_votes(error),
            PackError::Page(_) | PackError::Random(_) => false,
            PackError::Empty { .. } | PackError::NoVotes { .. } | PackError::Forged { .. } | PackError::Vote { .. } => {
                true
            }
        })
        || error.downcast_ref::<ServeError>().is_some_and(|error| match error {
            ServeError::Store(error) => is_of_the_votes(error),
            ServeError::NoItems { .. } => true,
            ServeError::Io { .. } | ServeError::Desk(_) => false,
        })
        || error.is::<RationaleError>()
        || error.is::<SystemPromptError>()
        || error.is::<TooFewCouples>()
        || error.downcast_ref::<ExchangeError>().is_some_and(|error| matches!(error, ExchangeError::Malformed { .. }))
        || error.downcast_ref::<ExportError>().is_some_and(is_of_the_export)
        || error.is::<DeviceError>()
        || error.is::<JournalError>()
        || error.is::<ProvenanceError>()
        || error.is::<RegistryError>()
        || error.downcast_ref::<ProfileError>().is_some_and(|error| !matches!(error, ProfileError::Io { .. }))
        || error.is::<NonFiniteWeights>()
        || hub.is_some_and(HubError::is_not_usable)
        || error.downcast_ref::<BundleError>().is_some_and(|error| !error.is_of_the_machine())
        || error.downcast_ref::<GenerateError>().is_some_and(is_input)
        || error.downcast_ref::<BenchError>().is_some_and(is_of_the_bench)
        || error.downcast_ref::<TableError>().is_some_and(is_of_the_table)
        || error.downcast_ref::<RunError>().is_some_and(is_of_the_run);
    if not_usable { NOT_USABLE } else { FAILED }
}

/// Not the disk, but what lies in the run's folder or was asked of it.
fn is_of_the_run(error: &RunError) -> bool {
    match error {
        RunError::Io { .. } | RunError::Dataset(_) | RunError::Report(_) => false,
        RunError::Generate(error) => is_input(error),
        _ => true,
    }
}

fn is_of_the_bench(error: &BenchError) -> bool {
    match error {
        BenchError::Engine(error) => !matches!(error, EngineError::Tensor(_)),
        BenchError::Run(error) => is_of_the_run(error),
        BenchError::Table(error) => is_of_the_table(error),
        BenchError::Model(_) | BenchError::Data(_) | BenchError::NoBench { .. } | BenchError::NoIds { .. } => true,
        BenchError::Io { .. } | BenchError::Page(_) => false,
    }
}

fn is_of_the_table(error: &TableError) -> bool {
    matches!(error, TableError::Read(_) | TableError::OtherTable { .. })
}

/// Not the disk, but what was to be exported.
fn is_of_the_export(error: &ExportError) -> bool {
    match error {
        ExportError::NothingDecided { .. } => true,
        ExportError::Versions(error) => matches!(error, VersionsError::Line { .. } | VersionsError::Busy { .. }),
        ExportError::Dataset(_) => false,
    }
}

/// The stored votes are what is not usable, and not the disk.
fn is_of_the_votes(error: &StoreError) -> bool {
    !matches!(error, StoreError::Io { .. } | StoreError::Sqlite { .. })
}

fn is_input(error: &GenerateError) -> bool {
    match error {
        GenerateError::Engine(error) => !matches!(error, EngineError::Tensor(_)),
        GenerateError::Prompt(_) | GenerateError::TooLarge { .. } => true,
        GenerateError::Store(_) => false,
    }
}

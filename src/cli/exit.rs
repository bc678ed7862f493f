//! From a result to the message and the exit code. Knows every error type's meaning; nothing of how errors come about.

use std::process::ExitCode;

use super::models::NonFiniteWeights;
use crate::bench::BenchError;
use crate::bundle::BundleError;
use crate::data::DataError;
use crate::engine::EngineError;
use crate::generate::{Ending, GenerateError, LineError, RequestError, SystemPromptError, TextModelError};
use crate::journal::JournalError;
use crate::judge::RubricError;
use crate::ops::DeviceError;
use crate::provenance::ProvenanceError;
use crate::registry::RegistryError;
use crate::run::RunError;

/// Something the user asked for in a way that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_USABLE: u8 = 3;
const INTERRUPTED: u8 = 130;

/// Prints an error as one message (what, got, expected, hint) and gives the documented code.
pub(super) fn code(result: anyhow::Result<Ending>) -> ExitCode {
    match result {
        Ok(Ending::Completed) => ExitCode::SUCCESS,
        Ok(Ending::Interrupted) => {
            eprintln!("interrupted: what was done is kept; the same command goes on from there");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            if is_closed_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            eprintln!("error: {error:#}");
            ExitCode::from(code_of(&error))
        }
    }
}

/// The reader of stdout went away, as `head` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<UsageError>() {
        return USAGE;
    }
    let not_usable = error.is::<DataError>()
        || error.is::<TextModelError>()
        || error.is::<RequestError>()
        || error.downcast_ref::<LineError>().is_some_and(|error| !matches!(error, LineError::Io { .. }))
        || error.is::<RubricError>()
        || error.is::<SystemPromptError>()
        || error.is::<DeviceError>()
        || error.is::<JournalError>()
        || error.is::<ProvenanceError>()
        || error.is::<RegistryError>()
        || error.is::<NonFiniteWeights>()
        || error.downcast_ref::<BundleError>().is_some_and(|error| !error.is_of_the_machine())
        || error.downcast_ref::<GenerateError>().is_some_and(is_input)
        || error.downcast_ref::<BenchError>().is_some_and(|error| match error {
            BenchError::Model(_) => true,
            BenchError::Engine(error) => !matches!(error, EngineError::Tensor(_)),
        });
    let run = error.downcast_ref::<RunError>().is_some_and(|error| match error {
        RunError::Io { .. } | RunError::Dataset(_) => false,
        RunError::Generate(error) => is_input(error),
        _ => true,
    });
    if not_usable || run { NOT_USABLE } else { FAILED }
}

fn is_input(error: &GenerateError) -> bool {
    match error {
        GenerateError::Engine(error) => !matches!(error, EngineError::Tensor(_)),
        GenerateError::Prompt(_) => true,
        GenerateError::Store(_) => false,
    }
}

//! `pairwright bench engine`: the engine's speed on this machine, as one JSON line.
//! Knows flags; the measurement is in [`crate::bench`].

use std::io::Write;
use std::path::PathBuf;

use super::arguments::EngineArgs;
use super::settings;
use crate::bench::engine::{self, Workload};
use crate::generate::Ending;
use crate::model::LoadOptions;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// N sequences of P prompt and G output tokens, all given at once; ends in one JSON line on stdout
    Engine(EngineBench),
}

/// Arguments of `bench engine`.
#[derive(Debug, clap::Args)]
pub(super) struct EngineBench {
    /// Model directory or GGUF file; with --weights dummy only its configuration is read
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Sequences, all queued before the clock starts
    #[arg(long, default_value_t = 32)]
    sequences: usize,
    /// Tokens per prompt
    #[arg(long, default_value_t = 128)]
    prompt_len: usize,
    /// Tokens generated per sequence
    #[arg(long, default_value_t = 128)]
    output_len: usize,
    /// Whole jobs timed, after one for warming up; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seed of dummy weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the measurement.
pub(super) fn run(command: Command) -> anyhow::Result<Ending> {
    let Command::Engine(args) = command;
    args.engine.start_threads()?;
    let load = LoadOptions {
        compute: args.engine.compute()?,
        weights: args.engine.weights(args.seed),
        max_len: args.engine.max_len(),
    };
    if let Some(line) = settings::quantize_note(&args.model, &load.compute)? {
        writeln!(std::io::stderr(), "{line}")?;
    }
    let workload = Workload {
        sequences: args.sequences,
        prompt_len: args.prompt_len,
        output_len: args.output_len,
        runs: args.runs.max(1),
    };
    let report = engine::run(&args.model, &load, &args.engine.engine_options(), workload)?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(Ending::Completed)
}

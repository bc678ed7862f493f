//! The command line: one file per subcommand, arguments and `run()`, nothing else. stdout is for data, stderr for people.
//! Knows clap, the terminal and the exit codes; all work is done by the modules it calls.

mod annotate;
mod arguments;
mod bench;
mod bundle;
mod calibrate;
mod doctor;
mod engine_flags;
mod exit;
mod export;
mod generate;
mod import;
mod job;
mod judge;
mod languages;
mod lid;
mod make;
mod merge;
mod models;
mod pair;
mod plan;
mod progress;
mod publish;
mod pull;
mod push_argilla;
mod report;
mod score;
mod settings;
mod shard;
mod shell;
mod slurm;
mod stages;
mod status;
mod stop;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::hub;

/// What `--help` says after the commands.
const AFTER_HELP: &str = "\
Exit codes: 0 done · 1 failed · 2 usage · 3 input, model or run not usable · \
75 stopped early (run again to resume) · 130 ended at once

Try it without any download:
  pairwright make --demo --out runs/demo";

/// Preference datasets for any language, made on your own hardware: prompts with human answers in, second answers and ratings
/// by local models, a DPO/ORPO dataset out. Nothing is sent anywhere but by `publish` and `push-argilla`.
#[derive(Debug, Parser)]
#[command(name = "pairwright", version, after_help = AFTER_HELP, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole job: prompts → second answers → ratings → dataset
    Make(Box<make::Args>),
    /// What a run will take, before it is made: tokens, memory, GPU hours, disk, price, people's time, licences, risks
    Plan(Box<plan::Args>),
    /// Answers alone: the first stage of a run, or a JSONL file in and out
    Generate(Box<generate::Args>),
    /// Ratings alone: the second stage of a run
    Judge(Box<judge::Args>),
    /// A reward model's scores of dialogues or pairs: a JSONL file in and out
    Score(Box<score::Args>),
    /// The dataset alone: the last stage of a run, for example with another margin
    Pair(pair::Args),
    /// The dataset with people's votes: where enough people voted their majority decides, elsewhere the judge; each time a version
    Export(export::Args),
    /// What people answered in Argilla or Label Studio, as votes
    Import(import::Args),
    /// The judge's aspect weights and margin against people's votes, and what they gain on prompts that they were not fitted to
    Calibrate(calibrate::Args),
    /// One run of the shards that `make --shard` made on several devices or machines
    Merge(merge::Args),
    /// A job script for Slurm: shards as an array, and the merge behind them
    Slurm(slurm::Args),
    /// The languages of a prompt file: names, codes, rows; without a file, every language of Aya and what there is for it
    Languages(languages::Args),
    /// What a run looks like: one page for a browser, with charts and rows to read, and the numbers as JSON
    Report(report::Args),
    /// People say which answers are better: on a page in a browser, alone or many at once, or in a file on a phone without a network
    #[command(subcommand)]
    Annotate(annotate::Command),
    /// Which language a text is in, and profiles that tell languages apart
    #[command(subcommand)]
    Lid(lid::Command),
    /// How far a run is, or its shards
    Status(status::Args),
    /// Models that one may get, and whether one that is here is whole
    #[command(subcommand)]
    Models(models::Command),
    #[command(about = format!("A model or a dataset from the Hugging Face Hub{}", hub::HELP_NOTE))]
    Pull(pull::Args),
    #[command(about = format!("A run's dataset onto the Hugging Face Hub{}", hub::HELP_NOTE))]
    Publish(publish::Args),
    #[command(name = "push-argilla", about = format!("A run's items onto an Argilla server{}", hub::HELP_NOTE))]
    PushArgilla(Box<push_argilla::Args>),
    /// Models, prompts and the program for a machine without a network: make, check and install them
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Which model for which language: figures with intervals from prompts with human answers; also this machine's speed
    Bench(Box<bench::Args>),
    /// Whether this machine computes what it should, and how fast: before hours of it are spent
    Doctor(doctor::Args),
}

/// A line for people, on stderr. If nobody reads it any more, the work goes on.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs the command line; the exit code is documented in `--help`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Make(args) => make::run(*args),
        Command::Plan(args) => plan::run(*args),
        Command::Generate(args) => generate::run(*args),
        Command::Judge(args) => judge::run(*args),
        Command::Score(args) => score::run(&args),
        Command::Pair(args) => pair::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Slurm(args) => slurm::run(&args),
        Command::Languages(args) => languages::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Annotate(command) => annotate::run(command),
        Command::Lid(command) => lid::run(&command),
        Command::Status(args) => status::run(&args),
        Command::Models(command) => models::run(&command),
        Command::Pull(args) => pull::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::PushArgilla(args) => push_argilla::run(&args),
        Command::Bundle(command) => bundle::run(&command),
        Command::Bench(args) => bench::run(*args),
        Command::Doctor(args) => doctor::run(args),
    };
    exit::code(result)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    /// Commands in the README's shell blocks and in all help texts, a line each.
    fn documented() -> Vec<String> {
        fn helps(command: &clap::Command, into: &mut Vec<String>) {
            let said = [command.get_after_help(), command.get_after_long_help(), command.get_long_about()];
            into.extend(said.into_iter().flatten().map(ToString::to_string));
            command.get_subcommands().for_each(|child| helps(child, into));
        }
        let readme = include_str!("../../README.md");
        let mut texts: Vec<String> =
            readme.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect();
        helps(&Cli::command(), &mut texts);
        let lines =
            texts.iter().flat_map(|text| text.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>());
        let command = |line: String| {
            let start = line.trim_start().trim_start_matches("./").trim_start_matches("HF_TOKEN=… ");
            start
                .starts_with("pairwright ")
                .then(|| start.split([';', '|', '>']).next().unwrap().split(" #").next().unwrap().to_owned())
        };
        lines.filter_map(command).collect()
    }

    #[test]
    fn what_documents_tell_to_type_is_understood() {
        let documented = documented();
        assert!(documented.len() > 50, "{documented:#?}");
        for line in documented {
            let words = line.split_whitespace().filter(|word| *word != "…").map(|word| word.trim_matches('\''));
            match Cli::try_parse_from(words).map(|cli| cli.command) {
                Ok(Command::Slurm(args)) => args.check().unwrap_or_else(|error| panic!("{line}\n{error}")),
                Ok(Command::Plan(args)) => args.check().unwrap_or_else(|error| panic!("{line}\n{error}")),
                Ok(_) => {}
                // A part of a line that stands above it.
                Err(error) if line.contains('…') && error.kind() == ErrorKind::MissingRequiredArgument => {}
                Err(error) => panic!("{line}\n{error}"),
            }
        }
    }
}

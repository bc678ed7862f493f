//! `pairwright bench`: models in languages, and, as subcommands, what is made of that, and speed on this machine: a table on stderr for
//! people, one JSON line on stdout for everything else. Knows flags and the tables' layout; the measurements are in [`crate::bench`].

mod compare;
mod languages;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};

use super::arguments::{self, EngineArgs, above_zero, positive};
use super::{exit, progress, settings, stages, stop};
use crate::bench::engine::{self, EngineReport, Workload};
use crate::bench::judge::{self, JudgeReport, JudgeWorkload};
use crate::bench::steady::{self, SteadyReport};
use crate::generate::Ending;
use crate::model::LoadOptions;

/// Arguments of `bench`: models in languages, or a subcommand.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    languages: languages::Args,
}

/// What to measure.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The page of a bench of models in languages, with Markdown and CSV
    Report(report::Args),
    /// Two models of a bench on the same prompts, language by language: is the difference more than chance?
    Compare(compare::Args),
    /// N sequences of P prompt and G output tokens, all given at once; ends in one JSON line on stdout
    Engine(EngineBench),
    /// Pairs of answers rated on several aspects, beside the same without prefix reuse and with decoded ratings
    Judge(JudgeBench),
}

/// Arguments of `bench engine`.
#[derive(Debug, clap::Args)]
struct EngineBench {
    #[command(flatten)]
    model: ModelArgs,
    /// Sequences, all queued before the clock starts
    #[arg(long, default_value_t = 32, value_parser = positive)]
    sequences: usize,
    /// Tokens per prompt
    #[arg(long, default_value_t = 128, value_parser = positive)]
    prompt_len: usize,
    /// Tokens generated per sequence; 1: prefill alone
    #[arg(long, default_value_t = 128, value_parser = positive)]
    output_len: usize,
    /// Tokens at the beginning that all prompts of a job share; with them the prefix cache is on
    #[arg(long, default_value_t = 0)]
    shared_prefix: usize,
    /// In turn with a job of ragged output lengths, G/8 to 4 G and many more short than long, of the same total
    #[arg(long)]
    ragged: bool,
    /// Whole jobs timed, after one for warming up; the median counts
    #[arg(long, default_value_t = 3, value_parser = positive)]
    runs: usize,
    /// Instead feed sequences for this many minutes, and tell whether memory or the cost of a sequence grew
    #[arg(long, value_name = "M", value_parser = above_zero, conflicts_with_all = ["runs", "shared_prefix"])]
    minutes: Option<f32>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Arguments of `bench judge`.
#[derive(Debug, clap::Args)]
struct JudgeBench {
    #[command(flatten)]
    model: ModelArgs,
    /// Pairs of answers, each to a prompt of its own
    #[arg(long, default_value_t = 200, value_parser = positive)]
    pairs: usize,
    /// Questions about each answer
    #[arg(long, default_value_t = 5, value_parser = positive)]
    aspects: usize,
    /// Tokens of the rubric, which stands before every prompt
    #[arg(long, default_value_t = 900, value_parser = positive)]
    rubric_len: usize,
    /// Tokens per prompt
    #[arg(long, default_value_t = 100, value_parser = positive)]
    prompt_len: usize,
    /// Tokens per answer
    #[arg(long, default_value_t = 350, value_parser = positive)]
    answer_len: usize,
    /// Tokens of an aspect's question
    #[arg(long, default_value_t = 30, value_parser = positive)]
    question_len: usize,
    /// Tokens of a decoded rating; a rating of one token is always timed too
    #[arg(long, default_value_t = 16, value_parser = positive)]
    rating_tokens: usize,
    /// Pairs for the ways without prefix reuse, whose time per pair is compared
    #[arg(long, default_value_t = 8, value_parser = positive)]
    baseline_pairs: usize,
    /// Times each way is timed, in turn; the median counts
    #[arg(long, default_value_t = 3, value_parser = positive)]
    runs: usize,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Which model.
#[derive(Debug, clap::Args)]
struct ModelArgs {
    /// Model directory or GGUF file; with --weights dummy only its configuration is read
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Seed of dummy weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Runs the measurement.
pub(super) fn run(args: Args) -> anyhow::Result<Ending> {
    let (json, table) = match args.command {
        None => return languages::run(args.languages),
        Some(Command::Report(args)) => return report::run(&args),
        Some(Command::Compare(args)) => return compare::run(&args),
        Some(Command::Engine(args)) => run_engine(&args)?,
        Some(Command::Judge(args)) => run_judge(&args)?,
    };
    write!(std::io::stderr(), "{table}")?;
    writeln!(std::io::stdout(), "{json}")?;
    Ok(Ending::Completed)
}

/// Threads, device and weights.
fn load_options(model: &ModelArgs, engine: &EngineArgs) -> anyhow::Result<LoadOptions> {
    engine.start_threads()?;
    engine.check_one_device()?;
    let load =
        LoadOptions { compute: engine.compute()?, weights: engine.weights(model.seed), max_len: engine.max_len() };
    if let Some(line) = settings::quantize_note(&model.model, &load.compute)? {
        writeln!(std::io::stderr(), "{line}")?;
    }
    Ok(load)
}

fn run_engine(args: &EngineBench) -> anyhow::Result<(String, String)> {
    let load = load_options(&args.model, &args.engine)?;
    let (path, options): (&Path, _) = (&args.model.model, args.engine.engine_options(&load.compute));
    let workload = Workload {
        sequences: args.sequences,
        prompt_len: args.prompt_len,
        output_len: args.output_len,
        runs: args.runs,
        shared_prefix: args.shared_prefix,
        with_ragged: args.ragged,
    };
    if let Some(minutes) = args.minutes {
        let report = steady::run(path, &load, &options, workload, f64::from(minutes))?;
        return Ok((serde_json::to_string(&report)?, steady_table(&report)));
    }
    let report = engine::run(path, &load, &options, workload)?;
    Ok((serde_json::to_string(&report)?, engine_table(&report)))
}

fn run_judge(args: &JudgeBench) -> anyhow::Result<(String, String)> {
    let load = load_options(&args.model, &args.engine)?;
    let workload = JudgeWorkload {
        pairs: args.pairs,
        aspects: args.aspects,
        rubric_len: args.rubric_len,
        prompt_len: args.prompt_len,
        answer_len: args.answer_len,
        question_len: args.question_len,
        rating_tokens: args.rating_tokens,
        baseline_pairs: args.baseline_pairs,
        runs: args.runs,
    };
    let report = judge::run(&args.model.model, &load, &args.engine.engine_options(&load.compute), workload)?;
    Ok((serde_json::to_string(&report)?, judge_table(&report)))
}

fn engine_table(report: &EngineReport) -> String {
    let ragged = report.ragged.map(|ragged| ragged.figures.rows());
    let head = if ragged.is_some() { vec!["", "uniform", "ragged"] } else { vec!["", "median"] };
    let mut rows = vec![head.into_iter().map(str::to_owned).collect()];
    for (index, (name, value)) in report.figures.rows().into_iter().enumerate() {
        let ragged = ragged.as_ref().map(|ragged| ragged[index].1.clone());
        rows.push([name.to_owned(), value].into_iter().chain(ragged).collect());
    }
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    if let Some(share) = report.ragged_share_of_uniform {
        row("ragged, of uniform", format!("{:.1} %", 100.0 * share));
    }
    row("product peak", format!("{:.1} GFLOP/s", report.machine.gemm_gflop_s));
    row("read peak", format!("{:.1} GB/s", report.machine.read_gb_s));
    row("weights read", format!("{:.2} s", report.setup.load_s));
    row("first step's end", format!("{:.2} s", report.first_step_s));
    row("memory, peak", mib(report.peak_rss_mib));
    aligned(&rows)
}

fn steady_table(report: &SteadyReport) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("minutes", format!("{:.2}", report.minutes));
    row("sequences", report.sequences.to_string());
    row("output tokens/s", format!("{:.1}", report.output_tokens_per_s));
    row("in the first tenth", format!("{:.1}", report.first_tenth_tokens_per_s));
    row("in the last tenth", format!("{:.1}", report.last_tenth_tokens_per_s));
    row("last of first", format!("{:.1} %", 100.0 * report.last_share_of_first));
    row("batch occupancy", format!("{:.1} %", 100.0 * report.batch_occupancy));
    row("preemptions", report.preemptions.to_string());
    row("memory at the start", mib(report.rss_start_mib));
    row("memory when warm", mib(report.rss_warm_mib));
    row("memory at the end", mib(report.rss_end_mib));
    row("growth after the first tenth", mib(report.rss_growth_mib));
    aligned(&rows)
}

fn judge_table(report: &JudgeReport) -> String {
    let head = ["", "pairs", "pairs/s", "s/pair", "tokens computed", "reused", "decoded", "ours is faster by"];
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
    let decoded = format!("no reuse, {} tokens decoded", report.workload.rating_tokens);
    for (name, way, ratio) in [
        ("ours: prefix cache, scores", &report.ours, 1.0),
        (decoded.as_str(), &report.decoded_without_reuse, report.ratio_to_decoded),
        ("no reuse, 1 token decoded", &report.one_token_without_reuse, report.ratio_to_one_token),
        ("no reuse, scores", &report.scores_without_reuse, report.ratio_to_scores),
    ] {
        let counts = [way.prefill_tokens, way.reused_tokens, way.decode_tokens].map(|count| count.to_string());
        let mut row = vec![name.to_owned(), way.pairs.to_string()];
        row.extend([way.pairs_per_s, way.s_per_pair].map(|number| format!("{number:.3}")));
        row.extend(counts);
        row.push(format!("{ratio:.2} x"));
        rows.push(row);
    }
    let said = "times are per pair: the ways without reuse were timed on fewer pairs";
    format!("{}{said}\n", aligned(&rows))
}

/// A line for other programs.
fn print_line(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

fn mib(value: Option<f64>) -> String {
    value.map_or_else(|| "not told by this system".to_owned(), |mib| format!("{mib:.1} MiB"))
}

/// Columns under one another: the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let cell = if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            text.push_str(gap);
            text.push_str(&cell);
        }
        text.push('\n');
    }
    text
}

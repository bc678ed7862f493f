//! `pairwright plan`: what `make` with the same flags will take, before it is made; no GPU, and headers of models alone.
//! Knows flags and where the plan goes; what it says is [`crate::plan`]'s.

mod gather;
mod markdown;
mod text;
mod words;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;

use super::exit::UsageError;
use super::job::JobArgs;
use super::models::RegistryArgs;
use super::progress::OutputArgs;
use crate::demo;
use crate::generate::Ending;
use crate::plan::Plan;
use crate::provenance::write_atomic;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A model is a folder or GGUF file as for `make`, or a name of `pairwright models list`: then token counts are estimates.\n\
                  Exit code 1: it cannot be made as asked; the plan says what would help.\n\nExample:\n  pairwright plan --prompts aya.parquet \
                  --language Dutch --generator models/writer --judge models/rater \\\n    --card H100 --hours 4 --markdown > plan.md"
)]
pub(super) struct Args {
    #[command(flatten)]
    job: JobArgs,
    /// Folder that the run will have: its date counts for templates, and --save puts the plan there; nothing else is written
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep the plan as JSON, by default as plan.json in --out, where `report` holds it against what the run took
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    save: Option<Option<PathBuf>>,
    /// Load the models and time the engine on the run's own requests for this long each, such as 60s, on this machine
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Machine")]
    measure: Option<Duration>,
    /// Card to plan for, by its name; may be given several times [default: all of the list; none with --device cpu]
    #[arg(long, value_name = "NAME", help_heading = "Machine")]
    card: Vec<String>,
    /// Time limit of a task: how many tasks an array needs [default: --time-budget, or until --deadline]
    #[arg(long, value_name = "H", value_parser = above_zero, help_heading = "Machine")]
    hours: Option<f64>,
    /// Share added to all hours
    #[arg(long, value_name = "SHARE", default_value_t = 0.15, value_parser = not_negative, help_heading = "Machine")]
    reserve: f64,
    /// Power that a card draws, in watts [default: the most that its maker states]
    #[arg(long, value_name = "W", value_parser = above_zero, help_heading = "Cost")]
    watts: Option<f64>,
    /// Price of an hour of a card
    #[arg(long, value_name = "P", value_parser = not_negative, help_heading = "Cost")]
    price_per_gpu_hour: Option<f64>,
    /// Price of a kilowatt-hour
    #[arg(long, value_name = "P", value_parser = not_negative, help_heading = "Cost")]
    price_per_kwh: Option<f64>,
    /// What prices are in
    #[arg(long, value_name = "NAME", default_value = "EUR", help_heading = "Cost")]
    currency: String,
    /// Prompts whose answers people compare [default: all rows]
    #[arg(long, value_name = "N", help_heading = "People")]
    annotate: Option<u64>,
    /// Seconds that a person needs for a vote (a guess: `annotate` measures it)
    #[arg(long, value_name = "S", default_value_t = 45.0, value_parser = above_zero, help_heading = "People")]
    seconds_per_vote: f64,
    /// People who see each prompt
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100), help_heading = "People")]
    overlap: u32,
    /// Markdown instead of text, to paste into an application
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[cfg(test)]
impl Args {
    /// Whether all cards are on the list.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let registry = self.registry.read()?;
        self.card.iter().try_for_each(|name| Ok(registry.card(name).map(drop)?))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().filter(|duration| *duration > SignedDuration::ZERO);
    parsed.and_then(|duration| duration.try_into().ok()).ok_or_else(|| "want a duration such as 60s or 5m".to_owned())
}

fn number(text: &str, fits: impl Fn(f64) -> bool, want: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && fits(*number)).ok_or_else(|| format!("want {want}"))
}

fn above_zero(text: &str) -> Result<f64, String> {
    number(text, |number| number > 0.0, "a number above 0")
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |number| number >= 0.0, "a number, 0 or more")
}

/// The run cannot be made as asked.
#[derive(Debug, thiserror::Error)]
#[error("this run cannot be made as asked: {0}")]
struct CannotBeMade(String);

/// Plans, and says it in one form.
pub(super) fn run(mut args: Args) -> anyhow::Result<Ending> {
    args.job.engine.start_threads()?;
    args.job.pair.check()?;
    let demo = args.job.demo.then(demo::write_temporary).transpose()?;
    if let Some(folder) = &demo {
        args.job.use_demo(folder.path());
    }
    let args = &args;
    let plan = gather::plan(args)?;
    let json = serde_json::to_string_pretty(&plan)?;
    if let Some(path) = save_path(args)? {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        write_atomic(&path, json.as_bytes())?;
        args.output.say(&format!("plan      {}", path.display()));
    }
    let mut out = std::io::stdout().lock();
    match (args.output.json, args.markdown) {
        (true, _) => writeln!(out, "{json}")?,
        (false, true) => write!(out, "{}", markdown::markdown(&plan, &args.currency))?,
        (false, false) => write!(out, "{}", text::text(&plan, &args.currency))?,
    }
    outcome(&plan)
}

fn outcome(plan: &Plan) -> anyhow::Result<Ending> {
    match plan.fits {
        true => Ok(Ending::Completed),
        false => Err(CannotBeMade(plan.what_would.join("; ")).into()),
    }
}

/// Where the plan is kept, if it is.
fn save_path(args: &Args) -> anyhow::Result<Option<PathBuf>> {
    match (&args.save, &args.out) {
        (None, _) => Ok(None),
        (Some(Some(path)), _) => Ok(Some(path.clone())),
        (Some(None), Some(out)) => Ok(Some(args.job.shard.run_dir(out)?.plan())),
        (Some(None), None) => {
            Err(UsageError("--save does not say where\nhint: give it a file, or give --out DIR".to_owned()).into())
        }
    }
}

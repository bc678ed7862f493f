//! `pairwright slurm … -- make …`: prints a job script for Slurm, an array with a task for each shard and the merge behind it.
//! Knows flags and Slurm's words; submits nothing, and runs nothing.

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;

use super::exit::UsageError;
use super::{Cli, Command, make, settings, shell};
use crate::generate::Ending;
use crate::shard::{MAX_SHARDS, Shard};

/// The script below its head; what is between @ signs is filled in.
const SCRIPT: &str = include_str!("slurm.sh");

/// Arguments of `slurm`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pairwright slurm --gpus 16 --hours 4 --partition gpu --cpus 8 --mem 64G -- make --prompts aya.parquet \\\n    \
                        --language Dutch --generator models/writer --judge models/rater --out runs/nl > job.sbatch\n  bash job.sbatch"
)]
pub(super) struct Args {
    /// GPUs: as many tasks, each with one and a share of the rows
    #[arg(long, value_name = "N", value_parser = num_tasks, required_unless_present = "tasks", conflicts_with = "tasks")]
    gpus: Option<u32>,
    /// Tasks without a GPU, each with a share of the rows
    #[arg(long, value_name = "N", value_parser = num_tasks)]
    tasks: Option<u32>,
    /// Longest time of a task, such as 4 or 0.5. One that is not done by then stops in time and is queued again, as often as needed
    #[arg(long, value_name = "T", value_parser = minutes)]
    hours: u64,
    /// Partition of the tasks
    #[arg(long, value_name = "P", value_parser = plain)]
    partition: Option<String>,
    /// Partition of the merge, which needs no GPU [default: that of the tasks]
    #[arg(long, value_name = "P", value_parser = plain)]
    merge_partition: Option<String>,
    /// Account
    #[arg(long, value_name = "A", value_parser = plain)]
    account: Option<String>,
    /// Cores of a task
    #[arg(long, value_name = "C", value_parser = num_tasks)]
    cpus: Option<u32>,
    /// Memory of a task, such as 64G
    #[arg(long, value_name = "M", value_parser = plain)]
    mem: Option<String>,
    /// Name of the job and of its logs
    #[arg(long, value_name = "NAME", default_value = "pairwright", value_parser = plain)]
    job_name: String,
    /// A further option of the tasks, such as --sbatch=--constraint=a100; may be given several times
    #[arg(long, value_name = "OPTION", value_parser = plain, allow_hyphen_values = true)]
    sbatch: Vec<String>,
    /// Apptainer image that has the program (scripts/pairwright.def makes one) [default: this program, where it lies]
    #[arg(long, value_name = "FILE.sif")]
    container: Option<PathBuf>,
    /// `make` and its arguments, without --shard
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn num_tasks(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(number) if (1..=MAX_SHARDS).contains(&number) => Ok(number),
        _ => Err(format!("want a whole number from 1 to {MAX_SHARDS}")),
    }
}

/// Hours as whole minutes, which is what Slurm counts.
fn minutes(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(hours) if hours > 0.0 && hours <= 24.0 * 365.0 => Ok((hours * 60.0).ceil() as u64),
        _ => Err("want hours such as 4 or 0.5".to_owned()),
    }
}

fn time(minutes: u64) -> String {
    format!("--time={}:{:02}:00", minutes / 60, minutes % 60)
}

/// A value in a line of #SBATCH, which no shell reads: whatever Slurm might take for more than a value is refused.
fn plain(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%&|*[]()".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("want letters, digits and _-./:=,+@%&|*[]() alone".to_owned()),
    }
}

#[cfg(test)]
impl Args {
    /// Whether the task's command would be understood.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        parse_make(&self.command).map(drop)
    }
}

/// Prints the script.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let make = parse_make(&args.command)?;
    if make.job.shard.shard.is_some() {
        return Err(UsageError("the script gives --shard to each task\nhint: leave it out".to_owned()).into());
    }
    write!(std::io::stdout(), "{}", script(args, &make)?)?;
    Ok(Ending::Completed)
}

/// Reads the arguments as the task will, so that a slip shows now and not after a night in the queue.
fn parse_make(words: &[String]) -> anyhow::Result<make::Args> {
    let parsed = Cli::try_parse_from(std::iter::once("pairwright").chain(words.iter().map(String::as_str)));
    match parsed {
        Ok(Cli { command: Command::Make(make) }) => Ok(*make),
        Ok(_) => Err(UsageError("what follows -- is not `make`\nhint: pairwright slurm … -- make …".to_owned()).into()),
        Err(error) => {
            let said = error.render().to_string();
            let said = said.strip_prefix("error: ").unwrap_or(&said).trim_end();
            let message = format!("what follows -- is not understood: {said}\nhint: pairwright make --help");
            Err(UsageError(message).into())
        }
    }
}

fn script(args: &Args, make: &make::Args) -> anyhow::Result<String> {
    let num_shards = args.gpus.or(args.tasks).unwrap_or(1);
    let last = Shard::new(num_shards - 1, num_shards).map_or(0, Shard::index);
    let mut head = vec![format!("--job-name={}", args.job_name), format!("--array=0-{last}"), "--ntasks=1".to_owned()];
    let options = [("partition", &args.partition), ("account", &args.account), ("mem", &args.mem)];
    head.extend(args.cpus.map(|cores| format!("--cpus-per-task={cores}")));
    head.extend(options.iter().filter_map(|(name, value)| Some(format!("--{name}={}", value.as_ref()?))));
    head.extend(args.gpus.map(|_| "--gres=gpu:1".to_owned()));
    head.push(time(args.hours));
    head.extend(["--signal=B:USR1@120", "--requeue", "--open-mode=append"].map(str::to_owned));
    head.push(format!("--output={}-%A_%a.log", args.job_name));
    head.extend(args.sbatch.iter().cloned());
    let head: String = head.iter().map(|line| format!("#SBATCH {line}\n")).collect();

    let mut program = Vec::new();
    match &args.container {
        Some(image) => {
            program.extend(["apptainer", "exec"].map(str::to_owned));
            program.extend(args.gpus.map(|_| "--nv".to_owned()));
            program.extend([image.to_string_lossy().into_owned(), "pairwright".to_owned()]);
        }
        None => program.push(std::env::current_exe()?.to_string_lossy().into_owned()),
    }
    let mut command = args.command.clone();
    if args.gpus.is_some() && make.job.engine.has_no_device() {
        // A task that was given a card must not fall back on the processor.
        command.extend(["--device", "cuda"].map(str::to_owned));
    }
    let words = |words: &[String]| shell::join(words.iter().map(String::as_str));
    let out = make.out.to_string_lossy().into_owned();
    let merge = [&program[..], &["merge".to_owned(), out.clone()]].concat();
    let mut merge_options = vec![format!("--job-name={}-merge", args.job_name), time(args.hours.min(60))];
    merge_options.push(format!("--output={}-%j-merge.log", args.job_name));
    let partition = args.merge_partition.as_ref().or(args.partition.as_ref());
    merge_options.extend(partition.map(|name| format!("--partition={name}")));
    merge_options.extend(args.account.as_ref().map(|name| format!("--account={name}")));
    let fields = [
        ("@VERSION@", env!("CARGO_PKG_VERSION").to_owned()),
        ("@HEAD@", head),
        ("@DATE@", settings::date(None)?.to_string()),
        ("@NUM_SHARDS@", num_shards.to_string()),
        ("@PROGRAM@", words(&program)),
        ("@MERGE_OPTIONS@", words(&merge_options)),
        ("@LOG@", shell::quote(&args.job_name)),
        ("@MERGE@", shell::quote(&words(&merge))),
        ("@OUT@", shell::quote(&out)),
        ("@ARGUMENTS@", words(&command)),
    ];
    Ok(fill(SCRIPT, &fields))
}

/// Puts each field's value in the place of its name, in one pass: a value is never looked at again.
fn fill(template: &str, fields: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('@') {
        let field = fields.iter().find_map(|(name, value)| Some((value, behind.strip_prefix(name.get(1..)?)?)));
        text.push_str(before);
        match field {
            Some((value, after)) => {
                text.push_str(value);
                rest = after;
            }
            None => {
                text.push('@');
                rest = behind;
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_filled_in_again() {
        let fields = [("@A@", "@B@".to_owned()), ("@B@", "b".to_owned())];
        assert_eq!(fill("x@A@y@B@ B:USR1@120 ${a[@]}", &fields), "x@B@yb B:USR1@120 ${a[@]}");
    }

    #[test]
    fn times_are_rounded_up_to_minutes() {
        assert_eq!(["4", "0.5", "0.001", "47.99"].map(|text| minutes(text).unwrap()), [240, 30, 1, 2880]);
        for wrong in ["0", "-1", "4h", "nan", "inf", ""] {
            assert!(minutes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_for_slurm_hold_no_second_option() {
        for wrong in ["", "a b", "a\n#SBATCH --x", "a#b", "'a'", "a\\"] {
            assert!(plain(wrong).is_err(), "{wrong:?}");
        }
    }
}

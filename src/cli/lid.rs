//! `pairwright lid`: which language a text is in, and profiles that say so.
//! Knows flags and the tables' layout; nothing of how a language is told.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::exit::UsageError;
use crate::cli::tell;
use crate::data::{ColumnMap, PromptRecord, ReadOptions, language, read_prompts};
use crate::generate::Ending;
use crate::provenance::write_atomic;
use crate::quality::{self, Labelled, Measured, Profile};

/// What can be done with languages of texts.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// A profile from the human answers of prompt tables, measured on answers that have no part in it
    Train(TrainArgs),
    /// How well a profile tells languages apart in tables that had no part in it
    Measure(MeasureArgs),
    /// The language of each line of a text
    Check(CheckArgs),
}

/// Arguments of `lid measure`.
#[derive(Debug, clap::Args)]
pub(super) struct MeasureArgs {
    /// Parquet, JSONL or CSV with answers and their languages; answers of at least 60 characters are measured
    #[arg(required = true)]
    prompts: Vec<PathBuf>,
    /// A profile in place of the program's own
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Columns by name, for example response=answer,language=lang
    #[arg(long, value_name = "KEY=COLUMN,…")]
    map: Option<String>,
    /// The figures as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Arguments of `lid train`.
#[derive(Debug, clap::Args)]
pub(super) struct TrainArgs {
    /// Parquet, JSONL or CSV with prompts, answers and languages. With several, each is held out in turn and measured by a profile
    /// of all others; one that ends in .test.jsonl is measured only
    #[arg(required = true)]
    prompts: Vec<PathBuf>,
    /// The profile
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Share of the answers that is held out and measured, where there is one table; the profile is made of the rest
    #[arg(long, default_value_t = 0.1)]
    holdout: f64,
    /// Columns by name, for example response=answer,language=lang
    #[arg(long, value_name = "KEY=COLUMN,…")]
    map: Option<String>,
    /// The figures as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Arguments of `lid check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// A text, a line of it at a time; - for stdin
    file: PathBuf,
    /// A profile in place of the program's own
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// A JSON object per line
    #[arg(long)]
    json: bool,
}

/// Runs a subcommand.
pub(super) fn run(command: &Command) -> anyhow::Result<Ending> {
    match command {
        Command::Train(args) => train(args),
        Command::Measure(args) => measure(args),
        Command::Check(args) => check(args),
    }
}

fn measure(args: &MeasureArgs) -> anyhow::Result<Ending> {
    let profile = profile_or_default(args.profile.as_deref())?;
    let options = ReadOptions { map: args.map.as_deref().map(ColumnMap::parse).transpose()?, ..ReadOptions::default() };
    let mut measured = Measured::default();
    for path in &args.prompts {
        measured.add(quality::measure(&profile, &labelled(&read_prompts(path, &options)?.records)));
    }
    if measured.languages.is_empty() {
        let message = "no answer of 60 characters in a language of the profile in these tables\nhint: columns that say the language \
                       are named with --map language=COLUMN";
        return Err(UsageError(message.to_owned()).into());
    }
    report(args.json, &profile, &measured, None)?;
    Ok(Ending::Completed)
}

/// The labelled answers of records whose language is known.
fn labelled(records: &[PromptRecord]) -> Vec<Labelled<'_>> {
    let label = |record: &PromptRecord| language::broad_code(&record.language, &record.language_code);
    records
        .iter()
        .filter_map(|record| Some(Labelled { code: label(record)?, text: record.response.as_deref()? }))
        .collect()
}

fn train(args: &TrainArgs) -> anyhow::Result<Ending> {
    if !(args.holdout > 0.0 && args.holdout < 1.0) {
        let message =
            format!("--holdout is {}, expected more than 0 and less than 1\nhint: try --holdout 0.1", args.holdout);
        return Err(UsageError(message).into());
    }
    let map = args.map.as_deref().map(ColumnMap::parse).transpose()?;
    let options = ReadOptions { map, ..ReadOptions::default() };
    let (mut tables, mut tests, mut sources) = (Vec::new(), Vec::new(), Vec::new());
    for path in &args.prompts {
        let read = read_prompts(path, &options)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_test = args.prompts.len() > 1 && name.ends_with(".test.jsonl");
        sources.push((name, read.source.sha256));
        if is_test { &mut tests } else { &mut tables }.push(read.records);
    }
    let tables: Vec<Vec<Labelled<'_>>> = tables.iter().map(|records| labelled(records)).collect();
    let tests: Vec<Labelled<'_>> = tests.iter().flat_map(|records| labelled(records)).collect();
    let num_answers: usize = tables.iter().map(Vec::len).sum();
    if num_answers == 0 {
        let message = "no answer in a known language in these tables\nhint: columns that say the \
                       language are named with --map language=COLUMN";
        return Err(UsageError(message.to_owned()).into());
    }
    let (all, measured, how) = match tables.as_slice() {
        [one] => {
            let (held, kept): (Vec<_>, Vec<_>) =
                one.iter().copied().partition(|answer| quality::hold_out(answer.text, args.holdout));
            let profile = quality::train(&kept, Vec::new(), &Measured::default(), "");
            let mut measured = quality::measure(&profile, &held);
            measured.add(quality::measure(&profile, &tests));
            (kept, measured, format!("a share of {} of the answers, which have no part in the profile", args.holdout))
        }
        several => {
            let all: Vec<Labelled<'_>> = several.iter().flatten().copied().collect();
            let mut measured = quality::cross_validate(several);
            let profile = quality::train(&all, Vec::new(), &Measured::default(), "");
            measured.add(quality::measure(&profile, &tests));
            (all, measured, "each table in turn, by a profile of the others".to_owned())
        }
    };
    let profile = quality::train(&all, sources, &measured, &how);
    let bytes = profile.encode();
    write_atomic(&args.output, &bytes)?;
    report(args.json, &profile, &measured, Some(bytes.len()))?;
    tell(&format!(
        "{}: {} languages from {num_answers} answers, {} bytes; held out: {how}",
        args.output.display(),
        profile.languages().len(),
        bytes.len()
    ));
    Ok(Ending::Completed)
}

/// The held-out figures: a line per language with what it was taken for, then the mean.
fn report(as_json: bool, profile: &Profile, measured: &Measured, size_bytes: Option<usize>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let macro_accuracy = measured.macro_accuracy();
    if as_json {
        let figures =
            json!({"languages": measured.languages, "macro_accuracy": macro_accuracy, "size_bytes": size_bytes});
        writeln!(out, "{figures}")?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<5} {:>9} {:>6} {:>9} {:>8} {:<9} taken for",
        "code", "letters", "texts", "accuracy", "vetoed", "validated"
    )?;
    for entry in profile.languages() {
        let found = measured.languages.get(&entry.code).cloned().unwrap_or_default();
        let share = |number: u64| match found.num_texts {
            0 => "-".to_owned(),
            texts => format!("{:.2} %", 100.0 * number as f64 / texts as f64),
        };
        let mut taken: Vec<(&String, &u64)> = found.taken_for.iter().collect();
        taken.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let taken: Vec<String> = taken.iter().take(5).map(|(code, number)| format!("{code} {number}")).collect();
        writeln!(
            out,
            "{:<5} {:>9} {:>6} {:>9} {:>8} {:<9} {}",
            entry.code,
            entry.num_letters,
            found.num_texts,
            share(found.num_correct),
            share(found.num_wrong_vetoes()),
            if entry.is_validated() { "yes" } else { "no" },
            taken.join(", ")
        )?;
    }
    if let Some(accuracy) = macro_accuracy {
        writeln!(out, "mean over {} languages: {:.2} %", measured.languages.len(), 100.0 * accuracy)?;
    }
    Ok(())
}

/// The profile in a file, or the program's own.
pub(super) fn profile_or_default(path: Option<&Path>) -> anyhow::Result<std::borrow::Cow<'static, Profile>> {
    Ok(match path {
        Some(path) => std::borrow::Cow::Owned(Profile::read(path)?),
        None => std::borrow::Cow::Borrowed(quality::default_profile()),
    })
}

fn check(args: &CheckArgs) -> anyhow::Result<Ending> {
    let profile = profile_or_default(args.profile.as_deref())?;
    let input: Box<dyn BufRead> = match args.file.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => {
            let failed = |error| UsageError(format!("cannot read {}: {error}", args.file.display()));
            Box::new(std::io::BufReader::new(std::fs::File::open(&args.file).map_err(failed)?))
        }
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in input.split(b'\n') {
        let line = line?;
        let text = String::from_utf8_lossy(&line);
        let found = profile.identify(text.trim_end_matches('\r'));
        *counts.entry(found.code.clone().unwrap_or_else(|| "?".to_owned())).or_default() += 1;
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&found)?)?;
        } else {
            let code = found.code.as_deref().unwrap_or("?");
            writeln!(out, "{code}\t{:.3}\t{}\t{text}", found.posterior, found.script.unwrap_or("-"))?;
        }
    }
    out.flush()?;
    let counted: Vec<String> = counts.iter().map(|(code, number)| format!("{code} {number}")).collect();
    tell(&counted.join(", "));
    Ok(Ending::Completed)
}

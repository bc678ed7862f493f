//! `pairwright languages`: what a prompt file holds; without one, every language of Aya and what there is for it.
//! Knows flags and tables' layout; nothing of file formats, and counts nothing but what runs have made.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::exit::UsageError;
use super::lid::profile_or_default;
use super::models::RegistryArgs;
use super::pair;
use crate::annotate::store::read_votes;
use crate::annotate::vote::current_votes;
use crate::coverage::{Coverage, CoverageRow, Local, LocalCounts};
use crate::data::language::AyaLanguages;
use crate::data::{ColumnMap, count_languages};
use crate::generate::Ending;
use crate::provenance::write_atomic;
use crate::run::{self, RunDir};

/// Arguments of `languages`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Parquet, JSONL or CSV, or a folder of Parquet files [default: all languages of Aya, and what there is for them]
    file: Option<PathBuf>,
    /// Columns by name, for example language=lang,prompt=question
    #[arg(long, value_name = "KEY=COLUMN,…", requires = "file")]
    map: Option<String>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    /// The overview as a page for a browser, in place of the table
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    html: Option<PathBuf>,
    /// Runs on this machine, or folders of runs: their pairs and votes stand beside each language
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with = "file")]
    local: Vec<PathBuf>,
    /// A profile (`pairwright lid train`) in place of the program's own identifier
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    profile: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Prints a line per language.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    match &args.file {
        Some(file) => of_file(args, file),
        None => overview(args),
    }
}

/// Rows, rows with an answer, code, name.
fn of_file(args: &Args, file: &Path) -> anyhow::Result<Ending> {
    let map = args.map.as_deref().map(ColumnMap::parse).transpose()?;
    let languages = count_languages(file, map.as_ref())?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&languages)?)?;
        return Ok(Ending::Completed);
    }
    writeln!(out, "{:>8}  {:>11}  {:<6}  language", "rows", "with answer", "code")?;
    for language in &languages {
        writeln!(
            out,
            "{:>8}  {:>11}  {:<6}  {}",
            language.num_rows, language.num_with_response, language.code, language.name
        )?;
    }
    Ok(Ending::Completed)
}

fn overview(args: &Args) -> anyhow::Result<Ending> {
    let profile = profile_or_default(args.profile.as_deref())?;
    let local = if args.local.is_empty() { None } else { Some(local_counts(&args.local)?) };
    let coverage = Coverage::of(&AyaLanguages::embedded()?, &args.registry.read()?, &profile, local.as_ref());
    if let Some(path) = &args.html {
        write_atomic(path, coverage.to_html()?.as_bytes())?;
        eprintln!("languages {}", path.display());
    }
    let mut out = std::io::stdout().lock();
    match (args.json, &args.html) {
        (true, _) => writeln!(out, "{}", serde_json::to_string_pretty(&coverage)?)?,
        (false, Some(_)) => {}
        (false, None) => table(&mut out, &coverage)?,
    }
    Ok(Ending::Completed)
}

fn table(out: &mut impl Write, coverage: &Coverage) -> std::io::Result<()> {
    let local = coverage.num_local_runs.map_or("", |_| "    pairs  votes");
    writeln!(
        out,
        "{:<24}  {:<4}  {:<4}  {:<4}  {:<3}  {:>8}  {:>10}  {:<4}  {:>6}  {:<10}{local}",
        "language", "code", "two", "in", "dir", "rows", "identified", "veto", "models", "preference"
    )?;
    for row in &coverage.languages {
        writeln!(out, "{}  {}", line(row), row.own_name)?;
    }
    let (rows, preference) = (&coverage.rows, &coverage.preference);
    writeln!(out, "\nrows: {} ({}, {}); ~ read off the chart", rows.what, rows.date, rows.source)?;
    writeln!(
        out,
        "preference: {} ({}, {}); - says nothing of later days",
        preference.what, preference.date, preference.source
    )?;
    writeln!(
        out,
        "identified: texts that had no part in the profile ({}); models: whose makers name it",
        coverage.identifier_measured
    )?;
    writeln!(out, "--html FILE makes a page of it, --json has all of it")
}

fn line(row: &CoverageRow) -> String {
    let known = row.identifier.as_ref();
    let accuracy = known
        .and_then(|known| known.accuracy)
        .map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", 100.0 * share));
    let veto = if known.is_some_and(|known| known.may_veto) { "yes" } else { "no" };
    let rows = if row.rows_exact { row.rows.to_string() } else { format!("~{}", row.rows) };
    let local = row.local.map_or_else(String::new, |local| format!("{:>9}  {:>5}", local.num_pairs, local.num_votes));
    format!(
        "{:<24}  {:<4}  {:<4}  {:<4}  {:<3}  {rows:>8}  {accuracy:>10}  {veto:<4}  {:>6}  {:<10}{local}",
        row.name,
        row.code,
        row.iso639_1.as_deref().unwrap_or("-"),
        row.scripts.first().map_or("-", String::as_str),
        row.direction,
        row.models.len(),
        if row.preference_listed { "listed" } else { "-" },
    )
}

/// What the runs in these folders, or right below them, have made. Nothing is written.
fn local_counts(folders: &[PathBuf]) -> anyhow::Result<LocalCounts> {
    let mut counts = LocalCounts::default();
    for folder in folders {
        let mut runs = Vec::new();
        if RunDir::new(folder).lock().exists() {
            runs.push(folder.clone());
        } else if let Ok(entries) = std::fs::read_dir(folder) {
            runs.extend(
                entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| RunDir::new(path).lock().exists()),
            );
            runs.sort();
        }
        if runs.is_empty() {
            let message = format!(
                "--local {}: there is no run\nhint: give a run's folder, or one that holds runs",
                folder.display()
            );
            return Err(UsageError(message).into());
        }
        for run in runs {
            add_run(&mut counts, &RunDir::new(&run))?;
        }
    }
    Ok(counts)
}

/// Adds a run's rows, pairs and votes. Shards count like runs.
fn add_run(counts: &mut LocalCounts, run: &RunDir) -> anyhow::Result<()> {
    let loaded = run.load()?;
    let (origin, options) = pair::of_run(&loaded.lock)?;
    let report = run::report(run, &loaded, origin, &options)?;
    for row in &report.languages {
        let num_pairs = row.paired.as_ref().map_or(0, |share| share.count);
        counts.add(&row.language, &row.code, Local { num_rows: row.num_records, num_pairs, num_votes: 0 });
    }
    let events: Vec<_> = read_votes(run.root())?.into_iter().map(|stored| stored.vote).collect();
    let languages: HashMap<&str, (&str, &str)> = loaded
        .records
        .iter()
        .map(|record| (record.id.as_str(), (record.language.as_str(), record.language_code.as_str())))
        .collect();
    for vote in current_votes(&events) {
        if let Some((name, code)) = languages.get(vote.vote.prompt.as_str()) {
            counts.add(name, code, Local { num_votes: 1, ..Local::default() });
        }
    }
    counts.num_runs += 1;
    Ok(())
}

//! `pairwright languages FILE`: what a prompt file holds.
//! Knows flags and the table's layout; nothing of file formats.

use std::io::Write;
use std::path::PathBuf;

use crate::data::{ColumnMap, count_languages};
use crate::generate::Ending;

/// Arguments of `languages`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Parquet, JSONL or CSV, or a folder of Parquet files
    file: PathBuf,
    /// Columns by name, for example language=lang,prompt=question
    #[arg(long, value_name = "KEY=COLUMN,…")]
    map: Option<String>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Prints a line per language: rows, rows with an answer, code, name.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let map = args.map.as_deref().map(ColumnMap::parse).transpose()?;
    let languages = count_languages(&args.file, map.as_ref())?;
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

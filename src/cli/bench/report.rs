//! `pairwright bench report DIR`: the page, the text and the CSVs of a bench's figures. Knows flags and where files go; nothing of what they say.

use std::path::{Path, PathBuf};

use super::progress::OutputArgs;
use crate::bench::languages::folder::BenchDir;
use crate::bench::languages::report::BenchReport;
use crate::bench::languages::texts::to_csv;
use crate::bench::{BenchError, table};
use crate::generate::Ending;
use crate::provenance::write_atomic;
use crate::registry::Registry;

/// Arguments of `bench report`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bench's folder
    dir: PathBuf,
    /// List of models in place of the built-in one, for the notes on training data
    #[arg(long, value_name = "FILE")]
    registry: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Writes all three.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let dir = BenchDir::new(&args.dir);
    write(&dir, args.registry.as_deref(), &args.output)?;
    if args.output.json {
        let told = serde_json::json!({"page": dir.page(), "markdown": dir.markdown(), "csv": dir.figures().with_extension("csv")});
        super::print_line(&told.to_string())?;
    }
    Ok(Ending::Completed)
}

/// Writes page, Markdown, and a CSV beside each table, into the bench's folder.
pub(super) fn write(dir: &BenchDir, registry: Option<&Path>, output: &OutputArgs) -> anyhow::Result<()> {
    let registry = registry.map_or_else(Registry::embedded, Registry::read)?;
    let report = BenchReport::read(dir, &registry)?;
    for path in [dir.figures(), dir.measured()] {
        let csv = path.with_extension("csv");
        let failed = |error| BenchError::Io { path: csv.clone(), source: std::io::Error::other(error) };
        write_atomic(&csv, &to_csv(&table::read(&path)?).map_err(failed)?)?;
    }
    write_atomic(&dir.markdown(), report.to_markdown().as_bytes())?;
    write_atomic(&dir.page(), report.to_html()?.as_bytes())?;
    output.say(&format!("report    {}", dir.page().display()));
    Ok(())
}

//! `pairwright bench report DIR`: the page, the text and the CSV of a bench's figures. Knows flags and where files go; nothing of what they say.

use std::path::{Path, PathBuf};

use super::progress::OutputArgs;
use crate::bench::BenchError;
use crate::bench::languages::folder::BenchDir;
use crate::bench::languages::report::BenchReport;
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
        let told = serde_json::json!({"page": dir.page(), "markdown": dir.markdown(), "csv": dir.csv()});
        super::print_line(&told.to_string())?;
    }
    Ok(Ending::Completed)
}

/// Writes page, Markdown and CSV into the bench's folder.
pub(super) fn write(dir: &BenchDir, registry: Option<&Path>, output: &OutputArgs) -> anyhow::Result<()> {
    let registry = registry.map_or_else(Registry::embedded, Registry::read)?;
    let report = BenchReport::read(dir, &registry)?;
    let csv =
        report.to_csv().map_err(|error| BenchError::Io { path: dir.csv(), source: std::io::Error::other(error) })?;
    write_atomic(&dir.csv(), csv.as_bytes())?;
    write_atomic(&dir.markdown(), report.to_markdown().as_bytes())?;
    write_atomic(&dir.page(), report.to_html()?.as_bytes())?;
    output.say(&format!("report    {}", dir.page().display()));
    Ok(())
}

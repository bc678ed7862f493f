//! `pairwright bundle verify`: every byte of a bundle against its manifest.
//! Knows flags and words; the checks are those of [`crate::bundle`].

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use crate::bundle::{Bundle, gigabytes};
use crate::cli::progress::{Bytes, OutputArgs};
use crate::generate::Ending;

/// Arguments of `bundle verify`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The bundle: a folder, a tar, or the first of its parts
    path: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// Checks all of it and says what it holds.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let mut bundle = Bundle::open(&args.path)?;
    let mut bytes = Bytes::new(&args.output, "bundle", bundle.manifest().size_bytes());
    bundle.check(&mut |count| bytes.add(count))?;
    bytes.finish();
    let manifest = bundle.manifest();
    let mut out = std::io::stdout().lock();
    if args.output.json {
        writeln!(
            out,
            "{}",
            json!({"path": args.path.display().to_string(), "form": bundle.form(), "bundle": manifest})
        )?;
        return Ok(Ending::Completed);
    }
    let (count, size) = (manifest.files.len(), gigabytes(manifest.size_bytes()));
    writeln!(out, "{}: whole: {}, {count} files, {size}", args.path.display(), bundle.form())?;
    for item in &manifest.items {
        let bytes = manifest.files_of(item).map(|(_, file)| file.size_bytes).sum();
        let commit = item.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
        let licence = item.licence.as_deref().unwrap_or("not stated");
        writeln!(out, "  {:>10}  {}{commit}, licence {licence}", gigabytes(bytes), item.folder)?;
    }
    Ok(Ending::Completed)
}

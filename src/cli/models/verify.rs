//! `pairwright models verify`: whether a model directory is whole, before a long run finds out.
//! Knows flags and words; the checks are those of [`crate::generate::verify`].

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::list::{billions, gigabytes};
use crate::cli::progress::{Bytes, OutputArgs};
use crate::cli::settings::{date, template_options};
use crate::generate::Ending;
use crate::generate::verify::{Verified, verify};
use crate::model::weights::NonFinite;

/// Tensors that a message names before it counts the rest.
const NUM_NAMED: usize = 10;

/// Arguments of `models verify`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The model's folder
    dir: PathBuf,
    /// Read every weight too, and report NaN and infinite ones by tensor
    #[arg(long)]
    deep: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Weights that no model can compute with.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: {} of {num_tensors} tensors hold values that are no numbers: {}\nhint: the files are damaged or the model was published so; \
     compare their SHA-256 with those on the model's page, and copy or download them again", .found.len(), name_all(.found)
)]
pub(in crate::cli) struct NonFiniteWeights {
    path: PathBuf,
    num_tensors: u64,
    found: Vec<NonFinite>,
}

fn name_all(found: &[NonFinite]) -> String {
    let one =
        |tensor: &NonFinite| format!("`{}` ({} NaN, {} infinite)", tensor.name, tensor.num_nan, tensor.num_infinite);
    let named = found.iter().take(NUM_NAMED).map(one).collect::<Vec<_>>().join(", ");
    match found.len().saturating_sub(NUM_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Checks the folder and says what it holds.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    let model = verify(&args.dir, &template_options(date(None)?, None, None)?)?;
    let verified = &model.verified;
    let mut found = Vec::new();
    if args.deep {
        let mut bytes = Bytes::new(&args.output, "weights", verified.weights.num_bytes);
        found = model.non_finite(|read| bytes.add(read));
        bytes.finish();
    }
    let mut out = std::io::stdout().lock();
    if args.output.json {
        let deep = args.deep.then_some(&found);
        writeln!(out, "{}", serde_json::to_string_pretty(&json!({"model": verified, "non_finite": deep}))?)?;
    }
    if !found.is_empty() {
        let (path, num_tensors) = (args.dir.clone(), verified.weights.num_tensors);
        return Err(NonFiniteWeights { path, num_tensors, found }.into());
    }
    if !args.output.json {
        describe(&mut out, &args.dir, verified, args.deep)?;
    }
    Ok(Ending::Completed)
}

fn describe(out: &mut impl Write, dir: &Path, model: &Verified, deep: bool) -> std::io::Result<()> {
    let weights = &model.weights;
    let dtypes = weights.dtypes.iter().map(|(dtype, count)| format!("{dtype} ({count} tensors)"));
    let files = if weights.num_files == 1 { "1 file".to_owned() } else { format!("{} files", weights.num_files) };
    let template = match model.system_turn {
        None => "none",
        Some(true) => "there, takes a system turn",
        Some(false) => "there, takes no system turn",
    };
    let rows = match model.vocab_size.checked_sub(model.tokenizer_size) {
        Some(unused) => format!("{unused} rows of the embedding unused"),
        None => format!("{} of them, which no text reaches, without a row", model.tokenizer_size - model.vocab_size),
    };
    let lines = [
        ("family", format!("{}, {} layers", model.family, model.num_layers)),
        ("parameters", format!("{} ({})", billions(weights.num_elements), weights.num_elements)),
        ("weights", format!("{} in {files}: {}", gigabytes(weights.num_bytes), dtypes.collect::<Vec<_>>().join(", "))),
        ("context", format!("{} tokens", model.context)),
        ("tokenizer", format!("{} tokens, {rows}", model.tokenizer_size)),
        ("end tokens", model.eos_ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
        ("template", template.to_owned()),
        ("licence", model.license.clone().unwrap_or_else(|| "no card that states one".to_owned())),
    ];
    writeln!(out, "{}: whole", dir.display())?;
    for (label, value) in lines {
        writeln!(out, "  {label:<11} {}", if value.is_empty() { "none" } else { &value })?;
    }
    writeln!(out, "  {:<11} {}", "runs", runs(model))?;
    if deep {
        writeln!(out, "  {:<11} every one is a finite number", "weights")?;
    }
    Ok(())
}

/// What the model can be used for as it is.
fn runs(model: &Verified) -> String {
    if let Some(count) = model.num_scores {
        return format!("as reward model: {count} score{} per answer", if count == 1 { "" } else { "s" });
    }
    let words = match (model.chat_template, model.eos_ids.is_empty()) {
        (true, false) => "as generator and as judge",
        (true, true) => {
            "as judge; as generator an answer only ends at --max-tokens or --stop, since no end token is named"
        }
        (false, _) => "with --chat-template FILE; without it on prompt_token_ids alone",
    };
    words.to_owned()
}

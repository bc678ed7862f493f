//! `pairwright models verify`: whether a model directory is whole, before a long run finds out.
//! Knows flags and words; the checks are those of [`crate::generate::verify`].

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::list::{billions, gigabytes};
use crate::bundle::integrity::{self, Checked};
use crate::cli::progress::{Bytes, OutputArgs};
use crate::cli::settings::{date, template_options};
use crate::generate::Ending;
use crate::generate::verify::{Verified, verify};
use crate::model::weights::NonFinite;
use crate::registry::{ALLOWANCE_BYTES, KV_CACHE_BYTES, PRECISIONS, Precision};

/// Tensors that a message names before it counts the rest.
const NUM_NAMED: usize = 10;

/// Arguments of `models verify`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The model's folder, snapshot in a Hugging Face cache, or GGUF file
    dir: PathBuf,
    /// Read every byte too: hold hashes against those that a bundle or a Hugging Face cache has, and report NaN and infinite weights by
    /// tensor
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
    // First whether every file is there and has its length: what else is wrong often follows from that.
    let mut checked = integrity::check(&args.dir, false, &mut |_| ())?;
    let model = verify(&args.dir, &template_options(date(None)?, None, None)?)?;
    let verified = &model.verified;
    let mut found = Vec::new();
    if args.deep {
        let to_hash = integrity::bytes_to_hash(&args.dir);
        let mut bytes = Bytes::new(&args.output, "weights", verified.weights.num_bytes + to_hash);
        checked = integrity::check(&args.dir, true, &mut |read| bytes.add(read))?;
        found = model.non_finite(|read| bytes.add(read));
        bytes.finish();
    }
    let mut out = std::io::stdout().lock();
    if args.output.json {
        let deep = args.deep.then_some(&found);
        writeln!(
            out,
            "{}",
            serde_json::to_string_pretty(&json!({"model": verified, "files": checked, "non_finite": deep}))?
        )?;
    }
    if !found.is_empty() {
        let (path, num_tensors) = (args.dir.clone(), verified.weights.num_tensors);
        return Err(NonFiniteWeights { path, num_tensors, found }.into());
    }
    if !args.output.json {
        describe(&mut out, &args.dir, verified, &checked, args.deep)?;
    }
    Ok(Ending::Completed)
}

fn describe(out: &mut impl Write, dir: &Path, model: &Verified, checked: &Checked, deep: bool) -> std::io::Result<()> {
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
        ("memory", memory(weights.num_elements, weights.num_bytes)),
        ("files", files_line(checked)),
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

/// What it takes: as its files are, at each precision, and besides.
fn memory(num_elements: u64, num_bytes: u64) -> String {
    let one = |precision: &Precision| format!("{} {}", precision.name, gigabytes(precision.bytes(num_elements)));
    let computed = PRECISIONS.iter().map(one).collect::<Vec<_>>().join(" · ");
    format!(
        "{} as published; {computed}; and {} besides, {} of it for the KV cache",
        gigabytes(num_bytes),
        gigabytes(ALLOWANCE_BYTES),
        gigabytes(KV_CACHE_BYTES)
    )
}

/// What the files were held against.
fn files_line(checked: &Checked) -> String {
    let Some(list) = &checked.list else {
        return "no list of them is here (neither a bundle's nor a cache's), so none can be missed".to_owned();
    };
    let hashed =
        if checked.num_hashed > 0 { format!(", {} by their hash too", checked.num_hashed) } else { String::new() };
    let absent = match checked.absent.len() {
        0 => String::new(),
        count => {
            format!("; {count} of the commit's files are not here, for example {}, and not needed", checked.absent[0])
        }
    };
    format!("{} as {list} has them{hashed}{absent}", checked.num_files)
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

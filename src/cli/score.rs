//! `pairwright score`: what a reward model says of dialogues or of preference pairs, a line in and a line out.
//! Knows flags and what to say; nothing of how a dialogue is scored.

use std::io::Write;
use std::path::PathBuf;

use super::arguments::EngineArgs;
use super::progress::{OutputArgs, Progress};
use super::settings::{self, NamedModel};
use super::stop::{Stop, TimeArgs};
use crate::engine::EngineStats;
use crate::generate::{Ending, GenerateError, LineWriter, Observer};
use crate::judge::{self, ScoreRequest};
use crate::provenance::sha256_file;

/// Arguments of `score`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Reward model: a model directory whose architecture ends in ForSequenceClassification
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// JSONL with "messages", with "prompt" and "response", or with "prompt", "chosen" and "rejected"
    #[arg(long, value_name = "FILE.jsonl")]
    data: PathBuf,
    /// One line per line of the input, in its order: "score", or "score_chosen", "score_rejected" and "margin"
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// Chat template in place of the model's own
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Start the output anew instead of adding the lines it lacks
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Scores what is not yet scored.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    args.engine.start_threads()?;
    let stop = Stop::install(&args.time)?;
    let requests = judge::read_score_requests(&args.data)?;
    let compute = args.engine.compute()?;
    let earlier = if args.fresh { None } else { LineWriter::parameters(&args.out) };
    let date = settings::date(earlier.and_then(|found| Some(found.get("date")?.as_str()?.to_owned())))?;
    let template = settings::template_options(date, args.chat_template.as_deref(), None)?;
    let model = NamedModel::find(&args.model, &args.engine, &compute, 0, &template)?;
    model.require_template()?;
    let parameters = serde_json::json!({
        "model": {"name": model.record.name, "files": model.record.files, "dtype": model.record.dtype,
            "template_sha256": model.record.template_sha256},
        "data_sha256": sha256_file(&args.data)?,
        "date": date.to_string(),
        "score": {"max_len": args.engine.max_len()},
    });
    let order: Vec<String> = requests.iter().map(|request| request.id.clone()).collect();
    let mut model = model.load(&args.output)?;
    let mut writer = LineWriter::open(&args.out, &order, 1, false, &parameters, args.fresh)?;
    let todo: Vec<ScoreRequest> = requests.into_iter().filter(|request| !writer.is_done(&request.id)).collect();
    let mut progress = Progress::new(&args.output, &stop, &[("score", order.len() as u64)]);
    progress.progress(&[writer.num_done() as u64], &EngineStats::default());
    let store = |id: &str, line: serde_json::Value| {
        writer.write_line(id, 0, format!("{line}\n")).map_err(|error| GenerateError::Store(Box::new(error)))
    };
    let ending = judge::score(&mut model, todo, &mut progress, store)?;
    writer.finish()?;
    let stats = model.engine().stats();
    progress.finish();
    if args.output.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&stats)?)?;
    }
    Ok(ending)
}

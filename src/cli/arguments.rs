//! Groups of flags that several subcommands share, resolved into the options of the modules they belong to.
//! Knows flags and their meaning; runs nothing.

use std::path::{Path, PathBuf};

use clap::Args;

pub(super) use super::engine_flags::EngineArgs;
use super::exit::UsageError;
use crate::engine::SamplingParams;
use crate::generate::GenerateOptions;
use crate::model::HfConfig;
use crate::run::Claim;
/// What becomes of a run that is in the folder already.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct ClaimArgs {
    /// Start anew: remove what an earlier call left in --out
    #[arg(long, conflicts_with = "accept_changes")]
    pub(super) fresh: bool,
    #[command(flatten)]
    changes: ChangeArgs,
}

/// The same for commands that never start anew.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct ChangeArgs {
    /// Go on with a run in spite of changes that leave its rows usable: another version of this program, formats or sums that
    /// change last bits. The card names them
    #[arg(long)]
    accept_changes: bool,
}

impl ClaimArgs {
    /// For the run's folder.
    pub(super) fn claim(self) -> Claim {
        if self.fresh { Claim::Anew } else { self.changes.claim() }
    }
}

impl ChangeArgs {
    /// For the run's folder.
    pub(super) fn claim(self) -> Claim {
        if self.accept_changes { Claim::WithChanges } else { Claim::Same }
    }
}

/// Flags that choose tokens. Those left out take the model's recommended value (generation_config.json) where it has one.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArgs {
    /// 0 always takes the likeliest token [default: the model's recommendation, or 0.7]
    #[arg(long, value_parser = non_negative, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep this many likeliest tokens; 0: all [default: the model's recommendation, or all]
    #[arg(long)]
    top_k: Option<usize>,
    /// Keep the likeliest tokens that together reach this probability [default: the model's recommendation, or 1]
    #[arg(long, value_parser = share)]
    top_p: Option<f32>,
    /// Drop tokens less likely than this share of the likeliest one
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    min_p: f32,
    /// Divides the logits of tokens that occurred; 1: off [default: the model's recommendation, or 1]
    #[arg(long, value_parser = above_zero)]
    repetition_penalty: Option<f32>,
    /// Taken off the logits of tokens already in the answer
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Taken off the logits per occurrence in the answer
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Start of every random number; the same seed gives the same answers, whatever the batch
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Most tokens of an answer
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// Text that ends an answer and is cut off it; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Token id that ends an answer; may be given several times
    #[arg(long, value_name = "ID")]
    stop_token_id: Vec<u32>,
    /// Go on past the model's end tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Answers per prompt
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    samples: u32,
}

impl SamplingArgs {
    /// The options for the model in `dir`, whose generation_config.json may recommend values.
    pub(super) fn options(&self, dir: Option<&Path>) -> anyhow::Result<GenerateOptions> {
        let config = dir.map(HfConfig::read).transpose().map_err(crate::generate::TextModelError::from)?;
        let recommended = |field: &str| config.as_ref()?.generation_number(field).map(|value| value as f32);
        let top_k = self.top_k.or_else(|| recommended("top_k").map(|value| value as usize));
        let sampling = SamplingParams {
            temperature: self.temperature.or_else(|| recommended("temperature")).unwrap_or(0.7),
            top_k: top_k.filter(|&count| count > 0),
            top_p: self.top_p.or_else(|| recommended("top_p")).unwrap_or(1.0),
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty.or_else(|| recommended("repetition_penalty")).unwrap_or(1.0),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
            stop_token_ids: self.stop_token_id.clone(),
            max_tokens: self.max_tokens,
            top_logprobs: 0,
            prompt_logprobs: None,
            constraint: None,
        };
        Ok(GenerateOptions {
            sampling,
            stop_strings: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            num_samples: self.samples,
        })
    }
}

/// The parameters of the generate stage, for the lock file. Of the engine's only the context's length counts: it decides where
/// an answer is cut, which prompts are too long, and the scaling of some rotary embeddings.
pub(super) fn generate_parameters(options: &GenerateOptions, engine: &EngineArgs) -> serde_json::Value {
    let sampling = &options.sampling;
    serde_json::json!({
        "num_samples": options.num_samples,
        "temperature": as_written(sampling.temperature),
        "top_k": sampling.top_k,
        "top_p": as_written(sampling.top_p),
        "min_p": as_written(sampling.min_p),
        "repetition_penalty": as_written(sampling.repetition_penalty),
        "presence_penalty": as_written(sampling.presence_penalty),
        "frequency_penalty": as_written(sampling.frequency_penalty),
        "max_tokens": sampling.max_tokens,
        "stop": options.stop_strings,
        "stop_token_ids": sampling.stop_token_ids,
        "ignore_eos": options.ignore_eos,
        "max_len": engine.max_len,
    })
}

/// The number in its shortest decimal form: 0.7 and not 0.699999988, which is what widening gives.
fn as_written(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

/// Flags that decide how a prompt is put to a model.
#[derive(Debug, Clone, Args)]
pub(super) struct DialogueArgs {
    /// System turn of a run: auto (answer in the row's language), none, a text with {language}, or a .toml file [default: auto]
    #[arg(long, value_name = "TEXT|FILE")]
    pub(super) system_prompt: Option<String>,
    /// Say in the system turn how long human answers are in the row's language: quartiles over the whole source, rounded
    #[arg(long)]
    pub(super) length_guidance: bool,
    /// Chat template in place of the model's own
    #[arg(long, value_name = "FILE")]
    pub(super) chat_template: Option<PathBuf>,
    /// Whether a generator that can think before it answers does: told to its template as `enable_thinking` (and `thinking`)
    /// [default: as the template has it]. The thinking is stored, never rated and never published as an answer
    #[arg(long, value_name = "on|off", ignore_case = true)]
    pub(super) thinking: Option<Thinking>,
}

/// A template's switch for thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Thinking {
    /// Think first.
    On,
    /// Answer at once.
    Off,
}

impl Thinking {
    /// As the lock file has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// Flags that choose prompts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Prompts")]
pub(super) struct PromptArgs {
    /// Prompts with human answers: Parquet (Aya's columns, or --map), JSONL or CSV
    #[arg(long, value_name = "FILE")]
    pub(super) prompts: Option<PathBuf>,
    /// Language by name or code: Dutch, nl, nld. `pairwright languages FILE` lists what a file holds
    #[arg(long, value_name = "LANGUAGE")]
    pub(super) language: Option<String>,
    /// Columns by name, for example prompt=question,response=answer,language=lang
    #[arg(long, value_name = "KEY=COLUMN,…")]
    pub(super) map: Option<String>,
    /// Take only the first N rows that pass
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    /// Drop rows with longer prompts, in characters
    #[arg(long, value_name = "N")]
    pub(super) max_prompt_chars: Option<usize>,
    /// Drop rows with longer human answers, in characters
    #[arg(long, value_name = "N")]
    pub(super) max_response_chars: Option<usize>,
}

/// A size in bytes: `2GiB`, `24GB`, `500MB`.
pub(super) fn parse_bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: f64 = match text.strip_prefix(digits).unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1024.0 * 1024.0,
        "gib" | "g" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err("want a size such as 2GiB, 500MB or 1073741824".to_owned()),
    };
    match digits.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number * unit < 1e15 => Ok((number * unit) as usize),
        _ => Err("want a size such as 2GiB, 500MB or 1073741824".to_owned()),
    }
}

pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if (1..1 << 31).contains(&number) => Ok(number),
        _ => Err("want a whole number above 0".to_owned()),
    }
}

fn number(text: &str, fits: impl Fn(f32) -> bool, want: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if fits(number) => Ok(number),
        _ => Err(format!("want {want}")),
    }
}

fn non_negative(text: &str) -> Result<f32, String> {
    number(text, |number| (0.0..1e6).contains(&number), "0 or more")
}

pub(super) fn above_zero(text: &str) -> Result<f32, String> {
    number(text, |number| number > 0.0 && number < 1e6, "more than 0")
}

fn share(text: &str) -> Result<f32, String> {
    number(text, |number| (0.0..=1.0).contains(&number), "0 to 1")
}

/// The flag that is missing, as an error with the exit code of usage.
pub(super) fn missing(flag: &str, why: &str) -> anyhow::Error {
    UsageError(format!("{flag} is missing: {why}\nhint: see --help, or try `pairwright make --demo --out runs/demo`"))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_unit_systems() {
        assert_eq!(parse_bytes("2GiB"), Ok(2 << 30));
        assert_eq!(parse_bytes("1.5 GB"), Ok(1_500_000_000));
        assert_eq!(parse_bytes("512m"), Ok(512 << 20));
        assert_eq!(parse_bytes("77"), Ok(77));
        for wrong in ["", "GiB", "-1GB", "2 potatoes", "1e99GB", "٣GB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}

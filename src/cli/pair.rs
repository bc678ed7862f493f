//! `pairwright pair RUN`: the dataset alone, from the answers and ratings that are there; no model runs.
//! Knows flags and what to say; nothing of what makes a pair.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::exit::UsageError;
use super::progress::OutputArgs;
use crate::data::{ReadOptions, read_prompts};
use crate::dataset::{
    CheckOptions, DEFAULT_MARGIN, DatasetOptions, Decision, JudgeWeights, MAX_MARGIN, Origin, PairChoice,
    PairingOptions, TestSplit,
};
use crate::generate::Ending;
use crate::judge::AspectWeights;
use crate::provenance::{RunLock, sha256_file};
use crate::quality::{HeldOutTexts, Profile, UnknownRequirement};
use crate::run::{self, Claim, LoadedRun, RunDir};

/// Flags that decide what becomes a pair.
#[derive(Debug, Clone, Deserialize, clap::Args)]
#[command(next_help_heading = "Pairs")]
pub(super) struct PairArgs {
    /// Smallest difference of ratings (continuous, 1 to 5) that makes a pair; closer answers are ties and stay in `raw`
    #[arg(long, default_value_t = DEFAULT_MARGIN, allow_negative_numbers = true)]
    margin: f64,
    /// Which answers of a prompt meet: best-worst, best-random (the best and one by lot), or human-best (the human answer and the best
    /// generated one)
    #[arg(long, value_name = "CHOICE", default_value = "best-worst")]
    #[serde(default)]
    pairs: Choice<PairChoice>,
    /// Most pairs of one prompt
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::arguments::positive)]
    #[serde(default = "one")]
    pub(super) pairs_per_prompt: usize,
    /// Who decides which answer is better, where answers were compared (--pairwise): both (a comparison that goes the other way, or depends
    /// on the order, makes a tie), ratings, or pairwise
    #[arg(long, value_name = "WHO", default_value = "both")]
    #[serde(default)]
    decide: Choice<Decision>,
    /// How several judges are weighed: known-answers (by their accuracy there) or equal
    #[arg(long, value_name = "HOW", default_value = "known-answers")]
    #[serde(default)]
    judge_weights: Choice<JudgeWeights>,
    /// Weights of the judge's aspects (`pairwright calibrate`) in place of the rubric's: ratings are computed again from what judges said
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    aspect_weights: Option<PathBuf>,
    /// Leave out pairs on which several judges disagree
    #[arg(long)]
    #[serde(default)]
    judges_agree: bool,
    /// Leave pairs out by what checks of the texts found, for example language-ok,no-truncated: language-ok (answers in the wrong
    /// language, or partly so, where the identifier was validated) and no-FLAG; the report counts all flags. `none` leaves out nothing
    #[arg(long, value_name = "LIST", default_value = "none")]
    #[serde(default = "none")]
    require: String,
    /// A language profile (`pairwright lid train`) in place of the program's own
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    profile: Option<PathBuf>,
    /// Prompts and answers that no row may overlap with, a benchmark's for example: what has 13 words in a row of them is flagged
    /// `contaminated`
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    held_out_prompts: Option<PathBuf>,
    /// Pairs held out as a test split: a share such as 0.05, or a number such as 100
    #[arg(long, value_name = "SHARE|N")]
    test_split: Option<String>,
    /// Keep the annotators' pseudonyms in `raw` (left out otherwise: the dataset is meant for publication)
    #[arg(long)]
    include_user_id: bool,
    /// Hub name of the prompts' dataset, for the card, for example CohereLabs/aya_dataset
    #[arg(long, value_name = "NAME")]
    source_dataset: Option<String>,
    /// Licence of the prompts, for the card, for example apache-2.0
    #[arg(long, value_name = "SPDX")]
    pub(super) source_license: Option<String>,
}

/// A choice by its name, as the lock has it too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Choice<T>(T);

impl<T: for<'a> Deserialize<'a>> std::str::FromStr for Choice<T> {
    type Err = serde_json::Error;

    /// The library's own names; what is not among them is told with those that are.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_value(Value::from(text.to_ascii_lowercase())).map(Self)
    }
}

fn none() -> String {
    "none".to_owned()
}

fn one() -> usize {
    1
}

/// Arguments of `pair`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run's folder
    run: PathBuf,
    #[command(flatten)]
    pair: PairArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl PairArgs {
    /// For the lock file.
    pub(super) fn parameters(&self) -> Value {
        json!({
            "margin": self.margin,
            "pairs": self.pairs,
            "pairs_per_prompt": self.pairs_per_prompt,
            "decide": self.decide,
            "judge_weights": self.judge_weights,
            "aspect_weights": self.aspect_weights,
            "aspect_weights_sha256": self.aspect_weights.as_deref().and_then(|path| sha256_file(path).ok()),
            "judges_agree": self.judges_agree,
            "require": self.require,
            "profile": self.profile,
            "profile_sha256": self.profile.as_deref().and_then(|path| sha256_file(path).ok()),
            "held_out_prompts": self.held_out_prompts,
            "held_out_prompts_sha256": self.held_out_prompts.as_deref().and_then(|path| sha256_file(path).ok()),
            "test_split": self.test_split,
            "include_user_id": self.include_user_id,
            "source_dataset": self.source_dataset,
            "source_license": self.source_license,
        })
    }

    /// What a lock says of pairing; the defaults if it says nothing.
    pub(super) fn of_lock(lock: &RunLock) -> anyhow::Result<Self> {
        Ok(match lock.parameters.get("pair") {
            Some(parameters) => serde_json::from_value(parameters.clone())?,
            None => Self {
                margin: DEFAULT_MARGIN,
                pairs: Choice::default(),
                pairs_per_prompt: 1,
                decide: Choice::default(),
                judge_weights: Choice::default(),
                aspect_weights: None,
                judges_agree: false,
                require: none(),
                profile: None,
                held_out_prompts: None,
                test_split: None,
                include_user_id: false,
                source_dataset: None,
                source_license: None,
            },
        })
    }

    /// Refuses unusable values, before any work is done for them.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if !(0.0..=MAX_MARGIN).contains(&self.margin) {
            let message = format!(
                "--margin is {}, want a number from 0 to {MAX_MARGIN}\nhint: ratings lie on 1 to 5; try {DEFAULT_MARGIN}",
                self.margin
            );
            return Err(UsageError(message).into());
        }
        self.options().map(drop)
    }

    pub(super) fn origin(&self) -> Origin {
        Origin { dataset: self.source_dataset.clone(), license: self.source_license.clone() }
    }

    fn options(&self) -> anyhow::Result<DatasetOptions> {
        let test_split = match self.test_split.as_deref() {
            None => None,
            Some(text) => Some(match (text.parse::<u64>(), text.parse::<f64>()) {
                (Ok(size), _) if size > 0 => TestSplit::Size(size),
                (_, Ok(share)) if share > 0.0 && share < 1.0 => TestSplit::Fraction(share),
                _ => {
                    let message = format!(
                        "--test-split is {text}, want a share of the pairs or a number of them\nhint: try 0.05 or 100"
                    );
                    return Err(UsageError(message).into());
                }
            }),
        };
        let pairing = PairingOptions {
            margin: self.margin,
            choice: self.pairs.0,
            pairs_per_prompt: self.pairs_per_prompt,
            decision: self.decide.0,
            require_agreement: self.judges_agree,
            ..PairingOptions::default()
        };
        let weights = self.judge_weights.0;
        let checks = self.checks()?;
        let aspect_weights = self.aspect_weights.as_deref().map(AspectWeights::read).transpose()?;
        let include_user_id = self.include_user_id;
        Ok(DatasetOptions { pairing, test_split, weights, aspect_weights, checks, include_user_id })
    }

    /// What is checked; the files are read here, so that one that is not usable is told before any work.
    fn checks(&self) -> anyhow::Result<CheckOptions> {
        let requirements = self.require.parse().map_err(|error: UnknownRequirement| UsageError(error.to_string()))?;
        let profile = self.profile.as_deref().map(Profile::read).transpose()?.map(Arc::new);
        let held_out = match &self.held_out_prompts {
            None => None,
            Some(path) => {
                let read = read_prompts(path, &ReadOptions::default())?;
                let texts = read.records.iter().flat_map(|row| [Some(row.prompt.as_str()), row.response.as_deref()]);
                Some(Arc::new(HeldOutTexts::new(texts.flatten())))
            }
        };
        Ok(CheckOptions { requirements, profile, held_out })
    }
}

/// Source and pairing that a lock names, for who shows a run and writes no dataset.
pub(super) fn of_run(lock: &RunLock) -> anyhow::Result<(Origin, DatasetOptions)> {
    let args = PairArgs::of_lock(lock)?;
    Ok((args.origin(), args.options()?))
}

/// Writes the dataset of a complete run.
pub(super) fn run(args: &Args) -> anyhow::Result<Ending> {
    args.pair.check()?;
    let run = RunDir::new(&args.run);
    let mut loaded = run.load()?;
    run.refuse_shard(&loaded.lock)?;
    run.require_verdicts()?;
    loaded.lock.parameters.insert("pair".to_owned(), args.pair.parameters());
    let _occupied = run.claim(&mut loaded.lock, Claim::Same)?;
    write(&run, &loaded, &args.pair)?;
    announce(&run, &args.output)
}

/// Whether the dataset that is there was made from all that this lock names, its pairing included.
pub(super) fn is_current(run: &RunDir, lock: &RunLock) -> bool {
    is_of(&run.dataset_lock(), lock)
}

/// Whether a dataset with this lock file was made from all that `lock` names.
pub(super) fn is_of(published: &std::path::Path, lock: &RunLock) -> bool {
    std::fs::read_to_string(published).unwrap_or_default() == lock.published()
}

/// Writes dataset, report and summary.
pub(super) fn write(run: &RunDir, loaded: &LoadedRun, args: &PairArgs) -> anyhow::Result<()> {
    run::pair(run, loaded, args.origin(), &args.options()?)?;
    Ok(())
}

/// Says what came out and where it lies; with --json prints the summary.
pub(super) fn announce(run: &RunDir, output: &OutputArgs) -> anyhow::Result<Ending> {
    let text = std::fs::read_to_string(run.summary())?;
    let summary: Value = serde_json::from_str(&text)?;
    if output.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&summary)?)?;
    }
    let count = |field: &str| summary.get(field).and_then(Value::as_u64).unwrap_or(0);
    let drops = summary.get("drops").and_then(Value::as_object);
    let rest = if drops.is_some_and(|drops| !drops.is_empty()) { "; rows without one, by reason:" } else { "" };
    output.say(&format!("{} pairs from {} rows{rest}", count("num_pairs"), count("num_rows_in")));
    for (reason, rows) in drops.into_iter().flatten() {
        output.say(&format!("{:>8}  {reason}", rows.as_u64().unwrap_or(0)));
    }
    // A run of an earlier version has no page.
    let report = if run.report_page().exists() { run.report_page() } else { run.report() };
    for (what, path) in [("dataset", run.dataset()), ("report", report), ("journal", run.journals())] {
        output.say(&format!("{what:<8}  {}", path.display()));
    }
    Ok(Ending::Completed)
}

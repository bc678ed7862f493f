//! The preference dataset: pairs from verdicts, Parquet files, card, report. The last stage of a run.
//! Knows records, candidates and verdicts; knows nothing of engines or of the command line.
//!
//! A dataset folder holds `data/train-…` (and `data/test-…`) for training, `raw/train-…` with every row that entered, and
//! the card. The same records, candidates, verdicts and lock give the same bytes, in whatever order they come.

mod card;
mod checks;
mod choosing;
mod columns;
mod pairing;
mod report;
pub mod schema;
mod summary;
mod voted;
mod write;
mod yaml;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

pub use self::checks::{CheckOptions, apply as apply_checks};
pub use self::columns::{PairRow, source_name};
pub use self::pairing::{
    DEFAULT_MARGIN, Decision, DropReason, JudgeWeights, JudgedPrompt, MAX_MARGIN, PairChoice, PairOutcome,
    PairingOptions, PreferencePair, RatedAnswer, Said, is_blank, pair_record,
};
pub use self::report::{day, inline_code, models_for_show, render_report, share_in_words, share_of};
pub use self::summary::{DatasetSummary, JudgeHealth, LengthStats, MarginCount, Quantiles, SamplePair};
pub use self::voted::{EDITED_MODEL, Edit, Finding, PairVotes, PublishedVote, RowVotes, Voted, VotedDrop};
pub use self::write::{CARD_FILE, LOCK_KEY, WrittenFile, parquet_bytes};
pub use self::yaml::to_yaml;

use self::columns::{ROWS_PER_BATCH, default_batch, judged_own_answer, raw_batch, vote_batch};
use self::schema::{default_columns, raw_columns, schema_of, vote_columns};
use self::summary::sample_of;
use self::write::{Staging, parquet_path};
use crate::data::{DropCounts, PromptRecord};
use crate::generate::{Candidate, CandidateSource};
use crate::judge::known::{self, KnownResult};
use crate::judge::{AspectWeights, Comparison, Verdict};
use crate::provenance::{LOCK_FILE_NAME, ModelRecord, ProvenanceError, RunLock};

/// Pairs that the report shows in full.
const NUM_SAMPLES: usize = 10;

/// What went wrong with writing a dataset. The folder then holds no half-written file.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// A file or folder could not be written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A digest could not be taken or a folder not be synced.
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
    /// The Parquet writer failed.
    #[error("cannot write Parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The columns did not fit the schema.
    #[error("cannot build the dataset's columns: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A margin outside 0..=4.
    #[error(
        "the margin is {got}, expected a number from 0 to {MAX_MARGIN}\nhint: ratings lie on 1 to 5; try --margin {DEFAULT_MARGIN}"
    )]
    Margin {
        /// The value found.
        got: f64,
    },
    /// A fraction outside 0..1.
    #[error("the test fraction is {got}, expected more than 0 and less than 1\nhint: try --test-split 0.05")]
    TestFraction {
        /// The value found.
        got: f64,
    },
    /// A test split that would leave nothing to train on.
    #[error(
        "a test split of {asked} pairs was asked for, and there are {num_pairs} pairs, of which at least one must train\n\
         hint: ask for fewer with --test-split; answers and ratings are kept and will be read again"
    )]
    TestSize {
        /// Pairs asked for.
        asked: u64,
        /// Pairs there are.
        num_pairs: u64,
    },
}

impl DatasetError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// How a test split is cut off. Which pairs it gets depends on their ids alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TestSplit {
    /// Each pair goes to the test split with this probability, 0 < f < 1; a pair stays where it is when others are added.
    Fraction(f64),
    /// Exactly this many pairs.
    Size(u64),
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DatasetOptions {
    /// What makes a pair.
    pub pairing: PairingOptions,
    /// The test split to cut off, if any.
    pub test_split: Option<TestSplit>,
    /// How the judges of a panel are weighed.
    pub weights: JudgeWeights,
    /// Weights of the aspects in place of the rubric's. Whoever reads the verdicts applies them ([`AspectWeights::apply`]); the card names
    /// them.
    pub aspect_weights: Option<AspectWeights>,
    /// What is checked, and what keeps a pair out.
    pub checks: CheckOptions,
    /// Add the `user_id` column, a pseudonym of a person, to `raw`. Off for anything that is published.
    pub include_user_id: bool,
}

/// The language of the rows in the card, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CardLanguage {
    /// English name; for several languages their number in words, `16 languages`; empty if the source names none.
    pub name: String,
    /// ISO 639-3, or what the source has; empty for several languages.
    pub code: String,
    /// What the Hub's `language` field expects, sorted, each once: ISO 639-1 where a language has one, else 639-3.
    pub card_codes: Vec<String>,
}

/// Where the prompts come from, as far as the card says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Hub id of the source dataset, for example `CohereLabs/aya_dataset`.
    pub dataset: Option<String>,
    /// Licence identifier of the source, if known.
    pub license: Option<String>,
}

/// All that a dataset is made from. Records, candidates and verdicts may come in any order.
#[derive(Debug, Clone)]
pub struct DatasetInput<'a> {
    /// Every row that reading the source gave.
    pub records: &'a [PromptRecord],
    /// Answers, in any order.
    pub candidates: &'a [Candidate],
    /// Ratings, in any order.
    pub verdicts: &'a [Verdict],
    /// Comparisons of two answers, in any order.
    pub comparisons: &'a [Comparison],
    /// The say of each judge, by name.
    pub judge_weights: &'a BTreeMap<String, f64>,
    /// What the judges made of known answers.
    pub known_answers: &'a [KnownResult],
    /// Record id to the reason with which an earlier stage gave the record up.
    pub failures: &'a BTreeMap<String, String>,
    /// What the run was made from; goes into card and footer.
    pub lock: &'a RunLock,
    /// What reading the source dropped.
    pub source_drops: &'a DropCounts,
    /// The language the card names.
    pub language: CardLanguage,
    /// The source the card names.
    pub origin: Origin,
}

/// Pairs the records and writes the dataset into `dir`: files are written aside and moved into place when all are complete;
/// files there that are not the dataset's own stay as they are. Errors: options out of range, I/O.
pub fn write_dataset(
    dir: &Path,
    input: &DatasetInput<'_>,
    options: &DatasetOptions,
) -> Result<DatasetSummary, DatasetError> {
    check_options(options)?;
    let human_answers = judged_human_answers(input);
    let (prompts, mut summary) = judged(input, &human_answers, options, None)?;
    let mut staging = Staging::new(dir)?;
    if let Err(error) = stage_files(&mut staging, input, options, &prompts, &mut summary, None) {
        staging.discard();
        return Err(error);
    }
    staging.commit(&[parquet_path("data", "train"), parquet_path("data", "test"), parquet_path("raw", "train")])?;
    Ok(summary)
}

/// Writes the dataset into `dir` with people's votes: their majority in the place of the judge's rating, and the votes themselves as a
/// third configuration. `describe` gets the numbers and the rows when all Parquet files are known, and gives the card's section on votes.
/// The flag says whether anything was written: a folder that holds the same bytes is left alone. Errors: options out of range, I/O.
pub fn write_voted_dataset(
    dir: &Path,
    input: &DatasetInput<'_>,
    options: &DatasetOptions,
    voted: &Voted,
    describe: impl FnOnce(&DatasetSummary, &[JudgedPrompt<'_>]) -> String,
) -> Result<(DatasetSummary, bool), DatasetError> {
    check_options(options)?;
    let candidates = voted.candidates(input.candidates);
    let input = DatasetInput { candidates: &candidates, ..input.clone() };
    let human_answers = judged_human_answers(&input);
    let (prompts, mut summary) = judged(&input, &human_answers, options, Some(voted))?;
    let mut staging = Staging::new(dir)?;
    let describe: Describe<'_> = Box::new(describe);
    let staged = stage_files(&mut staging, &input, options, &prompts, &mut summary, Some((voted, describe)))
        .and_then(|()| staging.write_text(LOCK_FILE_NAME, &input.lock.published()))
        .and_then(|()| staging.is_in_place());
    match staged {
        Ok(false) => {
            let files = [("data", "train"), ("data", "test"), ("raw", "train"), ("votes", "train")];
            staging.commit(&files.map(|(folder, split)| parquet_path(folder, split)))?;
            Ok((summary, true))
        }
        Ok(true) => {
            staging.discard();
            Ok((summary, false))
        }
        Err(error) => {
            staging.discard();
            Err(error)
        }
    }
}

/// Gives the card's section on votes.
type Describe<'d> = Box<dyn FnOnce(&DatasetSummary, &[JudgedPrompt<'_>]) -> String + 'd>;

/// All rows with what became of them, and their numbers. Errors: a test split that cannot be.
fn judged<'a>(
    input: &DatasetInput<'a>,
    human_answers: &'a [Candidate],
    options: &DatasetOptions,
    voted: Option<&Voted>,
) -> Result<(Vec<JudgedPrompt<'a>>, DatasetSummary), DatasetError> {
    let mut prompts = judge_records(input, human_answers, &options.pairing);
    if let Some(voted) = voted {
        voted.apply(&mut prompts);
    }
    let quality = checks::apply(&mut prompts, &options.checks);
    let mut summary = summarise(input, &prompts, options.pairing);
    summary.quality = quality;
    // Before anything of the folder is touched.
    split_pairs(&prompts.iter().flat_map(PairRow::all).collect::<Vec<_>>(), options.test_split)?;
    Ok((prompts, summary))
}

fn check_options(options: &DatasetOptions) -> Result<(), DatasetError> {
    if !(0.0..=MAX_MARGIN).contains(&options.pairing.margin) {
        return Err(DatasetError::Margin { got: options.pairing.margin });
    }
    match options.test_split {
        Some(TestSplit::Fraction(got)) if !(got > 0.0 && got < 1.0) => Err(DatasetError::TestFraction { got }),
        _ => Ok(()),
    }
}

/// Human answers as candidates where a judge rated a record's own answer and the candidates do not have it.
pub fn judged_human_answers(input: &DatasetInput<'_>) -> Vec<Candidate> {
    let key = |id: &str, model: &str, sample_index: u32| (id.to_string(), model.to_string(), sample_index);
    let is_human = |source: &CandidateSource| *source == CandidateSource::Human;
    let mut known: HashSet<_> = input
        .candidates
        .iter()
        .filter(|candidate| is_human(&candidate.source))
        .map(|candidate| key(&candidate.record_id, &candidate.model, candidate.sample_index))
        .collect();
    let responses: HashMap<&str, &str> = by_row(input.records)
        .iter()
        .rev()
        .filter_map(|record| Some((record.id.as_str(), record.response.as_deref()?)))
        .collect();
    let mut answers = Vec::new();
    for verdict in input.verdicts.iter().filter(|verdict| is_human(&verdict.source)) {
        let Some(text) = responses.get(verdict.record_id.as_str()) else { continue };
        if known.insert(key(&verdict.record_id, &verdict.model, verdict.sample_index)) {
            answers.push(Candidate {
                record_id: verdict.record_id.clone(),
                sample_index: verdict.sample_index,
                source: CandidateSource::Human,
                model: verdict.model.clone(),
                text: text.to_string(),
                thinking: None,
                token_ids: Vec::new(),
                num_prompt_tokens: 0,
                finish_reason: None,
                logprob: None,
            });
        }
    }
    answers
}

/// Records in the order of the files: by row, then by id.
fn by_row(records: &[PromptRecord]) -> Vec<&PromptRecord> {
    let mut ordered: Vec<&PromptRecord> = records.iter().collect();
    ordered.sort_by(|a, b| a.row_index.cmp(&b.row_index).then_with(|| a.id.cmp(&b.id)));
    ordered
}

/// What became of each record, in the order of the files. `human_answers` are [`judged_human_answers`].
pub fn judge_records<'a>(
    input: &DatasetInput<'a>,
    human_answers: &'a [Candidate],
    options: &PairingOptions,
) -> Vec<JudgedPrompt<'a>> {
    let mut candidates: HashMap<&str, Vec<&'a Candidate>> = HashMap::new();
    for candidate in input.candidates.iter().chain(human_answers) {
        candidates.entry(candidate.record_id.as_str()).or_default().push(candidate);
    }
    let mut verdicts: HashMap<&str, Vec<&'a Verdict>> = HashMap::new();
    for verdict in input.verdicts {
        verdicts.entry(verdict.record_id.as_str()).or_default().push(verdict);
    }
    let mut comparisons: HashMap<&str, Vec<&'a Comparison>> = HashMap::new();
    for comparison in input.comparisons {
        comparisons.entry(comparison.record_id.as_str()).or_default().push(comparison);
    }
    let mut seen: HashSet<&str> = HashSet::new();
    by_row(input.records)
        .into_iter()
        .map(|record| {
            let id = record.id.as_str();
            if !seen.insert(id) {
                return JudgedPrompt::dropped(record, DropReason::DuplicatePrompt);
            }
            let said = Said {
                candidates: candidates.get(id).map(Vec::as_slice).unwrap_or_default(),
                verdicts: verdicts.get(id).map(Vec::as_slice).unwrap_or_default(),
                comparisons: comparisons.get(id).map(Vec::as_slice).unwrap_or_default(),
                failure: input.failures.get(id).map(String::as_str),
            };
            pair_record(record, said, input.judge_weights, options)
        })
        .collect()
}

/// The numbers of judged records, before anything of them is written.
pub fn summarise(input: &DatasetInput<'_>, prompts: &[JudgedPrompt<'_>], pairing: PairingOptions) -> DatasetSummary {
    let mut summary = DatasetSummary::count(prompts, &input.source_drops.0, pairing);
    let known: HashSet<&str> = input.records.iter().map(|record| record.id.as_str()).collect();
    let is_orphan = |id: &str| !known.contains(id);
    summary.num_orphan_candidates =
        input.candidates.iter().filter(|candidate| is_orphan(&candidate.record_id)).count() as u64;
    summary.num_orphan_verdicts = input.verdicts.iter().filter(|verdict| is_orphan(&verdict.record_id)).count() as u64;
    if let Some(health) = &mut summary.judge_health {
        health.weights.clone_from(input.judge_weights);
        health.known_answers = input.known_answers.to_vec();
        health.known_totals = known::totals(input.known_answers);
        health.known_shifts = known::shifts(input.known_answers);
    }
    summary.same_model_judge = is_same_model(input.lock) || prompts.iter().any(judged_own_answer);
    let mut pairs: Vec<PairRow<'_>> = prompts.iter().flat_map(PairRow::all).collect();
    pairs.sort_by_key(|pair| split_hash(&pair.judged.record.id));
    summary.samples = pairs.iter().take(NUM_SAMPLES).map(sample_of).collect();
    summary
}

/// True if the lock names one model twice, by name or by content.
fn is_same_model(lock: &RunLock) -> bool {
    let is_one = |generator: &ModelRecord, judge: &ModelRecord| {
        generator.name == judge.name || (!generator.files.is_empty() && generator.files == judge.files)
    };
    lock.generators.iter().any(|generator| lock.judges.iter().any(|judge| is_one(generator, judge)))
}

/// A number that depends on the id alone; ids are hashes already, and this one is independent of their own order.
fn split_hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// Train and test, both in the order of `pairs`; test is empty if none is asked for.
fn split_pairs<'a>(pairs: &[PairRow<'a>], split: Option<TestSplit>) -> Result<[Vec<PairRow<'a>>; 2], DatasetError> {
    let hash = |pair: &PairRow<'_>| split_hash(&pair.judged.record.id);
    let is_test: Box<dyn Fn(&PairRow<'_>) -> bool> = match split {
        None => Box::new(|_| false),
        // 53 bits, all that a float holds exactly.
        Some(TestSplit::Fraction(fraction)) => {
            Box::new(move |pair| ((hash(pair) >> 11) as f64) < fraction * (1u64 << 53) as f64)
        }
        Some(TestSplit::Size(asked)) => {
            let num_pairs = pairs.len() as u64;
            if asked >= num_pairs.max(1) {
                return Err(DatasetError::TestSize { asked, num_pairs });
            }
            let mut hashes: Vec<u64> = pairs.iter().map(hash).collect();
            hashes.sort_unstable();
            let limit = usize::try_from(asked).ok().and_then(|rank| hashes.get(rank).copied()).unwrap_or(0);
            Box::new(move |pair| hash(pair) < limit)
        }
    };
    let (test, train) = pairs.iter().copied().partition(|pair| is_test(pair));
    Ok([train, test])
}

fn stage_files(
    staging: &mut Staging,
    input: &DatasetInput<'_>,
    options: &DatasetOptions,
    prompts: &[JudgedPrompt<'_>],
    summary: &mut DatasetSummary,
    voted: Option<(&Voted, Describe<'_>)>,
) -> Result<(), DatasetError> {
    let pairs: Vec<PairRow<'_>> = prompts.iter().flat_map(PairRow::all).collect();
    let [train, test] = split_pairs(&pairs, options.test_split)?;
    let lock = input.lock.published();
    let default_schema = Arc::new(schema_of(&default_columns(voted.is_some())));
    for (split, rows) in [("train", &train), ("test", &test)] {
        if split == "train" || !rows.is_empty() {
            let batches = rows.chunks(ROWS_PER_BATCH).map(|chunk| default_batch(&default_schema, chunk));
            let written = staging.write_parquet(("default", "data", split), &default_schema, &lock, batches)?;
            summary.files.push(written);
        }
    }
    (summary.num_train_pairs, summary.num_test_pairs) = (train.len() as u64, test.len() as u64);
    let raw_schema = Arc::new(schema_of(&raw_columns(options.include_user_id)));
    let is_same = is_same_model(input.lock);
    let batches = prompts.chunks(ROWS_PER_BATCH).map(|chunk| raw_batch(&raw_schema, chunk, is_same));
    summary.files.push(staging.write_parquet(("raw", "raw", "train"), &raw_schema, &lock, batches)?);
    let mut section = None;
    if let Some((voted, describe)) = voted {
        let schema = Arc::new(schema_of(&vote_columns()));
        let batches = voted.votes.chunks(ROWS_PER_BATCH).map(|chunk| vote_batch(&schema, chunk));
        summary.files.push(staging.write_parquet(("votes", "votes", "train"), &schema, &lock, batches)?);
        section = Some(describe(summary, prompts));
    }
    staging.write_text(CARD_FILE, &card::render_card(input, options, summary, section.as_deref()))
}

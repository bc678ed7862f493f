//! From judged prompts to Arrow record batches, a bounded number of rows at a time. Knows rows and the schema; decides
//! nothing and writes no file.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::error::ArrowError;

use super::pairing::{JudgedPrompt, PreferencePair, RatedAnswer};
use super::schema::{REWARD, comparison_fields, list_of, message_fields, name, pair_fields, verdict_fields};
use super::voted::{PairVotes, PublishedVote};
use crate::generate::{CandidateSource, FinishReason};
use crate::judge::{AnswerName, AspectRationale, AspectScore, Comparison, Verdict};
use crate::quality::AnswerQuality;

/// Rows per record batch: text offsets are 32-bit, so a batch must stay below 2 GiB of text.
pub const ROWS_PER_BATCH: usize = 1000;

type Columns = Vec<(&'static str, ArrayRef)>;

/// The word for a source in the columns.
pub fn source_name(source: CandidateSource) -> &'static str {
    match source {
        CandidateSource::Human => "human",
        CandidateSource::Model => "model",
    }
}

/// A prompt that gave a pair, with both answers at hand.
#[derive(Debug, Clone, Copy)]
pub struct PairRow<'a> {
    /// The prompt with all of its answers.
    pub judged: &'a JudgedPrompt<'a>,
    /// What makes it a pair.
    pub pair: &'a PreferencePair,
    /// The better rated answer.
    pub chosen: &'a RatedAnswer<'a>,
    /// The worse rated answer.
    pub rejected: &'a RatedAnswer<'a>,
}

impl<'a> PairRow<'a> {
    /// The rows of a judged prompt: one for each of its pairs.
    pub fn all(judged: &'a JudgedPrompt<'a>) -> impl Iterator<Item = Self> {
        judged.outcome.pairs().iter().filter_map(move |pair| {
            let chosen = judged.answers.get(pair.chosen_index)?;
            let rejected = judged.answers.get(pair.rejected_index)?;
            Some(Self { judged, pair, chosen, rejected })
        })
    }
}

/// Names of the judges that rated some answers, sorted and joined by a comma; `None` if none did.
pub fn judge_names<'a>(answers: impl Iterator<Item = &'a RatedAnswer<'a>>) -> Option<String> {
    let mut names: Vec<&str> =
        answers.flat_map(|answer| answer.verdicts.iter().map(|verdict| verdict.judge.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| names.join(", "))
}

/// One batch of the `default` configuration.
pub fn default_batch(schema: &Arc<Schema>, rows: &[PairRow<'_>]) -> Result<RecordBatch, ArrowError> {
    let model = |answer: &RatedAnswer<'_>| Some(answer.candidate.model.clone());
    let source = |answer: &RatedAnswer<'_>| Some(source_name(answer.candidate.source));
    let columns: Columns = vec![
        (name::ID, strings(rows, |row| Some(row.judged.record.id.clone()))),
        (name::PROMPT, messages("user", rows.iter().map(|row| row.judged.record.prompt.as_str()))?),
        (name::CHOSEN, messages("assistant", rows.iter().map(|row| row.chosen.candidate.text.as_str()))?),
        (name::REJECTED, messages("assistant", rows.iter().map(|row| row.rejected.candidate.text.as_str()))?),
        (name::CHOSEN_RATING, floats(rows, |row| row.pair.chosen_rating)),
        (name::REJECTED_RATING, floats(rows, |row| row.pair.rejected_rating)),
        (name::MARGIN, floats(rows, |row| row.pair.margin)),
        (name::PREFERENCE, floats(rows, |row| row.pair.preference)),
        (name::JUDGES_AGREE, Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.pair.judges_agree)))),
        (name::CHOSEN_SOURCE, strings(rows, |row| source(row.chosen))),
        (name::REJECTED_SOURCE, strings(rows, |row| source(row.rejected))),
        (name::CHOSEN_MODEL, strings(rows, |row| model(row.chosen))),
        (name::REJECTED_MODEL, strings(rows, |row| model(row.rejected))),
        (name::JUDGE_MODEL, strings(rows, |row| judge_names([row.chosen, row.rejected].into_iter()))),
        (name::LANGUAGE, strings(rows, |row| Some(row.judged.record.language.clone()))),
        (name::LANGUAGE_CODE, strings(rows, |row| Some(row.judged.record.language_code.clone()))),
        (name::LABEL_SOURCE, strings(rows, |row| Some(if row.pair.people.is_some() { "human" } else { "judge" }))),
        (name::NUM_VOTES, ints(rows, |row| Some(row.pair.people.map_or(0, |people| people.num_votes as i64)))),
        (name::CHOSEN_VOTE_SHARE, floats(rows, |row| vote_share(row.pair, |people| people.for_chosen))),
        (name::REJECTED_VOTE_SHARE, floats(rows, |row| vote_share(row.pair, |people| people.for_rejected))),
    ];
    assemble(schema, columns, rows.len())
}

fn vote_share(pair: &PreferencePair, part: fn(PairVotes) -> u64) -> Option<f64> {
    pair.people.map(|people| part(people) as f64 / people.num_votes.max(1) as f64)
}

/// One batch of the `votes` configuration.
pub fn vote_batch(schema: &Arc<Schema>, votes: &[PublishedVote]) -> Result<RecordBatch, ArrowError> {
    let side = |place: Option<usize>| {
        place.and_then(|place| (b'A'..=b'Z').nth(place)).map(|letter| char::from(letter).to_string())
    };
    let shown: Vec<&String> = votes.iter().flat_map(|vote| &vote.shown).collect();
    let ranks: Vec<i64> = votes.iter().flat_map(|vote| vote.ranks.iter().copied()).collect();
    let scores: Vec<Option<u8>> = votes.iter().flat_map(|vote| vote.scores.iter().copied()).collect();
    let columns: Columns = vec![
        (name::ID, strings(votes, |vote| Some(vote.record_id.clone()))),
        (name::ITEM, strings(votes, |vote| Some(vote.item.clone()))),
        (name::ANNOTATOR, strings(votes, |vote| Some(vote.annotator.clone()))),
        (name::KIND, strings(votes, |vote| Some(vote.kind))),
        (name::DAY, strings(votes, |vote| Some(vote.day.clone()))),
        (name::VIA, strings(votes, |vote| Some(vote.via))),
        (
            name::SHOWN,
            list(votes.iter().map(|vote| vote.shown.len()), strings(&shown, |hash| Some(hash.as_str().to_owned())))?,
        ),
        (name::CHOICE, strings(votes, |vote| Some(vote.choice))),
        (name::SIDE, strings(votes, |vote| side(vote.preferred))),
        (name::FLAG, strings(votes, |vote| vote.flag)),
        (name::FLAG_SIDE, strings(votes, |vote| side(vote.flagged))),
        (name::EDIT, strings(votes, |vote| vote.edit.clone())),
        (name::RANKS, list(votes.iter().map(|vote| vote.ranks.len()), ints(&ranks, |rank| Some(*rank)))?),
        (name::SCORES, list(votes.iter().map(|vote| vote.scores.len()), ints(&scores, |score| score.map(i64::from)))?),
    ];
    assemble(schema, columns, votes.len())
}

/// One batch of the `raw` configuration. `is_same_model` says that generator and judge are one model.
pub fn raw_batch(
    schema: &Arc<Schema>,
    rows: &[JudgedPrompt<'_>],
    is_same_model: bool,
) -> Result<RecordBatch, ArrowError> {
    let first_generated = |row: &JudgedPrompt<'_>| {
        row.answers
            .iter()
            .map(|answer| answer.candidate)
            .find(|answer| answer.source == CandidateSource::Model)
            .cloned()
    };
    let index =
        |row: &JudgedPrompt<'_>, pick: fn(&PreferencePair) -> usize| row.outcome.pair().map(|pair| pick(pair) as i64);
    let mut columns: Columns = vec![
        (name::ID, strings(rows, |row| Some(row.record.id.clone()))),
        (name::ROW_INDEX, ints(rows, |row| i64::try_from(row.record.row_index).ok())),
        (name::INSTRUCTION, strings(rows, |row| Some(row.record.prompt.clone()))),
        (name::TARGETS, strings(rows, |row| row.record.response.clone())),
        (name::LANGUAGE, strings(rows, |row| Some(row.record.language.clone()))),
        (name::LANGUAGE_CODE, strings(rows, |row| Some(row.record.language_code.clone()))),
        (name::ANNOTATION_TYPE, strings(rows, |row| row.record.annotation_type.clone())),
        (name::USER_ID, strings(rows, |row| row.record.user_id.clone())),
        (name::GENERATION, strings(rows, |row| first_generated(row).map(|answer| answer.text))),
        (name::GENERATION_MODEL, strings(rows, |row| first_generated(row).map(|answer| answer.model))),
        (name::MODEL_NAME, strings(rows, |row| judge_names(row.answers.iter()))),
        (name::OUTCOME, strings(rows, |row| Some(row.outcome.as_str().to_string()))),
        (name::CHOSEN_INDEX, ints(rows, |row| index(row, |pair| pair.chosen_index))),
        (name::REJECTED_INDEX, ints(rows, |row| index(row, |pair| pair.rejected_index))),
        (name::MARGIN, floats(rows, |row| row.difference)),
        (
            name::SAME_MODEL_JUDGE,
            Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(is_same_model || judged_own_answer(row))))),
        ),
        (name::PREDICTED_LANGUAGE, strings(rows, |row| first_quality(row)?.language.code.clone())),
        (name::PREDICTED_LANGUAGE_SCORE, floats(rows, |row| predicted(first_quality(row)?))),
        (name::NEAR_DUPLICATE_GROUP, strings(rows, |row| row.quality.near_duplicate_group.clone())),
        (name::VERDICTS, verdicts(rows)?),
        (name::COMPARISONS, comparisons(rows)?),
        (name::PAIRS, pairs(rows)?),
    ];
    columns.extend(answer_columns(rows)?);
    columns.extend(quality_columns(rows)?);
    assemble(schema, columns, rows.len())
}

/// True if a judge of this prompt also wrote one of its answers.
pub fn judged_own_answer(row: &JudgedPrompt<'_>) -> bool {
    let authors = |judge: &str| {
        row.answers
            .iter()
            .any(|answer| answer.candidate.source == CandidateSource::Model && answer.candidate.model == judge)
    };
    row.answers.iter().flat_map(|answer| &answer.verdicts).any(|verdict| authors(&verdict.judge))
}

/// The columns that hold one item per answer.
fn answer_columns(rows: &[JudgedPrompt<'_>]) -> Result<Columns, ArrowError> {
    let answers: Vec<&RatedAnswer<'_>> = rows.iter().flat_map(|row| &row.answers).collect();
    let lengths = || rows.iter().map(|row| row.answers.len());
    let reason = |answer: &&RatedAnswer<'_>| {
        answer.candidate.finish_reason.map(|reason| match reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        })
    };
    let num_tokens = |answer: &&RatedAnswer<'_>| match answer.candidate.source {
        CandidateSource::Human => None,
        CandidateSource::Model => i64::try_from(answer.candidate.token_ids.len()).ok(),
    };
    Ok(vec![
        (name::GENERATIONS, list(lengths(), strings(&answers, |answer| Some(answer.candidate.text.clone())))?),
        (name::GENERATION_MODELS, list(lengths(), strings(&answers, |answer| Some(answer.candidate.model.clone())))?),
        (
            name::GENERATION_SOURCES,
            list(lengths(), strings(&answers, |answer| Some(source_name(answer.candidate.source))))?,
        ),
        (name::FINISH_REASONS, list(lengths(), strings(&answers, reason))?),
        (name::TOKEN_COUNTS, list(lengths(), ints(&answers, num_tokens))?),
        (name::LOGPROBS, list(lengths(), floats(&answers, |answer| answer.candidate.logprob))?),
        (name::THINKING, list(lengths(), strings(&answers, |answer| answer.candidate.thinking.clone()))?),
        (name::RATINGS, list(lengths(), floats(&answers, |answer| answer.rating))?),
        (name::RATIONALES, rationales(rows, &answers)?),
    ])
}

/// What judges wrote of each answer: a paragraph per judge and aspect, named where there are several. Null for rows without any.
fn rationales(rows: &[JudgedPrompt<'_>], answers: &[&RatedAnswer<'_>]) -> Result<ArrayRef, ArrowError> {
    let text_of = |answer: &&RatedAnswer<'_>| {
        let written: Vec<(&str, &AspectRationale)> = answer
            .verdicts
            .iter()
            .flat_map(|verdict| verdict.aspects.iter().map(|score| (verdict.judge.as_str(), score)))
            .filter_map(|(judge, score)| Some((judge, score.written.as_ref()?)))
            .collect();
        let several = written.iter().any(|(judge, _)| *judge != written[0].0);
        let paragraph = |(judge, one): &(&str, &AspectRationale)| match (several, written.len()) {
            (_, 1) => one.rationale.clone(),
            (false, _) => format!("{}: {}", one.aspect, one.rationale),
            (true, _) => format!("{judge}, {}: {}", one.aspect, one.rationale),
        };
        (!written.is_empty()).then(|| written.iter().map(paragraph).collect::<Vec<_>>().join("\n\n"))
    };
    let texts: Vec<Option<String>> = answers.iter().map(text_of).collect();
    if texts.iter().all(Option::is_none) {
        return Ok(new_null_array(&list_of(DataType::Utf8), rows.len()));
    }
    list(rows.iter().map(|row| row.answers.len()), strings(&texts, Clone::clone))
}

/// What was found in the first generated answer.
fn first_quality<'a>(row: &'a JudgedPrompt<'_>) -> Option<&'a AnswerQuality> {
    let first = row.answers.iter().position(|answer| answer.candidate.source == CandidateSource::Model)?;
    row.quality.answers.get(first)
}

/// The posterior, where a language was told.
fn predicted(quality: &AnswerQuality) -> Option<f64> {
    quality.language.code.as_ref().map(|_| quality.language.posterior)
}

/// What checks found: lists with an item per answer, and the row's own.
fn quality_columns(rows: &[JudgedPrompt<'_>]) -> Result<Columns, ArrowError> {
    let answers: Vec<&AnswerQuality> = rows.iter().flat_map(|row| &row.quality.answers).collect();
    let lengths = || rows.iter().map(|row| row.quality.answers.len());
    let flags = |answer: &&AnswerQuality| {
        let names: Vec<&str> = answer.flags.iter().map(|flag| flag.as_str()).collect();
        Some(names.join(","))
    };
    let of_rows: Vec<&str> = rows.iter().flat_map(|row| row.quality.flags.iter().map(|flag| flag.as_str())).collect();
    Ok(vec![
        (name::ANSWER_LANGUAGES, list(lengths(), strings(&answers, |answer| answer.language.code.clone()))?),
        (name::LANGUAGE_VERDICTS, list(lengths(), strings(&answers, |answer| Some(answer.language.verdict.as_str())))?),
        (name::ANSWER_FLAGS, list(lengths(), strings(&answers, flags))?),
        (name::ROW_FLAGS, list(rows.iter().map(|row| row.quality.flags.len()), strings(&of_rows, |flag| Some(*flag)))?),
    ])
}

/// One struct per judge, answer and aspect; of a reward model one per answer, without a distribution.
fn verdicts(rows: &[JudgedPrompt<'_>]) -> Result<ArrayRef, ArrowError> {
    let mut lengths = Vec::with_capacity(rows.len());
    let mut flat: Vec<(i64, &Verdict, Option<&AspectScore>)> = Vec::new();
    for row in rows {
        let before = flat.len();
        for (index, answer) in row.answers.iter().enumerate() {
            for verdict in &answer.verdicts {
                flat.extend(verdict.aspects.iter().map(|score| (index as i64, *verdict, Some(score))));
                flat.extend(verdict.aspects.is_empty().then_some((index as i64, *verdict, None)));
            }
        }
        lengths.push(flat.len() - before);
    }
    let labels: Vec<f64> = flat.iter().flat_map(|(_, _, score)| score.iter().flat_map(|s| s.distribution)).collect();
    let num_labels = flat.iter().map(|(_, _, score)| score.map_or(0, |score| score.distribution.len()));
    let distributions = list(num_labels, floats(&labels, |label| Some(*label)))?;
    let aspect = |score: Option<&AspectScore>| score.map_or(REWARD, |score| score.aspect.as_str()).to_owned();
    let of = |pick: fn(&AspectScore) -> f64| floats(&flat, |(_, _, score)| score.map(pick));
    let columns: Columns = vec![
        (name::JUDGE, strings(&flat, |(_, verdict, _)| Some(verdict.judge.clone()))),
        (name::GENERATION_INDEX, ints(&flat, |(index, _, _)| Some(*index))),
        (name::ASPECT, strings(&flat, |(_, _, score)| Some(aspect(*score)))),
        (name::DISTRIBUTION, distributions),
        (name::MEAN, floats(&flat, |(_, verdict, score)| Some(score.map_or(verdict.rating, |score| score.mean)))),
        (name::ENTROPY, of(|score| score.entropy)),
        (name::LABEL_MASS, of(|score| score.label_mass)),
        (name::RELIABLE, Arc::new(BooleanArray::from_iter(flat.iter().map(|(_, verdict, _)| Some(verdict.reliable))))),
        (name::SCORE, floats(&flat, |(_, verdict, _)| verdict.score)),
        (name::RATIONALE, strings(&flat, |(_, _, score)| Some(score.as_ref()?.written.as_ref()?.rationale.clone()))),
        (name::WRITTEN_RATING, ints(&flat, |(_, _, score)| Some(i64::from(score.as_ref()?.written.as_ref()?.rating)))),
    ];
    list(lengths.into_iter(), structs(verdict_fields(), columns, flat.len())?)
}

/// One struct per judge and two answers.
fn comparisons(rows: &[JudgedPrompt<'_>]) -> Result<ArrayRef, ArrowError> {
    let flat: Vec<(&JudgedPrompt<'_>, &Comparison)> =
        rows.iter().flat_map(|row| row.comparisons.iter().map(move |comparison| (row, *comparison))).collect();
    let place = |row: &JudgedPrompt<'_>, wanted: &AnswerName| {
        row.answers.iter().position(|answer| AnswerName::of(answer.candidate) == *wanted).map(|index| index as i64)
    };
    let both = |pick: fn(&Comparison) -> [f64; 2]| {
        let values: Vec<f64> = flat.iter().flat_map(|(_, comparison)| pick(comparison)).collect();
        list(flat.iter().map(|_| 2), floats(&values, |value| Some(*value)))
    };
    let flag = |pick: fn(&Comparison) -> bool| -> ArrayRef {
        Arc::new(BooleanArray::from_iter(flat.iter().map(|(_, comparison)| Some(pick(comparison)))))
    };
    let columns: Columns = vec![
        (name::JUDGE, strings(&flat, |(_, comparison)| Some(comparison.judge.clone()))),
        (name::FIRST_INDEX, ints(&flat, |(row, comparison)| place(row, &comparison.answers[0]))),
        (name::SECOND_INDEX, ints(&flat, |(row, comparison)| place(row, &comparison.answers[1]))),
        (name::LOG_ODDS, both(|comparison| comparison.log_odds)?),
        (name::PREFERENCE, floats(&flat, |(_, comparison)| Some(comparison.preference))),
        (name::CONSISTENT, flag(|comparison| comparison.consistent)),
        (name::LABEL_MASS, both(|comparison| comparison.label_mass)?),
        (name::RELIABLE, flag(|comparison| comparison.reliable)),
    ];
    list(rows.iter().map(|row| row.comparisons.len()), structs(comparison_fields(), columns, flat.len())?)
}

/// One struct per pair.
fn pairs(rows: &[JudgedPrompt<'_>]) -> Result<ArrayRef, ArrowError> {
    let flat: Vec<&PreferencePair> = rows.iter().flat_map(|row| row.outcome.pairs()).collect();
    let columns: Columns = vec![
        (name::CHOSEN_INDEX, ints(&flat, |pair| Some(pair.chosen_index as i64))),
        (name::REJECTED_INDEX, ints(&flat, |pair| Some(pair.rejected_index as i64))),
        (name::MARGIN, floats(&flat, |pair| pair.margin)),
        (name::PREFERENCE, floats(&flat, |pair| pair.preference)),
        (name::JUDGES_AGREE, Arc::new(BooleanArray::from_iter(flat.iter().map(|pair| pair.judges_agree)))),
    ];
    list(rows.iter().map(|row| row.outcome.pairs().len()), structs(pair_fields(), columns, flat.len())?)
}

/// One message per row, as a list of one.
fn messages<'a>(role: &'static str, texts: impl Iterator<Item = &'a str>) -> Result<ArrayRef, ArrowError> {
    let contents = StringArray::from_iter(texts.map(Some));
    let num_rows = arrow::array::Array::len(&contents);
    let roles = StringArray::from_iter(std::iter::repeat_n(Some(role), num_rows));
    let columns: Columns = vec![(name::ROLE, Arc::new(roles)), (name::CONTENT, Arc::new(contents))];
    list(std::iter::repeat_n(1, num_rows), structs(message_fields(), columns, num_rows)?)
}

fn strings<R, S: AsRef<str>>(rows: &[R], value: impl Fn(&R) -> Option<S>) -> ArrayRef {
    Arc::new(StringArray::from_iter(rows.iter().map(value)))
}

fn floats<R>(rows: &[R], value: impl Fn(&R) -> Option<f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter(rows.iter().map(value)))
}

fn ints<R>(rows: &[R], value: impl Fn(&R) -> Option<i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(rows.iter().map(value)))
}

fn list(lengths: impl Iterator<Item = usize>, values: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let DataType::List(item) = list_of(values.data_type().clone()) else {
        return Err(ArrowError::SchemaError("a list's type is a list".into()));
    };
    Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), values, None)?))
}

fn structs(fields: Fields, columns: Columns, num_rows: usize) -> Result<ArrayRef, ArrowError> {
    let arrays = in_order(&fields, columns, num_rows)?;
    Ok(Arc::new(StructArray::try_new(fields, arrays, None)?))
}

fn assemble(schema: &Arc<Schema>, columns: Columns, num_rows: usize) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new(schema.clone(), in_order(schema.fields(), columns, num_rows)?)
}

/// The arrays in the order of `fields`; a field that nobody fills is null throughout.
fn in_order(fields: &Fields, columns: Columns, num_rows: usize) -> Result<Vec<ArrayRef>, ArrowError> {
    let array_of = |field: &Arc<Field>| {
        let found = columns.iter().find(|(name, _)| name == field.name()).map(|(_, array)| array.clone());
        found.unwrap_or_else(|| new_null_array(field.data_type(), num_rows))
    };
    Ok(fields.iter().map(array_of).collect())
}

//! Reading prompts: every row of a source becomes a record or a counted drop.
//! Knows filters and their order; does not know file formats, nor how a language is recognised.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::columns::{ColumnMap, Columns, Field, Row};
use super::error::DataError;
use super::language::{self, LanguageCount, LanguageMatch, NO_LANGUAGE};
use super::source::{Source, hex};
use super::{DropCounts, DropReason, PromptRecord, Prompts};

/// Which rows to take, and from which columns. The default takes every row that has a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Columns by field; without it Aya's names and usual spellings are tried ([`Field::usual_names`]).
    pub map: Option<ColumnMap>,
    /// A language as the user typed it: name or code, see [`language::resolve`].
    pub language: Option<String>,
    /// At most this many records, the first ones that pass every other filter.
    pub limit: Option<usize>,
    /// Longest prompt taken, in Unicode scalar values.
    pub max_prompt_chars: Option<usize>,
    /// Longest response taken, in Unicode scalar values.
    pub max_response_chars: Option<usize>,
    /// Drop rows without a human answer.
    pub require_response: bool,
}

/// Reads the prompts of a file, or of a directory of Parquet files: Parquet (`.parquet`, `.pq`, or any name if the content
/// says so), JSON lines (`.jsonl`, `.ndjson`, `.json`), CSV (`.csv`) or tab-separated text (`.tsv`).
///
/// Every row is either a record or counted in `drops` under one [`DropReason`]; blank lines of JSONL are no rows. Of rows
/// with the same prompt the first that passes the other filters is kept. The whole source is read, whatever the limit.
///
/// Errors: any [`DataError`]; in particular a source where no row has a prompt, or where no row is left.
pub fn read_prompts(path: &Path, options: &ReadOptions) -> Result<Prompts, DataError> {
    let source = Source::open(path)?;
    let available = source.column_names()?;
    if available.is_empty() {
        return Err(DataError::NoRowsLeft { path: path.to_owned(), num_rows: 0, drops: DropCounts::default() });
    }
    let columns = source.resolve(options.map.as_ref(), &available)?;
    if options.require_response && columns.get(Field::Response).is_none() {
        return Err(DataError::missing_column(path, Field::Response, Field::Response.usual_names(), &available));
    }
    let language = match &options.language {
        Some(query) => Some(find_language(&source, &columns, query, available)?),
        None => None,
    };
    let mut intake = Intake::new(options, language.as_ref());
    let num_rows_read = source.scan(&columns, &mut |row| {
        intake.take(row);
        Ok(())
    })?;
    let Intake { records, drops, any_prompt, .. } = intake;
    if num_rows_read > 0 && !any_prompt {
        let column = columns.get(Field::Prompt).unwrap_or_default().to_owned();
        return Err(DataError::NoPrompts { path: path.to_owned(), column, num_rows: num_rows_read });
    }
    if records.is_empty() {
        return Err(DataError::NoRowsLeft { path: path.to_owned(), num_rows: num_rows_read, drops });
    }
    Ok(Prompts { records, num_rows_read, drops, source: source.describe()?, language })
}

/// Counts the rows of each language of a source, most rows first, then by name. Rows that say no language, and all rows of
/// a source without such a column, count under the name [`NO_LANGUAGE`].
///
/// Errors: as [`read_prompts`], but a source without rows is an empty list.
pub fn count_languages(path: &Path, map: Option<&ColumnMap>) -> Result<Vec<LanguageCount>, DataError> {
    let source = Source::open(path)?;
    let available = source.column_names()?;
    if available.is_empty() {
        return Ok(Vec::new());
    }
    let columns = source.resolve(map, &available)?;
    count(&source, &columns)
}

pub(super) fn find_language(
    source: &Source,
    columns: &Columns,
    query: &str,
    available: Vec<String>,
) -> Result<LanguageMatch, DataError> {
    if !columns.has_language() {
        return Err(DataError::NoLanguageColumn {
            path: source.path().to_owned(),
            language: query.to_owned(),
            available,
        });
    }
    let counts = count(source, columns)?;
    language::resolve(query, &counts).map_err(|error| DataError::UnknownLanguage(Box::new(error)))
}

fn count(source: &Source, columns: &Columns) -> Result<Vec<LanguageCount>, DataError> {
    let columns = columns.only(&[Field::Language, Field::LanguageCode, Field::Response]);
    let mut counts: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    source.scan(&columns, &mut |row| {
        let [_, response, name, code, _, _] = row.cells;
        let key = (named(name, code).to_owned(), code.unwrap_or_default().to_owned());
        let (num_rows, num_with_response) = counts.entry(key).or_default();
        *num_rows += 1;
        *num_with_response += u64::from(response.is_some_and(|response| !is_blank(response)));
        Ok(())
    })?;
    let mut languages: Vec<LanguageCount> = counts
        .into_iter()
        .map(|((name, code), (num_rows, num_with_response))| LanguageCount { name, code, num_rows, num_with_response })
        .collect();
    languages.sort_by(|a, b| b.num_rows.cmp(&a.num_rows).then_with(|| a.name.cmp(&b.name)));
    Ok(languages)
}

/// The name under which a row's language counts; empty for a row that gives a code alone.
pub(super) fn named<'a>(name: Option<&'a str>, code: Option<&str>) -> &'a str {
    let name = name.unwrap_or_default();
    if is_blank(name) && code.is_none_or(is_blank) { NO_LANGUAGE } else { name }
}

/// Empty, or white space alone (Unicode `White_Space`; a zero-width joiner is none).
fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

fn is_longer(text: &str, limit: Option<usize>) -> bool {
    limit.is_some_and(|limit| text.chars().nth(limit).is_some())
}

/// The rows taken so far, and what is needed to judge the next one.
struct Intake<'a> {
    options: &'a ReadOptions,
    language: Option<&'a LanguageMatch>,
    records: Vec<PromptRecord>,
    drops: DropCounts,
    seen: HashSet<[u8; 32]>,
    /// Whether any row at all, wanted or not, had a prompt.
    any_prompt: bool,
}

impl<'a> Intake<'a> {
    fn new(options: &'a ReadOptions, language: Option<&'a LanguageMatch>) -> Intake<'a> {
        Intake {
            options,
            language,
            records: Vec::new(),
            drops: DropCounts::default(),
            seen: HashSet::new(),
            any_prompt: false,
        }
    }

    fn take(&mut self, row: &Row<'_>) {
        match self.judge(row) {
            Ok(record) => self.records.push(record),
            Err(reason) => self.drops.add(reason.as_str()),
        }
    }

    /// A record, or the first reason against it in the order of [`DropReason::ALL`].
    fn judge(&mut self, row: &Row<'_>) -> Result<PromptRecord, DropReason> {
        let [prompt, response, name, code, annotation_type, user_id] = row.cells;
        self.any_prompt |= prompt.is_some_and(|prompt| !is_blank(prompt));
        if self.language.is_some_and(|language| !language.contains(named(name, code), code.unwrap_or_default())) {
            return Err(DropReason::OtherLanguage);
        }
        let prompt = prompt.ok_or(DropReason::NullPrompt)?;
        if is_blank(prompt) {
            return Err(DropReason::EmptyPrompt);
        }
        if is_longer(prompt, self.options.max_prompt_chars) {
            return Err(DropReason::PromptTooLong);
        }
        let response = self.judge_response(response)?;
        let digest: [u8; 32] = Sha256::digest(prompt.as_bytes()).into();
        if !self.seen.insert(digest) {
            return Err(DropReason::DuplicatePrompt);
        }
        if self.options.limit.is_some_and(|limit| self.records.len() >= limit) {
            return Err(DropReason::OverLimit);
        }
        Ok(PromptRecord {
            id: hex(&digest),
            row_index: row.row_index,
            prompt: prompt.to_owned(),
            response: response.map(str::to_owned),
            language: name.unwrap_or_default().to_owned(),
            language_code: code.unwrap_or_default().to_owned(),
            annotation_type: annotation_type.map(str::to_owned),
            user_id: user_id.map(str::to_owned),
        })
    }

    fn judge_response<'r>(&self, response: Option<&'r str>) -> Result<Option<&'r str>, DropReason> {
        match response {
            None if self.options.require_response => Err(DropReason::NullResponse),
            None => Ok(None),
            Some(text) if is_blank(text) && self.options.require_response => Err(DropReason::EmptyResponse),
            Some(text) if is_blank(text) => Ok(None),
            Some(text) if is_longer(text, self.options.max_response_chars) => Err(DropReason::ResponseTooLong),
            Some(text) => Ok(Some(text)),
        }
    }
}

//! Which column of a file holds what: the column map a user gives, the names tried without one, and the match of both
//! against the columns a file has. Knows names only; does not know how a format stores a column.

use std::path::Path;

use super::error::DataError;
use super::nearest::nearest;

/// What a column can hold for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// What was asked; the one field that must be there.
    Prompt,
    /// The human answer.
    Response,
    /// Language name, for example `Dutch`.
    Language,
    /// Language code, for example `nld`.
    LanguageCode,
    /// Aya's label of how a row came about, for example `original-annotations`.
    AnnotationType,
    /// The author's pseudonym.
    UserId,
}

/// How many fields there are; the length of every per-field array.
pub(super) const NUM_FIELDS: usize = 6;

impl Field {
    /// All fields, in the order in which a row holds them.
    pub const ALL: [Field; NUM_FIELDS] =
        [Field::Prompt, Field::Response, Field::Language, Field::LanguageCode, Field::AnnotationType, Field::UserId];

    /// The key of this field in a column map.
    pub fn key(self) -> &'static str {
        match self {
            Field::Prompt => "prompt",
            Field::Response => "response",
            Field::Language => "language",
            Field::LanguageCode => "language_code",
            Field::AnnotationType => "annotation_type",
            Field::UserId => "user_id",
        }
    }

    /// Column names tried, in this order, for a field that no map names: Aya's own name first, then usual spellings.
    /// An exact spelling of any of them goes before one that differs in upper and lower case.
    pub fn usual_names(self) -> &'static [&'static str] {
        match self {
            Field::Prompt => &["inputs", "prompt", "instruction", "question", "query", "input"],
            Field::Response => &["targets", "response", "completion", "output", "answer", "target"],
            Field::Language => &["language", "lang", "language_name"],
            Field::LanguageCode => &["language_code", "lang_code", "iso_639_3", "iso_639_1"],
            Field::AnnotationType => &["annotation_type"],
            Field::UserId => &["user_id"],
        }
    }

    /// Whether whole numbers and booleans are taken as text: so for identifiers and labels, never for prose.
    pub(super) fn takes_numbers(self) -> bool {
        matches!(self, Field::AnnotationType | Field::UserId)
    }
}

/// Which column holds which field, as the user said; fields not named are looked up by [`Field::usual_names`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnMap {
    /// A field and its column; an empty column name says that the field shall be left out.
    chosen: Vec<(Field, String)>,
}

impl ColumnMap {
    /// Parses `prompt=inputs,response=targets,language=lang`. Keys are those of [`Field::key`]; spaces around keys and
    /// columns are ignored; a column name cannot contain a comma. `response=` (nothing after the sign) leaves the response
    /// out even if the file has a column of a usual name.
    ///
    /// Errors: [`DataError::InvalidMap`] for an empty map, an entry without `=`, an unknown or repeated key, an empty prompt,
    /// or a prompt and a response from the same column.
    pub fn parse(spec: &str) -> Result<ColumnMap, DataError> {
        let invalid = |problem: String| DataError::InvalidMap { spec: spec.to_owned(), problem };
        let mut chosen: Vec<(Field, String)> = Vec::new();
        for entry in spec.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let Some((key, column)) = entry.split_once('=') else {
                return Err(invalid(format!("`{entry}` has no `=`")));
            };
            let (key, column) = (key.trim(), column.trim());
            let Some(field) = Field::ALL.into_iter().find(|field| field.key() == key) else {
                let close = nearest(key, Field::ALL.map(Field::key), 1);
                let meant = close.first().map(|key| format!(" (did you mean `{key}`?)")).unwrap_or_default();
                return Err(invalid(format!("`{key}` is not a key{meant}")));
            };
            if chosen.iter().any(|(known, _)| *known == field) {
                return Err(invalid(format!("`{key}` is given twice")));
            }
            if field == Field::Prompt && column.is_empty() {
                return Err(invalid("the prompt needs a column".to_owned()));
            }
            chosen.push((field, column.to_owned()));
        }
        if chosen.is_empty() {
            return Err(invalid("it is empty".to_owned()));
        }
        let map = ColumnMap { chosen };
        if map.get(Field::Response).is_some_and(|column| Some(column) == map.get(Field::Prompt)) {
            return Err(invalid("prompt and response are the same column".to_owned()));
        }
        Ok(map)
    }

    /// What the map says of a field: a column name, an empty one ("leave it out"), or nothing.
    fn get(&self, wanted: Field) -> Option<&str> {
        self.chosen.iter().find(|(field, _)| *field == wanted).map(|(_, column)| column.as_str())
    }
}

/// The column of each field in one file; `None` where the file has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    names: [Option<String>; NUM_FIELDS],
}

impl Columns {
    /// Finds every field among the columns a file has. A mapped column must be there, and so must a prompt; other fields
    /// may be missing. A column that the map gives to one field is not guessed for another.
    pub(super) fn resolve(path: &Path, map: Option<&ColumnMap>, available: &[String]) -> Result<Columns, DataError> {
        let mut names: [Option<String>; NUM_FIELDS] = Default::default();
        for (slot, field) in names.iter_mut().zip(Field::ALL) {
            *slot = match map.and_then(|map| map.get(field)) {
                Some("") => None,
                Some(column) if available.iter().any(|name| name == column) => Some(column.to_owned()),
                Some(column) => return Err(DataError::missing_column(path, field, &[column], available)),
                None => usual_column(field, map, available),
            };
        }
        let columns = Columns { names };
        if columns.get(Field::Prompt).is_none() {
            return Err(DataError::missing_column(path, Field::Prompt, Field::Prompt.usual_names(), available));
        }
        Ok(columns)
    }

    /// The column of a field, if the file has one and it was not left out by [`Columns::only`].
    pub(super) fn get(&self, field: Field) -> Option<&str> {
        self.by_field().find(|(known, _)| *known == field).and_then(|(_, name)| name)
    }

    /// The same with all but the given fields left out, so that a reader need not decode them.
    pub(super) fn only(&self, fields: &[Field]) -> Columns {
        let mut names = self.names.clone();
        for (slot, field) in names.iter_mut().zip(Field::ALL) {
            if !fields.contains(&field) {
                *slot = None;
            }
        }
        Columns { names }
    }

    /// Every field with its column, in the order of [`Field::ALL`].
    pub(super) fn by_field(&self) -> impl Iterator<Item = (Field, Option<&str>)> {
        Field::ALL.into_iter().zip(self.names.iter().map(Option::as_deref))
    }

    /// Whether a row can say what language it is in.
    pub(super) fn has_language(&self) -> bool {
        self.get(Field::Language).is_some() || self.get(Field::LanguageCode).is_some()
    }
}

fn usual_column(field: Field, map: Option<&ColumnMap>, available: &[String]) -> Option<String> {
    let free: Vec<&String> = available
        .iter()
        .filter(|name| map.is_none_or(|map| map.chosen.iter().all(|(_, column)| column != *name)))
        .collect();
    let exact = field.usual_names().iter().find_map(|usual| free.iter().find(|name| name.as_str() == *usual));
    let folded =
        || field.usual_names().iter().find_map(|usual| free.iter().find(|name| name.eq_ignore_ascii_case(usual)));
    exact.or_else(folded).map(|name| (*name).clone())
}

/// One row of a file, borrowed from the reader's buffers. A field without a column is `None`, as is a null.
pub(super) struct Row<'a> {
    /// Zero-based row in the source.
    pub(super) row_index: u64,
    /// The text of each field, in the order of [`Field::ALL`].
    pub(super) cells: [Option<&'a str>; NUM_FIELDS],
}

/// What a reader calls for each row.
pub(super) type Visit<'v> = dyn FnMut(&Row<'_>) -> Result<(), DataError> + 'v;

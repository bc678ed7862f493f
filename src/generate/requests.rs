//! Requests as JSON lines: `{"id", "prompt" | "messages" | "prompt_token_ids"}`, the input of `generate` when it serves alone, and
//! the reading of any such file: ids, line numbers, what is wrong where. Knows line formats; knows no model.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::prompt::Message;

/// A prompt in one of four forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptInput {
    /// A dialogue for the model's chat template.
    Messages(Vec<Message>),
    /// A dialogue whose last turn the model goes on with.
    Continued(Vec<Message>),
    /// Text that the model continues as it stands, after its start token.
    Raw(String),
    /// Token ids, used as they are.
    TokenIds(Vec<u32>),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptRequest {
    /// Names the row in the output, and is part of its random numbers.
    pub id: String,
    /// The prompt.
    pub input: PromptInput,
}

/// Why a request file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}\nhint: give a JSONL file with one request per line")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A line is not a request.
    #[error("{path}, line {line}: {what}\nhint: {hint}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
        /// What a line looks like.
        hint: &'static str,
    },
    /// There is nothing to do.
    #[error("{path} holds no requests\nhint: give a JSONL file with one request per line")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
struct Line {
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    #[serde(default)]
    continue_final_message: bool,
    prompt_token_ids: Option<Vec<u32>>,
}

const HINT: &str = "a line is {\"id\": …, \"prompt\": …}, with \"messages\" or \"prompt_token_ids\" in place of \"prompt\" if you like";

/// Reads all requests of a file. A line without id gets its number, from 0. `raw`: a `prompt` is continued as it stands
/// instead of being put to the model as a user's turn.
///
/// # Errors
/// [`RequestError`], naming the line; ids must be unique.
pub fn read_requests(path: &Path, raw: bool) -> Result<Vec<PromptRequest>, RequestError> {
    read_lines(path, HINT, |id, line: Line| {
        let ends_open = |turns: &Vec<Message>| turns.last().is_some_and(|last| last.role == "assistant");
        if line.continue_final_message && !line.messages.as_ref().is_some_and(ends_open) {
            return Err("\"continue_final_message\" needs \"messages\" that end with an assistant's turn".to_owned());
        }
        let input = match (line.prompt, line.messages, line.prompt_token_ids) {
            (Some(prompt), None, None) if raw => PromptInput::Raw(prompt),
            (Some(prompt), None, None) => PromptInput::Messages(super::dialogue(None, &prompt)),
            (None, Some(messages), None) if line.continue_final_message => PromptInput::Continued(messages),
            (None, Some(messages), None) => PromptInput::Messages(messages),
            (None, None, Some(ids)) => PromptInput::TokenIds(ids),
            _ => return Err("want exactly one of \"prompt\", \"messages\", \"prompt_token_ids\"".to_owned()),
        };
        Ok(PromptRequest { id, input })
    })
}

/// Reads a JSONL file whose lines have an optional unique `id`, text or number (a line without gets its number, from 0), and
/// fields that `parse` makes something of; its error says what is wrong. `hint` shows what a line looks like.
///
/// # Errors
/// [`RequestError`], naming the line.
pub fn read_lines<L: DeserializeOwned, R>(
    path: &Path,
    hint: &'static str,
    parse: impl Fn(String, L) -> Result<R, String>,
) -> Result<Vec<R>, RequestError> {
    #[derive(Deserialize)]
    struct WithId<L> {
        id: Option<serde_json::Value>,
        #[serde(flatten)]
        rest: L,
    }
    let io = |source| RequestError::Io { path: path.to_owned(), source };
    let file = std::io::BufReader::new(std::fs::File::open(path).map_err(io)?);
    let mut requests = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (index, line) in file.lines().enumerate() {
        let line = line.map_err(io)?;
        let text = if index == 0 { line.trim_start_matches('\u{feff}') } else { &line };
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |what: String| RequestError::Line { path: path.to_owned(), line: index + 1, what, hint };
        let line: WithId<L> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let id = match line.id {
            None => index.to_string(),
            Some(serde_json::Value::String(id)) => id,
            Some(serde_json::Value::Number(id)) => id.to_string(),
            Some(other) => return Err(wrong(format!("\"id\" is {other}, want a string or a number"))),
        };
        if !seen.insert(id.clone()) {
            return Err(wrong(format!("the id \"{id}\" was used before")));
        }
        requests.push(parse(id, line.rest).map_err(wrong)?);
    }
    if requests.is_empty() {
        return Err(RequestError::Empty { path: path.to_owned() });
    }
    Ok(requests)
}

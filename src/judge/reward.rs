//! Scores of reward models: a dialogue goes through the model's template, and its head speaks behind the last token.
//! Knows dialogues and the engine; knows nothing of runs or files beyond the lines it reads.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::JudgeItem;
use super::verdict::{JudgeRow, RewardScore};
use crate::engine::{EngineError, Request, Task};
use crate::generate::{
    Candidate, Ended, Ending, GenerateError, Observer, Prepared, RequestError, Row, Source, TextModel, dialogue, drive,
    read_lines,
};
use crate::prompt::{ChatTokenizer, DialogueEnd, Message, PromptError};

/// What a line asks to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScoreInput {
    /// One dialogue that ends with an answer.
    One(Vec<Message>),
    /// Two dialogues over the same prompt.
    Pair {
        /// With the preferred answer.
        chosen: Vec<Message>,
        /// With the other one.
        rejected: Vec<Message>,
    },
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreRequest {
    /// Names the line in the output.
    pub id: String,
    /// What is scored.
    pub input: ScoreInput,
}

/// A text, or turns.
#[derive(Deserialize)]
#[serde(untagged)]
enum Turns {
    Text(String),
    Messages(Vec<Message>),
}

impl Turns {
    fn into_messages(self, role: &str) -> Vec<Message> {
        match self {
            Self::Text(content) => vec![Message { role: role.to_owned(), content }],
            Self::Messages(messages) => messages,
        }
    }
}

#[derive(Deserialize)]
struct Line {
    messages: Option<Vec<Message>>,
    prompt: Option<Turns>,
    response: Option<Turns>,
    chosen: Option<Turns>,
    rejected: Option<Turns>,
}

const HINT: &str = "a line is {\"id\": …, \"messages\": […]}, {\"prompt\": …, \"response\": …} or {\"prompt\": …, \"chosen\": …, \
                    \"rejected\": …}; prompt and answers are texts or lists of turns";

/// Reads all lines of a file: dialogues, prompts with a response, or preference pairs as TRL reads them.
///
/// # Errors
/// [`RequestError`], naming the line; ids must be unique.
pub fn read_score_requests(path: &Path) -> Result<Vec<ScoreRequest>, RequestError> {
    read_lines(path, HINT, |id, line: Line| {
        let prompt = line.prompt.map(|prompt| match prompt {
            Turns::Text(text) => dialogue(None, &text),
            Turns::Messages(messages) => messages,
        });
        let join = |answer: Turns| -> Vec<Message> {
            prompt.iter().flatten().cloned().chain(answer.into_messages("assistant")).collect()
        };
        let input = match (line.messages, line.response, line.chosen, line.rejected) {
            (Some(messages), None, None, None) if prompt.is_none() => ScoreInput::One(messages),
            (None, Some(response), None, None) if prompt.is_some() => ScoreInput::One(join(response)),
            (None, None, Some(chosen), Some(rejected)) => {
                ScoreInput::Pair { chosen: join(chosen), rejected: join(rejected) }
            }
            _ => {
                return Err(
                    "want \"messages\", \"prompt\" with \"response\", or \"chosen\" with \"rejected\"".to_owned()
                );
            }
        };
        let dialogues = match &input {
            ScoreInput::One(messages) => vec![messages],
            ScoreInput::Pair { chosen, rejected } => vec![chosen, rejected],
        };
        match dialogues.iter().any(|messages| messages.last().is_none_or(|last| last.role != "assistant")) {
            true => Err("a dialogue to score ends with a turn of the assistant".to_owned()),
            false => Ok(ScoreRequest { id, input }),
        }
    })
}

/// A line being scored: one request per dialogue.
struct InFlight {
    id: String,
    is_pair: bool,
}

impl InFlight {
    /// The output line: `score`, or `score_chosen` and `score_rejected` with their `margin`; lists where the head has several
    /// outputs.
    fn line(&self, scores: &[Vec<f32>]) -> Value {
        let value = |scores: &[f32]| match scores {
            [one] => json!(one),
            several => json!(several),
        };
        match (scores, self.is_pair) {
            ([chosen, rejected], true) => {
                let mut line = json!({"id": self.id, "score_chosen": value(chosen), "score_rejected": value(rejected)});
                if let ([chosen], [rejected]) = (&chosen[..], &rejected[..]) {
                    line["margin"] = json!(f64::from(*chosen) - f64::from(*rejected));
                }
                line
            }
            _ => json!({"id": self.id, "score": value(scores.first().map_or(&[][..], Vec::as_slice))}),
        }
    }
}

impl Row for InFlight {
    type Done = (String, Value);

    fn finish(self, parts: Vec<Ended>) -> Result<(String, Value), GenerateError> {
        let scores: Vec<Vec<f32>> = parts.into_iter().map(|part| part.output.head_scores).collect();
        let line = self.line(&scores);
        Ok((self.id, line))
    }

    fn refused(self, error: EngineError) -> Result<(String, Value), GenerateError> {
        match error {
            EngineError::PromptTooLong { .. } | EngineError::EmptyPrompt => {
                Ok(failed(self.id, "too_long", &error.to_string()))
            }
            error => Err(error.into()),
        }
    }
}

/// The line of a request that could not be scored.
fn failed(id: String, reason: &str, detail: &str) -> (String, Value) {
    let line = json!({"id": id, "error": {"reason": reason, "detail": detail}});
    (id, line)
}

/// Scores every request, handing each line to `done` with its id as it is finished (not in the order of the requests). A
/// dialogue that cannot be put to the model becomes a line with an `error`.
///
/// # Errors
/// [`GenerateError`] if no line could be done any more, or `done` fails.
pub fn score(
    model: &mut TextModel,
    requests: impl IntoIterator<Item = ScoreRequest, IntoIter: Send>,
    observer: &mut dyn Observer,
    mut done: impl FnMut(&str, Value) -> Result<(), GenerateError> + Send,
) -> Result<Ending, GenerateError> {
    let queue_len = model.queue_len();
    let (engine, tokenizer) = model.parts();
    let rows = requests.into_iter().map(|request| prepare(tokenizer, request));
    let lines = Source::new(rows, |(id, line): (String, Value)| done(&id, line));
    drive(engine, queue_len, vec![lines], observer)
}

/// Encodes a line's dialogues.
fn prepare(tokenizer: &ChatTokenizer, request: ScoreRequest) -> Result<Prepared<InFlight>, GenerateError> {
    let (dialogues, is_pair) = match request.input {
        ScoreInput::One(messages) => (vec![messages], false),
        ScoreInput::Pair { chosen, rejected } => (vec![chosen, rejected], true),
    };
    let mut requests = Vec::new();
    for messages in &dialogues {
        match tokenizer.encode_chat(messages, DialogueEnd::Whole) {
            Ok(prompt) => requests.push(Request { prompt, task: Task::Classify, key: 0 }),
            Err(error @ PromptError::NoTemplate { .. }) => return Err(error.into()),
            Err(error) => return Ok(Prepared::Done(failed(request.id, "not_encodable", &error.to_string()))),
        }
    }
    Ok(Prepared::Asks(InFlight { id: request.id, is_pair }, requests))
}

/// An answer that a reward model is asked about.
pub(super) struct Rated<'a> {
    judge: &'a str,
    candidate: Candidate,
}

/// The scores of `items` as a source of rows for [`drive`], as rows of the judge stage.
pub(super) fn scores<'a>(
    tokenizer: &'a ChatTokenizer,
    judge: &'a str,
    items: impl Iterator<Item = JudgeItem> + Send + 'a,
    done: impl FnMut(JudgeRow) -> Result<(), GenerateError> + Send + 'a,
) -> Source<'a> {
    Source::new(items.map(move |item| rated(tokenizer, judge, item)), done)
}

/// Encodes a dialogue that ends with the answer.
pub(super) fn rated<'a>(
    tokenizer: &ChatTokenizer,
    judge: &'a str,
    item: JudgeItem,
) -> Result<Prepared<Rated<'a>>, GenerateError> {
    let JudgeItem { prompt, candidate } = item;
    let mut messages = dialogue(None, &prompt.text);
    messages.push(Message { role: "assistant".to_owned(), content: candidate.text.clone() });
    match tokenizer.encode_chat(&messages, DialogueEnd::Whole) {
        Ok(prompt) => {
            let request = Request { prompt, task: Task::Classify, key: 0 };
            Ok(Prepared::Asks(Rated { judge, candidate }, vec![request]))
        }
        Err(error @ PromptError::NoTemplate { .. }) => Err(error.into()),
        Err(error) => {
            Ok(Prepared::Done(JudgeRow::failed(judge, &candidate, "judge_prompt_not_encodable", error.to_string())))
        }
    }
}

impl Row for Rated<'_> {
    type Done = JudgeRow;

    fn finish(self, parts: Vec<Ended>) -> Result<JudgeRow, GenerateError> {
        let scores: Vec<f32> = parts.into_iter().flat_map(|part| part.output.head_scores).collect();
        let [score] = scores[..] else {
            let detail = format!("the model's head gives {} numbers, want one score", scores.len());
            return Ok(JudgeRow::failed(self.judge, &self.candidate, "not_one_score", detail));
        };
        if !score.is_finite() {
            let detail = format!("the score is {score}");
            return Ok(JudgeRow::failed(self.judge, &self.candidate, "score_not_finite", detail));
        }
        let Candidate { record_id, source, model, sample_index, .. } = self.candidate;
        let (judge, score) = (self.judge.to_owned(), f64::from(score));
        Ok(JudgeRow::Score(RewardScore { record_id, source, model, sample_index, judge, score }))
    }

    fn refused(self, error: EngineError) -> Result<JudgeRow, GenerateError> {
        match error {
            EngineError::PromptTooLong { .. } | EngineError::EmptyPrompt => {
                Ok(JudgeRow::failed(self.judge, &self.candidate, "judge_prompt_too_long", error.to_string()))
            }
            error => Err(error.into()),
        }
    }
}

//! Scores of reward models: a dialogue goes through the model's template, and its head speaks behind the last token.
//! Knows dialogues and the engine; knows nothing of runs or files beyond the lines it reads.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::{EngineError, Event, Request, SequenceId, Task};
use crate::generate::{Ending, GenerateError, Observer, RequestError, TextModel, dialogue, read_lines};
use crate::prompt::{DialogueEnd, Message, PromptError};

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

/// A line being scored: the outputs of its dialogues as they come in.
struct InFlight {
    id: String,
    is_pair: bool,
    scores: Vec<Option<Vec<f32>>>,
}

impl InFlight {
    /// The output line: `score`, or `score_chosen` and `score_rejected` with their `margin`; lists where the head has several
    /// outputs.
    fn line(&self) -> Value {
        let value = |scores: &[f32]| match scores {
            [one] => json!(one),
            several => json!(several),
        };
        let scores: Vec<&[f32]> = self.scores.iter().map(|scores| scores.as_deref().unwrap_or_default()).collect();
        match (&scores[..], self.is_pair) {
            ([chosen, rejected], true) => {
                let mut line = json!({"id": self.id, "score_chosen": value(chosen), "score_rejected": value(rejected)});
                if let ([chosen], [rejected]) = (chosen, rejected) {
                    line["margin"] = json!(f64::from(*chosen) - f64::from(*rejected));
                }
                line
            }
            _ => json!({"id": self.id, "score": value(scores.first().copied().unwrap_or_default())}),
        }
    }
}

/// Scores every request, handing each line to `done` with its id as it is finished (not in the order of the requests). A
/// dialogue that cannot be put to the model becomes a line with an `error`.
///
/// # Errors
/// [`GenerateError`] if no line could be done any more, or `done` fails.
pub fn score(
    model: &mut TextModel,
    requests: impl IntoIterator<Item = ScoreRequest>,
    observer: &mut dyn Observer,
    done: &mut dyn FnMut(&str, Value) -> Result<(), GenerateError>,
) -> Result<Ending, GenerateError> {
    let queue_len = model.max_batch() * 3;
    let mut requests = requests.into_iter();
    let mut lines: HashMap<usize, InFlight> = HashMap::new();
    let mut parts: HashMap<SequenceId, (usize, usize)> = HashMap::new();
    let mut next = 0;
    loop {
        let mut num_rows = 0;
        while parts.len() < queue_len {
            let Some(request) = requests.next() else { break };
            let id = request.id.clone();
            match admit(model, request)? {
                Ok((line, sequences)) => {
                    parts.extend(sequences.into_iter().enumerate().map(|(part, sequence)| (sequence, (next, part))));
                    lines.insert(next, line);
                }
                Err((reason, detail)) => {
                    num_rows += 1;
                    done(&id, json!({"id": id, "error": {"reason": reason, "detail": detail}}))?;
                }
            }
            next += 1;
        }
        let (engine, _) = model.parts();
        for event in engine.step()? {
            let Event::Finished { id, output, .. } = event else { continue };
            let Some((index, part)) = parts.remove(&id) else { continue };
            let Some(line) = lines.get_mut(&index) else { continue };
            line.scores[part] = Some(output.head_scores);
            if line.scores.iter().all(Option::is_some)
                && let Some(line) = lines.remove(&index)
            {
                num_rows += 1;
                done(&line.id, line.line())?;
            }
        }
        observer.progress(num_rows, &engine.stats());
        if parts.is_empty() && num_rows == 0 {
            return Ok(Ending::Completed);
        }
        if observer.should_stop() {
            parts.keys().for_each(|&id| _ = engine.stop(id));
            return Ok(Ending::Interrupted);
        }
    }
}

type Admitted = Result<(InFlight, Vec<SequenceId>), (&'static str, String)>;

/// Queues a line's dialogues; the inner error is the line's own.
fn admit(model: &mut TextModel, request: ScoreRequest) -> Result<Admitted, GenerateError> {
    let (engine, tokenizer) = model.parts();
    let (dialogues, is_pair) = match request.input {
        ScoreInput::One(messages) => (vec![messages], false),
        ScoreInput::Pair { chosen, rejected } => (vec![chosen, rejected], true),
    };
    let mut requests = Vec::new();
    for messages in &dialogues {
        match tokenizer.encode_chat(messages, DialogueEnd::Whole) {
            Ok(prompt) => requests.push(Request { prompt, task: Task::Classify, key: 0 }),
            Err(error @ PromptError::NoTemplate { .. }) => return Err(error.into()),
            Err(error) => return Ok(Err(("not_encodable", error.to_string()))),
        }
    }
    let sequences = match engine.add_all(requests) {
        Ok(sequences) => sequences,
        Err(error @ (EngineError::PromptTooLong { .. } | EngineError::EmptyPrompt)) => {
            return Ok(Err(("too_long", error.to_string())));
        }
        Err(error) => return Err(error.into()),
    };
    let scores = vec![None; dialogues.len()];
    Ok(Ok((InFlight { id: request.id, is_pair, scores }, sequences)))
}

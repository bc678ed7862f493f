//! A chat template: Jinja source in, the text of a dialogue out, as Transformers renders it.
//! Knows nothing of token ids, and does not decide which text is safe to encode.
//!
//! Set-up followed: Transformers' `_compile_jinja_template`, which is a Jinja2 sandbox with `trim_blocks` and
//! `lstrip_blocks`, loop controls, no auto-escaping, its own `tojson`, `raise_exception`, `strftime_now` and a
//! `{% generation %}` block. Jinja2's defaults hold for the rest: one trailing newline of the source is dropped, `\r\n` in
//! the source counts as `\n`, an undefined variable prints as nothing and refuses attribute access.

use super::rewrite::rewrite;
use super::{Message, PromptError, python};
use jiff::civil::{Date, DateTime};
use minijinja::{Environment, Error, ErrorKind, Value, syntax::SyntaxConfig};
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};
use std::error::Error as _;

/// What a run fixes about its templates.
#[derive(Debug, Clone)]
pub struct TemplateOptions {
    /// The date `strftime_now` answers with (at 00:00:00): a date of the run, never the clock.
    pub date: Date,
    /// Template variables, e.g. `enable_thinking: false`. They win over the tokenizer's own (`bos_token`, …).
    pub extra: Map<String, Json>,
    /// Jinja source to use instead of the model's own template.
    pub chat_template_override: Option<String>,
}

impl TemplateOptions {
    /// No extra variables, the model's own template.
    pub fn new(date: Date) -> Self {
        Self { date, extra: Map::new(), chat_template_override: None }
    }
}

/// How a rendered dialogue ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialogueEnd {
    /// With its last turn, closed as the template closes a turn.
    Whole,
    /// With what opens the model's turn (`add_generation_prompt`): the model answers.
    GenerationPrompt,
    /// With the text of its last turn, left open (`continue_final_message`): the model goes on in it.
    ContinueFinal,
}

/// Put behind the text of the turn to be continued, to find its end in the rendered text. The space at its end tells a
/// template that trims its turns, as in Transformers' `render_jinja_template`, whose rule this follows.
const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// An error that the template raised itself, kept apart from errors of the renderer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// A compiled chat template with its variables.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    sha256: String,
    variables: Map<String, Json>,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles `source`; `variables` are what every rendering sees besides the messages.
    ///
    /// # Errors
    /// [`PromptError::Template`] where the source is not valid Jinja.
    pub(super) fn compile(source: String, variables: Map<String, Json>, date: Date) -> Result<Self, PromptError> {
        let mut environment = environment(date)?;
        environment.add_template_owned(NAME, rewrite(&source)).map_err(template_error)?;
        let sha256 = sha256_hex(source.as_bytes());
        Ok(Self { environment, source, sha256, variables })
    }

    /// The source as it was found.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Hex SHA-256 of [`ChatTemplate::source`].
    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Does `c` occur in the source or in a variable? Such a character cannot serve as a private marker.
    pub(super) fn mentions(&self, c: char) -> bool {
        self.source.contains(c) || self.variables.values().any(|value| value.to_string().contains(c))
    }

    /// Renders a dialogue.
    ///
    /// # Errors
    /// [`PromptError::Template`], with `raised` where the template called `raise_exception`;
    /// [`PromptError::NotContinuable`] where the last turn's text does not stand in the result.
    pub(super) fn render(&self, messages: &[Message], end: DialogueEnd) -> Result<String, PromptError> {
        match end {
            DialogueEnd::Whole => self.render_whole(messages, false),
            DialogueEnd::GenerationPrompt => self.render_whole(messages, true),
            DialogueEnd::ContinueFinal => self.render_open(messages),
        }
    }

    /// Renders a dialogue up to the end of its last turn's text.
    fn render_open(&self, messages: &[Message]) -> Result<String, PromptError> {
        let not = |reason: &str| PromptError::NotContinuable { reason: reason.to_owned() };
        let mut tagged = messages.to_vec();
        let Some(last) = tagged.last_mut() else { return Err(not("there is no turn")) };
        if !self.source.contains("content") {
            return Err(not("the template shows no contents"));
        }
        let content = last.content.clone();
        last.content.push_str(TAG);
        let mut text = self.render_whole(&tagged, false)?;
        let found = text.rfind(TAG.trim_end()).filter(|_| text.contains(python::strip(&content)));
        let at = found.ok_or_else(|| not("the template leaves its text out or changes it"))?;
        let keeps_spaces = text.get(at..).is_some_and(|rest| rest.starts_with(TAG));
        text.truncate(at);
        if !keeps_spaces {
            text.truncate(python::strip_end(&text).len());
        }
        Ok(text)
    }

    fn render_whole(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, PromptError> {
        let mut context = Map::new();
        context.insert("tools".to_owned(), Json::Null);
        context.insert("documents".to_owned(), Json::Null);
        context.extend(self.variables.clone());
        let turns = messages.iter().map(|turn| serde_json::json!({"role": turn.role, "content": turn.content}));
        context.insert("messages".to_owned(), turns.collect());
        context.insert("add_generation_prompt".to_owned(), Json::Bool(add_generation_prompt));
        let template = self.environment.get_template(NAME).map_err(template_error)?;
        template.render(Value::from(minijinja::value::Serde(&context))).map_err(template_error)
    }
}

fn environment(date: Date) -> Result<Environment<'static>, PromptError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(template_error)?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    python::install(&mut environment);
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        let message = message.to_string();
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    let midnight: DateTime = date.at(0, 0, 0, 0);
    environment.add_function("strftime_now", move |format: &str| python::strftime(midnight, format));
    Ok(environment)
}

fn template_error(error: Error) -> PromptError {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(Raised(message)) = inner.downcast_ref::<Raised>() {
            return PromptError::Template { message: message.clone(), raised: true };
        }
        source = inner.source();
    }
    PromptError::Template { message: error.to_string(), raised: false }
}

/// Merges every system turn into the user turn that follows it, a blank line between them, for models whose template has
/// no system role. A system turn with no user turn after it becomes a user turn.
pub fn fold_system(messages: &[Message]) -> Vec<Message> {
    let mut folded = Vec::with_capacity(messages.len());
    let mut waiting: Vec<&str> = Vec::new();
    for message in messages {
        match message.role.as_str() {
            "system" => waiting.push(&message.content),
            "user" => {
                waiting.push(&message.content);
                folded.push(Message { role: "user".to_owned(), content: waiting.join("\n\n") });
                waiting.clear();
            }
            _ => folded.push(message.clone()),
        }
    }
    if !waiting.is_empty() {
        folded.push(Message { role: "user".to_owned(), content: waiting.join("\n\n") });
    }
    folded
}

/// Hex SHA-256 of some bytes.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

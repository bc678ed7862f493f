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

/// What a run fixes about its templates.
#[derive(Debug, Clone)]
pub struct TemplateOptions {
    /// The date `strftime_now` answers with (at 00:00:00): a date of the run, never the clock.
    pub date: Date,
    /// Template variables, e.g. `enable_thinking: false`. They win over the tokenizer's own (`bos_token`, …).
    pub extra: Map<String, Json>,
    /// The template to use instead of the model's own.
    pub chat_template_override: Option<TemplateSource>,
}

impl TemplateOptions {
    /// No extra variables, the model's own template.
    pub fn new(date: Date) -> Self {
        Self { date, extra: Map::new(), chat_template_override: None }
    }
}

/// A chat template as it was found.
#[derive(Debug, Clone)]
pub struct TemplateSource {
    /// Jinja.
    pub source: String,
    /// The file it came from, for messages.
    pub origin: String,
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
    /// The file it came from, for messages.
    origin: String,
    source: String,
    sha256: String,
    variables: Map<String, Json>,
}

/// Work that one rendering may cost, in minijinja's measure: an instruction is 1, and so are 64 bytes of text made. Published
/// templates spend some hundreds per turn; this much takes under a second and at most 128 MiB.
const FUEL: u64 = 1 << 21;

/// Stack for compiling and rendering, touched only as far as it is used: a template can nest lists, or a chain of attributes,
/// as deep as its fuel and its length allow, and both are walked and dropped recursively.
const STACK_BYTES: usize = 1 << 29;

/// Runs `work` on a stack of its own; about 50 µs.
fn on_deep_stack<T: Send>(origin: &str, work: impl FnOnce() -> T + Send) -> Result<T, PromptError> {
    let failed = |what: String| PromptError::Template { origin: origin.to_owned(), message: what, raised: false };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| failed(format!("no thread to render in: {error}")))?;
        thread.join().map_err(|_| failed("the renderer broke off".to_owned()))
    })
}

/// Macros inside macros; each takes stack.
const MAX_RECURSION: usize = 100;

impl ChatTemplate {
    /// Compiles a template; `variables` are what every rendering sees besides the messages.
    ///
    /// # Errors
    /// [`PromptError::Template`] where the source is not valid Jinja, naming its file and line.
    pub(super) fn compile(
        template: TemplateSource,
        variables: Map<String, Json>,
        date: Date,
    ) -> Result<Self, PromptError> {
        let TemplateSource { source, origin } = template;
        let error = |error| template_error(error, &origin);
        let mut environment = environment(date).map_err(error)?;
        let compiled = on_deep_stack(&origin, || environment.add_template_owned(origin.clone(), rewrite(&source)))?;
        compiled.map_err(error)?;
        let sha256 = sha256_hex(source.as_bytes());
        Ok(Self { environment, origin, source, sha256, variables })
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
        let error = |error| template_error(error, &self.origin);
        let template = self.environment.get_template(&self.origin).map_err(error)?;
        let render = || template.render(Value::from(minijinja::value::Serde(&context)));
        on_deep_stack(&self.origin, render)?.map_err(error)
    }
}

fn environment(date: Date) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_RECURSION);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
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

fn template_error(error: Error, origin: &str) -> PromptError {
    let origin = match error.line() {
        Some(line) => format!("{origin}, line {line}"),
        None => origin.to_owned(),
    };
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    let mut out_of_fuel = false;
    while let Some(inner) = source {
        if let Some(Raised(message)) = inner.downcast_ref::<Raised>() {
            return PromptError::Template { origin, message: message.clone(), raised: true };
        }
        out_of_fuel |= inner.downcast_ref::<Error>().is_some_and(|inner| inner.kind() == ErrorKind::OutOfFuel);
        source = inner.source();
    }
    let message = match (out_of_fuel, error.detail()) {
        (true, _) => "it does not come to an end: too many steps, or too much text, for one dialogue".to_owned(),
        (false, Some(detail)) => format!("{}: {detail}", error.kind()),
        (false, None) => error.kind().to_string(),
    };
    PromptError::Template { origin, message, raised: false }
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

//! An answer's tokens to its text, with the thinking that a model puts before it split off. Knows markers of thinking and how
//! ids become text; knows nothing of dialogues, of stop strings or of why an answer ends.
//!
//! Only a block that opens the answer is thinking, or one that the template opened in the generation prompt; markers further
//! down are the answer's own text. Markers may be special tokens, which an answer's text leaves out: until a block is closed
//! every token shows, and afterwards special ones are hidden, as in an answer without thinking.

use super::detokenize::Detokenizer;
use super::{ChatTokenizer, PromptError};

/// What opens and closes a model's thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThinkingMarkers {
    /// Any of these texts begins the thinking.
    open: &'static [&'static str],
    /// Ends it.
    close: &'static str,
    /// Any of these stands before the answer itself and is no part of it.
    heads: &'static [&'static str],
    /// Blocks of thinking may follow one another.
    repeats: bool,
}

const fn tags(open: &'static [&'static str], close: &'static str) -> ThinkingMarkers {
    ThinkingMarkers { open, close, heads: &[], repeats: false }
}

/// Thinking in a pair of tags, as most models write it. The others are read only where the model has the marker as a token or
/// in its template.
const THINK: ThinkingMarkers = tags(&["<think>"], "</think>");

const OTHERS: [ThinkingMarkers; 8] = [
    tags(&["<thinking>"], "</thinking>"),
    tags(&["<thought>"], "</thought>"),
    tags(&["<reasoning>"], "</reasoning>"),
    tags(&["[THINK]"], "[/THINK]"),
    tags(&["<seed:think>"], "</seed:think>"),
    tags(&["<|START_THINKING|>"], "<|END_THINKING|>"),
    tags(&["<|inner_prefix|>"], "<|inner_suffix|>"),
    tags(&["◁think▷"], "◁/think▷"),
];

/// The channels of harmony: the answer stands in `final`, everything before it is thinking.
const CHANNELS: ThinkingMarkers = ThinkingMarkers {
    open: &[
        "<|channel|>analysis<|message|>",
        "<|channel|>commentary<|message|>",
        "<|start|>assistant<|channel|>analysis<|message|>",
        "<|start|>assistant<|channel|>commentary<|message|>",
    ],
    close: "<|end|>",
    heads: &["<|start|>assistant<|channel|>final<|message|>", "<|channel|>final<|message|>"],
    repeats: true,
};

/// What [`AnswerReader::finish`] tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerEnd {
    /// The rest of the answer's text.
    pub rest: Option<String>,
    /// The thinking, without its markers and the white space around it; `None` if there was none.
    pub thinking: Option<String>,
    /// The thinking was never closed, so there is no answer.
    pub is_open: bool,
}

/// Reads an answer token by token.
#[derive(Debug, Clone)]
pub struct AnswerReader<'t> {
    known: Vec<ThinkingMarkers>,
    detokenizer: Detokenizer<'t>,
    state: State<'t>,
    thinking: Option<String>,
}

#[derive(Debug, Clone)]
enum State<'t> {
    /// At the start, or behind a block: what comes may still be a marker.
    Undecided(Box<Lead<'t>>),
    /// Inside a block, with its text so far.
    Thinking { markers: ThinkingMarkers, text: String },
    /// All further text is the answer's; `starts` behind a block: white space is left out until there is other text.
    Answer { starts: bool },
}

#[derive(Debug, Clone)]
struct Lead<'t> {
    /// All text since, special tokens included.
    visible: String,
    /// Text behind a closing marker in the same token.
    prefix: String,
    /// The detokenizer as it was, and the tokens since, to read them again as an answer's.
    before: Detokenizer<'t>,
    tokens: Vec<u32>,
    /// A block was closed before.
    is_behind: bool,
}

/// What a beginning is.
enum Beginning {
    /// It may still become a marker.
    Unclear,
    Thinking(ThinkingMarkers, usize),
    /// The answer begins behind this many bytes.
    Head(usize),
    Answer,
}

impl<'t> AnswerReader<'t> {
    /// A reader for answers that follow a prompt; `opened`: the thinking that the prompt leaves open, if it does
    /// ([`ChatTokenizer::opened_thinking`]).
    pub fn new(tokenizer: &'t ChatTokenizer, opened: Option<ThinkingMarkers>) -> Self {
        let detokenizer = tokenizer.detokenizer(false);
        let state = match opened {
            Some(markers) => State::Thinking { markers, text: String::new() },
            None => State::undecided(&detokenizer, String::new(), false),
        };
        Self { known: tokenizer.thinking_markers().to_vec(), detokenizer, state, thinking: None }
    }

    /// Takes the next token; returns the answer's text that is now certain, if any.
    ///
    /// # Errors
    /// [`PromptError::Decode`] where the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<Option<String>, PromptError> {
        let piece = self.detokenizer.push(id)?;
        match &mut self.state {
            State::Answer { .. } => return Ok(piece.and_then(|piece| self.answer(piece))),
            State::Undecided(lead) => {
                lead.tokens.push(id);
                lead.visible.push_str(piece.as_deref().unwrap_or_default());
            }
            State::Thinking { text, .. } => text.push_str(piece.as_deref().unwrap_or_default()),
        }
        match piece {
            // A special token that the decoder shows as nothing, or half a character.
            None => Ok(None),
            Some(piece) => self.advance(piece.len(), false),
        }
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub fn finish(mut self) -> Result<AnswerEnd, PromptError> {
        let held_back = self.detokenizer.finish()?.unwrap_or_default();
        let mut rest = match &mut self.state {
            State::Answer { .. } => self.answer(held_back.clone()).unwrap_or_default(),
            State::Undecided(lead) => {
                lead.visible.push_str(&held_back);
                String::new()
            }
            State::Thinking { text, .. } => {
                text.push_str(&held_back);
                String::new()
            }
        };
        if !matches!(self.state, State::Answer { .. }) {
            rest.push_str(self.advance(held_back.len(), true)?.as_deref().unwrap_or_default());
            if matches!(self.state, State::Answer { .. })
                && let Some(last) = self.detokenizer.finish()?
            {
                rest.push_str(self.answer(last).as_deref().unwrap_or_default());
            }
        }
        let is_open = matches!(self.state, State::Thinking { .. });
        if let State::Thinking { markers, text } = &self.state {
            note(&mut self.thinking, markers, text);
        }
        Ok(AnswerEnd { rest: Some(rest).filter(|rest| !rest.is_empty()), thinking: self.thinking, is_open })
    }

    /// Moves on as far as the text allows; `num_new` bytes of it are new, and at the `end` nothing stays unclear.
    fn advance(&mut self, mut num_new: usize, end: bool) -> Result<Option<String>, PromptError> {
        loop {
            match &mut self.state {
                State::Answer { .. } => return Ok(None),
                State::Thinking { markers, text } => {
                    let mut from = text.len().saturating_sub(num_new + markers.close.len());
                    while !text.is_char_boundary(from) {
                        from -= 1;
                    }
                    let found = text.get(from..).and_then(|tail| tail.find(markers.close));
                    let Some(at) = found.map(|at| from + at) else { return Ok(None) };
                    let rest = text.split_off(at).split_off(markers.close.len());
                    note(&mut self.thinking, markers, text);
                    if !markers.repeats {
                        self.known.clear();
                    }
                    self.state = State::undecided(&self.detokenizer, rest, true);
                }
                State::Undecided(lead) => {
                    let found = match begins(&lead.visible, &self.known) {
                        Beginning::Unclear if end => Beginning::Answer,
                        found => found,
                    };
                    match found {
                        Beginning::Unclear => return Ok(None),
                        Beginning::Thinking(markers, at) => {
                            let text = lead.visible.split_off(at);
                            num_new = text.len();
                            self.state = State::Thinking { markers, text };
                        }
                        Beginning::Head(at) => {
                            let text = lead.visible.split_off(at);
                            self.detokenizer.skip_special();
                            self.state = State::Answer { starts: true };
                            return Ok(self.answer(text));
                        }
                        Beginning::Answer => return self.read_again(),
                    }
                }
            }
        }
    }

    /// What was unclear is the answer: its tokens, read with the special ones left out.
    fn read_again(&mut self) -> Result<Option<String>, PromptError> {
        let answer = State::Answer { starts: false };
        let State::Undecided(lead) = std::mem::replace(&mut self.state, answer) else { return Ok(None) };
        self.state = State::Answer { starts: lead.is_behind };
        self.detokenizer = lead.before;
        self.detokenizer.skip_special();
        let mut text = lead.prefix;
        for id in lead.tokens {
            text.push_str(self.detokenizer.push(id)?.as_deref().unwrap_or_default());
        }
        Ok(self.answer(text))
    }

    /// A piece of the answer, without the white space between it and a block before it.
    fn answer(&mut self, piece: String) -> Option<String> {
        let State::Answer { starts } = &mut self.state else { return Some(piece) };
        let piece = if *starts { piece.trim_start().to_owned() } else { piece };
        *starts &= piece.is_empty();
        Some(piece).filter(|piece| !piece.is_empty())
    }
}

impl<'t> State<'t> {
    fn undecided(before: &Detokenizer<'t>, prefix: String, is_behind: bool) -> Self {
        let (visible, before) = (prefix.clone(), before.clone());
        Self::Undecided(Box::new(Lead { visible, prefix, before, tokens: Vec::new(), is_behind }))
    }
}

/// Adds a block's text to the thinking. A model that repeats the marker which the template has written already means one block.
fn note(thinking: &mut Option<String>, markers: &ThinkingMarkers, text: &str) {
    let text = text.trim();
    let text = markers.open.iter().find_map(|open| text.strip_prefix(open)).unwrap_or(text).trim();
    match thinking {
        Some(all) if !text.is_empty() => *all = format!("{all}\n{text}"),
        Some(_) => {}
        None => *thinking = Some(text.to_owned()),
    }
}

fn begins(visible: &str, known: &[ThinkingMarkers]) -> Beginning {
    let text = visible.trim_start();
    let lead = visible.len() - text.len();
    let mut unclear = text.is_empty() || visible.ends_with('\u{FFFD}');
    for markers in known {
        if let Some(open) = markers.open.iter().find(|open| text.starts_with(**open)) {
            return Beginning::Thinking(*markers, lead + open.len());
        }
        if let Some(head) = markers.heads.iter().find(|head| text.starts_with(**head)) {
            return Beginning::Head(lead + head.len());
        }
        unclear |= markers.open.iter().chain(markers.heads).any(|marker| marker.starts_with(text));
    }
    if unclear { Beginning::Unclear } else { Beginning::Answer }
}

/// The markers that a model may use.
pub(super) fn known_markers(is_token: impl Fn(&str) -> bool, template_source: &str) -> Vec<ThinkingMarkers> {
    let is_used = |markers: &&ThinkingMarkers| {
        let [open, ..] = markers.open else { return false };
        is_token(open) || is_token(markers.close) || template_source.contains(markers.close)
    };
    let mut known = vec![THINK];
    known.extend(OTHERS.iter().filter(is_used));
    if is_token("<|channel|>") || template_source.contains("<|channel|>") {
        known.push(CHANNELS);
    }
    known
}

/// The markers that this text, which ends a prompt, leaves open.
pub(super) fn left_open(text: &str, known: &[ThinkingMarkers]) -> Option<ThinkingMarkers> {
    let text = text.trim_end();
    known.iter().find(|markers| markers.open.iter().any(|open| text.ends_with(open))).copied()
}

//! Token ids to text, one id at a time. Knows nothing of dialogues, of stop strings or of where the ids come from.
//!
//! The deltas of a [`Detokenizer`], joined, are exactly what decoding all ids at once gives, at a cost per id that does
//! not grow with the text. Three ways, by the tokenizer's decoder:
//! bytes (byte-level BPE: a lossy UTF-8 decoder over a byte buffer); anchored (decoders that look at one token at a time
//! and at whether it is the first: each token is decoded behind a fixed first token, whose text is then cut off; runs of
//! byte-fallback tokens wait for their end, because a run is decoded as a whole); whole (any other: all text comes at the
//! end).

use super::PromptError;
use serde_json::Value as Json;
use tokenizers::Tokenizer;

/// How ids can be decoded in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecodingKind {
    Bytes,
    Anchored,
    Whole,
}

impl DecodingKind {
    /// Reads the kind off the decoder's JSON form.
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        let Some(decoder) = tokenizer.get_decoder() else { return Self::Anchored };
        let json = serde_json::to_value(decoder).unwrap_or(Json::Null);
        let steps: Vec<&Json> = match json.get("decoders").and_then(Json::as_array) {
            Some(steps) => steps.iter().collect(),
            None => vec![&json],
        };
        let kind = |step: &&Json| step.get("type").and_then(Json::as_str).unwrap_or("").to_owned();
        let kinds: Vec<String> = steps.iter().map(kind).collect();
        let strips_end = |step: &&&Json| step.get("stop").and_then(Json::as_u64).unwrap_or(0) > 0;
        let fused = kinds.iter().position(|kind| kind == "Fuse").unwrap_or(kinds.len());
        if kinds
            .split_first()
            .is_some_and(|(first, rest)| first == "ByteLevel" && rest.iter().all(|kind| kind == "Fuse"))
        {
            return Self::Bytes;
        }
        // After `Fuse` a step sees the whole text: only a strip at the start is still local.
        let is_local = |(at, kind): (usize, &String)| match kind.as_str() {
            "Strip" => true,
            "Replace" | "ByteFallback" | "Fuse" | "Metaspace" | "WordPiece" => at <= fused,
            _ => false,
        };
        let all_local = kinds.iter().enumerate().all(is_local) && !steps.iter().any(|step| strips_end(&step));
        if all_local { Self::Anchored } else { Self::Whole }
    }
}

/// Decodes a growing sequence of ids. Deltas end at character boundaries; [`Detokenizer::finish`] gives what is left.
#[derive(Debug, Clone)]
pub struct Detokenizer<'t> {
    tokenizer: &'t Tokenizer,
    kind: DecodingKind,
    skip_special: bool,
    /// Bytes of an unfinished character (kind `Bytes`).
    bytes: Vec<u8>,
    /// First ids of the text, up to the first that show (kind `Anchored`).
    anchor: Vec<u32>,
    /// What `anchor` decodes to.
    anchor_text: String,
    /// Ids not yet shown.
    pending: Vec<u32>,
}

impl<'t> Detokenizer<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, kind: DecodingKind, skip_special: bool) -> Self {
        let (bytes, anchor, anchor_text, pending) = Default::default();
        Self { tokenizer, kind, skip_special, bytes, anchor, anchor_text, pending }
    }

    /// Takes the next id; returns the text that is now certain, if any. Ids the tokenizer does not know show nothing.
    ///
    /// # Errors
    /// [`PromptError::Decode`] where the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<Option<String>, PromptError> {
        let added = self.tokenizer.get_added_vocabulary();
        let Some(token) = added.simple_id_to_token(id).or_else(|| self.tokenizer.id_to_token(id)) else {
            return Ok(None);
        };
        if self.skip_special && added.is_special_token(&token) {
            return Ok(None);
        }
        match self.kind {
            DecodingKind::Bytes => {
                self.bytes.extend(token_bytes(&token));
                Ok(some_text(self.drain_bytes(false)))
            }
            DecodingKind::Anchored => {
                self.pending.push(id);
                if byte_token(&token).is_some() { Ok(None) } else { self.drain_pending() }
            }
            DecodingKind::Whole => {
                self.pending.push(id);
                Ok(None)
            }
        }
    }

    /// From here on, leaves out tokens flagged special.
    pub(super) fn skip_special(&mut self) {
        self.skip_special = true;
    }

    /// Ends the text: returns what was held back. An unfinished character shows as U+FFFD, as it does in a whole decode.
    ///
    /// # Errors
    /// As for [`Detokenizer::push`].
    pub fn finish(&mut self) -> Result<Option<String>, PromptError> {
        match self.kind {
            DecodingKind::Bytes => Ok(some_text(self.drain_bytes(true))),
            DecodingKind::Anchored | DecodingKind::Whole if self.pending.is_empty() => Ok(None),
            DecodingKind::Anchored | DecodingKind::Whole => self.drain_pending(),
        }
    }

    fn drain_pending(&mut self) -> Result<Option<String>, PromptError> {
        let mut ids = self.anchor.clone();
        ids.append(&mut self.pending);
        let text = decode(self.tokenizer, &ids, false)?;
        if self.anchor_text.is_empty() {
            self.anchor_text.clone_from(&text);
            self.anchor = ids;
            return Ok(some_text(text));
        }
        let delta = text.strip_prefix(self.anchor_text.as_str()).ok_or_else(|| PromptError::Decode {
            num_tokens: ids.len(),
            reason: "the text of the first tokens changes with the tokens after them".to_owned(),
        })?;
        Ok(some_text(delta.to_owned()))
    }

    /// Decodes as `String::from_utf8_lossy` does, and keeps back a character that may still be finished.
    fn drain_bytes(&mut self, at_end: bool) -> String {
        let mut text = String::new();
        let mut used = 0;
        for chunk in self.bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            used += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            // Only at the end of the buffer can more bytes still finish it; what stands before other text never will.
            let is_last = used + invalid.len() == self.bytes.len();
            let unfinished = is_last && std::str::from_utf8(invalid).is_err_and(|err| err.error_len().is_none());
            if unfinished && !at_end {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            used += invalid.len();
        }
        self.bytes.drain(..used);
        text
    }
}

/// Decodes ids at once.
pub(super) fn decode(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> Result<String, PromptError> {
    tokenizer
        .decode(ids, skip_special)
        .map_err(|err| PromptError::Decode { num_tokens: ids.len(), reason: err.to_string() })
}

fn some_text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The byte of a byte-fallback token, `<0xE1>`.
pub(super) fn byte_token(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'))?;
    if hex.len() == 2 { u8::from_str_radix(hex, 16).ok() } else { None }
}

/// The bytes a byte-level token stands for; a token with a character outside the byte alphabet stands for itself.
pub(super) fn token_bytes(token: &str) -> Vec<u8> {
    token.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The byte alphabet of GPT-2: printable Latin-1 stands for itself, the other 68 bytes, in order, for U+0100 onwards.
fn byte_of(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

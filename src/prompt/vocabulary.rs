//! What each token adds to a text, in bytes: for answers that must keep to a grammar, which is a matter of bytes and not of tokens.
//! Knows the tokenizer's decoder; knows no grammar. Tokens that steer a model add nothing here, and so are never part of a form.

use rayon::prelude::*;
use serde_json::Value as Json;
use tokenizers::Tokenizer;

use super::PromptError;
use super::detokenize::{DecodingKind, byte_token, decode, token_bytes};

/// The bytes that each token adds to a text that has begun. Tokens without any cannot be part of a form: added tokens (all control
/// tokens are such), ids without a token, and tokens whose text depends on their neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    bytes: Vec<Vec<u8>>,
}

impl Vocabulary {
    /// Reads it off a tokenizer with ids below `vocab_size`.
    pub(super) fn new(tokenizer: &Tokenizer, kind: DecodingKind, vocab_size: usize) -> Result<Self, PromptError> {
        let added = tokenizer.get_added_tokens_decoder();
        let fallback = has_byte_fallback(tokenizer);
        let anchor = match kind {
            DecodingKind::Bytes => None,
            DecodingKind::Anchored => Some(Anchor::find(tokenizer)?),
            DecodingKind::Whole => {
                return Err(PromptError::NoBytes { reason: "its decoder reads a text as a whole".to_owned() });
            }
        };
        let of_token = |id: usize| -> Result<Vec<u8>, PromptError> {
            let id = id as u32;
            let Some(token) = tokenizer.id_to_token(id).filter(|_| !added.contains_key(&id)) else {
                return Ok(Vec::new());
            };
            match &anchor {
                None => Ok(token_bytes(&token)),
                Some(anchor) => match byte_token(&token).filter(|_| fallback) {
                    Some(byte) => Ok(vec![byte]),
                    None => anchor.behind(tokenizer, id),
                },
            }
        };
        let bytes = (0..vocab_size).into_par_iter().map(of_token).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { bytes })
    }

    /// With these bytes by token id.
    pub fn of(bytes: Vec<Vec<u8>>) -> Self {
        Self { bytes }
    }

    /// By token id.
    pub fn bytes(&self) -> &[Vec<u8>] {
        &self.bytes
    }

    /// The bytes that these tokens write together.
    pub fn join(&self, ids: impl IntoIterator<Item = u32>) -> Vec<u8> {
        ids.into_iter().filter_map(|id| self.bytes.get(id as usize)).flatten().copied().collect()
    }
}

/// A token that others are decoded behind, so that none of them is the first of its text.
struct Anchor {
    id: u32,
    text: String,
}

impl Anchor {
    fn find(tokenizer: &Tokenizer) -> Result<Self, PromptError> {
        for text in ["a", "e", "0", "."] {
            let Ok(encoding) = tokenizer.encode_fast(text, false) else { continue };
            let Some(&id) = encoding.get_ids().last() else { continue };
            let text = decode(tokenizer, &[id], false)?;
            if !text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER) {
                return Ok(Self { id, text });
            }
        }
        Err(PromptError::NoBytes { reason: "none of its tokens shows by itself what it writes".to_owned() })
    }

    fn behind(&self, tokenizer: &Tokenizer, id: u32) -> Result<Vec<u8>, PromptError> {
        let text = decode(tokenizer, &[self.id, id], false)?;
        Ok(text.strip_prefix(self.text.as_str()).unwrap_or("").as_bytes().to_vec())
    }
}

fn has_byte_fallback(tokenizer: &Tokenizer) -> bool {
    let decoder = tokenizer.get_decoder().and_then(|decoder| serde_json::to_value(decoder).ok());
    let is_fallback = |step: &Json| step.get("type").and_then(Json::as_str) == Some("ByteFallback");
    decoder.is_some_and(|decoder| match decoder.get("decoders").and_then(Json::as_array) {
        Some(steps) => steps.iter().any(is_fallback),
        None => is_fallback(&decoder),
    })
}

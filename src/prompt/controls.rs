//! Which tokens steer a model, and how a text is kept from becoming one of them (design invariant 13).
//! Knows nothing of dialogues or templates beyond the template's source text.
//!
//! The means is a private marker character, one that occurs nowhere in the dialogue. It is put inside every control text
//! that stands in a turn, the template is rendered, and the result is cut at the marker: the parts are encoded one by one,
//! so no match can reach across. Text without control text is never cut, and encodes exactly as it would without us.

use super::PromptError;
use std::collections::{BTreeSet, HashMap, HashSet};
use tokenizers::{Normalizer, Tokenizer};

/// The control tokens of one tokenizer.
#[derive(Debug)]
pub(super) struct ControlVocabulary {
    /// Control texts of two or more characters, by their first character.
    by_first: HashMap<char, Vec<String>>,
    /// Last characters of those texts.
    last_chars: HashSet<char>,
    /// Is a control token matched in normalised text, so that other characters can stand for its own?
    folds: bool,
    /// Ids that must never come from a turn. The unknown token is left out: models yield it for plain unknown characters.
    ids: BTreeSet<u32>,
}

/// Tags that tokenizers add for ordinary markup: plain text unless the chat template itself writes them.
const MARKUP: &[&str] = &[
    "a",
    "b",
    "blockquote",
    "body",
    "br",
    "caption",
    "code",
    "div",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "html",
    "i",
    "img",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "u",
    "ul",
];

impl ControlVocabulary {
    /// Control tokens are the special added tokens, and those not flagged special that look the part: bracketed
    /// (`<think>`, `[INST]`, `<|…|>`), or holding punctuation and written out in the template. `unknown` is the id that the
    /// model yields for what it does not know.
    pub(super) fn new(tokenizer: &Tokenizer, unknown: Option<u32>, template_source: &str) -> Self {
        let (mut texts, mut ids, mut folds) = (BTreeSet::new(), BTreeSet::new(), false);
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            if !token.special && !looks_like_control(&token.content, template_source) {
                continue;
            }
            folds |= token.normalized && tokenizer.get_normalizer().is_some();
            texts.insert(token.content);
            if Some(id) != unknown {
                ids.insert(id);
            }
        }
        let mut by_first: HashMap<char, Vec<String>> = HashMap::new();
        let mut last_chars = HashSet::new();
        for text in texts {
            let mut chars = text.chars();
            if let (Some(first), Some(last)) = (chars.next(), chars.next_back()) {
                last_chars.insert(last);
                by_first.entry(first).or_default().push(text);
            }
        }
        Self { by_first, last_chars, folds, ids }
    }

    /// Must this id never come from the text of a turn?
    pub(super) fn is_control(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }

    /// The control ids of an encoding, in order.
    pub(super) fn sequence(&self, ids: &[u32]) -> Vec<u32> {
        ids.iter().copied().filter(|id| self.is_control(*id)).collect()
    }

    /// Puts `marker` inside every control text of `text`: after the first character of each place where one is spelt out,
    /// then wherever the tokenizer itself still finds one (look-alikes that its normaliser folds together, words that its
    /// model maps to a control id).
    ///
    /// # Errors
    /// [`PromptError::ControlText`] where a control token comes from a single character, so that nothing can be broken.
    pub(super) fn break_apart(&self, text: &str, marker: char, tokenizer: &Tokenizer) -> Result<String, PromptError> {
        let mut broken = String::with_capacity(text.len() + 8);
        for (at, c) in text.char_indices() {
            broken.push(c);
            let rest = text.get(at..).unwrap_or_default();
            let starts = |control: &String| rest.starts_with(control.as_str());
            if self.by_first.get(&c).is_some_and(|controls| controls.iter().any(starts)) {
                broken.push(marker);
            }
        }
        let parts = broken.split(marker).map(|part| self.break_part(part, marker, tokenizer));
        Ok(parts.collect::<Result<Vec<_>, _>>()?.join(marker.encode_utf8(&mut [0; 4])))
    }

    /// Breaks what the tokenizer finds in a part, and then what it finds in the halves. Every cut makes both halves
    /// shorter, so this ends.
    fn break_part(&self, part: &str, marker: char, tokenizer: &Tokenizer) -> Result<String, PromptError> {
        let mut done = String::with_capacity(part.len());
        let mut pending = vec![part.to_owned()];
        while let Some(text) = pending.pop() {
            let Some((id, cut)) = self.first_match(&text, tokenizer)? else {
                if !done.is_empty() && !text.is_empty() {
                    done.push(marker);
                }
                done.push_str(&text);
                continue;
            };
            match cut.filter(|cut| 0 < *cut && *cut < text.len()).and_then(|cut| text.split_at_checked(cut)) {
                Some((head, tail)) => pending.extend([tail.to_owned(), head.to_owned()]),
                None => return Err(PromptError::ControlText { token: tokenizer.id_to_token(id).unwrap_or(text) }),
            }
        }
        Ok(done)
    }

    /// The first control id the tokenizer finds in `text`, with the byte at which to break it: after the first visible
    /// character of the match.
    fn first_match(&self, text: &str, tokenizer: &Tokenizer) -> Result<Option<(u32, Option<usize>)>, PromptError> {
        let encoding = tokenizer
            .encode(text, false)
            .map_err(|err| PromptError::Encode { num_bytes: text.len(), reason: err.to_string() })?;
        let found = encoding.get_ids().iter().zip(encoding.get_offsets()).find(|(id, _)| self.is_control(**id));
        Ok(found.map(|(&id, &(start, end))| {
            let matched = text.get(start..end).unwrap_or("");
            let visible = matched.trim();
            let lead = matched.len() - matched.trim_start().len();
            let first = visible.chars().next().filter(|first| first.len_utf8() < visible.len());
            (id, first.map(|first| start + lead + first.len_utf8()))
        }))
    }

    /// Like a broken text, but with no character left that could begin or end a control text together with what the
    /// template puts around it: `marker` follows every first character of a control text and precedes every last one, and
    /// stands around a text that is itself a piece out of the middle of one. `None` where the text holds no such thing.
    pub(super) fn harden(&self, broken: &str, marker: char, tokenizer: &Tokenizer) -> Option<String> {
        let mut hardened = String::with_capacity(broken.len() + 8);
        let mut known: HashMap<char, (bool, bool)> = HashMap::new();
        for c in broken.chars() {
            let (begins, ends) = *known.entry(c).or_insert_with(|| {
                let forms = self.fold(c.encode_utf8(&mut [0; 4]), tokenizer);
                let any = |test: &dyn Fn(char) -> bool| test(c) || forms.chars().any(test);
                (any(&|c| self.by_first.contains_key(&c)), any(&|c| self.last_chars.contains(&c)))
            });
            hardened.extend(ends.then_some(marker));
            hardened.push(c);
            hardened.extend(begins.then_some(marker));
        }
        let folded = self.fold(broken, tokenizer);
        let controls = || self.by_first.values().flatten();
        let is_middle = |text: &str| !text.is_empty() && controls().any(|control| control.contains(text));
        if is_middle(broken.trim()) || is_middle(folded.trim()) {
            let start = hardened.len() - hardened.trim_start().len();
            hardened.insert(start, marker);
        }
        (hardened != broken).then_some(hardened)
    }

    /// What the tokenizer's normaliser makes of a text, where a control token is looked for in that; otherwise nothing.
    fn fold(&self, text: &str, tokenizer: &Tokenizer) -> String {
        let mut folded = tokenizers::NormalizedString::from(text);
        match tokenizer.get_normalizer().filter(|_| self.folds).map(|normalizer| normalizer.normalize(&mut folded)) {
            Some(Ok(())) => folded.get().to_owned(),
            _ => String::new(),
        }
    }
}

fn looks_like_control(text: &str, template_source: &str) -> bool {
    let inner = [('<', '>'), ('[', ']')]
        .iter()
        .find_map(|(open, close)| text.trim().strip_prefix(*open)?.strip_suffix(*close))
        .filter(|inner| inner.chars().any(char::is_alphanumeric));
    let is_written = || template_source.contains(text);
    match inner {
        Some(inner) if MARKUP.contains(&inner.trim_start_matches('/').to_ascii_lowercase().as_str()) => is_written(),
        Some(_) => true,
        None => {
            text.chars().any(|c| !c.is_alphanumeric() && !c.is_whitespace()) && text.chars().count() > 1 && is_written()
        }
    }
}

/// The marker: the first private-use character that `is_free`.
///
/// # Errors
/// [`PromptError::NoMarker`] where all of the two private-use planes are taken.
pub(super) fn free_marker(is_free: impl Fn(char) -> bool) -> Result<char, PromptError> {
    ('\u{F0000}'..='\u{FFFFD}').chain('\u{100000}'..='\u{10FFFD}').find(|c| is_free(*c)).ok_or(PromptError::NoMarker)
}

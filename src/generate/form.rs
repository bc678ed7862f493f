//! Grammars over text as the engine's constraints over tokens: the only place that knows llguidance. A form is a grammar and a rule by which
//! an answer comes to its end in time. Knows bytes and token ids; knows nothing of what is written in the form.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

use crate::engine::{AnswerForm, ConstraintError, Standing, TokenConstraint, TokenSet};
use crate::prompt::Vocabulary;

/// Bytes that most tokens inside a JSON string are made of: which of them are allowed is worked out once for all of them.
const INSIDE_STRINGS: [&str; 2] = [r#"[^"\\\x00-\x1F\x7F]{1,30}"#, r#"[^"\\\x00-\x1F\x7F]+"#];

/// How an answer is brought to its end. When no more tokens are left than that takes, a token that is `byte` alone is the only one wherever
/// the grammar allows it, and elsewhere tokens of one byte are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    /// Leads out of whatever may be long.
    pub byte: u8,
    /// Most tokens that the end takes from any place, if it is written in this way.
    pub num_tokens: usize,
    /// Fewest tokens that must be left at the beginning.
    pub num_tokens_at_least: usize,
}

/// Why a form cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// The grammar does not compile over these tokens.
    #[error(
        "the form cannot be kept with this tokenizer: {reason}\nhint: leave --rationales out, or take another judge"
    )]
    Grammar {
        /// What is wrong.
        reason: String,
    },
    /// The form needs a byte that no token writes alone.
    #[error(
        "the tokenizer has no token for {byte:?} alone, which the form needs\nhint: leave --rationales out, or take another judge"
    )]
    NoToken {
        /// The byte.
        byte: char,
    },
}

/// A grammar over a tokenizer's tokens. Each answer has a parser of its own, so that answers never wait for one another.
pub struct GrammarForm {
    /// Before the first token. llguidance's parsers may not be shared between threads: this one is only copied.
    parser: Mutex<Matcher>,
    closing: Closing,
    sets: Arc<Sets>,
}

/// Tokens as bit sets of llguidance's words.
#[derive(Debug)]
struct Sets {
    /// Writes the closing byte alone.
    closing: Vec<u32>,
    /// Writes one byte.
    single: Vec<u32>,
}

impl fmt::Debug for GrammarForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarForm").field("closing", &self.closing).finish()
    }
}

impl GrammarForm {
    /// A form by a grammar in llguidance's Lark syntax; `literals`: the bytes outside of what is free, each of which has to be a token.
    ///
    /// # Errors
    /// [`FormError`].
    pub fn new(vocabulary: &Vocabulary, grammar: &str, literals: &str, closing: Closing) -> Result<Self, FormError> {
        let words = whole_characters(vocabulary.bytes());
        for byte in literals.bytes() {
            if !words.iter().any(|word| *word == [byte]) {
                return Err(FormError::NoToken { byte: char::from(byte) });
            }
        }
        let set_of = |is_in: &dyn Fn(&[u8]) -> bool| {
            let mut set = vec![0u32; words.len().div_ceil(32)];
            let ids = words.iter().enumerate().filter(|(_, word)| is_in(word));
            ids.for_each(|(id, _)| set[id / 32] |= 1 << (id % 32));
            set
        };
        let sets = Sets { closing: set_of(&|word| *word == [closing.byte]), single: set_of(&|word| word.len() == 1) };
        let failed = |error: &dyn fmt::Display| FormError::Grammar { reason: error.to_string() };
        // The parser wants an end token; one more than there are, since the form ends by itself.
        let mut words = words;
        words.push(Vec::new());
        let info = TokRxInfo::new(words.len() as u32, words.len() as u32 - 1);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let capabilities = InferenceCapabilities::default();
        let mut factory = ParserFactory::new(&tokens, capabilities, &INSIDE_STRINGS.map(str::to_owned))
            .map_err(|error| failed(&error))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        let mut parser = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(grammar.to_owned())));
        match parser.get_error() {
            Some(reason) => Err(FormError::Grammar { reason }),
            None => {
                // Worked out before the copies are made.
                parser.compute_mask().map_err(|error| failed(&error))?;
                Ok(Self { parser: Mutex::new(parser), closing, sets: Arc::new(sets) })
            }
        }
    }
}

/// The tokens' bytes. Where a part of a character could not always be completed, since a byte is no token, tokens with such parts are none.
fn whole_characters(words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let single: HashSet<u8> = words.iter().filter(|word| word.len() == 1).map(|word| word[0]).collect();
    let is_complete = (0x80..0xC0).all(|byte| single.contains(&byte));
    let keep = |word: &Vec<u8>| is_complete || std::str::from_utf8(word).is_ok();
    words.iter().map(|word| if keep(word) { word.clone() } else { Vec::new() }).collect()
}

impl AnswerForm for GrammarForm {
    fn start(&self) -> Result<Box<dyn TokenConstraint>, ConstraintError> {
        // A copy never leaves it half changed.
        let parser = self.parser.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        Ok(Box::new(Answer { parser: Mutex::new(parser), closing: self.closing, sets: self.sets.clone(), count: 0 }))
    }
}

/// An answer on its way through a form.
struct Answer {
    /// Never locked: it is reached through `&mut` alone.
    parser: Mutex<Matcher>,
    closing: Closing,
    sets: Arc<Sets>,
    count: usize,
}

impl Answer {
    fn parser(&mut self) -> &mut Matcher {
        self.parser.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(error: impl fmt::Display) -> ConstraintError {
    ConstraintError::Failed { reason: error.to_string() }
}

impl TokenConstraint for Answer {
    fn allow(&mut self, room: usize, allowed: &mut TokenSet) -> Result<Standing, ConstraintError> {
        let Closing { num_tokens, num_tokens_at_least, .. } = self.closing;
        if self.count == 0 && room < num_tokens_at_least {
            return Err(failed(format!("{room} tokens are left for an answer, its form needs {num_tokens_at_least}")));
        }
        let mask = self.parser().compute_mask().map_err(failed)?;
        // Chosen freely, a token leaves one less.
        if room <= num_tokens {
            for set in [&self.sets.closing, &self.sets.single] {
                let both: Vec<u32> = mask.as_slice().iter().zip(set).map(|(mask, set)| mask & set).collect();
                if both.iter().any(|&word| word != 0) {
                    allowed.add(&both);
                    return Ok(Standing::Open);
                }
            }
        }
        allowed.add(mask.as_slice());
        Ok(Standing::Open)
    }

    fn take(&mut self, token: u32) -> Result<Standing, ConstraintError> {
        self.count += 1;
        self.parser().consume_token(token).map_err(failed)?;
        Ok(if self.parser().is_stopped() { Standing::Closed } else { Standing::Open })
    }
}

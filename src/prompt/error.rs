//! What can go wrong between text and token ids. Knows no recovery: the caller decides what a failed row becomes.

use std::path::PathBuf;

/// Errors of the prompt layer.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The model directory holds no `tokenizer.json`.
    #[error(
        "no tokenizer.json in {}\nhint: point at a folder with the model's tokenizer.json; a folder with only \
         tokenizer.model (SentencePiece) must be converted first",
        .model_dir.display()
    )]
    MissingTokenizer {
        /// As the user gave it.
        model_dir: PathBuf,
    },
    /// A file exists and cannot be read.
    #[error("cannot read {}: {source}\nhint: check the file's permissions and that the copy is complete", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The tokenizer in a GGUF file cannot be used.
    #[error(transparent)]
    Gguf(#[from] crate::gguf::GgufError),
    /// A file was read and is not what it should be.
    #[error("{origin} is not usable: {reason}\nhint: {hint}")]
    Invalid {
        /// The file or setting.
        origin: String,
        /// What is wrong with it.
        reason: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// Chat encoding was asked of a tokenizer that has no chat template.
    #[error(
        "this model has no chat template{detail}\nhint: use an instruction-tuned model, or give a Jinja template as the \
         template override"
    )]
    NoTemplate {
        /// Where one was looked for, or nothing; continues the sentence.
        detail: String,
    },
    /// The chat template does not compile, fails, or (`raised`) refuses the dialogue with a message of its own.
    #[error("the chat template ({origin}): {message}\nhint: {}", if *.raised {
        "the template refuses this order of roles or a role in it; change the dialogue or override the template"
    } else {
        "the template may use something this renderer does not know; override the template with a simpler one"
    })]
    Template {
        /// Its file, and the line where that is known.
        origin: String,
        /// The renderer's or the template's own words.
        message: String,
        /// The template called `raise_exception`.
        raised: bool,
    },
    /// A dialogue whose last turn is to be continued does not end in that turn's text.
    #[error(
        "the last turn cannot be continued: {reason}\nhint: put the dialogue to the model without its last turn, or \
         override the template"
    )]
    NotContinuable {
        /// Continues the sentence.
        reason: String,
    },
    /// The tokenizer failed to encode a text.
    #[error("cannot encode text of {num_bytes} bytes: {reason}")]
    Encode {
        /// Length of the text in UTF-8.
        num_bytes: usize,
        /// What the tokenizer said.
        reason: String,
    },
    /// The tokenizer failed to decode token ids.
    #[error("cannot decode {num_tokens} token ids: {reason}")]
    Decode {
        /// Ids that were to be decoded.
        num_tokens: usize,
        /// What the tokenizer said.
        reason: String,
    },
    /// What a token writes cannot be told from the token alone.
    #[error(
        "the tokenizer's tokens do not say by themselves what they write: {reason}\nhint: written rationales need a \
         tokenizer of byte-level BPE or SentencePiece; leave --rationales out, or take another judge"
    )]
    NoBytes {
        /// What is different.
        reason: String,
    },
    /// A control token in a text cannot be broken apart, so the text cannot be encoded without reaching it.
    #[error(
        "the text holds control token {token:?} in a form that cannot be encoded as plain text (expected a text that \
         reaches no control token)\nhint: drop or edit this row; the tokenizer yields the token from ordinary characters"
    )]
    ControlText {
        /// The control token as the tokenizer spells it.
        token: String,
    },
    /// Every private-use character occurs in the dialogue, so none is left to mark breaks with.
    #[error(
        "the dialogue uses every private-use character of Unicode, so none is free to mark control text\nhint: drop this row"
    )]
    NoMarker,
}

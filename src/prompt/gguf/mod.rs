//! The tokenizer that a GGUF file carries, written as the tokenizer.json that it was made from, as far as the file still says.
//! Two kinds: `gpt2` (byte-level BPE: tokens, merges, and the name of a pre-tokenizer) and `llama` (SentencePiece's BPE: pieces
//! with scores). Knows llama.cpp's metadata; encodes nothing itself.

mod pieces;
mod pre;

use std::collections::HashSet;

use serde_json::{Map, Value as Json, json};

use super::PromptError;
use super::files::TokenizerFiles;
use super::template::TemplateSource;
use crate::gguf::{Gguf, GgufError};

/// llama.cpp's token types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// One token of the list.
struct Token {
    text: String,
    kind: Kind,
    /// SentencePiece's log-probability or rank; higher merges first.
    score: f64,
}

const HINT: &str = "put the model's own tokenizer.json beside the file; it is then used instead";

/// Tokens that end a turn in published templates, where a file names no other end than that of a text.
const TURN_ENDS: [&str; 9] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_turn|>",
    "<|return|>",
    "[|endofturn|]",
];

/// What the prompt layer needs of a tokenizer.
///
/// # Errors
/// [`PromptError::Gguf`] naming the key that is missing, damaged or unknown.
pub(super) fn files(gguf: &Gguf) -> Result<TokenizerFiles, PromptError> {
    let tokens = tokens(gguf)?;
    let model = gguf.text("tokenizer.ggml.model")?;
    let (normalizer, pre_tokenizer, decoder, bpe) = match model {
        Some("gpt2") => byte_level(gguf, &tokens)?,
        Some("llama") => sentence_piece(gguf, &tokens)?,
        Some(other) => {
            let what = format!("its tokenizer is of the kind `{other}` (tokenizer.ggml.model), want `gpt2` or `llama`");
            return Err(gguf.unsupported(what, HINT).into());
        }
        None => return Err(missing(gguf, "tokenizer.ggml.model").into()),
    };
    // Phi-3's control tokens swallow the line end after them; no key says so, and llama.cpp goes by the name too.
    let swallows = model == Some("llama") && gguf.text("general.architecture")? == Some("phi3");
    let added: Vec<Json> = tokens.iter().enumerate().filter_map(|(id, token)| added(id, token, swallows)).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": bpe,
    });
    let template = match gguf.text("tokenizer.chat_template")? {
        Some(source) => Ok(source.to_owned()),
        None => Err(" (GGUF metadata `tokenizer.chat_template` is missing)".to_owned()),
    };
    Ok(TokenizerFiles {
        tokenizer_json: tokenizer.to_string().into_bytes(),
        config: named(gguf, &tokens, template.as_deref().unwrap_or(""))?,
        template: template.map(|source| template_source(gguf, source)),
        generation_eos: ends(gguf, &tokens)?,
        origin: format!("the tokenizer in {}", gguf.path().display()),
    })
}

/// A template that the file's metadata carry.
pub(super) fn template_source(gguf: &Gguf, source: String) -> TemplateSource {
    TemplateSource { source, origin: format!("tokenizer.chat_template in {}", gguf.path().display()) }
}

fn missing(gguf: &Gguf, key: &str) -> GgufError {
    gguf.unsupported(format!("metadata `{key}` is missing: the file carries no tokenizer"), HINT)
}

fn tokens(gguf: &Gguf) -> Result<Vec<Token>, GgufError> {
    const KEY: &str = "tokenizer.ggml.tokens";
    let texts = gguf.texts(KEY)?.ok_or_else(|| missing(gguf, KEY))?;
    let list = |key: &str| -> Result<Vec<f64>, GgufError> {
        match gguf.numbers(key)? {
            Some(numbers) if numbers.len() != texts.len() => {
                Err(gguf.damaged(format!("metadata `{key}` has {} numbers for {} tokens", numbers.len(), texts.len())))
            }
            numbers => Ok(numbers.unwrap_or_default()),
        }
    };
    let kinds = list("tokenizer.ggml.token_type")?;
    let scores = list("tokenizer.ggml.scores")?;
    let mut seen = HashSet::new();
    let mut tokens = Vec::with_capacity(texts.len());
    for (id, text) in texts.iter().enumerate() {
        if !seen.insert(*text) {
            return Err(gguf.damaged(format!("metadata `{KEY}` has the token {text:?} twice")));
        }
        let kind = match kinds.get(id).map_or(1, |kind| *kind as i64) {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => Kind::Normal,
        };
        tokens.push(Token { text: (*text).to_owned(), kind, score: scores.get(id).copied().unwrap_or(0.0) });
    }
    Ok(tokens)
}

/// Ids without a token, which converters fill up with a name, are no part of the vocabulary.
fn is_filler(id: usize, token: &Token) -> bool {
    token.kind == Kind::Unused && token.text == format!("[PAD{id}]")
}

fn added(id: usize, token: &Token, swallows: bool) -> Option<Json> {
    let special = match token.kind {
        Kind::Control | Kind::Unknown => true,
        Kind::UserDefined => false,
        _ => return None,
    };
    let rstrip = swallows && !["<unk>", "<s>", "<|endoftext|>"].contains(&token.text.as_str());
    Some(json!({
        "id": id, "content": token.text, "single_word": false, "lstrip": false, "rstrip": rstrip, "normalized": false,
        "special": special,
    }))
}

/// Normaliser, pre-tokenizer, decoder and model.
type Parts = (Json, Json, Json, Json);

fn byte_level(gguf: &Gguf, tokens: &[Token]) -> Result<Parts, GgufError> {
    let name = gguf.text("tokenizer.ggml.pre")?.unwrap_or("");
    let Some(pre) = pre::known(name) else {
        let what = match name {
            "" => "metadata `tokenizer.ggml.pre` is missing: how the tokenizer splits text is not known".to_owned(),
            name => format!("its pre-tokenizer `{name}` (tokenizer.ggml.pre) is not known"),
        };
        return Err(gguf.unsupported(what, HINT));
    };
    const MERGES: &str = "tokenizer.ggml.merges";
    let mut merges = Vec::new();
    for merge in gguf.texts(MERGES)?.ok_or_else(|| missing(gguf, MERGES))? {
        // A token may begin with the space in old files, so the separator is looked for behind the first character.
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let at = merge.char_indices().find(|(at, c)| *at >= first && *c == ' ').map(|(at, _)| at);
        let Some((left, right)) = at.and_then(|at| Some((merge.get(..at)?, merge.get(at + 1..)?))) else {
            return Err(
                gguf.damaged(format!("metadata `{MERGES}` holds {merge:?}, want two tokens and a space between"))
            );
        };
        merges.push([left, right]);
    }
    let vocab: Map<String, Json> = tokens
        .iter()
        .enumerate()
        .filter(|(id, token)| !is_filler(*id, token))
        .map(|(id, token)| (token.text.clone(), id.into()))
        .collect();
    if let Some([left, right]) = merges.iter().find(|[left, right]| {
        !vocab.contains_key(*left) || !vocab.contains_key(*right) || !vocab.contains_key(&format!("{left}{right}"))
    }) {
        return Err(gguf.damaged(format!("metadata `{MERGES}` joins {left:?} and {right:?}, which are no tokens")));
    }
    let bpe = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": pre.whole_words, "vocab": vocab, "merges": merges,
    });
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    Ok((pre.normalizer(), pre.pre_tokenizer(), decoder, bpe))
}

fn sentence_piece(gguf: &Gguf, tokens: &[Token]) -> Result<Parts, GgufError> {
    const SCORES: &str = "tokenizer.ggml.scores";
    if !gguf.has(SCORES) {
        return Err(missing(gguf, SCORES));
    }
    let prefix = gguf.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let vocab: Map<String, Json> = tokens
        .iter()
        .enumerate()
        .filter(|(id, token)| !is_filler(*id, token))
        .map(|(id, token)| (pieces::spelling(token), id.into()))
        .collect();
    let unknown = tokens.iter().find(|token| token.kind == Kind::Unknown).map(|token| token.text.as_str());
    let bpe = json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": tokens.iter().any(|token| token.kind == Kind::Byte),
        "ignore_merges": false, "vocab": vocab, "merges": pieces::merges(tokens),
    });
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let normalizer = match prefix {
        true => json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]}),
        false => spaces,
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok((normalizer, Json::Null, json!({"type": "Sequence", "decoders": decoders}), bpe))
}

/// Ids of `tokenizer.ggml.{name}_token_id`, if they are in the vocabulary.
fn id_of(gguf: &Gguf, tokens: &[Token], name: &str) -> Result<Option<usize>, GgufError> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    match gguf.count(&key)? {
        // Some converters write -1 in 32 bits for none.
        None | Some(0xFFFF_FFFF) => Ok(None),
        Some(id) if id < tokens.len() as u64 => Ok(Some(id as usize)),
        Some(id) => Err(gguf.damaged(format!("metadata `{key}` is {id}, and there are {} tokens", tokens.len()))),
    }
}

/// tokenizer_config.json's named tokens.
fn named(gguf: &Gguf, tokens: &[Token], template: &str) -> Result<Map<String, Json>, GgufError> {
    let mut config = Map::new();
    for (name, field) in
        [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")]
    {
        // Models that never begin a text with a token still fill in its id; Transformers has none for them.
        let unused = name == "bos"
            && gguf.flag("tokenizer.ggml.add_bos_token")? == Some(false)
            && !template.contains("bos_token");
        if let Some(token) = id_of(gguf, tokens, name)?.filter(|_| !unused).and_then(|id| tokens.get(id)) {
            config.insert(field.to_owned(), token.text.as_str().into());
        }
    }
    Ok(config)
}

/// Ids that end an answer: those with a key of their own, and the control tokens that are known to end a turn.
fn ends(gguf: &Gguf, tokens: &[Token]) -> Result<Vec<u32>, GgufError> {
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        ends.extend(id_of(gguf, tokens, name)?);
    }
    let known = |(_, token): &(usize, &Token)| token.kind == Kind::Control && TURN_ENDS.contains(&token.text.as_str());
    ends.extend(tokens.iter().enumerate().filter(known).map(|(id, _)| id));
    ends.sort_unstable();
    ends.dedup();
    Ok(ends.into_iter().filter_map(|id| u32::try_from(id).ok()).collect())
}

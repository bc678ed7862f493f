//! The tokenizer of one model together with its chat template: dialogues and texts in, token ids out, and back.
//! Knows nothing of the model's weights; what a control token is stands in `controls`.

use super::controls::{ControlVocabulary, free_marker};
use super::detokenize::{self, DecodingKind, Detokenizer};
use super::files::{TokenizerFiles, parse_tokenizer, unknown_id};
use super::template::{ChatTemplate, DialogueEnd, TemplateOptions, fold_system, sha256_hex};
use super::thinking::{ThinkingMarkers, known_markers, left_open};
use super::{Message, PromptError, Vocabulary};
use serde_json::{Map, Value as Json};
use std::path::Path;
use tokenizers::{AddedToken, Tokenizer};

/// Encodes dialogues and texts for one model. Ids are `u32` below [`ChatTokenizer::vocab_size`].
#[derive(Debug)]
pub struct ChatTokenizer {
    tokenizer: Tokenizer,
    /// The same tokenizer without the space it puts before a text: for text that continues another. `None` where it puts none.
    continuation: Option<Tokenizer>,
    controls: ControlVocabulary,
    /// The template, or a remark for the error where there is none.
    template: Result<ChatTemplate, String>,
    decoding: DecodingKind,
    bos_id: Option<u32>,
    eos_ids: Vec<u32>,
    vocab_size: usize,
    tokenizer_sha256: String,
    thinking: Vec<ThinkingMarkers>,
}

impl ChatTokenizer {
    /// Loads `tokenizer.json` and what goes with it from a model directory: `tokenizer_config.json`,
    /// `special_tokens_map.json`, `generation_config.json`, and the chat template (`chat_template.jinja`, else
    /// `chat_template.json`, else in `tokenizer_config.json`; `options` may override it). Of a GGUF file: what its metadata say,
    /// unless a tokenizer.json lies beside it.
    ///
    /// # Errors
    /// No `tokenizer.json`, unreadable or invalid files, a template that does not compile. A missing template is an error
    /// only when a dialogue is to be encoded.
    pub fn load(model_dir: &Path, options: &TemplateOptions) -> Result<Self, PromptError> {
        Self::build(TokenizerFiles::read(model_dir)?, options)
    }

    /// The same from texts in memory. `chat_template` wins over the one in `tokenizer_config_json`.
    ///
    /// # Errors
    /// As for [`ChatTokenizer::load`].
    pub fn from_parts(
        tokenizer_json: &[u8],
        tokenizer_config_json: Option<&str>,
        chat_template: Option<&str>,
        options: &TemplateOptions,
    ) -> Result<Self, PromptError> {
        Self::build(TokenizerFiles::from_parts(tokenizer_json, tokenizer_config_json, chat_template)?, options)
    }

    fn build(files: TokenizerFiles, options: &TemplateOptions) -> Result<Self, PromptError> {
        let mut tokenizer = parse_tokenizer(&files.tokenizer_json, &files.origin)?;
        declare_special(&mut tokenizer, &files)?;
        let named = files.named_tokens();
        let named_id = |name: &str| {
            let text = named.iter().find(|(key, _)| key == name).map(|(_, text)| text)?;
            tokenizer.token_to_id(text)
        };
        let bos_id = named_id("bos_token");
        let mut eos_ids: Vec<u32> =
            named_id("eos_token").into_iter().chain(files.generation_eos.iter().copied()).collect();
        eos_ids.sort_unstable();
        eos_ids.dedup();
        let mut variables: Map<String, Json> =
            named.iter().map(|(key, text)| (key.clone(), text.as_str().into())).collect();
        variables.extend(options.extra.clone());
        let template = match options.chat_template_override.clone().map_or(files.template, Ok) {
            Ok(found) => Ok(ChatTemplate::compile(found, variables, options.date)?),
            Err(detail) => Err(detail),
        };
        let unknown = unknown_id(&tokenizer, &files.tokenizer_json);
        let controls = ControlVocabulary::new(&tokenizer, unknown, template.as_ref().map_or("", ChatTemplate::source));
        let source = template.as_ref().map_or("", ChatTemplate::source);
        let thinking = known_markers(|token| tokenizer.token_to_id(token).is_some(), source);
        let vocab_size = tokenizer.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1);
        Ok(Self {
            continuation: without_prefix_space(&tokenizer, &files.origin)?,
            decoding: DecodingKind::of(&tokenizer),
            tokenizer_sha256: sha256_hex(&files.tokenizer_json),
            tokenizer,
            controls,
            template,
            bos_id,
            eos_ids,
            vocab_size,
            thinking,
        })
    }

    /// Encodes a text that is all content: no control token can come out of it, and nothing is added around it.
    ///
    /// # Errors
    /// [`PromptError::Encode`], [`PromptError::ControlText`].
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        let marker = free_marker(|c| !text.contains(c))?;
        self.encode_parts(&self.controls.break_apart(text, marker, &self.tokenizer)?, marker)
    }

    /// Renders a dialogue as Transformers' `apply_chat_template(tokenize=False)` does, contents as they are. For eyes and
    /// logs: to feed a model use [`ChatTokenizer::encode_chat`], which keeps contents from becoming control tokens.
    ///
    /// A template that refuses the system role gets the dialogue again with the system turn folded into the user turn
    /// ([`fold_system`]).
    ///
    /// # Errors
    /// [`PromptError::NoTemplate`], [`PromptError::Template`], [`PromptError::NotContinuable`].
    pub fn render_chat(&self, messages: &[Message], end: DialogueEnd) -> Result<String, PromptError> {
        let template = self.template()?;
        match template.render(messages, end) {
            Err(PromptError::Template { raised: true, .. }) if messages.iter().any(|turn| turn.role == "system") => {
                template.render(&fold_system(messages), end)
            }
            result => result,
        }
    }

    /// Renders and encodes a dialogue. Only the template's own text can become control tokens: contents and roles never do,
    /// neither alone nor joined with the text around them. For contents without control text the ids are those of
    /// Transformers' `apply_chat_template(tokenize=True)`. System turns: as for [`ChatTokenizer::render_chat`].
    ///
    /// A template that looks for a control text in a content (say, to drop a `<think>` part) does not find it: to us it is
    /// text that someone wrote.
    ///
    /// # Errors
    /// [`PromptError::NoTemplate`], [`PromptError::Template`], [`PromptError::NotContinuable`],
    /// [`PromptError::Encode`], [`PromptError::ControlText`].
    pub fn encode_chat(&self, messages: &[Message], end: DialogueEnd) -> Result<Vec<u32>, PromptError> {
        let template = self.template()?;
        let contains = |c: char| messages.iter().any(|turn| turn.content.contains(c) || turn.role.contains(c));
        let marker = free_marker(|c| !contains(c) && !template.mentions(c))?;
        let broken = messages
            .iter()
            .map(|turn| {
                Ok(Message {
                    role: self.controls.break_apart(&turn.role, marker, &self.tokenizer)?,
                    content: self.controls.break_apart(&turn.content, marker, &self.tokenizer)?,
                })
            })
            .collect::<Result<Vec<_>, PromptError>>()?;
        let ids = self.encode_parts(&self.render_chat(&broken, end)?, marker)?;
        // A content can still make a control text together with what stands beside it. If the dialogue with every such
        // chance broken has other control tokens than this one, that has happened, and the broken one is right.
        let hardened: Vec<Option<String>> =
            broken.iter().map(|turn| self.controls.harden(&turn.content, marker, &self.tokenizer)).collect();
        if hardened.iter().all(Option::is_none) {
            return Ok(ids);
        }
        let hardened: Vec<Message> = broken
            .into_iter()
            .zip(hardened)
            .map(|(turn, content)| Message { content: content.unwrap_or(turn.content), role: turn.role })
            .collect();
        let safe_ids = self.encode_parts(&self.render_chat(&hardened, end)?, marker)?;
        Ok(if self.controls.sequence(&ids) == self.controls.sequence(&safe_ids) { ids } else { safe_ids })
    }

    /// How this tokenizer goes on with the text `label` after the ids `after`: the ids a model would have to generate to
    /// write it there.
    ///
    /// The ids of `after` are fixed, so nothing merges across the join, and `label` is encoded as a text of its own. The
    /// join decides the space that SentencePiece-like tokenizers put before a text: after a control token (or at the very
    /// start) a text begins as it does in the model's training data, with that space where the tokenizer puts one after
    /// control tokens; after ordinary text it continues without one. Several ids are possible (`10`, or a byte-fallback
    /// digit). A label that a model writes with a space of its own must be given with it.
    ///
    /// # Errors
    /// As for [`ChatTokenizer::encode_text`].
    pub fn label_token_ids(&self, label: &str, after: &[u32]) -> Result<Vec<u32>, PromptError> {
        let Some(&last) = after.last() else { return self.encode_text(label) };
        let marker = free_marker(|c| !label.contains(c))?;
        let broken = self.controls.break_apart(label, marker, &self.tokenizer)?;
        let added = self.tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        // The unknown token stands for ordinary text, although it is special.
        let Some(token) = added.get(&last).filter(|token| !token.special || self.is_control(last)) else {
            // A leading marker would be dropped as an empty part, so the continuation is asked for by hand.
            return self.encode_rest(broken.split(marker));
        };
        let parts: Vec<&str> = broken.split(marker).collect();
        let (first, rest) = parts.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
        let joined = format!("{}{first}", token.content);
        let mut ids = self.encode_plain(&self.tokenizer, &joined)?;
        match ids.iter().position(|id| *id == last) {
            Some(at) => drop(ids.drain(..=at)),
            None => ids = self.encode_plain(self.continuation(), first)?,
        }
        ids.extend(self.encode_rest(rest.iter().copied())?);
        Ok(ids)
    }

    /// Encodes a text cut at `marker`: each part alone, the first as the start of a text, the others as its continuation.
    fn encode_parts(&self, text: &str, marker: char) -> Result<Vec<u32>, PromptError> {
        let mut parts = text.split(marker).filter(|part| !part.is_empty());
        let Some(first) = parts.next() else { return Ok(Vec::new()) };
        let mut ids = self.encode_plain(&self.tokenizer, first)?;
        ids.extend(self.encode_rest(parts)?);
        Ok(ids)
    }

    /// Encodes parts that continue a text: up to the first added token without the tokenizer's prefix space, and from
    /// there as usual.
    fn encode_rest<'p>(&self, parts: impl Iterator<Item = &'p str>) -> Result<Vec<u32>, PromptError> {
        let mut ids = Vec::new();
        let added = self.tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        for part in parts {
            let Some(continuation) = &self.continuation else {
                ids.extend(self.encode_plain(&self.tokenizer, part)?);
                continue;
            };
            let encoding = self.tokenizer.encode(part, false).map_err(|err| encode_error(part, err))?;
            let first = encoding.get_ids().iter().zip(encoding.get_offsets()).find(|(id, _)| added.contains_key(id));
            let (head, tail) =
                part.split_at_checked(first.map_or(part.len(), |(_, offsets)| offsets.0)).unwrap_or((part, ""));
            ids.extend(self.encode_plain(continuation, head)?);
            ids.extend(self.encode_plain(&self.tokenizer, tail)?);
        }
        Ok(ids)
    }

    fn encode_plain(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, PromptError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = tokenizer.encode_fast(text, false).map_err(|err| encode_error(text, err))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn continuation(&self) -> &Tokenizer {
        self.continuation.as_ref().unwrap_or(&self.tokenizer)
    }

    /// Decodes ids to text; `skip_special` leaves out tokens flagged special. Ids the tokenizer does not know show nothing.
    ///
    /// # Errors
    /// [`PromptError::Decode`] where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, PromptError> {
        detokenize::decode(&self.tokenizer, ids, skip_special)
    }

    /// The bytes that each id adds to a text.
    ///
    /// # Errors
    /// [`PromptError::NoBytes`] where that depends on the other ids, [`PromptError::Decode`].
    pub fn vocabulary(&self) -> Result<Vocabulary, PromptError> {
        Vocabulary::new(&self.tokenizer, self.decoding, self.vocab_size)
    }

    /// A [`Detokenizer`] for one growing sequence of ids.
    pub fn detokenizer(&self, skip_special: bool) -> Detokenizer<'_> {
        Detokenizer::new(&self.tokenizer, self.decoding, skip_special)
    }

    /// The markers of thinking that this model may use.
    pub(super) fn thinking_markers(&self) -> &[ThinkingMarkers] {
        &self.thinking
    }

    /// The thinking that the template opens for this dialogue at the end of the generation prompt, so that the answer begins
    /// inside it. What a turn holds opens none.
    ///
    /// # Errors
    /// As for [`ChatTokenizer::render_chat`].
    pub fn opened_thinking(&self, messages: &[Message]) -> Result<Option<ThinkingMarkers>, PromptError> {
        let with = self.render_chat(messages, DialogueEnd::GenerationPrompt)?;
        if left_open(&with, &self.thinking).is_none() {
            return Ok(None);
        }
        let without = self.render_chat(messages, DialogueEnd::Whole)?;
        let num_same = with.bytes().zip(without.bytes()).take_while(|(a, b)| a == b).count();
        let added = (num_same..=with.len()).find_map(|at| with.get(at..)).unwrap_or_default();
        Ok(left_open(added, &self.thinking))
    }

    /// The thinking that a prompt given in tokens leaves open, if its last tokens are an opening marker.
    ///
    /// # Errors
    /// As for [`ChatTokenizer::decode`].
    pub fn opened_thinking_in(&self, ids: &[u32]) -> Result<Option<ThinkingMarkers>, PromptError> {
        let tail = ids.get(ids.len().saturating_sub(12)..).unwrap_or_default();
        Ok(left_open(&self.decode(tail, false)?, &self.thinking))
    }

    /// Largest id plus one, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The smallest id from `first` on that a prompt can hold or that ends an answer, with its token. Left out are control tokens
    /// that no text reaches and the template does not spell.
    pub fn reachable_token_from(&self, first: usize) -> Option<(u32, String)> {
        if self.vocab_size <= first {
            return None;
        }
        let source = self.template.as_ref().map_or("", ChatTemplate::source);
        let is_reachable = |id: u32, token: &str| {
            !self.is_control(id) || self.bos_id == Some(id) || self.eos_ids.contains(&id) || source.contains(token)
        };
        let beyond = self.tokenizer.get_vocab(true).into_iter().filter(|(_, id)| *id as usize >= first);
        beyond.filter(|(token, id)| is_reachable(*id, token)).map(|(token, id)| (id, token)).min()
    }

    /// Ids that end an answer: `eos_token`, and the `eos_token_id`s of `generation_config.json`. Ascending, may be empty.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Id of `bos_token`. Chat templates write it themselves; [`ChatTokenizer::encode_text`] does not add it.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// Id of a token by its exact text in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Is this id flagged special, so that decoding with `skip_special` leaves it out?
    pub fn is_special(&self, id: u32) -> bool {
        self.tokenizer.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// Can this id never come from the text of a turn? Special tokens without the unknown token, and tokens such as
    /// `<think>` that steer a model without the flag.
    pub fn is_control(&self, id: u32) -> bool {
        self.controls.is_control(id)
    }

    /// Does the model come with (or was it given) a chat template?
    pub fn has_chat_template(&self) -> bool {
        self.template.is_ok()
    }

    /// The template's Jinja source.
    pub fn template_source(&self) -> Option<&str> {
        self.template.as_ref().ok().map(ChatTemplate::source)
    }

    /// Hex SHA-256 of the template's source.
    pub fn template_sha256(&self) -> Option<&str> {
        self.template.as_ref().ok().map(ChatTemplate::sha256)
    }

    /// Hex SHA-256 of `tokenizer.json`.
    pub fn tokenizer_sha256(&self) -> &str {
        &self.tokenizer_sha256
    }

    /// Does the template take a system turn as it is, without [`fold_system`]?
    ///
    /// # Errors
    /// [`PromptError::NoTemplate`], or [`PromptError::Template`] where it fails on a plain dialogue too.
    pub fn supports_system(&self) -> Result<bool, PromptError> {
        let turn = |role: &str| Message { role: role.to_owned(), content: "x".to_owned() };
        match self.template()?.render(&[turn("system"), turn("user")], DialogueEnd::GenerationPrompt) {
            Ok(_) => Ok(true),
            Err(PromptError::Template { raised: true, .. }) => {
                self.template()?.render(&[turn("user")], DialogueEnd::GenerationPrompt).map(|_| false)
            }
            Err(other) => Err(other),
        }
    }

    fn template(&self) -> Result<&ChatTemplate, PromptError> {
        self.template.as_ref().map_err(|detail| PromptError::NoTemplate { detail: detail.clone() })
    }
}

fn encode_error(text: &str, error: tokenizers::Error) -> PromptError {
    PromptError::Encode { num_bytes: text.len(), reason: error.to_string() }
}

/// Flags tokens special that the config declares so and `tokenizer.json` does not, as Transformers does. Tokens that are
/// not in the vocabulary are left out: the model has no row for them.
fn declare_special(tokenizer: &mut Tokenizer, files: &TokenizerFiles) -> Result<(), PromptError> {
    let added = tokenizer.get_added_tokens_decoder();
    let mut missing = Vec::new();
    for text in files.declared_special() {
        let Some(id) = tokenizer.token_to_id(&text) else { continue };
        match added.get(&id) {
            Some(token) if token.special => {}
            Some(token) => missing.push(token.clone().special(true)),
            None => missing.push(AddedToken::from(text, true)),
        }
    }
    tokenizer.add_special_tokens(missing).map(drop).map_err(|err| PromptError::Invalid {
        origin: "tokenizer_config.json".to_owned(),
        reason: format!("its special tokens cannot be added: {err}"),
        hint: "compare its tokens with those of tokenizer.json",
    })
}

/// A copy that puts no space before a text, or `None` where the tokenizer puts none. The space comes from a `Prepend`
/// normaliser, a `Metaspace` or a `ByteLevel` pre-tokenizer.
fn without_prefix_space(tokenizer: &Tokenizer, origin: &str) -> Result<Option<Tokenizer>, PromptError> {
    let invalid = |err: String| PromptError::Invalid {
        origin: origin.to_owned(),
        reason: format!("its prefix space cannot be turned off: {err}"),
        hint: "report this tokenizer",
    };
    let to_json = |json: serde_json::Result<Json>| json.map_err(|err| invalid(err.to_string()));
    let normalizer = to_json(serde_json::to_value(tokenizer.get_normalizer()))?;
    let pre_tokenizer = to_json(serde_json::to_value(tokenizer.get_pre_tokenizer()))?;
    let (new_normalizer, new_pre_tokenizer) = (drop_prefix_space(&normalizer), drop_prefix_space(&pre_tokenizer));
    if new_normalizer == normalizer && new_pre_tokenizer == pre_tokenizer {
        return Ok(None);
    }
    let mut copy = tokenizer.clone();
    if new_pre_tokenizer != pre_tokenizer {
        let parsed: Option<tokenizers::PreTokenizerWrapper> =
            serde_json::from_value(new_pre_tokenizer).map_err(|err| invalid(err.to_string()))?;
        copy.with_pre_tokenizer(parsed);
    }
    if new_normalizer != normalizer {
        let parsed: Option<tokenizers::NormalizerWrapper> =
            serde_json::from_value(new_normalizer).map_err(|err| invalid(err.to_string()))?;
        copy.with_normalizer(parsed).map_err(|err| invalid(err.to_string()))?;
    }
    Ok(Some(copy))
}

fn drop_prefix_space(component: &Json) -> Json {
    let mut component = component.clone();
    let kind = component.get("type").and_then(Json::as_str).unwrap_or("").to_owned();
    match (kind.as_str(), component.as_object_mut()) {
        ("Prepend", _) => return Json::Null,
        ("Metaspace", Some(fields)) => {
            fields.insert("prepend_scheme".to_owned(), "never".into());
            fields.remove("add_prefix_space");
        }
        ("ByteLevel", Some(fields)) => {
            fields.insert("add_prefix_space".to_owned(), false.into());
        }
        ("Sequence", Some(fields)) => {
            for steps in ["normalizers", "pretokenizers"] {
                if let Some(Json::Array(steps)) = fields.get_mut(steps) {
                    *steps = steps.iter().map(drop_prefix_space).filter(|step| !step.is_null()).collect();
                }
            }
        }
        _ => {}
    }
    component
}

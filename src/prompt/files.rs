//! What a model directory says about its tokenizer: which files exist, which of them wins, which tokens have a name.
//! Knows nothing of encoding or of rendering.

use super::PromptError;
use super::template::TemplateSource;
use crate::data::quiet::catch_quietly;
use serde_json::{Map, Value as Json};
use std::path::Path;

/// The texts of a model directory that matter here, unparsed apart from JSON.
#[derive(Debug)]
pub(super) struct TokenizerFiles {
    pub(super) tokenizer_json: Vec<u8>,
    /// `tokenizer_config.json`, with tokens that only the older `special_tokens_map.json` names added to it.
    pub(super) config: Map<String, Json>,
    /// The template, and where none was found, a remark for the error message.
    pub(super) template: Result<TemplateSource, String>,
    /// `eos_token_id` of `generation_config.json`: chat models often end on more tokens than their `eos_token`.
    pub(super) generation_eos: Vec<u32>,
    /// For error messages.
    pub(super) origin: String,
}

const JSON_HINT: &str = "the file may be cut short or a Git LFS pointer; fetch it again";

impl TokenizerFiles {
    /// Reads a model directory, or the GGUF file that `model_dir` means ([`crate::gguf::locate`]): a tokenizer.json beside the
    /// file, with the texts that belong to it, wins over the file's own. `chat_template.jinja` wins over `chat_template.json`, and
    /// that over the template in `tokenizer_config.json`.
    pub(super) fn read(model_dir: &Path) -> Result<Self, PromptError> {
        let Some(files) = crate::gguf::locate(model_dir)? else { return Self::read_dir(model_dir) };
        let gguf = crate::gguf::Gguf::open(&files)?;
        let beside = crate::provenance::folder_of(gguf.path());
        if !beside.join("tokenizer.json").exists() {
            return super::gguf::files(&gguf);
        }
        let mut found = Self::read_dir(beside)?;
        if let (Err(_), Some(template)) = (&found.template, gguf.text("tokenizer.chat_template")?) {
            found.template = Ok(super::gguf::template_source(&gguf, template.to_owned()));
        }
        Ok(found)
    }

    fn read_dir(model_dir: &Path) -> Result<Self, PromptError> {
        let tokenizer_path = model_dir.join("tokenizer.json");
        let tokenizer_json = match std::fs::read(&tokenizer_path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(PromptError::MissingTokenizer { model_dir: model_dir.to_owned() });
            }
            Err(source) => return Err(PromptError::Io { path: tokenizer_path, source }),
        };
        let mut config = read_object(model_dir, "tokenizer_config.json")?;
        for (name, token) in read_object(model_dir, "special_tokens_map.json")? {
            config.entry(name).or_insert(token);
        }
        let jinja = read_text(model_dir, "chat_template.jinja")?;
        let in_json = read_object(model_dir, "chat_template.json")?;
        let origin = |name: &str| model_dir.join(name).display().to_string();
        let template = match jinja {
            Some(source) => Ok(TemplateSource { source, origin: origin("chat_template.jinja") }),
            None => template_in(&in_json, &origin("chat_template.json"))
                .or_else(|_| template_in(&config, &origin("tokenizer_config.json")))
                .or_else(|remark| beside(model_dir, remark)),
        };
        let generation_eos = match read_object(model_dir, "generation_config.json")?.get("eos_token_id") {
            Some(Json::Array(ids)) => ids.iter().filter_map(as_token_id).collect(),
            Some(id) => as_token_id(id).into_iter().collect(),
            None => Vec::new(),
        };
        let origin = tokenizer_path.display().to_string();
        Ok(Self { tokenizer_json, config, template, generation_eos, origin })
    }

    /// The same from texts in memory; `chat_template` wins over the one in the config.
    pub(super) fn from_parts(
        tokenizer_json: &[u8],
        tokenizer_config_json: Option<&str>,
        chat_template: Option<&str>,
    ) -> Result<Self, PromptError> {
        let config = match tokenizer_config_json {
            Some(text) => parse_object(text, "tokenizer_config.json")?,
            None => Map::new(),
        };
        let given =
            |source: &str| TemplateSource { source: source.to_owned(), origin: "chat_template.jinja".to_owned() };
        let template = chat_template.map(given).map_or_else(|| template_in(&config, "tokenizer_config.json"), Ok);
        Ok(Self {
            tokenizer_json: tokenizer_json.to_vec(),
            config,
            template,
            generation_eos: Vec::new(),
            origin: "tokenizer.json".to_owned(),
        })
    }

    /// Tokens with a name that ends in `_token` (`bos_token`, `eos_token`, …), as name and text.
    pub(super) fn named_tokens(&self) -> Vec<(String, String)> {
        let in_config = self.config.iter();
        let extra = self.config.get("extra_special_tokens").and_then(Json::as_object).into_iter().flatten();
        in_config
            .chain(extra)
            .filter(|(name, _)| name.ends_with("_token"))
            .filter_map(|(name, token)| Some((name.clone(), token_text(token)?.to_owned())))
            .collect()
    }

    /// Texts of all tokens the config declares special, whether they have a name or stand in a list.
    pub(super) fn declared_special(&self) -> Vec<String> {
        let lists = ["additional_special_tokens", "extra_special_tokens"];
        let listed = lists.iter().filter_map(|name| self.config.get(*name)?.as_array()).flatten();
        let listed = listed.filter_map(|token| Some(token_text(token)?.to_owned()));
        self.named_tokens().into_iter().map(|(_, text)| text).chain(listed).collect()
    }
}

/// A token is written as a string or as an object with `content`.
fn token_text(token: &Json) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

fn as_token_id(id: &Json) -> Option<u32> {
    u32::try_from(id.as_u64()?).ok()
}

/// `chat_template` as a string, or as a list of `{name, template}` of which `default` counts. Without one, a remark for the
/// error message.
fn template_in(config: &Map<String, Json>, origin: &str) -> Result<TemplateSource, String> {
    let found = |source: &String| Ok(TemplateSource { source: source.clone(), origin: origin.to_owned() });
    // Old configurations have a mapping of names to templates, newer ones a list.
    let named: Vec<(&str, &String)> = match config.get("chat_template") {
        Some(Json::String(source)) => return found(source),
        Some(Json::Array(named)) => named
            .iter()
            .filter_map(|entry| match (entry.get("name"), entry.get("template")) {
                (Some(Json::String(name)), Some(Json::String(source))) => Some((name.as_str(), source)),
                _ => None,
            })
            .collect(),
        Some(Json::Object(named)) => named
            .iter()
            .filter_map(|(name, source)| match source {
                Json::String(source) => Some((name.as_str(), source)),
                _ => None,
            })
            .collect(),
        _ => return Err(String::new()),
    };
    match named.iter().find(|(name, _)| *name == "default") {
        Some((_, source)) => found(source),
        None => {
            let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
            Err(format!(" named `default`, only: {}", names.join(", ")))
        }
    }
}

/// `additional_chat_templates/default.jinja`, or the names of what lies there as a remark: the other templates are for tools
/// and retrieval, and which of them a plain dialogue should get is nobody's guess.
fn beside(model_dir: &Path, remark: String) -> Result<TemplateSource, String> {
    let folder = model_dir.join("additional_chat_templates");
    let default = folder.join("default.jinja");
    if let Ok(source) = std::fs::read_to_string(&default) {
        return Ok(TemplateSource { source, origin: default.display().to_string() });
    }
    let entries = std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".jinja")?.to_owned())).collect();
    names.sort();
    match names.is_empty() || !remark.is_empty() {
        true => Err(remark),
        false => Err(format!(" named `default`, only: {}", names.join(", "))),
    }
}

fn read_text(model_dir: &Path, name: &str) -> Result<Option<String>, PromptError> {
    let path = model_dir.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PromptError::Io { path, source }),
    }
}

fn read_object(model_dir: &Path, name: &str) -> Result<Map<String, Json>, PromptError> {
    match read_text(model_dir, name)? {
        Some(text) => parse_object(&text, &model_dir.join(name).display().to_string()),
        None => Ok(Map::new()),
    }
}

fn parse_object(text: &str, origin: &str) -> Result<Map<String, Json>, PromptError> {
    serde_json::from_str(text).map_err(|err| PromptError::Invalid {
        origin: origin.to_owned(),
        reason: format!("expected a JSON object: {err}"),
        hint: JSON_HINT,
    })
}

/// Parses `tokenizer.json`, without truncation or padding, which are for training batches.
pub(super) fn parse_tokenizer(bytes: &[u8], origin: &str) -> Result<tokenizers::Tokenizer, PromptError> {
    let invalid = |reason: String| PromptError::Invalid { origin: origin.to_owned(), reason, hint: JSON_HINT };
    // The package trusts what it reads: some files that are made to do so let it panic.
    let parsed = catch_quietly(|| tokenizers::Tokenizer::from_bytes(bytes));
    let parsed = parsed.map_err(|()| invalid("its parts do not belong together".to_owned()))?;
    let mut tokenizer = parsed.map_err(|err| invalid(err.to_string()))?;
    tokenizer.with_truncation(None).map_err(|err| invalid(err.to_string()))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// The id a model yields for what it does not know: `unk_token` of its model, or `unk_id` where that is Unigram.
pub(super) fn unknown_id(tokenizer: &tokenizers::Tokenizer, tokenizer_json: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        unk_token: Option<String>,
        unk_id: Option<u32>,
    }
    let model = serde_json::from_slice::<File>(tokenizer_json).ok()?.model;
    model.unk_id.or_else(|| tokenizer.token_to_id(&model.unk_token?))
}

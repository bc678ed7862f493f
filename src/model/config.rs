//! Hugging Face's config.json and generation_config.json, or a GGUF file's metadata in their words, read field by field with errors that name the field.
//! Knows both spellings of the rotary settings; knows nothing of what a family makes of the fields.

use std::path::Path;

use serde_json::{Map, Value};

use super::ModelError;

/// A model directory's configuration.
#[derive(Debug, Clone)]
pub struct HfConfig {
    fields: Map<String, Value>,
    generation: Map<String, Value>,
}

impl HfConfig {
    /// Reads `dir/config.json`, or the metadata of the GGUF file that `dir` means ([`crate::gguf::locate`]), and, where it
    /// exists, generation_config.json beside it.
    ///
    /// # Errors
    /// [`ModelError::NotAModel`] without a config.json, [`ModelError::Config`] if a file is not a JSON object,
    /// [`ModelError::Gguf`] for an unusable GGUF file.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        if let Some(files) = crate::gguf::locate(dir)? {
            return Self::of_gguf(&crate::gguf::Gguf::open(&files)?);
        }
        let not_a_model = |what: &str| ModelError::NotAModel { path: dir.to_owned(), what: what.to_owned() };
        if !dir.exists() {
            return Err(not_a_model("it does not exist"));
        }
        if !dir.is_dir() {
            return Err(not_a_model("it is a file"));
        }
        let path = dir.join("config.json");
        if !path.exists() {
            return Err(not_a_model("there is no config.json in it"));
        }
        let generation = dir.join("generation_config.json");
        let generation = if generation.exists() { read_object(&generation)? } else { Map::new() };
        Ok(Self { fields: read_object(&path)?, generation })
    }

    /// From a GGUF file's metadata; generation_config.json beside it wins over what the metadata recommend.
    fn of_gguf(gguf: &crate::gguf::Gguf) -> Result<Self, ModelError> {
        let super::gguf::Fields { config: fields, mut generation } = super::gguf::fields(gguf)?;
        let beside = gguf.path().with_file_name("generation_config.json");
        if beside.exists() {
            generation.extend(read_object(&beside)?);
        }
        Ok(Self { fields, generation })
    }

    /// From JSON text, for tests and embedded models.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is not a JSON object.
    pub fn parse(config: &str) -> Result<Self, ModelError> {
        Ok(Self { fields: parse_object("config.json", config)?, generation: Map::new() })
    }

    /// The configuration of a larger model's text part (`text_config`), if it has one.
    pub fn text_part(&self) -> Option<Self> {
        match self.get("text_config") {
            Some(Value::Object(fields)) => {
                let mut fields = fields.clone();
                // These are the larger model's to decide.
                for field in ["tie_word_embeddings", "quantization_config", "eos_token_id"] {
                    if let Some(value) = self.fields.get(field) {
                        fields.insert(field.to_owned(), value.clone());
                    }
                }
                Some(Self { fields, generation: self.generation.clone() })
            }
            _ => None,
        }
    }

    /// The same with Transformers' own values for fields that the file leaves out.
    pub fn with_defaults(&self, defaults: &[(&str, u64)]) -> Self {
        let mut config = self.clone();
        for (field, value) in defaults {
            config.fields.entry(*field).or_insert_with(|| (*value).into());
        }
        config
    }

    /// The same without the activation's name: for families that read it by rules of their own.
    pub fn without_activation(&self) -> Self {
        self.without(&["hidden_act", "hidden_activation"])
    }

    /// The same without the rotary settings: for families that read them by rules of their own.
    pub fn without_rope(&self) -> Self {
        self.without(&["rope_scaling", "rope_parameters"])
    }

    fn without(&self, names: &[&str]) -> Self {
        let mut config = self.clone();
        config.fields.retain(|name, _| !names.contains(&name.as_str()));
        config
    }

    /// A field that is present and not null.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// Whether the field is there at all, null included.
    pub fn mentions(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// `model_type`, or an error.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is missing.
    pub fn model_type(&self) -> Result<&str, ModelError> {
        self.get("model_type").and_then(Value::as_str).ok_or_else(|| missing("model_type", "a string"))
    }

    /// A positive integer that must be there.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is missing or not a positive integer.
    pub fn size(&self, field: &str) -> Result<usize, ModelError> {
        self.optional_size(field)?.ok_or_else(|| missing(field, "a positive integer"))
    }

    /// A positive integer, if present.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is present but not a positive integer below 2^31.
    pub fn optional_size(&self, field: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if (1..1 << 31).contains(&number) => Ok(Some(number as usize)),
            _ => Err(wrong(field, value, "a positive integer")),
        }
    }

    /// A number, or `default` if absent.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is present but not a number.
    pub fn number(&self, field: &str, default: f64) -> Result<f64, ModelError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| wrong(field, value, "a number")),
        }
    }

    /// A boolean, or `default` if absent.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is present but not a boolean.
    pub fn flag(&self, field: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| wrong(field, value, "true or false")),
        }
    }

    /// Refuses a switch that this engine does not follow.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is on.
    pub fn refuse(&self, field: &str) -> Result<(), ModelError> {
        match self.get(field) {
            Some(value) if value.as_bool() != Some(false) => Err(wrong(field, value, "false")),
            _ => Ok(()),
        }
    }

    /// The rotary settings in the newer spelling, whichever of the two the file uses: an object with `rope_theta`,
    /// `rope_type` and the scaling's own fields.
    pub fn rope_parameters(&self) -> Map<String, Value> {
        let mut rope = Map::new();
        for field in ["rope_scaling", "rope_parameters"] {
            if let Some(Value::Object(object)) = self.get(field) {
                rope.extend(object.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
        }
        self.complete(rope)
    }

    /// The rotary settings of layers of one type, where a configuration tells them apart; otherwise those of all layers.
    pub fn rope_parameters_of(&self, layer_type: &str) -> Map<String, Value> {
        match self.get("rope_parameters").and_then(|rope| rope.get(layer_type)) {
            Some(Value::Object(rope)) => self.complete(rope.clone()),
            _ => self.rope_parameters(),
        }
    }

    /// Old names made new, and what stands beside the object put into it.
    fn complete(&self, mut rope: Map<String, Value>) -> Map<String, Value> {
        if let Some(kind) = rope.remove("type") {
            rope.entry("rope_type").or_insert(kind);
        }
        for field in ["rope_theta", "partial_rotary_factor", "original_max_position_embeddings"] {
            if let (Some(value), false) = (self.get(field), rope.contains_key(field)) {
                rope.insert(field.to_owned(), value.clone());
            }
        }
        rope
    }

    /// The tokens that end an answer: generation_config.json's, or else config.json's, or else its text part's.
    pub fn eos_token_ids(&self) -> Vec<u32> {
        let ids = |value: &Value| -> Vec<u32> {
            let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            match value {
                Value::Array(list) => list.iter().filter_map(one).collect(),
                other => one(other).into_iter().collect(),
            }
        };
        let of = |fields: &Map<String, Value>| fields.get("eos_token_id").map(ids).unwrap_or_default();
        let part = self.get("text_config").and_then(Value::as_object).map(of);
        let sources = [of(&self.generation), of(&self.fields), part.unwrap_or_default()];
        sources.into_iter().find(|ids| !ids.is_empty()).unwrap_or_default()
    }

    /// A sampling default of generation_config.json, for example `temperature`, if it is there and sampling is meant.
    pub fn generation_number(&self, field: &str) -> Option<f64> {
        self.generation.get(field).and_then(Value::as_f64)
    }
}

/// More than any model's configuration; a larger file is none.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// The text of a file of at most `limit` bytes; a larger one is refused before it is in memory.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, ModelError> {
    use std::io::Read;
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    let mut text = String::new();
    // What is read is bounded too, since the size of a pipe or a growing file says nothing.
    file.take(limit + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > limit {
        return Err(ModelError::TooLarge { path: path.to_owned(), limit_mib: limit >> 20 });
    }
    Ok(text)
}

fn read_object(path: &Path) -> Result<Map<String, Value>, ModelError> {
    let text = read_text(path, MAX_CONFIG_BYTES)?;
    parse_object(&path.file_name().unwrap_or_default().to_string_lossy(), &text)
}

fn parse_object(name: &str, text: &str) -> Result<Map<String, Value>, ModelError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ModelError::Config { field: name.to_owned(), what: "want a JSON object".to_owned() }),
        Err(error) => Err(ModelError::Config { field: name.to_owned(), what: format!("not valid JSON: {error}") }),
    }
}

/// The error for a field that is not there.
pub(super) fn missing(field: &str, want: &str) -> ModelError {
    ModelError::Config { field: field.to_owned(), what: format!("missing, want {want}") }
}

/// The error for a field with an unusable value.
pub(super) fn wrong(field: &str, got: &Value, want: &str) -> ModelError {
    ModelError::Config { field: field.to_owned(), what: format!("got {got}, want {want}") }
}

//! Writes GGUF files byte by byte, right or wrong, and turns the fixtures' safetensors into GGUF as llama.cpp's converter does.
//! Knows the format and the converter's changes of layout; shares no code with what is tested.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value as Json;

/// A metadata value.
#[derive(Debug, Clone)]
pub enum Meta {
    U32(u32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// A type id and the bytes behind it.
    Raw(u32, Vec<u8>),
}

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub name: String,
    /// The contiguous dimension first.
    pub dims: Vec<u64>,
    pub kind: u32,
    pub data: Vec<u8>,
}

/// A file to be.
#[derive(Debug, Clone)]
pub struct Writer {
    pub version: u32,
    pub metadata: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
    pub alignment: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self { version: 3, metadata: Vec::new(), tensors: Vec::new(), alignment: 32 }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Writer {
    pub fn set(&mut self, key: &str, value: Meta) {
        self.metadata.retain(|(other, _)| other != key);
        self.metadata.push((key.to_owned(), value));
    }

    /// An F32 tensor; `shape` with rows first, as safetensors have it.
    pub fn f32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        let dims = shape.iter().rev().map(|dim| *dim as u64).collect();
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.push(Tensor { name: name.to_owned(), dims, kind: 0, data });
    }

    /// The bytes, with each tensor's offset in the data.
    pub fn bytes(&self) -> Vec<u8> {
        let mut offset = 0usize;
        let offsets = self.tensors.iter().map(|tensor| {
            let at = offset;
            offset = (offset + tensor.data.len()).next_multiple_of(self.alignment);
            at as u64
        });
        let offsets: Vec<u64> = offsets.collect();
        self.bytes_with_offsets(&offsets)
    }

    pub fn bytes_with_offsets(&self, offsets: &[u64]) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut out, key);
            write_meta(&mut out, value);
        }
        for (tensor, offset) in self.tensors.iter().zip(offsets) {
            text(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        let data = out.len();
        for (tensor, offset) in self.tensors.iter().zip(offsets) {
            let at = data + usize::try_from(*offset).unwrap_or(0).min(1 << 24);
            out.resize(out.len().max(at), 0);
            out.truncate(at);
            out.extend(&tensor.data);
        }
        out
    }
}

fn write_meta(out: &mut Vec<u8>, value: &Meta) {
    let array = |out: &mut Vec<u8>, kind: u32, count: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    };
    match value {
        Meta::U32(number) => {
            out.extend(4u32.to_le_bytes());
            out.extend(number.to_le_bytes());
        }
        Meta::U64(number) => {
            out.extend(10u32.to_le_bytes());
            out.extend(number.to_le_bytes());
        }
        Meta::F32(number) => {
            out.extend(6u32.to_le_bytes());
            out.extend(number.to_le_bytes());
        }
        Meta::Bool(flag) => {
            out.extend(7u32.to_le_bytes());
            out.push(u8::from(*flag));
        }
        Meta::Text(string) => {
            out.extend(8u32.to_le_bytes());
            text(out, string);
        }
        Meta::Texts(strings) => {
            array(out, 8, strings.len());
            strings.iter().for_each(|string| text(out, string));
        }
        Meta::I32s(numbers) => {
            array(out, 5, numbers.len());
            numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
        Meta::F32s(numbers) => {
            array(out, 6, numbers.len());
            numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
        Meta::Raw(kind, bytes) => {
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        }
    }
}

/// The fixture model in `dir` as an F32 GGUF without a tokenizer, laid out as llama.cpp's converter does.
pub fn of_safetensors(dir: &Path) -> Writer {
    let config: Json = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    let weights = std::fs::read(dir.join("model.safetensors")).unwrap();
    let family = config["model_type"].as_str().unwrap();
    let arch = if family == "mistral" { "llama" } else { family };
    let size = |field: &str| config[field].as_u64().unwrap() as u32;
    let mut writer = Writer::default();
    writer.set("general.architecture", Meta::Text(arch.to_owned()));
    let head_dim =
        config["head_dim"].as_u64().map_or(size("hidden_size") / size("num_attention_heads"), |dim| dim as u32);
    for (name, value) in [
        ("block_count", size("num_hidden_layers")),
        ("context_length", size("max_position_embeddings")),
        ("embedding_length", size("hidden_size")),
        ("feed_forward_length", size("intermediate_size")),
        ("attention.head_count", size("num_attention_heads")),
        ("attention.head_count_kv", size("num_key_value_heads")),
        ("attention.key_length", head_dim),
        ("attention.value_length", head_dim),
        ("rope.dimension_count", head_dim),
    ] {
        writer.set(&format!("{arch}.{name}"), Meta::U32(value));
    }
    let number = |value: &Json| value.as_f64().unwrap() as f32;
    writer.set(&format!("{arch}.attention.layer_norm_rms_epsilon"), Meta::F32(number(&config["rms_norm_eps"])));
    let rope = &config["rope_parameters"];
    writer.set(&format!("{arch}.rope.freq_base"), Meta::F32(number(&rope["rope_theta"])));
    if rope["rope_type"] == "llama3" {
        writer.f32("rope_freqs.weight", &[head_dim as usize / 2], &llama3_factors(rope, head_dim as usize));
    }
    let tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = SafeTensors::deserialize(&weights)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            (name, (view.shape().to_vec(), values))
        })
        .collect();
    for (name, (shape, values)) in &tensors {
        let values = match (arch, name) {
            ("llama", name) if name.contains(".q_proj") => pairs(values, size("num_attention_heads") as usize),
            ("llama", name) if name.contains(".k_proj") => pairs(values, size("num_key_value_heads") as usize),
            _ => values.clone(),
        };
        writer.f32(&ggml_name(name), shape, &values);
    }
    writer
}

/// The values with each head's rows in the order first of half one, first of half two, second of half one …
pub fn pairs(values: &[f32], heads: usize) -> Vec<f32> {
    // Rows are as long as it takes for two halves of whole rows: found by the head's size, which is 16 or 32 rows here.
    let per_head = values.len() / heads;
    let rows = if per_head.is_multiple_of(64 * 32) { 32 } else { 16 };
    let columns = per_head / rows;
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks(per_head) {
        for pair in 0..rows / 2 {
            for row in [pair, rows / 2 + pair] {
                out.extend(&head[row * columns..][..columns]);
            }
        }
    }
    out
}

fn llama3_factors(rope: &Json, head_dim: usize) -> Vec<f32> {
    let number = |field: &str| rope[field].as_f64().unwrap();
    let (factor, low, high) = (number("factor"), number("low_freq_factor"), number("high_freq_factor"));
    let original = number("original_max_position_embeddings");
    let one = |pair: usize| {
        let speed = number("rope_theta").powf(-2.0 * pair as f64 / head_dim as f64);
        let length = 2.0 * std::f64::consts::PI / speed;
        if length < original / high {
            1.0
        } else if length > original / low {
            factor as f32
        } else {
            let smooth = (original / length - low) / (high - low);
            (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
        }
    };
    (0..head_dim / 2).map(one).collect()
}

fn ggml_name(name: &str) -> String {
    let stems = [
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ];
    let mut name = name.replace("model.layers.", "blk.");
    for (hf, ggml) in stems {
        name = name.replace(hf, ggml);
    }
    name
}

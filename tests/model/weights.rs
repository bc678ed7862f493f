//! Weights: every form of the same numbers gives the same logits, and damaged or foreign files are refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use pairwright::model::{ModelError, WeightsKind};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{assert_says, fixture, load, logits, refusal};

#[derive(Clone)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

type Tensors = BTreeMap<String, Stored>;

/// A model in memory, to change before it is written.
#[derive(Clone)]
struct Model {
    config: Value,
    tensors: Tensors,
}

impl Model {
    fn read(family: &str) -> Self {
        let dir = fixture(family);
        let bytes = fs::read(dir.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors().into_iter();
        let stored = |view: &TensorView<'_>| Stored {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        let config = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
        Self { config, tensors: tensors.map(|(name, view)| (name, stored(&view))).collect() }
    }

    fn write(&self) -> TempDir {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("config.json"), self.config.to_string()).unwrap();
        fs::write(temp.path().join("model.safetensors"), serialise(self.tensors.iter())).unwrap();
        temp
    }

    /// Every tensor's elements, changed and stored anew.
    fn map(&self, dtype: Dtype, to_bytes: impl Fn(f32) -> Vec<u8>) -> Self {
        let mut model = self.clone();
        for tensor in model.tensors.values_mut() {
            assert_eq!(tensor.dtype, Dtype::F32);
            let values = tensor.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            tensor.bytes = values.flat_map(&to_bytes).collect();
            tensor.dtype = dtype;
        }
        model
    }
}

fn serialise<'a>(tensors: impl Iterator<Item = (&'a String, &'a Stored)>) -> Vec<u8> {
    let views = tensors.map(|(name, stored)| {
        (name.clone(), TensorView::new(stored.dtype, stored.shape.clone(), &stored.bytes).unwrap())
    });
    safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()
}

fn bits(dir: &Path) -> Vec<u32> {
    logits(&load(dir, WeightsKind::Files).unwrap())
}

const GATE: &str = "model.layers.1.mlp.gate_proj.weight";

#[test]
fn shards_equal_the_single_file() {
    let model = Model::read("llama");
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("config.json"), model.config.to_string()).unwrap();
    let mut map = serde_json::Map::new();
    for shard in 0..3 {
        let name = format!("model-{:05}-of-00003.safetensors", shard + 1);
        let of_shard = model.tensors.iter().enumerate().filter(|(index, _)| index % 3 == shard).map(|(_, entry)| entry);
        fs::write(temp.path().join(&name), serialise(of_shard.clone())).unwrap();
        map.extend(of_shard.map(|(tensor, _)| (tensor.clone(), json!(name))));
    }
    // A file that the index does not name is not read.
    fs::write(temp.path().join("consolidated.safetensors"), "not a model").unwrap();
    let index = temp.path().join("model.safetensors.index.json");
    fs::write(&index, json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string()).unwrap();
    assert_eq!(bits(temp.path()), bits(&fixture("llama")));

    let gone = temp.path().join("model-00002-of-00003.safetensors");
    fs::remove_file(&gone).unwrap();
    let error = refusal(temp.path());
    assert!(matches!(error, ModelError::Io { .. }), "{error:?}");
    assert_says(&error, &["model-00002-of-00003.safetensors", "No such file"]);
    fs::write(&index, "{\"metadata\": {}}").unwrap();
    assert_says(&refusal(temp.path()), &["index.json", "weight_map"]);
    fs::write(&index, "{").unwrap();
    let error = refusal(temp.path());
    assert!(matches!(error, ModelError::Corrupt { .. }), "{error:?}");
    assert_says(&error, &["index.json", "1 bytes"]);
}

#[test]
fn another_format_beside_the_single_file_is_left_alone() {
    let temp = Model::read("llama").write();
    fs::write(temp.path().join("consolidated.safetensors"), "not a model").unwrap();
    fs::write(temp.path().join("adapter_model.safetensors"), "not a model").unwrap();
    assert_eq!(bits(temp.path()), bits(&fixture("llama")));
}

#[test]
fn shards_without_an_index_are_found() {
    let model = Model::read("llama");
    let temp = model.write();
    fs::remove_file(temp.path().join("model.safetensors")).unwrap();
    for half in 0..2 {
        let of_half = model.tensors.iter().enumerate().filter(|(index, _)| index % 2 == half).map(|(_, entry)| entry);
        fs::write(temp.path().join(format!("part{half}.safetensors")), serialise(of_half)).unwrap();
    }
    assert_eq!(bits(temp.path()), bits(&fixture("llama")));
}

#[test]
fn half_precision_files_equal_f32_files_of_the_rounded_numbers() {
    let model = Model::read("llama");
    let original = bits(model.write().path());
    let half = model.map(Dtype::F16, |x| f16::from_f32(x).to_le_bytes().to_vec());
    let wide = model.map(Dtype::F32, |x| f16::from_f32(x).to_f32().to_le_bytes().to_vec());
    assert_eq!(bits(half.write().path()), bits(wide.write().path()));
    let brain = model.map(Dtype::BF16, |x| bf16::from_f32(x).to_le_bytes().to_vec());
    let wide = model.map(Dtype::F32, |x| bf16::from_f32(x).to_f32().to_le_bytes().to_vec());
    let rounded = bits(wide.write().path());
    assert_eq!(bits(brain.write().path()), rounded);
    assert_ne!(original, rounded);
}

#[test]
fn a_tied_head_is_the_embedding() {
    let mut tied = Model::read("llama");
    tied.config["tie_word_embeddings"] = json!(true);
    let embedding = tied.tensors["model.embed_tokens.weight"].clone();
    let mut untied = tied.clone();
    untied.config["tie_word_embeddings"] = json!(false);
    untied.tensors.insert("lm_head.weight".to_owned(), embedding);
    let want = bits(untied.write().path());
    assert_eq!(bits(tied.write().path()), want, "a head's copy in the file is passed over");
    tied.tensors.remove("lm_head.weight");
    assert_eq!(bits(tied.write().path()), want);
    untied.tensors.remove("lm_head.weight");
    let error = refusal(untied.write().path());
    assert!(matches!(error, ModelError::MissingTensor { .. }), "{error:?}");
    assert_says(&error, &["`lm_head.weight`", "[384, 64]"]);
}

#[test]
fn tensors_that_do_not_fit_the_configuration_are_named() {
    let model = Model::read("llama");
    let refused = |change: &dyn Fn(&mut Model)| {
        let mut changed = model.clone();
        change(&mut changed);
        refusal(changed.write().path())
    };
    let error = refused(&|model| _ = model.tensors.remove(GATE));
    assert!(matches!(error, ModelError::MissingTensor { .. }), "{error:?}");
    assert_says(&error, &[GATE, "[96, 64]", "closest: "]);

    let error = refused(&|model| {
        let norm = model.tensors["model.norm.weight"].clone();
        model.tensors.insert("model.layers.3.input_layernorm.weight".to_owned(), norm.clone());
        model.tensors.insert("model.layers.0.self_attn.q_norm.weight".to_owned(), norm);
    });
    assert!(matches!(error, ModelError::ExtraTensors { count: 2, .. }), "{error:?}");
    assert_says(&error, &["2 tensors", "model.layers.0.self_attn.q_norm.weight", "hint: "]);

    let error = refused(&|model| model.tensors.get_mut(GATE).unwrap().shape = vec![64, 96]);
    assert!(matches!(error, ModelError::WrongShape { .. }), "{error:?}");
    assert_says(&error, &[GATE, "[64, 96]", "[96, 64]", "hint: "]);

    let error = refused(&|model| model.config["vocab_size"] = json!(400));
    assert_says(&error, &["model.embed_tokens.weight", "[384, 64]", "[400, 64]"]);

    let error = refused(&|model| {
        let gate = model.tensors.get_mut(GATE).unwrap();
        *gate = Stored { dtype: Dtype::I64, shape: vec![96, 64], bytes: vec![0; 96 * 64 * 8] };
    });
    assert!(matches!(error, ModelError::WrongType { .. }), "{error:?}");
    assert_says(&error, &[GATE, "I64", "F32, F16 or BF16"]);
}

#[test]
fn buffers_of_old_exports_are_let_pass() {
    let mut model = Model::read("llama");
    let speeds = Stored { dtype: Dtype::F32, shape: vec![8], bytes: vec![0; 32] };
    model.tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), speeds);
    assert_eq!(bits(model.write().path()), bits(&fixture("llama")));
}

#[test]
fn damaged_files_are_named_with_their_size() {
    let temp = Model::read("llama").write();
    let path = temp.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], parts: &[&str]| {
        fs::write(&path, bytes).unwrap();
        let error = refusal(temp.path());
        assert!(matches!(error, ModelError::Corrupt { .. }), "{error:?}");
        let size = format!("{} bytes", bytes.len());
        assert_says(&error, &[&path.display().to_string(), &size, "hint: "]);
        assert_says(&error, parts);
    };
    refused(&whole[..whole.len() - 1], &[]);
    refused(&whole[..whole.len() / 2], &[]);
    refused(&whole[..100], &[]);
    refused(&whole[..7], &[]);
    refused(b"", &[]);
    let mut header = whole.clone();
    header[8] = b'!';
    refused(&header, &[]);
    let mut length = whole.clone();
    length[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(&length, &[]);
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 570104\n";
    refused(pointer, &["git-lfs pointer"]);
    fs::write(&path, &whole).unwrap();
    assert_eq!(bits(temp.path()), bits(&fixture("llama")));
}

#[test]
fn pickle_files_are_refused() {
    let temp = Model::read("llama").write();
    fs::remove_file(temp.path().join("model.safetensors")).unwrap();
    fs::write(temp.path().join("pytorch_model.bin"), "PK").unwrap();
    let error = refusal(temp.path());
    assert!(matches!(error, ModelError::Pickle { .. }), "{error:?}");
    assert_says(&error, &["pytorch_model.bin", "pickle", "hint: convert to safetensors"]);
}

#[test]
fn random_weights_are_a_function_of_their_seed() {
    for family in ["llama", "qwen2", "qwen3", "mistral"] {
        let dummy = |seed| logits(&load(&fixture(family), WeightsKind::Dummy { seed }).unwrap());
        assert_eq!(dummy(3), dummy(3));
        assert_ne!(dummy(3), dummy(4));
    }
}

#[test]
fn the_run_s_length_is_bounded_by_the_model_s() {
    use pairwright::model::{self, LoadOptions};
    use pairwright::ops::Compute;
    let length = |max_len| {
        let options = LoadOptions { compute: Compute::cpu(), weights: WeightsKind::Dummy { seed: 0 }, max_len };
        model::load(&fixture("llama"), &options).unwrap().max_len()
    };
    assert_eq!((length(None), length(Some(64)), length(Some(100_000))), (512, 64, 512));
}

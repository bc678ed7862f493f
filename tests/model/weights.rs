//! Weights: every form of the same numbers gives the same logits, and damaged or foreign files are refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use pairwright::model::weights::WeightSource;
use pairwright::model::{HfConfig, ModelError, WeightsKind};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{assert_says, fixture, load, logits, refusal};

#[derive(Clone)]
pub(super) struct Stored {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

type Tensors = BTreeMap<String, Stored>;

/// A model in memory, to change before it is written.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) config: Value,
    pub(super) tensors: Tensors,
}

impl Model {
    pub(super) fn read(family: &str) -> Self {
        Self::read_dir(&fixture(family))
    }

    pub(super) fn read_dir(dir: &Path) -> Self {
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

    /// Without tensors.
    pub(super) fn new(config: Value) -> Self {
        Self { config, tensors: Tensors::new() }
    }

    /// Adds a tensor of f32.
    pub(super) fn insert(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.insert(name.to_owned(), Stored { dtype: Dtype::F32, shape: shape.to_vec(), bytes });
    }

    /// Every tensor's elements, changed with name and shape at hand.
    pub(super) fn change(&mut self, to_values: impl Fn(&str, &[usize], Vec<f32>) -> Vec<f32>) {
        for (name, tensor) in &mut self.tensors {
            let values = tensor.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let values = to_values(name, &tensor.shape, values);
            tensor.bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        }
    }

    pub(super) fn write(&self) -> TempDir {
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
    assert!(matches!(error, ModelError::MissingShards { count: 1, total: 3, .. }), "{error:?}");
    assert_says(&error, &["1 of the 3 files", "model-00002-of-00003.safetensors", "hint: "]);
    fs::write(&index, "{\"metadata\": {}}").unwrap();
    assert_says(&refusal(temp.path()), &["index.json", "weight_map"]);
    fs::write(&index, "{").unwrap();
    let error = refusal(temp.path());
    assert!(matches!(error, ModelError::Corrupt { .. }), "{error:?}");
    assert_says(&error, &["index.json", "1 bytes"]);
}

/// A tensor of 65 MiB in a file of holes: larger than what is read at once, with faults on both sides of the seam.
#[test]
fn values_that_are_no_numbers_are_counted_across_the_parts_that_a_tensor_is_read_in() {
    use std::io::{Seek, SeekFrom, Write};
    let num_bytes = 65_u64 << 20;
    let small = r#""a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}"#;
    let large = format!(r#""b":{{"dtype":"F16","shape":[{}],"data_offsets":[4,{}]}}"#, num_bytes / 2, 4 + num_bytes);
    let header = format!("{{{small},{large}}}");
    let temp = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(temp.path().join("model.safetensors")).unwrap();
    file.write_all(&[&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
    let start = 8 + header.len() as u64 + 4;
    file.set_len(start + num_bytes).unwrap();
    for (at, value) in [
        (0, f16::NAN),
        ((64 << 20) - 2, f16::INFINITY),
        (64 << 20, f16::NEG_INFINITY),
        (num_bytes - 2, f16::NAN),
        (1 << 20, f16::MAX),
    ] {
        file.seek(SeekFrom::Start(start + at)).unwrap();
        file.write_all(&value.to_le_bytes()).unwrap();
    }
    let source = WeightSource::open(temp.path(), &HfConfig::parse("{}").unwrap()).unwrap();
    let mut parts = Vec::new();
    let found = source.non_finite(|read| parts.push(read));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].name.as_str(), found[0].num_nan, found[0].num_infinite), ("b", 2, 2));
    assert_eq!(parts, [4, 64 << 20, 1 << 20]);
    let inventory = source.inventory();
    assert_eq!((inventory.num_files, inventory.num_tensors, inventory.num_bytes), (1, 2, 4 + num_bytes));
    assert_eq!(inventory.num_elements, 2 + num_bytes / 2);
}

#[test]
fn an_index_that_leads_out_of_its_folder_is_refused() {
    let temp = Model::read("llama").write();
    let index = temp.path().join("model.safetensors.index.json");
    for name in ["../model.safetensors", "/etc/hostname", "a/model.safetensors", "..", ".", "", "model.safetensors/"] {
        fs::write(&index, json!({"weight_map": {"model.norm.weight": name}}).to_string()).unwrap();
        let error = refusal(temp.path());
        assert!(matches!(error, ModelError::Corrupt { .. }), "{name}: {error:?}");
        assert_says(&error, &["index.json", &format!("`{name}`"), "a file of its own folder", "hint: "]);
    }
}

#[test]
fn a_tensor_that_two_files_hold_is_refused() {
    let temp = Model::read("llama").write();
    // One of them alone would be taken if it were called model.safetensors.
    fs::rename(temp.path().join("model.safetensors"), temp.path().join("model.bf16.safetensors")).unwrap();
    fs::copy(temp.path().join("model.bf16.safetensors"), temp.path().join("model.fp16.safetensors")).unwrap();
    let error = refusal(temp.path());
    assert!(matches!(error, ModelError::StoredTwice { .. }), "{error:?}");
    assert_says(&error, &["model.bf16.safetensors", "model.fp16.safetensors", "hint: leave one set"]);
}

/// Where the decoder of a larger model stands in its files, and where its head; other parts lie beside it.
#[test]
fn a_larger_models_decoder_is_found_under_any_prefix() {
    let model = Model::read("llama");
    let original = bits(model.write().path());
    for (trunk, head) in [
        ("", "lm_head"),
        ("language_model.model.", "language_model.lm_head"),
        ("model.language_model.", "lm_head"),
        ("model.text_model.", "lm_head"),
    ] {
        let rename = |name: &String| match name.strip_prefix("model.") {
            Some(rest) => format!("{trunk}{rest}"),
            None => name.replace("lm_head", head),
        };
        let mut renamed = model.clone();
        renamed.tensors = model.tensors.iter().map(|(name, stored)| (rename(name), stored.clone())).collect();
        assert_eq!(bits(renamed.write().path()), original, "{trunk}");
        let missing = rename(&"model.layers.1.mlp.up_proj.weight".to_owned());
        let other = renamed.tensors.remove(&missing).unwrap();
        assert_says(&refusal(renamed.write().path()), &[&missing, "missing"]);
        renamed.tensors.insert(missing, other.clone());
        renamed.tensors.insert("vision_tower.layers.0.weight".to_owned(), other);
        match trunk {
            "" => assert_says(&refusal(renamed.write().path()), &["vision_tower.layers.0.weight"]),
            _ => assert_eq!(bits(renamed.write().path()), original, "{trunk} beside other parts"),
        }
    }
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

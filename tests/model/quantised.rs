//! Published quantised checkpoints: the logits of the dequantised weights, as Transformers and the formats' own packages compute
//! them (scripts/make_quantised_fixtures.py); and what does not fit is told by name before anything is read.

use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use pairwright::model::{self, LoadOptions, ModelError, WeightsKind};
use pairwright::ops::Compute;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::weights::Model;
use super::{assert_says, packed_logits};

const FORMATS: [&str; 13] = [
    "fp8",
    "fp8-e5m2",
    "fp8-blocks",
    "mxfp4",
    "awq",
    "gptq",
    "gptq-v2",
    "gptq-8",
    "pack-int4",
    "pack-int4-order",
    "pack-int8",
    "int8",
    "float8",
];
const DOWN: &str = "model.layers.0.mlp.down_proj";

fn folder(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/quantised").join(format)
}

fn logits(dir: &Path, compute: &Compute, ids: &[u32]) -> Vec<f32> {
    let options = LoadOptions { compute: compute.clone(), weights: WeightsKind::Files, max_len: None };
    let decoder = model::load(dir, &options).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    packed_logits(&decoder, ids)
}

#[derive(serde::Deserialize)]
struct Expected {
    ids: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

fn expected(format: &str) -> (Vec<u32>, Vec<f32>) {
    let text = std::fs::read_to_string(folder(format).join("logits.json")).unwrap();
    let Expected { ids, logits } = serde_json::from_str(&text).unwrap();
    (ids, logits.concat())
}

/// The largest difference over the largest number.
fn distance(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f32, |best, x| best.max(x.abs()));
    got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0f32, f32::max) / largest
}

/// Within 1e-4 of the largest logit.
#[test]
fn logits_are_those_of_the_dequantised_weights() {
    for format in FORMATS {
        let (ids, want) = expected(format);
        let dir = folder(format);
        model::check(&dir, WeightsKind::Files).unwrap();
        let error = distance(&logits(&dir, &Compute::cpu(), &ids), &want);
        println!("{format}: {error:.1e} of the largest logit");
        assert!(error < 1e-4, "{format}: {error}");
        // What was widened can be kept in blocks.
        let rounded = Compute { quantize: Some(GgmlDType::Q8_0), ..Compute::cpu() };
        let error = distance(&logits(&dir, &rounded, &ids), &want);
        assert!(error < 0.05, "{format} in q8_0: {error}");
    }
    // Facebook's form of fp8 has one scale per row under another name of the method.
    let dir = Damaged::of("fp8-e5m2").setting("quant_method", json!("fbgemm_fp8")).0.write();
    let (ids, want) = expected("fp8-e5m2");
    assert!(distance(&logits(dir.path(), &Compute::cpu(), &ids), &want) < 1e-4);
}

/// A fixture to spoil.
struct Damaged(Model);

impl Damaged {
    fn of(format: &str) -> Self {
        Self(Model::read_dir(&folder(format)))
    }

    fn setting(mut self, field: &str, value: Value) -> Self {
        self.0.config["quantization_config"][field] = value;
        self
    }

    fn without(mut self, name: &str) -> Self {
        assert!(self.0.tensors.remove(name).is_some(), "{name}");
        self
    }

    fn change(mut self, name: &str, spoil: impl Fn(&mut super::weights::Stored)) -> Self {
        spoil(self.0.tensors.get_mut(name).unwrap_or_else(|| panic!("no {name}")));
        self
    }

    /// By the headers already, and again on loading, in the same words.
    fn refused(&self, said: &[&str]) -> ModelError {
        let dir = self.0.write();
        let error = model::check(dir.path(), WeightsKind::Files).expect_err("it was meant to be refused");
        assert_says(&error, said);
        assert_eq!(super::refusal(dir.path()).to_string(), error.to_string());
        error
    }
}

#[test]
fn methods_that_cannot_be_read_are_refused_before_the_weights() {
    let refused = |format: &str, field: &str, value: Value, said: &[&str]| {
        let model = Damaged::of(format).setting(field, value);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), model.0.config.to_string()).unwrap();
        let error = super::refusal(dir.path());
        assert!(matches!(error, ModelError::Config { .. }), "{error:?}");
        assert_says(&error, said);
        assert_says(&error, &["quantization_config", "hint: "]);
    };
    let supported = "fp8, fbgemm_fp8, awq, gptq, compressed-tensors or mxfp4";
    refused("fp8", "quant_method", json!("bitsandbytes"), &["quant_method: got \"bitsandbytes\"", supported]);
    refused("fp8", "quant_method", Value::Null, &["quant_method: got null", supported]);
    refused("awq", "version", json!("gemv"), &["version: got \"gemv\", want gemm"]);
    refused("gptq", "checkpoint_format", json!("marlin"), &["got \"marlin\", want gptq or gptq_v2"]);
    refused("int8", "format", json!("marlin-24"), &["format: got \"marlin-24\", want pack-quantized, int-quantized"]);
    refused("int8", "format", Value::Null, &["format: got null"]);
}

#[test]
fn missing_parts_are_named() {
    for (format, part) in [
        ("fp8", "weight_scale"),
        ("fp8-blocks", "weight_scale_inv"),
        ("awq", "qzeros"),
        ("awq", "scales"),
        ("gptq", "qzeros"),
        ("gptq", "scales"),
        ("pack-int4", "weight_scale"),
        ("int8", "weight_scale"),
    ] {
        let error = Damaged::of(format).without(&format!("{DOWN}.{part}")).refused(&[DOWN, "is missing"]);
        assert!(matches!(error, ModelError::MissingTensor { .. }), "{format} {part}: {error:?}");
        assert_says(&error, &[part.trim_end_matches("_inv")]);
    }
    Damaged::of("awq").without(&format!("{DOWN}.qweight")).refused(&["down_proj.weight", "missing"]);
    // Without it columns lie in the order of their groups, which is a model too, if another one.
    let (ids, want) = expected("gptq");
    let dir = Damaged::of("gptq").without(&format!("{DOWN}.g_idx")).0.write();
    assert!(distance(&logits(dir.path(), &Compute::cpu(), &ids), &want) > 1e-3);
    // A symmetric AWQ model has no zeros: they are all 8.
    let mut symmetric = Damaged::of("awq").setting("zero_point", json!(false));
    symmetric.0.tensors.retain(|name, _| !name.ends_with(".qzeros"));
    let mut zeros = Damaged::of("awq").0;
    for (name, tensor) in &mut zeros.tensors {
        if name.ends_with(".qzeros") {
            tensor.bytes.fill(0x88);
        }
    }
    let (symmetric, zeros) = (symmetric.0.write(), zeros.write());
    let of = |dir: &Path| logits(dir, &Compute::cpu(), &ids);
    assert_eq!(of(symmetric.path()), of(zeros.path()));
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let reshape = |format: &str, part: &str, shape: &[usize], said: &[&str]| {
        let name = format!("{DOWN}.{part}");
        let model = Damaged::of(format).change(&name, |tensor| {
            let size = tensor.bytes.len() / tensor.shape.iter().product::<usize>();
            tensor.bytes.resize(size * shape.iter().product::<usize>(), 1);
            tensor.shape = shape.to_vec();
        });
        model.refused(&[&[name.as_str()], said].concat());
    };
    // down_proj is [64, 96]; groups of 32.
    reshape("fp8", "weight_scale", &[63], &["[63]"]);
    reshape("fp8", "weight_scale", &[64, 1, 1], &["[64, 1, 1]"]);
    reshape("fp8-blocks", "weight_scale_inv", &[2, 5], &["[2, 5]"]);
    reshape("fp8", "weight", &[64, 95], &["[64, 95], want [64, 96]"]);
    reshape("awq", "qweight", &[96, 7], &["[96, 7], want [96, 8]"]);
    reshape("awq", "qzeros", &[3, 7], &["[3, 7], want [3, 8]"]);
    reshape("awq", "scales", &[5, 64], &["[5, 64], want [3, 64]"]);
    reshape("awq", "scales", &[0, 64], &["[0, 64], want [3, 64]"]);
    reshape("gptq", "qweight", &[9, 64], &["3 bits per element"]);
    reshape("gptq", "qweight", &[0, 64], &["0 bits per element"]);
    reshape("gptq", "g_idx", &[95], &["[95], want [96]"]);
    reshape("pack-int4", "weight_packed", &[64, 13], &["13 words for a row of 96 elements"]);
    reshape("pack-int4", "weight_zero_point", &[7, 3], &["[7, 3], want [8, 3]"]);
    reshape("int8", "weight_scale", &[64, 97], &["[64, 97]"]);
    let experts = "model.layers.0.mlp.experts.down_proj";
    Damaged::of("mxfp4").without(&format!("{experts}_scales")).refused(&[experts, "_scales", "is missing"]);
    Damaged::of("mxfp4").without(&format!("{experts}_blocks")).refused(&[experts, "is missing"]);
    let spoil = |tensor: &mut super::weights::Stored| tensor.shape = vec![4, 32, 2, 16];
    Damaged::of("mxfp4").change(&format!("{experts}_blocks"), spoil).refused(&["_blocks", "[4, 32, 2, 16]"]);

    let retype = |format: &str, part: &str, dtype: Dtype, said: &str| {
        let name = format!("{DOWN}.{part}");
        Damaged::of(format).change(&name, |tensor| tensor.dtype = dtype).refused(&[&name, said]);
    };
    retype("fp8", "weight", Dtype::U8, "U8");
    retype("fp8", "weight_scale", Dtype::I32, "I32");
    retype("gptq", "qweight", Dtype::U32, "U32");
    retype("awq", "scales", Dtype::I16, "I16");

    let wild = |index: i32| {
        let name = format!("{DOWN}.g_idx");
        let dir = Damaged::of("gptq").change(&name, |tensor| tensor.bytes[8..12].copy_from_slice(&index.to_le_bytes()));
        super::refusal(dir.0.write().path())
    };
    assert_says(&wild(3), &[DOWN, "group 3", "3 groups"]);
    assert_says(&wild(-7), &[DOWN, "group -7"]);
}

/// Scales of activations and caches are not needed; what no format has still belongs to another model.
#[test]
fn only_tensors_of_the_format_may_be_over() {
    let with = |name: &str| {
        let mut model = Damaged::of("fp8");
        model.0.insert(name, &[1], &[1.0]);
        model
    };
    for name in ["self_attn.k_scale", "self_attn.v_scale", "self_attn.q_proj.output_scale", "mlp.up_proj.weight_shape"]
    {
        let dir = with(&format!("model.layers.0.{name}")).0.write();
        model::check(dir.path(), WeightsKind::Files).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let error = with("model.layers.1.mlp.up_proj.weight").refused(&["model.layers.1.mlp.up_proj.weight"]);
    assert!(matches!(error, ModelError::ExtraTensors { .. }), "{error:?}");
    with("model.layers.0.mlp.up_proj.qweight").refused(&["up_proj.qweight"]);
}

//! The same numbers as GGUF and as safetensors give the same logits, whatever the converter did to them.

use std::path::{Path, PathBuf};

use pairwright::model::{self, Decoder, LoadOptions, WeightsKind};
use pairwright::ops::Compute;
use pairwright::ops::paged::PagedBatch;

use super::writer;

/// Families of `tests/fixtures/models`.
const FAMILIES: [&str; 5] = ["llama", "llama31_rope", "mistral", "qwen2", "qwen3"];

fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(family)
}

fn load(path: &Path) -> Decoder {
    let options = LoadOptions { compute: Compute::cpu(), weights: WeightsKind::Files, max_len: None };
    model::load(path, &options).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Logits [tokens * V] of a prompt, all of its positions.
fn logits(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    let len = ids.len() as u32;
    let num_blocks = len.div_ceil(16);
    let batch = PagedBatch {
        positions: (0..len).collect(),
        slot_mapping: (0..len).collect(),
        cu_seqlens_q: vec![0, len],
        context_lens: vec![len],
        block_tables: (0..num_blocks).collect(),
        cu_blocks: vec![0, num_blocks],
        is_generated: vec![false],
        block_size: 16,
        num_padding: 0,
    };
    let cache = decoder.new_cache(num_blocks as usize, 16).unwrap();
    let ws = &mut pairwright::ops::Workspace::default();
    let hidden = decoder.hidden_states(ws, ids, &batch, &cache).unwrap();
    let rows: Vec<u32> = (0..len).collect();
    pairwright::ops::to_host(&decoder.logits(ws, &hidden, &rows).unwrap()).unwrap()
}

fn prompt(vocab: usize) -> Vec<u32> {
    (0..70u32).map(|i| (i * 37 + 5) % vocab as u32).collect()
}

#[test]
fn an_f32_file_has_the_bits_of_its_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let path = dir.path().join(format!("{family}.gguf"));
        std::fs::write(&path, writer::of_safetensors(&fixture(family)).bytes()).unwrap();
        let (from_gguf, from_safetensors) = (load(&path), load(&fixture(family)));
        assert_eq!(from_gguf.spec().ropes, from_safetensors.spec().ropes, "{family}");
        // Mistral's window is the one thing that its GGUF files do not say.
        let len = if family == "mistral" { 24 } else { 70 };
        let ids = &prompt(from_gguf.spec().vocab_size)[..len];
        let (got, want) = (logits(&from_gguf, ids), logits(&from_safetensors, ids));
        assert!(got.iter().zip(&want).all(|(got, want)| got.to_bits() == want.to_bits()), "{family}");
    }
}

/// `PAIRWRIGHT_GGUF_DIR` names a folder with more: NAME.gguf as llama.cpp's converter wrote it, and NAME/ with the safetensors.
#[test]
fn files_of_llama_cpps_converter_agree_with_their_safetensors() {
    let Some(root) = std::env::var_os("PAIRWRIGHT_GGUF_DIR").map(PathBuf::from) else { return };
    let mut compared = Vec::new();
    for entry in std::fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        let dir = path.with_extension("");
        if path.extension().is_none_or(|extension| extension != "gguf") || !dir.is_dir() {
            continue;
        }
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
        if !model::arch::families().any(|family| config["model_type"] == family) {
            println!("{}: not yet a family of ours", path.display());
            continue;
        }
        let (from_gguf, from_safetensors) = (load(&path), load(&dir));
        // Windows that GGUF does not carry are 24 tokens wide in the reference models.
        let ids = &prompt(from_gguf.spec().vocab_size)[..if config["model_type"] == "mistral" { 24 } else { 70 }];
        let (got, want) = (logits(&from_gguf, ids), logits(&from_safetensors, ids));
        let scale = want.iter().fold(0f32, |best, value| best.max(value.abs()));
        let worst = got.iter().zip(&want).fold(0f32, |worst, (got, want)| worst.max((got - want).abs()));
        println!("{}: off by {:.1e} of {scale:.1}", path.display(), worst / scale);
        compared.push((path, worst / scale));
    }
    let off: Vec<_> = compared.iter().filter(|(_, off)| *off > 1e-4).collect();
    assert!(off.is_empty() && !compared.is_empty(), "{off:?}");
}

/// Files of the `gguf` package against Transformers with the same rounded weights.
#[test]
fn quantised_files_agree_with_transformers() {
    let expected = super::expected();
    let models = expected["models"].as_object().unwrap();
    assert_eq!(models.len(), 2);
    for model in models.values() {
        let name = model["file"].as_str().unwrap();
        let decoder = load(&super::fixture(name));
        let vocab = decoder.spec().vocab_size;
        let prompts: Vec<Vec<u32>> = serde_json::from_value(model["prompts"].clone()).unwrap();
        let wanted: Vec<Vec<f32>> = serde_json::from_value(model["last_logits"].clone()).unwrap();
        for (ids, want) in prompts.iter().zip(&wanted) {
            let logits = logits(&decoder, ids);
            let scale = want.iter().fold(0f32, |best, value| best.max(value.abs()));
            for (got, want) in logits[logits.len() - vocab..].iter().zip(want) {
                assert!((got - want).abs() < 1e-4 * scale, "{name}: {got}, want {want}");
            }
        }
    }
}

#[test]
fn rows_of_a_joined_projection_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    for family in ["llama", "qwen2"] {
        let mut joined = writer::of_safetensors(&fixture(family));
        for layer in 0..3 {
            for suffix in ["weight", "bias"] {
                let part = |name: &str| format!("blk.{layer}.{name}.{suffix}");
                let parts: Vec<writer::Tensor> = ["attn_q", "attn_k", "attn_v"]
                    .iter()
                    .filter_map(|name| joined.tensors.iter().find(|tensor| tensor.name == part(name)).cloned())
                    .collect();
                let Some(first) = parts.first() else { continue };
                let mut dims = first.dims.clone();
                let last = dims.len() - 1;
                dims[last] = parts.iter().map(|tensor| tensor.dims[last]).sum();
                let data = parts.iter().flat_map(|tensor| tensor.data.clone()).collect();
                joined.tensors.retain(|tensor| !parts.iter().any(|part| part.name == tensor.name));
                joined.tensors.push(writer::Tensor { name: part("attn_qkv"), dims, kind: 0, data });
            }
        }
        let path = dir.path().join(format!("{family}.gguf"));
        std::fs::write(&path, joined.bytes()).unwrap();
        let (from_gguf, from_safetensors) = (load(&path), load(&fixture(family)));
        let ids = &prompt(from_gguf.spec().vocab_size);
        assert_eq!(logits(&from_gguf, ids), logits(&from_safetensors, ids), "{family}");
    }
}

/// Rows in another order are another model, for families whose rows are put back and for those whose are not.
#[test]
fn rows_in_another_order_are_another_model() {
    let dir = tempfile::tempdir().unwrap();
    for family in ["llama", "qwen3"] {
        let mut changed = writer::of_safetensors(&fixture(family));
        let tensor = changed.tensors.iter_mut().find(|tensor| tensor.name == "blk.0.attn_q.weight").unwrap();
        let values: Vec<f32> = tensor.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        tensor.data = writer::pairs(&values, 4).iter().flat_map(|value| value.to_le_bytes()).collect();
        let path = dir.path().join(format!("{family}.gguf"));
        std::fs::write(&path, changed.bytes()).unwrap();
        let (from_gguf, from_safetensors) = (load(&path), load(&fixture(family)));
        let ids = &prompt(from_gguf.spec().vocab_size);
        assert_ne!(logits(&from_gguf, ids), logits(&from_safetensors, ids), "{family}");
    }
}

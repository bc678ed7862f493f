//! Damaged, unknown and incomplete files: one clear error each, no panic, and no allocation that the file does not justify.

use std::path::{Path, PathBuf};

use pairwright::gguf::{Gguf, GgufError, locate};
use pairwright::model::{HfConfig, ModelError};
use proptest::prelude::*;

use super::writer::{self, Meta, Tensor, Writer};

fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn open(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let (_dir, path) = written(bytes);
    Gguf::open(&[path])
}

/// Asserts that `bytes` are refused with a message that names the file, says `says` and gives a hint.
fn assert_refused(bytes: &[u8], says: &str) {
    let message = open(bytes).expect_err(says).to_string();
    assert!(message.contains("model.gguf is not a usable GGUF file: "), "{message}");
    assert!(message.contains(says) && message.contains("\nhint: "), "`{message}` does not say `{says}`");
}

/// A file with one of each thing.
fn small() -> Writer {
    let mut writer = Writer::default();
    writer.set("general.architecture", Meta::Text("llama".to_owned()));
    writer.set("a.list", Meta::Texts(vec!["x".to_owned(), "اثنان".to_owned()]));
    writer.set("a.number", Meta::U64(7));
    writer.set("a.flag", Meta::Bool(true));
    writer.set("a.float", Meta::F32(0.1));
    writer.f32("one", &[2, 8], &[1.0; 16]);
    writer.f32("two", &[4], &[2.0; 4]);
    writer
}

#[test]
fn a_sound_file_says_what_was_written() {
    for version in [2, 3] {
        let gguf = open(&Writer { version, ..small() }.bytes()).unwrap();
        assert_eq!(gguf.text("general.architecture").unwrap(), Some("llama"));
        assert_eq!(gguf.texts("a.list").unwrap().unwrap(), ["x", "اثنان"]);
        assert_eq!(gguf.count("a.number").unwrap(), Some(7));
        assert_eq!(gguf.flag("a.flag").unwrap(), Some(true));
        assert_eq!(gguf.number("a.float").unwrap(), Some(0.1), "the shortest decimal");
        assert_eq!(gguf.text("nothing").unwrap(), None);
        assert_eq!(gguf.tensor("one").unwrap().dims, [8, 2]);
        assert_eq!(gguf.bytes(gguf.tensor("two").unwrap()), [2f32; 4].map(f32::to_le_bytes).concat());
        assert!(gguf.text("a.number").unwrap_err().to_string().contains("`a.number` is 7, want a string"));
    }
    let coarse = Writer { alignment: 64, ..small() };
    let mut aligned = coarse.clone();
    aligned.set("general.alignment", Meta::U32(64));
    assert_eq!(open(&aligned.bytes()).unwrap().tensors().len(), 2);
}

#[test]
fn other_files_are_told_apart() {
    assert_refused(b"", "header ends at byte 0");
    assert_refused(b"PK\x03\x04 and more", "begins with the bytes 50 4b 03 04, want `GGUF`");
    assert_refused(b"tjgg\x03\0\0\0", "begins with");
    assert_refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a git-lfs pointer");
    assert_refused(&Writer { version: 1, ..small() }.bytes(), "GGUF version 1, want 2 or 3");
    assert_refused(&Writer { version: 4, ..small() }.bytes(), "GGUF version 4, want 2 or 3");
    assert_refused(&Writer { version: 3u32.swap_bytes(), ..small() }.bytes(), "big-endian (version 3)");
}

#[test]
fn absurd_counts_and_lengths_are_refused_before_anything_is_made_of_them() {
    let bytes = small().bytes();
    let patch = |at: usize, number: u64| {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    for number in [u64::MAX, 1 << 62, 1 << 40, 100_000] {
        assert_refused(&patch(8, number), &format!("counts {number} tensors"));
        assert_refused(&patch(16, number), &format!("counts {number} metadata entries"));
        assert_refused(&patch(24, number), &format!("a metadata key is a string of {number} bytes"));
        let mut long = small();
        long.set("a.text", Meta::Raw(8, number.to_le_bytes().to_vec()));
        assert_refused(&long.bytes(), &format!("metadata `a.text` is a string of {number} bytes"));
        for kind in [0u32, 4, 8, 12] {
            let mut long = small();
            long.set("a.text", Meta::Raw(9, [&kind.to_le_bytes()[..], &number.to_le_bytes()].concat()));
            assert_refused(&long.bytes(), &format!("counts {number} elements of metadata `a.text`"));
        }
    }
}

#[test]
fn bad_metadata_is_named() {
    let with = |kind: u32, bytes: &[u8]| {
        let mut writer = small();
        writer.set("a.bad", Meta::Raw(kind, bytes.to_vec()));
        writer.bytes()
    };
    assert_refused(&with(13, &[0; 8]), "`a.bad` has the unknown type 13");
    assert_refused(&with(7, &[2]), "`a.bad` is the boolean 2");
    assert_refused(&with(9, &[[9u8, 0, 0, 0].as_slice(), &[0; 8]].concat()), "`a.bad` is an array of arrays");
    assert_refused(&with(9, &[[99u8, 0, 0, 0].as_slice(), &[0; 8]].concat()), "`a.bad` has the unknown type 99");
    let mut twice = small();
    twice.metadata.push(("a.number".to_owned(), Meta::U32(1)));
    assert_refused(&twice.bytes(), "metadata `a.number` is there twice");
    for alignment in [0u32, 4, 24, 1 << 30] {
        let mut writer = small();
        writer.set("general.alignment", Meta::U32(alignment));
        assert_refused(&writer.bytes(), &format!("`general.alignment` is {alignment}, want a power of two"));
    }
    let mut broken = small();
    broken.set("a.text", Meta::Raw(8, [&2u64.to_le_bytes()[..], &[0xC3, 0x28]].concat()));
    let gguf = open(&broken.bytes()).unwrap();
    assert!(gguf.text("a.text").unwrap_err().to_string().contains("`a.text` holds text that is not UTF-8"));
}

#[test]
fn bad_tensors_are_named() {
    let with = |dims: &[u64], kind: u32| {
        let mut writer = small();
        let data = vec![0; 64];
        writer.tensors.push(Tensor { name: "bad".to_owned(), dims: dims.to_vec(), kind, data });
        writer.bytes()
    };
    assert_refused(&with(&[], 0), "tensor `bad` has 0 dimensions");
    assert_refused(&with(&[1, 1, 1, 1, 1], 0), "tensor `bad` has 5 dimensions, want 1 to 4");
    assert_refused(&with(&[0, 4], 0), "tensor `bad` has a dimension of 0");
    assert_refused(&with(&[1 << 40, 1 << 40], 0), "its number of elements is no size");
    assert_refused(&with(&[1 << 62, 2], 0), "which no file reaches");
    assert_refused(&with(&[33], 8), "tensor `bad` has rows of 33 elements, want whole blocks of 32 (Q8_0)");
    assert_refused(&with(&[32], 12), "want whole blocks of 256 (Q4K)");
    assert_refused(&with(&[1024], 0), "cut short: tensor `bad` needs a file of");
    assert_refused(&with(&[32], 39), "tensor `bad` is stored as MXFP4, want F32");
    assert_refused(&with(&[256], 23), "tensor `bad` is stored as IQ4_XS, want F32");
    assert_refused(&with(&[32], 99), "the unknown element type 99");
    let mut twice = small();
    twice.f32("one", &[4], &[0.0; 4]);
    assert_refused(&twice.bytes(), "tensor `one` is there twice");
    assert_refused(&small().bytes_with_offsets(&[0, 68]), "`two` is at offset 68, want a multiple of the alignment 32");
    let overlapping = [small().bytes_with_offsets(&[0, 32]), vec![0; 64]].concat();
    assert_refused(&overlapping, "tensors `one` and `two` overlap");
    assert_refused(&small().bytes_with_offsets(&[0, u64::MAX - 31]), "`two` needs a file of more bytes than can be");
    assert_refused(&small().bytes_with_offsets(&[0, 1 << 50]), "cut short: tensor `two`");
}

#[test]
fn every_cut_is_found() {
    let bytes = small().bytes();
    for len in 0..bytes.len() {
        let message = open(&bytes[..len]).expect_err("cut").to_string();
        assert!(message.contains("\nhint: "), "{len}: {message}");
    }
}

fn config_of(writer: &Writer) -> Result<HfConfig, ModelError> {
    let (_dir, path) = written(&writer.bytes());
    HfConfig::read(&path)
}

fn llama() -> Writer {
    writer::of_safetensors(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/llama"))
}

#[test]
fn a_configuration_that_cannot_be_is_named_by_its_key() {
    assert!(config_of(&llama()).is_ok());
    for (key, value, says) in [
        (
            "general.architecture",
            Some(Meta::Text("rwkv7".to_owned())),
            "`general.architecture` is `rwkv7`, want one of llama",
        ),
        ("general.architecture", None, "`general.architecture` is missing"),
        ("llama.block_count", None, "`llama.block_count` is missing"),
        ("llama.block_count", Some(Meta::U64(1 << 40)), "`llama.block_count` is 1099511627776, want 1 to"),
        (
            "llama.block_count",
            Some(Meta::Text("3".to_owned())),
            "`llama.block_count` is a string of 1 bytes, want a whole",
        ),
        ("llama.attention.head_count", Some(Meta::U32(0)), "`llama.attention.head_count` is 0"),
        ("llama.attention.head_count", Some(Meta::I32s(vec![4, 2, 4])), "differs from layer to layer"),
        ("llama.attention.value_length", Some(Meta::U32(8)), "`llama.attention.value_length` is 8, want 16"),
        ("llama.rope.dimension_count", Some(Meta::U32(64)), "rotary dimension is 64, want 1 to the head size 16"),
        ("llama.rope.freq_base", Some(Meta::F32(f32::NAN)), "`llama.rope.freq_base` is NaN"),
        ("llama.rope.scaling.type", Some(Meta::Text("spiral".to_owned())), "type `spiral`, want none, linear"),
    ] {
        let mut writer = llama();
        writer.metadata.retain(|(other, _)| other != key);
        writer.metadata.extend(value.map(|value| (key.to_owned(), value)));
        let message = config_of(&writer).expect_err(key).to_string();
        assert!(message.contains(says) && message.contains("\nhint: "), "`{message}` does not say `{says}`");
    }
    let mut lists = llama();
    lists.set("llama.attention.head_count_kv", Meta::I32s(vec![2, 2, 2]));
    assert!(config_of(&lists).is_ok(), "a list of the same number is that number");
}

#[test]
fn tensors_that_do_not_fit_the_configuration_are_named() {
    let check = |change: &dyn Fn(&mut Writer)| {
        let mut writer = llama();
        change(&mut writer);
        let (_dir, path) = written(&writer.bytes());
        pairwright::model::check(&path, pairwright::model::WeightsKind::Files)
    };
    assert!(check(&|_| ()).is_ok());
    let missing = check(&|writer| writer.tensors.retain(|tensor| tensor.name != "blk.1.attn_k.weight"));
    assert!(
        matches!(missing, Err(ModelError::MissingTensor { ref name, .. }) if name == "model.layers.1.self_attn.k_proj.weight")
    );
    let extra = check(&|writer| writer.f32("blk.0.ssm_in.weight", &[4], &[0.0; 4]));
    assert!(matches!(extra, Err(ModelError::ExtraTensors { ref first, .. }) if first == "blk.0.ssm_in.weight"));
    let wrong = check(&|writer| writer.set("llama.feed_forward_length", Meta::U32(97)));
    assert!(matches!(wrong, Err(ModelError::WrongShape { ref name, .. }) if name.ends_with("_proj.weight")));
    let odd = check(&|writer| {
        writer.f32("rope_freqs.weight", &[8], &[0.0; 8]);
    });
    assert!(odd.err().unwrap().to_string().contains("`rope_freqs.weight` holds the factor 0"));
}

#[test]
fn paths_lead_to_files_sets_and_folders() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut parts = [small(), small()];
    parts[0].tensors.truncate(1);
    parts[1].tensors.remove(0);
    for (index, part) in parts.iter_mut().enumerate() {
        part.set("split.no", Meta::U32(index as u32));
        part.set("split.count", Meta::U32(2));
        part.set("split.tensors.count", Meta::U32(2));
        std::fs::write(at(&format!("m-0000{}-of-00002.gguf", index + 1)), part.bytes()).unwrap();
    }
    std::fs::write(at("mmproj-m.gguf"), b"vision").unwrap();
    let set = vec![at("m-00001-of-00002.gguf"), at("m-00002-of-00002.gguf")];
    for path in [dir.path(), &set[0], &set[1]] {
        assert_eq!(locate(path).unwrap().as_ref(), Some(&set), "{}", path.display());
    }
    let gguf = Gguf::open(&set).unwrap();
    assert_eq!(gguf.bytes(gguf.tensor("two").unwrap()), [2f32; 4].map(f32::to_le_bytes).concat());
    let swapped = [set[1].clone(), set[0].clone()];
    assert!(Gguf::open(&swapped).unwrap_err().to_string().contains("it is part 2 of 2, and its name"));
    let alone = Gguf::open(&set[..1]).unwrap_err().to_string();
    assert!(alone.contains("part 1 of 2") && alone.contains("part 1 of 1"), "{alone}");
    std::fs::write(at("other.gguf"), small().bytes()).unwrap();
    assert!(locate(dir.path()).unwrap_err().to_string().contains("holds several models"));
    std::fs::write(at("model.safetensors"), b"").unwrap();
    assert_eq!(locate(dir.path()).unwrap(), None, "safetensors win");
    std::fs::remove_file(&set[1]).unwrap();
    assert!(locate(&set[0]).unwrap_err().to_string().contains("part 2 is not beside it"));
    assert!(Gguf::open(&[at("nothing.gguf")]).unwrap_err().to_string().contains("cannot be read"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever happens to a file's bytes: an error with a hint, or a file whose tensors lie in it.
    #[test]
    fn changed_bytes_never_do_worse_than_an_error(
        changes in prop::collection::vec((0usize..700, any::<u8>()), 0..6),
        number in prop::option::of((0usize..700, any::<u64>())),
        cut in prop::option::of(0usize..700),
    ) {
        let mut bytes = small().bytes();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Some((at, number)) = number {
            let at = at % (bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut % bytes.len()));
        let (_dir, path) = written(&bytes);
        match Gguf::open(std::slice::from_ref(&path)) {
            Err(error) => prop_assert!(error.to_string().contains("\nhint: ")),
            Ok(gguf) => {
                for tensor in gguf.tensors() {
                    let elements: usize = tensor.dims.iter().product();
                    let size = elements / tensor.kind.block_len() * tensor.kind.block_bytes();
                    prop_assert_eq!(gguf.bytes(tensor).len(), size);
                }
                let _ = (gguf.texts("a.list"), gguf.number("a.float"), gguf.text("general.architecture"));
                let _ = HfConfig::read(&path);
            }
        }
    }

    /// The same to a model's file, through configuration, tensors' names and tokenizer.
    #[test]
    fn a_changed_model_never_does_worse_than_an_error(
        changes in prop::collection::vec((0usize..12_000, any::<u8>()), 1..8),
    ) {
        let mut bytes = std::fs::read(super::fixture("qwen3_q4_0.gguf")).unwrap();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let (_dir, path) = written(&bytes);
        if let Err(error) = pairwright::model::check(&path, pairwright::model::WeightsKind::Files) {
            prop_assert!(!error.to_string().is_empty());
        }
        let options = pairwright::prompt::TemplateOptions::new("2026-11-22".parse().unwrap());
        if let Err(error) = pairwright::prompt::ChatTokenizer::load(&path, &options) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

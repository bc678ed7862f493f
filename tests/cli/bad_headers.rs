//! Weights, indices and configurations made to mislead: one clear error each from the real binary, and never the memory that
//! their numbers ask for. The commands that run a model see the same checks as `models verify`, by way of `bad_models`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::damage::{edit_json, model};
use super::program::text;
use super::refused;
use super::workshop::Workshop;

/// A safetensors file: the header's length, the header, `num_bytes` bytes of data.
fn file(header: &str, num_bytes: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; num_bytes]].concat()
}

fn tensor(shape: &Value, start: u64, end: u64) -> Value {
    json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]})
}

/// `models verify` on a copy of the fixture whose files `change` has replaced.
fn verify_refuses(said: &[&str], change: impl FnOnce(&Path)) {
    let workshop = Workshop::new();
    let model = model(&workshop, "m", "llama");
    change(&model);
    refused(3, &workshop.path("."), &["models", "verify", text(&model)], said);
}

#[test]
fn headers_that_lie_about_their_length() {
    for (claimed, said) in [
        (10_000_000_000_u64, "its header claims 10000000000 bytes, want at most 100 MB"),
        (u64::MAX, "its header claims 18446744073709551615 bytes, want at most 100 MB"),
        (99_000_000, "its header claims 99000000 bytes, more than there are"),
    ] {
        verify_refuses(&["model.safetensors is not a readable", said], |model| {
            let bytes = [&claimed.to_le_bytes()[..], b"{}"].concat();
            fs::write(model.join("model.safetensors"), bytes).unwrap();
        });
    }
}

#[test]
fn headers_whose_tensors_do_not_lie_side_by_side_in_the_file() {
    let two = |a: Value, b: Value| json!({"a": a, "b": b}).to_string();
    let one = |shape: &Value, start, end| json!({"a": tensor(shape, start, end)}).to_string();
    let nested = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let twice = format!("{{\"a\":{},\"a\":{}}}", tensor(&json!([1]), 0, 4), tensor(&json!([1]), 4, 8));
    let huge = json!([1_u64 << 40, 1_u64 << 40]);
    let cases = [
        (two(tensor(&json!([2]), 0, 8), tensor(&json!([2]), 4, 12)), 12, "do not begin where"),
        (two(tensor(&json!([1]), 0, 4), tensor(&json!([1]), 8, 12)), 12, "do not begin where"),
        (one(&json!([2]), 8, 0), 8, "do not begin where"),
        (one(&json!([1000]), 0, 4000), 8, "more or fewer bytes than follow it"),
        (one(&json!([2]), 0, u64::MAX), 8, "more or fewer bytes than its shape"),
        (one(&huge, 0, 8), 8, "larger than any memory"),
        (one(&json!([3]), 0, 8), 8, "more or fewer bytes than its shape"),
        (one(&json!([-1]), 0, 8), 8, "invalid JSON in header"),
        (one(&json!([2]), 0, 8).replace("F32", "F33"), 8, "unknown variant `F33`"),
        (one(&json!([2]), 0, 8), 9, "something behind it"),
        (twice, 8, "`a` do not begin where"),
        (nested, 0, "recursion limit"),
        ("[]".to_owned(), 0, "invalid JSON in header"),
        ("\u{feff}{}".to_owned(), 0, "invalid JSON in header"),
        (String::new(), 0, "invalid JSON in header"),
    ];
    for (header, num_bytes, said) in cases {
        verify_refuses(&["model.safetensors", said, "hint: copy or download it again"], |model| {
            fs::write(model.join("model.safetensors"), file(&header, num_bytes)).unwrap();
        });
    }
}

#[test]
fn tensors_without_elements_or_with_too_many_dimensions_have_the_wrong_shape() {
    for shape in [json!([0, 64]), json!([]), json!([1, 1, 1, 1, 1, 1, 1, 1])] {
        let num_bytes = if shape == json!([0, 64]) { 0 } else { 4 };
        let header = json!({"model.embed_tokens.weight": tensor(&shape, 0, num_bytes)}).to_string();
        verify_refuses(&["`model.embed_tokens.weight` has shape", "want [384, 64]"], |model| {
            fs::write(model.join("model.safetensors"), file(&header, num_bytes as usize)).unwrap();
        });
    }
}

#[test]
fn an_index_that_leads_elsewhere_or_names_what_is_missing() {
    let index = |model: &Path, json: String| fs::write(model.join("model.safetensors.index.json"), json).unwrap();
    verify_refuses(&["names the shard `../m/model.safetensors`", "a file of its own folder"], |model| {
        index(model, json!({"weight_map": {"a": "../m/model.safetensors"}}).to_string());
    });
    verify_refuses(&["1 of the 2 files", "model-2.safetensors", "not complete"], |model| {
        index(model, json!({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}).to_string());
    });
    verify_refuses(&["index.json", "recursion limit"], |model| index(model, "[".repeat(1_000_000)));
    verify_refuses(&["index.json", "no weight_map"], |model| index(model, "{\"weight_map\": []}".to_owned()));
    verify_refuses(&["tensor `", "is missing from the weights"], |model| {
        index(model, json!({"weight_map": {"a": "model-1.safetensors"}}).to_string());
        fs::write(model.join("model-1.safetensors"), file("{}", 0)).unwrap();
    });
}

#[test]
fn configurations_whose_numbers_are_absurd() {
    let cases = [
        ("hidden_size", json!(1 << 30), "want [384, 1073741824]"),
        ("vocab_size", json!(2_147_483_647), "want [2147483647, 64]"),
        ("intermediate_size", json!(1 << 30), "[1073741824, 64]"),
        ("num_hidden_layers", json!(1 << 30), "no more than 4096"),
        ("num_hidden_layers", json!(4096), "is missing from the weights"),
        ("num_attention_heads", json!(1 << 30), "num_attention_heads: got 1073741824, want no more than 16384"),
        ("num_attention_heads", json!(3), "want a divisor of num_attention_heads (3)"),
        ("head_dim", json!(1 << 30), "self_attn"),
        ("num_key_value_heads", json!(3), "got 3, want a divisor of num_attention_heads"),
        ("hidden_size", json!(1_u64 << 40), "got 1099511627776, want a positive integer"),
        ("hidden_size", json!(-64), "got -64, want a positive integer"),
        ("hidden_size", json!(64.5), "got 64.5, want a positive integer"),
        ("hidden_size", json!("64"), "got \"64\", want a positive integer"),
        ("rope_theta", json!(0), "want a positive number"),
        ("max_position_embeddings", json!(0), "got 0, want a positive integer"),
        ("model_type", json!(["llama"]), "model_type"),
    ];
    for (field, value, said) in cases {
        verify_refuses(&[said], |model| {
            // Where the newer spelling of the rotary settings stands too, it would win.
            edit_json(&model.join("config.json"), "rope_parameters", Value::Null);
            edit_json(&model.join("config.json"), field, value);
        });
    }
    verify_refuses(&["config.json: not valid JSON", "recursion limit"], |model| {
        fs::write(model.join("config.json"), "{\"a\":".repeat(500_000)).unwrap();
    });
    verify_refuses(&["want a JSON object"], |model| fs::write(model.join("config.json"), "[]").unwrap());
    verify_refuses(&["config.json cannot be read", "valid UTF-8"], |model| {
        fs::write(model.join("config.json"), b"{\"a\": \"\xff\"}").unwrap();
    });
}

#[test]
fn an_end_token_that_the_model_does_not_have() {
    verify_refuses(&["384 is named as an end token", "vocabulary of 384"], |model| {
        edit_json(&model.join("generation_config.json"), "eos_token_id", json!([1, 384]));
    });
}

#[test]
fn pickle_is_refused_with_the_command_that_converts_it() {
    let said = ["running code", "python3 -c", "safetensors.torch", "weights_only=True", "/m/pytorch_model*.bin'"];
    let said = [&["pytorch_model.bin: weights in pickle format are refused"], &said[1..]].concat();
    verify_refuses(&said, |model| {
        fs::remove_file(model.join("model.safetensors")).unwrap();
        fs::write(model.join("pytorch_model.bin"), "x").unwrap();
        fs::write(model.join("optimizer.bin"), "x").unwrap();
        fs::write(model.join("training_args.bin"), "x").unwrap();
    });
}

#[test]
fn weights_that_are_no_numbers_are_found_by_reading_them_all() {
    let workshop = Workshop::new();
    let model = model(&workshop, "m", "llama");
    let path = model.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let place =
        |name: &str, element: usize| data + header[name]["data_offsets"][0].as_u64().unwrap() as usize + 4 * element;
    for (name, element, value) in [
        ("model.norm.weight", 63, f32::NAN),
        ("lm_head.weight", 0, f32::INFINITY),
        ("lm_head.weight", 5, f32::NEG_INFINITY),
        ("lm_head.weight", 384 * 64 - 1, -f32::NAN),
    ] {
        let at = place(name, element);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    fs::write(&path, bytes).unwrap();
    let folder = workshop.path(".");
    assert!(
        super::program::done(&["models", "verify", text(&model)]).contains("m: whole"),
        "headers alone do not show it"
    );
    let deep = ["models", "verify", text(&model), "--deep", "--progress", "none"];
    let said = ["2 of 30 tensors", "`model.norm.weight` (1 NaN, 0 infinite)", "`lm_head.weight` (1 NaN, 2 infinite)"];
    refused(3, &folder, &deep, &said);
    let outcome = super::program::run(&[&deep[..], &["--json"]].concat());
    assert_eq!(outcome.code, Some(3));
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["non_finite"].as_array().unwrap().len(), 2, "{report}");
}

/// Files of 8 GiB (of holes) and a process that may have 4 GiB of addresses: it must not try to hold one.
#[cfg(target_os = "linux")]
#[test]
fn files_too_large_to_be_what_they_are_called_are_not_read() {
    for (name, said) in [
        ("config.json", "more than 16 MiB, which no model's has"),
        ("generation_config.json", "more than 16 MiB, which no model's has"),
        ("model.safetensors.index.json", "more than 64 MiB, which no model's has"),
    ] {
        let workshop = Workshop::new();
        let model = model(&workshop, "m", "llama");
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(model.join(name)).unwrap();
        file.set_len(8 << 30).unwrap();
        let binary = env!("CARGO_BIN_EXE_pairwright");
        let script = "ulimit -v 4194304; exec \"$0\" models verify \"$1\"";
        let output = assert_cmd::Command::new("sh").args(["-c", script, binary, text(&model)]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{name}: {stderr}");
        assert!(stderr.contains(said) && stderr.contains(name) && stderr.contains("\nhint: "), "{name}: {stderr}");
    }
}

//! Who may know whom: the layers of `src`, what the engine's side never sees, and which integers stay integers.
//! Knows the module tree's allowed directions; it deliberately does not know what a module does.

use crate::scan::{Kind, Token};
use crate::tree::{Breach, SourceFile, Tree, closing, places};

/// Modules that anyone may use; they use no module but those before them in this list.
const LEAVES: [&str; 5] = ["config", "shard", "provenance", "journal", "gguf"];
/// For each module what it may import besides the leaves. A module not named here is not part of the house.
const MAY_IMPORT: [(&str, &[&str]); 21] = [
    ("ops", &[]),
    ("model", &["ops"]),
    ("engine", &["ops", "model"]),
    ("data", &[]),
    ("prompt", &["data"]),
    ("registry", &["data"]),
    ("bundle", &["data"]),
    ("demo", &["data", "prompt", "ops", "model"]),
    ("generate", COMPUTE_AND_TEXT),
    ("judge", &["ops", "model", "engine", "data", "prompt", "generate"]),
    ("quality", &["data", "prompt", "generate", "judge"]),
    ("dataset", UP_TO_QUALITY),
    ("report", UP_TO_DATASET),
    ("run", UP_TO_REPORT),
    ("annotate", UP_TO_DATASET),
    ("bench", UP_TO_RUN),
    ("plan", UP_TO_DATASET_AND_REGISTRY),
    ("coverage", &["data", "registry", "generate", "judge", "quality", "dataset", "report"]),
    ("doctor", &["ops", "model", "engine", "bundle", "demo", "bench"]),
    ("hub", &[]),
    ("cli", EVERYTHING),
];
const COMPUTE_AND_TEXT: &[&str] = &["ops", "model", "engine", "data", "prompt"];
const UP_TO_QUALITY: &[&str] = &["ops", "model", "engine", "data", "prompt", "generate", "judge", "quality"];
const UP_TO_DATASET: &[&str] =
    &["ops", "model", "engine", "data", "prompt", "generate", "judge", "quality", "dataset", "demo"];
const UP_TO_DATASET_AND_REGISTRY: &[&str] =
    &["ops", "model", "engine", "data", "prompt", "registry", "generate", "judge", "quality", "dataset", "demo"];
const UP_TO_REPORT: &[&str] =
    &["ops", "model", "engine", "data", "prompt", "generate", "judge", "quality", "dataset", "demo", "report"];
const UP_TO_RUN: &[&str] = &[
    "ops", "model", "engine", "data", "prompt", "registry", "generate", "judge", "quality", "dataset", "demo",
    "report", "run",
];
const EVERYTHING: &[&str] = &[
    "ops", "model", "engine", "data", "prompt", "registry", "bundle", "generate", "judge", "quality", "dataset",
    "demo", "run", "annotate", "report", "bench", "plan", "coverage", "doctor", "hub",
];

/// Folders and files of the layers that see token ids only.
const ENGINE_SIDE: [&str; 6] = ["src/ops/", "src/model/", "src/engine/", "src/ops.rs", "src/model.rs", "src/engine.rs"];

/// Left never imports right: every `crate::…`, `super::…` and `pairwright::…` path outside tests points the allowed way.
pub fn imports_point_left(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "move the shared type to the left layer, or pass in what is needed; a new module needs a line in \
                        MAY_IMPORT of tests/tidy/layers.rs and in ARCHITECTURE.md";
    let mut breaches = Vec::new();
    for file in tree.sources() {
        let Some(own) = module_path(&file.path).first().cloned() else { continue };
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == own).map(|(_, allowed)| *allowed);
        let leaf = LEAVES.iter().position(|leaf| *leaf == own);
        let leaves = &LEAVES[..leaf.unwrap_or(LEAVES.len())];
        if allowed.is_none() && leaf.is_none() {
            breaches.push(file.breach_at_line(1, format!("module `{own}` has no place in the layers"), MEND));
        }
        for (at, target) in references(file) {
            let left = leaves.contains(&target) || allowed.is_some_and(|allowed| allowed.contains(&target));
            if target != own && !left {
                breaches.push(file.breach(at, format!("`{own}` must not import `{target}`"), MEND));
            }
        }
    }
    breaches
}

/// `src/a/b.rs` is `[a, b]`, `src/a/mod.rs` is `[a]`, `main.rs` and `lib.rs` are the root: `[]`.
fn module_path(path: &str) -> Vec<String> {
    let stem = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

/// Top-level modules that paths in `file` lead to, with the index of the token that names each. Groups are followed.
fn references(file: &SourceFile) -> Vec<(usize, &str)> {
    let code = &file.code;
    let depth = module_path(&file.path).len();
    let mut found = Vec::new();
    for at in file.live().filter(|&at| !at.checked_sub(1).is_some_and(|before| code[before].is("::"))) {
        let mut next = at;
        while file.matches(next, &["super", "::"]) {
            next += 2;
        }
        let climbed = (next - at) / 2;
        let from_root = file.matches(at, &["crate", "::"]) || file.matches(at, &["pairwright", "::"]);
        if from_root {
            found.extend(first_names(code, at + 2));
        } else if climbed > 0 && climbed >= depth + inline_depth(code, at) {
            found.extend(first_names(code, next));
        }
    }
    found
}

/// How many `mod name { … }` blocks the token at `at` stands in.
fn inline_depth(code: &[Token], at: usize) -> usize {
    let opens = (0..at).filter(|&open| open >= 2 && code[open].is("{") && code[open - 2].is("mod"));
    opens.filter(|&open| closing(code, open) > at).count()
}

/// The names a path goes on with at `at`: one, or the first of each entry of a group.
fn first_names(code: &[Token], at: usize) -> Vec<(usize, &str)> {
    let Some(token) = code.get(at) else { return Vec::new() };
    if !token.is("{") {
        return vec![(at, token.text.as_str())];
    }
    let mut names = Vec::new();
    let mut entry = at + 1;
    let end = closing(code, at);
    while entry < end {
        names.extend(first_names(code, entry).into_iter().filter(|(_, name)| *name != "self"));
        while entry < end && !code[entry].is(",") {
            entry = if code[entry].is("{") { closing(code, entry) + 1 } else { entry + 1 };
        }
        entry += 1;
    }
    names
}

/// Token ids in, token ids and distributions out: no text libraries, no languages, no files of text, no async.
pub fn engine_side_sees_no_text(tree: &Tree) -> Vec<Breach> {
    const NAMES: [&str; 13] = [
        "arrow",
        "parquet",
        "tokenizers",
        "minijinja",
        "minijinja_contrib",
        "csv",
        "isolang",
        "jiff",
        "clap",
        "indicatif",
        "async",
        "await",
        "PromptRecord",
    ];
    const MEND: &str =
        "text, languages and file formats belong to data, prompt, generate or judge; hand token ids over";
    let mut breaches = engine_side(tree, MEND, |text| NAMES.contains(&text).then(|| format!("names `{text}`")));
    breaches.extend(engine_side(tree, MEND, |text| {
        let lower = text.to_lowercase().replace("language_model", "");
        lower.contains("language").then(|| format!("`{text}` speaks of a language"))
    }));
    for file in tree.sources().filter(|file| file.is_in(&["src/engine/"])) {
        let errors = error_items(&file.code);
        let named = file.live().filter(|&at| file.code[at].is("String"));
        let outside = named.filter(|&at| !errors.iter().any(|range| range.contains(&at)));
        breaches.extend(outside.map(|at| file.breach(at, "the engine holds a `String` that is no error", MEND)));
    }
    breaches
}

/// One thread owns the device: no globals and no interior mutability on the engine's side.
pub fn engine_side_has_no_hidden_state(tree: &Tree) -> Vec<Breach> {
    const NAMES: [&str; 14] = [
        "Cell",
        "RefCell",
        "UnsafeCell",
        "OnceCell",
        "LazyCell",
        "Mutex",
        "RwLock",
        "Condvar",
        "OnceLock",
        "LazyLock",
        "lazy_static",
        "once_cell",
        "thread_local",
        "parking_lot",
    ];
    const MEND: &str = "own the state in a struct, pass it as an argument and return what changed; the std macro \
                        is_x86_feature_detected! keeps its own cache";
    let mut breaches = engine_side(tree, MEND, |text| {
        let hidden = NAMES.contains(&text) || text.starts_with("Atomic");
        hidden.then(|| format!("`{text}` is state that no signature shows"))
    });
    for file in tree.sources().filter(|file| file.is_in(&ENGINE_SIDE)) {
        let globals = file.find(&["static", "mut"]);
        breaches.extend(globals.into_iter().map(|at| file.breach(at, "`static mut` is a global", MEND)));
    }
    breaches
}

fn engine_side(tree: &Tree, mend: &'static str, judge: impl Fn(&str) -> Option<String>) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for file in tree.sources().filter(|file| file.is_in(&ENGINE_SIDE)) {
        for at in file.live().filter(|&at| file.code[at].kind == Kind::Ident) {
            breaches.extend(judge(&file.code[at].text).map(|what| file.breach(at, what, mend)));
        }
    }
    breaches
}

/// Bodies of `enum …Error` and `struct …Error`.
fn error_items(code: &[Token]) -> Vec<std::ops::RangeInclusive<usize>> {
    let declared = (1..code.len()).filter(|&at| code[at].text.ends_with("Error"));
    let items = declared.filter(|&at| code[at - 1].is("enum") || code[at - 1].is("struct"));
    items
        .filter_map(|at| {
            let open = (at..code.len()).find(|&open| code[open].is("{") || code[open].is(";"))?;
            Some(at..=if code[open].is("{") { closing(code, open) } else { open })
        })
        .collect()
}

/// The scheduler and the block manager are integer programs, tests included.
pub fn scheduling_is_integers(tree: &Tree) -> Vec<Breach> {
    const NAMES: [&str; 9] = ["candle_core", "candle", "Tensor", "DType", "Device", "half", "bf16", "f16", "KvCache"];
    const MEND: &str = "count blocks and tokens here; tensors belong to kv_cache, batch and runner";
    let mut breaches = Vec::new();
    const FILES: [&str; 3] = ["src/engine/scheduler.rs", "src/engine/waiting.rs", "src/engine/block_manager.rs"];
    for file in FILES.iter().filter_map(|path| tree.file(path)) {
        let tensors = (0..file.code.len()).filter(|&at| NAMES.iter().any(|name| file.code[at].is(name)));
        breaches.extend(tensors.map(|at| file.breach(at, format!("names `{}`", file.code[at].text), MEND)));
        let layers = references(file).into_iter().filter(|(_, name)| ["ops", "model"].contains(name));
        breaches.extend(layers.map(|(at, name)| file.breach(at, format!("imports `{name}`"), MEND)));
    }
    breaches
}

#[test]
fn paths_to_the_right_are_found_in_every_spelling() {
    let text = "use crate::ops;\nuse crate::{config, ops::{a, generate}, engine::b};\nfn f() { super::super::judge::x(); }\n\
                mod inner { use super::super::super::cli; }\n/// [`crate::data`]\nconst S: &str = \"crate::data\";\n\
                #[cfg(test)]\nmod tests { use crate::demo; }\nuse super::linear;";
    let found = places(imports_point_left, &[("src/model/decoder.rs", text)]);
    assert_eq!(found, ["src/model/decoder.rs:2", "src/model/decoder.rs:3", "src/model/decoder.rs:4"]);
}

#[test]
fn leaves_import_leaves_before_them_and_unknown_modules_have_no_place() {
    let files = [
        ("src/config.rs", "use crate::data::X;"),
        ("src/journal.rs", "use super::provenance;\nuse crate::data;"),
        ("src/provenance.rs", "use super::journal;"),
        ("src/misc/mod.rs", ""),
        ("src/cli/make.rs", "use crate::{bench, hub};"),
        ("src/report/mod.rs", "use crate::cli;"),
        ("src/prompt/mod.rs", "use crate::*;"),
        ("src/main.rs", "use pairwright::cli;"),
    ];
    let expected = [
        "src/config.rs:1",
        "src/journal.rs:2",
        "src/provenance.rs:1",
        "src/misc/mod.rs:1",
        "src/report/mod.rs:1",
        "src/prompt/mod.rs:1",
    ];
    assert_eq!(places(imports_point_left, &files), expected);
}

#[test]
fn every_module_may_import_only_modules_to_its_left() {
    for (index, (name, allowed)) in MAY_IMPORT.iter().enumerate() {
        for target in *allowed {
            let place = MAY_IMPORT.iter().position(|(other, _)| other == target);
            assert!(place.is_some_and(|place| place < index), "{name} may import {target}, which is not to its left");
        }
    }
}

#[test]
fn text_and_hidden_state_on_the_engine_side_are_found() {
    let text = "use tokenizers::X;\nasync fn a() {}\nstruct B { language_code: u8, language_model: u8 }\n\
                pub enum CError { D(String) }\nstruct E { f: String }";
    let found = places(engine_side_sees_no_text, &[("src/engine/a.rs", text), ("src/data/mod.rs", text)]);
    assert_eq!(found, ["src/engine/a.rs:1", "src/engine/a.rs:2", "src/engine/a.rs:3", "src/engine/a.rs:5"]);
    let text =
        "static mut A: u8 = 0;\nuse std::sync::{Arc, Mutex};\nstatic B: [u8; 1] = [0];\nlet c = AtomicUsize::new(0);";
    let found = places(engine_side_has_no_hidden_state, &[("src/ops/a.rs", text), ("src/cli/a.rs", text)]);
    assert_eq!(found, ["src/ops/a.rs:2", "src/ops/a.rs:4", "src/ops/a.rs:1"]);
}

#[test]
fn tensors_in_the_scheduler_are_found() {
    let text = "use crate::ops::x;\nfn a(t: &Tensor) {}\nuse super::sequence::Sequence;";
    let files = [("src/engine/scheduler.rs", text), ("src/engine/runner.rs", text)];
    assert_eq!(places(scheduling_is_integers, &files), ["src/engine/scheduler.rs:2", "src/engine/scheduler.rs:1"]);
}

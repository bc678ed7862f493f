//! One home for each thing: features, environment, command line, sockets, column names, printing, operations.
//! Knows which file may name what; it deliberately does not know the layers (see `layers`) or how code is written.

use crate::scan::Kind;
use crate::tree::{Breach, SourceFile, Tree, attributes, closing, places};

/// `cfg(feature = …)` in any spelling stands in `ops/mod.rs`, `hub/mod.rs`, `build.rs` and tests only.
pub fn features_have_two_switches(tree: &Tree) -> Vec<Breach> {
    const MEND: &str =
        "switch once in src/ops/mod.rs or src/hub/mod.rs and give the other side a twin with the same names";
    let mut breaches = Vec::new();
    for file in tree.rust().filter(|file| !file.is_in(&["src/ops/mod.rs", "src/hub/mod.rs", "build.rs", "tests/"])) {
        for at in (0..file.code.len()).filter(|&at| file.code[at].is("cfg") || file.code[at].is("cfg_attr")) {
            let open = at + 1 + usize::from(file.matches(at + 1, &["!"]));
            let body = if file.matches(open, &["("]) { open..closing(&file.code, open) } else { open..open };
            if body.into_iter().any(|inner| file.matches(inner, &["feature", "="])) {
                breaches.push(file.breach(at, "`cfg(feature = …)` outside its homes", MEND));
            }
        }
    }
    breaches
}

/// Names with one home: what, where it may stand, and what to do instead.
const HOMES: [(&[&str], &[&str], &str); 6] = [
    (&["clap"], &["src/cli/", "src/cli.rs", "src/main.rs"], "take plain arguments; only `cli` knows the command line"),
    (
        &["TcpListener", "tiny_http", "axum", "UnixListener"],
        &["src/annotate/", "src/annotate.rs", "src/hub/"],
        "serving belongs to `annotate`",
    ),
    (
        &["TcpStream", "UdpSocket", "UnixStream", "ToSocketAddrs"],
        &["src/annotate/", "src/annotate.rs", "src/hub/"],
        "sockets belong to `hub` (outward) and `annotate` (serving)",
    ),
    (
        &["reqwest", "ureq", "hyper", "hf_hub", "curl", "isahc", "attohttpc", "minreq"],
        &["src/hub/"],
        "only `hub` talks to other machines",
    ),
    (&["rusqlite"], &["src/annotate/", "src/annotate.rs"], "votes and their store belong to `annotate`"),
    (
        &["anyhow"],
        &["src/cli/", "src/cli.rs", "src/main.rs"],
        "use a `thiserror` enum with data; `anyhow` ends at the command line",
    ),
];

/// Only `cli` knows clap, only `annotate` serves, only `hub` opens outbound sockets.
pub fn names_stay_at_home(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for file in tree.sources() {
        for (names, _, mend) in HOMES.iter().filter(|(_, homes, _)| !file.is_in(homes)) {
            let strays = file.live().filter(|&at| names.iter().any(|name| file.code[at].is(name)));
            breaches.extend(strays.map(|at| file.breach(at, format!("`{}` away from home", file.code[at].text), mend)));
        }
    }
    breaches
}

/// The environment is read in `config.rs`, through std and not through clap's `env`.
pub fn environment_is_read_once(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "read it in src/config.rs, document it there, and pass the value in";
    const READERS: [&str; 6] = ["var", "var_os", "vars", "vars_os", "set_var", "remove_var"];
    let is_reader = |file: &SourceFile, at: usize| READERS.iter().any(|name| file.matches(at, &[name]));
    let mut breaches = Vec::new();
    for file in tree.sources() {
        let homeless = file.find(&["env", "::"]).into_iter().filter(|_| !file.is_in(&["src/config.rs"]));
        breaches.extend(homeless.filter_map(|at| {
            let end = if file.matches(at + 2, &["{"]) { closing(&file.code, at + 2) } else { at + 2 };
            let read = (at + 2..=end).any(|inner| is_reader(file, inner));
            read.then(|| file.breach(at, "reads the environment", MEND))
        }));
        for (start, end, _) in attributes(&file.code) {
            let of_clap = ["arg", "clap", "command"].iter().any(|name| file.matches(start + 2, &[name]));
            let names = (start..end).filter(|&at| file.matches(at, &["env"]) && !file.matches(at + 1, &["!"]));
            let named = names.filter(|&at| [",", ")", "="].iter().any(|after| file.matches(at + 1, &[after])));
            breaches.extend(named.filter(|_| of_clap).map(|at| file.breach(at, "clap reads the environment", MEND)));
        }
    }
    breaches
}

/// Column names of the dataset are spelt in `dataset/schema.rs` and `data` only: literals that hold such a word are found.
pub fn columns_are_spelt_once(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "use the constant of src/dataset/schema.rs (written columns) or of src/data (read columns)";
    let is_column = |word: &str| {
        ["language_code", "annotation_type"].contains(&word)
            || ["chosen_", "rejected_"]
                .iter()
                .any(|prefix| word.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
    };
    let mut breaches = Vec::new();
    for file in tree.sources().filter(|file| !file.is_in(&["src/dataset/schema.rs", "src/data/", "src/data.rs"])) {
        for at in file.live().filter(|&at| file.code[at].kind == Kind::Text) {
            let mut words = file.code[at].text.split(|c: char| !c.is_alphanumeric() && c != '_');
            if let Some(word) = words.find(|word| is_column(word)) {
                breaches.push(file.breach(at, format!("spells the column `{word}`"), MEND));
            }
        }
    }
    breaches
}

/// Only the command line prints; the build script talks to Cargo.
pub fn only_the_command_line_prints(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "return the value or take a `&mut impl Write`; `cli` decides what is printed where";
    let mut breaches = Vec::new();
    for file in tree.sources().filter(|file| !file.is_in(&["src/cli/", "src/cli.rs", "src/main.rs"])) {
        for name in ["print", "println", "eprint", "eprintln"] {
            let printed = file.find(&[name, "!"]);
            breaches.extend(printed.into_iter().map(|at| file.breach(at, format!("`{name}!` outside cli"), MEND)));
        }
    }
    breaches
}

/// One operation, one name: each `pub mod` of `src/ops` is named by a test and a bench; a kernel has its operation.
pub fn operations_have_their_places(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let Some(ops) = tree.file("src/ops/mod.rs") else {
        let what = "does not exist".to_owned();
        let mend = "the operations and the only device switch live there";
        return vec![Breach { path: "src/ops/mod.rs".to_owned(), line: 1, what, mend }];
    };
    let named = |places: &[&str], op: &str| {
        let mut files = tree.rust().filter(|file| file.is_in(places));
        files.any(|file| file.code.iter().any(|token| token.is(op)))
    };
    for at in ops.find(&["pub", "mod"]) {
        let op = &ops.code[at + 2].text;
        if !named(&["tests/ops.rs", "tests/ops/"], op) {
            let mend =
                "compare it with its plain-Rust reference in tests/ops.rs; what is no operation is not `pub mod`";
            breaches.push(ops.breach(at, format!("operation `{op}` has no test"), mend));
        }
        if !named(&["src/bench/operations/"], op) {
            let mend = "a case in src/bench/operations, which benches/ops.rs and doctor check and time; what is no operation is not `pub mod`";
            breaches.push(ops.breach(at, format!("operation `{op}` has no bench"), mend));
        }
    }
    for kernel in tree.files.iter().filter(|file| file.path.ends_with(".cu")) {
        let op = kernel.path.trim_start_matches("kernels/").trim_end_matches(".cu");
        let homes = [format!("src/ops/{op}.rs"), format!("src/ops/{op}/mod.rs")];
        if homes.iter().all(|home| tree.file(home).is_none()) {
            let mend = "give kernel and operation the same name: kernels/x.cu and src/ops/x.rs";
            breaches.push(kernel.breach_at_line(1, format!("no operation `{op}` in src/ops"), mend));
        }
    }
    breaches
}

#[test]
fn features_outside_their_homes_are_found() {
    let text = "#[cfg(all(unix, feature = \"cuda\"))]\nfn a() { if cfg!(feature = \"cuda\") {} }\n#[cfg(unix)]\nfn b() {}\n\
                #[cfg_attr(feature = \"x\", c)]\n#[target_feature(enable = \"avx2\")]\nfn d() { let feature = cfg(1); }";
    let files = [("src/model/a.rs", text), ("src/ops/mod.rs", text), ("tests/a.rs", text)];
    let expected = ["src/model/a.rs:1", "src/model/a.rs:2", "src/model/a.rs:5"];
    assert_eq!(places(features_have_two_switches, &files), expected);
}

#[test]
fn strays_and_environment_reads_are_found() {
    let text = "use clap::Parser;\nlet s = \"clap reqwest\"; // clap\nTcpStream::connect(a);\nanyhow::bail!(1)";
    let files = [("src/cli/a.rs", text), ("src/bench/mod.rs", text)];
    let expected = ["src/cli/a.rs:3", "src/bench/mod.rs:1", "src/bench/mod.rs:3", "src/bench/mod.rs:4"];
    assert_eq!(places(names_stay_at_home, &files), expected);
    let text = "std::env::var(\"A\");\nuse std::env::{self, var_os};\nenv!(\"CARGO_PKG_VERSION\");\nstd::env::args();\n\
                #[arg(long, env)]\n#[arg(env = \"B\", version = env!(\"C\"))]\n";
    let expected = ["src/cli/a.rs:1", "src/cli/a.rs:2", "src/cli/a.rs:5", "src/cli/a.rs:6"];
    assert_eq!(places(environment_is_read_once, &[("src/cli/a.rs", text)]), expected);
    assert_eq!(places(environment_is_read_once, &[("src/config.rs", text)]), ["src/config.rs:5", "src/config.rs:6"]);
}

#[test]
fn spelt_columns_and_prints_are_found() {
    let text = "const A: &str = \"chosen_rating\";\n// \"chosen_rating\"\nlet chosen_rating = \"chosen_\";\n\
                let b = r#\"{\"rejected_source\": 1}\"#;\n#[cfg(test)]\nmod t { const C: &str = \"chosen_rating\"; }";
    let files = [("src/report/a.rs", text), ("src/dataset/schema.rs", text), ("src/data/aya.rs", text)];
    assert_eq!(places(columns_are_spelt_once, &files), ["src/report/a.rs:1", "src/report/a.rs:4"]);
    let text = "println!();\nwriteln!(out, \"println!\");\neprint!(\"x\");";
    let files = [("src/judge/mod.rs", text), ("src/cli/a.rs", text)];
    assert_eq!(places(only_the_command_line_prints, &files), ["src/judge/mod.rs:1", "src/judge/mod.rs:3"]);
}

#[test]
fn operations_without_test_bench_or_kernel_name_are_found() {
    let files = [
        ("src/ops/mod.rs", "pub mod matmul;\nmod parallel;\npub mod softmax;"),
        ("src/ops/matmul.rs", ""),
        ("tests/ops.rs", "fn a() { ops::matmul::forward(); }"),
        ("src/bench/operations/rows.rs", "use pairwright::ops::{matmul, softmax};"),
        ("kernels/matmul.cu", ""),
        ("kernels/rope.cu", ""),
        ("kernels/common.cuh", ""),
    ];
    assert_eq!(places(operations_have_their_places, &files), ["src/ops/mod.rs:3", "kernels/rope.cu:1"]);
    assert_eq!(places(operations_have_their_places, &[]), ["src/ops/mod.rs:1"]);
}

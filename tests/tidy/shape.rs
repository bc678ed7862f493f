//! The size and the opening of files: what one sitting can read.
//! Knows lines and braces; it deliberately does not know what good code is.

use crate::scan::Kind;
use crate::tree::{Breach, SourceFile, Tree, closing, places};

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 90;

/// No file of code above 500 lines, kernels and scripts included.
pub fn files_fit(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "split the file by what its parts deliberately do not know of one another";
    let long = tree.files.iter().map(|file| (file, file.text.lines().count()));
    long.filter(|(_, lines)| *lines > MAX_FILE_LINES)
        .map(|(file, lines)| {
            file.breach_at_line(lines, format!("{lines} lines, at most {MAX_FILE_LINES} are allowed"), MEND)
        })
        .collect()
}

/// No function above 90 lines, from the `fn` to its closing brace.
pub fn functions_fit(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "give a part of it a name and a function of its own";
    let mut breaches = Vec::new();
    for file in tree.rust() {
        for (at, lines) in functions(file).into_iter().filter(|(_, lines)| *lines > MAX_FUNCTION_LINES) {
            let name = &file.code[at + 1].text;
            let what = format!("fn {name} has {lines} lines, at most {MAX_FUNCTION_LINES} are allowed");
            breaches.push(file.breach(at, what, MEND));
        }
    }
    breaches
}

/// Index of each `fn` with a name and a body, and the lines it takes.
fn functions(file: &SourceFile) -> Vec<(usize, usize)> {
    let code = &file.code;
    let named = |at: &usize| code[*at].is("fn") && code.get(at + 1).is_some_and(|token| token.kind == Kind::Ident);
    (0..code.len()).filter(named).filter_map(|at| Some((at, body_end_line(file, at)? + 1 - code[at].line))).collect()
}

/// Line of the brace that closes the body of the function at `at`; `None` for a declaration.
fn body_end_line(file: &SourceFile, at: usize) -> Option<usize> {
    let code = &file.code;
    let mut next = at;
    while !code.get(next)?.is("{") {
        if code[next].is(";") {
            return None;
        }
        next = if code[next].is("(") || code[next].is("[") { closing(code, next) + 1 } else { next + 1 };
    }
    Some(code[closing(code, next)].line)
}

/// Every Rust file opens with `//!`; one in `src` says in it what it is and what it deliberately does not know.
pub fn files_open_with_their_reason(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "open with `//!`: what the file is, and a second sentence on what it deliberately does not know";
    let mut breaches = Vec::new();
    for file in tree.rust() {
        let header: Vec<_> = file.text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let header = header.join("\n");
        let words: Vec<_> = header.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase).collect();
        let says_limits = ["know", "knows", "not", "no", "never", "nothing", "without"];
        let is_full = sentences(&header) >= 2 || words.iter().any(|word| says_limits.contains(&word.as_str()));
        if header.trim().is_empty() {
            breaches.push(file.breach_at_line(1, "no `//!` header on the first line", MEND));
        } else if file.path.starts_with("src/") && !is_full {
            breaches.push(file.breach_at_line(1, "the header does not say what the file does not know", MEND));
        }
    }
    breaches
}

fn sentences(text: &str) -> usize {
    let ends = text.match_indices(['.', '?', '!']).filter(|(at, end)| {
        let after = text.get(at + end.len()..).unwrap_or_default();
        after.is_empty() || after.starts_with(char::is_whitespace)
    });
    ends.count()
}

/// What a newcomer reads from `main` to a sampled token, each with the other place it may stand in.
const NEWCOMERS_PATH: [[&str; 2]; 8] = [
    ["src/main.rs", "src/main.rs"],
    ["src/cli/make.rs", "src/cli/make/mod.rs"],
    ["src/generate.rs", "src/generate/mod.rs"],
    ["src/engine/mod.rs", "src/engine.rs"],
    ["src/engine/scheduler.rs", "src/engine/scheduler/mod.rs"],
    ["src/engine/batch.rs", "src/engine/batch/mod.rs"],
    ["src/engine/runner.rs", "src/engine/runner/mod.rs"],
    ["src/engine/sampler.rs", "src/engine/sampler/mod.rs"],
];
const MODEL_ON_THE_PATH: [[&str; 2]; 2] =
    [["src/model/decoder.rs", "src/model/decoder/mod.rs"], ["src/model/attention.rs", "src/model/attention/mod.rs"]];

/// The newcomer's path: 8 files with at most 1,100 lines of code; with decoder and attention 10 and 1,500.
/// Blank lines, comments and tests do not count.
pub fn newcomers_path_is_short(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "keep the path to the story; move what a first reader can skip into a module beside it";
    let mut breaches = Vec::new();
    let mut num_lines = 0;
    for (places, limit) in [(&NEWCOMERS_PATH[..], 1_100), (&MODEL_ON_THE_PATH[..], 1_500)] {
        for place in places {
            match place.iter().find_map(|path| tree.file(path)) {
                Some(file) => num_lines += file.num_code_lines(),
                None => breaches.push(Breach {
                    path: place[0].to_owned(),
                    line: 1,
                    what: "is on the newcomer's path and does not exist".to_owned(),
                    mend: "write it, or change the path here, in the README and in ARCHITECTURE.md",
                }),
            }
        }
        if num_lines > limit {
            let last = places[places.len() - 1][0].to_owned();
            let what =
                format!("the newcomer's path up to here has {num_lines} lines of code, at most {limit} are allowed");
            breaches.push(Breach { path: last, line: 1, what, mend: MEND });
        }
    }
    breaches
}

#[test]
fn long_files_and_functions_are_found_and_braces_in_strings_are_not_counted() {
    let body = "    let s = \"}\"; // }\n    let c = '}';\n".repeat(44);
    let fits = format!("fn a<'a>(x: [u8; {{ 2 }}]) -> &'a str {{\n{body}}}\nfn b();\n");
    assert!(places(functions_fit, &[("src/a.rs", &fits)]).is_empty());
    let long = format!("\n{}", fits.replace("{\n", "{\n\n"));
    assert_eq!(places(functions_fit, &[("src/a.rs", &long.replace("{\n\n", "{\n\n\n"))]), ["src/a.rs:2"]);
    let lines = "x\n".repeat(MAX_FILE_LINES);
    let files = [("kernels/a.cu", lines.as_str()), ("tests/b.rs", &format!("{lines}\n"))];
    assert_eq!(places(files_fit, &files), ["tests/b.rs:501"]);
}

#[test]
fn headers_that_say_too_little_are_found() {
    let files = [
        ("src/a.rs", "fn a() {}"),
        ("src/b.rs", "//! Does b."),
        ("src/c.rs", "//! Does c. See version 1.5 too."),
        ("src/d.rs", "//! Does d,\n//! knows no e"),
        ("tests/f.rs", "//! Tests f."),
        ("tests/g.rs", "use x;"),
    ];
    assert_eq!(places(files_open_with_their_reason, &files), ["src/a.rs:1", "src/b.rs:1", "tests/g.rs:1"]);
}

#[test]
fn a_missing_or_long_path_is_found() {
    let code = "const A: u8 = 0;\n\n".repeat(138);
    let mut files: Vec<_> = NEWCOMERS_PATH.iter().map(|place| (place[0], code.as_str())).collect();
    files.extend([(MODEL_ON_THE_PATH[0][1], "fn a() {}"), (MODEL_ON_THE_PATH[1][0], "")]);
    assert_eq!(places(newcomers_path_is_short, &files), ["src/engine/sampler.rs:1"]);
    files.remove(1);
    assert_eq!(places(newcomers_path_is_short, &files), ["src/cli/make.rs:1"]);
}

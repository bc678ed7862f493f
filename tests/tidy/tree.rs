//! The source tree as the rules see it: files as tokens, what belongs to tests, and how a breach is reported.
//! Knows where the project keeps its sources; it does not know a single rule.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::scan::{self, Kind, Token};

/// One place that breaks a rule, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    pub path: String,
    pub line: usize,
    pub what: String,
    pub mend: &'static str,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}\n    mend: {}", self.path, self.line, self.what, self.mend)
    }
}

/// A file with its code and its comments apart.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Relative to the package root, with `/`.
    pub path: String,
    pub text: String,
    /// Everything but comments; empty for files that are not Rust.
    pub code: Vec<Token>,
    pub comments: Vec<Token>,
    /// For each token of `code`: does it belong to a test?
    in_test: Vec<bool>,
}

impl SourceFile {
    /// Reads `text` as Rust if `path` ends in `.rs`.
    pub fn parse(path: &str, text: &str) -> Self {
        let tokens = if path.ends_with(".rs") { scan::lex(text) } else { Vec::new() };
        let (comments, code): (Vec<_>, Vec<_>) = tokens.into_iter().partition(|token| token.kind == Kind::Comment);
        let in_test = test_tokens(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, comments, in_test }
    }

    /// Is the file under one of these, each a file or a folder that ends in `/`?
    pub fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || (place.ends_with('/') && self.path.starts_with(place)))
    }

    /// Indices into `code` of the tokens that do not belong to tests.
    pub fn live(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.code.len()).filter(|&at| !self.in_test[at])
    }

    /// Where the sequence `pattern` of identifiers and punctuation stands outside tests.
    pub fn find(&self, pattern: &[&str]) -> Vec<usize> {
        self.live().filter(|&at| self.matches(at, pattern)).collect()
    }

    /// Does `pattern` stand at index `at` of `code`?
    pub fn matches(&self, at: usize, pattern: &[&str]) -> bool {
        pattern.iter().enumerate().all(|(i, text)| self.code.get(at + i).is_some_and(|token| token.is(text)))
    }

    /// Number of lines with code outside tests: no blank lines, no comments.
    pub fn num_code_lines(&self) -> usize {
        let mut lines = std::collections::BTreeSet::new();
        for at in self.live() {
            lines.extend(self.code[at].line..=self.code[at].end_line);
        }
        lines.len()
    }

    /// A breach at the token with index `at`.
    pub fn breach(&self, at: usize, what: impl Into<String>, mend: &'static str) -> Breach {
        self.breach_at_line(self.code[at].line, what, mend)
    }

    pub fn breach_at_line(&self, line: usize, what: impl Into<String>, mend: &'static str) -> Breach {
        Breach { path: self.path.clone(), line, what: what.into(), mend }
    }
}

/// Index of the bracket that closes the one at `open`; the last index if none does.
pub fn closing(code: &[Token], open: usize) -> usize {
    let mut depth = 0i32;
    for (at, token) in code.iter().enumerate().skip(open) {
        if ["(", "[", "{"].iter().any(|bracket| token.is(bracket)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|bracket| token.is(bracket)) {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    code.len().saturating_sub(1)
}

/// Attributes as index ranges `#` to `]`, and whether they are inner ones (`#![…]`).
pub fn attributes(code: &[Token]) -> Vec<(usize, usize, bool)> {
    let mut found = Vec::new();
    for at in 0..code.len() {
        let inner = code.get(at + 1).is_some_and(|token| token.is("!"));
        let open = at + 1 + usize::from(inner);
        if code[at].is("#") && code.get(open).is_some_and(|token| token.is("[")) {
            found.push((at, closing(code, open), inner));
        }
    }
    found
}

/// Marks what only exists in tests: items under `#[test]` or a `#[cfg(…test…)]` that does not say `not`.
fn test_tokens(code: &[Token]) -> Vec<bool> {
    let mut marked = vec![false; code.len()];
    for (start, end, inner) in attributes(code) {
        let body = &code[start..=end];
        let says = |word: &str| body.iter().any(|token| token.is(word));
        let only_test = body.len() == 4 && says("test");
        let cfg_test = says("cfg") && says("test") && !says("not");
        if !(only_test || cfg_test) {
            continue;
        }
        let range = if inner { 0..code.len() } else { start..item_end(code, end + 1) + 1 };
        marked[range].fill(true);
    }
    marked
}

/// Index of the last token of the item, field or statement that starts at `start`, its other attributes included.
fn item_end(code: &[Token], start: usize) -> usize {
    const ITEMS: [&str; 14] = [
        "fn",
        "mod",
        "struct",
        "enum",
        "impl",
        "use",
        "pub",
        "const",
        "static",
        "trait",
        "type",
        "unsafe",
        "extern",
        "macro_rules",
    ];
    let mut at = start;
    while code.get(at).is_some_and(|token| token.is("#")) {
        at = closing(code, at + 1) + 1;
    }
    let is_item = code.get(at).is_some_and(|token| ITEMS.iter().any(|keyword| token.is(keyword)));
    while let Some(token) = code.get(at) {
        if token.is("{") {
            return closing(code, at);
        }
        if token.is("(") || token.is("[") {
            at = closing(code, at);
        } else if token.is(";") || (!is_item && token.is(",")) {
            return at;
        } else if token.is("}") || token.is(")") {
            return at.saturating_sub(1);
        }
        at += 1;
    }
    code.len().saturating_sub(1)
}

/// All files the rules look at, in order of path.
pub struct Tree {
    pub files: Vec<SourceFile>,
    /// Text of Cargo.lock.
    pub lock: String,
}

impl Tree {
    /// Reads the package this test belongs to: sources, tests, benches, kernels, scripts, `build.rs` and Cargo.lock.
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        for folder in ["src", "tests", "benches", "kernels", "scripts"] {
            walk(root, &root.join(folder), &mut files);
        }
        for path in ["build.rs", ".ci/run"] {
            if let Ok(text) = fs::read_to_string(root.join(path)) {
                files.push((path.to_owned(), text));
            }
        }
        files.sort();
        let lock = fs::read_to_string(root.join("Cargo.lock")).expect("Cargo.lock is under version control");
        Self::of(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>(), &lock)
    }

    /// A tree of the given files: how the rules' own tests show that a breach is found.
    pub fn of(files: &[(&str, &str)], lock: &str) -> Self {
        let mut files: Vec<_> = files.iter().map(|(path, text)| SourceFile::parse(path, text)).collect();
        for path in files.iter().flat_map(test_only_files).collect::<Vec<_>>() {
            for file in files.iter_mut().filter(|file| file.path == path) {
                file.in_test.fill(true);
            }
        }
        Self { files, lock: lock.to_owned() }
    }

    /// Rust files of the library and the binary.
    pub fn sources(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.path.starts_with("src/") && file.path.ends_with(".rs"))
    }

    /// Every Rust file: sources, tests, benches, the build script.
    pub fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    pub fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// Paths a `#[cfg(test)] mod name;` in `file` may stand for.
fn test_only_files(file: &SourceFile) -> Vec<String> {
    let stem = file.path.trim_end_matches(".rs");
    let folder = match stem.rsplit_once('/') {
        Some((folder, "mod" | "lib" | "main")) => folder,
        _ => stem,
    };
    let declared = (0..file.code.len()).filter(|&at| file.in_test[at] && file.code[at].is("mod"));
    let outside = declared.filter(|&at| file.code.get(at + 2).is_some_and(|token| token.is(";")));
    outside
        .flat_map(|at| {
            let name = &file.code[at + 1].text;
            [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]
        })
        .collect()
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            walk(root, &path, files);
        } else if matches!(extension, Some("rs" | "cu" | "cuh" | "sh")) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name} cannot be read: {error}"));
            files.push((name, text));
        }
    }
}

/// Fails with every breach, not only the first.
pub fn hold(breaches: Vec<Breach>) {
    let list = breaches.iter().map(|breach| format!("\n{breach}")).collect::<String>();
    assert!(breaches.is_empty(), "{} breach(es) of a rule of the house:{list}\n", breaches.len());
}

/// `path:line` of every breach that `rule` finds in a tree of `files`.
pub fn places(rule: fn(&Tree) -> Vec<Breach>, files: &[(&str, &str)]) -> Vec<String> {
    rule(&Tree::of(files, "")).iter().map(|breach| format!("{}:{}", breach.path, breach.line)).collect()
}

#[test]
fn tests_are_told_from_what_ships() {
    let text = "fn a() {}\n#[cfg(test)]\n#[derive(Debug)]\nstruct B<C, D>(C, D);\nfn e() {}\n#[cfg(not(test))]\nfn f() {}\n\
                struct G { #[cfg(test)] h: u8, i: u8 }\n#[test]\nfn j() { let [x, y] = [1, 2]; }\nfn k() {}";
    let file = SourceFile::parse("src/a.rs", text);
    let live = file.live().map(|at| file.code[at].text.as_str()).filter(|text| text.len() == 1).collect::<String>();
    for name in ["a", "e", "f", "G", "i", "k"] {
        assert!(live.contains(name), "{name} should count as code in {live}");
    }
    for name in ["B", "C", "D", "h", "j", "x", "y"] {
        assert!(!live.contains(name), "{name} belongs to tests in {live}");
    }
    assert_eq!(SourceFile::parse("src/a.rs", "#![cfg(test)]\nfn a() {}").live().count(), 0);
}

#[test]
fn a_test_module_in_its_own_file_counts_as_test() {
    let files = [
        ("src/a/mod.rs", "#[cfg(test)]\nmod tests;\nmod b;"),
        ("src/a/tests.rs", "fn t() {}"),
        ("src/a/b.rs", "fn u() {}"),
    ];
    let tree = Tree::of(&files, "");
    assert_eq!(tree.file("src/a/tests.rs").map(SourceFile::num_code_lines), Some(0));
    assert_eq!(tree.file("src/a/b.rs").map(SourceFile::num_code_lines), Some(1));
}

#[test]
fn code_lines_leave_out_blanks_comments_and_tests() {
    let text = "//! Header.\n\nfn a() {\n    // why\n    let s = \"x\n    y\";\n}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
    assert_eq!(SourceFile::parse("src/a.rs", text).num_code_lines(), 4);
}

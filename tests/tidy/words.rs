//! Words that do not belong in the sources: leftovers, vague names, panics and silenced lints without a reason.
//! Knows tokens and comments; it deliberately does not know layers or sizes.

use crate::scan::Kind;
use crate::tree::{Breach, SourceFile, Tree, attributes, places};

/// No notes to self and no placeholders, in sources, tests, benches and kernels.
pub fn nothing_is_left_undone(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "do it now, or say in a comment what is the case and why";
    const NOTES: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];
    let note =
        |text: &str| text.split(|c: char| !c.is_alphanumeric()).find(|word| NOTES.contains(word)).map(str::to_owned);
    let mut breaches = Vec::new();
    for file in &tree.files {
        for comment in &file.comments {
            let lines = comment.text.lines().enumerate().filter_map(|(index, text)| Some((index, note(text)?)));
            breaches.extend(lines.map(|(index, word)| file.breach_at_line(comment.line + index, word, MEND)));
        }
        if !file.path.ends_with(".rs") {
            let lines = file.text.lines().enumerate().filter_map(|(index, text)| Some((index + 1, note(text)?)));
            breaches.extend(lines.map(|(line, word)| file.breach_at_line(line, word, MEND)));
        }
        for at in 0..file.code.len() {
            let left = ["todo", "unimplemented", "dbg"].iter().find(|name| file.matches(at, &[name, "!"]));
            breaches.extend(left.map(|name| file.breach(at, format!("`{name}!`"), MEND)));
        }
    }
    breaches
}

/// Every test runs: no `#[ignore]`, no doc example that is not compiled.
pub fn no_test_is_skipped(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "make the test small enough to run always; text that is no Rust is ```text";
    let mut breaches = Vec::new();
    for file in tree.rust() {
        let skipped = (0..file.code.len()).filter(|&at| file.matches(at, &["#", "[", "ignore"]));
        breaches.extend(skipped.map(|at| file.breach(at, "`#[ignore]`", MEND)));
        for comment in &file.comments {
            let lines = comment.text.lines().enumerate();
            let fences =
                lines.filter(|(_, text)| text.trim_start_matches(['/', '!', '*', ' ']).starts_with("```ignore"));
            breaches.extend(fences.map(|(i, _)| file.breach_at_line(comment.line + i, "an ignored doc example", MEND)));
        }
    }
    breaches
}

/// Nothing a user can send panics: `expect`, `panic!` and `unreachable!` carry a reason, `unwrap` has none.
pub fn panics_have_a_reason(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "return an error with data and a hint; if it truly cannot happen, write `expect` with a comment \
                        `// INFALLIBLE: why` on the same line or the lines above";
    let mut breaches = Vec::new();
    for file in tree.sources() {
        for at in file.live() {
            let reasoned =
                [&[".", "expect", "("][..], &["panic", "!"], &["unreachable", "!"], &[".", "expect_err", "("]];
            let bare = [&[".", "unwrap", "("][..], &[".", "unwrap_err", "("], &[".", "unwrap_unchecked", "("]];
            let needs_reason = reasoned.iter().any(|pattern| file.matches(at, pattern));
            let has_reason = needs_reason && reason_above(file, file.code[at].line, 1, "// INFALLIBLE:");
            if bare.iter().any(|pattern| file.matches(at, pattern)) || (needs_reason && !has_reason) {
                let name = if file.code[at].is(".") { &file.code[at + 1].text } else { &file.code[at].text };
                breaches.push(file.breach(at, format!("`{name}` without a reason"), MEND));
            }
        }
    }
    breaches
}

/// Does a comment that opens with `mark` stand on `line`, or end at most `reach` lines above it? Adjoining comment lines
/// count as one comment; one that trails other code speaks of that code only.
fn reason_above(file: &SourceFile, line: usize, reach: usize, mark: &str) -> bool {
    let mut reach_line = line.saturating_sub(reach);
    for comment in file.comments.iter().rev().filter(|comment| comment.line <= line) {
        let trails_code = comment.line != line && file.code.iter().any(|token| token.line == comment.line);
        if comment.end_line < reach_line || trails_code {
            return false;
        }
        if comment.text.starts_with(mark) && !comment.text.trim_start_matches(mark).trim().is_empty() {
            return true;
        }
        reach_line = reach_line.min(comment.line.saturating_sub(1));
    }
    false
}

/// Every `unsafe` block, function, trait and implementation says within 6 lines above why it is sound.
pub fn unsafe_says_why(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "write `// SAFETY: …` above: which condition must hold and who upholds it";
    const REACH: usize = 6;
    let mut breaches = Vec::new();
    for file in tree.sources() {
        for at in (0..file.code.len()).filter(|&at| file.code[at].is("unsafe")) {
            let opens = ["{", "impl", "trait", "extern"].iter().any(|next| file.matches(at + 1, &[next]));
            let function = file.matches(at + 1, &["fn"]) && !file.matches(at + 2, &["("]);
            let lines = file.code[at].line.saturating_sub(REACH)..=file.code[at].line;
            let mut near = file.comments.iter().filter(|comment| lines.contains(&comment.end_line));
            let says_why = near.any(|comment| comment.text.contains("SAFETY") || comment.text.contains("# Safety"));
            if (opens || function) && !says_why {
                breaches.push(file.breach(at, "`unsafe` without a SAFETY comment", MEND));
            }
        }
    }
    breaches
}

/// No lint is silenced in the sources.
pub fn no_lint_is_silenced(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "mend what the lint found; too many arguments want a struct";
    let mut breaches = Vec::new();
    for file in tree.rust().filter(|file| file.is_in(&["src/", "benches/", "build.rs"])) {
        for (start, end, _) in attributes(&file.code) {
            let silenced =
                (start..end).find(|&at| file.matches(at, &["allow", "("]) || file.matches(at, &["expect", "("]));
            breaches.extend(silenced.map(|at| file.breach(at, "an attribute silences a lint", MEND)));
        }
    }
    breaches
}

/// No name that says nothing (`utils`) and none with a version in it (`manager2`, `CacheV2`).
pub fn names_say_something(tree: &Tree) -> Vec<Breach> {
    const MEND: &str = "name it after what it does; put a function beside the type it serves";
    const VAGUE: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "misc", "manager2", "stuff"];
    const TYPES: [&str; 4] = ["struct", "enum", "trait", "type"];
    let mut breaches = Vec::new();
    for file in tree.rust() {
        let parts = file.path.trim_end_matches(".rs").split('/');
        let vague = |name: &str| VAGUE.contains(&name) || name.ends_with("_v2");
        // Families of models keep the name their configuration gives them.
        let versioned_family = file.is_in(&["src/model/arch/"]);
        for name in parts.filter(|name| vague(name) && !(versioned_family && name.ends_with("_v2"))) {
            breaches.push(file.breach_at_line(1, format!("a file or folder named `{name}`"), MEND));
        }
        for at in (1..file.code.len()).filter(|&at| file.code[at].kind == Kind::Ident) {
            let (before, name) = (&file.code[at - 1], &file.code[at].text);
            let inline_module = before.is("mod") && vague(name) && file.matches(at + 1, &["{"]);
            let version = name.ends_with("V2") || name.ends_with("Manager2");
            if inline_module || (version && !versioned_family && TYPES.iter().any(|keyword| before.is(keyword))) {
                breaches.push(file.breach(at, format!("something named `{name}`"), MEND));
            }
        }
    }
    breaches
}

#[test]
fn leftovers_and_skipped_tests_are_found() {
    let text = "/* a\n FIXME: b */\nlet c = \"TODO\";\nfn d() { todo!() }\nlet todo = 1; // done\n";
    let note = format!("// {}\n", ["TO", "DO"].concat());
    let files = [("tests/a.rs", text), ("kernels/a.cu", note.as_str()), ("src/b.rs", "// AXXXB methodical\n")];
    assert_eq!(places(nothing_is_left_undone, &files), ["tests/a.rs:2", "tests/a.rs:4", "kernels/a.cu:1"]);
    let text = "#[test]\n#[ignore = \"slow\"]\nfn a() {}\n/// ```ignore\n/// b\n/// ```text\nfn ignore() {}";
    assert_eq!(places(no_test_is_skipped, &[("tests/a.rs", text)]), ["tests/a.rs:2", "tests/a.rs:4"]);
}

#[test]
fn panics_without_a_reason_are_found() {
    let text = "a.unwrap();\n\n// INFALLIBLE: one byte is\n// always there\na.expect(\"b\");\na.expect(\"c\");\n\
                a.expect(\"d\"); // INFALLIBLE: checked above\n// INFALLIBLE:\npanic!();\na.unwrap_or(1);\n\
                #[cfg(test)]\nmod t { fn u() { a.unwrap(); } }\nx // other\n    .expect(\"e\");";
    let files = [("src/a.rs", text), ("tests/a.rs", text)];
    let expected = ["src/a.rs:1", "src/a.rs:6", "src/a.rs:9", "src/a.rs:14"];
    assert_eq!(places(panics_have_a_reason, &files), expected);
}

#[test]
fn unsafe_without_a_reason_is_found() {
    let far = "\n".repeat(7);
    let text = format!(
        "// SAFETY: a\nunsafe {{}}\n{far}unsafe fn b() {{}}\n{far}/// # Safety\n/// c\n#[inline]\nunsafe fn d() {{}}\n\
         type E = unsafe fn(u8);\n{far}unsafe impl Send for F {{}}"
    );
    assert_eq!(places(unsafe_says_why, &[("src/a.rs", &text)]), ["src/a.rs:10", "src/a.rs:30"]);
}

#[test]
fn silenced_lints_and_vague_names_are_found() {
    let text =
        "#![allow(dead_code)]\n#[cfg_attr(unix, expect(unused))]\n#[derive(Debug)]\nstruct A;\nfn allow(a: u8) {}";
    assert_eq!(places(no_lint_is_silenced, &[("src/a.rs", text)]), ["src/a.rs:1", "src/a.rs:2"]);
    let files = [
        ("src/utils.rs", ""),
        ("src/ops/helpers/mod.rs", "\nmod common {}"),
        ("src/engine/a.rs", "struct CacheV2;\nuse x::CacheV2;"),
        ("src/model/arch/deepseek_v2.rs", "struct DeepseekV2;"),
    ];
    let expected = ["src/utils.rs:1", "src/ops/helpers/mod.rs:1", "src/ops/helpers/mod.rs:2", "src/engine/a.rs:1"];
    assert_eq!(places(names_say_something, &files), expected);
}

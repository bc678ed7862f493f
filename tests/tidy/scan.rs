//! A small Rust lexer: source text to tokens with line numbers, so that no rule is fooled by a comment or a string.
//! Knows the lexical grammar only; it deliberately does not know items, types or macros, and never fails: what it cannot
//! read becomes punctuation.

/// What a token is. Comments are tokens too: rules about reasons (`SAFETY`, `INFALLIBLE`) read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ident,
    Lifetime,
    Number,
    /// A string literal of any sort; the token's text is what stands between the quotes, escapes untouched.
    Text,
    /// A character or byte literal; the token's text includes the quotes.
    Char,
    /// One character, or `::`.
    Punct,
    /// A comment of any sort with its slashes.
    Comment,
}

/// One token; lines count from 1, and `end_line` differs from `line` only in literals and comments over several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    pub line: usize,
    pub end_line: usize,
}

impl Token {
    /// Is this the identifier or punctuation `text`? Never true of literals and comments.
    pub fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Ident | Kind::Punct) && self.text == text
    }
}

/// A lexeme at the start of a rest: how many bytes it takes, and which of them are its text.
struct Lexeme {
    kind: Option<Kind>,
    size_bytes: usize,
    text: std::ops::Range<usize>,
}

impl Lexeme {
    fn whole(kind: Kind, size_bytes: usize) -> Self {
        Self { kind: Some(kind), size_bytes, text: 0..size_bytes }
    }
}

/// All tokens of `source` in order, whitespace left out.
pub fn lex(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let lexeme = lexeme(rest, first);
        let (taken, after) = rest.split_at(lexeme.size_bytes.clamp(first.len_utf8(), rest.len()));
        let end_line = line + taken.matches('\n').count();
        if let Some(kind) = lexeme.kind {
            let text = taken.get(lexeme.text).unwrap_or(taken).to_owned();
            tokens.push(Token { kind, text, line, end_line });
        }
        line = end_line;
        rest = after;
    }
    tokens
}

fn lexeme(rest: &str, first: char) -> Lexeme {
    if first.is_whitespace() {
        return Lexeme { kind: None, size_bytes: first.len_utf8(), text: 0..0 };
    }
    if rest.starts_with("//") {
        return Lexeme::whole(Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Lexeme::whole(Kind::Comment, block_comment_size(rest));
    }
    if let Some(text) = text_literal(rest).or_else(|| quoted(rest)) {
        return text;
    }
    if let Some(name) = rest.strip_prefix("r#").map(ident_size).filter(|&size| size > 0) {
        return Lexeme { kind: Some(Kind::Ident), size_bytes: 2 + name, text: 2..2 + name };
    }
    if first.is_ascii_digit() {
        return Lexeme::whole(Kind::Number, number_size(rest));
    }
    match ident_size(rest) {
        0 if rest.starts_with("::") => Lexeme::whole(Kind::Punct, 2),
        0 => Lexeme::whole(Kind::Punct, first.len_utf8()),
        size => Lexeme::whole(Kind::Ident, size),
    }
}

/// Bytes of the identifier or keyword at the start; 0 if there is none.
fn ident_size(rest: &str) -> usize {
    if rest.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
    } else {
        0
    }
}

/// `1_000u64`, `0xff` and `1.5` are one number; `0..5` and `1.max(2)` end theirs before the dot.
fn number_size(rest: &str) -> usize {
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let whole = word(rest);
    match rest.get(whole..).and_then(|after| after.strip_prefix('.')) {
        Some(fraction) if fraction.starts_with(|c: char| c.is_ascii_digit()) => whole + 1 + word(fraction),
        _ => whole,
    }
}

/// Block comments nest in Rust; one that never ends takes the rest of the file.
fn block_comment_size(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// `"…"`, `b"…"`, `c"…"`, `r"…"`, `r#"…"#` and their byte and C twins.
fn text_literal(rest: &str) -> Option<Lexeme> {
    for (prefix, raw) in [("br", true), ("cr", true), ("r", true), ("b", false), ("c", false), ("", false)] {
        let Some(after) = rest.strip_prefix(prefix) else { continue };
        let hashes = if raw { after.len() - after.trim_start_matches('#').len() } else { 0 };
        let Some(body) = after.get(hashes..).and_then(|text| text.strip_prefix('"')) else { continue };
        let start = prefix.len() + hashes + 1;
        let close = format!("\"{}", "#".repeat(hashes));
        let length = if raw { body.find(&close) } else { unescaped(body, '"') }.unwrap_or(body.len());
        let size_bytes = (start + length + close.len()).min(rest.len());
        return Some(Lexeme { kind: Some(Kind::Text), size_bytes, text: start..start + length });
    }
    None
}

/// Byte offset of the first `quote` that no backslash escapes.
fn unescaped(body: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        if c == quote && !escaped {
            return Some(at);
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// `'x'`, `b'x'` and `'\u{1F600}'` are characters; `'a` without a closing quote is a lifetime or a loop label.
fn quoted(rest: &str) -> Option<Lexeme> {
    let prefix = usize::from(rest.starts_with("b'"));
    let body = rest.get(prefix..)?.strip_prefix('\'')?;
    let first = body.chars().next()?;
    let start = prefix + 1;
    if first == '\\' {
        return unescaped(body, '\'').map(|length| Lexeme::whole(Kind::Char, start + length + 1));
    }
    if body.get(first.len_utf8()..).is_some_and(|after| after.starts_with('\'')) {
        return Some(Lexeme::whole(Kind::Char, start + first.len_utf8() + 1));
    }
    match ident_size(body) {
        0 => None,
        size => Some(Lexeme::whole(Kind::Lifetime, start + size)),
    }
}

fn shown(source: &str) -> Vec<(Kind, String)> {
    lex(source).into_iter().map(|token| (token.kind, token.text)).collect()
}

fn owned(expected: &[(Kind, &str)]) -> Vec<(Kind, String)> {
    expected.iter().map(|&(kind, text)| (kind, text.to_owned())).collect()
}

#[test]
fn paths_and_numbers_are_tokens_of_their_own() {
    use Kind::{Ident, Number, Punct};
    assert_eq!(shown("a::b"), owned(&[(Ident, "a"), (Punct, "::"), (Ident, "b")]));
    assert_eq!(shown("0..5"), owned(&[(Number, "0"), (Punct, "."), (Punct, "."), (Number, "5")]));
    assert_eq!(shown("1.5f32"), owned(&[(Number, "1.5f32")]));
    assert_eq!(shown("1.max"), owned(&[(Number, "1"), (Punct, "."), (Ident, "max")]));
    assert_eq!(shown("r#type"), owned(&[(Ident, "type")]));
}

#[test]
fn strings_hide_what_looks_like_code() {
    assert_eq!(shown(r#""a \" unwrap() {" x"#), owned(&[(Kind::Text, r#"a \" unwrap() {"#), (Kind::Ident, "x")]));
    assert_eq!(shown(r####"r##"a "# b"## y"####), owned(&[(Kind::Text, r##"a "# b"##), (Kind::Ident, "y")]));
    assert_eq!(shown(r#"b"\\" z"#), owned(&[(Kind::Text, r"\\"), (Kind::Ident, "z")]));
    assert_eq!(shown("\"never closed"), owned(&[(Kind::Text, "never closed")]));
}

#[test]
fn characters_and_lifetimes_are_told_apart() {
    let kinds = |source| lex(source).iter().map(|token| token.kind).collect::<Vec<_>>();
    assert_eq!(kinds("'{'"), [Kind::Char]);
    assert_eq!(kinds(r"'\''"), [Kind::Char]);
    assert_eq!(kinds(r"b'\\'"), [Kind::Char]);
    assert_eq!(kinds(r"'\u{1F600}'"), [Kind::Char]);
    assert_eq!(kinds("'ก' 'አ' '😀'"), [Kind::Char; 3]);
    assert_eq!(kinds("<'a,'b>"), [Kind::Punct, Kind::Lifetime, Kind::Punct, Kind::Lifetime, Kind::Punct]);
    assert_eq!(kinds("'outer: loop"), [Kind::Lifetime, Kind::Punct, Kind::Ident]);
}

#[test]
fn comments_nest_and_lines_are_counted() {
    let tokens = lex("/* a /* b */\n c */ x // \"y\n\"z\n\" w");
    let lines = tokens.iter().map(|token| (token.kind, token.line, token.end_line)).collect::<Vec<_>>();
    let expected =
        [(Kind::Comment, 1, 2), (Kind::Ident, 2, 2), (Kind::Comment, 2, 2), (Kind::Text, 3, 4), (Kind::Ident, 4, 4)];
    assert_eq!(lines, expected);
}

#[test]
fn text_in_many_scripts_keeps_its_bytes() {
    let source = "let s = \"مرحبا नमस्ते สวัสดี ሰላም 你好 👩‍🌾 e\u{301}\"; // ሰላም\nnext";
    let tokens = lex(source);
    assert!(tokens.iter().any(|token| token.kind == Kind::Text && token.text.ends_with("e\u{301}")));
    assert_eq!(tokens.last().map(|token| (token.text.as_str(), token.line)), Some(("next", 2)));
}

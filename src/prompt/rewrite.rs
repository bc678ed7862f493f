//! Template sources as the renderer wants them: where Jinja2 reads or runs a source otherwise than minijinja does, the source
//! is changed so that both do the same. Line breaks stay where they are, so that errors name the right line.
//!
//! - `{% generation %}` … `{% endgeneration %}`, Transformers' mask for training, renders as its body: it becomes a `with`
//!   block, which has the same scope. `-` and `+` markers stay.
//! - `{% for x in value %}` over what Python cannot iterate is an error: `value` goes through the filter [`ITERATE`].
//! - In string literals an unknown escape (`\/`) keeps its backslash, and `\UXXXXXXXX` is a character.
//! - `\r\n` counts as `\n`.
//!
//! Knows Jinja's tags, strings and brackets; knows nothing of what a template means.

/// Name of the filter around what a `for` goes over.
pub(super) const ITERATE: &str = "__iterate";

/// See the module's text. A source that is not valid Jinja comes out as no better: the compiler tells what is wrong.
pub(super) fn rewrite(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() + 64);
    let mut rest = source.as_str();
    while let Some(at) = rest.find('{') {
        let (text, tag) = rest.split_at(at);
        out.push_str(text);
        let length = if let Some(body) = tag.strip_prefix("{#") {
            let length = 2 + body.find("#}").map_or(body.len(), |end| end + 2);
            out.push_str(head(tag, length));
            length
        } else if tag.starts_with("{%") {
            let length = tag_length(tag, "%}");
            match head(tag, length) {
                whole if word(whole) == "raw" => {
                    let length = length + raw_length(rest_of(tag, length));
                    out.push_str(head(tag, length));
                    rest = rest_of(tag, length);
                    continue;
                }
                whole => out.push_str(&block(whole)),
            }
            length
        } else if tag.starts_with("{{") {
            let length = tag_length(tag, "}}");
            out.push_str(&literals(head(tag, length)));
            length
        } else {
            out.push('{');
            1
        };
        rest = rest_of(tag, length);
    }
    out.push_str(rest);
    out
}

fn head(text: &str, bytes: usize) -> &str {
    text.get(..bytes).unwrap_or(text)
}

fn rest_of(text: &str, bytes: usize) -> &str {
    text.get(bytes..).unwrap_or_default()
}

/// Bytes of a tag up to the end of `close`, which counts outside of strings and, for `}}`, of brackets.
fn tag_length(tag: &str, close: &str) -> usize {
    let mut depth = 0usize;
    for (at, c, in_string) in tokens(rest_of(tag, 2)) {
        if in_string {
            continue;
        }
        if depth == 0 && rest_of(tag, 2 + at).starts_with(close) {
            return 2 + at + close.len();
        }
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    tag.len()
}

/// Bytes of a raw block's body with the tag that ends it.
fn raw_length(body: &str) -> usize {
    let mut from = 0;
    while let Some(at) = rest_of(body, from).find("{%") {
        let length = tag_length(rest_of(body, from + at), "%}");
        if word(head(rest_of(body, from + at), length)) == "endraw" {
            return from + at + length;
        }
        from += at + 2;
    }
    body.len()
}

/// The characters of a piece of Jinja code with their byte offsets, each with whether it belongs to a string literal, its
/// quotes included.
fn tokens(code: &str) -> impl Iterator<Item = (usize, char, bool)> {
    let (mut quote, mut escaped) = (None, false);
    code.char_indices().map(move |(at, c)| {
        let inside = quote.is_some();
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            _ => {}
        }
        (at, c, inside || quote.is_some())
    })
}

/// The code of a block tag, without `{%`, `%}` and their markers.
fn inner(tag: &str) -> &str {
    let inner = tag.strip_prefix("{%").unwrap_or(tag);
    let inner = inner.strip_suffix("%}").unwrap_or(inner);
    inner
        .strip_prefix(['-', '+'])
        .unwrap_or(inner)
        .strip_suffix(['-', '+'])
        .unwrap_or_else(|| inner.strip_prefix(['-', '+']).unwrap_or(inner))
}

/// The first word of a block tag.
fn word(tag: &str) -> &str {
    let code = inner(tag).trim_start();
    head(code, code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len()))
}

fn block(tag: &str) -> String {
    match word(tag) {
        _ if !tag.ends_with("%}") => tag.to_owned(),
        "generation" if inner(tag).trim() == "generation" => tag.replacen("generation", "with", 1),
        "endgeneration" if inner(tag).trim() == "endgeneration" => tag.replacen("endgeneration", "endwith", 1),
        "for" => literals(&guard_for(tag).unwrap_or_else(|| tag.to_owned())),
        _ => literals(tag),
    }
}

/// `for x in value if …` with `value` in brackets and piped through [`ITERATE`].
fn guard_for(tag: &str) -> Option<String> {
    let code = inner(tag);
    let start = tag.find(code)?;
    let (mut words, mut depth) = (Vec::new(), 0usize);
    let mut open: Option<usize> = None;
    for (at, c, in_string) in tokens(code) {
        let in_word = !in_string && (c.is_alphanumeric() || c == '_' || c == '.');
        match (in_word, open) {
            (true, None) => open = Some(at),
            (false, Some(from)) => {
                words.extend((depth == 0).then_some((from, at)));
                open = None;
            }
            _ => {}
        }
        match c {
            _ if in_string => {}
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    words.extend(open.filter(|_| depth == 0).map(|from| (from, code.len())));
    let is = |&(from, to): &(usize, usize), name: &str| code.get(from..to) == Some(name);
    let first = words.iter().position(|word| is(word, "in"))?;
    let from = words.get(first)?.1;
    let ends = words.get(first + 1..)?.iter().find(|word| is(word, "if") || is(word, "recursive"));
    let to = ends.map_or(code.len(), |&(at, _)| at);
    let value = code.get(from..to).filter(|value| !value.trim().is_empty())?;
    let (before, after) = (head(tag, start + from), rest_of(tag, start + to));
    Some(format!("{before} ({value})|{ITERATE} {after}"))
}

/// The same code with its string literals as Jinja2 reads them.
fn literals(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut escaped = false;
    let mut skip = 0usize;
    for (at, c, in_string) in tokens(code) {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        if !in_string || !(escaped || c == '\\') {
            out.push(c);
            continue;
        }
        if !escaped {
            escaped = true;
            continue;
        }
        escaped = false;
        let long = (c == 'U').then(|| code.get(at + 1..at + 9)).flatten();
        match long.and_then(|hex| char::from_u32(u32::from_str_radix(hex, 16).ok()?)) {
            Some(long) => {
                out.push(long);
                skip = 8;
            }
            None if matches!(
                c,
                '\\' | '\'' | '"' | 'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | 'x' | 'u' | '0'..='7'
            ) =>
            {
                out.extend(['\\', c]);
            }
            // Python drops a backslash at the end of a line together with the line's end.
            None if c == '\n' => {}
            None => out.extend(['\\', '\\', c]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_become_scopes() {
        let source = "{%- generation -%}a{% generation %}b{%+ endgeneration +%}{% endgeneration-%}{{ generation }}";
        assert_eq!(rewrite(source), "{%- with -%}a{% with %}b{%+ endwith +%}{% endwith-%}{{ generation }}");
    }

    #[test]
    fn what_a_loop_goes_over_is_guarded() {
        let guarded = |value: &str| format!("{{% for a in ({value})|__iterate %}}");
        assert_eq!(rewrite("{% for a in b %}"), guarded(" b "));
        assert_eq!(
            rewrite("{%- for a, b in c.items() if a in b recursive -%}"),
            "{%- for a, b in ( c.items() )|__iterate if a in b recursive -%}"
        );
        assert_eq!(rewrite("{% for a in (x if y else z) %}"), guarded(" (x if y else z) "));
        assert_eq!(rewrite("{% for a in 'x if %} y' if a%}"), "{% for a in ( 'x if %} y' )|__iterate if a%}");
        assert_eq!(rewrite("{% for a in b.if_in[in] %}"), guarded(" b.if_in[in] "));
    }

    #[test]
    fn comments_raw_blocks_and_strings_are_left_alone() {
        for source in [
            "{# {% generation %} {% for a in b %} #}x",
            "{% raw -%} {% generation %} {{ '\\/' }} {%- endraw %}",
            "{{ '{% generation %}' ~ \"it's\" ~ '%}' }} {% generation",
            "{ {} {",
            "{{ {'a': {'b': 1}} }}",
        ] {
            assert_eq!(rewrite(source), source);
        }
    }

    #[test]
    fn literals_are_read_as_in_python() {
        assert_eq!(rewrite(r"{{ '\d\/\n\\\'\u00e9' }}\/"), r"{{ '\\d\\/\n\\\'\u00e9' }}\/");
        assert_eq!(rewrite(r"{% if x == '\U0001f600' %}"), "{% if x == '😀' %}");
        assert_eq!(rewrite("a\r\nb\rc"), "a\nb\nc");
    }
}

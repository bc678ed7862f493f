//! The bits of Python that chat templates lean on: `json.dumps`, `strftime`, a few string methods. Follows CPython's
//! documented behaviour; knows nothing of templates' variables or of tokenizers.

use jiff::civil::DateTime;
use minijinja::value::{Kwargs, Tuple, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use serde_json::Value as Json;

/// How `json.dumps` is to write.
struct Dumps {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// The `tojson` filter as Transformers defines it: `json.dumps` with `ensure_ascii=False` and no HTML escaping.
/// Arguments, by position or name: `ensure_ascii, indent, separators, sort_keys`.
pub(super) fn tojson(
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    separators: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::BadSerialization, "an undefined value is not JSON serialisable"));
    }
    let named = |positional: Option<Value>, name: &str| match positional {
        Some(value) => Ok(Some(value)),
        None => kwargs.get::<Option<Value>>(name),
    };
    let ensure_ascii = named(ensure_ascii, "ensure_ascii")?.is_some_and(|flag| flag.is_true());
    let indent = match named(indent, "indent")?.filter(|value| !value.is_none()) {
        None => None,
        Some(value) => Some(match value.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(value)?.min(64)),
        }),
    };
    let (mut item_separator, mut key_separator) =
        (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    if let Some(pair) = named(separators, "separators")?.filter(|value| !value.is_none()) {
        item_separator = pair.get_item(&Value::from(0))?.to_string();
        key_separator = pair.get_item(&Value::from(1))?.to_string();
    }
    let sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let json = serde_json::to_value(value)
        .map_err(|err| Error::new(ErrorKind::BadSerialization, format!("cannot write as JSON: {err}")))?;
    let mut out = String::new();
    Dumps { ensure_ascii, indent, item_separator, key_separator, sort_keys }.write(&json, 0, &mut out);
    Ok(Value::from(out))
}

impl Dumps {
    fn write(&self, json: &Json, depth: usize, out: &mut String) {
        match json {
            Json::Null => out.push_str("null"),
            Json::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Json::Number(number) => match (number.is_f64(), number.as_f64()) {
                (true, Some(float)) => out.push_str(&float_repr(float)),
                _ => out.push_str(&number.to_string()),
            },
            Json::String(text) => self.write_string(text, out),
            Json::Array(items) if items.is_empty() => out.push_str("[]"),
            Json::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.next_item(index, depth + 1, out);
                    self.write(item, depth + 1, out);
                }
                self.break_line(depth, out);
                out.push(']');
            }
            Json::Object(map) if map.is_empty() => out.push_str("{}"),
            Json::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sort_keys {
                    entries.sort_by(|a, b| a.0.cmp(b.0));
                }
                out.push('{');
                for (index, (key, item)) in entries.into_iter().enumerate() {
                    self.next_item(index, depth + 1, out);
                    self.write_string(key, out);
                    out.push_str(&self.key_separator);
                    self.write(item, depth + 1, out);
                }
                self.break_line(depth, out);
                out.push('}');
            }
        }
    }

    fn next_item(&self, index: usize, depth: usize, out: &mut String) {
        if index > 0 {
            out.push_str(&self.item_separator);
        }
        self.break_line(depth, out);
    }

    fn break_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    }

    fn write_string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// Python's `repr(float)`: shortest digits, exponent form below 1e-4 and from 1e16.
fn float_repr(float: f64) -> String {
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{float:?}"),
    }
}

/// Python's `datetime.strftime` (C locale, naive time: `%z` and `%Z` are empty) at `moment`.
///
/// # Errors
/// A directive that jiff does not know.
pub(super) fn strftime(moment: DateTime, format: &str) -> Result<String, Error> {
    let mut translated = String::with_capacity(format.len());
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            translated.push(c);
            continue;
        }
        match chars.next() {
            Some('z' | 'Z') => {}
            Some('f') => translated.push_str("000000"),
            Some('c') => translated.push_str("%a %b %e %H:%M:%S %Y"),
            Some('x') => translated.push_str("%m/%d/%y"),
            Some('X') => translated.push_str("%H:%M:%S"),
            Some(other) => translated.extend(['%', other]),
            None => translated.push_str("%%"),
        }
    }
    jiff::fmt::strtime::format(&translated, moment)
        .map_err(|err| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {err}")))
}

/// What `str.strip()` takes off: whitespace in Python's sense, which counts four control characters more than Unicode does.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.rstrip()`.
pub(super) fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// Methods of Python values: minijinja's own set, plus string methods that templates use and it lacks.
pub(super) fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args);
    };
    match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            Ok(triple(text.split_once(separator).map(|(a, b)| [a, separator, b]).unwrap_or([text, "", ""])))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            Ok(triple(text.rsplit_once(separator).map(|(a, b)| [a, separator, b]).unwrap_or(["", "", text])))
        }
        "rsplit" => {
            let (separator, max): (&str, Option<i64>) = from_args(args)?;
            let limit = max.and_then(|max| usize::try_from(max).ok()).map_or(usize::MAX, |max| max.saturating_add(1));
            let mut parts: Vec<&str> = text.rsplitn(limit, separator).collect();
            parts.reverse();
            Ok(parts.into_iter().map(Value::from).collect())
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn triple(parts: [&str; 3]) -> Value {
    Value::from(Tuple::from(parts.map(Value::from)))
}

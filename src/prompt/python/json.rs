//! The `tojson` filter of chat templates: Python's `json.dumps` of a template value. Knows no template.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::display::{check_size, float_repr};

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
        return Err(not_serialisable("an undefined value"));
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
    let mut out = String::new();
    Dumps { ensure_ascii, indent, item_separator, key_separator, sort_keys }.write(value, 0, &mut out)?;
    Ok(Value::from(out))
}

impl Dumps {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        check_size(depth, out.len())?;
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.write_string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let mut num_items = 0;
                out.push('[');
                for item in value.try_iter()? {
                    self.next_item(num_items, depth + 1, out);
                    self.write(&item, depth + 1, out)?;
                    num_items += 1;
                }
                self.close(num_items, depth, ']', out);
            }
            ValueKind::Map => {
                let mut entries = value
                    .try_iter()?
                    .map(|key| Ok((self.key(&key)?, value.get_item(&key)?)))
                    .collect::<Result<Vec<_>, Error>>()?;
                if self.sort_keys {
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                }
                out.push('{');
                for (index, (key, item)) in entries.iter().enumerate() {
                    self.next_item(index, depth + 1, out);
                    self.write_string(key, out);
                    out.push_str(&self.key_separator);
                    self.write(item, depth + 1, out)?;
                }
                self.close(entries.len(), depth, '}', out);
            }
            kind => return Err(not_serialisable(&format!("a value of type {kind}"))),
        }
        Ok(())
    }

    /// A mapping's key as a string: numbers, booleans and None are written as JSON writes them.
    fn key(&self, key: &Value) -> Result<String, Error> {
        match key.kind() {
            ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                let mut text = String::new();
                self.write(key, 0, &mut text)?;
                Ok(text)
            }
            kind => Err(not_serialisable(&format!("a key of type {kind}"))),
        }
    }

    fn close(&self, num_items: usize, depth: usize, bracket: char, out: &mut String) {
        if num_items > 0 {
            self.break_line(depth, out);
        }
        out.push(bracket);
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

fn not_serialisable(what: &str) -> Error {
    Error::new(ErrorKind::BadSerialization, format!("{what} cannot be written as JSON"))
}

/// A number as `json.dumps` writes it.
fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => match float {
            float if float.is_nan() => "NaN".to_owned(),
            float if float == f64::INFINITY => "Infinity".to_owned(),
            float if float == f64::NEG_INFINITY => "-Infinity".to_owned(),
            float => float_repr(float),
        },
        _ => value.to_string(),
    }
}

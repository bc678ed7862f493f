//! `str` and `repr` of template values as Python has them. Knows values; knows nothing of templates.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Containers inside containers that are written out; Python itself gives up at about a thousand.
const MAX_DEPTH: usize = 200;

/// Bytes that one value may be written out to: a list that holds another twice, that one a third twice and so on is small in
/// memory and endless in print.
const MAX_BYTES: usize = 1 << 23;

/// `str(value)`; nothing for an undefined value.
///
/// # Errors
/// If the text is longer than [`MAX_BYTES`] or the value nested deeper than [`MAX_DEPTH`].
pub(super) fn str_of(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        _ => {
            let mut out = String::new();
            repr(value, 0, &mut out)?;
            Ok(out)
        }
    }
}

/// The error of a value that is too large or too deep to be written out.
pub(super) fn check_size(depth: usize, num_bytes: usize) -> Result<(), Error> {
    if depth < MAX_DEPTH && num_bytes <= MAX_BYTES {
        return Ok(());
    }
    let message =
        format!("a value is nested deeper than {MAX_DEPTH} or longer than {MAX_BYTES} bytes when written out");
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// True if [`str_of`] and the renderer's own form can differ.
pub(super) fn differs(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => true,
        ValueKind::Number => !value.is_integer(),
        _ => false,
    }
}

/// Appends `repr(value)`.
fn repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    check_size(depth, out.len())?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::String => repr_str(value.as_str().unwrap_or_default(), out),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.push_str(&float_repr(number)),
            Err(_) => _ = write!(out, "{value}"),
        },
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?;
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            let mut num_items = 0;
            for item in items {
                if num_items > 0 {
                    out.push_str(", ");
                }
                repr(&item, depth + 1, out)?;
                num_items += 1;
            }
            out.push_str(match (tuple, num_items) {
                (true, 1) => ",)",
                (true, _) => ")",
                (false, _) => "]",
            });
        }
        ValueKind::Map => {
            let keys = value.try_iter()?;
            out.push('{');
            for (index, key) in keys.enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                repr(&key, depth + 1, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key).unwrap_or_default(), depth + 1, out)?;
            }
            out.push('}');
        }
        _ => _ = write!(out, "{value}"),
    }
    Ok(())
}

/// `repr` of a string: single quotes unless it holds such and no double ones; what is not printable is escaped.
fn repr_str(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => {
                let code = c as u32;
                let _ = match code {
                    0..=0xFF => write!(out, "\\x{code:02x}"),
                    0x100..=0xFFFF => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// `str.isprintable` of one character. Rust's `escape_debug` decides by the same Unicode categories; a letter before the
/// character keeps combining marks from being escaped too.
pub(super) fn is_printable(c: char) -> bool {
    c == '\'' || c == '"' || c == '\\' || ['a', c].iter().collect::<String>().escape_debug().nth(1) == Some(c)
}

/// Python's `repr(float)`: shortest digits, exponent form below 1e-4 and from 1e16.
pub(super) fn float_repr(float: f64) -> String {
    if !float.is_finite() {
        return if float.is_nan() {
            "nan"
        } else if float > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
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

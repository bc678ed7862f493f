//! A JSON value as block-style YAML that every reader understands the same way. Knows no card.
//!
//! Every string is quoted, as JSON quotes it: YAML 1.1 reads a bare `no` (Norwegian) as false and a bare `1e3` as a number.

use std::fmt::Write;

use serde_json::Value;

/// YAML of a value, ending in a newline. Keys must be plain words; strings may hold anything.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    write_block(value, 0, &mut text);
    text
}

fn write_block(value: &Value, indent: usize, text: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, field) in fields {
                text.push_str(&pad);
                text.push_str(key);
                text.push(':');
                write_child(field, indent, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut block = String::new();
                write_block(item, indent + 2, &mut block);
                // The item's first line starts behind the dash.
                text.push_str(&pad);
                text.push_str("- ");
                text.push_str(block.trim_start_matches(' '));
            }
        }
        scalar => {
            text.push_str(&pad);
            text.push_str(&scalar_text(scalar));
            text.push('\n');
        }
    }
}

fn write_child(value: &Value, indent: usize, text: &mut String) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        text.push('\n');
        write_block(value, indent + 2, text);
    } else {
        text.push(' ');
        text.push_str(&scalar_text(value));
        text.push('\n');
    }
}

fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(string) => quoted(string),
        other => other.to_string(),
    }
}

/// A JSON string that is a YAML 1.1 double-quoted scalar too: characters that YAML calls not printable, and its line
/// separators, are escaped.
fn quoted(string: &str) -> String {
    let json = Value::String(string.to_string()).to_string();
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\u{7F}'..='\u{9F}' | '\u{2028}' | '\u{2029}' | '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}' => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            printable => text.push(printable),
        }
    }
    text
}

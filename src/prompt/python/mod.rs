//! What chat templates take from Python and Jinja2 and minijinja does otherwise: values as text, `json.dumps`, methods of
//! strings, a few filters and tests, `strftime`. Follows the documented behaviour of CPython, Jinja2 and Transformers' set-up;
//! knows nothing of dialogues or of tokenizers.
//!
//! Not followed: comparing values of unlike types (Python raises), `%` as a string's operator (refused here), how functions,
//! iterators and floats joined by `~` print.

mod display;
mod json;
mod strings;

use jiff::civil::DateTime;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

pub(super) use strings::{strip, strip_end};

/// Filters of minijinja's that Jinja2 has not: a template that uses one fails in Transformers, and so it does here.
const NOT_IN_JINJA2: [&str; 5] = ["bool", "chain", "lines", "split", "zip"];

/// Makes an environment print, filter, test and call methods as Jinja2 on Python does.
pub(super) fn install(environment: &mut Environment<'static>) {
    NOT_IN_JINJA2.iter().for_each(|name| environment.remove_filter(name));
    environment.remove_global("debug");
    environment.set_formatter(|out, state, value| match display::differs(value) {
        true => out.write_str(&display::str_of(value)?).map_err(Error::from),
        false => minijinja::escape_formatter(out, state, value),
    });
    environment.set_unknown_method_callback(strings::method);
    environment
        .add_function("cycler", |items: minijinja::value::Rest<Value>| minijinja_contrib::globals::cycler(items.0));
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.add_filter(super::rewrite::ITERATE, iterate);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", |value: &Value| display::str_of(value));
    environment.add_filter("list", |value: Value| match value.kind() {
        ValueKind::Undefined => Ok(Value::from(Vec::<Value>::new())),
        _ => Ok::<_, Error>(Value::from(iterate(value)?.try_iter()?.collect::<Vec<Value>>())),
    });
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("trim", |state: &mut State<'_, '_>, value: &Value, chars: Option<Value>| {
        let text = Value::from(display::str_of(value)?);
        strings::method(state, &text, "strip", &chars.into_iter().collect::<Vec<_>>())
    });
    environment.add_filter("wordcount", |text: &str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
    });
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", |value: &Value| match value.kind() {
        // `range` and slices are sequences in Python; the renderer has them as iterators.
        ValueKind::Map => true,
        _ => is_iterable(value),
    });
    environment.add_test("callable", |value: &Value| match value.kind() {
        ValueKind::Plain => value.as_object().is_some(),
        kind => kind == ValueKind::Undefined,
    });
}

fn is_iterable(value: &Value) -> bool {
    let kinds = [ValueKind::Undefined, ValueKind::String, ValueKind::Seq, ValueKind::Map, ValueKind::Iterable];
    kinds.contains(&value.kind())
}

/// The value, if Python can go over it.
fn iterate(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
            let kind = value.kind();
            Err(Error::new(ErrorKind::InvalidOperation, format!("a value of type {kind} is not iterable")))
        }
        _ => Ok(value),
    }
}

fn default(value: &Value, other: Option<Value>, lax: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let named_or = |given: Option<Value>, name: &str| match given {
        Some(given) => Ok::<_, Error>(Some(given)),
        None => named.get::<Option<Value>>(name),
    };
    let other = named_or(other, "default_value")?.unwrap_or_else(|| Value::from(""));
    let lax = named_or(lax, "boolean")?.is_some_and(|lax| lax.is_true());
    named.assert_all_used()?;
    Ok(if value.is_undefined() || (lax && !value.is_true()) { other } else { value.clone() })
}

/// Jinja2's `int`: what is no number gives the default.
fn int(value: &Value, default: Option<Value>, base: Option<u32>, named: Kwargs) -> Result<Value, Error> {
    let default = default.map_or_else(|| named.get::<Option<Value>>("default"), |given| Ok(Some(given)))?;
    let base = base.map_or_else(|| named.get::<Option<u32>>("base"), |given| Ok(Some(given)))?.unwrap_or(10);
    named.assert_all_used()?;
    if !(2..=36).contains(&base) {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("int: base is {base}, want 2 to 36")));
    }
    let found = match value.as_str().filter(|_| value.kind() == ValueKind::String).map(strip) {
        Some(text) => {
            let digits = text.replace('_', "").to_ascii_lowercase();
            let prefix = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find(|(_, of)| *of == base);
            let digits = prefix.and_then(|(prefix, _)| digits.strip_prefix(prefix)).unwrap_or(&digits);
            i128::from_str_radix(digits, base).ok().or_else(|| text.parse::<f64>().ok().and_then(truncated))
        }
        None if value.is_integer() => return Ok(value.clone()),
        None => f64::try_from(value.clone()).ok().filter(|_| value.kind() == ValueKind::Number).and_then(truncated),
    };
    let found = found.or_else(|| (value.kind() == ValueKind::Bool).then(|| i128::from(value.is_true())));
    Ok(found.map(Value::from).unwrap_or_else(|| default.unwrap_or_else(|| Value::from(0))))
}

fn truncated(number: f64) -> Option<i128> {
    number.is_finite().then_some(number.trunc() as i128)
}

/// Jinja2's `float`: what is no number gives the default.
fn float(value: &Value, default: Option<f64>) -> f64 {
    let text = value.as_str().filter(|_| value.kind() == ValueKind::String);
    let found = match (text, value.kind()) {
        (Some(text), _) => strip(text).replace('_', "").parse().ok(),
        (None, ValueKind::Number) => f64::try_from(value.clone()).ok(),
        (None, ValueKind::Bool) => Some(f64::from(u8::from(value.is_true()))),
        _ => None,
    };
    found.or(default).unwrap_or(0.0)
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

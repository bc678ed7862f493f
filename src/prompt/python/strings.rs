//! Methods of Python's strings, lists and dicts, as templates call them, with their named arguments.
//! Follows CPython's documented behaviour; knows no template.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::display::is_printable;

/// Bytes that one method may make out of its arguments.
const MAX_BYTES: usize = 1 << 26;

/// The arguments of a call.
struct Arguments<'a> {
    positional: &'a [Value],
    named: Kwargs,
}

impl<'a> Arguments<'a> {
    fn new(args: &'a [Value]) -> Result<Self, Error> {
        let (positional, named) = from_args::<(&[Value], Kwargs)>(args)?;
        Ok(Self { positional, named })
    }

    /// The argument at this place or of this name; `None` if it is not given or Python's None.
    fn get(&self, place: usize, name: &str) -> Result<Option<Value>, Error> {
        let value = match self.positional.get(place) {
            Some(value) => Some(value.clone()),
            None => self.named.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none()))
    }

    fn text(&self, place: usize, name: &str) -> Result<Option<String>, Error> {
        match self.get(place, name)? {
            None => Ok(None),
            Some(value) => match (value.kind(), value.as_str()) {
                (ValueKind::String, Some(text)) => Ok(Some(text.to_owned())),
                (kind, _) => Err(invalid(&format!("`{name}` must be a string, not {kind}"))),
            },
        }
    }

    fn required(&self, place: usize, name: &str) -> Result<String, Error> {
        self.text(place, name)?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))
    }

    fn number(&self, place: usize, name: &str) -> Result<Option<i64>, Error> {
        self.get(place, name)?.map(i64::try_from).transpose()
    }

    /// Refuses more arguments than the method has.
    fn end(&self, most: usize) -> Result<(), Error> {
        match self.positional.len() > most {
            true => Err(Error::from(ErrorKind::TooManyArguments)),
            false => self.named.assert_all_used(),
        }
    }
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_owned())
}

/// The method `name` of a template value; what is not here is left to minijinja's own set.
pub(super) fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(args)?;
    let found = match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => cutting(text, name, &arguments)
            .or_else(|| searching(text, name, &arguments))
            .or_else(|| shaping(text, name, &arguments))
            .or_else(|| asking(text, name, &arguments)),
        (ValueKind::Seq, _) => list_method(value, name, &arguments),
        (ValueKind::Map, _) if name == "copy" => Some(arguments.end(0).map(|()| value.clone())),
        _ => None,
    };
    match found {
        Some(result) => result,
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// A method's result, or `None` where the group has no such method.
type Found = Option<Result<Value, Error>>;

/// Whitespace in Python's sense, which counts four control characters more than Unicode does.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub(in super::super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.rstrip()`.
pub(in super::super) fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

fn list(parts: impl IntoIterator<Item = impl Into<Value>>) -> Value {
    Value::from(parts.into_iter().map(Into::into).collect::<Vec<Value>>())
}

fn triple(parts: [&str; 3]) -> Value {
    Value::from(Tuple::from(parts.map(Value::from)))
}

/// Methods that take a string apart.
fn cutting(text: &str, name: &str, args: &Arguments<'_>) -> Found {
    let run = || -> Result<Option<Value>, Error> {
        Ok(Some(match name {
            "strip" | "lstrip" | "rstrip" => {
                let chars = args.text(0, "chars")?;
                args.end(1)?;
                let cut = |c: char| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(c));
                Value::from(match name {
                    "strip" => text.trim_matches(cut),
                    "lstrip" => text.trim_start_matches(cut),
                    _ => text.trim_end_matches(cut),
                })
            }
            "split" | "rsplit" => {
                let separator = args.text(0, "sep")?;
                let most = args.number(1, "maxsplit")?.and_then(|most| usize::try_from(most).ok());
                args.end(2)?;
                list(split(text, separator.as_deref(), most, name == "rsplit")?)
            }
            "splitlines" => {
                let keep = args.get(0, "keepends")?.is_some_and(|keep| keep.is_true());
                args.end(1)?;
                list(split_lines(text, keep))
            }
            "partition" | "rpartition" => {
                let separator = args.required(0, "sep")?;
                args.end(1)?;
                if separator.is_empty() {
                    return Err(invalid("empty separator"));
                }
                match name {
                    "partition" => {
                        triple(text.split_once(&*separator).map_or([text, "", ""], |(a, b)| [a, &separator, b]))
                    }
                    _ => triple(text.rsplit_once(&*separator).map_or(["", "", text], |(a, b)| [a, &separator, b])),
                }
            }
            "removeprefix" | "removesuffix" => {
                let affix = args.required(0, "affix")?;
                args.end(1)?;
                let cut = if name == "removeprefix" { text.strip_prefix(&*affix) } else { text.strip_suffix(&*affix) };
                Value::from(cut.unwrap_or(text))
            }
            _ => return Ok(None),
        }))
    };
    run().transpose()
}

fn split<'t>(
    text: &'t str,
    separator: Option<&str>,
    most: Option<usize>,
    from_end: bool,
) -> Result<Vec<&'t str>, Error> {
    let limit = most.map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<&str> = match (separator, from_end) {
        (Some(""), _) => return Err(invalid("empty separator")),
        (Some(separator), false) => return Ok(text.splitn(limit, separator).collect()),
        (Some(separator), true) => text.rsplitn(limit, separator).collect(),
        (None, _) => {
            let mut parts = Vec::new();
            let mut rest = strip(text);
            while !rest.is_empty() {
                let cut = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
                let Some(cut) = cut.filter(|_| parts.len() + 1 < limit) else {
                    // What the limit leaves whole keeps its spaces on the far side, where Python has not looked.
                    parts.push(rest);
                    break;
                };
                let (head, tail) = rest.split_at(cut);
                let (part, left) = if from_end { (tail, head) } else { (head, tail) };
                parts.push(part.trim_matches(is_space));
                rest = left.trim_matches(is_space);
            }
            if !from_end {
                return Ok(parts);
            }
            parts
        }
    };
    parts.reverse();
    Ok(parts)
}

fn split_lines(text: &str, keep: bool) -> Vec<&str> {
    let ends = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends) {
        let (line, after) = rest.split_at(at);
        let end = match after.starts_with("\r\n") {
            true => 2,
            false => after.chars().next().map_or(0, char::len_utf8),
        };
        lines.push(if keep { rest.get(..at + end).unwrap_or(line) } else { line });
        rest = after.get(end..).unwrap_or_default();
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// Methods that look for a piece of a string. Places count characters.
fn searching(text: &str, name: &str, args: &Arguments<'_>) -> Found {
    let run = || -> Result<Option<Value>, Error> {
        if !matches!(name, "find" | "rfind" | "index" | "rindex" | "count" | "startswith" | "endswith") {
            return Ok(None);
        }
        let num_chars = text.chars().count() as i64;
        let place = |given: Option<i64>, default: i64| {
            let place = given.unwrap_or(default);
            if place < 0 { (place + num_chars).max(0) } else { place }
        };
        let start = place(args.number(1, "start")?, 0);
        let end = place(args.number(2, "end")?, num_chars).min(num_chars);
        args.end(3)?;
        let byte =
            |place: i64| text.char_indices().nth(usize::try_from(place).unwrap_or(0)).map_or(text.len(), |(at, _)| at);
        let window = if start > end { None } else { text.get(byte(start)..byte(end)) };
        if matches!(name, "startswith" | "endswith") {
            let affixes = args.get(0, "prefix")?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            let fits = |affix: &Value| match (affix.kind(), affix.as_str(), window) {
                (ValueKind::String, Some(_), None) => Ok(false),
                (ValueKind::String, Some(affix), Some(window)) if name == "startswith" => Ok(window.starts_with(affix)),
                (ValueKind::String, Some(affix), Some(window)) => Ok(window.ends_with(affix)),
                (kind, ..) => Err(invalid(&format!("{name} wants a string or a tuple of strings, not {kind}"))),
            };
            if !affixes.is_tuple() {
                return fits(&affixes).map(|fits| Some(Value::from(fits)));
            }
            for affix in affixes.try_iter()? {
                if fits(&affix)? {
                    return Ok(Some(Value::from(true)));
                }
            }
            return Ok(Some(Value::from(false)));
        }
        let wanted = args.required(0, "sub")?;
        if name == "count" {
            return Ok(Some(Value::from(window.map_or(0, |window| window.matches(&*wanted).count()))));
        }
        let found = window.and_then(|window| {
            let at = if name.starts_with('r') { window.rfind(&*wanted) } else { window.find(&*wanted) }?;
            Some(start + window.get(..at)?.chars().count() as i64)
        });
        match found {
            None if name.ends_with("index") => Err(invalid("substring not found")),
            found => Ok(Some(Value::from(found.unwrap_or(-1)))),
        }
    };
    run().transpose()
}

/// Methods that make another string.
fn shaping(text: &str, name: &str, args: &Arguments<'_>) -> Found {
    let run = || -> Result<Option<Value>, Error> {
        Ok(Some(Value::from(match name {
            "replace" => {
                let (old, new) = (args.required(0, "old")?, args.required(1, "new")?);
                let most = args.number(2, "count")?.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
                args.end(3)?;
                let times = text.matches(&*old).count().min(most);
                check_bytes(times.saturating_mul(new.len()).saturating_add(text.len()))?;
                text.replacen(&*old, &new, most)
            }
            "join" => {
                let parts = args.get(0, "iterable")?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
                args.end(1)?;
                let mut joined = String::new();
                for (index, part) in parts.try_iter()?.enumerate() {
                    let part = part
                        .as_str()
                        .filter(|_| part.kind() == ValueKind::String)
                        .ok_or_else(|| invalid(&format!("join wants strings, item {index} is {}", part.kind())))?;
                    joined.extend([if index > 0 { text } else { "" }, part]);
                    check_bytes(joined.len())?;
                }
                joined
            }
            "center" | "ljust" | "rjust" | "zfill" => {
                let width = args.number(0, "width")?.ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
                let fill = if name == "zfill" { Some("0".to_owned()) } else { args.text(1, "fillchar")? };
                args.end(2)?;
                justify(text, name, usize::try_from(width).unwrap_or(0), fill.as_deref().unwrap_or(" "))?
            }
            "title" => args.end(0).map(|()| title(text))?,
            "capitalize" => {
                args.end(0)?;
                let mut chars = text.chars();
                let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
                first + &chars.as_str().to_lowercase()
            }
            "swapcase" => {
                args.end(0)?;
                let swap = |c: char| {
                    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect::<String>() }
                };
                text.chars().map(swap).collect()
            }
            // Full case folding differs from lower case in few letters; the German ß is the one that is met.
            "casefold" => args.end(0).map(|()| text.to_lowercase().replace('ß', "ss").replace('ς', "σ"))?,
            "expandtabs" => {
                let size = args.number(0, "tabsize")?.unwrap_or(8);
                args.end(1)?;
                expand_tabs(text, usize::try_from(size).unwrap_or(0))?
            }
            _ => return Ok(None),
        })))
    };
    run().transpose()
}

fn check_bytes(num_bytes: usize) -> Result<(), Error> {
    match num_bytes > MAX_BYTES {
        true => Err(invalid(&format!("a string of {num_bytes} bytes is too long (at most {MAX_BYTES})"))),
        false => Ok(()),
    }
}

fn justify(text: &str, name: &str, width: usize, fill: &str) -> Result<String, Error> {
    if fill.chars().count() != 1 {
        return Err(invalid("the fill character must be exactly one character long"));
    }
    let missing = width.saturating_sub(text.chars().count());
    check_bytes(missing.saturating_mul(fill.len()))?;
    // CPython's rule for an odd rest in the middle.
    let left = match name {
        "ljust" => 0,
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let sign = text.chars().next().filter(|c| name == "zfill" && matches!(c, '+' | '-'));
    let digits = sign.map_or(text, |sign| text.strip_prefix(sign).unwrap_or(text));
    let sign = sign.map(String::from).unwrap_or_default();
    Ok(sign + &fill.repeat(left) + digits + &fill.repeat(missing - left))
}

/// A letter is upper case after anything that has no case, and lower case after what has.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut after_cased = false;
    for c in text.chars() {
        match after_cased {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        after_cased = c.is_lowercase() || c.is_uppercase();
    }
    out
}

fn expand_tabs(text: &str, size: usize) -> Result<String, Error> {
    let (mut out, mut column) = (String::new(), 0usize);
    for c in text.chars() {
        match c {
            '\t' => {
                let width = if size == 0 { 0 } else { size - column % size };
                check_bytes(out.len().saturating_add(width))?;
                out.push_str(&" ".repeat(width));
                column += width;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    Ok(out)
}

/// Methods that say what a string is made of.
fn asking(text: &str, name: &str, args: &Arguments<'_>) -> Found {
    let all = |test: &dyn Fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    let answer = match name {
        "isspace" => all(&is_space),
        "isprintable" => text.chars().all(is_printable),
        "isdecimal" => all(&|c| c.is_ascii_digit() || (c.is_numeric() && !c.is_ascii() && is_digit(c))),
        "istitle" => text.chars().any(|c| c.is_uppercase() || c.is_lowercase()) && title(text) == text,
        _ => return None,
    };
    Some(args.end(0).map(|()| Value::from(answer)))
}

/// Decimal digits of a script come in runs of ten, so a digit's value is its place in one; Rust has no table of them. Numbers
/// that are no decimal digits are fractions, letters and marks above the line, which have other forms under NFKC.
fn is_digit(c: char) -> bool {
    !matches!(c as u32, 0xB2 | 0xB3 | 0xB9 | 0xBC..=0xBE | 0x2070..=0x218B | 0x2460..=0x24FF | 0x2776..=0x2793 | 0x3007..=0x3029 | 0x3192..=0x32BF | 0x3400..=0x9FFF)
}

/// Methods of lists that do not change them; a template may not.
fn list_method(value: &Value, name: &str, args: &Arguments<'_>) -> Found {
    let run = || -> Result<Option<Value>, Error> {
        match name {
            "index" => {
                let wanted = args.get(0, "value")?.unwrap_or_default();
                args.end(1)?;
                let at = value.try_iter()?.position(|item| item == wanted);
                at.map(|at| Some(Value::from(at))).ok_or_else(|| invalid("the value is not in the list"))
            }
            "copy" => args.end(0).map(|()| Some(value.clone())),
            _ => Ok(None),
        }
    };
    run().transpose()
}

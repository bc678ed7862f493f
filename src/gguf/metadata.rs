//! Metadata by key and type. A key that is there with another type is an error, one that is not there is `None`.
//! Knows types; knows no key.

use super::value::{Kind, Value};
use super::{Gguf, GgufError};
use crate::gguf::reader::Reader;

impl Gguf {
    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    /// A string.
    ///
    /// # Errors
    /// Another type, or no UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::String { start, len }) => self.utf8(key, *start, *len).map(Some),
            Some(other) => Err(self.wrong(key, other, "a string")),
        }
    }

    /// A number that counts something: any integer type, not negative.
    ///
    /// # Errors
    /// Another type or a negative number.
    pub fn count(&self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(number)) => Ok(Some(*number)),
            Some(Value::Signed(number)) if *number >= 0 => Ok(Some(number.unsigned_abs())),
            Some(other) => Err(self.wrong(key, other, "a whole number of 0 or more")),
        }
    }

    /// A number of any type, as f64. A 32-bit float gives the shortest decimal that it stands for (0.1, not 0.100000001).
    ///
    /// # Errors
    /// Another type, an infinity or no number.
    pub fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        let number = match self.metadata.get(key) {
            None => return Ok(None),
            Some(Value::Unsigned(number)) => *number as f64,
            Some(Value::Signed(number)) => *number as f64,
            Some(Value::Float(number)) => number.to_string().parse().unwrap_or(f64::from(*number)),
            Some(Value::Double(number)) => *number,
            Some(other) => return Err(self.wrong(key, other, "a number")),
        };
        if number.is_finite() { Ok(Some(number)) } else { Err(self.damaged(format!("metadata `{key}` is {number}"))) }
    }

    /// A boolean.
    ///
    /// # Errors
    /// Another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// An array of strings, in place in the file.
    ///
    /// # Errors
    /// Another type, or an element that is no UTF-8.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        let Some((kind, count, start)) = self.array(key, "an array of strings")? else { return Ok(None) };
        if kind != Kind::String {
            return Err(self.wrong_elements(key, "strings"));
        }
        let mut reader = Reader::new(self.header_bytes(), start);
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let (start, len) = reader.string_range(key).map_err(|fault| fault.in_file(self.path()))?;
            texts.push(self.utf8(key, start, len)?);
        }
        Ok(Some(texts))
    }

    /// An array of numbers or booleans (as 0 and 1), as f64.
    ///
    /// # Errors
    /// Another type.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, GgufError> {
        let Some((kind, count, start)) = self.array(key, "an array of numbers")? else { return Ok(None) };
        let mut reader = Reader::new(self.header_bytes(), start);
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            let value = Value::read_scalar(&mut reader, kind, key).map_err(|fault| fault.in_file(self.path()))?;
            numbers.push(match value {
                Value::Unsigned(number) => number as f64,
                Value::Signed(number) => number as f64,
                Value::Float(number) => f64::from(number),
                Value::Double(number) => number,
                Value::Bool(flag) => f64::from(u8::from(flag)),
                Value::String { .. } | Value::Array { .. } => return Err(self.wrong_elements(key, "numbers")),
            });
        }
        Ok(Some(numbers))
    }

    /// Whether the key holds an array.
    pub fn is_array(&self, key: &str) -> bool {
        matches!(self.metadata.get(key), Some(Value::Array { .. }))
    }

    fn array(&self, key: &str, want: &str) -> Result<Option<(Kind, usize, usize)>, GgufError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array { kind, count, start }) => Ok(Some((*kind, *count, *start))),
            Some(other) => Err(self.wrong(key, other, want)),
        }
    }

    /// The file that the metadata's ranges are of.
    fn header_bytes(&self) -> &[u8] {
        self.files.first().map_or(&[], |file| &file.map)
    }

    fn utf8(&self, key: &str, start: usize, len: usize) -> Result<&str, GgufError> {
        let bytes = self.header_bytes().get(start..start + len).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| self.damaged(format!("metadata `{key}` holds text that is not UTF-8")))
    }

    fn wrong(&self, key: &str, got: &Value, want: &str) -> GgufError {
        self.damaged(format!("metadata `{key}` is {}, want {want}", got.describe()))
    }

    fn wrong_elements(&self, key: &str, want: &str) -> GgufError {
        self.damaged(format!("metadata `{key}` has elements of another type, want {want}"))
    }
}

//! Metadata values: typed scalars, strings, and flat arrays of them that stay in the file until they are asked for.
//! Knows the encoding; knows no key's meaning.

use super::error::Fault;
use super::reader::Reader;

/// One metadata value. Strings and arrays are byte ranges of the file that were checked to lie in it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f32),
    Double(f64),
    Bool(bool),
    String { start: usize, len: usize },
    Array { kind: Kind, count: usize, start: usize },
}

/// The type of a value or of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn from_id(id: u32, key: &str) -> Result<Self, Fault> {
        const KINDS: [Kind; 13] = [
            Kind::U8,
            Kind::I8,
            Kind::U16,
            Kind::I16,
            Kind::U32,
            Kind::I32,
            Kind::F32,
            Kind::Bool,
            Kind::String,
            Kind::Array,
            Kind::U64,
            Kind::I64,
            Kind::F64,
        ];
        let kind = usize::try_from(id).ok().and_then(|id| KINDS.get(id).copied());
        kind.ok_or_else(|| Fault::damaged(format!("metadata `{key}` has the unknown type {id}, want 0 to 12")))
    }

    /// The fewest bytes that an element takes in the file.
    fn min_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

impl Value {
    /// Reads type and value of `key`.
    pub(super) fn read(reader: &mut Reader<'_>, key: &str) -> Result<Self, Fault> {
        match Kind::from_id(reader.u32()?, key)? {
            Kind::Array => Self::read_array(reader, key),
            kind => Self::read_scalar(reader, kind, key),
        }
    }

    /// Reads an element that is no array.
    pub(super) fn read_scalar(reader: &mut Reader<'_>, kind: Kind, key: &str) -> Result<Self, Fault> {
        Ok(match kind {
            Kind::U8 => Self::Unsigned(u64::from(u8::from_le_bytes(reader.array()?))),
            Kind::I8 => Self::Signed(i64::from(i8::from_le_bytes(reader.array()?))),
            Kind::U16 => Self::Unsigned(u64::from(u16::from_le_bytes(reader.array()?))),
            Kind::I16 => Self::Signed(i64::from(i16::from_le_bytes(reader.array()?))),
            Kind::U32 => Self::Unsigned(u64::from(reader.u32()?)),
            Kind::I32 => Self::Signed(i64::from(i32::from_le_bytes(reader.array()?))),
            Kind::F32 => Self::Float(f32::from_le_bytes(reader.array()?)),
            Kind::U64 => Self::Unsigned(reader.u64()?),
            Kind::I64 => Self::Signed(i64::from_le_bytes(reader.array()?)),
            Kind::F64 => Self::Double(f64::from_le_bytes(reader.array()?)),
            Kind::Bool => match reader.array()? {
                [0] => Self::Bool(false),
                [1] => Self::Bool(true),
                [other] => {
                    return Err(Fault::damaged(format!("metadata `{key}` is the boolean {other}, want 0 or 1")));
                }
            },
            Kind::String => {
                let what = format!("metadata `{key}`");
                let (start, len) = reader.string_range(&what)?;
                Self::String { start, len }
            }
            Kind::Array => {
                return Err(Fault::damaged(format!("metadata `{key}` is an array of arrays, want a flat one")));
            }
        })
    }

    /// Checks that every element lies in the file, and remembers where the first one is.
    fn read_array(reader: &mut Reader<'_>, key: &str) -> Result<Self, Fault> {
        let kind = Kind::from_id(reader.u32()?, key)?;
        if kind == Kind::Array {
            return Err(Fault::damaged(format!("metadata `{key}` is an array of arrays, want a flat one")));
        }
        let count = reader.count(kind.min_bytes(), &format!("elements of metadata `{key}`"))?;
        let start = reader.position();
        match kind {
            Kind::String => {
                let what = format!("an element of metadata `{key}`");
                for _ in 0..count {
                    reader.string_range(&what)?;
                }
            }
            Kind::Bool => {
                for _ in 0..count {
                    Self::read_scalar(reader, kind, key)?;
                }
            }
            _ => reader.skip(count * kind.min_bytes())?,
        }
        Ok(Self::Array { kind, count, start })
    }

    /// For messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Unsigned(number) => number.to_string(),
            Self::Signed(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Double(number) => number.to_string(),
            Self::Bool(flag) => flag.to_string(),
            Self::String { len, .. } => format!("a string of {len} bytes"),
            Self::Array { count, .. } => format!("an array of {count}"),
        }
    }
}

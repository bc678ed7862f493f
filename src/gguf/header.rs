//! The header of one GGUF file: magic, version, metadata, and where each tensor lies.
//! Layout as ggml's `gguf.md` specifies it, versions 2 and 3. Knows one file; knows nothing of split sets or of meanings.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::block_type::BlockType;
use super::error::Fault;
use super::reader::Reader;
use super::value::Value;

/// One tensor of a file.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// ggml's name.
    pub name: String,
    /// Dimensions in ggml's order: the contiguous one first.
    pub dims: Vec<usize>,
    /// How elements are stored; a row (the first dimension) is whole blocks.
    pub kind: BlockType,
    /// Index of the file in its set.
    pub(super) file: usize,
    /// Bytes in that file.
    pub(super) range: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: HashMap<String, Value>,
    pub(super) tensors: Vec<TensorInfo>,
}

/// Fewest bytes of a metadata entry: length, one byte of name, type, one byte of value.
const MIN_ENTRY: usize = 8 + 1 + 4 + 1;
/// Fewest bytes of a tensor's entry: length, one byte of name, number of dimensions, one dimension, type, offset.
const MIN_TENSOR: usize = 8 + 1 + 4 + 8 + 4 + 8;
/// ggml's limit.
const MAX_DIMS: u32 = 4;
const MAX_KEY: usize = 65_535;
/// ggml's limit is 64; some tools write longer ones.
const MAX_TENSOR_NAME: usize = 1024;
const KEY_ALIGNMENT: &str = "general.alignment";

/// Reads and checks the header of `bytes`, a whole file; `file` is its index in the set.
pub(super) fn parse(bytes: &[u8], file: usize) -> Result<Header, Fault> {
    let mut reader = Reader::new(bytes, 0);
    check_start(bytes, &mut reader)?;
    let num_tensors = reader.count(MIN_TENSOR, "tensors")?;
    let num_entries = reader.count(MIN_ENTRY, "metadata entries")?;
    // Both grow with what is really there: a count that fits the file may still be a lie.
    let mut metadata = HashMap::new();
    for _ in 0..num_entries {
        let key = reader.name(MAX_KEY, "a metadata key")?;
        let value = Value::read(&mut reader, key)?;
        if metadata.insert(key.to_owned(), value).is_some() {
            return Err(Fault::damaged(format!("metadata `{key}` is there twice")));
        }
    }
    let alignment = alignment(&metadata)?;
    let mut tensors: Vec<TensorInfo> = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..num_tensors {
        let tensor = read_tensor(&mut reader, file, alignment)?;
        if !names.insert(tensor.name.clone()) {
            return Err(Fault::damaged(format!("tensor `{}` is there twice", tensor.name)));
        }
        tensors.push(tensor);
    }
    let data = reader.position().checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
    place(&mut tensors, data, bytes.len())?;
    Ok(Header { metadata, tensors })
}

/// Magic and version.
fn check_start(bytes: &[u8], reader: &mut Reader<'_>) -> Result<(), Fault> {
    if bytes.starts_with(b"version https://git-lfs") {
        let what = "it is a git-lfs pointer, not the file itself".to_owned();
        return Err(Fault { what, hint: "fetch it with `git lfs pull`" });
    }
    match reader.array()? {
        [b'G', b'G', b'U', b'F'] => {}
        [a, b, c, d] => {
            let what = format!("it begins with the bytes {a:02x} {b:02x} {c:02x} {d:02x}, want `GGUF`");
            let hint = match [a, b, c, d] {
                // `ggml`, `ggmf`, `ggjt` as little-endian words.
                [b'l' | b'f', b'm', b'g', b'g'] | [b't', b'j', b'g', b'g'] => {
                    "this is a format from before GGUF; use a newer conversion"
                }
                _ => "give a file that llama.cpp's converter or quantiser wrote",
            };
            return Err(Fault { what, hint });
        }
    }
    let version = reader.u32()?;
    match version {
        2 | 3 => Ok(()),
        1 => Err(Fault {
            what: "it has GGUF version 1, want 2 or 3".to_owned(),
            hint: "version 1 was in use for a month of 2023; use a newer conversion",
        }),
        other if other != 0 && other & 0xFFFF == 0 => Err(Fault {
            what: format!("it is big-endian (version {})", other.swap_bytes()),
            hint: "use the little-endian conversion of the same model",
        }),
        other => Err(Fault {
            what: format!("it has GGUF version {other}, want 2 or 3"),
            hint: "a newer version of this program may know it, or the file is damaged",
        }),
    }
}

fn alignment(metadata: &HashMap<String, Value>) -> Result<usize, Fault> {
    match metadata.get(KEY_ALIGNMENT) {
        None => Ok(32),
        Some(Value::Unsigned(number)) if number.is_power_of_two() && (8..=1 << 20).contains(number) => {
            Ok(*number as usize)
        }
        Some(other) => Err(Fault::damaged(format!(
            "metadata `{KEY_ALIGNMENT}` is {}, want a power of two from 8 to 1048576",
            other.describe()
        ))),
    }
}

/// One tensor's entry; its range is relative to the data until [`place`].
fn read_tensor(reader: &mut Reader<'_>, file: usize, alignment: usize) -> Result<TensorInfo, Fault> {
    let name = reader.name(MAX_TENSOR_NAME, "a tensor's name")?.to_owned();
    let num_dims = reader.u32()?;
    if num_dims == 0 || num_dims > MAX_DIMS {
        return Err(Fault::damaged(format!("tensor `{name}` has {num_dims} dimensions, want 1 to {MAX_DIMS}")));
    }
    let mut dims = Vec::with_capacity(MAX_DIMS as usize);
    let mut elements = 1usize;
    for _ in 0..num_dims {
        let dim = reader.u64()?;
        let product = usize::try_from(dim).ok().filter(|dim| *dim > 0).and_then(|dim| {
            dims.push(dim);
            elements.checked_mul(dim)
        });
        elements = product.ok_or_else(|| {
            Fault::damaged(format!("tensor `{name}` has a dimension of {dim}: its number of elements is no size"))
        })?;
    }
    let kind = BlockType::from_id(reader.u32()?, &name)?;
    let row = dims.first().copied().unwrap_or(1);
    if !row.is_multiple_of(kind.block_len()) {
        return Err(Fault::damaged(format!(
            "tensor `{name}` has rows of {row} elements, want whole blocks of {} ({kind:?})",
            kind.block_len()
        )));
    }
    let size = (elements / kind.block_len()).checked_mul(kind.block_bytes());
    let offset = reader.u64()?;
    let start = usize::try_from(offset).ok();
    let Some((start, end)) = start.zip(size).and_then(|(start, size)| Some((start, start.checked_add(size)?))) else {
        return Err(Fault::damaged(format!("tensor `{name}` is at offset {offset}, which no file reaches")));
    };
    if !start.is_multiple_of(alignment) {
        return Err(Fault::damaged(format!(
            "tensor `{name}` is at offset {offset}, want a multiple of the alignment {alignment}"
        )));
    }
    Ok(TensorInfo { name, dims, kind, file, range: start..end })
}

/// Makes ranges absolute; none may reach past the file or into another.
fn place(tensors: &mut [TensorInfo], data: usize, size: usize) -> Result<(), Fault> {
    for tensor in tensors.iter_mut() {
        let (start, end) = (tensor.range.start.checked_add(data), tensor.range.end.checked_add(data));
        match start.zip(end.filter(|end| *end <= size)) {
            Some((start, end)) => tensor.range = start..end,
            None => {
                let need = end.map_or_else(|| "more bytes than can be".to_owned(), |end| format!("{end} bytes"));
                return Err(Fault::damaged(format!(
                    "its data is cut short: tensor `{}` needs a file of {need}, and it has {size}",
                    tensor.name
                )));
            }
        }
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.range.start);
    match order.array_windows().find(|[one, next]| one.range.end > next.range.start) {
        None => Ok(()),
        Some([one, next]) => {
            Err(Fault::damaged(format!("tensors `{}` and `{}` overlap in the file", one.name, next.name)))
        }
    }
}

//! Published quantised checkpoints: which tensors of the files make up a matrix, by the method that config.json names.
//! Matrices are widened to f32 when they are asked for; activations are never quantised, whatever the method did to them.
//! Knows names and shapes of each format's parts; the arithmetic is in `unpack`, the files are elsewhere.

use std::borrow::Cow;

use candle_core::DType;
use safetensors::Dtype;
use serde_json::Value;

use super::Elements;
use super::safetensors::{Entry, SafetensorsFiles};
use super::unpack::{self, Codes, Grid, Order, Packed};
use crate::model::ModelError;
use crate::model::config::{HfConfig, wrong};

/// The methods whose files can be read, for messages.
const SUPPORTED: &str = "fp8, fbgemm_fp8, awq, gptq, compressed-tensors or mxfp4";
const HINT: &str = "\nhint: use the model in another format: unquantised safetensors or GGUF";

/// How the files write their matrices.
pub struct Quantised {
    method: Method,
    /// Rows and columns that share a scale, where it is given and shapes do not say it.
    block: Option<[usize; 2]>,
}

enum Method {
    /// `X.weight` of 8-bit elements, `X.weight_scale` or `X.weight_scale_inv`.
    Scaled,
    /// The same with integers too, or `X.weight_packed`.
    CompressedTensors,
    /// `X.qweight`, `X.qzeros`, `X.scales`, packed along the rows; whether the zeros may be left out.
    Awq { symmetric: bool },
    /// The same along the columns, with `X.g_idx`; what was taken off the zeros.
    Gptq { taken_off: u32 },
    /// `X_blocks`, `X_scales`, for experts.
    Mxfp4,
}

/// Endings of the tensors that make up `X.weight`: with 8-bit elements and in compressed-tensors, and in AWQ and GPTQ.
const PARTS_WITH_WEIGHT: [&str; 7] = [
    ".weight",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight_zero_point",
    ".weight_packed",
    ".weight_shape",
    ".weight_g_idx",
];
const PARTS_OF_QWEIGHT: [&str; 4] = [".qweight", ".qzeros", ".scales", ".g_idx"];
/// Endings of tensors about activations or caches, which are not quantised here, and of those that say nothing new.
const UNUSED: [&str; 12] = [
    ".input_scale",
    ".input_zero_point",
    ".input_global_scale",
    ".activation_scale",
    ".output_scale",
    ".q_scale",
    ".k_scale",
    ".v_scale",
    ".k_zero_point",
    ".v_zero_point",
    ".weight_shape",
    ".weight_zero_point",
];

impl Quantised {
    /// The method of a model, if it is a quantised one.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it is none that can be read.
    pub fn of(config: &HfConfig) -> Result<Option<Self>, ModelError> {
        let (field, settings) = match (config.get("quantization_config"), config.get("compression_config")) {
            (Some(settings), _) => ("quantization_config", settings),
            (None, Some(settings)) => ("compression_config", settings),
            (None, None) => return Ok(None),
        };
        let text = |key: &str| settings.get(key).and_then(Value::as_str);
        let refuse = |key: &str, want: &str| {
            let got = settings.get(key).unwrap_or(&Value::Null);
            Err(wrong(&format!("{field}.{key}"), got, &format!("{want}{HINT}")))
        };
        let method = match text("quant_method") {
            Some("fp8" | "fbgemm_fp8") => Method::Scaled,
            Some("compressed-tensors") => {
                const FORMATS: [&str; 5] =
                    ["pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense"];
                match text("format") {
                    Some(format) if FORMATS.contains(&format) => Method::CompressedTensors,
                    _ => return refuse("format", &FORMATS.join(", ")),
                }
            }
            Some("awq") => match text("version").or(text("checkpoint_format")).map(str::to_lowercase).as_deref() {
                None | Some("gemm") => {
                    Method::Awq { symmetric: settings.get("zero_point").and_then(Value::as_bool) == Some(false) }
                }
                Some(_) => return refuse("version", "gemm"),
            },
            Some("gptq") => match text("checkpoint_format").or(text("format")) {
                None | Some("gptq") => Method::Gptq { taken_off: 1 },
                Some("gptq_v2") => Method::Gptq { taken_off: 0 },
                Some(_) => return refuse("checkpoint_format", "gptq or gptq_v2"),
            },
            Some("mxfp4") => Method::Mxfp4,
            _ => return refuse("quant_method", SUPPORTED),
        };
        Ok(Some(Self { method, block: block_size(settings) }))
    }

    /// Whether an extra tensor of this name is one of those that such models have and that are not needed.
    pub fn is_unused(&self, name: &str) -> bool {
        UNUSED.iter().any(|ending| name.ends_with(ending))
    }

    /// Names of the tensors that tensor `name` may be made up of.
    pub fn parts(&self, name: &str) -> Vec<String> {
        let (stem, endings): (_, &[&str]) = match (&self.method, name.strip_suffix(".weight")) {
            (Method::Mxfp4, _) => (name, &["_blocks", "_scales"]),
            (_, None) => return Vec::new(),
            (Method::Scaled | Method::CompressedTensors, Some(stem)) => (stem, &PARTS_WITH_WEIGHT),
            (Method::Awq { .. } | Method::Gptq { .. }, Some(stem)) => (stem, &PARTS_OF_QWEIGHT),
        };
        endings.iter().map(|ending| format!("{stem}{ending}")).collect()
    }

    /// How tensor `name` of `shape` is made up, by the headers alone; `None` if the files have no quantised form of it.
    ///
    /// # Errors
    /// [`ModelError`] naming the part that is missing, wrongly shaped or of an unsupported type.
    pub fn plan<'a>(
        &self,
        files: &'a SafetensorsFiles,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<Plan<'a>>, ModelError> {
        if let (Method::Mxfp4, [experts, columns, rows]) = (&self.method, shape) {
            return mxfp4(files, name, [*experts, *columns, *rows]);
        }
        let (Some(stem), [rows, columns]) = (name.strip_suffix(".weight"), shape) else { return Ok(None) };
        let matrix = Matrix { files, stem, rows: *rows, columns: *columns, block: self.block };
        match self.method {
            Method::Scaled => matrix.scaled(),
            Method::CompressedTensors if files.entry(&matrix.name("weight_packed")).is_some() => matrix.packed(),
            Method::CompressedTensors => matrix.scaled(),
            Method::Awq { symmetric } => matrix.transposed(Order::Awq, 0, symmetric),
            Method::Gptq { taken_off } => matrix.transposed(Order::Gptq, taken_off, false),
            Method::Mxfp4 => Ok(None),
        }
    }
}

/// Rows and columns per scale: `weight_block_size`, or compressed-tensors' `block_structure`, or one row of `group_size`.
fn block_size(settings: &Value) -> Option<[usize; 2]> {
    let size = |value: &Value| value.as_u64().filter(|&size| size > 0).and_then(|size| usize::try_from(size).ok());
    let of = |settings: &Value| {
        let block = settings.get("weight_block_size").or(settings.get("block_structure")).and_then(Value::as_array);
        match block.map(Vec::as_slice) {
            Some([rows, columns]) => Some([size(rows)?, size(columns)?]),
            _ => Some([1, size(settings.get("group_size")?)?]),
        }
    };
    let groups = settings.get("config_groups").and_then(Value::as_object);
    let of_groups = || groups?.values().find_map(|group| of(group.get("weights")?));
    of(settings).or_else(of_groups)
}

/// A tensor, as the headers say it is made up.
pub enum Plan<'a> {
    /// Codes, scales and zeros.
    Matrix(MatrixPlan<'a>),
    /// MXFP4 blocks [experts, out, groups, 16] and scales.
    Mxfp4 {
        /// Pairs of numbers.
        blocks: &'a Entry,
        /// Exponents.
        scales: &'a Entry,
        /// Output features.
        out: usize,
        /// Blocks per row.
        groups: usize,
    },
}

/// See [`Plan::Matrix`].
pub struct MatrixPlan<'a> {
    name: String,
    rows: usize,
    columns: usize,
    codes: Codes,
    weight: &'a Entry,
    scale: &'a Entry,
    grid: Grid,
    zero: Zero<'a>,
    group_index: Option<&'a Entry>,
}

enum Zero<'a> {
    /// The same for all.
    Is(f32),
    /// One per scale.
    PerScale(&'a Entry),
    /// One per scale, packed as the codes; what was taken off before.
    Packed(&'a Entry, u32),
}

impl Plan<'_> {
    /// Widens the tensor, or one entry of its first dimension.
    ///
    /// # Errors
    /// [`ModelError`] if a column's group is none, or a part's type is not supported.
    pub fn read<'b>(&self, files: &SafetensorsFiles, entry: Option<usize>) -> Result<Elements<'b>, ModelError> {
        match self {
            Self::Matrix(plan) => Ok(Elements { bytes: Cow::Owned(plan.read(files)?), format: DType::F32.into() }),
            Self::Mxfp4 { blocks, scales, out, groups } => {
                let (mut blocks, mut scales) = (files.bytes(blocks), files.bytes(scales));
                if let Some(entry) = entry {
                    let num_scales = out * groups;
                    scales = &scales[entry * num_scales..][..num_scales];
                    blocks = &blocks[entry * num_scales * 16..][..num_scales * 16];
                }
                let wide = unpack::widen_mxfp4(blocks, scales, *out, *groups);
                Ok(Elements { bytes: Cow::Owned(wide), format: DType::BF16.into() })
            }
        }
    }
}

impl MatrixPlan<'_> {
    fn read(&self, files: &SafetensorsFiles) -> Result<Vec<u8>, ModelError> {
        let numbers = |entry: &Entry| {
            let wrong = || ModelError::WrongType { name: self.name.clone(), dtype: format!("{:?}", entry.dtype) };
            unpack::to_f32(files.bytes(entry), entry.dtype).ok_or_else(wrong)
        };
        let zeros = match (&self.zero, self.codes) {
            (Zero::Is(zero), _) => vec![*zero],
            (Zero::Packed(entry, taken_off), Codes::Words(bits, order)) => {
                unpack::unpack_zeros(files.bytes(entry), self.rows, &self.grid, bits, order, *taken_off)
            }
            (Zero::PerScale(entry) | Zero::Packed(entry, _), _) => numbers(entry)?,
        };
        let groups = match self.group_index {
            None => (0..self.columns).map(|k| (k / self.grid.column_block) as u32).collect(),
            Some(entry) => self.groups(files.bytes(entry))?,
        };
        let (rows, columns, codes, grid) = (self.rows, self.columns, self.codes, self.grid);
        let bytes = files.bytes(self.weight);
        Ok(Packed { rows, columns, codes, bytes, grid, scales: numbers(self.scale)?, zeros, groups }.widen())
    }

    /// Group of each column, where columns were quantised in another order than they lie.
    fn groups(&self, bytes: &[u8]) -> Result<Vec<u32>, ModelError> {
        let groups: Vec<i32> = bytes.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect();
        // Files of compressed-tensors mark an index that is not in use by -1.
        if groups.iter().all(|&group| group == -1) {
            return Ok((0..self.columns).map(|k| (k / self.grid.column_block) as u32).collect());
        }
        let known = |group: i32| u32::try_from(group).ok().filter(|&group| (group as usize) < self.grid.num_groups);
        groups
            .into_iter()
            .map(|group| {
                let what = || format!("a column is of group {group}, and there are {} groups", self.grid.num_groups);
                known(group).ok_or_else(|| ModelError::Quantised { name: self.name.clone(), what: what() })
            })
            .collect()
    }
}

/// A matrix to be found in the files.
struct Matrix<'a, 'n> {
    files: &'a SafetensorsFiles,
    stem: &'n str,
    rows: usize,
    columns: usize,
    block: Option<[usize; 2]>,
}

impl<'a> Matrix<'a, '_> {
    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.stem)
    }

    fn find(&self, part: &str) -> Option<&'a Entry> {
        self.files.entry(&self.name(part))
    }

    /// A part that must be there, of `shape`, as one of `dtypes`.
    fn part(&self, part: &str, shape: &[usize], dtypes: &[Dtype]) -> Result<&'a Entry, ModelError> {
        let name = self.name(part);
        let Some(entry) = self.find(part) else {
            let closest = " (the method that config.json names needs it)".to_owned();
            return Err(ModelError::MissingTensor { name, shape: shape.to_vec(), closest });
        };
        if entry.shape != shape {
            return Err(ModelError::WrongShape { name, got: entry.shape.clone(), want: shape.to_vec() });
        }
        if !dtypes.contains(&entry.dtype) {
            let what = format!("it is of type {:?}, want {dtypes:?}", entry.dtype);
            return Err(ModelError::Quantised { name, what });
        }
        Ok(entry)
    }

    fn plan(&self, codes: Codes, weight: &'a Entry, scale: &'a Entry, grid: Grid, zero: Zero<'a>) -> MatrixPlan<'a> {
        let (rows, columns, group_index) = (self.rows, self.columns, None);
        MatrixPlan { name: self.name("weight"), rows, columns, codes, weight, scale, grid, zero, group_index }
    }

    /// 8-bit elements with a scale for all, per row, per group of columns or per block.
    fn scaled(&self) -> Result<Option<Plan<'a>>, ModelError> {
        let Some(weight) = self.find("weight") else { return Ok(None) };
        if weight.dense().is_some() {
            return Ok(None);
        }
        let types = [Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::I8];
        let weight = self.part("weight", &[self.rows, self.columns], &types)?;
        let (scale, grid) = self.scale()?;
        let zero = match self.find("weight_zero_point") {
            Some(_) if weight.dtype == Dtype::I8 => {
                Zero::PerScale(self.part("weight_zero_point", &scale.shape, &[Dtype::I8])?)
            }
            _ => Zero::Is(0.0),
        };
        Ok(Some(Plan::Matrix(self.plan(Codes::Bytes(weight.dtype), weight, scale, grid, zero))))
    }

    /// compressed-tensors' words.
    fn packed(&self) -> Result<Option<Plan<'a>>, ModelError> {
        let words = self.find("weight_packed").and_then(|entry| entry.shape.last().copied()).unwrap_or(0);
        let Some(bits) = [2, 4, 8].into_iter().find(|bits| (self.columns * bits).div_ceil(32) == words) else {
            let what = format!("{words} words for a row of {} elements: want 2, 4 or 8 bits each", self.columns);
            return Err(ModelError::Quantised { name: self.name("weight_packed"), what });
        };
        let weight = self.part("weight_packed", &[self.rows, words], &[Dtype::I32])?;
        let (scale, grid) = self.scale()?;
        let zero = match self.find("weight_zero_point") {
            Some(_) => {
                let shape = [(self.rows * bits).div_ceil(32), grid.num_groups];
                Zero::Packed(self.part("weight_zero_point", &shape, &[Dtype::I32])?, 0)
            }
            None => Zero::Is((1 << (bits - 1)) as f32),
        };
        if matches!(zero, Zero::Packed(..)) && grid.row_block != 1 {
            let what = "it has packed zeros but no scale per row".to_owned();
            return Err(ModelError::Quantised { name: self.name("weight_scale"), what });
        }
        let mut plan = self.plan(Codes::Words(bits as u32, Order::Rows), weight, scale, grid, zero);
        if self.find("weight_g_idx").is_some() {
            plan.group_index = Some(self.part("weight_g_idx", &[self.columns], &[Dtype::I32])?);
        }
        Ok(Some(Plan::Matrix(plan)))
    }

    /// AWQ's and GPTQ's words, [columns, rows].
    fn transposed(&self, order: Order, taken_off: u32, symmetric: bool) -> Result<Option<Plan<'a>>, ModelError> {
        let Some(found) = self.find("qweight") else { return Ok(None) };
        let (rows, columns) = (self.rows, self.columns);
        let bits = match order {
            Order::Awq => 4,
            _ => found.shape.first().map_or(0, |words| words * 32 / columns),
        };
        if ![2, 4, 8].contains(&bits) || !(rows * bits).is_multiple_of(32) {
            let what = format!(
                "{bits} bits per element of a {rows}x{columns} matrix: want 2, 4 or 8, and rows of whole words"
            );
            return Err(ModelError::Quantised { name: self.name("qweight"), what });
        }
        let (row_words, column_words) = (rows * bits / 32, (columns * bits).div_ceil(32));
        let shape = if order == Order::Awq { [columns, row_words] } else { [column_words, rows] };
        let weight = self.part("qweight", &shape, &[Dtype::I32])?;
        let found = self.find("scales").and_then(|entry| entry.shape.first().copied());
        let given = self.block.map(|block| block[1]);
        let num_groups = found.unwrap_or_else(|| given.map_or(1, |group| columns.div_ceil(group)));
        let Some(column_block) = shared(columns, num_groups, given) else {
            let want = vec![columns.div_ceil(given.unwrap_or(columns)), rows];
            return Err(ModelError::WrongShape { name: self.name("scales"), got: vec![num_groups, rows], want });
        };
        let scale = self.part("scales", &[num_groups, rows], &[Dtype::F16, Dtype::BF16, Dtype::F32])?;
        let zero = match symmetric && self.find("qzeros").is_none() {
            true => Zero::Is((1 << (bits - 1)) as f32),
            false => Zero::Packed(self.part("qzeros", &[num_groups, row_words], &[Dtype::I32])?, taken_off),
        };
        let grid = Grid { row_block: 1, column_block, num_groups, strides: [1, rows] };
        let codes = Codes::Words(bits as u32, order);
        let mut plan = self.plan(codes, weight, scale, grid, zero);
        if order == Order::Gptq && self.find("g_idx").is_some() {
            plan.group_index = Some(self.part("g_idx", &[columns], &[Dtype::I32])?);
        }
        Ok(Some(Plan::Matrix(plan)))
    }

    /// The scales, whose shape says what shares them: nothing or `[1]` for the whole matrix, `[rows]`, or
    /// [row blocks, groups].
    fn scale(&self) -> Result<(&'a Entry, Grid), ModelError> {
        let part = if self.find("weight_scale_inv").is_some() { "weight_scale_inv" } else { "weight_scale" };
        let (rows, columns) = (self.rows, self.columns);
        let found = self.find(part).map(|entry| entry.shape.clone());
        let (row_blocks, num_groups) = match found.as_deref() {
            None | Some([] | [1]) => (1, 1),
            Some([count]) => (*count, 1),
            Some([row_blocks, num_groups]) => (*row_blocks, *num_groups),
            Some(_) => (0, 0),
        };
        let row_block = shared(rows, row_blocks, self.block.map(|block| block[0]));
        let column_block = shared(columns, num_groups, self.block.map(|block| block[1]));
        let (Some(row_block), Some(column_block)) = (row_block, column_block) else {
            let got = found.unwrap_or_default();
            return Err(ModelError::WrongShape { name: self.name(part), got, want: vec![rows, 1] });
        };
        let types = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::U8, Dtype::F8_E8M0];
        let scale = self.part(part, &found.unwrap_or_else(|| vec![rows, 1]), &types)?;
        Ok((scale, Grid { row_block, column_block, num_groups, strides: [num_groups, 1] }))
    }
}

/// Of `length` rows or columns, how many share one of `count` scales: what the configuration gives, if it fits, or else equal
/// parts.
fn shared(length: usize, count: usize, given: Option<usize>) -> Option<usize> {
    match given {
        _ if count == 0 || count > length => None,
        Some(block) if count > 1 && length.div_ceil(block) == count => Some(block),
        _ => length.is_multiple_of(count).then(|| length / count),
    }
}

/// MXFP4 experts, asked for as [experts, in, out].
fn mxfp4<'a>(files: &'a SafetensorsFiles, name: &str, shape: [usize; 3]) -> Result<Option<Plan<'a>>, ModelError> {
    let [experts, columns, out] = shape;
    if files.entry(&format!("{name}_blocks")).is_none() {
        return Ok(None);
    }
    let groups = columns / 32;
    let part = |ending: &str, want: Vec<usize>| {
        let name = format!("{name}{ending}");
        match files.entry(&name) {
            None => Err(ModelError::MissingTensor { name, shape: want, closest: String::new() }),
            Some(entry) if entry.shape != want => Err(ModelError::WrongShape { name, got: entry.shape.clone(), want }),
            Some(entry) if !matches!(entry.dtype, Dtype::U8 | Dtype::F8_E8M0) => {
                Err(ModelError::Quantised { name, what: format!("it is of type {:?}, want U8", entry.dtype) })
            }
            Some(entry) => Ok(entry),
        }
    };
    let blocks = part("_blocks", vec![experts, out, groups, 16])?;
    let scales = part("_scales", vec![experts, out, groups])?;
    if groups * 32 != columns {
        let what = format!("rows of {columns} elements are not whole blocks of 32");
        return Err(ModelError::Quantised { name: name.to_owned(), what });
    }
    Ok(Some(Plan::Mxfp4 { blocks, scales, out, groups }))
}

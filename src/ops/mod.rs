//! Operations: each one file, with a native CPU path, and a portable version in Candle operations that any device runs and
//! that tests compare against. The only place that chooses devices and features.
//! Knows tensors and numbers; knows nothing of model families, sequences or text.

pub mod activation;
pub mod attention;
pub(crate) mod bf16x3;
pub(crate) mod blocks;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "cuda/absent.rs"]
pub(crate) mod cuda;
pub mod embedding;
pub mod experts;
pub(crate) mod ggml_block;
pub(crate) mod launch;
pub mod linear;
pub mod norm;
pub(crate) mod packed;
pub(crate) mod packing;
pub mod paged;
pub(crate) mod panels;
pub(crate) mod product;
pub mod rotary;
pub(crate) mod rounded;
pub(crate) mod sampling;
pub(crate) mod simd;
pub(crate) mod staged;
pub(crate) mod stored;
pub(crate) mod tile;
pub(crate) mod tile16;
pub(crate) mod tile8;
pub(crate) mod warpgroups;
pub(crate) mod workspace;

use candle_core::quantized::GgmlDType;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Tensor};
pub use cuda::{Graph, Kernels, Loading};
pub use linear::DenseProducts;
use paged::KvFormat;
pub use staged::{Room, decode_items};
use stored::{MatrixView, StoredFormat};
pub use workspace::{OpTimes, Slot, Workspace};

/// Where and how to compute: the device, the number formats, and which version of the operations.
#[derive(Debug, Clone)]
pub struct Compute {
    /// The device that holds weights and KV cache.
    pub device: Device,
    /// Storage format of weight matrices that are not kept in blocks.
    pub weight_dtype: DType,
    /// Weight matrices in fp8 (e4m3) on a CUDA device, each output with a scale, and their inputs too, each row with a scale. Embeddings,
    /// heads, routers and experts keep the weights' format.
    pub fp8: bool,
    /// Block format that dense weight matrices are rounded to while they are loaded; those whose rows are not whole blocks take
    /// q8_0, or stay dense.
    pub quantize: Option<GgmlDType>,
    /// How products with dense weights are summed, on the CPU's native path.
    pub products: DenseProducts,
    /// How the batch enters products of matrices in blocks, on the CPU's native path.
    pub block_inputs: BlockInputs,
    /// Format of activations: f32 on the CPU, the weights' format elsewhere.
    pub activation_dtype: DType,
    /// Format of the KV cache.
    pub kv_format: KvFormat,
    /// Which version of each operation runs.
    pub path: OpsPath,
    /// The device's kernels, if it is a CUDA device.
    pub kernels: Option<Kernels>,
    /// Devices of the same kind that a model's layers behind go to, an equal share to each; none: the whole model is here.
    pub further: Vec<Compute>,
}

/// What computes an operation.
#[derive(Debug, Clone)]
pub enum Runs {
    /// Our code for the processor.
    Cpu,
    /// Our kernels on a CUDA device.
    Cuda(Kernels),
    /// Candle's operations, on any device.
    Candle,
}

/// What a CUDA device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Versions of driver and libraries.
    pub software: String,
    /// Device memory that nobody has.
    pub free_bytes: usize,
    /// All of it.
    pub total_bytes: usize,
    /// Whether its matrix units take fp8 (compute capability 8.9 and above).
    pub has_fp8: bool,
    /// Whether kernels of Hopper's warpgroups gave what they should; `None` where there are none.
    pub warpgroups: Option<bool>,
}

/// Which version of each operation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpsPath {
    /// Our own kernels for the device.
    Native,
    /// Candle operations only: slower, runs anywhere, the reference in tests.
    Portable,
}

/// How the batch enters a product whose matrix is in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockInputs {
    /// Rounded to 8 bits, 32 elements against their largest one; products are of integers. Formats that have no such product
    /// (q8_1, q2k, q3k, q8k) take f32.
    Int8,
    /// As it is; the weights are widened.
    F32,
}

/// A device as the user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best device that this binary and this machine have.
    Auto,
    /// The processor.
    Cpu,
    /// The CUDA device of this index.
    Cuda(usize),
    /// The Apple GPU.
    Metal,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The feature is not compiled in.
    #[error(
        "device `{device}` asked for, but this binary was built without it\nhint: build with `--features {device}`, or use --device cpu"
    )]
    NotBuilt {
        /// `cuda` or `metal`.
        device: &'static str,
    },
    /// The driver is there, but not all of NVIDIA's libraries.
    #[error(
        "device `cuda` cannot be opened: {missing} not found\nhint: `pip install nvidia-cublas nvidia-curand` (CUDA 13) beside a python3 of the PATH, or name a toolkit's lib64 in LD_LIBRARY_PATH"
    )]
    NoLibrary {
        /// File names.
        missing: String,
    },
    /// The driver or the card refused.
    #[error("device `{device}` cannot be opened: {reason}\nhint: use --device cpu, or check the driver")]
    NotOpened {
        /// `cuda` or `metal`.
        device: &'static str,
        /// What Candle said.
        reason: candle_core::Error,
    },
}

impl Compute {
    /// Opens the device and settles the formats: `weight_dtype` or else f32 on the CPU and bf16 on a GPU.
    ///
    /// # Errors
    /// [`DeviceError`] if the device is not compiled in or cannot be opened.
    pub fn new(choice: DeviceChoice, weight_dtype: Option<DType>) -> std::result::Result<Self, DeviceError> {
        let cuda = |index| {
            let (device, kernels) = Kernels::open(index)?;
            let kernels = warpgroups::tried(&device, kernels);
            let kernels = kernels.map_err(|reason| DeviceError::NotOpened { device: "cuda", reason })?;
            Ok::<_, DeviceError>((device, Some(kernels)))
        };
        let (device, kernels) = match choice {
            DeviceChoice::Cpu => (Device::Cpu, None),
            DeviceChoice::Cuda(index) => cuda(index)?,
            DeviceChoice::Metal => (open_metal()?, None),
            DeviceChoice::Auto => match cuda(0) {
                Ok(opened) => opened,
                Err(_) => (open_metal().unwrap_or(Device::Cpu), None),
            },
        };
        let on_cpu = device.is_cpu();
        let compute = Self {
            device,
            weight_dtype: DType::F32,
            fp8: false,
            quantize: None,
            products: DenseProducts::detect(),
            block_inputs: BlockInputs::Int8,
            activation_dtype: DType::F32,
            kv_format: KvFormat::F32,
            path: if on_cpu || kernels.is_some() { OpsPath::Native } else { OpsPath::Portable },
            kernels,
            further: Vec::new(),
        };
        let weight_dtype = weight_dtype.unwrap_or(if on_cpu { DType::F32 } else { DType::BF16 });
        Ok(compute.in_format(weight_dtype))
    }

    /// The same with weights of this format; beside the CPU, activations and KV cache are of it too.
    pub fn in_format(self, weight_dtype: DType) -> Self {
        let others = if self.device.is_cpu() { DType::F32 } else { weight_dtype };
        let kv_format = match others {
            DType::BF16 => KvFormat::Bf16,
            DType::F16 => KvFormat::F16,
            _ => KvFormat::F32,
        };
        self.each(|compute| Self { weight_dtype, activation_dtype: others, kv_format, ..compute })
    }

    /// The same with `change` done to it and to the devices behind.
    pub fn each(self, change: impl Fn(Self) -> Self + Copy) -> Self {
        let further = self.further.into_iter().map(change).collect();
        Self { further, ..change(Self { further: Vec::new(), ..self }) }
    }

    /// Whether kernels that a card of these should have are left out, as they gave wrong numbers when it was opened.
    pub fn has_wrong_kernels(&self) -> bool {
        let lacks = |kernels: &Kernels| kernels.offers_warpgroups() && !kernels.has_warpgroups();
        self.kernels.as_ref().is_some_and(lacks) || self.further.iter().any(Self::has_wrong_kernels)
    }

    /// What a CUDA device says of itself; `None` elsewhere.
    ///
    /// # Errors
    /// [`DeviceError`] if it does not say.
    pub fn about(&self) -> std::result::Result<Option<About>, DeviceError> {
        let about = self.kernels.as_ref().map(Kernels::about).transpose();
        about.map_err(|reason| DeviceError::NotOpened { device: "cuda", reason })
    }

    /// The CPU with f32 weights, where nothing is rounded that is not asked for: the reference of tests.
    pub fn cpu() -> Self {
        Self {
            device: Device::Cpu,
            weight_dtype: DType::F32,
            fp8: false,
            quantize: None,
            products: DenseProducts::Fma,
            block_inputs: BlockInputs::F32,
            activation_dtype: DType::F32,
            kv_format: KvFormat::F32,
            path: OpsPath::Native,
            kernels: None,
            further: Vec::new(),
        }
    }

    /// What computes operations here.
    pub fn runs(&self) -> Runs {
        match (self.path, &self.kernels) {
            (OpsPath::Portable, _) => Runs::Candle,
            (OpsPath::Native, Some(kernels)) => Runs::Cuda(kernels.clone()),
            (OpsPath::Native, None) => Runs::Cpu,
        }
    }

    /// The same, but on the portable operations (which keep weights in the activations' format).
    pub fn portable(self) -> Self {
        self.each(|compute| Self {
            path: OpsPath::Portable,
            weight_dtype: compute.activation_dtype,
            kernels: None,
            fp8: false,
            ..compute
        })
    }

    /// The same, but what is dense stays so: for matrices too small or too delicate to be rounded.
    pub fn unquantized(&self) -> Self {
        Self { fp8: false, quantize: None, ..self.clone() }
    }

    /// The same with the head's matrix one step finer than the others, 16 bits under q8_0 and q8_0 under the rest: what it loses goes
    /// straight into the logits (ggml's own mixes keep it finer too). The 16 bits are bf16 if `published` says that it is stored so,
    /// else f16.
    pub fn for_head(&self, mut published: impl Iterator<Item = StoredFormat>) -> Self {
        match self.quantize {
            None => self.unquantized(),
            Some(GgmlDType::Q8_0) if matches!(self.runs(), Runs::Cpu) => {
                let is_bf16 = published.all(|format| format == DType::BF16.into());
                let weight_dtype = if is_bf16 { DType::BF16 } else { DType::F16 };
                Self { quantize: None, weight_dtype, ..self.clone() }
            }
            Some(GgmlDType::Q8_0) => self.unquantized(),
            Some(_) => Self { quantize: Some(GgmlDType::Q8_0), ..self.clone() },
        }
    }

    /// The blocks that a stored matrix is kept in; `None`: dense.
    fn blocks_of(&self, source: &MatrixView<'_>) -> Option<GgmlDType> {
        match source.format {
            StoredFormat::Blocks(format) => Some(format),
            StoredFormat::Dense(_) => self.quantize.and_then(|format| blocks::fitting(format, source.columns)),
        }
    }

    /// The same on a CUDA device, which has kernels for the formats of 4 to 8 bits; others are widened there.
    fn device_blocks_of(&self, source: &MatrixView<'_>) -> Option<GgmlDType> {
        let format = self.blocks_of(source).filter(|_| !self.fp8);
        format.filter(|&format| blocks::DeviceBlocks::has_kernels(format))
    }

    /// The format of weight matrices in one word, for example `f32` or `q8_0`.
    pub fn weight_format(&self) -> String {
        if self.fp8 {
            return "fp8".to_owned();
        }
        self.quantize.map_or(StoredFormat::Dense(self.weight_dtype), StoredFormat::from).name()
    }

    /// All formats that results depend on, for example `q8_0, activations int8, KV cache f16`: that of the weights, and of the
    /// others those that are not f32 and plain sums. `stored_blocks`: whether the model's files hold matrices in blocks.
    pub fn formats(&self, stored_blocks: bool) -> String {
        let mut formats = self.weight_format();
        let on_cpu = matches!(self.runs(), Runs::Cpu);
        if on_cpu && self.products == DenseProducts::Bf16x3 {
            formats += ", products bf16x3";
        }
        if matches!(self.runs(), Runs::Cuda(_)) && self.products == DenseProducts::Own {
            formats += ", products own";
        }
        if on_cpu && self.block_inputs == BlockInputs::Int8 && (stored_blocks || self.quantize.is_some()) {
            formats += ", activations int8";
        }
        if self.fp8 {
            formats = formats + ", activations fp8, the rest " + self.weight_dtype.as_str();
        }
        if self.path == OpsPath::Portable {
            formats += ", portable operations";
        }
        if self.kv_format != KvFormat::F32 {
            formats = formats + ", KV cache " + self.kv_format.name();
        }
        formats
    }

    /// Bytes that a weight takes on average, of a model that is published in bf16.
    pub fn bytes_per_weight(&self) -> f64 {
        match (self.quantize, self.products) {
            _ if self.fp8 => 1.0,
            (Some(format), _) => format.type_size() as f64 / format.block_size() as f64,
            (None, DenseProducts::Bf16x3) if matches!(self.runs(), Runs::Cpu) => 2.0,
            (None, _) => self.weight_dtype.size_in_bytes() as f64,
        }
    }

    /// Short description for reports, for example `cpu avx512 f32`.
    pub fn describe(&self) -> String {
        let device = match &self.device {
            Device::Cpu => format!("cpu {}", simd::Isa::detect().name()),
            Device::Cuda(_) => {
                self.kernels.as_ref().map_or("cuda".to_owned(), |kernels| format!("cuda {}", kernels.describe()))
            }
            Device::Metal(_) => "metal".to_owned(),
        };
        let path = if self.path == OpsPath::Portable { " portable" } else { "" };
        let cut =
            if self.further.is_empty() { String::new() } else { format!(" over {} devices", 1 + self.further.len()) };
        format!("{device} {}{path}{cut}", self.weight_format())
    }
}

#[cfg(feature = "metal")]
fn open_metal() -> std::result::Result<Device, DeviceError> {
    Device::new_metal(0).map_err(|reason| DeviceError::NotOpened { device: "metal", reason })
}

#[cfg(not(feature = "metal"))]
fn open_metal() -> std::result::Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt { device: "metal" })
}

/// The f32 elements of a contiguous CPU tensor.
fn f32_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(data) = storage else {
        candle_core::bail!("native CPU operations take f32, got {:?}", storage_dtype(storage))
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => candle_core::bail!("native CPU operations take contiguous tensors, got {layout:?}"),
    }
}

/// As [`f32_slice`], to write in place.
fn f32_slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let CpuStorage::F32(data) = storage else {
        candle_core::bail!("native CPU operations write f32, got another format")
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&mut data[start..end]),
        None => candle_core::bail!("native CPU operations take contiguous tensors, got {layout:?}"),
    }
}

fn storage_dtype(storage: &CpuStorage) -> DType {
    candle_core::backend::BackendStorage::dtype(storage)
}

/// A stored matrix as a [rows, columns] tensor in the compute's weight format: of blocks, and of what the compute rounds to
/// blocks, the widened values.
fn dense(compute: &Compute, loading: &mut Loading, source: &MatrixView<'_>) -> Result<Tensor> {
    source.validate()?;
    let shape = [source.rows, source.columns];
    let tensor = match (compute.blocks_of(source), source.format) {
        (None, StoredFormat::Dense(dtype)) => on_device(compute, loading, source.bytes, dtype, &shape)?,
        (Some(format), _) | (None, StoredFormat::Blocks(format)) => {
            let wide = product::widened(blocks::matrix(format, source, BlockInputs::F32)?.as_ref());
            Tensor::from_vec(wide, &shape, &compute.device)?
        }
    };
    tensor.to_dtype(compute.weight_dtype)
}

/// A tensor of `shape` on the compute's device whose numbers are `bytes`, row-major and in this machine's order, not necessarily aligned.
pub(crate) fn on_device(
    compute: &Compute,
    loading: &mut Loading,
    bytes: &[u8],
    dtype: DType,
    shape: &[usize],
) -> Result<Tensor> {
    match compute.runs() {
        Runs::Cuda(kernels) => kernels.upload(loading, bytes, dtype, shape),
        Runs::Cpu | Runs::Candle => Tensor::from_raw_buffer(bytes, dtype, shape, &compute.device),
    }
}

/// Whether a device had no room for what an operation wanted: less may fit. What was there before is as it was.
pub fn is_out_of_memory(error: &candle_core::Error) -> bool {
    // Candle passes the driver's errors on in words alone.
    error.to_string().contains("CUDA_ERROR_OUT_OF_MEMORY")
}

/// Copies a tensor's elements to the host as f32, row-major.
///
/// # Errors
/// If the device cannot copy or convert.
pub fn to_host(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()
}

/// Calls `read` with a tensor's elements as f32, row-major: in place where they lie so on the CPU, else copied.
///
/// # Errors
/// If the device cannot copy or convert.
pub fn with_host<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    if tensor.device().is_cpu() && tensor.dtype() == DType::F32 && tensor.is_contiguous() {
        return workspace::with_slice(tensor, |elements| Ok(read(elements)));
    }
    Ok(read(&to_host(tensor)?))
}

/// An address that several threads of one parallel loop write through, each to elements of its own.
struct SharedOut<T = f32>(*mut T);
// SAFETY: the loops that use it give each thread disjoint elements; they say so where they write.
unsafe impl<T> Send for SharedOut<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for SharedOut<T> {}

impl<T> Clone for SharedOut<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SharedOut<T> {}

impl<T> SharedOut<T> {
    /// The address `offset` elements on. A method, so that closures capture the whole wrapper.
    fn at(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

/// Elements under which an elementwise loop stays on one thread: waking others costs more.
const PARALLEL_FROM: usize = 1 << 13;

/// Runs `each(row, output row)` over the rows of `out`, in parallel when there is enough to do.
fn for_each_row(out: &mut [f32], row_len: usize, each: impl Fn(usize, &mut [f32]) + Sync) {
    use rayon::prelude::*;
    if out.len() < PARALLEL_FROM {
        out.chunks_mut(row_len).enumerate().for_each(|(row, slice)| each(row, slice));
    } else {
        let rows_at_once = (PARALLEL_FROM / 4).div_ceil(row_len);
        out.par_chunks_mut(row_len * rows_at_once).enumerate().for_each(|(chunk, slice)| {
            for (row, slice) in slice.chunks_mut(row_len).enumerate() {
                each(chunk * rows_at_once + row, slice);
            }
        });
    }
}

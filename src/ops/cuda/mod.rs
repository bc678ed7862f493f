//! A CUDA device as operations see it: kernels of kernels/*.cu loaded once and launched by name, products through cuBLAS, and the way of
//! a step's numbers to the device. Everything is put into one queue, in order; nobody waits here but [`Staging`], for its copies.
//! Knows Candle's device and NVIDIA's libraries; knows no operation.

mod blas;
mod choice;
mod library;
mod pinned;
mod trial;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::result::{launch_kernel, memcpy_htod_async};
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaGraph, CudaSlice, CudaStream, DevicePtr, sys};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDevice, CudaStorageSlice, WrapErr};
use candle_core::{DType, Device, Result, Storage, Tensor};

use super::launch::Launch;
use super::{About, DeviceError};
pub use blas::Plan;
use pinned::{Pinned, Uploads};

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// Dynamic shared memory that a kernel may use without being asked to be allowed more.
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;
/// Bytes from which a tensor goes to the device by [`Uploads`].
const UPLOADED_FROM: usize = 1 << 20;

/// Kernels of a CUDA device, and its queue.
#[derive(Clone)]
pub struct Kernels(Arc<Loaded>);

struct Loaded {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    functions: BTreeMap<&'static str, CudaFunction>,
    blas: blas::Blas,
    capability: (i32, i32),
    multiprocessors: usize,
    /// See [`Kernels::has_warpgroups`].
    warpgroups: bool,
    description: String,
}

/// What matrices that go to one device, one after the other, have in common.
#[derive(Default)]
pub struct Loading {
    /// From the first that is large.
    uploads: Option<Uploads>,
    choices: blas::Choices,
}

impl Loading {
    /// Shapes of dense products that the library has none for that gives a row the same bits in any batch, each with what was found of the
    /// library; they take ours.
    pub fn slow_products(&self) -> Vec<String> {
        self.choices.without().collect()
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernels({})", self.0.description)
    }
}

impl Kernels {
    /// Opens the device and loads the kernels.
    ///
    /// # Errors
    /// [`DeviceError`] if there is no driver, no such device, or a library is missing.
    pub fn open(index: usize) -> std::result::Result<(Device, Self), DeviceError> {
        library::find()?;
        // cudarc panics where a library lacks a function it wants; that is an error of the machine, to be told as one.
        let opened = std::panic::catch_unwind(|| Self::load(index));
        let opened = opened.unwrap_or_else(|_| candle_core::bail!("a CUDA library is missing, or older than 13.0"));
        opened.map_err(|reason| DeviceError::NotOpened { device: "cuda", reason })
    }

    fn load(index: usize) -> Result<(Device, Self)> {
        library::check_driver()?;
        library::check_libraries()?;
        let device = CudaDevice::new_with_stream(index)?;
        // What Candle holds of libraries must not be given back: where the device failed that would be a panic in place of the failure.
        std::mem::forget(device.clone());
        // SAFETY: all work goes through the device's one stream, so that nothing is freed, read or written out of its order.
        unsafe { device.disable_event_tracking() };
        let stream = device.cuda_stream();
        let context = stream.context().clone();
        let (major, minor) = context.compute_capability().w()?;
        let total = context.total_mem().w()?;
        let description = format!("{}, sm_{major}{minor}, {} MiB", context.name().w()?, total >> 20);
        library::keep_freed_memory(&context)?;
        let modules = IMAGES.iter().map(|image| context.load_module(Ptx::from_binary(image.to_vec())).w());
        let modules = modules.collect::<Result<Vec<_>>>()?;
        let mut functions = BTreeMap::new();
        for &(image, name) in KERNELS {
            // A card that has no instructions for a kernel has not got the kernel; who launches it is told.
            if let Ok(function) = modules[image].load_function(name) {
                functions.insert(name, function);
            }
        }
        let blas = blas::Blas::new(stream.clone())?;
        let count = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = context.attribute(count).w()?.max(1) as usize;
        let capability = (major, minor);
        let of_all = device.clone();
        let loaded = Loaded {
            device: of_all,
            stream,
            functions,
            blas,
            capability,
            multiprocessors,
            warpgroups: false,
            description,
        };
        Ok((Device::Cuda(device), Self(Arc::new(loaded))))
    }

    /// Short description of the card.
    pub fn describe(&self) -> String {
        self.0.description.clone()
    }

    /// Where a tensor's first element lies.
    pub(super) fn address(&self, tensor: &Tensor) -> Result<u64> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            candle_core::bail!("a kernel takes tensors on its device, got one on {:?}", tensor.device().location())
        };
        if !layout.is_contiguous() {
            candle_core::bail!("a kernel takes contiguous tensors, got {layout:?}")
        }
        let stream = &self.0.stream;
        fn start<T>(slice: &CudaSlice<T>, stream: &CudaStream) -> u64 {
            slice.device_ptr(stream).0
        }
        let start = match &storage.slice {
            CudaStorageSlice::U8(slice) => start(slice, stream),
            CudaStorageSlice::U32(slice) => start(slice, stream),
            CudaStorageSlice::I64(slice) => start(slice, stream),
            CudaStorageSlice::BF16(slice) => start(slice, stream),
            CudaStorageSlice::F16(slice) => start(slice, stream),
            CudaStorageSlice::F32(slice) => start(slice, stream),
            CudaStorageSlice::F64(slice) => start(slice, stream),
            CudaStorageSlice::F8E4M3(slice) => start(slice, stream),
            _ => candle_core::bail!("a kernel does not take {:?}", tensor.dtype()),
        };
        Ok(start + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
    }

    /// A tensor of `shape` on the device whose numbers are `bytes`, row-major. They are read before this returns.
    pub(super) fn upload(&self, loading: &mut Loading, bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let device = Device::Cuda(self.0.device.clone());
        if bytes.len() < UPLOADED_FROM {
            return Tensor::from_raw_buffer(bytes, dtype, shape, &device);
        }
        let tensor = Tensor::zeros(shape, dtype, &device)?;
        if tensor.elem_count() * dtype.size_in_bytes() != bytes.len() {
            candle_core::bail!("{} bytes for {shape:?} {dtype:?}", bytes.len())
        }
        let uploads = match &mut loading.uploads {
            Some(uploads) => uploads,
            none => none.insert(Uploads::new(&self.0.stream)?),
        };
        uploads.send(bytes, self.address(&tensor)?)?;
        Ok(tensor)
    }

    /// Puts a few bytes to where a tensor begins that they fit into.
    fn fill(&self, tensor: &Tensor, bytes: &[u8]) -> Result<()> {
        if tensor.elem_count() * tensor.dtype().size_in_bytes() < bytes.len() {
            candle_core::bail!("{} bytes for {:?} {:?}", bytes.len(), tensor.shape(), tensor.dtype())
        }
        self.0.stream.context().bind_to_thread().w()?;
        // SAFETY: the tensor has room for the bytes, and lives until the queue has come behind this; memory that is not pinned is read before
        // the call returns.
        unsafe { memcpy_htod_async(self.address(tensor)?, bytes, self.0.stream.cu_stream()) }.w()
    }

    /// Puts a launch into the queue.
    pub(super) fn start(&self, launch: &Launch<'_>) -> Result<()> {
        let Some(function) = self.0.functions.get(launch.name.as_str()) else {
            candle_core::bail!("there is no kernel {}", launch.name)
        };
        self.0.stream.context().bind_to_thread().w()?;
        if launch.shared_bytes > SHARED_WITHOUT_ASKING {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, launch.shared_bytes as i32).w()?;
        }
        let mut words = launch.words.clone();
        let mut addresses: Vec<*mut c_void> = words.iter_mut().map(|word| (&raw mut *word).cast()).collect();
        let [x, y, z] = launch.grid;
        // SAFETY: the function is of a module that lives as long as it; each argument is a word as wide as any parameter; the tensors
        // whose addresses are passed were valid when they were taken, and memory is freed in the order of this queue. That a kernel's
        // parameters are what its caller passes is what tests/kernels and the pretended device hold.
        unsafe {
            launch_kernel(
                function.cu_function(),
                (x, y, z),
                (launch.block, 1, 1),
                launch.shared_bytes,
                self.0.stream.cu_stream(),
                &mut addresses,
            )
        }
        .map_err(|error| candle_core::Error::Msg(format!("kernel {}: {error:?}", launch.name)))
    }

    /// A plan for products with W [n, k], whose rows are in fp8 and have `scales` [n] if these are given, and the bias [n], if there is
    /// one; results are of `output`. Or why the library has no algorithms that give a row the same bits whatever the number of rows.
    pub(super) fn plan(
        &self,
        loading: &mut Loading,
        weight: &Tensor,
        scales: Option<&Tensor>,
        bias: Option<&Tensor>,
        output: DType,
    ) -> Result<std::result::Result<Plan, String>> {
        Plan::new(self, &mut loading.choices, weight, scales, bias, output)
    }

    /// Whether products in fp8 take a scale for each row and each column (cuBLAS documentation: compute capability 9.0 alone).
    pub(super) fn scales_fp8_rows(&self) -> bool {
        self.0.capability == (9, 0)
    }

    /// Whether there are kernels here in which four warps multiply together, out of shared memory (wgmma: compute capability 9.0 alone).
    pub(super) fn offers_warpgroups(&self) -> bool {
        self.0.capability == (9, 0) && self.0.functions.contains_key("pairwright_group_product_64x64_bf16")
    }

    /// The same with these kernels in use, or out of it as they are wrong. Of kernels that nobody else holds yet.
    pub(super) fn with_warpgroups(mut self, is_right: bool) -> Self {
        if let Some(loaded) = Arc::get_mut(&mut self.0) {
            loaded.warpgroups = is_right;
            if !is_right {
                loaded.description += ", without kernels of warpgroups";
            }
        }
        self
    }

    /// Whether these kernels are there and give what they should, as far as they were tried.
    pub(super) fn has_warpgroups(&self) -> bool {
        self.0.warpgroups
    }

    /// Multiprocessors of the card.
    pub(super) fn multiprocessors(&self) -> usize {
        self.0.multiprocessors
    }

    /// What `work` puts into the queue, kept to be run again and again instead of being run.
    ///
    /// # Errors
    /// What `work` says, or the driver.
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let stream = &self.0.stream;
        stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        let done = work();
        let flags = sys::CUgraphInstantiate_flags(0);
        // Capture has to end even if the work failed.
        let captured = stream.end_capture(flags);
        done?;
        match captured.w()? {
            Some(graph) => Ok(Graph(graph)),
            None => candle_core::bail!("nothing was captured"),
        }
    }

    /// Waits until the queue is empty.
    ///
    /// # Errors
    /// If anything in it failed.
    pub fn wait(&self) -> Result<()> {
        self.0.stream.synchronize().w()
    }

    /// What the device says of itself.
    ///
    /// # Errors
    /// If the driver does not say.
    pub(super) fn about(&self) -> Result<About> {
        let context = self.0.stream.context();
        let (free_bytes, total_bytes) = context.mem_get_info().w()?;
        let free_bytes = free_bytes + library::kept_memory(context)?;
        let has_fp8 = self.0.capability >= (8, 9);
        let warpgroups = self.offers_warpgroups().then_some(self.0.warpgroups);
        Ok(About { software: library::versions()?, free_bytes, total_bytes, has_fp8, warpgroups })
    }

    /// Memory for a step's numbers.
    pub(super) fn staging(&self) -> Result<Staging> {
        Staging::with_capacity(self.clone(), 1 << 16)
    }
}

/// Work that was captured.
pub struct Graph(CudaGraph);

// SAFETY: a graph is launched by the one thread that owns it.
unsafe impl Send for Graph {}

impl Graph {
    /// Puts the work into the queue.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn launch(&self) -> Result<()> {
        self.0.launch().w()
    }
}

/// Memory that a step's numbers go through: written on the host, where the device can read without asking, and copied from there, many
/// at once, while the host goes on.
pub struct Staging {
    kernels: Kernels,
    host: Pinned<u32>,
    /// [capacity]
    device: Tensor,
    /// Numbers that have a place, and those of them that were sent.
    used: usize,
    sent: usize,
    num_moves: usize,
}

impl Staging {
    fn with_capacity(kernels: Kernels, capacity: usize) -> Result<Self> {
        let host = Pinned::new(&kernels.0.stream, capacity)?;
        let device = Tensor::zeros(capacity, DType::U32, &Device::Cuda(kernels.0.device.clone()))?;
        Ok(Self { kernels, host, device, used: 0, sent: 0, num_moves: 0 })
    }

    /// Begins anew, when the copies of the step before are done: it need not have been waited for otherwise.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.host.wait()?;
        (self.used, self.sent) = (0, 0);
        Ok(())
    }

    /// How often the memory was found anew.
    pub(super) fn num_moves(&self) -> usize {
        self.num_moves
    }

    /// A place on the device for these numbers, with room for `capacity` of them, where they are after [`Self::send`]. Where it lies
    /// follows from the capacities asked for since [`Self::clear`] alone.
    pub(super) fn push(&mut self, numbers: &[u32], capacity: usize) -> Result<Tensor> {
        let capacity = capacity.max(numbers.len()).max(1);
        let first = self.used;
        // Whatever follows begins on 16 bytes.
        let end = (first + capacity).next_multiple_of(4);
        if end > self.host.len() {
            // What was staged before stays where it lies, as long as somebody holds it.
            self.send()?;
            let num_moves = self.num_moves + 1;
            *self = Self { num_moves, ..Self::with_capacity(self.kernels.clone(), (2 * end).next_power_of_two())? };
            return self.push(numbers, capacity);
        }
        self.host.host()?[first..first + numbers.len()].copy_from_slice(numbers);
        self.used = end;
        self.device.narrow(0, first, capacity)
    }

    /// Puts the copy of all that was pushed since the last time into the queue.
    pub(super) fn send(&mut self) -> Result<()> {
        if self.sent < self.used {
            let target = self.kernels.address(&self.device)? + (self.sent * size_of::<u32>()) as u64;
            self.host.send(self.sent..self.used, target)?;
            self.sent = self.used;
        }
        Ok(())
    }
}

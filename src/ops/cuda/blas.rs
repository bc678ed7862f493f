//! Products through cuBLASLt: y [m, n] = x [m, k] Wᵀ [k, n] (+ bias), summed in f32. A weight matrix has one plan, with algorithms for every m
//! that split no sum, get no memory to put parts of one into, and were seen to give a row the same bits as each other. They are chosen for
//! the first matrix of its kind. Knows matrices; knows no layer.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda_backend::cudarc::cublaslt::sys;
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::{DType, Error, Result, Tensor};

use super::Kernels;
use super::choice::{Choice, Offer, Part};
use super::trial::{Shape, Trial};

/// Algorithms that the library is asked for.
const MOST_ALGORITHMS: usize = 16;
/// Bytes that addresses of inputs and results are multiples of.
const ALIGNMENT: u32 = 16;

/// `CUBLAS_OP_T`.
const TRANSPOSED: i32 = 1;

/// What a choice depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    shape: Shape,
    has_scales: bool,
    has_bias: bool,
}

/// The library's handle.
pub struct Blas {
    handle: sys::cublasLtHandle_t,
    stream: Arc<CudaStream>,
}

/// One of the library's algorithms, as it was set up.
pub type Algorithm = sys::cublasLtMatmulAlgo_t;

/// What was chosen for the kinds so far, or why the library has nothing for the kind.
#[derive(Default)]
pub(super) struct Choices(HashMap<Kind, std::result::Result<Arc<Choice<Algorithm>>, String>>);

// SAFETY: NVIDIA says that a cuBLASLt handle may be used from several threads.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

impl Blas {
    pub(super) fn new(stream: Arc<CudaStream>) -> Result<Self> {
        let handle = result::create_handle().map_err(failed("cublasLtCreate"))?;
        Ok(Self { handle, stream })
    }
}

impl Choices {
    /// Shapes that the library has no algorithm for.
    pub(super) fn without(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|(Kind { shape: Shape { input, n, k, .. }, .. }, choice)| {
            let why = choice.as_ref().err()?;
            Some(format!("{} {n}x{k} ({why})", input.as_str()))
        })
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and used by nobody any more. At the program's end there is nobody to tell of a failure.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// How products with one matrix are computed.
#[derive(Clone)]
pub struct Plan {
    parts: Arc<Parts>,
    choice: Arc<Choice<Algorithm>>,
}

struct Parts {
    weight: Tensor,
    /// Of the weight's rows, where that is in fp8 and the product scales.
    scales: Option<Tensor>,
    bias: Option<Tensor>,
    output: DType,
    description: sys::cublasLtMatmulDesc_t,
}

// SAFETY: a description is not changed after it is made.
unsafe impl Send for Parts {}
// SAFETY: as above.
unsafe impl Sync for Parts {}

impl Drop for Parts {
    fn drop(&mut self) {
        if !self.description.is_null() {
            // SAFETY: made by `Plan::new`, and used by nobody any more.
            let _ = unsafe { result::destroy_matmul_desc(self.description) };
        }
    }
}

impl Plan {
    /// A plan for W [n, k], in fp8 with `scales` [n] if these are given, and the bias [n] in the format `output` of the results, if there
    /// is one; or why the library has no algorithms that fit.
    pub(super) fn new(
        kernels: &Kernels,
        choices: &mut Choices,
        weight: &Tensor,
        scales: Option<&Tensor>,
        bias: Option<&Tensor>,
        output: DType,
    ) -> Result<std::result::Result<Self, String>> {
        let (n, k) = weight.dims2()?;
        let shape = Shape { input: weight.dtype(), output, n, k };
        let kind = Kind { shape, has_scales: scales.is_some(), has_bias: bias.is_some() };
        let (weight, scales, bias) = (weight.clone(), scales.cloned(), bias.cloned());
        let mut parts = Parts { weight, scales, bias, output, description: std::ptr::null_mut() };
        // For choosing, any scales will do for the rows of x.
        parts.description = parts.described(kernels, parts.scales.as_ref())?;
        let choice = match choices.0.get(&kind) {
            Some(known) => known.clone(),
            None => {
                let offer = OfKind { parts: &parts, kernels, trial: Trial::new(kernels, shape)? };
                let choice = Choice::new(&offer)?.map(Arc::new);
                choices.0.entry(kind).or_insert(choice).clone()
            }
        };
        Ok(choice.map(|choice| Self { parts: Arc::new(parts), choice }))
    }

    /// The first of the parts that a product of m rows falls into, each to be run by itself.
    pub(in crate::ops) fn part(&self, kernels: &Kernels, m: usize) -> Result<Part<Algorithm>> {
        self.choice.part(m, |algorithm, rows| self.parts.takes(kernels, algorithm, rows))
    }

    /// Most rows that a part is run with and that are not its own.
    pub(in crate::ops) fn most_padding(&self) -> usize {
        self.choice.most_padding()
    }

    /// y = x Wᵀ + bias by a part's algorithm, both its padded rows, contiguous on the device, y in the plan's output format; the rows of an
    /// x in fp8 have `scales` [m] if those of W have.
    pub(in crate::ops) fn run(
        &self,
        kernels: &Kernels,
        part: &Part<Algorithm>,
        x: &Tensor,
        scales: Option<&Tensor>,
        y: &Tensor,
    ) -> Result<()> {
        let parts = &*self.parts;
        let ((m, k), (n, _)) = (x.dims2()?, parts.weight.dims2()?);
        if parts.weight.dim(1)? != k
            || y.dims2()? != (m, n)
            || x.dtype() != parts.weight.dtype()
            || y.dtype() != parts.output
        {
            let (x, y, weight) = ((x.shape(), x.dtype()), (y.shape(), y.dtype()), &parts.weight);
            candle_core::bail!("a product of {x:?} with {:?} {:?} to {y:?}", weight.shape(), weight.dtype())
        }
        if parts.scales.is_some() != scales.is_some() || scales.is_some_and(|scales| scales.elem_count() != m) {
            candle_core::bail!("a product of {m} rows in fp8 without a scale for each")
        }
        parts.run(kernels, x, scales, y, &part.algorithm)?.map_err(failed("cublasLtMatmul"))
    }
}

impl Parts {
    /// What the product is, with `scales` of the rows of x if it scales.
    fn described(&self, kernels: &Kernels, scales: Option<&Tensor>) -> Result<sys::cublasLtMatmulDesc_t> {
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let description = result::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F)
            .map_err(failed("cublasLtMatmulDescCreate"))?;
        let filled = self.describe(kernels, description, scales);
        filled.map(|()| description).inspect_err(|_| {
            // SAFETY: made above, and used by nobody.
            let _ = unsafe { result::destroy_matmul_desc(description) };
        })
    }

    fn describe(
        &self,
        kernels: &Kernels,
        description: sys::cublasLtMatmulDesc_t,
        scales: Option<&Tensor>,
    ) -> Result<()> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        fn set<T>(
            description: sys::cublasLtMatmulDesc_t,
            attribute: sys::cublasLtMatmulDescAttributes_t,
            value: &T,
        ) -> Result<()> {
            let (address, size) = ((&raw const *value).cast::<c_void>(), size_of::<T>());
            // SAFETY: the value is read at once; callers pass the type that NVIDIA names for the attribute.
            unsafe { result::set_matmul_desc_attribute(description, attribute, address, size) }
                .map_err(failed("cublasLtMatmulDescSetAttribute"))
        }
        // In the library's order, columns first, W is [k, n] and is turned over; x is [k, m] and y [n, m] as they lie.
        set(description, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        if let Some(bias) = &self.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            set(description, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            set(description, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &kernels.address(bias)?)?;
        }
        if let (Some(of_weight), Some(of_x)) = (&self.scales, scales) {
            let each = sys::cublasLtMatmulMatrixScale_t::CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
            set(description, Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &each)?;
            set(description, Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &each)?;
            set(description, Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &kernels.address(of_weight)?)?;
            set(description, Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &kernels.address(of_x)?)?;
        }
        Ok(())
    }

    fn layouts(&self, m: usize) -> std::result::Result<Layouts, CublasError> {
        let unusable = |_: Error| CublasError(sys::cublasStatus_t::CUBLAS_STATUS_MAPPING_ERROR);
        let (n, k) = self.weight.dims2().map_err(unusable)?;
        Layouts::new(self.weight.dtype(), self.output, m, n, k)
    }

    /// Whether the library would run an algorithm with m rows, without any memory for it.
    fn takes(&self, kernels: &Kernels, algorithm: &Algorithm, m: usize) -> Result<bool> {
        Ok(self.checked(kernels, algorithm, m)? == Ok(0))
    }

    /// Bytes of memory that an algorithm wants with m rows; the inner result is the library's.
    fn checked(
        &self,
        kernels: &Kernels,
        algorithm: &Algorithm,
        m: usize,
    ) -> Result<std::result::Result<usize, CublasError>> {
        let layouts = self.layouts(m).map_err(failed("cublasLtMatrixLayoutCreate"))?;
        let mut found = MaybeUninit::uninit();
        let (weight, x, y) = (layouts.weight, layouts.x, layouts.y);
        let handle = kernels.0.blas.handle;
        // SAFETY: all handles are alive; the library writes what it is told to.
        let status = unsafe {
            sys::cublasLtMatmulAlgoCheck(handle, self.description, weight, x, y, y, algorithm, found.as_mut_ptr())
        };
        // SAFETY: written if the check went well.
        Ok(status.result().map(|()| unsafe { found.assume_init() }.workspaceSize))
    }

    /// Algorithms that the library would take, the best first.
    fn offered(&self, kernels: &Kernels, layouts: &Layouts) -> std::result::Result<Vec<Algorithm>, CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = result::create_matmul_pref()?;
        let set = |attribute, address: *const c_void, size| {
            // SAFETY: the preference was just made; the value is read at once, and of the type that NVIDIA names.
            unsafe { result::set_matmul_pref_attribute(preference, attribute, address, size) }
        };
        let set_word = |attribute, word: u32| set(attribute, (&raw const word).cast(), size_of_val(&word));
        let workspace_bytes = 0usize;
        let address = (&raw const workspace_bytes).cast();
        let offered = set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, address, size_of_val(&workspace_bytes))
            .and_then(|()| set_word(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, 0))
            .and_then(|()| set_word(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, ALIGNMENT))
            .and_then(|()| set_word(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, ALIGNMENT))
            .and_then(|()| set_word(Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, ALIGNMENT))
            .and_then(|()| {
                let mut results =
                    [const { MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit() }; MOST_ALGORITHMS];
                let (mut count, (weight, x, y)) = (0, (layouts.weight, layouts.x, layouts.y));
                // SAFETY: all handles are alive; there is room for as many results as are asked for.
                unsafe {
                    sys::cublasLtMatmulAlgoGetHeuristic(
                        kernels.0.blas.handle,
                        self.description,
                        weight,
                        x,
                        y,
                        y,
                        preference,
                        MOST_ALGORITHMS as i32,
                        results.as_mut_ptr().cast(),
                        &raw mut count,
                    )
                }
                .result()?;
                // SAFETY: the library wrote that many.
                let results = results[..count as usize].iter().map(|result| unsafe { result.assume_init() });
                Ok(results.filter(|result| result.state.result().is_ok()).map(|result| result.algo).collect())
            });
        // SAFETY: made above, and used by nobody any more.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        offered
    }

    /// The product with rows x, in fp8 with `scales` if W has such; the inner result is the library's.
    fn run(
        &self,
        kernels: &Kernels,
        x: &Tensor,
        scales: Option<&Tensor>,
        y: &Tensor,
        algorithm: &Algorithm,
    ) -> Result<std::result::Result<(), CublasError>> {
        // Where a description holds the address of this product's scales it is this product's own.
        let own = scales.map(|scales| self.described(kernels, Some(scales))).transpose()?;
        let done = self.run_as(kernels, own.unwrap_or(self.description), x, y, algorithm);
        if let Some(own) = own {
            // SAFETY: made above; what was put into the queue does not read it.
            let _ = unsafe { result::destroy_matmul_desc(own) };
        }
        Ok(done)
    }

    fn run_as(
        &self,
        kernels: &Kernels,
        description: sys::cublasLtMatmulDesc_t,
        x: &Tensor,
        y: &Tensor,
        algorithm: &Algorithm,
    ) -> std::result::Result<(), CublasError> {
        let unusable = |_: Error| CublasError(sys::cublasStatus_t::CUBLAS_STATUS_MAPPING_ERROR);
        let layouts = self.layouts(x.dim(0).map_err(unusable)?)?;
        let address = |tensor| kernels.address(tensor).map_err(unusable);
        let (weight, x, y) = (address(&self.weight)?, address(x)?, address(y)?);
        let blas = &kernels.0.blas;
        let no_context = |_| CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED);
        blas.stream.context().bind_to_thread().map_err(no_context)?;
        let (one, zero) = (1f32, 0f32);
        // SAFETY: handles are alive; the layouts are those of the tensors that the addresses belong to; no workspace is no bytes of it.
        unsafe {
            result::matmul(
                blas.handle,
                description,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                weight as *const c_void,
                layouts.weight,
                x as *const c_void,
                layouts.x,
                y as *const c_void,
                layouts.y,
                y as *mut c_void,
                layouts.y,
                algorithm,
                std::ptr::null_mut(),
                0,
                blas.stream.cu_stream().cast(),
            )
        }
    }
}

/// What a kind of product is offered, shown by one matrix of the kind.
struct OfKind<'a> {
    parts: &'a Parts,
    kernels: &'a Kernels,
    trial: Trial<'a>,
}

impl Offer<Algorithm> for OfKind<'_> {
    fn offered(&self, rows: usize) -> Result<Vec<Algorithm>> {
        let layouts = self.parts.layouts(rows).map_err(failed("cublasLtMatrixLayoutCreate"))?;
        match self.parts.offered(self.kernels, &layouts) {
            Ok(offered) => Ok(offered.into_iter().filter(|algorithm| !splits(algorithm)).collect()),
            Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => Ok(Vec::new()),
            Err(error) => Err(failed("cublasLtMatmulAlgoGetHeuristic")(error)),
        }
    }

    fn takes(&self, algorithm: &Algorithm, rows: usize) -> Result<bool> {
        self.parts.takes(self.kernels, algorithm, rows)
    }

    fn said(&self, algorithm: &Algorithm, rows: usize) -> Result<String> {
        Ok(match self.parts.checked(self.kernels, algorithm, rows)? {
            Ok(bytes) => format!("yes, with {bytes} bytes"),
            Err(error) => format!("{:?}", error.0),
        })
    }

    fn bits(&self, algorithm: &Algorithm, rows: usize) -> Result<Option<Vec<u64>>> {
        self.trial.bits(rows, |x, y| {
            // Any scales will do for the rows of x.
            let ones = self.parts.scales.as_ref().map(|_| Tensor::ones(rows, DType::F32, x.device())).transpose()?;
            Ok(self.parts.run(self.kernels, x, ones.as_ref(), y, algorithm)?.is_ok())
        })
    }
}

/// Whether an algorithm says that it adds up parts of a sum. What does not say is found out when it is tried.
fn splits(algorithm: &Algorithm) -> bool {
    use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
    let word = |attribute| {
        let (mut word, mut written) = (0u32, 0);
        let (address, size) = ((&raw mut word).cast(), size_of::<u32>());
        // SAFETY: both attributes are words of 32 bits, of which there is room for one.
        let status =
            unsafe { sys::cublasLtMatmulAlgoConfigGetAttribute(algorithm, attribute, address, size, &raw mut written) };
        status.result().ok().map(|()| word)
    };
    let [parts, scheme] =
        [Attribute::CUBLASLT_ALGO_CONFIG_SPLITK_NUM, Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME].map(word);
    parts.is_some_and(|parts| parts > 1) || scheme.is_some_and(|scheme| scheme != 0)
}

/// How a product's matrices lie, as the library wants to be told.
struct Layouts {
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    y: sys::cublasLtMatrixLayout_t,
}

impl Layouts {
    fn new(input: DType, output: DType, m: usize, n: usize, k: usize) -> std::result::Result<Self, CublasError> {
        let layout = |dtype, rows: usize, columns: usize| {
            result::create_matrix_layout(data_type(dtype)?, rows as u64, columns as u64, rows as i64)
        };
        let weight = layout(input, k, n)?;
        let x = layout(input, k, m).inspect_err(|_| destroy(weight))?;
        let y = layout(output, n, m).inspect_err(|_| _ = [weight, x].map(destroy))?;
        Ok(Self { weight, x, y })
    }
}

impl Drop for Layouts {
    fn drop(&mut self) {
        [self.weight, self.x, self.y].into_iter().for_each(destroy);
    }
}

fn destroy(layout: sys::cublasLtMatrixLayout_t) {
    // SAFETY: callers made it and use it no more.
    let _ = unsafe { result::destroy_matrix_layout(layout) };
}

fn data_type(dtype: DType) -> std::result::Result<sys::cudaDataType, CublasError> {
    match dtype {
        DType::F32 => Ok(sys::cudaDataType::CUDA_R_32F),
        DType::F16 => Ok(sys::cudaDataType::CUDA_R_16F),
        DType::BF16 => Ok(sys::cudaDataType::CUDA_R_16BF),
        DType::F8E4M3 => Ok(sys::cudaDataType::CUDA_R_8F_E4M3),
        _ => Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)),
    }
}

fn failed(what: &'static str) -> impl Fn(CublasError) -> Error {
    move |error| Error::Msg(format!("{what}: {:?}", error.0))
}

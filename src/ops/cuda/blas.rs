//! Products through cuBLASLt: y [m, n] = x [m, k] Wᵀ [k, n] (+ bias), summed in f32. A weight matrix has one plan, whose algorithm serves every m,
//! splits no sum, gets no memory to put parts of one into, and was seen to give a row the same bits for several m. It is chosen for the first
//! matrix of its kind. Knows matrices; knows no layer.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda_backend::cudarc::cublaslt::sys;
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::{DType, Error, Result, Tensor};

use super::Kernels;
use super::trial::{Shape, is_steady};

/// Numbers of rows that the library is asked for algorithms for, until one fits: the largest batch that decodes at once, a prompt, a small batch.
const PLANNED_ROWS: [usize; 3] = [256, 4096, 16];
/// Numbers of rows that an algorithm must take: what decode steps are padded to, a prompt's end, and large steps.
const TAKEN_ROWS: [usize; 15] = [1, 2, 3, 4, 7, 8, 16, 48, 64, 129, 256, 512, 1000, 4096, 16_384];
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

/// What was chosen for the kinds so far. None: the library has no algorithm for the kind.
#[derive(Default)]
pub(super) struct Choices(HashMap<Kind, Option<sys::cublasLtMatmulAlgo_t>>);

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
        let name = |Kind { shape: Shape { input, n, k, .. }, .. }: &Kind| format!("{} {n}x{k}", input.as_str());
        self.0.iter().filter(|(_, algorithm)| algorithm.is_none()).map(move |(kind, _)| name(kind))
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
    algorithm: sys::cublasLtMatmulAlgo_t,
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
    /// is one. `None` if the library has no algorithm that fits.
    pub(super) fn new(
        kernels: &Kernels,
        choices: &mut Choices,
        weight: &Tensor,
        scales: Option<&Tensor>,
        bias: Option<&Tensor>,
        output: DType,
    ) -> Result<Option<Self>> {
        let (n, k) = weight.dims2()?;
        let shape = Shape { input: weight.dtype(), output, n, k };
        let kind = Kind { shape, has_scales: scales.is_some(), has_bias: bias.is_some() };
        let (weight, scales, bias) = (weight.clone(), scales.cloned(), bias.cloned());
        let mut parts = Parts { weight, scales, bias, output, description: std::ptr::null_mut() };
        // For choosing, any scales will do for the rows of x.
        parts.description = parts.described(kernels, parts.scales.as_ref())?;
        let algorithm = match choices.0.get(&kind) {
            Some(known) => *known,
            None => *choices.0.entry(kind).or_insert(parts.choose(kernels, shape)?),
        };
        Ok(algorithm.map(|algorithm| Self { parts: Arc::new(parts), algorithm }))
    }

    /// y = x Wᵀ + bias, both contiguous rows on the device, y in the plan's output format; the rows of an x in fp8 have `scales` [m] if
    /// those of W have.
    pub(in crate::ops) fn run(&self, kernels: &Kernels, x: &Tensor, scales: Option<&Tensor>, y: &Tensor) -> Result<()> {
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
        if m == 0 {
            return Ok(());
        }
        if parts.scales.is_some() != scales.is_some() || scales.is_some_and(|scales| scales.elem_count() != m) {
            candle_core::bail!("a product of {m} rows in fp8 without a scale for each")
        }
        parts.run(kernels, x, scales, y, &self.algorithm)?.map_err(failed("cublasLtMatmul"))
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

    /// The library's first choice for one of [`PLANNED_ROWS`] among algorithms that split no sum, take any number of rows, and give a row the
    /// same bits in each.
    fn choose(&self, kernels: &Kernels, shape: Shape) -> Result<Option<sys::cublasLtMatmulAlgo_t>> {
        let Shape { input, output, n, k } = shape;
        let layouts = |m| Layouts::new(input, output, m, n, k).map_err(failed("cublasLtMatrixLayoutCreate"));
        let offered = |rows| match self.offered(kernels, &layouts(rows)?) {
            Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => Ok(Vec::new()),
            offered => offered.map_err(failed("cublasLtMatmulAlgoGetHeuristic")),
        };
        let all_layouts = TAKEN_ROWS.into_iter().map(layouts).collect::<Result<Vec<_>>>()?;
        let takes = |algorithm: &sys::cublasLtMatmulAlgo_t, layouts: &Layouts| {
            let mut found = MaybeUninit::uninit();
            let (weight, x, y) = (layouts.weight, layouts.x, layouts.y);
            // SAFETY: all handles are alive; the library writes what it is told to.
            let status = unsafe {
                sys::cublasLtMatmulAlgoCheck(
                    kernels.0.blas.handle,
                    self.description,
                    weight,
                    x,
                    y,
                    y,
                    algorithm,
                    found.as_mut_ptr(),
                )
            };
            // SAFETY: written if the check went well.
            status.result().is_ok() && unsafe { found.assume_init() }.workspaceSize == 0
        };
        let mut looked_at = Vec::new();
        for rows in PLANNED_ROWS {
            for algorithm in offered(rows)? {
                if looked_at.contains(&algorithm) {
                    continue;
                }
                looked_at.push(algorithm);
                let fits = !splits(&algorithm) && all_layouts.iter().all(|layouts| takes(&algorithm, layouts));
                let run = |x: &Tensor, y: &Tensor| {
                    let ones = || Tensor::ones(x.dim(0)?, DType::F32, x.device());
                    let scales = self.scales.as_ref().map(|_| ones()).transpose()?;
                    Ok(self.run(kernels, x, scales.as_ref(), y, &algorithm)?.is_ok())
                };
                if fits && is_steady(kernels, shape, run)? {
                    return Ok(Some(algorithm));
                }
            }
        }
        Ok(None)
    }

    /// Algorithms that the library would take, the best first.
    fn offered(
        &self,
        kernels: &Kernels,
        layouts: &Layouts,
    ) -> std::result::Result<Vec<sys::cublasLtMatmulAlgo_t>, CublasError> {
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
        algorithm: &sys::cublasLtMatmulAlgo_t,
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
        algorithm: &sys::cublasLtMatmulAlgo_t,
    ) -> std::result::Result<(), CublasError> {
        let unusable = |_: Error| CublasError(sys::cublasStatus_t::CUBLAS_STATUS_MAPPING_ERROR);
        let ((m, k), n) = (x.dims2().map_err(unusable)?, self.weight.dim(0).map_err(unusable)?);
        let layouts = Layouts::new(self.weight.dtype(), self.output, m, n, k)?;
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

/// Whether an algorithm adds up parts of a sum; taken for so if it does not say.
fn splits(algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
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
    parts.is_none_or(|parts| parts > 1) || scheme.is_none_or(|scheme| scheme != 0)
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

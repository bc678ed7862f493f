//! Products through cuBLASLt: y [m, n] = x [m, k] Wᵀ [k, n] (+ bias), summed in f32. A weight matrix has one plan, whose algorithm is chosen
//! once and serves every m, and never splits a sum: so a row's bits do not depend on how many rows there are. Knows matrices; knows no layer.

use std::ffi::c_void;
use std::sync::Arc;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublaslt::result::{self, CublasError};
use candle_core::cuda_backend::cudarc::cublaslt::sys;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{DType, Error, Result, Tensor};

use super::Kernels;

/// Bytes that an algorithm may use beside its matrices: what NVIDIA advises for Hopper, and more than others need.
const WORKSPACE_BYTES: usize = 32 << 20;
/// Rows that an algorithm is chosen for: the largest batch that decodes at once.
const PLANNED_ROWS: usize = 256;

/// `CUBLAS_OP_T`.
const TRANSPOSED: i32 = 1;

/// The library's handle and its workspace.
pub struct Blas {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    stream: Arc<CudaStream>,
}

// SAFETY: NVIDIA says that a cuBLASLt handle may be used from several threads.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

impl Blas {
    pub(super) fn new(stream: Arc<CudaStream>) -> Result<Self> {
        let handle = result::create_handle().map_err(failed("cublasLtCreate"))?;
        // SAFETY: the library writes what it reads there.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE_BYTES) }.w()?;
        Ok(Self { handle, workspace, stream })
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
    /// Kept, since the description holds its address.
    _bias: Option<Tensor>,
    output: DType,
    description: sys::cublasLtMatmulDesc_t,
}

// SAFETY: a description is not changed after it is made.
unsafe impl Send for Parts {}
// SAFETY: as above.
unsafe impl Sync for Parts {}

impl Drop for Parts {
    fn drop(&mut self) {
        // SAFETY: made by `Plan::new`, and used by nobody any more.
        let _ = unsafe { result::destroy_matmul_desc(self.description) };
    }
}

impl Plan {
    /// A plan for W [n, k], the bias [n] in the format `output` of the results, if there is one.
    pub(super) fn new(kernels: &Kernels, weight: &Tensor, bias: Option<&Tensor>, output: DType) -> Result<Self> {
        let (n, k) = weight.dims2()?;
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let description = result::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F)
            .map_err(failed("cublasLtMatmulDescCreate"))?;
        let parts = Parts { weight: weight.clone(), _bias: bias.cloned(), output, description };
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        // In the library's order, columns first, W is [k, n] and is turned over; x is [k, m] and y [n, m] as they lie.
        parts.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        if let Some(bias) = bias {
            parts.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS)?;
            parts.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &kernels.address(bias)?)?;
        }
        let algorithm = parts.choose(kernels, PLANNED_ROWS, n, k)?;
        Ok(Self { parts: Arc::new(parts), algorithm })
    }

    /// y = x Wᵀ + bias, both contiguous rows on the device, y in the plan's output format.
    pub(in crate::ops) fn run(&self, kernels: &Kernels, x: &Tensor, y: &Tensor) -> Result<()> {
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
        let chosen = parts.run(kernels, x, y, &self.algorithm);
        match chosen {
            // An algorithm that does not take this number of rows; one chosen for it may give other last bits.
            Err(CublasError(
                sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED | sys::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE,
            )) => {
                let algorithm = parts.choose(kernels, m, n, k)?;
                parts.run(kernels, x, y, &algorithm).map_err(failed("cublasLtMatmul"))
            }
            other => other.map_err(failed("cublasLtMatmul")),
        }
    }
}

impl Parts {
    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: &T) -> Result<()> {
        let (address, size) = ((&raw const *value).cast::<c_void>(), size_of::<T>());
        // SAFETY: the value is read at once; callers pass the type that NVIDIA names for the attribute.
        unsafe { result::set_matmul_desc_attribute(self.description, attribute, address, size) }
            .map_err(failed("cublasLtMatmulDescSetAttribute"))
    }

    /// The library's first choice for `m` rows among algorithms that do not split a sum.
    fn choose(&self, kernels: &Kernels, m: usize, n: usize, k: usize) -> Result<sys::cublasLtMatmulAlgo_t> {
        let layouts =
            Layouts::new(self.weight.dtype(), self.output, m, n, k).map_err(failed("cublasLtMatrixLayoutCreate"))?;
        let preference = result::create_matmul_pref().map_err(failed("cublasLtMatmulPreferenceCreate"))?;
        let set = |attribute, address: *const c_void, size| {
            // SAFETY: the preference was just made; the value is read at once.
            unsafe { result::set_matmul_pref_attribute(preference, attribute, address, size) }
        };
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let (no_splitting, workspace) = (0u32, WORKSPACE_BYTES);
        let chosen = set(
            Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            (&raw const no_splitting).cast(),
            size_of_val(&no_splitting),
        )
        .and_then(|()| {
            set(
                Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of_val(&workspace),
            )
        })
        .and_then(|()| {
            let (handle, description) = (kernels.0.blas.handle, self.description);
            // SAFETY: all handles are alive.
            unsafe {
                result::get_matmul_algo_heuristic(
                    handle,
                    description,
                    layouts.weight,
                    layouts.x,
                    layouts.y,
                    layouts.y,
                    preference,
                )
            }
        });
        // SAFETY: made above, and used by nobody any more.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        Ok(chosen.map_err(failed("cublasLtMatmulAlgoGetHeuristic"))?.algo)
    }

    fn run(
        &self,
        kernels: &Kernels,
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
        let (one, zero) = (1f32, 0f32);
        let workspace = blas.workspace.device_ptr(&blas.stream).0;
        // SAFETY: handles are alive; the layouts are those of the tensors that the addresses belong to; the workspace is used by one
        // product after the other, in the order of the stream.
        unsafe {
            result::matmul(
                blas.handle,
                self.description,
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
                workspace as *mut c_void,
                WORKSPACE_BYTES,
                blas.stream.cu_stream().cast(),
            )
        }
    }
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

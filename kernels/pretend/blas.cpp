// The pretend cuBLAS: its calls as products, handed to the stream that a handle was given. Knows cuBLAS' arguments; the arithmetic is elsewhere.
#include "multiply.hpp"
#include "pretend.hpp"
#include <cmath>

using namespace pretend;

namespace {
// cublasStatus_t, cublasComputeType_t, cublasPointerMode_t: numbers of cuBLAS 13's interface, as far as they are met here.
enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { COMPUTE_16F = 64, COMPUTE_16F_PEDANTIC = 65, COMPUTE_64F = 70, COMPUTE_64F_PEDANTIC = 71 };
enum { POINTERS_HOST = 0 };

struct Handle {
  CUstream stream = nullptr;
  int pointers = POINTERS_HOST, math = 0, atomics = 0;
};
Handles<Handle>& handles() {
  static auto* all = new Handles<Handle>;
  return *all;
}

// Column-major, as cuBLAS has it; transposed by reading it the other way.
Matrix matrix(const void* data, int type, long long leading, long long batch_step, bool transposed) {
  return {const_cast<void*>(data), type, transposed ? leading : 1, transposed ? 1 : leading, batch_step};
}

struct Call {
  int transpose_a, transpose_b, rows, columns, inner;
  const void* alpha;
  const void* a;
  int a_type, a_leading;
  long long a_step;
  const void* b;
  int b_type, b_leading;
  long long b_step;
  const void* beta;
  void* c;
  int c_type, c_leading;
  long long c_step;
  int batches, scalar_type;
};

int run(void* handle, const Call& call) {
  auto guard = enter();
  Handle* known = handles().find(handle);
  if (!known) return NOT_INITIALIZED;
  const bool fits = call.rows >= 0 && call.columns >= 0 && call.inner >= 0 && call.batches >= 0 &&
      call.a_leading >= std::max(1, call.transpose_a ? call.inner : call.rows) &&
      call.b_leading >= std::max(1, call.transpose_b ? call.columns : call.inner) && call.c_leading >= std::max(1, call.rows);
  if (!fits || !call.alpha || !call.beta) return INVALID_VALUE;
  Product product;
  product.rows = call.rows, product.columns = call.columns, product.inner = call.inner, product.batches = call.batches;
  product.a = matrix(call.a, call.a_type, call.a_leading, call.a_step, call.transpose_a);
  product.b = matrix(call.b, call.b_type, call.b_leading, call.b_step, call.transpose_b);
  product.c = product.d = matrix(call.c, call.c_type, call.c_leading, call.c_step, false);
  product.scalar_type = call.scalar_type;
  if (known->pointers == POINTERS_HOST) {
    product.alpha = load_number(call.alpha, call.scalar_type, 0);
    product.beta = load_number(call.beta, call.scalar_type, 0);
  } else {
    product.alpha_at = call.alpha, product.beta_at = call.beta;
  }
  if (!can_multiply(product)) return NOT_SUPPORTED;
  if (trace()) fprintf(stderr, "pretend cuda: cublas %d x %d x %d, %d batches\n", call.rows, call.columns, call.inner, call.batches);
  const CUresult result = submit(known->stream, "cublas", [product] {
    multiply(product);
    return CUDA_SUCCESS;
  });
  return result == CUDA_SUCCESS ? SUCCESS : EXECUTION_FAILED;
}

int scalar_type(int compute) {
  return compute == COMPUTE_16F || compute == COMPUTE_16F_PEDANTIC ? F16 : compute == COMPUTE_64F || compute == COMPUTE_64F_PEDANTIC ? F64 : F32;
}
}  // namespace

// ---- handles

PRETEND_API int cublasCreate_v2(void** handle) {
  auto guard = enter();
  if (need_context() != CUDA_SUCCESS) return NOT_INITIALIZED;
  *handle = handles().add(new Handle);
  return SUCCESS;
}
PRETEND_API int cublasDestroy_v2(void* handle) {
  auto guard = enter();
  return handles().remove(handle) ? SUCCESS : NOT_INITIALIZED;
}
PRETEND_API int cublasGetVersion_v2(void*, int* version) {
  *version = 130000;
  return SUCCESS;
}
#define PRETEND_PROPERTY(set, get, type, field)  \
  PRETEND_API int set(void* handle, type value) {   \
    auto guard = enter();                           \
    Handle* known = handles().find(handle);         \
    if (!known) return NOT_INITIALIZED;             \
    known->field = value;                           \
    return SUCCESS;                                 \
  }                                                 \
  PRETEND_API int get(void* handle, type* value) {  \
    auto guard = enter();                           \
    Handle* known = handles().find(handle);         \
    if (!known) return NOT_INITIALIZED;             \
    *value = known->field;                          \
    return SUCCESS;                                 \
  }
PRETEND_PROPERTY(cublasSetStream_v2, cublasGetStream_v2, CUstream, stream)
PRETEND_PROPERTY(cublasSetPointerMode_v2, cublasGetPointerMode_v2, int, pointers)
PRETEND_PROPERTY(cublasSetMathMode, cublasGetMathMode, int, math)
PRETEND_PROPERTY(cublasSetAtomicsMode, cublasGetAtomicsMode, int, atomics)
PRETEND_API int cublasSetWorkspace_v2(void* handle, void* workspace, size_t bytes) {
  auto guard = enter();
  if (!handles().find(handle)) return NOT_INITIALIZED;
  return is_device_memory(reinterpret_cast<CUdeviceptr>(workspace), bytes) ? SUCCESS : INVALID_VALUE;
}
static const char* status_name(int status) {
  switch (status) {
    case SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "another CUBLAS_STATUS";
  }
}
PRETEND_API const char* cublasGetStatusName(int status) { return status_name(status); }
PRETEND_API const char* cublasGetStatusString(int status) { return status_name(status); }

// ---- products

PRETEND_API int cublasGemmStridedBatchedEx(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a,
                                           int a_type, int lda, long long a_step, const void* b, int b_type, int ldb, long long b_step,
                                           const void* beta, void* c, int c_type, int ldc, long long c_step, int batches, int compute, int) {
  return run(handle, {transpose_a, transpose_b, m, n, k, alpha, a, a_type, lda, a_step, b, b_type, ldb, b_step, beta, c, c_type, ldc, c_step,
                      batches, scalar_type(compute)});
}
PRETEND_API int cublasGemmEx(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a, int a_type,
                             int lda, const void* b, int b_type, int ldb, const void* beta, void* c, int c_type, int ldc, int compute, int) {
  return run(handle, {transpose_a, transpose_b, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type, ldc, 0, 1,
                      scalar_type(compute)});
}
#define PRETEND_GEMM(prefix, T, type)                                                                                                    \
  PRETEND_API int prefix##gemm_v2(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const T* alpha, const T* a,       \
                                  int lda, const T* b, int ldb, const T* beta, T* c, int ldc) {                                          \
    return run(handle, {transpose_a, transpose_b, m, n, k, alpha, a, type, lda, 0, b, type, ldb, 0, beta, c, type, ldc, 0, 1, type});    \
  }                                                                                                                                      \
  PRETEND_API int prefix##gemmStridedBatched(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const T* alpha,        \
                                             const T* a, int lda, long long a_step, const T* b, int ldb, long long b_step,               \
                                             const T* beta, T* c, int ldc, long long c_step, int batches) {                              \
    return run(handle, {transpose_a, transpose_b, m, n, k, alpha, a, type, lda, a_step, b, type, ldb, b_step, beta, c, type, ldc, c_step, \
                        batches, type});                                                                                                 \
  }                                                                                                                                      \
  /* y [m] = a x: a product with one column; x and y are read as rows of their step. */                                                  \
  PRETEND_API int prefix##gemv_v2(void* handle, int transpose, int m, int n, const T* alpha, const T* a, int lda, const T* x, int x_step, \
                                  const T* beta, T* y, int y_step) {                                                                     \
    if (x_step < 1 || y_step != 1) return NOT_SUPPORTED;                                                                                 \
    const int rows = transpose ? n : m, inner = transpose ? m : n;                                                                       \
    return run(handle, {transpose, 1, rows, 1, inner, alpha, a, type, lda, 0, x, type, x_step, 0, beta, y, type, std::max(1, rows), 0, 1, type}); \
  }                                                                                                                                      \
  PRETEND_API int prefix##asum_v2(void* handle, int n, const T* x, int step, T* sum) {                                                   \
    auto guard = enter();                                                                                                                \
    Handle* known = handles().find(handle);                                                                                              \
    if (!known) return NOT_INITIALIZED;                                                                                                  \
    const CUresult result = submit(known->stream, "cublas sum", [=] {                                                                    \
      *sum = 0;                                                                                                                          \
      for (long long at = 0; at < n; at++) *sum += std::fabs(x[at * step]);                                                              \
      return CUDA_SUCCESS;                                                                                                               \
    });                                                                                                                                  \
    return result == CUDA_SUCCESS ? SUCCESS : EXECUTION_FAILED;                                                                          \
  }
PRETEND_GEMM(cublasS, float, F32)
PRETEND_GEMM(cublasD, double, F64)

// What Candle's kernels need besides host.hpp to be compiled for the CPU: NVIDIA's headers for bf16, f16 and f8, and the device functions that
// those leave out for a C++ compiler. Knows names and arithmetic; knows no kernel.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cuda.h>
#include <cuda/std/limits>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <vector_functions.h>
#include <vector_types.h>
#define PAIRWRIGHT_NVIDIA_TYPES
#include "../host.hpp"

// Candle asks for the architecture where it leaves out types; only after NVIDIA's headers, which would take themselves for device code.
#define __CUDA_ARCH__ 900
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#undef __noinline__
#define __noinline__ __attribute__((noinline))
#define warpSize 32
// What build.sh writes for `extern "C" __global__`: units are linked together, and what they share by name is not the same.
#define PRETEND_KERNEL static

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

template <class T>
inline T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }

// Functions of 16-bit numbers, by way of f32.
#define PRETEND_UNARY(name, expression)                                                                                    \
  inline __half name(__half number) { float x = __half2float(number); return __float2half(expression); }                   \
  inline __nv_bfloat16 name(__nv_bfloat16 number) { float x = __bfloat162float(number); return __float2bfloat16(expression); }
PRETEND_UNARY(hexp, expf(x))
PRETEND_UNARY(hlog, logf(x))
PRETEND_UNARY(hsin, sinf(x))
PRETEND_UNARY(hcos, cosf(x))
PRETEND_UNARY(hsqrt, sqrtf(x))
PRETEND_UNARY(hrsqrt, 1.0f / sqrtf(x))
#undef PRETEND_UNARY

// What all kernels share: number types, 16-byte pieces, sums and maxima in a fixed order, and how an entry is written. The same source is
// compiled for the device by nvcc and, behind host.hpp, for the CPU by any C++ compiler. Knows threads and numbers; knows no operation.
#pragma once
#ifndef PAIRWRIGHT_HOST
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cstdint>
#endif

// ENTRY(threads, name, parameters...) { body }: a kernel for blocks of at most `threads` threads. On the host it is registered by its name.
// RESIDENT_ENTRY(threads, blocks, ...): the same with registers few enough that so many blocks fit a multiprocessor; one block's threads may
// have as many as there are, where the compiler by itself would rather spill some.
#ifdef PAIRWRIGHT_HOST
#define ENTRY(threads, name, ...)                                     \
  static void name(__VA_ARGS__);                                      \
  static host::Registered name##_registered(#name, &name, threads);   \
  static void name(__VA_ARGS__)
#define RESIDENT_ENTRY(threads, blocks, name, ...) ENTRY(threads, name, __VA_ARGS__)
#else
#define ENTRY(threads, name, ...) extern "C" __global__ void __launch_bounds__(threads) name(__VA_ARGS__)
#define RESIDENT_ENTRY(threads, blocks, name, ...) extern "C" __global__ void __launch_bounds__(threads, blocks) name(__VA_ARGS__)
#endif

// DYNAMIC_SHARED(type, name): the launch's dynamic shared memory, 16-byte aligned.
#ifdef PAIRWRIGHT_HOST
#define DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(host::dynamic_shared())
#else
#define DYNAMIC_SHARED(type, name)                                  \
  extern __shared__ __align__(16) unsigned char name##_bytes[];     \
  type* name = reinterpret_cast<type*>(name##_bytes)
#endif

// NOT_INLINED: a function of its own, for what is called from many places and would make a kernel long.
#ifdef PAIRWRIGHT_HOST
#define NOT_INLINED __attribute__((noinline))
#else
#define NOT_INLINED __noinline__
#endif

#ifdef PAIRWRIGHT_HOST
struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };
struct fp8 { uint8_t bits; };
#else
using bf16 = __nv_bfloat16;
using f16 = __half;
using fp8 = __nv_fp8_e4m3;
#endif

// The id of a row that is there only to fill a batch.
constexpr unsigned NO_ROW = 0xffffffffu;

// ---- conversions: exact to f32, to nearest even from it; fp8 (e4m3) saturates at 448

__device__ __forceinline__ float to_f32(float x) { return x; }
#ifdef PAIRWRIGHT_HOST
inline float to_f32(bf16 x) { return host::bits<float>(uint32_t(x.bits) << 16); }
inline float to_f32(f16 x) {
  uint32_t sign = uint32_t(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  if (exponent == 31) return host::bits<float>(sign | 0x7f800000 | fraction << 13);
  if (exponent == 0) return host::bits<float>(sign | host::bits<uint32_t>(float(fraction) * 0x1p-24f));
  return host::bits<float>(sign | (exponent + 112) << 23 | fraction << 13);
}
inline float to_f32(fp8 x) {
  uint32_t exponent = x.bits >> 3 & 15, fraction = x.bits & 7;
  float value = exponent == 15 && fraction == 7 ? NAN
      : exponent == 0 ? float(fraction) * 0x1p-9f : ldexpf(1.0f + float(fraction) / 8, int(exponent) - 7);
  return x.bits & 0x80 ? -value : value;
}
template <class T> T from_f32(float x);
template <> inline float from_f32<float>(float x) { return x; }
template <> inline bf16 from_f32<bf16>(float x) {
  uint32_t word = host::bits<uint32_t>(x);
  if (x != x) return {uint16_t(word >> 16 | 64)};
  return {uint16_t((word + 0x7fff + (word >> 16 & 1)) >> 16)};
}
// Nearest even to a step of 2^(exponent - fraction bits), for formats that f32 holds.
inline float rounded_to(float x, int fraction_bits, int smallest_exponent) {
  int exponent;
  frexpf(x, &exponent);
  int step = (exponent - 1 < smallest_exponent ? smallest_exponent : exponent - 1) - fraction_bits;
  return ldexpf(nearbyintf(ldexpf(x, -step)), step);
}
template <> inline f16 from_f32<f16>(float x) {
  uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (x != x) return {uint16_t(sign | 0x7e00)};
  float size = std::isinf(x) ? x : rounded_to(x, 10, -14);
  size = fabsf(size);
  if (size > 65504.0f) return {uint16_t(sign | 0x7c00)};
  if (size < 0x1p-14f) return {uint16_t(sign | uint16_t(size * 0x1p24f))};
  uint32_t word = host::bits<uint32_t>(size);
  return {uint16_t(sign | uint16_t((word >> 23) - 112) << 10 | uint16_t(word >> 13 & 1023))};
}
template <> inline fp8 from_f32<fp8>(float x) {
  uint8_t sign = std::signbit(x) ? 0x80 : 0;
  if (x != x) return {uint8_t(sign | 0x7f)};
  float size = std::isinf(x) ? 448.0f : fabsf(rounded_to(x, 3, -6));
  if (size > 448.0f) size = 448.0f;
  if (size < 0x1p-6f) return {uint8_t(sign | uint8_t(size * 512.0f))};
  uint32_t word = host::bits<uint32_t>(size);
  return {uint8_t(sign | uint8_t(((word >> 23) - 120) << 3 | (word >> 20 & 7)))};
}
#else
__device__ __forceinline__ float to_f32(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_f32(f16 x) { return __half2float(x); }
__device__ __forceinline__ float to_f32(fp8 x) {
#if __CUDA_ARCH__ >= 890
  return float(x);
#else
  // The bits in their places of an f32, which moves the exponent's zero by 120; the header's own way takes ten times the instructions.
  const float size = (x.__x & 0x7f) == 0x7f ? __uint_as_float(0x7fffffff) : __uint_as_float((x.__x & 0x7fu) << 20) * 0x1p120f;
  return x.__x & 0x80 ? -size : size;
#endif
}
template <class T> __device__ __forceinline__ T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_f32<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ f16 from_f32<f16>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ fp8 from_f32<fp8>(float x) { return fp8(x); }
#endif

// Two at once, for which there is one instruction.
template <class T>
__device__ __forceinline__ void round_pair(T (&pair)[2], float first, float second) {
  pair[0] = from_f32<T>(first), pair[1] = from_f32<T>(second);
}
#ifndef PAIRWRIGHT_HOST
template <>
__device__ __forceinline__ void round_pair<bf16>(bf16 (&pair)[2], float first, float second) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
  pair[0] = both.x, pair[1] = both.y;
}
template <>
__device__ __forceinline__ void round_pair<f16>(f16 (&pair)[2], float first, float second) {
  const __half2 both = __floats2half2_rn(first, second);
  pair[0] = both.x, pair[1] = both.y;
}
#endif

// 2^x, to 2 units in the last place; exactly 1 for 0 and 0 for -inf; results below 2^-126 may be 0.
__device__ __forceinline__ float power_of_two(float x) {
#ifdef PAIRWRIGHT_HOST
  return exp2f(x);
#else
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#endif
}

// ---- pieces of 16 bytes

// As many elements as 16 bytes hold; loads and stores of it are one instruction where the address is a multiple of 16.
template <class T>
struct __align__(16) Piece {
  static constexpr int LEN = 16 / int(sizeof(T));
  T at[LEN];
};
template <class T>
__device__ __forceinline__ Piece<T> load_piece(const T* address) { return *reinterpret_cast<const Piece<T>*>(address); }
template <class T>
__device__ __forceinline__ void store_piece(T* address, const Piece<T>& piece) { *reinterpret_cast<Piece<T>*>(address) = piece; }

// Are these addresses multiples of 16? No address is.
template <class... Pointers>
__device__ __forceinline__ bool are_aligned(const Pointers*... addresses) {
  return (... && (reinterpret_cast<uintptr_t>(addresses) % 16 == 0));
}

// LEN neighbours in f32: read and written by whole pieces where LEN is so many (the address then a multiple of 16), else one by one.
template <int LEN>
struct Span { float at[LEN]; };
template <int LEN, class T>
__device__ __forceinline__ Span<LEN> load_span(const T* address) {
  Span<LEN> run;
  if constexpr (LEN % Piece<T>::LEN == 0) {
#pragma unroll
    for (int first = 0; first < LEN; first += Piece<T>::LEN) {
      const Piece<T> piece = load_piece(address + first);
#pragma unroll
      for (int i = 0; i < Piece<T>::LEN; i++) run.at[first + i] = to_f32(piece.at[i]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < LEN; i++) run.at[i] = to_f32(address[i]);
  }
  return run;
}
template <int LEN, class T>
__device__ __forceinline__ void store_span(T* address, const Span<LEN>& run) {
  if constexpr (LEN % Piece<T>::LEN == 0) {
#pragma unroll
    for (int first = 0; first < LEN; first += Piece<T>::LEN) {
      Piece<T> piece;
#pragma unroll
      for (int i = 0; i < Piece<T>::LEN; i++) piece.at[i] = from_f32<T>(run.at[first + i]);
      store_piece(address + first, piece);
    }
  } else {
#pragma unroll
    for (int i = 0; i < LEN; i++) address[i] = from_f32<T>(run.at[i]);
  }
}

// LEN neighbours as they are stored, one or a whole piece. A piece is asked for where this stands: the compiler may not put the load off until
// its numbers are used, as it likes to where registers are few, and all that is asked for in a row is on its way together.
template <int LEN, class T>
struct __align__(LEN * sizeof(T)) Stored { T at[LEN]; };
template <int LEN, class T>
__device__ __forceinline__ Stored<LEN, T> ask_stored(const T* address) {
  static_assert(LEN == 1 || LEN == Piece<T>::LEN, "one or a piece");
#ifndef PAIRWRIGHT_HOST
  if constexpr (LEN > 1) {
    uint4 bits;
    Stored<LEN, T> stored;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w) : "l"(address));
    memcpy(&stored, &bits, sizeof stored);
    return stored;
  }
#endif
  return *reinterpret_cast<const Stored<LEN, T>*>(address);
}

// ---- sums and maxima in a fixed order

// Over the warp; every lane gets it.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
  return x;
}

// Over a block of whole warps, 1024 threads at most; every thread gets it. `scratch`: 32 numbers of shared memory that nobody else uses
// until the next barrier.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  x = warp_sum(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = warp_sum(lane < warps ? scratch[lane] : 0.0f);
  __syncthreads();
  return x;
}
__device__ __forceinline__ float block_max(float x, float* scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  x = warp_max(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = warp_max(lane < warps ? scratch[lane] : -INFINITY);
  __syncthreads();
  return x;
}

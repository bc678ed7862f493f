// The activation between a feed-forward block's products: y = act(gate) * up on merged rows [gate | up], or y = act(x).
// The functions and where they come from: src/ops/activation.rs. Knows rows; knows nothing of the products around it.
#include "common.cuh"

// x / (1 + e^-y), by the processor's own approximations: to some 1e-6 of it where |y| < 16. With exact ones, which branch, these kernels were
// bound by instructions and not by memory.
__device__ __forceinline__ float over_one_plus_exp(float x, float y) { return __fdividef(x, 1.0f + power_of_two(-1.44269504f * y)); }

// The function of one element, and what becomes of the other factor.
struct Silu {
  __device__ float of(float x) const { return over_one_plus_exp(x, x); }
  __device__ float factor(float up) const { return up; }
};
struct GeluTanh {
  __device__ float of(float x) const {
    const float sqrt_2_over_pi = 0.7978846f;
    return over_one_plus_exp(x, 2.0f * sqrt_2_over_pi * fmaf(0.044715f, x * x * x, x));
  }
  __device__ float factor(float up) const { return up; }
};
struct SquaredRelu {
  __device__ float of(float x) const { return fmaxf(x, 0.0f) * fmaxf(x, 0.0f); }
  __device__ float factor(float up) const { return up; }
};
struct Xielu {
  float positive, negative, beta, eps;
  __device__ float of(float x) const {
    return x > 0.0f ? fmaf(positive * x, x, beta * x) : fmaf(negative, expf(fminf(x, eps)) - 1.0f - x, beta * x);
  }
  __device__ float factor(float up) const { return up; }
};
struct ClampedSwiglu {
  float steepness, limit;
  __device__ float of(float gate) const {
    gate = fminf(gate, limit);
    return over_one_plus_exp(gate, steepness * gate);
  }
  __device__ float factor(float up) const { return fminf(fmaxf(up, -limit), limit) + 1.0f; }
};

// All that a thread computes with is asked for before any of it is used, and is enough to keep memory busy.
template <int LEN, bool IS_GATED, class T, class Function>
__device__ __forceinline__ void activate_runs(const T* x, T* y, int rows, int inner, Function function) {
  constexpr int AT_ONCE = 2;
  const int apart = int(blockDim.x) * LEN;
  for (int row = blockIdx.y; row < rows; row += gridDim.y) {
    const T* gate = x + size_t(row) * inner * (IS_GATED ? 2 : 1);
    T* to = y + size_t(row) * inner;
    for (int begin = int(blockIdx.x) * AT_ONCE * apart + int(threadIdx.x) * LEN; begin < inner; begin += int(gridDim.x) * AT_ONCE * apart) {
      Stored<LEN, T> gates[AT_ONCE], ups[AT_ONCE];
#pragma unroll
      for (int n = 0; n < AT_ONCE; n++) {
        // Again what lies there before where the row has ended: it is not stored.
        const T* first = gate + (begin + n * apart < inner ? begin + n * apart : begin);
        gates[n] = ask_stored<LEN>(first);
        if constexpr (IS_GATED) ups[n] = ask_stored<LEN>(first + inner);
      }
#pragma unroll
      for (int n = 0; n < AT_ONCE; n++) {
        Span<LEN> run;
#pragma unroll
        for (int i = 0; i < LEN; i++) {
          run.at[i] = function.of(to_f32(gates[n].at[i]));
          if constexpr (IS_GATED) run.at[i] *= function.factor(to_f32(ups[n].at[i]));
        }
        if (begin + n * apart < inner) store_span(to + begin + n * apart, run);
      }
    }
  }
}

template <int LEN, class T, class Function>
__device__ __forceinline__ void activate_rows(const T* x, T* y, int rows, int inner, bool is_gated, Function function) {
  is_gated ? activate_runs<LEN, true>(x, y, rows, inner, function) : activate_runs<LEN, false>(x, y, rows, inner, function);
}

template <class T, class Function>
__device__ __forceinline__ void activate(const T* x, T* y, int rows, int inner, bool is_gated, Function function) {
  if (inner % Piece<T>::LEN == 0 && are_aligned(x, y)) {
    activate_rows<Piece<T>::LEN>(x, y, rows, inner, is_gated, function);
  } else {
    activate_rows<1>(x, y, rows, inner, is_gated, function);
  }
}

// A grid of (parts of a row, rows): any, each of its blocks takes as many as there are.
#define ACTIVATION(NAME, T)                                                                                                           \
  ENTRY(256, pairwright_activation_##NAME, const T* x, T* y, int rows, int inner, int is_gated, int kind, float a, float b, float c, \
        float d) {                                                                                                                    \
    switch (kind) {                                                                                                                   \
      case 0: return activate(x, y, rows, inner, is_gated, Silu{});                                                                   \
      case 1: return activate(x, y, rows, inner, is_gated, GeluTanh{});                                                               \
      case 2: return activate(x, y, rows, inner, is_gated, SquaredRelu{});                                                            \
      case 3: return activate(x, y, rows, inner, is_gated, Xielu{a, b, c, d});                                                        \
      case 4: return activate(x, y, rows, inner, is_gated, ClampedSwiglu{a, b});                                                      \
    }                                                                                                                                 \
  }
ACTIVATION(f32, float)
ACTIVATION(f16, f16)
ACTIVATION(bf16, bf16)

// The activation between a feed-forward block's products: y = act(gate) * up on merged rows [gate | up], or y = act(x).
// The functions and where they come from: src/ops/activation.rs. Knows rows; knows nothing of the products around it.
#include "common.cuh"

// The function of one element, and what becomes of the other factor.
struct Silu {
  __device__ float of(float x) const { return x / (1.0f + expf(-x)); }
  __device__ float factor(float up) const { return up; }
};
struct GeluTanh {
  __device__ float of(float x) const {
    const float sqrt_2_over_pi = 0.7978846f;
    return x / (1.0f + expf(-2.0f * sqrt_2_over_pi * fmaf(0.044715f, x * x * x, x)));
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
    return gate / (1.0f + expf(-steepness * gate));
  }
  __device__ float factor(float up) const { return fminf(fmaxf(up, -limit), limit) + 1.0f; }
};

template <int LEN, class T, class Function>
__device__ __forceinline__ void activate_runs(const T* x, T* y, int rows, int inner, bool is_gated, Function function) {
  for (int row = blockIdx.y; row < rows; row += gridDim.y) {
    const T* gate = x + size_t(row) * inner * (is_gated ? 2 : 1);
    for (int first = int(blockIdx.x * blockDim.x + threadIdx.x) * LEN; first < inner; first += int(gridDim.x * blockDim.x) * LEN) {
      Span<LEN> run = load_span<LEN>(gate + first);
#pragma unroll
      for (int i = 0; i < LEN; i++) run.at[i] = function.of(run.at[i]);
      if (is_gated) {
        const Span<LEN> up = load_span<LEN>(gate + inner + first);
#pragma unroll
        for (int i = 0; i < LEN; i++) run.at[i] *= function.factor(up.at[i]);
      }
      store_span(y + size_t(row) * inner + first, run);
    }
  }
}

template <class T, class Function>
__device__ __forceinline__ void activate(const T* x, T* y, int rows, int inner, bool is_gated, Function function) {
  if (inner % Piece<T>::LEN == 0 && are_aligned(x, y)) {
    activate_runs<Piece<T>::LEN>(x, y, rows, inner, is_gated, function);
  } else {
    activate_runs<1>(x, y, rows, inner, is_gated, function);
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

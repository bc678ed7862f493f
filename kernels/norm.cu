// Norms of rows, with and without the residual step before them, and the elementwise steps of the residual stream.
// Knows rows of numbers; knows nothing of where in a model they stand.
#include "common.cuh"

// Numbers of a row that each thread keeps in registers between the passes: a row has at most 16 * threads. They are kept as they are stored:
// the fewer registers, the more rows a multiprocessor has on their way from memory.
constexpr int KEPT = 16;
template <int LEN, class T>
using Kept = Stored<LEN, T>[KEPT / LEN];

// Calls each(number of the run, first element) for the runs of LEN elements that are this thread's: pieces beside other threads', single elements
// behind each other, whose addresses take no registers.
template <int LEN, class Each>
__device__ __forceinline__ void for_each_run(int width, Each each) {
#pragma unroll
  for (int run = 0; run < KEPT / LEN; run++) {
    const int first = LEN == 1 ? int(threadIdx.x) * KEPT + run : (run * int(blockDim.x) + int(threadIdx.x)) * LEN;
    if (first < width) each(run, first);
  }
}

// Over the row that the block keeps. `scratch`: 32 numbers of shared memory for this sum alone, so that nobody waits until all have read them.
template <int LEN, class T, class Term>
__device__ __forceinline__ float row_sum(const Kept<LEN, T>& row, int width, float* scratch, Term term) {
  float sum = 0.0f;
  for_each_run<LEN>(width, [&](int run, int) {
#pragma unroll
    for (int i = 0; i < LEN; i++) sum += term(to_f32(row[run].at[i]));
  });
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  sum = warp_sum(sum);
  if (lane == 0) scratch[threadIdx.x / 32] = sum;
  __syncthreads();
  return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}

// Normalises the row that the block keeps and stores it to `y`.
template <int LEN, class T>
__device__ __forceinline__ void store_normed(const Kept<LEN, T>& row, T* y, const float* weight, const float* bias, int width, float eps,
                                             bool is_layer) {
  __shared__ float scratch[2][32];
  const float mean = is_layer ? row_sum<LEN, T>(row, width, scratch[0], [](float x) { return x; }) / float(width) : 0.0f;
  const float squares = row_sum<LEN, T>(row, width, scratch[1], [&](float x) { return (x - mean) * (x - mean); });
  const float scale = 1.0f / sqrtf(squares / float(width) + eps);
  for_each_run<LEN>(width, [&](int number, int first) {
    Span<LEN> run = load_span<LEN>(weight + first);
#pragma unroll
    for (int i = 0; i < LEN; i++) run.at[i] *= (to_f32(row[number].at[i]) - mean) * scale;
    if (bias) {
      const Span<LEN> more = load_span<LEN>(bias + first);
#pragma unroll
      for (int i = 0; i < LEN; i++) run.at[i] += more.at[i];
    }
    store_span(y + first, run);
  });
}

template <int LEN, class T>
__device__ __forceinline__ void norm_row(const T* x, T* y, const float* weight, const float* bias, int width, float eps, bool is_layer) {
  Kept<LEN, T> row;
  for_each_run<LEN>(width, [&](int run, int first) { row[run] = ask_stored<LEN>(x + first); });
  store_normed<LEN>(row, y, weight, bias, width, eps, is_layer);
}

// What is normalised is the sum as it is stored.
template <int LEN, class T>
__device__ __forceinline__ void add_norm_row(T* residual, const T* delta, T* y, const float* weight, const float* bias, int width,
                                             float eps, bool is_layer) {
  Kept<LEN, T> row, more;
  for_each_run<LEN>(width, [&](int run, int first) { row[run] = ask_stored<LEN>(residual + first), more[run] = ask_stored<LEN>(delta + first); });
  for_each_run<LEN>(width, [&](int run, int first) {
#pragma unroll
    for (int i = 0; i < LEN; i++) row[run].at[i] = from_f32<T>(to_f32(row[run].at[i]) + to_f32(more[run].at[i]));
    *reinterpret_cast<Stored<LEN, T>*>(residual + first) = row[run];
  });
  store_normed<LEN>(row, y, weight, bias, width, eps, is_layer);
}

// x[i] = of(x[i], i) over the grid.
template <class T, class Of>
__device__ __forceinline__ void each_element(T* x, unsigned long long count, bool in_pieces, Of of) {
  constexpr int LEN = Piece<T>::LEN;
  const unsigned long long thread = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned long long threads = (unsigned long long)gridDim.x * blockDim.x;
  const unsigned long long pieces = in_pieces ? count / LEN : 0;
  for (unsigned long long piece = thread; piece < pieces; piece += threads) {
    store_span(x + piece * LEN, of(load_span<LEN>(x + piece * LEN), piece * LEN));
  }
  for (unsigned long long index = pieces * LEN + thread; index < count; index += threads) {
    store_span(x + index, of(load_span<1>(x + index), index));
  }
}

template <class T>
__device__ __forceinline__ void add_elements(T* x, const T* delta, unsigned long long count) {
  each_element(x, count, are_aligned(x, delta), [&](auto run, unsigned long long first) {
    constexpr int LEN = sizeof run / sizeof(float);
    const Span<LEN> more = load_span<LEN>(delta + first);
#pragma unroll
    for (int i = 0; i < LEN; i++) run.at[i] += more.at[i];
    return run;
  });
}

template <class T>
__device__ __forceinline__ void scale_elements(T* x, float factor, unsigned long long count) {
  each_element(x, count, are_aligned(x), [&](auto run, unsigned long long) {
    for (float& value : run.at) value *= factor;
    return run;
  });
}

template <class T>
__device__ __forceinline__ void soft_cap_elements(T* x, float cap, unsigned long long count) {
  each_element(x, count, are_aligned(x), [&](auto run, unsigned long long) {
    for (float& value : run.at) value = cap * tanhf(value / cap);
    return run;
  });
}

// One block per row, of threads that follow from the width alone, a 16th of it or more: they decide the order of sums.
#define NORM(NAME, T)                                                                                                                   \
  ENTRY(1024, pairwright_norm_##NAME, const T* x, T* y, const float* weight, const float* bias, int width, float eps, int is_layer) {   \
    x += size_t(blockIdx.x) * width, y += size_t(blockIdx.x) * width;                                                                   \
    if (width % Piece<T>::LEN == 0 && are_aligned(x, y, weight, bias)) {                                                                \
      norm_row<Piece<T>::LEN>(x, y, weight, bias, width, eps, is_layer);                                                                \
    } else {                                                                                                                            \
      norm_row<1>(x, y, weight, bias, width, eps, is_layer);                                                                            \
    }                                                                                                                                   \
  }                                                                                                                                     \
  ENTRY(1024, pairwright_add_norm_##NAME, T* residual, const T* delta, T* y, const float* weight, const float* bias, int width,         \
        float eps, int is_layer) {                                                                                                      \
    const size_t start = size_t(blockIdx.x) * width;                                                                                    \
    residual += start, delta += start, y += start;                                                                                      \
    if (width % Piece<T>::LEN == 0 && are_aligned(residual, delta, y, weight, bias)) {                                                  \
      add_norm_row<Piece<T>::LEN>(residual, delta, y, weight, bias, width, eps, is_layer);                                              \
    } else {                                                                                                                            \
      add_norm_row<1>(residual, delta, y, weight, bias, width, eps, is_layer);                                                          \
    }                                                                                                                                   \
  }                                                                                                                                     \
  ENTRY(1024, pairwright_add_##NAME, T* x, const T* delta, unsigned long long count) { add_elements(x, delta, count); }                 \
  ENTRY(1024, pairwright_scale_##NAME, T* x, float factor, unsigned long long count) { scale_elements(x, factor, count); }              \
  ENTRY(1024, pairwright_soft_cap_##NAME, T* x, float cap, unsigned long long count) { soft_cap_elements(x, cap, count); }
NORM(f32, float)
NORM(f16, f16)
NORM(bf16, bf16)

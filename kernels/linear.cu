// What surrounds a dense product y = x Wᵀ + b: rows that begin as the bias, inputs rounded to 8 bits, and sums scaled back; and that product
// itself in 16 bits, for where the vendor's library has none that will do: an entry for each size of tiles, rows by columns.
// Knows rows; which tiles are taken is the host's to say.
#include "warpgroup_product.cuh"

// The largest number of fp8 (e4m3).
constexpr float FP8_MAX = 448.0f;

// Calls each(row, first element) for the runs of LEN elements that are this thread's, in a grid of (parts of a row, rows): any, each of
// its blocks takes as many as there are.
template <int LEN, class Each>
__device__ __forceinline__ void for_each_run(int rows, int width, Each each) {
  for (int row = blockIdx.y; row < rows; row += gridDim.y) {
    for (int first = int(blockIdx.x * blockDim.x + threadIdx.x) * LEN; first < width; first += int(gridDim.x * blockDim.x) * LEN) {
      each(row, first);
    }
  }
}

template <int LEN, class T>
__device__ __forceinline__ void scale_rows(const float* x, T* y, const float* row_scales, const float* column_scales, const float* bias,
                                           int rows, int width) {
  for_each_run<LEN>(rows, width, [&](int row, int first) {
    Span<LEN> run = load_span<LEN>(x + size_t(row) * width + first);
    const Span<LEN> scales = load_span<LEN>(column_scales + first);
    Span<LEN> more{};
    if (bias) more = load_span<LEN>(bias + first);
#pragma unroll
    for (int i = 0; i < LEN; i++) run.at[i] = run.at[i] * row_scales[row] * scales.at[i] + more.at[i];
    store_span(y + size_t(row) * width + first, run);
  });
}

// One row by the block: its scale is what brings its largest number to the largest that fp8 has.
template <int LEN, class T>
__device__ __forceinline__ void round_row(const T* x, fp8* y, float* row_scale, int width) {
  __shared__ float scratch[32];
  float largest = 0.0f;
  for (int first = int(threadIdx.x) * LEN; first < width; first += int(blockDim.x) * LEN) {
    for (float value : load_span<LEN>(x + first).at) largest = fmaxf(largest, fabsf(value));
  }
  float scale = block_max(largest, scratch) / FP8_MAX;
  if (scale == 0.0f) scale = 1.0f;
  if (threadIdx.x == 0) *row_scale = scale;
  for (int first = int(threadIdx.x) * LEN; first < width; first += int(blockDim.x) * LEN) {
    Span<LEN> run = load_span<LEN>(x + first);
#pragma unroll
    for (int i = 0; i < LEN; i++) run.at[i] /= scale;
    store_span(y + first, run);
  }
}

#define LINEAR(NAME, T)                                                                                                               \
  ENTRY(256, pairwright_scale_rows_##NAME, const float* x, T* y, const float* row_scales, const float* column_scales,                 \
        const float* bias, int rows, int width) {                                                                                     \
    if (width % Piece<T>::LEN == 0 && are_aligned(x, y, column_scales, bias)) {                                                       \
      scale_rows<Piece<T>::LEN>(x, y, row_scales, column_scales, bias, rows, width);                                                  \
    } else {                                                                                                                          \
      scale_rows<1>(x, y, row_scales, column_scales, bias, rows, width);                                                              \
    }                                                                                                                                 \
  }                                                                                                                                   \
  ENTRY(1024, pairwright_round_rows_fp8_##NAME, const T* x, fp8* y, float* scales, int width) {                                       \
    x += size_t(blockIdx.x) * width, y += size_t(blockIdx.x) * width;                                                                 \
    if (width % Piece<fp8>::LEN == 0 && are_aligned(x, y)) {                                                                          \
      round_row<Piece<fp8>::LEN>(x, y, scales + blockIdx.x, width);                                                                   \
    } else {                                                                                                                          \
      round_row<1>(x, y, scales + blockIdx.x, width);                                                                                 \
    }                                                                                                                                 \
  }
LINEAR(f32, float)
LINEAR(f16, f16)
LINEAR(bf16, bf16)

// y in f32 if it is wide, else in the inputs' format.
#define FOR_TARGET(PRODUCT, T)                                                                                          \
  if (is_wide) PRODUCT(x, weights, DenseTarget<float>{static_cast<float*>(y), bias, nullptr, nullptr, rows, out, out}, in); \
  else PRODUCT(x, weights, DenseTarget<T>{static_cast<T*>(y), bias, nullptr, nullptr, rows, out, out}, in)
#define PRODUCT(NAME, T, ROWS, COLUMNS, WARPS_DOWN, STAGES, BLOCKS)                                                                      \
  RESIDENT_ENTRY(DENSE_THREADS, BLOCKS, pairwright_product_##ROWS##x##COLUMNS##_##NAME, const T* x, const T* weights, const float* bias, \
                 void* y, int rows, int in, int out, int is_wide) {                                                                      \
    using Tile = DenseTile<ROWS, COLUMNS, WARPS_DOWN, STAGES>;                                                                           \
    FOR_TARGET(dense_product<Tile>, T);                                                                                                  \
  }
#define PRODUCTS(NAME, T)             \
  PRODUCT(NAME, T, 128, 128, 2, 3, 2) \
  PRODUCT(NAME, T, 64, 128, 2, 3, 3)  \
  PRODUCT(NAME, T, 64, 64, 2, 4, 3)   \
  PRODUCT(NAME, T, 16, 32, 1, 8, 4)
PRODUCTS(f16, f16)
PRODUCTS(bf16, bf16)

#ifdef HAS_WARPGROUPS
#define GROUP_PRODUCT(NAME, T, ROWS, COLUMNS, STAGES)                                                                             \
  RESIDENT_ENTRY(2 * ROWS, 1, pairwright_group_product_##ROWS##x##COLUMNS##_##NAME, const T* x, const T* weights, const float* bias, \
                 void* y, int rows, int in, int out, int is_wide) {                                                               \
    using Tile = GroupTile<T, ROWS, COLUMNS, STAGES>;                                                                             \
    FOR_TARGET(warpgroup_product<Tile>, T);                                                                                       \
  }
#define FP8_PRODUCT(NAME, T, ROWS, COLUMNS, STAGES)                                                                                       \
  RESIDENT_ENTRY(2 * ROWS, 1, pairwright_fp8_product_##ROWS##x##COLUMNS##_##NAME, const fp8* x, const fp8* weights,                       \
                 const float* row_scales, const float* column_scales, const float* bias, T* y, int rows, int in, int out) {               \
    warpgroup_product<GroupTile<fp8, ROWS, COLUMNS, STAGES>>(x, weights, DenseTarget<T>{y, bias, row_scales, column_scales, rows, out, out}, in); \
  }
#define GROUP_PRODUCTS(NAME, T)         \
  GROUP_PRODUCT(NAME, T, 192, 256, 4)   \
  GROUP_PRODUCT(NAME, T, 128, 256, 4)   \
  GROUP_PRODUCT(NAME, T, 128, 128, 6)   \
  GROUP_PRODUCT(NAME, T, 64, 64, 8)
GROUP_PRODUCTS(f16, f16)
GROUP_PRODUCTS(bf16, bf16)
#define FP8_PRODUCTS(NAME, T)         \
  FP8_PRODUCT(NAME, T, 128, 128, 6)   \
  FP8_PRODUCT(NAME, T, 64, 64, 8)
FP8_PRODUCTS(f32, float)
FP8_PRODUCTS(f16, f16)
FP8_PRODUCTS(bf16, bf16)
#endif

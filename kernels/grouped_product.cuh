// The product of rows grouped by matrix: each row times the matrix of its group, y = x Wᵀ + b. Blocks find their group on the device. With one
// group it is what stands in for a dense product in f32 that the vendor's library has not got.
// Knows groups as bounds; knows nothing of how rows came to be grouped.
#pragma once
#include "product_tile.cuh"

constexpr int STEP_PIECES = 8;  // pieces of each row and each column in one step along k
// Steps in shared memory: the one that is multiplied, and those on their way.
constexpr int STEPS_HELD = 3;

template <class T>
struct Slabs { Slab<T, STEP_PIECES> x[STEPS_HELD], weights[STEPS_HELD]; };

// Where this thread copies weights from: piece `threadIdx.x % 8` of every 16th of the tile's columns.
template <class T>
struct ColumnSources {
  static constexpr int EACH = TILE * STEP_PIECES / PRODUCT_THREADS, APART = PRODUCT_THREADS / STEP_PIECES;
  const T* weights;  // of the first of the columns
  int in, columns;   // length of rows; columns that the tile has

  __device__ __forceinline__ void copy(Slab<T, STEP_PIECES>& slab, int k) const {
    const int number = threadIdx.x % STEP_PIECES, offset = k + number * Piece<T>::LEN;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int column = threadIdx.x / STEP_PIECES + i * APART;
      const bool has_column = column < columns && offset < in;
      copy_async(slab.piece(column, number), has_column ? weights + size_t(i * APART) * in + offset : weights, has_column);
    }
  }
};

// One step: this warp's 32 rows by 32 columns, two fragments of rows by four of columns.
template <class T>
__device__ __forceinline__ void multiply(TileSums (&sums)[2][4], Slab<T, STEP_PIECES>& x, Slab<T, STEP_PIECES>& weights,
                                         int first_row, int first_column) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  // Products in f32 take registers enough one at a time.
#pragma unroll(sizeof(T) == 4 ? 1 : 4)
  for (int k = 0; k < STEP_PIECES * Piece<T>::LEN; k += 16) {
    const typename Fragments<T>::A a[2] = {left_side(x, first_row, k), left_side(x, first_row + 16, k)};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      typename Fragments<T>::B b;
#pragma unroll
      for (int part = 0; part < 2; part++) weights.pair(b.at[part], first_column + j * 8 + g, k + part * 8 + 2 * t);
#pragma unroll
      for (int i = 0; i < 2; i++) mma<T>(sums[i][j], a[i], b);
    }
  }
}

// y [bounds[groups], out] from weights [groups, out, in], or without `bounds` y [num_rows, out] from one matrix; in f32 if it is wide. Row i of y
// is that of x[rows[i]], or without `rows` of x[i]. A grid of (row tiles, column tiles): at least as many row tiles as all groups can have,
// bounds[groups] / 64 + groups; those beyond leave at once. `in` is a multiple of 8, the addresses of x and the weights are of 16. A row's
// sums run along k alone and in its order.
template <class T>
__device__ __forceinline__ void grouped_product(const T* x, const unsigned* rows, const unsigned* bounds, const T* weights,
                                                const float* bias, void* y, int groups, int num_rows, int in, int out, bool is_wide) {
  union Memory { Slabs<T> slabs; Sums sums; };
  __align__(16) __shared__ unsigned char bytes[sizeof(Memory)];
  Slabs<T>& slabs = *reinterpret_cast<Slabs<T>*>(bytes);
  Sums& result = *reinterpret_cast<Sums*>(bytes);
  const RowTile tile = row_tile(bounds, groups, num_rows, int(blockIdx.x));
  if (tile.rows <= 0) return;
  const int first_column = int(blockIdx.y) * TILE;
  const size_t matrix_column = size_t(tile.group) * out + first_column;

  const RowSources<T, STEP_PIECES> row_sources(x, rows, tile, in);
  ColumnSources<T> sources;
  sources.in = in;
  sources.columns = min(TILE, out - first_column);
  sources.weights = weights + (matrix_column + min(int(threadIdx.x) / STEP_PIECES, sources.columns - 1)) * in;
  const auto copy = [&](int step, int k) {
    row_sources.copy(slabs.x[step], k);
    sources.copy(slabs.weights[step], k);
    commit_copies();
  };

  constexpr int STEP = STEP_PIECES * Piece<T>::LEN;
  const int warp = threadIdx.x / 32, warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
  TileSums sums[2][4] = {};
  // Past the last step copies are of zeros, which nobody reads.
#pragma unroll
  for (int step = 0; step < STEPS_HELD - 1; step++) copy(step, step * STEP);
  int now = 0, spare = STEPS_HELD - 1;
  for (int k = 0; k < in; k += STEP) {
    wait_for_copies<STEPS_HELD - 2>();
    __syncthreads();
    copy(spare, k + (STEPS_HELD - 1) * STEP);
    if (warp_row < tile.rows) multiply<T>(sums, slabs.x[now], slabs.weights[now], warp_row, warp_column);
    spare = now;
    now = now + 1 == STEPS_HELD ? 0 : now + 1;
  }
  wait_for_copies<0>();
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) put<T>(result, sums[i][j], warp_row + i * 16, warp_column + j * 8);
  }
  __syncthreads();
  if (bias) bias += matrix_column;
  store_sums<T>(result, y, size_t(tile.first) * out + first_column, is_wide, bias, tile.rows, sources.columns, out);
}

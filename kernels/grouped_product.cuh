// The product of rows grouped by matrix: each row times the matrix of its group, y = x Wᵀ + b. Blocks find their group on the device.
// Knows groups as bounds; knows nothing of how rows came to be grouped.
#pragma once
#include "mma.cuh"

constexpr int TILE = 64;  // rows, and columns, of a block's tile of y
constexpr int PRODUCT_THREADS = 128;
constexpr int STEP_PIECES = 8;  // pieces of each row and each column in one step along k
// Steps in shared memory: the one that is multiplied, and those on their way.
constexpr int STEPS_HELD = 3;

// One step's part of a tile's rows or columns, [TILE][STEP_PIECES]; the pieces of row r lie at their number XOR r % 8, so that lanes which
// read one column of eight rows meet eight different groups of banks.
template <class T>
struct Slab {
  Piece<T> pieces[TILE * STEP_PIECES];

  __device__ __forceinline__ Piece<T>* piece(int row, int number) { return &pieces[row * STEP_PIECES + (number ^ (row % STEP_PIECES))]; }
  // Two neighbours of a row, from an even column on.
  __device__ __forceinline__ void pair(T (&to)[2], int row, int column) {
    struct __align__(2 * sizeof(T)) Pair { T at[2]; };
    const Pair pair = *reinterpret_cast<const Pair*>(&piece(row, column / Piece<T>::LEN)->at[column % Piece<T>::LEN]);
    to[0] = pair.at[0], to[1] = pair.at[1];
  }
};

template <class T>
struct Slabs { Slab<T> x[STEPS_HELD], weights[STEPS_HELD]; };

// The tile of y in f32, padded so that rows begin in different banks.
struct Sums { float at[TILE][TILE + 8]; };

// Tile `number` of all groups' tiles, each group's own rows from bounds[group] to bounds[group + 1] on; `rows` 0: there is no such tile.
struct RowTile { int group, first, rows; };

// By each warp for itself: 32 groups at a time.
__device__ __forceinline__ RowTile find_row_tile(const unsigned* bounds, int groups, int number) {
  const int lane = threadIdx.x % 32;
  for (int group = 0; group < groups; group += 32) {
    const int mine = group + lane;
    const int first = mine < groups ? int(bounds[mine]) : 0, end = mine < groups ? int(bounds[mine + 1]) : 0;
    const int tiles = (end - first + TILE - 1) / TILE;
    int sum = tiles;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int before = __shfl_up_sync(0xffffffffu, sum, distance);
      if (lane >= distance) sum += before;
    }
    const unsigned reached = __ballot_sync(0xffffffffu, number < sum);
    if (reached) {
      const int owner = __ffs(int(reached)) - 1;
      const int start = __shfl_sync(0xffffffffu, first + (number - (sum - tiles)) * TILE, owner);
      return {group + owner, start, min(TILE, __shfl_sync(0xffffffffu, end, owner) - start)};
    }
    number -= __shfl_sync(0xffffffffu, sum, 31);
  }
  return {0, 0, 0};
}

// Where this thread copies from: piece `threadIdx.x % 8` of every 16th row of x and of every 16th column's weights.
template <class T>
struct Sources {
  static constexpr int EACH = TILE * STEP_PIECES / PRODUCT_THREADS, APART = PRODUCT_THREADS / STEP_PIECES;
  const T* x[EACH];  // null: no such row
  const T* weights;  // of the first of the columns
  int in, columns;   // length of rows; columns that the tile has

  // Starts the copies of the step from k on.
  __device__ __forceinline__ void copy(Slab<T>& x_slab, Slab<T>& weight_slab, int k) const {
    const int number = threadIdx.x % STEP_PIECES, first_row = threadIdx.x / STEP_PIECES;
    const int offset = k + number * Piece<T>::LEN;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int row = first_row + i * APART;
      const bool has_row = x[i] && offset < in, has_column = row < columns && offset < in;
      copy_async(x_slab.piece(row, number), has_row ? x[i] + offset : weights, has_row);
      copy_async(weight_slab.piece(row, number), has_column ? weights + size_t(i * APART) * in + offset : weights, has_column);
    }
    commit_copies();
  }
};

// One step: this warp's 32 rows by 32 columns, two fragments of rows by four of columns.
template <class T>
__device__ __forceinline__ void multiply(typename Fragments<T>::D (&sums)[2][4], Slab<T>& x, Slab<T>& weights, int first_row,
                                         int first_column) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  // Products in f32 take registers enough one at a time.
#pragma unroll(sizeof(T) == 4 ? 1 : 4)
  for (int k = 0; k < STEP_PIECES * Piece<T>::LEN; k += 16) {
    typename Fragments<T>::A a[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int part = 0; part < 4; part++) x.pair(a[i].at[part], first_row + i * 16 + part % 2 * 8 + g, k + part / 2 * 8 + 2 * t);
    }
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

// Stores the tile's `rows` and `columns`, with the bias, to y and on, rows `out` apart.
template <int LEN, class T>
__device__ __forceinline__ void store_tile(const Sums& sums, T* y, const float* bias, int rows, int columns, int out) {
  constexpr int RUNS = TILE / LEN;
  for (int run = threadIdx.x; run < rows * RUNS; run += PRODUCT_THREADS) {
    const int row = run / RUNS, column = run % RUNS * LEN;
    if (column >= columns) continue;
    Span<LEN> values = load_span<LEN>(&sums.at[row][column]);
    if (bias) {
      const Span<LEN> more = load_span<LEN>(bias + column);
#pragma unroll
      for (int i = 0; i < LEN; i++) values.at[i] += more.at[i];
    }
    store_span(y + size_t(row) * out + column, values);
  }
}

// y [bounds[groups], out] from weights [groups, out, in]. Row i of y is that of x[rows[i]], or without `rows` of x[i]. A grid of (row
// tiles, column tiles): at least as many row tiles as all groups can have, bounds[groups] / 64 + groups; those beyond leave at once.
// `in` is a multiple of 8, the addresses of x and the weights are of 16. A row's sums run along k alone and in its order.
template <class T>
__device__ __forceinline__ void grouped_product(const T* x, const unsigned* rows, const unsigned* bounds, const T* weights,
                                                const float* bias, T* y, int groups, int in, int out) {
  union Memory { Slabs<T> slabs; Sums sums; };
  __align__(16) __shared__ unsigned char bytes[sizeof(Memory)];
  Slabs<T>& slabs = *reinterpret_cast<Slabs<T>*>(bytes);
  Sums& result = *reinterpret_cast<Sums*>(bytes);
  const RowTile tile = find_row_tile(bounds, groups, int(blockIdx.x));
  if (tile.rows == 0) return;
  const int first_column = int(blockIdx.y) * TILE;
  const size_t matrix_column = size_t(tile.group) * out + first_column;

  Sources<T> sources;
  sources.in = in;
  sources.columns = min(TILE, out - first_column);
  const int own_row = threadIdx.x / STEP_PIECES;
  sources.weights = weights + (matrix_column + min(own_row, sources.columns - 1)) * in;
#pragma unroll
  for (int i = 0; i < Sources<T>::EACH; i++) {
    const int row = own_row + i * Sources<T>::APART, place = tile.first + row;
    sources.x[i] = row < tile.rows ? x + size_t(rows ? rows[place] : unsigned(place)) * in : nullptr;
  }

  constexpr int STEP = STEP_PIECES * Piece<T>::LEN;
  const int warp = threadIdx.x / 32, warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
  typename Fragments<T>::D sums[2][4] = {};
  // Past the last step copies are of zeros, which nobody reads.
#pragma unroll
  for (int step = 0; step < STEPS_HELD - 1; step++) sources.copy(slabs.x[step], slabs.weights[step], step * STEP);
  int now = 0, spare = STEPS_HELD - 1;
  for (int k = 0; k < in; k += STEP) {
    wait_for_copies<STEPS_HELD - 2>();
    __syncthreads();
    sources.copy(slabs.x[spare], slabs.weights[spare], k + (STEPS_HELD - 1) * STEP);
    if (warp_row < tile.rows) multiply<T>(sums, slabs.x[now], slabs.weights[now], warp_row, warp_column);
    spare = now;
    now = now + 1 == STEPS_HELD ? 0 : now + 1;
  }
  wait_for_copies<0>();
  __syncthreads();
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      for (int part = 0; part < 4; part++) {
        result.at[warp_row + i * 16 + part / 2 * 8 + g][warp_column + j * 8 + 2 * t + part % 2] = sums[i][j].at[part];
      }
    }
  }
  __syncthreads();
  y += size_t(tile.first) * out + first_column;
  if (bias) bias += matrix_column;
  if (out % Piece<T>::LEN == 0 && are_aligned(y, bias)) {
    store_tile<Piece<T>::LEN>(result, y, bias, tile.rows, sources.columns, out);
  } else {
    store_tile<1>(result, y, bias, tile.rows, sources.columns, out);
  }
}

// What products y = x Wᵀ + b of our own share: which rows of x a block of threads has, how they come to shared memory, and how a tile of
// y is stored. Knows rows and tiles; knows nothing of how weights are kept.
#pragma once
#include "mma.cuh"

constexpr int TILE = 64;  // rows, and at most as many columns, of a block's tile of y
constexpr int PRODUCT_THREADS = 128;

// One step's part of a tile's rows or columns, [TILE][PIECES]; the pieces of row r lie at their number XOR r % 8, so that lanes which
// read one column of eight rows meet eight different groups of banks.
template <class T, int PIECES>
struct Slab {
  Piece<T> pieces[TILE * PIECES];

  __device__ __forceinline__ Piece<T>* piece(int row, int number) { return &pieces[row * PIECES + (number ^ (row % 8))]; }
  // Two neighbours of a row, from an even column on.
  __device__ __forceinline__ void pair(T (&to)[2], int row, int column) {
    struct __align__(2 * sizeof(T)) Pair { T at[2]; };
    const Pair pair = *reinterpret_cast<const Pair*>(&piece(row, column / Piece<T>::LEN)->at[column % Piece<T>::LEN]);
    to[0] = pair.at[0], to[1] = pair.at[1];
  }
};

// The tile of y in f32, padded so that rows begin in different banks.
struct Sums { float at[TILE][TILE + 8]; };

// Tile `number` of all groups' tiles, each group's own rows from bounds[group] to bounds[group + 1] on; `rows` 0 or less: there is no such tile.
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

// Tile `number` of groups' rows, or without `bounds` of the rows of one group.
__device__ __forceinline__ RowTile row_tile(const unsigned* bounds, int groups, int num_rows, int number) {
  if (bounds) return find_row_tile(bounds, groups, number);
  return {0, number * TILE, min(TILE, num_rows - number * TILE)};
}

// Where this thread copies rows of x from: piece `threadIdx.x % PIECES` of every APARTth row of the tile.
template <class T, int PIECES>
struct RowSources {
  static constexpr int EACH = TILE * PIECES / PRODUCT_THREADS, APART = PRODUCT_THREADS / PIECES;
  const T* x[EACH];  // null: no such row
  const T* some;     // an address of x
  int in;            // length of rows

  // Row i of the tile is row rows[i] of x, or without `rows` row i.
  __device__ __forceinline__ RowSources(const T* all, const unsigned* rows, const RowTile& tile, int in) : some(all), in(in) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int row = int(threadIdx.x) / PIECES + i * APART, place = tile.first + row;
      x[i] = row < tile.rows ? all + size_t(rows ? rows[place] : unsigned(place)) * in : nullptr;
    }
  }
  // Starts the copies of the step from k on; zeros past a row's end.
  __device__ __forceinline__ void copy(Slab<T, PIECES>& slab, int k) const {
    const int number = threadIdx.x % PIECES, offset = k + number * Piece<T>::LEN;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const bool has_row = x[i] && offset < in;
      copy_async(slab.piece(threadIdx.x / PIECES + i * APART, number), has_row ? x[i] + offset : some, has_row);
    }
  }
};

// The part of a left side that 16 rows from `row` on and 16 columns from k on are.
template <class T, int PIECES>
__device__ __forceinline__ typename Fragments<T>::A left_side(Slab<T, PIECES>& x, int row, int k) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  typename Fragments<T>::A a;
#pragma unroll
  for (int part = 0; part < 4; part++) x.pair(a.at[part], row + part % 2 * 8 + g, k + part / 2 * 8 + 2 * t);
  return a;
}

// Puts a fragment of sums into the tile, from this row and column on.
template <class T>
__device__ __forceinline__ void put(Sums& result, const TileSums& sums, int row, int column) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int part = 0; part < 4; part++) result.at[row + part / 2 * 8 + g][column + 2 * t + part % 2] = sums.at[part];
}

// Stores the tile's `rows` and `columns`, with the bias, to y and on, rows `width` apart.
template <int LEN, class T>
__device__ __forceinline__ void store_tile(const Sums& sums, T* y, const float* bias, int rows, int columns, int width) {
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
    store_span(y + size_t(row) * width + column, values);
  }
}

// The same in whole pieces where addresses and width allow.
template <class T>
__device__ __forceinline__ void store_pieces(const Sums& sums, T* y, const float* bias, int rows, int columns, int width) {
  if (width % Piece<T>::LEN == 0 && columns % Piece<T>::LEN == 0 && are_aligned(y, bias)) {
    store_tile<Piece<T>::LEN>(sums, y, bias, rows, columns, width);
  } else {
    store_tile<1>(sums, y, bias, rows, columns, width);
  }
}

// The same to numbers of either format, from element `place` on.
template <class T>
__device__ __forceinline__ void store_sums(const Sums& sums, void* y, size_t place, bool is_wide, const float* bias, int rows, int columns,
                                           int width) {
  if (is_wide) store_pieces(sums, static_cast<float*>(y) + place, bias, rows, columns, width);
  else store_pieces(sums, static_cast<T*>(y) + place, bias, rows, columns, width);
}

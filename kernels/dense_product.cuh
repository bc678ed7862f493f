// The product of rows with one matrix on tensor cores, y = x Wᵀ + b, for 16 bits: where the vendor's library has none that gives a row the same
// bits in any batch. Tiles of several sizes, of which the host takes what fills the card; an output is summed along k in one order in all.
// Knows rows and columns; knows nothing of what they mean.
#pragma once
#include "mma.cuh"

constexpr int DENSE_THREADS = 128, DENSE_WARPS = DENSE_THREADS / 32;
// Numbers of a row or column in one step along k, and the 16-byte pieces that these are.
constexpr int DENSE_STEP = 64, DENSE_PIECES = 8;

// A block's tile of y, how its warps share it, and how many steps are in shared memory at once.
template <int ROWS_, int COLUMNS_, int WARPS_DOWN, int STAGES_>
struct DenseTile {
  static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, STAGES = STAGES_;
  static constexpr int WARP_ROWS = ROWS / WARPS_DOWN, WARP_COLUMNS = COLUMNS / (DENSE_WARPS / WARPS_DOWN);
  static constexpr int LEFT = WARP_ROWS / 16, RIGHT = WARP_COLUMNS / 8;  // fragments of a warp
  static constexpr int PIECES = (ROWS + COLUMNS) * DENSE_PIECES;         // of a stage: rows, then columns
  static constexpr int BYTES = STAGES * PIECES * 16;
};

// Piece `number` of a line, which is a row of x or of W, 128 bytes long. Lanes of two neighbouring lines read 64 bytes each at a time: odd
// lines have their halves swapped, so that these do not meet in the same banks.
struct DensePlace {
  __device__ __forceinline__ static int of(int line, int number) { return line * DENSE_PIECES + (number ^ line % 2 * 4); }
};

// Copies `LINES` lines of step `k` from rows of `from`, `in` numbers each, to their places: those that exist, and zeros for the others and past
// a row's end. By THREADS threads.
template <int LINES, int THREADS, class Place, class T>
__device__ __forceinline__ void copy_lines(Piece<T>* to, const T* from, int lines, int k, int in) {
  constexpr int APART = THREADS / DENSE_PIECES;
  const int number = threadIdx.x % DENSE_PIECES, offset = k + number * Piece<T>::LEN;
#pragma unroll
  for (int first = 0; first < LINES; first += APART) {
    const int line = first + int(threadIdx.x) / DENSE_PIECES;
    if (LINES % APART != 0 && line >= LINES) break;
    const bool is_there = line < lines && offset < in;
    copy_async(to + Place::of(line, number), is_there ? from + size_t(line) * in + offset : from, is_there);
  }
}

template <class T>
__device__ __forceinline__ Eight<T> dense_eight(const Piece<T>* lines, int line, int number) {
  return load_eight<T>(lines[DensePlace::of(line, number)].at);
}

// One step of this warp's part of the tile.
template <class T, class Tile>
__device__ __forceinline__ void multiply_step(TileSums (&sums)[Tile::LEFT][Tile::RIGHT], const Piece<T>* rows,
                                              const Piece<T>* columns) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int part = 0; part < DENSE_STEP / 32; part++) {
    Eight<T> left[Tile::LEFT][2];
#pragma unroll
    for (int i = 0; i < Tile::LEFT; i++) {
#pragma unroll
      for (int half = 0; half < 2; half++) left[i][half] = dense_eight(rows, i * 16 + half * 8 + g, part * 4 + t);
    }
#pragma unroll
    for (int j = 0; j < Tile::RIGHT; j++) {
      const Eight<T> right = dense_eight(columns, j * 8 + g, part * 4 + t);
#pragma unroll
      for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int i = 0; i < Tile::LEFT; i++) mma<T>(sums[i][j], left_half(left[i][0], left[i][1], half), right_half(right, half));
      }
    }
  }
}

// Where sums go: to y, rows `out` numbers apart, of which there are so many rows and columns from its first element on.
template <class To>
struct DenseTarget {
  To* y;
  const float* bias;                          // of the first column, or null
  const float *row_scales, *column_scales;    // of the first row and column, or both null: what sums are multiplied by
  int rows, columns, out;

  // The same from this row and column on, so many at most.
  __device__ __forceinline__ DenseTarget from(int row, int column, int most_rows, int most_columns) const {
    return {y + size_t(row) * out + column, bias ? bias + column : nullptr, row_scales ? row_scales + row : nullptr,
            column_scales ? column_scales + column : nullptr, min(most_rows, rows - row), min(most_columns, columns - column), out};
  }
  __device__ __forceinline__ To finished(float sum, int row, int column) const {
    if (row_scales) sum = sum * row_scales[row] * column_scales[column];
    return from_f32<To>(bias ? sum + bias[column] : sum);
  }
  // Whether all neighbours of a tile so large are there, and are stored together.
  __device__ __forceinline__ bool has_pairs(int tile_rows, int tile_columns) const {
    return rows == tile_rows && columns == tile_columns && out % 2 == 0;
  }
  // Two neighbours, from an even column on; one by one, as far as they are there, if not ALL pairs of the tile are.
  template <bool ALL>
  __device__ __forceinline__ void store(int row, int column, float first, float second) const {
    struct __align__(2 * sizeof(To)) Pair { To at[2]; };
    To* to = y + size_t(row) * out + column;
    if (ALL) {
      *reinterpret_cast<Pair*>(to) = {finished(first, row, column), finished(second, row, column + 1)};
    } else if (row < rows) {
      if (column < columns) to[0] = finished(first, row, column);
      if (column + 1 < columns) to[1] = finished(second, row, column + 1);
    }
  }
};

// Starts the copies of a tile's rows and columns in step `k` to a stage, and ends them as a group.
template <class Tile, int THREADS, class Place, class T, class To>
__device__ __forceinline__ void copy_step(Piece<T>* to, const T* x, const T* weights, const DenseTarget<To>& target, int k, int in) {
  copy_lines<Tile::ROWS, THREADS, Place>(to, x, target.rows, k, in);
  copy_lines<Tile::COLUMNS, THREADS, Place>(to + Tile::ROWS * DENSE_PIECES, weights, target.columns, k, in);
  commit_copies();
}

template <bool ALL, class T, class Tile, class To>
__device__ __forceinline__ void store_sums(const TileSums (&sums)[Tile::LEFT][Tile::RIGHT], const DenseTarget<To>& target,
                                           int warp_row, int warp_column) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < Tile::LEFT; i++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
      for (int j = 0; j < Tile::RIGHT; j++) {
        const float* pair = sums[i][j].at + 2 * half;
        target.template store<ALL>(warp_row + i * 16 + half * 8 + g, warp_column + j * 8 + 2 * t, pair[0], pair[1]);
      }
    }
  }
}

// y [rows, out] from x [rows, in] and W [out, in]. A grid of (row tiles, column tiles): blocks that read the same part of W are neighbours.
// `in` is a multiple of 8; the addresses of x and W are of 16, that of y of two numbers.
template <class Tile, class T, class To>
__device__ __forceinline__ void dense_product(const T* x, const T* weights, DenseTarget<To> target, int in) {
  DYNAMIC_SHARED(Piece<T>, stages);
  const int first_row = int(blockIdx.x) * Tile::ROWS, first_column = int(blockIdx.y) * Tile::COLUMNS;
  if (first_row >= target.rows || first_column >= target.columns) return;
  target = target.from(first_row, first_column, Tile::ROWS, Tile::COLUMNS);
  x += size_t(first_row) * in, weights += size_t(first_column) * in;
  const auto copy = [&](int stage, int k) { copy_step<Tile, DENSE_THREADS, DensePlace>(stages + stage * Tile::PIECES, x, weights, target, k, in); };

  constexpr int ACROSS = Tile::COLUMNS / Tile::WARP_COLUMNS;
  const int warp = threadIdx.x / 32, warp_row = warp / ACROSS * Tile::WARP_ROWS, warp_column = warp % ACROSS * Tile::WARP_COLUMNS;
  TileSums sums[Tile::LEFT][Tile::RIGHT] = {};
  // Past the last step copies are of zeros, which nobody reads.
#pragma unroll
  for (int stage = 0; stage < Tile::STAGES - 1; stage++) copy(stage, stage * DENSE_STEP);
  int now = 0, spare = Tile::STAGES - 1;
#pragma unroll 1
  for (int k = 0; k < in; k += DENSE_STEP) {
    wait_for_copies<Tile::STAGES - 2>();
    __syncthreads();  // the step is everyone's, and everyone is done with the one that is filled now
    copy(spare, k + (Tile::STAGES - 1) * DENSE_STEP);
    const Piece<T>* here = stages + now * Tile::PIECES;
    multiply_step<T, Tile>(sums, here + warp_row * DENSE_PIECES, here + (Tile::ROWS + warp_column) * DENSE_PIECES);
    spare = now;
    now = now + 1 == Tile::STAGES ? 0 : now + 1;
  }
  wait_for_copies<0>();
  if (target.has_pairs(Tile::ROWS, Tile::COLUMNS)) store_sums<true, T, Tile>(sums, target, warp_row, warp_column);
  else store_sums<false, T, Tile>(sums, target, warp_row, warp_column);
}

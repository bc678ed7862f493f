// The product of rows with one matrix, y = x Wᵀ + b, on Hopper's tensor cores: for 16 bits, and for rows and matrices in fp8. Tiles of several
// sizes, of which the host takes what fills the card; an output is summed along k in one order in all. Knows rows and columns; knows nothing of
// what they mean.
#pragma once
#include "dense_product.cuh"
#include "warpgroup.cuh"

#ifdef HAS_WARPGROUPS

// A block's tile of y: each warpgroup has 64 rows of it, and all columns.
template <class T, int ROWS_, int COLUMNS_, int STAGES_>
struct GroupTile {
  static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, STAGES = STAGES_;
  static constexpr int THREADS = ROWS / WARPGROUP_ROWS * WARPGROUP;
  static constexpr int STEP = LINE_BYTES / int(sizeof(T));        // numbers along k
  static constexpr int PIECES = (ROWS + COLUMNS) * LINE_PIECES;  // of a stage: rows, then columns
  // While a step is multiplied the one before may still be, so that steps are copied two places ahead of where there is room again.
  static constexpr int AHEAD = STAGES - 2;
  static_assert(AHEAD >= 1, "a step ahead at least");
};

// How a warpgroup sums steps: AT_ONCE after each other, the `number`th of which leaves at most its own products running.
template <class T, int COLUMNS>
struct StepSums {
  static constexpr int AT_ONCE = 1;
  GroupSums<COLUMNS> sums = {};

  __device__ __forceinline__ void add(int, Lines left, Lines right) {
    begin_products();
#pragma unroll
    for (int part = 0; part < LINE_PARTS; part++) multiply_lines<T>(sums, left.part(part), right.part(part), true);
    end_products();
    wait_for_products<1>();
  }
  __device__ __forceinline__ void finish() {
    wait_for_products<0>();
    settle(sums);
  }
};

// Of fp8 tensor cores keep some 14 bits of a sum (DeepSeek-AI 2024, arXiv 2412.19437, 3.3.2): they sum a step of 128, and steps are added up in
// f32, each while the next is multiplied. After several none runs, as the compiler sees to it that none does where a loop turns.
template <int COLUMNS>
struct StepSums<fp8, COLUMNS> {
  static constexpr int AT_ONCE = 4;
  GroupSums<COLUMNS> sums = {}, steps[2];

  __device__ __forceinline__ void add(int number, Lines left, Lines right) {
    begin_products();
#pragma unroll
    for (int part = 0; part < LINE_PARTS; part++) multiply_lines<fp8>(steps[number % 2], left.part(part), right.part(part), part > 0);
    end_products();
    if (number > 0) {
      wait_for_products<1>();
      take(steps[(number - 1) % 2]);
    }
    if (number == AT_ONCE - 1) {
      wait_for_products<0>();
      take(steps[number % 2]);
    }
  }
  __device__ __forceinline__ void finish() {}
  __device__ __forceinline__ void take(GroupSums<COLUMNS>& step) {
    settle(step);
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) sums.at[i / 4].at[i % 4] += step.at[i / 4].at[i % 4];
  }
};

template <bool ALL, int COLUMNS, class To>
__device__ __forceinline__ void store_sums(const GroupSums<COLUMNS>& sums, const DenseTarget<To>& target) {
  const int lane = threadIdx.x % 32, row = int(threadIdx.x) / 32 * 16 + lane / 4, column = lane % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; half++) {
#pragma unroll
    for (int j = 0; j < COLUMNS / 8; j++) {
      const float* pair = sums.at[j].at + 2 * half;
      target.template store<ALL>(row + 8 * half, column + 8 * j, pair[0], pair[1]);
    }
  }
}

// A tile of y [rows, out] from x [rows, in] and W [out, in]. A grid of (row tiles, column tiles): blocks that read the same part of W are
// neighbours. Rows begin at multiples of 16 bytes, y at one of two numbers.
template <class Tile, class T, class To>
__device__ __forceinline__ void warpgroup_product(const T* x, const T* weights, DenseTarget<To> target, int in) {
  DYNAMIC_SHARED(Piece<T>, memory);
  // Lines begin at a multiple of what they have to: the launch has so many bytes more.
  Piece<T>* stages = aligned_lines(memory);
  const int first_row = int(blockIdx.x) * Tile::ROWS, first_column = int(blockIdx.y) * Tile::COLUMNS;
  if (first_row >= target.rows || first_column >= target.columns) return;
  target = target.from(first_row, first_column, Tile::ROWS, Tile::COLUMNS);
  x += size_t(first_row) * in, weights += size_t(first_column) * in;
  const auto copy = [&](int stage, int k) { copy_step<Tile, Tile::THREADS, LinePlace>(stages + stage * Tile::PIECES, x, weights, target, k, in); };

  using Sums = StepSums<T, Tile::COLUMNS>;
  Sums sums;
  // Past the last step copies are of zeros, which add nothing.
#pragma unroll
  for (int stage = 0; stage < Tile::AHEAD; stage++) copy(stage, stage * Tile::STEP);
  int now = 0, spare = Tile::AHEAD;
  const auto next = [](int stage) { return stage + 1 == Tile::STAGES ? 0 : stage + 1; };
  const int group = threadIdx.x / WARPGROUP;
#pragma unroll 1
  for (int k = 0; k < in; k += Sums::AT_ONCE * Tile::STEP) {
#pragma unroll
    for (int number = 0; number < Sums::AT_ONCE; number++) {
      wait_for_copies<Tile::AHEAD - 1>();
      show_copies_to_products();
      __syncthreads();  // the step is everyone's, and everyone has waited for the products of the step before the last
      const Piece<T>* here = stages + now * Tile::PIECES;
      sums.add(number, Lines(here + group * WARPGROUP_ROWS * LINE_PIECES), Lines(here + Tile::ROWS * LINE_PIECES));
      copy(spare, k + (number + Tile::AHEAD) * Tile::STEP);
      now = next(now), spare = next(spare);
    }
  }
  sums.finish();
  wait_for_copies<0>();
  if (target.has_pairs(Tile::ROWS, Tile::COLUMNS)) store_sums<true>(sums.sums, target);
  else store_sums<false>(sums.sums, target);
}
#endif

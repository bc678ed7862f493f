// Prefill attention on Hopper's tensor cores: two warpgroups have 64 packed rows each and walk together over tiles of keys and values, in one
// running softmax from the first key to the last. While weights of a tile are found, the values of the tile before are multiplied (as FlashAttention-3
// does: Shah et al. 2024, arXiv 2407.08608, 3.2). Its bits are not decoding's, so whether a row is computed here is a matter of the row alone.
// Knows tiles of one key head; the softmax is attention.cuh's.
#pragma once
#include "attention.cuh"
#include "warpgroup.cuh"

#ifdef HAS_WARPGROUPS

// A block's rows, its tiles of keys and values, and where these lie in shared memory, in pieces of 16 bytes: queries, then two tiles of keys and
// two of values. A row of queries or keys is D / 64 lines, a row of values (of one d) KEYS / 64; first all rows' first lines.
template <int D>
struct GroupShape {
  static constexpr int ROWS = 2 * WARPGROUP_ROWS, THREADS = 2 * WARPGROUP, KEYS = D <= 128 ? 128 : 64;
  static constexpr int ROW_PIECES = D / 8, LINE_NUMBERS = LINE_BYTES / 2;
  static constexpr int QUERIES = ROWS * ROW_PIECES, TILE = KEYS * ROW_PIECES;
  static_assert(D % LINE_NUMBERS == 0 && KEYS % LINE_NUMBERS == 0, "whole lines");
};

template <class T, int D>
struct GroupMemory {
  using Shape = GroupShape<D>;
  Piece<T>* queries;
  __device__ __forceinline__ Piece<T>* keys(int stage) const { return queries + Shape::QUERIES + stage * Shape::TILE; }
  __device__ __forceinline__ Piece<T>* values(int stage) const { return keys(2 + stage); }

  // Piece `piece` of row `row`, where there are so many rows.
  __device__ __forceinline__ static int place(int rows, int row, int piece) {
    return LinePlace::of(piece / LINE_PIECES * rows + row, piece % LINE_PIECES);
  }
  // Part `part` (16 numbers of each) of rows from `first` on.
  __device__ __forceinline__ static Lines part(const Piece<T>* from, int rows, int first, int part) {
    return Lines(from + (part / LINE_PARTS * rows + first) * LINE_PIECES).part(part % LINE_PARTS);
  }
};

// Where keys and values of one key head of a sequence come from, and how many there are.
template <class T, int D>
struct GroupSource {
  using Shape = GroupShape<D>;
  using Memory = GroupMemory<T, D>;
  Source<T, D> source;
  int context;

  // The block of a position, as a panel of one head.
  __device__ __forceinline__ size_t panel(int position) const {
    return size_t(__ldg(source.block_tables + source.first_block + (unsigned(position) >> source.block_shift))) * source.kv_heads + source.kv_head;
  }
  // Keys that do not exist are the last one's, which nobody sees there.
  __device__ __forceinline__ void copy_keys(int tile, Piece<T>* to) const {
    constexpr int APART = Shape::THREADS / Shape::ROW_PIECES;
    const int thread = threadIdx.x, piece = thread % Shape::ROW_PIECES;
#pragma unroll
    for (int first = 0; first < Shape::KEYS; first += APART) {
      const int key = first + thread / Shape::ROW_PIECES, position = min(tile * Shape::KEYS + key, context - 1);
      const size_t slot = panel(position) * source.block_size + (position & (source.block_size - 1));
      copy_async(to + Memory::place(Shape::KEYS, key, piece), source.keys + slot * D + piece * 8, true);
    }
  }
  // A thread's values are those of eight keys, for every APART-th d. Of keys that do not exist they are zeros (`clear_values` for the last of
  // the eight): whatever the cache holds there must not meet a weight of 0, which would not silence a NaN.
  static constexpr int KEY_PIECES = Shape::KEYS / 8, APART = Shape::THREADS / KEY_PIECES;
  __device__ __forceinline__ int first_position(int tile) const { return tile * Shape::KEYS + int(threadIdx.x) % KEY_PIECES * 8; }
  __device__ __forceinline__ void copy_values(int tile, Piece<T>* to) const {
    const int first_d = threadIdx.x / KEY_PIECES, position = first_position(tile), there = min(position, (context - 1) & ~7);
    const T* from = source.values + (panel(there) * D + first_d) * source.block_size + (there & (source.block_size - 1));
#pragma unroll
    for (int d = 0; d < D; d += APART) {
      copy_async(to + Memory::place(D, first_d + d, threadIdx.x % KEY_PIECES), from + d * source.block_size, position < context);
    }
  }
  // Of values that this thread has copied, and that have come.
  __device__ __forceinline__ void clear_values(int tile, Piece<T>* stage) const {
    const int num_keys = context - first_position(tile);
    if (num_keys <= 0 || num_keys >= 8) return;
#pragma unroll 1
    for (int d = threadIdx.x / KEY_PIECES; d < D; d += APART) {
      T* values = stage[Memory::place(D, d, threadIdx.x % KEY_PIECES)].at;
#pragma unroll
      for (int key = 1; key < 8; key++) {
        if (key >= num_keys) values[key] = from_f32<T>(0.0f);
      }
    }
  }
};

// A warpgroup's rows on their way over the keys. A thread has two rows of its warp's 16.
template <class T, int D>
struct GroupRows {
  using Shape = GroupShape<D>;
  using Memory = GroupMemory<T, D>;
  GroupSums<D> outputs = {};
  GroupSums<Shape::KEYS> scores;
  typename Fragments<T>::A weights[Shape::KEYS / 16];
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f}, factor[2];

  // Begins scores = queries keysᵀ.
  __device__ __forceinline__ void begin_scores(const Piece<T>* queries, const Piece<T>* keys) {
    const int first_row = int(threadIdx.x) / WARPGROUP * WARPGROUP_ROWS;
    begin_products();
#pragma unroll
    for (int part = 0; part < D / 16; part++)
      multiply_lines<T>(scores, Memory::part(queries, Shape::ROWS, first_row, part), Memory::part(keys, Shape::KEYS, 0, part), part > 0);
    end_products();
  }
  // Begins outputs += weights values.
  __device__ __forceinline__ void begin_outputs(const Piece<T>* values) {
    begin_products();
#pragma unroll
    for (int part = 0; part < Shape::KEYS / 16; part++) add_product<T>(outputs, weights[part], Memory::part(values, D, 0, part));
    end_products();
  }
  __device__ __forceinline__ void weigh_scores(const ScoreRule& rule, const Sight& sight, int tile) {
    settle(scores);
    weigh(largest, sum, factor, scores.at, rule, sight, tile * Shape::KEYS, [](int n, int i) { return n * 8 + int(threadIdx.x) % 4 * 2 + i; });
    finish_first(sum[0] + sum[1]);
  }
};

template <class T, int D>
__device__ __forceinline__ void group_prefill(const Step<T, T>& step, const unsigned* cu_seqlens_q, const unsigned* items,
                                              const unsigned* num_items, const float* sinks, T* out) {
  DYNAMIC_SHARED(Piece<T>, shared);
  if (blockIdx.x >= *num_items) return;
  using Shape = GroupShape<D>;
  // Lines begin at a multiple of what they have to: the launch has so many bytes more.
  const GroupMemory<T, D> memory{aligned_lines(shared)};
  const int kv_head = blockIdx.y, warp = threadIdx.x / 32;
  const unsigned sequence = items[2 * blockIdx.x];
  const int block_row = items[2 * blockIdx.x + 1], first_row = block_row + warp * WARP_ROWS;
  const Rows rows = prefill_rows(step, cu_seqlens_q, sequence);
#pragma unroll 4
  for (int piece = threadIdx.x; piece < Shape::QUERIES; piece += Shape::THREADS) {
    const T* row = rows.query<T, D>(step.rows, step.row_width, kv_head, block_row + piece / Shape::ROW_PIECES);
    const int number = piece % Shape::ROW_PIECES;
    copy_async(memory.queries + memory.place(Shape::ROWS, piece / Shape::ROW_PIECES, number), row == nullptr ? step.rows : row + number * 8, row != nullptr);
  }

  const GroupSource<T, D> source{Source<T, D>(step, sequence, kv_head), rows.context};
  const ScoreRule rule(step.scale, step.soft_cap);
  const Sight sight = rows.sight(first_row, step.window);
  const int lowest = rows.position(block_row), highest = rows.position(block_row + Shape::ROWS - 1);
  const int begin = (step.window == 0 || lowest < step.window ? 0 : lowest - step.window + 1) / Shape::KEYS, end = highest / Shape::KEYS + 1;
  // What was copied up to here has come for everyone, and everyone is done with what is copied from here on.
  const auto arrive = [] {
    wait_for_copies<0>();
    show_copies_to_products();
    __syncthreads();
  };
  // The keys of the next tile and the values of this one, each in place of those of two tiles before.
  const auto copy_ahead = [&](int tile) {
    const int stage = (tile - begin) % 2;
    if (tile + 1 < end) source.copy_keys(tile + 1, memory.keys(1 - stage));
    source.copy_values(tile, memory.values(stage));
    commit_copies();
  };

  GroupRows<T, D> group;
  source.copy_keys(begin, memory.keys(0));
  commit_copies();
  arrive();
  group.begin_scores(memory.queries, memory.keys(0));
  copy_ahead(begin);
  wait_for_products<0>();
  group.weigh_scores(rule, sight, begin);
  round_weights<T>(group.weights, group.scores.at);
#pragma unroll 1
  for (int tile = begin + 1; tile < end; tile++) {
    const int stage = (tile - begin) % 2;
    arrive();
    group.begin_scores(memory.queries, memory.keys(stage));
    group.begin_outputs(memory.values(1 - stage));
    copy_ahead(tile);
    wait_for_products<1>();
    group.weigh_scores(rule, sight, tile);
    wait_for_products<0>();
    settle(group.outputs);
    rescale(group.outputs.at, group.factor);
    round_weights<T>(group.weights, group.scores.at);
  }
  wait_for_copies<0>();
  source.clear_values(end - 1, memory.values((end - 1 - begin) % 2));
  arrive();
  group.begin_outputs(memory.values((end - 1 - begin) % 2));
  wait_for_products<0>();
  settle(group.outputs);
#pragma unroll
  for (int half = 0; half < 2; half++) group.sum[half] = row_sum(group.sum[half]);
  // Nobody reads queries any more.
  T* staged = reinterpret_cast<T*>(memory.queries) + warp * WARP_ROWS * D;
  store_rows<T, D>(group.outputs.at, group.largest, group.sum, staged, rows, first_row, kv_head, sinks, step.heads, out);
}
#endif

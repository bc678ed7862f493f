// Attention over the paged cache, what decoding and prefill share: a tile of 32 keys on its way through shared memory, its scores, the
// running softmax (Milakov & Gimelshein 2018, arXiv 1805.02867) within a split of 512 keys, and how splits are merged. A row meets the
// same operations in the same order in both, so its bits do not depend on which of them computes it. Tiles and splits are counted from
// position 0 of the sequence. Knows warps and their rows of one key head; knows no launch.
#pragma once
#include "mma.cuh"

constexpr int TILE = 32, SPLIT = 512;
constexpr int WARP_ROWS = 16;
constexpr float LOG2_E = 1.44269504f;

// What a launch is told, the same for all its blocks. Keys are [blocks, Hkv, S, D], values [blocks, Hkv, D, S].
template <class T, class KV>
struct Step {
  const T* rows;
  int row_width;
  const KV* keys;
  const KV* values;
  const unsigned* context_lens;
  const unsigned* cu_blocks;
  const unsigned* block_tables;
  int heads, kv_heads, block_size;
  float scale;
  int window;
  float soft_cap;
};

// ---- a tile in shared memory: keys [32, ROW bytes], then values [D, 32]

template <class KV, int D>
struct Stage {
  // Lanes of two neighbouring keys read 64 bytes each at a time, which must not meet in the same banks: where rows are whole 128 bytes,
  // odd rows have the halves of each 128 bytes swapped.
  static constexpr unsigned ROW = (D * sizeof(KV) + 63) / 64 * 64;
  static constexpr unsigned SWAP = ROW % 128 == 0 ? 64 : 0;
  static constexpr unsigned KEY_BYTES = TILE * ROW;
  static constexpr unsigned BYTES = KEY_BYTES + D * TILE * sizeof(KV);
};

// One sequence's keys and values of one key head.
template <class KV, int D>
struct Source {
  const KV* keys;
  const KV* values;
  const unsigned* block_tables;
  unsigned first_block;
  unsigned kv_head, kv_heads, block_size, block_shift;

  template <class T>
  __device__ __forceinline__ Source(const Step<T, KV>& step, unsigned sequence, unsigned kv_head)
      : keys(step.keys), values(step.values), block_tables(step.block_tables), first_block(step.cu_blocks[sequence]), kv_head(kv_head),
        kv_heads(step.kv_heads), block_size(step.block_size), block_shift(unsigned(__ffs(step.block_size)) - 1) {}

  // Sends tile `tile` to `stage`; by all THREADS threads of the block.
  template <unsigned THREADS>
  __device__ __forceinline__ void copy(unsigned tile, unsigned char* stage) const {
    const unsigned first = tile * TILE, offset = first & (block_size - 1), thread = threadIdx.x;
    const size_t panel = size_t(__ldg(block_tables + first_block + (first >> block_shift))) * kv_heads + kv_head;
    const unsigned char* from = reinterpret_cast<const unsigned char*>(keys + (panel * block_size + offset) * D) + thread * 16;
    constexpr unsigned KEY_PIECES = D * sizeof(KV) / 16, VALUE_PIECES = TILE * sizeof(KV) / 16;
#pragma unroll 8
    for (unsigned start = 0; start < TILE * KEY_PIECES; start += THREADS) {
      const unsigned piece = start + thread;
      if (TILE * KEY_PIECES % THREADS != 0 && piece >= TILE * KEY_PIECES) break;
      // The first form says the same in numbers that are known when it is compiled.
      const unsigned key = THREADS % KEY_PIECES == 0 ? start / KEY_PIECES + thread / KEY_PIECES : piece / KEY_PIECES;
      const unsigned byte = (THREADS % KEY_PIECES == 0 ? thread : piece) % KEY_PIECES * 16;
      copy_async(stage + key * Stage<KV, D>::ROW + (byte ^ key % 2 * Stage<KV, D>::SWAP), from + start * 16, true);
    }
    stage += Stage<KV, D>::KEY_BYTES + thread * 16;
    const unsigned stride = block_size * sizeof(KV);
    from = reinterpret_cast<const unsigned char*>(values + panel * D * block_size + offset);
    from += thread / VALUE_PIECES * stride + thread % VALUE_PIECES * 16;
#pragma unroll 8
    for (unsigned start = 0; start < D * VALUE_PIECES; start += THREADS) {
      if (D * VALUE_PIECES % THREADS != 0 && start + thread >= D * VALUE_PIECES) break;
      copy_async(stage + start * 16, from, true);
      from += THREADS / VALUE_PIECES * stride;
    }
  }
};

// Values of keys that do not exist: whatever the cache holds there must not meet a weight of 0, which would not silence a NaN.
template <class KV, int D, int THREADS>
__device__ __forceinline__ void clear_values(unsigned char* stage, int num_keys) {
  const int key = threadIdx.x % TILE;
  if (key < num_keys) return;
  KV* values = reinterpret_cast<KV*>(stage + Stage<KV, D>::KEY_BYTES) + key;
#pragma unroll 1
  for (int d = threadIdx.x / TILE; d < D; d += THREADS / TILE) values[d * TILE] = from_f32<KV>(0.0f);
}

// ---- a warp's rows, in tiles of 16; a lane has two of a tile, lane / 4 and lane / 4 + 8

// Queries of R tiles of rows as left sides, two to 32 numbers: of the first numbers they stay in registers, of the others in the lane's own
// column of shared memory, KEPT_BYTES of it to a warp.
template <class T, int D, int R>
struct Queries {
  using A = typename Fragments<T>::A;
  struct __align__(16) Kept { A at; };
  static constexpr int STEPS = (D + 31) / 32;
  static constexpr int MOST = sizeof(T) == 2 && D <= 128 ? 4 / R : 0, HELD = STEPS < MOST ? STEPS : MOST;
  static constexpr int UNROLLED = HELD ? STEPS : 4 / int(sizeof(T));  // few, so that not all are read at once
  static constexpr unsigned KEPT_BYTES = (STEPS - HELD) * R * 2 * 32 * sizeof(Kept);
  A held[HELD ? HELD : 1][R][2];
  Kept* kept;

  // `row_at(row)` of the warp's 16 R rows: where it begins; one that is null is zeros, and so is what is beyond D.
  template <class RowAt>
  __device__ __forceinline__ Queries(unsigned char* warp_part, RowAt row_at)
      : kept(reinterpret_cast<Kept*>(warp_part) + threadIdx.x % 32) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int tile = 0; tile < R; tile++) {
      const T* rows[2] = {row_at(tile * WARP_ROWS + g), row_at(tile * WARP_ROWS + 8 + g)};
#pragma unroll
      for (int step = 0; step < STEPS; step++) {
        const int d = step * 32 + t * 8;
        Eight<T> eight[2];
#pragma unroll
        for (int i = 0; i < 2; i++) eight[i] = rows[i] != nullptr && d < D ? load_eight<T>(rows[i] + d) : eight_zeros<T>();
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const A left = left_half<T>(eight[0], eight[1], half);
          if (step < HELD) held[step < HELD ? step : 0][tile][half] = left;
          else kept[place(step, tile, half)].at = left;
        }
      }
    }
  }
  __device__ __forceinline__ static int place(int step, int tile, int half) { return (((step - HELD) * R + tile) * 2 + half) * 32; }
  __device__ __forceinline__ A at(int step, int tile, int half) const {
    if (step < HELD) return held[step < HELD ? step : 0][tile][half];
    const Kept left = kept[place(step, tile, half)];
    return left.at;
  }
};

// How scores q k become exponents of 2: cap (tanh) if there is one, then times `unit`. The scale is positive.
struct ScoreRule {
  float cap, before_cap, unit;
  __device__ __forceinline__ ScoreRule(float scale, float soft_cap)
      : cap(soft_cap), before_cap(soft_cap > 0.0f ? scale / soft_cap : 1.0f),
        unit(soft_cap > 0.0f ? LOG2_E : __fmul_rn(scale, LOG2_E)) {}
};

// Which keys are seen: all up to a row's own position, or the last `window` of them. Rows that are not there are at -1.
struct Sight {
  int position[2];  // of the lane's two rows, in their order
  int window;

  // One comparison for both ends.
  __device__ __forceinline__ bool sees(int row, int key) const {
    const int end = position[row] + 1, first = window == 0 ? 0 : end - window;
    return unsigned(key - first) < unsigned(end - first);
  }
  // Over the warp: false only if no row sees one of so many keys, and true only if all see all.
  __device__ __forceinline__ bool any(int first_key, int num_keys) const {
    return __any_sync(0xffffffffu, first_key <= position[1] && (window == 0 || first_key + num_keys - 1 > position[0] - window));
  }
  __device__ __forceinline__ bool all(int first_key, int num_keys) const {
    return __all_sync(0xffffffffu, first_key + num_keys - 1 <= position[0] && (window == 0 || first_key > position[1] - window));
  }
};

// One row's softmax so far: its largest exponent of 2, and the sum of the weights relative to it. Weights are rounded to T for the
// product with the values, and summed as they were in f32.
template <class T, int D>
struct Running {
  TileSums outputs[D / 8];
  float largest[2], sum[2];  // sum: of the lane's own keys
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < D / 8; n++) outputs[n] = {{0.0f, 0.0f, 0.0f, 0.0f}};
#pragma unroll
    for (int row = 0; row < 2; row++) largest[row] = -INFINITY, sum[row] = 0.0f;
  }
};

// What exponents are taken relative to: nothing seen gives weights of 0, not NaN.
__device__ __forceinline__ float relative_to(float largest) { return largest == -INFINITY ? 0.0f : largest; }

// The scores of a tile of keys, [rows, keys t * 8 + 2 n + 0 and 1] in scores[tile of rows][n]: the order in which they are a left side for
// the values. Keys are read once for all rows.
template <class T, class KV, int D, int R>
__device__ __forceinline__ void score(TileSums (&scores)[R][4], const Queries<T, D, R>& queries, const unsigned char* stage) {
  using Here = Stage<KV, D>;
  const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, swap = g % 2 * Here::SWAP;
  const unsigned char* row = stage + (g / 2 * 8 + g % 2) * Here::ROW;
#pragma unroll
  for (int i = 0; i < 4 * R; i++) scores[i / 4][i % 4] = {{0.0f, 0.0f, 0.0f, 0.0f}};
#pragma unroll Queries<T, D, R>::UNROLLED
  for (int step = 0; step < Queries<T, D, R>::STEPS; step++) {
    const unsigned byte = step * 32 * sizeof(KV);
    const unsigned char* keys = row + byte / 128 * 128 + ((byte % 128 + t * 8 * unsigned(sizeof(KV))) ^ swap);
    Eight<T> key[4];
#pragma unroll
    for (int n = 0; n < 4; n++) {
      const KV* address = reinterpret_cast<const KV*>(keys + 2 * n * Here::ROW);
      key[n] = (step + 1) * 32 <= D || step * 32 + int(t) * 8 < D ? load_eight<T>(address) : eight_zeros<T>();
    }
#pragma unroll
    for (int tile = 0; tile < R; tile++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const typename Fragments<T>::A left = queries.at(step, tile, half);
#pragma unroll
        for (int n = 0; n < 4; n++) mma<T>(scores[tile][n], left, right_half(key[n], half));
      }
    }
  }
}

// Takes scores of a lane's two rows with 8 N keys from `first_key` on into their running softmax: they become weights, and `factor` what the
// rows' outputs so far are to be multiplied by. `key_of(n, i)`: which of the keys a score's is. A row that sees none of them is left as it was,
// to the bit.
template <int N, class KeyOf>
__device__ __forceinline__ void weigh(float (&largest)[2], float (&sum)[2], float (&factor)[2], TileSums (&scores)[N], const ScoreRule& rule,
                                      const Sight& sight, int first_key, KeyOf key_of) {
  if (rule.cap > 0.0f) {
#pragma unroll
    for (int i = 0; i < 4 * N; i++) scores[i / 4].at[i % 4] = __fmul_rn(rule.cap, tanhf(__fmul_rn(scores[i / 4].at[i % 4], rule.before_cap)));
  }
  if (!sight.all(first_key, 8 * N)) {
#pragma unroll
    for (int i = 0; i < 4 * N; i++) {
      if (!sight.sees(i % 4 / 2, first_key + key_of(i / 4, i % 2))) scores[i / 4].at[i % 4] = -INFINITY;
    }
  }
#pragma unroll
  for (int row = 0; row < 2; row++) {
    float best = -INFINITY;
#pragma unroll
    for (int n = 0; n < N; n++) best = fmaxf(best, fmaxf(scores[n].at[2 * row], scores[n].at[2 * row + 1]));
    best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 1));
    best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 2));
    const float before = largest[row];
    // The product is rounded before it is subtracted: no growth is then a factor of exactly 1.
    largest[row] = fmaxf(before, __fmul_rn(best, rule.unit));
    const float origin = relative_to(largest[row]);
    factor[row] = power_of_two(before - origin);
    float added = 0.0f;
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
      for (int i = 2 * row; i < 2 * row + 2; i++) {
        scores[n].at[i] = power_of_two(fmaf(scores[n].at[i], rule.unit, -origin));
        added += scores[n].at[i];
      }
    }
    sum[row] = fmaf(sum[row], factor[row], added);
  }
}

// Times 1 is left out, which changes nothing; plus 0 makes no difference but to a zero's sign, which would else tell of tiles that were masked.
template <int N>
__device__ __forceinline__ void rescale(TileSums (&outputs)[N], const float (&factor)[2]) {
  if (!__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f)) return;
#pragma unroll
  for (int n = 0; n < N; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) outputs[n].at[i] = __fadd_rn(__fmul_rn(outputs[n].at[i], factor[i / 2]), 0.0f);
  }
}

// Weights as left sides for the values.
template <class T, int N>
__device__ __forceinline__ void round_weights(typename Fragments<T>::A (&weights)[N / 2], const TileSums (&scores)[N]) {
#pragma unroll
  for (int n = 0; n < N; n++) {
    round_pair(weights[n / 2].at[n % 2 * 2], scores[n].at[0], scores[n].at[1]);
    round_pair(weights[n / 2].at[n % 2 * 2 + 1], scores[n].at[2], scores[n].at[3]);
  }
}

// Takes a tile of keys and values into the running softmax of a warp's rows. Values are read once for all rows.
template <class T, class KV, int D, int R>
__device__ __forceinline__ void add_tile(Running<T, D> (&running)[R], const Queries<T, D, R>& queries, const unsigned char* stage,
                                         const ScoreRule& rule, const Sight (&sight)[R], int first_key) {
  TileSums scores[R][4];
  typename Fragments<T>::A weights[R][2];
  score<T, KV, D, R>(scores, queries, stage);
#pragma unroll
  for (int tile = 0; tile < R; tile++) {
    Running<T, D>& own = running[tile];
    float factor[2];
    weigh(own.largest, own.sum, factor, scores[tile], rule, sight[tile], first_key, [](int n, int i) { return int(threadIdx.x) % 4 * 8 + n * 2 + i; });
    rescale(own.outputs, factor);
    round_weights<T>(weights[tile], scores[tile]);
  }
  const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const KV* values = reinterpret_cast<const KV*>(stage + Stage<KV, D>::KEY_BYTES) + g * TILE + t * 8;
  constexpr int AT_ONCE = D / 8 % 4 == 0 ? 4 : 2;
#pragma unroll
  for (int start = 0; start < D / 8; start += AT_ONCE) {
    Eight<T> value[AT_ONCE];
#pragma unroll
    for (int n = 0; n < AT_ONCE; n++) value[n] = load_eight<T>(values + (start + n) * 8 * TILE);
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
      for (int tile = 0; tile < R; tile++) {
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) mma<T>(running[tile].outputs[start + n], weights[tile][half], right_half(value[n], half));
      }
    }
  }
}

// ---- splits: merged in their order into a total that begins with largest = -inf, sum = 0, outputs = 0

struct MergeWeights {
  float total, part;
  __device__ __forceinline__ MergeWeights(float total_largest, float part_largest) {
    const float origin = relative_to(fmaxf(total_largest, part_largest));
    total = power_of_two(total_largest - origin);
    part = power_of_two(part_largest - origin);
  }
  // A sum, or an output. A split in which nothing was seen changes nothing, as no total is a negative zero.
  __device__ __forceinline__ float merged(float of_total, float of_part) const {
    return __fadd_rn(fmaf(of_part, part, __fmul_rn(of_total, total)), 0.0f);
  }
};

// The sum over the four lanes of a row.
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// What outputs are multiplied by at the end. A sink is a score that takes its share of the sum and has no value.
__device__ __forceinline__ float final_factor(float largest, float sum, const float* sinks, int head) {
  if (sum == 0.0f) return 0.0f;
  if (sinks != nullptr) sum = __fadd_rn(sum, power_of_two(__fmul_rn(sinks[head], LOG2_E) - largest));
  return 1.0f / sum;
}

// ---- rows of a prefill

// The packed rows of one key head: token after token, each with the heads of the group.
struct Rows {
  int group, num_rows, context, first_position;
  unsigned first_token;
  __device__ __forceinline__ Rows(int group, unsigned first_token, int num_tokens, int context)
      : group(group), num_rows(num_tokens * group), context(context), first_position(context - num_tokens), first_token(first_token) {}
  __device__ __forceinline__ int position(int row) const { return first_position + min(row, num_rows - 1) / group; }
  // Where the row begins in rows of `width` numbers that begin with queries.
  __device__ __forceinline__ size_t place(int row, int width, int kv_head, int head_dim) const {
    return (first_token + row / group) * size_t(width) + (kv_head * group + row % group) * head_dim;
  }
  // Of the 16 rows from `first` on.
  __device__ __forceinline__ Sight sight(int first, int window) const {
    Sight sight;
    sight.window = window;
#pragma unroll
    for (int half = 0; half < 2; half++) sight.position[half] = first < num_rows ? position(first + threadIdx.x % 32 / 4 + 8 * half) : -1;
    return sight;
  }
  template <class T, int D>
  __device__ __forceinline__ const T* query(const T* rows, int width, int kv_head, int row) const {
    return row < num_rows ? rows + place(row, width, kv_head, D) : nullptr;
  }
};

template <class T, class KV>
__device__ __forceinline__ Rows prefill_rows(const Step<T, KV>& step, const unsigned* cu_seqlens_q, unsigned sequence) {
  const unsigned first_token = cu_seqlens_q[sequence];
  return Rows(step.heads / step.kv_heads, first_token, cu_seqlens_q[sequence + 1] - first_token, step.context_lens[sequence]);
}

// Writes 16 rows by way of the warp's part of shared memory, so that what goes out are whole pieces.
template <class T, int D>
__device__ __forceinline__ void store_rows(const TileSums (&outputs)[D / 8], const float (&largest)[2], const float (&sum)[2], T* staged,
                                           const Rows& rows, int first_row, int kv_head, const float* sinks, int heads, T* out) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  __syncwarp();
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = g + 8 * half;
    const float factor = final_factor(largest[half], sum[half], sinks, kv_head * rows.group + (first_row + row) % rows.group);
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
      for (int i = 0; i < 2; i++) staged[row * D + n * 8 + 2 * t + i] = from_f32<T>(__fmul_rn(outputs[n].at[2 * half + i], factor));
    }
  }
  __syncwarp();
  constexpr int ROW_PIECES = D / Piece<T>::LEN;
  for (int piece = lane; piece < WARP_ROWS * ROW_PIECES; piece += 32) {
    const int row = first_row + piece / ROW_PIECES, d = piece % ROW_PIECES * Piece<T>::LEN;
    if (row < rows.num_rows) store_piece(out + rows.place(row, heads * D, kv_head, D) + d, load_piece(staged + piece * Piece<T>::LEN));
  }
}
